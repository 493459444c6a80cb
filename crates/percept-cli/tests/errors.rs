//! What goes wrong is told once: every command and flag that takes a path, with paths that cannot
//! be used.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failing helper fails its test"
)]

mod common;

use std::cell::Cell;
use std::fs;
use std::path::Path;

use percept::image::{LabelMap, RgbImage, mask_png, png_rgb};

use crate::common::{percept_in, photos, text, tiny, write_shard};

/// Every command with a path in the place of `{}`; other words in braces are good ones.
const COMMANDS: &[&str] = &[
    "segment {} --labels cat",
    "segment {photo} --labels cat --model {}",
    "segment {photo} --labels-file {}",
    "segment {photo} --labels cat --templates {}",
    "segment {photo} --labels cat --format rle --categories {}",
    "group {}",
    "group {photo} --model {}",
    "classify {} --labels cat",
    "classify {photo} --labels-file {}",
    "classify {photo} --labels cat --templates {}",
    "embed {} --out {new}.npy",
    "embed {photo} --out {new}.npy --model {}",
    "eval voc --data {}",
    "eval ade20k --data {}",
    "eval coco --data {}",
    "eval cityscapes --data {}",
    "eval custom --data {}",
    "eval folder --data {}",
    "eval imagenet --data {}",
    "eval retrieval --data {}",
    "eval waterbirds --data {}",
    "eval folder --data {classes} --protocol {}",
    "eval folder --data {classes} --classes {}",
    "eval compare {}",
    "train --name x --logs {new} --recipe {}",
    "train --name x --logs {new} --resume {}",
    "train --name x --logs {new} --model {} --train-data {shard}",
    "train --name x --logs {new} --model {tiny} --train-data {}",
    "train --name x --logs {new} --model {tiny} --train-data {shard} --val-data {}",
    "train --name x --logs {new} --model {tiny} --train-data {shard} --tokenizer {}",
    "train --name x --logs {new} --model {tiny} --train-data {shard} --eval voc={}",
    "serve --addr 127.0.0.1:0 --api-key-file {}",
    "serve --addr 127.0.0.1:0 --model {}",
    "data spurious voc --data {} --objects cat,dog --place a={classes} --place b={classes} --out {new}",
    "data spurious custom --data {set} --objects cat,dog --place a={classes}/cat --place b={} --out {new}",
    "convert {} {new}",
    "convert --image {} --text {tiny} {new}",
    "convert --image {tiny} --text {} {new}",
    "convert {tiny} --average {} {new}",
    "convert {tiny} --tokenizer {} {new}",
    "info {}",
];

/// Commands with a folder to write in the place of `{}`.
const WRITERS: &[&str] = &[
    "segment {photo} --labels cat --size 64 --out {}",
    "group {photo} --size 64 --out {}",
    "embed {photo} --out {}.npy",
    "embed --text cat --out {}.safetensors",
    "eval folder --data {classes} --out {}",
    "eval folder --data {classes} --keep-tokens {}",
    "train --name x --model {tiny} --train-data {shard} --logs {}",
    "convert {tiny} {}",
];

/// A folder with good and bad files, and the number of the next new one.
struct Place(tempfile::TempDir, Cell<u32>);

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for class in ["cat", "dog"] {
            fs::create_dir_all(at("classes").join(class)).unwrap();
            let photo = at("classes").join(class).join("coffee.jpg");
            fs::copy(photos().join("coffee.jpg"), photo).unwrap();
        }
        // Photos with masks of one cat and one dog.
        for (name, class) in [("cat", 1), ("dog", 2)] {
            let is_thing = |x: u32, y: u32| (4..16).contains(&x) && (4..14).contains(&y);
            let mask = LabelMap::from_fn(24, 20, |x, y| if is_thing(x, y) { class } else { 0 });
            let photo = png_rgb(&RgbImage::new(24, 20)).unwrap();
            for (folder, bytes) in [("images", photo), ("masks", mask_png(&mask).unwrap())] {
                fs::create_dir_all(at(&format!("set/{folder}"))).unwrap();
                fs::write(at(&format!("set/{folder}/{name}.png")), bytes).unwrap();
            }
        }
        fs::write(at("set/classes.txt"), "background\ncat\ndog\n").unwrap();
        write_shard(folder.path(), "shard", 4);
        // Of the kind of each ending, and damaged.
        for ending in [
            "jpg",
            "json",
            "toml",
            "safetensors",
            "pt",
            "csv",
            "tar",
            "txt",
        ] {
            fs::write(at(&format!("damaged.{ending}")), b"\xff\xfe{\"a\": \0[}").unwrap();
        }
        fs::write(at("list.json"), b"[1, 2, {\"a\": }]").unwrap();
        fs::create_dir(at("empty")).unwrap();
        fs::create_dir(at("model")).unwrap();
        fs::write(at("model/config.json"), b"{\"image\": ").unwrap();
        fs::write(at("model/model.safetensors"), b"\x10\0\0\0\0\0\0\0{\"w\": ").unwrap();
        // Nobody can open these, root included.
        #[cfg(unix)]
        std::os::unix::fs::symlink("loop", at("loop")).unwrap();
        Self(folder, Cell::new(0))
    }

    fn at(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    /// What a command says on standard error when it fails, which it must unless `may_work`.
    fn failure(&self, command: &str, bad: &str) -> Option<String> {
        self.1.set(self.1.get() + 1);
        let words: Vec<String> = command
            .split_whitespace()
            .map(|word| {
                word.replace("{}", bad)
                    .replace("{photo}", &self.at("classes/cat/coffee.jpg"))
                    .replace("{classes}", &self.at("classes"))
                    .replace("{set}", &self.at("set"))
                    .replace("{shard}", &self.at("shard.tar"))
                    .replace("{tiny}", tiny().to_str().unwrap())
                    .replace("{new}", &self.at(&format!("new{}", self.1.get())))
            })
            .collect();
        let mut program = percept_in(self.0.path());
        program.args(&words);
        if !command.contains("--model") && !["info", "convert"].contains(&words[0].as_str()) {
            program.env("PERCEPT_MODEL", tiny());
        }
        let output = program.output().unwrap();
        let said = text(&output.stderr);
        assert!(!said.contains("panicked"), "{command} {bad}: {said}");
        if output.status.success() {
            return None;
        }
        let line = said.lines().find(|line| line.starts_with("error: "));
        Some(
            line.unwrap_or_else(|| panic!("{command} {bad}: {said}"))
                .to_owned(),
        )
    }
}

/// What is wrong with a message that should name the path, say each of its parts once, and say why.
fn fault(message: &str, path: &str) -> Option<&'static str> {
    let parts: Vec<&str> = message.split(": ").collect();
    let reason = message.trim_start_matches("error: ").replace(path, "");
    let words = reason.split(|c: char| !c.is_alphabetic());
    if !message.contains(path) {
        Some("does not name the path")
    } else if (1..parts.len()).any(|i| parts[..i].contains(&parts[i])) {
        Some("says a part twice")
    } else if message.matches("(os error").count() > 1 {
        Some("gives two errors of the system")
    } else if words.filter(|word| word.len() > 1).count() < 2 {
        Some("gives no reason")
    } else {
        None
    }
}

/// Commands, messages and what is wrong with them, to see all at once.
#[derive(Default)]
struct Faults(String);

impl Faults {
    fn check(&mut self, command: &str, message: &str, path: &str) {
        if let Some(fault) = fault(message, path) {
            self.0 += &format!("{fault}: {command}\n    {message}\n");
        }
    }
}

#[test]
fn paths_that_cannot_be_read_are_told_once_with_the_reason() {
    let place = Place::new();
    let damaged = |command: &str| {
        let ending = [
            ("--recipe", "toml"),
            ("--protocol", "toml"),
            ("--labels-file", "txt"),
            ("--templates", "txt"),
            ("--classes", "txt"),
            ("--api-key-file", "txt"),
            ("--tokenizer", "json"),
            ("compare", "json"),
            ("retrieval", "csv"),
            ("-data", "tar"),
            ("segment {}", "jpg"),
            ("group {}", "jpg"),
            ("classify {}", "jpg"),
            ("embed {}", "jpg"),
        ];
        let found = ending.iter().find(|(flag, _)| {
            command.contains(&format!("{flag} {{}}")) || command.starts_with(flag)
        });
        format!("damaged.{}", found.map_or("pt", |(_, ending)| ending))
    };
    let mut faults = Faults::default();
    for command in COMMANDS {
        let bad = [
            "nowhere/at/all".to_owned(),
            damaged(command),
            "damaged.safetensors".into(),
            "list.json".into(),
            "empty".into(),
            "model".into(),
            #[cfg(unix)]
            "loop".into(),
        ];
        for name in bad {
            let path = place.at(&name);
            if let Some(message) = place.failure(command, &path) {
                faults.check(command, &message, &path);
            } else {
                // Some of these are good for some: labels may be any text.
                let unlikely = name.starts_with("nowhere") || name == "loop";
                assert!(!unlikely, "{command} worked with {name}");
            }
        }
    }
    assert!(faults.0.is_empty(), "{}", faults.0);
}

#[test]
fn paths_that_cannot_be_written_are_told_once_with_the_reason() {
    let place = Place::new();
    fs::write(place.at("file"), b"").unwrap();
    let mut faults = Faults::default();
    let below = place.at("file/new");
    // What is kept to save time is left out where it cannot be.
    let kept = "segment {photo} --labels cat --size 64 --text-cache {}";
    assert_eq!(place.failure(kept, &below), None);
    for command in WRITERS {
        let message = place.failure(command, &below);
        let message = message.unwrap_or_else(|| panic!("{command} worked"));
        faults.check(command, &message, &place.at("file"));
    }
    assert!(faults.0.is_empty(), "{}", faults.0);
    assert!(Path::new(&place.at("file")).is_file());
}
