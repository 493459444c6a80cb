//! Buffers that go from one operation to the next.
//!
//! A step of training makes and drops hundreds of buffers of some megabytes each. From the allocator each comes with
//! zeros, which one thread writes, and which nobody reads: a fifth of a step. So operations hand over what they have
//! used up ([`give`]) and take what they are about to fill ([`take`]).

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::ops::FlexTensor;

/// Smaller buffers are not worth the search: numbers in one.
const LEAST: usize = 1 << 14;

/// A buffer that nobody has wanted during so many requests goes back to the allocator.
const PATIENCE: u64 = 1000;

#[derive(Debug)]
struct Spare {
    values: Vec<f32>,
    /// Number of the request before which it came.
    since: u64,
}

#[derive(Debug)]
struct Pool {
    requests: u64,
    spares: Vec<Spare>,
}

static POOL: Mutex<Pool> = Mutex::new(Pool::new());

/// A buffer of `length` numbers to be overwritten: what they are, is not said.
pub fn take(length: usize) -> Vec<f32> {
    if length < LEAST {
        return vec![0.0; length];
    }
    pool().take(length)
}

/// Takes a tensor that is used up. What others hold as well is theirs.
pub fn give(tensor: FlexTensor) {
    if !tensor.is_unique() || tensor.layout().num_elements() < LEAST {
        return;
    }
    if let Ok(values) = tensor.into_data().try_into_vec::<f32>() {
        pool().give(values);
    }
}

fn pool() -> MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    const fn new() -> Self {
        Self {
            requests: 0,
            spares: Vec::new(),
        }
    }

    /// The smallest buffer that is large enough, and not more than twice so; else a new one.
    fn take(&mut self, length: usize) -> Vec<f32> {
        self.requests += 1;
        let oldest = self.requests.saturating_sub(PATIENCE);
        self.spares.retain(|spare| spare.since >= oldest);
        let fits = |spare: &Spare| (length..=2 * length).contains(&spare.values.capacity());
        let found = (self.spares.iter().enumerate())
            .filter(|(_, spare)| fits(spare))
            .min_by_key(|(_, spare)| spare.values.capacity());
        match found.map(|(at, _)| at) {
            Some(at) => {
                let mut values = self.spares.swap_remove(at).values;
                values.resize(length, 0.0);
                values
            }
            None => vec![0.0; length],
        }
    }

    fn give(&mut self, values: Vec<f32>) {
        self.spares.push(Spare {
            values,
            since: self.requests,
        });
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;

    use super::*;

    fn values(length: usize) -> Vec<f32> {
        vec![1.0; length]
    }

    #[test]
    fn the_smallest_that_fits_is_taken() {
        let mut pool = Pool::new();
        for length in [90, 50, 60, 10] {
            pool.give(values(length));
        }
        for capacity in [50, 60, 90] {
            let values = pool.take(45);
            assert_eq!((values.len(), values.capacity()), (45, capacity));
        }
        // 10 is not enough, and 200 would be more than twice as much.
        pool.give(values(200));
        assert_eq!(pool.take(45), vec![0.0; 45]);
        assert_eq!(pool.spares.len(), 2);
    }

    #[test]
    fn a_shorter_use_does_not_spoil_a_buffer() {
        let mut pool = Pool::new();
        pool.give(values(80));
        let short = pool.take(50);
        pool.give(short);
        assert_eq!(pool.take(80).len(), 80);
        assert!(pool.spares.is_empty());
    }

    #[test]
    fn what_nobody_wants_goes_back() {
        let mut pool = Pool::new();
        pool.give(values(80));
        for _ in 0..=PATIENCE {
            pool.take(1000);
        }
        assert!(pool.spares.is_empty());
    }

    #[test]
    fn what_others_hold_is_theirs() {
        let length = LEAST + 7;
        let tensor = FlexTensor::from_data(TensorData::new(values(length), [length]));
        let other = tensor.clone();
        give(tensor);
        assert_eq!(other.storage::<f32>(), values(length));
        give(other);
    }
}
