//! What the readers of JSON and CSV share: bounded files, and names that stay in their folder.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom, Take};
use std::path::{Component, Path, PathBuf};

use percept_image::ImageError;

use crate::{DataError, Omissions};

/// Bytes read at once: parsers ask for one at a time.
const BUFFER: usize = 1 << 16;

/// The error of a file that is there but does not hold what it should.
pub(crate) fn invalid(path: &Path, reason: impl Into<String>) -> DataError {
    DataError::Invalid {
        path: path.to_owned(),
        reason: reason.into(),
    }
}

/// The error of a photo that cannot be read, which names its path once.
pub(crate) fn unread(photo: &Path, error: ImageError) -> DataError {
    match error {
        ImageError::File { path, reason } => unread(&path, *reason),
        ImageError::Io(source) => DataError::Io {
            path: photo.to_owned(),
            source,
        },
        error => invalid(photo, error.to_string()),
    }
}

/// Opens a file that can be read to its end: none that would be waited for, such as a named pipe, but
/// for what a shell hands over as `<(command)`.
///
/// # Errors
/// As [`File::open`], and where it is no such file.
pub(crate) fn open_regular(path: &Path) -> std::io::Result<File> {
    let handed_over = ["/dev/fd", "/proc/self/fd"];
    let handed_over = handed_over.iter().any(|above| path.starts_with(above));
    match handed_over || !is_waited_for(&std::fs::metadata(path)?) {
        true => File::open(path),
        false => Err(std::io::Error::other("not a regular file")),
    }
}

/// Whether a file is neither a regular one nor a folder, of which opening and reading say themselves
/// what is wrong.
fn is_waited_for(found: &std::fs::Metadata) -> bool {
    !found.is_file() && !found.is_dir()
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
    let file = open_regular(path).map_err(io_error)?;
    if file.metadata().map_err(io_error)?.len() > max_bytes {
        return Err(invalid(path, format!("larger than {max_bytes} bytes")));
    }
    // The length the system states may be wrong; a file that is cut here does not parse.
    Ok(BufReader::with_capacity(BUFFER, file.take(max_bytes)))
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

/// A CSV file with a header; tabs, commas, bars or semicolons between its columns.
pub(crate) struct Table {
    path: PathBuf,
    delimiter: u8,
    reader: csv::Reader<BufReader<Take<File>>>,
    header: csv::StringRecord,
}

impl Table {
    /// Opens a file of at most `max_bytes`. Its header tells what separates columns.
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
        let line: Vec<u8> = line.copied().collect();
        let delimiter = [b'\t', b',', b'|', b';']
            .into_iter()
            .find(|delimiter| line.contains(delimiter))
            .unwrap_or(b',');
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(delimiter)
            // Files with bars, as Flickr30k's, have no quotes but those in captions.
            .quoting(delimiter != b'|')
            .trim(csv::Trim::All)
            .from_reader(open(path, max_bytes)?);
        let header = reader.headers();
        let header = header.map_err(|error| refused(path, error))?;
        // The mark some editors put first is no part of a name.
        let names = header
            .iter()
            .map(|name| name.trim_start_matches('\u{feff}'));
        let header = names.collect();
        Ok(Self {
            path: path.to_owned(),
            delimiter,
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

    /// Where a column is that goes by one of several names: by the first that is there.
    ///
    /// # Errors
    /// As [`Self::columns`], which names the first.
    pub(crate) fn column_of(&self, names: &[&'static str]) -> Result<usize, DataError> {
        let present = |name: &&&str| self.header.iter().any(|present| present == **name);
        let name = names.iter().find(present).or(names.first());
        let [column] = self.columns([*name.unwrap_or(&"")])?;
        Ok(column)
    }

    /// Hands every row to `take`: its line in the file and its values. Rows that cannot be read, or
    /// that `take` refuses with a kind and an example, are counted in `omissions`.
    ///
    /// # Errors
    /// [`DataError::Io`], and [`DataError::Invalid`] for a quote that is never closed, which would
    /// make one value of all that follows.
    pub(crate) fn rows(
        mut self,
        omissions: &mut Omissions,
        mut take: impl FnMut(&csv::StringRecord) -> Result<(), (&'static str, String)>,
    ) -> Result<(), DataError> {
        let mut row = csv::StringRecord::new();
        let mut last = csv::Position::new();
        loop {
            let start = self.reader.position().clone();
            match self.reader.read_record(&mut row) {
                Ok(true) => {
                    last = start;
                    let line = row.position().map_or(0, csv::Position::line);
                    if let Err((kind, example)) = take(&row) {
                        omissions.add(kind, format!("line {line}: {example}"));
                    }
                }
                Ok(false) => break,
                Err(error) => {
                    last = start;
                    let (kind, line) = match error.kind() {
                        csv::ErrorKind::UnequalLengths { pos, .. } => (
                            "rows with more or fewer values than the header, left out",
                            pos,
                        ),
                        csv::ErrorKind::Utf8 { pos, .. } => {
                            ("rows that are not UTF-8, left out", pos)
                        }
                        _ => return Err(refused(&self.path, error)),
                    };
                    let line = line.as_ref().map_or(0, csv::Position::line);
                    omissions.add(kind, format!("line {line}"));
                }
            }
        }
        let open = self.delimiter != b'|' && self.is_open_from(&last)?;
        match open {
            false => Ok(()),
            true => {
                let line = last.line();
                let reason = format!("line {line}: a quote that is never closed");
                Err(invalid(&self.path, reason))
            }
        }
    }

    /// Whether the file ends within quotes, given where its last row starts.
    fn is_open_from(&mut self, row: &csv::Position) -> Result<bool, DataError> {
        let io_error = |source| DataError::Io {
            path: self.path.clone(),
            source,
        };
        let mut file = File::open(&self.path).map_err(io_error)?;
        file.seek(SeekFrom::Start(row.byte())).map_err(io_error)?;
        // Whether the byte before begins a value, is within quotes, or is a quote within quotes.
        let (mut begins, mut within, mut may_end) = (true, false, false);
        for byte in BufReader::with_capacity(BUFFER, file).bytes() {
            let byte = byte.map_err(io_error)?;
            if within {
                match (byte == b'"', may_end) {
                    (true, false) => may_end = true,
                    (true, true) => may_end = false,
                    (false, true) => (within, may_end) = (false, false),
                    (false, false) => {}
                }
            } else if byte == b'"' && begins {
                (within, may_end) = (true, false);
            }
            begins = !within && (byte == self.delimiter || matches!(byte, b'\n' | b'\r'));
        }
        Ok(within && !may_end)
    }
}

/// The error of a CSV that cannot be read on.
fn refused(path: &Path, error: csv::Error) -> DataError {
    let reason = error.to_string();
    match error.into_kind() {
        csv::ErrorKind::Io(source) => DataError::Io {
            path: path.to_owned(),
            source,
        },
        _ => invalid(path, reason),
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
    fn odd_rows_cost_only_themselves_and_open_quotes_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let mut omissions = Omissions::new();
            let mut rows = Vec::new();
            let table = Table::open(&path, 999).unwrap();
            let read = table.rows(&mut omissions, |row| {
                rows.push(row.iter().collect::<Vec<_>>().join("/"));
                Ok(())
            });
            let kinds = omissions.kinds().iter().map(ToString::to_string);
            read.map(|()| (rows.join(" "), kinds.collect::<Vec<_>>().join("; ")))
                .map_err(|error| error.to_string())
        };
        let whole = |rows: &str| Ok((rows.to_owned(), String::new()));
        assert_eq!(
            read(b"a,b\n1,\"2 \"\"3\"\"\n4\"\n5,6\"7\n"),
            whole("1/2 \"3\"\n4 5/6\"7")
        );
        assert_eq!(read(b"a;b\n1;2,3\n"), whole("1/2,3"));
        assert_eq!(read(b"a| b\n1| \"2\n3| 4\n"), whole("1/\"2 3/4"));
        let (rows, kinds) = read(b"a,b\n1,2,3\n4\n5,\xff\n6,7\n").unwrap();
        assert_eq!(rows, "6/7");
        assert_eq!(
            kinds,
            "rows with more or fewer values than the header, left out: 2 (line 2, line 3); \
             rows that are not UTF-8, left out: 1 (line 4)"
        );
        for bytes in [
            b"a,b\n1,2\n3,\"4\n5,6\n".as_slice(),
            b"a,b\n1,2\n3,\"4\"\"\n",
            b"a,b\n1,2\n\"3",
        ] {
            let error = read(bytes).unwrap_err();
            assert!(
                error.ends_with("a.csv: line 3: a quote that is never closed"),
                "{error}"
            );
        }
    }

    #[test]
    fn errors_of_the_system_stay_what_they_are() {
        let denied = || std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let path = Path::new("a.csv");
        let errors = [
            refused(path, csv::Error::from(denied())),
            unread(path, ImageError::Io(denied())),
        ];
        for error in errors {
            let DataError::Io { source, .. } = error else {
                panic!("{error}");
            };
            assert_eq!(source.kind(), std::io::ErrorKind::PermissionDenied);
        }
    }

    #[test]
    #[cfg(unix)]
    fn pipes_are_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        // A socket: the standard library makes no named pipes.
        let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        for path in [path.as_path(), Path::new("/dev/zero")] {
            let error = open_regular(path).unwrap_err().to_string();
            assert_eq!(error, "not a regular file");
            assert!(matches!(open(path, 9), Err(DataError::Io { .. })));
        }
    }

    #[test]
    fn large_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        std::fs::write(&path, "[1, 2, 3]").unwrap();
        assert!(open(&path, 9).is_ok());
        let error = open(&path, 8).unwrap_err().to_string();
        assert!(error.ends_with("a.json: larger than 8 bytes"), "{error}");
    }
}
