//! Segmentation sets stored as a folder of photos and a folder of index masks.

mod ade20k;
mod cityscapes;
mod coco_stuff;
mod custom;
mod regions;
mod voc;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use percept_image::LabelMap;

use crate::index_png::read_index_png;
use crate::layout::{list, sift, some_present};
use crate::segmentation::{ClassName, IGNORE, Region, SegmentationSample, SegmentationSet};
use crate::{DataError, Omissions};

pub use ade20k::open_ade20k;
pub use cityscapes::{open_cityscapes, open_cityscapes27};
pub use coco_stuff::open_coco_stuff;
pub use custom::open_custom;
pub use voc::{open_context, open_context59, open_voc};

/// A set of photos with one index mask each.
///
/// Made by the `open_` functions, one per dataset. A photo or mask that is listed but not there is
/// an error when it is read, not before.
#[derive(Debug)]
pub struct MaskSet {
    name: String,
    split: String,
    classes: Vec<ClassName>,
    background: Option<u16>,
    samples: Vec<SegmentationSample>,
    /// A mask for every sample.
    masks: Vec<PathBuf>,
    values: Values,
    instances: Option<Instances>,
    /// What masks look like that hold 255 where the set's own never do.
    reduced: Option<&'static str>,
    omissions: Omissions,
}

/// Where the objects of a set are.
#[derive(Debug)]
struct Instances {
    /// A mask for every sample.
    masks: Vec<PathBuf>,
    rule: InstanceRule,
}

/// What the values of an instance mask mean.
#[derive(Debug)]
enum InstanceRule {
    /// VOC: a number per object, 0 outside and 255 on borders; the class is that of the class mask.
    Numbered,
    /// Cityscapes: class · 1000 + number, or the class alone where objects are not told apart.
    ClassAndNumber(Values),
}

/// What the values in a mask mean: a class or [`IGNORE`] for each, `None` for a value that must not
/// occur.
#[derive(Debug)]
struct Values(Vec<Option<u16>>);

impl Values {
    /// `0..classes` are the classes, and `ignored` is ignored.
    fn classes_and(classes: usize, ignored: u16) -> Self {
        let mut table: Vec<Option<u16>> = (0..=u16::MAX).map(Some).take(classes).collect();
        table.resize(table.len().max(usize::from(ignored) + 1), None);
        if let Some(entry) = table.get_mut(usize::from(ignored)) {
            *entry = Some(IGNORE);
        }
        Self(table)
    }

    /// `1..=classes` are the classes, and 0 is ignored.
    fn from_one(classes: usize) -> Self {
        let classes = (0..=u16::MAX).map(Some).take(classes);
        Self(std::iter::once(Some(IGNORE)).chain(classes).collect())
    }

    /// The class of a value.
    fn get(&self, value: u16) -> Option<u16> {
        self.0.get(usize::from(value)).copied().flatten()
    }
}

/// What an `open_` function knows of one sample.
struct Files {
    id: String,
    image: PathBuf,
    mask: PathBuf,
}

/// Every JPEG of `photos` with the mask of its name in `masks`, which ends with `mask_end`. Other files,
/// and masks without a photo, are counted.
fn pair(
    photos: &Path,
    masks: &Path,
    mask_end: &str,
    omissions: &mut Omissions,
) -> Result<Vec<Files>, DataError> {
    let mut files = Vec::new();
    for (name, image) in sift(photos, "", omissions)?.photos {
        match name.strip_suffix(".jpg") {
            Some(id) => files.push(Files {
                id: id.to_owned(),
                image,
                mask: masks.join(format!("{id}{mask_end}")),
            }),
            // COCO-Stuff may keep its masks beside the photos.
            None if photos == masks && name.ends_with(mask_end) => {}
            None => omissions.add("photos that are not named .jpg, passed over", name),
        }
    }
    Ok(files)
}

/// Counts the masks in a folder that no photo has.
fn count_stray_masks(
    masks: &Path,
    files: &[Files],
    omissions: &mut Omissions,
) -> Result<(), DataError> {
    let used: HashSet<&Path> = files.iter().map(|file| file.mask.as_path()).collect();
    for (name, path) in list(masks)? {
        if !used.contains(path.as_path()) && !path.is_dir() {
            omissions.add("files among the masks that belong to no photo", name);
        }
    }
    Ok(())
}

impl MaskSet {
    /// A set without instances and background, once its listing makes sense.
    fn new(
        name: &str,
        split: &str,
        classes: Vec<ClassName>,
        values: Values,
        (listing, files): (&Path, Vec<Files>),
    ) -> Result<Self, DataError> {
        let invalid = |reason: String| DataError::Invalid {
            path: listing.to_owned(),
            reason,
        };
        if files.is_empty() {
            return Err(invalid("no photo is listed here".to_owned()));
        }
        some_present(files.iter().map(|file| &file.image))?;
        some_present(files.iter().map(|file| &file.mask))?;
        let mut samples = Vec::with_capacity(files.len());
        let mut masks = Vec::with_capacity(files.len());
        let mut omissions = Omissions::new();
        let mut ids = HashSet::new();
        for Files { id, image, mask } in files {
            if !ids.insert(id.clone()) {
                omissions.add("photos listed twice, counted once", id);
                continue;
            }
            samples.push(SegmentationSample { id, image });
            masks.push(mask);
        }
        Ok(Self {
            name: name.to_owned(),
            split: split.to_owned(),
            classes,
            background: None,
            samples,
            masks,
            values,
            instances: None,
            reduced: None,
            omissions,
        })
    }

    /// The same set with what was left out when its files were found.
    fn with_omissions(mut self, omissions: Omissions) -> Self {
        self.omissions.merge(&omissions);
        self
    }

    /// The same set with other names for its classes, such as [`crate::classes::voc_mmseg`].
    ///
    /// # Errors
    /// [`DataError::Setting`] unless there is one for each class.
    pub fn with_classes(self, classes: Vec<ClassName>) -> Result<Self, DataError> {
        let (given, needed) = (classes.len(), self.classes.len());
        if given != needed {
            return Err(DataError::Setting(format!(
                "{} has {needed} classes, but {given} names were given",
                self.name
            )));
        }
        Ok(Self { classes, ..self })
    }

    /// One of the files of a sample.
    fn file<'a>(&self, files: &'a [PathBuf], sample: usize) -> Result<&'a Path, DataError> {
        files.get(sample).map(PathBuf::as_path).ok_or_else(|| {
            DataError::Setting(format!(
                "{} has {} photos, no number {sample}",
                self.name,
                self.samples.len()
            ))
        })
    }

    /// The regions of VOC's numbered objects, each of the class that most of its pixels have.
    fn numbered(
        &self,
        objects: &LabelMap,
        sample: usize,
        path: &Path,
    ) -> Result<Vec<Region>, DataError> {
        let invalid = |reason: String| DataError::Invalid {
            path: path.to_owned(),
            reason,
        };
        let classes = self.truth(sample)?;
        if (classes.width(), classes.height()) != (objects.width(), objects.height()) {
            return Err(invalid(format!(
                "{} x {} pixels, but the mask of classes has {} x {}",
                objects.width(),
                objects.height(),
                classes.width(),
                classes.height()
            )));
        }
        let is_object = |value: u16| value != 0 && value != 255;
        let mut votes: BTreeMap<(u16, u16), u64> = BTreeMap::new();
        for (&object, &class) in objects.data().iter().zip(classes.data()) {
            if is_object(object) && class != IGNORE && Some(class) != self.background {
                *votes.entry((object, class)).or_default() += 1;
            }
        }
        regions::by_value(objects, is_object)
            .into_iter()
            .map(|(object, mask)| {
                // The lower class of equals, so that results repeat.
                let (&(_, class), _) = (votes.range((object, 0)..=(object, u16::MAX)))
                    .max_by_key(|((_, class), votes)| (**votes, u16::MAX - class))
                    .ok_or_else(|| invalid(format!("object {object} has no class")))?;
                Ok(Region { class, mask })
            })
            .collect()
    }
}

impl SegmentationSet for MaskSet {
    fn name(&self) -> &str {
        &self.name
    }

    fn split(&self) -> &str {
        &self.split
    }

    fn classes(&self) -> &[ClassName] {
        &self.classes
    }

    fn background(&self) -> Option<u16> {
        self.background
    }

    fn samples(&self) -> &[SegmentationSample] {
        &self.samples
    }

    fn omissions(&self) -> &Omissions {
        &self.omissions
    }

    fn truth_files(&self, sample: usize) -> Vec<PathBuf> {
        let objects = self.instances.iter().map(|instances| &instances.masks);
        std::iter::once(&self.masks)
            .chain(objects)
            .filter_map(|masks| masks.get(sample).cloned())
            .collect()
    }

    fn truth(&self, sample: usize) -> Result<LabelMap, DataError> {
        let path = self.file(&self.masks, sample)?;
        let stored = read_index_png(path)?;
        let invalid = |reason: String| DataError::Invalid {
            path: path.to_owned(),
            reason,
        };
        let classes: Vec<u16> = (stored.data().iter())
            .map(|&value| self.values.get(value).ok_or(value))
            .collect::<Result<_, u16>>()
            .map_err(|value| {
                let classes = self.classes.len();
                let hint = match (value, self.reduced) {
                    (255, Some(hint)) => format!("; {hint}"),
                    _ => String::new(),
                };
                let reason = format!(
                    "value {value} is no class of {} ({classes} classes){hint}",
                    self.name
                );
                invalid(reason)
            })?;
        LabelMap::new(stored.width(), stored.height(), classes)
            .map_err(|error| invalid(error.to_string()))
    }

    fn instances(&self, sample: usize) -> Result<Option<Vec<Region>>, DataError> {
        let Some(instances) = &self.instances else {
            return Ok(None);
        };
        let path = self.file(&instances.masks, sample)?;
        let objects = read_index_png(path)?;
        let regions = match &instances.rule {
            InstanceRule::Numbered => self.numbered(&objects, sample, path)?,
            InstanceRule::ClassAndNumber(values) => cityscapes::regions(&objects, values, path)?,
        };
        Ok(Some(regions))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_mean_classes_or_nothing() {
        let voc = Values::classes_and(21, 255);
        assert_eq!((voc.get(0), voc.get(20)), (Some(0), Some(20)));
        assert_eq!((voc.get(21), voc.get(255)), (None, Some(IGNORE)));
        assert_eq!(voc.get(256), None);
        let ade = Values::from_one(150);
        assert_eq!(
            (ade.get(0), ade.get(1), ade.get(150)),
            (Some(IGNORE), Some(0), Some(149))
        );
        assert_eq!((ade.get(151), ade.get(255)), (None, None));
        let many = Values::classes_and(65_535, u16::MAX);
        assert_eq!(
            (many.get(65_534), many.get(u16::MAX)),
            (Some(65_534), Some(IGNORE))
        );
    }
}
