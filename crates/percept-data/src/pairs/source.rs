//! Where pairs are: the shards or the CSV, the part of them that is wanted, and one sample at a time.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::bad::{Bad, BadKind, ReadError};
use super::shard::{self, Entry, Listing, Repeats};
use super::sidecar::{self, Sidecar};
use super::table::{CsvOptions, PairTable};
use super::{brace, holdout::HoldOut, things};
use crate::files::invalid;
use crate::layout;
use crate::random::{Fnv, Random};
use crate::{DataError, Omissions};
use percept_image::Limits;
use serde::{Deserialize, Serialize};

/// Largest encoded photo. One that is larger is no photo to train on at 224 or 448 pixels.
const MAX_IMAGE_BYTES: u32 = 64 << 20;

/// Largest caption file; JSON may hold other things beside captions.
const MAX_CAPTION_BYTES: u32 = 1 << 20;

/// Most labels of a sample. No photo shows more.
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

/// What becomes of a shard that is cut short or damaged otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Damaged {
    /// Its samples before the damage are used, and the rest is counted ([`PairSource::omissions`]).
    #[default]
    Warn,
    /// It is an error.
    Stop,
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
    /// What becomes of damaged shards.
    pub damaged: Damaged,
}

/// What tells a set from another, or from what it was before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fingerprint {
    /// How many files it has.
    pub files: u64,
    /// Of their names and sizes.
    pub hash: u64,
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
    /// What was left out of the shards that were listed so far, each once.
    omissions: Omissions,
    /// Those that nobody was told of yet.
    news: Omissions,
    told: HashSet<u32>,
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
    /// The row of a CSV, from 1.
    pub(super) row: Option<u32>,
    /// The image file's bytes and what is said of it.
    pub(super) pair: Result<(Vec<u8>, Said), Bad>,
}

/// What is said of an image.
pub(super) struct Said {
    /// The caption, trimmed.
    pub(super) caption: String,
    /// What is on it, trimmed, if that was asked for and is known.
    pub(super) labels: Vec<String>,
    /// What was passed over all the same, as a kind to count.
    pub(super) note: Option<&'static str>,
}

/// The kind of samples of which only the `.txt` is understood.
const PASSED_JSON: &str = "samples whose JSON cannot be read, of which the .txt is used";

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

    /// A CSV whose rows name a photo and give its caption. Its header tells what stands between columns.
    ///
    /// Paths may be absolute, unlike in [`CaptionSet`](crate::CaptionSet): what is trained on is
    /// often spread over disks, and none of it is shown to anyone.
    ///
    /// # Errors
    /// [`DataError`]: the file cannot be read, is larger than 8 GiB, a column is missing, or a quote makes
    /// one row of several, whose number is then said.
    pub fn csv(path: &Path, csv: &CsvOptions, options: PairOptions) -> Result<Self, DataError> {
        let table = PairTable::open(path, csv, |key| options.part.contains(key))?;
        Ok(Self::new(Kind::Table(table), options))
    }

    fn new(kind: Kind, options: PairOptions) -> Self {
        let omissions = match &kind {
            Kind::Table(table) => table.omissions.clone(),
            Kind::Shards(_) => Omissions::new(),
        };
        Self {
            kind,
            options,
            kept: Mutex::new(Kept {
                news: omissions.clone(),
                omissions,
                ..Kept::default()
            }),
        }
    }

    /// The shards, or the CSV file.
    fn files(&self) -> &[PathBuf] {
        match &self.kind {
            Kind::Shards(shards) => shards,
            Kind::Table(table) => std::slice::from_ref(&table.path),
        }
    }

    /// Its first file, and how many more there are, for messages.
    pub(super) fn named(&self) -> String {
        let files = self.files();
        let first = files.first().map(|path| path.display().to_string());
        let more = match files.len() {
            0 | 1 => String::new(),
            count => format!(" and {} more", count - 1),
        };
        first.unwrap_or_default() + &more
    }

    /// What is in the files that were listed so far, but is no sample, or is not read as it may be meant.
    pub fn omissions(&self) -> Omissions {
        self.kept().omissions.clone()
    }

    /// What of [`omissions`](Self::omissions) was found since this was last asked.
    pub fn new_omissions(&self) -> Omissions {
        std::mem::take(&mut self.kept().news)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Nothing can be half done when a thread fails here.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells sets apart: the names and sizes of all files, without their folders.
    ///
    /// # Errors
    /// [`DataError::Io`] for a file that is no longer there.
    pub fn fingerprint(&self) -> Result<Fingerprint, DataError> {
        let files = self.files();
        let mut hash = Fnv::default();
        for path in files {
            let about = fs::metadata(path).map_err(|source| DataError::Io {
                path: path.clone(),
                source,
            })?;
            let name = path.file_name().unwrap_or_default();
            hash.add(name.to_string_lossy().as_bytes());
            hash.add(&about.len().to_le_bytes());
        }
        Ok(Fingerprint {
            files: files.len() as u64,
            hash: hash.0,
        })
    }

    /// How many samples there are, good or bad, in the part that is used. Lists every shard, which
    /// takes some microseconds for each member on a local disk and finds shards that are cut short.
    ///
    /// # Errors
    /// [`DataError`] that names the shard which cannot be read, or is damaged and may not be
    /// ([`Damaged::Stop`]).
    pub fn samples(&self) -> Result<u64, DataError> {
        match &self.kind {
            Kind::Table(table) => Ok(table.len() as u64),
            Kind::Shards(shards) => (0..shards.len() as u32).try_fold(0, |sum, unit| {
                Ok(sum + self.entries(unit)?.map_or(0, |entries| entries.len()) as u64)
            }),
        }
    }

    /// The number of shards, or of rows: what is shuffled as a whole and dealt to processes.
    pub(super) fn units(&self) -> u32 {
        let units = match &self.kind {
            Kind::Shards(shards) => shards.len(),
            Kind::Table(table) => table.len(),
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
        let mut kept = self.kept();
        if let Some(entries) = kept.shards.get(&unit) {
            return Ok(Some(entries.clone()));
        }
        let (part, path) = (self.options.part, &shards[unit as usize]);
        let Listing {
            entries,
            omissions,
            damage,
        } = shard::index(path, |key| part.contains(key))?;
        if let Some(damage) = damage.filter(|_| self.options.damaged == Damaged::Stop) {
            return Err(invalid(path, damage));
        }
        if kept.told.insert(unit) {
            kept.omissions.merge(&omissions);
            kept.news.merge(&omissions);
        }
        let entries: Arc<[Entry]> = entries.into();
        if kept.samples + entries.len() > MAX_KEPT {
            (kept.shards, kept.samples) = (HashMap::new(), 0);
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
        let io_error = |source| DataError::Io {
            path: path.to_owned(),
            source,
        };
        match (&self.kind, &place.entries) {
            (Kind::Table(table), _) => {
                let row = match table.row(place.unit) {
                    Ok(row) => row,
                    Err(ReadError::Io(source)) => return Err(io_error(source)),
                    Err(ReadError::Bad(bad)) => (String::new(), Err(bad)),
                };
                let (key, pair) = row;
                let pair = pair.and_then(|pair| {
                    let said = Said {
                        caption: pair.caption,
                        labels: Vec::new(),
                        note: None,
                    };
                    Ok((read_photo(&pair.photo)?, said))
                });
                let row = Some(table.number(place.unit));
                Ok(Encoded { key, row, pair })
            }
            (Kind::Shards(_), entries) => {
                let entry = entries.as_ref().map(|list| &list[place.sample as usize]);
                let entry = entry.ok_or_else(|| invalid(path, "not listed"))?;
                let pair = match self.read_entry(path, entry, random) {
                    Ok(pair) => Ok(pair),
                    Err(ReadError::Bad(bad)) => Err(bad),
                    Err(ReadError::Io(source)) => return Err(io_error(source)),
                };
                let key = entry.key.to_string();
                Ok(Encoded {
                    key,
                    row: None,
                    pair,
                })
            }
        }
    }

    fn read_entry(
        &self,
        path: &Path,
        entry: &Entry,
        random: &mut Random,
    ) -> Result<(Vec<u8>, Said), ReadError> {
        if entry.repeats == Repeats::Mixed {
            let reason = "members of this name come twice, and which belong together is not known";
            return Err(Bad::new(BadKind::Repeated, reason).into());
        }
        let image = entry.image.ok_or_else(|| {
            let reason = "no image (KEY.jpg, .jpeg, .png or .webp beside its caption)";
            Bad::new(BadKind::NoImage, apart(entry, reason))
        })?;
        // Opened each time: positions of a file are shared by all who hold it, and there may be more
        // shards than files that a process may hold.
        let mut file = File::open(path)?;
        let image = shard::read(&mut file, "the image", image, MAX_IMAGE_BYTES)?;
        let said = self.said(&mut file, entry, random)?;
        Ok((image, said))
    }

    fn said(&self, file: &mut File, entry: &Entry, random: &mut Random) -> Result<Said, ReadError> {
        let json_matters = match self.options.captions {
            CaptionChoice::First => self.options.labels || entry.text.is_none(),
            CaptionChoice::Random => true,
        };
        let mut passed = false;
        let sidecar = match entry.json.filter(|_| json_matters) {
            None => None,
            Some(place) => match (read_sidecar(file, place), entry.text) {
                // The text is as good, where no labels are asked for.
                (Err(ReadError::Bad(_)), Some(_)) if !self.options.labels => {
                    passed = true;
                    None
                }
                (read, _) => Some(read?),
            },
        };
        let captions = match (&sidecar, self.options.captions) {
            (Some(sidecar), CaptionChoice::Random) => match (sidecar.captions(), entry.text) {
                (Err(_), Some(_)) => {
                    passed = true;
                    Vec::new()
                }
                (captions, _) => captions?,
            },
            _ => Vec::new(),
        };
        let any = match self.options.captions {
            CaptionChoice::Random => captions.get(random.below(captions.len())).cloned(),
            CaptionChoice::First => None,
        };
        let text = match (any, entry.text, &sidecar) {
            (Some(any), _, _) => any.into_bytes(),
            (None, Some(text), _) => shard::read(file, "the caption", text, MAX_CAPTION_BYTES)?,
            (None, None, Some(sidecar)) => sidecar.first()?.into_bytes(),
            (None, None, None) => {
                let reason = "no caption (KEY.txt or KEY.json beside the image)";
                return Err(Bad::new(BadKind::NoCaption, apart(entry, reason)).into());
            }
        };
        let caption = sidecar::caption(&text)?;
        let labels = match (self.options.labels, &sidecar) {
            (false, _) => Vec::new(),
            (true, None) => things::named([caption.as_str()]),
            (true, Some(sidecar)) => labels(sidecar, &caption)?,
        };
        Ok(Said {
            caption,
            labels,
            note: passed.then_some(PASSED_JSON),
        })
    }
}

/// What is on an image by its JSON, or else by its captions.
fn labels(sidecar: &Sidecar, caption: &str) -> Result<Vec<String>, Bad> {
    let labels = sidecar.labels()?;
    if labels.len() > MAX_LABELS {
        let reason = format!("{} labels, more than {MAX_LABELS}", labels.len());
        return Err(Bad::new(BadKind::Caption, reason));
    }
    if !labels.is_empty() {
        return Ok(labels);
    }
    let captions = sidecar.captions()?;
    Ok(match captions.is_empty() {
        true => things::named([caption]),
        false => things::named(captions.iter().map(String::as_str)),
    })
}

/// A reason, with why another part of the name is not joined.
fn apart(entry: &Entry, reason: &str) -> String {
    match entry.repeats {
        Repeats::Apart => format!(
            "{reason}; members of this name come twice, and only those that stand together are joined"
        ),
        Repeats::No | Repeats::Mixed => reason.to_owned(),
    }
}

fn read_sidecar(file: &mut File, place: shard::Place) -> Result<Sidecar, ReadError> {
    let bytes = shard::read(file, "the JSON", place, MAX_CAPTION_BYTES)?;
    Ok(Sidecar::parse(&bytes)?)
}

fn read_photo(path: &Path) -> Result<Vec<u8>, Bad> {
    let bad = |reason: String| {
        let hint = match path.to_string_lossy().contains('\\') && cfg!(unix) {
            true => " (a path of Windows, with \\ in it)",
            false => "",
        };
        Bad::new(BadKind::File, format!("{}: {reason}{hint}", path.display()))
    };
    let about = fs::metadata(path).map_err(|error| bad(error.to_string()))?;
    // A pipe would never end, or never begin.
    if !about.is_file() {
        return Err(bad("no file".to_owned()));
    }
    let most = u64::from(MAX_IMAGE_BYTES);
    let check = |length: u64| match length > most {
        true => Err(bad(format!("{length} bytes, over the limit of {most}"))),
        false => Ok(()),
    };
    check(about.len())?;
    // The length that the system states may be wrong.
    let mut bytes = Vec::new();
    (File::open(path))
        .and_then(|file| file.take(most + 1).read_to_end(&mut bytes))
        .map_err(|error| bad(error.to_string()))?;
    check(bytes.len() as u64)?;
    Ok(bytes)
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
        (listed.len() > 1).then(|| {
            let count = listed.len();
            format!("{absent} of {count} shards are not there; `*` takes those that are")
        }),
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
