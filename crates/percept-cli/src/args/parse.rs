//! From arguments to [`Cli`]: what clap cannot know about them.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches};

use super::{Cli, Command, Task};

/// Flags that people try where there are none, and what does what they are after. The commands are
/// separated by spaces; none stands for all.
const TRIED: [(&str, &[&str], &str); 10] = [
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
        "info convert pull",
        &["--model", "-m"],
        "the model needs no flag here: percept info MODEL",
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
        Command::Eval(args) if !matches!(args.task, Some(Task::Folder | Task::Custom)) => (
            is_given("classes").then(|| "classes".into()),
            "only folder and custom take names of one's own",
        ),
        Command::Embed(args) if !args.text.is_empty() => (
            is_given("batch_size").then(|| "batch_size".into()),
            "texts are encoded together",
        ),
        Command::Embed(_) => (
            is_given("text_cache").then(|| "text_cache".into()),
            "photos are no texts",
        ),
        _ => return None,
    };
    Some(format!("--{}: {why}", id?.replace('_', "-")))
}
