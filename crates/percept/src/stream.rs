//! Many photos through a model: decoding, encoding and what comes after overlap.

use std::iter::Peekable;
use std::sync::mpsc::{IntoIter, SyncSender, sync_channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use percept_image::{ChwImage, message};
use percept_model::TokenGrid;

/// Items that wait at most between two stages, besides the batches in hand.
const WAITING: usize = 2;

/// An item that was read, with whatever was read beside the input of the model; or why not.
type Loaded<T, P> = (T, Result<(P, ChwImage), String>);

/// An item with its tokens, or why there are none.
type Encoded<T, P> = (T, Result<(P, TokenGrid), String>);

/// How many images go through a model together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Together {
    /// Neighbouring images of one size in a pass, at most.
    pub batch_size: usize,
    /// Passes at a time. A second one has work for a core that waits for the others of the first. A thread of
    /// rayon's pool that waits in one may take up another: where there are several, `encode` must not hold a lock
    /// while it waits for the pool.
    pub passes: usize,
}

/// Sends every item through `load` and `encode` to `finish`, in order.
///
/// `load` runs on a thread of its own, ahead of the model; `encode` on the calling thread and, for further
/// passes, beside it, for images that go through it [`Together`]; `finish` on another. The channels between
/// them are short: memory is a few items, however many there are. An item that cannot be loaded or
/// encoded reaches `finish` with the reason, and the others go on.
///
/// # Errors
/// The first error of `finish`, with which the stream ends.
pub fn stream<T: Send, P: Send, E: Send>(
    items: impl Iterator<Item = T> + Send,
    together: Together,
    load: impl Fn(&T) -> Result<(P, ChwImage), String> + Send,
    encode: impl Fn(&[ChwImage]) -> Result<Vec<TokenGrid>, crate::Error> + Sync,
    mut finish: impl FnMut(T, Result<(P, TokenGrid), String>) -> Result<(), E> + Send,
) -> Result<(), E> {
    let Together { batch_size, passes } = together;
    std::thread::scope(|scope| {
        let (to_encode, loaded) = sync_channel::<Loaded<T, P>>(WAITING + passes * batch_size);
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
        let batches = Batches::new(loaded.into_iter(), together);
        std::thread::scope(|scope| {
            for _ in 1..passes {
                let to_finish = to_finish.clone();
                scope.spawn(|| encode_all(&batches, &encode, to_finish));
            }
            encode_all(&batches, &encode, to_finish);
        });
        // The thread that loads has nobody to send to, if it still does.
        drop(batches);
        match finisher.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Encodes batches until there are no more, or nobody finishes them.
fn encode_all<T, P>(
    batches: &Batches<T, P>,
    encode: &(impl Fn(&[ChwImage]) -> Result<Vec<TokenGrid>, crate::Error> + Sync),
    to_finish: SyncSender<Encoded<T, P>>,
) {
    while let Some((ticket, batch)) = batches.next() {
        let results = match batch {
            Batch::Failed(item, reason) => vec![(item, Err(reason))],
            Batch::Images(items, images) => {
                let grids: Vec<Result<TokenGrid, String>> = match encode(&images) {
                    Ok(grids) => grids.into_iter().map(Ok).collect(),
                    Err(error) => vec![Err(message(&error)); items.len()],
                };
                let results = items.into_iter().zip(grids);
                let results = results.map(|((item, extra), grid)| (item, grid.map(|g| (extra, g))));
                results.collect()
            }
        };
        drop(ticket.wait());
        for result in results {
            if to_finish.send(result).is_err() {
                return;
            }
        }
    }
}

/// What is encoded at once.
enum Batch<T, P> {
    /// One that could not be loaded.
    Failed(T, String),
    Images(Vec<(T, P)>, Vec<ChwImage>),
}

/// What nobody encodes yet.
struct Waiting<T, P> {
    loaded: Peekable<IntoIter<Loaded<T, P>>>,
    /// The number of the next batch.
    number: usize,
}

/// Loaded items, in batches that leave in the order in which they came.
struct Batches<T, P> {
    waiting: Mutex<Waiting<T, P>>,
    together: Together,
    /// The number of the batch that leaves next.
    leaves: Mutex<usize>,
    has_left: Condvar,
}

impl<T, P> Batches<T, P> {
    fn new(loaded: IntoIter<Loaded<T, P>>, together: Together) -> Self {
        Self {
            waiting: Mutex::new(Waiting {
                loaded: loaded.peekable(),
                number: 0,
            }),
            together,
            leaves: Mutex::new(0),
            has_left: Condvar::new(),
        }
    }

    /// The next batch of images of one size, with its place in the order.
    fn next(&self) -> Option<(Ticket<'_, T, P>, Batch<T, P>)> {
        let mut waiting = lock(&self.waiting);
        let Waiting { loaded, number } = &mut *waiting;
        let (item, first) = loaded.next()?;
        let batch = match first {
            Err(reason) => Batch::Failed(item, reason),
            Ok((extra, image)) => {
                let size = (image.height, image.width);
                let (mut items, mut images) = (vec![(item, extra)], vec![image]);
                while images.len() < self.together.batch_size {
                    let next = loaded.next_if(|(_, next)| {
                        next.as_ref()
                            .is_ok_and(|(_, image)| (image.height, image.width) == size)
                    });
                    let Some((item, Ok((extra, image)))) = next else {
                        break;
                    };
                    items.push((item, extra));
                    images.push(image);
                }
                Batch::Images(items, images)
            }
        };
        let ticket = Ticket {
            of: self,
            number: *number,
        };
        *number += 1;
        Some((ticket, batch))
    }
}

/// The place of a batch in the order. The next one's turn is when it is dropped, also by a panic.
struct Ticket<'a, T, P> {
    of: &'a Batches<T, P>,
    number: usize,
}

impl<T, P> Ticket<'_, T, P> {
    /// Waits until all batches before this one have left.
    fn wait(&self) -> MutexGuard<'_, usize> {
        let leaves = lock(&self.of.leaves);
        let waited = (self.of.has_left).wait_while(leaves, |leaves| *leaves != self.number);
        waited.unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T, P> Drop for Ticket<'_, T, P> {
    fn drop(&mut self) {
        *self.wait() += 1;
        self.of.has_left.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

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
            Together {
                batch_size: 2,
                passes: 1,
            },
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
            Together {
                batch_size: 1,
                passes: 3,
            },
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

    #[test]
    fn passes_that_end_in_another_order_are_finished_in_that_of_the_items() {
        let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let mut seen = Vec::new();
        let together = Together {
            batch_size: 1,
            passes: 3,
        };
        let result: Result<(), ()> = stream(
            0..60,
            together,
            |&item| match item % 7 {
                5 => Err("broken".into()),
                _ => Ok(((), image(item))),
            },
            |images| {
                most.fetch_max(running.fetch_add(1, Relaxed) + 1, Relaxed);
                let wait = if images[0].height % 2 == 0 { 3 } else { 0 };
                std::thread::sleep(std::time::Duration::from_millis(wait));
                running.fetch_sub(1, Relaxed);
                Ok(images.iter().map(grid).collect())
            },
            |item, result| {
                assert_eq!(result.is_err(), item % 7 == 5);
                seen.push(item);
                Ok(())
            },
        );
        assert_eq!(result, Ok(()));
        assert_eq!(seen, (0..60).collect::<Vec<_>>());
        assert!(most.into_inner() > 1, "one pass at a time");
    }

    #[test]
    fn a_panic_of_a_pass_ends_the_stream() {
        let together = Together {
            batch_size: 1,
            passes: 2,
        };
        let ran = std::panic::catch_unwind(|| {
            stream(
                0..1000,
                together,
                |_| Ok(((), image(1))),
                |_| panic!("for the test"),
                |_: i32, _| Ok::<(), ()>(()),
            )
        });
        assert!(ran.is_err());
    }
}
