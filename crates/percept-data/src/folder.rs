//! One folder of photos per class, as ImageNet and most classification sets are stored.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use percept_image::EXTENSIONS;

use crate::classes::class_name;
use crate::files::{invalid, unique_id};
use crate::imagenet::{COUNT, ImageNetClass, imagenet_classes, is_wnid};
use crate::layout::{list, missing, read_text};
use crate::{ClassName, DataError};

/// Most photos in all folders: ImageNet's full set of 22,000 classes has 14 million.
const MAX_PHOTOS: usize = 16_000_000;

/// Most classes: their indices are `u16`.
const MAX_CLASSES: usize = 65_000;

/// Photos with one class each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFolder {
    /// The classes by index.
    pub classes: Vec<ClassName>,
    /// The photos, by class and then by name.
    pub samples: Vec<ImageSample>,
}

/// A photo and its class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSample {
    /// Its name in the set, unique: folder and file, without the ending unless another has that
    /// name too.
    pub id: String,
    /// The photo.
    pub image: PathBuf,
    /// Index of its class.
    pub class: u16,
}

/// Which classes there are to choose from, where folders are named as ImageNet's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Competing {
    /// Those that have a folder.
    #[default]
    Present,
    /// All 1,000, also if only some have a folder.
    ImageNet,
}

/// A folder and its photos.
struct Folder {
    name: String,
    photos: Vec<PathBuf>,
}

/// How the folders of a set are named.
enum Naming {
    /// A file says what each folder is.
    File(BTreeMap<String, ClassName>),
    /// `n01440764`.
    Wnid,
    /// `0` to `999`, in the order of the wnids.
    Number,
    /// The name of the class.
    Name,
}

impl ImageFolder {
    /// Opens `root/FOLDER/*.jpg`, or `root/val/FOLDER/*.jpg` if `root` has a folder `val`.
    ///
    /// Photos are known by the ending of their names ([`EXTENSIONS`]); other files and folders
    /// within are passed over, and so are folders without photos. What the folders are called
    /// decides what the classes are:
    ///
    /// | folders | classes |
    /// |---|---|
    /// | any, with `names` | a line `FOLDER<TAB or comma>NAME[, SYNONYM…]` of that file for each folder |
    /// | wnids, all of them | [`imagenet_classes`] |
    /// | `0` to `999`, all of them or with [`Competing::ImageNet`] | the same, as in ImageNet-v2 |
    /// | anything else | the folder's name, with spaces for `_` and `-` |
    ///
    /// Classes are in the order of the folders' names, numbers by value.
    ///
    /// # Errors
    /// [`DataError`]: there are no folders with photos, a folder cannot be read, a folder has no
    /// class, or [`Competing::ImageNet`] is asked of other names than ImageNet's.
    pub fn open(
        root: &Path,
        names: Option<&Path>,
        competing: Competing,
    ) -> Result<Self, DataError> {
        let val = root.join("val");
        let root = if val.is_dir() { &val } else { root };
        let mut folders = photos_by_folder(root)?;
        let naming = match names {
            Some(file) => Naming::File(read_class_file(file)?),
            None => Naming::of(&folders, competing),
        };
        if let Naming::Number = naming {
            folders.sort_by_key(|folder| folder.name.parse::<usize>().unwrap_or(usize::MAX));
        }
        let all = imagenet_classes();
        let mut classes = Vec::with_capacity(folders.len());
        let mut positions = Vec::with_capacity(folders.len());
        for Folder { name, .. } in &folders {
            let (class, position) = naming
                .class(name, &all)
                .ok_or_else(|| invalid(&root.join(name), naming.no_class()))?;
            classes.push(class);
            positions.push(position);
        }
        let indices: Vec<u16> = match competing {
            Competing::Present => (0..).take(folders.len()).collect(),
            Competing::ImageNet => {
                classes = all.into_iter().map(|class| class.name).collect();
                positions
                    .into_iter()
                    .collect::<Option<_>>()
                    .ok_or_else(|| {
                        let root = root.display();
                        let reason = format!("the folders in {root} are not named as ImageNet's");
                        DataError::Setting(reason)
                    })?
            }
        };
        let mut samples = Vec::new();
        let mut ids = HashSet::new();
        for (folder, class) in folders.into_iter().zip(indices) {
            for image in folder.photos {
                let name = image.strip_prefix(root).unwrap_or(&image);
                let id = unique_id(&name.to_string_lossy(), &mut ids)
                    .ok_or_else(|| invalid(&image, "another photo has the same name"))?;
                samples.push(ImageSample { id, image, class });
            }
        }
        Ok(Self { classes, samples })
    }
}

impl Naming {
    /// What the folders' names look like.
    fn of(folders: &[Folder], competing: Competing) -> Self {
        let all = |is: fn(&str) -> bool| folders.iter().all(|folder| is(&folder.name));
        let whole = folders.len() == COUNT || competing == Competing::ImageNet;
        if all(is_wnid) {
            Self::Wnid
        } else if whole && all(is_number) {
            Self::Number
        } else {
            Self::Name
        }
    }

    /// The class of a folder, and its index among ImageNet's.
    fn class(&self, folder: &str, all: &[ImageNetClass]) -> Option<(ClassName, Option<u16>)> {
        let position = match self {
            Self::File(classes) => return Some((classes.get(folder)?.clone(), None)),
            Self::Name => return Some((said(folder), None)),
            Self::Wnid => all.iter().position(|class| class.wnid == folder)?,
            Self::Number => folder.parse().ok()?,
        };
        let class = all.get(position)?.name.clone();
        Some((class, u16::try_from(position).ok()))
    }

    /// Why a folder may have no class.
    fn no_class(&self) -> &'static str {
        match self {
            Self::File(_) => "the file of class names has no line for this folder",
            _ => "none of ImageNet's 1,000 classes; a file of class names can tell what it is",
        }
    }
}

/// Whether a folder is named as those of ImageNet-v2.
fn is_number(name: &str) -> bool {
    name.parse::<usize>()
        .is_ok_and(|number| number < COUNT && number.to_string() == name)
}

/// The class of a folder that is named after it.
fn said(folder: &str) -> ClassName {
    let name = folder.replace(['_', '-'], " ").trim().to_owned();
    ClassName {
        synonyms: vec![name.clone()],
        name,
    }
}

/// The folders in `root` that hold photos, by name.
fn photos_by_folder(root: &Path) -> Result<Vec<Folder>, DataError> {
    let expected = root.join("CLASS").join("*.jpg");
    if !root.is_dir() {
        return Err(missing(expected));
    }
    let mut folders = Vec::new();
    let mut count = 0;
    for (name, path) in list(root)? {
        if !path.is_dir() {
            continue;
        }
        let photos = photos(&path)?;
        count += photos.len();
        if count > MAX_PHOTOS {
            return Err(invalid(root, format!("more than {MAX_PHOTOS} photos")));
        }
        if !photos.is_empty() {
            folders.push(Folder { name, photos });
        }
        if folders.len() > MAX_CLASSES {
            return Err(invalid(root, format!("more than {MAX_CLASSES} folders")));
        }
    }
    match folders.is_empty() {
        true => Err(missing(expected)),
        false => Ok(folders),
    }
}

/// The photos in a folder, by name, told by their endings.
pub(crate) fn photos(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let mut photos: Vec<PathBuf> = list(folder)?.into_iter().map(|(_, path)| path).collect();
    photos.retain(|path| {
        let ending = path.extension().unwrap_or_default().to_ascii_lowercase();
        EXTENSIONS.iter().any(|known| ending == *known)
    });
    Ok(photos)
}

/// Reads what each folder's class is called.
fn read_class_file(path: &Path) -> Result<BTreeMap<String, ClassName>, DataError> {
    let mut classes = BTreeMap::new();
    for (line, text) in read_text(path)?.lines().enumerate() {
        if text.trim().is_empty() {
            continue;
        }
        let wrong = |reason: &str| invalid(path, format!("line {}: {reason}", line + 1));
        // A tab first: a class may have commas between its names.
        let (folder, names) = text
            .split_once('\t')
            .or_else(|| text.split_once(','))
            .ok_or_else(|| wrong("expected FOLDER, a tab or comma, and a name"))?;
        let class = class_name(names).ok_or_else(|| wrong("the name is missing"))?;
        if classes.insert(folder.trim().to_owned(), class).is_some() {
            return Err(wrong("the folder is there twice"));
        }
    }
    Ok(classes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_names_is_read_with_tabs_or_commas() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("names.txt");
        std::fs::write(&path, "n1\tsofa, couch\n\nb b,cow\r\n").unwrap();
        let classes = read_class_file(&path).unwrap();
        assert_eq!(classes["n1"].synonyms, ["sofa", "couch"]);
        assert_eq!(classes["b b"].name, "cow");
        for (text, reason) in [
            ("a b", "line 1: expected FOLDER"),
            ("a,", "line 1: the name is missing"),
            ("a,b\na\tc", "line 2: the folder is there twice"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = read_class_file(&path).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn numbers_are_those_of_imagenet_v2() {
        assert!(is_number("0") && is_number("999"));
        for name in ["", "007", "1000", "-1", "+1", "n1"] {
            assert!(!is_number(name), "{name}");
        }
    }
}
