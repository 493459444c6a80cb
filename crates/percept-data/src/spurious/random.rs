//! Random numbers that are the same everywhere.

/// SplitMix64 (Steele, Lea and Flood, 2014): enough to shuffle, and the same numbers for a seed on
/// every machine and in every version, which general crates do not promise.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`; 0 if that is 0. Uneven by less than one in 2^32 for any list in memory.
    fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.next()) * end as u128) >> 64) as usize
    }

    /// Puts a list into random order, every order being as likely.
    pub(super) fn shuffle<T>(&mut self, list: &mut [T]) {
        for end in (2..=list.len()).rev() {
            list.swap(end - 1, self.below(end));
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
