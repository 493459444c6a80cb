//! A folder that is there whole or not at all.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use crate::DataError;

/// A folder beside the one that is to be made. It takes the other's name when it is finished, and is
/// removed if it never is.
pub(super) struct Staging<'a> {
    path: PathBuf,
    out: &'a Path,
}

impl<'a> Staging<'a> {
    /// # Errors
    /// [`DataError::Setting`] if `out` has no name of its own or holds something already,
    /// [`DataError::Io`] if nothing can be made beside it.
    pub(super) fn new(out: &'a Path) -> Result<Self, DataError> {
        let shown = out.display();
        let Some(name) = out.file_name() else {
            let reason = format!("`{shown}` is no name for a new folder");
            return Err(DataError::Setting(reason));
        };
        if holds_something(out)? {
            let reason = format!("{shown} is there already and is not an empty folder");
            return Err(DataError::Setting(reason));
        }
        let parent = out.parent().unwrap_or(Path::new(""));
        if !parent.as_os_str().is_empty() {
            fs::create_dir_all(parent).map_err(io_error(parent))?;
        }
        // The process, so that two that run at once do not mix.
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".percept-{}", std::process::id()));
        let path = parent.join(hidden);
        fs::create_dir(&path).map_err(io_error(&path))?;
        Ok(Self { path, out })
    }

    /// Makes a folder in it.
    pub(super) fn folder(&self, name: &str) -> Result<(), DataError> {
        let path = self.path.join(name);
        fs::create_dir(&path).map_err(io_error(&path))
    }

    /// Writes a file in it.
    pub(super) fn file(&self, name: &str, bytes: &[u8]) -> Result<(), DataError> {
        let path = self.path.join(name);
        fs::write(&path, bytes).map_err(io_error(&path))
    }

    /// Gives the folder its name.
    ///
    /// # Errors
    /// [`DataError::Io`], also if something was put there meanwhile.
    pub(super) fn finish(self) -> Result<(), DataError> {
        if self.out.is_dir() {
            // Only an empty one can be removed. Not every system renames onto it.
            fs::remove_dir(self.out).map_err(io_error(self.out))?;
        }
        fs::rename(&self.path, self.out).map_err(io_error(self.out))
    }
}

impl Drop for Staging<'_> {
    fn drop(&mut self) {
        // Gone already if it was finished. If it cannot be removed, the error that led here says more.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Whether there is anything but an empty folder.
fn holds_something(path: &Path) -> Result<bool, DataError> {
    if !path.is_dir() {
        return Ok(path.symlink_metadata().is_ok());
    }
    let mut entries = fs::read_dir(path).map_err(io_error(path))?;
    Ok(entries.next().is_some())
}

fn io_error(path: &Path) -> impl FnOnce(std::io::Error) -> DataError {
    let path = path.to_owned();
    |source| DataError::Io { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_appears_when_it_is_whole() {
        let root = tempfile::tempdir().unwrap();
        for below in ["new/set", "empty"] {
            let out = root.path().join(below);
            if below == "empty" {
                fs::create_dir(&out).unwrap();
            }
            let staging = Staging::new(&out).unwrap();
            staging.folder("images").unwrap();
            staging.file("images/a", b"1").unwrap();
            assert!(!out.join("images").exists());
            staging.finish().unwrap();
            assert_eq!(fs::read(out.join("images/a")).unwrap(), b"1");
            let beside = fs::read_dir(out.parent().unwrap()).unwrap();
            let mut names = beside.flatten().map(|entry| entry.file_name());
            assert!(!names.any(|name| name.to_string_lossy().starts_with('.')));
        }
    }

    #[test]
    fn what_is_not_finished_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let out = root.path().join("set");
        let staging = Staging::new(&out).unwrap();
        staging.file("a", b"1").unwrap();
        drop(staging);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
        // Something that was put there meanwhile stays.
        let staging = Staging::new(&out).unwrap();
        fs::create_dir(&out).unwrap();
        fs::write(out.join("other"), "2").unwrap();
        assert!(matches!(staging.finish(), Err(DataError::Io { .. })));
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
        assert_eq!(fs::read(out.join("other")).unwrap(), b"2");
    }

    #[test]
    fn nothing_that_is_there_is_written_over() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        fs::write(&file, "1").unwrap();
        for out in [file.as_path(), root.path(), Path::new("/"), Path::new("..")] {
            assert!(matches!(Staging::new(out), Err(DataError::Setting(_))));
        }
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }
}
