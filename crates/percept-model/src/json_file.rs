//! Configuration files of other libraries: read whole, bounded, and refused by name.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use percept_checkpoint::StandIn;
use serde_json::Value;

use crate::ModelError;

/// Configuration files of other libraries are a few kilobytes.
const MAX_JSON_BYTES: u64 = 1 << 20;

/// A JSON file with an object in it, or none at its place.
#[derive(Debug, Clone)]
pub(crate) struct JsonFile {
    path: PathBuf,
    pub(crate) json: Value,
}

impl JsonFile {
    /// No file.
    pub(crate) fn none(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            json: Value::Null,
        }
    }

    /// Reads a file, if it is there.
    pub(crate) fn read(path: &Path) -> Result<Self, ModelError> {
        if !path.is_file() {
            return Ok(Self::none(path));
        }
        let io = |source| ModelError::Io {
            path: path.to_owned(),
            source,
        };
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(io)?;
        (file.take(MAX_JSON_BYTES + 1).read_to_end(&mut bytes)).map_err(io)?;
        if bytes.len() as u64 > MAX_JSON_BYTES {
            return Err(ModelError::config(path, "larger than 1 MiB"));
        }
        if let Some(what) = stand_in(path, &bytes) {
            return Err(ModelError::config(path, what));
        }
        let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
        let json =
            serde_json::from_slice(text).map_err(|e| ModelError::config(path, e.to_string()))?;
        Ok(Self {
            path: path.to_owned(),
            json,
        })
    }

    /// Whether there was a file.
    pub(crate) fn is_there(&self) -> bool {
        !self.json.is_null()
    }

    /// Its name without its folder.
    pub(crate) fn name(&self) -> String {
        let name = self.path.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// The object under `key` in its place.
    pub(crate) fn inside(&self, key: &str) -> Result<Self, ModelError> {
        let object = |value: &Value| value.is_object().then(|| value.clone());
        Ok(Self {
            path: self.path.clone(),
            json: self.typed(key, "an object", object)?.unwrap_or_default(),
        })
    }

    /// What `key` holds, unless it is null.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.json.get(key).filter(|value| !value.is_null())
    }

    pub(crate) fn usize(&self, key: &str) -> Result<Option<usize>, ModelError> {
        let whole = |value: &Value| value.as_u64().and_then(|v| usize::try_from(v).ok());
        self.typed(key, "a whole number", whole)
    }

    pub(crate) fn f64(&self, key: &str) -> Result<Option<f64>, ModelError> {
        self.typed(key, "a number", Value::as_f64)
    }

    pub(crate) fn str(&self, key: &str) -> Result<Option<&str>, ModelError> {
        self.typed(key, "a text", Value::as_str)
    }

    pub(crate) fn bool(&self, key: &str) -> Result<Option<bool>, ModelError> {
        self.typed(key, "true or false", Value::as_bool)
    }

    /// What `key` holds. A value of another type is refused: a default in its place would be a guess.
    fn typed<'a, T>(
        &'a self,
        key: &str,
        kind: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ModelError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let found = read(value);
        match found.is_some() {
            true => Ok(found),
            false => Err(self.refuse(format!("{key} {} is not {kind}", shown(value)))),
        }
    }

    /// Refuses a text at `key` that is none of `known`.
    pub(crate) fn only(&self, key: &str, known: &[&str]) -> Result<(), ModelError> {
        match self.get(key) {
            Some(value) if !value.as_str().is_some_and(|text| known.contains(&text)) => {
                Err(self.refuse_value(key, value))
            }
            _ => Ok(()),
        }
    }

    /// Refuses any value at `key` but this one.
    pub(crate) fn only_bool(&self, key: &str, known: bool) -> Result<(), ModelError> {
        match self.get(key) {
            Some(value) if *value != Value::Bool(known) => Err(self.refuse_value(key, value)),
            _ => Ok(()),
        }
    }

    pub(crate) fn refuse_value(&self, key: &str, value: &Value) -> ModelError {
        self.refuse(format!("{key} {} is not supported", shown(value)))
    }

    pub(crate) fn refuse(&self, reason: impl Into<String>) -> ModelError {
        ModelError::config(&self.path, reason)
    }
}

/// A value as a message shows it: no longer than a line or two.
fn shown(value: &Value) -> String {
    let mut value = value.to_string();
    if value.len() > 200 {
        value.truncate(value.floor_char_boundary(200));
        value.push('…');
    }
    value
}

/// What stands at the place of a file, if that is not the file.
pub(crate) fn stand_in(path: &Path, bytes: &[u8]) -> Option<String> {
    /// As many bytes as tell it.
    const START: usize = 1024;
    let start = &bytes[..bytes.len().min(START)];
    StandIn::of(path, start).map(|what| what.to_string())
}
