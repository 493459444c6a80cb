//! Finding the model that a command is to use.

use std::path::{Path, PathBuf};

use percept::model::ModelError;
use percept::model::weights::{LeftOutAs, LoadReport};
use percept::{Device, Hints, Model, ModelFiles, Precision};
use percept_hub::{Hub, Reference};

use crate::Usage;
use crate::args::Common;
use crate::console::Console;

/// The model that comes with percept.
const SHIPPED: &str = "models/percept-s14";

/// Loads the model of `--model`, its text tower only when there is a text that no earlier run embedded.
///
/// # Errors
/// None was named and none is shipped, the name is unknown or not downloaded, or loading fails.
pub fn load(common: &Common, console: &Console) -> anyhow::Result<Model> {
    let (model, _) = load_on_demand(common, console)?;
    Ok(model)
}

/// As [`load`], with the model's [digest](ModelFiles::digest), for runs that another may take up.
///
/// # Errors
/// As [`load`].
pub fn load_known(common: &Common, console: &Console) -> anyhow::Result<(Model, String)> {
    let (model, files) = load_on_demand(common, console)?;
    let digest = files.digest()?;
    Ok((model, digest))
}

fn load_on_demand(common: &Common, console: &Console) -> anyhow::Result<(Model, ModelFiles)> {
    let cache = text_cache(common);
    load_by(common, console, |files, device, precision| {
        Model::with_texts_on_demand(files, device, precision, cache.as_deref())
    })
}

/// The whole model of `--model`, for runs whose numbers are kept and for services, and where it was found.
///
/// # Errors
/// As [`load`].
pub fn load_whole(common: &Common, console: &Console) -> anyhow::Result<(Model, PathBuf)> {
    let (model, files) = load_by(common, console, Model::from_files)?;
    Ok((model, files.path))
}

/// The model of `--model` as it was named, else where the one that comes with percept is.
pub fn named(common: &Common) -> Option<String> {
    let shipped = || shipped().map(|path| path.display().to_string());
    common.model.clone().or_else(shipped)
}

/// Where embeddings of texts are kept between runs, if anywhere.
fn text_cache(common: &Common) -> Option<PathBuf> {
    match &common.text_cache {
        Some(folder) if folder.as_os_str() == "off" => None,
        Some(folder) => Some(folder.clone()),
        None => user_folder("XDG_CACHE_HOME", ".cache").map(|cache| cache.join("percept/texts")),
    }
}

/// The folder that a variable names, else the one that is its default under the user's home. One that is not
/// absolute is none (XDG Base Directory Specification).
fn user_folder(variable: &str, under_home: &str) -> Option<PathBuf> {
    let named = std::env::var_os(variable).map(PathBuf::from);
    let named = named.filter(|folder| folder.is_absolute());
    let folder = named.or_else(|| Some(std::env::home_dir()?.join(under_home)));
    folder.filter(|folder| folder.is_absolute())
}

fn load_by(
    common: &Common,
    console: &Console,
    load: impl FnOnce(&ModelFiles, &Device, Precision) -> Result<Model, ModelError>,
) -> anyhow::Result<(Model, ModelFiles)> {
    let path = match &common.model {
        Some(name) => resolve(name)?,
        None => shipped().ok_or_else(|| {
            Usage(
                "no model named and none found beside percept; name one with --model, such as \
                 `percept pull clippy`, then `--model clippy`"
                    .into(),
            )
        })?,
    };
    let device = percept::device(&common.device).map_err(Usage::of)?;
    let hints = Hints {
        allow_unused: common.allow_unused,
        ..Hints::default()
    };
    let files = ModelFiles::open(&path, &hints)?;
    tell_left_out(&files.report, console);
    let wanted = Precision::from(common.precision);
    let model = load(&files, &device, wanted)?;
    crate::memory::turn_to_photos();
    console.detail(&format!("model {} on {}", path.display(), common.device));
    if let Some(kernel) = model.kernel() {
        console.detail(&format!("products: {}", kernel.name()));
    }
    if wanted != model.precision() {
        console.note(&format!(
            "--precision {}: nothing here is faster with it; computing in f32",
            wanted.name()
        ));
    }
    Ok((model, files))
}

/// Says what of a checkpoint is left out: what may matter to everyone, the rest to those who ask for more.
pub fn tell_left_out(report: &LoadReport, console: &Console) {
    if !report.unused.is_empty() {
        console.note(&format!("--allow-unused: left out, {report}"));
    }
    for (what, line) in report.left_out.keys().zip(report.left_out_lines()) {
        let line = format!("left out: {line}");
        match what {
            LeftOutAs::OtherTower { .. } | LeftOutAs::BesideTaken { .. } => console.note(&line),
            _ => console.detail(&line),
        }
    }
}

/// A path as it is; a name or `hf:` reference from the cache.
///
/// # Errors
/// There is no such path, and no such name, or it has not been pulled.
pub fn resolve(name: &str) -> anyhow::Result<PathBuf> {
    let path = Path::new(name);
    if path.exists() {
        return Ok(path.to_owned());
    }
    let looks_like_path = name.contains(['/', '\\']) && !name.starts_with("hf:")
        || [".pt", ".pth", ".bin", ".safetensors"]
            .iter()
            .any(|ending| name.ends_with(ending));
    if looks_like_path {
        return Err(Usage(format!("{name}: no such model file or folder")).into());
    }
    let reference: Reference = name
        .parse()
        .map_err(|e: percept_hub::HubError| with_path(name, Usage::of(e)))?;
    let found = Hub::from_env()?.find(&reference);
    found.map_err(|e| with_path(name, Usage::of(e)).into())
}

/// An error of a name that may have been meant as a path.
fn with_path(name: &str, Usage(reason): Usage) -> Usage {
    match name.contains(':') {
        true => Usage(reason),
        false => Usage(format!("{reason}; and there is no such file or folder")),
    }
}

/// Looks for the model that comes with percept: in the working folder; in the folder of the program
/// and those above it, which covers a build in a checkout; in the user's data folder.
fn shipped() -> Option<PathBuf> {
    let program = std::env::current_exe().unwrap_or_default();
    let beside = program.ancestors().skip(1).map(|above| above.join(SHIPPED));
    let data = user_folder("XDG_DATA_HOME", ".local/share");
    std::iter::once(PathBuf::from(SHIPPED))
        .chain(beside)
        .chain(data.map(|data| data.join("percept").join(SHIPPED)))
        .find(|path| path.is_dir())
}
