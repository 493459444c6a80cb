//! PyTorch's two file formats: the zip archive and what came before.

mod calls;
mod globals;
mod pickle;
mod state_dict;
mod values;

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use zip::ZipArchive;
use zip::read::ZipFile;
use zip::result::ZipError;

use self::pickle::MAX_PICKLE;
use self::state_dict::Extent;
pub(crate) use self::state_dict::may_be_tensor;
use self::values::{Id, Pickle, Value};
use crate::checkpoint::{Parts, file_len};
use crate::error::CheckpointError;
use crate::read::Source;
use crate::stand_in::StandIn;

/// The number 0x1950a86a20f9469cfc6c and the end of its pickle, with which a legacy file begins.
const LEGACY_MAGIC: &[u8] = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";

/// The same in protocol 1.
const LEGACY_MAGIC_TEXT: &[u8] = b"L119547037146038801333356L\n.";

/// Whether a file begins as legacy files do: the protocol from 2 on, from 4 on perhaps a frame, the
/// number.
pub(crate) fn is_legacy(start: &[u8]) -> bool {
    if start.starts_with(LEGACY_MAGIC_TEXT) {
        return true;
    }
    let number = match start {
        [0x80, 2..=5, 0x95, rest @ ..] => rest.get(8..),
        [0x80, 2..=5, rest @ ..] => Some(rest),
        _ => None,
    };
    number.is_some_and(|rest| rest.starts_with(LEGACY_MAGIC))
}

/// Opens a zip archive written by `torch.save` or `torch.jit.save`: `NAME/data.pkl`, the storages in
/// `NAME/data/KEY`, and perhaps `NAME/byteorder`.
pub(crate) fn open_zip(path: &Path, file: File) -> Result<Parts, CheckpointError> {
    let zip_error = |source| CheckpointError::Zip {
        path: path.to_owned(),
        source,
    };
    let len = file_len(path, &file)?;
    check_end(&file, len).map_err(zip_error)?;
    // Offsets count from the beginning of the file, as PyTorch has them. To look for data before the
    // archive, as the crate does unasked, takes the second entry of some directories for the first.
    let config = zip::read::Config {
        archive_offset: zip::read::ArchiveOffset::Known(0),
    };
    let mut archive = ZipArchive::with_config(config, BufReader::new(&file)).map_err(zip_error)?;
    if archive.has_duplicate_names() {
        return Err(CheckpointError::DuplicateEntry {
            path: path.to_owned(),
        });
    }

    let roots: Vec<String> = (archive.file_names_raw())
        .filter_map(|name| std::str::from_utf8(name).ok())
        .filter_map(|name| name.strip_suffix("data.pkl"))
        .filter(|root| root.is_empty() || root.ends_with('/'))
        .map(str::to_owned)
        .collect();
    let [root] = &roots[..] else {
        if let Some(what) = other_archive(archive.file_names_raw()) {
            return Err(CheckpointError::StandIn {
                path: path.to_owned(),
                what: StandIn::Other(what),
            });
        }
        return Err(CheckpointError::NotTorch {
            path: path.to_owned(),
            found: roots.len(),
        });
    };

    let order = format!("{root}byteorder");
    if archive.index_for_name(&order).is_some() {
        // "little" or "big"; a longer one is neither.
        let order = read_entry(path, &mut archive, &order, len, 16)?;
        if order.trim_ascii() != b"little" {
            return Err(CheckpointError::BigEndian {
                path: path.to_owned(),
            });
        }
    }
    let bytes = read_entry(
        path,
        &mut archive,
        &format!("{root}data.pkl"),
        len,
        MAX_PICKLE,
    )?;
    let pickle = pickle::parse(path, &bytes)?;
    let mut parts = state_dict::read(path, &pickle, |key| {
        let name = format!("{root}data/{key}");
        match archive.index_for_name(&name) {
            None => Ok(None),
            Some(index) => {
                let entry = archive.by_index_raw(index).map_err(zip_error)?;
                extent(path, &name, &entry, len).map(Some)
            }
        }
    })?;
    drop(archive);
    parts.sources.push(Source::new(path, file));
    Ok(parts)
}

/// What a zip archive is that is no PyTorch checkpoint, by the names in it.
fn other_archive<'a>(names: impl Iterator<Item = &'a [u8]>) -> Option<&'static str> {
    const KNOWN: [(&[u8], &str); 6] = [
        (b".npy", "a NumPy archive (.npz)"),
        (b"archive_format", "an archive of torch.export (.pt2)"),
        (b"model.weights.h5", "a Keras archive"),
        (b".safetensors", AROUND_A_MODEL),
        (b".bin", AROUND_A_MODEL),
        (b".pt", AROUND_A_MODEL),
    ];
    const AROUND_A_MODEL: &str = "a zip archive with a model in it (unpack it)";
    let names: Vec<&[u8]> = names.collect();
    (KNOWN.iter())
        .find(|(ending, _)| names.iter().any(|name| name.ends_with(ending)))
        .map(|(_, what)| *what)
}

/// Refuses an archive whose directory does not stand before its end: its offsets then lead into
/// something else, such as another archive in the same file.
fn check_end(mut file: &File, len: u64) -> Result<(), ZipError> {
    /// The end record without a comment, and with the longest.
    const END: usize = 22;
    const LONGEST: u64 = END as u64 + u16::MAX as u64;
    /// The end record of zip64 and its locator, which may stand between directory and end.
    const ZIP64: u64 = 56 + 20;

    let start = len.saturating_sub(LONGEST);
    let mut tail = Vec::new();
    file.seek(SeekFrom::Start(start))?;
    file.take(LONGEST).read_to_end(&mut tail)?;
    file.seek(SeekFrom::Start(0))?;
    let number = |record: &[u8], at: usize| {
        record[at..at + 4]
            .first_chunk()
            .map_or(0, |b| u32::from_le_bytes(*b))
    };
    let end = (tail.windows(END).enumerate().rev()).find(|(at, record)| {
        let comment = usize::from(u16::from_le_bytes([record[20], record[21]]));
        record.starts_with(b"PK\x05\x06") && at + END + comment == tail.len()
    });
    // Without one, or with numbers that only zip64 has, the crate says what is wrong.
    let Some((at, record)) = end else {
        return Ok(());
    };
    let (size, offset) = (number(record, 12), number(record, 16));
    let (at, directory_end) = (start + at as u64, u64::from(size) + u64::from(offset));
    match offset == u32::MAX || directory_end == at || directory_end + ZIP64 == at {
        true => Ok(()),
        false => Err(ZipError::InvalidArchive(
            "its directory does not stand before its end".into(),
        )),
    }
}

/// Where a stored entry's bytes are, in a file of `len` bytes.
fn extent<R: Read>(
    path: &Path,
    name: &str,
    entry: &ZipFile<'_, R>,
    len: u64,
) -> Result<Extent, CheckpointError> {
    if entry.compression() != zip::CompressionMethod::Stored
        || entry.encrypted()
        || entry.compressed_size() != entry.size()
    {
        return Err(CheckpointError::CompressedEntry {
            path: path.to_owned(),
            entry: name.to_owned(),
        });
    }
    let past_end = || CheckpointError::EntryPastEnd {
        path: path.to_owned(),
        entry: name.to_owned(),
    };
    let offset = entry.data_start().ok_or_else(past_end)?;
    match offset.checked_add(entry.size()) {
        Some(end) if end <= len => Ok(Extent {
            offset,
            len: entry.size(),
        }),
        _ => Err(past_end()),
    }
}

/// Reads a whole small entry.
fn read_entry<R: Read + Seek>(
    path: &Path,
    archive: &mut ZipArchive<R>,
    name: &str,
    len: u64,
    limit: usize,
) -> Result<Vec<u8>, CheckpointError> {
    let zip_error = |source| CheckpointError::Zip {
        path: path.to_owned(),
        source,
    };
    let index = (archive.index_for_name(name)).ok_or_else(|| zip_error(ZipError::FileNotFound))?;
    let mut entry = archive.by_index_raw(index).map_err(zip_error)?;
    let extent = extent(path, name, &entry, len)?;
    if extent.len > limit as u64 {
        return Err(CheckpointError::LimitExceeded {
            path: path.to_owned(),
            what: "bytes in a pickle",
            limit: limit as u64,
        });
    }
    let mut bytes = Vec::new();
    entry
        .read_to_end(&mut bytes)
        .map_err(|source| CheckpointError::Io {
            path: path.to_owned(),
            source,
        })?;
    Ok(bytes)
}

/// Opens a file of PyTorch before 1.6: pickles of the magic number, the protocol, the system, the
/// object and the list of storage keys; then each storage as its length and its elements.
pub(crate) fn open_legacy(path: &Path, mut file: File) -> Result<Parts, CheckpointError> {
    let io_error = |source| CheckpointError::Io {
        path: path.to_owned(),
        source,
    };
    let len = file_len(path, &file)?;
    // The pickles' length is written nowhere, so as much is read as they may have.
    let mut bytes = Vec::new();
    (&mut file)
        .take(MAX_PICKLE as u64)
        .read_to_end(&mut bytes)
        .map_err(io_error)?;
    let mut at = 0;
    let mut next = || -> Result<Pickle, CheckpointError> {
        let pickle = pickle::parse(path, bytes.get(at..).unwrap_or_default())?;
        at += pickle.consumed;
        Ok(pickle)
    };
    let _magic = next()?;
    let _protocol = next()?;
    let system = next()?;
    let object = next()?;
    let keys = next()?;
    if says_big_endian(&system) {
        return Err(CheckpointError::BigEndian {
            path: path.to_owned(),
        });
    }

    let sizes: HashMap<&str, u64> = object
        .storages()
        .filter_map(|s| Some((object.text(s.key)?, object.element_size(s)?)))
        .collect();
    let mut offset = at as u64;
    let mut extents = HashMap::new();
    for key in storage_keys(&keys) {
        // A storage of unknown element size hides where the next one begins. Those after it are
        // then reported missing, by the name of the tensor that needs them.
        let Some(&size) = sizes.get(key) else { break };
        let mut count = [0; 8];
        file.seek(SeekFrom::Start(offset)).map_err(io_error)?;
        file.read_exact(&mut count).map_err(io_error)?;
        let bytes = u64::from_le_bytes(count).checked_mul(size);
        let end = bytes.and_then(|bytes| (offset + 8).checked_add(bytes));
        match (bytes, end) {
            (Some(bytes), Some(end)) if end <= len => {
                let extent = Extent {
                    offset: offset + 8,
                    len: bytes,
                };
                extents.insert(key, extent);
                offset = end;
            }
            _ => {
                return Err(CheckpointError::EntryPastEnd {
                    path: path.to_owned(),
                    entry: format!("storage {key}"),
                });
            }
        }
    }
    let mut parts = state_dict::read(path, &object, |key| Ok(extents.get(key).copied()))?;
    parts.sources.push(Source::new(path, file));
    Ok(parts)
}

/// The list of storage keys, in the order in which the storages follow.
fn storage_keys(pickle: &Pickle) -> impl Iterator<Item = &str> {
    let keys: &[Id] = match pickle.get(pickle.root) {
        Value::List(keys) => keys,
        _ => &[],
    };
    keys.iter().filter_map(|&key| pickle.text(key))
}

/// Whether the description of the writing machine has `'little_endian': False`.
fn says_big_endian(system: &Pickle) -> bool {
    let Value::Dict(entries) = system.get(system.root) else {
        return false;
    };
    (entries.iter())
        .any(|&(key, value)| system.text(key) == Some("little_endian") && system.is_false(value))
}

/// Parses bytes as a pickle and lists its tensors, every storage being large and at offset 0.
pub(crate) fn fuzz(path: &Path, bytes: &[u8]) -> Result<usize, CheckpointError> {
    let bytes = bytes.get(..MAX_PICKLE).unwrap_or(bytes);
    let pickle = pickle::parse(path, bytes)?;
    let extent = Extent {
        offset: 0,
        len: 1 << 40,
    };
    Ok(state_dict::read(path, &pickle, |_| Ok(Some(extent)))?
        .tensors
        .len())
}
