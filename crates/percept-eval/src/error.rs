//! Why an evaluation could not be carried out.

use std::io;
use std::path::PathBuf;

/// Why an evaluation could not be carried out. A sample that fails is no error: it is counted,
/// named, and the others go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// A protocol cannot be used.
    #[error("protocol {name}: {reason}")]
    Protocol {
        /// Its name or file.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// A setting that makes no sense.
    #[error("{0}")]
    Setting(String),
    /// The model or its encoders fail.
    #[error(transparent)]
    Model(Box<percept::Error>),
    /// The model has no image tower, or its encoder fails.
    #[error(transparent)]
    Encoder(Box<percept::model::ModelError>),
    /// The dataset cannot be read.
    #[error(transparent)]
    Data(#[from] percept_data::DataError),
    /// A file cannot be read or written.
    #[error("cannot access {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds something else than it should.
    #[error("{}: {reason}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl From<percept::Error> for EvalError {
    fn from(error: percept::Error) -> Self {
        Self::Model(Box::new(error))
    }
}

impl From<percept::model::ModelError> for EvalError {
    fn from(error: percept::model::ModelError) -> Self {
        Self::Encoder(Box::new(error))
    }
}
