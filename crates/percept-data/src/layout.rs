//! Finding a dataset in the folder that was named, or saying what is there instead.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use percept_image::{EXTENSIONS, is_result};

use crate::files::open_regular;
use crate::{DataError, Omissions};

/// Most entries read of one folder. The largest public set with masks, COCO train, has 118,287
/// photos.
const MAX_ENTRIES: usize = 1_000_000;

/// Most bytes of a list of samples or classes: [`MAX_ENTRIES`] lines of 64 bytes.
const MAX_LIST_BYTES: u64 = 64 << 20;

/// Most folders tried for a hint: enough for a drive of datasets, quick even on a network.
const MAX_TRIED: usize = 300;

/// Most entries of a folder read for a hint, of which a set's folder of photos has thousands.
const MAX_GLANCE: usize = 500;

/// Samples that are looked for when a set is opened. A photo may be missing here and there, but if
/// all of these are, the folder is not the right one.
const LOOKED_FOR: usize = 8;

/// Entries of a folder named in a message.
const NAMED: usize = 5;

/// Finds the first of `variants` that is there whole, and returns its files and folders.
///
/// A variant lists paths below `root` that must all exist. A set has several where `root` may be the
/// set itself or a folder above it, or where parts of it go by several names.
///
/// # Errors
/// [`DataError::Layout`] that names what is missing of the variant that is nearest to complete, what
/// is there instead, and a folder nearby that would fit.
pub(crate) fn find<const N: usize>(
    root: &Path,
    variants: &[[String; N]],
) -> Result<[PathBuf; N], DataError> {
    if let Some(paths) = fitting(root, variants) {
        return Ok(paths);
    }
    // The first of equals, hence from the back.
    let nearest = (variants.iter().rev()).max_by_key(|variant| depth_present(root, *variant));
    let expected = (nearest.into_iter().flatten())
        .map(|path| root.join(path))
        .find(|path| root.exists() && !path.exists())
        .unwrap_or_else(|| root.to_owned());
    Err(DataError::Layout {
        found: Some(instead(&expected)),
        expected,
        hint: nearby(root, variants)
            .map(|folder| format!("did you mean --data {}?", folder.display())),
    })
}

/// The error of a file or folder that should be there.
pub(crate) fn missing(expected: PathBuf) -> DataError {
    DataError::Layout {
        found: Some(instead(&expected)),
        expected,
        hint: None,
    }
}

/// Refuses a listing whose first files are all missing.
///
/// # Errors
/// [`DataError::Layout`] that names the first of them.
pub(crate) fn some_present<'a>(paths: impl Iterator<Item = &'a PathBuf>) -> Result<(), DataError> {
    let first: Vec<&PathBuf> = paths.take(LOOKED_FOR).collect();
    match first.first() {
        Some(&expected) if !first.iter().any(|path| path.exists()) => {
            Err(missing(expected.clone()))
        }
        _ => Ok(()),
    }
}

/// Paths of the first variant of which nothing is missing.
fn fitting<const N: usize>(root: &Path, variants: &[[String; N]]) -> Option<[PathBuf; N]> {
    let mut paths = (variants.iter()).map(|variant| variant.each_ref().map(|path| root.join(path)));
    paths.find(|paths| paths.iter().all(|path| path.exists()))
}

/// How much of a variant is there, in components of its paths.
fn depth_present(root: &Path, variant: &[String]) -> usize {
    let depth = |path: &String| {
        let path = Path::new(path);
        let present = path.ancestors().find(|part| root.join(part).exists());
        present.map_or(0, |part| part.components().count())
    };
    variant.iter().map(depth).sum()
}

/// What is there in place of a path that is not, in words.
fn instead(expected: &Path) -> String {
    let Some(present) = (expected.ancestors().skip(1)).find(|part| part.exists()) else {
        return "nothing of that path".to_owned();
    };
    // The empty path is the current folder.
    let folder = match present.as_os_str().is_empty() {
        true => Path::new("."),
        false => present,
    };
    if !folder.is_dir() {
        return format!("that {} is a file", folder.display());
    }
    let mut names = glance(folder);
    names.sort();
    let name = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    };
    let listed: Vec<String> = names.iter().take(NAMED).map(name).collect();
    let more = match names.len() {
        0 => return format!("an empty folder {}", folder.display()),
        n if n >= MAX_GLANCE => " and many more".to_owned(),
        n if n > NAMED => format!(" and {} more", n - NAMED),
        _ => String::new(),
    };
    format!("{}{more} in {}", listed.join(", "), folder.display())
}

/// The first folder that fits, above `root` or up to two levels below it or its parent.
fn nearby<const N: usize>(root: &Path, variants: &[[String; N]]) -> Option<PathBuf> {
    let fits = |folder: &PathBuf| fitting(folder, variants).is_some();
    let above = root.ancestors().skip(1).take(2);
    let above: Vec<PathBuf> = above.map(|folder| folder.to_owned()).collect();
    // The empty path, the current folder, would make an empty hint.
    let named = above.iter().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = named.clone().find(|folder| fits(folder)) {
        return Some(folder.clone());
    }
    let mut tried = 0;
    let starts = std::iter::once(root.to_owned()).chain(named.take(1).cloned());
    for start in starts {
        let mut level = vec![start];
        for _ in 0..2 {
            let below = level.iter().flat_map(|folder| folders(folder));
            level = below.take(MAX_TRIED.saturating_sub(tried)).collect();
            tried += level.len();
            if let Some(folder) = level.iter().find(|folder| fits(folder)) {
                return Some(folder.clone());
            }
        }
    }
    None
}

/// The folders in a folder, by name.
fn folders(folder: &Path) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = glance(folder);
    folders.retain(|path| path.is_dir());
    folders.sort();
    folders
}

/// The first entries of a folder as the system lists them, but hidden ones; none if it cannot be
/// read.
fn glance(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    (entries.take(MAX_GLANCE).flatten())
        .map(|entry| entry.path())
        .filter(|path| !is_hidden(path))
        .collect()
}

/// Whether a name begins with a dot, as the copies do that macOS makes on foreign disks.
fn is_hidden(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    name.as_encoded_bytes().starts_with(b".")
}

/// The entries of a folder whose names are text and not hidden, by name.
///
/// # Errors
/// As [`entries`].
pub(crate) fn list(folder: &Path) -> Result<Vec<(String, PathBuf)>, DataError> {
    let entries = entries(folder)?.into_iter();
    let shown = entries.filter(|(_, path)| !is_hidden(path));
    Ok(shown
        .filter_map(|(name, path)| Some((name.into_string().ok()?, path)))
        .collect())
}

/// The entries of a folder, by name.
///
/// # Errors
/// [`DataError::Io`] if the folder cannot be read, [`DataError::Invalid`] if it holds more than
/// [`MAX_ENTRIES`].
fn entries(folder: &Path) -> Result<Vec<(OsString, PathBuf)>, DataError> {
    let io_error = |source| DataError::Io {
        path: folder.to_owned(),
        source,
    };
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).map_err(io_error)? {
        let entry = entry.map_err(io_error)?;
        if entries.len() == MAX_ENTRIES {
            return Err(DataError::Invalid {
                path: folder.to_owned(),
                reason: format!("more than {MAX_ENTRIES} entries"),
            });
        }
        entries.push((entry.file_name(), entry.path()));
    }
    entries.sort();
    Ok(entries)
}

/// Names of what systems and tools leave in folders: no photos, and no classes.
const LEFT_BY_SYSTEMS: [&str; 7] = [
    "__macosx",
    "thumbs.db",
    "desktop.ini",
    "@eadir",
    "$recycle.bin",
    "system volume information",
    "lost+found",
];

/// What a folder of photos holds.
#[derive(Debug, Default)]
pub(crate) struct Sifted {
    /// Files with the ending of a photo, by name.
    pub photos: Vec<(String, PathBuf)>,
    /// Folders, by name.
    pub folders: Vec<(String, PathBuf)>,
    /// Endings of the other files.
    pub endings: BTreeSet<String>,
}

/// Sorts the entries of a folder. What is neither a photo nor a folder is counted by kind, under its
/// name behind `above`.
///
/// # Errors
/// As [`list`].
pub(crate) fn sift(
    folder: &Path,
    above: &str,
    omissions: &mut Omissions,
) -> Result<Sifted, DataError> {
    let mut sifted = Sifted::default();
    for (name, path) in entries(folder)? {
        let example = format!("{above}{}", name.to_string_lossy());
        let Some(name) = name.to_str() else {
            omissions.add("files whose names are not UTF-8, passed over", example);
            continue;
        };
        let lower = name.to_ascii_lowercase();
        if name.starts_with("._") {
            omissions.add("copies that macOS makes (._*), passed over", example);
        } else if name.starts_with('.') {
            omissions.add("hidden files and folders, passed over", example);
        } else if LEFT_BY_SYSTEMS.contains(&lower.as_str()) {
            omissions.add("files and folders of the system, passed over", example);
        } else if is_photo(name) && is_own_result(&path) {
            omissions.add("results of percept, passed over", example);
        } else if is_photo(name) {
            sifted.photos.push((name.to_owned(), path));
        } else if path.is_dir() {
            sifted.folders.push((name.to_owned(), path));
        } else {
            let ending = Path::new(name).extension().unwrap_or_default();
            let ending = format!(".{}", ending.to_string_lossy().to_ascii_lowercase());
            match ending.as_str() {
                "." => omissions.add("files without an ending, passed over", example),
                _ => omissions.add(
                    format!("files passed over for the ending {ending}"),
                    example,
                ),
            }
            sifted.endings.insert(ending);
        }
    }
    Ok(sifted)
}

/// Whether a file has the ending of a photo.
pub(crate) fn is_photo(name: &str) -> bool {
    let ending = Path::new(name).extension().unwrap_or_default();
    let ending = ending.to_ascii_lowercase();
    EXTENSIONS.iter().any(|known| ending == *known)
}

/// Whether a picture is a mask or overlay that percept wrote, which says so.
pub(crate) fn is_own_result(path: &Path) -> bool {
    /// Bytes in which it says so.
    const START: u64 = 16 << 10;
    let is_png = (path.extension()).is_some_and(|ending| ending.eq_ignore_ascii_case("png"));
    let mut start = Vec::new();
    // What cannot be read is no result, and fails when it is read as a picture.
    let mut read = || open_regular(path)?.take(START).read_to_end(&mut start);
    is_png && read().is_ok() && is_result(&start)
}

/// Reads a list as text, without the mark some editors put first.
///
/// # Errors
/// [`DataError::Io`] if it cannot be read, [`DataError::Invalid`] if it is too long or not UTF-8.
pub(crate) fn read_text(path: &Path) -> Result<String, DataError> {
    let io_error = |source| DataError::Io {
        path: path.to_owned(),
        source,
    };
    let invalid = |reason: String| DataError::Invalid {
        path: path.to_owned(),
        reason,
    };
    let mut bytes = Vec::new();
    (open_regular(path).map_err(io_error)?)
        .take(MAX_LIST_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(io_error)?;
    if bytes.len() as u64 > MAX_LIST_BYTES {
        return Err(invalid(format!("larger than {MAX_LIST_BYTES} bytes")));
    }
    let text = String::from_utf8(bytes).map_err(|_| invalid("not UTF-8 text".to_owned()))?;
    Ok(text.trim_start_matches('\u{feff}').to_owned())
}

/// Reads the names of samples, the first word of each line.
///
/// # Errors
/// As [`read_text`], and [`DataError::Invalid`] for a name that is a path: it would lead out of the
/// set.
pub(crate) fn read_names(path: &Path) -> Result<Vec<String>, DataError> {
    let mut names = Vec::new();
    for (line, text) in read_text(path)?.lines().enumerate() {
        let Some(name) = text.split_whitespace().next() else {
            continue;
        };
        if name.starts_with('.') || name.contains(['/', '\\', ':']) {
            return Err(DataError::Invalid {
                path: path.to_owned(),
                reason: format!("line {}: `{name}` is no name of a photo", line + 1),
            });
        }
        names.push(name.to_owned());
    }
    Ok(names)
}

/// Refuses the name of a split that would lead elsewhere.
///
/// # Errors
/// [`DataError::Setting`].
pub(crate) fn check_split(split: &str) -> Result<(), DataError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    match !split.is_empty() && split.chars().all(plain) {
        true => Ok(()),
        false => Err(DataError::Setting(format!(
            "`{split}` is no name of a split"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with empty files.
    fn tree(files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        root
    }

    fn variants() -> [[String; 2]; 2] {
        ["", "set/"].map(|above| ["photos", "lists/val.txt"].map(|path| format!("{above}{path}")))
    }

    fn message(root: &Path) -> String {
        find(root, &variants()).unwrap_err().to_string()
    }

    #[test]
    fn the_set_or_the_folder_above_is_found() {
        let root = tree(&["set/photos/a", "set/lists/val.txt"]);
        let root = root.path();
        for given in [root.to_owned(), root.join("set")] {
            let paths = find(&given, &variants()).unwrap();
            assert_eq!(
                paths,
                [root.join("set/photos"), root.join("set/lists/val.txt")]
            );
        }
    }

    #[test]
    fn what_is_missing_is_named_with_what_is_there() {
        let root = tree(&[
            "photos/a",
            "lists/train.txt",
            "lists/test.txt",
            "lists/.hidden",
        ]);
        let lists = root.path().join("lists");
        assert_eq!(
            message(root.path()),
            format!(
                "expected {}, found test.txt, train.txt in {}",
                lists.join("val.txt").display(),
                lists.display()
            )
        );
        let empty = tree(&[]);
        assert!(message(empty.path()).contains("found an empty folder "));
        let file = tree(&["photos"]);
        assert!(message(&file.path().join("photos")).contains("photos is a file"));
    }

    #[test]
    fn a_folder_that_fits_is_hinted_at() {
        let root = tree(&["a/b/set/photos/x", "a/b/set/lists/val.txt", "c/d"]);
        let root = root.path();
        for (given, meant) in [
            ("", "a/b"),
            ("a", "a/b"),
            ("a/b/set/photos", "a/b/set"),
            ("a/b/set/photos/none", "a/b/set"),
            ("c", "a/b"),
            ("a/b/sett", "a/b"),
        ] {
            let hint = format!("did you mean --data {}?", root.join(meant).display());
            let message = message(&root.join(given));
            assert!(message.ends_with(&hint), "{given}: {message}");
        }
        assert!(!message(&root.join("none/none/none")).contains("did you mean"));
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let list = root.path().join("val.txt");
        fs::write(&list, "\u{feff}2007_000033 1\r\n\n2007_000042\n").unwrap();
        assert_eq!(read_names(&list).unwrap(), ["2007_000033", "2007_000042"]);
        for name in ["../secret", "/etc/passwd", "..", "a\\b", "C:x"] {
            fs::write(&list, format!("a\n{name}\n")).unwrap();
            let error = read_names(&list).unwrap_err().to_string();
            assert!(error.contains("val.txt: line 2"), "{error}");
        }
        for split in ["", "../val", "val.txt", "a/b"] {
            assert!(check_split(split).is_err(), "{split}");
        }
        assert!(check_split("val2017").is_ok());
    }

    #[test]
    fn results_of_percept_are_no_photos() {
        use percept_image::{LabelMap, RgbImage, mask_png, png_rgb};
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
        write("a.png", &png_rgb(&RgbImage::new(2, 2)).unwrap());
        let mask = mask_png(&LabelMap::new(1, 1, vec![1]).unwrap()).unwrap();
        write("a.mask.PNG", &mask);
        write("renamed.png", &mask);
        write("broken.png", b"no photo");
        let mut omissions = Omissions::new();
        let sifted = sift(folder.path(), "cat/", &mut omissions).unwrap();
        let names: Vec<&str> = sifted
            .photos
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        // One that cannot be read fails by name.
        assert_eq!(names, ["a.png", "broken.png"]);
        let kinds = omissions.kinds().iter();
        let kinds: Vec<(u64, &str)> = kinds.map(|kind| (kind.count, kind.kind.as_str())).collect();
        assert_eq!(kinds, [(2, "results of percept, passed over")]);
    }
}
