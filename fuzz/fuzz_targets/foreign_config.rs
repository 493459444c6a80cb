//! Configuration files of other libraries: reading never panics, and what is read is within bounds.
#![no_main]

// The files themselves rather than percept-model, which would bring Burn into every fuzz build.
#[allow(dead_code)]
#[path = "../../crates/percept-model/src/config.rs"]
mod config;
#[allow(dead_code)]
#[path = "../../crates/percept-model/src/json_file.rs"]
mod json_file;
#[allow(dead_code)]
#[path = "../../crates/percept-model/src/names.rs"]
mod names;
#[allow(dead_code)]
#[path = "../../crates/percept-model/src/preprocessing.rs"]
mod preprocessing;
#[allow(dead_code)]
#[path = "../../crates/percept-model/src/sentence_transformers.rs"]
mod sentence_transformers;

use std::path::{Path, PathBuf};

use config::{DenseActivation, TextPooling};
use libfuzzer_sys::fuzz_target;

/// What those files know of percept-model's own.
#[allow(dead_code)]
#[derive(Debug)]
enum ModelError {
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    Config(PathBuf, String),
}

impl ModelError {
    fn config(path: &Path, reason: impl Into<String>) -> Self {
        Self::Config(path.to_owned(), reason.into())
    }
}

/// Files that one input is written to, one of them at a time.
const FILES: [&str; 8] = [
    "preprocessor_config.json",
    "config.json",
    "open_clip_config.json",
    "modules.json",
    "1_Pooling/config.json",
    "2_Dense/config.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
];

fuzz_target!(|bytes: &[u8]| {
    let Some((first, rest)) = bytes.split_first() else {
        return;
    };
    if let Ok(name) = std::str::from_utf8(rest) {
        let spelled = names::canonical(name);
        assert!(!spelled.split('.').any(|part| part == "_orig_mod"));
    }
    let folder = std::env::temp_dir().join(format!("percept-fuzz-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    let file = folder.join(FILES[usize::from(*first) % FILES.len()]);
    std::fs::create_dir_all(file.parent().expect("it is in the folder")).expect("a folder");
    std::fs::write(&file, rest).expect("a file");
    if let Ok(config) = json_file::JsonFile::read(&folder.join("config.json"))
        && let Ok(found) = preprocessing::Preprocessing::read(&folder, &config)
        && let Some(numbers) = found.normalization
    {
        assert!(numbers.std.iter().all(|std| *std > 0.0));
    }
    if let Ok(pipeline) = sentence_transformers::Pipeline::read(&folder) {
        assert!(pipeline.transformer.starts_with(&folder));
    }
});
