//! Photos through a model as a stream: decoding, encoding and writing overlap.
//!
//! One thread decodes ahead, the caller's thread encodes, one thread finishes. The channels
//! between them are short, so memory is bounded by a few photos whatever the number of inputs. A
//! photo that fails is counted and named, and the others go on.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use percept::TokenGrid;
use percept::image::{ChwImage, Limits, RgbImage};

use crate::Outcome;
use crate::console::{Bar, Console};
use crate::inputs::Input;

/// Photos that wait at most between two stages, besides the batch in hand.
const WAITING: usize = 2;

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

/// A photo that was decoded and prepared, or why not.
type Decoded<'a> = (&'a Input, Result<(RgbImage, ChwImage), String>);

/// Sends every input through `prepare` and `encode` to `finish`, in order.
///
/// `finish` runs on a thread of its own. When it returns an error (results cannot be written), the
/// stream ends with it.
///
/// # Errors
/// The error of `finish`.
pub fn run(
    inputs: &[Input],
    batch_size: usize,
    console: &Console,
    prepare: impl Fn(&RgbImage) -> ChwImage + Sync,
    encode: impl Fn(&[ChwImage]) -> Result<Vec<TokenGrid>, percept::Error>,
    mut finish: impl FnMut(Job<'_>) -> anyhow::Result<()> + Send,
) -> anyhow::Result<Failures> {
    let bar = console.bar(inputs.len() as u64, "photos");
    let mut failures = Failures::new();
    let limits = Limits::default();
    let result = std::thread::scope(|scope| {
        let (to_encode, decoded) = sync_channel::<Decoded<'_>>(WAITING + batch_size);
        let (to_finish, encoded) = sync_channel::<Job<'_>>(WAITING);
        scope.spawn(|| decode(inputs, &limits, &prepare, to_encode));
        let finisher = scope.spawn(move || {
            for job in encoded {
                finish(job)?;
            }
            Ok(())
        });
        encode_all(
            decoded,
            batch_size,
            &encode,
            to_finish,
            &bar,
            console,
            &mut failures,
        );
        match finisher.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    });
    bar.finish();
    result.map(|()| failures)
}

/// Decodes and prepares, until the receiver has gone.
fn decode<'a>(
    inputs: &'a [Input],
    limits: &Limits,
    prepare: &impl Fn(&RgbImage) -> ChwImage,
    to_encode: SyncSender<Decoded<'a>>,
) {
    for input in inputs {
        let photo = percept::image::open(&input.path, limits)
            .map(|photo| {
                let prepared = prepare(&photo);
                (photo, prepared)
            })
            .map_err(|e| e.to_string());
        if to_encode.send((input, photo)).is_err() {
            return;
        }
    }
}

/// Encodes batches of photos of one size, until there are no more or nobody finishes them.
fn encode_all<'a>(
    decoded: Receiver<Decoded<'a>>,
    batch_size: usize,
    encode: &impl Fn(&[ChwImage]) -> Result<Vec<TokenGrid>, percept::Error>,
    to_finish: SyncSender<Job<'a>>,
    bar: &Bar,
    console: &Console,
    failures: &mut Failures,
) {
    let mut fail = |input: &Input, reason: String| {
        // Errors of reading name the file already.
        let path = input.path.display().to_string();
        let line = if reason.contains(&path) {
            reason.clone()
        } else {
            format!("{path}: {reason}")
        };
        bar.suspend(|| console.error(&line));
        bar.advance(1);
        failures.push((path, reason));
    };
    let mut waiting = decoded.into_iter().peekable();
    while let Some((input, first)) = waiting.next() {
        let (photo, prepared) = match first {
            Ok(pair) => pair,
            Err(reason) => {
                fail(input, reason);
                continue;
            }
        };
        let mut photos = vec![(input, photo)];
        let mut images = vec![prepared];
        while images.len() < batch_size
            && let Some((input, Ok((photo, prepared)))) = waiting.next_if(|(_, next)| {
                next.as_ref().is_ok_and(|(_, image)| {
                    (image.height, image.width) == (images[0].height, images[0].width)
                })
            })
        {
            photos.push((input, photo));
            images.push(prepared);
        }
        match encode(&images) {
            Err(error) => {
                for (input, _) in photos {
                    fail(input, error.to_string());
                }
            }
            Ok(grids) => {
                for ((input, photo), grid) in photos.into_iter().zip(grids) {
                    let job = Job { input, photo, grid };
                    if to_finish.send(job).is_err() {
                        return;
                    }
                    bar.advance(1);
                }
            }
        }
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
