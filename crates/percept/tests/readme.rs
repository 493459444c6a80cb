//! README's program is the example `library`, and it runs in a checkout with the model that ships.

use std::path::Path;

mod library {
    include!("../examples/library.rs");

    pub fn run() -> Result<(), Box<dyn std::error::Error>> {
        main()
    }
}

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
    // The only test of this process that goes by the working folder.
    std::env::set_current_dir(root()).unwrap();
    library::run().unwrap();
}
