//! COCO's objects: one polygon or run-length mask per annotation.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use percept_image::{LabelMap, stored_size};

use super::pixels::Segmentation;
use super::polygon::inside;
use super::{
    Annotations, Categories, Category, Images, MAX_JSON_BYTES, Photos, Size, check_size,
    named_by_id, no_sample, objects, split_name, variants,
};
use crate::classes::spelling;
use crate::files::{invalid, unread};
use crate::json::{Id, Scalar, loose, read_json, shown};
use crate::layout::find;
use crate::{
    ClassName, DataError, IGNORE, Omissions, Region, SegmentationSample, SegmentationSet, classes,
};

/// Most annotations of one photo: bounds the masks that are in memory together. COCO has up to 100,
/// aerial sets a few thousand.
const MAX_PER_PHOTO: usize = 10_000;

/// Most runs of all masks of one photo, 128 MiB of them: a few numbers can outline a comb of many.
const MAX_RUNS: usize = 1 << 25;

/// Most classes besides the background: their indices stay below the one of ignored pixels.
const MAX_CLASSES: usize = 65_000;

/// Index of the background.
const BACKGROUND: u16 = 0;

/// How categories are spelled whose pixels nobody labelled.
const UNLABELLED: [&str; 4] = ["ignore", "void", "unlabeled", "unlabelled"];

/// Category ids from 1 to 90 that none of COCO's 80 objects has.
const UNUSED_IDS: [i64; 10] = [12, 26, 29, 30, 45, 66, 68, 69, 71, 83];

/// Objects with masks, in COCO's JSON.
///
/// The annotations of all photos are kept in memory, in less than half the size of their file.
#[derive(Debug)]
pub struct InstanceSet {
    split: String,
    json: PathBuf,
    classes: Vec<ClassName>,
    /// The id of each photo in the file.
    ids: Vec<String>,
    samples: Vec<SegmentationSample>,
    sizes: Vec<Size>,
    annotations: Vec<Vec<Annotation>>,
    omissions: Omissions,
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
/// What is odd is read as pycocotools reads it, and counted in [`SegmentationSet::omissions`]. A photo
/// with an object that has no mask, only a box, is left out: its pixels would count as background.
///
/// # Errors
/// [`DataError`]: the layout is another one; the JSON cannot be read, is larger than 2 GiB, or has no
/// categories or no photo whose truth is known.
pub fn open_coco_object(root: &Path, split: Option<&str>) -> Result<InstanceSet, DataError> {
    let split = split_name(split)?;
    let variants = variants(split, |above, photos| {
        [photos, format!("{above}annotations/instances_{split}.json")]
    });
    let [folder, json] = find(root, &variants)?;
    InstanceSet::read(json, &folder, split)
}

loose! {
    /// The file: what is needed of it, anything else is passed over.
    struct File {
        images: Images,
        annotations: Annotations<Entry>,
        categories: Categories,
    }
}

loose! {
    struct Entry {
        id: Scalar,
        image_id: Scalar,
        category_id: Scalar,
        segmentation: Segmentation,
        iscrowd: Scalar,
    }
}

/// An annotation that is known to fit the set.
#[derive(Debug)]
struct Annotation {
    /// As messages name it.
    name: String,
    class: u16,
    kind: Kind,
    segmentation: Segmentation,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Object,
    /// Many objects of a class that nobody drew one by one, or pixels that are no object's.
    Mass,
}

impl InstanceSet {
    fn read(json: PathBuf, folder: &Path, split: &str) -> Result<Self, DataError> {
        let file: File = read_json(&json, MAX_JSON_BYTES)?;
        let mut omissions = Omissions::new();
        let photos = Photos::new(&json, folder, file.images, &mut omissions)?;
        let categories = objects(file.categories, "categories", &json, &mut omissions)?;
        let (classes, indices) = class_indices(&categories, &mut omissions)
            .map_err(|reason| invalid(&json, omissions.after(&reason)))?;
        let entries = objects(file.annotations, "annotations", &json, &mut omissions)?;
        if entries.is_empty() {
            let kind = "files without any annotation: every pixel is background";
            omissions.add(kind, json.display());
        }
        let mut of_photos: Vec<OfPhoto> = Vec::new();
        of_photos.resize_with(photos.samples.len(), OfPhoto::default);
        let mut ids = HashSet::new();
        for entry in entries {
            let name = match entry.id.id() {
                None => {
                    let image = shown(&entry.image_id);
                    omissions.add("annotations without an id", format!("one of image {image}"));
                    format!("an annotation of image {image}")
                }
                Some(id) => {
                    let name = format!("annotation {id}");
                    if !ids.insert(id) {
                        omissions.add("annotations with the id of another, each counted", &name);
                    }
                    name
                }
            };
            let Some(position) = photos.position(&entry.image_id, &name, &mut omissions) else {
                continue;
            };
            let Some(of_photo) = of_photos.get_mut(position) else {
                continue;
            };
            let category = entry.category_id.id();
            let class = category.and_then(|category| indices.get(&category));
            // It is something, and would count as background.
            let class = class.copied().unwrap_or_else(|| {
                let category = shown(&entry.category_id);
                let kind = "annotations of a category that is not listed, whose pixels are ignored";
                omissions.add(kind, format!("{name} of category {category}"));
                IGNORE
            });
            let crowd = &entry.iscrowd;
            if !matches!(crowd, Scalar::Null | Scalar::Whole(0 | 1) | Scalar::Bool(_)) {
                omissions.add("annotations whose iscrowd is neither 0 nor 1", &name);
            }
            let kind = match crowd.is_yes() || class == BACKGROUND || class == IGNORE {
                true => Kind::Mass,
                false => Kind::Object,
            };
            of_photo.add(
                Annotation {
                    name,
                    class,
                    kind,
                    segmentation: entry.segmentation,
                },
                &mut omissions,
            );
        }
        let mut set = Self {
            split: split.to_owned(),
            classes,
            ids: Vec::new(),
            samples: Vec::new(),
            sizes: Vec::new(),
            annotations: Vec::new(),
            omissions,
            json,
        };
        set.keep_usable(photos, of_photos);
        if set.samples.is_empty() {
            let reason = "no photo is left whose objects all have a mask";
            return Err(invalid(&set.json, set.omissions.after(reason)));
        }
        Ok(set)
    }

    /// Takes the photos all of whose truth is known.
    fn keep_usable(&mut self, photos: Photos, of_photos: Vec<OfPhoto>) {
        let ids: Vec<String> = (0..photos.samples.len()).map(|at| photos.id(at)).collect();
        let listed = photos.samples.into_iter().zip(photos.sizes);
        for ((id, (sample, size)), of_photo) in ids.into_iter().zip(listed).zip(of_photos) {
            match of_photo.unusable {
                Some((kind, name)) => (self.omissions).add(kind, format!("image {id}: {name}")),
                None => {
                    self.ids.push(id);
                    self.samples.push(sample);
                    self.sizes.push(size);
                    self.annotations.push(of_photo.annotations);
                }
            }
        }
    }

    /// Height and width of a photo.
    fn size(&self, sample: usize) -> Result<(u32, u32), DataError> {
        let size = self.sizes.get(sample).zip(self.samples.get(sample));
        let (size, photo) =
            size.ok_or_else(|| no_sample(self.name(), self.samples.len(), sample))?;
        let size = match size {
            Some(size) => *size,
            None => {
                let size = stored_size(&photo.image);
                let (width, height) = size.map_err(|error| unread(&photo.image, error))?;
                (height, width)
            }
        };
        let id = self.ids.get(sample).map_or("", String::as_str);
        check_size(size).map_err(|reason| invalid(&self.json, format!("image {id}: {reason}")))
    }

    /// The masks of a photo's annotations that have any pixel.
    fn masks(&self, sample: usize) -> Result<Vec<(Kind, Region)>, DataError> {
        let (height, width) = self.size(sample)?;
        let annotations = self.annotations.get(sample).map_or(&[][..], Vec::as_slice);
        let mut masks = Vec::with_capacity(annotations.len());
        let mut runs = 0;
        for annotation in annotations {
            let wrong =
                |reason: String| invalid(&self.json, format!("{}: {reason}", annotation.name));
            let mask = annotation.segmentation.mask(height, width).map_err(wrong)?;
            runs += mask.counts.len();
            if runs > MAX_RUNS {
                return Err(wrong(format!(
                    "more than {MAX_RUNS} runs with those before it"
                )));
            }
            if mask.area() > 0 {
                let class = annotation.class;
                masks.push((annotation.kind, Region { class, mask }));
            }
        }
        Ok(masks)
    }
}

/// The annotations of a photo.
#[derive(Default)]
struct OfPhoto {
    annotations: Vec<Annotation>,
    /// Why the photo cannot be counted, as a kind and an example: a part of its truth is not known.
    unusable: Option<(&'static str, String)>,
}

impl OfPhoto {
    fn add(&mut self, annotation: Annotation, omissions: &mut Omissions) {
        let Annotation { name, .. } = &annotation;
        for kind in annotation.segmentation.odd() {
            omissions.add(kind, name);
        }
        if let Some((kind, reason)) = annotation.segmentation.unusable() {
            let name = match reason {
                "" => name.clone(),
                reason => format!("{name}: {reason}"),
            };
            self.unusable.get_or_insert((kind, name));
        } else if self.annotations.len() == MAX_PER_PHOTO {
            let kind = "photos with more than 10,000 annotations, left out";
            self.unusable.get_or_insert((kind, name.clone()));
        } else {
            self.annotations.push(annotation);
        }
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

    fn omissions(&self) -> &Omissions {
        &self.omissions
    }

    fn truth_files(&self, _: usize) -> Vec<PathBuf> {
        vec![self.json.clone()]
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
///
/// Categories of one name, however it is spelled, are one class; those called background are the
/// background, and of those that say that nothing is labelled ([`UNLABELLED`]) the pixels are ignored.
/// See also [`named_by_id`].
fn class_indices(
    categories: &[Category],
    omissions: &mut Omissions,
) -> Result<(Vec<ClassName>, HashMap<Id, u16>), String> {
    let named = named_by_id(categories, omissions).into_iter();
    let by_id: BTreeMap<Id, &str> = named.map(|(id, name, _)| (id, name)).collect();
    if by_id.is_empty() || by_id.len() > MAX_CLASSES {
        let count = by_id.len();
        return Err(format!("{count} categories, not 1 to {MAX_CLASSES}"));
    }
    let coco_ids = (1..=90)
        .filter(|id| !UNUSED_IDS.contains(id))
        .map(Id::Number);
    let coco: BTreeMap<Id, ClassName> = coco_ids.zip(classes::coco()).collect();
    let of_coco = |(id, name): (&Id, &&str)| coco.get(id).is_some_and(|class| class.name == **name);
    let by_id: BTreeMap<Id, ClassName> = match by_id.iter().all(of_coco) {
        // All 80 of them, also where a part of the set lists only the categories it has.
        true => coco,
        false => {
            let class = |name: &str| ClassName {
                synonyms: vec![name.to_owned()],
                name: name.to_owned(),
            };
            let named = by_id.into_iter();
            named.map(|(id, name)| (id, class(name))).collect()
        }
    };
    let mut classes = vec![ClassName {
        name: "background".to_owned(),
        synonyms: vec!["background".to_owned()],
    }];
    let mut indices = HashMap::new();
    let mut known: HashMap<String, u16> = HashMap::new();
    for (id, class) in by_id {
        let spelling = spelling(&class.name);
        if spelling == "background" {
            let kind = "categories that are the background";
            omissions.add(kind, format!("category {id}: `{}`", class.name));
            indices.insert(id, BACKGROUND);
            continue;
        }
        if UNLABELLED.contains(&spelling.as_str()) {
            let kind = "categories of what is not labelled, whose pixels are ignored";
            omissions.add(kind, format!("category {id}: `{}`", class.name));
            indices.insert(id, IGNORE);
            continue;
        }
        let index = match known.get(&spelling) {
            Some(&index) => {
                let kind = "categories with the name of another, counted as one class";
                omissions.add(kind, format!("category {id}: `{}`", class.name));
                index
            }
            None => {
                let index = u16::try_from(classes.len()).map_err(|_| "too many categories")?;
                known.insert(spelling, index);
                classes.push(class);
                index
            }
        };
        indices.insert(id, index);
    }
    match classes.len() {
        1 => Err("no category besides the background".to_owned()),
        _ => Ok((classes, indices)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn category(id: i64, name: &str) -> Category {
        Category {
            id: Scalar::Whole(id),
            name: Scalar::Text(name.into()),
            ..Category::default()
        }
    }

    fn indices_of(categories: &[Category]) -> (Vec<ClassName>, HashMap<Id, u16>, Omissions) {
        let mut omissions = Omissions::new();
        let (classes, indices) = class_indices(categories, &mut omissions).unwrap();
        (classes, indices, omissions)
    }

    #[test]
    fn cocos_categories_are_eighty_whatever_part_is_listed() {
        let categories = [category(90, "toothbrush"), category(1, "person")];
        let (classes, indices, omissions) = indices_of(&categories);
        assert_eq!(classes.len(), 81);
        assert_eq!(classes[0].name, "background");
        let index = |id| indices.get(&Id::Number(id)).copied();
        assert_eq!(
            [index(1), index(13), index(90)],
            [Some(1), Some(12), Some(80)]
        );
        assert_eq!(classes[12].name, "stop sign");
        assert_eq!(index(12), None);
        assert!(omissions.is_empty());
    }

    #[test]
    fn other_categories_make_a_set_of_their_own() {
        let categories = [
            category(9, "cow"),
            category(1, "person"),
            category(5, "cow"),
            category(7, "a"),
            category(7, "b"),
            Category::default(),
        ];
        let (classes, indices, omissions) = indices_of(&categories);
        let names: Vec<&str> = classes.iter().map(|class| class.name.as_str()).collect();
        assert_eq!(names, ["background", "person", "cow", "b"]);
        let index = |id| indices.get(&Id::Number(id)).copied();
        assert_eq!(
            [index(1), index(5), index(7), index(9)],
            [Some(1), Some(2), Some(3), Some(2)]
        );
        let lines: Vec<String> = omissions.kinds().iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "categories with the id of another, of which the last counts: 1 (category 7: `b`)",
                "categories without an id or a name, left out: 1 (category without an id: ``)",
                "categories with the name of another, counted as one class: 1 (category 9: `cow`)"
            ]
        );
        assert!(class_indices(&[], &mut Omissions::new()).is_err());
    }
}
