//! `docs/compatibility.md` tells the truth about itself: every row names tests, and they exist.

#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Columns of the table; the last one names the tests.
const COLUMNS: usize = 4;

#[test]
fn every_row_of_the_compatibility_table_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let table = std::fs::read_to_string(root.join("docs/compatibility.md")).unwrap();
    let rows: Vec<Vec<&str>> = table.lines().filter_map(cells).collect();
    assert!(rows.len() > 100, "only {} rows were found", rows.len());

    let tests = tests_of(&root.join("crates"));
    let mut wrong = Vec::new();
    for row in rows {
        if row.len() != COLUMNS {
            wrong.push(format!("{} columns, not {COLUMNS}: {}", row.len(), row[0]));
            continue;
        }
        let named: Vec<&str> = row[COLUMNS - 1].split('`').skip(1).step_by(2).collect();
        if named.is_empty() {
            wrong.push(format!("no test: {} | {}", row[0], row[1]));
        }
        for name in named {
            let (krate, test) = (
                name.split("::").next().unwrap(),
                name.rsplit("::").next().unwrap(),
            );
            if !tests.contains(&(krate.to_owned(), test.to_owned())) {
                wrong.push(format!("no such test as {name}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The cells of a row of a Markdown table, if the line is one and neither head nor rule. `\|` is no border.
fn cells(line: &str) -> Option<Vec<&str>> {
    let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    let mut cells = Vec::new();
    let mut start = 0;
    for (at, _) in inner.match_indices('|') {
        if !inner[..at].ends_with('\\') {
            cells.push(inner[start..at].trim());
            start = at + 1;
        }
    }
    cells.push(inner[start..].trim());
    let is_rule = cells[0].starts_with("--") || cells[0].starts_with(":-");
    let is_head = cells.last() == Some(&"test");
    (!is_rule && !is_head).then_some(cells)
}

/// The tests of every crate, as crate and name.
fn tests_of(crates: &Path) -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    for folder in std::fs::read_dir(crates).unwrap() {
        let folder = folder.unwrap();
        let krate = folder.file_name().into_string().unwrap();
        for file in sources(&folder.path()) {
            let text = std::fs::read_to_string(&file).unwrap();
            let mut is_test = false;
            for line in text.lines().map(str::trim_start) {
                is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
                let Some(rest) = line.strip_prefix("async fn ").or(line.strip_prefix("fn ")) else {
                    continue;
                };
                if std::mem::take(&mut is_test) {
                    let name = rest.split(['(', '<']).next().unwrap();
                    found.insert((krate.clone(), name.to_owned()));
                }
            }
        }
    }
    found
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
    found
}
