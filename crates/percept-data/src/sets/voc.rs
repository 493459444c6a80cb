//! PASCAL VOC 2012 and PASCAL Context, which adds classes to VOC 2010.

use std::path::Path;

use super::{Files, InstanceRule, Instances, MaskSet, Values};
use crate::layout::{check_split, find, read_names};
use crate::{ClassName, DataError, classes};

/// Opens PASCAL VOC 2012: 21 classes, 0 the background, 255 ignored.
///
/// Reads `ImageSets/Segmentation/SPLIT.txt`, `JPEGImages`, `SegmentationClass` and, where it is
/// there, `SegmentationObject`. `root` is the folder that holds these (`VOC2012`), `VOCdevkit` or the
/// folder above. The split is `val` unless given.
///
/// # Errors
/// [`DataError`]: the layout is another one, or the list of the split cannot be read.
pub fn open_voc(root: &Path, split: Option<&str>) -> Result<MaskSet, DataError> {
    let year = Year {
        folder: "VOC2012",
        lists: "Segmentation",
        masks: "SegmentationClass",
    };
    let mut set = year.open(
        "voc",
        root,
        split,
        classes::voc(),
        Values::classes_and(21, 255),
    )?;
    set.background = Some(0);
    set.instances = objects(&set);
    Ok(set)
}

/// Opens PASCAL Context with its background: 60 classes, 0 the background.
///
/// Reads `ImageSets/SegmentationContext/SPLIT.txt`, `JPEGImages` and `SegmentationClassContext`, the
/// masks as mmsegmentation's converter writes them. `root` is the folder that holds these (`VOC2010`),
/// `VOCdevkit` or the folder above. The split is `val` unless given.
///
/// # Errors
/// As [`open_voc`].
pub fn open_context(root: &Path, split: Option<&str>) -> Result<MaskSet, DataError> {
    let values = Values::classes_and(60, 255);
    let mut set = CONTEXT.open("context", root, split, classes::context60(), values)?;
    set.background = Some(0);
    Ok(set)
}

/// Opens PASCAL Context without its background: 59 classes, 0 ignored. Otherwise as
/// [`open_context`].
///
/// # Errors
/// As [`open_voc`].
pub fn open_context59(root: &Path, split: Option<&str>) -> Result<MaskSet, DataError> {
    let values = Values::from_one(59);
    let mut set = CONTEXT.open("context59", root, split, classes::context59(), values)?;
    set.reduced = Some(
        "these look like masks whose classes begin at 0 (reduced); the converter's begin at 1 and \
         have no 255",
    );
    Ok(set)
}

const CONTEXT: Year = Year {
    folder: "VOC2010",
    lists: "SegmentationContext",
    masks: "SegmentationClassContext",
};

/// The layout of one year's set.
struct Year {
    folder: &'static str,
    lists: &'static str,
    masks: &'static str,
}

impl Year {
    fn open(
        &self,
        name: &str,
        root: &Path,
        split: Option<&str>,
        classes: Vec<ClassName>,
        values: Values,
    ) -> Result<MaskSet, DataError> {
        let split = split.unwrap_or("val");
        check_split(split)?;
        let Self {
            folder,
            lists,
            masks,
        } = self;
        let above = [
            String::new(),
            format!("{folder}/"),
            format!("VOCdevkit/{folder}/"),
        ];
        let variants = above.map(|above| {
            [
                format!("{above}ImageSets/{lists}/{split}.txt"),
                format!("{above}JPEGImages"),
                format!("{above}{masks}"),
            ]
        });
        let [list, photos, masks] = find(root, &variants)?;
        let files = (read_names(&list)?.into_iter())
            .map(|id| Files {
                image: photos.join(format!("{id}.jpg")),
                mask: masks.join(format!("{id}.png")),
                id,
            })
            .collect();
        MaskSet::new(name, split, classes, values, (&list, files))
    }
}

/// The masks of objects, which stand in a folder beside the masks of classes.
fn objects(set: &MaskSet) -> Option<Instances> {
    let folder = set
        .masks
        .first()?
        .parent()?
        .with_file_name("SegmentationObject");
    folder.is_dir().then(|| Instances {
        masks: (set.masks.iter())
            .map(|mask| folder.join(mask.file_name().unwrap_or_default()))
            .collect(),
        rule: InstanceRule::Numbered,
    })
}
