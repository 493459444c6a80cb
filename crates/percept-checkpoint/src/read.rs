//! From bytes on disk to `f32` in row-major order.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};

use crate::dtype::{Dtype, TensorInfo};
use crate::error::CheckpointError;
use crate::quantized::{self, Scales};

/// Elements converted at a time: small enough to stay in the second-level cache between being read
/// and being checked, large enough that system calls do not count.
const CHUNK: usize = 64 * 1024;

/// An open file. The handle is kept so that a checkpoint replaced on disk after it was opened is
/// still read consistently.
#[derive(Debug)]
pub(crate) struct Source {
    path: PathBuf,
    file: Mutex<File>,
}

impl Source {
    pub(crate) fn new(path: &Path, file: File) -> Self {
        Self {
            path: path.to_owned(),
            file: Mutex::new(file),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// A place in a source. Others may read between one call and the next.
struct At<'a> {
    source: &'a Source,
    offset: u64,
}

impl Read for At<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        // A panic while the lock was held cannot have left the handle in a state that matters: every
        // read seeks first.
        let file = self.source.file.lock();
        let mut file = file.unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(self.offset))?;
        let read = file.read(out)?;
        self.offset += read as u64;
        Ok(read)
    }
}

/// Where one tensor's elements lie.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) info: TensorInfo,
    /// Index into the checkpoint's sources.
    pub(crate) source: usize,
    /// Byte offset of the first element in that file.
    pub(crate) offset: u64,
    /// Strides in elements, when the elements are not simply consecutive.
    pub(crate) strides: Option<Vec<usize>>,
    /// For a quantised tensor, what its numbers are to be multiplied by.
    pub(crate) scales: Option<Scales>,
}

impl Stored {
    /// Whether two values share a byte.
    fn is_packed(&self) -> bool {
        self.scales.as_ref().is_some_and(Scales::is_packed)
    }
}

/// Elements from the first to the last that a view touches, or `None` on overflow.
pub(crate) fn span(shape: &[usize], strides: &[usize]) -> Option<usize> {
    if shape.contains(&0) {
        return Some(0);
    }
    shape
        .iter()
        .zip(strides)
        .try_fold(1usize, |span, (&d, &s)| {
            span.checked_add((d - 1).checked_mul(s)?)
        })
}

/// Whether strides are those of a row-major tensor without gaps (a dimension of 1 may have any).
pub(crate) fn is_contiguous(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1usize;
    for (&d, &s) in shape.iter().zip(strides).rev() {
        if d != 1 && s != expected {
            return false;
        }
        expected = expected.saturating_mul(d);
    }
    true
}

/// Reads one tensor, refusing values that are not finite.
pub(crate) fn read_f32(
    sources: &[Source],
    name: &str,
    stored: &Stored,
) -> Result<Vec<f32>, CheckpointError> {
    let elements = match &stored.strides {
        None => stored.info.len(),
        // The parser has refused spans that overflow or leave the storage.
        Some(strides) => span(&stored.info.shape, strides).unwrap_or(0),
    };
    let mut values = read_elements(&sources[stored.source], name, stored, elements)?;
    let Some(scales) = &stored.scales else {
        return Ok(values);
    };
    let factors = read_f32(sources, &quantized::scale_name(name), scales.stored())?;
    scales.apply(&mut values, &factors);
    check_finite(name, &values)?;
    Ok(values)
}

/// Reads `elements` of one tensor as they are stored.
fn read_elements(
    source: &Source,
    name: &str,
    stored: &Stored,
    elements: usize,
) -> Result<Vec<f32>, CheckpointError> {
    let io_error = |source_error| CheckpointError::Io {
        path: source.path.clone(),
        source: source_error,
    };
    let shape = &stored.info.shape;
    let mut values = vec![0f32; elements];
    if elements == 0 {
        return Ok(values);
    }

    let dtype = stored.info.dtype;
    let mut start = 0;
    let mut scratch = Vec::new();
    let mut at = At {
        source,
        offset: stored.offset,
    };
    for chunk in values.chunks_mut(CHUNK) {
        let read = match stored.is_packed() {
            true => read_halves(&mut at, chunk, &mut scratch),
            false => read_chunk(&mut at, dtype, chunk, &mut scratch),
        };
        read.map_err(io_error)?;
        if stored.strides.is_none() {
            check_chunk(name, start, chunk)?;
        }
        start += chunk.len();
    }

    if let Some(strides) = &stored.strides {
        values = gather(&values, shape, strides);
        // Only now: what lies between the elements of a view is not part of it.
        check_finite(name, &values)?;
    }
    Ok(values)
}

/// Refuses NaN and infinities. [`Checkpoint::read_f32`](crate::Checkpoint::read_f32) has done it
/// already; this is for values that come from elsewhere.
///
/// # Errors
/// [`CheckpointError::NonFinite`] with the index of the first offending value.
pub fn check_finite(tensor: &str, values: &[f32]) -> Result<(), CheckpointError> {
    for (i, chunk) in values.chunks(CHUNK).enumerate() {
        check_chunk(tensor, i * CHUNK, chunk)?;
    }
    Ok(())
}

fn check_chunk(tensor: &str, start: usize, chunk: &[f32]) -> Result<(), CheckpointError> {
    // Not finite is an exponent of all ones. A fold without early exit, of operations that every
    // processor has for vectors, costs a tenth of reading the file.
    const EXPONENT: u32 = 0x7f80_0000;
    let any = chunk
        .iter()
        .fold(false, |any, v| any | (v.to_bits() & EXPONENT == EXPONENT));
    if !any {
        return Ok(());
    }
    let at = chunk.iter().position(|v| !v.is_finite()).unwrap_or(0);
    Err(CheckpointError::NonFinite {
        tensor: tensor.to_owned(),
        index: start + at,
    })
}

/// Reads and converts the next `out.len()` elements.
fn read_chunk(
    reader: &mut impl Read,
    dtype: Dtype,
    out: &mut [f32],
    scratch: &mut Vec<u8>,
) -> io::Result<()> {
    if dtype == Dtype::F32 {
        reader.read_exact(bytemuck::cast_slice_mut(out))?;
        if cfg!(target_endian = "big") {
            for v in out {
                *v = f32::from_bits(v.to_bits().swap_bytes());
            }
        }
        return Ok(());
    }
    scratch.resize(out.len() * dtype.size(), 0);
    reader.read_exact(scratch)?;
    convert(dtype, scratch, out);
    Ok(())
}

/// Reads and converts the next `out.len()` whole numbers of 4 bits, two to a byte.
fn read_halves(reader: &mut impl Read, out: &mut [f32], scratch: &mut Vec<u8>) -> io::Result<()> {
    let (pairs, _) = out.as_chunks_mut::<2>();
    scratch.resize(pairs.len(), 0);
    reader.read_exact(scratch)?;
    for (pair, byte) in pairs.iter_mut().zip(scratch) {
        *pair = quantized::halves(*byte);
    }
    Ok(())
}

/// Little-endian `bytes` of the given type to `f32`.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
fn convert(dtype: Dtype, bytes: &[u8], out: &mut [f32]) {
    /// One fixed-size little-endian element at a time, which the compiler vectorises.
    fn each<const N: usize>(bytes: &[u8], out: &mut [f32], f: impl Fn([u8; N]) -> f32) {
        let (elements, _) = bytes.as_chunks::<N>();
        for (v, &b) in out.iter_mut().zip(elements) {
            *v = f(b);
        }
    }
    match dtype {
        Dtype::F64 => each(bytes, out, |b| f64::from_le_bytes(b) as f32),
        Dtype::F32 => each(bytes, out, f32::from_le_bytes),
        Dtype::F16 => {
            // Through `half`'s slices, which use the processor's own conversion where it has one.
            let bits: Vec<u16> = bytes
                .as_chunks::<2>()
                .0
                .iter()
                .map(|&b| u16::from_le_bytes(b))
                .collect();
            bits.reinterpret_cast::<half::f16>()
                .convert_to_f32_slice(out);
        }
        Dtype::BF16 => each(bytes, out, |b| {
            f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16)
        }),
        Dtype::I64 => each(bytes, out, |b| i64::from_le_bytes(b) as f32),
        Dtype::I32 => each(bytes, out, |b| i32::from_le_bytes(b) as f32),
        Dtype::I16 => each(bytes, out, |b| f32::from(i16::from_le_bytes(b))),
        Dtype::I8 => each(bytes, out, |b| f32::from(i8::from_le_bytes(b))),
        Dtype::U64 => each(bytes, out, |b| u64::from_le_bytes(b) as f32),
        Dtype::U32 => each(bytes, out, |b| u32::from_le_bytes(b) as f32),
        Dtype::U16 => each(bytes, out, |b| f32::from(u16::from_le_bytes(b))),
        Dtype::U8 => each(bytes, out, |b: [u8; 1]| f32::from(b[0])),
        Dtype::Bool => each(bytes, out, |b: [u8; 1]| if b[0] == 0 { 0.0 } else { 1.0 }),
    }
}

/// Copies a strided view into row-major order.
fn gather(values: &[f32], shape: &[usize], strides: &[usize]) -> Vec<f32> {
    let len: usize = shape.iter().product();
    let mut out = Vec::with_capacity(len);
    let mut index = vec![0usize; shape.len()];
    let mut at = 0usize;
    // An odometer over the outer dimensions, with the innermost one as a plain loop.
    let (&inner, &inner_stride) = match (shape.last(), strides.last()) {
        (Some(d), Some(s)) => (d, s),
        _ => return values.to_vec(),
    };
    while out.len() < len {
        out.extend((0..inner).map(|i| values[at + i * inner_stride]));
        for axis in (0..shape.len() - 1).rev() {
            index[axis] += 1;
            at += strides[axis];
            if index[axis] < shape[axis] {
                break;
            }
            at -= strides[axis] * shape[axis];
            index[axis] = 0;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gathers_a_transposed_view() {
        let values = [0., 1., 2., 3., 4., 5.];
        assert_eq!(gather(&values, &[3, 2], &[1, 3]), [0., 3., 1., 4., 2., 5.]);
        assert_eq!(gather(&values, &[2, 1, 2], &[3, 9, 2]), [0., 2., 3., 5.]);
    }

    #[test]
    fn contiguity_ignores_the_stride_of_a_dimension_of_one() {
        assert!(is_contiguous(&[2, 1, 3], &[3, 77, 1]));
        assert!(is_contiguous(&[], &[]));
        assert!(!is_contiguous(&[3, 2], &[1, 3]));
    }

    #[test]
    fn spans_count_from_first_to_last_element() {
        assert_eq!(span(&[3, 2], &[1, 3]), Some(6));
        assert_eq!(span(&[0, 9], &[9, 1]), Some(0));
        assert_eq!(span(&[], &[]), Some(1));
        assert_eq!(span(&[2, 2], &[usize::MAX, 1]), None);
    }

    #[test]
    fn converts_every_type() {
        let read = |dtype, bytes: &[u8]| {
            let mut out = vec![0.0; bytes.len() / Dtype::size(dtype)];
            read_chunk(&mut &*bytes, dtype, &mut out, &mut Vec::new()).unwrap();
            out
        };
        assert_eq!(read(Dtype::F64, &1.5f64.to_le_bytes()), [1.5]);
        assert_eq!(read(Dtype::F32, &(-2.5f32).to_le_bytes()), [-2.5]);
        assert_eq!(
            read(Dtype::F16, &half::f16::from_f32(0.1).to_le_bytes()),
            [half::f16::from_f32(0.1).to_f32()]
        );
        assert_eq!(read(Dtype::BF16, &[0x80, 0x3f]), [1.0]);
        assert_eq!(read(Dtype::I64, &(-7i64).to_le_bytes()), [-7.0]);
        assert_eq!(read(Dtype::I32, &9i32.to_le_bytes()), [9.0]);
        assert_eq!(read(Dtype::I16, &(-3i16).to_le_bytes()), [-3.0]);
        assert_eq!(read(Dtype::I8, &[0xff]), [-1.0]);
        assert_eq!(
            read(Dtype::U64, &(1u64 << 40).to_le_bytes()),
            [(1u64 << 40) as f32]
        );
        assert_eq!(read(Dtype::U32, &u32::MAX.to_le_bytes()), [4_294_967_296.0]);
        assert_eq!(read(Dtype::U16, &u16::MAX.to_le_bytes()), [65_535.0]);
        assert_eq!(read(Dtype::U8, &[0xff]), [255.0]);
        assert_eq!(read(Dtype::Bool, &[0, 1]), [0.0, 1.0]);
    }

    #[test]
    fn finds_the_first_value_that_is_not_finite() {
        let mut values = vec![1.0; CHUNK + 10];
        assert!(check_finite("w", &values).is_ok());
        values[CHUNK + 3] = f32::NEG_INFINITY;
        values[CHUNK + 4] = f32::NAN;
        let error = check_finite("w", &values).unwrap_err();
        assert!(
            matches!(&error, CheckpointError::NonFinite { tensor, index } if tensor == "w" && *index == CHUNK + 3)
        );
    }
}
