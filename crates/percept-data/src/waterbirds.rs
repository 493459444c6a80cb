//! Waterbirds: does a classifier go by the object or by what stands behind it?
//!
//! Every photo has a label, the object, and a place, the background. In training data of this kind
//! the two mostly agree, in test data they are independent, and a classifier that leans on the place
//! is found out by the accuracy of the four groups (Sagawa et al., 2020).

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::classes::class_name;
use crate::files::{Table, inside, invalid, unique_id};
use crate::json::read_json;
use crate::layout::find;
use crate::{ClassName, DataError, Omissions};

/// The folder in the archive that its authors publish.
const PUBLISHED: &str = "waterbird_complete95_forest2water2/";

/// Largest `metadata.csv`: that of Waterbirds has 1 MB for 11,788 photos.
const MAX_CSV_BYTES: u64 = 256 << 20;

/// Largest `set.json`, which names every object that was used.
const MAX_JSON_BYTES: u64 = 256 << 20;

/// Photos with a label and a place each, two of either.
#[derive(Debug, Clone, PartialEq)]
pub struct Waterbirds {
    /// The photos of one split, in the order of the file.
    pub samples: Vec<WaterbirdsSample>,
    /// The objects: landbird and waterbird unless `set.json` says otherwise.
    pub labels: [ClassName; 2],
    /// The places: land and water unless `set.json` says otherwise.
    pub places: [String; 2],
    /// What is neither object, a prompt for methods that need a third class.
    pub background: ClassName,
    /// How the set was made, in the words of what made it; `None` without `set.json`.
    pub made: Option<serde_json::Value>,
    /// Rows that were left out.
    pub omissions: Omissions,
}

/// A photo, what is in it and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaterbirdsSample {
    /// Its name in the set, unique: the file without its ending, with the folders above.
    /// Where that is taken, with the ending.
    pub id: String,
    /// The photo.
    pub image: PathBuf,
    /// Index of its label.
    pub label: u16,
    /// Index of its place.
    pub place: u16,
}

/// What `set.json` says of the set beside it. Everything may be missing.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct SetFile {
    /// Names of the labels, synonyms after commas.
    pub labels: Option<[String; 2]>,
    pub places: Option<[String; 2]>,
    pub background: Option<String>,
    pub made: Option<serde_json::Value>,
}

impl Waterbirds {
    /// Opens `root/metadata.csv`, with the columns `img_filename`, `y` (0 or 1, the label), `split`
    /// (0 train, 1 val, 2 test) and `place` (0 or 1), and `root/set.json` if it is there. `root` may
    /// also be the folder above that of the published archive. The split is `test` unless given.
    /// Rows that make no sense, or name a photo outside `root` or one that was there before, are left
    /// out and counted.
    ///
    /// # Errors
    /// [`DataError`]: the layout is another one; a file cannot be read or is larger than 256 MiB; a
    /// column is missing, a quote is never closed; the split is not one of the three or has no photos.
    pub fn open(root: &Path, split: Option<&str>) -> Result<Self, DataError> {
        let split = split.unwrap_or("test");
        let number = ["train", "val", "test"]
            .iter()
            .position(|name| *name == split);
        let number = number.ok_or_else(|| {
            DataError::Setting(format!(
                "`{split}` is no split; there are train, val and test"
            ))
        })?;
        let variants = ["", PUBLISHED].map(|above| [format!("{above}metadata.csv")]);
        let [csv] = find(root, &variants)?;
        let root = csv.parent().unwrap_or(root);
        let mut set = Self::described(root)?;
        let table = Table::open(&csv, MAX_CSV_BYTES)?;
        let columns = table.columns(["img_filename", "y", "split", "place"])?;
        let mut ids = HashSet::new();
        let mut paths: HashSet<PathBuf> = HashSet::new();
        let mut omissions = Omissions::new();
        table.rows(&mut omissions, |row| {
            let [name, y, split, place] = columns.map(|at| row.get(at).unwrap_or_default());
            let below = |column, value: &str, end: u16| {
                let number = value
                    .parse::<f64>()
                    .ok()
                    .filter(|number| number.fract() == 0.0);
                let number = number.filter(|number| (0.0..f64::from(end)).contains(number));
                number.map(|number| number as u16).ok_or_else(|| {
                    let kind = "rows with a value that is none of the set's, left out";
                    (kind, format!("{column} is `{value}`, not 0 to {}", end - 1))
                })
            };
            if usize::from(below("split", split, 3)?) != number {
                return Ok(());
            }
            let (label, place) = (below("y", y, 2)?, below("place", place, 2)?);
            let image = inside(root, name).ok_or_else(|| {
                (
                    "rows whose photo is not in the set, left out",
                    format!("`{name}`"),
                )
            })?;
            let first = paths.insert(image.clone());
            let id = unique_id(name, &mut ids).filter(|_| first);
            let id = id.ok_or_else(|| {
                let kind = "rows of a photo that was there before, left out";
                (kind, format!("`{name}`"))
            })?;
            set.samples.push(WaterbirdsSample {
                id,
                image,
                label,
                place,
            });
            Ok(())
        })?;
        if set.samples.is_empty() {
            let reason = format!("no photo of the split {split}");
            return Err(invalid(&csv, omissions.after(&reason)));
        }
        set.omissions = omissions;
        Ok(set)
    }

    /// The set without samples, under the names of `set.json` or the usual ones.
    fn described(root: &Path) -> Result<Self, DataError> {
        let path = root.join("set.json");
        let file: SetFile = match path.exists() {
            true => read_json(&path, MAX_JSON_BYTES)?,
            false => SetFile::default(),
        };
        let [landbird, waterbird] =
            (file.labels).unwrap_or_else(|| ["landbird", "waterbird"].map(str::to_owned));
        let class = |names: &str| {
            class_name(names).ok_or_else(|| invalid(&path, "a label or background has no name"))
        };
        Ok(Self {
            samples: Vec::new(),
            labels: [class(&landbird)?, class(&waterbird)?],
            places: (file.places).unwrap_or_else(|| ["land", "water"].map(str::to_owned)),
            background: class(file.background.as_deref().unwrap_or("background"))?,
            made: file.made,
            omissions: Omissions::new(),
        })
    }
}
