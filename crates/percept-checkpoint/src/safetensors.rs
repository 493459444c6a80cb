//! The safetensors header: eight bytes of length, then JSON, then the tensors' bytes.
//!
//! The header is parsed here rather than by the `safetensors` crate because that one needs the
//! whole file in memory, keeps the last of two equal names, and does not name the tensor at fault.
//! The rules are the same: ranges in bounds, disjoint, and leaving no gap. A tensor of a type that the
//! format has and percept has not is left out by name.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

use crate::dtype::{Dtype, TensorInfo, checked_len};
use crate::error::CheckpointError;
use crate::json::UniqueMap;

/// The format's own limit on the header, in bytes.
const MAX_HEADER: u64 = 100_000_000;

/// Bytes of the length in front of the header.
const LENGTH: u64 = 8;

/// More tensors than any published model by a factor of ten, few enough to list in memory.
pub(crate) const MAX_TENSORS: usize = 1 << 18;

/// Types that the format has and percept does not read, with the bits of an element.
const OTHER_TYPES: [(&str, u64); 9] = [
    ("F4", 4),
    ("F6_E2M3", 6),
    ("F6_E3M2", 6),
    ("F8_E4M3", 8),
    ("F8_E4M3FNUZ", 8),
    ("F8_E5M2", 8),
    ("F8_E5M2FNUZ", 8),
    ("F8_E8M0", 8),
    ("C64", 64),
];

/// A parsed header.
pub(crate) struct Header {
    pub(crate) tensors: Vec<HeaderTensor>,
    /// The names of tensors that are not read, and why.
    pub(crate) left_out: BTreeMap<String, String>,
    pub(crate) metadata: BTreeMap<String, String>,
}

/// One tensor of a header.
pub(crate) struct HeaderTensor {
    pub(crate) name: String,
    pub(crate) info: TensorInfo,
    /// Byte offset in the file.
    pub(crate) offset: u64,
}

/// Reads and checks the header of a file of `file_len` bytes.
pub(crate) fn read_header(
    path: &Path,
    mut reader: impl Read,
    file_len: u64,
) -> Result<Header, CheckpointError> {
    let io_error = |source| CheckpointError::Io {
        path: path.to_owned(),
        source,
    };
    let mut length = [0u8; LENGTH as usize];
    reader.read_exact(&mut length).map_err(io_error)?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER {
        return Err(CheckpointError::HeaderTooLong {
            path: path.to_owned(),
            length,
            limit: MAX_HEADER,
        });
    }
    // Before allocating: a few bytes must not claim 100 MB.
    let Some(available) = file_len.checked_sub(LENGTH + length) else {
        return Err(CheckpointError::HeaderPastEnd {
            path: path.to_owned(),
            length,
            file: file_len,
        });
    };
    let mut json = Vec::new();
    reader
        .take(length)
        .read_to_end(&mut json)
        .map_err(io_error)?;
    let raw: RawHeader = serde_json::from_slice(&json).map_err(|source| CheckpointError::Json {
        path: path.to_owned(),
        source,
    })?;
    check(path, raw, LENGTH + length, available)
}

/// Turns a raw header into tensors at known offsets, or says which one is wrong.
fn check(
    path: &Path,
    raw: RawHeader,
    data_start: u64,
    available: u64,
) -> Result<Header, CheckpointError> {
    if raw.tensors.len() > MAX_TENSORS {
        return Err(CheckpointError::LimitExceeded {
            path: path.to_owned(),
            what: "tensors",
            limit: MAX_TENSORS as u64,
        });
    }
    let mut entries = raw.tensors;
    entries.sort_by_key(|(_, raw)| raw.data_offsets);

    let mut tensors = Vec::with_capacity(entries.len());
    let mut left_out = BTreeMap::new();
    let mut claimed = 0;
    let mut previous = String::new();
    for (name, raw) in entries {
        let (begin, end) = raw.data_offsets;
        if begin > end || end > available {
            return Err(CheckpointError::OffsetsOutOfRange {
                path: path.to_owned(),
                tensor: name,
                begin,
                end,
                available,
            });
        }
        if begin < claimed {
            return Err(CheckpointError::OverlappingTensors {
                path: path.to_owned(),
                first: previous,
                second: name,
            });
        }
        check_claimed(path, claimed, begin)?;
        claimed = end;
        let needed = raw.bytes(path, &name)?;
        if needed != end - begin {
            return Err(CheckpointError::SizeMismatch {
                path: path.to_owned(),
                tensor: name,
                needed,
                stored: end - begin,
            });
        }
        previous.clone_from(&name);
        match raw.info() {
            Ok(info) => tensors.push(HeaderTensor {
                name,
                info,
                offset: data_start + begin,
            }),
            Err(reason) => {
                left_out.insert(name, reason);
            }
        }
    }
    check_claimed(path, claimed, available)?;
    Ok(Header {
        tensors,
        left_out,
        metadata: raw.metadata.into_iter().collect(),
    })
}

/// The format forbids gaps, where something could hide.
fn check_claimed(path: &Path, claimed: u64, next: u64) -> Result<(), CheckpointError> {
    if claimed == next {
        return Ok(());
    }
    Err(CheckpointError::UnclaimedBytes {
        path: path.to_owned(),
        offset: claimed,
        bytes: next - claimed,
    })
}

/// A header as JSON has it.
struct RawHeader {
    tensors: Vec<(String, RawTensor)>,
    metadata: Vec<(String, String)>,
}

#[derive(Deserialize)]
struct RawTensor {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

impl RawTensor {
    fn known(&self) -> Option<Dtype> {
        Dtype::ALL.into_iter().find(|d| d.name() == self.dtype)
    }

    /// The bytes that shape and type need, multiplied in the shape's order as the format's own reader
    /// does.
    fn bytes(&self, path: &Path, name: &str) -> Result<u64, CheckpointError> {
        let other = OTHER_TYPES.iter().find(|(other, _)| *other == self.dtype);
        let known = self.known().map(|dtype| 8 * dtype.size() as u64);
        let Some(bits) = known.or(other.map(|(_, bits)| *bits)) else {
            return Err(CheckpointError::UnsupportedDtype {
                path: path.to_owned(),
                tensor: name.to_owned(),
                dtype: self.dtype.clone(),
            });
        };
        let bits = (self.shape.iter())
            .try_fold(1, |n: u64, &d| n.checked_mul(d))
            .and_then(|n| n.checked_mul(bits))
            .ok_or_else(|| CheckpointError::BadShape {
                path: path.to_owned(),
                tensor: name.to_owned(),
                shape: (self.shape.iter().take(8))
                    .map(|&d| i64::try_from(d).unwrap_or(i64::MAX))
                    .collect(),
            })?;
        if bits % 8 != 0 {
            return Err(CheckpointError::PartialByte {
                path: path.to_owned(),
                tensor: name.to_owned(),
                dtype: self.dtype.clone(),
            });
        }
        Ok(bits / 8)
    }

    /// The tensor, or why it is not read.
    fn info(&self) -> Result<TensorInfo, String> {
        let Some(dtype) = self.known() else {
            return Err(format!("its numbers are of type {}", self.dtype));
        };
        let shape: Option<Vec<usize>> = (self.shape.iter())
            .map(|&d| usize::try_from(d).ok())
            .collect();
        match shape {
            Some(shape) if checked_len(&shape).is_some() => Ok(TensorInfo { dtype, shape }),
            _ => Err(format!("it has {} dimensions", self.shape.len())),
        }
    }
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = RawHeader;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a safetensors header")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
                let mut seen = std::collections::HashSet::new();
                let mut header = RawHeader {
                    tensors: Vec::new(),
                    metadata: Vec::new(),
                };
                while let Some(name) = map.next_key::<String>()? {
                    if !seen.insert(name.clone()) {
                        return Err(serde::de::Error::custom(format_args!(
                            "the tensor `{name}` appears twice"
                        )));
                    }
                    if name == "__metadata__" {
                        let metadata = map.next_value::<Option<UniqueMap<String>>>()?;
                        header.metadata = metadata.map(|m| m.0).unwrap_or_default();
                    } else {
                        header.tensors.push((name, map.next_value()?));
                    }
                }
                Ok(header)
            }
        }

        deserializer.deserialize_map(Entries)
    }
}
