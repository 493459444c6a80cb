//! What the tests of the command line share.

#![allow(dead_code, reason = "each test file takes what it needs")]
#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::ffi::OsString;
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
        .env("PERCEPT_TEXT_CACHE", folder.join("texts"))
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

/// The newest checkpoint of a folder, which need not exist.
pub fn newest(checkpoints: &Path) -> Option<OsString> {
    let names = std::fs::read_dir(checkpoints).ok()?;
    let names = names.map(|entry| entry.unwrap().file_name());
    let is_checkpoint =
        |name: &OsString| Path::new(name).extension() == Some("safetensors".as_ref());
    names.filter(is_checkpoint).max()
}

/// Writes the shard `NAME.tar` of photos with captions.
pub fn write_shard(folder: &Path, name: &str, pairs: u32) {
    let photo = percept::image::open(&photos().join("coffee.jpg"), &Default::default()).unwrap();
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |name: String, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, name, bytes).unwrap();
    };
    for at in 0..pairs {
        // Stretched differently, so that each is another photo; never square, so that a square crop
        // of all of it has one place.
        let (width, height) = (40 + at % 20, 70 + at / 20);
        let small = percept::image::resize(&photo, width, height, percept::image::Filter::Box);
        let bytes = percept::image::jpeg_rgb(&small, 80).unwrap();
        add(format!("{name}-{at:03}.jpg"), &bytes);
        let what = ["dog", "cat", "sofa"][at as usize % 3];
        let where_ = ["window", "door", "tree", "wall", "road"][at as usize % 5];
        add(
            format!("{name}-{at:03}.txt"),
            format!("a photo of a {what} near a {where_}").as_bytes(),
        );
    }
    let bytes = builder.into_inner().unwrap();
    std::fs::write(folder.join(format!("{name}.tar")), bytes).unwrap();
}

/// Sends what Ctrl-C sends, where there are signals.
pub fn interrupt(child: &std::process::Child) {
    // Built into shells; a program of the name need not be there.
    let sent = Command::new("sh")
        .args(["-c", "kill -INT \"$1\"", "sh", &child.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
}
