//! Photos with captions, for retrieval.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use crate::DataError;
use crate::files::{Table, inside, invalid, unique_id};

/// Largest CSV of captions, which are kept in memory: COCO's train set would make 50 MB.
const MAX_CSV_BYTES: u64 = 1 << 30;

/// Photos with one or several captions each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaptionSet {
    /// What it is called in results, such as `coco-captions`.
    pub name: String,
    /// The photos, none without a caption.
    pub samples: Vec<CaptionSample>,
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
    /// Reads a CSV with the columns `filepath` and `title`, separated by tabs or commas as its header
    /// is. Rows of the same photo are its captions; photos stay in the order of their first row.
    ///
    /// Paths are relative to `photos`, or to the folder of the CSV if that is not given. A path that
    /// leads out of it is refused, an absolute one too. The set is called as the file is.
    ///
    /// # Errors
    /// [`DataError`]: the file cannot be read or is larger than 1 GiB, a column is missing, a row is
    /// not like the header, has an empty caption, or names a photo elsewhere.
    pub fn from_csv(csv: &Path, photos: Option<&Path>) -> Result<Self, DataError> {
        let folder = match (photos, csv.parent()) {
            (Some(photos), _) => photos,
            (None, parent) => parent.unwrap_or(Path::new("")),
        };
        let table = Table::open(csv, MAX_CSV_BYTES)?;
        let [filepath, title] = table.columns(["filepath", "title"])?;
        let mut samples: Vec<CaptionSample> = Vec::new();
        let mut positions: HashMap<PathBuf, usize> = HashMap::new();
        let mut ids = HashSet::new();
        table.rows(|row| {
            let value = |column| row.get(column).unwrap_or_default();
            let (name, caption) = (value(filepath), value(title));
            if caption.is_empty() {
                return Err(format!("`{name}` has an empty caption"));
            }
            let image = inside(folder, name).ok_or_else(|| {
                let folder = match folder.as_os_str().is_empty() {
                    true => Path::new("."),
                    false => folder,
                };
                format!("`{name}` is no path below {}", folder.display())
            })?;
            if let Some(sample) = positions.get(&image).and_then(|&at| samples.get_mut(at)) {
                sample.captions.push(caption.to_owned());
                return Ok(());
            }
            let id = unique_id(name, &mut ids)
                .ok_or_else(|| format!("`{name}` is named as two photos before it"))?;
            positions.insert(image.clone(), samples.len());
            samples.push(CaptionSample {
                id,
                image,
                captions: vec![caption.to_owned()],
            });
            Ok(())
        })?;
        if samples.is_empty() {
            return Err(invalid(csv, "no rows"));
        }
        let name = csv.file_stem().unwrap_or_default().to_string_lossy();
        Ok(Self {
            name: name.into_owned(),
            samples,
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
