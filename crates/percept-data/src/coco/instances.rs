//! COCO's objects: one polygon or run-length mask per annotation.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use percept_image::{LabelMap, Rle};
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::polygon::{Polygon, inside, union};
use super::{MAX_JSON_BYTES, Photos, no_sample, split_name, variants};
use crate::files::{invalid, read_json};
use crate::layout::find;
use crate::{ClassName, DataError, Region, SegmentationSample, SegmentationSet, classes};

/// Most annotations of one photo: bounds the masks that are in memory together. COCO has up to 100,
/// aerial sets a few thousand.
const MAX_PER_PHOTO: usize = 10_000;

/// Most runs of all masks of one photo, 128 MiB of them: a few numbers can outline a comb of many.
const MAX_RUNS: usize = 1 << 25;

/// Most classes besides the background: their indices stay below the one of ignored pixels.
const MAX_CLASSES: usize = 65_000;

/// Category ids from 1 to 90 that none of COCO's 80 objects has.
const UNUSED_IDS: [u64; 10] = [12, 26, 29, 30, 45, 66, 68, 69, 71, 83];

/// Objects with masks, in COCO's JSON.
///
/// The annotations of all photos are kept in memory, in less than half the size of their file.
#[derive(Debug)]
pub struct InstanceSet {
    split: String,
    json: PathBuf,
    classes: Vec<ClassName>,
    samples: Vec<SegmentationSample>,
    /// Height and width of each photo.
    sizes: Vec<(u32, u32)>,
    annotations: Vec<Vec<Annotation>>,
}

/// Opens COCO's objects, set `coco-object`: the background, index 0, and 80 classes in the order of
/// their category ids.
///
/// Reads `annotations/instances_SPLIT.json`, of which every photo is a sample, those without objects
/// included; photos lie in `SPLIT` or `images/SPLIT`. `root` is the folder that holds these or the
/// one above. The split is `val2017` (also `val`) unless given. A file with other categories than
/// COCO's is a set with these classes, in the order of their ids.
///
/// In the truth map, objects that cover more pixels are painted first, so that small ones in front
/// of them or on them stay visible; of equals, the one annotated later is on top. Crowd regions are
/// painted too, but are no instances. Annotations without a single pixel are left out.
///
/// # Errors
/// [`DataError`]: the layout is another one; the JSON cannot be read, is larger than 2 GiB, names an
/// unknown category or photo, a photo twice or outside its folder.
pub fn open_coco_object(root: &Path, split: Option<&str>) -> Result<InstanceSet, DataError> {
    let split = split_name(split)?;
    let variants = variants(split, |above, photos| {
        [photos, format!("{above}annotations/instances_{split}.json")]
    });
    let [folder, json] = find(root, &variants)?;
    InstanceSet::read(json, &folder, split)
}

/// The file: what is needed of it, anything else is passed over.
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
}

#[derive(Deserialize)]
struct Entry {
    id: u64,
    image_id: u64,
    category_id: u64,
    segmentation: Segmentation,
    #[serde(default)]
    iscrowd: u8,
}

/// An annotation that is known to fit the set.
#[derive(Debug)]
struct Annotation {
    id: u64,
    class: u16,
    kind: Kind,
    segmentation: Segmentation,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Object,
    /// Many objects of a class that nobody drew one by one.
    Crowd,
}

/// Pixels in one of the three forms that COCO's files use.
#[derive(Debug)]
enum Segmentation {
    Polygons(Box<[Polygon]>),
    Runs { size: [u32; 2], counts: Box<[u32]> },
    Compressed { size: [u32; 2], counts: Box<str> },
}

impl InstanceSet {
    fn read(json: PathBuf, folder: &Path, split: &str) -> Result<Self, DataError> {
        let file: File = read_json(&json, MAX_JSON_BYTES)?;
        let photos = Photos::new(&json, folder, file.images)?;
        photos.check_sizes(&json)?;
        let (classes, indices) =
            class_indices(file.categories).map_err(|reason| invalid(&json, reason))?;
        let mut annotations: Vec<Vec<Annotation>> = Vec::new();
        annotations.resize_with(photos.samples.len(), Vec::new);
        for entry in file.annotations {
            let wrong =
                |reason: String| invalid(&json, format!("annotation {}: {reason}", entry.id));
            let class = *(indices.get(&entry.category_id))
                .ok_or_else(|| wrong(format!("no category {}", entry.category_id)))?;
            let of_photo = (photos.positions.get(&entry.image_id))
                .and_then(|&position| annotations.get_mut(position))
                .ok_or_else(|| wrong(format!("no image {}", entry.image_id)))?;
            if of_photo.len() == MAX_PER_PHOTO {
                let reason = format!("image {} has more than {MAX_PER_PHOTO}", entry.image_id);
                return Err(wrong(reason));
            }
            of_photo.push(Annotation {
                id: entry.id,
                class,
                kind: if entry.iscrowd == 0 {
                    Kind::Object
                } else {
                    Kind::Crowd
                },
                segmentation: entry.segmentation,
            });
        }
        Ok(Self {
            split: split.to_owned(),
            json,
            classes,
            samples: photos.samples,
            sizes: photos.sizes,
            annotations,
        })
    }

    /// Height and width of a photo.
    fn size(&self, sample: usize) -> Result<(u32, u32), DataError> {
        let size = self.sizes.get(sample).copied();
        size.ok_or_else(|| no_sample(self.name(), self.samples.len(), sample))
    }

    /// The masks of a photo's annotations that have any pixel.
    fn masks(&self, sample: usize) -> Result<Vec<(Kind, Region)>, DataError> {
        let (height, width) = self.size(sample)?;
        let annotations = self.annotations.get(sample).map_or(&[][..], Vec::as_slice);
        let mut masks = Vec::with_capacity(annotations.len());
        let mut runs = 0;
        for annotation in annotations {
            let mask = annotation.segmentation.mask(height, width);
            let mask = mask.map_err(|reason| {
                invalid(
                    &self.json,
                    format!("annotation {}: {reason}", annotation.id),
                )
            })?;
            runs += mask.counts.len();
            if runs > MAX_RUNS {
                let reason = format!("more than {MAX_RUNS} runs with those before it");
                let reason = format!("annotation {}: {reason}", annotation.id);
                return Err(invalid(&self.json, reason));
            }
            if mask.area() > 0 {
                let class = annotation.class;
                masks.push((annotation.kind, Region { class, mask }));
            }
        }
        Ok(masks)
    }
}

impl SegmentationSet for InstanceSet {
    fn name(&self) -> &str {
        "coco-object"
    }

    fn split(&self) -> &str {
        &self.split
    }

    fn classes(&self) -> &[ClassName] {
        &self.classes
    }

    fn background(&self) -> Option<u16> {
        Some(0)
    }

    fn samples(&self) -> &[SegmentationSample] {
        &self.samples
    }

    fn truth(&self, sample: usize) -> Result<LabelMap, DataError> {
        let (height, width) = self.size(sample)?;
        let mut masks = self.masks(sample)?;
        // A stable sort: equals stay in the order of the file.
        masks.sort_by_key(|(_, region)| std::cmp::Reverse(region.mask.area()));
        let columns = width as usize;
        let mut labels = vec![0; height as usize * columns];
        for (_, Region { class, mask }) in &masks {
            for (start, end) in inside(mask) {
                for at in start..end {
                    let (x, y) = ((at / height) as usize, (at % height) as usize);
                    if let Some(label) = labels.get_mut(y * columns + x) {
                        *label = *class;
                    }
                }
            }
        }
        LabelMap::new(width, height, labels).map_err(|error| invalid(&self.json, error.to_string()))
    }

    fn instances(&self, sample: usize) -> Result<Option<Vec<Region>>, DataError> {
        let masks = self.masks(sample)?;
        let objects = masks.into_iter().filter(|(kind, _)| *kind == Kind::Object);
        Ok(Some(objects.map(|(_, region)| region).collect()))
    }
}

/// The classes, background first, and which of them each category is.
fn class_indices(
    mut categories: Vec<Category>,
) -> Result<(Vec<ClassName>, BTreeMap<u64, u16>), String> {
    if categories.is_empty() || categories.len() > MAX_CLASSES {
        let count = categories.len();
        return Err(format!("{count} categories, not 1 to {MAX_CLASSES}"));
    }
    let coco_ids = (1..=90).filter(|id| !UNUSED_IDS.contains(id));
    let coco: BTreeMap<u64, ClassName> = coco_ids.zip(classes::coco()).collect();
    let of_coco = |category: &Category| {
        let class = coco.get(&category.id);
        class.is_some_and(|class| class.name == category.name)
    };
    let by_id: BTreeMap<u64, ClassName> = match categories.iter().all(of_coco) {
        // All 80 of them, also where a part of the set lists only the categories it has.
        true => coco,
        false => {
            categories.sort_by_key(|category| category.id);
            if let Some([twice, _]) = (categories.windows(2))
                .filter_map(|pair| pair.as_array())
                .find(|[a, b]| a.id == b.id)
            {
                return Err(format!("category {} is there twice", twice.id));
            }
            let class = |name: String| ClassName {
                synonyms: vec![name.clone()],
                name,
            };
            let named = categories.into_iter();
            named
                .map(|category| (category.id, class(category.name)))
                .collect()
        }
    };
    let indices = by_id.keys().copied().zip(1..).collect();
    let background = ClassName {
        name: "background".to_owned(),
        synonyms: vec!["background".to_owned()],
    };
    let classes = std::iter::once(background).chain(by_id.into_values());
    Ok((classes.collect(), indices))
}

impl Segmentation {
    /// The pixels in a photo of a size that was checked.
    fn mask(&self, height: u32, width: u32) -> Result<Rle, String> {
        let fits = |size: &[u32; 2]| match *size == [height, width] {
            true => Ok(()),
            false => Err(format!(
                "a mask of {} x {} (height x width) in a photo of {height} x {width}",
                size[0], size[1]
            )),
        };
        match self {
            Self::Polygons(polygons) => {
                let masks = polygons.iter().map(|one| one.rasterize(height, width));
                Ok(union(&masks.collect::<Vec<_>>(), height, width))
            }
            Self::Runs { size, counts } => {
                fits(size)?;
                let sum: u64 = counts.iter().map(|&run| u64::from(run)).sum();
                if sum != u64::from(height) * u64::from(width) {
                    return Err(format!(
                        "runs of {sum} pixels in a photo of {height} x {width}"
                    ));
                }
                Ok(Rle {
                    height,
                    width,
                    counts: counts.to_vec(),
                })
            }
            Self::Compressed { size, counts } => {
                fits(size)?;
                Rle::from_compressed(counts, height, width).map_err(|error| error.to_string())
            }
        }
    }
}

impl<'de> Deserialize<'de> for Segmentation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Pixels)
    }
}

/// Tells the forms apart as they come: serde's untagged enums would first make a tree of the values,
/// many times their size.
struct Pixels;

impl<'de> Visitor<'de> for Pixels {
    type Value = Segmentation;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of polygons, or runs as `size` and `counts`")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Segmentation, A::Error> {
        let mut polygons = Vec::new();
        let mut outline = 0;
        while let Some(polygon) = sequence.next_element::<Polygon>()? {
            outline = polygon.check_outline(outline).map_err(A::Error::custom)?;
            polygons.push(polygon);
        }
        Ok(Segmentation::Polygons(polygons.into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Segmentation, A::Error> {
        let mut size = None;
        let mut counts = None;
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "size" => size = Some(map.next_value()?),
                "counts" => counts = Some(map.next_value()?),
                _ => {
                    map.next_value::<serde::de::IgnoredAny>()?;
                }
            }
        }
        let size = size.ok_or_else(|| A::Error::missing_field("size"))?;
        match counts.ok_or_else(|| A::Error::missing_field("counts"))? {
            Counts::Runs(counts) => Ok(Segmentation::Runs { size, counts }),
            Counts::Text(counts) => Ok(Segmentation::Compressed { size, counts }),
        }
    }
}

/// Run lengths, as numbers or in the compressed form.
enum Counts {
    Runs(Box<[u32]>),
    Text(Box<str>),
}

impl<'de> Deserialize<'de> for Counts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Counts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("run lengths as a list or a string")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Counts, E> {
                Ok(Counts::Text(text.into()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Counts, A::Error> {
                let mut counts = Vec::new();
                while let Some(count) = sequence.next_element()? {
                    counts.push(count);
                }
                Ok(Counts::Runs(counts.into()))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn category(id: u64, name: &str) -> Category {
        Category {
            id,
            name: name.to_owned(),
        }
    }

    #[test]
    fn cocos_categories_are_eighty_whatever_part_is_listed() {
        let (classes, indices) =
            class_indices(vec![category(90, "toothbrush"), category(1, "person")]).unwrap();
        assert_eq!(classes.len(), 81);
        assert_eq!(classes[0].name, "background");
        assert_eq!((indices[&1], indices[&13], indices[&90]), (1, 12, 80));
        assert_eq!(classes[12].name, "stop sign");
        assert_eq!(indices.get(&12), None);
    }

    #[test]
    fn other_categories_make_a_set_of_their_own() {
        let (classes, indices) =
            class_indices(vec![category(9, "cow"), category(1, "person")]).unwrap();
        let names: Vec<&str> = classes.iter().map(|class| class.name.as_str()).collect();
        assert_eq!(names, ["background", "person", "cow"]);
        assert_eq!(indices[&9], 2);
        assert!(class_indices(vec![category(7, "a"), category(7, "b")]).is_err());
        assert!(class_indices(Vec::new()).is_err());
    }

    #[test]
    fn all_three_forms_give_the_same_mask() {
        let forms = [
            "[[1, 0, 3, 0, 3, 2, 1, 2]]",
            r#"{"size": [2, 4], "counts": [2, 4, 2]}"#,
            r#"{"counts": "242", "other": {"a": [1]}, "size": [2, 4]}"#,
        ];
        for form in forms {
            let segmentation: Segmentation = serde_json::from_str(form).unwrap();
            let mask = segmentation.mask(2, 4).unwrap();
            assert_eq!(mask.counts, [2, 4, 2], "{form}");
        }
    }

    #[test]
    fn masks_that_do_not_fit_are_refused() {
        for form in [
            r#"{"size": [4, 2], "counts": [2, 4, 2]}"#,
            r#"{"size": [2, 4], "counts": [2, 4, 4294967295]}"#,
            r#"{"size": [2, 4], "counts": "24"}"#,
            r#"{"size": [2, 4], "counts": "2 2"}"#,
        ] {
            let segmentation: Segmentation = serde_json::from_str(form).unwrap();
            assert!(segmentation.mask(2, 4).is_err(), "{form}");
        }
        for form in [
            "7",
            "null",
            "[7]",
            r#"{"size": [2, 4]}"#,
            r#"{"counts": []}"#,
        ] {
            assert!(
                serde_json::from_str::<Segmentation>(form).is_err(),
                "{form}"
            );
        }
    }
}
