//! The processes that train together.
//!
//! They share each step: its loss is that of all their pairs, for which
//! [`train_step`](crate::train_step) gathers the embeddings before
//! [`contrast`](crate::loss::contrast) and sums the gradients before the update. All processes hold
//! the same weights; the first one writes the log, the checkpoints and the model. Whatever they have
//! to agree on goes through [`Collective`], which every process calls in the same order.

use percept_data::pairs::Position;

use crate::TrainError;

/// The processes that train together, as one of them sees them.
///
/// Every method but [`rank`](Self::rank) and [`world`](Self::world) waits for the same call of all
/// others.
pub trait Collective {
    /// Which of them this is. The first one, 0, logs and saves.
    fn rank(&self) -> u32;

    /// How many there are.
    fn world(&self) -> u32;

    /// Everybody's bytes, in the order of the ranks.
    ///
    /// # Errors
    /// [`TrainError::Collective`]: they cannot be exchanged.
    fn gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>, TrainError>;

    /// Replaces numbers by their sums over all processes, the same bits for each. All have as many.
    ///
    /// # Errors
    /// As [`gather`](Self::gather).
    fn sum(&self, values: &mut [f32]) -> Result<(), TrainError>;
}

impl dyn Collective + '_ {
    /// Whether this process writes the files.
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// Everybody's numbers, in the order of the ranks.
    pub(crate) fn gather_f32(&self, own: &[f32]) -> Result<Vec<Vec<f32>>, TrainError> {
        // Bytes that arrive are aligned for nothing in particular.
        let numbers = |bytes: Vec<u8>| bytemuck::pod_collect_to_vec(&bytes);
        let all = self.gather(bytemuck::cast_slice(own))?;
        Ok(all.into_iter().map(numbers).collect())
    }

    /// Everybody's lists of token ids, in the order of the ranks.
    pub(crate) fn gather_ids(&self, own: &[Vec<u32>]) -> Result<Vec<Vec<Vec<u32>>>, TrainError> {
        let mut flat: Vec<u32> = Vec::new();
        for ids in own {
            flat.push(ids.len() as u32);
            flat.extend(ids);
        }
        let lists = |bytes: Vec<u8>| {
            let mut lists = Vec::new();
            let flat: Vec<u32> = bytemuck::pod_collect_to_vec(&bytes);
            let mut rest = flat.as_slice();
            while let Some((length, after)) = rest.split_first() {
                let (ids, after) = after.split_at((*length as usize).min(after.len()));
                lists.push(ids.to_vec());
                rest = after;
            }
            lists
        };
        let all = self.gather(bytemuck::cast_slice(&flat))?;
        Ok(all.into_iter().map(lists).collect())
    }

    /// Where all of them are in their data, in the order of their ranks.
    pub(crate) fn positions(&self, own: Position) -> Result<Vec<Position>, TrainError> {
        let own = [own.epoch, own.sample, own.taken];
        let all = self.gather(bytemuck::cast_slice(&own))?;
        (all.iter())
            .map(|bytes| {
                let [epoch, sample, taken] = *bytemuck::pod_collect_to_vec::<u8, u64>(bytes) else {
                    return Err(TrainError::Collective {
                        reason: format!("{} bytes for a position", bytes.len()),
                    });
                };
                Ok(Position {
                    epoch,
                    sample,
                    taken,
                })
            })
            .collect()
    }

    /// Whether something is so for at least one of them.
    pub(crate) fn any(&self, own: bool) -> Result<bool, TrainError> {
        let mut count = [f32::from(own)];
        self.sum(&mut count)?;
        Ok(count[0] > 0.0)
    }
}

/// One process, which is all there is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

impl Collective for Alone {
    fn rank(&self) -> u32 {
        0
    }

    fn world(&self) -> u32 {
        1
    }

    fn gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>, TrainError> {
        Ok(vec![own.to_vec()])
    }

    fn sum(&self, _values: &mut [f32]) -> Result<(), TrainError> {
        Ok(())
    }
}
