//! Any fields of a form, lists of labels and base64 are understood or refused, and nothing is made up.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde::Deserialize;

// The files of percept-serve that understand them, without the service around them.
#[allow(dead_code)]
#[path = "../../crates/percept-serve/src/fields.rs"]
mod fields;
#[allow(dead_code)]
#[path = "../../crates/percept-serve/src/values.rs"]
mod values;

mod config {
    pub(crate) const MAX_LABELS: usize = 1000;
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {
    #[allow(dead_code)]
    size: Option<u32>,
    #[serde(default)]
    #[allow(dead_code)]
    centered: bool,
    labels: Option<values::Names>,
}

fuzz_target!(|text: &str| {
    // Lines of `name=value`.
    let fields = text.lines().filter_map(|line| line.split_once('='));
    let fields = fields.map(|(name, value)| (name.to_owned(), fields::Field::One(value.to_owned())));
    if let Ok(params) = fields::from_fields::<Params>(fields.collect()) {
        let labels = params.labels.map_or(0, |names| names.0.len());
        assert!(labels <= config::MAX_LABELS + 2);
    }
    if let Ok(bytes) = values::from_base64(text) {
        assert!(bytes.len() <= text.len());
    }
    let _ = serde_json::from_str::<values::Names>(text);
});
