//! Benchmarks for perceptual grouping: protocols as data, metrics on plain arrays, runs that can be
//! resumed, reports that can be compared.
//!
//! A task ([`segmentation`], [`grouping`], [`classification`], [`retrieval`], [`waterbirds`]) takes
//! a dataset of percept-data and a [`Run`]: the model under test, the [`Protocol`], and how to carry
//! it out. It gives an [`EvalResult`], which [`write_report`] turns into files.

pub mod compare;
mod decide;
mod error;
pub mod metrics;
pub mod protocol;
pub mod published;
pub mod refine;
pub mod report;
pub mod result;
mod run;
mod subject;
mod tasks;
mod tokens;
mod vocabulary;

use std::path::Path;

pub use compare::compare;
pub use error::EvalError;
pub use protocol::Protocol;
pub use report::{Report, brief, html, markdown};
pub use result::EvalResult;
pub use run::{Event, Progress, RunOptions};
pub use subject::Subject;
pub use tasks::{Run, classification, grouping, retrieval, segmentation, waterbirds};
pub use vocabulary::Vocabulary;

/// Writes `result.json`, `result.md` and `report.html` into a folder, each whole or not at all.
///
/// `class_names` and `background` are those of the labels in the report's pictures.
///
/// # Errors
/// A file cannot be written.
pub fn write_report(
    result: &EvalResult,
    class_names: &[String],
    background: Option<u16>,
    folder: &Path,
) -> Result<(), EvalError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| EvalError::Io { path, source }
    };
    std::fs::create_dir_all(folder).map_err(io(folder))?;
    result
        .write_json(&folder.join("result.json"))
        .map_err(|e| EvalError::Setting(percept_image::message(&e)))?;
    let report = Report::new(result, class_names, background);
    for (name, text) in [
        ("result.md", markdown(result)),
        ("report.html", html(&report)),
    ] {
        let path = folder.join(name);
        percept_image::write_atomic(&path, text.as_bytes()).map_err(io(&path))?;
    }
    Ok(())
}
