//! Numbers for Prometheus.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Media type of what [`Metrics::render`] gives.
pub(crate) const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds of the times, in seconds.
const SECONDS: [f64; 12] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

/// Upper bounds of the numbers of photos in a batch.
const BATCHES: [f64; 5] = [1.0, 2.0, 4.0, 8.0, 16.0];

/// A route, never an address as it was asked for: those are without end.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: String,
    status: u16,
}

/// What is counted.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RouteLabels, Counter>,
    request_seconds: Histogram,
    pub(crate) batch_images: Histogram,
    pub(crate) encode_seconds: Histogram,
    pub(crate) places: Gauge,
    pub(crate) connections: Gauge,
    pub(crate) sessions: Gauge,
    pub(crate) session_bytes: Gauge,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let metrics = Self {
            registry: Registry::with_prefix("percept"),
            requests: Family::default(),
            request_seconds: Histogram::new(SECONDS),
            batch_images: Histogram::new(BATCHES),
            encode_seconds: Histogram::new(SECONDS),
            places: Gauge::default(),
            connections: Gauge::default(),
            sessions: Gauge::default(),
            session_bytes: Gauge::default(),
        };
        metrics.registered()
    }

    fn registered(mut self) -> Self {
        let r = &mut self.registry;
        r.register("requests", "Requests answered", self.requests.clone());
        r.register_with_unit(
            "request",
            "Time from the head of a request under /v1 to its answer",
            Unit::Seconds,
            self.request_seconds.clone(),
        );
        r.register(
            "batch_images",
            "Photos encoded in one pass",
            self.batch_images.clone(),
        );
        r.register_with_unit(
            "encode",
            "Time of one pass of the image encoder",
            Unit::Seconds,
            self.encode_seconds.clone(),
        );
        r.register(
            "places_taken",
            "Requests worked on or waiting",
            self.places.clone(),
        );
        r.register("connections", "Open connections", self.connections.clone());
        r.register("sessions", "Photos kept", self.sessions.clone());
        r.register_with_unit(
            "session",
            "Photos and tokens kept",
            Unit::Bytes,
            self.session_bytes.clone(),
        );
        self
    }

    /// Counts an answer. `route` is a route's pattern.
    pub(crate) fn answered(&self, route: &str, status: u16, time: Duration) {
        let labels = RouteLabels {
            route: route.to_owned(),
            status,
        };
        self.requests.get_or_create(&labels).inc();
        if route.starts_with("/v1/") {
            self.request_seconds.observe(time.as_secs_f64());
        }
    }

    /// All numbers in the text format of OpenMetrics.
    pub(crate) fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
