//! Photos of a command through a model, with a progress bar; failures are counted and named, and a signal
//! ends a run with what was done.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::Ordering;

use percept::image::{ChwImage, Decoded, Limits, Note, RgbImage, message};
use percept::{Together, TokenGrid};
use serde_json::{Value, json};

use crate::console::Console;
use crate::inputs::{self, Found, Input};
use crate::{Outcome, stop};

/// A photo on its way.
pub struct Job<'a> {
    /// Where it came from.
    pub input: &'a Input,
    /// Its pixels.
    pub photo: RgbImage,
    /// What is odd about its file.
    pub notes: Vec<Note>,
    /// Its tokens.
    pub grid: TokenGrid,
}

impl Job<'_> {
    /// The notes in words, as they stand in a photo's JSON.
    pub fn notes_json(&self) -> Value {
        self.notes.iter().map(Note::to_string).collect()
    }
}

/// How a stream of photos ended.
#[derive(Debug, Default)]
pub struct Ended {
    /// Photos with results.
    pub done: usize,
    /// The photos that failed, with the reasons.
    pub failures: Vec<(String, String)>,
    /// Photos that have results in spite of what is odd about their files.
    pub noted: Vec<(Note, String)>,
    /// Whether a signal stopped it before the last photo.
    pub is_stopped: bool,
}

impl Ended {
    /// The photos of each kind of note.
    fn by_note(&self) -> BTreeMap<Note, Vec<&str>> {
        let mut kinds: BTreeMap<Note, Vec<&str>> = BTreeMap::new();
        for (note, path) in &self.noted {
            kinds.entry(*note).or_default().push(path);
        }
        kinds
    }
}

/// Sends every input through `prepare` and `encode` to `finish`, in order (see
/// [`percept::stream`]). SIGINT and SIGTERM stop it: photos on their way are finished.
///
/// # Errors
/// The error of `finish` (results cannot be written), with which the stream ends.
pub fn run<'a>(
    inputs: &[&'a Input],
    together: Together,
    console: &Console,
    prepare: impl Fn(&RgbImage) -> ChwImage + Sync,
    encode: impl Fn(&[ChwImage]) -> Result<Vec<TokenGrid>, percept::Error> + Sync,
    mut finish: impl FnMut(Job<'a>) -> anyhow::Result<()> + Send,
) -> anyhow::Result<Ended> {
    let stop = stop::on_signal("stopping after the photos on their way; again to stop at once")?;
    let bar = console.bar(inputs.len() as u64, "photos");
    let mut ended = Ended::default();
    let limits = Limits::default();
    let result = percept::stream(
        inputs
            .iter()
            .copied()
            .take_while(|_| !stop.load(Ordering::Relaxed)),
        together,
        |input| {
            let decoded = inputs::open(&input.path, &limits).map_err(|e| message(&e))?;
            let prepared = prepare(&decoded.image);
            Ok((decoded, prepared))
        },
        encode,
        |input, result| {
            match result {
                Ok((Decoded { image, notes }, grid)) => {
                    let path = input.path.display();
                    if let Some(line) = told(&notes) {
                        bar.suspend(|| console.note(&format!("{path}: {line}")));
                    }
                    let noted = notes.iter().map(|note| (*note, path.to_string()));
                    let noted: Vec<_> = noted.collect();
                    finish(Job {
                        input,
                        photo: image,
                        notes,
                        grid,
                    })?;
                    ended.done += 1;
                    ended.noted.extend(noted);
                }
                Err(reason) => {
                    // Errors of reading name the file already.
                    let path = input.path.display().to_string();
                    let line = if reason.contains(&path) {
                        reason.clone()
                    } else {
                        format!("{path}: {reason}")
                    };
                    bar.suspend(|| console.error(&line));
                    ended.failures.push((path, reason));
                }
            }
            bar.advance(1);
            Ok(())
        },
    );
    bar.finish();
    ended.is_stopped = ended.done + ended.failures.len() < inputs.len();
    result.map(|()| ended)
}

/// All notes on a photo in one line.
fn told(notes: &[Note]) -> Option<String> {
    let notes: Vec<_> = notes.iter().map(Note::to_string).collect();
    (!notes.is_empty()).then(|| notes.join("; "))
}

/// Says that a photo was encoded at another size than the one asked for.
pub fn tell_shrunk(console: &Console, input: &Input, size: Option<[u32; 2]>) {
    if let Some([width, height]) = size {
        console.note(&format!(
            "{}: encoded at {width}x{height}, which is all that the encoder takes at once; --window \
             keeps the size asked for",
            input.path.display()
        ));
    }
}

/// What is told at the end of a run.
#[derive(Debug)]
pub struct Summary<'a> {
    /// What the command found.
    pub found: &'a Found,
    /// Photos that an earlier run did.
    pub resumed: usize,
    /// The folder of results, where there is one.
    pub folder: Option<&'a Path>,
}

impl Summary<'_> {
    /// Says how many photos worked and how many did not, and where results are.
    ///
    /// # Errors
    /// Nobody reads it.
    pub fn tell(&self, ended: &Ended, json: bool, console: &Console) -> anyhow::Result<Outcome> {
        let failed = ended.failures.len();
        if json {
            crate::output::print_line(&self.to_json(ended).to_string())?;
        } else if self.folder.is_some() {
            console.progress(&self.line(ended));
        }
        if failed > 0 {
            let total = ended.done + failed;
            console.error(&format!(
                "{failed} of {} failed, {} done",
                photos(total),
                ended.done
            ));
        }
        Ok(match () {
            () if ended.is_stopped => Outcome::Stopped,
            () if failed > 0 => Outcome::SomeFailed,
            () => Outcome::Done,
        })
    }

    fn line(&self, ended: &Ended) -> String {
        let mut parts = vec![format!("{} done", photos(ended.done))];
        if ended.is_stopped {
            let left = self.found.photos.len() - self.resumed - ended.done - ended.failures.len();
            parts.push(format!("stopped with {left} to do (--resume goes on)"));
        }
        if self.resumed > 0 {
            parts.push(format!("{} done before", self.resumed));
        }
        if !ended.failures.is_empty() {
            parts.push(format!("{} failed", ended.failures.len()));
        }
        let noted = ended.by_note().into_iter();
        parts.extend(noted.map(|(note, photos)| format!("{} {}", photos.len(), note.kind())));
        parts.extend(self.found.told());
        // Where nothing was done, there is none.
        let has_results = ended.done + self.resumed > 0;
        let folder = self
            .folder
            .filter(|_| has_results)
            .map(|folder| format!("; results in {}", folder.display()));
        parts.join(", ") + &folder.unwrap_or_default()
    }

    fn to_json(&self, ended: &Ended) -> serde_json::Value {
        let failures: Vec<_> = ended
            .failures
            .iter()
            .map(|(path, reason)| json!({ "image": path, "error": reason }))
            .collect();
        let notes: Vec<_> = ended
            .by_note()
            .into_iter()
            .map(|(note, images)| json!({ "kind": note.kind(), "count": images.len(), "images": images }))
            .collect();
        let mut line = json!({
            "done": ended.done,
            "failed": failures.len(),
            "failures": failures,
            "passed_over": self.found.to_json(),
            "notes": notes,
            "stopped": ended.is_stopped,
        });
        if let Some(folder) = self.folder {
            line["out"] = json!(folder.display().to_string());
            line["done_before"] = json!(self.resumed);
        }
        line
    }
}

/// `1 photo`, `2 photos`.
fn photos(count: usize) -> String {
    plural(count, "photo")
}

/// A number with its noun, whose plural ends in s.
pub fn plural(count: usize, noun: &str) -> String {
    counted(count, noun, &format!("{noun}s"))
}

/// A number with what is said of one, or of many.
pub fn counted(count: usize, one: &str, many: &str) -> String {
    match count {
        1 => format!("1 {one}"),
        _ => format!("{count} {many}"),
    }
}
