//! README's program is the example `library`, and it runs in a checkout with the model that ships.

use std::path::Path;
use std::process::Command;

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

#[test]
fn it_stands_in_the_readme_word_for_word() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let program = include_str!("../examples/library.rs");
    assert!(readme.contains(&format!("```rust\n{program}```")));
    // The path of the one dependency, from a package beside the checkout.
    let dependency = readme.lines().find(|line| line.starts_with("percept = "));
    let path = dependency.and_then(|line| line.split('"').nth(1)).unwrap();
    let below = path.strip_prefix("../percept/").unwrap();
    assert!(root().join(below).join("Cargo.toml").is_file(), "{path}");
}

#[test]
fn it_runs() {
    // `cargo test` builds examples before it runs tests, into a folder beside theirs.
    let test = std::env::current_exe().unwrap();
    let built = test.ancestors().nth(2).unwrap().join("examples");
    let program = built.join(format!("library{}", std::env::consts::EXE_SUFFIX));
    assert!(
        program.is_file(),
        "{} is not built: run `cargo test -p percept`",
        program.display()
    );
    let output = Command::new(program).current_dir(root()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(said.starts_with("cat covers "), "{said}");
}
