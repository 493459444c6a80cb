//! How well a model does on pairs that it does not learn from.

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use percept_data::Omissions;
use percept_data::pairs::{
    Augment, BadSample, LastBatch, LoaderOptions, PairLoader, PairOrder, PairSource, Position,
    Sampling,
};
use percept_model::text::{TextTower, TokenBatch};
use percept_model::vit::Vit;
use serde::Serialize;

use crate::TrainError;
use crate::config::TrainConfig;
use crate::loss::{contrastive_loss, group, normalize, target_matrix};
use crate::start::Setup;
use crate::step::{Batch, StepConfig};

/// Rows of the matrix of all images and texts that are held at once.
const ROWS: usize = 1024;

/// What was found on the validation pairs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Validation {
    /// The mean loss in batches of the size that is trained with.
    pub loss: f64,
    /// Share of the images whose most similar caption, of all, is theirs or reads the same.
    pub image_to_text: f64,
    /// Share of the captions whose most similar image, of all, has that caption.
    pub text_to_image: f64,
    /// Pairs.
    pub samples: u64,
    /// Pairs that could not be used.
    pub bad_samples: u64,
    /// Those by kind, and what in the data files is no pair.
    #[serde(skip_serializing_if = "Omissions::is_empty")]
    pub left_out: Omissions,
    /// The first of those that could not be used.
    #[serde(skip)]
    pub bad: Vec<BadSample>,
}

/// Two towers as they are at some moment.
#[derive(Debug, Clone)]
pub(crate) struct Towers {
    pub(crate) image: Vit,
    pub(crate) text: TextTower,
    pub(crate) logit_scale: f32,
}

/// The validation pairs, the same each time and in the same order.
#[derive(Debug)]
pub(crate) struct Held {
    source: Arc<PairSource>,
    options: LoaderOptions,
    most: u64,
    size: u32,
}

impl Held {
    /// Those of `config`, if it has any.
    pub(crate) fn open(config: &TrainConfig, setup: &Setup) -> Result<Option<Self>, TrainError> {
        let Some(source) = config.val_source()? else {
            return Ok(None);
        };
        if source.samples()? < 2 {
            let (name, value) = match &config.val_data {
                Some(data) => ("val_data", data.clone()),
                None => ("val_fraction", config.val_fraction.to_string()),
            };
            return Err(TrainError::Setting {
                name,
                value,
                reason: "there are fewer than two pairs to validate on",
            });
        }
        let held = Self {
            source: Arc::new(source),
            options: LoaderOptions {
                last: LastBatch::Keep,
                ..config.loader()
            },
            most: config.val_num_samples,
            size: crate::run::side(&setup.image_config),
        };
        // Before hours of training: that there is one to measure.
        held.pairs(setup)?.next().transpose()?;
        Ok(Some(held))
    }

    /// What is no pair in the files that were listed.
    pub(crate) fn omissions(&self) -> Omissions {
        self.source.omissions()
    }

    fn pairs(&self, setup: &Setup) -> Result<PairLoader, TrainError> {
        let order = PairOrder {
            sampling: Sampling::InOrder,
            ..PairOrder::default()
        };
        let prepare = Augment::eval(self.size, setup.image_config.normalization);
        let (source, start) = (self.source.clone(), Position::default());
        Ok(PairLoader::new(
            source,
            order,
            prepare,
            self.options,
            start,
        )?)
    }

    /// Measures two towers.
    pub(crate) fn measure(
        &self,
        towers: &Towers,
        setup: &Setup,
        step: &StepConfig,
    ) -> Result<Validation, TrainError> {
        let mut loader = self.pairs(setup)?;
        let device = &setup.device;
        let (mut images, mut texts, mut captions) = (Vec::new(), Vec::new(), Vec::new());
        let (mut loss, mut samples) = (0.0, 0);
        while samples < self.most {
            let Some(pairs) = loader.next().transpose()? else {
                break;
            };
            let batch = crate::run::batch(&pairs, setup)?;
            let count = pairs.keys.len();
            let image = embed_images(&towers.image, &batch, step, device);
            let text = embed_texts(&towers.text, &batch, step, device);
            let right = target_matrix(&group(&batch.captions), step.targets, device);
            let scale = Tensor::<1>::from_floats([towers.logit_scale], device);
            let (found, _) = contrastive_loss(image.clone(), text.clone(), scale, right);
            loss += f64::from(found.into_scalar::<f32>()) * count as f64;
            samples += count as u64;
            images.push(normalize(image));
            texts.push(normalize(text));
            captions.extend(batch.captions);
        }
        let mut left_out = self.source.omissions();
        left_out.merge(&loader.skipped().omissions);
        let groups = group(captions);
        let (images, texts) = (Tensor::cat(images, 0), Tensor::cat(texts, 0));
        Ok(Validation {
            loss: loss / samples.max(1) as f64,
            image_to_text: right_at_first(&images, &texts, &groups),
            text_to_image: right_at_first(&texts, &images, &groups),
            samples,
            bad_samples: loader.skipped().total,
            left_out,
            bad: loader.skipped().first.clone(),
        })
    }
}

fn embed_images(tower: &Vit, batch: &Batch, step: &StepConfig, device: &Device) -> Tensor<2> {
    let [height, width] = batch.size;
    let values = 3 * height * width;
    let parts = batch
        .pixels
        .chunks((step.chunk * values).max(1))
        .map(|pixels| {
            let shape = [pixels.len() / values, 3, height, width];
            let pixels = Tensor::from_data(TensorData::new(pixels.to_vec(), shape), device);
            tower.forward(pixels, None).pool(step.pooling)
        });
    Tensor::cat(parts.collect(), 0)
}

fn embed_texts(tower: &TextTower, batch: &Batch, step: &StepConfig, device: &Device) -> Tensor<2> {
    let parts = batch.captions.chunks(step.chunk.max(1)).map(|ids| {
        let ids: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
        tower.forward(&TokenBatch::new(&ids, device))
    });
    Tensor::cat(parts.collect(), 0)
}

/// Share of the rows of `of` whose most similar row of `among` is of the same group.
fn right_at_first(of: &Tensor<2>, among: &Tensor<2>, groups: &[usize]) -> f64 {
    let count = groups.len();
    let mut right = 0;
    for first in (0..count).step_by(ROWS) {
        let rows = ROWS.min(count - first);
        let cosines = of
            .clone()
            .narrow(0, first, rows)
            .matmul(among.clone().transpose());
        let best = cosines.argmax(1).into_data();
        right += best
            .iter::<i64>()
            .zip(&groups[first..])
            .filter(|(best, group)| groups.get(*best as usize) == Some(group))
            .count();
    }
    right as f64 / count.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_captions_are_equally_right() {
        let device = Device::flex();
        let images = Tensor::<2>::from_floats([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]], &device);
        let texts = Tensor::<2>::from_floats([[0.8, 0.0], [1.0, 0.0], [0.0, 1.0]], &device);
        assert_eq!(right_at_first(&images, &texts, &[0, 0, 1]), 1.0);
        assert_eq!(right_at_first(&images, &texts, &[0, 1, 2]), 2.0 / 3.0);
    }
}
