//! The symmetric contrastive loss (paper §2, after CLIP).
//!
//! Both sides are L2-normalised, logits are `exp(logit_scale) · I · Tᵀ`, and the loss is the mean
//! of the cross-entropies over rows and over columns. It is a function of the embeddings of the
//! **whole** batch; [`contrast`] gives its gradients with respect to them, from which each chunk
//! or process can go on by itself ([`gradcache`](crate::gradcache)).

use std::collections::HashMap;
use std::hash::Hash;

use burn::tensor::{Device, Tensor, TensorData, activation};
use serde::{Deserialize, Serialize};

use crate::sides::{Sides, Words, patch_loss};

/// Where the temperature starts: `ln(1 / 0.07)` (CLIP).
pub const INITIAL_LOGIT_SCALE: f32 = 2.659_26;
/// The largest temperature: `ln 100` (CLIP).
pub const MAX_LOGIT_SCALE: f32 = 4.605_170_2;

/// Shorter vectors are divided by this instead of their length, as torch's `normalize` does.
const MIN_LENGTH: f32 = 1e-12;

/// Which texts of a batch are right for an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Targets {
    /// Its own caption alone (CLIP).
    #[default]
    Diagonal,
    /// Every caption that reads the same, in equal parts: a batch with the same caption twice
    /// otherwise asks for the impossible.
    IdenticalCaptions,
}

/// The loss of a batch and its gradients.
#[derive(Debug, Clone)]
pub struct Contrast {
    /// The loss.
    pub loss: f32,
    /// Gradient of the loss by the image embeddings, in their shape.
    pub images: Tensor<2>,
    /// Gradient of the loss by the text embeddings, in their shape.
    pub texts: Tensor<2>,
    /// Gradient of the loss by the embeddings of the words, in their shape, if there are any.
    pub words: Option<Tensor<2>>,
    /// Gradient of the loss by the logarithm of the temperature.
    pub logit_scale: f32,
    /// Part of the images whose most similar text is one of theirs, and of the texts whose most
    /// similar image is: the mean of the two.
    pub accuracy: f32,
}

/// Numbers things from 0 in the order of their first appearance; equal things get equal numbers.
pub fn group<T: Hash + Eq>(items: impl IntoIterator<Item = T>) -> Vec<usize> {
    let mut seen = HashMap::new();
    items
        .into_iter()
        .map(|item| {
            let next = seen.len();
            *seen.entry(item).or_insert(next)
        })
        .collect()
}

/// Vectors of the last axis scaled to unit length.
pub fn normalize<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let length = (x.clone() * x.clone()).sum_dim(D - 1).sqrt();
    x / length.clamp_min(MIN_LENGTH)
}

/// The loss `[1]` of embeddings `[batch, dim]` that need not be normalised, and the logits
/// `[batch, batch]`, a row for an image. `logit_scale` is the logarithm of the temperature, `[1]`;
/// keep it within 0 and [`MAX_LOGIT_SCALE`]. `right` is the matrix of [`target_matrix`].
pub fn contrastive_loss(
    images: Tensor<2>,
    texts: Tensor<2>,
    logit_scale: Tensor<1>,
    right: Tensor<2>,
) -> (Tensor<1>, Tensor<2>) {
    let [batch, _] = images.dims();
    let cosines = normalize(images).matmul(normalize(texts).transpose());
    let logits = cosines * logit_scale.exp().unsqueeze::<2>();
    let by_image = activation::log_softmax(logits.clone(), 1);
    let by_text = activation::log_softmax(logits.clone(), 0);
    // Groups of equal captions make the matrix symmetric: it serves both directions.
    let loss = ((by_image + by_text) * right).sum() * (-0.5 / batch as f64);
    (loss, logits)
}

/// What the softmax should be, `[batch, batch]`: every row is spread evenly over the captions of
/// its own group ([`group`]).
pub fn target_matrix(groups: &[usize], targets: Targets, device: &Device) -> Tensor<2> {
    let batch = groups.len();
    let mut members: HashMap<usize, Vec<usize>> = HashMap::new();
    for (i, group) in groups.iter().enumerate() {
        let key = match targets {
            Targets::Diagonal => i,
            Targets::IdenticalCaptions => *group,
        };
        members.entry(key).or_default().push(i);
    }
    let mut matrix = vec![0.0f32; batch * batch];
    for indices in members.values() {
        let share = 1.0 / indices.len() as f32;
        for i in indices {
            for j in indices {
                matrix[i * batch + j] = share;
            }
        }
    }
    Tensor::from_data(TensorData::new(matrix, [batch, batch]), device)
}

/// The loss of a whole batch with its gradients: [`contrastive_loss`], and [`patch_loss`] where there are
/// `words`. `images` are `[batch, dim]`, or with chosen patches behind each, `[batch, (1 + 2 · patches) ·
/// dim]`. `groups` numbers the captions ([`group`]); it is looked at for
/// [`Targets::IdenticalCaptions`] and for the accuracy.
pub fn contrast(
    images: Tensor<2>,
    texts: Tensor<2>,
    logit_scale: f32,
    groups: &[usize],
    targets: Targets,
    words: Option<(&Words, Sides)>,
) -> Contrast {
    let device = images.device();
    let leaf = |x: Tensor<2>| x.without_autodiff().autodiff().require_grad();
    let (images, texts) = (leaf(images), leaf(texts));
    let table = words.map(|(words, _)| leaf(words.embeddings.clone()));
    let scale = Tensor::<1>::from_floats([logit_scale], &device)
        .autodiff()
        .require_grad();
    let right = target_matrix(groups, targets, &device);
    let ([batch, width], [_, dim]) = (images.dims(), texts.dims());
    let pooled = images.clone().narrow(1, 0, dim);
    let (mut loss, logits) = contrastive_loss(pooled, texts.clone(), scale.clone(), right);
    if let (Some((words, sides)), Some(table)) = (words, &table) {
        let chosen = images.clone().narrow(1, dim, width - dim);
        let chosen = chosen.reshape([batch, width / dim - 1, dim]);
        let (shown, surroundings) = (&words.shown, words.surroundings);
        let (table, scale) = (table.clone(), scale.clone());
        loss = loss + patch_loss(chosen, table, scale, shown, surroundings, sides);
    }
    let mut gradients = loss.backward();
    let mut of = |x: &Tensor<2>| {
        x.grad_remove(&mut gradients)
            .unwrap_or_else(|| x.clone().without_autodiff().zeros_like())
    };
    let (d_images, d_texts) = (of(&images), of(&texts));
    let d_words = table.as_ref().map(&mut of);
    let d_scale = scale.grad_remove(&mut gradients);
    Contrast {
        loss: loss.without_autodiff().into_scalar::<f32>(),
        images: d_images,
        texts: d_texts,
        words: d_words,
        logit_scale: d_scale.map_or(0.0, |d| d.into_scalar::<f32>()),
        accuracy: accuracy(logits.without_autodiff(), groups),
    }
}

fn accuracy(logits: Tensor<2>, groups: &[usize]) -> f32 {
    let batch = groups.len();
    let mut right = 0usize;
    for axis in [1, 0] {
        let best = logits.clone().argmax(axis).into_data();
        right += best
            .iter::<i64>()
            .zip(groups)
            .filter(|(best, group)| groups.get(*best as usize) == Some(group))
            .count();
    }
    right as f32 / (2 * batch).max(1) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device() -> Device {
        Device::flex()
    }

    #[test]
    fn equal_things_share_a_number() {
        assert_eq!(group(["b", "a", "b", "c", "a"]), [0, 1, 0, 2, 1]);
    }

    #[test]
    fn embeddings_that_say_nothing_cost_ln_n() {
        let x = Tensor::<2>::ones([8, 4], &device());
        let groups: Vec<usize> = (0..8).collect();
        let found = contrast(x.clone(), x, 2.0, &groups, Targets::Diagonal, None);
        assert!((found.loss - 8f32.ln()).abs() < 1e-6);
        assert_eq!(found.logit_scale, 0.0);
    }

    #[test]
    fn identical_captions_are_all_right() {
        // Two images, the same caption twice: with one right answer the loss cannot fall below
        // ln 2; with both right it is still ln 2, but the gradient is zero.
        let images = Tensor::<2>::from_floats([[1.0, 0.2], [0.3, 1.0]], &device());
        let texts = Tensor::<2>::from_floats([[1.0, 0.0], [1.0, 0.0]], &device());
        let both = contrast(
            images.clone(),
            texts.clone(),
            1.0,
            &[0, 0],
            Targets::IdenticalCaptions,
            None,
        );
        let own = contrast(images, texts, 1.0, &[0, 0], Targets::Diagonal, None);
        let size = |x: Tensor<2>| x.abs().max().into_scalar::<f32>();
        assert!(size(both.texts.clone()) < size(own.texts.clone()));
        assert_eq!(both.accuracy, 1.0);
    }

    #[test]
    fn gradients_are_those_of_finite_differences() {
        let images = [0.3f32, -0.8, 0.5, 0.1, 0.9, -0.4];
        let texts = [0.7f32, 0.2, -0.6, 0.4, 0.1, 0.8];
        let tensor =
            |x: [f32; 6]| Tensor::from_data(TensorData::new(x.to_vec(), [3, 2]), &device());
        let at = |images: [f32; 6], scale: f32| {
            let groups = [0, 1, 0];
            contrast(
                tensor(images),
                tensor(texts),
                scale,
                &groups,
                Targets::IdenticalCaptions,
                None,
            )
        };
        let here = at(images, 1.5);
        let step = 1e-2;
        let slope = (at(images, 1.5 + step).loss - at(images, 1.5 - step).loss) / (2.0 * step);
        assert!((slope - here.logit_scale).abs() < 1e-3);
        let gradient: Vec<f32> = here.images.into_data().iter().collect();
        for i in 0..6 {
            let (mut more, mut less) = (images, images);
            more[i] += step;
            less[i] -= step;
            let slope = (at(more, 1.5).loss - at(less, 1.5).loss) / (2.0 * step);
            assert!(
                (slope - gradient[i]).abs() < 2e-3,
                "{slope} {}",
                gradient[i]
            );
        }
    }
}
