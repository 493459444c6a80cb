//! Everything that can go wrong between a photo and its masks.

use std::path::PathBuf;

use percept_image::{ImageError, LabelMapError};
use percept_model::ModelError;

/// Why an image could not be segmented, grouped, classified or embedded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model could not be loaded or run.
    #[error(transparent)]
    Model(#[from] ModelError),

    /// The image could not be read.
    #[error(transparent)]
    Image(#[from] ImageError),

    /// The result is no image.
    #[error(transparent)]
    LabelMap(#[from] LabelMapError),

    /// The labels cannot be used.
    #[error("labels: {0}")]
    Labels(String),

    /// The templates cannot be used.
    #[error("templates: {0}")]
    Templates(String),

    /// A setting that makes no sense.
    #[error("{0}")]
    Setting(String),

    /// A file could not be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}
