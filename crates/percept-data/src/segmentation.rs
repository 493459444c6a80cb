//! What every segmentation set gives: photos, a class for every pixel, regions.

use std::path::PathBuf;

use percept_image::{LabelMap, Rle};

use crate::{DataError, Omissions};

/// Index in a truth map of pixels that no metric counts, whatever value the files use.
pub const IGNORE: u16 = u16::MAX;

/// A class of a set and its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassName {
    /// The name shown in results.
    pub name: String,
    /// All names for it, the first being `name`.
    pub synonyms: Vec<String>,
}

/// One photo of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentationSample {
    /// Its name in the set, unique: the stem of the file, with the folders that tell it apart.
    pub id: String,
    /// The photo.
    pub image: PathBuf,
}

/// Something annotated in a photo: an object, or all of a class where objects are not told apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    /// Index of its class.
    pub class: u16,
    /// Its pixels, at the size of the truth map.
    pub mask: Rle,
}

/// A segmentation set: photos and their annotations.
pub trait SegmentationSet: Send + Sync {
    /// What it is called in results, such as `voc`.
    fn name(&self) -> &str;

    /// The split that was opened, such as `val`.
    fn split(&self) -> &str;

    /// The classes by index.
    fn classes(&self) -> &[ClassName];

    /// Index of the class that means "none of the others", if the set has one.
    fn background(&self) -> Option<u16>;

    /// The photos, in the set's own order.
    fn samples(&self) -> &[SegmentationSample];

    /// What was left out when the set was opened, or read otherwise than it is written.
    fn omissions(&self) -> &Omissions;

    /// The files that one photo's truth is read from.
    fn truth_files(&self, sample: usize) -> Vec<PathBuf>;

    /// The class of every pixel of one photo: indices into [`Self::classes`], or [`IGNORE`].
    ///
    /// # Errors
    /// The annotation is missing or cannot be read.
    fn truth(&self, sample: usize) -> Result<LabelMap, DataError>;

    /// The annotated objects of one photo, of any class but background; `None` where the set does
    /// not tell objects apart.
    ///
    /// # Errors
    /// As [`Self::truth`].
    fn instances(&self, sample: usize) -> Result<Option<Vec<Region>>, DataError>;
}
