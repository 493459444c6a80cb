//! COCO's panoptic segments: every pixel of a photo, things and stuff.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use percept_image::{LabelMap, Rle};

use super::{
    Annotations, Categories, Category, Images, MAX_JSON_BYTES, Photos, Size, named_by_id,
    no_sample, objects, split_name, variants,
};
use crate::classes::spelling;
use crate::files::{inside, invalid};
use crate::index_png::read_rgb_png;
use crate::json::{Id, List, Scalar, loose, read_json, shown};
use crate::layout::find;
use crate::{ClassName, DataError, IGNORE, Omissions, Region, SegmentationSample, SegmentationSet};

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
    sizes: Vec<Size>,
    annotations: Vec<Annotation>,
    omissions: Omissions,
}

/// Opens COCO's panoptic segments, set `coco`: 133 classes, 80 of things and 53 of stuff, in the
/// order of the JSON. There is no background; pixels of segment 0 are ignored.
///
/// Reads `annotations/panoptic_SPLIT.json` and the PNGs in `annotations/panoptic_SPLIT` or
/// `panoptic_SPLIT`; photos lie in `SPLIT` or `images/SPLIT`. `root` is the folder that holds these
/// or the one above. The split is `val2017` (also `val`) unless given. Photos without an annotation
/// are left out and counted, and so are annotations that make no sense.
///
/// Classes are shown under the names of the file. Their only synonym, for prompts, is the name
/// without the words `merged`, `other` and `stuff` and with spaces for dashes, the material first
/// for walls and floors: `wall-other-merged` is a wall, `wall-brick` a brick wall.
///
/// Instances are the segments of things, crowds excepted.
///
/// # Errors
/// [`DataError`]: the layout is another one; the JSON cannot be read, is larger than 2 GiB, or has no
/// categories or no photo whose annotation makes sense.
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

loose! {
    struct File {
        images: Images,
        annotations: Annotations<Entry>,
        categories: Categories,
    }
}

loose! {
    struct Entry {
        image_id: Scalar,
        file_name: Scalar,
        segments_info: List<SegmentEntry, MAX_SEGMENTS>,
    }
}

loose! {
    struct SegmentEntry {
        id: Scalar,
        category_id: Scalar,
        iscrowd: Scalar,
    }
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
        let file: File = read_json(&json, MAX_JSON_BYTES)?;
        let mut omissions = Omissions::new();
        let photos = Photos::new(&json, folder, file.images, &mut omissions)?;
        let categories = objects(file.categories, "categories", &json, &mut omissions)?;
        let (classes, indices) = class_indices(&categories, &mut omissions)
            .map_err(|reason| invalid(&json, omissions.after(&reason)))?;
        let entries = objects(file.annotations, "annotations", &json, &mut omissions)?;
        let mut annotations: Vec<Option<Annotation>> = Vec::new();
        annotations.resize_with(photos.samples.len(), || None);
        for entry in entries {
            let Some(position) = photos.position(&entry.image_id, "one", &mut omissions) else {
                continue;
            };
            let Some(annotation) = annotations.get_mut(position) else {
                continue;
            };
            let image = photos.id(position);
            if annotation.is_some() {
                let kind = "annotations of a photo that has another, of which the last counts";
                omissions.add(kind, format!("image {image}"));
            }
            match Annotation::new(entry, masks, &indices) {
                Ok(read) => *annotation = Some(read),
                Err(reason) => {
                    let kind = "annotations that cannot be read, left out";
                    omissions.add(kind, format!("image {image}: {reason}"));
                }
            }
        }
        let mut set = Self {
            split: split.to_owned(),
            classes,
            samples: Vec::new(),
            sizes: Vec::new(),
            annotations: Vec::new(),
            omissions,
            json,
        };
        let listed = photos.samples.into_iter().zip(photos.sizes);
        for ((sample, size), annotation) in listed.zip(annotations) {
            match annotation {
                None => (set.omissions).add("photos without an annotation, left out", &sample.id),
                Some(annotation) => {
                    set.samples.push(sample);
                    set.sizes.push(size);
                    set.annotations.push(annotation);
                }
            }
        }
        if set.samples.is_empty() {
            let reason = (set.omissions).after("no photo is annotated here");
            return Err(invalid(&set.json, reason));
        }
        Ok(set)
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
        let stated = self.sizes.get(sample).copied().flatten();
        if let Some((height, width)) = stated.filter(|size| *size != (ids.height(), ids.width())) {
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

/// A class of a category, and whether it is of things.
type Class = (u16, bool);

/// The classes in the order of the file, and which of them each category is. Categories of one name,
/// however it is spelled, are one class. See also [`named_by_id`].
fn class_indices(
    categories: &[Category],
    omissions: &mut Omissions,
) -> Result<(Vec<ClassName>, HashMap<Id, Class>), String> {
    if categories.is_empty() || categories.len() > MAX_CLASSES {
        let count = categories.len();
        return Err(format!("{count} categories, not 1 to {MAX_CLASSES}"));
    }
    let mut classes: Vec<ClassName> = Vec::with_capacity(categories.len());
    let mut indices: HashMap<Id, Class> = HashMap::new();
    let mut known: HashMap<String, u16> = HashMap::new();
    for (id, name, category) in named_by_id(categories, omissions) {
        let spelling = spelling(name);
        let index = match known.get(&spelling) {
            Some(&index) => {
                let kind = "categories with the name of another, counted as one class";
                omissions.add(kind, format!("category {id}: `{name}`"));
                index
            }
            None => {
                let index = u16::try_from(classes.len()).map_err(|_| "too many categories")?;
                known.insert(spelling, index);
                classes.push(ClassName {
                    name: name.to_owned(),
                    synonyms: vec![prompt_name(name)],
                });
                index
            }
        };
        indices.insert(id, (index, category.isthing.is_yes()));
    }
    match classes.is_empty() {
        true => Err("no category has an id and a name".to_owned()),
        false => Ok((classes, indices)),
    }
}

impl Annotation {
    /// What an entry says, if all of it makes sense: pixels of a segment that does not would have no
    /// class.
    fn new(entry: Entry, masks: &Path, indices: &HashMap<Id, Class>) -> Result<Self, String> {
        let name = entry.file_name.text().unwrap_or_default();
        let mask = inside(masks, name).ok_or_else(|| format!("`{name}` leads out of the masks"))?;
        let entries = entry.segments_info.items("segments_info")?;
        if let Some((number, _)) = entries.other {
            return Err(format!("number {number} of `segments_info` is no object"));
        }
        let entries = entries.objects;
        let mut segments = Vec::with_capacity(entries.len());
        let mut ids = HashSet::new();
        for entry in entries {
            let id = (entry.id.count()).ok_or_else(|| format!("segment {}", shown(&entry.id)))?;
            let category = entry.category_id.id();
            let &(class, is_thing) = category
                .and_then(|category| indices.get(&category))
                .ok_or_else(|| {
                    let category = shown(&entry.category_id);
                    format!("segment {id}: no category {category}")
                })?;
            if !ids.insert(id) {
                return Err(format!("segment {id} is there twice"));
            }
            let kind = match is_thing && !entry.iscrowd.is_yes() {
                true => Kind::Object,
                false => Kind::Mass,
            };
            segments.push(Segment { id, class, kind });
        }
        Ok(Self { mask, segments })
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

    fn omissions(&self) -> &Omissions {
        &self.omissions
    }

    fn truth_files(&self, sample: usize) -> Vec<PathBuf> {
        let mask = self
            .annotations
            .get(sample)
            .map(|annotation| annotation.mask.clone());
        std::iter::once(self.json.clone()).chain(mask).collect()
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
    fn a_category_that_is_stated_again_changes_no_other() {
        let categories =
            r#"[{"id": 1, "name": "dog"}, {"id": 2, "name": "Dog"}, {"id": 2, "name": "cat"}]"#;
        let categories: Vec<Category> = serde_json::from_str(categories).unwrap();
        let (classes, indices) = class_indices(&categories, &mut Omissions::new()).unwrap();
        let name = |id| &classes[usize::from(indices[&Id::Number(id)].0)].name;
        assert_eq!((name(1).as_str(), name(2).as_str()), ("dog", "cat"));
    }

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
