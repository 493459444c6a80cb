//! Which patch tokens of an image are kept (paper §2.3).
//!
//! The choice depends on the seed, the step and the sample's place in the global batch and on
//! nothing else: it can be made again when a chunk is computed a second time or a run is resumed,
//! and it does not depend on how the batch is divided.

use burn::tensor::{Device, Int, Tensor, TensorData};

/// Patches kept of each image of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    indices: Vec<i64>,
    per_image: usize,
}

/// Number of patches kept when a part of them is dropped; at least one.
pub fn kept_count(patches: usize, dropout: f64) -> usize {
    let kept = (patches as f64 * (1.0 - dropout)).floor() as usize;
    kept.clamp(1.min(patches), patches)
}

impl Kept {
    /// Draws `count` of `patches` patches for each of `batch` images, the first of which is number
    /// `first` of the global batch. Indices of an image ascend.
    pub fn draw(
        seed: u64,
        step: u64,
        first: usize,
        batch: usize,
        patches: usize,
        count: usize,
    ) -> Self {
        let count = count.min(patches);
        let mut indices = Vec::with_capacity(batch * count);
        for sample in first..first + batch {
            let mut random = Random::new(&[seed, step, sample as u64]);
            let mut order: Vec<i64> = (0..patches as i64).collect();
            random.shuffle_first(&mut order, count);
            let chosen = &mut order[..count];
            chosen.sort_unstable();
            indices.extend_from_slice(chosen);
        }
        Self {
            indices,
            per_image: count,
        }
    }

    /// Those of the images `start..end`, `[end − start, kept]`.
    pub fn rows(&self, start: usize, end: usize, device: &Device) -> Tensor<2, Int> {
        let rows = self.indices[start * self.per_image..end * self.per_image].to_vec();
        Tensor::from_data(TensorData::new(rows, [end - start, self.per_image]), device)
    }
}

/// SplitMix64 (Steele et al., 2014): small, fast, and the same on every machine.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(parts: &[u64]) -> Self {
        let mut random = Self(0);
        for part in parts {
            random.0 ^= *part;
            random.0 = random.next();
        }
        random
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Puts `count` random elements first (Fisher–Yates, as far as it is needed).
    pub(crate) fn shuffle_first<T>(&mut self, all: &mut [T], count: usize) {
        for i in 0..count.min(all.len()) {
            let other = i + self.below((all.len() - i) as u64) as usize;
            all.swap(i, other);
        }
    }

    /// Below `bound`, which is at least 1 and so small beside 2⁶⁴ that the bias does not matter.
    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_patch_is_kept_equally_often() {
        let kept = Kept::draw(1, 2, 0, 10_000, 10, 3);
        let mut seen = [0; 10];
        for index in &kept.indices {
            seen[*index as usize] += 1;
        }
        assert_eq!(kept.indices.len(), 30_000);
        // 3000 each; the standard deviation is 46.
        assert!(seen.iter().all(|n| (2800..3200).contains(n)), "{seen:?}");
        assert!(
            kept.indices
                .chunks(3)
                .all(|row| row.is_sorted() && row[0] != row[1])
        );
    }

    #[test]
    fn the_choice_does_not_depend_on_the_division() {
        let whole = Kept::draw(1, 2, 0, 8, 16, 4);
        let second = Kept::draw(1, 2, 4, 4, 16, 4);
        assert_eq!(whole.indices[16..], second.indices);
        assert_ne!(whole, Kept::draw(1, 3, 0, 8, 16, 4));
    }

    #[test]
    fn something_is_always_kept() {
        assert_eq!(kept_count(256, 0.5), 128);
        assert_eq!(kept_count(1024, 0.8), 204);
        assert_eq!(kept_count(4, 0.99), 1);
        assert_eq!(kept_count(4, 0.0), 4);
    }
}
