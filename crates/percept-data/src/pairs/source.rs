//! Where pairs are: the shards or the CSV, the part of them that is wanted, and one sample at a time.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use percept_image::Limits;
use serde::Deserialize;

use super::shard::{self, Entry, ReadError, Span};
use super::table::{CsvOptions, PairTable};
use super::{brace, holdout::HoldOut, things};
use crate::DataError;
use crate::layout;
use crate::random::Random;

/// Largest encoded photo. One that is larger is no photo to train on at 224 or 448 pixels.
const MAX_IMAGE_BYTES: u32 = 64 << 20;

/// Largest caption file; JSON may hold other things beside captions.
const MAX_CAPTION_BYTES: u32 = 1 << 20;

/// Labels of a sample that are read; the rest are left out. No photo shows more.
const MAX_LABELS: usize = 100;

/// Samples whose places are kept for later epochs: 200 MB. Sets beyond are listed anew each epoch,
/// which takes far less than reading them.
const MAX_KEPT: usize = 2_000_000;

/// Most files of a folder compared with a name that is not there.
const MAX_COMPARED: usize = 10_000;

/// Which caption of a sample is taken where it has several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CaptionChoice {
    /// The one in `.txt`, or else the JSON's `caption`, or else the first of its `captions`.
    #[default]
    First,
    /// Any of the JSON's `captions`, another one each epoch; as `First` where there are none.
    Random,
}

/// Which samples of a source are used.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Part {
    /// All.
    #[default]
    All,
    /// All but those that are held out.
    Train(HoldOut),
    /// Those that are held out.
    Held(HoldOut),
}

impl Part {
    /// Whether the sample called `key` belongs to the part.
    pub fn contains(&self, key: &str) -> bool {
        match self {
            Self::All => true,
            Self::Train(hold_out) => !hold_out.holds(key),
            Self::Held(hold_out) => hold_out.holds(key),
        }
    }
}

/// How a source is read.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct PairOptions {
    /// Which samples are used.
    pub part: Part,
    /// Which caption is taken.
    pub captions: CaptionChoice,
    /// Whether what is on a photo is read as well: the JSON's `labels`, a list, or, where there are none,
    /// the things that half of the captions name.
    pub labels: bool,
}

/// Image-caption pairs: the shards of a webdataset, or the rows of a CSV.
///
/// Shards are listed when they are first needed, by their headers. Then each sample is read from its
/// place, so that samples can be shuffled and a run taken up again without reading what comes before.
#[derive(Debug)]
pub struct PairSource {
    kind: Kind,
    options: PairOptions,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
enum Kind {
    Shards(Vec<PathBuf>),
    Table(PairTable),
}

#[derive(Debug, Default)]
struct Kept {
    shards: HashMap<u32, Arc<[Entry]>>,
    samples: usize,
}

/// A sample and where it is found.
#[derive(Debug, Clone)]
pub(super) struct SampleRef {
    /// The shard or row.
    pub(super) unit: u32,
    /// Its place in the shard.
    pub(super) sample: u32,
    /// What is in the shard; `None` for a row.
    pub(super) entries: Option<Arc<[Entry]>>,
}

/// A sample as it was read, or why it cannot be used.
pub(super) struct Encoded {
    pub(super) key: String,
    /// The image file's bytes and what is said of it.
    pub(super) pair: Result<(Vec<u8>, Said), String>,
}

/// What is said of an image.
pub(super) struct Said {
    /// The caption, trimmed.
    pub(super) caption: String,
    /// What is on it, trimmed, if that was asked for and is known.
    pub(super) labels: Vec<String>,
}

impl PairSource {
    /// A webdataset: tar archives whose members `KEY.jpg` (or `.jpeg`, `.png`, `.webp`) and `KEY.txt`
    /// or `KEY.json` (with `caption`, a text, or `captions`, a list) make a sample.
    ///
    /// `shards` is a list of paths separated by commas or `::`, in which `{00000..01242}` and `{a,b}`
    /// are written out, and `*` and `?` stand for what is there. Nothing is unpacked to disk.
    ///
    /// # Errors
    /// [`DataError`]: the list is empty or too long, names a shard that is not there, or one that
    /// is not on a disk.
    pub fn webdataset(shards: &str, options: PairOptions) -> Result<Self, DataError> {
        let listed = brace::expand(shards)
            .map_err(|reason| DataError::Setting(format!("shards `{shards:.200}`: {reason}")))?;
        let mut paths = Vec::new();
        for path in &listed {
            if path.contains("://") || path.starts_with("pipe:") {
                let message = format!("shard `{path}`: only files are read, not addresses");
                return Err(DataError::Setting(message));
            }
            match path.contains(['*', '?']) && !Path::new(path).exists() {
                true => paths.extend(matching(path)?),
                false => paths.push(PathBuf::from(path)),
            }
        }
        if paths.is_empty() {
            return Err(DataError::Setting(format!("no shards in `{shards}`")));
        }
        if let Some(path) = paths.iter().find(|path| !path.is_file()) {
            return Err(missing(path, &paths));
        }
        Ok(Self::new(Kind::Shards(paths), options))
    }

    /// A CSV whose rows name a photo and give its caption. Its header tells commas from tabs.
    ///
    /// Paths may be absolute, unlike in [`CaptionSet`](crate::CaptionSet): what is trained on is
    /// often spread over disks, and none of it is shown to anyone.
    ///
    /// # Errors
    /// [`DataError`]: the file cannot be read, is larger than 8 GiB, or a column is missing.
    pub fn csv(path: &Path, csv: &CsvOptions, options: PairOptions) -> Result<Self, DataError> {
        let table = PairTable::open(path, csv, |key| options.part.contains(key))?;
        Ok(Self::new(Kind::Table(table), options))
    }

    fn new(kind: Kind, options: PairOptions) -> Self {
        Self {
            kind,
            options,
            kept: Mutex::default(),
        }
    }

    /// How many samples there are, good or bad, in the part that is used. Lists every shard, which
    /// takes some microseconds for each member on a local disk and finds shards that are cut short.
    ///
    /// # Errors
    /// [`DataError`] that names the shard which cannot be read.
    pub fn samples(&self) -> Result<u64, DataError> {
        match &self.kind {
            Kind::Table(table) => Ok(table.rows.len() as u64),
            Kind::Shards(shards) => (0..shards.len() as u32).try_fold(0, |sum, unit| {
                Ok(sum + self.entries(unit)?.map_or(0, |entries| entries.len()) as u64)
            }),
        }
    }

    /// The number of shards, or of rows: what is shuffled as a whole and dealt to processes.
    pub(super) fn units(&self) -> u32 {
        let units = match &self.kind {
            Kind::Shards(shards) => shards.len(),
            Kind::Table(table) => table.rows.len(),
        };
        u32::try_from(units).unwrap_or(u32::MAX)
    }

    /// The file that a unit is in.
    pub(super) fn file(&self, unit: u32) -> &Path {
        match &self.kind {
            Kind::Shards(shards) => &shards[unit as usize],
            Kind::Table(table) => &table.path,
        }
    }

    /// What is in a shard; `None` for a row.
    pub(super) fn entries(&self, unit: u32) -> Result<Option<Arc<[Entry]>>, DataError> {
        let Kind::Shards(shards) = &self.kind else {
            return Ok(None);
        };
        // Nothing can be half done when a thread fails here.
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entries) = kept.shards.get(&unit) {
            return Ok(Some(entries.clone()));
        }
        let part = self.options.part;
        let entries = shard::index(&shards[unit as usize], |key| part.contains(key))?;
        let entries: Arc<[Entry]> = entries.into();
        if kept.samples + entries.len() > MAX_KEPT {
            *kept = Kept::default();
        }
        kept.samples += entries.len();
        kept.shards.insert(unit, entries.clone());
        Ok(Some(entries))
    }

    /// Reads a sample; `random` chooses its caption. What is wrong with the sample itself is no error.
    pub(super) fn read(
        &self,
        place: &SampleRef,
        random: &mut Random,
    ) -> Result<Encoded, DataError> {
        let path = self.file(place.unit);
        let (key, pair) = match (&self.kind, &place.entries) {
            (Kind::Table(table), _) => match table.row(table.rows[place.unit as usize]) {
                Ok(row) => {
                    let pair = caption(&row.caption).and_then(|caption| {
                        let labels = Vec::new();
                        Ok((read_photo(&row.photo)?, Said { caption, labels }))
                    });
                    (row.key, pair.map_err(ReadError::Bad))
                }
                Err(error) => {
                    let at = table.rows[place.unit as usize];
                    (format!("the row at byte {at}"), Err(error))
                }
            },
            (Kind::Shards(_), entries) => {
                let entry = entries.as_ref().map(|list| &list[place.sample as usize]);
                let Some(entry) = entry else {
                    return Err(crate::files::invalid(path, "not listed"));
                };
                (entry.key.to_string(), self.read_entry(path, entry, random))
            }
        };
        match pair {
            Ok(pair) => Ok(Encoded {
                key,
                pair: Ok(pair),
            }),
            Err(ReadError::Bad(reason)) => Ok(Encoded {
                key,
                pair: Err(reason),
            }),
            Err(ReadError::Io(source)) => Err(DataError::Io {
                path: path.to_owned(),
                source,
            }),
        }
    }

    fn read_entry(
        &self,
        path: &Path,
        entry: &Entry,
        random: &mut Random,
    ) -> Result<(Vec<u8>, Said), ReadError> {
        let bad = |reason: &str| ReadError::Bad(reason.to_owned());
        let image = (entry.image)
            .ok_or_else(|| bad("no image (KEY.jpg, .jpeg, .png or .webp beside its caption)"))?;
        // Opened each time: positions of a file are shared by all who hold it, and there may be more
        // shards than files that a process may hold.
        let mut file = File::open(path)?;
        let said = self.said(&mut file, entry, random)?;
        let image = named("the image", shard::read(&mut file, image, MAX_IMAGE_BYTES))?;
        Ok((image, said))
    }

    fn said(&self, file: &mut File, entry: &Entry, random: &mut Random) -> Result<Said, ReadError> {
        let json_matters = match self.options.captions {
            CaptionChoice::First => self.options.labels || entry.text.is_none(),
            CaptionChoice::Random => true,
        };
        let sidecar = match entry.json.filter(|_| json_matters) {
            None => Sidecar::default(),
            Some(span) => match (sidecar(file, span), entry.text) {
                // The text is as good.
                (Err(ReadError::Bad(_)), Some(_)) => Sidecar::default(),
                (read, _) => read?,
            },
        };
        let captions = sidecar.captions.unwrap_or_default();
        let any = match self.options.captions {
            CaptionChoice::Random => captions.get(random.below(captions.len())),
            CaptionChoice::First => None,
        };
        let text = match (any, entry.text) {
            (Some(any), _) => any.clone().into_bytes(),
            (None, Some(text)) => named("the caption", shard::read(file, text, MAX_CAPTION_BYTES))?,
            (None, None) => (sidecar.caption)
                .or_else(|| captions.first().cloned())
                .ok_or_else(|| {
                    ReadError::Bad(match entry.json {
                        None => "no caption (KEY.txt or KEY.json beside the image)".to_owned(),
                        Some(_) => "no `caption` or `captions` in its JSON".to_owned(),
                    })
                })?
                .into_bytes(),
        };
        let caption = caption(&text).map_err(ReadError::Bad)?;
        let mut labels = match self.options.labels {
            true => sidecar.labels.unwrap_or_default(),
            false => Vec::new(),
        };
        for label in &mut labels {
            *label = label.trim().to_owned();
        }
        labels.retain(|label| !label.is_empty());
        labels.truncate(MAX_LABELS);
        if self.options.labels && labels.is_empty() {
            labels = match captions.is_empty() {
                true => things::named([caption.as_str()]),
                false => things::named(captions.iter().map(String::as_str)),
            };
        }
        Ok(Said { caption, labels })
    }
}

/// What `KEY.json` may hold, among other things.
#[derive(Default, Deserialize)]
struct Sidecar {
    caption: Option<String>,
    captions: Option<Vec<String>>,
    labels: Option<Vec<String>>,
}

fn sidecar(file: &mut File, span: Span) -> Result<Sidecar, ReadError> {
    let bytes = named("the JSON", shard::read(file, span, MAX_CAPTION_BYTES))?;
    serde_json::from_slice(&bytes).map_err(|error| ReadError::Bad(format!("the JSON: {error}")))
}

fn named<T>(what: &str, read: Result<T, ReadError>) -> Result<T, ReadError> {
    read.map_err(|error| match error {
        ReadError::Bad(reason) => ReadError::Bad(format!("{what} has {reason}")),
        other => other,
    })
}

fn caption(bytes: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "the caption is not UTF-8")?;
    match text.trim() {
        "" => Err("the caption is empty".to_owned()),
        text => Ok(text.to_owned()),
    }
}

fn read_photo(path: &Path) -> Result<Vec<u8>, String> {
    let about = fs::metadata(path).map_err(|error| error.to_string())?;
    // A pipe would never end, or never begin.
    if !about.is_file() {
        return Err("no file".to_owned());
    }
    if about.len() > u64::from(MAX_IMAGE_BYTES) {
        return Err(format!(
            "the image has {} bytes, over the limit of {MAX_IMAGE_BYTES}",
            about.len()
        ));
    }
    fs::read(path).map_err(|error| error.to_string())
}

/// What is refused when a photo is decoded.
pub(super) fn limits() -> Limits {
    Limits {
        max_file_bytes: u64::from(MAX_IMAGE_BYTES),
        ..Limits::default()
    }
}

/// The files that a pattern with `*` or `?` stands for, by name.
fn matching(pattern: &str) -> Result<Vec<PathBuf>, DataError> {
    let paths = glob::glob(pattern)
        .map_err(|error| DataError::Setting(format!("shards `{pattern}`: {error}")))?;
    let paths: Vec<PathBuf> = paths.flatten().collect();
    match paths.is_empty() {
        true => Err(layout::missing(PathBuf::from(pattern))),
        false => Ok(paths),
    }
}

/// The error of a shard that is not there, with the file nearby that may be meant.
fn missing(path: &Path, listed: &[PathBuf]) -> DataError {
    let error = layout::missing(path.to_owned());
    let DataError::Layout {
        expected, found, ..
    } = error
    else {
        return error;
    };
    let name = |path: &Path| {
        path.file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    };
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let there = fs::read_dir(folder).into_iter().flatten().flatten();
    let near = (there.take(MAX_COMPARED))
        .map(|entry| entry.path())
        .filter(|path| path.is_file())
        .map(|near| (strsim::jaro(&name(&near), &name(path)), near))
        .filter(|(likeness, near)| *likeness > 0.8 && !listed.contains(near))
        .max_by(|(a, near_a), (b, near_b)| a.total_cmp(b).then(near_b.cmp(near_a)));
    let absent = listed.iter().filter(|path| !path.is_file()).count();
    let hints = [
        near.map(|(_, near)| format!("did you mean {}?", near.display())),
        (absent > 1).then(|| format!("{absent} of {} shards are not there", listed.len())),
        path.is_dir()
            .then(|| format!("shards are listed as {}/*.tar", path.display())),
    ];
    let hints: Vec<String> = hints.into_iter().flatten().collect();
    DataError::Layout {
        expected,
        found,
        hint: (!hints.is_empty()).then(|| hints.join("; ")),
    }
}
