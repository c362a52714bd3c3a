//! Files of named path profiles, and the `FILE:NAME` that picks from one.
//!
//! A file is TOML with two lists: `[[single]]` with `name` and `path`, and `[[pair]]` with `name`,
//! `a`, `b` and optionally the published goodputs to compare with. Unknown keys are errors.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Deserialize;

use crate::files::{self, Pipes};
use crate::path::{InvalidProfile, PathProfile};

/// Largest profile file, bytes: a thousand profiles. A file beyond is not a profile file.
const FILE_LEN_MAX: u64 = 1 << 20;

/// One named path.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Single {
    /// Unique among all singles and pairs of a file.
    pub name: String,
    /// Both directions of it.
    pub path: PathProfile,
}

/// Two paths between the same two sites.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pair {
    /// Unique among all singles and pairs of a file.
    pub name: String,
    /// One path.
    pub a: PathProfile,
    /// The other.
    pub b: PathProfile,
    /// Published goodput of the better path alone, Mbit/s.
    pub best_single: Option<f64>,
    /// Best published goodput of both together, Mbit/s.
    pub best_published: Option<f64>,
}

/// All profiles of a file.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProfileFile {
    /// Single paths.
    pub single: Vec<Single>,
    /// Pairs of paths.
    pub pair: Vec<Pair>,
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq)]
pub enum Profile {
    /// One path.
    Single(PathProfile),
    /// Two paths.
    Pair(Pair),
}

/// Why there is no profile. Each message is one line that names the file.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// Not of the form `FILE:NAME`.
    #[error("`{0}` is not FILE:NAME (a profile file, a colon, the name of a profile in it)")]
    Reference(String),
    /// The file cannot be read.
    #[error("{file}: {error}; give a readable profile file", file = file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// Not TOML, or not of this shape.
    #[error("{file}:{line}: {key}{message}", file = file.display(), key = named(key))]
    Parse {
        /// The file.
        file: PathBuf,
        /// Line, from 1.
        line: usize,
        /// The key whose value is wrong, if it is a value.
        key: Option<String>,
        /// What is wrong.
        message: String,
    },
    /// A value outside its range.
    #[error("{file}: profile `{profile}`: {invalid}", file = file.display())]
    Value {
        /// The file.
        file: PathBuf,
        /// Name of the profile; for one path of a pair with `/a` or `/b`.
        profile: String,
        /// Key, value and what it may be.
        invalid: InvalidProfile,
    },
    /// Two profiles of one name.
    #[error("{file}: name = \"{name}\" is given twice; rename one", file = file.display())]
    Duplicate {
        /// The file.
        file: PathBuf,
        /// The name.
        name: String,
    },
    /// No profile of that name.
    #[error("{file}: no profile `{name}`; {there}", file = file.display(), there = there_are(known))]
    Unknown {
        /// The file.
        file: PathBuf,
        /// The name asked for.
        name: String,
        /// The names there are, separated by commas; empty if there are none.
        known: String,
    },
    /// A pair where one path is needed.
    #[error("{file}: `{name}` is a pair; name one of its paths: {name}/a or {name}/b", file = file.display())]
    IsPair {
        /// The file.
        file: PathBuf,
        /// The pair.
        name: String,
    },
}

fn there_are(known: &str) -> String {
    if known.is_empty() {
        return "there are none in it: name a file that has [[single]] or [[pair]]".into();
    }
    format!("there are: {known}")
}

fn named(key: &Option<String>) -> String {
    key.as_ref()
        .map_or_else(String::new, |key| format!("key `{key}`: "))
}

/// `FILE:NAME` of the command line. The name `PAIR/a` or `PAIR/b` stands for one path of a pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileRef {
    /// The profile file.
    pub file: PathBuf,
    /// The profile's name.
    pub name: String,
}

impl FromStr for ProfileRef {
    type Err = ProfileError;

    /// Splits at the last colon, so the file's name may hold others.
    fn from_str(text: &str) -> Result<Self, ProfileError> {
        match text.rsplit_once(':') {
            Some((file, name)) if !file.is_empty() && !name.is_empty() => Ok(Self {
                file: file.into(),
                name: name.to_owned(),
            }),
            _ => Err(ProfileError::Reference(text.to_owned())),
        }
    }
}

impl ProfileRef {
    /// Reads the file and picks the profile.
    ///
    /// # Errors
    ///
    /// Every [`ProfileError`] but `Reference` and `IsPair`.
    pub fn load(&self) -> Result<Profile, ProfileError> {
        ProfileFile::load(&self.file)?
            .find(&self.name)
            .map_err(|known| ProfileError::Unknown {
                file: self.file.clone(),
                name: self.name.clone(),
                known,
            })
    }

    /// The same where exactly one path is needed.
    ///
    /// # Errors
    ///
    /// As [`Self::load`], and `IsPair`.
    pub fn load_path(&self) -> Result<PathProfile, ProfileError> {
        match self.load()? {
            Profile::Single(path) => Ok(path),
            Profile::Pair(_) => Err(ProfileError::IsPair {
                file: self.file.clone(),
                name: self.name.clone(),
            }),
        }
    }
}

impl ProfileFile {
    /// Reads and checks a whole file, the profiles nobody asked for too.
    ///
    /// # Errors
    ///
    /// If it cannot be read, is not of the documented shape, or holds a bad value.
    pub fn load(file: &Path) -> Result<Self, ProfileError> {
        let text = read(file).map_err(|error| ProfileError::Read {
            file: file.into(),
            error,
        })?;
        Self::parse(&text, file)
    }

    /// Parses and checks the text of `file`, which is only named in errors.
    ///
    /// # Errors
    ///
    /// As [`Self::load`], without `Read`.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ProfileError> {
        let parsed: Self = toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let before = text.get(..start).unwrap_or("");
            ProfileError::Parse {
                file: file.into(),
                line: before.matches('\n').count() + 1,
                key: key_before(before),
                message: error.message().replace('\n', " "),
            }
        })?;
        parsed.check(file)?;
        Ok(parsed)
    }

    fn check(&self, file: &Path) -> Result<(), ProfileError> {
        let mut names = std::collections::BTreeSet::new();
        let singles = self.single.iter().map(|single| &single.name);
        for name in singles.chain(self.pair.iter().map(|pair| &pair.name)) {
            if !names.insert(name) {
                return Err(ProfileError::Duplicate {
                    file: file.into(),
                    name: name.clone(),
                });
            }
        }
        let singles = self
            .single
            .iter()
            .map(|single| (single.name.clone(), &single.path));
        let pairs = self.pair.iter().flat_map(|pair| {
            [
                (format!("{}/a", pair.name), &pair.a),
                (format!("{}/b", pair.name), &pair.b),
            ]
        });
        for (profile, path) in singles.chain(pairs) {
            path.check().map_err(|invalid| ProfileError::Value {
                file: file.into(),
                profile,
                invalid,
            })?;
        }
        Ok(())
    }

    /// The profile of that name, or the names there are.
    fn find(&self, name: &str) -> Result<Profile, String> {
        if let Some(single) = self.single.iter().find(|single| single.name == name) {
            return Ok(Profile::Single(single.path.clone()));
        }
        for pair in &self.pair {
            if pair.name == name {
                return Ok(Profile::Pair(pair.clone()));
            }
            match name.strip_prefix(pair.name.as_str()) {
                Some("/a") => return Ok(Profile::Single(pair.a.clone())),
                Some("/b") => return Ok(Profile::Single(pair.b.clone())),
                _ => {}
            }
        }
        let singles = self.single.iter().map(|single| single.name.as_str());
        let known: Vec<_> = singles
            .chain(self.pair.iter().map(|pair| pair.name.as_str()))
            .collect();
        Err(known.join(", "))
    }
}

/// The text of a profile file, never more than [`FILE_LEN_MAX`] of it, whatever its length is said
/// to be.
fn read(file: &Path) -> io::Result<String> {
    let mut text = String::new();
    files::open(file, Pipes::Refused)?
        .take(FILE_LEN_MAX + 1)
        .read_to_string(&mut text)?;
    if text.len() as u64 > FILE_LEN_MAX {
        return Err(io::Error::other(format!(
            "it is longer than the {FILE_LEN_MAX} bytes of a profile file"
        )));
    }
    Ok(text)
}

/// The key of a `key = ` that ends `text`, if it ends so.
fn key_before(text: &str) -> Option<String> {
    let head = text.trim_end().strip_suffix('=')?.trim_end();
    let is_bare = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    let key = head.trim_end_matches(is_bare);
    let key = head.get(key.len()..)?;
    (!key.is_empty()).then(|| key.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_behind_letters_of_several_bytes() {
        assert_eq!(key_before("a = 1\nloss = "), Some("loss".to_owned()));
        assert_eq!(key_before("\u{a7}loss ="), Some("loss".to_owned()));
        assert_eq!(key_before("{ \u{1f980}"), None);
        assert_eq!(key_before("\u{1f980} ="), None);
        assert_eq!(key_before("="), None);
    }
}
