//! Writing safetensors: whole or not at all, and the same bytes for the same tensors.
//!
//! Not the `safetensors` crate's writer, because that one orders metadata at random and leaves files
//! readable by their owner alone.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::Path;

use half::slice::HalfFloatSliceExt;
use serde_json::{Map, Value, json};

use crate::dtype::{Dtype, checked_len};
use crate::error::CheckpointError;
use crate::quantized::{KEY, scale_name, to_4_bits, to_8_bits};
use crate::read::check_finite;

/// How to store the values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// Four bytes a value, exactly.
    #[default]
    F32,
    /// Two bytes a value, rounded to nearest.
    F16,
    /// One byte a value, and a factor for each row of a matrix (output channel, position). What is no
    /// matrix is stored as [`Precision::F32`].
    Int8,
    /// Half a byte a value, and a factor for each 128 values of a row. What does not divide so is
    /// stored as [`Precision::Int8`].
    Int4,
}

/// One tensor for [`write_safetensors`].
#[derive(Debug, Clone)]
pub struct TensorToWrite<'a> {
    /// Its name, unique in the file.
    pub name: String,
    /// Its dimensions, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// Its values in row-major order.
    pub values: Cow<'a, [f32]>,
    /// How to store them.
    pub precision: Precision,
}

impl<'a> TensorToWrite<'a> {
    fn check(&self) -> Result<(), CheckpointError> {
        if self.name == "__metadata__" {
            return Err(CheckpointError::ReservedName {
                tensor: self.name.clone(),
            });
        }
        if checked_len(&self.shape) != Some(self.values.len()) {
            return Err(CheckpointError::ShapeMismatch {
                tensor: self.name.clone(),
                shape: self.shape.clone(),
                values: self.values.len(),
            });
        }
        check_finite(&self.name, &self.values)
    }

    /// The tensor as the file has it: itself, or whole numbers and their factors.
    fn entries(self) -> Result<Vec<Entry<'a>>, CheckpointError> {
        self.check()?;
        let quantized = match self.precision {
            Precision::F32 | Precision::F16 => None,
            Precision::Int8 => to_8_bits(&self.shape, &self.values),
            Precision::Int4 => to_4_bits(&self.shape, &self.values)
                .or_else(|| to_8_bits(&self.shape, &self.values)),
        };
        let Some(quantized) = quantized else {
            return Ok(vec![Entry {
                dtype: match self.precision {
                    Precision::F16 => Dtype::F16,
                    _ => Dtype::F32,
                },
                name: self.name,
                shape: self.shape,
                values: Values::Floats(self.values),
            }]);
        };
        Ok(vec![
            Entry {
                name: scale_name(&self.name),
                shape: quantized.scale_shape,
                // Of many small groups; rounded already.
                dtype: match quantized.dtype {
                    Dtype::U8 => Dtype::F16,
                    _ => Dtype::F32,
                },
                values: Values::Floats(quantized.scales.into()),
            },
            Entry {
                name: self.name,
                shape: quantized.shape,
                dtype: quantized.dtype,
                values: Values::Bytes(quantized.numbers),
            },
        ])
    }
}

/// One tensor of the file.
struct Entry<'a> {
    name: String,
    shape: Vec<usize>,
    dtype: Dtype,
    values: Values<'a>,
}

enum Values<'a> {
    Floats(Cow<'a, [f32]>),
    Bytes(Vec<u8>),
}

impl Entry<'_> {
    fn bytes(&self) -> usize {
        match &self.values {
            Values::Floats(values) => values.len() * self.dtype.size(),
            Values::Bytes(bytes) => bytes.len(),
        }
    }

    fn write(&self, out: &mut impl Write) -> Result<(), WriteError> {
        // In pieces, so that a half-precision copy of a large tensor never exists as a whole.
        const PIECE: usize = 64 * 1024;
        let values = match &self.values {
            Values::Floats(values) => values,
            Values::Bytes(bytes) => return Ok(out.write_all(bytes)?),
        };
        for (i, piece) in values.chunks(PIECE).enumerate() {
            if self.dtype == Dtype::F16 {
                let mut halves = vec![half::f16::ZERO; piece.len()];
                halves.convert_from_f32_slice(piece);
                // Finite as f32, but too large for a half.
                if let Some(at) = halves.iter().position(|h| !h.is_finite()) {
                    return Err(WriteError::Value(CheckpointError::NonFinite {
                        tensor: self.name.clone(),
                        index: i * PIECE + at,
                    }));
                }
                let bytes: Vec<u8> = halves.iter().flat_map(|h| h.to_le_bytes()).collect();
                out.write_all(&bytes)?;
            } else if cfg!(target_endian = "little") {
                out.write_all(bytemuck::cast_slice(piece))?;
            } else {
                for v in piece {
                    out.write_all(&v.to_le_bytes())?;
                }
            }
        }
        Ok(())
    }
}

/// Writes tensors and metadata to `path`, through a temporary file in the same folder that takes its
/// place only when complete and on disk. Tensors are ordered by name, so that the same tensors give
/// the same bytes.
///
/// # Errors
/// [`CheckpointError::ShapeMismatch`], [`CheckpointError::DuplicateTensor`],
/// [`CheckpointError::ReservedName`], [`CheckpointError::NonFinite`] (also for values beyond half
/// precision where that was asked for) and [`CheckpointError::Io`]. `path` is then as it was.
pub fn write_safetensors<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = TensorToWrite<'a>>,
    metadata: &BTreeMap<String, String>,
) -> Result<(), CheckpointError> {
    let mut entries: Vec<Entry<'a>> = Vec::new();
    let mut metadata = metadata.clone();
    for tensor in tensors {
        entries.extend(tensor.entries()?);
    }
    if entries.iter().any(|e| matches!(e.values, Values::Bytes(_))) {
        metadata.insert(KEY.0.to_owned(), KEY.1.to_owned());
    }
    // By size of element first, as the format asks for the sake of alignment.
    entries.sort_by(|a, b| {
        let size = |entry: &Entry<'_>| entry.dtype.size();
        size(b).cmp(&size(a)).then_with(|| a.name.cmp(&b.name))
    });
    let header = header(path, &entries, &metadata)?;
    let io_error = |source| CheckpointError::Io {
        path: path.to_owned(),
        source,
    };

    let mut builder = tempfile::Builder::new();
    builder.prefix(".percept-").suffix(".incomplete");
    #[cfg(unix)]
    {
        // As any new file: readable by whom the umask allows, not by the owner alone.
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let folder = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let temporary = builder.tempfile_in(folder).map_err(io_error)?;
    let mut out = BufWriter::with_capacity(1 << 20, temporary.as_file());
    out.write_all(&header).map_err(io_error)?;
    for entry in &entries {
        entry.write(&mut out).map_err(|error| match error {
            WriteError::Io(source) => io_error(source),
            WriteError::Value(error) => error,
        })?;
    }
    out.flush().map_err(io_error)?;
    drop(out);
    temporary.as_file().sync_all().map_err(io_error)?;
    temporary.persist(path).map_err(|e| io_error(e.error))?;
    Ok(())
}

/// The length, the JSON, and spaces up to a multiple of eight.
fn header(
    path: &Path,
    entries: &[Entry<'_>],
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>, CheckpointError> {
    let mut json = Map::new();
    if !metadata.is_empty() {
        json.insert("__metadata__".to_owned(), json!(metadata));
    }
    let mut offset = 0;
    for entry in entries {
        let end = offset + entry.bytes();
        let described = json!({
            "dtype": entry.dtype.name(),
            "shape": entry.shape,
            "data_offsets": [offset, end],
        });
        if json.insert(entry.name.clone(), described).is_some() {
            return Err(CheckpointError::DuplicateTensor {
                path: path.to_owned(),
                tensor: entry.name.clone(),
            });
        }
        offset = end;
    }
    let mut text = Value::Object(json).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text);
    Ok(bytes)
}

/// A value can turn out not to fit only while it is being written.
enum WriteError {
    Io(std::io::Error),
    Value(CheckpointError),
}

impl From<std::io::Error> for WriteError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}
