//! Which photos a command works on, and which files it passes over.

use std::collections::{BTreeMap, HashSet};
use std::fs::{File, Metadata};
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use percept::abbreviate;
use percept::image::{
    Decoded, EXTENSIONS, ImageError, Limits, decode_noted, is_result, open_noted,
};
use serde_json::{Value, json};

use crate::Usage;
use crate::console::Console;

/// Folders within folders are followed this far.
const MAX_DEPTH: usize = 32;

/// Bytes of a file in which a result says that it is one.
const START: u64 = 16 << 10;

/// Most bytes of a `labels.json` that is looked into.
const MAX_LABELS: u64 = 16 << 20;

/// Names that files of a whole run have, in lower case: no photo's results are called so.
const RESERVED: [&str; 6] = [
    "labels",
    "results",
    "images",
    "groups",
    "groups.results",
    "groups.images",
];

/// What is passed over for being percept's own, as it is told.
const OWN_RESULTS: &str = "made by percept";

/// The photo that comes from standard input.
const STDIN: &str = "-";

/// One photo and the name of its results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// The photo.
    pub path: PathBuf,
    /// Its path below the folder that was named; its file name otherwise.
    pub file: PathBuf,
    /// Its results are `OUT/NAME.*`: `file` without ending, where no other photo has that name.
    pub name: PathBuf,
}

impl Input {
    /// Whether the photo comes from standard input.
    pub fn is_stdin(&self) -> bool {
        self.path == Path::new(STDIN)
    }
}

/// A file or folder that was met and is not worked on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassedOver {
    /// Where it is.
    pub path: PathBuf,
    /// Of which kind, in words that follow a number: `.heic`, `hidden`.
    pub kind: String,
}

/// What the arguments of a command name.
#[derive(Debug, Default)]
pub struct Found {
    /// The photos, each once.
    pub photos: Vec<Input>,
    /// Everything else.
    pub passed_over: Vec<PassedOver>,
}

impl Found {
    /// `40 files passed over (30 .heic, 10 .mp4)`, the most frequent kinds first; `None` where there are
    /// none.
    pub fn told(&self) -> Option<String> {
        let kinds: Vec<String> = self
            .kinds()
            .into_iter()
            .map(|(kind, count)| format!("{count} {kind}"))
            .collect();
        match self.passed_over.len() {
            0 => None,
            1 => Some(format!("1 file passed over ({})", kinds.join(", "))),
            count => Some(format!("{count} files passed over ({})", kinds.join(", "))),
        }
    }

    /// As [`Self::told`], with every name.
    pub fn to_json(&self) -> Value {
        let kinds: serde_json::Map<_, _> = self
            .kinds()
            .into_iter()
            .map(|(kind, count)| (kind.to_owned(), json!(count)))
            .collect();
        let files: Vec<_> = self
            .passed_over
            .iter()
            .map(|passed| json!({ "path": passed.path.display().to_string(), "kind": passed.kind }))
            .collect();
        json!({ "count": files.len(), "kinds": kinds, "files": files })
    }

    /// Says which photos have results of another name than theirs, since another photo has that, or files of
    /// the whole run.
    pub fn tell_names(&self, console: &Console) {
        let others: Vec<&Input> = (self.photos.iter())
            .filter(|photo| photo.name != photo.file.with_extension(""))
            .collect();
        if let Some(first) = others.first() {
            let more = match others.len() - 1 {
                0 => String::new(),
                more => format!(", and {more} more likewise (--verbose names them)"),
            };
            console.note(&format!(
                "the name {} is taken: results of {} are called {}.*{more}",
                first.file.with_extension("").display(),
                first.path.display(),
                first.name.display()
            ));
        }
        for photo in others {
            let path = photo.path.display();
            console.detail(&format!("results of {path}: {}.*", photo.name.display()));
        }
    }

    fn kinds(&self) -> Vec<(&str, usize)> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for passed in &self.passed_over {
            *counts.entry(&passed.kind).or_default() += 1;
        }
        let mut kinds: Vec<_> = counts.into_iter().collect();
        kinds.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        kinds
    }
}

/// All photos that the arguments name, each once: files as they are, folders searched for image
/// files in sorted order, globs expanded. Masks and overlays that percept made are passed over, as is
/// what is no image by its ending; both are told.
///
/// # Errors
/// [`Usage`] for an argument that names nothing, or no photo.
pub fn expand(arguments: &[String], console: &Console) -> anyhow::Result<Found> {
    refuse_parts(arguments)?;
    let mut search = Search::default();
    for argument in arguments {
        search.add(argument)?;
    }
    let found = search.finish();
    if let Some(told) = found.told() {
        console.note(&format!("{told}; --verbose names them"));
    }
    for passed in &found.passed_over {
        let path = passed.path.display();
        console.detail(&format!("passed over: {path} ({})", passed.kind));
    }
    if found.photos.is_empty() {
        let told = found.told().unwrap_or_default();
        return Err(Usage(format!("{}: no photo: {told}", arguments.join(" "))).into());
    }
    Ok(found)
}

/// A search through the arguments of a command.
#[derive(Debug, Default)]
struct Search {
    /// Photos, and their paths below the folders that were named.
    found: Vec<(PathBuf, PathBuf)>,
    passed_over: Vec<PassedOver>,
    /// Folders and photos that were met, by where they really are.
    met: HashSet<PathBuf>,
    /// Folders that hold results of a percept that did not mark them.
    unmarked: BTreeMap<PathBuf, bool>,
}

impl Search {
    fn add(&mut self, argument: &str) -> anyhow::Result<()> {
        if argument == STDIN {
            return self.standard_input();
        }
        if let Some(reason) = address(argument) {
            return Err(Usage(format!("{argument}: {reason}")).into());
        }
        let at_home = at_home(argument.as_ref());
        let path = at_home.as_path();
        match path.metadata() {
            Ok(about) if about.is_dir() => {
                let photos = self.found.len();
                let others = self.passed_over.len();
                let inside = self.folder(path, path, 0);
                inside.map_err(|error| Usage(format!("{argument}: {error}")))?;
                let passed = &self.passed_over[others..];
                let nothing = self.found.len() == photos && passed.iter().all(|p| !is_repeated(p));
                if nothing {
                    let found = Found {
                        photos: Vec::new(),
                        passed_over: passed.to_vec(),
                    };
                    let told = found.told().map(|told| format!("; {told}"));
                    return Err(Usage(format!(
                        "{argument}: no images in this folder (looked for {}){}",
                        EXTENSIONS.join(", "),
                        told.unwrap_or_default()
                    ))
                    .into());
                }
            }
            Ok(about) => match special(&about) {
                Some(kind) => {
                    return Err(Usage(format!("{argument}: a {kind}, which is no photo")).into());
                }
                None => self.photo(path.to_owned(), file_name(path)),
            },
            Err(_) if argument.contains(['*', '?', '[']) => {
                self.glob(path.to_str().unwrap_or(argument))?;
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let looked = match path == Path::new(argument) {
                    true => String::new(),
                    false => format!(" ({})", path.display()),
                };
                return Err(Usage(format!(
                    "{argument}: no such file or folder{looked}{}",
                    did_you_mean(path)
                ))
                .into());
            }
            Err(error) => return Err(Usage(format!("{argument}: {error}")).into()),
        }
        Ok(())
    }

    fn standard_input(&mut self) -> anyhow::Result<()> {
        if std::io::stdin().is_terminal() {
            let example = "percept segment - --labels cat < photo.jpg";
            return Err(Usage(format!("-: nothing is piped in; such as: {example}")).into());
        }
        if self.met.insert(STDIN.into()) {
            self.found.push((STDIN.into(), "stdin".into()));
        }
        Ok(())
    }

    fn glob(&mut self, pattern: &str) -> anyhow::Result<()> {
        let before = self.found.len() + self.passed_over.len();
        // As shells do, so that `*.jpg` does not match the `._a.jpg` that macOS leaves beside `a.jpg`.
        let options = glob::MatchOptions {
            require_literal_leading_dot: true,
            ..glob::MatchOptions::new()
        };
        let matches =
            glob::glob_with(pattern, options).map_err(|e| Usage(format!("{pattern}: {e}")))?;
        let fixed = fixed_part(pattern);
        for path in matches {
            let path = path?;
            let below = path.strip_prefix(&fixed).map(Path::to_owned);
            let name = below.unwrap_or_else(|_| file_name(&path));
            match path.metadata() {
                Ok(about) if about.is_dir() => {}
                about => self.file(path, name, about.ok().as_ref()),
            }
        }
        if self.found.len() + self.passed_over.len() == before {
            return Err(Usage(format!("{pattern}: matches no file")).into());
        }
        Ok(())
    }

    /// Image files below `folder`, told by their endings; names are relative to `root`. Folders in it that
    /// cannot be read are passed over.
    ///
    /// # Errors
    /// `folder` itself cannot be read.
    fn folder(&mut self, root: &Path, folder: &Path, depth: usize) -> std::io::Result<()> {
        // Where it really is, so that loops of links end.
        let really = folder.canonicalize()?;
        if self.met.contains(&really) {
            self.pass_over(folder.to_owned(), "folder met before");
            return Ok(());
        }
        let mut entries: Vec<PathBuf> = std::fs::read_dir(folder)
            .and_then(|entries| entries.map(|entry| entry.map(|e| e.path())).collect())?;
        self.met.insert(really);
        entries.sort();
        for path in entries {
            let is_hidden = path
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with('.'));
            let about = path.metadata();
            let is_folder = about.as_ref().is_ok_and(Metadata::is_dir);
            if is_hidden {
                self.pass_over(path, "hidden");
            } else if is_folder && depth >= MAX_DEPTH {
                self.pass_over(path, "folder too deep");
            } else if is_folder {
                if let Err(error) = self.folder(root, &path, depth + 1) {
                    self.pass_over(
                        path,
                        &format!("folder that cannot be read: {}", error.kind()),
                    );
                }
            } else if has_image_ending(&path) {
                let name = path.strip_prefix(root).unwrap_or(&path).to_owned();
                self.file(path, name, about.ok().as_ref());
            } else {
                let kind = kind_by_ending(&path);
                self.pass_over(path, &kind);
            }
        }
        Ok(())
    }

    /// A file that was found, rather than named.
    fn file(&mut self, path: PathBuf, name: PathBuf, about: Option<&Metadata>) {
        match about.and_then(special) {
            Some(kind) => self.pass_over(path, kind),
            // One that cannot be read fails when it is read, by name.
            None => self.photo(path, name),
        }
    }

    fn photo(&mut self, path: PathBuf, name: PathBuf) {
        if self.is_own(&path) {
            return self.pass_over(path, OWN_RESULTS);
        }
        let really = path.canonicalize().unwrap_or_else(|_| path.clone());
        if self.met.insert(really) {
            self.found.push((path, name));
        } else {
            self.pass_over(path, "met before");
        }
    }

    /// Whether percept made a picture: it says so, or is named as a result in a folder that an older
    /// percept wrote to.
    fn is_own(&mut self, path: &Path) -> bool {
        // What cannot be read is no result.
        if start_of(path).is_ok_and(|start| is_result(&start)) {
            return true;
        }
        let name = path.to_string_lossy();
        let is_named_so = [".mask.png", ".overlay.png"]
            .iter()
            .any(|ending| name.ends_with(ending));
        let folder = path.parent().unwrap_or(Path::new(""));
        is_named_so
            && *self
                .unmarked
                .entry(folder.to_owned())
                .or_insert_with(|| has_unmarked_results(folder))
    }

    fn pass_over(&mut self, path: PathBuf, kind: &str) {
        self.passed_over.push(PassedOver {
            path,
            kind: kind.to_owned(),
        });
    }

    fn finish(self) -> Found {
        Found {
            photos: name_results(self.found),
            passed_over: self.passed_over,
        }
    }
}

/// As much of a file as tells whether it is a result.
pub fn start_of(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut start = Vec::new();
    File::open(path)?.take(START).read_to_end(&mut start)?;
    Ok(start)
}

/// A file to read; none that is a pipe or device, which may never end.
///
/// # Errors
/// It cannot be opened, or is no file.
pub fn open_file(path: &Path) -> std::io::Result<File> {
    match special(&path.metadata()?) {
        None => File::open(path),
        Some(kind) => Err(refused(format!("a {kind} and no file"))),
    }
}

/// A whole file of at most `most` bytes.
///
/// # Errors
/// As [`open_file`]; it cannot be read, or is larger.
pub fn read_file(path: &Path, most: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut file = open_file(path)?.take(most.saturating_add(1));
    file.read_to_end(&mut bytes)?;
    match bytes.len() as u64 {
        length if length > most => Err(refused(format!("over {most} bytes"))),
        _ => Ok(bytes),
    }
}

fn refused(reason: String) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidInput, reason)
}

fn is_repeated(passed: &PassedOver) -> bool {
    passed.kind.ends_with("met before")
}

/// Whether a folder has the `labels.json` of a percept that did not mark its masks: those that do
/// name their command in it.
fn has_unmarked_results(folder: &Path) -> bool {
    let Ok(text) = read_file(&folder.join("labels.json"), MAX_LABELS) else {
        return false;
    };
    let settings: Value = serde_json::from_slice(&text).unwrap_or_default();
    settings["percept"].is_string()
        && settings["classes"].is_array()
        && settings["command"].is_null()
}

/// What a thing that is neither file nor folder is. Reading one may wait for ever.
fn special(about: &Metadata) -> Option<&'static str> {
    if about.is_file() || about.is_dir() {
        return None;
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        let kind = about.file_type();
        if kind.is_fifo() {
            return Some("pipe");
        } else if kind.is_socket() {
            return Some("socket");
        }
    }
    Some("device")
}

/// `.heic`, or what to call a file without ending. Anything may be an ending, and this goes to terminals.
fn kind_by_ending(path: &Path) -> String {
    match path.extension() {
        Some(ending) => {
            let ending = ending.to_string_lossy().to_lowercase();
            let shown = ending.replace(char::is_control, "\u{fffd}");
            format!(".{}", abbreviate(&shown))
        }
        None => "without ending".to_owned(),
    }
}

/// A photo that [`expand`] found.
///
/// # Errors
/// It cannot be read or decoded.
pub fn open(path: &Path, limits: &Limits) -> Result<Decoded, ImageError> {
    if path != Path::new(STDIN) {
        return open_noted(path, limits);
    }
    let mut bytes = Vec::new();
    let most = limits.max_file_bytes.saturating_add(1);
    std::io::stdin().lock().take(most).read_to_end(&mut bytes)?;
    decode_noted(&bytes, limits)
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

/// The folder before the first part of a pattern that has a sign in it: names of results are below it, as they
/// are below a folder that is named.
fn fixed_part(pattern: &str) -> PathBuf {
    let parts = Path::new(pattern).components();
    parts
        .take_while(|part| !part.as_os_str().to_string_lossy().contains(['*', '?', '[']))
        .collect()
}

/// A path with spaces and without quotes comes in parts.
///
/// # Errors
/// [`Usage`] for arguments of which the first is no file, and that are one with spaces between them.
pub fn refuse_parts(arguments: &[String]) -> Result<(), Usage> {
    /// Parts that are tried together.
    const MOST: usize = 12;
    for (at, argument) in arguments.iter().enumerate() {
        if argument == STDIN || Path::new(argument).exists() {
            continue;
        }
        for end in at + 2..=arguments.len().min(at + MOST) {
            let whole = arguments[at..end].join(" ");
            if Path::new(&whole).exists() {
                return Err(Usage(format!(
                    "{argument}: no such file or folder; a path with spaces stands in quotes: \"{whole}\""
                )));
            }
        }
    }
    Ok(())
}

/// `--labels cat dog` gives one label and a photo called `dog`.
///
/// # Errors
/// [`Usage`] for an argument that is no file and looks like a label.
pub fn refuse_labels(arguments: &[String]) -> Result<(), Usage> {
    refuse_parts(arguments)?;
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

fn has_image_ending(path: &Path) -> bool {
    path.extension().is_some_and(|ending| {
        let ending = ending.to_string_lossy().to_lowercase();
        EXTENSIONS.contains(&ending.as_str())
    })
}

/// Gives every photo a name of its own: `a.jpg` and `a.png` become `a` and `a.png`, and `labels.jpg`
/// stays `labels.jpg`, for `labels.json` is no photo's.
fn name_results(found: Vec<(PathBuf, PathBuf)>) -> Vec<Input> {
    let mut taken = HashSet::new();
    let mut inputs = Vec::with_capacity(found.len());
    for (path, file) in found {
        let mut name = file.with_extension("");
        let is_reserved = RESERVED.contains(&name.to_string_lossy().to_lowercase().as_str());
        let mut number = 2;
        if is_reserved || !taken.insert(name.clone()) {
            name = file.clone();
            while !taken.insert(name.clone()) {
                name = file.with_extension(format!("{number}"));
                number += 1;
            }
        }
        inputs.push(Input { path, file, name });
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
        let found = [
            "x/a.jpg",
            "y/a.png",
            "z/a.jpg",
            "w/a.jpg",
            "labels.jpg",
            "Results.PNG",
        ]
        .map(|path| (PathBuf::from(path), file_name(Path::new(path))));
        let inputs = name_results(found.into());
        let names: Vec<_> = inputs.iter().map(|i| i.name.to_str().unwrap()).collect();
        let expected = ["a", "a.png", "a.jpg", "a.2", "labels.jpg", "Results.PNG"];
        assert_eq!(names, expected);
    }

    fn search(folder: &Path) -> Found {
        let mut search = Search::default();
        search.add(folder.to_str().unwrap()).unwrap();
        search.finish()
    }

    #[test]
    fn what_is_passed_over_is_counted_by_kind() {
        let folder = tempfile::tempdir().unwrap();
        for name in [
            "a.jpg",
            "b.HEIC",
            "c.heic",
            "d.mp4",
            "README",
            ".DS_Store",
            "e.PNG",
        ] {
            std::fs::write(folder.path().join(name), b"x").unwrap();
        }
        let found = search(folder.path());
        assert_eq!(found.photos.len(), 2);
        let told = found.told().unwrap();
        assert!(
            told.starts_with("5 files passed over (2 .heic, 1 "),
            "{told}"
        );
        for kind in ["1 .mp4", "1 hidden", "1 without ending"] {
            assert!(told.contains(kind), "{told}");
        }
        let json = found.to_json();
        assert_eq!(json["count"], 5);
        assert_eq!(json["kinds"][".heic"], 2);
        assert_eq!(json["files"].as_array().unwrap().len(), 5);
    }

    #[cfg(unix)]
    #[test]
    fn kinds_are_fit_for_a_terminal() {
        assert_eq!(
            kind_by_ending("a.\u{1b}[2J\u{9b}\n".as_ref()),
            ".\u{fffd}[2j\u{fffd}\u{fffd}"
        );
        let long = kind_by_ending(format!("a.{}", "x".repeat(200)).as_ref());
        assert_eq!(long.chars().count(), 42);
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_file_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("labels.json");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert!(!has_unmarked_results(folder.path()));
        for (path, reason) in [
            (socket.as_path(), "a socket"),
            ("/dev/zero".as_ref(), "a device"),
        ] {
            let error = read_file(path, 9).unwrap_err().to_string();
            assert!(error.starts_with(reason), "{error}");
        }
        let file = folder.path().join("file");
        std::fs::write(&file, b"123").unwrap();
        assert_eq!(read_file(&file, 3).unwrap(), b"123");
        assert!(
            read_file(&file, 2)
                .unwrap_err()
                .to_string()
                .contains("over 2 bytes")
        );
    }

    #[test]
    fn patterns_leave_hidden_files_out() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.jpg", "._a.jpg", "A.JPG"] {
            std::fs::write(folder.path().join(name), b"x").unwrap();
        }
        let mut search = Search::default();
        let pattern = folder.path().join("*.jpg");
        search.add(pattern.to_str().unwrap()).unwrap();
        let found = search.finish();
        assert_eq!(found.photos.len(), 1);
        assert_eq!(found.photos[0].file, Path::new("a.jpg"));
    }

    #[test]
    fn patterns_keep_the_folders_below_them() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["mixed/a.jpg", "mixed/x/a.jpg", "mixed/y/z/a.jpg"] {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, b"x").unwrap();
        }
        let mut search = Search::default();
        let pattern = folder.path().join("mixed/**/*.jpg");
        search.add(pattern.to_str().unwrap()).unwrap();
        let mut names: Vec<PathBuf> = search.finish().photos.into_iter().map(|p| p.name).collect();
        names.sort();
        assert_eq!(names, ["a", "x/a", "y/z/a"].map(PathBuf::from));
        for (pattern, fixed) in [
            ("*.jpg", ""),
            ("a/b*/c.jpg", "a"),
            ("/a/**/c.jpg", "/a"),
            ("./a/?.jpg", "./a"),
            ("../[ab].jpg", ".."),
        ] {
            assert_eq!(fixed_part(pattern), Path::new(fixed), "{pattern}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn loops_of_links_end_and_each_photo_comes_once() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(at("a/b")).unwrap();
        std::fs::write(at("a/b/photo.jpg"), b"x").unwrap();
        symlink("..", at("a/b/up")).unwrap();
        symlink(folder.path(), at("self")).unwrap();
        symlink("a", at("z")).unwrap();
        symlink("photo.jpg", at("a/b/same.jpg")).unwrap();
        symlink("nowhere", at("broken.jpg")).unwrap();
        let found = search(folder.path());
        let files: Vec<_> = found
            .photos
            .iter()
            .map(|p| p.file.to_str().unwrap())
            .collect();
        // The broken link is named when it is read.
        assert_eq!(files, ["a/b/photo.jpg", "broken.jpg"]);
        assert_eq!(found.passed_over.len(), 4, "{:?}", found.passed_over);
        // A folder, and again what is in it.
        let mut twice = Search::default();
        twice.add(at("a").to_str().unwrap()).unwrap();
        twice.add(at("a/b").to_str().unwrap()).unwrap();
        twice
            .add(at("a/b/../b/photo.jpg").to_str().unwrap())
            .unwrap();
        assert_eq!(twice.finish().photos.len(), 1);
    }

    /// Folders may be read by root whatever their permissions, so that one is made that nobody can read.
    #[cfg(unix)]
    #[test]
    fn a_folder_that_cannot_be_read_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(at("b/c")).unwrap();
        std::fs::write(at("a.jpg"), b"x").unwrap();
        std::fs::write(at("b/c/d.jpg"), b"x").unwrap();
        assert_eq!(search(folder.path()).photos.len(), 2);

        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(at("b/c"), std::fs::Permissions::from_mode(0o0)).unwrap();
        let can_read = std::fs::read_dir(at("b/c")).is_ok();
        let found = search(folder.path());
        std::fs::set_permissions(at("b/c"), std::fs::Permissions::from_mode(0o700)).unwrap();
        if !can_read {
            assert_eq!(found.photos.len(), 1);
            assert_eq!(
                found.told().unwrap(),
                "1 file passed over (1 folder that cannot be read: permission denied)"
            );
        }
        // The one that was named is an error.
        let gone = at("gone");
        assert!(Search::default().folder(&gone, &gone, 0).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn sockets_and_devices_are_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.jpg"), b"x").unwrap();
        let socket = folder.path().join("b.jpg");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        std::os::unix::fs::symlink("/dev/zero", folder.path().join("c.jpg")).unwrap();
        let found = search(folder.path());
        assert_eq!(found.photos.len(), 1);
        let told = found.told().unwrap();
        assert!(
            told.contains("1 socket") && told.contains("1 device"),
            "{told}"
        );
        for (path, kind) in [
            (socket.to_str().unwrap(), "a socket"),
            ("/dev/zero", "a device"),
        ] {
            let error = Search::default().add(path).unwrap_err().to_string();
            assert!(error.contains(path) && error.contains(kind), "{error}");
        }
    }

    #[test]
    fn own_results_are_told_by_what_they_hold() {
        use percept::image::{LabelMap, RgbImage, mask_png, png_rgb};
        let folder = tempfile::tempdir().unwrap();
        let write =
            |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
        let photo = png_rgb(&RgbImage::new(2, 2)).unwrap();
        write(
            "renamed.png",
            &mask_png(&LabelMap::new(1, 1, vec![1]).unwrap()).unwrap(),
        );
        write("a.mask.png", &photo);
        let names = |found: &Found| -> Vec<String> {
            found
                .photos
                .iter()
                .map(|p| p.file.display().to_string())
                .collect()
        };
        let found = search(folder.path());
        assert_eq!(names(&found), ["a.mask.png"]);
        assert_eq!(
            found.told().unwrap(),
            "1 file passed over (1 made by percept)"
        );
        // With the labels of a percept that marks its results, and of one that did not.
        write(
            "labels.json",
            br#"{"percept": "1", "classes": [], "command": "segment"}"#,
        );
        assert_eq!(names(&search(folder.path())), ["a.mask.png"]);
        write("b.png", &photo);
        write("labels.json", br#"{"percept": "1", "classes": []}"#);
        assert_eq!(names(&search(folder.path())), ["b.png"]);
        // Somebody else's labels.
        write("labels.json", b"[\"cat\"]");
        assert_eq!(names(&search(folder.path())), ["a.mask.png", "b.png"]);
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
