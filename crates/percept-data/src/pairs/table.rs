//! Pairs listed in a CSV.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Take};
use std::path::{Path, PathBuf};

use super::bad::{Bad, BadKind, ReadError};
use super::rows::{Dialect, MAX_ROW_BYTES, Quoting, Row, RowError, Rows};
use super::sidecar;
use crate::files::{invalid, open};
use crate::{DataError, Omissions};

/// Largest CSV: one of CC-12M has 2 GB. Only where its rows start is kept.
const MAX_BYTES: u64 = 8 << 30;

/// Most rows, twelve bytes each in memory.
const MAX_ROWS: usize = 200_000_000;

/// What may stand between columns: the first with which the header has those that are wanted.
const DELIMITERS: [u8; 4] = [b'\t', b',', b';', b'|'];

/// Columns named in an error.
const MAX_SHOWN: usize = 20;

/// What pandas takes for a missing value; open_clip then trains on the word `nan`.
const MISSING: [&str; 18] = [
    "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>",
    "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null",
];

/// Endings by which a value is known as a photo's.
const PHOTOS: [&str; 12] = [
    "jpg", "jpeg", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "heic", "heif",
];

/// Where a CSV of pairs lists them and where its photos are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CsvOptions {
    /// The column of the photo's path. Default: `filepath`.
    pub image_column: String,
    /// The column of the caption. Default: `title`.
    pub caption_column: String,
    /// The folder that relative paths start from. Default: the folder of the CSV.
    pub photos: Option<PathBuf>,
    /// What quotes mean.
    pub quoting: Quoting,
}

impl Default for CsvOptions {
    fn default() -> Self {
        Self {
            image_column: "filepath".to_owned(),
            caption_column: "title".to_owned(),
            photos: None,
            quoting: Quoting::Minimal,
        }
    }
}

/// A CSV and where each of its rows starts.
#[derive(Debug)]
pub(super) struct PairTable {
    pub(super) path: PathBuf,
    photos: PathBuf,
    header: Header,
    /// The first byte of each row that is wanted, and its number in the file, from 1.
    starts: Vec<u64>,
    numbers: Vec<u32>,
    /// What is not read as it may be meant.
    pub(super) omissions: Omissions,
}

/// A row that can be used.
pub(super) struct Pair {
    /// Where the photo is.
    pub(super) photo: PathBuf,
    pub(super) caption: String,
}

#[derive(Debug)]
struct Header {
    dialect: Dialect,
    /// Where the photo and the caption are.
    columns: [usize; 2],
    count: usize,
    /// The first byte after it.
    end: u64,
}

impl PairTable {
    /// Finds the rows of a CSV whose photos `keep` wants. What is wrong with a row shows when it is read, but for
    /// quotes that make one row of several.
    pub(super) fn open(
        path: &Path,
        options: &CsvOptions,
        keep: impl Fn(&str) -> bool,
    ) -> Result<Self, DataError> {
        let mut omissions = Omissions::new();
        let header = Header::read(path, options, &mut omissions)?;
        let mut rows = Rows::new(reader(path, header.end)?, header.end, header.dialect);
        let mut row = Row::default();
        let (mut starts, mut numbers) = (Vec::new(), Vec::new());
        for number in 1.. {
            match rows.next(&mut row) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => return Err(refused(path, &format!("row {number}"), error)),
            }
            if header.swallows(&row) {
                let reason = "a quote is opened in it and closed in a later row, so that it holds \
                              what look like rows of their own";
                return Err(invalid(path, format!("row {number}: {reason}; {REMEDY}")));
            }
            let name = String::from_utf8_lossy(row.get(header.columns[0]).unwrap_or_default());
            if !keep(&name) {
                continue;
            }
            if starts.len() == MAX_ROWS {
                return Err(invalid(path, format!("more than {MAX_ROWS} rows")));
            }
            starts.push(row.start);
            numbers.push(number);
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        Ok(Self {
            path: path.to_owned(),
            photos: options.photos.as_deref().unwrap_or(folder).to_owned(),
            header,
            starts,
            numbers,
            omissions,
        })
    }

    pub(super) fn len(&self) -> usize {
        self.starts.len()
    }

    /// The number of a row in the file, from 1.
    pub(super) fn number(&self, at: u32) -> u32 {
        self.numbers[at as usize]
    }

    /// Reads a row: the photo's path as written, and the pair, or what is wrong with it.
    pub(super) fn row(&self, at: u32) -> Result<(String, Result<Pair, Bad>), ReadError> {
        let mut row = Row::default();
        let mut file = File::open(&self.path)?;
        let start = self.starts[at as usize];
        file.seek(SeekFrom::Start(start))?;
        let reader = BufReader::with_capacity(4096, file.take(2 * MAX_ROW_BYTES as u64));
        let found = match Rows::new(reader, start, self.header.dialect).next(&mut row) {
            Ok(found) => found,
            Err(RowError::Io(error)) => return Err(error.into()),
            Err(RowError::Unclosed | RowError::Long) => false,
        };
        let [image, caption] = self.header.columns.map(|column| row.get(column));
        let key = String::from_utf8_lossy(image.unwrap_or_default()).into_owned();
        let pair = match caption.filter(|_| found && row.len() <= self.header.count) {
            Some(_) if key.is_empty() => Err(Bad::new(BadKind::Row, "no photo")),
            Some(caption) => self.pair(&key, caption),
            None => {
                let (found, wanted) = (row.len(), self.header.count);
                let reason = format!("{found} columns, where the header has {wanted}");
                Err(Bad::new(BadKind::Row, reason))
            }
        };
        Ok((key, pair))
    }

    fn pair(&self, key: &str, caption: &[u8]) -> Result<Pair, Bad> {
        let caption = sidecar::caption(caption)?;
        if MISSING.contains(&caption.as_str()) {
            let reason = format!("the caption is `{caption}`, which stands for a missing one");
            return Err(Bad::new(BadKind::EmptyCaption, reason));
        }
        if key.contains("://") {
            let reason = "the photo is an address: only files are read";
            return Err(Bad::new(BadKind::File, reason));
        }
        Ok(Pair {
            photo: self.photos.join(key),
            caption,
        })
    }
}

/// What helps against quotes that were not meant as such.
const REMEDY: &str = "quotes in a value that begins with one must be doubled and the value closed by \
                      one, or the file be read with `--csv-quoting none`";

fn refused(path: &Path, what: &str, error: RowError) -> DataError {
    let reason = match error {
        RowError::Io(source) => {
            return DataError::Io {
                path: path.to_owned(),
                source,
            };
        }
        RowError::Unclosed => "a quote is opened in it and never closed".to_owned(),
        RowError::Long => {
            format!("longer than {MAX_ROW_BYTES} bytes, as if a quote in it were never closed")
        }
    };
    invalid(path, format!("{what}: {reason}; {REMEDY}"))
}

fn reader(path: &Path, at: u64) -> Result<BufReader<Take<File>>, DataError> {
    let mut reader = open(path, MAX_BYTES)?;
    let mut left = at;
    while left > 0 {
        let found = reader.fill_buf().map(<[u8]>::len);
        let found = found.map_err(|source| DataError::Io {
            path: path.to_owned(),
            source,
        })?;
        let step = left.min(found as u64);
        reader.consume(step as usize);
        left = if step == 0 { 0 } else { left - step };
    }
    Ok(reader)
}

impl Header {
    /// Reads the header with the first delimiter that gives the columns which are wanted.
    fn read(
        path: &Path,
        options: &CsvOptions,
        omissions: &mut Omissions,
    ) -> Result<Self, DataError> {
        let begin = begin(path)?;
        let wanted = [&options.image_column, &options.caption_column];
        let mut most: Vec<String> = Vec::new();
        for delimiter in DELIMITERS {
            let dialect = Dialect {
                delimiter,
                quoting: options.quoting,
            };
            let mut rows = Rows::new(reader(path, begin)?, begin, dialect);
            let mut row = Row::default();
            let found = rows.next(&mut row);
            if !found.map_err(|error| refused(path, "the header", error))? {
                return Err(invalid(path, "no header, and no rows"));
            }
            let names: Vec<Cow<'_, str>> = (0..row.len())
                .filter_map(|column| row.get(column).map(String::from_utf8_lossy))
                .collect();
            let columns = wanted.map(|name| names.iter().position(|found| found == name));
            let [Some(image), Some(caption)] = columns else {
                if names.len() > most.len() {
                    most = names.into_iter().map(Cow::into_owned).collect();
                }
                continue;
            };
            for name in wanted {
                if names.iter().filter(|found| *found == name).count() > 1 {
                    let file = path.file_name().unwrap_or_default().to_string_lossy();
                    omissions.add(
                        "columns whose name comes twice, of which the first is read",
                        format!("{file}: {name}"),
                    );
                }
            }
            return Ok(Self {
                dialect,
                columns: [image, caption],
                count: names.len(),
                end: rows.at(),
            });
        }
        let missing = wanted.into_iter().find(|name| !most.contains(name));
        let missing = missing.unwrap_or(wanted[0]);
        let shown = most[..most.len().min(MAX_SHOWN)].join(", ");
        Err(invalid(
            path,
            format!("no column `{missing}`, only {shown}"),
        ))
    }

    /// Whether a value of a row has line ends and looks as if it had swallowed the rows behind it.
    fn swallows(&self, row: &Row) -> bool {
        row.has_lines && (row.has_stray || row.values().any(|value| self.has_row(value)))
    }

    /// Whether a line of a value, but for the first, has all columns, and a photo where one should be.
    fn has_row(&self, value: &[u8]) -> bool {
        let lines = value.split(|byte| matches!(byte, b'\n' | b'\r')).skip(1);
        lines.into_iter().any(|line| {
            let values: Vec<&[u8]> = line.split(|byte| *byte == self.dialect.delimiter).collect();
            values.len() == self.count
                && (values.get(self.columns[0])).is_some_and(|value| is_photo(value))
        })
    }
}

/// Whether a value may be the name of a photo.
fn is_photo(value: &[u8]) -> bool {
    let value = String::from_utf8_lossy(value);
    let ending = value
        .trim()
        .rsplit_once('.')
        .map_or("", |(_, ending)| ending);
    value.contains("://")
        || PHOTOS
            .iter()
            .any(|known| known.eq_ignore_ascii_case(ending))
}

/// The first byte of a file behind the mark that some editors put first.
///
/// # Errors
/// The file is not UTF-8 or the like, but has two bytes a letter.
fn begin(path: &Path) -> Result<u64, DataError> {
    let mut first = Vec::new();
    let read = open(path, MAX_BYTES)?.take(4096).read_to_end(&mut first);
    read.map_err(|source| DataError::Io {
        path: path.to_owned(),
        source,
    })?;
    match first.as_slice() {
        [0xef, 0xbb, 0xbf, ..] => Ok(3),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Err(invalid(
            path,
            "UTF-16, where UTF-8 is read: save it as that",
        )),
        bytes if bytes.contains(&0) => Err(invalid(
            path,
            "zero bytes in the beginning: no CSV, or one in UTF-16 or UTF-32",
        )),
        _ => Ok(0),
    }
}
