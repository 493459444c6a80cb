//! One file a command: flags to library calls, results to lines.

pub mod classify;
pub mod convert;
pub mod data;
pub mod embed;
pub mod eval;
pub mod group;
pub mod info;
pub mod pull;
pub mod segment;
pub mod serve;
pub mod train;

use std::path::Path;

use percept::{Dictionary, Label, Model, Size, Templates, Window};
use percept_data::classes;
use serde_json::{Value, json};

use crate::Usage;
use crate::args::{LabelArgs, ViewArgs};
use crate::console::Console;

/// The labels of `--labels` or `--labels-file`.
///
/// # Errors
/// They cannot be read or used, or `--labels` names a file.
fn labels(args: &LabelArgs, console: &Console) -> anyhow::Result<Vec<Label>> {
    if let Some(path) = &args.labels_file {
        let list = percept::read_label_list(path)?;
        for note in &list.notes {
            console.note(&format!("{}: {note}", path.display()));
        }
        return Ok(list.into_labels());
    }
    let mut names = Vec::new();
    for list in &args.labels {
        refuse_file(list)?;
        let labels = percept::parse_labels(list)?;
        names.extend(labels.into_iter().map(|label| label.name));
    }
    // Once more, for what is in two of the lists.
    Ok(percept::labels_of(&names)?)
}

/// # Errors
/// [`Usage`] where `--labels` names a file.
fn refuse_file(list: &str) -> Result<(), Usage> {
    let named = list.trim().trim_start_matches('@');
    let path = crate::inputs::at_home(named.as_ref());
    let ending = path.extension().map(|ending| ending.to_ascii_lowercase());
    let is_list = ending.is_some_and(|ending| {
        ["txt", "names", "csv", "tsv", "json", "yaml", "yml"]
            .iter()
            .any(|list| ending == *list)
    });
    let is_photo = (path.extension()).is_some_and(|ending| {
        let ending = ending.to_string_lossy().to_lowercase();
        percept::image::EXTENSIONS.contains(&ending.as_str())
    });
    if is_photo && !named.contains(',') {
        return Err(Usage(format!(
            "--labels {list}: that is a photo and no label; photos need no flag, and labels say what is to be \
             found: percept segment {named} --labels \"dog, grass\""
        )));
    }
    // A label may have the name of a file without ending.
    if list.starts_with('@')
        || is_list && !named.contains(',')
        || path.is_file() && named.contains(['.', '/'])
    {
        return Err(Usage(format!(
            "--labels {list}: that is a file and no label; a file of labels goes to --labels-file"
        )));
    }
    Ok(())
}

/// Tells of labels that look like slips. They are used as they are.
fn hint(labels: &[Label], model: &Model, console: &Console) {
    if let [only] = labels
        && only.synonyms.len() < 2
        && only.name.split_whitespace().count() > 2
    {
        console.note(&format!(
            "\"{}\" is one label; several are separated by commas, or stand one a line in a file",
            percept::abbreviate(&only.name)
        ));
    }
    // More would be a page of hints, and a list of that size was checked by others.
    const MOST: usize = 100;
    let names = || labels.iter().take(MOST).map(|label| label.name.as_str());
    let known = || {
        let sets = [
            classes::voc(),
            classes::coco(),
            classes::ade20k(),
            classes::coco_stuff(),
            classes::context59(),
            classes::cityscapes(),
        ];
        let sets = sets.into_iter().flatten().flat_map(|class| class.synonyms);
        let imagenet = percept_data::imagenet_classes().into_iter();
        sets.chain(imagenet.flat_map(|class| class.name.synonyms))
            .chain(percept::everyday_words())
    };
    let dictionary = Dictionary::new(known());
    // Most labels need no tokeniser, whose words take as long as a photo.
    if names().all(|name| dictionary.is_plain(name)) {
        return;
    }
    // A model without text tower, or with a broken tokeniser, is told of where texts are encoded.
    let Ok(tokens) = model.vocabulary() else {
        return;
    };
    let dictionary = dictionary.with_tokens(tokens);
    for hint in names().filter_map(|name| dictionary.hint(name)) {
        console.note(&hint.to_string());
    }
}

/// The templates of `--templates`.
fn templates(args: &LabelArgs, model: &Model) -> anyhow::Result<Templates> {
    Ok(match args.templates.as_str() {
        "simple" => Templates::new(model.config().templates.clone())?,
        "imagenet7" => Templates::imagenet7(),
        "imagenet80" => Templates::imagenet80(),
        path if Path::new(path).is_file() => Templates::read(Path::new(path))?,
        other => {
            return Err(Usage(format!(
                "--templates {other}: not simple, imagenet7, imagenet80 or a file"
            ))
            .into());
        }
    })
}

/// The window of `--window` and `--stride`.
fn window(args: &ViewArgs) -> Option<Window> {
    let side = u32::try_from(args.window?).unwrap_or(u32::MAX);
    let stride = match args.stride {
        Some(stride) => u32::try_from(stride).unwrap_or(u32::MAX),
        None => side.div_ceil(2),
    };
    Some(Window { side, stride })
}

/// The size of `--size`, as files of settings have it.
fn size_json(size: Size) -> Value {
    match size {
        Size::ShortSide(side) => json!({ "short_side": side }),
        Size::Exact { width, height } => json!({ "width": width, "height": height }),
        Size::CenterCrop(side) => json!({ "center_crop": side }),
    }
}

/// `34 %`, or `<1 %` where rounding would say nothing is there.
fn percent(share: f32) -> String {
    if share > 0.0 && share < 0.005 {
        "<1 %".into()
    } else {
        format!("{:.0} %", 100.0 * share)
    }
}
