//! Contrastive training of an image and a text tower (paper §2 and its appendix).
//!
//! ```text
//! Batch ─ ImageSide, TextSide ─ Embedded ─ contrast ─ backward ─ Optimizer ─ Ema
//!          (sub-sampling)       (no graph) (whole batch)  (by chunk)
//! ```
//!
//! [`train_step`] is the whole of a step, to be read from top to bottom; [`run::train`] is the loop
//! around it, with its data, log, validation and checkpoints. A [`TrainConfig`] decides a run, and
//! [`Start`] has the towers that it begins with.

mod crc;
mod error;
mod log;
#[cfg(feature = "mpi")]
pub mod mpi;
mod step;
mod tensorboard;

pub mod checkpoint;
pub mod collective;
pub mod config;
pub mod ema;
pub mod gradcache;
pub mod locked;
pub mod loss;
pub mod observe;
pub mod optim;
pub mod run;
pub mod schedule;
pub mod sides;
pub mod start;
pub mod subsample;
pub mod validate;

pub use checkpoint::{Progress, Saved};
pub use collective::{Alone, Collective};
pub use config::TrainConfig;
pub use error::TrainError;
pub use observe::{Evaluator, Event, LogLine, Observer};
pub use run::{Ending, Finished, Hooks, Resume, train};
pub use start::{Setup, Start};
pub use step::{Batch, StepConfig, StepReport, Trainer, train_step};
