//! Routes, and what holds for all of them.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HOST, ORIGIN, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::middleware::{Next, from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use percept::image::{Rgb, RgbImage};
use percept::{Background, Label, Model, Size, View};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::config::{Config, DEFAULT_SIZE};
use crate::engine::Engine;
use crate::metrics::{Metrics, OPENMETRICS};
use crate::problem::{Kind, Problem, uniform};
use crate::server::ServeError;
use crate::sessions::Sessions;
use crate::texts::{TemplateSet, Texts};
use crate::upload::Uploads;
use crate::{api, page};

/// What all requests share.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) config: Config,
    pub(crate) model: Arc<Model>,
    pub(crate) texts: Texts,
    pub(crate) engine: Engine,
    pub(crate) sessions: Sessions,
    pub(crate) uploads: Uploads,
    pub(crate) metrics: Arc<Metrics>,
    is_stopping: AtomicBool,
    /// Whether it listens for its own machine alone.
    is_local: AtomicBool,
}

impl App {
    /// Starts the threads, embeds the words of `background: auto` so that no request waits for them, and
    /// encodes a photo, so that it is known how long that takes.
    pub(crate) fn new(model: Model, config: Config) -> Result<Arc<Self>, ServeError> {
        let model = Arc::new(model);
        let metrics = Arc::new(Metrics::new());
        let engine = Engine::start(Arc::clone(&model), &config, Arc::clone(&metrics))?;
        if model.config().image.is_some() {
            engine.expect(time_of_a_photo(&model)?);
        }
        let texts = Texts::new(Arc::clone(&model));
        if model.config().text.is_some() {
            let any = [Label::new("photo")];
            texts.bank(&any, TemplateSet::default(), &Background::Auto)?;
        }
        Ok(Arc::new(Self {
            sessions: Sessions::new(config.sessions),
            uploads: Uploads::new(config.max_upload, config.timeout),
            config,
            model,
            texts,
            engine,
            metrics,
            is_stopping: AtomicBool::new(false),
            is_local: AtomicBool::new(false),
        }))
    }

    /// From now on `/readyz` sends clients elsewhere.
    pub(crate) fn stop(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
    }

    /// Tells it where it listens.
    pub(crate) fn listens_at(&self, address: SocketAddr) {
        let is_local = address.ip().is_loopback();
        self.is_local.store(is_local, Ordering::Relaxed);
    }

    /// Side of the square that classification sees, in pixels.
    pub(crate) fn image_size(&self) -> Result<u32, Problem> {
        let config = self.model.image_config().map_err(percept::Error::from)?;
        Ok(u32::try_from(config.image_size).unwrap_or(u32::MAX))
    }
}

/// How long an empty photo of the usual size takes.
fn time_of_a_photo(model: &Model) -> Result<Duration, percept::Error> {
    let view = View::new(model, Size::ShortSide(DEFAULT_SIZE), None)?;
    let photo = RgbImage::from_fn(4 * DEFAULT_SIZE / 3, DEFAULT_SIZE, |_, _| Rgb([128; 3]));
    let photo = [view.prepare(&photo)];
    let start = Instant::now();
    model.encode_images(&photo)?;
    Ok(start.elapsed())
}

/// Every route of the service.
pub(crate) fn router(app: &Arc<App>) -> Router {
    let v1 = Router::new()
        .route("/v1/models", get(api::models))
        .route("/v1/sessions", post(api::create_session))
        .route("/v1/sessions/{id}", delete(api::delete_session))
        .route("/v1/sessions/{id}/photo", get(api::session_photo))
        .route("/v1/segment", post(api::segment))
        .route("/v1/group", post(api::group))
        .route("/v1/classify", post(api::classify))
        .route("/v1/embed", post(api::embed))
        // `Uploads` has limits of its own.
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(Arc::clone(app), guard));
    let others = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics));
    v1.merge(others)
        .merge(page::routes())
        .fallback(|| async { Problem::new(Kind::NotFound, "see /docs for what there is") })
        .layer(map_response(uniform))
        .layer(CatchPanicLayer::custom(|_| {
            Problem::internal("the request broke off").into_response()
        }))
        .layer(from_fn_with_state(Arc::clone(app), observe))
        .layer(cors(&app.config.allow_origins))
        .with_state(Arc::clone(app))
}

/// Lets in who may call, and ends what takes too long.
async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let (headers, allowed) = (request.headers(), &app.config.allow_origins);
    let is_local = app.is_local.load(Ordering::Relaxed);
    if let Err(problem) =
        check_origin(headers, allowed).and_then(|()| check_host(headers, is_local, allowed))
    {
        return problem.into_response();
    }
    if let Some(keys) = &app.config.api_keys
        && let Err(problem) = keys.check(request.headers())
    {
        return problem.into_response();
    }
    // The upload has a limit of its own, of the same length.
    let limit = app.config.timeout.saturating_mul(2);
    let Ok(mut response) = tokio::time::timeout(limit, next.run(request)).await else {
        let detail = "the service has too much to do for this request";
        return Problem::new(Kind::Timeout, detail).into_response();
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Refuses pages of other sites: they could otherwise use a service that listens for its own machine alone.
/// Programs send no `Origin`.
fn check_origin(headers: &HeaderMap, allowed: &[String]) -> Result<(), Problem> {
    let Some(origin) = headers.get(ORIGIN) else {
        return Ok(());
    };
    let origin = origin.to_str().unwrap_or("");
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let authority = origin.split_once("://").map(|(_, authority)| authority);
    if authority.is_some() && authority == host {
        return Ok(());
    }
    if allowed.iter().any(|known| known == "*" || known == origin) {
        return Ok(());
    }
    let detail = "start the service with --allow-origin to let its pages in";
    Err(Problem::new(Kind::ForeignOrigin, detail))
}

/// Refuses names that somebody may have pointed at this machine, so that a page of theirs has the origin of
/// the service (DNS rebinding). A service that listens for others has names that it does not know.
fn check_host(headers: &HeaderMap, is_local: bool, allowed: &[String]) -> Result<(), Problem> {
    let Some(authority) = headers.get(HOST).filter(|_| is_local) else {
        return Ok(());
    };
    let authority = authority.to_str().unwrap_or("");
    let host = authority.parse::<Authority>();
    let host = host.as_ref().map_or("", |authority| authority.host());
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_own = host == "localhost" || host.ends_with(".localhost");
    if is_own || host.parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    let is_named = |origin: &String| {
        origin == "*"
            || origin
                .split_once("://")
                .is_some_and(|(_, name)| name == authority)
    };
    if allowed.iter().any(is_named) {
        return Ok(());
    }
    let detail =
        "the service listens for its own machine; start it with --allow-origin to give it a name";
    Err(Problem::new(Kind::ForeignOrigin, detail))
}

fn cors(origins: &[String]) -> CorsLayer {
    let origins = match origins.iter().any(|origin| origin == "*") {
        true => AllowOrigin::any(),
        false => AllowOrigin::list(origins.iter().filter_map(|o| HeaderValue::from_str(o).ok())),
    };
    CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        .allow_headers([
            AUTHORIZATION,
            CONTENT_TYPE,
            HeaderName::from_static("x-api-key"),
        ])
        .expose_headers([RETRY_AFTER])
}

/// Counts and logs. Neither ever holds an address as it was asked for, which may be a session's.
async fn observe(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let (status, time) = (response.status().as_u16(), start.elapsed());
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    app.metrics.answered(route, status, time);
    if let Some(log) = app.config.log {
        log(&format!(
            "{method} {route} {status} {} ms",
            time.as_millis()
        ));
    }
    response
}

async fn ready(State(app): State<Arc<App>>) -> Result<&'static str, Problem> {
    if app.is_stopping.load(Ordering::Relaxed) {
        return Err(Problem::new(Kind::Timeout, "the service is stopping"));
    }
    if app.engine.free() == 0 {
        return Err(Problem::new(Kind::Timeout, "the queue is full"));
    }
    Ok("ready\n")
}

async fn metrics(State(app): State<Arc<App>>) -> impl IntoResponse {
    let taken = app.config.queue.saturating_sub(app.engine.free());
    let (sessions, bytes) = app.sessions.usage();
    let as_gauge = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
    app.metrics.places.set(as_gauge(taken));
    app.metrics.sessions.set(as_gauge(sessions));
    app.metrics.session_bytes.set(as_gauge(bytes));
    (
        [(CONTENT_TYPE, HeaderValue::from_static(OPENMETRICS))],
        app.metrics.render(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn may_call(origin: Option<&str>, allowed: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("localhost:8080"));
        if let Some(origin) = origin {
            headers.insert(ORIGIN, HeaderValue::from_str(origin).unwrap());
        }
        let allowed: Vec<String> = allowed.iter().map(|o| (*o).to_owned()).collect();
        check_origin(&headers, &allowed).is_ok()
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        assert!(may_call(None, &[]));
        assert!(may_call(Some("http://localhost:8080"), &[]));
        assert!(!may_call(Some("http://localhost:3000"), &[]));
        assert!(!may_call(Some("https://example.org"), &[]));
        assert!(!may_call(Some("null"), &[]));
        assert!(may_call(
            Some("https://example.org"),
            &["https://example.org"]
        ));
        assert!(may_call(Some("https://example.org"), &["*"]));
    }

    #[test]
    fn names_that_point_at_this_machine_are_refused() {
        let may_call = |host: &str, is_local, allowed: &[&str]| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_str(host).unwrap());
            let allowed: Vec<String> = allowed.iter().map(|o| (*o).to_owned()).collect();
            check_host(&headers, is_local, &allowed).is_ok()
        };
        for own in [
            "localhost:8080",
            "me.localhost",
            "127.0.0.1:80",
            "[::1]:8080",
            "10.0.0.7",
        ] {
            assert!(may_call(own, true, &[]), "{own}");
        }
        for foreign in ["example.org:8080", "localhost.example.org", "", "a b"] {
            assert!(!may_call(foreign, true, &[]), "{foreign}");
            assert!(may_call(foreign, false, &[]), "{foreign}");
        }
        assert!(may_call("example.org", true, &["https://example.org"]));
        assert!(!may_call("example.org", true, &["https://example.com"]));
        assert!(check_host(&HeaderMap::new(), true, &[]).is_ok());
    }
}
