//! The two sides of a photo, its main thing and what surrounds that, found without labels, as a part of
//! the loss. Not in the paper.
//!
//! With `cls` pooling nothing tells the patches around a dog that they are no dog: they attend to it and
//! come to resemble the word as well. So some of these patches are an image of their own whose caption is
//! [`CAPTION`], and some of the others may be one with the photo's caption. Nobody says where anything
//! is: to a self-supervised tower, the first principal direction of the patches of many photos is what
//! tells things from what surrounds them (DINOv2, Oquab et al., 2023, §7.5), and CLS, which stands for
//! the photos, says which way the things are.
//!
//! It is the tower that training began with that divides the photos: one that learns would teach
//! itself its own mistakes. And it is one direction for all photos: that of a single one tells its
//! sky from its ground where the things in it are small.

use std::ops::Range;

use burn::tensor::{Tensor, TensorData};
use percept_model::vit::VitOutput;
use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::collective::Collective;
use crate::loss::normalize;
use crate::subsample::Random;

/// The caption of what surrounds the main thing of a photo, as the benchmarks spell the class.
pub const CAPTION: &str = "a photo of a background";

/// Steps of the power iteration.
const ITERATIONS: usize = 16;

/// What the two sides of every photo weigh in the loss.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sides {
    /// Weight of the main things with the photos' captions; the pooled embeddings have the rest of 1.
    pub object: f64,
    /// Weight of the surroundings with [`CAPTION`], beside that 1. They are wrong images for the
    /// photos' captions in any case.
    pub surroundings: f64,
    /// How many patches, drawn anew in every step, stand for a side; 0 for all of it. Of many the mean
    /// is soon right, and those that are not are left alone.
    #[serde(default)]
    pub patches: usize,
}

impl Sides {
    /// Those of two weights, unless both are 0.
    pub fn new(object: f64, surroundings: f64, patches: usize) -> Option<Self> {
        // Not `> 0.0`: what is no weight must come to `validate`.
        (object != 0.0 || surroundings != 0.0).then_some(Self {
            object,
            surroundings,
            patches,
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

/// Which patches of each image of a batch stand for its two sides: 1 for those, else 0, `[batch, patches,
/// 1]`, outside any graph. Patches between the two sides stand for neither.
#[derive(Debug, Clone)]
pub struct Division {
    inside: Tensor<3>,
    outside: Tensor<3>,
}

/// Where the two sides end, in standard deviations of all patches along their first principal
/// direction.
const INSIDE: f64 = 0.5;
const OUTSIDE: f64 = 0.3;

impl Division {
    /// Divides the patches of a batch, of which `outputs` are what a tower made, part by part, by
    /// what all photos of all processes have in common. `draw` are the seed, the step and the number
    /// of the batch's first image among those of all processes: [`Sides::patches`] are drawn by them.
    ///
    /// # Errors
    /// [`TrainError::Collective`].
    pub fn new(
        outputs: &[VitOutput],
        patches: usize,
        draw: (u64, u64, usize),
        collective: &dyn Collective,
    ) -> Result<Self, TrainError> {
        let cls = outputs.iter().map(|output| output.cls.clone()).collect();
        let cls = normalize(Tensor::<2>::cat(cls, 0));
        let unit = outputs.iter().map(|output| output.patches.clone());
        let unit = normalize(Tensor::<3>::cat(unit.collect(), 0));
        let [batch, count, dim] = unit.dims();

        let moments = Moments::of(&cls, unit.clone().reshape([batch * count, dim]), collective)?;
        let (direction, offset) = moments.first_direction();
        let device = unit.device();
        let direction = TensorData::new(direction, [dim, 1]);
        let along = unit
            .reshape([batch * count, dim])
            .matmul(Tensor::from_data(direction, &device))
            .sub_scalar(offset);
        let along: Vec<f32> = along.into_data().iter().collect();

        let mut chosen = [vec![0.0f32; along.len()], vec![0.0f32; along.len()]];
        for (image, along) in along.chunks(count.max(1)).enumerate() {
            let (seed, step, first) = draw;
            let mut random = Random::new(&[seed, step, (first + image) as u64, DRAW]);
            for (mut places, chosen) in parts(along).into_iter().zip(&mut chosen) {
                let wanted = match patches {
                    0 => places.len(),
                    _ => patches.min(places.len()),
                };
                random.shuffle_first(&mut places, wanted);
                for place in places.iter().take(wanted) {
                    chosen[image * count + place] = 1.0;
                }
            }
        }
        let [inside, outside] =
            chosen.map(|side| Tensor::from_data(TensorData::new(side, [batch, count, 1]), &device));
        Ok(Self { inside, outside })
    }

    /// That of some of the images.
    #[must_use]
    pub fn of(&self, samples: Range<usize>) -> Self {
        let part = |side: &Tensor<3>| side.clone().narrow(0, samples.start, samples.len());
        Self {
            inside: part(&self.inside),
            outside: part(&self.outside),
        }
    }

    /// Means `[batch, dim]` of the unit-length patch tokens that stand for the main thing of each
    /// image, and for what surrounds it; 0 where there are none.
    pub fn means(&self, patches: Tensor<3>) -> [Tensor<2>; 2] {
        let unit = normalize(patches);
        [&self.inside, &self.outside].map(|side| {
            let count = side.clone().sum_dim(1).clamp_min(1.0);
            ((unit.clone() * side.clone()).sum_dim(1) / count).squeeze_dim::<2>(1)
        })
    }
}

/// The patches on either side of an image's `along`: never none, if there are patches at all.
fn parts(along: &[f32]) -> [Vec<usize>; 2] {
    let beyond = |limit: f64, sign: f64| {
        let behind = |value: &f32| (f64::from(*value) - limit) * sign;
        let places = |least: f64| -> Vec<usize> {
            let far = |(place, value)| (behind(value) >= least).then_some(place);
            along.iter().enumerate().filter_map(far).collect()
        };
        let found = places(f64::MIN_POSITIVE);
        match found.is_empty() {
            true => places(along.iter().map(behind).fold(f64::NEG_INFINITY, f64::max)),
            false => found,
        }
    };
    [beyond(INSIDE, 1.0), beyond(OUTSIDE, -1.0)]
}

/// Tells what is drawn here from what is drawn of the same sample elsewhere.
const DRAW: u64 = 0x5149;

/// What the principal directions of vectors follow from.
struct Moments {
    /// Of how many images, and how many patches.
    count: [f64; 2],
    /// Sum of the CLS tokens, and of the patches.
    sums: [Vec<f64>; 2],
    /// Sum of the patches' outer products, `dim × dim`.
    products: Vec<f64>,
}

impl Moments {
    /// Those of all processes' `cls` `[batch, dim]` and `patches` `[batch · patches, dim]`.
    fn of(
        cls: &Tensor<2>,
        patches: Tensor<2>,
        collective: &dyn Collective,
    ) -> Result<Self, TrainError> {
        let ([images, dim], [count, _]) = (cls.dims(), patches.dims());
        let products = patches.clone().transpose().matmul(patches.clone());
        let mut all = vec![images as f32, count as f32];
        for part in [cls.clone().sum_dim(0), patches.sum_dim(0), products] {
            all.extend(part.into_data().iter::<f32>());
        }
        collective.sum(&mut all)?;
        let all: Vec<f64> = all.into_iter().map(f64::from).collect();
        let (count, sums) = all.split_at(2);
        let (cls, sums) = sums.split_at(dim);
        let (patches, products) = sums.split_at(dim);
        Ok(Self {
            count: [count[0].max(1.0), count[1].max(1.0)],
            sums: [cls.to_vec(), patches.to_vec()],
            products: products.to_vec(),
        })
    }

    /// The first principal direction of the patches, divided by the standard deviation along it, and
    /// where their mean lies on it. It points to where CLS tokens are.
    fn first_direction(&self) -> (Vec<f32>, f32) {
        let [images, patches] = self.count;
        let [cls, sum] = &self.sums;
        let mean: Vec<f64> = sum.iter().map(|v| v / patches).collect();
        // Every step keeps the angle to where it began below a right one, so it points to CLS still.
        let begin = cls.iter().zip(&mean).map(|(c, m)| c / images - m);
        let mut direction = unit(begin.collect());
        let mut variance = 0.0;
        for _ in 0..ITERATIONS {
            let on_mean = dot(&direction, &mean);
            let next = self.products.chunks(mean.len().max(1)).zip(&mean);
            let next = next.map(|(row, m)| dot(row, &direction) / patches - m * on_mean);
            let next: Vec<f64> = next.collect();
            variance = dot(&next, &direction);
            direction = unit(next);
        }
        // Without any variance all is surroundings.
        let scale = match variance > f64::EPSILON {
            true => 1.0 / variance.sqrt(),
            false => 0.0,
        };
        let on_mean = dot(&direction, &mean);
        let scaled = direction.iter().map(|d| (d * scale) as f32).collect();
        (scaled, (on_mean * scale) as f32)
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The vector with length 1; 0 stays 0.
fn unit(mut vector: Vec<f64>) -> Vec<f64> {
    let length = dot(&vector, &vector).sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|v| *v /= length);
    }
    vector
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collective::Alone;
    use burn::tensor::Device;

    const DRAWN: (u64, u64, usize) = (3, 5, 0);

    /// Images of two kinds of patches; of each the first so many are of the one that CLS is like.
    fn output(things: &[usize], patches: usize) -> VitOutput {
        let device = Device::flex();
        let mut values = Vec::new();
        for (image, things) in things.iter().enumerate() {
            for place in 0..patches {
                let wobble = 0.05 * ((image * patches + place) as f32).sin();
                values.extend(match place < *things {
                    true => [2.0 + wobble, 1.0, 0.0],
                    false => [wobble, 1.0, 3.0],
                });
            }
        }
        let cls = [1.5f32, 1.0, 0.4].repeat(things.len());
        VitOutput {
            cls: Tensor::from_data(TensorData::new(cls, [things.len(), 3]), &device),
            patches: Tensor::from_data(
                TensorData::new(values, [things.len(), patches, 3]),
                &device,
            ),
            grid: [1, patches],
        }
    }

    fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
        x.into_data().iter().collect()
    }

    fn divide(outputs: &[VitOutput], patches: usize) -> Division {
        Division::new(outputs, patches, DRAWN, &Alone).unwrap()
    }

    #[test]
    fn the_side_of_cls_is_the_thing_small_or_large() {
        let things = [1, 4, 9];
        let division = divide(&[output(&things, 10)], 0);
        for (image, things) in things.into_iter().enumerate() {
            let one = division.of(image..image + 1);
            for (side, is_inside) in [(one.inside, true), (one.outside, false)] {
                let expect =
                    (0..10).map(|place| f32::from(u8::from((place < things) == is_inside)));
                assert_eq!(
                    values(side),
                    expect.collect::<Vec<_>>(),
                    "{things} {is_inside}"
                );
            }
        }
    }

    #[test]
    fn an_image_of_surroundings_has_its_nearest_patch_for_a_thing() {
        let division = divide(&[output(&[5, 0], 10)], 0).of(1..2);
        assert_eq!(values(division.outside).iter().sum::<f32>(), 10.0);
        assert_eq!(values(division.inside).iter().sum::<f32>(), 1.0);
    }

    #[test]
    fn parts_of_a_batch_are_divided_as_the_whole() {
        let whole = output(&[2, 7, 5], 10);
        let part = |from: usize, length: usize| VitOutput {
            cls: whole.cls.clone().narrow(0, from, length),
            patches: whole.patches.clone().narrow(0, from, length),
            grid: whole.grid,
        };
        let parts = divide(&[part(0, 1), part(1, 2)], 2);
        let whole = divide(std::slice::from_ref(&whole), 2);
        assert_eq!(values(whole.inside), values(parts.inside));
        assert_eq!(values(whole.outside), values(parts.outside));
    }

    #[test]
    fn as_many_patches_as_wanted_stand_for_a_side() {
        let outputs = [output(&[4, 9], 10)];
        let count = |side: Tensor<3>| values(side.sum_dim(1));
        let some = divide(&outputs, 2);
        assert_eq!(count(some.inside.clone()), [2.0, 2.0]);
        assert_eq!(count(some.outside), [2.0, 1.0]);
        let other = Division::new(&outputs, 2, (3, 6, 0), &Alone).unwrap();
        assert_ne!(values(some.inside), values(other.inside));
    }

    #[test]
    fn each_side_is_the_mean_of_its_unit_tokens() {
        let output = output(&[7], 10);
        let patches = output.patches.clone();
        let [thing, around] = divide(&[output], 0).means(patches).map(values);
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
        assert_eq!(Sides::new(0.0, 0.0, 2), None);
        Sides::new(1.0, 3.0, 2).unwrap().validate().unwrap();
        for (object, surroundings) in [(-0.5, 0.0), (1.5, 0.0), (0.0, -1.0), (f64::NAN, 0.0)] {
            let sides = Sides::new(object, surroundings, 0).unwrap();
            assert!(sides.validate().is_err(), "{sides:?}");
        }
    }

    #[test]
    fn images_of_one_colour_are_all_surroundings() {
        let mut flat = output(&[0, 0], 10);
        flat.patches = flat.patches.ones_like();
        let patches = flat.patches.clone();
        let division = divide(&[flat], 0);
        assert_eq!(values(division.outside.clone()), [1.0; 20]);
        for side in division.means(patches).map(values) {
            assert!(side.iter().all(|v| v.is_finite()), "{side:?}");
        }
    }
}
