//! A training run, from its first pair to a model folder.
//!
//! ```text
//! PairLoader ─ train_step ─ log ─┬─ validate ─┬─ checkpoint ─ … ─ model/
//!                                └─ evaluate ─┘
//! ```

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use percept_data::Omissions;
use percept_data::pairs::{
    Augment, DAMAGED, PairBatch, PairLoader, PairOrder, PairSource, Position,
};
use percept_image::message;
use percept_model::weights::{self, LoadReport};
use percept_model::{ImageConfig, Storage};
use rayon::prelude::*;

use crate::TrainError;
use crate::checkpoint::{Best, Checkpoints, Progress, Saved, locked_sum};
use crate::collective::Collective;
use crate::config::{Length, TrainConfig};
use crate::ema::Ema;
use crate::log::{CHECKPOINTS, Log, MODEL, PARAMS, stamp};
use crate::observe::{Evaluator, Event, LogLine, Observer};
use crate::optim::{IMAGE, LOGIT_SCALE, TEXT};
use crate::start::{Setup, Start};
use crate::step::{Batch, StepReport, Trainer, train_step};
use crate::validate::{Held, Towers, Validation};

/// A loss this many times that of knowing nothing (`ln` of the batch) is not coming back.
const ASTRAY: f64 = 10.0;

/// Who watches a run, and who may end it.
pub struct Hooks<'a> {
    /// Is told what happens.
    pub observer: &'a mut dyn Observer,
    /// Measures the model now and then.
    pub evaluator: Option<&'a mut dyn Evaluator>,
    /// Once true, the run saves and ends after the present step.
    pub stop: &'a AtomicBool,
    /// The processes that train together.
    pub collective: &'a dyn Collective,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    /// Why.
    pub ending: Ending,
    /// How far it has come.
    pub progress: Progress,
    /// Its folder.
    pub folder: PathBuf,
    /// The last validation.
    pub validation: Option<Validation>,
    /// What this process left out, by kind: pairs, and what in the data files is no pair.
    pub left_out: Omissions,
}

/// Why a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// It is complete; the model is in this folder.
    Complete {
        /// A folder that [`Model::load`](percept_model::Model::load) reads.
        model: PathBuf,
    },
    /// It was told to stop; this checkpoint goes on from there.
    Stopped {
        /// The checkpoint.
        checkpoint: PathBuf,
    },
}

/// Gives a run without a name one that sorts by time and tells runs apart.
pub fn named(mut config: TrainConfig) -> TrainConfig {
    if config.name.is_none() {
        let time = stamp(crate::tensorboard::now() as u64, ["_", "-", "_"]);
        config.name = Some(format!("{time}-lr_{}-b_{}", config.lr, config.batch()));
    }
    config
}

/// The folder of a run that has a name.
pub fn folder(config: &TrainConfig) -> PathBuf {
    config.logs.join(config.name.as_deref().unwrap_or("run"))
}

/// The newest complete checkpoint at `path`, which is a checkpoint, a folder of them, or the folder
/// of a run; and what is wrong with newer ones.
///
/// # Errors
/// [`TrainError`] for a file that is no checkpoint, or a folder that cannot be read.
pub fn find_checkpoint(path: &Path) -> Result<(Option<Saved>, Vec<TrainError>), TrainError> {
    if path.is_file() {
        return Ok((Some(Saved::open(path)?), Vec::new()));
    }
    let inside = path.join(CHECKPOINTS);
    Checkpoints::latest(if inside.is_dir() { &inside } else { path })
}

/// Trains `start` as `config` says, from where `resume` says.
///
/// # Errors
/// [`TrainError`]: settings that make no sense, data that cannot be read, a loss that is no number
/// ([`TrainError::Diverged`]), files that cannot be written. The checkpoints stay:
/// [`TrainError::Ended`] names the last.
pub fn train(
    config: &TrainConfig,
    start: Start,
    resume: Resume,
    hooks: Hooks<'_>,
) -> Result<Finished, TrainError> {
    let config = named(config.clone());
    config.validate()?;
    let mut run = Run::open(config, start, resume, hooks)?;
    match steps(&mut run) {
        Ok(ending) => Ok(run.finished(ending)),
        Err(error) => Err(run.ended(error)),
    }
}

/// All steps of a run, and what is done between them.
fn steps(run: &mut Run<'_>) -> Result<Ending, TrainError> {
    let config = run.config.clone();
    run.begin()?;
    while !run.is_over() {
        run.meter.begin();
        let mut loader = run.data.epoch(run.position)?;
        while let Some(pairs) = run.next(&mut loader)? {
            let batch = batch(&pairs, &run.setup)?;
            run.meter.fetched();
            let report = train_step(&mut run.trainer, &batch, run.hooks.collective)
                .and_then(|report| check(report, pairs.keys.len()))
                .map_err(|error| run.diverged(error, &pairs))?;
            run.meter.stepped(&report, &batch);
            run.advance(&report, &pairs, &loader)?;

            if run.due(Some(config.log_every_n_steps)) || run.is_first() {
                run.log()?;
            }
            if run.due(config.val_steps) {
                run.validate()?;
            }
            if run.due(config.eval_steps) {
                run.evaluate()?;
            }
            if run.due(config.save_steps) {
                run.save()?;
            }
            if run.is_stopped()? {
                return run.stopped();
            }
            if run.is_over() {
                return run.complete();
            }
            run.meter.begin();
        }
        run.end_epoch(&loader)?;
    }
    run.complete()
}

/// Where a run takes up.
#[derive(Debug)]
pub enum Resume {
    /// At the beginning, in a folder of its own.
    New,
    /// At the beginning, in a folder that may have a run without checkpoints.
    Again,
    /// At a checkpoint.
    From(Box<Saved>),
}

/// All that a run holds.
struct Run<'a> {
    config: TrainConfig,
    setup: Setup,
    data: Data,
    held: Option<Held>,
    trainer: Trainer,
    progress: Progress,
    position: Position,
    meter: Meter,
    /// Bad samples of the present loader that have been told, and those that were counted.
    told: usize,
    counted: u64,
    /// What was left out before the present loader.
    left_out_before: Omissions,
    /// Kinds of omissions that the observer has been told of.
    kinds_told: BTreeSet<String>,
    /// Steps of the whole run.
    steps: u64,
    /// Steps at which it was last validated, evaluated and saved.
    validated: Option<(u64, Validation)>,
    evaluated: Option<u64>,
    saved: Option<(u64, PathBuf)>,
    checkpoints: Checkpoints,
    log: Log,
    folder: PathBuf,
    begun: Instant,
    seconds_before: f64,
    first_step: u64,
    hooks: Hooks<'a>,
}

impl<'a> Run<'a> {
    fn open(
        config: TrainConfig,
        start: Start,
        resume: Resume,
        hooks: Hooks<'a>,
    ) -> Result<Self, TrainError> {
        let Start {
            image,
            text,
            logit_scale,
            report: _,
            setup,
        } = start;
        let folder = folder(&config);
        let is_first = hooks.collective.is_first();
        if is_first && matches!(resume, Resume::New) && folder.join(PARAMS).exists() {
            return Err(TrainError::Exists { folder });
        }
        let data = Data::open(&config, &setup, hooks.collective)?;
        let held = Held::open(&config, &setup)?;
        let mut trainer = Trainer::new(
            image,
            text,
            logit_scale,
            config.step(&setup.image_config),
            config.schedule(data.steps(&config)),
            config.optim(),
            config.ema.map(|decay| Ema::new(decay, config.ema_start)),
            setup.device.clone(),
        )?;
        if let Some(folder) = &config.locked_cache {
            trainer.keep_locked(folder)?;
        }
        let now = data.source.fingerprint()?;
        let mut changed = None;
        let rank = hooks.collective.rank() as usize;
        let (mut progress, mut position) = (Progress::default(), Position::default());
        match &resume {
            Resume::New | Resume::Again => progress.locked = locked_sum(&trainer),
            Resume::From(saved) => {
                saved.restore(&mut trainer)?;
                progress = saved.progress().clone();
                let positions = &progress.positions;
                if positions.len() != hooks.collective.world() as usize {
                    return Err(TrainError::config(
                        saved.path().display().to_string(),
                        format!("is of {} processes", positions.len()),
                    ));
                }
                position = positions.get(rank).copied().unwrap_or_default();
                changed = (progress.data.filter(|then| *then != now)).map(|then| {
                    let files = match (then.files, now.files) {
                        (then, now) if then == now => "names or sizes of files differ".to_owned(),
                        (then, now) => format!("{then} files then, {now} now"),
                    };
                    format!(
                        "the training data are not those of the checkpoint ({files}): from here on \
                         pairs may be seen again, or not at all, in this epoch"
                    )
                });
            }
        }
        progress.data = Some(now);
        let checkpoints = Checkpoints::open(&folder.join(CHECKPOINTS), config.keep)?;
        let mut log = Log::open(&folder, &config, progress.step, hooks.collective.rank())?;
        if let Resume::From(saved) = &resume {
            log.line(&format!("goes on from {}", saved.path().display()))?;
            if let Some(changed) = &changed {
                log.line(changed)?;
                hooks.observer.event(&Event::Note(changed));
            }
            for difference in config.differences(saved.config()) {
                log.line(&format!("changed: {difference}"))?;
                hooks
                    .observer
                    .event(&Event::Note(&format!("changed: {difference}")));
            }
        }
        Ok(Self {
            steps: data.steps(&config),
            config,
            held,
            trainer,
            position,
            meter: Meter::new(),
            told: 0,
            counted: 0,
            left_out_before: progress.left_out.clone(),
            kinds_told: BTreeSet::new(),
            data,
            validated: None,
            evaluated: None,
            saved: None,
            checkpoints,
            log,
            folder,
            begun: Instant::now(),
            seconds_before: progress.seconds,
            first_step: progress.step,
            progress,
            setup,
            hooks,
        })
    }

    fn begin(&mut self) -> Result<(), TrainError> {
        let shapes = self.trainer.shapes();
        let parameters = shapes
            .iter()
            .map(|(_, shape)| shape.iter().product::<usize>())
            .sum();
        self.log.line(&format!(
            "percept {}: {parameters} numbers learn; step {} of {}",
            env!("CARGO_PKG_VERSION"),
            self.progress.step,
            self.steps
        ))?;
        self.hooks.observer.event(&Event::Started {
            config: &self.config,
            folder: &self.folder,
            step: self.progress.step,
            steps: self.steps,
            parameters,
        });
        self.tell_omissions()?;
        let held = self.held.as_ref().map(Held::omissions);
        for kind in held.unwrap_or_default().kinds() {
            self.note(&format!("validation pairs: {kind}"))?;
        }
        Ok(())
    }

    /// A line of the log that is told as well.
    fn note(&mut self, note: &str) -> Result<(), TrainError> {
        self.log.line(note)?;
        self.hooks.observer.event(&Event::Note(note));
        Ok(())
    }

    /// Tells what is no pair in the files that were listed since this was last done: each kind once, and
    /// every damaged shard; the log has all.
    fn tell_omissions(&mut self) -> Result<(), TrainError> {
        for kind in self.data.source.new_omissions().kinds() {
            let is_new = self.kinds_told.insert(kind.kind.clone());
            match is_new || kind.kind == DAMAGED {
                true => self.note(&kind.to_string())?,
                false => self.log.line(&kind.to_string())?,
            }
        }
        Ok(())
    }

    /// What was left out so far: pairs, and what in the files is no pair.
    fn left_out(&self) -> Omissions {
        let mut left_out = self.data.source.omissions();
        left_out.merge(&self.progress.left_out);
        left_out
    }

    /// The next pairs; none once a process has no more, even where others have: every step is
    /// everybody's.
    fn next(&self, loader: &mut PairLoader) -> Result<Option<PairBatch>, TrainError> {
        let pairs = loader.next().transpose()?;
        let ends = self.hooks.collective.any(pairs.is_none())?;
        Ok(pairs.filter(|_| !ends))
    }

    /// Whether one of the processes was told to stop.
    fn is_stopped(&self) -> Result<bool, TrainError> {
        let stop = self.hooks.stop.load(Ordering::Relaxed);
        self.hooks.collective.any(stop)
    }

    fn is_over(&self) -> bool {
        match self.config.length() {
            Length::Epochs(epochs) => self.position.epoch >= epochs,
            Length::Steps(steps) => self.progress.step >= steps,
        }
    }

    /// Whether this process has just taken its first step.
    fn is_first(&self) -> bool {
        self.progress.step == self.first_step + 1
    }

    /// Whether something that is done every so many steps is to be done now.
    fn due(&self, every: Option<u64>) -> bool {
        every.is_some_and(|every| self.progress.step.is_multiple_of(every))
    }

    /// Takes note of a step, and of the pairs that could not be used on the way to it.
    fn advance(
        &mut self,
        report: &StepReport,
        pairs: &PairBatch,
        loader: &PairLoader,
    ) -> Result<(), TrainError> {
        self.progress.step = report.step + 1;
        self.count(pairs.keys.len(), loader)?;
        self.position = pairs.position;
        self.tell_bad_samples(loader)?;
        self.tell_omissions()?;
        self.hooks.observer.event(&Event::Step(report));
        Ok(())
    }

    /// Counts the pairs of a step, and those that could not be used since the last one.
    fn count(&mut self, pairs: usize, loader: &PairLoader) -> Result<(), TrainError> {
        let skipped = loader.skipped();
        let mut counts = [pairs as f32, (skipped.total - self.counted) as f32];
        self.hooks.collective.sum(&mut counts)?;
        self.counted = skipped.total;
        self.progress.samples += counts[0] as u64;
        self.progress.bad_samples += counts[1] as u64;
        if !skipped.omissions.is_empty() {
            self.progress.left_out = self.left_out_before.clone();
            self.progress.left_out.merge(&skipped.omissions);
        }
        Ok(())
    }

    fn tell_bad_samples(&mut self, loader: &PairLoader) -> Result<(), TrainError> {
        for bad in loader.skipped().first.iter().skip(self.told) {
            self.log.line(&format!("skipped {bad}"))?;
            self.hooks.observer.event(&Event::BadSample(bad));
        }
        self.told = loader.skipped().first.len();
        Ok(())
    }

    fn log(&mut self) -> Result<(), TrainError> {
        let meter = std::mem::replace(&mut self.meter, Meter::new());
        let Some(line) = meter.line(self) else {
            return Ok(());
        };
        self.log.results("train", line.step, &line)?;
        self.log.line(&format!(
            "step {}/{} epoch {:.3} loss {:.4} accuracy {:.3} lr {:.3e} scale {:.2} |grad| {:.3} \
             {:.1} images/s waiting {:.1} %",
            line.step,
            self.steps,
            line.epoch,
            line.loss,
            line.accuracy,
            line.lr,
            line.logit_scale.exp(),
            line.grad_norm,
            line.images_per_second,
            100.0 * line.data_wait,
        ))?;
        self.hooks.observer.event(&Event::Logged(&line));
        Ok(())
    }

    /// The towers with the averages of their weights, if there are any.
    fn towers(&self) -> Towers {
        let mut towers = Towers {
            image: self.trainer.image().clone(),
            text: self.trainer.text().clone(),
            logit_scale: self.trainer.logit_scale(),
        };
        let Some(ema) = self.trainer.ema().filter(|ema| ema.updates() > 0) else {
            return towers;
        };
        let take = |prefix: &str, name: &str, values: &mut [f32]| {
            let average = ema.get(&format!("{prefix}{name}"));
            if let Some(average) = average.filter(|average| average.len() == values.len()) {
                values.copy_from_slice(average);
            }
        };
        towers.image = weights::update(towers.image, |name, values| take(IMAGE, name, values));
        towers.text = weights::update(towers.text, |name, values| take(TEXT, name, values));
        take(
            "",
            LOGIT_SCALE,
            std::slice::from_mut(&mut towers.logit_scale),
        );
        towers
    }

    /// Measures the validation pairs, and keeps the checkpoint if it is the best.
    fn validate(&mut self) -> Result<(), TrainError> {
        let step = self.progress.step;
        let Some(held) = &self.held else {
            return Ok(());
        };
        if self.validated.as_ref().is_some_and(|(at, _)| *at == step) {
            return Ok(());
        }
        let found = held.measure(&self.towers(), &self.setup, self.trainer.config())?;
        // The same each time.
        let is_first = self.validated.is_none();
        for bad in found.bad.iter().filter(|_| is_first) {
            self.log.line(&format!("not validated on {bad}"))?;
            self.hooks.observer.event(&Event::BadValidation(bad));
        }
        self.validated = Some((step, found.clone()));
        self.log.results("val", step, &found)?;
        self.log.line(&format!(
            "validation at step {step}: loss {:.4} image to text {:.3} text to image {:.3} of {}, {} \
             left out",
            found.loss, found.image_to_text, found.text_to_image, found.samples, found.bad_samples
        ))?;
        self.hooks.observer.event(&Event::Validated {
            step,
            found: &found,
        });
        let best = self.progress.best.is_none_or(|best| found.loss < best.loss);
        // The first process decides, should the last bits differ between machines.
        let best = best && found.loss.is_finite() && self.hooks.collective.is_first();
        if self.hooks.collective.any(best)? {
            self.progress.best = Some(Best {
                step,
                loss: found.loss,
            });
            // What was saved at this step does not know yet.
            self.saved = None;
            let path = self.save()?;
            if self.hooks.collective.is_first() {
                self.checkpoints.mark_best(&path)?;
            }
        }
        Ok(())
    }

    /// Writes the model as it is and has it evaluated.
    fn evaluate(&mut self) -> Result<(), TrainError> {
        let step = self.progress.step;
        let is_first = self.hooks.collective.is_first();
        if self.evaluated == Some(step) || self.hooks.evaluator.is_none() || !is_first {
            return Ok(());
        }
        self.evaluated = Some(step);
        let model = self.write_model()?;
        let Some(evaluator) = &mut self.hooks.evaluator else {
            return Ok(());
        };
        match evaluator.evaluate(&model) {
            Ok(metrics) => {
                self.log.results("eval", step, &metrics)?;
                let text: Vec<String> =
                    metrics.iter().map(|(n, v)| format!("{n} {v:.4}")).collect();
                self.log
                    .line(&format!("evaluation at step {step}: {}", text.join(", ")))?;
                self.hooks.observer.event(&Event::Evaluated {
                    step,
                    metrics: &metrics,
                });
            }
            Err(reason) => {
                let note = format!("evaluation at step {step} failed: {reason}");
                self.log.line(&note)?;
                self.hooks.observer.event(&Event::Note(&note));
            }
        }
        Ok(())
    }

    fn save(&mut self) -> Result<PathBuf, TrainError> {
        let step = self.progress.step;
        if let Some((at, path)) = &self.saved
            && *at == step
        {
            return Ok(path.clone());
        }
        let collective = self.hooks.collective;
        self.progress.positions = collective.positions(self.position)?;
        self.progress.ema_updates = self.trainer.ema().map_or(0, Ema::updates);
        self.progress.seconds = self.seconds();
        if !collective.is_first() {
            let path = self.checkpoints.path(step);
            self.saved = Some((step, path.clone()));
            return Ok(path);
        }
        let path = self
            .checkpoints
            .save(&self.trainer, &self.progress, &self.config)?;
        self.saved = Some((step, path.clone()));
        self.log.line(&format!("saved {}", path.display()))?;
        self.hooks
            .observer
            .event(&Event::Saved { step, path: &path });
        Ok(path)
    }

    fn end_epoch(&mut self, loader: &PairLoader) -> Result<(), TrainError> {
        // Those behind the last batch.
        self.count(0, loader)?;
        self.tell_bad_samples(loader)?;
        self.tell_omissions()?;
        (self.told, self.counted) = (0, 0);
        self.left_out_before = self.progress.left_out.clone();
        self.position = Position::epoch(self.position.epoch + 1);
        let ended = |every: u64| every > 0 && self.position.epoch.is_multiple_of(every);
        let (validate, save) = (
            ended(self.config.val_frequency),
            ended(self.config.save_frequency),
        );
        if validate {
            self.validate()?;
        }
        if save {
            self.save()?;
        }
        Ok(())
    }

    fn stopped(&mut self) -> Result<Ending, TrainError> {
        self.log()?;
        let checkpoint = self.save()?;
        self.sum_up()?;
        self.log.line("stopped as asked")?;
        Ok(Ending::Stopped { checkpoint })
    }

    /// Says in the log what was left out.
    fn sum_up(&mut self) -> Result<(), TrainError> {
        for kind in self.left_out().kinds() {
            self.log
                .line(&format!("left out or read otherwise: {kind}"))?;
        }
        Ok(())
    }

    fn complete(&mut self) -> Result<Ending, TrainError> {
        self.log()?;
        self.validate()?;
        self.save()?;
        self.evaluate()?;
        let model = self.write_model()?;
        self.sum_up()?;
        self.log.line(&format!("complete: {}", model.display()))?;
        Ok(Ending::Complete { model })
    }

    fn finished(self, ending: Ending) -> Finished {
        Finished {
            left_out: self.left_out(),
            ending,
            progress: self.progress,
            folder: self.folder,
            validation: self.validated.map(|(_, found)| found),
        }
    }

    /// Says in the log and in the error what is left of a run that cannot go on.
    fn ended(&mut self, error: TrainError) -> TrainError {
        // The error matters more than that the disk is full as well.
        let _ = self.log.line(&format!("ended: {}", message(&error)));
        match self.checkpoints.last_good() {
            None => error,
            Some(last_good) => TrainError::Ended {
                source: Box::new(error),
                last_good,
            },
        }
    }

    fn write_model(&self) -> Result<PathBuf, TrainError> {
        let folder = self.folder.join(MODEL);
        if !self.hooks.collective.is_first() {
            return Ok(folder);
        }
        let towers = self.towers();
        percept_model::Towers {
            image: Some(towers.image),
            text: Some(towers.text),
            logit_scale: Some(towers.logit_scale),
            report: LoadReport::default(),
        }
        .save(
            &self.setup.model,
            Some(self.setup.tokenizer.path()),
            Storage::F32,
            &folder,
        )?;
        Ok(folder)
    }

    /// Names the pairs on which a step failed, here and in the log.
    fn diverged(&mut self, error: TrainError, pairs: &PairBatch) -> TrainError {
        if !matches!(
            error,
            TrainError::NotFinite { .. } | TrainError::Astray { .. }
        ) {
            return error;
        }
        // The error matters more than that the disk is full as well.
        let _ = (self.log).line(&format!("the batch: {}", pairs.keys.join(" ")));
        TrainError::Diverged {
            source: Box::new(error),
            keys: pairs.keys.clone(),
        }
    }

    /// Pairs seen in the present epoch, as a share of it, and the epochs before.
    fn epochs(&self) -> f64 {
        let pairs = self
            .data
            .batches
            .map(|batches| batches * self.config.batch() as u64);
        let share = match pairs {
            Some(pairs) if pairs > 0 => (self.position.taken as f64 / pairs as f64).min(1.0),
            _ => 0.0,
        };
        self.position.epoch as f64 + share
    }

    fn seconds(&self) -> f64 {
        self.seconds_before + self.begun.elapsed().as_secs_f64()
    }
}

/// Refuses a loss from which there is no way back.
fn check(report: StepReport, pairs: usize) -> Result<StepReport, TrainError> {
    let unknowing = (pairs as f64).ln().max(1.0);
    if f64::from(report.loss) <= ASTRAY * unknowing {
        return Ok(report);
    }
    Err(TrainError::Astray {
        step: report.step,
        loss: report.loss,
        unknowing,
    })
}

/// The pairs to train on.
struct Data {
    source: Arc<PairSource>,
    order: PairOrder,
    augment: Augment,
    config: TrainConfig,
    /// Of an epoch, if no pair is bad; unknown where pairs need not be counted.
    batches: Option<u64>,
}

impl Data {
    fn open(
        config: &TrainConfig,
        setup: &Setup,
        collective: &dyn Collective,
    ) -> Result<Self, TrainError> {
        let source = config.train_source()?;
        let order = config.order(collective.rank(), collective.world());
        // Counting the pairs of a large set takes minutes.
        let counted = matches!(config.length(), Length::Epochs(_));
        let batches = match counted || order.samples_per_epoch.is_some() {
            true => Some(order.batches(&source, config.batch())?),
            false => None,
        };
        Ok(Self {
            source: Arc::new(source),
            order,
            augment: config.augment(side(&setup.image_config), setup.image_config.normalization),
            config: config.clone(),
            batches,
        })
    }

    /// Steps of the whole run, if no pair is bad.
    fn steps(&self, config: &TrainConfig) -> u64 {
        match config.length() {
            Length::Steps(steps) => steps,
            Length::Epochs(epochs) => epochs.saturating_mul(self.batches.unwrap_or(0)),
        }
    }

    /// The batches of an epoch from `position` on.
    fn epoch(&self, position: Position) -> Result<PairLoader, TrainError> {
        let source = self.source.clone();
        let options = self.config.loader();
        Ok(PairLoader::new(
            source,
            self.order,
            self.augment,
            options,
            position,
        )?)
    }
}

/// Side of the square inputs of an image tower.
pub(crate) fn side(image: &ImageConfig) -> u32 {
    u32::try_from(image.image_size).unwrap_or(u32::MAX)
}

/// Pairs as a step takes them.
pub(crate) fn batch(pairs: &PairBatch, setup: &Setup) -> Result<Batch, TrainError> {
    let encode = |text: &String| setup.tokenizer.encode(text).map(|tokens| tokens.ids);
    let captions: Result<Vec<Vec<u32>>, _> = pairs.captions.par_iter().map(encode).collect();
    let captions = captions?;
    let words = pairs.labels.par_iter().zip(&captions);
    let words: Result<Vec<Vec<Vec<u32>>>, _> = words
        .map(|(labels, caption)| match labels.is_empty() {
            true => Ok(vec![caption.clone()]),
            false => labels
                .iter()
                .map(|label| encode(&photo_of(label)))
                .collect(),
        })
        .collect();
    let size = pairs
        .images
        .first()
        .map_or([0, 0], |image| [image.height, image.width]);
    let values = pairs.images.iter().map(|image| image.data.len()).sum();
    let mut pixels = Vec::with_capacity(values);
    for image in &pairs.images {
        pixels.extend_from_slice(&image.data);
    }
    Ok(Batch {
        pixels,
        size,
        captions,
        words: words?,
        surroundings: setup.tokenizer.encode(crate::sides::CAPTION)?.ids,
    })
}

/// A label as the prompts of benchmarks name it.
fn photo_of(label: &str) -> String {
    let article = match label.chars().next().map(|c| c.to_ascii_lowercase()) {
        Some('a' | 'e' | 'i' | 'o' | 'u') => "an",
        _ => "a",
    };
    format!("a photo of {article} {label}")
}

/// What happened since the last line of the log.
struct Meter {
    since: Instant,
    steps: u64,
    pairs: u64,
    loss: f64,
    accuracy: f64,
    grad_norm: f64,
    lr: f64,
    logit_scale: f64,
    waiting: Duration,
    working: Duration,
}

impl Meter {
    fn new() -> Self {
        Self {
            since: Instant::now(),
            steps: 0,
            pairs: 0,
            loss: 0.0,
            accuracy: 0.0,
            grad_norm: 0.0,
            lr: 0.0,
            logit_scale: 0.0,
            waiting: Duration::ZERO,
            working: Duration::ZERO,
        }
    }

    /// The next step begins; what was done since the last one is no part of it.
    fn begin(&mut self) {
        self.since = Instant::now();
    }

    /// The batch is there: all time so far was waiting.
    fn fetched(&mut self) {
        self.waiting += self.since.elapsed();
    }

    fn stepped(&mut self, report: &StepReport, batch: &Batch) {
        self.steps += 1;
        self.pairs += batch.captions.len() as u64;
        self.loss += f64::from(report.loss);
        self.accuracy += f64::from(report.accuracy);
        self.grad_norm += report.grad_norm;
        self.lr = report.lr;
        self.logit_scale = f64::from(report.logit_scale);
        self.working += self.since.elapsed();
    }

    /// The line of the log for the steps since the last one, if there were any.
    fn line(&self, run: &Run<'_>) -> Option<LogLine> {
        if self.steps == 0 {
            return None;
        }
        let steps = self.steps as f64;
        let time = self.working.as_secs_f64().max(1e-9);
        let left = run.steps.saturating_sub(run.progress.step) as f64;
        Some(LogLine {
            step: run.progress.step,
            epoch: run.epochs(),
            samples: run.progress.samples,
            loss: self.loss / steps,
            accuracy: self.accuracy / steps,
            lr: self.lr,
            logit_scale: self.logit_scale,
            grad_norm: self.grad_norm / steps,
            images_per_second: self.pairs as f64 / time,
            data_wait: (self.waiting.as_secs_f64() / time).min(1.0),
            bad_samples: run.progress.bad_samples,
            left_out: run.left_out(),
            seconds: run.seconds(),
            seconds_left: left * time / steps,
        })
    }
}
