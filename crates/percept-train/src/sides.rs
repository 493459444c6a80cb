//! What patches are patches of: a part of the loss. Not in the paper.
//!
//! With `cls` pooling nothing tells the patches around a dog that they are no dog: they attend to it and
//! come to resemble the word as well. So some of these patches are to resemble [`CAPTION`], and some of
//! the others what is on the photo. Nobody says where anything is: to a self-supervised tower, the first
//! principal direction of the patches of many photos is what tells things from what surrounds them
//! (DINOv2, Oquab et al., 2023, §7.5), and CLS, which stands for the photos, says which way the things are.
//!
//! It is the tower that training began with that divides the photos: one that learns would teach
//! itself its own mistakes. And it is one direction for all photos: that of a single one tells its
//! sky from its ground where the things in it are small.
//!
//! Where several things are on a photo, each of the patches of things may be of any of them, and each
//! thing is somewhere: some of the patches have to be of it ([`patch_loss`]).

use std::ops::Range;

use burn::tensor::{Int, Tensor, TensorData, activation};
use percept_model::vit::VitOutput;
use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::collective::Collective;
use crate::loss::normalize;
use crate::subsample::Random;

/// What surrounds the things on photos, as the benchmarks spell the class.
pub const CAPTION: &str = "a photo of a background";

/// Steps of the power iteration.
const ITERATIONS: usize = 16;

/// What patches weigh in the loss, beside the 1 of the pooled embeddings.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sides {
    /// Weight of the patches of things: they are of something that is on the photo.
    pub object: f64,
    /// Weight of the patches of what surrounds them: they are of [`CAPTION`].
    pub surroundings: f64,
    /// Weight of the things: each is on some of the patches of things of its photo.
    pub coverage: f64,
    /// How many patches, drawn anew in every step, stand for a side.
    pub patches: usize,
    /// How far a word that many photos show is held back among the others: by this times the logarithm of
    /// how many do (logit adjustment, Menon et al., 2021). At 1 the model is to tell things as if all were shown
    /// equally often.
    pub balance: f64,
    /// Whether surroundings of a photo that shows several things may be any of these as well: self-supervised
    /// towers tell the main thing from all else, and a rider or a chair is then with the surroundings.
    #[serde(default)]
    pub lenient: bool,
}

impl Sides {
    /// Those of some weights, without balance, unless all are 0.
    pub fn new(object: f64, surroundings: f64, coverage: f64, patches: usize) -> Option<Self> {
        // Not `> 0.0`: what is no weight must come to `validate`.
        let any = [object, surroundings, coverage].iter().any(|w| *w != 0.0);
        any.then_some(Self {
            object,
            surroundings,
            coverage,
            patches,
            balance: 0.0,
            lenient: false,
        })
    }

    /// Checks that the weights are some, and that there are patches.
    ///
    /// # Errors
    /// [`TrainError::Setting`].
    pub fn validate(&self) -> Result<(), TrainError> {
        for (name, value) in [
            ("object_weight", self.object),
            ("surroundings_weight", self.surroundings),
            ("coverage_weight", self.coverage),
            ("word_balance", self.balance),
        ] {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(TrainError::Setting {
                    name,
                    value: value.to_string(),
                    reason: "not 0 or more",
                });
            }
        }
        if self.patches == 0 {
            return Err(TrainError::Setting {
                name: "side_patches",
                value: "0".to_owned(),
                reason: "no patches at all",
            });
        }
        Ok(())
    }
}

/// Which patches of each image of a batch stand for its two sides: indices `[batch, 2 · patches]`, those
/// of things first, outside any graph. Patches between the two sides stand for neither; one of a side that
/// has fewer than are wanted stands there more than once.
#[derive(Debug, Clone)]
pub struct Division(Tensor<2, Int>);

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

        let mut chosen: Vec<i64> = Vec::with_capacity(batch * 2 * patches);
        for (image, along) in along.chunks(count.max(1)).enumerate() {
            let (seed, step, first) = draw;
            let mut random = Random::new(&[seed, step, (first + image) as u64, DRAW]);
            for mut places in parts(along) {
                let wanted = patches.min(places.len());
                random.shuffle_first(&mut places, wanted);
                let again = places[..wanted].iter().cycle().take(patches);
                chosen.extend(again.map(|place| *place as i64));
            }
        }
        let chosen = TensorData::new(chosen, [batch, 2 * patches]);
        Ok(Self(Tensor::from_data(chosen, &device)))
    }

    /// That of some of the images.
    #[must_use]
    pub fn of(&self, samples: Range<usize>) -> Self {
        Self(self.0.clone().narrow(0, samples.start, samples.len()))
    }

    /// The tokens `[batch, 2 · patches, dim]` of the chosen patches.
    pub fn choose(&self, patches: Tensor<3>) -> Tensor<3> {
        let [batch, chosen] = self.0.dims();
        let dim = patches.dims()[2];
        let which = self.0.clone().unsqueeze_dim::<3>(2);
        patches.gather(1, which.expand([batch, chosen, dim]))
    }
}

/// What is on the images of a batch, as far as it is known.
#[derive(Debug, Clone)]
pub struct Words {
    /// Embeddings `[words, dim]` of all that is on any of them, each once, and of [`CAPTION`].
    pub embeddings: Tensor<2>,
    /// Which of these each image shows.
    pub shown: Vec<Vec<usize>>,
    /// Which one is [`CAPTION`].
    pub surroundings: usize,
}

/// The loss `[1]` of the patches `[batch, 2 · patches, dim]` that a [`Division`] chose, as if each chose
/// among all `words`: a softmax of cosines times `exp(logit_scale)`, which is `[1]`.
///
/// A patch of surroundings is to choose these, one of things any of what its image shows. And each thing
/// is to be chosen by a quarter of the patches of things of its image, those that come closest to it:
/// otherwise the one that is known best takes all.
pub fn patch_loss(
    patches: Tensor<3>,
    words: Tensor<2>,
    logit_scale: Tensor<1>,
    shown: &[Vec<usize>],
    surroundings: usize,
    weights: Sides,
) -> Tensor<1> {
    let ([batch, both, dim], [count, _]) = (patches.dims(), words.dims());
    let side = both / 2;
    let device = patches.device();
    let cosines = normalize(patches)
        .reshape([batch * both, dim])
        .matmul(normalize(words).transpose());
    let logits = cosines * logit_scale.exp().unsqueeze::<2>();
    let frequencies = frequencies(shown, count, surroundings, weights.balance);
    let frequencies = Tensor::<2>::from_data(TensorData::new(frequencies, [1, count]), &device);
    let logits = logits + frequencies;
    let chosen = activation::log_softmax(logits, 1).reshape([batch, both, count]);
    let things = chosen.clone().narrow(1, 0, side);
    let around = chosen.clone().narrow(1, side, side);

    let may_be_shown = |shown: &[usize]| weights.lenient && shown.len() > 1;
    let of_things = any_of(things, shown.iter().map(|shown| shown.iter().copied()));
    let allowed = shown.iter().map(|shown| {
        let others = shown.iter().copied().filter(|_| may_be_shown(shown));
        others.chain([surroundings])
    });
    let of_surroundings = any_of(around, allowed);
    let searched = shown.iter().map(|shown| match may_be_shown(shown) {
        true => both,
        false => side,
    });
    let covered = coverage(&chosen, shown, side, searched);
    let of_words = (chosen * covered).sum();

    of_surroundings * -weights.surroundings
        + of_things * -weights.object
        + of_words * -weights.coverage
}

/// The mean over `patches` `[batch, side, words]`, logarithms of chances, of the logarithm of the chance that it
/// is one of those `allowed` on its image.
fn any_of(
    patches: Tensor<3>,
    allowed: impl Iterator<Item = impl Iterator<Item = usize>>,
) -> Tensor<1> {
    let ([batch, _, count], device) = (patches.dims(), patches.device());
    let mut others = vec![EXCLUDED; batch * count];
    for (image, allowed) in allowed.enumerate() {
        for word in allowed {
            others[image * count + word] = 0.0;
        }
    }
    let others = TensorData::new(others, [batch, 1, count]);
    let only = patches + Tensor::<3>::from_data(others, &device);
    let most = only.clone().max_dim(2).detach();
    ((only - most.clone()).exp().sum_dim(2).log() + most).mean()
}

/// What is added to the logits of `count` words for how many images show each: on the average of what is shown
/// nothing, so that things and surroundings keep their balance.
fn frequencies(shown: &[Vec<usize>], count: usize, surroundings: usize, balance: f64) -> Vec<f32> {
    let mut images = vec![0.0f64; count];
    for word in shown.iter().flatten() {
        images[*word] += 1.0;
    }
    let log = |images: &f64| images.max(1.0).ln();
    let all: f64 = images.iter().sum();
    let mean = images
        .iter()
        .map(|images| images * log(images))
        .sum::<f64>()
        / all.max(1.0);
    let mut added: Vec<f32> = images
        .iter()
        .map(|images| (balance * (log(images) - mean)) as f32)
        .collect();
    added[surroundings] = 0.0;
    added
}

/// How much the chance of a word at a patch counts, `[batch, patches, words]`: the words of an image in
/// equal parts, and of each the places where its chance is best, one in [`COVERED`] of a side's. They are among
/// the first so many of its patches as `searched` says.
fn coverage(
    chances: &Tensor<3>,
    shown: &[Vec<usize>],
    side: usize,
    searched: impl Iterator<Item = usize>,
) -> Tensor<3> {
    let ([batch, patches, count], device) = (chances.dims(), chances.device());
    let chances: Vec<f32> = chances.clone().detach().into_data().iter().collect();
    let mut part = vec![0.0f32; chances.len()];
    let most = (side / COVERED).max(1);
    for (image, (shown, searched)) in shown.iter().zip(searched).enumerate() {
        for word in shown {
            let at = |patch: &usize| (image * patches + patch) * count + word;
            let mut order: Vec<usize> = (0..searched).collect();
            order.sort_by(|a, b| chances[at(b)].total_cmp(&chances[at(a)]));
            for patch in &order[..most] {
                part[at(patch)] = 1.0 / (batch * shown.len() * most) as f32;
            }
        }
    }
    Tensor::from_data(TensorData::new(part, [batch, patches, count]), &device)
}

/// One patch in so many has to be of a thing that is shown.
const COVERED: usize = 4;

/// Added to a logarithm, it leaves nothing of a chance.
const EXCLUDED: f32 = -1e4;

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

    /// Which patches of an image stand for things, and which for surroundings, each once.
    fn sides(division: &Division) -> [Vec<i64>; 2] {
        let chosen: Vec<i64> = division.0.clone().into_data().iter().collect();
        let (things, around) = chosen.split_at(chosen.len() / 2);
        [things, around].map(|side| {
            let mut side = side.to_vec();
            side.sort_unstable();
            side.dedup();
            side
        })
    }

    #[test]
    fn the_side_of_cls_is_the_thing_small_or_large() {
        let things = [1, 4, 9];
        let division = divide(&[output(&things, 10)], 10);
        for (image, things) in [1, 4, 9].into_iter().enumerate() {
            let [inside, outside] = sides(&division.of(image..image + 1));
            assert_eq!(inside, (0..things).collect::<Vec<i64>>());
            assert_eq!(outside, (things..10).collect::<Vec<i64>>());
        }
    }

    #[test]
    fn an_image_of_surroundings_has_its_nearest_patch_for_a_thing() {
        let [inside, outside] = sides(&divide(&[output(&[5, 0], 10)], 10).of(1..2));
        assert_eq!((inside.len(), outside.len()), (1, 10));
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
        for image in 0..3 {
            assert_eq!(
                sides(&whole.of(image..image + 1)),
                sides(&parts.of(image..image + 1))
            );
        }
    }

    #[test]
    fn as_many_patches_as_wanted_stand_for_a_side() {
        let outputs = [output(&[4, 9], 10)];
        let some = divide(&outputs, 2);
        assert_eq!(some.0.dims(), [2, 4]);
        let lengths = |image: usize| sides(&some.of(image..image + 1)).map(|side| side.len());
        assert_eq!((lengths(0), lengths(1)), ([2, 2], [2, 1]));
        let other = Division::new(&outputs, 2, (3, 6, 0), &Alone).unwrap();
        assert_ne!(sides(&some), sides(&other));
    }

    #[test]
    fn chosen_tokens_are_those_of_the_places() {
        let output = output(&[7, 2], 10);
        let patches = output.patches.clone();
        let division = divide(&[output], 3);
        let places: Vec<i64> = division.0.clone().into_data().iter().collect();
        let expect: Vec<f32> = (places.iter().enumerate())
            .flat_map(|(i, place)| {
                let row = patches.clone().narrow(0, i / 6, 1);
                values(row.narrow(1, *place as usize, 1))
            })
            .collect();
        assert_eq!(values(division.choose(patches)), expect);
    }

    #[test]
    fn patches_choose_what_is_shown_and_every_word_is_chosen_somewhere() {
        let device = Device::flex();
        // One image, four patches a side; three words and the surroundings, the last.
        let mut rows = Vec::new();
        for i in 0..8 {
            rows.extend([(i as f32).cos(), (i as f32 * 0.7).sin(), 0.4]);
        }
        let table = [
            0.9f32, 0.1, 0.2, -0.3, 0.8, 0.1, 0.5, 0.5, -0.7, -0.6, -0.2, 0.4,
        ];
        let patches = Tensor::from_data(TensorData::new(rows.clone(), [1, 8, 3]), &device);
        let words = Tensor::from_data(TensorData::new(table.to_vec(), [4, 3]), &device);
        let scale = 1.2f32;
        let loss = |shown: &[usize], weights: [f64; 3], lenient: bool| {
            let [o, s, c] = weights;
            let sides = Sides::new(o, s, c, 4).unwrap();
            let sides = Sides { lenient, ..sides };
            let scale = Tensor::from_floats([scale], &device);
            let shown = [shown.to_vec()];
            let found = patch_loss(patches.clone(), words.clone(), scale, &shown, 3, sides);
            found.into_scalar::<f32>()
        };
        let chance = |patch: usize, word: usize| {
            let cosine = |word: usize| {
                let (a, b) = (&rows[patch * 3..][..3], &table[word * 3..][..3]);
                let length = |v: &[f32]| v.iter().map(|x| x * x).sum::<f32>().sqrt();
                a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>() / length(a) / length(b)
            };
            let weight = |word: usize| (scale.exp() * cosine(word)).exp();
            weight(word) / (0..4).map(weight).sum::<f32>()
        };
        let mean = |sum: f32| -sum / 4.0;
        let around = mean((4..8).map(|p| chance(p, 3).ln()).sum());
        let any = |patches: Range<usize>, words: &[usize]| {
            let sum = |p| words.iter().map(|w| chance(p, *w)).sum::<f32>();
            mean(patches.map(|p| sum(p).ln()).sum())
        };
        let of = |shown: &[usize]| any(0..4, shown);
        // One of four patches has to be of each word.
        let best = |patches: Range<usize>, word: usize| {
            let all = patches.map(|p| chance(p, word).ln());
            all.fold(f32::MIN, f32::max)
        };
        let both = |patches: Range<usize>| -(best(patches.clone(), 0) + best(patches, 2));
        for (shown, weights, lenient, expect) in [
            (vec![0], [0.0, 0.7, 0.0], false, 0.7 * around),
            (vec![1], [0.5, 0.0, 0.0], false, 0.5 * of(&[1])),
            (
                vec![0, 2],
                [1.0, 0.3, 0.0],
                false,
                of(&[0, 2]) + 0.3 * around,
            ),
            (vec![0, 2], [0.0, 0.0, 2.0], false, both(0..4)),
            // Of several things each may be anywhere, of one alone only on its side.
            (vec![0, 2], [0.0, 1.0, 0.0], true, any(4..8, &[0, 2, 3])),
            (vec![0, 2], [0.0, 0.0, 2.0], true, both(0..8)),
            (vec![0], [1.0, 1.0, 0.0], true, of(&[0]) + around),
            (vec![2], [0.0, 0.0, 1.0], true, -best(0..4, 2)),
        ] {
            let found = loss(&shown, weights, lenient);
            assert!(
                (found - expect).abs() < 1e-5,
                "{shown:?}: {found}, not {expect}"
            );
        }
    }

    #[test]
    fn words_that_many_images_show_are_held_back() {
        // Word 0 is on two images, word 1 on one, word 2 on none; 3 are the surroundings.
        let shown = [vec![0], vec![0, 1]];
        let found = frequencies(&shown, 4, 3, 0.5);
        let mean = 2.0 * 2f32.ln() / 3.0;
        for (found, expect) in found.iter().zip([2f32.ln() - mean, -mean, -mean, 0.0]) {
            assert!((found - 0.5 * expect).abs() < 1e-6, "{found}");
        }
        assert_eq!(frequencies(&shown, 4, 3, 0.0), [0.0; 4]);
    }

    #[test]
    fn what_is_no_weight_is_refused() {
        assert_eq!(Sides::new(0.0, 0.0, 0.0, 2), None);
        Sides::new(1.0, 3.0, 0.5, 2).unwrap().validate().unwrap();
        for (weights, patches) in [
            ([-0.5, 0.0, 0.0], 2),
            ([0.0, f64::INFINITY, 0.0], 2),
            ([0.0, 0.0, f64::NAN], 2),
            ([1.0, 1.0, 1.0], 0),
        ] {
            let [object, surroundings, coverage] = weights;
            let sides = Sides::new(object, surroundings, coverage, patches).unwrap();
            assert!(sides.validate().is_err(), "{sides:?}");
        }
    }

    #[test]
    fn images_of_one_colour_are_all_surroundings() {
        let mut flat = output(&[0, 0], 10);
        flat.patches = flat.patches.ones_like();
        let division = divide(&[flat], 10);
        assert_eq!(sides(&division.of(0..1))[1].len(), 10);
    }
}
