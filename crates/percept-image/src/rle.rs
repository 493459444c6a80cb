//! COCO's run-length encoding of masks, as pycocotools reads and writes it.
//!
//! Runs go down the columns, column by column from the left, and alternate between outside and
//! inside, starting outside (with a run of 0 if the first pixel is inside). The compressed form
//! writes each run, from the fourth on as the difference to the run two before, in groups of five
//! bits with a continuation bit, low group first, the last one's top bit being the sign; each group
//! becomes the character 48 above it.
//!
//! Sizes are `(height, width)` everywhere, COCO's order.

use crate::label_map::LabelMap;

/// Most pixels in a mask: bounds what [`Rle::to_mask`] allocates when the size comes from a file.
/// Above the default limit for photos.
const MAX_PIXELS: u64 = 1 << 28;

/// Most groups of five bits in a number. The largest that is valid, a difference of two 32-bit
/// runs with its sign, takes 34 bits.
const MAX_GROUPS: u32 = 7;

const FIRST_CHARACTER: u8 = 48;
const CONTINUES: i64 = 0x20;
const SIGN: i64 = 0x10;

/// A mask as run lengths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rle {
    /// Number of rows.
    pub height: u32,
    /// Number of columns.
    pub width: u32,
    /// Lengths of the runs in column-major order: outside, inside, outside and so on.
    pub counts: Vec<u32>,
}

/// Why a mask or an encoding was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RleError {
    /// The runs, or the mask's pixels, do not fill the size exactly.
    #[error("{actual} pixels do not fill a mask of {height} x {width} (height x width)")]
    Size {
        /// Number of rows.
        height: u32,
        /// Number of columns.
        width: u32,
        /// How many pixels there are.
        actual: u64,
    },
    /// The size is beyond 2^28 pixels.
    #[error("a mask of {height} x {width} (height x width) is too large")]
    TooLarge {
        /// Number of rows.
        height: u32,
        /// Number of columns.
        width: u32,
    },
    /// A byte that the compressed form does not use.
    #[error("byte {byte:#04x} at position {position} is not part of an encoding")]
    Character {
        /// The byte.
        byte: u8,
        /// Its index in the text.
        position: usize,
    },
    /// The text stops inside a number.
    #[error("the encoding is cut short")]
    Truncated,
    /// A run that is negative or does not fit 32 bits.
    #[error("run {index} is out of range")]
    Run {
        /// Its index in [`Rle::counts`].
        index: usize,
    },
}

impl Rle {
    /// Encodes a mask given row by row, `[height, width]`.
    ///
    /// # Errors
    /// [`RleError::Size`] if `mask` does not have `height * width` pixels, and
    /// [`RleError::TooLarge`] beyond 2^28.
    pub fn from_mask(mask: &[bool], height: u32, width: u32) -> Result<Self, RleError> {
        let pixels = checked_pixels(height, width)?;
        if mask.len() != pixels {
            return Err(RleError::Size {
                height,
                width,
                actual: mask.len() as u64,
            });
        }
        let columns = width as usize;
        Ok(Self::from_pixels(height, width, |x, y| {
            mask[y as usize * columns + x as usize]
        }))
    }

    /// Encodes the pixels of a map that have the label `index`.
    pub fn from_labels(map: &LabelMap, index: u16) -> Self {
        Self::from_pixels(map.height(), map.width(), |x, y| {
            map.get(x, y) == Some(index)
        })
    }

    /// [`Self::from_labels`] of each of the labels `0..n`, in one pass over the map. Pixels with other
    /// labels are in none of them.
    pub fn of_each_label(map: &LabelMap, n: usize) -> Vec<Self> {
        /// Pixels up to the end of the last run inside, and the runs so far.
        #[derive(Clone, Default)]
        struct Open {
            end: u32,
            counts: Vec<u32>,
        }
        let mut open = vec![Open::default(); n];
        let mut close = |label: u16, start: u32, end: u32| {
            if let Some(open) = open.get_mut(usize::from(label)) {
                open.counts.extend([start - open.end, end - start]);
                open.end = end;
            }
        };
        let (width, height) = (map.width() as usize, map.height() as usize);
        let columns = (0..width).flat_map(|x| map.data().iter().skip(x).step_by(width.max(1)));
        let (mut current, mut start, mut at) = (None, 0, 0);
        for &label in columns {
            if current != Some(label) {
                if let Some(before) = current {
                    close(before, start, at);
                }
                (current, start) = (Some(label), at);
            }
            at += 1;
        }
        if let Some(last) = current {
            close(last, start, at);
        }
        open.into_iter()
            .map(|Open { end, mut counts }| {
                // The rest is outside; a map that ends inside has no such run.
                if end < at || counts.is_empty() {
                    counts.push(at - end);
                }
                Self {
                    height: height as u32,
                    width: width as u32,
                    counts,
                }
            })
            .collect()
    }

    fn from_pixels(height: u32, width: u32, inside: impl Fn(u32, u32) -> bool) -> Self {
        let mut counts = Vec::new();
        let mut current = false;
        let mut run = 0;
        for x in 0..width {
            for y in 0..height {
                if inside(x, y) != current {
                    counts.push(run);
                    current = !current;
                    run = 0;
                }
                run += 1;
            }
        }
        counts.push(run);
        Self {
            height,
            width,
            counts,
        }
    }

    /// The mask row by row, `[height, width]`.
    ///
    /// # Errors
    /// [`RleError::Size`] if the runs do not add up to `height * width`, and
    /// [`RleError::TooLarge`] beyond 2^28 pixels.
    pub fn to_mask(&self) -> Result<Vec<bool>, RleError> {
        let pixels = checked_pixels(self.height, self.width)?;
        self.check_sum()?;
        let (height, width) = (self.height as usize, self.width as usize);
        let mut mask = vec![false; pixels];
        for (start, length) in self.inside_runs() {
            for at in start..start + length {
                mask[at % height * width + at / height] = true;
            }
        }
        Ok(mask)
    }

    /// The compressed form: the string that goes under `counts` in COCO's results JSON.
    pub fn to_compressed(&self) -> String {
        let mut text = String::new();
        for (i, &run) in self.counts.iter().enumerate() {
            let mut rest = i64::from(run);
            if i > 2 {
                rest -= i64::from(self.counts[i - 2]);
            }
            loop {
                let group = rest & 0x1f;
                rest >>= 5;
                // Done when all that is left is the sign that this group's top bit already shows.
                let done = rest == if group & SIGN == 0 { 0 } else { -1 };
                let bits = if done { group } else { group | CONTINUES };
                text.push(char::from(FIRST_CHARACTER + bits as u8));
                if done {
                    break;
                }
            }
        }
        text
    }

    /// Reads the compressed form of a mask of `height` x `width` pixels.
    ///
    /// Safe on text from anywhere: work and memory are bounded by the length of `text`.
    ///
    /// # Errors
    /// [`RleError`], whose variants name what is wrong; among others if the runs do not add up to
    /// `height * width`.
    pub fn from_compressed(text: &str, height: u32, width: u32) -> Result<Self, RleError> {
        checked_pixels(height, width)?;
        let mut counts: Vec<u32> = Vec::new();
        let mut value = 0_i64;
        let mut groups = 0;
        for (position, byte) in text.bytes().enumerate() {
            let bits = match byte.checked_sub(FIRST_CHARACTER) {
                Some(bits @ 0..64) => i64::from(bits),
                _ => return Err(RleError::Character { byte, position }),
            };
            let index = counts.len();
            if groups == MAX_GROUPS {
                return Err(RleError::Run { index });
            }
            value |= (bits & 0x1f) << (5 * groups);
            groups += 1;
            if bits & CONTINUES != 0 {
                continue;
            }
            if bits & SIGN != 0 {
                value |= -1 << (5 * groups);
            }
            if index > 2 {
                value += i64::from(counts[index - 2]);
            }
            counts.push(u32::try_from(value).map_err(|_| RleError::Run { index })?);
            value = 0;
            groups = 0;
        }
        if groups != 0 {
            return Err(RleError::Truncated);
        }
        let rle = Self {
            height,
            width,
            counts,
        };
        rle.check_sum()?;
        Ok(rle)
    }

    /// How many pixels are inside.
    pub fn area(&self) -> u64 {
        let inside = self.counts.iter().skip(1).step_by(2);
        inside.map(|&run| u64::from(run)).sum()
    }

    /// The smallest box around the inside pixels, COCO's `[x, y, width, height]`; zeros if there
    /// are none.
    pub fn bbox(&self) -> [f32; 4] {
        let height = self.height as usize;
        if height == 0 {
            return [0.0; 4];
        }
        let (mut left, mut top) = (usize::MAX, usize::MAX);
        let (mut right, mut bottom) = (0, 0);
        for (start, length) in self.inside_runs().filter(|&(_, length)| length > 0) {
            let last = start + length - 1;
            left = left.min(start / height);
            right = right.max(last / height);
            if start / height == last / height {
                top = top.min(start % height);
                bottom = bottom.max(last % height);
            } else {
                // Over a column's end: from the bottom of one to the top of the next.
                top = 0;
                bottom = height - 1;
            }
        }
        if left == usize::MAX {
            return [0.0; 4];
        }
        [left, top, right - left + 1, bottom - top + 1].map(|v| v as f32)
    }

    /// Start and length, in column-major order, of the runs that are inside.
    fn inside_runs(&self) -> impl Iterator<Item = (usize, usize)> {
        let mut start = 0;
        self.counts.chunks(2).filter_map(move |pair| {
            let &[outside, inside] = pair else {
                return None; // a last run outside
            };
            start += outside as usize;
            let run = (start, inside as usize);
            start += inside as usize;
            Some(run)
        })
    }

    fn check_sum(&self) -> Result<(), RleError> {
        let actual = self.counts.iter().map(|&run| u64::from(run)).sum();
        if actual == u64::from(self.height) * u64::from(self.width) {
            return Ok(());
        }
        Err(RleError::Size {
            height: self.height,
            width: self.width,
            actual,
        })
    }
}

fn checked_pixels(height: u32, width: u32) -> Result<usize, RleError> {
    let pixels = u64::from(height) * u64::from(width);
    if pixels > MAX_PIXELS {
        return Err(RleError::TooLarge { height, width });
    }
    Ok(pixels as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn runs_go_down_columns_and_start_outside() {
        // 1 0 0
        // 1 1 0
        let mask = [true, false, false, true, true, false];
        let rle = Rle::from_mask(&mask, 2, 3).unwrap();
        assert_eq!(rle.counts, [0, 2, 1, 1, 2]);
        assert_eq!(rle.area(), 3);
        assert_eq!(rle.bbox(), [0.0, 0.0, 2.0, 2.0]);
        assert_eq!(rle.to_mask().unwrap(), mask);
    }

    #[test]
    fn labels_are_told_apart() {
        let map = LabelMap::new(3, 2, vec![7, 1, 1, 7, 7, 1]).unwrap();
        assert_eq!(Rle::from_labels(&map, 7).counts, [0, 2, 1, 1, 2]);
        let absent = Rle::from_labels(&map, 3);
        assert_eq!(absent.counts, [6]);
        assert_eq!(absent.bbox(), [0.0; 4]);
    }

    #[test]
    fn one_pass_gives_what_a_pass_for_each_label_gives() {
        for (width, height) in [(0, 0), (1, 1), (5, 1), (1, 5), (7, 4), (16, 9)] {
            let map = LabelMap::from_fn(width, height, |x, y| ((x * x + 3 * y) % 5) as u16);
            let all = Rle::of_each_label(&map, 7);
            for (label, rle) in all.iter().enumerate() {
                assert_eq!(*rle, Rle::from_labels(&map, label as u16));
            }
            assert_eq!(all.len(), 7);
        }
    }

    #[test]
    fn hostile_text_is_refused_by_name() {
        let read = |text| Rle::from_compressed(text, 2, 3);
        assert_eq!(
            read("\n"),
            Err(RleError::Character {
                byte: 10,
                position: 0
            })
        );
        assert_eq!(
            read("1é"),
            Err(RleError::Character {
                byte: 0xc3,
                position: 1
            })
        );
        assert_eq!(read("1P"), Err(RleError::Truncated));
        assert_eq!(read("oooooooooooo0"), Err(RleError::Run { index: 0 }));
        assert_eq!(read("O"), Err(RleError::Run { index: 0 })); // -1
        assert!(matches!(read("1"), Err(RleError::Size { actual: 1, .. })));
        assert!(matches!(read(""), Err(RleError::Size { actual: 0, .. })));
        assert!(matches!(
            Rle::from_compressed("1", u32::MAX, u32::MAX),
            Err(RleError::TooLarge { .. })
        ));
    }

    #[test]
    fn inconsistent_runs_are_refused() {
        let rle = Rle {
            height: 2,
            width: 2,
            counts: vec![u32::MAX, u32::MAX, 9],
        };
        assert!(matches!(rle.to_mask(), Err(RleError::Size { .. })));
        assert!(Rle::from_mask(&[true; 3], 2, 2).is_err());
        let _ = (rle.area(), rle.bbox(), rle.to_compressed());
    }

    proptest! {
        #[test]
        fn any_mask_survives_the_round_trip(
            (height, width, mask) in (0_u32..20, 0_u32..20).prop_flat_map(|(h, w)| {
                let pixels = proptest::collection::vec(any::<bool>(), (h * w) as usize);
                (Just(h), Just(w), pixels)
            })
        ) {
            let rle = Rle::from_mask(&mask, height, width).unwrap();
            prop_assert_eq!(rle.area(), mask.iter().filter(|&&inside| inside).count() as u64);
            let read = Rle::from_compressed(&rle.to_compressed(), height, width).unwrap();
            prop_assert_eq!(&read, &rle);
            prop_assert_eq!(read.to_mask().unwrap(), mask);
        }

        #[test]
        fn long_runs_survive_the_round_trip(runs in proptest::collection::vec(0_u32..20_000_000, 0..13)) {
            let sum = runs.iter().sum();
            let rle = Rle { height: sum, width: 1, counts: runs };
            prop_assert_eq!(&Rle::from_compressed(&rle.to_compressed(), sum, 1).unwrap(), &rle);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[0-p]{0,40}", height in 0_u32..9, width in 0_u32..9) {
            if let Ok(rle) = Rle::from_compressed(&text, height, width) {
                prop_assert_eq!(rle.to_mask().unwrap().len() as u32, height * width);
            }
        }
    }
}
