//! One sample after another: streamed, recorded, resumed.
//!
//! What a sample contributed is a line of `records.jsonl` as soon as it is known. A run that was
//! killed goes on from these lines; a run that ended keeps them, so that every number can be
//! traced to its photos.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, UNIX_EPOCH};

use percept::TokenGrid;
use percept_data::Omissions;
use percept_image::{ChwImage, Note};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::EvalError;
use crate::result::{EvalResult, Failure, Seconds};

/// The file of a run's records.
const RECORDS: &str = "records.jsonl";

/// The file of a run's result.
const RESULT: &str = "result.json";

/// Settings in a result that do not decide its records.
const NOT_COMPARED: [&str; 2] = ["limit", "batch_size"];

/// Longest line that is read: the embedding of a photo, or a confusion of 1,000 classes.
const MAX_LINE: u64 = 64 << 20;

/// How to run.
#[derive(Debug, Clone, Default)]
pub struct RunOptions {
    /// Only this many samples, the first ones; 0 for all.
    pub limit: usize,
    /// Photos encoded in one pass, where they have the same size.
    pub batch_size: usize,
    /// Folder for records and reports; nothing is kept unless given.
    pub out: Option<PathBuf>,
    /// Go on with the records that are there.
    pub resume: bool,
    /// Replace the records and the result of other settings, and files that are not percept's.
    pub force: bool,
    /// Folder where the tokens of photos are kept, and looked for before a photo is encoded.
    pub tokens: Option<PathBuf>,
}

/// What a run tells while it goes on.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// The number of samples, before the first one.
    Start {
        /// All samples of this run.
        samples: usize,
        /// Those whose records were found.
        resumed: usize,
    },
    /// A sample is done.
    Done,
    /// A sample failed.
    Failed {
        /// Its name.
        sample: &'a str,
        /// Why.
        reason: &'a str,
    },
    /// Something that changes the numbers in a way that may not be expected.
    Note(&'a str),
}

/// Where [`Event`]s go.
pub type Progress<'a> = &'a (dyn Fn(Event<'_>) + Sync);

/// What is done with one sample of a benchmark.
pub(crate) trait Benchmark: Sync {
    /// What is read beside the model's input: the truth, usually.
    type Extra: Send;
    /// What a sample contributes to the result.
    type Record: Serialize + DeserializeOwned;

    /// Number of samples.
    fn len(&self) -> usize;
    /// Name of a sample, unique.
    fn id(&self, sample: usize) -> &str;
    /// The files of a sample: its photo and, where it is stored, its truth.
    fn files(&self, sample: usize) -> Vec<PathBuf>;
    /// Reads a sample.
    fn load(&self, sample: usize) -> Result<Loaded<Self::Extra>, String>;
    /// What becomes of photos whose metadata asks for turning, as a kind that is counted.
    fn if_turned(&self) -> &'static str;
    /// Encodes loaded photos.
    fn encode(&self, images: &[ChwImage]) -> Result<Vec<TokenGrid>, percept::Error>;
    /// Compares what the model made of it with the truth.
    fn judge(
        &self,
        sample: usize,
        extra: Self::Extra,
        grid: TokenGrid,
    ) -> Result<Self::Record, String>;
}

/// A sample that was read.
pub(crate) struct Loaded<E> {
    /// What is needed beside the model's input.
    pub extra: E,
    /// The model's input.
    pub image: ChwImage,
    /// What there is to say of the photo.
    pub about: About,
}

/// What there is to say of a photo that was read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct About {
    /// Whether its metadata asks for turning or mirroring.
    #[serde(default, skip_serializing_if = "is_false")]
    pub turned: bool,
    /// What is odd about its file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<Note>,
}

impl About {
    fn count(&self, if_turned: &str, id: &str, omissions: &mut Omissions) {
        if self.turned {
            omissions.add(if_turned, id);
        }
        for note in &self.notes {
            omissions.add(format!("photos {}", note.kind()), id);
        }
    }
}

/// What became of the samples.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    /// Samples in the set.
    pub found: usize,
    /// Samples that were to be evaluated.
    pub samples: usize,
    /// Samples that have a record.
    pub done: usize,
    /// Samples that have none.
    pub failures: Vec<Failure>,
    /// Photos whose metadata asks for turning, or whose files are odd.
    pub omissions: Omissions,
    /// Time taken by this run, without what an earlier part of it took.
    pub seconds: Seconds,
}

/// First line of a records file: what the records were made with.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Header {
    settings: Value,
}

/// Any other line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Line<R> {
    Record {
        sample: String,
        record: R,
        #[serde(flatten)]
        about: About,
        /// What its files were, see [`stamp`]; records of before there were stamps have none.
        #[serde(default)]
        files: Option<String>,
    },
    Failure {
        sample: String,
        error: String,
    },
}

fn is_false(value: &bool) -> bool {
    !value
}

/// What tells whether files are still the same: size and time of change of each.
fn stamp(files: &[PathBuf]) -> String {
    let one = |path: &PathBuf| {
        let found = std::fs::metadata(path);
        found.map_or_else(
            |_| "missing".to_owned(),
            |found| {
                let changed = found.modified().ok();
                let since = changed.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
                format!(
                    "{} bytes of {}",
                    found.len(),
                    since.unwrap_or_default().as_nanos()
                )
            },
        )
    };
    files.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Refuses a record whose photo or truth is not what it was, with the name of the file if one of
/// several changed.
fn check_unchanged(then: Option<&str>, files: &[PathBuf]) -> Result<(), String> {
    let again = "; use another --out, or start over with --force";
    let Some(then) = then else {
        return Err(format!(
            "made by an earlier percept, which did not note what the photos and their truth were{again}"
        ));
    };
    let now = stamp(files);
    if then == now {
        return Ok(());
    }
    let changed = then.split(", ").zip(now.split(", ")).zip(files);
    let changed = changed.filter(|((then, now), _)| then != now);
    let named: Vec<String> = changed
        .map(|(_, path)| path.display().to_string())
        .collect();
    Err(format!(
        "the data changed since it was written: {}{again}",
        named.join(", ")
    ))
}

/// Runs a benchmark. `settings` is all that decides the records: a run is only resumed with the
/// same. `add` gets every record, those of an earlier part first.
pub(crate) fn run<B: Benchmark>(
    benchmark: &B,
    settings: &Value,
    options: &RunOptions,
    progress: Progress<'_>,
    mut add: impl FnMut(usize, &B::Record) -> Result<(), String> + Send,
) -> Result<Tally, EvalError>
where
    B::Record: Send,
{
    let start = Instant::now();
    let found = benchmark.len();
    let samples = match options.limit {
        0 => found,
        limit => found.min(limit),
    };
    let mut done = vec![false; samples];
    let mut omissions = Omissions::new();
    let mut records = match &options.out {
        None => None,
        Some(folder) => {
            let path = folder.join(RECORDS);
            let mut known = std::collections::HashMap::new();
            for sample in 0..found {
                known.insert(benchmark.id(sample), sample);
            }
            let mut take = |id: &str, record: B::Record, about: &About, files: Option<&str>| {
                let Some(&sample) = known.get(id) else {
                    return Err(format!(
                        "holds the unknown sample {id}: the data changed since it was written"
                    ));
                };
                check_unchanged(files, &benchmark.files(sample))?;
                // Those beyond a smaller limit than the last are for later.
                let known = done.get_mut(sample);
                match known.is_some_and(|done| !std::mem::replace(done, true)) {
                    true => {
                        about.count(benchmark.if_turned(), id, &mut omissions);
                        add(sample, &record)
                    }
                    false => Ok(()),
                }
            };
            if !options.resume && !options.force {
                check_replaceable(folder, settings)?;
            }
            Some(Records::open(&path, settings, options.resume, &mut take)?)
        }
    };
    let resumed = done.iter().filter(|done| **done).count();
    progress(Event::Start { samples, resumed });

    let todo: Vec<usize> = (0..samples).filter(|sample| !done[*sample]).collect();
    let mut tally = Tally {
        found,
        samples,
        done: resumed,
        omissions,
        ..Tally::default()
    };
    let encode_time = AtomicU64::new(0);
    percept::stream(
        todo.into_iter(),
        percept::Together {
            batch_size: options.batch_size.max(1),
            // One after the other: their time is measured.
            passes: 1,
        },
        |sample| {
            // Before they are read: files that change meanwhile are told when the run is resumed.
            let files = stamp(&benchmark.files(*sample));
            let loaded = benchmark.load(*sample)?;
            Ok(((loaded.extra, loaded.about, files), loaded.image))
        },
        |images| {
            let start = Instant::now();
            let grids = benchmark.encode(images);
            let nanoseconds = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
            encode_time.fetch_add(nanoseconds, Relaxed);
            grids
        },
        |sample, result| -> Result<(), EvalError> {
            let id = benchmark.id(sample);
            let judged = result.and_then(|((extra, about, files), grid)| {
                check_finite(&grid)?;
                let record = benchmark.judge(sample, extra, grid)?;
                add(sample, &record)?;
                Ok((record, about, files))
            });
            if let Some(records) = &mut records {
                let sample = id.to_owned();
                records.write(&match &judged {
                    Ok((record, about, files)) => Line::Record {
                        sample,
                        record,
                        about: about.clone(),
                        files: Some(files.clone()),
                    },
                    Err(reason) => Line::Failure {
                        sample,
                        error: reason.clone(),
                    },
                })?;
            }
            match judged {
                Ok((_, about, _)) => {
                    about.count(benchmark.if_turned(), id, &mut tally.omissions);
                    tally.done += 1;
                    progress(Event::Done);
                }
                Err(reason) => {
                    progress(Event::Failed {
                        sample: id,
                        reason: &reason,
                    });
                    tally.failures.push(Failure {
                        sample: id.to_owned(),
                        reason,
                    });
                }
            }
            Ok(())
        },
    )?;
    tally.seconds = Seconds {
        total: start.elapsed().as_secs_f64(),
        encode: Duration::from_nanos(encode_time.into_inner()).as_secs_f64(),
    };
    Ok(tally)
}

/// Refuses what no comparison can order: it would count as some class without a word.
fn check_finite(grid: &TokenGrid) -> Result<(), String> {
    let mut numbers = grid.cls.iter().chain(&grid.patches);
    match numbers.all(|number| number.is_finite()) {
        true => Ok(()),
        false => Err("the model gives tokens that are not finite numbers".to_owned()),
    }
}

/// Refuses to replace what is no earlier run with the same settings.
fn check_replaceable(folder: &Path, settings: &Value) -> Result<(), EvalError> {
    let path = folder.join(RECORDS);
    let refuse = |path: &Path, what: String| EvalError::Invalid {
        path: path.to_owned(),
        reason: format!("{what}; use another --out, or replace it with --force"),
    };
    if path.exists() {
        let io = |source| EvalError::Io {
            path: path.clone(),
            source,
        };
        let mut line = Vec::new();
        BufReader::new(File::open(&path).map_err(io)?.take(MAX_LINE))
            .read_until(b'\n', &mut line)
            .map_err(io)?;
        // A run that was killed at once leaves nothing.
        if !line.is_empty() {
            let header: Header = serde_json::from_slice(&line)
                .map_err(|_| refuse(&path, "not percept's records".to_owned()))?;
            if header.settings != *settings {
                let differs = difference(&header.settings, settings);
                return Err(refuse(&path, format!("of other settings ({differs})")));
            }
        }
    }
    let path = folder.join(RESULT);
    if path.exists() {
        let found = EvalResult::read(&path).ok();
        let found = found.filter(|result| !result.versions.percept.is_empty());
        let mut theirs = found
            .ok_or_else(|| refuse(&path, "not a result of percept".to_owned()))?
            .settings;
        if let Value::Object(theirs) = &mut theirs {
            theirs.retain(|key, _| !NOT_COMPARED.contains(&key.as_str()));
        }
        if theirs != *settings {
            let differs = difference(&theirs, settings);
            return Err(refuse(&path, format!("of other settings ({differs})")));
        }
    }
    Ok(())
}

/// An open records file, at its end.
struct Records {
    file: File,
    path: PathBuf,
}

impl Records {
    /// Opens the records of a run: those that are there with `resume`, which `take` then gets,
    /// else new ones. Failures are not taken: their samples are tried again.
    fn open<R: DeserializeOwned>(
        path: &Path,
        settings: &Value,
        resume: bool,
        take: &mut impl FnMut(&str, R, &About, Option<&str>) -> Result<(), String>,
    ) -> Result<Self, EvalError> {
        let io = |source| EvalError::Io {
            path: path.to_owned(),
            source,
        };
        let invalid = |reason: String| EvalError::Invalid {
            path: path.to_owned(),
            reason,
        };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(io)?;
        }
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(!resume)
            .open(path)
            .map_err(io)?;
        let mut whole = 0;
        if resume {
            let mut reader = BufReader::new(&file);
            let mut seen = HashSet::new();
            let mut number = 0u64;
            loop {
                let mut line = Vec::new();
                let read = (&mut reader)
                    .take(MAX_LINE)
                    .read_until(b'\n', &mut line)
                    .map_err(io)?;
                // A line without its end was being written when the run was killed.
                if read == 0 || line.last() != Some(&b'\n') {
                    break;
                }
                number += 1;
                if number == 1 {
                    let header: Header = serde_json::from_slice(&line)
                        .map_err(|e| invalid(format!("line 1: {e}")))?;
                    if header.settings != *settings {
                        return Err(invalid(format!(
                            "made with other settings ({}); use another --out, or start over \
                             with --force",
                            difference(&header.settings, settings)
                        )));
                    }
                } else {
                    let line: Line<R> = serde_json::from_slice(&line)
                        .map_err(|e| invalid(format!("line {number}: {e}")))?;
                    if let Line::Record {
                        sample,
                        record,
                        about,
                        files,
                    } = line
                        && seen.insert(sample.clone())
                    {
                        take(&sample, record, &about, files.as_deref())
                            .map_err(|reason| invalid(format!("line {number}: {reason}")))?;
                    }
                }
                whole += read as u64;
            }
        }
        file.set_len(whole).map_err(io)?;
        file.seek(SeekFrom::Start(whole)).map_err(io)?;
        let mut records = Self {
            file,
            path: path.to_owned(),
        };
        if whole == 0 {
            records.write(&Header {
                settings: settings.clone(),
            })?;
        }
        Ok(records)
    }

    /// Appends a line, in one write: a killed run leaves whole lines and at most one part.
    fn write(&mut self, line: &impl Serialize) -> Result<(), EvalError> {
        let mut text = serde_json::to_vec(line).map_err(|e| EvalError::Invalid {
            path: self.path.clone(),
            reason: e.to_string(),
        })?;
        text.push(b'\n');
        self.file.write_all(&text).map_err(|source| EvalError::Io {
            path: self.path.clone(),
            source,
        })
    }
}

/// The first setting that differs, in words.
fn difference(theirs: &Value, ours: &Value) -> String {
    fn first(path: String, a: &Value, b: &Value) -> Option<String> {
        match (a, b) {
            (Value::Object(x), Value::Object(y)) => x.keys().chain(y.keys()).find_map(|key| {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                first(
                    path,
                    x.get(key).unwrap_or(&Value::Null),
                    y.get(key).unwrap_or(&Value::Null),
                )
            }),
            _ if a == b => None,
            _ => Some(format!("{path} was {a:.80}, now {b:.80}")),
        }
    }
    first(String::new(), theirs, ours).unwrap_or_else(|| "unknown ones".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::sync::Mutex;

    /// Samples are numbers; number 3 is broken until it is mended.
    struct Numbers {
        ids: Vec<String>,
        files: Vec<PathBuf>,
        broken: bool,
        loads: Mutex<Vec<usize>>,
    }

    impl Numbers {
        fn new(broken: bool) -> Self {
            Self {
                ids: (0..6).map(|i| format!("n{i}")).collect(),
                files: Vec::new(),
                broken,
                loads: Mutex::default(),
            }
        }
    }

    impl Benchmark for Numbers {
        type Extra = u64;
        type Record = u64;

        fn len(&self) -> usize {
            self.ids.len()
        }

        fn id(&self, sample: usize) -> &str {
            &self.ids[sample]
        }

        fn files(&self, sample: usize) -> Vec<PathBuf> {
            self.files.get(sample).cloned().into_iter().collect()
        }

        fn if_turned(&self) -> &'static str {
            "turned"
        }

        fn load(&self, sample: usize) -> Result<Loaded<u64>, String> {
            self.loads.lock().unwrap().push(sample);
            if self.broken && sample == 3 {
                return Err("no such file".into());
            }
            let image = ChwImage {
                data: vec![0.0; 3],
                height: 1,
                width: 1,
            };
            Ok(Loaded {
                extra: 10 * sample as u64,
                image,
                about: About {
                    turned: sample % 2 == 1,
                    notes: match sample {
                        4 => vec![Note::NoEnd],
                        _ => Vec::new(),
                    },
                },
            })
        }

        fn encode(&self, images: &[ChwImage]) -> Result<Vec<TokenGrid>, percept::Error> {
            let grid = TokenGrid {
                rows: 1,
                columns: 1,
                dim: 1,
                cls: vec![1.0],
                patches: vec![1.0],
            };
            Ok(vec![grid; images.len()])
        }

        fn judge(&self, _: usize, extra: u64, _: TokenGrid) -> Result<u64, String> {
            Ok(extra + 1)
        }
    }

    fn go(
        numbers: &Numbers,
        folder: &Path,
        resume: bool,
        settings: Value,
    ) -> Result<(u64, Tally), EvalError> {
        let options = RunOptions {
            out: Some(folder.to_owned()),
            resume,
            batch_size: 2,
            ..RunOptions::default()
        };
        let mut sum = 0;
        let tally = run(numbers, &settings, &options, &|_| (), |_, record| {
            sum += record;
            Ok(())
        })?;
        Ok((sum, tally))
    }

    #[test]
    fn a_killed_run_goes_on_and_broken_samples_are_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let (sum, tally) = go(&Numbers::new(true), folder.path(), false, json!({"a": 1})).unwrap();
        assert_eq!((sum, tally.done, tally.failures.len()), (125, 5, 1));
        assert_eq!(tally.failures[0].sample, "n3");

        // Killed while a line was being written.
        let path = folder.path().join(RECORDS);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, &text[..text.len() - 5]).unwrap();
        let mended = Numbers::new(false);
        let (sum, tally) = go(&mended, folder.path(), true, json!({"a": 1})).unwrap();
        assert_eq!((sum, tally.done, tally.failures.len()), (156, 6, 0));
        assert_eq!(*mended.loads.lock().unwrap(), [3, 5]);
        // Those of the earlier part are counted too.
        assert_eq!(
            tally.omissions.kinds()[0].to_string(),
            "turned: 3 (n1, n3, n5)"
        );
        assert_eq!(
            tally.omissions.kinds()[1].to_string(),
            "photos read in spite of a missing end mark: 1 (n4)"
        );

        // All is known now.
        let again = Numbers::new(false);
        assert_eq!(
            go(&again, folder.path(), true, json!({"a": 1})).unwrap().0,
            156
        );
        assert!(again.loads.lock().unwrap().is_empty());
    }

    #[test]
    fn other_settings_are_not_mixed_in() {
        let folder = tempfile::tempdir().unwrap();
        let size = |size| json!({"protocol": {"size": size}});
        go(&Numbers::new(false), folder.path(), false, size(224)).unwrap();
        let error = go(&Numbers::new(false), folder.path(), true, size(448)).unwrap_err();
        let message = error.to_string();
        assert!(
            message.contains("protocol.size was 224, now 448"),
            "{message}"
        );
        assert!(message.contains(RECORDS), "{message}");
        // Nor are they replaced unless that is asked for; the same settings start over.
        let error = go(&Numbers::new(false), folder.path(), false, size(448)).unwrap_err();
        assert!(error.to_string().contains("--force"), "{error}");
        let again = go(&Numbers::new(false), folder.path(), false, size(224));
        assert_eq!(again.unwrap().0, 156);
        let options = RunOptions {
            out: Some(folder.path().to_owned()),
            force: true,
            ..RunOptions::default()
        };
        let forced = run(
            &Numbers::new(false),
            &size(448),
            &options,
            &|_| (),
            |_, _| Ok(()),
        );
        assert_eq!(forced.unwrap().done, 6);
    }

    #[test]
    fn files_of_others_are_not_replaced() {
        for (name, content) in [(RECORDS, "{\"mine\": 1}\n"), (RESULT, "{\"mine\": 1}\n")] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(name);
            std::fs::write(&path, content).unwrap();
            let error = go(&Numbers::new(false), folder.path(), false, json!(1)).unwrap_err();
            assert!(error.to_string().contains("percept"), "{error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
        }
    }

    #[test]
    fn a_run_is_not_resumed_on_other_data() {
        let folder = tempfile::tempdir().unwrap();
        let mut numbers = Numbers::new(true);
        for sample in 0..6 {
            let file = folder.path().join(format!("{sample}.png"));
            std::fs::write(&file, "a photo").unwrap();
            numbers.files.push(file);
        }
        go(&numbers, folder.path(), false, json!(1)).unwrap();
        // One that failed may be mended.
        numbers.broken = false;
        std::fs::write(&numbers.files[3], "a mended photo").unwrap();
        assert_eq!(go(&numbers, folder.path(), true, json!(1)).unwrap().0, 156);
        std::fs::write(&numbers.files[4], "another photo").unwrap();
        let error = go(&numbers, folder.path(), true, json!(1)).unwrap_err();
        let message = error.to_string();
        assert!(
            message.contains("the data changed") && message.contains("4.png"),
            "{message}"
        );
        // Records of before there were stamps.
        let records = "{\"settings\":1}\n{\"sample\":\"n1\",\"record\":1}\n";
        std::fs::write(folder.path().join(RECORDS), records).unwrap();
        let error = go(&numbers, folder.path(), true, json!(1)).unwrap_err();
        assert!(error.to_string().contains("an earlier percept"), "{error}");
    }

    #[test]
    fn foreign_lines_are_refused_by_number() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(RECORDS);
        for (text, reason) in [
            ("{}\n", "line 1"),
            ("{\"settings\":1}\nnonsense\n", "line 2"),
            (
                "{\"settings\":1}\n{\"sample\":\"x\",\"record\":1}\n",
                "unknown sample x",
            ),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = go(&Numbers::new(false), folder.path(), true, json!(1)).unwrap_err();
            assert!(error.to_string().contains(reason), "{error}");
        }
    }

    #[test]
    fn a_limit_takes_the_first_samples() {
        let options = RunOptions {
            limit: 2,
            ..RunOptions::default()
        };
        let mut seen = Vec::new();
        let tally = run(
            &Numbers::new(false),
            &json!(null),
            &options,
            &|_| (),
            |sample, _| {
                seen.push(sample);
                Ok(())
            },
        )
        .unwrap();
        assert_eq!((seen, tally.found, tally.samples), (vec![0, 1], 6, 2));
    }
}
