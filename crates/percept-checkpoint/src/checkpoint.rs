//! Opening a checkpoint by what it holds.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::dtype::TensorInfo;
use crate::error::CheckpointError;
use crate::read::{self, Source, Stored};
use crate::{locate, quantized, safetensors, sharded, torch};

/// How a checkpoint is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// `torch.save` since PyTorch 1.6, and TorchScript archives: a zip with a pickle in it.
    TorchZip,
    /// `torch.save` before PyTorch 1.6: pickles followed by raw storages.
    TorchLegacy,
    /// One safetensors file.
    SafeTensors,
    /// Several safetensors files and their index.
    ShardedSafeTensors,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TorchZip => "PyTorch zip",
            Self::TorchLegacy => "PyTorch legacy",
            Self::SafeTensors => "safetensors",
            Self::ShardedSafeTensors => "sharded safetensors",
        })
    }
}

/// An open checkpoint: the names, types and shapes of its tensors, and where their bytes are.
///
/// It can be shared between threads; reads take turns.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    format: Format,
    parts: Parts,
}

/// What each format's parser produces.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    pub(crate) sources: Vec<Source>,
    pub(crate) tensors: BTreeMap<String, Stored>,
    pub(crate) metadata: BTreeMap<String, String>,
}

impl Checkpoint {
    /// Opens a checkpoint. The format is told from the content; extensions are not looked at.
    ///
    /// `path` is a file, a shard index (`*.safetensors.index.json`), or a folder. In a folder the
    /// first of these is taken: `model.safetensors`, the shard index, `pytorch_model.bin`, the only
    /// `.safetensors`, `.pt`, `.pth` or `.bin` file.
    ///
    /// Of a PyTorch training checkpoint the model is taken: the dictionary under `state_dict`,
    /// `model_state_dict`, `model`, `teacher` or `student`, in that order, else the whole file.
    /// Nested dictionaries and TorchScript modules become dotted names, and a leading `module.`
    /// (from `DataParallel`) is dropped.
    ///
    /// # Errors
    /// See [`CheckpointError`]; in particular [`CheckpointError::UnsafePickle`] for a file that
    /// would run code in PyTorch.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let path = if path.is_dir() {
            locate::in_folder(path)?
        } else {
            path.to_owned()
        };
        let mut file = open_file(&path)?;
        let (format, parts) = match detect(&path, &mut file)? {
            Format::TorchZip => (Format::TorchZip, torch::open_zip(&path, file)?),
            Format::TorchLegacy => (Format::TorchLegacy, torch::open_legacy(&path, file)?),
            Format::SafeTensors => (Format::SafeTensors, open_safetensors(&path, file)?),
            Format::ShardedSafeTensors => (Format::ShardedSafeTensors, sharded::open(&path, file)?),
        };
        if parts.tensors.is_empty() {
            return Err(CheckpointError::NoTensors { path, hint: None });
        }
        Ok(Self {
            path,
            format,
            parts,
        })
    }

    /// The file that was opened: inside a folder, the one that was chosen.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files whose tensors it has: [`path`](Self::path), or the shards that it names.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.parts.sources.iter().map(Source::path)
    }

    /// How it is stored.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// The tensors' names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.parts.tensors.keys().map(String::as_str)
    }

    /// How many tensors there are; never zero.
    #[must_use]
    pub fn len(&self) -> usize {
        self.parts.tensors.len()
    }

    /// Whether there are no tensors. [`Checkpoint::open`] refuses such a file.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.tensors.is_empty()
    }

    /// Type and shape of a tensor.
    #[must_use]
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.parts.tensors.get(name).map(|stored| &stored.info)
    }

    /// Reads one tensor as row-major `f32`, whatever its strides and type on disk. Integers beyond
    /// 2²⁴ and doubles are rounded to nearest; whole numbers that [`Precision::Int8`] and
    /// [`Precision::Int4`] wrote become the weights they stand for.
    ///
    /// [`Precision::Int8`]: crate::Precision::Int8
    /// [`Precision::Int4`]: crate::Precision::Int4
    ///
    /// # Errors
    /// [`CheckpointError::UnknownTensor`], [`CheckpointError::Io`], and
    /// [`CheckpointError::NonFinite`] for NaN or infinite weights, which would silently spoil every
    /// result of a model.
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>, CheckpointError> {
        let Some(stored) = self.parts.tensors.get(name) else {
            return Err(CheckpointError::UnknownTensor {
                path: self.path.clone(),
                tensor: name.to_owned(),
            });
        };
        read::read_f32(&self.parts.sources, name, stored)
    }

    /// The `__metadata__` of a safetensors file (of all shards together); empty for PyTorch files.
    #[must_use]
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.parts.metadata
    }
}

fn open_safetensors(path: &Path, file: File) -> Result<Parts, CheckpointError> {
    let header = safetensors::read_header(path, &file, file_len(path, &file)?)?;
    let mut tensors = (header.tensors.into_iter())
        .map(|t| {
            let stored = Stored {
                info: t.info,
                source: 0,
                offset: t.offset,
                strides: None,
                scales: None,
            };
            (t.name, stored)
        })
        .collect();
    quantized::join(path, &mut tensors, &header.metadata)?;
    Ok(Parts {
        sources: vec![Source::new(path, file)],
        tensors,
        metadata: header.metadata,
    })
}

/// Tells the formats apart by their first bytes, and leaves `file` at its beginning.
fn detect(path: &Path, file: &mut File) -> Result<Format, CheckpointError> {
    let io_error = |source| CheckpointError::Io {
        path: path.to_owned(),
        source,
    };
    let len = file_len(path, file)?;
    let mut start = Vec::new();
    (&mut *file)
        .take(16)
        .read_to_end(&mut start)
        .map_err(io_error)?;
    file.seek(SeekFrom::Start(0)).map_err(io_error)?;
    if start.is_empty() {
        return Err(CheckpointError::EmptyFile {
            path: path.to_owned(),
        });
    }
    if start.starts_with(b"PK\x03\x04") {
        return Ok(Format::TorchZip);
    }
    if start.starts_with(torch::LEGACY_MAGIC) {
        return Ok(Format::TorchLegacy);
    }
    if start.get(8) == Some(&b'{') {
        // JSON whose ninth byte is a brace would be a safetensors header of 10¹⁸ bytes, so a length
        // that fits the file settles it.
        let length = start.first_chunk().map_or(0, |b| u64::from_le_bytes(*b));
        if length <= len || start[0] != b'{' {
            return Ok(Format::SafeTensors);
        }
    }
    let text = start.trim_ascii_start();
    if text.first() == Some(&b'{') {
        return Ok(Format::ShardedSafeTensors);
    }
    Err(CheckpointError::UnknownFormat {
        path: path.to_owned(),
        start,
    })
}

pub(crate) fn open_file(path: &Path) -> Result<File, CheckpointError> {
    File::open(path).map_err(|source| CheckpointError::Io {
        path: path.to_owned(),
        source,
    })
}

pub(crate) fn file_len(path: &Path, file: &File) -> Result<u64, CheckpointError> {
    let metadata = file.metadata().map_err(|source| CheckpointError::Io {
        path: path.to_owned(),
        source,
    })?;
    Ok(metadata.len())
}
