//! Sets of one's own.

use std::collections::HashMap;
use std::path::Path;

use percept_labels::{Entry, FileError, LabelList, abbreviate};

use super::{Files, MaskSet, Values, count_stray_masks};
use crate::files::{invalid, open_regular};
use crate::layout::{is_own_result, missing, sift};
use crate::{ClassName, DataError, IGNORE, Omissions};

/// The name by which the background is known.
const BACKGROUND: &str = "background";

/// Masks that are looked into when a set is opened.
const LOOKED_INTO: usize = 8;

/// Opens a folder of photos with a folder of index masks, `STEM.png` for each `STEM.jpg` (or any
/// other kind of photo), and a list of classes: one a line in the order of their indices, synonyms
/// after commas, or any other form of [`LabelList::from_file`].
///
/// A class called `background` is the background. In masks 255 is ignored, or 65535 if there are
/// more than 255 classes, which takes 16-bit masks. The set and its split are called `custom` and
/// `all`.
///
/// Photos of one stem have one mask: a mask `NAME.jpg.png` is of `NAME.jpg` alone, and of photos that
/// would share a mask all are left out. They are counted, and so are masks without a photo and other
/// files. A photo without a mask is an error when it is read.
///
/// # Errors
/// [`DataError`]: a folder or the list is not there, cannot be read or makes no sense.
pub fn open_custom(photos: &Path, masks: &Path, classes: &Path) -> Result<MaskSet, DataError> {
    for path in [photos, masks, classes] {
        if !path.exists() {
            return Err(missing(path.to_owned()));
        }
    }
    let classes = read_classes(classes)?;
    let ignored = match classes.len() {
        0..=255 => 255,
        _ => IGNORE,
    };
    let background = (classes.iter())
        .position(|class| class.name.eq_ignore_ascii_case(BACKGROUND))
        .and_then(|index| u16::try_from(index).ok());
    let values = Values::classes_and(classes.len(), ignored);
    let mut omissions = Omissions::new();
    let files = pairs(photos, masks, &mut omissions)?;
    count_stray_masks(masks, &files, &mut omissions)?;
    let mut set = MaskSet::new("custom", "all", classes, values, (photos, files))?;
    set.background = background;
    if background != Some(0)
        && let Some(mask) = set
            .masks
            .iter()
            .take(LOOKED_INTO)
            .find(|mask| is_own_result(mask))
    {
        let reason = "a mask made by percept, in which 0 is the background and the first label is 1: \
                      write `background` as the first line of classes.txt";
        return Err(invalid(mask, reason));
    }
    Ok(set.with_omissions(omissions))
}

/// Every photo with its mask.
fn pairs(photos: &Path, masks: &Path, omissions: &mut Omissions) -> Result<Vec<Files>, DataError> {
    let sifted = sift(photos, "", omissions)?;
    for (name, _) in sifted.folders {
        omissions.add("folders among the photos, passed over", name);
    }
    let stem = |name: &str| {
        let stem = Path::new(name).file_stem().unwrap_or_default();
        stem.to_string_lossy().into_owned()
    };
    let mut alike: HashMap<String, usize> = HashMap::new();
    for (name, _) in &sifted.photos {
        *alike.entry(stem(name)).or_default() += 1;
    }
    let mut files = Vec::new();
    for (name, image) in sifted.photos {
        let of_name = masks.join(format!("{name}.png"));
        let (id, mask) = match of_name.exists() {
            true => (name.clone(), of_name),
            false if alike.get(&stem(&name)) == Some(&1) => {
                let stem = stem(&name);
                let mask = masks.join(format!("{stem}.png"));
                (stem, mask)
            }
            false => {
                let kind = "photos of one stem, whose mask could be of either, left out";
                omissions.add(kind, name);
                continue;
            }
        };
        files.push(Files { id, image, mask });
    }
    Ok(files)
}

/// Reads a list of classes in any form that percept reads. Unlike in other lists, an empty line before
/// the last name is an error: it may be meant as a class, and to leave it out would shift all that
/// follow. Ids, where the list has them, are what masks have.
fn read_classes(path: &Path) -> Result<Vec<ClassName>, DataError> {
    // A list named on a command line may come through a pipe, that of a set may not.
    open_regular(path).map_err(|source| DataError::Io {
        path: path.to_owned(),
        source,
    })?;
    let list = LabelList::from_file(path).map_err(|error| match error {
        FileError::Io { path, source } => DataError::Io { path, source },
        FileError::Refused { path, refused } => invalid(&path, refused.to_string()),
    })?;
    if let Some(line) = list.blank_lines.first() {
        return Err(invalid(path, format!("line {line} has no name")));
    }
    let class = |(index, entry): (usize, Entry)| {
        let Entry { label, line, id } = entry;
        match id.filter(|id| id.parse() != Ok(index)) {
            Some(id) => {
                let id = abbreviate(&id);
                let reason = format!("line {line}: the id {id}, where masks would have {index}");
                Err(invalid(path, reason))
            }
            None => Ok(ClassName {
                name: label.name,
                synonyms: label.synonyms,
            }),
        }
    };
    list.entries.into_iter().enumerate().map(class).collect()
}
