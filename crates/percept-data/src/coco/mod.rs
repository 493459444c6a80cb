//! COCO: objects, panoptic segments and captions.

mod captions;
mod instances;
mod panoptic;
mod pixels;
mod polygon;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use percept_image::Limits;

use crate::files::{inside, invalid, unique_id};
use crate::json::{Id, List, Scalar, loose, shown};
use crate::layout::{check_split, some_present};
use crate::{DataError, Omissions, SegmentationSample};

pub use captions::open_coco_captions;
pub use instances::{InstanceSet, open_coco_object};
pub use panoptic::{PanopticSet, open_coco_panoptic};

/// Largest file of annotations. That of COCO's train instances has 450 MB, the largest of the sets
/// that share the format 1.5 GB.
const MAX_JSON_BYTES: u64 = 2 << 30;

/// The name of a split of COCO: `val`, the default, and `train` are those of 2017.
pub(crate) fn split_name(split: Option<&str>) -> Result<&str, DataError> {
    let split = match split {
        None | Some("val") => "val2017",
        Some("train") => "train2017",
        Some(split) => split,
    };
    check_split(split)?;
    Ok(split)
}

/// Where the files of a set may be, as [`find`](crate::layout::find) takes them: in the folder that
/// was named or in `coco` below it, the photos in the folder of the split or in `images`.
///
/// `files` gets the folder above, which ends in `/` unless empty, and the folder of photos.
fn variants<const N: usize>(
    split: &str,
    files: impl Fn(&str, String) -> [String; N],
) -> Vec<[String; N]> {
    let mut variants = Vec::new();
    for above in ["", "coco/"] {
        for photos in [format!("{above}{split}"), format!("{above}images/{split}")] {
            variants.push(files(above, photos));
        }
    }
    variants
}

/// Most photos of a file. The largest sets that share the format have 2 million.
const MAX_IMAGES: usize = 4_000_000;

/// Most annotations of a file, each of 150 bytes and its pixels in memory. COCO's train set has 860,000
/// objects, LVIS 1.3 million.
const MAX_ANNOTATIONS: usize = 8_000_000;

/// Most categories of a file: more than classes can be told apart.
const MAX_CATEGORIES: usize = 100_000;

type Images = List<Image, MAX_IMAGES>;
type Annotations<T> = List<T, MAX_ANNOTATIONS>;
type Categories = List<Category, MAX_CATEGORIES>;

loose! {
    /// A class as COCO's files list it.
    struct Category {
        id: Scalar,
        name: Scalar,
        isthing: Scalar,
    }
}

loose! {
    /// A photo as COCO's files list it.
    struct Image {
        id: Scalar,
        file_name: Scalar,
        height: Scalar,
        width: Scalar,
    }
}

/// A photo's height and width; `None` where the file does not say.
type Size = Option<(u32, u32)>;

/// The photos of a file: what was asked for, and where each id stands.
struct Photos {
    samples: Vec<SegmentationSample>,
    /// Of each photo the id that it was listed under first.
    ids: Vec<Id>,
    sizes: Vec<Size>,
    places: HashMap<Id, Place>,
}

/// Where the photo of an id stands.
struct Place {
    position: usize,
    /// The id is written as text.
    is_text: bool,
}

impl Photos {
    /// Checks what the file `json` says of the photos in `folder`. What is odd about single photos
    /// goes to `omissions`.
    ///
    /// A photo that is listed again under its id counts once; if the id is that of another photo, the
    /// last counts, as in pycocotools. A photo that is listed under two ids has the annotations of
    /// both. Where a photo is not at its `file_name`, it is looked for from the folder above on, with
    /// `/` for `\`, and by the name alone where that is no other photo's.
    ///
    /// # Errors
    /// [`DataError::Invalid`]: no photos. [`DataError::Layout`]: the first photos are not there.
    fn new(
        json: &Path,
        folder: &Path,
        images: Images,
        omissions: &mut Omissions,
    ) -> Result<Self, DataError> {
        let images = objects(images, "images", json, omissions)?;
        let names = Names::of(folder, &images);
        let mut photos = Self {
            samples: Vec::with_capacity(images.len()),
            ids: Vec::with_capacity(images.len()),
            sizes: Vec::with_capacity(images.len()),
            places: HashMap::with_capacity(images.len()),
        };
        let mut taken = HashSet::new();
        let mut paths: HashMap<PathBuf, usize> = HashMap::with_capacity(images.len());
        for image in &images {
            let Some(id) = image.id.id() else {
                let name = image.file_name.text().unwrap_or("without a name");
                omissions.add("images without an id, left out", format!("`{name}`"));
                continue;
            };
            let name = image.file_name.text().unwrap_or_default();
            let Some(path) = names.find(name) else {
                let kind = "images whose file_name is missing or leads out of the photos, left out";
                omissions.add(kind, format!("image {id}: `{name}`"));
                continue;
            };
            if Some(&path) != inside(folder, name).as_ref() {
                let kind = "images found at another place than their file_name says";
                omissions.add(kind, format!("image {id}: `{name}`"));
            }
            let size = size_of(image, &id, omissions);
            let is_text = image.id.is_text();
            let known = photos.places.get(&id).map(|place| place.position);
            match (known, paths.get(&path).copied()) {
                (Some(position), same) if same == Some(position) => {
                    omissions.add("images listed twice, counted once", format!("image {id}"));
                }
                (Some(position), _) => {
                    let kind = "images with the id of another, of which the last counts";
                    omissions.add(kind, format!("image {id}"));
                    if let Some(other) = photos.replace(position, path.clone(), size) {
                        paths.remove(&other);
                    }
                    paths.insert(path, position);
                }
                (None, Some(position)) => {
                    let kind = "photos listed under two ids, with the annotations of both";
                    omissions.add(kind, format!("image {id}: `{name}`"));
                    photos.places.insert(id, Place { position, is_text });
                }
                (None, None) => {
                    let position = photos.samples.len();
                    paths.insert(path.clone(), position);
                    // By where it is, not by where the file says that it is.
                    let found = path.strip_prefix(folder).ok().and_then(Path::to_str);
                    let sample = unique_id(found.unwrap_or(name), &mut taken);
                    photos.samples.push(SegmentationSample {
                        // Ids of images are unique.
                        id: sample.unwrap_or_else(|| format!("{name} (image {id})")),
                        image: path,
                    });
                    photos.sizes.push(size);
                    photos.ids.push(id.clone());
                    photos.places.insert(id, Place { position, is_text });
                }
            }
        }
        if photos.samples.is_empty() {
            return Err(invalid(json, omissions.after("no photo is listed here")));
        }
        some_present(photos.samples.iter().map(|sample| &sample.image))?;
        Ok(photos)
    }

    /// Puts another photo to a position, and gives back the one that was there.
    fn replace(&mut self, position: usize, path: PathBuf, size: Size) -> Option<PathBuf> {
        *self.sizes.get_mut(position)? = size;
        let sample = self.samples.get_mut(position)?;
        Some(std::mem::replace(&mut sample.image, path))
    }

    /// The position of the photo that an annotation is of. An id that is text here and a number there
    /// is the same, which is counted.
    fn position(&self, id: &Scalar, of: &str, omissions: &mut Omissions) -> Option<usize> {
        let place = id.id().and_then(|id| self.places.get(&id));
        let Some(Place { position, is_text }) = place else {
            let kind = "annotations of images that are not listed, left out";
            omissions.add(kind, format!("{of} of image {}", shown(id)));
            return None;
        };
        if id.is_text() != *is_text {
            let kind = "annotations whose image_id is text and the image's id a number or the reverse, \
                        read as the same";
            omissions.add(kind, of);
        }
        Some(*position)
    }

    /// The id of a photo, for messages.
    fn id(&self, position: usize) -> String {
        self.ids
            .get(position)
            .map_or_else(String::new, Id::to_string)
    }
}

/// Categories with ids and names, in the order of the file. Those without either are left out; of those
/// with one id the last counts, as in pycocotools.
fn named_by_id<'a>(
    categories: &'a [Category],
    omissions: &mut Omissions,
) -> Vec<(Id, &'a str, &'a Category)> {
    let mut named: Vec<(Id, &str, &Category)> = Vec::new();
    let mut places: HashMap<Id, usize> = HashMap::new();
    for category in categories {
        let name = category.name.text().map(str::trim).unwrap_or_default();
        let Some(id) = category.id.id().filter(|_| !name.is_empty()) else {
            let example = format!("category {}: `{name}`", shown(&category.id));
            omissions.add("categories without an id or a name, left out", example);
            continue;
        };
        let place = *places.entry(id.clone()).or_insert(named.len());
        match named.get_mut(place) {
            Some(earlier) => {
                let kind = "categories with the id of another, of which the last counts";
                omissions.add(kind, format!("category {id}: `{name}`"));
                *earlier = (id, name, category);
            }
            None => named.push((id, name, category)),
        }
    }
    named
}

/// What a file says of a photo's size.
fn size_of(image: &Image, id: &Id, omissions: &mut Omissions) -> Size {
    let size = image.height.count().zip(image.width.count());
    let size = size.filter(|(height, width)| *height > 0 && *width > 0);
    let both = [&image.height, &image.width];
    if size.is_none() && both.iter().any(|side| **side != Scalar::Null) {
        let kind = "images whose width or height is no whole number above 0, read from the photo";
        omissions.add(kind, format!("image {id}"));
    } else if size.is_some() && both.iter().any(|side| !matches!(side, Scalar::Whole(_))) {
        let kind = "images whose width or height is written as text or with a decimal point";
        omissions.add(kind, format!("image {id}"));
    }
    size
}

/// Where photos are that files name in their own ways.
struct Names<'a> {
    folder: &'a Path,
    /// The folders that names may begin from besides.
    above: Vec<&'a Path>,
    /// How many images are of one name, folders aside.
    alike: HashMap<&'a str, usize>,
}

impl<'a> Names<'a> {
    fn of(folder: &'a Path, images: &'a [Image]) -> Self {
        let mut above: Vec<&Path> = folder.parent().into_iter().collect();
        if let Some(images) = above.first().filter(|parent| parent.ends_with("images")) {
            above.extend(images.parent());
        }
        let mut alike = HashMap::new();
        let mut seen = HashSet::new();
        for name in images.iter().filter_map(|image| image.file_name.text()) {
            if seen.insert(name) {
                *alike.entry(last_part(name)).or_default() += 1;
            }
        }
        Self {
            folder,
            above,
            alike,
        }
    }

    /// The file of a name: where it is, else where it should be.
    fn find(&self, name: &str) -> Option<PathBuf> {
        let usual = inside(self.folder, name);
        if usual.as_ref().is_some_and(|path| path.exists()) {
            return usual;
        }
        let slashed = name.replace('\\', "/");
        let from_above = self
            .above
            .iter()
            .filter_map(|above| inside(above, &slashed));
        let last = last_part(name);
        let alone = (self.alike.get(last) == Some(&1))
            .then(|| inside(self.folder, last))
            .flatten();
        let mut others = inside(self.folder, &slashed)
            .into_iter()
            .chain(from_above)
            .chain(alone);
        others.find(|path| path.is_file()).or(usual)
    }
}

/// What stands behind the last slash or backslash.
fn last_part(name: &str) -> &str {
    name.rsplit(['/', '\\']).next().unwrap_or(name)
}

/// The objects in a list of the file `json`.
fn objects<T, const MAX: usize>(
    list: List<T, MAX>,
    name: &str,
    json: &Path,
    omissions: &mut Omissions,
) -> Result<Vec<T>, DataError> {
    list.objects(name, omissions)
        .map_err(|reason| invalid(json, reason))
}

/// Refuses a size that no photo has that can be read.
fn check_size((height, width): (u32, u32)) -> Result<(u32, u32), String> {
    let limits = Limits::default();
    let pixels = u64::from(height) * u64::from(width);
    match pixels > 0 && height.max(width) <= limits.max_side && pixels <= limits.max_pixels {
        true => Ok((height, width)),
        false => Err(format!("{width} x {height} is no size of a photo")),
    }
}

/// The error of a sample that a set does not have.
fn no_sample(set: &str, samples: usize, sample: usize) -> DataError {
    DataError::Setting(format!("{set} has {samples} photos, no number {sample}"))
}
