//! Opening a checkpoint by what it holds.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::dtype::TensorInfo;
use crate::error::CheckpointError;
use crate::read::{self, Source, Stored};
use crate::stand_in::StandIn;
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
    /// Several PyTorch files and their index.
    ShardedTorch,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TorchZip => "PyTorch zip",
            Self::TorchLegacy => "PyTorch legacy",
            Self::SafeTensors => "safetensors",
            Self::ShardedSafeTensors => "sharded safetensors",
            Self::ShardedTorch => "sharded PyTorch",
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

/// Which dictionary of a training checkpoint was taken for the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// Its key, such as `state_dict_ema`.
    pub key: String,
    /// The keys of the other dictionaries of tensors beside it, such as `state_dict` and `optimizer`; at
    /// most 64.
    pub passed_over: Vec<String>,
}

/// What each format's parser produces.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    pub(crate) sources: Vec<Source>,
    pub(crate) tensors: BTreeMap<String, Stored>,
    /// What is there and cannot be read: name and reason.
    pub(crate) left_out: BTreeMap<String, String>,
    /// Plain numbers among the tensors.
    pub(crate) numbers: BTreeMap<String, f64>,
    pub(crate) taken: Option<Taken>,
    pub(crate) metadata: BTreeMap<String, String>,
}

impl Checkpoint {
    /// Opens a checkpoint. The format is told from the content; extensions are not looked at.
    ///
    /// `path` is a file, a shard index (`*.safetensors.index.json`, `*.bin.index.json`), or a folder.
    /// In a folder the first of these is taken: `model.safetensors`, its shard index,
    /// `pytorch_model.bin`, its shard index, the only `.safetensors` file, the only `.pt`, `.pth` or
    /// `.bin` file.
    ///
    /// Of a PyTorch training checkpoint the model is taken, averaged weights first as timm does: the
    /// dictionary under `state_dict_ema`, `model_ema`, `state_dict`, `model_state_dict`, `model`,
    /// `teacher` or `student`, in that order, else the whole file; [`Checkpoint::taken`] tells which.
    /// Nested dictionaries and TorchScript modules become dotted names, and a leading `module.`
    /// (from `DataParallel`) is dropped. What cannot be read beside the tensors is
    /// [left out](Checkpoint::left_out) by name.
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
        let (format, mut parts) = match detect(&path, &mut file)? {
            Container::Index => sharded::open(&path, file)?,
            Container::File(format) => (format, open_one(&path, file, format)?),
        };
        quantized::join(&path, &mut parts.tensors, &parts.metadata)?;
        if parts.tensors.is_empty() {
            return Err(nothing_in(path, &parts));
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
    /// [`CheckpointError::UnknownTensor`], [`CheckpointError::LeftOut`], [`CheckpointError::Io`], and
    /// [`CheckpointError::NonFinite`] for NaN or infinite weights, which would silently spoil every
    /// result of a model.
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>, CheckpointError> {
        let (path, tensor) = (|| self.path.clone(), || name.to_owned());
        if let (None, Some(&number)) = (self.info(name), self.parts.numbers.get(name)) {
            let value = [number as f32];
            read::check_finite(name, &value)?;
            return Ok(value.to_vec());
        }
        match (self.parts.tensors.get(name), self.parts.left_out.get(name)) {
            (Some(stored), _) => read::read_f32(&self.parts.sources, name, stored),
            (None, Some(reason)) => Err(CheckpointError::LeftOut {
                path: path(),
                tensor: tensor(),
                reason: reason.clone(),
            }),
            (None, None) => Err(CheckpointError::UnknownTensor {
                path: path(),
                tensor: tensor(),
            }),
        }
    }

    /// What stands among the tensors and cannot be read, each name with the reason: 8-bit floats,
    /// quantised and sparse tensors, objects of classes that percept does not know. [`names`] and
    /// [`info`] do not have them; it is for the caller to say whether one is missed.
    ///
    /// [`names`]: Self::names
    /// [`info`]: Self::info
    #[must_use]
    pub fn left_out(&self) -> &BTreeMap<String, String> {
        &self.parts.left_out
    }

    /// Whether what is [left out](Self::left_out) under this name may be a tensor, and not an object that
    /// merely stands among them.
    #[must_use]
    pub fn is_tensor_left_out(&self, name: &str) -> bool {
        (self.parts.left_out.get(name)).is_some_and(|reason| torch::may_be_tensor(reason))
    }

    /// Plain numbers that stand among the tensors of a PyTorch file, such as a temperature or the number
    /// of an epoch; at most 4,096. [`read_f32`](Self::read_f32) reads them too.
    #[must_use]
    pub fn numbers(&self) -> &BTreeMap<String, f64> {
        &self.parts.numbers
    }

    /// Whether a tensor's whole numbers stand for weights, in the way that
    /// [`Precision::Int8`](crate::Precision::Int8) and [`Precision::Int4`](crate::Precision::Int4) write them.
    #[must_use]
    pub fn is_quantized(&self, name: &str) -> bool {
        (self.parts.tensors.get(name)).is_some_and(|stored| stored.scales.is_some())
    }

    /// Which dictionary of a training checkpoint the tensors are from; `None` where the whole file is
    /// the model.
    #[must_use]
    pub fn taken(&self) -> Option<&Taken> {
        self.parts.taken.as_ref()
    }

    /// What a user should know about how the file was read, a line each: which dictionary was taken,
    /// and what was left out, after twenty of which only their number.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let taken = self.taken().map(|taken| match &taken.passed_over[..] {
            [] => format!("took `{}`", taken.key),
            others => format!(
                "took `{}`; passed over `{}`",
                taken.key,
                others.join("`, `")
            ),
        });
        const TOLD: usize = 20;
        let left_out = self.left_out().iter().take(TOLD);
        let more = self.left_out().len().checked_sub(TOLD).filter(|&n| n > 0);
        (taken.into_iter())
            .chain(left_out.map(|(name, reason)| format!("left out: {name}: {reason}")))
            .chain(more.map(|n| format!("left out: {n} more")))
            .collect()
    }

    /// The `__metadata__` of a safetensors file (of all shards together); empty for PyTorch files.
    #[must_use]
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.parts.metadata
    }
}

/// Opens one file, which is in `format`.
pub(crate) fn open_one(path: &Path, file: File, format: Format) -> Result<Parts, CheckpointError> {
    match format {
        Format::TorchZip | Format::ShardedTorch => torch::open_zip(path, file),
        Format::TorchLegacy => torch::open_legacy(path, file),
        Format::SafeTensors | Format::ShardedSafeTensors => open_safetensors(path, file),
    }
}

fn open_safetensors(path: &Path, file: File) -> Result<Parts, CheckpointError> {
    let header = safetensors::read_header(path, &file, file_len(path, &file)?)?;
    let tensors = (header.tensors.into_iter())
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
    Ok(Parts {
        sources: vec![Source::new(path, file)],
        tensors,
        left_out: header.left_out,
        numbers: BTreeMap::new(),
        taken: None,
        metadata: header.metadata,
    })
}

/// The error for a file that has no tensor that can be read.
fn nothing_in(path: PathBuf, parts: &Parts) -> CheckpointError {
    match parts.left_out.first_key_value() {
        None => CheckpointError::NoTensors { path, hint: None },
        Some((tensor, reason)) => CheckpointError::AllLeftOut {
            path,
            tensor: tensor.clone(),
            reason: reason.clone(),
            others: parts.left_out.len() - 1,
        },
    }
}

/// What a file is by its first bytes.
pub(crate) enum Container {
    /// A list of shards.
    Index,
    /// Tensors, in this format.
    File(Format),
}

/// First bytes that tell the formats apart, and most of what may stand in a checkpoint's place.
const START: usize = 1024;

/// Tells the formats apart by their first bytes, and leaves `file` at its beginning.
pub(crate) fn detect(path: &Path, file: &mut File) -> Result<Container, CheckpointError> {
    let io_error = |source| CheckpointError::Io {
        path: path.to_owned(),
        source,
    };
    let len = file_len(path, file)?;
    let mut start = Vec::new();
    (&mut *file)
        .take(START as u64)
        .read_to_end(&mut start)
        .map_err(io_error)?;
    file.seek(SeekFrom::Start(0)).map_err(io_error)?;
    if start.is_empty() {
        return Err(CheckpointError::EmptyFile {
            path: path.to_owned(),
        });
    }
    if let Some(what) = StandIn::of(path, &start) {
        return Err(CheckpointError::StandIn {
            path: path.to_owned(),
            what,
        });
    }
    if start.starts_with(b"PK\x03\x04") {
        return Ok(Container::File(Format::TorchZip));
    }
    if torch::is_legacy(&start) {
        return Ok(Container::File(Format::TorchLegacy));
    }
    if let Some(first) = start.get(8) {
        // JSON whose ninth byte is a brace or a space would be a safetensors header of 10¹⁸ bytes, so
        // a length that fits the file settles it. A cut file is told by the brace.
        let length = start.first_chunk().map_or(0, |b| u64::from_le_bytes(*b));
        let fits = length <= len && matches!(first, b'{' | b' ' | b'\t' | b'\n' | b'\r');
        if fits || (*first == b'{' && !json_text(&start).starts_with(b"{")) {
            return Ok(Container::File(Format::SafeTensors));
        }
    }
    if json_text(&start).starts_with(b"{") {
        return Ok(Container::Index);
    }
    start.truncate(16);
    Err(CheckpointError::UnknownFormat {
        path: path.to_owned(),
        start,
    })
}

/// JSON without what some editors write before it: a byte-order mark, spaces.
pub(crate) fn json_text(bytes: &[u8]) -> &[u8] {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    bytes.trim_ascii_start()
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
