//! COCO-Stuff, 164k photos with 171 classes.

use std::path::{Path, PathBuf};

use super::{MaskSet, Values, pair};
use crate::coco::split_name;
use crate::layout::{find, list};
use crate::{DataError, Omissions, classes};

/// End of the names of masks with the indices of the 171 classes; those without it store the ids of
/// the 182 labels, some of which never occur.
const MASK_END: &str = "_labelTrainIds.png";

/// Opens COCO-Stuff: 171 classes, 255 ignored.
///
/// Reads `SPLIT/*.jpg`, also below `images`, and `SPLIT/*_labelTrainIds.png` below `annotations`,
/// `stuffthingmaps` or at the same place. `root` is the folder that holds these (`coco_stuff164k` or
/// `coco`) or the folder above. The split is `val2017` (also `val`) unless given.
///
/// # Errors
/// [`DataError`]: the layout is another one, the masks are not converted, or a folder cannot be read.
pub fn open_coco_stuff(root: &Path, split: Option<&str>) -> Result<MaskSet, DataError> {
    let split = split_name(split)?;
    let mut variants = Vec::new();
    for above in ["", "coco_stuff164k/", "coco/"] {
        for masks in ["annotations/", "stuffthingmaps/", ""] {
            for photos in ["images/", ""] {
                variants.push([
                    format!("{above}{photos}{split}"),
                    format!("{above}{masks}{split}"),
                ]);
            }
        }
    }
    let [photos, masks] = find(root, &variants)?;
    let is_mask = |(name, _): &(String, PathBuf)| name.ends_with(MASK_END);
    if !list(&masks)?.iter().any(is_mask) {
        return Err(DataError::Layout {
            expected: masks.join(format!("*{MASK_END}")),
            found: None,
            hint: Some(
                "masks of the 182 labels need converting to the 171 classes, as \
                 mmsegmentation's coco_stuff164k.py does"
                    .to_owned(),
            ),
        });
    }
    let mut omissions = Omissions::new();
    let files = pair(&photos, &masks, MASK_END, &mut omissions)?;
    let values = Values::classes_and(171, 255);
    let set = MaskSet::new(
        "coco-stuff",
        split,
        classes::coco_stuff(),
        values,
        (&photos, files),
    )?;
    Ok(set.with_omissions(omissions))
}
