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
    pub(crate) fn inside(&self, key: &str) -> Self {
        Self {
            path: self.path.clone(),
            json: self.json.get(key).cloned().unwrap_or_default(),
        }
    }

    /// What `key` holds, unless it is null.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.json.get(key).filter(|value| !value.is_null())
    }

    pub(crate) fn usize(&self, key: &str) -> Option<usize> {
        (self.get(key)?.as_u64()).and_then(|v| usize::try_from(v).ok())
    }

    pub(crate) fn f64(&self, key: &str) -> Option<f64> {
        self.get(key)?.as_f64()
    }

    pub(crate) fn str(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_str()
    }

    pub(crate) fn bool(&self, key: &str) -> Option<bool> {
        self.get(key)?.as_bool()
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
        let mut value = value.to_string();
        if value.len() > 200 {
            value.truncate(value.floor_char_boundary(200));
            value.push('…');
        }
        self.refuse(format!("{key} {value} is not supported"))
    }

    pub(crate) fn refuse(&self, reason: impl Into<String>) -> ModelError {
        ModelError::config(&self.path, reason)
    }
}

/// What stands at the place of a file, if that is not the file.
pub(crate) fn stand_in(path: &Path, bytes: &[u8]) -> Option<String> {
    /// As many bytes as tell it.
    const START: usize = 1024;
    let start = &bytes[..bytes.len().min(START)];
    StandIn::of(path, start).map(|what| what.to_string())
}
