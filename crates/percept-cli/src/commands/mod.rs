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

use percept::{Label, Model, Templates, Window};

use crate::Usage;
use crate::args::{LabelArgs, ViewArgs};

/// The labels of `--labels` or `--labels-file`.
fn labels(args: &LabelArgs) -> Result<Vec<Label>, percept::Error> {
    match (&args.labels, &args.labels_file) {
        (Some(list), _) => percept::parse_labels(list),
        (None, Some(path)) => percept::read_labels(path),
        (None, None) => percept::parse_labels(""),
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

/// `34 %`, or `<1 %` where rounding would say nothing is there.
fn percent(share: f32) -> String {
    if share > 0.0 && share < 0.005 {
        "<1 %".into()
    } else {
        format!("{:.0} %", 100.0 * share)
    }
}
