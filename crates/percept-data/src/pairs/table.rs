//! Pairs listed in a CSV.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use csv::{ByteRecord, ReaderBuilder, Trim};

use super::shard::ReadError;
use crate::DataError;
use crate::files::{Table, invalid, open};

/// Largest CSV: one of CC-12M has 2 GB. Only where its rows start is kept.
const MAX_BYTES: u64 = 8 << 30;

/// Most rows, eight bytes each in memory.
const MAX_ROWS: usize = 200_000_000;

/// Longest row read. A quote that is never closed would make one of the rest of the file.
const MAX_ROW_BYTES: u64 = 1 << 20;

/// Where a CSV of pairs lists them and where its photos are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CsvOptions {
    /// The column of the photo's path. Default: `filepath`.
    pub image_column: String,
    /// The column of the caption. Default: `title`.
    pub caption_column: String,
    /// The folder that relative paths start from. Default: the folder of the CSV.
    pub photos: Option<PathBuf>,
}

impl Default for CsvOptions {
    fn default() -> Self {
        Self {
            image_column: "filepath".to_owned(),
            caption_column: "title".to_owned(),
            photos: None,
        }
    }
}

/// A CSV and where each of its rows starts.
#[derive(Debug)]
pub(super) struct PairTable {
    pub(super) path: PathBuf,
    photos: PathBuf,
    delimiter: u8,
    columns: [usize; 2],
    pub(super) rows: Vec<u64>,
}

/// A row as it stands in the file.
pub(super) struct Row {
    /// The path of the photo as written.
    pub(super) key: String,
    /// Where that leads.
    pub(super) photo: PathBuf,
    pub(super) caption: Vec<u8>,
}

impl PairTable {
    /// Finds the rows of a CSV whose photos `keep` wants. What is wrong with a row shows when it is read.
    pub(super) fn open(
        path: &Path,
        options: &CsvOptions,
        keep: impl Fn(&str) -> bool,
    ) -> Result<Self, DataError> {
        let table = Table::open(path, MAX_BYTES)?;
        let delimiter = table.delimiter();
        let columns = table.columns([&options.image_column, &options.caption_column])?;
        let mut reader = ReaderBuilder::new()
            .delimiter(delimiter)
            .flexible(true)
            .trim(Trim::All)
            .from_reader(open(path, MAX_BYTES)?);
        let mut row = ByteRecord::new();
        let mut rows = Vec::new();
        while (reader.read_byte_record(&mut row)).map_err(|e| invalid(path, e.to_string()))? {
            let name = String::from_utf8_lossy(row.get(columns[0]).unwrap_or_default());
            if !keep(&name) {
                continue;
            }
            if rows.len() == MAX_ROWS {
                return Err(invalid(path, format!("more than {MAX_ROWS} rows")));
            }
            rows.extend(row.position().map(csv::Position::byte));
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        Ok(Self {
            path: path.to_owned(),
            photos: options.photos.as_deref().unwrap_or(folder).to_owned(),
            delimiter,
            columns,
            rows,
        })
    }

    pub(super) fn row(&self, at: u64) -> Result<Row, ReadError> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(at))?;
        let mut reader = ReaderBuilder::new()
            .delimiter(self.delimiter)
            .flexible(true)
            .has_headers(false)
            .trim(Trim::All)
            .buffer_capacity(4096)
            .from_reader(file.take(MAX_ROW_BYTES));
        let mut row = ByteRecord::new();
        let found = (reader.read_byte_record(&mut row))
            .map_err(|error| ReadError::Bad(error.to_string()))?;
        let [image, caption] = self.columns.map(|column| row.get(column));
        let key = String::from_utf8_lossy(image.unwrap_or_default()).into_owned();
        match (found && !key.is_empty(), caption) {
            (true, Some(caption)) => Ok(Row {
                photo: self.photos.join(&key),
                key,
                caption: caption.to_vec(),
            }),
            _ => Err(ReadError::Bad(format!(
                "{} columns, of which one should be the photo and one the caption",
                row.len()
            ))),
        }
    }
}
