//! Index masks to run-length masks, all objects in one pass.

use std::collections::BTreeMap;

use percept_image::{LabelMap, Rle};

/// A mask of the pixels of every value that is `wanted`.
pub(super) fn by_value(map: &LabelMap, wanted: impl Fn(u16) -> bool) -> Vec<(u16, Rle)> {
    let (width, height) = (map.width(), map.height());
    let pixels = map.data();
    // Each value's runs, and where the last one ended.
    let mut runs: BTreeMap<u16, (Vec<u32>, u32)> = BTreeMap::new();
    let mut add = |value: u16, start: u32, end: u32| {
        if wanted(value) && end > start {
            let (counts, last) = runs.entry(value).or_default();
            counts.extend([start - *last, end - start]);
            *last = end;
        }
    };
    // Runs go down the columns and on at the top of the next. A map within the limits for images has
    // fewer pixels than a u32 can count.
    let mut current = pixels.first().copied().unwrap_or_default();
    let (mut at, mut start) = (0, 0);
    for x in 0..width as usize {
        for &value in pixels.iter().skip(x).step_by(width as usize) {
            if value != current {
                add(current, start, at);
                (current, start) = (value, at);
            }
            at += 1;
        }
    }
    add(current, start, at);
    let finish = |(value, (mut counts, last)): (u16, (Vec<u32>, u32))| {
        if last < at {
            counts.push(at - last);
        }
        let mask = Rle {
            height,
            width,
            counts,
        };
        (value, mask)
    };
    runs.into_iter().map(finish).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_mask_is_what_a_pass_of_its_own_gives(
            (width, height, data) in (0_u32..9, 0_u32..9).prop_flat_map(|(w, h)| {
                let pixels = proptest::collection::vec(0_u16..4, (w * h) as usize);
                (Just(w), Just(h), pixels)
            })
        ) {
            let map = LabelMap::new(width, height, data).unwrap();
            let regions = by_value(&map, |value| value != 0);
            let counts = map.counts(4);
            let present: Vec<u16> = (1..4).filter(|&value| counts[usize::from(value)] > 0).collect();
            prop_assert_eq!(regions.iter().map(|(value, _)| *value).collect::<Vec<_>>(), present);
            for (value, mask) in regions {
                prop_assert_eq!(mask, Rle::from_labels(&map, value));
            }
        }
    }
}
