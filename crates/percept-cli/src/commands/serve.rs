//! `percept serve`

use std::io::Write;
use std::net::TcpListener;
use std::path::PathBuf;

use anyhow::Context;
use percept::image::message;
use percept_serve::{ApiKeys, Config, Server};

use crate::args::{Common, ServeArgs};
use crate::console::Console;
use crate::{Outcome, Usage, models};

pub fn run(args: &ServeArgs, common: &Common, console: &Console) -> anyhow::Result<Outcome> {
    let defaults = Config::default();
    let read_keys = |path: &PathBuf| {
        ApiKeys::read(path).map_err(|error| {
            Usage(format!(
                "--api-key-file {}: {}",
                path.display(),
                message(&error)
            ))
        })
    };
    let api_keys = args.api_key_file.as_ref().map(read_keys).transpose()?;
    if api_keys.is_none() && !args.addr.ip().is_loopback() {
        console
            .note("whoever reaches this address can use the service: there is no --api-key-file");
    }
    // Before the model is loaded: an address in use is known at once.
    let listener = TcpListener::bind(args.addr)
        .with_context(|| format!("{}: cannot listen there", args.addr))?;
    let (model, path) = models::load_whole(common, console)?;
    let name = common
        .model
        .clone()
        .unwrap_or_else(|| path.display().to_string());
    let config = Config {
        // A folder's own name is enough for strangers.
        model_name: name
            .rsplit('/')
            .find(|part| !part.is_empty())
            .unwrap_or("percept")
            .into(),
        workers: args.workers.map_or(defaults.workers, |workers| {
            console.at_most_cores("--workers", workers)
        }),
        queue: args.queue,
        max_batch: common.batch_size.unwrap_or(defaults.max_batch),
        max_upload: args.max_upload,
        timeout: args.timeout,
        allow_origins: args.allow_origins.clone(),
        api_keys,
        log: common.verbose.then_some(log),
        ..defaults
    };
    let address = listener.local_addr()?;
    let server = Server::new(model, config)?;
    console.progress(&format!(
        "percept listens at http://{address}, Ctrl-C ends it"
    ));
    server.run(listener)?;
    console.progress("percept has finished all requests");
    Ok(Outcome::Done)
}

/// A line for every answer.
fn log(line: &str) {
    // Nobody is left to tell if this fails.
    let _ = writeln!(std::io::stderr(), "{line}");
}
