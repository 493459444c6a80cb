//! What a run did for each photo, line by line, so that another can take it up.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::io::ErrorKind::{NotADirectory, NotFound};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::Context;
use percept::{CocoResult, ImageId};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// A photo whose results are written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// The photo as the command named it.
    pub image: String,
    /// Its path below the folder that was named.
    pub file: String,
    /// The name of its results.
    pub name: String,
    /// The file as it was.
    pub source: Source,
    /// Width and height in pixels.
    pub size: [u32; 2],
    /// The files that were written, below the folder of results.
    pub files: Vec<String>,
    /// Whether the files are about to be written: a run that is killed now leaves some of them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_begun: bool,
    /// COCO results, where they were asked for. Their ids are given when all photos are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coco: Option<Vec<CocoResult>>,
}

/// By which a photo is known again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Where it really is.
    pub path: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// When it was changed, in milliseconds of Unix time.
    pub modified: u64,
}

impl Source {
    /// Of what is there once, as standard input is: never that of a photo of another run.
    pub fn once(path: &Path) -> Self {
        Self {
            path: text_of(path),
            bytes: 0,
            modified: 0,
        }
    }

    /// Of a photo as it is now; `None` where it is no file that can be read.
    pub fn of(path: &Path) -> Option<Self> {
        let about = path.metadata().ok()?;
        let modified = about.modified().ok()?.duration_since(UNIX_EPOCH);
        // Before 1970 is as good as never.
        let modified = modified.unwrap_or_default();
        Some(Self {
            path: text_of(&path.canonicalize().ok()?),
            bytes: about.len(),
            modified: u64::try_from(modified.as_millis()).unwrap_or(u64::MAX),
        })
    }
}

/// A path as text that [`path_of`] takes back: itself, unless that is no Unicode. Two paths never have the
/// same text, as they may have on a screen.
pub fn text_of(path: &Path) -> String {
    match path.to_str() {
        // On Windows this parts folders.
        Some(text) if cfg!(windows) || !text.contains('\\') => text.to_owned(),
        _ => path
            .as_os_str()
            .as_encoded_bytes()
            .escape_ascii()
            .to_string(),
    }
}

/// The path with a text that [`text_of`] made.
#[cfg(unix)]
fn path_of(text: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match (byte, rest.len()) {
            (b'\\', 1..) => match rest.next().unwrap_or_default() {
                b'x' => {
                    let digits = [rest.next(), rest.next()].map(Option::unwrap_or_default);
                    let digits = std::str::from_utf8(&digits).unwrap_or_default();
                    u8::from_str_radix(digits, 16).unwrap_or_default()
                }
                b't' => b'\t',
                b'r' => b'\r',
                b'n' => b'\n',
                other => other,
            },
            _ => byte,
        });
    }
    std::ffi::OsString::from_vec(bytes).into()
}

/// The path with a text that [`text_of`] made.
#[cfg(not(unix))]
fn path_of(text: &str) -> PathBuf {
    text.into()
}

/// The record of a run: a line of JSON for each photo, written as they come.
#[derive(Debug)]
pub struct Record {
    path: PathBuf,
    /// Photos that are done, by the name of their results. Their COCO results stay in the file.
    done: BTreeMap<String, Done>,
    file: Option<File>,
}

impl Record {
    /// What is recorded at `path`: nothing where there is no file. A line that a killed run left half
    /// written counts for nothing.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(path: PathBuf) -> anyhow::Result<Self> {
        let mut done = BTreeMap::new();
        each_line(&path, |_, photo| {
            remember(&mut done, photo);
            Ok(())
        })?;
        Ok(Self {
            path,
            done,
            file: None,
        })
    }

    /// The photo with results of this name.
    pub fn get(&self, name: &Path) -> Option<&Done> {
        self.done.get(&text_of(name))
    }

    /// The files of all photos, by their paths below the folder of results.
    pub fn files(&self) -> impl Iterator<Item = PathBuf> {
        let files = self.done.values().flat_map(|photo| &photo.files);
        files.map(|file| path_of(file))
    }

    /// The photos that are done.
    pub fn photos(&self) -> impl Iterator<Item = &Done> {
        self.done.values().filter(|photo| !photo.is_begun)
    }

    /// Adds a photo, in the file at once.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn add(&mut self, photo: Done) -> anyhow::Result<()> {
        let cannot = || format!("cannot write {}", self.path.display());
        let mut line = serde_json::to_vec(&photo)?;
        line.push(b'\n');
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let path = &self.path;
                let open = OpenOptions::new().create(true).append(true).open(path);
                let file = self.file.insert(open.with_context(cannot)?);
                // Behind what a killed run left half written.
                file.write_all(b"\n").with_context(cannot)?;
                file
            }
        };
        file.write_all(&line).with_context(cannot)?;
        remember(&mut self.done, photo);
        Ok(())
    }

    /// Writes the COCO results of all photos to `results`, and which photo has which id to `images`.
    /// Returns how many photos have a number for a name that others claim too, and so an id of another
    /// kind.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write_coco(&self, results: &Path, images: &Path) -> anyhow::Result<usize> {
        let cannot = || format!("cannot write {}", results.display());
        let photos: Vec<(String, &Done)> = self
            .photos()
            .map(|photo| {
                let stem = Path::new(&photo.file).file_stem().unwrap_or_default();
                (stem.to_string_lossy().into_owned(), photo)
            })
            .collect();
        // By file and not by the name of results, which hangs on what else is there.
        let names = photos
            .iter()
            .map(|(stem, photo)| (stem.as_str(), photo.file.as_str()));
        let ids = ImageId::of_all(names);
        let contested = photos
            .iter()
            .zip(&ids)
            .filter(|((stem, _), id)| id.is_made_up() && !ImageId::new(stem, "").is_made_up())
            .count();
        let of_names = photos.iter().map(|(_, photo)| photo.name.as_str());
        let ids: HashMap<&str, ImageId> = of_names.zip(ids).collect();

        // The last line with masks of a photo as it is holds.
        let mut last = HashMap::new();
        each_line(&self.path, |number, photo| {
            let now = self.done.get(&photo.name);
            if photo.coco.is_some() && now.is_some_and(|now| now.source == photo.source) {
                last.insert(photo.name, number);
            }
            Ok(())
        })?;
        let folder = results.parent().unwrap_or(Path::new("."));
        let file = percept::image::temporary_file(folder).with_context(cannot)?;
        let mut file = BufWriter::new(file);
        let mut separator = "[\n";
        each_line(&self.path, |number, photo| {
            let Some(&image_id) = ids.get(photo.name.as_str()) else {
                return Ok(());
            };
            if last.get(&photo.name) != Some(&number) {
                return Ok(());
            }
            for result in photo.coco.into_iter().flatten() {
                let line = serde_json::to_string(&CocoResult { image_id, ..result })?;
                write!(file, "{separator}{line}").with_context(cannot)?;
                separator = ",\n";
            }
            Ok(())
        })?;
        let end = if separator == "[\n" { "[]\n" } else { "\n]\n" };
        file.write_all(end.as_bytes()).with_context(cannot)?;
        let file = file.into_inner().map_err(|e| e.into_error());
        let file = file.with_context(cannot)?;
        file.persist(results)
            .map_err(|failed| failed.error)
            .with_context(cannot)?;

        let list: Vec<_> = self
            .photos()
            .map(|photo| {
                let id = ids.get(photo.name.as_str());
                json!({
                    "id": id,
                    "file_name": photo.file,
                    "width": photo.size[0],
                    "height": photo.size[1],
                    "path": photo.image,
                    "made_up": id.is_some_and(|id| id.is_made_up()),
                })
            })
            .collect();
        crate::output::write_json(images, &json!({ "images": list }))?;
        Ok(contested)
    }
}

/// Every line of a record that can be understood, with its number.
fn each_line(
    path: &Path,
    mut act: impl FnMut(usize, Done) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let cannot = || format!("cannot read {}", path.display());
    let file = match crate::inputs::open_file(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), NotFound | NotADirectory) => return Ok(()),
        Err(error) => return Err(error).with_context(cannot),
    };
    for (number, line) in BufReader::new(file).split(b'\n').enumerate() {
        if let Ok(photo) = serde_json::from_slice(&line.with_context(cannot)?) {
            act(number, photo)?;
        }
    }
    Ok(())
}

/// Adds a photo to what is done. Files that an earlier line names are still there, such as those of
/// other formats.
fn remember(done: &mut BTreeMap<String, Done>, mut photo: Done) {
    // Masks may be large; that there are some is worth knowing.
    photo.coco = photo.coco.map(|_| Vec::new());
    if let Some(earlier) = done.remove(&photo.name) {
        if earlier.source == photo.source {
            photo.coco = photo.coco.or(earlier.coco);
            // What is done stays so while more is written.
            photo.is_begun &= earlier.is_begun;
        }
        photo.files.extend(earlier.files);
        photo.files.sort();
        photo.files.dedup();
    }
    done.insert(photo.name.clone(), photo);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn no_two_paths_have_one_text() {
        use std::os::unix::ffi::OsStrExt;
        let names: [&[u8]; 8] = [
            b"a/b.jpg",
            "é.jpg".as_bytes(),
            b"a\xFF.jpg",
            b"a\xFE.jpg",
            br"a\xff.jpg",
            br"a\\xff.jpg",
            b"\xFF\t\r\n'\"\\",
            b"tail\\",
        ];
        let paths = names.map(|name| Path::new(std::ffi::OsStr::from_bytes(name)));
        let texts = paths.map(text_of);
        for (path, text) in paths.iter().zip(&texts) {
            assert_eq!(path_of(text), *path, "{text}");
        }
        assert_eq!(texts[0], "a/b.jpg");
        assert_eq!(texts[1], "é.jpg");
        assert_eq!(texts[2], r"a\xff.jpg");
        assert_eq!(HashMap::from(texts.map(|text| (text, ()))).len(), 8);
        for text in [r"\", r"\x", r"\xf", r"\xé", r"\q"] {
            path_of(text);
        }
    }

    #[test]
    fn what_is_begun_is_no_photo_yet_and_its_files_are_known() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("segment.jsonl");
        let mut record = Record::read(path.clone()).unwrap();
        let begun = Done {
            image: "a.jpg".into(),
            file: "a.jpg".into(),
            name: "a".into(),
            source: Source::once(Path::new("a.jpg")),
            size: [1, 1],
            files: vec!["a.npy".into()],
            is_begun: true,
            coco: None,
        };
        record.add(begun.clone()).unwrap();
        let read = Record::read(path.clone()).unwrap();
        assert_eq!(read.files().collect::<Vec<_>>(), [Path::new("a.npy")]);
        assert_eq!(read.photos().count(), 0);
        // It is done, and begun once more for another file.
        let done = Done {
            is_begun: false,
            ..begun.clone()
        };
        record.add(done).unwrap();
        record
            .add(Done {
                files: vec!["a.json".into()],
                ..begun
            })
            .unwrap();
        let read = Record::read(path).unwrap();
        assert_eq!(read.photos().count(), 1);
        let files: Vec<_> = read.files().collect();
        assert_eq!(files, [Path::new("a.json"), Path::new("a.npy")]);
    }
}
