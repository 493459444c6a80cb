//! `percept train`: from pairs of photos and captions to a model folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use percept::image::message;
use percept::{Device, Hints, Model};
use percept_eval::{Run, RunOptions, Subject};
use percept_train::config::{self, Settings};
use percept_train::run::{find_checkpoint, folder, named};
use percept_train::{
    Alone, Collective, Ending, Evaluator, Hooks, Resume, Saved, Start, TrainConfig, TrainError,
    train,
};
use serde_json::{Value, json};

use super::eval::Benchmark;
use crate::args::{Common, TrainArgs};
use crate::console::Console;
use crate::output::print_line;
use crate::train_view::TrainView;
use crate::{Outcome, Usage, models, stop};

/// What resumes the run of `--name`.
const LATEST: &str = "latest";

/// Runs the command.
///
/// # Errors
/// Settings that make no sense, towers or data that cannot be used, a training that goes astray,
/// files that cannot be written.
pub fn run(args: &TrainArgs, common: &Common, console: &Console) -> anyhow::Result<Outcome> {
    let processes = Processes::join()?;
    let collective = processes.collective();
    // The first process speaks for all; what the others skip is in logs of their own.
    let silent = Console::new(true, false);
    let voice = if collective.is_first() {
        console
    } else {
        &silent
    };
    processes.end(run_as(args, common, voice, collective), console)
}

/// Runs the command as one of the processes.
fn run_as(
    args: &TrainArgs,
    common: &Common,
    console: &Console,
    collective: &dyn Collective,
) -> anyhow::Result<Outcome> {
    let (config, saved) = settings(args, common, console)?;
    if args.show_params {
        print_line(&serde_json::to_string_pretty(&config)?)?;
        return Ok(Outcome::Done);
    }
    check(&config)?;
    let device = percept::device(&common.device).map_err(Usage::of)?;
    let mut benchmarks = Vec::new();
    for spec in &args.eval {
        benchmarks.push(Benchmark::parse(spec, &args.eval_protocol)?);
    }
    let start = Start::open(&config, &device, |name| {
        models::resolve(name).map_err(|error| TrainError::Config {
            origin: "where a tower begins".into(),
            reason: message(error.as_ref()),
        })
    })?;

    models::tell_left_out(&start.report, console);
    let stop = stop::on_signal("saving after this step; again to stop at once")?;
    let mut view = TrainView::new(console);
    let mut evaluator = Benchmarks {
        benchmarks,
        device: device.clone(),
        limit: args.eval_limit.unwrap_or(0),
    };
    let resume = match (saved, &args.resume) {
        (Some(saved), _) => Resume::From(Box::new(saved)),
        (None, Some(_)) => Resume::Again,
        (None, None) => Resume::New,
    };
    let hooks = Hooks {
        observer: &mut view,
        evaluator: (!args.eval.is_empty()).then_some(&mut evaluator as &mut dyn Evaluator),
        stop: &stop,
        collective,
    };
    let finished = train(&config, start, resume, hooks);
    view.finish();
    let finished = finished?;

    for kind in finished.left_out.kinds() {
        console.note(&format!("left out or read otherwise: {kind}"));
    }
    let progress = &finished.progress;
    let (path, outcome) = match &finished.ending {
        Ending::Complete { model } => {
            console.note(&format!("model written to {}", model.display()));
            (model, Outcome::Done)
        }
        Ending::Stopped { checkpoint } => {
            console.note(&format!(
                "stopped at step {}, saved as {}; go on with --name {} --resume latest",
                progress.step,
                checkpoint.display(),
                config.name.as_deref().unwrap_or_default(),
            ));
            (checkpoint, Outcome::Stopped)
        }
    };
    if common.json && collective.is_first() {
        let line = json!({
            "complete": outcome == Outcome::Done,
            "path": path,
            "folder": finished.folder,
            "step": progress.step,
            "samples": progress.samples,
            "bad_samples": progress.bad_samples,
            "left_out": finished.left_out,
            "seconds": progress.seconds,
            "validation": finished.validation,
        });
        print_line(&line.to_string())?;
    }
    Ok(outcome)
}

/// All settings, and the checkpoint to go on from.
fn settings(
    args: &TrainArgs,
    common: &Common,
    console: &Console,
) -> anyhow::Result<(TrainConfig, Option<Saved>)> {
    let recipe = args.recipe.as_deref().map(config::recipe).transpose()?;
    let Value::Object(mut flags) = serde_json::to_value(&args.settings)? else {
        return Err(Usage("the flags are no settings".into()).into());
    };
    let recipe = recipe.map(|recipe| {
        let name = args.recipe.as_deref().unwrap_or_default();
        (format!("recipe {name}"), recipe)
    });
    let layers = |base: Option<(String, Settings)>, flags: Settings| {
        let flags = ("flags".to_owned(), flags);
        TrainConfig::layered(base.into_iter().chain(recipe.clone()).chain([flags]))
    };

    let saved = match &args.resume {
        None => None,
        Some(which) => {
            let path = match which.as_str() {
                LATEST => run_folder(&layers(None, flags.clone())?)?,
                path => PathBuf::from(path),
            };
            let (saved, broken) = find_checkpoint(&path)?;
            for error in broken {
                console.note(&format!(
                    "a newer checkpoint is not used: {}",
                    message(&error)
                ));
            }
            if saved.is_none() && which != LATEST {
                return Err(Usage(format!("--resume {which}: no checkpoint there")).into());
            }
            if saved.is_none() {
                console.note(&format!("no checkpoint in {}: beginning", path.display()));
            }
            saved
        }
    };
    // Both towers of --model, where nothing else says where they begin.
    if let Some(model) = &common.model {
        let known = recipe.as_ref().map(|(_, recipe)| recipe);
        for tower in ["init_image", "init_text"] {
            let is_set = |settings: &Settings| settings.get(tower).is_some_and(|v| !v.is_null());
            if saved.is_none() && !is_set(&flags) && !known.is_some_and(is_set) {
                flags.insert(tower.into(), model.clone().into());
            }
        }
    }
    if common.allow_unused {
        flags.insert("allow_unused".into(), true.into());
    }
    let base = (saved.as_ref()).map(|saved| {
        let name = saved.path().display().to_string();
        (name, saved.config().settings())
    });
    Ok((named(layers(base, flags)?), saved))
}

fn run_folder(config: &TrainConfig) -> anyhow::Result<PathBuf> {
    if config.name.is_none() {
        return Err(Usage("--resume latest: of which run? name it with --name".into()).into());
    }
    Ok(folder(config))
}

/// What is most often forgotten, in words that help.
fn check(config: &TrainConfig) -> anyhow::Result<()> {
    let usage = |message: &str| Err(Usage(message.to_owned()).into());
    if config.train_data.is_empty() {
        return usage(
            "nothing to train on: name shards with --train-data 'shards/{00000..00099}.tar', or a \
             CSV of filepath and title",
        );
    }
    if config.init_image.is_empty() || config.init_text.is_empty() {
        return usage(
            "where do the towers begin? name them with --init-image and --init-text (a checkpoint, \
             or random), or both with --model",
        );
    }
    Ok(config.validate()?)
}

/// This process alone, or all of an `mpirun`.
enum Processes {
    Alone(Alone),
    #[cfg(feature = "mpi")]
    Mpi(percept_train::mpi::Mpi),
}

impl Processes {
    fn join() -> anyhow::Result<Self> {
        // How Open MPI, and MPICH and its kin, tell a process of how many it is one.
        let world = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"]
            .iter()
            .find_map(|name| std::env::var(name).ok()?.parse::<u32>().ok());
        if world.is_none_or(|world| world < 2) {
            return Ok(Self::Alone(Alone));
        }
        #[cfg(feature = "mpi")]
        return Ok(Self::Mpi(percept_train::mpi::Mpi::join()?));
        #[cfg(not(feature = "mpi"))]
        Err(Usage(
            "mpirun started several processes, of which each would train by itself: build percept \
             with `--features mpi`"
                .into(),
        )
        .into())
    }

    fn collective(&self) -> &dyn Collective {
        match self {
            Self::Alone(alone) => alone,
            #[cfg(feature = "mpi")]
            Self::Mpi(mpi) => mpi,
        }
    }

    /// The result of this process, unless it has failed and others are waiting for it.
    fn end(&self, result: anyhow::Result<Outcome>, console: &Console) -> anyhow::Result<Outcome> {
        #[cfg(feature = "mpi")]
        if let (Self::Mpi(mpi), Err(error)) = (self, &result) {
            console.error(&format!(
                "process {}: {}",
                mpi.rank(),
                message(error.as_ref())
            ));
            mpi.abort(if crate::is_usage(error) { 2 } else { 1 });
        }
        #[cfg(not(feature = "mpi"))]
        let _ = console;
        result
    }
}

/// The first signal asks the run to save and end, the second one ends it.
/// The benchmarks of `--eval`.
struct Benchmarks {
    benchmarks: Vec<Benchmark>,
    device: Device,
    limit: usize,
}

impl Evaluator for Benchmarks {
    fn evaluate(&mut self, path: &Path) -> Result<BTreeMap<String, f64>, String> {
        let model = Model::load(path, &Hints::default(), &self.device).map_err(|e| message(&e))?;
        let subject = Subject::new(&model, "training", path).map_err(|e| message(&e))?;
        let options = RunOptions {
            limit: self.limit,
            batch_size: 1,
            ..RunOptions::default()
        };
        let mut metrics = BTreeMap::new();
        for benchmark in &self.benchmarks {
            let result = benchmark
                .measure(Run {
                    subject: &subject,
                    protocol: &benchmark.protocol,
                    options: &options,
                    progress: &|_| {},
                })
                .map_err(|e| format!("{}: {}", benchmark.dataset, message(&e)))?;
            let name = |metric: &str| format!("{}/{metric}", benchmark.dataset);
            metrics.extend(
                result
                    .metrics
                    .iter()
                    .filter(|(_, value)| value.is_finite())
                    .map(|(metric, value)| (name(metric), *value)),
            );
        }
        Ok(metrics)
    }
}
