//! Photos of a command through a model, with a progress bar; failures are counted and named.

use percept::image::{ChwImage, Limits, RgbImage};
use percept::{Together, TokenGrid};

use crate::Outcome;
use crate::console::Console;
use crate::inputs::{self, Input};

/// A photo on its way.
pub struct Job<'a> {
    /// Where it came from.
    pub input: &'a Input,
    /// Its pixels.
    pub photo: RgbImage,
    /// Its tokens.
    pub grid: TokenGrid,
}

/// The photos that failed, with the reasons.
pub type Failures = Vec<(String, String)>;

/// Sends every input through `prepare` and `encode` to `finish`, in order (see
/// [`percept::stream`]).
///
/// # Errors
/// The error of `finish` (results cannot be written), with which the stream ends.
pub fn run(
    inputs: &[Input],
    together: Together,
    console: &Console,
    prepare: impl Fn(&RgbImage) -> ChwImage + Sync,
    encode: impl Fn(&[ChwImage]) -> Result<Vec<TokenGrid>, percept::Error> + Sync,
    mut finish: impl FnMut(Job<'_>) -> anyhow::Result<()> + Send,
) -> anyhow::Result<Failures> {
    let bar = console.bar(inputs.len() as u64, "photos");
    let mut failures = Failures::new();
    let limits = Limits::default();
    let result = percept::stream(
        inputs.iter(),
        together,
        |input| {
            let photo = inputs::open(&input.path, &limits).map_err(|e| e.to_string())?;
            let prepared = prepare(&photo);
            Ok((photo, prepared))
        },
        encode,
        |input, result| {
            match result {
                Ok((photo, grid)) => finish(Job { input, photo, grid })?,
                Err(reason) => {
                    // Errors of reading name the file already.
                    let path = input.path.display().to_string();
                    let line = if reason.contains(&path) {
                        reason.clone()
                    } else {
                        format!("{path}: {reason}")
                    };
                    bar.suspend(|| console.error(&line));
                    failures.push((path, reason));
                }
            }
            bar.advance(1);
            Ok(())
        },
    );
    bar.finish();
    result.map(|()| failures)
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

/// Prints how many worked and how many did not, where there is something to tell.
pub fn summarize(
    total: usize,
    failures: &Failures,
    json: bool,
    console: &Console,
) -> anyhow::Result<Outcome> {
    let done = total - failures.len();
    if json {
        let failures: Vec<_> = failures
            .iter()
            .map(|(path, reason)| serde_json::json!({ "image": path, "error": reason }))
            .collect();
        let line =
            serde_json::json!({ "done": done, "failed": failures.len(), "failures": failures });
        crate::output::print_line(&line.to_string())?;
    }
    if failures.is_empty() {
        return Ok(Outcome::Done);
    }
    console.error(&format!(
        "{} of {total} photos failed, {done} done",
        failures.len()
    ));
    Ok(Outcome::SomeFailed)
}
