//! What a run tells while it goes on, and what it asks.

use std::collections::BTreeMap;
use std::path::Path;

use percept_data::Omissions;
use percept_data::pairs::BadSample;
use serde::Serialize;

use crate::StepReport;
use crate::config::TrainConfig;
use crate::validate::Validation;

/// Something that happened.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The run begins or goes on.
    Started {
        /// Its settings.
        config: &'a TrainConfig,
        /// Its folder.
        folder: &'a Path,
        /// Steps taken already.
        step: u64,
        /// Steps of the whole run.
        steps: u64,
        /// Numbers that learn.
        parameters: usize,
    },
    /// A step was taken.
    Step(&'a StepReport),
    /// A line of the log.
    Logged(&'a LogLine),
    /// The validation pairs were measured.
    Validated {
        /// Steps taken.
        step: u64,
        /// What was found.
        found: &'a Validation,
    },
    /// An [`Evaluator`] has measured the model.
    Evaluated {
        /// Steps taken.
        step: u64,
        /// Its numbers by name.
        metrics: &'a BTreeMap<String, f64>,
    },
    /// A checkpoint was written.
    Saved {
        /// Steps taken.
        step: u64,
        /// Where it is.
        path: &'a Path,
    },
    /// A pair could not be used; another one took its place.
    BadSample(&'a BadSample),
    /// A pair could not be used to validate.
    BadValidation(&'a BadSample),
    /// Something that may not be expected.
    Note(&'a str),
}

/// The steps since the last line.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LogLine {
    /// Steps taken.
    pub step: u64,
    /// How often all pairs were seen.
    pub epoch: f64,
    /// Pairs seen.
    pub samples: u64,
    /// Mean loss.
    pub loss: f64,
    /// Mean of [`StepReport::accuracy`].
    pub accuracy: f64,
    /// The learning rate of the last step.
    pub lr: f64,
    /// The temperature after the last step, as a logarithm.
    pub logit_scale: f64,
    /// Mean norm of the gradient.
    pub grad_norm: f64,
    /// Pairs a second, waiting included.
    pub images_per_second: f64,
    /// Share of the time in which there was no batch to compute.
    pub data_wait: f64,
    /// Pairs that could not be used so far.
    pub bad_samples: u64,
    /// What was left out so far, by kind: pairs, and what in the data files is no pair.
    #[serde(skip_serializing_if = "Omissions::is_empty")]
    pub left_out: Omissions,
    /// Seconds since the run began, pauses between its parts not counted.
    pub seconds: f64,
    /// Seconds to the end at this speed.
    pub seconds_left: f64,
}

/// Where [`Event`]s go.
pub trait Observer {
    /// Something happened.
    fn event(&mut self, event: &Event<'_>);
}

impl<F: FnMut(&Event<'_>)> Observer for F {
    fn event(&mut self, event: &Event<'_>) {
        self(event);
    }
}

/// Measures a model in the midst of its training.
pub trait Evaluator {
    /// The numbers of the model in the folder `model`, by names such as `voc/miou`, or why there
    /// are none; the run goes on in any case.
    fn evaluate(&mut self, model: &Path) -> Result<BTreeMap<String, f64>, String>;
}
