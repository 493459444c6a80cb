//! The percept command line: parses, calls the library, prints.
//!
//! Exit codes: 0 when everything worked, 1 when something failed, 2 for a command that cannot be
//! carried out as given, 130 when a signal stopped the run.

mod args;
mod commands;
mod console;
mod inputs;
mod memory;
mod models;
mod output;
mod pipeline;
mod record;
mod stop;
mod train_view;

use std::process::ExitCode;

use percept::image::message;
use percept_data::DataError;
use percept_eval::EvalError;
use percept_train::TrainError;

use crate::args::{Cli, Command, Common};
use crate::console::Console;

/// A forward pass allocates and frees tens of megabytes per layer; the system's allocator hands
/// each back to the kernel, which then clears every page anew (docs/performance.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A command line that cannot be carried out as it stands: exit code 2.
#[derive(Debug)]
pub struct Usage(pub String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

impl Usage {
    /// An error that is the command line's fault.
    pub fn of(error: impl std::error::Error + 'static) -> Self {
        Self(message(&error))
    }
}

/// How a command ended, when it could be carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Everything worked.
    Done,
    /// Some inputs failed; they have been named.
    SomeFailed,
    /// Stopped by a signal, with all that was done saved.
    Stopped,
}

fn main() -> ExitCode {
    let (cli, matches) = match args::parse() {
        Ok(parsed) => parsed,
        Err(error) => error.exit(),
    };
    match cli.command {
        Command::Train(_) => memory::keep_what_is_freed(memory::FOR_TRAINING),
        _ => {
            memory::keep_what_is_freed(memory::FOR_LOADING);
            memory::refuse_huge_pages();
        }
    }
    let common = cli.common();
    let console = Console::new(common.quiet, common.verbose);
    let result = match args::ignored(&cli, &matches) {
        Some(flag) => Err(Usage(flag).into()),
        None => run(&cli, &common, &console),
    };
    match result {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::SomeFailed) => ExitCode::from(1),
        Ok(Outcome::Stopped) => ExitCode::from(stop::STOPPED),
        // The reader of a pipe has gone (`percept … | head`): nobody is left to tell.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            console.error(&message(error.as_ref()));
            ExitCode::from(if is_usage(&error) { 2 } else { 1 })
        }
    }
}

fn run(cli: &Cli, common: &Common, console: &Console) -> anyhow::Result<Outcome> {
    if let Some(threads) = common.threads {
        rayon::ThreadPoolBuilder::new()
            .num_threads(console.at_most_cores("--threads", threads))
            .build_global()?;
    }
    match &cli.command {
        Command::Segment(args) => {
            inputs::refuse_labels(&args.inputs.inputs)?;
            commands::segment::run(args, common, console)
        }
        Command::Group(args) => commands::group::run(args, common, console),
        Command::Classify(args) => {
            inputs::refuse_labels(&args.inputs.inputs)?;
            commands::classify::run(args, common, console)
        }
        Command::Embed(args) => commands::embed::run(args, common, console),
        Command::Eval(args) => commands::eval::run(args, common, console),
        Command::Train(args) => commands::train::run(args, common, console),
        Command::Serve(args) => commands::serve::run(args, common, console),
        Command::Data(args) => commands::data::run(args, common, console),
        Command::Convert(args) => commands::convert::run(args, common, console),
        Command::Info(args) => commands::info::run(args, common, console),
        Command::Models(args) => commands::pull::list(args, common),
        Command::Pull(args) => commands::pull::run(args, common, console),
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
