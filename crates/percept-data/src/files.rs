//! What the readers of JSON and CSV share: bounded files, and names that stay in their folder.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufReader, Read, Take};
use std::path::{Component, Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::DataError;

/// Bytes read at once: parsers ask for one at a time.
const BUFFER: usize = 1 << 16;

/// The error of a file that is there but does not hold what it should.
pub(crate) fn invalid(path: &Path, reason: impl Into<String>) -> DataError {
    DataError::Invalid {
        path: path.to_owned(),
        reason: reason.into(),
    }
}

/// Opens a file of at most `max_bytes`.
///
/// # Errors
/// [`DataError::Io`] if it cannot be opened, [`DataError::Invalid`] if it is larger.
pub(crate) fn open(path: &Path, max_bytes: u64) -> Result<BufReader<Take<File>>, DataError> {
    let io_error = |source| DataError::Io {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(io_error)?;
    if file.metadata().map_err(io_error)?.len() > max_bytes {
        return Err(invalid(path, format!("larger than {max_bytes} bytes")));
    }
    // The length the system states may be wrong; a file that is cut here does not parse.
    Ok(BufReader::with_capacity(BUFFER, file.take(max_bytes)))
}

/// Reads a JSON file of at most `max_bytes` without holding its text.
///
/// # Errors
/// As [`open`], and [`DataError::Invalid`] with line and column where it is not what `T` needs.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path, max_bytes: u64) -> Result<T, DataError> {
    serde_json::from_reader(open(path, max_bytes)?).map_err(|error| match error.is_io() {
        true => DataError::Io {
            path: path.to_owned(),
            source: error.into(),
        },
        false => invalid(path, error.to_string()),
    })
}

/// The path of a file below `folder`; `None` if `name` leads anywhere else.
///
/// Two names of one file, such as `a.jpg` and `./a.jpg`, give the same path.
pub(crate) fn inside(folder: &Path, name: &str) -> Option<PathBuf> {
    let mut path = folder.to_owned();
    for part in Path::new(name).components() {
        match part {
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            _ => return None,
        }
    }
    (path != folder).then_some(path)
}

/// The id of a sample: the name of its file without the ending, or with it where another has that
/// id; `None` if both are taken. That a file comes once only is for the caller to see to.
pub(crate) fn unique_id(name: &str, taken: &mut HashSet<String>) -> Option<String> {
    let name = name.trim_start_matches("./");
    let stem = Path::new(name).with_extension("");
    let candidates = [stem.to_string_lossy().into_owned(), name.to_owned()];
    candidates.into_iter().find(|id| taken.insert(id.clone()))
}

/// A CSV file with a header, commas or tabs between its columns.
pub(crate) struct Table {
    path: PathBuf,
    reader: csv::Reader<BufReader<Take<File>>>,
    header: csv::StringRecord,
}

impl Table {
    /// Opens a file of at most `max_bytes`. Its header tells commas from tabs.
    ///
    /// # Errors
    /// As [`open`], and [`DataError::Invalid`] for a header that cannot be read.
    pub(crate) fn open(path: &Path, max_bytes: u64) -> Result<Self, DataError> {
        let mut first = [0; 4096];
        let length = open(path, max_bytes)?
            .read(&mut first)
            .map_err(|source| DataError::Io {
                path: path.to_owned(),
                source,
            })?;
        let line = first.iter().take(length).take_while(|&&byte| byte != b'\n');
        let delimiter = match line.into_iter().any(|&byte| byte == b'\t') {
            true => b'\t',
            false => b',',
        };
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(delimiter)
            .trim(csv::Trim::All)
            .from_reader(open(path, max_bytes)?);
        let header = reader.headers();
        let header = header.map_err(|error| invalid(path, error.to_string()))?;
        // The mark some editors put first is no part of a name.
        let names = header
            .iter()
            .map(|name| name.trim_start_matches('\u{feff}'));
        let header = names.collect();
        Ok(Self {
            path: path.to_owned(),
            reader,
            header,
        })
    }

    /// Where the columns are that must be there.
    ///
    /// # Errors
    /// [`DataError::Invalid`] that names the first that is missing, and those that are there.
    pub(crate) fn columns<const N: usize>(
        &self,
        names: [&str; N],
    ) -> Result<[usize; N], DataError> {
        let mut columns = [0; N];
        for (column, name) in columns.iter_mut().zip(names) {
            *column = (self.header.iter())
                .position(|present| present == name)
                .ok_or_else(|| {
                    let present: Vec<&str> = self.header.iter().take(20).collect();
                    let present = present.join(", ");
                    invalid(&self.path, format!("no column `{name}`, only {present}"))
                })?;
        }
        Ok(columns)
    }

    /// Hands every row to `take`: its line in the file and its values.
    ///
    /// # Errors
    /// [`DataError::Invalid`] with the line, for a row that cannot be read or that `take` refuses.
    pub(crate) fn rows(
        mut self,
        mut take: impl FnMut(&csv::StringRecord) -> Result<(), String>,
    ) -> Result<(), DataError> {
        let mut row = csv::StringRecord::new();
        loop {
            match self.reader.read_record(&mut row) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) => return Err(invalid(&self.path, error.to_string())),
            }
            take(&row).map_err(|reason| {
                let line = row.position().map_or(0, csv::Position::line);
                invalid(&self.path, format!("line {line}: {reason}"))
            })?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_folder() {
        let folder = Path::new("set");
        assert_eq!(inside(folder, "a/b.jpg"), Some("set/a/b.jpg".into()));
        for name in ["./b..jpg", ".//b..jpg"] {
            let path = inside(folder, name).unwrap();
            assert_eq!(path.as_os_str(), "set/b..jpg");
            let path = inside(Path::new(""), name).unwrap();
            assert_eq!(path.as_os_str(), "b..jpg");
        }
        for name in [
            "",
            ".",
            "..",
            "../b.jpg",
            "a/../../b.jpg",
            "a/../b.jpg",
            "/etc/passwd",
        ] {
            assert_eq!(inside(folder, name), None, "{name}");
        }
    }

    #[test]
    fn ids_keep_folders_and_stay_unique() {
        let taken = &mut HashSet::new();
        let mut id = |name| unique_id(name, taken);
        assert_eq!(id("./000000000139.jpg").unwrap(), "000000000139");
        assert_eq!(id("a/b.c.jpg").unwrap(), "a/b.c");
        assert_eq!(id("a/b.c.png").unwrap(), "a/b.c.png");
        assert_eq!(id("a/b.c.png"), None);
    }

    #[test]
    fn large_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        std::fs::write(&path, "[1, 2, 3]").unwrap();
        assert_eq!(read_json::<Vec<u8>>(&path, 9).unwrap(), [1, 2, 3]);
        let error = read_json::<Vec<u8>>(&path, 8).unwrap_err().to_string();
        assert!(error.ends_with("a.json: larger than 8 bytes"), "{error}");
    }
}
