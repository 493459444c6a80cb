//! Which photos a command works on.

use std::collections::HashSet;
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use percept::image::{EXTENSIONS, ImageError, Limits, RgbImage};

use crate::Usage;

/// Folders within folders are followed this far; a loop of links ends here.
const MAX_DEPTH: usize = 32;

/// The photo that comes from standard input.
const STDIN: &str = "-";

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
        let at_home = at_home(argument.as_ref());
        let path = at_home.as_path();
        if argument == STDIN {
            if std::io::stdin().is_terminal() {
                return Err(Usage(
                    "-: nothing is piped in; such as: percept segment - --labels cat < photo.jpg"
                        .into(),
                )
                .into());
            }
            found.push((STDIN.into(), "stdin".into()));
        } else if let Some(reason) = address(argument) {
            return Err(Usage(format!("{argument}: {reason}")).into());
        } else if path.is_dir() {
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
            let pattern = path.to_str().unwrap_or(argument);
            let matches = glob::glob(pattern).map_err(|e| Usage(format!("{argument}: {e}")))?;
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

/// A photo that [`expand`] found.
///
/// # Errors
/// It cannot be read or decoded.
pub fn open(path: &Path, limits: &Limits) -> Result<RgbImage, ImageError> {
    if path != Path::new(STDIN) {
        return percept::image::open(path, limits);
    }
    let mut bytes = Vec::new();
    let most = limits.max_file_bytes.saturating_add(1);
    std::io::stdin().lock().take(most).read_to_end(&mut bytes)?;
    percept::image::decode(&bytes, limits)
}

/// The path with the user's home in place of a `~` that no shell has replaced, unless there is such a file.
pub fn at_home(path: &Path) -> PathBuf {
    match (path.strip_prefix("~"), std::env::home_dir()) {
        (Ok(below), Some(home)) if !path.exists() => home.join(below),
        _ => path.to_owned(),
    }
}

/// What to say of an address; `None` for what is none.
fn address(argument: &str) -> Option<String> {
    let (scheme, rest) = argument.split_once(':')?;
    let is_scheme = scheme.len() > 1
        && scheme
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '+')
        && (rest.starts_with("//") || scheme == "data");
    if !is_scheme || Path::new(argument).exists() {
        return None;
    }
    Some(match scheme {
        "file" => "write the path without file://".into(),
        "data" => "a photo's data is read from a file, or with - from standard input".into(),
        "http" | "https" => format!(
            "percept opens no addresses; download the photo first, or pipe it in: curl -L {argument} | percept \
             segment - …"
        ),
        _ => "percept opens no addresses; download the photo first".into(),
    })
}

/// `--labels cat dog` gives one label and a photo called `dog`.
///
/// # Errors
/// [`Usage`] for an argument that is no file and looks like a label.
pub fn refuse_labels(arguments: &[String]) -> Result<(), Usage> {
    let is_label = |argument: &&String| {
        let argument = argument.as_str();
        argument != STDIN
            && !argument.contains(['.', '/', '\\', '*', '?', '[', ':'])
            && !Path::new(argument).exists()
    };
    match arguments.iter().find(is_label) {
        Some(argument) => Err(Usage(format!(
            "{argument}: no such file or folder; if it is a label: all labels go into one argument, --labels \
             \"cat, dog\"{}",
            did_you_mean(argument.as_ref())
        ))),
        None => Ok(()),
    }
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
    fn addresses_are_told_from_paths() {
        for (argument, reason) in [
            ("https://example.org/a.jpg", "download the photo first"),
            ("s3://bucket/a.jpg", "download the photo first"),
            ("file:///home/x/a.jpg", "without file://"),
            ("data:image/png;base64,AAAA", "standard input"),
        ] {
            let said = address(argument).unwrap();
            assert!(said.contains(reason), "{argument}: {said}");
        }
        for path in [
            "a.jpg",
            "C:\\a.jpg",
            "12:30.jpg",
            "a:b/c.jpg",
            "//server/a.jpg",
        ] {
            assert_eq!(address(path), None, "{path}");
        }
    }

    #[test]
    fn home_is_where_a_shell_would_have_it() {
        let home = std::env::home_dir().unwrap();
        assert_eq!(at_home("~/a/b.jpg".as_ref()), home.join("a/b.jpg"));
        for path in ["a/~/b", "~x/b", "/~", "-"] {
            assert_eq!(at_home(path.as_ref()), Path::new(path));
        }
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
