//! Embeddings of texts between runs of a program, on disk.
//!
//! The labels of a run are usually those of the last one. Their embeddings are a file whose name is a hash of
//! the texts and of what embeds them. With it neither the text tower nor its tokeniser is read at all.
//!
//! Weights are not hashed, for they may be gigabytes: the path, length, times and number of their files stand
//! for them, as they do for `git`. Nothing that goes wrong here is an error: a file that is absent or
//! damaged is computed again, and one that cannot be written is left out.

use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use percept_image::kept;
use sha2::{Digest, Sha256};

use crate::ModelFiles;

/// Counts changes of the engine that change embeddings by more than rounding, and of the form of the files.
const VERSION: u32 = 1;
/// Bytes of all files. A list of sixty labels takes about 90 kB.
const MAX_BYTES: u64 = 64 << 20;
/// Nobody else's files end so.
const ENDING: &str = "percept-texts";

/// Embeddings of texts by one model, in a folder that models share.
#[derive(Debug, Clone)]
pub(crate) struct TextCache {
    folder: PathBuf,
    /// A hash of what embeds the texts.
    model: [u8; kept::HASH],
}

impl TextCache {
    /// Those of the text tower of `files`, computed by `engine`. `None` if its files cannot be told from
    /// others.
    pub(crate) fn new(folder: &Path, files: &ModelFiles, engine: &str) -> Option<Self> {
        let mut model = Sha256::new();
        model.update(VERSION.to_le_bytes());
        add(&mut model, env!("CARGO_PKG_VERSION").as_bytes());
        add(&mut model, engine.as_bytes());
        add(&mut model, &serde_json::to_vec(&files.config).ok()?);
        let weights = files.text.as_ref()?.source.files();
        for path in weights.chain(files.tokenizer.as_deref()) {
            let path = path.canonicalize().ok()?;
            add(&mut model, path.as_os_str().as_encoded_bytes());
            model.update(identity(&path.metadata().ok()?)?);
        }
        Some(Self {
            folder: folder.to_owned(),
            model: model.finalize().into(),
        })
    }

    fn path<S: AsRef<str>>(&self, texts: &[S]) -> PathBuf {
        let mut key = Sha256::new();
        key.update(self.model);
        for text in texts {
            add(&mut key, text.as_ref().as_bytes());
        }
        self.folder.join(kept::name(key)).with_extension(ENDING)
    }

    /// The embeddings `[dim]` of `texts`, if they are there.
    pub(crate) fn get<S: AsRef<str>>(&self, texts: &[S], dim: usize) -> Option<Vec<Vec<f32>>> {
        let length = texts.len().checked_mul(dim)?.checked_mul(4)?;
        let file = kept::read(&self.path(texts), length as u64)?;
        if file.len() != length {
            return None;
        }
        let (values, _) = file.as_chunks::<4>();
        let values: Vec<f32> = values.iter().map(|v| f32::from_le_bytes(*v)).collect();
        let is_good = values.iter().all(|v| v.is_finite());
        is_good.then(|| values.chunks_exact(dim).map(<[f32]>::to_vec).collect())
    }

    /// Keeps the embeddings of `texts`, if it can, and drops what was written longest ago where there are
    /// many.
    pub(crate) fn put<S: AsRef<str>>(&self, texts: &[S], embeddings: &[Vec<f32>]) {
        let values: Vec<u8> = embeddings
            .iter()
            .flatten()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        if values.len() as u64 > MAX_BYTES / 2 {
            return;
        }
        if kept::write(&self.path(texts), &values).is_ok() {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&self) {
        let Ok(entries) = self.folder.read_dir() else {
            return;
        };
        let mut files: Vec<_> = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|ending| ending == ENDING))
            .filter_map(|path| {
                let about = path.metadata().ok()?;
                Some((about.modified().ok()?, about.len(), path))
            })
            .collect();
        files.sort();
        let mut total: u64 = files.iter().map(|(_, length, _)| length).sum();
        for (_, length, path) in files {
            if total <= MAX_BYTES {
                break;
            }
            total -= length;
            // Another process may have been here first.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// What tells a file from another one at its place: length, time of change, and on Unix the number of the
/// file and the time of its last change of any kind, which copying tools do not set.
fn identity(about: &Metadata) -> Option<Vec<u8>> {
    let changed = about.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    let mut bytes = about.len().to_le_bytes().to_vec();
    bytes.extend(changed.as_nanos().to_le_bytes());
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        bytes.extend(about.ino().to_le_bytes());
        bytes.extend(about.ctime().to_le_bytes());
        bytes.extend(about.ctime_nsec().to_le_bytes());
    }
    Some(bytes)
}

/// Adds bytes and how many they are: no two lists look the same.
fn add(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}
