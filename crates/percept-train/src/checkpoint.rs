//! The state of a run in one file, which is whole or absent.
//!
//! A checkpoint is a safetensors file: every parameter that learns (`weight.NAME`), the optimiser's
//! averages (`exp_avg.NAME`, `exp_avg_sq.NAME`), the average of the weights (`ema.NAME`), and as
//! metadata how far the run has come ([`Progress`]) and its settings. Numbers are written as they
//! are in memory: what is restored goes on to the bit.
//!
//! Towers that do not learn are not in it. They are loaded again from where the run began, and a
//! checksum tells whether they are still the same.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use percept_checkpoint::{
    Checkpoint, CheckpointError, Format, Precision, TensorToWrite, write_safetensors,
};
use percept_data::Omissions;
use percept_data::pairs::{Fingerprint, Position};
use percept_model::weights;
use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::config::TrainConfig;
use crate::crc::Crc32c;
use crate::gradcache::Learning;
use crate::step::Trainer;

/// What the metadata must have under [`FORMAT_KEY`].
const FORMAT: &str = "percept-train-1";
const FORMAT_KEY: &str = "format";
const PROGRESS_KEY: &str = "progress";
const CONFIG_KEY: &str = "params";

/// What the name of a checkpoint begins and ends with; between them is its step.
const PREFIX: &str = "step_";
const SUFFIX: &str = ".safetensors";
/// The best checkpoint, by its loss on the validation pairs.
const BEST: &str = "best.safetensors";
/// The name of a file that was being written when the run was killed.
const INCOMPLETE: (&str, &str) = (".percept-", ".incomplete");

/// How far a run has come.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Steps taken.
    pub step: u64,
    /// Where each process is in its data.
    pub positions: Vec<Position>,
    /// Pairs seen, of all processes.
    pub samples: u64,
    /// Pairs that could not be used, of all processes.
    pub bad_samples: u64,
    /// Those of the first process, by kind, and pairs used otherwise than they are written.
    #[serde(default)]
    pub left_out: Omissions,
    /// What the data were that the positions are in.
    #[serde(default)]
    pub data: Option<Fingerprint>,
    /// Updates of the average of the weights.
    pub ema_updates: u64,
    /// The least loss on the validation pairs, and its step.
    pub best: Option<Best>,
    /// Checksum of the weights that do not learn.
    pub locked: u32,
    /// Time spent so far.
    pub seconds: f64,
}

/// The best validation so far.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Best {
    /// Steps taken.
    pub step: u64,
    /// The loss.
    pub loss: f64,
}

/// Checksum of the weights that do not learn.
pub(crate) fn locked_sum(trainer: &Trainer) -> u32 {
    let mut sum = Crc32c::new();
    let mut take = |_: &str, values: Vec<f32>| {
        for value in values {
            sum.update(&value.to_le_bytes());
        }
    };
    let (image, depth) = (trainer.config().image, trainer.image().depth());
    if image != Learning::Trained {
        weights::read(trainer.image(), |name, values| {
            if !image.learns(name, depth) {
                take(name, values);
            }
        });
    }
    if trainer.config().text == Learning::Locked {
        weights::read(trainer.text(), &mut take);
    }
    sum.finish()
}

/// The checkpoints of a run.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    folder: PathBuf,
    keep: usize,
}

impl Checkpoints {
    /// Those in `folder`, of which the last `keep` stay, and the best. Removes what a killed run
    /// left half written.
    ///
    /// # Errors
    /// [`TrainError::Io`] if the folder cannot be made or read.
    pub fn open(folder: &Path, keep: usize) -> Result<Self, TrainError> {
        fs::create_dir_all(folder).map_err(TrainError::io(folder))?;
        let (prefix, suffix) = INCOMPLETE;
        for name in names(folder)? {
            if name.starts_with(prefix) && name.ends_with(suffix) {
                // It is in nobody's way if it cannot be removed.
                let _ = fs::remove_file(folder.join(name));
            }
        }
        Ok(Self {
            folder: folder.to_owned(),
            keep: keep.max(1),
        })
    }

    /// Writes a checkpoint, then removes those that are too old to be kept.
    ///
    /// # Errors
    /// [`TrainError::Save`]; what is there stays as it was.
    pub fn save(
        &self,
        trainer: &Trainer,
        progress: &Progress,
        config: &TrainConfig,
    ) -> Result<PathBuf, TrainError> {
        let path = self.path(progress.step);
        self.write(&path, trainer, progress, config)
            .map_err(|error| TrainError::Save {
                path: path.clone(),
                source: Box::new(error),
            })?;
        // Its name as well, before others are removed. Not every system can.
        if let Ok(folder) = fs::File::open(&self.folder) {
            let _ = folder.sync_all();
        }
        self.prune(progress.step);
        Ok(path)
    }

    /// Where the checkpoint of a step is or would be.
    pub fn path(&self, step: u64) -> PathBuf {
        self.folder.join(name_of(step))
    }

    fn write(
        &self,
        path: &Path,
        trainer: &Trainer,
        progress: &Progress,
        config: &TrainConfig,
    ) -> Result<(), CheckpointError> {
        let json = |what: serde_json::Result<String>| {
            what.map_err(|source| CheckpointError::Json {
                path: path.to_owned(),
                source,
            })
        };
        let metadata = BTreeMap::from([
            (FORMAT_KEY.to_owned(), FORMAT.to_owned()),
            (
                PROGRESS_KEY.to_owned(),
                json(serde_json::to_string(progress))?,
            ),
            (CONFIG_KEY.to_owned(), json(serde_json::to_string(config))?),
        ]);
        let shapes: BTreeMap<String, Vec<usize>> = trainer.shapes().into_iter().collect();
        let shape = |name: &str| shapes.get(name).cloned().unwrap_or_default();
        let weights = trainer.weights().map(|(name, values)| {
            tensor(format!("weight.{name}"), shape(&name), Cow::Owned(values))
        });
        let moments = (trainer.optimizer().tensors())
            .map(|(name, shape, values)| tensor(name, shape.to_vec(), Cow::Borrowed(values)));
        let averages = (trainer.ema().into_iter())
            .flat_map(|ema| ema.tensors())
            .map(|(name, values)| {
                tensor(format!("ema.{name}"), shape(name), Cow::Borrowed(values))
            });
        write_safetensors(path, weights.chain(moments).chain(averages), &metadata)
    }

    /// Gives the checkpoint at `path` a second name, which it keeps when it is no longer one of the
    /// last.
    ///
    /// # Errors
    /// [`TrainError::Io`]; the best so far is then as it was.
    pub fn mark_best(&self, path: &Path) -> Result<(), TrainError> {
        let best = self.folder.join(BEST);
        let (prefix, suffix) = INCOMPLETE;
        let new = self.folder.join(format!("{prefix}best{suffix}"));
        let _ = fs::remove_file(&new);
        // Some file systems have no links.
        fs::hard_link(path, &new)
            .or_else(|_| fs::copy(path, &new).map(|_| ()))
            .and_then(|()| fs::rename(&new, &best))
            .map_err(TrainError::io(&best))
    }

    /// The newest checkpoint that is complete, and what is wrong with newer ones.
    ///
    /// # Errors
    /// [`TrainError::Io`] if the folder cannot be read.
    pub fn latest(folder: &Path) -> Result<(Option<Saved>, Vec<TrainError>), TrainError> {
        let mut broken = Vec::new();
        for step in steps(folder)?.into_iter().rev() {
            match Saved::open(&folder.join(name_of(step))) {
                Ok(saved) => return Ok((Some(saved), broken)),
                Err(error) => broken.push(error),
            }
        }
        Ok((None, broken))
    }

    /// The newest checkpoint, for messages.
    pub fn last_good(&self) -> Option<PathBuf> {
        let steps = steps(&self.folder).unwrap_or_default();
        let paths = steps
            .iter()
            .rev()
            .map(|step| self.folder.join(name_of(*step)));
        // A name alone says little: the disk may have lost what a crash left.
        paths.into_iter().find(|path| Saved::open(path).is_ok())
    }

    /// Removes checkpoints before the last ones up to `step`, and those of a future that this run
    /// has not had: it went on from an earlier one.
    fn prune(&self, step: u64) {
        let steps = steps(&self.folder).unwrap_or_default();
        let (past, future): (Vec<u64>, Vec<u64>) = steps.into_iter().partition(|s| *s <= step);
        let old = past.len().saturating_sub(self.keep);
        for step in past[..old].iter().chain(&future) {
            // It is in nobody's way if it cannot be removed.
            let _ = fs::remove_file(self.folder.join(name_of(*step)));
        }
    }
}

fn tensor(name: String, shape: Vec<usize>, values: Cow<'_, [f32]>) -> TensorToWrite<'_> {
    TensorToWrite {
        name,
        shape,
        values,
        precision: Precision::F32,
    }
}

fn name_of(step: u64) -> String {
    format!("{PREFIX}{step:08}{SUFFIX}")
}

fn names(folder: &Path) -> Result<Vec<String>, TrainError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(TrainError::io(folder))? {
        let entry = entry.map_err(TrainError::io(folder))?;
        names.extend(entry.file_name().into_string());
    }
    Ok(names)
}

/// The steps of the checkpoints in a folder, ascending; none if there is no folder.
fn steps(folder: &Path) -> Result<Vec<u64>, TrainError> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut steps: Vec<u64> = names(folder)?
        .iter()
        .filter_map(|name| {
            let step = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
            step.parse().ok().filter(|step| *name == name_of(*step))
        })
        .collect();
    steps.sort_unstable();
    Ok(steps)
}

/// A checkpoint on disk.
#[derive(Debug)]
pub struct Saved {
    path: PathBuf,
    file: Checkpoint,
    progress: Progress,
    config: TrainConfig,
}

impl Saved {
    /// Opens a checkpoint: reads how far the run had come and its settings, and checks that all
    /// tensors are there as a whole.
    ///
    /// # Errors
    /// [`TrainError::Checkpoint`] for a file that is cut short or no safetensors file,
    /// [`TrainError::Config`] for one that is something else than a run's state.
    pub fn open(path: &Path) -> Result<Self, TrainError> {
        let fail = |reason: String| TrainError::config(path.display().to_string(), reason);
        let file = Checkpoint::open(path)?;
        let metadata = file.metadata();
        if file.format() != Format::SafeTensors
            || metadata.get(FORMAT_KEY).map(String::as_str) != Some(FORMAT)
        {
            return Err(fail(
                "weights, but not a run's state; to begin with them, name them with --init-image \
                 and --init-text"
                    .into(),
            ));
        }
        let text = |key: &str| metadata.get(key).map_or("", String::as_str);
        let progress = serde_json::from_str(text(PROGRESS_KEY))
            .map_err(|e| fail(format!("{PROGRESS_KEY}: {e}")))?;
        let config = serde_json::from_str(text(CONFIG_KEY))
            .map_err(|e| fail(format!("{CONFIG_KEY}: {e}")))?;
        Ok(Self {
            path: path.to_owned(),
            progress,
            config,
            file,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How far the run had come.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The run's settings.
    pub fn config(&self) -> &TrainConfig {
        &self.config
    }

    /// Brings a trainer to where the run was.
    ///
    /// # Errors
    /// [`TrainError::State`] where the state is not that of such a trainer, or towers that do not
    /// learn have changed; [`TrainError::Checkpoint`] if the file cannot be read. The trainer is
    /// then of no use.
    pub fn restore(&self, trainer: &mut Trainer) -> Result<(), TrainError> {
        if locked_sum(trainer) != self.progress.locked {
            return Err(TrainError::State {
                tensor: "a locked tower".into(),
                reason: "has other weights than when the run began".into(),
            });
        }
        let shapes = trainer.shapes();
        let known = |name: &str| shapes.iter().any(|(known, _)| known == name);
        let strange = self.file.names().find(|name| {
            name.strip_prefix("weight.")
                .is_some_and(|name| !known(name))
        });
        if let Some(name) = strange {
            return Err(TrainError::State {
                tensor: name.to_owned(),
                reason: "belongs to no parameter that learns".into(),
            });
        }
        // What is wrong with the file says more than that a name is missing.
        let mut failure = None;
        let mut read = |name: &str| {
            self.file.info(name)?;
            self.file
                .read_f32(name)
                .map_err(|error| failure = Some(error))
                .ok()
        };
        let restored = (|| {
            trainer.restore_weights(|name| read(&format!("weight.{name}")))?;
            trainer
                .optimizer_mut()
                .restore(self.progress.step, &mut read)?;
            if let Some(ema) = trainer.ema_mut()
                && self.progress.ema_updates > 0
            {
                let updates = self.progress.ema_updates;
                ema.restore(updates, &shapes, |name| read(&format!("ema.{name}")))?;
            }
            Ok(())
        })();
        match failure {
            Some(error) => Err(error.into()),
            None => restored,
        }
    }
}
