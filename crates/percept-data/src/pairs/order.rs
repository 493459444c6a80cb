//! The order in which a process meets the samples of an epoch.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::shard::Entry;
use super::source::{PairSource, SampleRef};
use crate::DataError;
use crate::random::Random;

/// Samples from which the next one is drawn: as in open_clip.
const BUFFER: usize = 5000;

/// Passes without a sample after which there are none. One would do, but for resampled shards, which
/// may by chance all be empty ones.
const MAX_BARREN: u32 = 64;

/// What random numbers are drawn for. Each use has its own, so that none depends on another.
#[derive(Clone, Copy)]
pub(super) enum Use {
    Shards = 1,
    Resample,
    Buffer,
    Sample,
    View,
}

/// How samples are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sampling {
    /// As they are listed, each once: for evaluation.
    InOrder,
    /// Each once: shards in random order, and then each sample from a buffer of so many. The rows of
    /// a CSV are all in random order, whatever the buffer.
    Shuffled {
        /// Samples in the buffer; at least one.
        buffer: usize,
    },
    /// Shards drawn with replacement, by each process for itself, then as `Shuffled`: open_clip's
    /// `--dataset-resampled`. Needs [`PairOrder::samples_per_epoch`].
    Resampled {
        /// Samples in the buffer; at least one.
        buffer: usize,
    },
}

/// The order of samples: a function of these numbers and the epoch alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PairOrder {
    /// Another seed, another order.
    pub seed: u64,
    /// Which of the processes this is, from 0.
    pub rank: u32,
    /// How many processes share the samples. Each has every `world`-th shard of the epoch's order, or
    /// every `world`-th sample where there are fewer shards than processes.
    pub world: u32,
    /// How they are drawn.
    pub sampling: Sampling,
    /// Usable samples of an epoch, all processes together: it goes round again or ends early.
    /// Default: each once. Processes must then expect different numbers of batches, as shards differ
    /// and bad samples are skipped; with this set, all have the same number.
    pub samples_per_epoch: Option<u64>,
    /// How many views of a photo there are, that is, crops and mirrorings of it: one of them is drawn each time,
    /// and they are the same in every run, whatever its seed. Default: another one each time.
    pub views: Option<u32>,
}

impl Default for PairOrder {
    fn default() -> Self {
        Self {
            seed: 0,
            rank: 0,
            world: 1,
            sampling: Sampling::Shuffled { buffer: BUFFER },
            samples_per_epoch: None,
            views: None,
        }
    }
}

impl PairOrder {
    /// How many full batches an epoch has for this process, if no sample is bad. Exact with
    /// `samples_per_epoch`, else of an even share of the samples, which are counted for it.
    ///
    /// # Errors
    /// As [`PairSource::samples`].
    pub fn batches(&self, source: &PairSource, batch_size: usize) -> Result<u64, DataError> {
        let share = match self.share() {
            Some(share) => share,
            None => source.samples()? / u64::from(self.world.max(1)),
        };
        Ok(share / batch_size.max(1) as u64)
    }

    fn check(&self) -> Result<(), DataError> {
        let reason = match self.sampling {
            _ if self.rank >= self.world => {
                format!("rank {} of {} processes", self.rank, self.world)
            }
            Sampling::Resampled { .. } if self.samples_per_epoch.is_none() => {
                "resampled shards have no end: the number of samples per epoch must be set".into()
            }
            _ => return Ok(()),
        };
        Err(DataError::Setting(reason))
    }

    /// Usable samples that an epoch has for this process, if that is set.
    pub(super) fn share(&self) -> Option<u64> {
        let world = u64::from(self.world.max(1));
        self.samples_per_epoch.map(|n| n.div_ceil(world))
    }

    /// What a photo's view is drawn from, where views are limited; `random` says which.
    pub(super) fn view(&self, key: &str, random: &mut Random) -> Option<Random> {
        let view = random.below(self.views?.max(1) as usize) as u64;
        let name = key.bytes().map(u64::from);
        let counters: Vec<u64> = [Use::View as u64, view].into_iter().chain(name).collect();
        Some(Random::keyed(0, &counters))
    }

    pub(super) fn random(&self, wanted: Use, epoch: u64, counters: [u64; 2]) -> Random {
        let [a, b] = counters;
        Random::keyed(self.seed, &[wanted as u64, epoch, a, b])
    }
}

/// How far a run has come. Saved with a checkpoint, it continues with the very samples, crops and
/// captions that the unbroken run would have had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// The epoch, from 0.
    pub epoch: u64,
    /// Samples of the epoch that this process has behind it, good and bad.
    pub sample: u64,
    /// Those of them that were good, and in batches.
    pub taken: u64,
}

impl Position {
    /// The start of an epoch.
    pub fn epoch(epoch: u64) -> Self {
        Self {
            epoch,
            ..Self::default()
        }
    }
}

/// The samples of one process and epoch, one after the other.
#[derive(Debug)]
pub(super) struct Stream {
    source: Arc<PairSource>,
    order: PairOrder,
    epoch: u64,
    /// How often it has gone round.
    pass: u64,
    /// What is left of the pass, last first.
    units: Vec<u32>,
    shard: Option<Shard>,
    /// Samples of the pass so far, of all processes; for dealing them out one by one.
    dealt: u64,
    /// Passes in a row without a sample for this process, this one included.
    barren: u32,
    buffer: Vec<Placed>,
    capacity: usize,
    random: Random,
    next: u64,
}

#[derive(Debug)]
struct Shard {
    unit: u32,
    next: u32,
    length: u32,
    entries: Option<Arc<[Entry]>>,
}

/// A sample of a stream.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) place: SampleRef,
    pub(super) pass: u64,
    /// Its number in the epoch.
    pub(super) position: u64,
}

impl Stream {
    /// The stream from `position` on. What comes before is counted off, not read.
    pub(super) fn new(
        source: Arc<PairSource>,
        order: PairOrder,
        position: Position,
    ) -> Result<Self, DataError> {
        order.check()?;
        let epoch = position.epoch;
        let capacity = match order.sampling {
            Sampling::InOrder => 1,
            Sampling::Shuffled { buffer } | Sampling::Resampled { buffer } => buffer.max(1),
        };
        let mut stream = Self {
            random: order.random(Use::Buffer, epoch, [u64::from(order.rank), 0]),
            source,
            order,
            epoch,
            pass: 0,
            units: Vec::new(),
            shard: None,
            dealt: 0,
            barren: 1,
            buffer: Vec::new(),
            capacity,
            next: 0,
        };
        stream.units = stream.deal();
        while stream.next < position.sample && stream.next()?.is_some() {}
        Ok(stream)
    }

    pub(super) fn source(&self) -> &PairSource {
        &self.source
    }

    /// The next sample; `None` at the end of an epoch that does not go round.
    pub(super) fn next(&mut self) -> Result<Option<Placed>, DataError> {
        while self.buffer.len() < self.capacity {
            match self.draw()? {
                Some(sample) => self.buffer.push(sample),
                None => break,
            }
        }
        if self.buffer.is_empty() {
            return Ok(None);
        }
        let mut sample = (self.buffer).swap_remove(self.random.below(self.buffer.len()));
        sample.position = self.next;
        self.next += 1;
        Ok(Some(sample))
    }

    /// The next sample on its way into the buffer.
    fn draw(&mut self) -> Result<Option<Placed>, DataError> {
        loop {
            if let Some(shard) = &mut self.shard
                && shard.next < shard.length
            {
                let place = SampleRef {
                    unit: shard.unit,
                    sample: shard.next,
                    entries: shard.entries.clone(),
                };
                shard.next += 1;
                self.dealt += 1;
                let world = u64::from(self.order.world);
                if self.deals_units() || (self.dealt - 1) % world == u64::from(self.order.rank) {
                    self.barren = 0;
                    return Ok(Some(Placed {
                        place,
                        pass: self.pass,
                        position: 0,
                    }));
                }
            } else if let Some(unit) = self.units.pop() {
                let entries = self.source.entries(unit)?;
                let length = entries.as_ref().map_or(1, |entries| entries.len());
                self.shard = Some(Shard {
                    unit,
                    next: 0,
                    length: u32::try_from(length).unwrap_or(u32::MAX),
                    entries,
                });
            } else if self.order.samples_per_epoch.is_none() || self.barren > MAX_BARREN {
                return Ok(None);
            } else {
                self.pass += 1;
                self.dealt = 0;
                self.barren += 1;
                self.units = self.deal();
            }
        }
    }

    /// Whether whole shards are dealt to processes, rather than samples.
    fn deals_units(&self) -> bool {
        matches!(self.order.sampling, Sampling::Resampled { .. })
            || self.source.units() >= self.order.world
    }

    /// The shards of this process for a pass, last first.
    fn deal(&self) -> Vec<u32> {
        let count = self.source.units();
        let (pass, rank) = (self.pass, u64::from(self.order.rank));
        let mut units: Vec<u32> = (0..count).collect();
        match self.order.sampling {
            Sampling::InOrder => {}
            Sampling::Shuffled { .. } => {
                // The same for all processes, which take turns in it.
                let mut random = self.order.random(Use::Shards, self.epoch, [pass, 0]);
                random.shuffle(&mut units);
            }
            Sampling::Resampled { .. } => {
                let mut random = self.order.random(Use::Resample, self.epoch, [pass, rank]);
                for unit in &mut units {
                    *unit = random.below(count as usize) as u32;
                }
                return units;
            }
        }
        let (first, step) = match self.deals_units() {
            true => (self.order.rank, self.order.world),
            false => (0, 1),
        };
        let mut units: Vec<u32> = (units.into_iter())
            .skip(first as usize)
            .step_by(step as usize)
            .collect();
        units.reverse();
        units
    }
}
