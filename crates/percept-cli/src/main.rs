//! The percept command line: parses, calls the library, prints.
//!
//! Exit codes: 0 when everything worked, 1 when something failed, 2 for a command that cannot be
//! understood, 130 when a training was stopped by a signal.

mod args;
mod commands;
mod console;
mod inputs;
mod models;
mod output;
mod pipeline;
mod train_view;

use std::process::ExitCode;

use clap::Parser;
use percept_data::DataError;
use percept_eval::EvalError;
use percept_train::TrainError;

use crate::args::{Cli, Command};
use crate::console::Console;

/// A forward pass allocates and frees tens of megabytes per layer; the system's allocator hands
/// each back to the kernel, which then clears every page anew (docs/performance.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// mimalloc's number of the option that says how many milliseconds freed memory stays with the program, which its
/// bindings do not name.
const PURGE_DELAY: std::ffi::c_int = 15;

/// Its own second is less than a step of training takes, and the next one needs as much memory again: for good.
const FOR_TRAINING: std::ffi::c_long = -1;

/// What a tensor was read into is of no use when it has been packed, and the next photo wants little: a second would
/// add the largest matrices to the most that a command needs (docs/performance.md).
const FOR_OTHERS: std::ffi::c_long = 5;

/// How long freed memory stays with the program. `MIMALLOC_PURGE_DELAY` goes before it.
#[allow(unsafe_code, reason = "the allocator has its options in C alone")]
fn keep_freed_memory(milliseconds: std::ffi::c_long) {
    // SAFETY: it takes two numbers, and ignores an option that does not exist.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, milliseconds) };
    // What was freed before `main` waits for the time that was valid then, and what comes after it waits with it.
    // SAFETY: it gives back what nobody uses.
    unsafe { libmimalloc_sys::mi_collect(true) };
}

/// mimalloc asks for pages of two megabytes, which stay empty in part: a fifth to a third of the memory of a command
/// that reads a model, for no time that could be measured (docs/performance.md). Training fills them.
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "the system has this in C alone")]
fn refuse_huge_pages() {
    const REFUSED: libc::c_ulong = 1;
    const UNUSED: libc::c_ulong = 0;
    // SAFETY: it takes numbers and touches no memory. A system that does not know it goes on as before.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, REFUSED, UNUSED, UNUSED, UNUSED) };
}

#[cfg(not(target_os = "linux"))]
fn refuse_huge_pages() {}

/// A command line that cannot be carried out as it stands: exit code 2.
#[derive(Debug)]
pub struct Usage(pub String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// How a command ended, when it could be carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Everything worked.
    Done,
    /// Some inputs failed; they have been named.
    SomeFailed,
    /// Stopped by a signal, with everything saved.
    Stopped,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        Command::Train(_) => keep_freed_memory(FOR_TRAINING),
        _ => {
            keep_freed_memory(FOR_OTHERS);
            refuse_huge_pages();
        }
    }
    let console = Console::new(cli.common.quiet, cli.common.verbose);
    match run(&cli, &console) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::SomeFailed) => ExitCode::from(1),
        Ok(Outcome::Stopped) => ExitCode::from(commands::train::STOPPED),
        // The reader of a pipe has gone (`percept … | head`): nobody is left to tell.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            console.error(&format!("{error:#}"));
            ExitCode::from(if is_usage(&error) { 2 } else { 1 })
        }
    }
}

fn run(cli: &Cli, console: &Console) -> anyhow::Result<Outcome> {
    if let Some(threads) = cli.common.threads {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build_global()?;
    }
    match &cli.command {
        Command::Segment(args) => commands::segment::run(args, &cli.common, console),
        Command::Group(args) => commands::group::run(args, &cli.common, console),
        Command::Classify(args) => commands::classify::run(args, &cli.common, console),
        Command::Embed(args) => commands::embed::run(args, &cli.common, console),
        Command::Eval(args) => commands::eval::run(args, &cli.common, console),
        Command::Train(args) => commands::train::run(args, &cli.common, console),
        Command::Serve(args) => commands::serve::run(args, &cli.common, console),
        Command::Data(args) => commands::data::run(args, &cli.common, console),
        Command::Convert(args) => commands::convert::run(args, &cli.common, console),
        Command::Info(args) => commands::info::run(args, &cli.common, console),
        Command::Models(args) => commands::pull::list(args, &cli.common),
        Command::Pull(args) => commands::pull::run(args, &cli.common, console),
    }
}

fn is_usage(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.is::<Usage>()
            || matches!(
                cause.downcast_ref::<EvalError>(),
                Some(EvalError::Protocol { .. } | EvalError::Setting(_))
            )
            || matches!(
                cause.downcast_ref::<DataError>(),
                Some(DataError::Layout { .. } | DataError::Setting(_))
            )
            || matches!(
                cause.downcast_ref::<TrainError>(),
                Some(
                    TrainError::Setting { .. }
                        | TrainError::Config { .. }
                        | TrainError::Exists { .. }
                        // Its text is that of the inner error, which is no link of the chain.
                        | TrainError::Data(DataError::Layout { .. } | DataError::Setting(_))
                )
            )
            || matches!(
                cause.downcast_ref::<percept::Error>(),
                Some(
                    percept::Error::Labels(_)
                        | percept::Error::Templates(_)
                        | percept::Error::Setting(_)
                        // A file of labels or templates that cannot be read.
                        | percept::Error::Io { .. }
                )
            )
    })
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(unsafe_code, reason = "the allocator has its options in C alone")]
    fn the_allocator_has_the_option_where_it_is_set() {
        // SAFETY: it takes a number.
        let delay = || unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
        if std::env::var_os("MIMALLOC_PURGE_DELAY").is_some() {
            println!("SKIPPED: MIMALLOC_PURGE_DELAY is set");
            return;
        }
        assert_eq!(delay(), 1000, "not the default of mi_option_purge_delay");
        keep_freed_memory(FOR_TRAINING);
        assert_eq!(delay(), FOR_TRAINING);
    }
}
