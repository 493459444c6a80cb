//! What the tests of the command line share.

#![allow(dead_code, reason = "each test file takes what it needs")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A dual encoder with random weights in the layout of the public CLIPpy checkpoint. It knows
/// nothing: no test is about its scores.
pub fn tiny() -> PathBuf {
    goldens().join("clippy/clippy.pt")
}

pub fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../percept-model/tests/goldens")
}

pub fn photos() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/photos")
}

/// `percept` in `folder`, away from any model, cache or network.
pub fn percept_in(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_percept"));
    command
        .current_dir(folder)
        .env("HF_HOME", folder)
        .env("HF_HUB_OFFLINE", "1")
        .env_remove("HF_HUB_CACHE")
        .env_remove("PERCEPT_MODEL")
        .stdin(Stdio::null());
    command
}

/// Runs percept in an empty folder.
pub fn percept(args: &[&str]) -> Output {
    let empty = tempfile::tempdir().unwrap();
    percept_in(empty.path()).args(args).output().unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// `output` must have ended with `code` and said `message`, without a panic.
pub fn expect(output: &Output, code: i32, message: &str) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains(message), "{said}");
    assert!(!said.contains("panicked"), "{said}");
}
