//! Paths, digests and links on disk: the layout that `huggingface_hub` documents.
//!
//! ```text
//! HUB/models--ORG--NAME/blobs/ETAG                the bytes
//!                      /refs/REVISION             a file holding COMMIT
//!                      /snapshots/COMMIT/PATH  -> ../../blobs/ETAG
//! HUB/.locks/models--ORG--NAME/ETAG.lock
//! ```

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::HubError;

/// The folder of one repository in the cache.
#[derive(Debug, Clone)]
pub(crate) struct RepoCache {
    hub: PathBuf,
    /// Where percept notes what it pulled.
    notes: PathBuf,
    /// `models--ORG--NAME`.
    folder: String,
}

impl RepoCache {
    pub(crate) fn new(hub: &Path, notes: &Path, repo: &str) -> Self {
        Self {
            hub: hub.to_owned(),
            notes: notes.to_owned(),
            folder: format!("models--{}", repo.replace('/', "--")),
        }
    }

    fn root(&self) -> PathBuf {
        self.hub.join(&self.folder)
    }

    pub(crate) fn blob(&self, etag: &str) -> PathBuf {
        self.root().join("blobs").join(etag)
    }

    pub(crate) fn lock(&self, etag: &str) -> PathBuf {
        (self.hub.join(".locks").join(&self.folder)).join(format!("{etag}.lock"))
    }

    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        self.root().join("snapshots").join(commit)
    }

    fn reference(&self, revision: &str) -> PathBuf {
        self.root().join("refs").join(revision)
    }

    /// The snapshot that a revision last meant, if it is there.
    pub(crate) fn find(&self, revision: &str) -> Option<PathBuf> {
        let commit = if is_commit(revision) {
            revision.to_owned()
        } else {
            let text = fs::read_to_string(self.reference(revision)).ok()?;
            text.trim().to_owned()
        };
        let snapshot = is_commit(&commit).then(|| self.snapshot(&commit))?;
        snapshot.is_dir().then_some(snapshot)
    }

    /// The commits of which there is a snapshot, sorted.
    pub(crate) fn commits(&self) -> Vec<String> {
        let folder = fs::read_dir(self.root().join("snapshots"));
        let mut commits: Vec<String> = (folder.into_iter().flatten().flatten())
            .filter(|entry| entry.path().is_dir())
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| is_commit(name))
            .collect();
        commits.sort_unstable();
        commits
    }

    fn pulled_note(&self, commit: &str) -> PathBuf {
        self.notes.join(&self.folder).join(commit)
    }

    /// Notes that these files are all that percept wants of a commit.
    pub(crate) fn note_pulled(&self, commit: &str, files: &[&str]) -> Result<(), HubError> {
        let lines: String = files.iter().map(|file| format!("{file}\n")).collect();
        write_whole(&self.pulled_note(commit), lines.as_bytes())
    }

    /// The files that percept wants of a snapshot, if it pulled it once.
    pub(crate) fn pulled(&self, snapshot: &Path) -> Option<Vec<String>> {
        let commit = snapshot.file_name()?.to_str()?;
        let note = fs::read_to_string(self.pulled_note(commit)).ok()?;
        let files: Vec<String> = note.lines().map(str::to_owned).collect();
        (!files.is_empty() && files.iter().all(|file| is_safe_path(file))).then_some(files)
    }

    /// Records which commit a revision means.
    pub(crate) fn set_reference(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        if is_commit(revision) {
            return Ok(());
        }
        write_whole(&self.reference(revision), commit.as_bytes())
    }

    /// Puts a blob into a snapshot under its name.
    pub(crate) fn link(&self, commit: &str, path: &str, etag: &str) -> Result<PathBuf, HubError> {
        let entry = self.snapshot(commit).join(path);
        let depth = path.split('/').count() + 1;
        let mut target = PathBuf::from("../".repeat(depth));
        target.push("blobs");
        target.push(etag);
        link(&self.blob(etag), &target, &entry)?;
        Ok(entry)
    }
}

/// A full Git commit, the only form that names a snapshot.
pub(crate) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// 64 hexadecimal digits.
pub(crate) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// A relative path of ordinary components, also by the rules of other systems.
pub(crate) fn is_safe_path(path: &str) -> bool {
    let plain = |part: &str| {
        !matches!(part, "" | "." | "..")
            && part.len() <= 255
            && !part.contains(['\\', ':'])
            && !part.chars().any(char::is_control)
    };
    path.len() <= 1024
        && path.split('/').all(plain)
        && (Path::new(path).components()).all(|c| matches!(c, Component::Normal(_)))
}

/// The SHA-256 of bytes, in lower-case hexadecimal.
pub(crate) fn sha256_of(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// The SHA-256 of a file.
pub(crate) fn sha256_of_file(path: &Path) -> Result<String, HubError> {
    let mut file = File::open(path).map_err(io_error(path))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer).map_err(io_error(path))? {
            0 => return Ok(hex(&hasher.finalize())),
            n => hasher.update(&buffer[..n]),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// For `map_err`: an I/O error with its path.
pub(crate) fn io_error(path: &Path) -> impl Fn(io::Error) -> HubError {
    let path = path.to_owned();
    move |source| HubError::Io {
        path: path.clone(),
        source,
    }
}

/// Creates the folder that `path` is to lie in.
pub(crate) fn make_parent(path: &Path) -> Result<(), HubError> {
    match path.parent() {
        Some(parent) => fs::create_dir_all(parent).map_err(io_error(parent)),
        None => Ok(()),
    }
}

/// Removes a file; its absence is no error.
pub(crate) fn remove(path: &Path) -> Result<(), HubError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error(path)(error)),
        _ => Ok(()),
    }
}

/// Writes a small file so that it is never seen half written.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), HubError> {
    make_parent(path)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut temporary = tempfile::NamedTempFile::new_in(folder).map_err(io_error(path))?;
    temporary.write_all(bytes).map_err(io_error(path))?;
    temporary
        .persist(path)
        .map_err(|e| io_error(path)(e.error))?;
    Ok(())
}

/// Makes `entry` a symbolic link to `target` (relative to it), or a copy of `file` where links cannot
/// be made. What was there before is replaced.
pub(crate) fn link(file: &Path, target: &Path, entry: &Path) -> Result<(), HubError> {
    if fs::read_link(entry).is_ok_and(|current| current == target) && entry.exists() {
        return Ok(());
    }
    make_parent(entry)?;
    remove(entry)?;
    if symlink(target, entry).is_ok() {
        return Ok(());
    }
    let folder = entry.parent().unwrap_or(Path::new("."));
    let temporary = tempfile::NamedTempFile::new_in(folder).map_err(io_error(entry))?;
    fs::copy(file, temporary.path()).map_err(io_error(entry))?;
    temporary
        .persist(entry)
        .map_err(|e| io_error(entry)(e.error))?;
    Ok(())
}

#[cfg(unix)]
fn symlink(target: &Path, entry: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, entry)
}

#[cfg(windows)]
fn symlink(target: &Path, entry: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target, entry)
}

#[cfg(not(any(unix, windows)))]
fn symlink(_target: &Path, _entry: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Holds a lock file until dropped, so that two processes do not write one download. It is the lock
/// that `huggingface_hub` takes, where the system has `flock`.
pub(crate) fn lock(path: &Path) -> Result<File, HubError> {
    make_parent(path)?;
    let file = (File::options().create(true).write(true).truncate(false))
        .open(path)
        .map_err(io_error(path))?;
    match file.lock() {
        // Some network file systems have no locks. Then two downloads at once can spoil each other,
        // which the digest will tell.
        Err(error) if error.kind() != io::ErrorKind::Unsupported => Err(io_error(path)(error)),
        _ => Ok(file),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn safe_paths_stay_below() {
        for path in ["config.json", "1_Pooling/config.json", "a/b/c.d"] {
            assert!(is_safe_path(path), "{path}");
        }
        for path in [
            "",
            ".",
            "..",
            "../a",
            "a/../b",
            "a/..",
            "/etc/passwd",
            "a//b",
            "a/",
            "C:\\x",
            "a\\b",
            "C:a",
            "a\nb",
            "a\0",
        ] {
            assert!(!is_safe_path(path), "{path:?}");
        }
    }

    #[test]
    fn digests_are_those_of_sha256() {
        assert_eq!(
            sha256_of(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
