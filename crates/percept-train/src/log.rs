//! The files of a run's folder: `params.json`, `out.log`, `results.jsonl`, `tensorboard/`.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Value, json};

use crate::TrainError;
use crate::config::TrainConfig;
use crate::tensorboard::{Events, now};

/// Settings of a run, in its folder.
pub const PARAMS: &str = "params.json";
/// Folder of the checkpoints, in the run's.
pub const CHECKPOINTS: &str = "checkpoints";
/// Folder of the trained model, in the run's.
pub const MODEL: &str = "model";

/// The lines of the first process; those of the others are in `out-1.log` and so on.
const OUT: &str = "out.log";
const RESULTS: &str = "results.jsonl";
const TENSORBOARD: &str = "tensorboard";

/// Longest line of results that is kept when a run goes on; they have some hundred bytes.
const MAX_LINE: u64 = 1 << 20;

/// What is written about a run.
#[derive(Debug)]
pub(crate) struct Log {
    folder: PathBuf,
    out: (PathBuf, File),
    /// Numbers of the run: the first process writes them.
    numbers: Option<Numbers>,
}

#[derive(Debug)]
struct Numbers {
    results: File,
    /// The lines of the step at which the run goes on: what is measured there once more is not new.
    known: HashSet<String>,
    events: Events,
}

impl Log {
    /// Writes the settings and goes on with the files that are there, from `step` on: results of
    /// later steps are those of a run that was killed after its last checkpoint. Any but the first
    /// process of a run has only lines to write.
    pub(crate) fn open(
        folder: &Path,
        config: &TrainConfig,
        step: u64,
        rank: u32,
    ) -> Result<Self, TrainError> {
        fs::create_dir_all(folder).map_err(TrainError::io(folder))?;
        let append = |path: &Path| {
            let file = File::options().create(true).append(true).open(path);
            file.map_err(TrainError::io(path))
        };
        let (out, numbers) = match rank {
            0 => (
                OUT.to_owned(),
                Some(Numbers::open(folder, config, step, append)?),
            ),
            rank => (format!("out-{rank}.log"), None),
        };
        let out = folder.join(out);
        Ok(Self {
            out: (out.clone(), append(&out)?),
            numbers,
            folder: folder.to_owned(),
        })
    }

    /// A line of `out.log`, with the time before it.
    pub(crate) fn line(&mut self, line: &str) -> Result<(), TrainError> {
        let line = format!("{} {line}\n", stamp(now() as u64, ["-", " ", ":"]));
        let (path, file) = &mut self.out;
        file.write_all(line.as_bytes())
            .map_err(TrainError::io(path))
    }

    /// A line of `results.jsonl`, of a kind such as `train`, and the same for TensorBoard.
    pub(crate) fn results(
        &mut self,
        kind: &str,
        step: u64,
        values: &impl Serialize,
    ) -> Result<(), TrainError> {
        let Some(numbers) = &mut self.numbers else {
            return Ok(());
        };
        let path = self.folder.join(RESULTS);
        let fail = |e: serde_json::Error| TrainError::config(RESULTS, e.to_string());
        let mut line = json!({ "kind": kind, "step": step });
        let values = serde_json::to_value(values).map_err(fail)?;
        let mut scalars = Vec::new();
        if let (Value::Object(line), Value::Object(values)) = (&mut line, values) {
            for (name, value) in values {
                if name == "step" {
                    continue;
                }
                if let Some(value) = value.as_f64() {
                    scalars.push((format!("{kind}/{name}"), value));
                }
                line.insert(name, value);
            }
        }
        let line = format!("{line}\n");
        if !numbers.known.contains(&line) {
            (numbers.results)
                .write_all(line.as_bytes())
                .map_err(TrainError::io(&path))?;
        }
        let scalars: Vec<(&str, f64)> = scalars.iter().map(|(n, v)| (n.as_str(), *v)).collect();
        let path = self.folder.join(TENSORBOARD);
        (numbers.events)
            .scalars(step, &scalars)
            .map_err(TrainError::io(&path))
    }
}

impl Numbers {
    fn open(
        folder: &Path,
        config: &TrainConfig,
        step: u64,
        append: impl Fn(&Path) -> Result<File, TrainError>,
    ) -> Result<Self, TrainError> {
        let params = folder.join(PARAMS);
        let mut text = serde_json::to_string_pretty(config)
            .map_err(|e| TrainError::config(PARAMS, e.to_string()))?;
        text.push('\n');
        percept_image::write_atomic(&params, text.as_bytes()).map_err(TrainError::io(&params))?;

        let results = folder.join(RESULTS);
        let known = keep_results(&results, step)?;
        let tensorboard = folder.join(TENSORBOARD);
        let events = Events::create(&tensorboard, step).map_err(TrainError::io(&tensorboard))?;
        Ok(Self {
            results: append(&results)?,
            known,
            events,
        })
    }
}

/// Removes the results of steps after `step`, and a line that was not finished; the lines of `step` are
/// returned.
fn keep_results(path: &Path, step: u64) -> Result<HashSet<String>, TrainError> {
    let mut known = HashSet::new();
    if !path.exists() {
        return Ok(known);
    }
    let mut reader = BufReader::new(File::open(path).map_err(TrainError::io(path))?);
    let mut kept = Vec::new();
    loop {
        let mut line = Vec::new();
        let read = std::io::Read::take(&mut reader, MAX_LINE).read_until(b'\n', &mut line);
        if read.map_err(TrainError::io(path))? == 0 {
            break;
        }
        let value: Option<Value> = serde_json::from_slice(&line).ok();
        let of = value.and_then(|value| value.get("step")?.as_u64());
        if line.ends_with(b"\n") && of.is_some_and(|of| of <= step) {
            kept.extend(&line);
            if of == Some(step) {
                known.insert(String::from_utf8_lossy(&line).into_owned());
            }
        }
    }
    percept_image::write_atomic(path, &kept).map_err(TrainError::io(path))?;
    Ok(known)
}

/// A time as `2026-11-25 10:08:31`, UTC; what stands between the parts is given.
pub(crate) fn stamp(seconds: u64, [date, middle, time]: [&str; 3]) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days from 1 March of the year 0, after which leap days come last (H. Hinnant's algorithm).
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    let year = year + era * 400 + next;
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!(
        "{year}{date}{month:02}{date}{day:02}{middle}{hour:02}{time}{minute:02}{time}{second:02}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_400, "2000-02-29 00:00:00"),
            (1_583_020_799, "2020-02-29 23:59:59"),
            (1_798_761_600, "2027-01-01 00:00:00"),
        ] {
            assert_eq!(stamp(seconds, ["-", " ", ":"]), text);
        }
    }

    #[test]
    fn results_of_a_lost_future_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let config = TrainConfig::default();
        let mut log = Log::open(folder.path(), &config, 0, 0).unwrap();
        for step in 1..=4 {
            log.results("train", step, &json!({ "loss": 0.5, "step": step }))
                .unwrap();
        }
        let path = folder.path().join(RESULTS);
        let mut half = fs::read(&path).unwrap();
        half.extend(b"{\"kind\":\"tr");
        fs::write(&path, half).unwrap();
        let mut log = Log::open(folder.path(), &config, 2, 0).unwrap();
        // What is measured once more where the run goes on is there once.
        log.results("train", 2, &json!({ "loss": 0.5 })).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 2);
        assert!(text.ends_with("\"step\":2}\n"), "{text}");
        let params = fs::read_to_string(folder.path().join(PARAMS)).unwrap();
        assert_eq!(
            serde_json::from_str::<TrainConfig>(&params).unwrap(),
            config
        );
    }
}
