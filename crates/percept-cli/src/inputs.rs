//! Which photos a command works on.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use percept::image::EXTENSIONS;

use crate::Usage;

/// Folders within folders are followed this far; a loop of links ends here.
const MAX_DEPTH: usize = 32;

/// One photo and the name of its results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// The photo.
    pub path: PathBuf,
    /// Its results are `OUT/NAME.*`: the path below the folder that was named, without ending.
    pub name: PathBuf,
}

/// All photos that the arguments name, each once: files as they are, folders searched for image
/// files in sorted order, globs expanded.
///
/// # Errors
/// [`Usage`] for an argument that names nothing.
pub fn expand(arguments: &[String]) -> anyhow::Result<Vec<Input>> {
    let mut found = Vec::new();
    for argument in arguments {
        let path = Path::new(argument);
        if path.is_dir() {
            let before = found.len();
            search(path, path, 0, &mut found)?;
            if found.len() == before {
                return Err(Usage(format!(
                    "{argument}: no images in this folder (looked for {})",
                    EXTENSIONS.join(", ")
                ))
                .into());
            }
        } else if path.exists() {
            found.push((path.to_owned(), file_name(path)));
        } else if argument.contains(['*', '?', '[']) {
            let before = found.len();
            let matches = glob::glob(argument).map_err(|e| Usage(format!("{argument}: {e}")))?;
            for path in matches {
                let path = path?;
                if path.is_file() {
                    let name = file_name(&path);
                    found.push((path, name));
                }
            }
            if found.len() == before {
                return Err(Usage(format!("{argument}: matches no file")).into());
            }
        } else if let Err(error) = path.metadata()
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(Usage(format!("{argument}: {error}")).into());
        } else {
            return Err(Usage(format!(
                "{argument}: no such file or folder{}",
                did_you_mean(path)
            ))
            .into());
        }
    }
    Ok(name_results(found))
}

fn file_name(path: &Path) -> PathBuf {
    path.file_name()
        .map_or_else(|| path.to_owned(), PathBuf::from)
}

/// Image files below `folder`, told by their endings; names are relative to `root`.
fn search(
    root: &Path,
    folder: &Path,
    depth: usize,
    found: &mut Vec<(PathBuf, PathBuf)>,
) -> anyhow::Result<()> {
    let in_folder =
        |e: std::io::Error| std::io::Error::new(e.kind(), format!("{}: {e}", folder.display()));
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| entry.map(|e| e.path())).collect())
        .map_err(in_folder)?;
    entries.sort();
    for path in entries {
        let hidden = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if hidden {
            continue;
        }
        if path.is_dir() {
            if depth < MAX_DEPTH {
                search(root, &path, depth + 1, found)?;
            }
        } else if has_image_ending(&path) {
            let name = path.strip_prefix(root).unwrap_or(&path).to_owned();
            found.push((path, name));
        }
    }
    Ok(())
}

fn has_image_ending(path: &Path) -> bool {
    path.extension().is_some_and(|ending| {
        let ending = ending.to_string_lossy().to_lowercase();
        EXTENSIONS.contains(&ending.as_str())
    })
}

/// Gives every photo a name of its own: `a.jpg` and `a.png` become `a` and `a.png`.
fn name_results(found: Vec<(PathBuf, PathBuf)>) -> Vec<Input> {
    let mut seen = HashSet::new();
    let mut taken = HashSet::new();
    let mut inputs = Vec::with_capacity(found.len());
    for (path, full) in found {
        if !seen.insert(path.clone()) {
            continue;
        }
        let mut name = full.with_extension("");
        let mut number = 2;
        if !taken.insert(name.clone()) {
            name = full.clone();
            while !taken.insert(name.clone()) {
                name = full.with_extension(format!("{number}"));
                number += 1;
            }
        }
        inputs.push(Input { path, name });
    }
    inputs
}

/// The entry of the same folder whose name is most like a missing one.
fn did_you_mean(missing: &Path) -> String {
    let folder = match missing.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let Some(wanted) = missing.file_name().map(|name| name.to_string_lossy()) else {
        return String::new();
    };
    std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| **name != *wanted)
        .map(|name| (strsim::normalized_damerau_levenshtein(&wanted, &name), name))
        .filter(|(likeness, _)| *likeness > 0.6)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| format!("; did you mean {}?", missing.with_file_name(name).display()))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_like_named_photos_do_not_collide() {
        let found = ["x/a.jpg", "y/a.png", "z/a.jpg", "x/a.jpg"]
            .map(|path| (PathBuf::from(path), file_name(Path::new(path))));
        let inputs = name_results(found.into());
        let names: Vec<_> = inputs.iter().map(|i| i.name.to_str().unwrap()).collect();
        assert_eq!(names, ["a", "a.png", "a.jpg"]);
    }

    #[test]
    fn a_slip_of_the_keyboard_is_guessed() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("garden.jpg"), b"").unwrap();
        let missing = folder.path().join("gardne.jpg");
        assert!(did_you_mean(&missing).contains("garden.jpg?"));
        assert_eq!(did_you_mean(&folder.path().join("zzz")), "");
    }
}
