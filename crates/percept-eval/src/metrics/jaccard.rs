//! Jaccard similarity: how well some group matches each annotated region, whatever its label
//! (the CLIPpy paper, Table 2).

use percept_image::{LabelMap, Rle};
use serde::{Deserialize, Serialize};

use super::{IGNORE, MetricError};

/// A map of groups, made ready to be compared with the regions of its photo.
#[derive(Debug, Clone)]
pub struct GroupSizes {
    height: u32,
    width: u32,
    /// One above the group of every pixel, 0 where it is left out. Column by column, as the runs
    /// of a region go.
    groups: Vec<u32>,
    /// Pixels by group, in the same numbering.
    sizes: Vec<u64>,
}

/// The group that a region has most in common with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BestGroup {
    /// Its label in the map.
    pub group: u16,
    /// Intersection over union with the region.
    pub iou: f64,
}

impl GroupSizes {
    /// Counts the pixels of every group of a map. Every label is a group.
    ///
    /// With a `truth`, pixels that are [`IGNORE`] in it are left out of groups and regions alike.
    ///
    /// # Errors
    /// [`MetricError::Size`] if the truth has another size.
    pub fn new(map: &LabelMap, truth: Option<&LabelMap>) -> Result<Self, MetricError> {
        let size = |map: &LabelMap| (map.height(), map.width());
        if let Some(truth) = truth
            && size(truth) != size(map)
        {
            return Err(MetricError::Size {
                what: "truth",
                expected: size(map),
                actual: size(truth),
            });
        }
        let width = map.width() as usize;
        let largest = map.data().iter().max().copied().unwrap_or(0);
        let mut sizes = vec![0; usize::from(largest) + 2];
        let mut groups = Vec::with_capacity(map.data().len());
        for x in 0..width {
            let column = map.data().iter().skip(x).step_by(width);
            let truths = truth.map_or(&[][..], LabelMap::data);
            let mut truths = truths.iter().skip(x).step_by(width);
            for &label in column {
                let counts = truths.next() != Some(&IGNORE);
                let group = if counts { u32::from(label) + 1 } else { 0 };
                groups.push(group);
                if let Some(size) = sizes.get_mut(group as usize) {
                    *size += 1;
                }
            }
        }
        Ok(Self {
            height: map.height(),
            width: map.width(),
            groups,
            sizes,
        })
    }

    /// The best match of one region; the lower label of two equally good. `None` if the region
    /// has no pixels, or none that is not left out.
    ///
    /// # Errors
    /// [`MetricError::Size`] if the region has another size than the groups,
    /// [`MetricError::Runs`] if its runs do not fill it.
    pub fn best(&self, region: &Rle) -> Result<Option<BestGroup>, MetricError> {
        let (expected, actual) = ((self.height, self.width), (region.height, region.width));
        if actual != expected {
            return Err(MetricError::Size {
                what: "region",
                expected,
                actual,
            });
        }
        let covered = region.counts.iter().map(|&run| u64::from(run)).sum();
        if covered != self.groups.len() as u64 {
            return Err(MetricError::Runs {
                expected: self.groups.len() as u64,
                actual: covered,
            });
        }
        let mut shared = vec![0_u64; self.sizes.len()];
        let mut rest = self.groups.as_slice();
        for (index, &run) in region.counts.iter().enumerate() {
            let Some((pixels, after)) = rest.split_at_checked(run as usize) else {
                break; // not reached: the runs fill the map
            };
            rest = after;
            if index % 2 == 1 {
                for &group in pixels {
                    if let Some(count) = shared.get_mut(group as usize) {
                        *count += 1;
                    }
                }
            }
        }
        let region: u64 = shared.iter().skip(1).sum();
        if region == 0 {
            return Ok(None);
        }
        let mut best: Option<BestGroup> = None;
        let groups = shared.iter().zip(&self.sizes).skip(1);
        for (group, (&shared, &size)) in (0..=u16::MAX).zip(groups) {
            if shared == 0 {
                continue;
            }
            let iou = shared as f64 / (size + region - shared) as f64;
            if best.is_none_or(|best| iou > best.iou) {
                best = Some(BestGroup { group, iou });
            }
        }
        Ok(best)
    }
}

/// The mean over regions of the IoU with their best group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jaccard {
    /// Sum of the regions' best IoU.
    pub sum: f64,
    /// Number of regions.
    pub count: u64,
}

impl Jaccard {
    /// Counts a region by what [`GroupSizes::best`] found; one without pixels is not counted.
    pub fn add(&mut self, best: Option<BestGroup>) {
        if let Some(best) = best {
            self.sum += best.iou;
            self.count = self.count.saturating_add(1);
        }
    }

    /// Adds the regions of another part.
    pub fn merge(&mut self, other: &Self) {
        self.sum += other.sum;
        self.count = self.count.saturating_add(other.count);
    }

    /// The mean over all regions; `None` without any.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(labels: [u16; 6]) -> LabelMap {
        LabelMap::new(3, 2, labels.to_vec()).unwrap()
    }

    #[test]
    fn the_best_group_is_found() {
        // 5 5 1
        // 5 1 1
        let groups = GroupSizes::new(&map([5, 5, 1, 5, 1, 1]), None).unwrap();
        let region = Rle::from_labels(&map([1, 1, 0, 1, 1, 0]), 1);
        let best = groups.best(&region).unwrap().unwrap();
        assert_eq!((best.group, best.iou), (5, 0.75));
        let mut jaccard = Jaccard::default();
        assert_eq!(jaccard.mean(), None);
        jaccard.add(Some(best));
        jaccard.add(None);
        jaccard.merge(&Jaccard {
            sum: 0.25,
            count: 1,
        });
        assert_eq!(jaccard.mean(), Some(0.5));
    }

    #[test]
    fn ignored_pixels_belong_to_neither() {
        let truth = map([0, IGNORE, 0, 0, IGNORE, IGNORE]);
        let groups = GroupSizes::new(&map([5, 5, 1, 5, 1, 1]), Some(&truth)).unwrap();
        let region = Rle::from_labels(&map([1, 1, 0, 1, 1, 0]), 1);
        let best = groups.best(&region).unwrap().unwrap();
        assert_eq!((best.group, best.iou), (5, 1.0));
        // All of a region left out, or nothing in it.
        let region = Rle::from_labels(&map([0, 1, 0, 0, 1, 0]), 1);
        assert_eq!(groups.best(&region).unwrap(), None);
        let region = Rle::from_labels(&map([0; 6]), 1);
        assert_eq!(groups.best(&region).unwrap(), None);
    }

    #[test]
    fn the_lower_of_two_equal_groups_wins() {
        let groups = GroupSizes::new(&map([u16::MAX, 7, 7, 7, u16::MAX, u16::MAX]), None).unwrap();
        let region = Rle::from_labels(&map([1; 6]), 1);
        let best = groups.best(&region).unwrap().unwrap();
        assert_eq!((best.group, best.iou), (7, 0.5));
    }

    #[test]
    fn sizes_and_runs_that_do_not_fit_are_refused() {
        let groups = GroupSizes::new(&map([0; 6]), None).unwrap();
        let mut region = Rle {
            height: 3,
            width: 2,
            counts: vec![6],
        };
        assert_eq!(
            groups.best(&region).unwrap_err().to_string(),
            "the region is 3 x 2 (height x width), the groups are 2 x 3"
        );
        (region.height, region.width) = (2, 3);
        region.counts = vec![0, u32::MAX, 9];
        assert!(matches!(
            groups.best(&region),
            Err(MetricError::Runs { expected: 6, .. })
        ));
        let truth = LabelMap::new(2, 3, vec![0; 6]).unwrap();
        assert!(GroupSizes::new(&map([0; 6]), Some(&truth)).is_err());
        let empty = LabelMap::new(0, 0, vec![]).unwrap();
        let region = Rle::from_labels(&empty, 0);
        let groups = GroupSizes::new(&empty, Some(&empty)).unwrap();
        assert_eq!(groups.best(&region).unwrap(), None);
    }
}
