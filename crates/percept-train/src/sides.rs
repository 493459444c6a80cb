//! The two sides of a photo, its main thing and what surrounds that, found without labels: bottom-up
//! grouping (paper §2.4) with two groups, as a part of the loss. Not in the paper.
//!
//! With `cls` pooling nothing tells the patches around a dog that they are no dog: they attend to it and
//! come to resemble the word as well. So the mean of these patches is an image of its own whose caption is
//! [`CAPTION`], and the mean of the others may be one with the photo's caption. Nobody says where
//! anything is: the first principal direction of a photo's own patches divides it, and CLS, which stands
//! for the photo, says which side is the thing.

use burn::tensor::Tensor;
use percept_model::vit::VitOutput;
use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::loss::normalize;

/// The caption of what surrounds the main thing of a photo, as the benchmarks spell the class.
pub const CAPTION: &str = "a photo of a background";

/// Steps of the power iteration: the two sides are told by a sign, which needs few.
const ITERATIONS: usize = 8;

/// What the two sides of every photo weigh in the loss.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sides {
    /// Weight of the main things with the photos' captions; the pooled embeddings have the rest of 1.
    pub object: f64,
    /// Weight of the surroundings with [`CAPTION`], beside that 1. They are wrong images for the
    /// photos' captions in any case.
    pub surroundings: f64,
}

impl Sides {
    /// Those of two weights, unless both are 0.
    pub fn new(object: f64, surroundings: f64) -> Option<Self> {
        // Not `> 0.0`: what is no weight must come to `validate`.
        (object != 0.0 || surroundings != 0.0).then_some(Self {
            object,
            surroundings,
        })
    }

    /// Checks that the weights are some.
    ///
    /// # Errors
    /// [`TrainError::Setting`].
    pub fn validate(&self) -> Result<(), TrainError> {
        for (name, value, good, reason) in [
            (
                "object_weight",
                self.object,
                (0.0..=1.0).contains(&self.object),
                "not in [0, 1]",
            ),
            (
                "surroundings_weight",
                self.surroundings,
                self.surroundings >= 0.0 && self.surroundings.is_finite(),
                "not 0 or more",
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
}

/// Means `[batch, dim]` of the unit-length patch tokens of the main thing of each image and of what
/// surrounds it. The division is a constant to the gradient.
pub fn sides(output: &VitOutput) -> [Tensor<2>; 2] {
    let outside = outside(output);
    let inside = outside.ones_like() - outside.clone();
    let unit = normalize(output.patches.clone());
    [inside, outside].map(|side| {
        let count = side.clone().sum_dim(1).clamp_min(1.0);
        ((unit.clone() * side).sum_dim(1) / count).squeeze_dim::<2>(1)
    })
}

/// 1 for every patch on the other side than CLS of the first principal direction, else 0:
/// `[batch, patches, 1]`, outside any graph.
fn outside(output: &VitOutput) -> Tensor<3> {
    let patches = output.patches.clone().without_autodiff();
    let mean = patches.clone().mean_dim(1);
    let centred = patches - mean.clone();
    // Every step keeps the angle to where it began below a right one, so the sign is that of CLS less
    // the mean. A thing that fills nearly all of the photo has the mean on its side, and is taken for
    // its surroundings; CLS alone gave the wrong side more often.
    let cls = output.cls.clone().without_autodiff();
    let mut direction = cls.unsqueeze_dim::<3>(1) - mean;
    for _ in 0..ITERATIONS {
        let along = centred.clone().matmul(direction.swap_dims(1, 2));
        direction = normalize(along.swap_dims(1, 2).matmul(centred.clone()));
    }
    let along = centred.matmul(direction.swap_dims(1, 2));
    along.lower_equal_elem(0.0).float()
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};

    /// One image of two kinds of patches, the first `things` of the one.
    fn output(things: usize, patches: usize) -> VitOutput {
        let device = Device::flex();
        let mut values = Vec::new();
        for i in 0..patches {
            let wobble = 0.05 * (i as f32).sin();
            values.extend(match i < things {
                true => [2.0 + wobble, 1.0, 0.0],
                false => [wobble, 1.0, 3.0],
            });
        }
        let cls = Tensor::<2>::from_floats([[1.5, 1.0, 0.4]], &device);
        VitOutput {
            cls,
            patches: Tensor::from_data(TensorData::new(values, [1, patches, 3]), &device),
            grid: [1, patches],
        }
    }

    fn values(x: Tensor<2>) -> Vec<f32> {
        x.into_data().iter().collect()
    }

    #[test]
    fn the_side_of_cls_is_the_thing_small_or_large() {
        for things in [1, 4, 7] {
            let found = values(outside(&output(things, 10)).squeeze_dim::<2>(2));
            let expect: Vec<f32> = (0..10).map(|i| f32::from(u8::from(i >= things))).collect();
            assert_eq!(found, expect, "{things}");
        }
    }

    #[test]
    fn each_side_is_the_mean_of_its_unit_tokens() {
        let [thing, around] = sides(&output(7, 10)).map(values);
        let (a, b) = (5f32.sqrt(), 10f32.sqrt());
        for (found, expect) in [
            (thing, [2.0 / a, 1.0 / a, 0.0]),
            (around, [0.0, 1.0 / b, 3.0 / b]),
        ] {
            for (found, expect) in found.iter().zip(expect) {
                assert!((found - expect).abs() < 0.02, "{found} {expect}");
            }
        }
    }

    #[test]
    fn what_is_no_weight_is_refused() {
        assert_eq!(Sides::new(0.0, 0.0), None);
        Sides::new(1.0, 3.0).unwrap().validate().unwrap();
        for (object, surroundings) in [(-0.5, 0.0), (1.5, 0.0), (0.0, -1.0), (f64::NAN, 0.0)] {
            let sides = Sides::new(object, surroundings).unwrap();
            assert!(sides.validate().is_err(), "{sides:?}");
        }
    }

    #[test]
    fn an_image_of_one_colour_has_finite_sides() {
        let mut flat = output(0, 10);
        flat.patches = flat.patches.ones_like();
        for side in sides(&flat).map(values) {
            assert!(side.iter().all(|v| v.is_finite()), "{side:?}");
        }
    }
}
