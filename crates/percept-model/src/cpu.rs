//! The encoders of percept-cpu, which `--device cpu` means.

use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::Device;
use percept_cpu::attention::MAX_HEAD_WIDTH;
use percept_cpu::bert::{Bert, BertShape};
use percept_cpu::kernel::Kernel;
use percept_cpu::t5::{T5, T5Shape};
use percept_cpu::text::{Activation, Dense, Pooling};
use percept_cpu::vit::{VitShape, cut};
use percept_image::ChwImage;

use crate::encoder::{check_sizes, in_batches, to_vec};
use crate::files::TowerFiles;
use crate::layout::{ImageLayout, TextLayout};
use crate::source::Source;
use crate::vit::Vit;
use crate::weights::{self, LoadReport, Recipe};
use crate::{
    DenseActivation, DenseConfig, ImageConfig, ImageEncoder, ModelError, T5FeedForward, TextConfig,
    TextEncoder, TextPooling, TokenGrid, VitConfig,
};

/// A ViT on the CPU, without Burn but for the positions of a new image size.
#[derive(Debug)]
pub struct CpuImageEncoder {
    vit: percept_cpu::vit::Vit,
    /// The transformer without its matrices, which knows CLS, registers and positions.
    stem: Vit,
    /// CLS and registers, `[1 + registers, dim]`.
    first: Vec<f32>,
    /// Those of the last image's grid.
    positions: Mutex<Option<Positions>>,
    config: VitConfig,
}

/// Positions `[rows · columns, dim]` of a grid.
#[derive(Debug, Clone)]
struct Positions {
    grid: [usize; 2],
    values: Arc<Vec<f32>>,
}

impl CpuImageEncoder {
    /// Whether this engine has what a configuration needs.
    pub(crate) fn can_run(config: &VitConfig) -> bool {
        config.dim / config.heads.max(1) <= MAX_HEAD_WIDTH
    }

    /// Reads the weights; what is missing or has another shape is added to `report`, and nothing is
    /// returned.
    pub(crate) fn load(
        config: &ImageConfig,
        tower: &TowerFiles<ImageLayout>,
        kernel: Kernel,
        report: &mut LoadReport,
    ) -> Result<Option<Self>, ModelError> {
        let config = &config.vit;
        let recipe = |name: &str| tower.layout.recipe(name);
        let stem = VitConfig {
            depth: 0,
            ..config.clone()
        };
        let stem = stem.init(&Device::flex());
        let stem = weights::load(stem, &tower.source, recipe, report)?;
        let shape = VitShape {
            dim: config.dim,
            depth: config.depth,
            heads: config.heads,
            inputs: 3 * config.patch_size * config.patch_size,
            mlp_dim: config.mlp_dim,
            layer_scale: config.layer_scale,
            epsilon: config.layer_norm_eps as f32,
        };
        // Its projection is in the engine too.
        let stem = stem.only_positions();
        let vit = reading(&tower.source, recipe, report, |read| {
            percept_cpu::vit::Vit::new(shape, kernel, read)
        })?;
        Ok(report.is_complete().then(|| Self {
            vit,
            first: to_vec(stem.first_tokens()),
            stem,
            positions: Mutex::default(),
            config: config.clone(),
        }))
    }

    /// Positions of the patches of a grid.
    fn positions(&self, grid: [usize; 2]) -> Arc<Vec<f32>> {
        let last = || {
            self.positions
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        if let Some(last) = last().as_ref().filter(|last| last.grid == grid) {
            return last.values.clone();
        }
        // Not while it is locked: a thread that waits for others to compute may take up another photo.
        let values = Arc::new(to_vec(self.stem.patch_positions(grid)));
        *last() = Some(Positions {
            grid,
            values: values.clone(),
        });
        values
    }
}

impl ImageEncoder for CpuImageEncoder {
    // While a thread waits for another that computes a share of its images, it has some of its own.
    fn passes(&self) -> usize {
        2
    }

    fn encode(&self, images: &[ChwImage]) -> Result<Vec<TokenGrid>, ModelError> {
        let patch = self.config.patch_size;
        let Some([height, width]) = check_sizes(images, patch)? else {
            return Ok(Vec::new());
        };
        let mut pixels = Vec::new();
        for image in images {
            cut(&image.data, [height, width], patch, &mut pixels);
        }
        let [rows, columns] = [height / patch, width / patch];
        let positions = self.positions([rows, columns]);
        let tokens = self
            .vit
            .forward(pixels, images.len(), &self.first, &positions);
        let dim = self.config.dim;
        let per_image = self.first.len() + positions.len();
        Ok(tokens
            .chunks_exact(per_image)
            .map(|tokens| TokenGrid {
                rows,
                columns,
                dim,
                cls: tokens[..dim].to_vec(),
                patches: tokens[self.first.len()..].to_vec(),
            })
            .collect())
    }
}

/// Reads the parameter of this name and shape.
type Read<'a> = dyn Fn(&str, &[usize]) -> Result<Vec<f32>, ModelError> + Sync + 'a;

/// Gives `build` what reads parameters by our names, as percept-cpu asks for them. One that is missing or has
/// another shape is added to `report` and is all zeros, so that the others are looked for as well.
fn reading<T>(
    source: &Source,
    recipe: impl Fn(&str) -> Recipe + Sync,
    report: &mut LoadReport,
    build: impl FnOnce(&Read) -> Result<T, ModelError>,
) -> Result<T, ModelError> {
    let found = Mutex::new(&mut *report);
    let built = build(&|name, shape| {
        let mut of_one = LoadReport::default();
        let values = weights::values(source, recipe(name), shape, &mut of_one);
        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
        found.join(of_one);
        Ok(values?.unwrap_or_else(|| vec![0.0; shape.iter().product()]))
    });
    // Threads come to them in any order.
    report.missing.sort_unstable();
    report
        .misshaped
        .sort_unstable_by(|a, b| a.name.cmp(&b.name));
    built
}

/// T5 or BERT on the CPU, without Burn.
#[derive(Debug)]
pub struct CpuTextEncoder {
    tower: Tower,
    /// The dense layers behind the pooling.
    dense: Vec<Dense>,
    dim: usize,
}

#[derive(Debug)]
enum Tower {
    T5(T5),
    Bert(Bert),
}

impl CpuTextEncoder {
    /// Whether this engine has what a configuration needs.
    pub(crate) fn can_run(config: &TextConfig) -> bool {
        let head = match config {
            TextConfig::T5(t5) => t5.head_dim,
            TextConfig::Bert(bert) => bert.dim / bert.heads.max(1),
        };
        head <= MAX_HEAD_WIDTH
    }

    /// As [`CpuImageEncoder::load`].
    pub(crate) fn load(
        config: &TextConfig,
        tower: &TowerFiles<TextLayout>,
        kernel: Kernel,
        report: &mut LoadReport,
    ) -> Result<Option<Self>, ModelError> {
        let recipe = |name: &str| tower.layout.recipe(name);
        let (source, dim) = (&tower.source, config.dim());
        let pooling = pooling(config.head().pooling);
        let dense_layers = |mut width: usize, read: &Read| {
            let layers = config.head().dense.iter().enumerate();
            let layer = |(i, layer): (usize, &DenseConfig)| {
                let sides = [layer.width, std::mem::replace(&mut width, layer.width)];
                let name = format!("head.layers.{i}");
                let activation = activation(layer.activation);
                Dense::read(&name, sides, layer.bias, activation, kernel, &read)
            };
            layers
                .map(layer)
                .collect::<Result<Vec<Dense>, ModelError>>()
        };
        let (tower, dense) = reading(source, recipe, report, |read| match config {
            TextConfig::T5(config) => {
                let shape = T5Shape {
                    dim: config.dim,
                    depth: config.depth,
                    heads: config.heads,
                    head_dim: config.head_dim,
                    mlp_dim: config.mlp_dim,
                    is_gated: config.feed_forward == T5FeedForward::GatedGelu,
                    vocabulary: config.vocab_size,
                    buckets: config.relative_buckets,
                    max_distance: config.relative_max_distance,
                    epsilon: config.rms_norm_eps as f32,
                    projection: config.projection,
                    pooling,
                };
                let dense = dense_layers(config.projection.unwrap_or(config.dim), read)?;
                Ok((Tower::T5(T5::new(shape, kernel, read)?), dense))
            }
            TextConfig::Bert(config) => {
                let shape = BertShape {
                    dim: config.dim,
                    depth: config.depth,
                    heads: config.heads,
                    mlp_dim: config.mlp_dim,
                    vocabulary: config.vocab_size,
                    positions: config.max_positions,
                    token_types: config.token_types,
                    first_position: config.first_position,
                    epsilon: config.layer_norm_eps as f32,
                    pooling,
                };
                let dense = dense_layers(config.dim, read)?;
                Ok((Tower::Bert(Bert::new(shape, kernel, read)?), dense))
            }
        })?;
        Ok(report.is_complete().then_some(Self { tower, dense, dim }))
    }
}

impl TextEncoder for CpuTextEncoder {
    fn encode(&self, texts: &[Vec<u32>]) -> Result<Vec<Vec<f32>>, ModelError> {
        Ok(in_batches(texts, self.dim, |ids| {
            let pooled = match &self.tower {
                Tower::T5(t5) => t5.forward(ids),
                Tower::Bert(bert) => bert.forward(ids),
            };
            let layers = self.dense.iter();
            layers.fold(pooled, |x, layer| layer.apply(&x))
        }))
    }
}

fn pooling(pooling: TextPooling) -> Pooling {
    match pooling {
        TextPooling::Mean => Pooling::Mean,
        TextPooling::Cls => Pooling::Cls,
        TextPooling::Max => Pooling::Max,
        TextPooling::MeanSqrtLen => Pooling::MeanSqrtLen,
        TextPooling::WeightedMean => Pooling::WeightedMean,
        TextPooling::LastToken => Pooling::LastToken,
    }
}

fn activation(activation: DenseActivation) -> Activation {
    match activation {
        DenseActivation::Identity => Activation::Identity,
        DenseActivation::Tanh => Activation::Tanh,
        DenseActivation::Relu => Activation::Relu,
        DenseActivation::Gelu => Activation::Gelu,
    }
}
