//! Connections: taken within limits, and finished before the program ends.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::TcpListener;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::HttpBody;
use axum::response::{IntoResponse, Response};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use percept::Model;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};
use tower::ServiceExt;

use crate::app::{App, router};
use crate::config::Config;
use crate::problem::Problem;

/// Connections at once. More wait in the system's queue.
const MAX_CONNECTIONS: usize = 512;

/// Time for the head of a request to arrive; also for the next one of an idle connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);

/// Fields of a request's head.
const MAX_HEADERS: usize = 64;

/// Bytes of a request's head.
const MAX_HEAD: usize = 32 << 10;

/// Time for an answer to be read, after all the time that making it may take. A connection that is at one
/// request for longer is cut; an idle one has ended long before.
const SEND_TIME: Duration = Duration::from_secs(60);

/// How often that is looked at.
const LOOK: Duration = Duration::from_secs(5);

/// KiB of answers that clients have not read yet: a few of the largest, overlays of 50 million pixels.
const ANSWERS_KIB: usize = 512 << 10;

/// KiB of an answer that is not worth counting: 32 MB if all connections have one.
const SMALL_ANSWER_KIB: u32 = 64;

/// What a client may still send after an answer that did not wait for it, so that it gets to read it.
const LINGER_BYTES: u64 = 64 << 20;
const LINGER_TIME: Duration = Duration::from_secs(5);

/// Pause after a connection could not be taken, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why a server ended or never began.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The system refused threads or the network.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The model cannot embed texts.
    #[error(transparent)]
    Model(#[from] percept::Error),
    /// Told to end a second time, or clients took too long.
    #[error("ended before all requests were finished")]
    Unfinished,
}

/// A model as an HTTP service.
#[derive(Debug)]
pub struct Server {
    app: Arc<App>,
}

impl Server {
    /// Starts the threads of `model`. Nothing listens yet.
    ///
    /// # Errors
    /// There are no threads, or the text encoder fails.
    pub fn new(model: Model, config: Config) -> Result<Self, ServeError> {
        Ok(Self {
            app: App::new(model, config)?,
        })
    }

    /// Serves until the process is interrupted or asked to end (SIGINT, SIGTERM), then finishes the
    /// requests that it has. A second signal ends it at once.
    ///
    /// # Errors
    /// The system refuses threads or the network, or not all requests were finished.
    pub fn run(self, listener: TcpListener) -> Result<(), ServeError> {
        self.run_until(listener, interrupted(), interrupted())
    }

    /// As [`Self::run`], until `stop` is ready; `abandon` is waited for after that.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_until(
        self,
        listener: TcpListener,
        stop: impl Future<Output = ()>,
        abandon: impl Future<Output = ()>,
    ) -> Result<(), ServeError> {
        // Connections need little: what computes has threads of its own.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        runtime.block_on(serve(self.app, listener, stop, abandon))
    }

    /// The service without a network: for tests, and for servers of other kinds.
    pub fn router(&self) -> Router {
        router(&self.app)
    }
}

/// Ready when the process is to end.
async fn interrupted() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}

async fn serve(
    app: Arc<App>,
    listener: TcpListener,
    stop: impl Future<Output = ()>,
    abandon: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    app.listens_at(listener.local_addr()?);
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let router = router(&app);
    // Upload and answer of a request that has just begun: the limit of `app::guard`.
    let grace = app.config.timeout.saturating_mul(2);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let answers = Arc::new(Semaphore::new(ANSWERS_KIB));
    let (stopping, watched) = watch::channel(());
    let mut stop = pin!(stop);
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await.ok()?;
            let (stream, _) = listener.accept().await.ok()?;
            Some((stream, place))
        };
        let accepted = tokio::select! {
            accepted = next => accepted,
            () = &mut stop => break,
        };
        let Some((stream, place)) = accepted else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (router, watched, app) = (router.clone(), watched.clone(), Arc::clone(&app));
        let answers = Arc::clone(&answers);
        tokio::spawn(async move {
            app.metrics.connections.inc();
            connection(stream, router, answers, watched, grace).await;
            app.metrics.connections.dec();
            drop(place);
        });
    }
    app.stop();
    drop((listener, watched));
    // Refused only where no connection is left.
    let _ = stopping.send(());
    let is_finished = tokio::select! {
        result = timeout(grace + LINGER_TIME, stopping.closed()) => result.is_ok(),
        () = abandon => false,
    };
    match is_finished {
        true => Ok(()),
        false => Err(ServeError::Unfinished),
    }
}

/// The request that a connection is at, until the next one begins.
#[derive(Debug)]
struct Turn {
    began: Instant,
    /// What its answer takes of the memory for answers.
    memory: Option<OwnedSemaphorePermit>,
}

/// One client, from its first request to its last.
async fn connection(
    stream: TcpStream,
    router: Router,
    answers: Arc<Semaphore>,
    mut stopping: watch::Receiver<()>,
    grace: Duration,
) {
    // Answers go out at once. Not worth failing for.
    let _ = stream.set_nodelay(true);
    let turn = Arc::new(Mutex::new(Turn {
        began: Instant::now(),
        memory: None,
    }));
    let of_requests = Arc::clone(&turn);
    let service = service_fn(move |request| {
        let (router, turn) = (router.clone(), Arc::clone(&of_requests));
        let answers = Arc::clone(&answers);
        Box::pin(async move {
            *lock(&turn) = Turn {
                began: Instant::now(),
                memory: None,
            };
            let answer = router.oneshot(request).await?;
            Ok::<_, Infallible>(hold(answer, answers, &turn))
        })
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD);
    let mut connection = http.serve_connection(TokioIo::new(stream), service);
    let is_over = tokio::select! {
        result = poll_fn(|cx| connection.poll_without_shutdown(cx)) => Some(result.is_ok()),
        () = stuck(&turn, grace + SEND_TIME) => return,
        _ = stopping.changed() => None,
    };
    let is_whole = match is_over {
        Some(is_whole) => is_whole,
        None => {
            // Finishes the request in hand and takes no more.
            Pin::new(&mut connection).graceful_shutdown();
            let rest = poll_fn(|cx| connection.poll_without_shutdown(cx));
            matches!(timeout(grace, rest).await, Ok(Ok(())))
        }
    };
    if is_whole {
        linger(connection.into_parts().io.into_inner()).await;
    }
}

/// Counts an answer until it is read, which shows in the next request or the end of the connection. In
/// its place comes 429 where the answers of others fill the memory.
fn hold(answer: Response, answers: Arc<Semaphore>, turn: &Mutex<Turn>) -> Response {
    let size = u32::try_from(answer.body().size_hint().lower() >> 10).unwrap_or(u32::MAX);
    if size < SMALL_ANSWER_KIB {
        return answer;
    }
    match answers.try_acquire_many_owned(size) {
        Ok(memory) => {
            lock(turn).memory = Some(memory);
            answer
        }
        Err(_) => {
            let detail = "answers that other clients do not read fill the memory";
            Problem::busy(detail).into_response()
        }
    }
}

/// Ready when a connection is at one request for longer than `patience`.
async fn stuck(turn: &Mutex<Turn>, patience: Duration) {
    while lock(turn).began.elapsed() < patience {
        sleep(LOOK).await;
    }
}

fn lock(turn: &Mutex<Turn>) -> MutexGuard<'_, Turn> {
    // Nothing that is done under the lock leaves it half done.
    turn.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Closes a connection whose client may still be sending. Closed at once, the system would throw away an
/// answer that the client has not read yet.
async fn linger(mut stream: TcpStream) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let (reader, mut nowhere) = (stream.take(LINGER_BYTES), tokio::io::sink());
    let mut reader = pin!(reader);
    let _ = timeout(LINGER_TIME, tokio::io::copy(&mut reader, &mut nowhere)).await;
}
