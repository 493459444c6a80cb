//! Everything that can stop a training.

use std::io;
use std::path::{Path, PathBuf};

use percept_checkpoint::CheckpointError;
use percept_data::DataError;
use percept_model::ModelError;

/// Keys of a batch that an error shows; the log has all of them.
const KEYS_SHOWN: usize = 8;

/// Why a step could not be taken, a run not go on, or a state not be restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A number that is infinite or not a number. The step was not taken: weights and optimiser
    /// are as before.
    #[error("step {step}: {what} is not finite")]
    NotFinite {
        /// The step, counted from 0.
        step: u64,
        /// What is not finite, such as `the loss` or the gradient of a parameter by name.
        what: String,
    },

    /// A batch that cannot be trained on.
    #[error("cannot train on this batch: {reason}")]
    Batch {
        /// What is wrong with it.
        reason: String,
    },

    /// A setting outside its range.
    #[error("{name} is {value}: {reason}")]
    Setting {
        /// The setting's name.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it should be.
        reason: &'static str,
    },

    /// A saved state that does not belong to this model.
    #[error("the saved state does not fit the model: {tensor} {reason}")]
    State {
        /// The tensor at fault.
        tensor: String,
        /// What is wrong with it.
        reason: String,
    },

    /// Settings that cannot be read or make no sense together.
    #[error("{origin}: {reason}")]
    Config {
        /// Where they are from, such as a recipe.
        origin: String,
        /// What is wrong with them.
        reason: String,
    },

    /// A loss so far above that of knowing nothing that the weights are lost. The step was taken.
    #[error("step {step}: the loss is {loss:.1}, and {unknowing:.1} is that of knowing nothing")]
    Astray {
        /// The step, counted from 0.
        step: u64,
        /// The loss.
        loss: f32,
        /// `ln` of the number of pairs.
        unknowing: f64,
    },

    /// A step that cannot be taken, or should not have been, with the pairs that it was about.
    #[error("training went astray on a batch of {}", shortened(keys))]
    Diverged {
        /// [`NotFinite`](Self::NotFinite) or [`Astray`](Self::Astray).
        source: Box<TrainError>,
        /// Keys of the batch's samples.
        keys: Vec<String>,
    },

    /// A checkpoint cannot be written. Those that are there are as they were.
    #[error("cannot save {}", path.display())]
    Save {
        /// The checkpoint that was to be written.
        path: PathBuf,
        /// Why.
        source: Box<CheckpointError>,
    },

    /// A run that cannot go on, but has a checkpoint to go on from.
    #[error("the run ended (the last good checkpoint is {})", last_good.display())]
    Ended {
        /// Why.
        source: Box<TrainError>,
        /// The newest complete checkpoint.
        last_good: PathBuf,
    },

    /// The processes that train together cannot go on together.
    #[error("the processes cannot go on together: {reason}")]
    Collective {
        /// What happened.
        reason: String,
    },

    /// A file of the run cannot be read or written.
    #[error("cannot access {}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },

    /// The folder has a run already.
    #[error("{} has a run already; go on with it (--resume latest), or name another", folder.display())]
    Exists {
        /// The run's folder.
        folder: PathBuf,
    },

    /// A checkpoint cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),

    /// Pairs cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),

    /// A tower or tokeniser cannot be used.
    #[error(transparent)]
    Model(#[from] ModelError),
}

impl TrainError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }

    pub(crate) fn config(origin: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Config {
            origin: origin.into(),
            reason: reason.into(),
        }
    }
}

fn shortened(keys: &[String]) -> String {
    let shown = keys[..keys.len().min(KEYS_SHOWN)].join(", ");
    match keys.len().saturating_sub(KEYS_SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more (all in out.log)"),
    }
}
