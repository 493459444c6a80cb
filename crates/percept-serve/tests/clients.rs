//! The clients of README, run as they stand there: curl, Python and JavaScript.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failing helper fails its test"
)]

mod common;

use std::path::Path;
use std::process::Command;

use common::start;
use percept_serve::Config;

/// The code block of README that follows the line `<!-- client: NAME -->`.
fn snippet(name: &str) -> String {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let (_, rest) = readme
        .split_once(&format!("<!-- client: {name} -->\n"))
        .unwrap_or_else(|| panic!("README has no client {name}"));
    let block = rest.split("```").nth(1).unwrap();
    let (_, code) = block.split_once('\n').unwrap();
    code.to_owned()
}

/// Runs a client in a folder with a photo, against a server of its own. `false` where a program that it
/// needs is not installed.
fn run(name: &str, program: &str, needs: &[&str], arguments: &[&str]) -> bool {
    if !Command::new(program)
        .args(needs)
        .output()
        .is_ok_and(|o| o.status.success())
    {
        println!("SKIPPED: {program} {needs:?} does not work here");
        return false;
    }
    let server = start(Config::default());
    let folder = tempfile::tempdir().unwrap();
    let photo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/photos/coffee.jpg");
    std::fs::copy(photo, folder.path().join("photo.jpg")).unwrap();
    let code = snippet(name).replace("127.0.0.1:8080", &server.addr.to_string());
    let output = Command::new(program)
        .args(arguments)
        .arg(code)
        .current_dir(&folder)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{error}");
    let overlay = std::fs::read(folder.path().join("overlay.png")).unwrap();
    assert!(overlay.starts_with(b"\x89PNG"), "{said}{error}");
    assert!(
        said.contains("background") || said.contains("cup"),
        "{said}{error}"
    );
    true
}

#[test]
fn curl() {
    run("curl", "bash", &["-c", "curl --version"], &["-euc"]);
}

#[test]
fn python() {
    run("python", "python3", &["--version"], &["-c"]);
}

#[test]
fn javascript() {
    // `fetch` and `FormData` came with Node 18.
    let has_fetch = ["-e", "fetch.length, new FormData()"];
    run(
        "javascript",
        "node",
        &has_fetch,
        &["--input-type=module", "-e"],
    );
}
