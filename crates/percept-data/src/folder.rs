//! One folder of photos per class, as ImageNet and most classification sets are stored.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use crate::classes::{class_name, spelling};
use crate::files::{invalid, unique_id};
use crate::imagenet::{COUNT, ImageNetClass, imagenet_classes, wnid};
use crate::layout::{Sifted, missing, read_text, sift};
use crate::{ClassName, DataError, Omissions};

/// Most photos in all folders: ImageNet's full set of 22,000 classes has 14 million.
const MAX_PHOTOS: usize = 16_000_000;

/// Endings named in a message.
const MAX_ENDINGS: usize = 20;

/// Most classes: their indices are `u16`.
const MAX_CLASSES: usize = 65_000;

/// Photos with one class each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFolder {
    /// The classes by index.
    pub classes: Vec<ClassName>,
    /// The photos, by class and then by name.
    pub samples: Vec<ImageSample>,
    /// What was left out, and what is odd about the folders' names.
    pub omissions: Omissions,
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

/// What becomes of class folders without photos.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EmptyClasses {
    /// They are an error, as in torchvision: with one class less to choose from, accuracy rises.
    #[default]
    Refuse,
    /// They are classes to choose from, and are counted in [`ImageFolder::omissions`].
    Keep,
}

/// How a folder of folders is read.
#[derive(Debug, Clone, Copy, Default)]
pub struct FolderOptions<'a> {
    /// A file with a line `FOLDER<TAB or comma>NAME[, SYNONYM…]` for each folder.
    pub names: Option<&'a Path>,
    /// The classes to choose from.
    pub competing: Competing,
    /// Folders without photos.
    pub empty: EmptyClasses,
}

/// A folder and its photos.
struct Folder {
    name: String,
    photos: Vec<(String, PathBuf)>,
    /// Why it has no photos, in words.
    instead: String,
}

/// How the folders of a set are named.
enum Naming {
    /// A file says what each folder is.
    File(BTreeMap<String, ClassName>),
    /// `n01440764`, also with something behind.
    Wnid,
    /// `0` to `999`, in the order of the wnids.
    Number,
    /// The name of the class, behind a number and a dot if all are: `007.bat`.
    Name { numbered: bool },
}

/// Why a folder may have no class, unless a file names them.
const NO_CLASS: &str =
    "none of ImageNet's 1,000 classes; a file of class names can tell what it is";

/// The class of a folder.
struct Named {
    /// What is equal for folders of one class.
    key: String,
    class: ClassName,
    /// Its index among ImageNet's, if it is one of these.
    position: Option<u16>,
    /// What is odd about the name, as a kind that is counted.
    odd: Option<&'static str>,
}

impl ImageFolder {
    /// Opens `root/FOLDER/*.jpg`, or `root/val/FOLDER/*.jpg` if `root` has a folder `val`, with
    /// [`EmptyClasses::Refuse`]. See [`Self::open_as`].
    ///
    /// # Errors
    /// As [`Self::open_as`].
    pub fn open(
        root: &Path,
        names: Option<&Path>,
        competing: Competing,
    ) -> Result<Self, DataError> {
        let options = FolderOptions {
            names,
            competing,
            ..FolderOptions::default()
        };
        Self::open_as(root, &options)
    }

    /// Opens `root/FOLDER/*.jpg`, or `root/val/FOLDER/*.jpg` if `root` has a folder `val`.
    ///
    /// Photos are known by the ending of their names ([`percept_image::EXTENSIONS`]); other files and
    /// folders within are passed over and counted. What the folders are called decides what the
    /// classes are:
    ///
    /// | folders | classes |
    /// |---|---|
    /// | any, with `names` | those of the file |
    /// | wnids, at least half of them, also `N01440764` and `n01440764-tench` | [`imagenet_classes`]; of others what stands behind the wnid |
    /// | `0` to `999`, all of them or with [`Competing::ImageNet`] | the same, as in ImageNet-v2 |
    /// | anything else | the folder's name, with spaces for `_` and `-`; without the number if all begin with one and a dot |
    ///
    /// Folders of one class, such as `Cat` and `cat`, are put together. Classes are in the order of the
    /// folders' names, numbers by value.
    ///
    /// # Errors
    /// [`DataError`]: there are no folders with photos, a folder cannot be read, has no photos
    /// ([`EmptyClasses::Refuse`]) or no class, or [`Competing::ImageNet`] is asked of other names than
    /// ImageNet's.
    pub fn open_as(root: &Path, options: &FolderOptions<'_>) -> Result<Self, DataError> {
        let FolderOptions {
            names,
            competing,
            empty,
        } = *options;
        let val = root.join("val");
        let root = if val.is_dir() { &val } else { root };
        let mut omissions = Omissions::new();
        let mut folders = class_folders(root, &mut omissions)?;
        check_empty(root, &folders, empty, &mut omissions)?;
        let naming = match names {
            Some(file) => {
                let mut classes = read_class_file(file, &folders, &mut omissions)?;
                check_present(file, &mut classes, &folders, empty, &mut omissions)?;
                Naming::File(classes)
            }
            None => Naming::of(&folders, competing),
        };
        if let Naming::Number = naming {
            folders.sort_by_key(|folder| folder.name.parse::<usize>().unwrap_or(usize::MAX));
        }
        let all = imagenet_classes();
        if competing == Competing::ImageNet {
            keep_imagenets(root, &mut folders, &naming, &all, &mut omissions)?;
        }
        let mut set = Self {
            classes: Vec::new(),
            samples: Vec::new(),
            omissions,
        };
        let mut known: HashMap<String, u16> = HashMap::new();
        let mut ids = HashSet::new();
        for folder in folders {
            let named = naming.class(&folder.name, &all).ok_or_else(|| {
                let folder = root.join(&folder.name);
                match names {
                    Some(file) => {
                        let folder = folder.display();
                        invalid(file, format!("has no line for the class folder {folder}"))
                    }
                    None => invalid(&folder, NO_CLASS),
                }
            })?;
            if let Some(kind) = named.odd {
                set.omissions.add(kind, &folder.name);
            }
            let class = match (competing, known.get(&named.key)) {
                (Competing::ImageNet, _) => named.position.unwrap_or_default(),
                (Competing::Present, Some(&class)) => {
                    let kind = "folders of the same class as another, put together with it";
                    set.omissions.add(kind, &folder.name);
                    class
                }
                (Competing::Present, None) => {
                    let class = u16::try_from(set.classes.len()).unwrap_or(u16::MAX);
                    set.classes.push(named.class);
                    known.insert(named.key, class);
                    class
                }
            };
            for (name, image) in folder.photos {
                let id = unique_id(&format!("{}/{name}", folder.name), &mut ids)
                    .ok_or_else(|| invalid(&image, "another photo has the same name"))?;
                set.samples.push(ImageSample { id, image, class });
            }
        }
        if competing == Competing::ImageNet {
            set.classes = all.into_iter().map(|class| class.name).collect();
        }
        // Folders that were put together need not be neighbours.
        set.samples.sort_by_key(|sample| sample.class);
        Ok(set)
    }
}

/// Counts folders without photos, or refuses them.
fn check_empty(
    root: &Path,
    folders: &[Folder],
    empty: EmptyClasses,
    omissions: &mut Omissions,
) -> Result<(), DataError> {
    let mut without = folders.iter().filter(|folder| folder.photos.is_empty());
    match empty {
        EmptyClasses::Keep => {
            for Folder { name, instead, .. } in without {
                let kind = "class folders without photos, whose classes compete all the same";
                omissions.add(kind, format!("{name}: {instead}"));
            }
            Ok(())
        }
        EmptyClasses::Refuse => {
            let Some(Folder { name, instead, .. }) = without.next() else {
                return Ok(());
            };
            let more = match without.count() {
                0 => String::new(),
                more => format!(", and {more} more such folders"),
            };
            Err(DataError::EmptyClass {
                folder: root.join(name),
                instead: format!("{instead}{more}"),
            })
        }
    }
}

/// Leaves out folders that are none of ImageNet's, unless they are the most.
fn keep_imagenets(
    root: &Path,
    folders: &mut Vec<Folder>,
    naming: &Naming,
    all: &[ImageNetClass],
    omissions: &mut Omissions,
) -> Result<(), DataError> {
    let is_one = |folder: &Folder| {
        let named = naming.class(&folder.name, all);
        named.is_some_and(|named| named.position.is_some())
    };
    let count = folders.iter().filter(|folder| is_one(folder)).count();
    if 2 * count < folders.len() {
        let reason = format!(
            "the folders in {} are not named as ImageNet's",
            root.display()
        );
        return Err(DataError::Setting(reason));
    }
    folders.retain(|folder| {
        let keep = is_one(folder);
        if !keep {
            let kind = "folders that are none of ImageNet's 1,000 classes, left out";
            omissions.add(
                kind,
                format!("{} ({} photos)", folder.name, folder.photos.len()),
            );
        }
        keep
    });
    Ok(())
}

impl Naming {
    /// What the folders' names look like.
    fn of(folders: &[Folder], competing: Competing) -> Self {
        let all = |is: fn(&str) -> bool| folders.iter().all(|folder| is(&folder.name));
        let whole = folders.len() == COUNT || competing == Competing::ImageNet;
        let numbers = folders
            .iter()
            .filter(|folder| is_number(&folder.name))
            .count();
        let wnids = folders.iter().filter(|folder| wnid(&folder.name).is_some());
        if 2 * wnids.count() >= folders.len() {
            Self::Wnid
        } else if whole && 2 * numbers >= folders.len() {
            Self::Number
        } else {
            Self::Name {
                numbered: all(|name| behind_number(name).is_some()),
            }
        }
    }

    /// The class of a folder.
    fn class(&self, folder: &str, all: &[ImageNetClass]) -> Option<Named> {
        match self {
            Self::File(classes) => {
                let class = classes.get(folder)?.clone();
                Some(Named {
                    key: spelling(&class.name),
                    class,
                    position: None,
                    odd: None,
                })
            }
            Self::Name { numbered } => {
                let name = behind_number(folder).filter(|_| *numbered);
                Some(Named::said(name.unwrap_or(folder)))
            }
            Self::Wnid => match wnid(folder) {
                None => Some(Named {
                    odd: Some("folders named otherwise among wnids, prompted by their own names"),
                    ..Named::said(folder)
                }),
                Some((id, rest)) => {
                    match all.iter().position(|class| class.wnid == id) {
                        Some(position) => Named::imagenets(id, position, all),
                        // Of the other 20,000, only the folder tells the name.
                        None => (!rest.is_empty()).then(|| Named {
                            key: id,
                            odd: None,
                            ..Named::said(rest)
                        }),
                    }
                }
            },
            Self::Number => match folder.parse().ok().filter(|_| is_number(folder)) {
                Some(position) => Named::imagenets(folder.to_owned(), position, all),
                None => Some(Named {
                    odd: Some("folders named otherwise among numbers, prompted by their own names"),
                    ..Named::said(folder)
                }),
            },
        }
    }
}

impl Named {
    /// A class that is named as its folder is.
    fn said(folder: &str) -> Self {
        let name = folder.replace(['_', '-'], " ");
        let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
        let name = match name.is_empty() {
            true => folder.to_owned(),
            false => name,
        };
        let has_letters = name.chars().any(char::is_alphabetic);
        Self {
            key: spelling(&name),
            class: ClassName {
                synonyms: vec![name.clone()],
                name,
            },
            position: None,
            odd: (!has_letters).then_some(
                "folders named by a number, prompted by it (a file of class names can tell what \
                 they are)",
            ),
        }
    }

    /// One of ImageNet's classes.
    fn imagenets(key: String, position: usize, all: &[ImageNetClass]) -> Option<Self> {
        Some(Self {
            key,
            class: all.get(position)?.name.clone(),
            position: u16::try_from(position).ok(),
            odd: None,
        })
    }
}

/// Whether a folder is named as those of ImageNet-v2.
fn is_number(name: &str) -> bool {
    name.parse::<usize>()
        .is_ok_and(|number| number < COUNT && number.to_string() == name)
}

/// What stands behind a number and a dot: the `bat` of `007.bat`.
fn behind_number(name: &str) -> Option<&str> {
    let (number, rest) = name.split_once('.')?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    (is_number && !rest.is_empty()).then_some(rest)
}

/// The folders in `root`, by name, each of which is a class.
fn class_folders(root: &Path, omissions: &mut Omissions) -> Result<Vec<Folder>, DataError> {
    let expected = root.join("CLASS").join("*.jpg");
    if !root.is_dir() {
        return Err(missing(expected));
    }
    let mut beside = Omissions::new();
    let sifted = sift(root, "", &mut beside)?;
    for (name, _) in &sifted.photos {
        beside.add("photos beside the class folders, passed over", name);
    }
    if sifted.folders.len() > MAX_CLASSES {
        return Err(invalid(root, format!("more than {MAX_CLASSES} folders")));
    }
    let mut folders = Vec::with_capacity(sifted.folders.len());
    let mut count = 0;
    for (name, path) in sifted.folders {
        let within = sift(&path, &format!("{name}/"), omissions)?;
        for (inner, _) in &within.folders {
            let kind = "folders within class folders, passed over";
            omissions.add(kind, format!("{name}/{inner}"));
        }
        count += within.photos.len();
        if count > MAX_PHOTOS {
            return Err(invalid(root, format!("more than {MAX_PHOTOS} photos")));
        }
        folders.push(Folder {
            instead: instead(&within),
            photos: within.photos,
            name,
        });
    }
    if count == 0 {
        return Err(missing(expected));
    }
    omissions.merge(&beside);
    Ok(folders)
}

/// What a folder holds in place of photos.
fn instead(found: &Sifted) -> String {
    let named: Vec<&str> = (found.endings.iter().take(MAX_ENDINGS))
        .map(String::as_str)
        .collect();
    let more = match found.endings.len() - named.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    match (found.folders.first(), named.as_slice()) {
        (Some((name, _)), _) => format!("only folders, such as {name}"),
        (None, []) => "nothing".to_owned(),
        (None, named) => format!("only files of other endings ({}{more})", named.join(", ")),
    }
}

/// The photos in a folder, by name, told by their endings. All else is counted in `omissions`.
pub(crate) fn photos(
    folder: &Path,
    above: &str,
    omissions: &mut Omissions,
) -> Result<Vec<PathBuf>, DataError> {
    let sifted = sift(folder, above, omissions)?;
    for (name, _) in sifted.folders {
        omissions.add("folders within, passed over", format!("{above}{name}"));
    }
    Ok(sifted.photos.into_iter().map(|(_, path)| path).collect())
}

/// What a header calls the column of folders.
const HEADERS: [&str; 8] = [
    "folder",
    "folders",
    "directory",
    "dir",
    "wnid",
    "synset",
    "id",
    "class",
];

/// Refuses lines of folders that are not there: their classes would not compete. With
/// [`EmptyClasses::Keep`] they are counted; only folders make classes.
fn check_present(
    path: &Path,
    classes: &mut BTreeMap<String, ClassName>,
    folders: &[Folder],
    empty: EmptyClasses,
    omissions: &mut Omissions,
) -> Result<(), DataError> {
    let present: HashSet<&str> = folders.iter().map(|folder| folder.name.as_str()).collect();
    let absent: Vec<String> = (classes.keys())
        .filter(|name| !present.contains(name.as_str()))
        .cloned()
        .collect();
    let Some(first) = absent.first() else {
        return Ok(());
    };
    if empty == EmptyClasses::Refuse {
        let more = match absent.len() {
            1 => String::new(),
            count => format!(", nor for {} more", count - 1),
        };
        let reason = format!(
            "there is no folder for `{first}`{more}; unpack it, remove the line, or go on with \
             --keep-empty-classes"
        );
        return Err(invalid(path, reason));
    }
    for name in absent {
        let kind = "lines of class names without a folder, left out";
        omissions.add(kind, &name);
        classes.remove(&name);
    }
    Ok(())
}

/// Reads what each folder's class is called.
///
/// A first line such as `folder,class`, of no folder, is a header.
fn read_class_file(
    path: &Path,
    folders: &[Folder],
    omissions: &mut Omissions,
) -> Result<BTreeMap<String, ClassName>, DataError> {
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
        let is_folder = folders.iter().any(|found| found.name == folder.trim());
        if line == 0 && !is_folder && HEADERS.contains(&spelling(folder).as_str()) {
            omissions.add(
                "headers in the file of class names, passed over",
                text.trim(),
            );
            continue;
        }
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
    fn twenty_endings_are_named() {
        let mut found = Sifted::default();
        assert_eq!(instead(&found), "nothing");
        found.endings = (0..22).map(|frame| format!(".{frame:06}")).collect();
        let text = instead(&found);
        assert!(
            text.starts_with("only files of other endings (.000000, .000001, "),
            "{text}"
        );
        assert!(text.ends_with(", .000019 and 2 more)"), "{text}");
    }

    #[test]
    fn a_file_of_names_is_read_with_tabs_or_commas() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("names.txt");
        std::fs::write(&path, "n1\tsofa, couch\n\nb b,cow\r\n").unwrap();
        let classes = read_class_file(&path, &[], &mut Omissions::new()).unwrap();
        assert_eq!(classes["n1"].synonyms, ["sofa", "couch"]);
        assert_eq!(classes["b b"].name, "cow");
        for (text, reason) in [
            ("a b", "line 1: expected FOLDER"),
            ("a,", "line 1: the name is missing"),
            ("a,b\na\tc", "line 2: the folder is there twice"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = read_class_file(&path, &[], &mut Omissions::new());
            let error = error.unwrap_err().to_string();
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
