//! What a server is told, and what it refuses.

use std::time::Duration;

use percept::image::Limits;

use crate::auth::ApiKeys;

/// Settings of a [`Server`](crate::Server).
#[derive(Debug)]
pub struct Config {
    /// What the model is called in answers.
    pub model_name: String,
    /// Threads that decode photos and make results, beside the one that encodes.
    pub workers: usize,
    /// Requests that are worked on or wait at once; one more is answered 429.
    pub queue: usize,
    /// Photos that are encoded in one pass, where clients send as many of one size at once. More gain
    /// nothing on a CPU, and the first waits for the last.
    pub max_batch: usize,
    /// Bytes of a request's body.
    pub max_upload: usize,
    /// Time for a body to arrive, and again for its answer to be made.
    pub timeout: Duration,
    /// Origins (`https://example.org`) whose pages may call the service; `*` for all.
    pub allow_origins: Vec<String>,
    /// Keys, one of which every call under `/v1` must carry. `None`: no key is asked for.
    pub api_keys: Option<ApiKeys>,
    /// What photos are kept for follow-up requests.
    pub sessions: SessionLimits,
    /// Gets a line for every answer: method, route, status, time. Never an address or a key.
    pub log: Option<fn(&str)>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            model_name: "percept".into(),
            workers: std::thread::available_parallelism().map_or(2, usize::from),
            queue: 64,
            max_batch: 8,
            max_upload: 20_000_000,
            timeout: Duration::from_secs(30),
            allow_origins: Vec::new(),
            api_keys: None,
            sessions: SessionLimits::default(),
            log: None,
        }
    }
}

/// Bounds of the photos that are kept.
#[derive(Debug, Clone, Copy)]
pub struct SessionLimits {
    /// Photos at once; the one unused for longest makes room.
    pub count: usize,
    /// Bytes of photos and tokens at once.
    pub bytes: usize,
    /// Time after which an unused photo is forgotten.
    pub idle: Duration,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self {
            count: 256,
            bytes: 512 << 20,
            idle: Duration::from_secs(15 * 60),
        }
    }
}

/// Bodies in memory at once, in multiples of the largest that is taken.
pub(crate) const BODIES_AT_ONCE: usize = 16;

/// Photos larger than this are refused: above most cameras, and 150 MB as pixels in each worker.
pub(crate) const IMAGE_LIMITS: Limits = Limits {
    max_file_bytes: 256 << 20,
    max_side: 20_000,
    max_pixels: 50_000_000,
};

/// Tokens that a photo is encoded in at most, 896 x 896 px in patches of 14: about two seconds of two
/// CPU cores with a small model. A larger photo is encoded smaller.
pub(crate) const MAX_PATCHES: usize = 4096;

/// Short side at which photos are encoded unless the request says otherwise, in pixels.
pub(crate) const DEFAULT_SIZE: u32 = 448;

/// Range of sides that a request may ask for, in pixels.
pub(crate) const SIZES: std::ops::RangeInclusive<u32> = 32..=2048;

/// Labels, background words or texts of a request.
pub(crate) const MAX_LABELS: usize = 1000;

/// Characters of a label or text.
pub(crate) const MAX_LABEL_CHARS: usize = 1000;

/// Sentences that a request may need: labels and background words times templates. About two seconds of
/// two CPU cores with MiniLM. The everyday words of `background: auto` do not count, since their
/// embeddings are kept.
pub(crate) const MAX_PROMPTS: usize = 2000;

/// Groups of a request.
pub(crate) const MAX_GROUPS: usize = 64;
