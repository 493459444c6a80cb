//! ADE20K, the 150 classes of its scene parsing benchmark.

use std::path::Path;

use super::{MaskSet, Values, count_stray_masks, pair};
use crate::layout::{check_split, find};
use crate::{DataError, Omissions, classes};

/// Opens ADE20K: 150 classes, stored from 1, with 0 ignored.
///
/// Reads `images/SPLIT/*.jpg` and `annotations/SPLIT/*.png`. `root` is the folder that holds these
/// (`ADEChallengeData2016`) or the folder above. The split is `validation` (also `val`) unless given.
///
/// # Errors
/// [`DataError`]: the layout is another one, or a folder cannot be read.
pub fn open_ade20k(root: &Path, split: Option<&str>) -> Result<MaskSet, DataError> {
    let split = match split {
        None | Some("val") => "validation",
        Some("train") => "training",
        Some(split) => split,
    };
    check_split(split)?;
    let above = ["", "ADEChallengeData2016/", "ade/ADEChallengeData2016/"];
    let variants = above
        .map(|above| ["images", "annotations"].map(|folder| format!("{above}{folder}/{split}")));
    let [photos, masks] = find(root, &variants)?;
    let mut omissions = Omissions::new();
    let files = pair(&photos, &masks, ".png", &mut omissions)?;
    count_stray_masks(&masks, &files, &mut omissions)?;
    let mut set = MaskSet::new(
        "ade20k",
        split,
        classes::ade20k(),
        Values::from_one(150),
        (&photos, files),
    )?;
    set.reduced = Some(
        "these look like masks whose classes begin at 0 (reduced); the set's own begin at 1 and have \
         no 255",
    );
    Ok(set.with_omissions(omissions))
}
