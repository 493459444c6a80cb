//! percept as an HTTP service with a web page.
//!
//! ```text
//! connection ─ app (routes, guard) ─ upload ─ api ─┬─ engine: worker   decode, prepare
//!  server.rs      app.rs                           ├─ engine: encoder  batches of all clients
//!                                                  └─ engine: worker   compare, render ─ output
//! ```
//!
//! The async side waits and never computes; the threads of `engine.rs` compute and never wait for a
//! client. What a client can make the service hold is bounded everywhere: connections (`server.rs`),
//! bodies (`upload.rs`), requests at work (`Engine::enter`), photos kept (`sessions.rs`), and how much one
//! request may ask for (`config.rs`, `params.rs`).
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use percept::{Hints, Model};
//! use percept_serve::{Config, Server};
//!
//! let model = Model::load("model".as_ref(), &Hints::default(), &percept::device("auto")?)?;
//! let listener = std::net::TcpListener::bind("127.0.0.1:8080")?;
//! Server::new(model, Config::default())?.run(listener)?;
//! # Ok(())
//! # }
//! ```

mod api;
mod app;
mod auth;
mod config;
mod engine;
mod fields;
mod metrics;
mod output;
mod page;
mod params;
mod problem;
mod server;
mod sessions;
mod texts;
mod upload;
mod values;

pub use auth::{ApiKeys, KeyError};
pub use config::{Config, SessionLimits};
pub use server::{ServeError, Server};
