//! Everything that can be wrong with a model.

use std::path::{Path, PathBuf};

use percept_checkpoint::CheckpointError;

use crate::weights::LoadReport;

/// Why a model could not be opened, loaded, run or saved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The operating system refused a read or a write.
    #[error("cannot access {}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },

    /// A checkpoint could not be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),

    /// A configuration file is malformed or describes an impossible model.
    #[error("{}: {reason}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// No tower's names were recognised.
    #[error(
        "{}: no image or text tower recognised among its {} tensors ({}){}",
        path.display(), count, examples.join(", "),
        owner.map(|owner| format!("; it looks like {owner}, which percept does not read")).unwrap_or_default()
    )]
    UnknownLayout {
        /// The checkpoint.
        path: PathBuf,
        /// How many tensors it holds.
        count: usize,
        /// Some of their names.
        examples: Vec<String>,
        /// Whose layout it may be.
        owner: Option<&'static str>,
    },

    /// The weights do not fit the model.
    #[error(
        "{}: {report}{}", path.display(),
        if report.is_complete() { "; --allow-unused goes on without them" } else { "" }
    )]
    Weights {
        /// The checkpoint.
        path: PathBuf,
        /// What is missing, misshaped or left over.
        report: Box<LoadReport>,
    },

    /// Models of which the mean was asked for, and that are not of one form.
    #[error("only models of one form have a mean: {tensor} {reason}")]
    NoMean {
        /// A tensor in which they differ.
        tensor: String,
        /// How.
        reason: &'static str,
    },

    /// The tokeniser file cannot be used.
    #[error("{}: {reason}", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// A text tower without the tokeniser that it needs.
    #[error(
        "{}: a text tower needs its tokenizer.json beside it; put it there, or name it once with \
         `percept convert --tokenizer FILE`",
        path.display()
    )]
    NoTokenizer {
        /// The model's file or folder.
        path: PathBuf,
    },

    /// The model has no such tower.
    #[error("this model has no {tower} tower{}", hint.map(|h| format!(": {h}")).unwrap_or_default())]
    NoTower {
        /// `image` or `text`.
        tower: &'static str,
        /// What to do about it.
        hint: Option<&'static str>,
    },

    /// An image whose sides are not multiples of the patch, or that is too large to encode.
    #[error("cannot encode {height} x {width} pixels: {reason}")]
    ImageSize {
        /// Rows of pixels.
        height: usize,
        /// Columns of pixels.
        width: usize,
        /// What is wrong with it.
        reason: String,
    },

    /// An unknown or unavailable device.
    #[error("device \"{name}\": {reason}")]
    Device {
        /// The name asked for.
        name: String,
        /// Why it cannot be used.
        reason: String,
    },
}

impl ModelError {
    /// A [`ModelError::Config`].
    pub(crate) fn config(path: &Path, reason: impl Into<String>) -> Self {
        Self::Config {
            path: path.to_owned(),
            reason: reason.into(),
        }
    }
}
