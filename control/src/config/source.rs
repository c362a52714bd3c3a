//! The text of a configuration file, and where in it a key stands.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// From this Jaro similarity on a name may be a misspelt other one, as clap judges options.
const LIKE: f64 = 0.7;

/// What is wrong with a configuration: one line that names file, key and remedy.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1, where that is known.
    pub line: Option<usize>,
    /// The key as a path such as `peer[0].lan`; empty if it concerns the whole file.
    pub key: String,
    /// What is wrong, and what to do.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        // Whatever a message quotes, it stays one line.
        let message: String = self
            .message
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        write!(f, ": {message}")
    }
}

impl std::error::Error for ConfigError {}

/// A configuration file's name and text.
pub struct Source {
    file: PathBuf,
    text: String,
}

impl Source {
    /// A text that was read from `file`.
    pub fn new(file: &Path, text: String) -> Self {
        Self {
            file: file.into(),
            text,
        }
    }

    /// The file's name.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// A file named in the configuration: relative names start at the configuration's folder.
    pub fn sibling(&self, name: &str) -> PathBuf {
        self.file.parent().unwrap_or(Path::new("")).join(name)
    }

    /// An error about a key, with its line.
    pub fn error(&self, key: &str, message: impl Into<String>) -> ConfigError {
        ConfigError {
            file: self.file.clone(),
            line: self.line_of(key),
            key: key.into(),
            message: message.into(),
        }
    }

    /// An error whose text begins with the key it is about, and a colon.
    pub fn error_with_key(&self, text: &str) -> ConfigError {
        match text.split_once(": ") {
            Some((key, message)) if self.is_key(key) => self.error(key, message),
            _ => self.error("", text),
        }
    }

    /// An error of the TOML reader, with line and key.
    pub fn toml_error(&self, error: &toml::de::Error) -> ConfigError {
        let span = error.span().unwrap_or_default();
        let key = DeTable::parse(&self.text)
            .ok()
            .and_then(|table| deepest_key(table.get_ref(), span.start))
            .unwrap_or_default();
        ConfigError {
            file: self.file.clone(),
            line: error.span().map(|span| self.line_at(span.start)),
            key,
            message: with_remedy(&error.message().trim().replace('\n', "; ")),
        }
    }

    fn is_key(&self, text: &str) -> bool {
        !text.is_empty()
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "._[]".contains(c))
    }

    fn line_at(&self, offset: usize) -> usize {
        let before = self.text.as_bytes().iter().take(offset);
        1 + before.filter(|&&byte| byte == b'\n').count()
    }

    /// The line of a key, or of the innermost table around it that is there.
    fn line_of(&self, key: &str) -> Option<usize> {
        let table = DeTable::parse(&self.text).ok()?;
        let mut table = table.get_ref();
        let mut found = None;
        for step in key.split('.') {
            let (name, index) = match step.split_once('[') {
                Some((name, index)) => (name, index.trim_end_matches(']').parse().ok()),
                None => (step, None),
            };
            let entry = table.iter().find(|(known, _)| known.get_ref() == name);
            let Some((known, value)) = entry else { break };
            let mut value: &Spanned<DeValue<'_>> = value;
            let mut span = known.span();
            if let (Some(index), Some(array)) = (index, value.get_ref().as_array()) {
                let Some(element) = array.get::<usize>(index) else {
                    break;
                };
                value = element;
                span = element.span();
            }
            found = Some(self.line_at(span.start));
            match value.get_ref().as_table() {
                Some(inner) => table = inner,
                None => break,
            }
        }
        found
    }
}

/// What serde says of a wrong type or an unknown key, and what to write instead.
fn with_remedy(message: &str) -> String {
    if let Some(unknown) = message.strip_prefix("unknown field ") {
        let mut names = unknown.split('`').skip(1).step_by(2);
        let meant = names.next().and_then(|name| nearest(name, names));
        return match meant {
            Some((name, meant)) => format!("no key is called `{name}`: did you mean `{meant}`?"),
            None => message.into(),
        };
    }
    let expected = message
        .starts_with("invalid type: ")
        .then(|| message.rsplit_once(", expected "));
    let remedy = match expected.flatten() {
        Some((_, "a string")) => "write text in quotes, as \"...\"",
        Some((_, "a boolean")) => "write true or false, without quotes",
        Some((_, "a sequence")) => "write a list, as [\"...\"]",
        Some((_, expected)) if expected.starts_with("struct ") => "write a section, as [name]",
        Some((_, "u16")) => "write a whole number from 0 to 65535, without quotes",
        _ => return message.into(),
    };
    format!("{message}: {remedy}")
}

/// The known name that somebody may have meant.
fn nearest<'a>(name: &'a str, known: impl Iterator<Item = &'a str>) -> Option<(&'a str, &'a str)> {
    known
        .map(|known| (strsim::jaro(name, known), known))
        .filter(|(likeness, _)| *likeness > LIKE)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, known)| (name, known))
}

/// The innermost key whose name or value stands at `offset`.
fn deepest_key(table: &DeTable<'_>, offset: usize) -> Option<String> {
    let holds = |span: Range<usize>| span.contains(&offset);
    let mut found = None;
    for (name, value) in table.iter() {
        let here = holds(name.span()) || holds(value.span());
        let inner = match value.get_ref() {
            DeValue::Table(inner) => deepest_key(inner, offset).map(|key| format!(".{key}")),
            DeValue::Array(array) => array.iter().enumerate().find_map(|(at, element)| {
                let inner = element.get_ref().as_table()?;
                match deepest_key(inner, offset) {
                    Some(key) => Some(format!("[{at}].{key}")),
                    None => holds(element.span()).then(|| format!("[{at}]")),
                }
            }),
            _ => None,
        };
        if inner.is_some() || here {
            found = Some(format!("{}{}", name.get_ref(), inner.unwrap_or_default()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
[node]
name = \"a\"

[[port]]
name = \"lan0\"

[[port]]
name = \"wan0\"
mtu = 1500

[[peer]]
name = \"b\"
[[peer.path]]
port = \"wan0\"
";

    fn source() -> Source {
        Source::new(Path::new("/etc/gw.toml"), TEXT.into())
    }

    #[test]
    fn keys_are_found_by_line() {
        let line = |key| source().error(key, "").line;
        assert_eq!(line("node.name"), Some(2));
        assert_eq!(line("port[1].mtu"), Some(9));
        assert_eq!(line("peer[0].path[0].port"), Some(14));
        // What is missing is shown where it should be.
        assert_eq!(line("port[1].device"), Some(7));
        assert_eq!(line("node.private_key_file"), Some(1));
        assert_eq!(line("tunnel.listen_port"), None);
        assert_eq!(line(""), None);
    }

    #[test]
    fn an_error_is_one_line() {
        let error = source().error("port[1].mtu", "\"a\nb\" is not a number");
        assert_eq!(
            error.to_string(),
            "/etc/gw.toml:9: port[1].mtu: \"a b\" is not a number"
        );
        assert_eq!(source().error("", "bad").to_string(), "/etc/gw.toml: bad");
    }

    #[test]
    fn errors_that_name_their_key_get_a_line() {
        let error = source().error_with_key("node.name: too long");
        assert_eq!(error.to_string(), "/etc/gw.toml:2: node.name: too long");
        let error = source().error_with_key("no such thing: really");
        assert_eq!(error.to_string(), "/etc/gw.toml: no such thing: really");
    }

    #[test]
    fn toml_errors_name_the_innermost_key() {
        let table = DeTable::parse(TEXT).unwrap();
        let key = |what: &str| deepest_key(table.get_ref(), TEXT.find(what).unwrap());
        assert_eq!(key("1500").as_deref(), Some("port[1].mtu"));
        assert_eq!(key("\"b\"").as_deref(), Some("peer[0].name"));
    }

    #[test]
    fn files_are_looked_for_beside_the_configuration() {
        assert_eq!(source().sibling("gw.key"), Path::new("/etc/gw.key"));
        assert_eq!(source().sibling("/keys/gw.key"), Path::new("/keys/gw.key"));
        let here = Source::new(Path::new("gw.toml"), String::new());
        assert_eq!(here.sibling("gw.key"), Path::new("gw.key"));
    }
}
