//! One label per pixel.

/// A map of label indices, `[height, width]`, row by row from the top left.
///
/// An index stands for a row of whatever list of names the map was made with. Files that hold
/// "void" pixels use 255 by custom; nothing here treats that index specially.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelMap {
    width: u32,
    height: u32,
    data: Vec<u16>,
}

/// The data of a [`LabelMap`] does not fill its sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a {width} x {height} label map needs {expected} labels, not {actual}")]
pub struct LabelMapError {
    /// The width that was asked for, in pixels.
    pub width: u32,
    /// The height that was asked for, in pixels.
    pub height: u32,
    /// `width * height`.
    pub expected: u64,
    /// How many labels were given.
    pub actual: usize,
}

impl LabelMap {
    /// A map from labels in row-major order.
    ///
    /// # Errors
    /// [`LabelMapError`] unless there are exactly `width * height` labels.
    pub fn new(width: u32, height: u32, data: Vec<u16>) -> Result<Self, LabelMapError> {
        let expected = u64::from(width) * u64::from(height);
        if data.len() as u64 != expected {
            return Err(LabelMapError {
                width,
                height,
                expected,
                actual: data.len(),
            });
        }
        Ok(Self {
            width,
            height,
            data,
        })
    }

    /// A map whose label at column `x` of row `y` is `label(x, y)`.
    pub fn from_fn(width: u32, height: u32, mut label: impl FnMut(u32, u32) -> u16) -> Self {
        let mut data = Vec::with_capacity(width as usize * height as usize);
        for y in 0..height {
            data.extend((0..width).map(|x| label(x, y)));
        }
        Self {
            width,
            height,
            data,
        }
    }

    /// Pixels in a row.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Number of rows.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// All labels, row by row.
    pub fn data(&self) -> &[u16] {
        &self.data
    }

    /// The label of the pixel in column `x` of row `y`; `None` outside the map.
    pub fn get(&self, x: u32, y: u32) -> Option<u16> {
        if x >= self.width {
            return None;
        }
        let at = y as usize * self.width as usize + x as usize;
        self.data.get(at).copied()
    }

    /// How many pixels have each of the labels `0..n`. Pixels with other labels are not counted.
    pub fn counts(&self, n: usize) -> Vec<u64> {
        let mut counts = vec![0; n];
        for &label in &self.data {
            if let Some(count) = counts.get_mut(usize::from(label)) {
                *count += 1;
            }
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_first() {
        let map = LabelMap::new(3, 2, vec![0, 1, 2, 3, 4, 5]).unwrap();
        assert_eq!(map.get(2, 0), Some(2));
        assert_eq!(map.get(0, 1), Some(3));
        assert_eq!(map.get(3, 0), None);
        assert_eq!(map.get(0, 2), None);
    }

    #[test]
    fn counts_leave_out_higher_labels() {
        let map = LabelMap::new(2, 2, vec![1, 1, 0, 255]).unwrap();
        assert_eq!(map.counts(3), [1, 2, 0]);
    }

    #[test]
    fn a_wrong_length_is_named() {
        let error = LabelMap::new(3, 2, vec![0; 5]).unwrap_err();
        assert_eq!(error.to_string(), "a 3 x 2 label map needs 6 labels, not 5");
        assert!(LabelMap::new(u32::MAX, u32::MAX, vec![]).is_err());
    }
}
