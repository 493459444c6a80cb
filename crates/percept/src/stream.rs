//! Many photos through a model: decoding, encoding and what comes after overlap.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use percept_image::ChwImage;
use percept_model::TokenGrid;

/// Items that wait at most between two stages, besides the batch in hand.
const WAITING: usize = 2;

/// An item that was read, with whatever was read beside the input of the model; or why not.
type Loaded<T, P> = (T, Result<(P, ChwImage), String>);

/// An item with its tokens, or why there are none.
type Encoded<T, P> = (T, Result<(P, TokenGrid), String>);

/// Sends every item through `load` and `encode` to `finish`, in order.
///
/// `load` runs on a thread of its own, ahead of the model; `encode` on the calling thread, for up
/// to `batch_size` neighbouring images of one size at once; `finish` on a third. The channels
/// between them are short: memory is a few items, however many there are. An item that cannot be
/// loaded or encoded reaches `finish` with the reason, and the others go on.
///
/// # Errors
/// The first error of `finish`, with which the stream ends.
pub fn stream<T: Send, P: Send, E: Send>(
    items: impl Iterator<Item = T> + Send,
    batch_size: usize,
    load: impl Fn(&T) -> Result<(P, ChwImage), String> + Send,
    encode: impl Fn(&[ChwImage]) -> Result<Vec<TokenGrid>, crate::Error>,
    mut finish: impl FnMut(T, Result<(P, TokenGrid), String>) -> Result<(), E> + Send,
) -> Result<(), E> {
    std::thread::scope(|scope| {
        let (to_encode, loaded) = sync_channel::<Loaded<T, P>>(WAITING + batch_size);
        let (to_finish, encoded) = sync_channel::<Encoded<T, P>>(WAITING);
        scope.spawn(move || {
            for item in items {
                let result = load(&item);
                if to_encode.send((item, result)).is_err() {
                    return;
                }
            }
        });
        let finisher = scope.spawn(move || {
            for (item, result) in encoded {
                finish(item, result)?;
            }
            Ok(())
        });
        encode_all(loaded, batch_size, &encode, &to_finish);
        drop(to_finish);
        match finisher.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Encodes batches of images of one size, until there are no more or nobody finishes them.
fn encode_all<T, P>(
    loaded: Receiver<Loaded<T, P>>,
    batch_size: usize,
    encode: &impl Fn(&[ChwImage]) -> Result<Vec<TokenGrid>, crate::Error>,
    to_finish: &SyncSender<Encoded<T, P>>,
) {
    let mut waiting = loaded.into_iter().peekable();
    while let Some((item, first)) = waiting.next() {
        let (extra, image) = match first {
            Ok(pair) => pair,
            Err(reason) => {
                if to_finish.send((item, Err(reason))).is_err() {
                    return;
                }
                continue;
            }
        };
        let size = (image.height, image.width);
        let mut batch = vec![(item, extra)];
        let mut images = vec![image];
        while images.len() < batch_size {
            let next = waiting.next_if(|(_, next)| {
                next.as_ref()
                    .is_ok_and(|(_, image)| (image.height, image.width) == size)
            });
            let Some((item, Ok((extra, image)))) = next else {
                break;
            };
            batch.push((item, extra));
            images.push(image);
        }
        let results: Vec<Result<TokenGrid, String>> = match encode(&images) {
            Ok(grids) => grids.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error.to_string()); batch.len()],
        };
        for ((item, extra), grid) in batch.into_iter().zip(results) {
            let result = grid.map(|grid| (extra, grid));
            if to_finish.send((item, result)).is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(side: usize) -> ChwImage {
        ChwImage {
            data: vec![side as f32; 3 * side * side],
            height: side,
            width: side,
        }
    }

    fn grid(image: &ChwImage) -> TokenGrid {
        TokenGrid {
            rows: 1,
            columns: 1,
            dim: 1,
            cls: vec![image.height as f32],
            patches: vec![0.0],
        }
    }

    #[test]
    fn order_is_kept_and_failures_pass_through() {
        let mut seen = Vec::new();
        let batches = std::sync::Mutex::new(Vec::new());
        let result: Result<(), ()> = stream(
            [2, 2, 2, 0, 2, 3, 9, 3].into_iter(),
            2,
            |&side| {
                if side == 0 {
                    Err("broken".into())
                } else {
                    Ok(((), image(side)))
                }
            },
            |images| {
                batches.lock().unwrap().push(images.len());
                if images[0].height == 9 {
                    return Err(crate::Error::Setting("too large".into()));
                }
                Ok(images.iter().map(grid).collect())
            },
            |side, result| {
                seen.push((side, result.map(|(_, grid)| grid.cls[0] as usize)));
                Ok(())
            },
        );
        assert_eq!(result, Ok(()));
        let sizes: Vec<usize> = seen.iter().map(|(side, _)| *side).collect();
        assert_eq!(sizes, [2, 2, 2, 0, 2, 3, 9, 3]);
        for (side, result) in &seen {
            match side {
                0 => assert_eq!(result, &Err("broken".into())),
                9 => assert_eq!(result, &Err("too large".into())),
                side => assert_eq!(result, &Ok(*side)),
            }
        }
        assert_eq!(batches.into_inner().unwrap(), [2, 1, 1, 1, 1, 1]);
    }

    #[test]
    fn an_error_of_the_last_stage_ends_the_stream() {
        let mut finished = 0;
        let result = stream(
            0..1000,
            1,
            |_| Ok(((), image(1))),
            |images| Ok(images.iter().map(grid).collect()),
            |item, _| {
                finished += 1;
                if item == 3 { Err("full") } else { Ok(()) }
            },
        );
        assert_eq!(result, Err("full"));
        assert_eq!(finished, 4);
    }
}
