//! From arguments to [`Cli`]: what clap cannot know about them.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches};

use super::{Cli, Command, Format, GroupArgs, OutputArgs, SegmentArgs, Task};

/// Flags that people try where there are none, and what does what they are after. The commands are
/// separated by spaces; none stands for all.
const TRIED: [(&str, &[&str], &str); 12] = [
    (
        "group",
        &[
            "--labels",
            "-l",
            "--labels-file",
            "--templates",
            "--background",
            "-b",
        ],
        "group divides photos without words; to find things by name: percept segment PHOTO --labels \"dog, grass\"",
    ),
    (
        "segment classify",
        &["--groups", "-g", "--centered"],
        "to divide photos without words: percept group PHOTO --groups 6",
    ),
    (
        "segment classify",
        &[
            "--classes",
            "--class",
            "--prompt",
            "--prompts",
            "--text",
            "--texts",
            "--names",
            "--words",
            "--query",
            "--queries",
        ],
        "what to look for goes to --labels \"dog, grass\"",
    ),
    (
        "segment",
        &[
            "--threshold",
            "--conf",
            "--confidence",
            "--score",
            "--min-score",
        ],
        "the similarity below which pixels are background is --background 0.2",
    ),
    (
        "segment group classify embed",
        &[
            "--input", "--inputs", "--image", "--images", "--photo", "--photos", "--source", "-i",
        ],
        "photos need no flag: percept segment PHOTO …",
    ),
    (
        "segment group embed convert eval",
        &[
            "--output",
            "--output-dir",
            "--out-dir",
            "--outdir",
            "--save-dir",
            "--save",
        ],
        "where results go is --out",
    ),
    (
        "serve",
        &["--port", "--host", "--bind", "-p"],
        "the address to listen at is --addr 8091, or --addr 0.0.0.0:8091 for other machines",
    ),
    (
        "info",
        &["--model", "-m"],
        "the model needs no flag here: percept info MODEL",
    ),
    (
        "convert",
        &["--model", "-m"],
        "the model needs no flag here: percept convert MODEL OUT",
    ),
    (
        "pull",
        &["--model", "-m"],
        "the model needs no flag here: percept pull NAME",
    ),
    (
        "",
        &["--gpu", "--gpus", "--cuda", "--mps", "--cpu"],
        "where to compute is --device, such as --device vulkan",
    ),
    (
        "",
        &["--fp16", "--half", "--bf16", "--int8", "--dtype", "--amp"],
        "how exactly to compute is --precision bf16 or int8; how to store a model, percept convert --storage",
    ),
];

/// The command line, with which of its flags were given.
///
/// # Errors
/// As clap; what clap cannot know is told with it.
pub fn parse() -> Result<(Cli, ArgMatches), clap::Error> {
    let arguments: Vec<_> = std::env::args_os().collect();
    let mut command = Cli::command();
    let matches = command.try_get_matches_from_mut(&arguments);
    let matches = matches.map_err(|mut error| {
        let words = arguments
            .iter()
            .skip(1)
            .filter_map(|argument| argument.to_str());
        let names = Cli::command();
        let name = words.filter_map(|word| names.find_subcommand(word)).next();
        if let Some(hint) = name.and_then(|name| hint(name.get_name(), &names, &error)) {
            let hint = ContextValue::StyledStrs(vec![hint.into()]);
            // Its own guess goes by the spelling.
            error.remove(ContextKind::SuggestedArg);
            error.insert(ContextKind::Suggested, hint);
        }
        error
    })?;
    let cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
    Ok((cli, matches))
}

/// What to say of a flag that `command`, one of those of `all`, does not have.
fn hint(command: &str, all: &clap::Command, error: &clap::Error) -> Option<String> {
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let flag = flag.split(['=', ' ']).next()?;
    let tried = TRIED.iter().find(|(commands, flags, _)| {
        let is_meant = commands.is_empty() || commands.split(' ').any(|name| name == command);
        is_meant && flags.contains(&flag)
    });
    if let Some((.., hint)) = tried {
        return Some((*hint).to_owned());
    }
    let long = flag.strip_prefix("--")?;
    let has_it = |command: &clap::Command| {
        command
            .get_arguments()
            .any(|arg| arg.get_long() == Some(long))
    };
    let others = all.get_subcommands().filter(|other| has_it(other));
    let others: Vec<&str> = others.map(clap::Command::get_name).collect();
    (!others.is_empty()).then(|| {
        format!(
            "percept {command} has no use for {flag}, which is for {}",
            others.join(", ")
        )
    })
}

/// A flag that was given, and that what the others ask for has no use for, with the reason.
pub fn ignored(cli: &Cli, matches: &ArgMatches) -> Option<String> {
    let (_, matches) = matches.subcommand()?;
    let is_given = |id: &str| {
        // Not from a variable of the environment, which is for all commands.
        matches!(matches.try_contains_id(id), Ok(true))
            && matches.value_source(id) == Some(ValueSource::CommandLine)
    };
    let given = || {
        matches
            .ids()
            .map(clap::Id::as_str)
            .filter(|id| is_given(id))
    };
    let any_of = |ids: &[&str]| {
        let given = ids.iter().find(|id| is_given(id));
        given.map(|id| (*id).to_owned())
    };
    let overlays = ["opacity", "overlay_size", "no_legend"];
    let writes = |output: &OutputArgs, format| output.format.contains(&format);
    let other_than = |used: &[&str]| given().find(|id| !used.contains(id)).map(str::to_owned);
    let (id, why) = match &cli.command {
        Command::Eval(args) if args.task == Some(Task::Compare) => (
            other_than(&["task", "results", "json", "quiet", "verbose"]),
            "compare reads result files alone",
        ),
        Command::Eval(args) if args.show_protocol => (
            other_than(&[
                "task",
                "protocol",
                "set",
                "show_protocol",
                "quiet",
                "verbose",
            ]),
            "--show-protocol prints the protocol and stops",
        ),
        Command::Eval(args) if !args.task.is_some_and(Task::takes_names) && is_given("classes") => {
            (
                any_of(&["classes"]),
                "only folder and custom take names of one's own",
            )
        }
        Command::Eval(args) if !args.task.is_some_and(Task::is_of_folders) => (
            any_of(&["keep_empty_classes"]),
            "only folder, imagenet and imagenet-v2 have a folder for each class",
        ),
        Command::Segment(args) if !writes(&args.output, Format::Rle) && is_given("categories") => (
            any_of(&["categories"]),
            "only --format rle has numbers of categories",
        ),
        Command::Segment(SegmentArgs { output, .. }) | Command::Group(GroupArgs { output, .. })
            if !writes(output, Format::Overlay) =>
        {
            (any_of(&overlays), "only --format overlay makes overlays")
        }
        Command::Embed(args) if !args.text.is_empty() => {
            (any_of(&["batch_size"]), "texts are encoded together")
        }
        Command::Embed(_) => (any_of(&["text_cache"]), "photos are no texts"),
        _ => return None,
    };
    Some(format!("--{}: {why}", id?.replace('_', "-")))
}
