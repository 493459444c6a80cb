//! Weights in 8 or 4 bits: how they are stored in safetensors, and the way there and back.
//!
//! A quantised tensor `X` is stored as two. `X` holds whole numbers: `I8` in its own shape, or `U8`
//! with two numbers of 4 bits in each byte (`[rows, columns / 2]`, the first in the low half, stored
//! plus 8). `X.scale` (`F32` or `F16`, `[rows, groups]`) holds the factor of each group of a row; a row
//! of an `I8` tensor is one group. [`KEY`] in the file's metadata says that it is meant so.

use std::collections::BTreeMap;
use std::path::Path;

use crate::dtype::{Dtype, TensorInfo, checked_len};
use crate::error::CheckpointError;
use crate::read::Stored;

/// The metadata entry of files that hold quantised tensors, and its value.
pub(crate) const KEY: (&str, &str) = ("percept.quantized", "1");

/// End of the name of the factors.
const SCALE: &str = ".scale";

/// Values of a 4-bit group: enough of them that the factor costs an eighth of a bit each, few enough
/// that one large weight spoils few others.
const GROUP: usize = 128;

/// Whole numbers and their factors, ready to be written.
pub(crate) struct Quantized {
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) numbers: Vec<u8>,
    pub(crate) scales: Vec<f32>,
    pub(crate) scale_shape: Vec<usize>,
}

/// The name of the factors of `tensor`.
pub(crate) fn scale_name(tensor: &str) -> String {
    format!("{tensor}{SCALE}")
}

/// Rounds to -127..=127 times the factor of each row, `None` for what is no matrix.
pub(crate) fn to_8_bits(shape: &[usize], values: &[f32]) -> Option<Quantized> {
    let (rows, columns) = matrix(shape)?;
    let mut numbers = Vec::with_capacity(values.len());
    let mut scales = Vec::with_capacity(rows);
    for row in values.chunks_exact(columns) {
        let scale = largest(row) / 127.0;
        scales.push(scale);
        numbers.extend(row.iter().map(|v| nearest(*v, scale, 127.0) as u8));
    }
    Some(Quantized {
        dtype: Dtype::I8,
        shape: shape.to_vec(),
        numbers,
        scales,
        scale_shape: vec![rows, 1],
    })
}

/// Rounds to -7..=7 times the factor of each group, `None` for what is no matrix of two dimensions
/// with an even number of columns.
pub(crate) fn to_4_bits(shape: &[usize], values: &[f32]) -> Option<Quantized> {
    let (rows, columns) = matrix(shape)?;
    if shape.len() != 2 || columns % 2 != 0 {
        return None;
    }
    let group = if columns % GROUP == 0 { GROUP } else { columns };
    let mut numbers = Vec::with_capacity(values.len() / 2);
    let mut scales = Vec::with_capacity(values.len() / group);
    for group in values.chunks_exact(group) {
        // As it will be read.
        let scale = half::f16::from_f32(best_scale(group)).to_f32();
        scales.push(scale);
        let stored = |v: f32| (nearest(v, scale, 7.0) + 8) as u8;
        numbers
            .extend((group.chunks_exact(2)).map(|pair| stored(pair[0]) | (stored(pair[1]) << 4)));
    }
    Some(Quantized {
        dtype: Dtype::U8,
        shape: vec![rows, columns / 2],
        numbers,
        scales,
        scale_shape: vec![rows, columns / group],
    })
}

/// Rows and columns: the outputs of a linear layer or convolution and all else, or the positions of a
/// grid `[1, positions, dim]` and their width.
fn matrix(shape: &[usize]) -> Option<(usize, usize)> {
    let (rows, columns) = match shape {
        [one, positions, width] => (one.checked_mul(*positions)?, *width),
        [rows, rest @ ..] if !rest.is_empty() => (*rows, rest.iter().product()),
        _ => return None,
    };
    (rows > 0 && columns > 0).then_some((rows, columns))
}

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |most: f32, v| most.max(v.abs()))
}

fn nearest(value: f32, scale: f32, most: f32) -> i8 {
    if scale == 0.0 {
        return 0;
    }
    (value / scale).round_ties_even().clamp(-most, most) as i8
}

/// The factor with the least squared error among those that clip the largest value by up to 40 %.
fn best_scale(group: &[f32]) -> f32 {
    const TRIED: usize = 17;
    let full = largest(group) / 7.0;
    let error = |scale: f32| -> f32 {
        let off = |v: &f32| v - f32::from(nearest(*v, scale, 7.0)) * scale;
        group.iter().map(|v| off(v) * off(v)).sum()
    };
    (0..TRIED)
        .map(|i| full * (1.0 - 0.025 * i as f32))
        .map(|scale| (error(scale), scale))
        .min_by(|a, b| a.0.total_cmp(&b.0))
        .map_or(full, |(_, scale)| scale)
}

/// Where the factors of a stored tensor are.
#[derive(Debug)]
pub(crate) struct Scales {
    stored: Box<Stored>,
    /// Values that share one.
    group: usize,
    packed: bool,
}

impl Scales {
    pub(crate) fn stored(&self) -> &Stored {
        &self.stored
    }

    /// Whether a byte holds two numbers.
    pub(crate) fn is_packed(&self) -> bool {
        self.packed
    }

    /// Whole numbers to values, in place.
    pub(crate) fn apply(&self, numbers: &mut [f32], scales: &[f32]) {
        for (group, scale) in numbers.chunks_mut(self.group).zip(scales) {
            for number in group {
                *number *= scale;
            }
        }
    }
}

/// The two whole numbers of a byte.
pub(crate) fn halves(byte: u8) -> [f32; 2] {
    [f32::from(byte & 15) - 8.0, f32::from(byte >> 4) - 8.0]
}

/// In a file that says so, joins quantised tensors with their factors; what is listed afterwards
/// has the shapes of the values.
///
/// # Errors
/// [`CheckpointError::Quantized`]: whole numbers and factors do not fit each other;
/// [`CheckpointError::UnknownQuantization`]: they are not to be joined as they are here.
pub(crate) fn join(
    path: &Path,
    tensors: &mut BTreeMap<String, Stored>,
    metadata: &BTreeMap<String, String>,
) -> Result<(), CheckpointError> {
    match metadata.get(KEY.0) {
        None => return Ok(()),
        Some(version) if version == KEY.1 => {}
        Some(version) => {
            return Err(CheckpointError::UnknownQuantization {
                path: path.to_owned(),
                version: version.chars().take(40).collect(),
            });
        }
    }
    let names: Vec<String> = (tensors.keys())
        .filter_map(|name| name.strip_suffix(SCALE))
        .filter(|name| tensors.contains_key(*name))
        .map(str::to_owned)
        .collect();
    for name in names {
        let Some(scales) = tensors.remove(&scale_name(&name)) else {
            continue;
        };
        let Some(numbers) = tensors.get_mut(&name) else {
            continue;
        };
        let (info, group) =
            fit(&numbers.info, &scales.info).ok_or_else(|| CheckpointError::Quantized {
                path: path.to_owned(),
                tensor: name.clone(),
                reason: format!(
                    "{} {:?} and {} {:?}",
                    numbers.info.dtype, numbers.info.shape, scales.info.dtype, scales.info.shape
                ),
            })?;
        numbers.scales = Some(Scales {
            stored: Box::new(scales),
            group,
            packed: numbers.info.dtype == Dtype::U8,
        });
        numbers.info = info;
    }
    Ok(())
}

/// The tensor that whole numbers and factors make, and how many values share a factor.
fn fit(numbers: &TensorInfo, scales: &TensorInfo) -> Option<(TensorInfo, usize)> {
    let mut shape = numbers.shape.clone();
    match (numbers.dtype, shape.as_mut_slice()) {
        (Dtype::I8, [_, _, ..]) => {}
        (Dtype::U8, [_, columns]) => *columns = columns.checked_mul(2)?,
        _ => return None,
    }
    let len = checked_len(&shape)?;
    let (rows, columns) = matrix(&shape)?;
    let [scale_rows, groups] = *scales.shape else {
        return None;
    };
    if !matches!(scales.dtype, Dtype::F32 | Dtype::F16)
        || scale_rows != rows
        || groups == 0
        || columns % groups != 0
    {
        return None;
    }
    len.checked_mul(size_of::<f32>())?;
    let info = TensorInfo {
        dtype: numbers.dtype,
        shape,
    };
    Some((info, columns / groups))
}
