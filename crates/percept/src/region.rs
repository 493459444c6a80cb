//! The regions of a result, as lists and files name them.

use percept_image::{LabelMap, LegendEntry, Rle};
use serde::Serialize;

use crate::{Grouping, Segmentation};

/// The pixels of one label.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Region {
    /// The label's index in the map.
    pub index: u16,
    /// Its name.
    pub name: String,
    /// Number of pixels.
    pub pixels: u64,
    /// Share of the photo's pixels, 0 to 1.
    pub share: f32,
    /// Mean cosine similarity with the text that won, −1 to 1; groups have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<f32>,
}

impl Region {
    /// Its line in the legend of an [overlay](percept_image::overlay).
    pub fn legend_entry(&self) -> LegendEntry {
        LegendEntry {
            index: self.index,
            name: self.name.clone(),
            share: self.share,
        }
    }
}

impl Segmentation {
    /// What was found, the largest first.
    pub fn regions(&self) -> Vec<Region> {
        self.found
            .iter()
            .map(|class| Region {
                index: class.class,
                name: class.name.clone(),
                pixels: class.pixels,
                share: class.share,
                score: Some(class.score),
            })
            .collect()
    }
}

impl Grouping {
    /// The groups that have pixels, `group 1` and so on, the largest first.
    pub fn regions(&self) -> Vec<Region> {
        let total = f64::from(self.labels.width()) * f64::from(self.labels.height());
        let mut regions: Vec<Region> = self
            .labels
            .counts(self.explained.len() + 1)
            .into_iter()
            .enumerate()
            .filter(|(_, pixels)| *pixels > 0)
            .map(|(index, pixels)| Region {
                index: index as u16,
                name: format!("group {index}"),
                pixels,
                share: (pixels as f64 / total) as f32,
                score: None,
            })
            .collect();
        regions.sort_by_key(|region| std::cmp::Reverse(region.pixels));
        regions
    }
}

/// What a COCO results file calls a photo: COCO's are known by number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum ImageId {
    /// The number that the file's name is.
    Number(u64),
    /// Any other name.
    Name(String),
}

impl ImageId {
    /// The number that `stem`, a file's name without ending, is; else `name`.
    pub fn new(stem: &str, name: &str) -> Self {
        match stem.parse() {
            Ok(number) => Self::Number(number),
            Err(_) => Self::Name(name.to_owned()),
        }
    }
}

/// One entry of a COCO results file, which pycocotools reads.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CocoResult {
    /// The photo.
    pub image_id: ImageId,
    /// Its file name.
    pub file_name: String,
    /// Index of the label.
    pub category_id: u16,
    /// Its name.
    pub category_name: String,
    /// Mean cosine similarity, or 1 where there is none.
    pub score: f32,
    /// Number of pixels.
    pub area: u64,
    /// Left, top, width and height in pixels.
    pub bbox: [f32; 4],
    /// The mask.
    pub segmentation: CompressedRle,
}

/// A mask as COCO's JSON has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CompressedRle {
    /// Height and width in pixels.
    pub size: [u32; 2],
    /// Compressed run lengths.
    pub counts: String,
}

impl From<&Rle> for CompressedRle {
    fn from(rle: &Rle) -> Self {
        Self {
            size: [rle.height, rle.width],
            counts: rle.to_compressed(),
        }
    }
}

/// COCO results of all `regions` of a photo but the background, index 0.
pub fn coco_results(
    image_id: &ImageId,
    file_name: &str,
    labels: &LabelMap,
    regions: &[Region],
) -> Vec<CocoResult> {
    let most = regions.iter().map(|region| region.index).max().unwrap_or(0);
    let masks = Rle::of_each_label(labels, usize::from(most) + 1);
    regions
        .iter()
        .filter(|region| region.index > 0)
        .filter_map(|region| Some((region, masks.get(usize::from(region.index))?)))
        .map(|(region, rle)| CocoResult {
            image_id: image_id.clone(),
            file_name: file_name.to_owned(),
            category_id: region.index,
            category_name: region.name.clone(),
            score: region.score.unwrap_or(1.0),
            area: rle.area(),
            bbox: rle.bbox(),
            segmentation: rle.into(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn photos_of_coco_are_known_by_number() {
        assert_eq!(
            ImageId::new("000000397133", "val/000000397133"),
            ImageId::Number(397_133)
        );
        assert_eq!(ImageId::new("cat", "a/cat"), ImageId::Name("a/cat".into()));
    }

    #[test]
    fn results_leave_out_the_background() {
        let labels = LabelMap::new(2, 2, vec![0, 3, 0, 3]).unwrap();
        let region = |index, score| Region {
            index,
            name: format!("label {index}"),
            pixels: 2,
            share: 0.5,
            score,
        };
        let regions = [region(0, Some(0.1)), region(3, None)];
        let results = coco_results(&ImageId::Number(7), "7.jpg", &labels, &regions);
        let json = serde_json::to_value(&results).unwrap();
        assert_eq!(
            json,
            serde_json::json!([{
                "image_id": 7, "file_name": "7.jpg", "category_id": 3,
                "category_name": "label 3", "score": 1.0, "area": 2,
                "bbox": [1.0, 0.0, 1.0, 2.0],
                "segmentation": { "size": [2, 2], "counts": "22" },
            }])
        );
    }
}
