//! As much of JSON Schema as the stats schema uses. A keyword that it does not know is a failure,
//! so nothing in the schema goes unchecked.

use serde_json::Value;

/// The first way in which `document` does not fit the schema.
pub fn violation(schema: &Value, document: &Value) -> Option<String> {
    check(schema, schema, document, "$").err()
}

fn check(root: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let keywords = schema
        .as_object()
        .ok_or_else(|| format!("{at}: no schema"))?;
    for (keyword, rule) in keywords {
        let fits = match keyword.as_str() {
            "$schema" | "$defs" | "title" | "description" => true,
            "$ref" => {
                let pointer = rule
                    .as_str()
                    .and_then(|name| name.strip_prefix('#'))
                    .unwrap();
                check(root, root.pointer(pointer).unwrap(), value, at)?;
                true
            }
            "type" => match rule {
                Value::Array(types) => types.iter().any(|one| has_type(value, one)),
                one => has_type(value, one),
            },
            "const" => value == rule,
            "enum" => rule.as_array().unwrap().contains(value),
            "minimum" => value
                .as_f64()
                .is_none_or(|number| number >= rule.as_f64().unwrap()),
            "required" => {
                let missing = rule.as_array().unwrap().iter().find(|name| {
                    value
                        .as_object()
                        .is_some_and(|object| !object.contains_key(name.as_str().unwrap()))
                });
                if let Some(name) = missing {
                    return Err(format!("{at}: {name} is missing"));
                }
                true
            }
            "items" => {
                for (index, element) in value.as_array().into_iter().flatten().enumerate() {
                    check(root, rule, element, &format!("{at}[{index}]"))?;
                }
                true
            }
            "properties" => {
                for (name, rule) in rule.as_object().unwrap() {
                    if let Some(member) = value.get(name) {
                        check(root, rule, member, &format!("{at}.{name}"))?;
                    }
                }
                true
            }
            "additionalProperties" => {
                let named = keywords.get("properties").and_then(Value::as_object);
                for (name, member) in value.as_object().into_iter().flatten() {
                    if named.is_some_and(|named| named.contains_key(name)) {
                        continue;
                    }
                    let at = format!("{at}.{name}");
                    match rule {
                        Value::Bool(true) => {}
                        Value::Bool(false) => return Err(format!("{at} is not in the schema")),
                        rule => check(root, rule, member, &at)?,
                    }
                }
                true
            }
            unknown => panic!("this validator does not know {unknown}"),
        };
        if !fits {
            return Err(format!("{at}: {value} against {keyword}: {rule}"));
        }
    }
    Ok(())
}

fn has_type(value: &Value, name: &Value) -> bool {
    match name.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        unknown => panic!("no such type: {unknown}"),
    }
}
