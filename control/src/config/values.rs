//! Values that several keys share, and what is said about wrong ones.

use std::net::{IpAddr, Ipv4Addr};

use toml::Value;

use super::source::{ConfigError, Source};

/// The longest name of a node, port, peer or path.
const NAME_LEN_MAX: usize = 63;

/// The highest lcore id that a list may spell out; what exists is the dataplane's to say.
const LCORE_ID_MAX: u32 = 1023;

/// A value that does not exist yet, and what to write instead.
pub fn later_value(source: &Source, key: &str, value: &str, instead: &str) -> ConfigError {
    let message =
        format!("{value} is not built yet, it comes later: write {instead}, or remove the key");
    source.error(key, message)
}

/// Names go into stats, logs and file names.
pub fn name(text: &str) -> Result<(), String> {
    let good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if text.is_empty() || text.len() > NAME_LEN_MAX || !text.chars().all(good) {
        return Err(format!(
            "{text:?} is not a name: use 1 to {NAME_LEN_MAX} letters, digits, '.', '_' and '-'"
        ));
    }
    Ok(())
}

/// A required text.
pub fn required<'a>(
    source: &Source,
    key: &str,
    value: Option<&'a String>,
    what: &str,
) -> Result<&'a str, ConfigError> {
    value
        .map(String::as_str)
        .ok_or_else(|| source.error(key, format!("missing: {what}")))
}

/// One of a few words.
pub fn one_of<T: Copy>(
    source: &Source,
    key: &str,
    value: Option<&String>,
    default: T,
    words: &[(&str, T)],
) -> Result<T, ConfigError> {
    let Some(value) = value else {
        return Ok(default);
    };
    let known = words.iter().find(|(word, _)| word == value);
    known.map(|&(_, meaning)| meaning).ok_or_else(|| {
        let words: Vec<_> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
        source.error(
            key,
            format!("{value:?} is not known: write {}", words.join(" or ")),
        )
    })
}

/// A whole number within bounds, or `"auto"` where that is allowed (`None`).
pub fn number(
    source: &Source,
    key: &str,
    value: Option<&Value>,
    range: std::ops::RangeInclusive<i64>,
    auto: bool,
) -> Result<Option<i64>, ConfigError> {
    match value {
        None => Ok(None),
        Some(Value::String(word)) if auto && word == "auto" => Ok(None),
        Some(Value::Integer(number)) if range.contains(number) => Ok(Some(*number)),
        Some(other) => {
            let (low, high) = range.into_inner();
            let auto = if auto { "\"auto\" or " } else { "" };
            let message = format!(
                "{} does not fit: write {auto}a whole number from {low} to {high}",
                shown(other)
            );
            Err(source.error(key, message))
        }
    }
}

/// A value as one writes it.
pub fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{text:?}"),
        Value::Table(_) => "a table".into(),
        other => other.to_string(),
    }
}

/// A list of lcores: `"auto"` (`None`), `"0-3,8"`, or `[0, 1]`.
pub fn lcores(
    source: &Source,
    key: &str,
    value: Option<&Value>,
) -> Result<Option<Vec<u32>>, ConfigError> {
    let wrong = |value: &Value| {
        let message = format!(
            "{} is not a list of lcores: write \"auto\", \"0-3,8\" or [0, 1], ids up to \
             {LCORE_ID_MAX}",
            shown(value)
        );
        source.error(key, message)
    };
    let Some(value) = value else { return Ok(None) };
    let list = match value {
        Value::String(text) if text == "auto" => return Ok(None),
        Value::String(text) => core_list(text),
        Value::Array(items) => items.iter().map(lcore).collect(),
        _ => None,
    };
    let list = list
        .filter(|list| !list.is_empty())
        .ok_or_else(|| wrong(value))?;
    for (at, lcore) in list.iter().enumerate() {
        if list.iter().take(at).any(|earlier| earlier == lcore) {
            return Err(source.error(key, format!("lcore {lcore} is given twice: name it once")));
        }
    }
    Ok(Some(list))
}

fn lcore(value: &Value) -> Option<u32> {
    let id = u32::try_from(value.as_integer()?).ok()?;
    (id <= LCORE_ID_MAX).then_some(id)
}

/// EAL's core list: numbers and ranges, separated by commas.
fn core_list(text: &str) -> Option<Vec<u32>> {
    let id = |text: &str| {
        let id: u32 = text.trim().parse().ok()?;
        (id <= LCORE_ID_MAX).then_some(id)
    };
    let mut list = Vec::new();
    for part in text.split(',') {
        match part.split_once('-') {
            Some((first, last)) => {
                let (first, last) = (id(first)?, id(last)?);
                if first > last {
                    return None;
                }
                list.extend(first..=last);
            }
            None => list.push(id(part)?),
        }
    }
    Some(list)
}

/// An address that a host on a network can have.
pub fn is_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            !(v4.is_unspecified() || v4.is_broadcast() || v4.is_multicast() || v4.is_loopback())
                && v4.octets()[0] != 0
        }
        IpAddr::V6(v6) => !(v6.is_unspecified() || v6.is_multicast() || v6.is_loopback()),
    }
}

/// The first and the last address of a network are not hosts', except in a /31.
pub fn is_host_of(address: Ipv4Addr, prefix_len: u8) -> bool {
    if prefix_len >= 31 {
        return true;
    }
    let hosts = u32::MAX.checked_shr(u32::from(prefix_len)).unwrap_or(0);
    let host = u32::from(address) & hosts;
    host != 0 && host != hosts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn core_lists() {
        assert_eq!(core_list("0-3"), Some(vec![0, 1, 2, 3]));
        assert_eq!(core_list("5, 1-2"), Some(vec![5, 1, 2]));
        for wrong in [
            "",
            "a",
            "3-1",
            "1-",
            "-1",
            "(0-3)@1",
            "0-4294967295",
            "1024",
        ] {
            assert_eq!(core_list(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn hosts_of_a_network() {
        let host = |text: &str, len| is_host_of(text.parse().unwrap(), len);
        assert!(host("10.9.0.1", 24));
        assert!(!host("10.9.0.0", 24));
        assert!(!host("10.9.0.255", 24));
        assert!(host("10.9.0.0", 31));
        assert!(host("10.9.0.255", 16));
    }
}
