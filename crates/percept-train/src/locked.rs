//! What the locked part of an image tower makes of its inputs, kept on disk from run to run.
//!
//! Where only the last blocks learn ([`Learning::Last`](crate::gradcache::Learning)), most of the arithmetic of a
//! step is the same for the same pixels in every epoch and in every run. With a limited number of views of each
//! photo ([`PairOrder::views`](percept_data::pairs::PairOrder)) it is done once for each view. A file is named
//! after the pixels and the weights that made it, so nothing stale is ever found.

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use half::f16;
use percept_image::kept;
use percept_model::vit::Vit;
use percept_model::{FrozenVit, weights};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::TrainError;

/// Told apart from what other versions of this file keep.
const FORMAT: &[u8] = b"percept-locked-2";

/// Files of what was made of inputs of one tower, one for each input.
#[derive(Debug, Clone)]
pub struct LockedCache {
    folder: PathBuf,
    /// Of the tower's weights, and of where its locked part ends.
    tower: [u8; kept::HASH],
    /// Number of the blocks that are locked.
    count: usize,
    /// Whether what the whole tower makes of the inputs is kept as well.
    whole: bool,
}

/// What a tower made of the inputs of a batch, rounded to half precision.
#[derive(Debug)]
pub(crate) struct Found {
    /// Behind the locked blocks, `[batch, tokens, dim]`.
    pub(crate) tokens: Tensor<3>,
    /// Behind all blocks and the norm, if that was asked for.
    pub(crate) whole: Option<Tensor<3>>,
}

impl LockedCache {
    /// The files in `folder` of what the first `count` blocks of `tower`, as it is now, make of inputs, and, with
    /// `whole`, of what all of it makes of them.
    ///
    /// # Errors
    /// [`TrainError::Io`] for a folder that cannot be made.
    pub fn open(folder: &Path, tower: &Vit, count: usize, whole: bool) -> Result<Self, TrainError> {
        fs::create_dir_all(folder).map_err(TrainError::io(folder))?;
        let mut sum = Sha256::new();
        sum.update(FORMAT);
        sum.update((count as u64).to_le_bytes());
        sum.update([u8::from(whole)]);
        weights::read(tower, |name, values| {
            sum.update(name.as_bytes());
            sum.update(bytemuck::cast_slice(&values));
        });
        Ok(Self {
            folder: folder.to_owned(),
            tower: sum.finalize().into(),
            count,
            whole,
        })
    }

    /// What `tower`, with which this was opened, makes of `pixels` `[batch, 3, height, width]`: read where it is
    /// known, else computed, `chunk` images at a time, and kept.
    ///
    /// # Errors
    /// [`TrainError::Io`] for a file that cannot be written.
    pub(crate) fn find(
        &self,
        tower: &FrozenVit,
        pixels: &[f32],
        [height, width]: [usize; 2],
        chunk: usize,
        device: &Device,
    ) -> Result<Found, TrainError> {
        let images: Vec<&[f32]> = pixels.chunks_exact((3 * height * width).max(1)).collect();
        let path = |image: &&[f32]| self.path(image, [height, width]);
        let paths: Vec<PathBuf> = images.par_iter().map(path).collect();
        let [rows, columns] = tower.grid_of([height, width]);
        let [tokens, dim] = tower.tokens_of([height, width]);
        let parts = match self.whole {
            true => vec![tokens, 1 + rows * columns],
            false => vec![tokens],
        };
        let length = parts.iter().sum::<usize>() * dim;
        let mut known: Vec<Option<Vec<f16>>> =
            (paths.par_iter()).map(|path| read(path, length)).collect();
        let missing: Vec<usize> = (0..images.len()).filter(|i| known[*i].is_none()).collect();
        for some in missing.chunks(chunk.max(1)) {
            let values: Vec<f32> = some.iter().flat_map(|i| images[*i]).copied().collect();
            let values = TensorData::new(values, [some.len(), 3, height, width]);
            let made = self.compute(tower, Tensor::from_data(values, device));
            for (at, image) in some.iter().enumerate() {
                let own = made.iter().flat_map(|values| {
                    let each = values.len() / some.len();
                    &values[at * each..(at + 1) * each]
                });
                let own: Vec<f16> = own.map(|value| half(*value)).collect();
                write(&paths[*image], &own)?;
                known[*image] = Some(own);
            }
        }
        let batch = images.len();
        let mut values: Vec<Vec<f32>> = parts.iter().map(|_| Vec::new()).collect();
        for known in known.iter().flatten() {
            let mut rest = known.as_slice();
            for (tokens, values) in parts.iter().zip(&mut values) {
                let (own, others) = rest.split_at(tokens * dim);
                values.extend(own.iter().map(|value| value.to_f32()));
                rest = others;
            }
        }
        let mut tensors = parts.iter().zip(values).map(|(tokens, values)| {
            Tensor::from_data(TensorData::new(values, [batch, *tokens, dim]), device)
        });
        Ok(Found {
            tokens: tensors
                .next()
                .unwrap_or_else(|| Tensor::zeros([batch, 0, dim], device)),
            whole: tensors.next(),
        })
    }

    /// What is kept of some images.
    fn compute(&self, tower: &FrozenVit, pixels: Tensor<4>) -> Vec<Vec<f32>> {
        let [_, _, height, width] = pixels.dims();
        let tokens = tower.embed(pixels, None);
        let tokens = tower.blocks(0..self.count, tokens);
        let mut made = vec![tokens.clone()];
        if self.whole {
            let tokens = tower.blocks(self.count..tower.depth(), tokens);
            let output = tower.finish(tokens, tower.grid_of([height, width]));
            made.push(Tensor::cat(
                vec![output.cls.unsqueeze_dim(1), output.patches],
                1,
            ));
        }
        let values = made.into_iter().map(Tensor::<3>::into_data);
        values.map(|values| values.iter().collect()).collect()
    }

    fn path(&self, image: &[f32], size: [usize; 2]) -> PathBuf {
        let mut sum = Sha256::new();
        sum.update(self.tower);
        for side in size {
            sum.update((side as u64).to_le_bytes());
        }
        sum.update(bytemuck::cast_slice(image));
        let name = kept::name(sum);
        // Not all in one folder: file systems slow down.
        self.folder.join(&name[..2]).join(&name[2..])
    }
}

/// A value as it is kept: what is too large for half precision is the largest that there is.
fn half(value: f32) -> f16 {
    f16::from_f32(value.clamp(f16::MIN.to_f32(), f16::MAX.to_f32()))
}

/// The `length` values of a file; none where they are not there: they are then made again.
fn read(path: &Path, length: usize) -> Option<Vec<f16>> {
    let bytes = kept::read(path, 2 * length as u64)?;
    let values = bytes.as_chunks().0.iter();
    let values: Vec<f16> = values.map(|bytes| f16::from_le_bytes(*bytes)).collect();
    (values.len() == length).then_some(values)
}

fn write(path: &Path, values: &[f16]) -> Result<(), TrainError> {
    let bytes: Vec<u8> = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    kept::write(path, &bytes).map_err(TrainError::io(path))
}
