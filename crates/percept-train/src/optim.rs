//! AdamW as in torch and LAMB as in timm, over named parameters.
//!
//! The state is plain `f32` buffers by name, so that it can be written to a file and restored bit
//! for bit. Every element is computed by itself, and norms are summed in a fixed order: the number
//! of threads changes nothing.

use std::collections::BTreeMap;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::TrainError;

/// Elements handed to one rayon task. Fixed, since it decides the order in which norms are summed.
pub(crate) const CHUNK: usize = 1 << 15;

/// torch's `clip_grad_norm_` adds this to the norm before it divides.
const CLIP_EPSILON: f64 = 1e-6;

/// Name of the temperature among the parameters.
pub const LOGIT_SCALE: &str = "logit_scale";
/// What stands before the names of the image tower's parameters.
pub const IMAGE: &str = "image.";
/// What stands before the names of the text tower's parameters.
pub const TEXT: &str = "text.";

/// The update rule.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Rule {
    /// `torch.optim.AdamW`: weight decay apart from the gradient.
    #[serde(rename = "adamw")]
    AdamW {
        /// Decay of the gradient's average.
        beta1: f64,
        /// Decay of the squared gradient's average.
        beta2: f64,
        /// Added to the deviation.
        eps: f64,
    },
    /// `timm.optim.Lamb` with gradient averaging and bias correction, as timm's defaults have it:
    /// the update of every decayed parameter is scaled to its norm (You et al., 2020).
    Lamb {
        /// Decay of the gradient's average.
        beta1: f64,
        /// Decay of the squared gradient's average.
        beta2: f64,
        /// Added to the deviation.
        eps: f64,
        /// The gradient of all parameters is scaled down to this norm; timm has 1.
        max_grad_norm: Option<f64>,
        /// Which parameters are scaled, and how far.
        trust: Trust,
    },
}

/// Where LAMB scales an update by the ratio of the norms of weights and update.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trust {
    /// On parameters with weight decay (timm's default).
    #[default]
    Decayed,
    /// On all parameters (timm's `always_adapt`).
    All,
    /// On parameters with weight decay, by at most 1 (timm's `trust_clip`, LAMBC).
    DecayedAtMostOne,
}

impl Rule {
    /// AdamW with open_clip's numbers for a ViT.
    pub const ADAMW: Rule = Rule::AdamW {
        beta1: 0.9,
        beta2: 0.98,
        eps: 1e-6,
    };
    /// LAMB with timm's numbers.
    pub const LAMB: Rule = Rule::Lamb {
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-6,
        max_grad_norm: Some(1.0),
        trust: Trust::Decayed,
    };
}

/// Which parameters have no weight decay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoDecay {
    /// open_clip's rule: fewer than two axes, or `bn`, `ln`, `bias` or `logit_scale` in the name.
    #[default]
    OpenClip,
    /// The same, and position embeddings and special tokens of the image tower (timm).
    Timm,
}

impl NoDecay {
    /// Whether the parameter of this name and shape is spared.
    pub fn spares(self, name: &str, shape: &[usize]) -> bool {
        let open_clip = shape.len() < 2
            || ["bn", "ln", "bias", LOGIT_SCALE]
                .iter()
                .any(|part| name.contains(part));
        open_clip
            || (self == NoDecay::Timm
                && name.starts_with(IMAGE)
                && ["pos_embed", "cls_token", "reg_token"]
                    .iter()
                    .any(|part| name.ends_with(part)))
    }
}

/// An optimiser's settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimConfig {
    /// The update rule.
    pub rule: Rule,
    /// Weight decay of the parameters that have it.
    pub weight_decay: f64,
    /// Which have not.
    #[serde(default)]
    pub no_decay: NoDecay,
    /// Factor on the learning rate of the image tower.
    #[serde(default = "one")]
    pub image_lr: f64,
    /// Factor on the learning rate of the text tower.
    #[serde(default = "one")]
    pub text_lr: f64,
    /// Factor on the image tower's learning rate for every block further from the output, as in
    /// BEiT and timm: the final norm has 1, the last block this, the embeddings this to the power
    /// of the number of blocks plus one. `None` is 1.
    #[serde(default)]
    pub layer_decay: Option<f64>,
    /// The gradient of all parameters is scaled down to this norm (torch's `clip_grad_norm_`).
    #[serde(default)]
    pub clip_grad_norm: Option<f64>,
}

fn one() -> f64 {
    1.0
}

impl Default for OptimConfig {
    /// open_clip's: AdamW, weight decay 0.2, no clipping.
    fn default() -> Self {
        Self {
            rule: Rule::ADAMW,
            weight_decay: 0.2,
            no_decay: NoDecay::OpenClip,
            image_lr: 1.0,
            text_lr: 1.0,
            layer_decay: None,
            clip_grad_norm: None,
        }
    }
}

impl OptimConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`TrainError::Setting`] with the one at fault.
    pub fn validate(&self) -> Result<(), TrainError> {
        let (beta1, beta2, eps) = self.rule.numbers();
        let max_grad_norm = match self.rule {
            Rule::AdamW { .. } => None,
            Rule::Lamb { max_grad_norm, .. } => max_grad_norm,
        };
        let below_one = |v: f64| (0.0..1.0).contains(&v);
        let at_least_zero = |v: f64| v.is_finite() && v >= 0.0;
        let above_zero = |v: f64| v.is_finite() && v > 0.0;
        for (name, value, good, reason) in [
            ("beta1", beta1, below_one(beta1), "not in [0, 1)"),
            ("beta2", beta2, below_one(beta2), "not in [0, 1)"),
            ("eps", eps, at_least_zero(eps), "less than 0"),
            (
                "weight_decay",
                self.weight_decay,
                at_least_zero(self.weight_decay),
                "less than 0",
            ),
            (
                "image_lr",
                self.image_lr,
                at_least_zero(self.image_lr),
                "less than 0",
            ),
            (
                "text_lr",
                self.text_lr,
                at_least_zero(self.text_lr),
                "less than 0",
            ),
            (
                "layer_decay",
                self.layer_decay.unwrap_or(1.0),
                self.layer_decay.is_none_or(above_zero),
                "not above 0",
            ),
            (
                "clip_grad_norm",
                self.clip_grad_norm.unwrap_or(1.0),
                self.clip_grad_norm.is_none_or(above_zero),
                "not above 0",
            ),
            (
                "max_grad_norm",
                max_grad_norm.unwrap_or(1.0),
                max_grad_norm.is_none_or(above_zero),
                "not above 0",
            ),
        ] {
            if !good {
                return Err(TrainError::Setting {
                    name,
                    value: value.to_string(),
                    reason,
                });
            }
        }
        Ok(())
    }

    /// Factor on the learning rate of a parameter; `depth` is the number of the image tower's blocks.
    fn lr_factor(&self, name: &str, depth: usize) -> f64 {
        if let Some(name) = name.strip_prefix(IMAGE) {
            let distance = match block_number(name) {
                Some(block) => depth - block.min(depth),
                None if name.starts_with("norm.") => 0,
                None => depth + 1,
            };
            self.image_lr * self.layer_decay.unwrap_or(1.0).powi(distance as i32)
        } else if name.starts_with(TEXT) {
            self.text_lr
        } else {
            1.0
        }
    }
}

impl Rule {
    fn numbers(&self) -> (f64, f64, f64) {
        match *self {
            Rule::AdamW { beta1, beta2, eps }
            | Rule::Lamb {
                beta1, beta2, eps, ..
            } => (beta1, beta2, eps),
        }
    }
}

/// The block that a parameter of the image tower belongs to, if it belongs to one.
pub(crate) fn block_number(name: &str) -> Option<usize> {
    let (block, _) = name.strip_prefix("blocks.")?.split_once('.')?;
    block.parse().ok()
}

/// Gradients by parameter name, summed as they come.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GradientSum(BTreeMap<String, Vec<f32>>);

impl GradientSum {
    /// No gradients.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds to the gradient of a parameter.
    pub fn add(&mut self, name: &str, gradient: &[f32]) {
        match self.0.get_mut(name) {
            Some(sum) if sum.len() == gradient.len() => {
                sum.par_chunks_mut(CHUNK)
                    .zip(gradient.par_chunks(CHUNK))
                    .for_each(|(sum, gradient)| {
                        sum.iter_mut().zip(gradient).for_each(|(s, g)| *s += g);
                    });
            }
            _ => {
                self.0.insert(name.to_owned(), gradient.to_vec());
            }
        }
    }

    /// The gradient of a parameter.
    pub fn get(&self, name: &str) -> Option<&[f32]> {
        self.0.get(name).map(Vec::as_slice)
    }

    /// All gradients in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[f32])> {
        self.0.iter().map(|(n, g)| (n.as_str(), g.as_slice()))
    }

    /// All gradients in the order of their names, to be changed: to be summed over processes, for
    /// one.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&str, &mut [f32])> {
        self.0
            .iter_mut()
            .map(|(n, g)| (n.as_str(), g.as_mut_slice()))
    }

    /// The L2 norm over all parameters.
    pub fn norm(&self) -> f64 {
        let squares: f64 = self.0.values().map(|g| sum_of_squares(g)).sum();
        squares.sqrt()
    }

    /// The first parameter whose gradient has a value that is not finite.
    pub fn not_finite(&self) -> Option<&str> {
        self.iter()
            .find(|(_, gradient)| !gradient.iter().all(|v| v.is_finite()))
            .map(|(name, _)| name)
    }
}

/// In `f64` and in an order that the number of threads does not change.
fn sum_of_squares(values: &[f32]) -> f64 {
    let parts: Vec<f64> = values
        .par_chunks(CHUNK)
        .map(|chunk| chunk.iter().map(|v| f64::from(*v) * f64::from(*v)).sum())
        .collect();
    parts.into_iter().sum()
}

/// An optimiser with its state.
#[derive(Debug, Clone)]
pub struct Optimizer {
    config: OptimConfig,
    depth: usize,
    step: u64,
    moments: BTreeMap<String, Moments>,
}

/// Running averages of a gradient and of its square.
#[derive(Debug, Clone)]
struct Moments {
    shape: Vec<usize>,
    mean: Vec<f32>,
    square: Vec<f32>,
}

/// What all parameters of a step share: made by [`Optimizer::begin`].
#[derive(Debug, Clone, Copy)]
pub struct Update {
    lr: f64,
    /// Factor on all gradients.
    clip: f64,
    correction1: f64,
    correction2: f64,
}

impl Optimizer {
    /// An optimiser for parameters of these names and shapes.
    ///
    /// # Errors
    /// As [`OptimConfig::validate`].
    pub fn new(config: OptimConfig, shapes: &[(String, Vec<usize>)]) -> Result<Self, TrainError> {
        config.validate()?;
        let depth = shapes
            .iter()
            .filter_map(|(name, _)| block_number(name.strip_prefix(IMAGE)?))
            .max()
            .map_or(0, |last| last + 1);
        let moments = shapes
            .iter()
            .map(|(name, shape)| {
                let count = shape.iter().product();
                let moments = Moments {
                    shape: shape.clone(),
                    mean: vec![0.0; count],
                    square: vec![0.0; count],
                };
                (name.clone(), moments)
            })
            .collect();
        Ok(Self {
            config,
            depth,
            step: 0,
            moments,
        })
    }

    /// The settings.
    pub fn config(&self) -> &OptimConfig {
        &self.config
    }

    /// Steps taken so far.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Begins a step: counts it, and looks at the norm of all gradients, `norm`.
    pub fn begin(&mut self, norm: f64, lr: f64) -> Update {
        self.step += 1;
        let (beta1, beta2, _) = self.config.rule.numbers();
        let mut clip = match self.config.clip_grad_norm {
            Some(max) => (max / (norm + CLIP_EPSILON)).min(1.0),
            None => 1.0,
        };
        if let Rule::Lamb {
            max_grad_norm: Some(max),
            ..
        } = self.config.rule
        {
            clip /= (norm * clip / max).max(1.0);
        }
        let step = self.step.min(i32::MAX as u64) as i32;
        Update {
            lr,
            clip,
            correction1: 1.0 - beta1.powi(step),
            correction2: 1.0 - beta2.powi(step),
        }
    }

    /// Updates one parameter in place. A name that the optimiser does not know, or a length that
    /// is not the parameter's, is left alone.
    pub fn apply(&mut self, update: &Update, name: &str, values: &mut [f32], gradient: &[f32]) {
        let lr = update.lr * self.config.lr_factor(name, self.depth);
        let Some(moments) = self.moments.get_mut(name) else {
            return;
        };
        if moments.mean.len() != values.len() || gradient.len() != values.len() {
            return;
        }
        let decay = if self.config.no_decay.spares(name, &moments.shape) {
            0.0
        } else {
            self.config.weight_decay
        };
        match self.config.rule {
            Rule::AdamW { beta1, beta2, eps } => {
                let keep = (1.0 - lr * decay) as f32;
                let size = -(lr / update.correction1) as f32;
                let root = update.correction2.sqrt() as f32;
                let eps = eps as f32;
                moments.advance(
                    gradient,
                    update.clip,
                    beta1,
                    beta2,
                    |mean, square, at| {
                        for ((value, m), v) in at.iter_mut().zip(mean).zip(square) {
                            *value = *value * keep + size * *m / (v.sqrt() / root + eps);
                        }
                    },
                    values,
                );
            }
            Rule::Lamb {
                beta1,
                beta2,
                eps,
                trust,
                ..
            } => {
                let correction = 1.0 / update.correction1 as f32;
                let root = update.correction2.sqrt() as f32;
                let (eps, decay32) = (eps as f32, decay as f32);
                let mut step = values.to_vec();
                moments.advance(
                    gradient,
                    update.clip,
                    beta1,
                    beta2,
                    |mean, square, at| {
                        // `step` begins as the values, which the decay needs.
                        for ((step, m), v) in at.iter_mut().zip(mean).zip(square) {
                            *step = *m * correction / (v.sqrt() / root + eps) + decay32 * *step;
                        }
                    },
                    &mut step,
                );
                let adapts = decay != 0.0 || trust == Trust::All;
                let ratio = if adapts {
                    trust_ratio(values, &step, trust)
                } else {
                    1.0
                };
                let size = -(lr as f32);
                values
                    .par_chunks_mut(CHUNK)
                    .zip(step.par_chunks(CHUNK))
                    .for_each(|(values, step)| {
                        for (value, step) in values.iter_mut().zip(step) {
                            *value += size * (step * ratio);
                        }
                    });
            }
        }
    }

    /// The state with its names, to be saved: `exp_avg.NAME` and `exp_avg_sq.NAME`, in the shapes
    /// that parameters have in memory.
    pub fn tensors(&self) -> impl Iterator<Item = (String, &[usize], &[f32])> {
        self.moments.iter().flat_map(|(name, m)| {
            let shape = m.shape.as_slice();
            [
                (format!("exp_avg.{name}"), shape, m.mean.as_slice()),
                (format!("exp_avg_sq.{name}"), shape, m.square.as_slice()),
            ]
        })
    }

    /// Puts back what [`tensors`](Self::tensors) and [`step`](Self::step) gave; `read` has the
    /// values of a name.
    ///
    /// # Errors
    /// [`TrainError::State`] when a tensor is absent or has another length; nothing is changed.
    pub fn restore(
        &mut self,
        step: u64,
        mut read: impl FnMut(&str) -> Option<Vec<f32>>,
    ) -> Result<(), TrainError> {
        let mut restored = BTreeMap::new();
        for (name, moments) in &self.moments {
            let shape = moments.shape.clone();
            let mean = read_state(&format!("exp_avg.{name}"), &shape, &mut read)?;
            let square = read_state(&format!("exp_avg_sq.{name}"), &shape, &mut read)?;
            let moments = Moments {
                shape,
                mean,
                square,
            };
            restored.insert(name.clone(), moments);
        }
        self.moments = restored;
        self.step = step;
        Ok(())
    }
}

/// The values of a name, if there are as many as its shape says.
pub(crate) fn read_state(
    name: &str,
    shape: &[usize],
    read: &mut impl FnMut(&str) -> Option<Vec<f32>>,
) -> Result<Vec<f32>, TrainError> {
    let fail = |reason: String| TrainError::State {
        tensor: name.to_owned(),
        reason,
    };
    let values = read(name).ok_or_else(|| fail("is not there".into()))?;
    let count: usize = shape.iter().product();
    if values.len() != count {
        return Err(fail(format!("has {} values, not {count}", values.len())));
    }
    Ok(values)
}

impl Moments {
    /// Moves the averages by a gradient, then calls `then` with a piece of both and the same
    /// piece of `values`.
    fn advance(
        &mut self,
        gradient: &[f32],
        clip: f64,
        beta1: f64,
        beta2: f64,
        then: impl Fn(&[f32], &[f32], &mut [f32]) + Sync,
        values: &mut [f32],
    ) {
        let clip = clip as f32;
        let (new1, beta2, new2) = ((1.0 - beta1) as f32, beta2 as f32, (1.0 - beta2) as f32);
        self.mean
            .par_chunks_mut(CHUNK)
            .zip(self.square.par_chunks_mut(CHUNK))
            .zip(values.par_chunks_mut(CHUNK))
            .zip(gradient.par_chunks(CHUNK))
            .for_each(|(((mean, square), values), gradient)| {
                for ((m, v), g) in mean.iter_mut().zip(square.iter_mut()).zip(gradient) {
                    let g = g * clip;
                    // torch's `lerp_` and `addcmul_`.
                    *m += new1 * (g - *m);
                    *v = *v * beta2 + new2 * g * g;
                }
                then(mean, square, values);
            });
    }
}

/// LAMB's ratio of norms; 1 where one of them is zero.
fn trust_ratio(values: &[f32], step: &[f32], trust: Trust) -> f32 {
    let weights = sum_of_squares(values).sqrt();
    let step = sum_of_squares(step).sqrt();
    let ratio = if weights > 0.0 && step > 0.0 {
        weights / step
    } else {
        1.0
    };
    match trust {
        Trust::DecayedAtMostOne => ratio.min(1.0) as f32,
        Trust::Decayed | Trust::All => ratio as f32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shapes() -> Vec<(String, Vec<usize>)> {
        vec![
            ("image.blocks.0.mlp.fc1.weight".into(), vec![2, 2]),
            ("image.blocks.0.mlp.fc1.bias".into(), vec![2]),
        ]
    }

    #[test]
    fn decay_is_for_matrices() {
        let spares = |name: &str, shape: &[usize]| {
            [NoDecay::OpenClip, NoDecay::Timm].map(|rule| rule.spares(name, shape))
        };
        assert_eq!(
            spares("image.blocks.0.attn.qkv.weight", &[4, 12]),
            [false; 2]
        );
        assert_eq!(spares("image.blocks.0.attn.qkv.bias", &[12]), [true; 2]);
        assert_eq!(spares("image.blocks.0.ls1.gamma", &[4]), [true; 2]);
        assert_eq!(spares("image.pos_embed", &[1, 5, 4]), [false, true]);
        assert_eq!(spares("text.position.weight", &[5, 4]), [false; 2]);
        assert_eq!(spares("logit_scale", &[]), [true; 2]);
    }

    #[test]
    fn learning_rates_decay_towards_the_input() {
        let config = OptimConfig {
            image_lr: 2.0,
            text_lr: 0.5,
            layer_decay: Some(0.5),
            ..Default::default()
        };
        for (name, factor) in [
            ("image.norm.weight", 2.0),
            ("image.blocks.2.norm1.weight", 1.0),
            ("image.blocks.0.norm1.weight", 0.25),
            ("image.patch_embed.proj.weight", 0.125),
            ("text.blocks.0.norm1.weight", 0.5),
            ("logit_scale", 1.0),
        ] {
            assert_eq!(config.lr_factor(name, 3), factor, "{name}");
        }
    }

    #[test]
    fn a_restored_optimiser_goes_on_bit_for_bit() {
        for rule in [Rule::ADAMW, Rule::LAMB] {
            let config = OptimConfig {
                rule,
                ..Default::default()
            };
            let mut first = Optimizer::new(config.clone(), &shapes()).unwrap();
            let mut values = [0.5f32, -1.0, 2.0, 0.25];
            let step = |optimizer: &mut Optimizer, values: &mut [f32; 4]| {
                let update = optimizer.begin(3.0, 0.1);
                let gradient = values.map(|v| v * 0.3 + 1.0);
                optimizer.apply(&update, &shapes()[0].0, values, &gradient);
            };
            step(&mut first, &mut values);
            let saved: BTreeMap<String, Vec<f32>> = first
                .tensors()
                .map(|(name, _, values)| (name, values.to_vec()))
                .collect();
            let mut second = Optimizer::new(config, &shapes()).unwrap();
            second
                .restore(first.step(), |name| saved.get(name).cloned())
                .unwrap();
            let mut again = values;
            step(&mut first, &mut values);
            step(&mut second, &mut again);
            assert_eq!(values.map(f32::to_bits), again.map(f32::to_bits));
            assert!(second.restore(0, |_| Some(vec![0.0])).is_err());
        }
    }

    #[test]
    fn clipping_scales_the_whole_gradient() {
        let config = OptimConfig {
            clip_grad_norm: Some(1.0),
            ..Default::default()
        };
        let mut optimizer = Optimizer::new(config, &shapes()).unwrap();
        assert!((optimizer.begin(4.0, 0.1).clip - 0.25).abs() < 1e-6);
        assert_eq!(optimizer.begin(0.5, 0.1).clip, 1.0);
    }

    #[test]
    fn impossible_settings_are_refused() {
        let config = OptimConfig {
            weight_decay: f64::NAN,
            ..Default::default()
        };
        let error = Optimizer::new(config, &shapes()).unwrap_err().to_string();
        assert!(error.contains("weight_decay"), "{error}");
    }
}
