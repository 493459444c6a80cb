//! Photos with captions, for retrieval.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use crate::files::{Table, inside, invalid, unique_id};
use crate::{DataError, Omissions};

/// Largest CSV of captions, which are kept in memory: COCO's train set would make 50 MB.
const MAX_CSV_BYTES: u64 = 1 << 30;

/// Names of the column of photos, those of open_clip, Flickr30k and others.
const PHOTO_COLUMNS: [&str; 7] = [
    "filepath",
    "image",
    "image_name",
    "file_name",
    "filename",
    "image_path",
    "path",
];

/// Names of the column of captions.
const CAPTION_COLUMNS: [&str; 5] = ["title", "caption", "comment", "text", "sentence"];

/// Photos with one or several captions each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaptionSet {
    /// What it is called in results, such as `coco-captions`.
    pub name: String,
    /// The photos, none without a caption.
    pub samples: Vec<CaptionSample>,
    /// What was left out, and read otherwise than it is written.
    pub omissions: Omissions,
}

/// A photo and what was said of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaptionSample {
    /// Its name in the set, unique: the file without its ending, with the folders above.
    /// Where that is taken, with the ending.
    pub id: String,
    /// The photo.
    pub image: PathBuf,
    /// Its captions in the order of the file, at least one.
    pub captions: Vec<String>,
}

impl CaptionSet {
    /// Reads a CSV with the columns `filepath` and `title`, separated as its header is: by tabs, commas,
    /// bars or semicolons. The columns may also be called `image`, `image_name`, `file_name`,
    /// `filename`, `image_path` or `path`, and `caption`, `comment`, `text` or `sentence`. Rows of the
    /// same photo are its captions; photos stay in the order of their first row.
    ///
    /// Paths are relative to `photos`, or to the folder of the CSV if that is not given; absolute ones
    /// are taken as they are. Rows without a caption or a photo, rows unlike the header, and those
    /// whose path leads out of the folder are left out and counted. The set is called as the file is.
    ///
    /// # Errors
    /// [`DataError`]: the file cannot be read or is larger than 1 GiB, a column is missing, a quote is
    /// never closed, or no row makes sense.
    pub fn from_csv(csv: &Path, photos: Option<&Path>) -> Result<Self, DataError> {
        let folder = match (photos, csv.parent()) {
            (Some(photos), _) => photos,
            (None, parent) => parent.unwrap_or(Path::new("")),
        };
        let table = Table::open(csv, MAX_CSV_BYTES)?;
        let filepath = table.column_of(&PHOTO_COLUMNS)?;
        let title = table.column_of(&CAPTION_COLUMNS)?;
        let mut samples: Vec<CaptionSample> = Vec::new();
        let mut positions: HashMap<PathBuf, usize> = HashMap::new();
        let mut ids = HashSet::new();
        let mut omissions = Omissions::new();
        table.rows(&mut omissions, |row| {
            let value = |column| row.get(column).unwrap_or_default();
            let (name, caption) = (value(filepath), value(title));
            if name.is_empty() {
                return Err(("rows without a photo, left out", format!("`{caption}`")));
            }
            if caption.is_empty() {
                return Err(("rows without a caption, left out", format!("`{name}`")));
            }
            let image = match Path::new(name).is_absolute() {
                true => Some(PathBuf::from(name)),
                false => inside(folder, name),
            };
            let image = image.ok_or_else(|| {
                let kind = "rows whose photo is not below the folder of the set, left out";
                (kind, format!("`{name}`"))
            })?;
            if let Some(sample) = positions.get(&image).and_then(|&at| samples.get_mut(at)) {
                sample.captions.push(caption.to_owned());
                return Ok(());
            }
            let line = row.position().map_or(0, csv::Position::line);
            let id = unique_id(name, &mut ids);
            positions.insert(image.clone(), samples.len());
            samples.push(CaptionSample {
                id: id.unwrap_or_else(|| format!("{name} (line {line})")),
                image,
                captions: vec![caption.to_owned()],
            });
            Ok(())
        })?;
        if samples.is_empty() {
            return Err(invalid(csv, omissions.after("no rows")));
        }
        let name = csv.file_stem().unwrap_or_default().to_string_lossy();
        Ok(Self {
            name: name.into_owned(),
            samples,
            omissions,
        })
    }

    /// How many captions all photos have together.
    pub fn captions(&self) -> usize {
        self.samples
            .iter()
            .map(|sample| sample.captions.len())
            .sum()
    }
}
