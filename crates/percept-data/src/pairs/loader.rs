//! Batches of pairs, made ahead of the model by threads of their own.

use std::collections::VecDeque;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use percept_image::{ChwImage, Note};

use super::augment::Prepare;
use super::bad::{Bad, BadKind};
use super::order::{PairOrder, Placed, Position, Stream, Use};
use super::source::{Encoded, PairSource, Said};
use crate::{DataError, Omissions};

/// Bad samples kept by name; the rest are only counted.
const MAX_NAMED: usize = 1000;

/// What becomes of the samples at the end of an epoch that do not fill a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LastBatch {
    /// They are dropped: for training.
    #[default]
    Drop,
    /// They make a smaller batch: for evaluation.
    Keep,
}

/// How batches are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoaderOptions {
    /// Samples in a batch; at least one.
    pub batch_size: usize,
    /// Threads that decode; at least one. They do not change what comes out.
    pub threads: usize,
    /// Batches made ahead; at least one. An image of 224 x 224 takes 600 kB.
    pub prefetch: usize,
    /// What becomes of the last samples.
    pub last: LastBatch,
}

impl Default for LoaderOptions {
    fn default() -> Self {
        Self {
            batch_size: 64,
            threads: thread::available_parallelism().map_or(1, |n| n.get()),
            prefetch: 2,
            last: LastBatch::Drop,
        }
    }
}

/// A batch of pairs; the lists are equally long.
#[derive(Debug, Clone, PartialEq)]
pub struct PairBatch {
    /// The photos, each `[3, height, width]`.
    pub images: Vec<ChwImage>,
    /// Their captions, without space around them.
    pub captions: Vec<String>,
    /// What is on them, where [`PairOptions::labels`](super::PairOptions::labels) asks for it and it is
    /// known.
    pub labels: Vec<Vec<String>>,
    /// Their names in their shard, or their paths in the CSV.
    pub keys: Vec<String>,
    /// Where to go on after this batch.
    pub position: Position,
}

/// A sample that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadSample {
    /// The shard or CSV it is in.
    pub file: PathBuf,
    /// What it is called there.
    pub key: String,
    /// The row of a CSV, counted from 1 below its header.
    pub row: Option<u32>,
    /// What kind of fault it is.
    pub kind: BadKind,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for BadSample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.file.display())?;
        if let Some(row) = self.row {
            write!(f, "row {row}: ")?;
        }
        write!(f, "{}: {}", self.key, self.reason)
    }
}

/// The samples that were skipped.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Skipped {
    /// How many.
    pub total: u64,
    /// The first 1000 of them.
    pub first: Vec<BadSample>,
    /// All of them by kind, and samples that were used but not as they are written.
    pub omissions: Omissions,
}

/// The batches of one epoch, in an order that depends on nothing but [`PairOrder`] and [`Position`].
///
/// A sample that cannot be used is skipped and the next one of the stream takes its place, so that
/// batches are full. Threads read and decode ahead; dropping the loader stops them.
///
/// # Errors
/// An item is an error, and the last one, where a shard cannot be read, or where no batch can be
/// made because (nearly) all samples are bad or there are too few.
#[derive(Debug)]
pub struct PairLoader {
    stream: Stream,
    options: LoaderOptions,
    /// Usable samples of the epoch, if that is set.
    share: Option<u64>,
    position: Position,
    skipped: Skipped,
    /// What the threads are at, in the order of the stream.
    pending: VecDeque<Pending>,
    /// The pass in which the present row of bad samples began.
    bad_since: Option<u64>,
    given: u64,
    state: State,
    /// Why the stream has no more. It waits until what came before is returned.
    failure: Option<DataError>,
    jobs: Option<Sender<Job>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    /// The stream has no more; what is pending is the rest.
    Drained,
    Ended,
}

#[derive(Debug)]
struct Pending {
    unit: u32,
    pass: u64,
    result: Receiver<Made>,
}

type Made = Result<Sample, DataError>;

struct Sample {
    key: String,
    row: Option<u32>,
    pair: Result<(ChwImage, Vec<Note>, Said), Bad>,
}

struct Job {
    sample: Placed,
    reply: SyncSender<Made>,
}

impl PairLoader {
    /// The batches of the epoch of `start`, from there on: [`Position::epoch`], or that of a
    /// checkpoint. The source and the order must then be the same; batches and threads need not.
    ///
    /// # Errors
    /// [`DataError`] for an order that makes no sense, a shard that cannot be read, or if threads
    /// cannot be started.
    pub fn new(
        source: Arc<PairSource>,
        order: PairOrder,
        prepare: impl Into<Prepare>,
        options: LoaderOptions,
        start: Position,
    ) -> Result<Self, DataError> {
        let stream = Stream::new(source.clone(), order, start)?;
        let (jobs, queue) = channel();
        let worker = Arc::new(Worker {
            source,
            order,
            prepare: prepare.into(),
            epoch: start.epoch,
            queue: Mutex::new(queue),
            stop: Arc::default(),
        });
        let mut loader = Self {
            stream,
            options: LoaderOptions {
                batch_size: options.batch_size.max(1),
                prefetch: options.prefetch.max(1),
                ..options
            },
            share: order.share(),
            position: start,
            skipped: Skipped::default(),
            pending: VecDeque::new(),
            bad_since: None,
            given: 0,
            state: State::Running,
            failure: None,
            jobs: Some(jobs),
            stop: worker.stop.clone(),
            threads: Vec::new(),
        };
        for _ in 0..options.threads.max(1) {
            let worker = worker.clone();
            let thread = thread::Builder::new()
                .name("pairs".to_owned())
                .spawn(move || worker.run())
                .map_err(|error| DataError::Setting(format!("cannot start a thread: {error}")))?;
            loader.threads.push(thread);
        }
        loader.hand_out(0);
        Ok(loader)
    }

    /// The samples skipped so far for the batches that were returned, since this loader was made.
    pub fn skipped(&self) -> &Skipped {
        &self.skipped
    }

    /// Keeps as many samples with the threads as may be made ahead of a batch that has `taken`.
    fn hand_out(&mut self, taken: usize) {
        let ahead = self
            .options
            .batch_size
            .saturating_mul(self.options.prefetch);
        while self.state == State::Running && self.pending.len() < ahead {
            let wanted = self.position.taken + (taken + self.pending.len()) as u64;
            if self.share.is_some_and(|share| wanted >= share) {
                break;
            }
            let sample = match self.stream.next() {
                Ok(Some(sample)) => sample,
                end => {
                    self.failure = end.err();
                    self.state = State::Drained;
                    break;
                }
            };
            let (reply, result) = sync_channel(1);
            self.pending.push_back(Pending {
                unit: sample.place.unit,
                pass: sample.pass,
                result,
            });
            if let Some(jobs) = &self.jobs {
                // A failure shows when the result is asked for.
                let _ = jobs.send(Job { sample, reply });
            }
        }
    }

    fn batch(&mut self) -> Result<Option<PairBatch>, DataError> {
        let size = self.options.batch_size;
        let mut batch = PairBatch {
            images: Vec::with_capacity(size.min(1 << 16)),
            captions: Vec::new(),
            labels: Vec::new(),
            keys: Vec::new(),
            position: self.position,
        };
        while batch.images.len() < size {
            self.hand_out(batch.images.len());
            let Some(pending) = self.pending.pop_front() else {
                break;
            };
            let made = pending.result.recv().unwrap_or_else(|_| {
                let message = "a thread that prepares samples has failed";
                Err(DataError::Setting(message.to_owned()))
            });
            let Sample { key, row, pair } = made?;
            batch.position.sample += 1;
            match pair {
                Ok((image, notes, said)) => {
                    self.bad_since = None;
                    batch.position.taken += 1;
                    if let Some(note) = said.note {
                        let example = self.example(pending.unit, row, &key);
                        self.skipped.omissions.add(note, example);
                    }
                    for note in notes {
                        let example = self.example(pending.unit, row, &key);
                        let kind = format!("photos {}", note.kind());
                        self.skipped.omissions.add(kind, example);
                    }
                    batch.images.push(image);
                    batch.captions.push(said.caption);
                    batch.labels.push(said.labels);
                    batch.keys.push(key);
                }
                Err(bad) => self.skip(&pending, key, row, bad)?,
            }
        }
        let count = batch.images.len();
        if count < size
            && let Some(failure) = self.failure.take()
        {
            return Err(failure);
        }
        if count == size || (count > 0 && self.options.last == LastBatch::Keep) {
            self.position = batch.position;
            self.given += 1;
            self.hand_out(0);
            return Ok(Some(batch));
        }
        // A run from the middle of an epoch may have no more to come. One from the start would come
        // back for the next epoch, for ever.
        let from_start = self.given == 0 && self.position.sample == 0;
        let unusable = self.options.last == LastBatch::Drop || self.skipped.total > 0;
        match from_start && unusable {
            true => Err(self.no_batch(count)),
            false => Ok(None),
        }
    }

    /// What a sample is called where it is counted.
    fn example(&self, unit: u32, row: Option<u32>, key: &str) -> String {
        let file = self.stream.source().file(unit);
        let file = file.file_name().unwrap_or_default().to_string_lossy();
        match row {
            Some(row) => format!("{file}: row {row}"),
            None => format!("{file}: {key}"),
        }
    }

    fn skip(
        &mut self,
        at: &Pending,
        key: String,
        row: Option<u32>,
        bad: Bad,
    ) -> Result<(), DataError> {
        self.skipped.total += 1;
        let example = self.example(at.unit, row, &key);
        self.skipped.omissions.add(bad.kind.name(), example);
        if self.skipped.first.len() < MAX_NAMED {
            self.skipped.first.push(BadSample {
                file: self.stream.source().file(at.unit).to_owned(),
                key,
                row,
                kind: bad.kind,
                reason: bad.reason,
            });
        }
        // From within a pass to the one after the next: all samples of the one between were bad.
        let since = *self.bad_since.get_or_insert(at.pass);
        match at.pass.saturating_sub(since) >= 2 {
            true => Err(self.no_batch(0)),
            false => Ok(()),
        }
    }

    fn no_batch(&self, usable: usize) -> DataError {
        let bad = match self.skipped.first.first() {
            Some(first) => format!(" and {} bad ones, the first {first}", self.skipped.total),
            None => String::new(),
        };
        // Where there is no sample at all, that is why.
        let mut omissions = self.stream.source().omissions();
        omissions.merge(&self.skipped.omissions);
        let left_out: String = (omissions.kinds().iter())
            .map(|kind| format!("; {kind}"))
            .collect();
        DataError::Setting(format!(
            "{}: no batch of {} samples: there are {usable} usable ones{bad}{left_out}",
            self.stream.source().named(),
            self.options.batch_size,
        ))
    }
}

impl Iterator for PairLoader {
    type Item = Result<PairBatch, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.state == State::Ended {
            return None;
        }
        let batch = self.batch().transpose();
        if !matches!(batch, Some(Ok(_))) {
            self.state = State::Ended;
        }
        batch
    }
}

impl Drop for PairLoader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // Whatever it died of, nobody waits for its work any more.
            let _ = thread.join();
        }
    }
}

/// What the threads share.
struct Worker {
    source: Arc<PairSource>,
    order: PairOrder,
    prepare: Prepare,
    epoch: u64,
    queue: Mutex<Receiver<Job>>,
    stop: Arc<AtomicBool>,
}

impl Worker {
    fn run(&self) {
        loop {
            // The thread that waits for a job holds the lock; the others wait for the lock.
            let job = (self.queue.lock())
                .unwrap_or_else(PoisonError::into_inner)
                .recv();
            let Ok(Job { sample, reply }) = job else {
                return;
            };
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            // Nobody listens where the loader was dropped meanwhile.
            let _ = reply.send(self.make(&sample));
        }
    }

    fn make(&self, sample: &Placed) -> Made {
        let counters = [u64::from(self.order.rank), sample.position];
        let random = &mut self.order.random(Use::Sample, self.epoch, counters);
        let Encoded { key, row, pair } = self.source.read(&sample.place, random)?;
        let pair = pair.and_then(|(bytes, said)| {
            let mut view = self.order.view(&key, random);
            let prepared = self.prepare.apply(&bytes, view.as_mut().unwrap_or(random));
            let (image, notes) = prepared?;
            Ok((image, notes, said))
        });
        Ok(Sample { key, row, pair })
    }
}
