//! Why a dataset could not be read.

use std::io;
use std::path::PathBuf;

/// Why a dataset could not be read. Every variant names the file or folder at fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file or folder cannot be read.
    #[error("cannot access {}", path.display())]
    Io {
        /// What was read.
        path: PathBuf,
        /// Why it could not be.
        source: io::Error,
    },
    /// The folder does not have the layout of the dataset.
    #[error("expected {}{}{}", expected.display(), found.as_ref().map(|f| format!(", found {f}")).unwrap_or_default(), hint.as_ref().map(|h| format!("; {h}")).unwrap_or_default())]
    Layout {
        /// The file or folder that should be there.
        expected: PathBuf,
        /// What is there instead, in words.
        found: Option<String>,
        /// What might be meant, such as "did you mean --data …/VOC2012?".
        hint: Option<String>,
    },
    /// A file is there, but does not hold what it should.
    #[error("{}: {reason}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, with the line, key or sample where that is known.
        reason: String,
    },
    /// The folder of a class has no photos. With one class less to choose from, accuracy would rise.
    #[error("{}: a class folder without photos; it holds {instead}", folder.display())]
    EmptyClass {
        /// The folder.
        folder: PathBuf,
        /// What it holds instead, in words.
        instead: String,
    },
    /// A setting that makes no sense for this dataset.
    #[error("{0}")]
    Setting(String),
}
