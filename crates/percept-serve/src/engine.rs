//! The model on threads of its own, behind bounded channels.
//!
//! One thread encodes: it gathers photos of all clients for a few milliseconds and encodes those of one
//! size together. Some more decode, compare and render. The async runtime waits and never computes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use percept::image::ChwImage;
use percept::{Model, TokenGrid};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::config::{Config, MAX_PATCHES};
use crate::metrics::Metrics;
use crate::problem::Problem;

/// How long the first photo of a batch waits for others. Little beside the time of a forward pass.
const GATHER: Duration = Duration::from_millis(3);

/// Something to do on a worker.
type Work = Box<dyn FnOnce() + Send>;

/// A photo to encode, and who waits for it.
struct Job {
    image: ChwImage,
    reply: oneshot::Sender<Result<TokenGrid, Problem>>,
}

/// A request's right to be worked on or to wait. Dropped with the request, also when its client goes away.
#[derive(Debug)]
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
}

/// How long the encoder takes for a photo, on the average of the last few.
#[derive(Debug, Default)]
struct Pace(AtomicU64);

impl Pace {
    fn note(&self, photos: usize, took: Duration) {
        let each = took.as_micros() / (photos.max(1) as u128);
        let each = u64::try_from(each).unwrap_or(u64::MAX);
        // Only the encoder's thread writes.
        let mean = match self.0.load(Ordering::Relaxed) {
            0 => each,
            before => before - before / 8 + each / 8,
        };
        self.0.store(mean, Ordering::Relaxed);
    }

    /// The time for so many photos; 0 before the first.
    fn time_for(&self, photos: usize) -> Duration {
        let photos = u64::try_from(photos).unwrap_or(u64::MAX);
        Duration::from_micros(self.0.load(Ordering::Relaxed).saturating_mul(photos))
    }
}

/// The threads that compute.
#[derive(Debug)]
pub(crate) struct Engine {
    places: Arc<Semaphore>,
    queue: usize,
    patience: Duration,
    pace: Arc<Pace>,
    to_encoder: SyncSender<Job>,
    to_workers: SyncSender<Work>,
}

impl Engine {
    /// Starts one thread that encodes and `workers` others, for `queue` requests at once, or as many as are
    /// done within `timeout`.
    ///
    /// # Errors
    /// The system gives no threads.
    pub(crate) fn start(
        model: Arc<Model>,
        config: &Config,
        metrics: Arc<Metrics>,
    ) -> std::io::Result<Self> {
        let (queue, workers) = (config.queue.max(1), config.workers.max(1));
        let max_batch = config.max_batch.max(1);
        let pace = Arc::new(Pace::default());
        let of_encoder = Arc::clone(&pace);
        let (to_encoder, jobs) = sync_channel(queue);
        std::thread::Builder::new()
            .name("percept-encoder".into())
            .spawn(move || encode_all(&model, &jobs, max_batch, &of_encoder, &metrics))?;
        let (to_workers, work) = sync_channel::<Work>(queue);
        let work = Arc::new(Mutex::new(work));
        for i in 0..workers {
            let work = Arc::clone(&work);
            std::thread::Builder::new()
                .name(format!("percept-worker-{i}"))
                .spawn(move || work_all(&work))?;
        }
        Ok(Self {
            places: Arc::new(Semaphore::new(queue)),
            queue,
            patience: config.timeout,
            pace,
            to_encoder,
            to_workers,
        })
    }

    /// Takes note of how long a photo took, before there were requests.
    pub(crate) fn expect(&self, took: Duration) {
        self.pace.note(1, took);
    }

    /// A place among the requests that are worked on.
    ///
    /// # Errors
    /// All are taken, or the wait would be too long: 429. That is better for a client than an answer that comes
    /// too late, and for the others than work on it.
    pub(crate) fn enter(&self) -> Result<Place, Problem> {
        let taken = self.queue.saturating_sub(self.free());
        if self.pace.time_for(taken) > self.patience {
            return Err(full());
        }
        match Arc::clone(&self.places).try_acquire_owned() {
            Ok(permit) => Ok(Place { _permit: permit }),
            Err(_) => Err(full()),
        }
    }

    /// Places that are free.
    pub(crate) fn free(&self) -> usize {
        self.places.available_permits()
    }

    /// Tokens of a prepared photo.
    ///
    /// # Errors
    /// The encoder fails, or too many photos wait.
    pub(crate) async fn encode(&self, image: ChwImage) -> Result<TokenGrid, Problem> {
        let (reply, answer) = oneshot::channel();
        self.to_encoder
            .try_send(Job { image, reply })
            .map_err(|_| full())?;
        answer.await.map_err(|_| broken())?
    }

    /// Runs `work` on a worker. It is skipped where nobody waits for it any more.
    ///
    /// # Errors
    /// That of `work`, or too much waits.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let (reply, answer) = oneshot::channel();
        let work = move || {
            if reply.is_closed() {
                return;
            }
            // Nobody is left to tell if this fails.
            let _ = reply.send(contain(work));
        };
        self.to_workers
            .try_send(Box::new(work))
            .map_err(|_| full())?;
        answer.await.map_err(|_| broken())?
    }
}

fn full() -> Problem {
    Problem::busy("as many requests as the service takes at once are being worked on")
}

fn broken() -> Problem {
    Problem::internal("a thread of the service has ended")
}

/// A panic of one request's work must not end the thread that the others need.
fn contain<T>(work: impl FnOnce() -> Result<T, Problem>) -> Result<T, Problem> {
    // Sound to assert: what `work` owned is dropped, and what it shares is behind locks that recover.
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(Problem::internal("the computation broke off")))
}

fn work_all(work: &Mutex<Receiver<Work>>) {
    loop {
        // The lock is held while waiting, which is what makes the others wait their turn.
        let next = work.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match next {
            Ok(work) => work(),
            Err(_) => return,
        }
    }
}

fn encode_all(
    model: &Model,
    jobs: &Receiver<Job>,
    max_batch: usize,
    pace: &Pace,
    metrics: &Metrics,
) {
    while let Ok(first) = jobs.recv() {
        let mut batch = gather(first, jobs, max_batch);
        // Those whose client has gone cost nothing.
        batch.retain(|job| !job.reply.is_closed());
        batch.sort_by_key(|job| size(&job.image));
        let mut rest = batch.into_iter().peekable();
        while let Some(first) = rest.next() {
            let of_one_size = size(&first.image);
            let mut images = vec![first.image];
            let mut replies = vec![first.reply];
            while let Some(job) = rest.next_if(|job| size(&job.image) == of_one_size) {
                images.push(job.image);
                replies.push(job.reply);
            }
            let start = Instant::now();
            encode(model, &images, replies);
            let took = start.elapsed();
            pace.note(images.len(), took);
            metrics.encode_seconds.observe(took.as_secs_f64());
            metrics.batch_images.observe(images.len() as f64);
        }
    }
}

fn size(image: &ChwImage) -> [usize; 2] {
    [image.height, image.width]
}

/// The first photo and those that come soon after.
fn gather(first: Job, jobs: &Receiver<Job>, max_batch: usize) -> Vec<Job> {
    // Patches are not known here; the default patch is about this large, and it only bounds memory.
    const PIXELS: usize = MAX_PATCHES * 14 * 14;
    let until = Instant::now() + GATHER;
    let mut pixels = first.image.height * first.image.width;
    let mut batch = vec![first];
    while batch.len() < max_batch && pixels < PIXELS {
        let Ok(job) = jobs.recv_timeout(until.saturating_duration_since(Instant::now())) else {
            break;
        };
        pixels += job.image.height * job.image.width;
        batch.push(job);
    }
    batch
}

/// Encodes photos of one size and answers those who wait.
fn encode(
    model: &Model,
    images: &[ChwImage],
    replies: Vec<oneshot::Sender<Result<TokenGrid, Problem>>>,
) {
    let result = contain(|| {
        model
            .encode_images(images)
            .map_err(|error| percept::Error::from(error).into())
    });
    match result {
        Ok(grids) => {
            for (reply, grid) in replies.into_iter().zip(grids) {
                let _ = reply.send(Ok(grid));
            }
        }
        Err(problem) => {
            for reply in replies {
                let _ = reply.send(Err(problem.clone()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_follows_the_last_photos() {
        let pace = Pace::default();
        assert_eq!(pace.time_for(64), Duration::ZERO);
        pace.note(4, Duration::from_secs(2));
        assert_eq!(pace.time_for(64), Duration::from_secs(32));
        for _ in 0..100 {
            pace.note(1, Duration::from_secs(1));
        }
        let now = pace.time_for(10).as_secs_f64();
        assert!((now - 10.0).abs() < 0.1, "{now}");
    }
}
