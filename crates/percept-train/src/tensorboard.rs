//! TensorBoard's event files: scalars over steps.
//!
//! A file is a row of records (TFRecord): length, its checksum, the bytes, their checksum. Each is
//! an `Event` message (`tensorboard/compat/proto/event.proto`), of which three kinds are written.
//! The crates that do this are no longer kept, and bring a protobuf compiler.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::crc::Crc32c;

/// Wire types of protobuf.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

/// An event file.
#[derive(Debug)]
pub(crate) struct Events(File);

impl Events {
    /// A new file in `folder`. Whatever other files say about steps after `step` no longer counts.
    pub(crate) fn create(folder: &Path, step: u64) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let seconds = now() as u64;
        // TensorBoard knows its files by this name, and reads them in the order of it.
        let name = format!(
            "events.out.tfevents.{seconds:010}.percept.{}",
            std::process::id()
        );
        let mut events = Self(
            File::options()
                .create(true)
                .append(true)
                .open(folder.join(name))?,
        );
        let mut version = header(0);
        field_bytes(&mut version, 3, b"brain.Event:2");
        events.write(&version)?;
        // SessionLog { status: START }
        let mut start = header(step);
        field_bytes(&mut start, 7, &[(1 << 3) as u8, 1]);
        events.write(&start)?;
        Ok(events)
    }

    /// Values at a step, by their tags.
    pub(crate) fn scalars(&mut self, step: u64, values: &[(&str, f64)]) -> io::Result<()> {
        let mut summary = Vec::new();
        for (tag, value) in values {
            let mut scalar = Vec::new();
            field_bytes(&mut scalar, 1, tag.as_bytes());
            key(&mut scalar, 2, FIXED32);
            scalar.extend((*value as f32).to_le_bytes());
            field_bytes(&mut summary, 1, &scalar);
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
        self.0.write_all(&record)
    }
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
        assert_eq!(&records[1][9..], b"\x10\xac\x02\x3a\x02\x08\x01");
        let loss = b"\x0a\x0b\x0a\x04loss\x15\x00\x00\x00\x3f";
        let lr = b"\x0a\x09\x0a\x02lr\x15\x00\x00\x80\x3f";
        let scalars = [b"\x10\xac\x02\x2a\x18".as_slice(), loss, lr].concat();
        assert_eq!(&records[2][9..], scalars);
    }
}
