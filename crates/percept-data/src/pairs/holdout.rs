//! Which samples are kept from training.

use crate::random::{Fnv, Random};

/// A share of the samples kept from training, to measure on.
///
/// Which ones depends on their keys alone (FNV-1a, then SplitMix64): not on the seed, the shard or
/// the number of samples, so that the two parts never overlap, even after samples are added.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum HoldOut {
    /// About this share, from 0 to 1.
    Fraction(f64),
    /// About one in so many; none for 0.
    EveryNth(u64),
}

impl HoldOut {
    /// Whether the sample called `key` is held out.
    pub fn holds(&self, key: &str) -> bool {
        let mut hash = Fnv::default();
        hash.add(key.as_bytes());
        let mut random = Random::new(hash.0);
        match *self {
            Self::Fraction(fraction) => random.between(0.0, 1.0) < fraction,
            Self::EveryNth(n) => random.next().checked_rem(n) == Some(0),
        }
    }
}
