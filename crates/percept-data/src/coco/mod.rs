//! COCO: objects, panoptic segments and captions.

mod captions;
mod instances;
mod panoptic;
mod polygon;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use percept_image::Limits;
use serde::Deserialize;

use crate::files::{inside, invalid, unique_id};
use crate::layout::{check_split, some_present};
use crate::{DataError, SegmentationSample};

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

/// A photo as COCO's files list it.
#[derive(Debug, Deserialize)]
struct Image {
    id: u64,
    file_name: String,
    #[serde(default)]
    height: u32,
    #[serde(default)]
    width: u32,
}

/// The photos of a file: what was asked for, and where each id stands.
struct Photos {
    samples: Vec<SegmentationSample>,
    /// Height and width.
    sizes: Vec<(u32, u32)>,
    positions: HashMap<u64, usize>,
}

impl Photos {
    /// Checks what the file `json` says of the photos in `folder`.
    ///
    /// # Errors
    /// [`DataError::Invalid`]: no photos, an id or photo twice, a name that leads out of the folder.
    /// [`DataError::Layout`]: the first photos are not there.
    fn new(json: &Path, folder: &Path, images: Vec<Image>) -> Result<Self, DataError> {
        if images.is_empty() {
            return Err(invalid(json, "no photo is listed here"));
        }
        let mut photos = Self {
            samples: Vec::with_capacity(images.len()),
            sizes: Vec::with_capacity(images.len()),
            positions: HashMap::with_capacity(images.len()),
        };
        let mut ids = HashSet::new();
        let mut paths: HashSet<PathBuf> = HashSet::with_capacity(images.len());
        for (position, image) in images.into_iter().enumerate() {
            let name = &image.file_name;
            let Some(path) = inside(folder, name) else {
                let reason = format!("image {}: `{name}` leads out of the photos", image.id);
                return Err(invalid(json, reason));
            };
            if photos.positions.insert(image.id, position).is_some() {
                return Err(invalid(json, format!("image {} is there twice", image.id)));
            }
            let first = paths.insert(path.clone());
            let Some(id) = unique_id(name, &mut ids).filter(|_| first) else {
                return Err(invalid(json, format!("`{name}` is there twice")));
            };
            photos.sizes.push((image.height, image.width));
            photos.samples.push(SegmentationSample { id, image: path });
        }
        some_present(photos.samples.iter().map(|sample| &sample.image))?;
        Ok(photos)
    }

    /// Refuses photos without a size, or larger than a photo that is read may be.
    fn check_sizes(&self, json: &Path) -> Result<(), DataError> {
        let limits = Limits::default();
        let fits = |&(height, width): &(u32, u32)| {
            let pixels = u64::from(height) * u64::from(width);
            pixels > 0 && height.max(width) <= limits.max_side && pixels <= limits.max_pixels
        };
        match self
            .sizes
            .iter()
            .zip(&self.samples)
            .find(|(size, _)| !fits(size))
        {
            None => Ok(()),
            Some(((height, width), sample)) => {
                let id = &sample.id;
                let reason = format!("photo {id}: {width} x {height} is no size of a photo");
                Err(invalid(json, reason))
            }
        }
    }
}

/// The error of a sample that a set does not have.
fn no_sample(set: &str, samples: usize, sample: usize) -> DataError {
    DataError::Setting(format!("{set} has {samples} photos, no number {sample}"))
}
