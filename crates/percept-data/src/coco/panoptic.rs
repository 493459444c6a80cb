//! COCO's panoptic segments: every pixel of a photo, things and stuff.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use percept_image::{LabelMap, Rle};
use serde::Deserialize;

use super::{MAX_JSON_BYTES, Photos, no_sample, split_name, variants};
use crate::files::{inside, invalid, read_json};
use crate::index_png::read_rgb_png;
use crate::layout::find;
use crate::{ClassName, DataError, IGNORE, Region, SegmentationSample, SegmentationSet};

/// Most classes: their indices stay below [`IGNORE`].
const MAX_CLASSES: usize = 65_000;

/// Most segments of one photo. COCO has up to 100 or so.
const MAX_SEGMENTS: usize = 10_000;

/// Words of COCO's class names that say how classes were merged, not what is seen.
const MERGE_WORDS: [&str; 3] = ["merged", "other", "stuff"];

/// What COCO divides by material, which is said first: `wall-brick` is a brick wall.
const OF_MATERIAL: [&str; 2] = ["wall", "floor"];

/// Panoptic segments in COCO's form: JSON, and a PNG of segment ids for each photo.
#[derive(Debug)]
pub struct PanopticSet {
    split: String,
    json: PathBuf,
    classes: Vec<ClassName>,
    samples: Vec<SegmentationSample>,
    /// Height and width of each photo, 0 where the file does not say.
    sizes: Vec<(u32, u32)>,
    annotations: Vec<Annotation>,
}

/// Opens COCO's panoptic segments, set `coco`: 133 classes, 80 of things and 53 of stuff, in the
/// order of the JSON. There is no background; pixels of segment 0 are ignored.
///
/// Reads `annotations/panoptic_SPLIT.json` and the PNGs in `annotations/panoptic_SPLIT` or
/// `panoptic_SPLIT`; photos lie in `SPLIT` or `images/SPLIT`. `root` is the folder that holds these
/// or the one above. The split is `val2017` (also `val`) unless given. Photos without an annotation
/// are left out.
///
/// Classes are shown under the names of the file. Their only synonym, for prompts, is the name
/// without the words `merged`, `other` and `stuff` and with spaces for dashes, the material first
/// for walls and floors: `wall-other-merged` is a wall, `wall-brick` a brick wall.
///
/// Instances are the segments of things, crowds excepted.
///
/// # Errors
/// [`DataError`]: the layout is another one; the JSON cannot be read, is larger than 2 GiB, names an
/// unknown category or photo, or a file outside its folder.
pub fn open_coco_panoptic(root: &Path, split: Option<&str>) -> Result<PanopticSet, DataError> {
    let split = split_name(split)?;
    let places = ["annotations/", ""];
    let variants: Vec<[String; 3]> = (places.iter())
        .flat_map(|place| {
            variants(split, |above, photos| {
                let json = format!("{above}annotations/panoptic_{split}.json");
                [photos, json, format!("{above}{place}panoptic_{split}")]
            })
        })
        .collect();
    let [folder, json, masks] = find(root, &variants)?;
    PanopticSet::read(json, &folder, &masks, split)
}

#[derive(Deserialize)]
struct File {
    images: Vec<super::Image>,
    annotations: Vec<Entry>,
    categories: Vec<Category>,
}

#[derive(Deserialize)]
struct Category {
    id: u64,
    name: String,
    isthing: u8,
}

#[derive(Deserialize)]
struct Entry {
    image_id: u64,
    file_name: String,
    segments_info: Vec<SegmentEntry>,
}

#[derive(Deserialize)]
struct SegmentEntry {
    id: u32,
    category_id: u64,
    #[serde(default)]
    iscrowd: u8,
}

#[derive(Debug)]
struct Annotation {
    mask: PathBuf,
    segments: Vec<Segment>,
}

#[derive(Debug, Clone, Copy)]
struct Segment {
    id: u32,
    class: u16,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// One thing.
    Object,
    /// Stuff, or many things in one segment.
    Mass,
}

impl PanopticSet {
    fn read(json: PathBuf, folder: &Path, masks: &Path, split: &str) -> Result<Self, DataError> {
        let wrong = |reason: String| invalid(&json, reason);
        let file: File = read_json(&json, MAX_JSON_BYTES)?;
        let Photos {
            samples,
            sizes,
            positions,
        } = Photos::new(&json, folder, file.images)?;
        if file.categories.is_empty() || file.categories.len() > MAX_CLASSES {
            let count = file.categories.len();
            return Err(wrong(format!("{count} categories, not 1 to {MAX_CLASSES}")));
        }
        let mut classes = Vec::with_capacity(file.categories.len());
        let mut indices = HashMap::new();
        for (Category { id, name, isthing }, index) in file.categories.into_iter().zip(0..) {
            if indices.insert(id, (index, isthing)).is_some() {
                return Err(wrong(format!("category {id} is there twice")));
            }
            classes.push(ClassName {
                synonyms: vec![prompt_name(&name)],
                name,
            });
        }
        let mut annotations: Vec<Option<Annotation>> = Vec::new();
        annotations.resize_with(samples.len(), || None);
        for entry in file.annotations {
            let wrong = |reason: String| wrong(format!("image {}: {reason}", entry.image_id));
            let annotation = (positions.get(&entry.image_id))
                .and_then(|&position| annotations.get_mut(position))
                .ok_or_else(|| wrong("annotated, but not listed".to_owned()))?;
            let mask = inside(masks, &entry.file_name)
                .ok_or_else(|| wrong(format!("`{}` leads out of the masks", entry.file_name)))?;
            if entry.segments_info.len() > MAX_SEGMENTS {
                return Err(wrong(format!("more than {MAX_SEGMENTS} segments")));
            }
            let segment = |segment: &SegmentEntry| {
                let category = segment.category_id;
                let &(class, isthing) = (indices.get(&category)).ok_or_else(|| {
                    wrong(format!("segment {}: no category {category}", segment.id))
                })?;
                let is_object = isthing != 0 && segment.iscrowd == 0;
                Ok(Segment {
                    id: segment.id,
                    class,
                    kind: if is_object { Kind::Object } else { Kind::Mass },
                })
            };
            let segments = entry.segments_info.iter().map(segment);
            let segments: Vec<Segment> = segments.collect::<Result<_, DataError>>()?;
            let mut ids = HashSet::new();
            if let Some(twice) = segments.iter().find(|segment| !ids.insert(segment.id)) {
                return Err(wrong(format!("segment {} is there twice", twice.id)));
            }
            if annotation.replace(Annotation { mask, segments }).is_some() {
                return Err(wrong("annotated twice".to_owned()));
            }
        }
        let photos = samples.into_iter().zip(sizes);
        let annotated = photos.zip(annotations);
        let (photos, annotations): (Vec<_>, Vec<_>) = annotated
            .filter_map(|(photo, annotation)| Some((photo, annotation?)))
            .unzip();
        let (samples, sizes): (Vec<_>, Vec<_>) = photos.into_iter().unzip();
        if samples.is_empty() {
            return Err(wrong("no photo is annotated here".to_owned()));
        }
        Ok(Self {
            split: split.to_owned(),
            json,
            classes,
            samples,
            sizes,
            annotations,
        })
    }

    /// For every pixel the position of its segment in the list of the photo's segments, [`IGNORE`]
    /// where there is none; and the list.
    fn segments(&self, sample: usize) -> Result<(LabelMap, &[Segment]), DataError> {
        let Some(Annotation { mask, segments }) = self.annotations.get(sample) else {
            return Err(no_sample(self.name(), self.samples.len(), sample));
        };
        let positions: HashMap<u32, u16> =
            segments.iter().map(|segment| segment.id).zip(0..).collect();
        let ids = read_rgb_png(mask)?;
        let stated = self.sizes.get(sample).filter(|size| **size != (0, 0));
        if let Some(&(height, width)) = stated.filter(|size| **size != (ids.height(), ids.width()))
        {
            return Err(invalid(
                mask,
                format!(
                    "{} x {} pixels, but the photo has {width} x {height}",
                    ids.width(),
                    ids.height()
                ),
            ));
        }
        // Neighbours are mostly of one segment, which saves looking the id up.
        let mut last = (0, IGNORE);
        let labels = ids.pixels().map(|pixel| {
            let [r, g, b] = pixel.0.map(u32::from);
            let id = r | g << 8 | b << 16;
            if id != last.0 {
                let position = match id {
                    0 => IGNORE,
                    _ => *positions.get(&id).ok_or(id)?,
                };
                last = (id, position);
            }
            Ok(last.1)
        });
        let labels = labels.collect::<Result<Vec<u16>, u32>>().map_err(|id| {
            let json = self.json.display();
            invalid(mask, format!("segment {id} is not listed in {json}"))
        })?;
        let map = LabelMap::new(ids.width(), ids.height(), labels);
        let map = map.map_err(|error| invalid(mask, error.to_string()))?;
        Ok((map, segments))
    }
}

impl SegmentationSet for PanopticSet {
    fn name(&self) -> &str {
        "coco"
    }

    fn split(&self) -> &str {
        &self.split
    }

    fn classes(&self) -> &[ClassName] {
        &self.classes
    }

    fn background(&self) -> Option<u16> {
        None
    }

    fn samples(&self) -> &[SegmentationSample] {
        &self.samples
    }

    fn truth(&self, sample: usize) -> Result<LabelMap, DataError> {
        let (map, segments) = self.segments(sample)?;
        Ok(LabelMap::from_fn(map.width(), map.height(), |x, y| {
            let position = map.get(x, y).unwrap_or(IGNORE);
            let segment = segments.get(usize::from(position));
            segment.map_or(IGNORE, |segment| segment.class)
        }))
    }

    fn instances(&self, sample: usize) -> Result<Option<Vec<Region>>, DataError> {
        let (map, segments) = self.segments(sample)?;
        let present = map.counts(segments.len());
        let regions = segments.iter().zip(0..).zip(present);
        let regions =
            regions.filter(|((segment, _), pixels)| segment.kind == Kind::Object && *pixels > 0);
        let regions = regions.map(|((segment, position), _)| Region {
            class: segment.class,
            mask: Rle::from_labels(&map, position),
        });
        Ok(Some(regions.collect()))
    }
}

/// A class name as one would say it: see [`open_coco_panoptic`].
fn prompt_name(name: &str) -> String {
    let mut words: Vec<&str> = name.split('-').collect();
    words.retain(|word| !MERGE_WORDS.contains(word));
    if words.len() > 1 && words.first().is_some_and(|word| OF_MATERIAL.contains(word)) {
        words.rotate_left(1);
    }
    match words.is_empty() {
        true => name.to_owned(),
        false => words.join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_say_what_is_seen() {
        for (name, prompt) in [
            ("wall-other-merged", "wall"),
            ("wall-brick", "brick wall"),
            ("floor-wood", "wood floor"),
            ("window-blind", "window blind"),
            ("mirror-stuff", "mirror"),
            ("tree-merged", "tree"),
            ("potted plant", "potted plant"),
            ("other", "other"),
        ] {
            assert_eq!(prompt_name(name), prompt);
        }
    }
}
