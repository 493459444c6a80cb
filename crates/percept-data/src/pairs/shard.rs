//! What is where in a webdataset shard.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::num::NonZeroU64;
use std::path::Path;

use tar::{Archive, EntryType, PaxExtensions};

use crate::DataError;
use crate::files::invalid;

/// Most samples of a shard, whose places are kept in memory (about 100 bytes each). Shards usually
/// have 1,000 to 10,000.
const MAX_SAMPLES: usize = 4 << 20;

/// Most bytes of a member's name, which tar keeps in a member of its own. Systems allow 4,096.
const MAX_NAME_BYTES: u64 = 1 << 16;

/// Where a member's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// Never zero: a header comes first.
    offset: NonZeroU64,
    /// `u32::MAX` stands for that or more, which is over any limit.
    length: u32,
}

/// The members of one base name.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: Box<str>,
    pub(super) image: Option<Span>,
    pub(super) text: Option<Span>,
    pub(super) json: Option<Span>,
}

/// Lists the samples of a shard in the order of their first members, reading headers only.
///
/// A sample is what goes by the same name up to the first dot of the file name, folder kept, as in
/// webdataset, but wherever in the shard it stands. Only samples that `keep` wants are returned.
///
/// # Errors
/// [`DataError`]: the shard cannot be read, is no tar archive, or ends within a member.
pub(super) fn index(path: &Path, keep: impl Fn(&str) -> bool) -> Result<Vec<Entry>, DataError> {
    let io_error = |source| DataError::Io {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(io_error)?;
    let length = file.metadata().map_err(io_error)?.len();
    if length == 0 {
        return Err(invalid(path, "the file is empty"));
    }
    let mut archive = Archive::new(file);
    let mut samples: Vec<Entry> = Vec::new();
    let mut positions: HashMap<Box<str>, usize> = HashMap::new();
    // Raw: the crate would read names of any length into memory.
    let members = archive.entries_with_seek().map_err(io_error)?.raw(true);
    let mut long_name: Option<Vec<u8>> = None;
    let mut end = 0;
    for member in members {
        let mut member = member.map_err(|error| not_a_tar(path, end, length, &error))?;
        let (start, size) = (member.raw_file_position(), member.size());
        end = start.saturating_add(size);
        if end > length {
            let name = String::from_utf8_lossy(&member.path_bytes()).into_owned();
            let reason = format!(
                "the shard is cut short: it has {length} bytes, but `{name}` ends at byte {end}"
            );
            return Err(invalid(path, reason));
        }
        let kind = member.header().entry_type();
        if matches!(kind, EntryType::GNULongName | EntryType::XHeader) {
            if size > MAX_NAME_BYTES {
                return Err(invalid(path, format!("a name of {size} bytes")));
            }
            let mut bytes = Vec::new();
            member.read_to_end(&mut bytes).map_err(io_error)?;
            if kind == EntryType::GNULongName {
                bytes.truncate(bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len()));
                long_name = Some(bytes);
                continue;
            }
            for field in PaxExtensions::new(&bytes).flatten() {
                match field.key_bytes() {
                    b"path" => long_name = Some(field.value_bytes().to_vec()),
                    // Only members beyond 8 GiB need it, and they would be refused anyway.
                    b"size" => return Err(invalid(path, "a member with a pax size")),
                    _ => {}
                }
            }
            continue;
        }
        let name = (long_name.take()).unwrap_or_else(|| member.path_bytes().into_owned());
        if !matches!(kind, EntryType::Regular | EntryType::Continuous) {
            continue;
        }
        let name = String::from_utf8_lossy(&name);
        let Some((key, role)) = split_name(&name) else {
            continue;
        };
        let span = NonZeroU64::new(start).map(|offset| Span {
            offset,
            length: u32::try_from(size).unwrap_or(u32::MAX),
        });
        // Nearly always the same as that of the member before.
        let last = samples.len().checked_sub(1);
        let at = (last.filter(|&last| *samples[last].key == *key))
            .or_else(|| positions.get(key).copied());
        let at = match at {
            Some(at) => at,
            None if samples.len() == MAX_SAMPLES => {
                return Err(invalid(path, format!("more than {MAX_SAMPLES} samples")));
            }
            None if !keep(key) => continue,
            None => {
                positions.insert(key.into(), samples.len());
                samples.push(Entry {
                    key: key.into(),
                    image: None,
                    text: None,
                    json: None,
                });
                samples.len() - 1
            }
        };
        let sample = &mut samples[at];
        let place = match role {
            Role::Image => &mut sample.image,
            Role::Text => &mut sample.text,
            Role::Json => &mut sample.json,
        };
        // Of several, the first.
        *place = place.or(span);
    }
    samples.shrink_to_fit();
    Ok(samples)
}

fn not_a_tar(path: &Path, at: u64, length: u64, error: &io::Error) -> DataError {
    let mut magic = [0; 4];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut magic));
    let reason = match magic {
        [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd] if read.is_ok() => {
            "a compressed archive: shards are read in place and must be plain tar".to_owned()
        }
        _ if at > 0 && length.saturating_sub(at) < 1024 => {
            format!("the shard is cut short at byte {length}: {error}")
        }
        _ => format!("no tar archive, or damaged after byte {at}: {error}"),
    };
    invalid(path, reason)
}

/// What a member is to its sample.
enum Role {
    Image,
    Text,
    Json,
}

/// The key of a member and what it is; `None` if it is nothing that is read here.
fn split_name(name: &str) -> Option<(&str, Role)> {
    let name = name.trim_start_matches("./");
    let file = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = file + name[file..].find('.').filter(|&dot| dot > 0)?;
    let role = match name[dot + 1..].to_ascii_lowercase().as_str() {
        "jpg" | "jpeg" | "png" | "webp" => Role::Image,
        "txt" => Role::Text,
        "json" => Role::Json,
        _ => return None,
    };
    Some((&name[..dot], role))
}

/// Reads a member of at most `max_bytes`.
pub(super) fn read(file: &mut File, span: Span, max_bytes: u32) -> Result<Vec<u8>, ReadError> {
    if span.length > max_bytes {
        let size = match span.length {
            u32::MAX => "4 GiB or more".to_owned(),
            length => format!("{length} bytes"),
        };
        let reason = format!("{size}, over the limit of {max_bytes}");
        return Err(ReadError::Bad(reason));
    }
    let mut bytes = vec![0; span.length as usize];
    file.seek(SeekFrom::Start(span.offset.get()))?;
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Why a sample could not be read.
pub(super) enum ReadError {
    /// It is bad itself; others may be good.
    Bad(String),
    /// The shard cannot be read.
    Io(io::Error),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_split_at_the_first_dot_of_the_file() {
        let split = |name| {
            split_name(name).map(|(key, role)| match role {
                Role::Image => (key, 'i'),
                Role::Text => (key, 't'),
                Role::Json => (key, 'j'),
            })
        };
        assert_eq!(split("a/b.c/d.JPG"), Some(("a/b.c/d", 'i')));
        assert_eq!(split("./d.json"), Some(("d", 'j')));
        assert_eq!(split("d.txt"), Some(("d", 't')));
        // `d.seg.png` is a member `seg.png` of `d`; hidden files have no base name.
        for name in ["d.seg.png", "d", ".txt", "a/._d.jpg", "d.gif", ""] {
            assert_eq!(split(name), None, "{name}");
        }
    }
}
