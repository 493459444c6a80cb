//! Cityscapes: street scenes with 19 or 27 classes, and objects.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use percept_image::LabelMap;

use super::{Files, InstanceRule, Instances, MaskSet, Values, regions};
use crate::layout::{check_split, find, sift};
use crate::{ClassName, DataError, IGNORE, Omissions, Region, classes};

/// End of the names of photos; the masks have other ends.
const PHOTO_END: &str = "_leftImg8bit.png";
const LABEL_END: &str = "_gtFine_labelIds.png";
const TRAIN_END: &str = "_gtFine_labelTrainIds.png";
const INSTANCE_END: &str = "_gtFine_instanceIds.png";

/// Ids of labels go from 0 to 33; nothing is stored for -1, the plates of cars.
const LABELS: u16 = 34;

/// The id of the first of the 27 annotated classes, which are consecutive.
const FIRST_LABEL: u16 = 7;

/// Ids of the labels of the 19 classes that are evaluated, in the order of the classes.
const EVALUATED: [u16; 19] = [
    7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33,
];

/// In instance masks, an object is the id of its label times this plus its number.
const OBJECTS_PER_LABEL: u16 = 1000;

/// Opens Cityscapes with the 19 classes of its benchmark; all else is ignored.
///
/// Reads `leftImg8bit/SPLIT/CITY/*_leftImg8bit.png` and, below `gtFine/SPLIT/CITY`,
/// `*_gtFine_labelTrainIds.png` if every photo has one and `*_gtFine_labelIds.png` otherwise; for
/// objects `*_gtFine_instanceIds.png`. Where objects are not told apart (road, sky, crowds), all of
/// the class is one region. `root` is the folder that holds these or the folder above
/// (`cityscapes`). The split is `val` unless given.
///
/// # Errors
/// [`DataError`]: the layout is another one, or a folder cannot be read.
pub fn open_cityscapes(root: &Path, split: Option<&str>) -> Result<MaskSet, DataError> {
    let mut set = open(
        "cityscapes",
        root,
        split,
        classes::cityscapes(),
        label_values(&EVALUATED),
    )?;
    let train: Vec<PathBuf> = (set.masks.iter())
        .map(|mask| with_end(mask, TRAIN_END))
        .collect();
    if train.iter().all(|mask| mask.exists()) {
        set.masks = train;
        set.values = Values::classes_and(set.classes.len(), 255);
    }
    set.instances = objects(&set, label_values(&EVALUATED));
    Ok(set)
}

/// Opens Cityscapes with all 27 annotated classes, as published Jaccard scores count them; ids below
/// 7 are ignored. Reads `*_gtFine_labelIds.png`, otherwise as [`open_cityscapes`].
///
/// # Errors
/// As [`open_cityscapes`].
pub fn open_cityscapes27(root: &Path, split: Option<&str>) -> Result<MaskSet, DataError> {
    let all: Vec<u16> = (FIRST_LABEL..LABELS).collect();
    let classes = classes::cityscapes27();
    let mut set = open("cityscapes27", root, split, classes, label_values(&all))?;
    set.instances = objects(&set, label_values(&all));
    Ok(set)
}

fn open(
    name: &str,
    root: &Path,
    split: Option<&str>,
    classes: Vec<ClassName>,
    values: Values,
) -> Result<MaskSet, DataError> {
    let split = split.unwrap_or("val");
    check_split(split)?;
    let variants = ["", "cityscapes/"]
        .map(|above| ["leftImg8bit", "gtFine"].map(|folder| format!("{above}{folder}/{split}")));
    let [photos, masks] = find(root, &variants)?;
    let mut files = Vec::new();
    let mut omissions = Omissions::new();
    let cities = sift(&photos, "", &mut omissions)?;
    for (name, _) in cities.photos {
        omissions.add("photos beside the folders of cities, passed over", name);
    }
    for (city, folder) in cities.folders {
        for (name, image) in sift(&folder, &format!("{city}/"), &mut omissions)?.photos {
            match name.strip_suffix(PHOTO_END) {
                Some(id) => files.push(Files {
                    id: id.to_owned(),
                    image,
                    mask: masks.join(&city).join(format!("{id}{LABEL_END}")),
                }),
                None => {
                    let kind = format!("photos whose names do not end in {PHOTO_END}, passed over");
                    omissions.add(kind, format!("{city}/{name}"));
                }
            }
        }
    }
    let mut set = MaskSet::new(name, split, classes, values, (&photos, files))?;
    set.reduced = Some(
        "these look like train ids under the name of label ids; name them *_gtFine_labelTrainIds.png",
    );
    Ok(set.with_omissions(omissions))
}

/// Values of masks of labels, of which `evaluated` are the classes.
fn label_values(evaluated: &[u16]) -> Values {
    let class = |label| evaluated.iter().position(|&id| id == label);
    let index = |class| u16::try_from(class).unwrap_or(IGNORE);
    let labels = (0..LABELS).map(|label| Some(class(label).map_or(IGNORE, index)));
    Values(labels.collect())
}

/// The same mask under another end of its name.
fn with_end(mask: &Path, end: &str) -> PathBuf {
    let name = mask.file_name().unwrap_or_default().to_string_lossy();
    let id = name.strip_suffix(LABEL_END).unwrap_or(&name);
    mask.with_file_name(format!("{id}{end}"))
}

/// The masks of objects, if there are any.
fn objects(set: &MaskSet, values: Values) -> Option<Instances> {
    let masks: Vec<PathBuf> = (set.samples.iter().zip(&set.masks))
        .map(|(sample, mask)| mask.with_file_name(format!("{}{INSTANCE_END}", sample.id)))
        .collect();
    masks.iter().any(|mask| mask.exists()).then_some(Instances {
        masks,
        rule: InstanceRule::ClassAndNumber(values),
    })
}

/// The regions of an instance mask whose labels are classes.
pub(super) fn regions(
    objects: &LabelMap,
    values: &Values,
    path: &Path,
) -> Result<Vec<Region>, DataError> {
    let label = |value: u16| match value {
        ..OBJECTS_PER_LABEL => value,
        _ => value / OBJECTS_PER_LABEL,
    };
    let mut classes: BTreeMap<u16, u16> = BTreeMap::new();
    for &value in objects.data() {
        if classes.contains_key(&value) {
            continue;
        }
        let class = values.get(label(value)).ok_or_else(|| DataError::Invalid {
            path: path.to_owned(),
            reason: format!("value {value} is no label of Cityscapes, nor an object of one"),
        })?;
        classes.insert(value, class);
    }
    let class = |value: u16| classes.get(&value).copied().unwrap_or(IGNORE);
    Ok(regions::by_value(objects, |value| class(value) != IGNORE)
        .into_iter()
        .map(|(value, mask)| Region {
            class: class(value),
            mask,
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_become_the_classes_of_their_names() {
        let (evaluated, all) = (classes::cityscapes(), classes::cityscapes27());
        let values = label_values(&EVALUATED);
        let every: Vec<u16> = (FIRST_LABEL..LABELS).collect();
        let every = label_values(&every);
        // Two lists of names and two tables: the label of a class must go to its name in both.
        for (class, label) in EVALUATED.into_iter().enumerate() {
            assert_eq!(values.get(label), Some(class as u16));
            let other = usize::from(every.get(label).unwrap());
            assert_eq!(evaluated[class].name, all[other].name);
        }
        for (value, expected) in [(0, Some(IGNORE)), (33, Some(18)), (34, None), (255, None)] {
            assert_eq!(values.get(value), expected);
        }
        assert_eq!(
            (every.get(6), every.get(7), every.get(33)),
            (Some(IGNORE), Some(0), Some(26))
        );
    }
}
