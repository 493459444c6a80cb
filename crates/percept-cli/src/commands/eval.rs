//! `percept eval`: a benchmark, from a dataset's folder to a report.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use percept::image::message;
use percept_data::{
    CaptionSet, Competing, DataError, EmptyClasses, FolderOptions, ImageFolder, Omissions,
    SegmentationSet, Waterbirds, open_ade20k, open_cityscapes, open_cityscapes27,
    open_coco_captions, open_coco_object, open_coco_panoptic, open_coco_stuff, open_context,
    open_context59, open_custom, open_voc,
};
use percept_eval::{
    EvalError, EvalResult, Event, Protocol, Run, RunOptions, Subject, brief, compare, write_report,
};

use crate::args::{Common, EvalArgs, Task};
use crate::console::Console;
use crate::output::print_line;
use crate::{Outcome, Usage, models, stop};

/// Runs the command.
///
/// # Errors
/// The protocol, the dataset or the model cannot be used, or results cannot be written.
pub fn run(args: &EvalArgs, common: &Common, console: &Console) -> anyhow::Result<Outcome> {
    let task = args.task;
    if task == Some(Task::Compare) {
        return compare_files(&args.results, common);
    }
    if let Some(stray) = args.results.first() {
        return Err(Usage(format!(
            "{}: only `percept eval compare` takes files; a dataset's folder goes after --data",
            stray.display()
        ))
        .into());
    }
    let dataset = task.map(name_of).unwrap_or_default();
    let protocol = Protocol::load(&args.protocol, &dataset, &args.set).map_err(Usage::of)?;
    if args.show_protocol {
        print_line(protocol.to_toml().trim_end())?;
        return Ok(Outcome::Done);
    }
    let (Some(task), Some(data)) = (task, &args.data) else {
        return Err(Usage(format!(
            "where is {dataset}? name its folder with --data DIR"
        ))
        .into());
    };
    let benchmark = Benchmark::open(task, data, protocol, args)?;
    for kind in benchmark.set.omissions().kinds() {
        console.note(&kind.to_string());
    }
    let (model, path) = models::load_whole(common, console)?;
    let name = common
        .model
        .clone()
        .unwrap_or_else(|| path.display().to_string());
    let subject = Subject::new(&model, &short_name(&name), &path)?;
    let options = RunOptions {
        limit: args.limit.unwrap_or(0),
        batch_size: common.batch_size(),
        out: args.out.clone(),
        resume: args.resume,
        force: args.force,
        tokens: args.keep_tokens.clone(),
    };
    stop::end_on_signal(match &args.out {
        Some(_) => "stopped; the same command with --resume goes on from here",
        None => "stopped; with --out DIR a run can be gone on with (--resume)",
    })?;
    let bar = console.bar(0, "photos");
    let progress = |event: Event<'_>| match event {
        Event::Start { samples, resumed } => {
            bar.set_length(samples as u64);
            bar.advance(resumed as u64);
            if resumed > 0 {
                bar.suspend(|| console.note(&format!("{resumed} of {samples} photos are done")));
            }
        }
        Event::Done => bar.advance(1),
        Event::Failed { sample, reason } => {
            bar.suspend(|| console.error(&format!("{sample}: {reason}")));
            bar.advance(1);
        }
        Event::Note(note) => bar.suspend(|| console.note(note)),
    };
    let how = Run {
        subject: &subject,
        protocol: &benchmark.protocol,
        options: &options,
        progress: &progress,
    };
    let result = benchmark.measure(how);
    bar.finish();
    let result = result?;
    if let Some(out) = &args.out {
        let (names, background) = benchmark.set.legend();
        write_report(&result, &names, background, out)?;
        console.detail(&format!("results in {}", out.display()));
    }
    if common.json {
        print_line(&serde_json::to_string(&result)?)?;
    } else {
        print_line(brief(&result).trim_end())?;
    }
    let counts = &result.counts;
    let left_out = match result.left_out.iter().map(|kind| kind.count).sum::<u64>() {
        0 => String::new(),
        1 => "; 1 thing left out or read otherwise than written".to_owned(),
        count => format!("; {count} things left out or read otherwise than written"),
    };
    if counts.failed > 0 {
        console.error(&format!(
            "{} of {} photos failed, {} done{left_out}",
            counts.failed, counts.samples, counts.done
        ));
        return Ok(Outcome::SomeFailed);
    }
    if !left_out.is_empty() {
        let done = format!(
            "{} of {} photos done{left_out}",
            counts.done, counts.samples
        );
        console.note(&done);
    }
    Ok(Outcome::Done)
}

/// The name of a task on the command line.
fn name_of(task: Task) -> String {
    task.to_possible_value()
        .map(|value| value.get_name().to_owned())
        .unwrap_or_default()
}

/// A dataset with the protocol that it is measured by.
pub struct Benchmark {
    /// Its name, that of the task.
    pub dataset: String,
    /// Every choice behind the numbers.
    pub protocol: Protocol,
    set: Set,
    split: Option<String>,
    grouping: bool,
}

impl Benchmark {
    /// Opens the dataset at `data` as the flags say.
    ///
    /// # Errors
    /// The folder does not have the layout of the dataset, or it has no groups.
    pub fn open(
        task: Task,
        data: &Path,
        protocol: Protocol,
        args: &EvalArgs,
    ) -> anyhow::Result<Self> {
        let dataset = name_of(task);
        let split = args.split.clone().or_else(|| protocol.split.clone());
        let set = Set::open(task, args, data, split.as_deref())?;
        if args.grouping && !matches!(set, Set::Segmentation(_)) {
            return Err(Usage(format!(
                "--grouping needs a segmentation set, not {dataset}"
            ))
            .into());
        }
        Ok(Self {
            dataset,
            protocol,
            set,
            split,
            grouping: args.grouping,
        })
    }

    /// Opens the dataset of `TASK=DIR`.
    ///
    /// # Errors
    /// There is no such task or protocol, or the folder does not have its layout.
    pub fn parse(spec: &str, protocol: &str) -> anyhow::Result<Self> {
        let (task, data) = spec.split_once('=').ok_or_else(|| {
            Usage(format!(
                "--eval {spec}: not TASK=DIR, such as voc=VOCdevkit"
            ))
        })?;
        let task = Task::from_str(task, false)
            .ok()
            .filter(|task| *task != Task::Compare)
            .ok_or_else(|| {
                Usage(format!(
                    "--eval {task}: no such task; see `percept eval --help`"
                ))
            })?;
        let protocol = Protocol::load(protocol, &name_of(task), &[]).map_err(Usage::of)?;
        Self::open(task, Path::new(data), protocol, &EvalArgs::default())
    }

    /// Measures a model.
    ///
    /// # Errors
    /// As the task of percept-eval that it is.
    pub fn measure(&self, how: Run<'_>) -> Result<EvalResult, EvalError> {
        let dataset = &self.dataset;
        let split = |usual| self.split.as_deref().unwrap_or(usual);
        match &self.set {
            Set::Segmentation(set) if self.grouping => percept_eval::grouping(set.as_ref(), how),
            Set::Segmentation(set) => percept_eval::segmentation(set.as_ref(), how),
            Set::Folder(set) => percept_eval::classification(set, dataset, split("val"), how),
            Set::Captions(set) => percept_eval::retrieval(set, dataset, split("val"), how),
            Set::Waterbirds(set) => percept_eval::waterbirds(set, split("test"), how),
        }
    }
}

/// A dataset of any kind.
enum Set {
    Segmentation(Box<dyn SegmentationSet>),
    Folder(ImageFolder),
    Captions(CaptionSet),
    Waterbirds(Waterbirds),
}

impl Set {
    fn open(task: Task, args: &EvalArgs, data: &Path, split: Option<&str>) -> anyhow::Result<Self> {
        if let Some(set) = segmentation_set(task, data, split, args.classes.as_deref())? {
            return Ok(Self::Segmentation(match task {
                // As the paper: 27 classes for groups, 19 for words.
                Task::Cityscapes if args.grouping => Box::new(open_cityscapes27(data, split)?),
                _ => set,
            }));
        }
        let folder = |competing| {
            let options = FolderOptions {
                names: args.classes.as_deref(),
                competing,
                empty: match args.keep_empty_classes {
                    true => EmptyClasses::Keep,
                    false => EmptyClasses::Refuse,
                },
            };
            let opened = ImageFolder::open_as(data, &options);
            opened.map(Self::Folder).map_err(|error| match error {
                DataError::EmptyClass { .. } => Usage(format!(
                    "{}; move or remove it, or go on with --keep-empty-classes",
                    message(&error)
                ))
                .into(),
                other => other.into(),
            })
        };
        match task {
            // The same thousand classes; ImageNet-v2 numbers its folders.
            Task::Imagenet | Task::ImagenetV2 => folder(Competing::ImageNet),
            Task::Retrieval if data.is_file() => {
                Ok(Self::Captions(CaptionSet::from_csv(data, None)?))
            }
            Task::Retrieval => Ok(Self::Captions(open_coco_captions(data, split)?)),
            Task::Waterbirds => Ok(Self::Waterbirds(Waterbirds::open(data, split)?)),
            _ => folder(Competing::Present),
        }
    }

    /// What was left out when the set was opened.
    fn omissions(&self) -> &Omissions {
        match self {
            Self::Segmentation(set) => set.omissions(),
            Self::Folder(set) => &set.omissions,
            Self::Captions(set) => &set.omissions,
            Self::Waterbirds(set) => &set.omissions,
        }
    }

    /// Names of the labels in the report's pictures, and which is background.
    fn legend(&self) -> (Vec<String>, Option<u16>) {
        match self {
            Self::Segmentation(set) => (
                set.classes().iter().map(|c| c.name.clone()).collect(),
                set.background(),
            ),
            Self::Waterbirds(set) => {
                let names = std::iter::once(&set.background).chain(&set.labels);
                (names.map(|c| c.name.clone()).collect(), Some(0))
            }
            Self::Folder(_) | Self::Captions(_) => (Vec::new(), None),
        }
    }
}

/// The segmentation set that a task is about; `None` if it is about something else.
///
/// # Errors
/// The folder does not have the layout of the set, or the set has no splits and one is asked for.
pub fn segmentation_set(
    task: Task,
    data: &Path,
    split: Option<&str>,
    classes: Option<&Path>,
) -> Result<Option<Box<dyn SegmentationSet>>, DataError> {
    refuse_split(task, data, split)?;
    Ok(Some(match task {
        Task::Voc => Box::new(open_voc(data, split)?),
        Task::Context => Box::new(open_context(data, split)?),
        Task::Context59 => Box::new(open_context59(data, split)?),
        Task::Ade20k => Box::new(open_ade20k(data, split)?),
        Task::Coco => Box::new(open_coco_panoptic(data, split)?),
        Task::CocoObject => Box::new(open_coco_object(data, split)?),
        Task::CocoStuff => Box::new(open_coco_stuff(data, split)?),
        Task::Cityscapes => Box::new(open_cityscapes(data, split)?),
        Task::Custom => {
            let own = data.join("classes.txt");
            let classes = classes.unwrap_or(&own);
            Box::new(open_custom(
                &data.join("images"),
                &data.join("masks"),
                classes,
            )?)
        }
        Task::Folder
        | Task::Imagenet
        | Task::ImagenetV2
        | Task::Retrieval
        | Task::Waterbirds
        | Task::Compare => return Ok(None),
    }))
}

/// # Errors
/// A split is asked of a set that is one folder or file, and has none.
fn refuse_split(task: Task, data: &Path, split: Option<&str>) -> Result<(), DataError> {
    let has_none = match task {
        Task::Custom => true,
        Task::Retrieval => data.is_file(),
        _ => task.is_of_folders(),
    };
    match split.filter(|_| has_none) {
        None => Ok(()),
        Some(split) => Err(DataError::Setting(format!(
            "split {split}: {} has no splits; name what is to be measured with --data",
            name_of(task)
        ))),
    }
}

/// The last part of a path.
fn short_name(name: &str) -> String {
    Path::new(name)
        .file_name()
        .map_or_else(|| name.to_owned(), |n| n.to_string_lossy().into_owned())
}

fn compare_files(paths: &[PathBuf], common: &Common) -> anyhow::Result<Outcome> {
    if paths.is_empty() {
        return Err(Usage("name the result files to compare".into()).into());
    }
    let results = paths
        .iter()
        .map(|path| match path.is_dir() {
            // As --out of a run.
            true => EvalResult::read(&path.join("result.json")),
            false => EvalResult::read(path),
        })
        .collect::<Result<Vec<_>, _>>()?;
    let comparison = compare(&results);
    if common.json {
        print_line(&serde_json::to_string(&comparison)?)?;
    } else {
        print_line(comparison.markdown().trim_end())?;
    }
    Ok(Outcome::Done)
}
