//! Random numbers that are the same everywhere.

/// SplitMix64 (Steele, Lea and Flood, 2014): enough to shuffle, and the same numbers for a seed on
/// every machine and in every version, which general crates do not promise.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Numbers of their own for each list of `counters`: the same whatever was drawn before, so that
    /// work can start anywhere and be shared between threads.
    pub(crate) fn keyed(seed: u64, counters: &[u64]) -> Self {
        let key = counters.iter().fold(seed, |key, &counter| {
            // Mixed between any two, so that (1, 2) is not (2, 1).
            Self(Self(key).next() ^ counter).next()
        });
        Self(key)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`; 0 if that is 0. Uneven by less than one in 2^32 for any list in memory.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.next()) * end as u128) >> 64) as usize
    }

    /// A number from `start` up to `end`, all 53 bits of it random.
    pub(crate) fn between(&mut self, start: f64, end: f64) -> f64 {
        const STEP: f64 = 1.0 / (1_u64 << 53) as f64;
        start + (end - start) * ((self.next() >> 11) as f64 * STEP)
    }

    /// Puts a list into random order, every order being as likely.
    pub(crate) fn shuffle<T>(&mut self, list: &mut [T]) {
        for end in (2..=list.len()).rev() {
            list.swap(end - 1, self.below(end));
        }
    }
}

/// A hash of bytes that is the same everywhere (FNV-1a).
pub(crate) struct Fnv(pub(crate) u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_published_ones() {
        // The first of the reference implementation for the seed 1234567.
        let mut random = Random::new(1_234_567);
        assert_eq!(random.next(), 6_457_827_717_110_365_317);
        assert_eq!(random.next(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn keys_are_told_apart() {
        let first = |counters: &[u64]| Random::keyed(3, counters).next();
        assert_eq!(first(&[1, 2]), first(&[1, 2]));
        let keys: [&[u64]; 6] = [&[], &[0], &[0, 0], &[1, 2], &[2, 1], &[1, 3]];
        let numbers: std::collections::HashSet<u64> = keys.into_iter().map(first).collect();
        assert_eq!(numbers.len(), keys.len());
        assert!((0..1000).all(|key| {
            let number = Random::keyed(key, &[]).between(-1.0, 2.0);
            (-1.0..2.0).contains(&number)
        }));
    }

    #[test]
    fn shuffling_is_even() {
        let mut random = Random::new(7);
        let mut firsts = [0; 5];
        for _ in 0..10_000 {
            let mut list = [0, 1, 2, 3, 4];
            random.shuffle(&mut list);
            firsts[list[0]] += 1;
            list.sort_unstable();
            assert_eq!(list, [0, 1, 2, 3, 4]);
        }
        assert!(
            firsts.iter().all(|&n| (1850..2150).contains(&n)),
            "{firsts:?}"
        );
        random.shuffle::<u8>(&mut []);
    }
}
