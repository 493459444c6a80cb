//! The rows of a CSV, told apart as pandas tells them, with which open_clip reads.
//!
//! A quote opens a quoted value only where it comes first, and what follows the quote that closes it belongs to
//! the value; lines of nothing but white space are passed over; lines end with `\n`, `\r` or both. A quote that is
//! never closed is an error, where the crate `csv` takes the rest of the file for one value.

use std::io::{self, BufRead};
use std::ops::Range;

/// Longest row read. A quote that is never closed would make one of the rest of the file.
pub(super) const MAX_ROW_BYTES: usize = 1 << 20;

/// What quotes mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Quoting {
    /// A value that begins with one ends with one, and may hold delimiters, line ends and doubled quotes.
    #[default]
    Minimal,
    /// Nothing: they are letters as others.
    None,
}

/// How the values of a file are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dialect {
    pub(super) delimiter: u8,
    pub(super) quoting: Quoting,
}

/// Reads one row after the other.
pub(super) struct Rows<R> {
    reader: R,
    dialect: Dialect,
    /// Bytes read.
    at: u64,
}

/// A row as it was read.
#[derive(Debug, Default)]
pub(super) struct Row {
    /// Its first byte.
    pub(super) start: u64,
    text: Vec<u8>,
    ends: Vec<usize>,
    /// Whether there are line ends within quotes.
    pub(super) has_lines: bool,
    /// Whether something follows a quote that closes a value.
    pub(super) has_stray: bool,
}

/// Why a row cannot be read.
#[derive(Debug)]
pub(super) enum RowError {
    Io(io::Error),
    /// A quote is never closed.
    Unclosed,
    /// It is longer than [`MAX_ROW_BYTES`].
    Long,
}

impl Row {
    /// How many values it has.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// A value, without the white space around it.
    pub(super) fn get(&self, column: usize) -> Option<&[u8]> {
        let range = self.range(column)?;
        Some(self.text[range].trim_ascii())
    }

    /// All values, as they are.
    pub(super) fn values(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).filter_map(|column| Some(&self.text[self.range(column)?]))
    }

    fn range(&self, column: usize) -> Option<Range<usize>> {
        let end = *self.ends.get(column)?;
        let before = column.checked_sub(1).map_or(0, |before| self.ends[before]);
        Some(before..end)
    }

    fn clear(&mut self) {
        self.text.clear();
        self.ends.clear();
        (self.has_lines, self.has_stray) = (false, false);
    }

    fn end_value(&mut self) {
        self.ends.push(self.text.len());
    }
}

/// Where a row is being read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before its first byte.
    Before,
    /// White space so far: perhaps no row.
    Blank,
    /// At the beginning of a value.
    Value,
    /// In a value without quotes.
    Plain,
    /// Between quotes.
    Quoted,
    /// Behind a quote between quotes: it ends the value, or is doubled.
    Quote,
}

impl<R: BufRead> Rows<R> {
    /// Reads from `reader`, whose first byte is the `at`-th of the file.
    pub(super) fn new(reader: R, at: u64, dialect: Dialect) -> Self {
        Self {
            reader,
            dialect,
            at,
        }
    }

    /// The first byte that was not read.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Reads the next row into `row`; false if there is none.
    pub(super) fn next(&mut self, row: &mut Row) -> Result<bool, RowError> {
        row.clear();
        let mut state = State::Before;
        let mut length = 0;
        loop {
            let bytes = self.reader.fill_buf().map_err(RowError::Io)?;
            if bytes.is_empty() {
                return match state {
                    State::Before | State::Blank => Ok(false),
                    State::Quoted => Err(RowError::Unclosed),
                    State::Value | State::Plain | State::Quote => {
                        row.end_value();
                        Ok(true)
                    }
                };
            }
            let mut used = 0;
            let mut ended = false;
            for &byte in bytes {
                if state == State::Before {
                    row.start = self.at + used as u64;
                }
                used += 1;
                state = step(self.dialect, row, state, byte);
                ended = state == State::Before && !row.ends.is_empty();
                if ended {
                    break;
                }
            }
            self.reader.consume(used);
            self.at += used as u64;
            length += used;
            if ended {
                return Ok(true);
            }
            if length > MAX_ROW_BYTES && state != State::Before {
                return Err(RowError::Long);
            }
        }
    }
}

/// Takes a byte. The row has ended where the state is [`State::Before`] and there are values.
fn step(dialect: Dialect, row: &mut Row, state: State, byte: u8) -> State {
    let ends_line = matches!(byte, b'\n' | b'\r');
    let is_quote = byte == b'"' && dialect.quoting == Quoting::Minimal;
    let is_delimiter = byte == dialect.delimiter;
    match state {
        State::Before | State::Blank if ends_line => {
            row.clear();
            State::Before
        }
        State::Before | State::Blank if matches!(byte, b' ' | b'\t') && !is_delimiter => {
            row.text.push(byte);
            State::Blank
        }
        State::Quoted => match is_quote {
            true => State::Quote,
            false => {
                row.has_lines |= ends_line;
                row.text.push(byte);
                State::Quoted
            }
        },
        State::Quote if is_quote => {
            row.text.push(byte);
            State::Quoted
        }
        _ if ends_line => {
            row.end_value();
            State::Before
        }
        _ if is_delimiter => {
            row.end_value();
            State::Value
        }
        State::Before | State::Value if is_quote => State::Quoted,
        _ => {
            row.has_stray |= state == State::Quote;
            row.text.push(byte);
            State::Plain
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str, quoting: Quoting) -> Result<Vec<Vec<String>>, RowError> {
        let dialect = Dialect {
            delimiter: b',',
            quoting,
        };
        // A buffer of one byte: rows end anywhere in it.
        let mut rows = Rows::new(io::BufReader::with_capacity(1, text.as_bytes()), 0, dialect);
        let (mut row, mut all) = (Row::default(), Vec::new());
        while rows.next(&mut row)? {
            let values = row
                .values()
                .map(|value| String::from_utf8_lossy(value).into_owned());
            all.push(values.collect());
        }
        Ok(all)
    }

    #[track_caller]
    fn reads(text: &str, expected: &[&[&str]]) {
        assert_eq!(read(text, Quoting::Minimal).unwrap(), expected, "{text:?}");
    }

    #[test]
    fn rows_are_pandas_rows() {
        // As `pandas.read_csv(…, header=None, dtype=str, keep_default_na=False)` of pandas 3.1 has them.
        reads("a,b\nc,d", &[&["a", "b"], &["c", "d"]]);
        reads("a,b\r\nc,d\r\n", &[&["a", "b"], &["c", "d"]]);
        reads("a,b\rc,d\r", &[&["a", "b"], &["c", "d"]]);
        reads("a,b\n\n \t \n\r\nc,d\n", &[&["a", "b"], &["c", "d"]]);
        // But here pandas 3.1 drops the empty value.
        reads("a,b\r\r,d\r", &[&["a", "b"], &["", "d"]]);
        reads("a,\"x\ny, \"\"z\"\"\"\n", &[&["a", "x\ny, \"z\""]]);
        reads(
            "a,\"x\" y\nb,x \"y\"\n",
            &[&["a", "x y"], &["b", "x \"y\""]],
        );
        reads(" a, \"x\"\n", &[&[" a", " \"x\""]]);
        reads("a,\n,\n", &[&["a", ""], &["", ""]]);
        reads("a,\"\"", &[&["a", ""]]);
        reads("a,5\" x\nb,c", &[&["a", "5\" x"], &["b", "c"]]);
        assert!(matches!(
            read("a,\"b\nc,d\n", Quoting::Minimal),
            Err(RowError::Unclosed)
        ));
        let plain = read("a,\"b\nc,d\"\n", Quoting::None).unwrap();
        assert_eq!(plain, [["a", "\"b"], ["c", "d\""]]);
        let long = format!("a,\"{}", "x".repeat(MAX_ROW_BYTES));
        assert!(matches!(read(&long, Quoting::Minimal), Err(RowError::Long)));
    }

    proptest! {
        /// What the crate `csv` writes comes back, and rows begin where they are said to.
        #[test]
        fn rows_come_back(rows in prop::collection::vec(
            prop::collection::vec("[a-c,\"\n\r é]{0,6}", 2..4), 1..5,
        )) {
            let mut writer = csv::WriterBuilder::new().flexible(true).from_writer(Vec::new());
            rows.iter().for_each(|row| writer.write_record(row).unwrap());
            let bytes = writer.into_inner().unwrap();
            let dialect = Dialect { delimiter: b',', quoting: Quoting::Minimal };
            let mut all = Rows::new(bytes.as_slice(), 0, dialect);
            for expected in &rows {
                let (mut row, mut again) = (Row::default(), Row::default());
                prop_assert!(all.next(&mut row).unwrap());
                let from = &bytes[row.start as usize..];
                prop_assert!(Rows::new(from, row.start, dialect).next(&mut again).unwrap());
                for row in [row, again] {
                    let values: Vec<&[u8]> = row.values().collect();
                    let expected: Vec<&[u8]> = expected.iter().map(|v| v.as_bytes()).collect();
                    prop_assert_eq!(values, expected);
                }
            }
            prop_assert!(!all.next(&mut Row::default()).unwrap());
        }

        #[test]
        fn any_bytes_are_rows_or_refused(text in "[ab,\"\n\r \t]{0,40}") {
            let _ = read(&text, Quoting::Minimal);
            // Without quotes nothing can be left open.
            prop_assert!(read(&text, Quoting::None).is_ok());
        }
    }
}
