//! Keys that callers must know.

use std::path::Path;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use subtle::ConstantTimeEq;

use crate::problem::{Kind, Problem};

/// Shorter keys can be guessed.
const MIN_KEY_BYTES: usize = 16;

/// A key file holds a few lines.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The keys of a key file.
pub struct ApiKeys(Vec<Vec<u8>>);

impl std::fmt::Debug for ApiKeys {
    /// Says how many there are, never which.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ApiKeys({})", self.0.len())
    }
}

/// Why keys cannot be used. Whoever named the file of keys names it in front of this.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The file cannot be read.
    #[error("cannot be read")]
    Io {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file holds something else than a few keys.
    #[error("larger than 1 MiB")]
    TooLarge {
        /// The file.
        path: String,
    },
    /// A key that can be guessed.
    #[error("line {line}: a key needs at least {MIN_KEY_BYTES} characters")]
    Short {
        /// Its line, from 1.
        line: usize,
    },
    /// An empty file would lock everybody out.
    #[error("there are no keys")]
    Empty,
}

impl ApiKeys {
    /// Reads one key a line; empty lines and those that begin with `#` are passed over.
    ///
    /// # Errors
    /// The file cannot be read, holds no key, or one of less than 16 characters.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let io = |source| KeyError::Io {
            path: path.display().to_string(),
            source,
        };
        if std::fs::metadata(path).map_err(io)?.len() > MAX_FILE_BYTES {
            return Err(KeyError::TooLarge {
                path: path.display().to_string(),
            });
        }
        Self::parse(&std::fs::read_to_string(path).map_err(io)?)
    }

    /// Keys from the text of a key file.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let mut keys = Vec::new();
        for (i, line) in text.lines().enumerate() {
            let key = line.trim();
            if key.is_empty() || key.starts_with('#') {
                continue;
            }
            if key.len() < MIN_KEY_BYTES {
                return Err(KeyError::Short { line: i + 1 });
            }
            keys.push(key.as_bytes().to_vec());
        }
        if keys.is_empty() {
            return Err(KeyError::Empty);
        }
        Ok(Self(keys))
    }

    /// Whether a request carries a key, as `Authorization: Bearer KEY` or `X-Api-Key: KEY`.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let bearer = headers.get(AUTHORIZATION).and_then(|value| {
            let (scheme, key) = value.to_str().ok()?.split_once(' ')?;
            scheme
                .eq_ignore_ascii_case("bearer")
                .then(|| key.trim().as_bytes())
        });
        let given = bearer.or_else(|| headers.get("x-api-key").map(|value| value.as_bytes()));
        let Some(given) = given else {
            return Err(Problem::new(
                Kind::Unauthorized,
                "send `Authorization: Bearer KEY` or `X-Api-Key: KEY`",
            ));
        };
        // All keys are compared, each in a time that tells nothing but its length.
        let known = self.0.iter().fold(subtle::Choice::from(0), |known, key| {
            known | key.ct_eq(given)
        });
        if bool::from(known) {
            return Ok(());
        }
        Err(Problem::new(Kind::Unauthorized, "this key is not known"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_str(value).unwrap());
        headers
    }

    #[test]
    fn a_known_key_is_let_in_and_nothing_else() {
        let keys = ApiKeys::parse("# ours\nfirst-key-of-many\n\n second-key-of-many \n").unwrap();
        for (name, value) in [
            ("authorization", "Bearer first-key-of-many"),
            ("authorization", "bearer second-key-of-many"),
            ("x-api-key", "second-key-of-many"),
        ] {
            assert!(keys.check(&headers(name, value)).is_ok(), "{value}");
        }
        for (name, value) in [
            ("authorization", "Bearer first-key-of-man"),
            ("authorization", "Basic first-key-of-many"),
            ("authorization", "first-key-of-many"),
            ("x-api-key", ""),
            ("x-api-key", "# ours"),
        ] {
            assert!(keys.check(&headers(name, value)).is_err(), "{value}");
        }
        assert!(keys.check(&HeaderMap::new()).is_err());
        assert_eq!(format!("{keys:?}"), "ApiKeys(2)");
    }

    #[test]
    fn keys_that_help_nobody_are_refused() {
        assert!(matches!(ApiKeys::parse("\n# no\n"), Err(KeyError::Empty)));
        let short = ApiKeys::parse("0123456789abcdef\nshort");
        assert!(matches!(short, Err(KeyError::Short { line: 2 })));
    }
}
