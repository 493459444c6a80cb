//! Polygons to masks, pixel for pixel as pycocotools draws them.
//!
//! The outline is walked on a grid five times as fine as the pixels, one step at a time along the
//! longer side of each edge, from whichever end makes that side grow. Wherever the walk passes the
//! middle of a column of pixels, the column's inside begins or ends: the first pixel whose middle
//! lies at or below the walk. A pixel is inside if an odd number of such places lie at or above it.

use percept_image::Rle;

/// Grid steps in a pixel. An odd number puts a grid point into the middle of each pixel.
const SCALE: i32 = 5;

/// The grid point of a pixel in its middle.
const MIDDLE: i32 = 2;

/// Farthest a vertex may be from the photo's corner, in pixels: five times the longest side that is
/// read. Annotations do run over the edge, by a few pixels.
const MAX_COORDINATE: f64 = 100_000.0;

/// Most numbers in one polygon. The finest of COCO have a few thousand.
pub(super) const MAX_NUMBERS: usize = 1 << 20;

/// Longest outline of all polygons of an annotation, in grid steps: a photo of the longest side has
/// 400,000 along its border. Bounds the time that they take to a tenth of a second and their runs to
/// 64 MiB.
const MAX_STEPS: u64 = 1 << 24;

/// A closed outline, its vertices on the grid as `[x, y]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Polygon(Box<[[i32; 2]]>);

impl Polygon {
    /// A polygon that is given number by number, as `x, y, x, y, …` in pixels.
    pub(super) fn builder() -> PolygonBuilder {
        PolygonBuilder(Vec::new())
    }

    /// The length of its outline in grid steps, with that of the annotation's polygons before it.
    pub(super) fn check_outline(&self, before: u64) -> Result<u64, String> {
        let steps: u64 = (self.edges())
            .map(|(from, to)| u64::from(steps(from, to)) + 1)
            .sum();
        let steps = before + steps;
        match steps > MAX_STEPS {
            true => Err(format!(
                "an outline of {} pixels is over the limit of {}",
                steps / SCALE as u64,
                MAX_STEPS / SCALE as u64
            )),
            false => Ok(steps),
        }
    }

    fn edges(&self) -> impl Iterator<Item = ([i32; 2], [i32; 2])> {
        let from = self.0.iter().copied();
        from.clone().zip(from.cycle().skip(1))
    }

    /// The pixels inside, of a photo with fewer than 2^32 pixels.
    pub(super) fn rasterize(&self, height: u32, width: u32) -> Rle {
        let mut toggles = Vec::new();
        let mut last: Option<[i32; 2]> = None;
        for (from, to) in self.edges() {
            walk(from, to, |point| {
                if let Some(last) = last.replace(point) {
                    toggles.extend(toggle(last, point, height, width));
                }
            });
        }
        from_toggles(toggles, height, width)
    }
}

/// The numbers of a polygon as they come, in grid steps.
pub(super) struct PolygonBuilder(Vec<i32>);

impl PolygonBuilder {
    /// Adds a number.
    pub(super) fn push(&mut self, number: f64) -> Result<(), String> {
        self.0.push(to_grid(number)?);
        Ok(())
    }

    /// The polygon. The last of an odd count of numbers is left out, as in pycocotools. One of fewer
    /// than three points is a line or a point: it has no inside but what pycocotools gives it.
    pub(super) fn finish(self) -> Result<Polygon, String> {
        let (vertices, _) = self.0.as_chunks::<2>();
        let polygon = Polygon(vertices.into());
        polygon.check_outline(0)?;
        Ok(polygon)
    }
}

/// A number of pixels as grid steps, rounded as C's conversion does after adding a half.
fn to_grid(number: f64) -> Result<i32, String> {
    match number.abs() <= MAX_COORDINATE {
        true => Ok((f64::from(SCALE) * number + 0.5) as i32),
        false => Err(format!("a coordinate of {number} is far outside the photo")),
    }
}

fn steps([x0, y0]: [i32; 2], [x1, y1]: [i32; 2]) -> u32 {
    x0.abs_diff(x1).max(y0.abs_diff(y1))
}

/// Visits the grid points of an edge, both ends included.
fn walk(from: [i32; 2], to: [i32; 2], mut visit: impl FnMut([i32; 2])) {
    // Positions along the longer side are exact, those across it are rounded.
    let along = usize::from(from[0].abs_diff(to[0]) < from[1].abs_diff(to[1]));
    let across = 1 - along;
    let backwards = from[along] > to[along];
    let (low, high) = if backwards { (to, from) } else { (from, to) };
    let length = high[along] - low[along];
    let slope = match length {
        0 => 0.0, // one point twice
        _ => f64::from(high[across] - low[across]) / f64::from(length),
    };
    for step in 0..=length {
        let step = if backwards { length - step } else { step };
        let mut point = [0; 2];
        point[along] = low[along] + step;
        point[across] = (f64::from(low[across]) + slope * f64::from(step) + 0.5) as i32;
        visit(point);
    }
}

/// Where inside and outside change, in column-major order, if two points of the walk lie on either
/// side of a column's middle.
fn toggle(last: [i32; 2], point: [i32; 2], height: u32, width: u32) -> Option<u32> {
    let left = match point[0].cmp(&last[0]) {
        std::cmp::Ordering::Less => point[0],
        std::cmp::Ordering::Equal => return None,
        std::cmp::Ordering::Greater => point[0] - 1,
    };
    if left.rem_euclid(SCALE) != MIDDLE {
        return None;
    }
    let column = u32::try_from(left / SCALE).ok().filter(|_| left > 0)?;
    if column >= width {
        return None;
    }
    // The first row whose middle is not above the walk.
    let upper = point[1].min(last[1]) - MIDDLE;
    let row = (upper + SCALE - 1).div_euclid(SCALE).max(0);
    Some(column * height + row.unsigned_abs().min(height))
}

/// The mask whose inside and outside change at each of the places, of which two equal ones cancel.
fn from_toggles(mut toggles: Vec<u32>, height: u32, width: u32) -> Rle {
    toggles.sort_unstable();
    let odd = (toggles.chunk_by(|a, b| a == b))
        .filter(|equal| equal.len() % 2 == 1)
        .filter_map(|equal| equal.first().copied());
    from_changes(odd, height, width)
}

/// The mask whose inside and outside change at each of the places, given in order.
fn from_changes(changes: impl Iterator<Item = u32>, height: u32, width: u32) -> Rle {
    let mut counts = Vec::new();
    let mut last = 0;
    for change in changes {
        counts.push(change - last);
        last = change;
    }
    if last < height * width || counts.is_empty() {
        counts.push(height * width - last);
    }
    Rle {
        height,
        width,
        counts,
    }
}

/// Start and end, in column-major order, of the runs of a mask that are inside and not empty.
pub(super) fn inside(mask: &Rle) -> impl Iterator<Item = (u32, u32)> {
    let mut at = 0;
    mask.counts.chunks(2).filter_map(move |pair| {
        let &[outside, inside] = pair else {
            return None; // a last run outside
        };
        let start = at + outside;
        at = start + inside;
        (inside > 0).then_some((start, at))
    })
}

/// The pixels that are in any of the masks, all of `height` x `width` pixels.
pub(super) fn union(masks: &[Rle], height: u32, width: u32) -> Rle {
    let mut runs: Vec<(u32, u32)> = masks.iter().flat_map(inside).collect();
    runs.sort_unstable();
    let mut merged: Vec<(u32, u32)> = Vec::new();
    for (start, end) in runs {
        match merged.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => merged.push((start, end)),
        }
    }
    let changes = merged.into_iter().flat_map(|(start, end)| [start, end]);
    from_changes(changes, height, width)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl Polygon {
        fn new(numbers: &[f64]) -> Result<Self, String> {
            let mut builder = Self::builder();
            for &number in numbers {
                builder.push(number)?;
            }
            builder.finish()
        }
    }

    fn area(numbers: &[f64], height: u32, width: u32) -> u64 {
        let polygon = Polygon::new(numbers).unwrap();
        polygon.rasterize(height, width).area()
    }

    #[test]
    fn a_square_covers_the_pixels_whose_middles_it_holds() {
        let square = [1.0, 1.0, 3.0, 1.0, 3.0, 4.0, 1.0, 4.0];
        let mask = Polygon::new(&square).unwrap().rasterize(5, 6);
        // Columns 1 and 2, rows 1 to 3.
        assert_eq!(mask.counts, [6, 3, 2, 3, 16]);
        assert_eq!(area(&[0.0, 0.0, 6.0, 0.0, 6.0, 5.0, 0.0, 5.0], 5, 6), 30);
        assert_eq!(
            area(&[-9.0, -9.0, 99.0, -9.0, 99.0, 99.0, -9.0, 99.0], 5, 6),
            30
        );
        assert_eq!(area(&[7.0, 7.0, 9.0, 7.0, 9.0, 9.0], 5, 6), 0);
        assert_eq!(area(&[2.0; 6], 5, 6), 0);
    }

    #[test]
    fn unions_count_pixels_once() {
        let of = |counts: &[u32]| Rle {
            height: 2,
            width: 5,
            counts: counts.to_vec(),
        };
        let masks = [of(&[1, 2, 7]), of(&[0, 2, 4, 2, 0, 2]), of(&[10])];
        assert_eq!(union(&masks, 2, 5).counts, [0, 3, 3, 4]);
        assert_eq!(union(&masks[..1], 2, 5), masks[0]);
        assert_eq!(union(&[], 2, 5).counts, [10]);
    }

    #[test]
    fn lines_and_points_have_no_inside() {
        for numbers in [&[][..], &[2.0], &[2.0, 2.0], &[2.0, 2.0, 4.0, 3.0]] {
            assert_eq!(area(numbers, 5, 6), 0, "{numbers:?}");
        }
        // Numbers that are over are left out.
        assert_eq!(
            area(&[0.0, 0.0, 4.0, 0.0, 4.0, 4.0, 0.0, 4.0, 9.0], 5, 6),
            16
        );
    }

    #[test]
    fn polygons_that_cannot_be_drawn_are_refused() {
        for number in [f64::NAN, f64::INFINITY, 1e300, -100_001.0] {
            let error = Polygon::new(&[number; 6]).unwrap_err();
            assert!(error.contains("far outside the photo"), "{error}");
        }
        let far = [-90_000.0, 0.0, 90_000.0, 0.0].repeat(20);
        assert!(Polygon::new(&far).unwrap_err().contains("outline"));
    }

    proptest! {
        #[test]
        fn any_polygon_makes_a_mask_that_fills_its_size(
            numbers in proptest::collection::vec(-30.0..60.0, 3..20),
            (height, width) in (1_u32..40, 1_u32..40),
        ) {
            let numbers: Vec<f64> = numbers.iter().chain(&numbers).copied().collect();
            let mask = Polygon::new(&numbers).unwrap().rasterize(height, width);
            prop_assert_eq!(mask.to_mask().unwrap().len() as u32, height * width);
            prop_assert_eq!(union(&[mask.clone(), mask.clone()], height, width), mask);
        }
    }
}
