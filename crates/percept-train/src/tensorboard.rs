//! TensorBoard's event files: scalars over steps.
//!
//! A file is a row of records (TFRecord): length, its checksum, the bytes, their checksum. Each is
//! an `Event` message (`tensorboard/compat/proto/event.proto`), of which three kinds are written.
//! The crates that do this are no longer kept, and bring a protobuf compiler.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::crc::Crc32c;

/// Wire types of protobuf.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

/// What the names of event files begin with, before the time.
const NAME: &str = "events.out.tfevents.";

/// Longest record that is read again; ours have some hundred bytes.
const MAX_RECORD: u64 = 1 << 20;

/// `SessionLog.status` of a session that begins.
const START: u64 = 1;

/// An event file.
#[derive(Debug)]
pub(crate) struct Events {
    file: File,
    /// The step at which the run goes on, and the tags that have a value there already.
    known: (u64, BTreeSet<String>),
}

impl Events {
    /// A new file in `folder`. Whatever other files say about steps after `step` no longer counts.
    pub(crate) fn create(folder: &Path, step: u64) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let files = files(folder)?;
        let known = (step, tags_at(&files, step));
        // TensorBoard knows its files by this name, and reads them in the order of it: the run that was
        // killed may have begun in this very second.
        let last = files.iter().filter_map(|file| seconds_of(file)).max();
        let seconds = last
            .map_or(0, |last| last.saturating_add(1))
            .max(now() as u64);
        let name = format!("{NAME}{seconds:010}.percept.{}", std::process::id());
        let mut events = Self {
            file: File::options()
                .create(true)
                .append(true)
                .open(folder.join(name))?,
            known,
        };
        let mut version = header(0);
        field_bytes(&mut version, 3, b"brain.Event:2");
        events.write(&version)?;
        // Steps from this one on are taken again: TensorBoard forgets them.
        let mut start = header(step + 1);
        field_bytes(&mut start, 7, &[(1 << 3) as u8, START as u8]);
        events.write(&start)?;
        Ok(events)
    }

    /// Values at a step, by their tags; not those that are there from before the run was taken up.
    pub(crate) fn scalars(&mut self, step: u64, values: &[(&str, f64)]) -> io::Result<()> {
        let (from, tags) = &self.known;
        let is_known = |tag: &str| step == *from && tags.contains(tag);
        let mut summary = Vec::new();
        for (tag, value) in values.iter().filter(|(tag, _)| !is_known(tag)) {
            let mut scalar = Vec::new();
            field_bytes(&mut scalar, 1, tag.as_bytes());
            key(&mut scalar, 2, FIXED32);
            scalar.extend((*value as f32).to_le_bytes());
            field_bytes(&mut summary, 1, &scalar);
        }
        if summary.is_empty() {
            return Ok(());
        }
        let mut event = header(step);
        field_bytes(&mut event, 5, &summary);
        self.write(&event)
    }

    fn write(&mut self, event: &[u8]) -> io::Result<()> {
        let length = (event.len() as u64).to_le_bytes();
        let mut record = length.to_vec();
        record.extend(masked(&length).to_le_bytes());
        record.extend(event);
        record.extend(masked(event).to_le_bytes());
        // At once, so that a killed run leaves whole records.
        self.file.write_all(&record)
    }
}

/// The event files of a folder, in TensorBoard's order.
fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let paths = fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path()));
    let mut files = paths.collect::<io::Result<Vec<PathBuf>>>()?;
    files.retain(|path| seconds_of(path).is_some());
    files.sort();
    Ok(files)
}

/// The time in the name of an event file.
fn seconds_of(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?.strip_prefix(NAME)?;
    name.split('.').next()?.parse().ok()
}

/// The tags that TensorBoard has a value of at `step`.
fn tags_at(files: &[PathBuf], step: u64) -> BTreeSet<String> {
    let mut tags = BTreeSet::new();
    for path in files {
        // A file that cannot be read has nothing to show either.
        let Ok(file) = File::open(path) else { continue };
        let mut reader = BufReader::new(file);
        while let Some(record) = record(&mut reader) {
            let event = fields(&record).unwrap_or_default();
            let number = |of: u64| {
                event
                    .iter()
                    .find_map(|(field, value)| value.number_of(of, *field))
            };
            let at = number(2).unwrap_or(0);
            for (field, value) in &event {
                match (field, value) {
                    (7, Value::Bytes(session)) if at <= step && starts(session) => tags.clear(),
                    (5, Value::Bytes(summary)) if at == step => tags.extend(tags_of(summary)),
                    _ => {}
                }
            }
        }
    }
    tags
}

/// The next record of a file; `None` at its end, or where the run was killed.
fn record(reader: &mut impl Read) -> Option<Vec<u8>> {
    let mut head = [0; 12];
    reader.read_exact(&mut head).ok()?;
    let (length, sum) = head.split_at(8);
    if masked(length).to_le_bytes() != sum {
        return None;
    }
    let length = u64::from_le_bytes(length.try_into().ok()?);
    if length > MAX_RECORD {
        return None;
    }
    let mut record = vec![0; length as usize + 4];
    reader.read_exact(&mut record).ok()?;
    let sum = record.split_off(length as usize);
    (masked(&record).to_le_bytes() == *sum).then_some(record)
}

/// The value of a protobuf field, as far as it matters here.
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Other,
}

impl Value<'_> {
    /// The number, if `field` is the one that is wanted.
    fn number_of(&self, wanted: u64, field: u64) -> Option<u64> {
        match self {
            Self::Number(number) if field == wanted => Some(*number),
            _ => None,
        }
    }
}

/// The fields of a message; `None` for what is none.
fn fields(mut bytes: &[u8]) -> Option<Vec<(u64, Value<'_>)>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = read_varint(&mut bytes)?;
        let value = match key & 7 {
            VARINT => Value::Number(read_varint(&mut bytes)?),
            FIXED64 => take(&mut bytes, 8).map(|_| Value::Other)?,
            FIXED32 => take(&mut bytes, 4).map(|_| Value::Other)?,
            BYTES => {
                let length = usize::try_from(read_varint(&mut bytes)?).ok()?;
                Value::Bytes(take(&mut bytes, length)?)
            }
            _ => return None,
        };
        fields.push((key >> 3, value));
    }
    Some(fields)
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// Whether a `SessionLog` says that a session begins.
fn starts(session: &[u8]) -> bool {
    let fields = fields(session).unwrap_or_default();
    fields
        .iter()
        .any(|(field, value)| value.number_of(1, *field) == Some(START))
}

/// The tags of a `Summary`.
fn tags_of(summary: &[u8]) -> Vec<String> {
    let values = fields(summary).unwrap_or_default().into_iter();
    let tag = |bytes| {
        let fields = fields(bytes)?.into_iter();
        fields.into_iter().find_map(|(field, value)| match value {
            Value::Bytes(tag) if field == 1 => Some(String::from_utf8_lossy(tag).into_owned()),
            _ => None,
        })
    };
    values
        .filter_map(|(field, value)| match value {
            Value::Bytes(value) if field == 1 => tag(value),
            _ => None,
        })
        .collect()
}

/// Seconds since 1970.
pub(crate) fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

/// `wall_time` and `step` of an event.
fn header(step: u64) -> Vec<u8> {
    let mut event = Vec::new();
    key(&mut event, 1, FIXED64);
    event.extend(now().to_le_bytes());
    key(&mut event, 2, VARINT);
    varint(&mut event, step);
    event
}

fn key(out: &mut Vec<u8>, field: u64, wire: u64) {
    varint(out, field << 3 | wire);
}

fn field_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    key(out, field, BYTES);
    varint(out, bytes.len() as u64);
    out.extend(bytes);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// TFRecord's checksum, which can be stored among what it is the checksum of.
fn masked(bytes: &[u8]) -> u32 {
    Crc32c::of(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What TensorBoard's `EventAccumulator` keeps: a session that starts purges its step and later ones.
    fn shown(folder: &Path) -> Vec<(u64, String)> {
        let mut shown: Vec<(u64, String)> = Vec::new();
        for path in files(folder).unwrap() {
            let mut reader = BufReader::new(File::open(path).unwrap());
            while let Some(record) = record(&mut reader) {
                let event = fields(&record).unwrap();
                let at = event.iter().find_map(|(f, v)| v.number_of(2, *f)).unwrap();
                for (field, value) in event {
                    match (field, value) {
                        (7, Value::Bytes(log)) if starts(log) => shown.retain(|(s, _)| *s < at),
                        (5, Value::Bytes(summary)) => {
                            shown.extend(tags_of(summary).into_iter().map(|tag| (at, tag)));
                        }
                        _ => {}
                    }
                }
            }
        }
        shown
    }

    #[test]
    fn every_step_is_shown_once_however_often_a_run_is_taken_up() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let take_up = |from: u64, to: u64| {
            let mut events = Events::create(folder, from).unwrap();
            // As where a run is killed after its checkpoint, before or after the validation of that step.
            events.scalars(from, &[("val/loss", 1.0)]).unwrap();
            for step in from + 1..=to {
                events.scalars(step, &[("train/loss", 1.0)]).unwrap();
            }
        };
        take_up(0, 9);
        // Killed in the midst of a record.
        let last = files(folder).unwrap().pop().unwrap();
        let bytes = fs::read(&last).unwrap();
        fs::write(&last, &bytes[..bytes.len() - 5]).unwrap();
        for (from, to) in [(4, 7), (7, 7), (7, 8), (6, 12)] {
            take_up(from, to);
        }
        let mut shown = shown(folder);
        shown.sort();
        let of = |wanted: &str| -> Vec<u64> {
            let steps = shown.iter().filter(|(_, tag)| tag == wanted);
            steps.map(|(step, _)| *step).collect()
        };
        assert_eq!(of("train/loss"), (1..=12).collect::<Vec<_>>());
        assert_eq!(of("val/loss"), [0, 4, 6]);
        // All within a second or two, and still in their order.
        assert_eq!(files(folder).unwrap().len(), 5);
    }

    #[test]
    fn records_are_tensorboards() {
        let folder = tempfile::tempdir().unwrap();
        let mut events = Events::create(folder.path(), 300).unwrap();
        events.scalars(300, &[("loss", 0.5), ("lr", 1.0)]).unwrap();
        let file = fs::read_dir(folder.path())
            .unwrap()
            .next()
            .unwrap()
            .unwrap();
        let bytes = fs::read(file.path()).unwrap();
        let mut records = Vec::new();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            let sum = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap());
            assert_eq!(sum(8), masked(&rest[..8]));
            let record = &rest[12..12 + length];
            assert_eq!(sum(12 + length), masked(record));
            records.push(record.to_vec());
            rest = &rest[16 + length..];
        }
        assert_eq!(records.len(), 3);
        // Wall time (tag and eight bytes), then the rest as protoc would have it.
        assert_eq!(&records[0][9..], b"\x10\x00\x1a\x0dbrain.Event:2");
        assert_eq!(&records[1][9..], b"\x10\xad\x02\x3a\x02\x08\x01");
        let loss = b"\x0a\x0b\x0a\x04loss\x15\x00\x00\x00\x3f";
        let lr = b"\x0a\x09\x0a\x02lr\x15\x00\x00\x80\x3f";
        let scalars = [b"\x10\xac\x02\x2a\x18".as_slice(), loss, lr].concat();
        assert_eq!(&records[2][9..], scalars);
    }
}
