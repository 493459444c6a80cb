//! `percept convert`

use std::path::{Path, PathBuf};

use percept::image::{Filter, Normalization as Numbers};
use percept::model::{PositionInterpolation, Storage as Stored, Tokenizer};
use percept::{Hints, ModelFiles, Templates, Towers};
use serde_json::json;

use crate::args::{
    Common, ConvertArgs, HintArgs, Interpolation, Normalization, ResizeFilter, Storage,
};
use crate::console::Console;
use crate::output::print_line;
use crate::{Outcome, Usage, models};

/// Files of a model folder.
const OWN: [&str; 3] = ["config.json", "model.safetensors", "tokenizer.json"];

pub fn run(args: &ConvertArgs, common: &Common, console: &Console) -> anyhow::Result<Outcome> {
    let (source, out) = match args.paths.as_slice() {
        [out] => (None, out),
        [source, out] => (Some(source), out),
        _ => return Err(Usage("convert takes a model and a folder to write".into()).into()),
    };
    if !args.force {
        refuse_loss(out)?;
    }
    let hints = Hints {
        allow_unused: common.allow_unused,
        ..hints(&args.hints)
    };
    let mut files = find(source, args, &hints)?;
    if !args.templates.is_empty() {
        Templates::new(args.templates.clone())?;
        files.config.templates.clone_from(&args.templates);
    }
    files.config.name.clone_from(&args.name);
    match (&files.config.text, &files.tokenizer) {
        (Some(text), Some(path)) => {
            Tokenizer::open(path, text.max_tokens(), text.vocab_size())?;
        }
        (Some(_), None) => {
            return Err(percept::model::ModelError::NoTokenizer {
                path: files.path.clone(),
            }
            .into());
        }
        (None, _) => {}
    }

    let device = percept::device(&common.device).map_err(Usage::of)?;
    let mut towers = Towers::load(&files, &device)?;
    if !args.average.is_empty() {
        let load = |path: &PathBuf| -> anyhow::Result<Towers> {
            Ok(Towers::load(&open(path, &hints)?, &device)?)
        };
        let others: anyhow::Result<Vec<Towers>> = args.average.iter().map(load).collect();
        towers = towers.mean_with(&others?)?;
    }
    models::tell_left_out(&towers.report, console);
    let storage = match args.storage {
        Storage::F32 => Stored::F32,
        Storage::F16 => Stored::F16,
        Storage::Int8 => Stored::Int8,
    };
    let tokenizer = files.config.text.as_ref().and(files.tokenizer.as_deref());
    towers.save(&files.config, tokenizer, storage, out)?;
    if common.json {
        let line = json!({
            "model": out.display().to_string(),
            "config": files.config,
            "unused": towers.report.unused.iter().map(|unused| &unused.name).collect::<Vec<_>>(),
            "left_out": towers.report.left_out,
        });
        print_line(&line.to_string())?;
    } else {
        console.note(&format!("model written to {}", out.display()));
    }
    Ok(Outcome::Done)
}

/// # Errors
/// [`Usage`] where `folder` has files and is no model of percept's, which is what a model replaces.
fn refuse_loss(folder: &Path) -> Result<(), Usage> {
    let shown = folder.display();
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
            let reason = format!("{shown}: is a file; a model is written to a folder");
            return Err(Usage(reason));
        }
        // There is none yet, or writing to it says why that fails.
        Err(_) => return Ok(()),
    };
    let config = std::fs::read(folder.join("config.json")).unwrap_or_default();
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap_or_default();
    if (config["format"].as_str()).is_some_and(|format| format.starts_with("percept")) {
        return Ok(());
    }
    let names = entries.flatten().map(|entry| entry.file_name());
    let mut names: Vec<String> = names
        .map(|name| name.to_string_lossy().into_owned())
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort();
    let lost = names.iter().map(String::as_str);
    let lost: Vec<&str> = lost.filter(|name| OWN.contains(name)).collect();
    match (names.first(), lost.as_slice()) {
        (None, _) => Ok(()),
        (Some(first), []) => Err(Usage(format!(
            "{shown} has other files ({first}) and is no model of percept's; name a folder of its own, or \
             add --force"
        ))),
        (_, lost) => Err(Usage(format!(
            "{shown} is no model of percept's, and its {} would be lost; name another folder, or add --force",
            lost.join(", ")
        ))),
    }
}

fn open(path: &Path, hints: &Hints) -> anyhow::Result<ModelFiles> {
    let path = models::resolve(&path.to_string_lossy())?;
    Ok(ModelFiles::open(&path, hints)?)
}

/// The towers that the flags name.
fn find(source: Option<&PathBuf>, args: &ConvertArgs, hints: &Hints) -> anyhow::Result<ModelFiles> {
    let open = |path: &Path| open(path, hints);
    match (source, &args.image, &args.text) {
        (Some(source), None, None) => open(source),
        (None, Some(image), Some(text)) => Ok(open(image)?.with_text_of(open(text)?)?),
        (None, Some(one), None) | (None, None, Some(one)) => open(one),
        (Some(source), Some(image), None) => Ok(open(image)?.with_text_of(open(source)?)?),
        (Some(source), None, Some(text)) => Ok(open(source)?.with_text_of(open(text)?)?),
        (Some(_), Some(_), Some(_)) => Err(Usage(
            "a model and both --image and --text leave nothing of the model; drop one".into(),
        )
        .into()),
        (None, None, None) => Err(Usage(
            "name a model to convert, or its towers with --image and --text".into(),
        )
        .into()),
    }
}

fn hints(args: &HintArgs) -> Hints {
    Hints {
        pooling: args.pool,
        heads: args.heads,
        interpolation: args.interpolation.map(|rule| match rule {
            Interpolation::Dino => PositionInterpolation::Dino,
            Interpolation::Timm => PositionInterpolation::Timm,
            Interpolation::Size => PositionInterpolation::Size,
        }),
        normalization: match (args.normalization, args.mean.zip(args.std)) {
            (Some(Normalization::Imagenet), _) => Some(Numbers::IMAGENET),
            (Some(Normalization::Openai), _) => Some(Numbers::OPENAI),
            (None, Some((mean, std))) => Some(Numbers { mean, std }),
            (None, None) => None,
        },
        filter: args.filter.map(|filter| match filter {
            ResizeFilter::Nearest => Filter::Nearest,
            ResizeFilter::Box => Filter::Box,
            ResizeFilter::Bilinear => Filter::Bilinear,
            ResizeFilter::Bicubic => Filter::Bicubic,
            ResizeFilter::Lanczos => Filter::Lanczos,
        }),
        image_size: args.image_size,
        prefix: args.prefix.clone(),
        tokenizer: args.tokenizer.clone(),
        ..Hints::default()
    }
}
