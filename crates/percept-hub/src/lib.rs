//! Model names to verified local files.
//!
//! A [`Reference`] is a name from [`known_models`], a Hugging Face repository (`hf:ORG/NAME[@REV]`)
//! or a plain URL. [`Hub::pull`] finds its files in the cache or downloads them. Downloads resume
//! where they broke off, go to a temporary name, and take their place only after their size and
//! SHA-256 have been checked.
//!
//! Repositories land in the Hugging Face cache, laid out as Python's `huggingface_hub` lays it out,
//! so that either finds what the other has downloaded. The usual variables are read: `HF_HOME`,
//! `HF_HUB_CACHE`, `HF_HUB_OFFLINE`, `HF_TOKEN`, `HF_TOKEN_PATH` and `HF_ENDPOINT`, and
//! `HTTPS_PROXY` for the connection.
//!
//! ```no_run
//! # fn main() -> Result<(), percept_hub::HubError> {
//! use percept_hub::{Hub, PullOptions, Reference};
//!
//! let hub = Hub::from_env()?;
//! let reference: Reference = "clippy".parse()?;
//! let folder = hub.pull(&reference, &PullOptions::default())?;
//! # let _ = folder;
//! # Ok(())
//! # }
//! ```
//!
//! # What is verified
//! A digest given by the caller or by the table of known models; else the SHA-256 under which the
//! hub stores a large file (its `x-linked-etag`). Small files of a repository (JSON, mostly) have no
//! published SHA-256: for them the size is checked and the connection's own integrity relied upon.

mod cache;
mod download;
mod error;
mod http;
mod hub;
mod known;
mod progress;
mod reference;
mod repository;
#[cfg(test)]
#[allow(clippy::unwrap_used, dead_code)]
#[path = "../tests/common/mod.rs"]
mod test_server;

pub use error::HubError;
pub use hub::{Cached, Hub, PullOptions};
pub use known::{KnownFile, KnownModel, Origin, Part, Source, known_models};
pub use progress::{Progress, Silent};
pub use reference::Reference;
