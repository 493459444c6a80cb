//! The model under test, and how a result names it.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use percept::Model;
use sha2::{Digest, Sha256};

use crate::EvalError;

/// Files of a model folder that are hashed at most.
const MAX_FILES: usize = 1_000;

/// A model and its name in results.
#[derive(Debug)]
pub struct Subject<'a> {
    /// The model.
    pub model: &'a Model,
    /// What to call it.
    pub name: String,
    /// Which weights: `sha256:` and the first 16 digits of their digest.
    pub weights: String,
}

impl<'a> Subject<'a> {
    /// Names `model`, which was loaded from `path`.
    ///
    /// # Errors
    /// The files cannot be read again.
    pub fn new(model: &'a Model, name: &str, path: &Path) -> Result<Self, EvalError> {
        let digest = digest(path).map_err(|source| EvalError::Io {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            model,
            name: name.to_owned(),
            weights: format!("sha256:{}", &digest[..16]),
        })
    }
}

/// Digest of a file; of a folder, that of the names and digests of the files directly in it.
fn digest(path: &Path) -> io::Result<String> {
    let mut hash = Sha256::new();
    if path.is_dir() {
        let mut files: Vec<_> = std::fs::read_dir(path)?
            .take(MAX_FILES)
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.is_file())
            .collect();
        files.sort();
        for file in files {
            if let Some(name) = file.file_name() {
                hash.update(name.as_encoded_bytes());
            }
            hash.update(digest(&file)?.as_bytes());
        }
    } else {
        let mut file = File::open(path)?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            hash.update(&buffer[..read]);
        }
    }
    Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_sha256_and_follows_every_file_of_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a");
        std::fs::write(&file, "abc").unwrap();
        assert!(digest(&file).unwrap().starts_with("ba7816bf8f01cfea"));
        let before = digest(folder.path()).unwrap();
        std::fs::write(folder.path().join("b"), "").unwrap();
        assert_ne!(digest(folder.path()).unwrap(), before);
    }
}
