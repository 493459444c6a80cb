//! Agreement with PyTorch on the goldens of `tools/parity/train.py`, and of percept with itself
//! however a batch is divided.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failing helper fails its test"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Barrier, Mutex};

use burn::tensor::{Device, Tensor, TensorData};
use percept_checkpoint::Checkpoint;
use percept_model::{FrozenVit, Hints, ModelFiles, Pooling, Towers, vit::Vit};
use percept_model::{device, text::TextTower};
use percept_train::ema::{Ema, EmaStart};
use percept_train::gradcache::{Embedded, ImageSide, Keep, Learning, TextSide};
use percept_train::loss::{Targets, contrast, group};
use percept_train::optim::{GradientSum, LOGIT_SCALE, NoDecay, OptimConfig, Rule};
use percept_train::schedule::{Schedule, Shape};
use percept_train::sides::{Division, Sides, Words};
use percept_train::subsample::Kept;
use percept_train::{Alone, Batch, Collective, StepConfig, TrainError, Trainer, train_step};
use serde_json::Value;

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/train-tiny")
}

/// The device under test: `PERCEPT_TEST_DEVICE`, else the CPU.
fn test_device() -> Device {
    let name = std::env::var("PERCEPT_TEST_DEVICE").unwrap_or_else(|_| "cpu".into());
    device(&name).unwrap()
}

struct Golden {
    expect: Checkpoint,
    image: Vit,
    text: TextTower,
    logit_scale: f32,
    device: Device,
}

impl Golden {
    fn open() -> Self {
        let device = test_device();
        let files = ModelFiles::open(&goldens(), &Hints::default()).unwrap();
        let towers = Towers::load(&files, &device).unwrap();
        assert!(towers.report.unused.is_empty(), "{}", towers.report);
        Self {
            expect: Checkpoint::open(&goldens().join("expect.safetensors")).unwrap(),
            image: towers.image.unwrap(),
            text: towers.text.unwrap(),
            logit_scale: towers.logit_scale.unwrap(),
            device,
        }
    }

    fn values(&self, name: &str) -> Vec<f32> {
        self.expect.read_f32(name).unwrap()
    }

    fn shape(&self, name: &str) -> Vec<usize> {
        self.expect.info(name).unwrap().shape.clone()
    }

    fn captions(&self) -> Vec<Vec<u32>> {
        let length = self.shape("ids")[1];
        let (ids, mask) = (self.integers("ids"), self.integers("mask"));
        ids.chunks(length)
            .zip(mask.chunks(length))
            .map(|(ids, mask)| {
                let seen = ids.iter().zip(mask).filter(|(_, m)| **m == 1);
                seen.map(|(id, _)| *id as u32).collect()
            })
            .collect()
    }

    fn integers(&self, name: &str) -> Vec<i64> {
        self.expect
            .read_f32(name)
            .unwrap()
            .iter()
            .map(|v| *v as i64)
            .collect()
    }

    fn images(&self, which: &str, keep: bool, pooling: Pooling) -> ImageSide {
        let name = format!("images.{which}");
        let shape: [usize; 4] = self.shape(&name).try_into().unwrap();
        let pixels = TensorData::new(self.values(&name), shape);
        let name = format!("keep.{which}");
        let shape: [usize; 2] = self.shape(&name).try_into().unwrap();
        ImageSide {
            pixels: Tensor::from_data(pixels, &self.device),
            keep: keep.then(|| {
                let indices = TensorData::new(self.integers(&name), shape);
                Tensor::from_data(indices, &self.device)
            }),
            pooling,
            division: None,
            memory: Keep::Activations,
            locked: None,
        }
    }
}

/// Of photos that are divided.
fn sides() -> Option<Sides> {
    Sides::new(0.4, 0.7, 0.3, 4)
}

/// The loss and the gradients of all parameters.
#[expect(clippy::too_many_arguments, reason = "a test's helper")]
fn gradients(
    image: &Vit,
    text: &TextTower,
    logit_scale: f32,
    images: &ImageSide,
    texts: &TextSide,
    groups: &[usize],
    targets: Targets,
    chunk: usize,
) -> (f32, GradientSum) {
    let by_image = Embedded::new(images, image, chunk, Learning::Trained);
    let by_text = Embedded::new(texts, text, chunk, Learning::Trained);
    // Where photos are divided, the captions of all are words as well; the last one stands for surroundings.
    let captions = by_text.embeddings.clone();
    let words = images.division.as_ref().map(|_| Words {
        embeddings: captions.clone(),
        shown: (0..groups.len())
            .map(|i| vec![i, (i * 7 + 1) % groups.len()])
            .collect(),
        surroundings: groups.len() - 1,
    });
    let found = contrast(
        by_image.embeddings.clone(),
        captions,
        logit_scale,
        groups,
        targets,
        words.as_ref().zip(sides()),
    );
    let mut sum = GradientSum::new();
    by_image.backward(images, image, found.images, &mut sum);
    let of_texts = match found.words {
        Some(of_words) => found.texts + of_words,
        None => found.texts,
    };
    by_text.backward(texts, text, of_texts, &mut sum);
    sum.add(LOGIT_SCALE, &[found.logit_scale]);
    (found.loss, sum)
}

/// As `sample` of `train.py`: some elements, then the norm.
fn sample(values: &[f32]) -> Vec<f32> {
    const SAMPLES: usize = 32;
    let count = values.len();
    let mut sampled: Vec<f32> = if count <= SAMPLES {
        values.to_vec()
    } else {
        (0..SAMPLES)
            .map(|i| values[i * 2_654_435_761 % count])
            .collect()
    };
    let squares: f64 = values.iter().map(|v| f64::from(*v).powi(2)).sum();
    sampled.push(squares.sqrt() as f32);
    sampled
}

/// Compares named values with samples in the order of the names. `floor` is what a difference is
/// measured by where the values themselves are smaller.
fn compare<'a>(
    what: &str,
    named: impl Iterator<Item = (&'a str, &'a [f32])>,
    expected: &[f32],
    floor: f32,
    tolerance: f32,
) {
    let mut left = expected;
    let mut worst = (0.0f32, "");
    for (name, values) in named {
        let ours = sample(values);
        let (theirs, rest) = left.split_at(ours.len());
        left = rest;
        let size = theirs[..theirs.len() - 1]
            .iter()
            .fold(floor, |m, v| m.max(v.abs()));
        let last = ours.len() - 1;
        let norm = (ours[last] - theirs[last]).abs() / theirs[last].max(floor);
        let difference = ours[..last]
            .iter()
            .zip(theirs)
            .map(|(a, b)| (a - b).abs() / size)
            .fold(norm, |m, d| if d > m || d.is_nan() { d } else { m });
        if difference > worst.0 || difference.is_nan() {
            worst = (difference, name);
        }
    }
    assert!(left.is_empty(), "{what}: {} values left over", left.len());
    println!("{what}: {:.1e} at {}", worst.0, worst.1);
    assert!(
        worst.0 <= tolerance,
        "{what}: {} is off by {:e}",
        worst.1,
        worst.0
    );
}

#[test]
fn losses_and_gradients_agree_with_pytorch() {
    let golden = Golden::open();
    let case: Value =
        serde_json::from_str(&std::fs::read_to_string(goldens().join("case.json")).unwrap())
            .unwrap();
    let captions = golden.captions();
    let same = golden.integers("same");
    let cases = case["cases"].as_object().unwrap();
    assert!(cases.len() >= 10);
    for (name, case) in cases {
        let pooling = Pooling::ALL
            .into_iter()
            .find(|p| Some(p.name()) == case["pooling"].as_str())
            .unwrap();
        let which = case["images"].as_str().unwrap_or("native");
        let images = golden.images(which, case["kept"].as_bool() == Some(true), pooling);
        let identical = case["same"].as_bool() == Some(true);
        let ids: Vec<Vec<u32>> = if identical {
            same.iter().map(|i| captions[*i as usize].clone()).collect()
        } else {
            captions.clone()
        };
        let targets = if identical {
            Targets::IdenticalCaptions
        } else {
            Targets::Diagonal
        };
        let groups = group(&ids);
        let texts = TextSide {
            ids,
            device: golden.device.clone(),
        };
        let (loss, sum) = gradients(
            &golden.image,
            &golden.text,
            golden.logit_scale,
            &images,
            &texts,
            &groups,
            targets,
            usize::MAX,
        );
        let expected = golden.values(&format!("loss.{name}"))[0];
        let off = (loss - expected).abs() / expected;
        println!("{name}: loss {loss} is off by {off:.1e}");
        assert!(off <= 1e-6, "{name}: loss {loss}, not {expected}");
        // The biases of BERT's keys change no softmax: their gradients are rounding. They are
        // measured by the others.
        let largest = sum
            .iter()
            .flat_map(|(_, g)| g)
            .fold(0.0f32, |m, v| m.max(v.abs()));
        let expected = golden.values(&format!("gradients.{name}"));
        compare(name, sum.iter(), &expected, 1e-3 * largest, 1e-4);
    }
}

#[test]
fn a_sub_sampled_pass_is_a_full_one_that_attends_to_the_kept() {
    let golden = Golden::open();
    let images = golden.images("native", true, Pooling::Max);
    let output = golden.image.forward(images.pixels, images.keep);
    let ours: Vec<f32> = output.patches.into_data().iter().collect();
    let theirs = golden.values("tokens.masked");
    assert_eq!(ours.len(), theirs.len());
    let worst = ours
        .iter()
        .zip(&theirs)
        .fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
    println!("masked tokens: {worst:.1e}");
    assert!(worst < 1e-5, "{worst:e}");
}

fn trainer(golden: Golden, optim: OptimConfig, change: impl FnOnce(&mut StepConfig)) -> Trainer {
    let mut config = StepConfig {
        pooling: Pooling::Max,
        targets: Targets::Diagonal,
        sides: None,
        patch_dropout: 0.0,
        chunk: 8,
        keep: Keep::Activations,
        image: Learning::Trained,
        text: Learning::Trained,
        seed: 1,
    };
    change(&mut config);
    let schedule = Schedule {
        lr: 1e-3,
        warmup: 0,
        steps: 10,
        shape: Shape::Const,
    };
    let ema = Some(Ema::new(0.9, EmaStart::Full));
    Trainer::new(
        golden.image,
        golden.text,
        golden.logit_scale,
        config,
        schedule,
        optim,
        ema,
        golden.device,
    )
    .unwrap()
}

fn weights(trainer: &Trainer) -> BTreeMap<String, Vec<f32>> {
    trainer.weights().collect()
}

fn batch(golden: &Golden) -> Batch {
    Batch {
        pixels: golden.values("images.native"),
        size: [16, 16],
        captions: golden.captions(),
        words: Vec::new(),
        surroundings: vec![5, 6],
    }
}

#[test]
fn ten_steps_agree_with_pytorch() {
    let adamw = OptimConfig {
        rule: Rule::ADAMW,
        weight_decay: 0.2,
        clip_grad_norm: Some(1.0),
        ..Default::default()
    };
    let lamb = OptimConfig {
        rule: Rule::LAMB,
        weight_decay: 0.01,
        no_decay: NoDecay::OpenClip,
        ..Default::default()
    };
    for (name, optim) in [("adamw", adamw), ("lamb", lamb)] {
        let golden = Golden::open();
        let batch = batch(&golden);
        let expected = golden.values(&format!("weights.{name}"));
        let mut trainer = trainer(golden, optim, |_| {});
        let before = weights(&trainer);
        let mut losses = Vec::new();
        for _ in 0..10 {
            losses.push(train_step(&mut trainer, &batch, &Alone).unwrap().loss);
        }
        println!("{name}: losses {losses:?}");
        assert!(losses[9] < losses[0]);
        let after = weights(&trainer);
        assert!(before.iter().all(|(name, values)| after[name] != *values));
        let named = after.iter().map(|(n, v)| (n.as_str(), v.as_slice()));
        compare(name, named, &expected, 1e-2, 1e-4);
    }
}

/// 128 samples made of the golden's eight.
fn many(golden: &Golden) -> Batch {
    let pixels = golden.values("images.native");
    let captions = golden.captions();
    let per_image = pixels.len() / 8;
    let mut many = Batch {
        pixels: Vec::new(),
        size: [16, 16],
        captions: Vec::new(),
        words: Vec::new(),
        surroundings: vec![5, 6],
    };
    for i in 0..128 {
        let image = &pixels[i % 8 * per_image..(i % 8 + 1) * per_image];
        let turn = i / 8 * 7;
        let noise = (0..per_image).map(|j| ((i * 31 + j * 17) % 101) as f32 / 101.0 - 0.5);
        let turned = image[turn..].iter().chain(&image[..turn]);
        many.pixels.extend(turned.zip(noise).map(|(v, n)| v + n));
        let mut caption = captions[(i * 3 + i / 8) % 8].clone();
        // Some captions stay the same.
        if i % 3 != 0 {
            caption[0] = 4 + (i % 36) as u32;
        }
        // Things that several samples show, a caption, and what else stands for surroundings.
        let mut words = vec![vec![4 + (i % 9) as u32, 7], caption.clone()];
        if i % 10 == 0 {
            words.push(many.surroundings.clone());
        }
        words.rotate_left(i % 2);
        many.words.push(words);
        many.captions.push(caption);
    }
    many
}

#[test]
fn accumulated_gradients_are_those_of_the_whole_batch() {
    let golden = Golden::open();
    let batch = many(&golden);
    let pixels = TensorData::new(batch.pixels.clone(), [128, 3, 16, 16]);
    let pixels = Tensor::from_data(pixels, &golden.device);
    let keep = Kept::draw(3, 4, 0, 128, 16, 5).rows(0, 128, &golden.device);
    let texts = TextSide {
        ids: batch.captions.clone(),
        device: golden.device.clone(),
    };
    let groups = group(&batch.captions);
    let run = |chunk, memory| {
        let images = ImageSide {
            pixels: pixels.clone(),
            keep: Some(keep.clone()),
            pooling: Pooling::Max,
            division: None,
            memory,
            locked: None,
        };
        gradients(
            &golden.image,
            &golden.text,
            golden.logit_scale,
            &images,
            &texts,
            &groups,
            Targets::IdenticalCaptions,
            chunk,
        )
    };
    let (loss, whole) = run(128, Keep::Activations);
    let largest = whole
        .iter()
        .flat_map(|(_, g)| g)
        .fold(0.0f32, |m, v| m.max(v.abs()));
    for (chunk, memory) in [
        (16, Keep::Activations),
        (16, Keep::BlockInputs),
        (128, Keep::BlockInputs),
        (50, Keep::Activations),
    ] {
        let (other, parts) = run(chunk, memory);
        assert!((loss - other).abs() <= 1e-6 * loss);
        let mut worst = 0.0f32;
        for ((name, a), (other, b)) in whole.iter().zip(parts.iter()) {
            assert_eq!(name, other);
            let size = a.iter().fold(1e-3 * largest, |m, v| m.max(v.abs()));
            for (a, b) in a.iter().zip(b) {
                worst = worst.max((a - b).abs() / size);
            }
        }
        println!("chunks of {chunk}, {memory:?}: {worst:.1e}");
        assert!(worst <= 1e-5, "chunks of {chunk}, {memory:?}: {worst:e}");
    }
}

#[test]
fn a_locked_tower_stays_and_the_other_learns_as_before() {
    let run = |text| {
        let golden = Golden::open();
        let batch = many(&golden);
        let mut trainer = trainer(golden, OptimConfig::default(), |config| {
            config.text = text;
            config.chunk = 128;
            config.patch_dropout = 0.5;
        });
        let tower = percept_model::weights::save(trainer.text());
        let report = train_step(&mut trainer, &batch, &Alone).unwrap();
        let moved = percept_model::weights::save(trainer.text()) != tower;
        (weights(&trainer), report.loss, moved)
    };
    let (locked, loss, moved) = run(Learning::Locked);
    assert!(!moved);
    assert!(locked.keys().all(|name| !name.starts_with("text.")));
    let (free, same_loss, moved) = run(Learning::Trained);
    assert!(moved);
    assert!((loss - same_loss).abs() < 1e-6);
    // A recorded text tower rounds otherwise than one that is not.
    for (name, values) in locked {
        for (a, b) in values.iter().zip(&free[&name]) {
            assert!((a - b).abs() < 1e-5, "{name}: {a} and {b}");
        }
    }
}

#[test]
fn the_last_blocks_learn_as_they_would_in_a_tower_that_learns_as_a_whole() {
    let golden = Golden::open();
    let depth = golden.image.depth();
    let begun = FrozenVit::new(golden.image.clone());
    let batch = many(&golden);
    let pixels = TensorData::new(batch.pixels.clone(), [128, 3, 16, 16]);
    let texts = TextSide {
        ids: batch.captions.clone(),
        device: golden.device.clone(),
    };
    let run = |learning: Learning, chunk, memory| {
        let images = ImageSide {
            pixels: Tensor::from_data(pixels.clone(), &golden.device),
            keep: Some(Kept::draw(3, 4, 0, 128, 16, 5).rows(0, 128, &golden.device)),
            pooling: Pooling::Cls,
            division: None,
            memory,
            locked: None,
        };
        let mut images = match learning.locked_blocks(depth) {
            Some(locked) => images.past(&begun, locked, 16),
            None => images,
        };
        let outputs = images.outputs(&begun, chunk);
        images.division = Some(Division::new(&outputs, 4, (3, 4, 0), &Alone).unwrap());
        let groups = group(&batch.captions);
        let (image, text) = (&golden.image, &golden.text);
        let scale = golden.logit_scale;
        let targets = Targets::IdenticalCaptions;
        gradients(image, text, scale, &images, &texts, &groups, targets, chunk)
    };
    let (loss, whole) = run(Learning::Trained, 128, Keep::Activations);
    let largest = whole
        .iter()
        .flat_map(|(_, g)| g)
        .fold(0.0f32, |m, v| m.max(v.abs()));
    // As many as there are: what comes before the blocks stays all the same.
    for blocks in [1, depth] {
        let learning = Learning::Last(blocks);
        for (chunk, memory) in [
            (128, Keep::Activations),
            (50, Keep::Activations),
            (16, Keep::BlockInputs),
        ] {
            let (other, part) = run(learning, chunk, memory);
            assert!((loss - other).abs() <= 1e-6 * loss);
            let part: BTreeMap<_, _> = part.iter().collect();
            for (name, expect) in whole.iter() {
                let learns = match name.strip_prefix("image.") {
                    Some(name) => learning.learns(name, depth),
                    None => true,
                };
                assert_eq!(part.contains_key(name), learns, "{name}, {learning:?}");
                let Some(found) = part.get(name) else {
                    continue;
                };
                // A key bias shifts all scores of a query alike: its gradient is what rounding leaves of zero.
                let least = if name.ends_with("key.bias") {
                    1e-2
                } else {
                    1e-3
                };
                let size = expect.iter().fold(least * largest, |m, v| m.max(v.abs()));
                for (a, b) in expect.iter().zip(*found) {
                    assert!((a - b).abs() <= 1e-5 * size, "{name}: {a} and {b}");
                }
            }
        }
    }
}

#[test]
fn only_the_unlocked_blocks_move_and_are_remembered() {
    let golden = Golden::open();
    let (depth, batch) = (golden.image.depth(), many(&golden));
    let before = percept_model::weights::save(&golden.image);
    let mut trainer = trainer(golden, OptimConfig::default(), |config| {
        config.image = Learning::Last(1);
        config.chunk = 16;
    });
    train_step(&mut trainer, &batch, &Alone).unwrap();
    let remembered = weights(&trainer);
    let shapes: Vec<String> = trainer.shapes().into_iter().map(|(name, _)| name).collect();
    assert_eq!(remembered.keys().count(), shapes.len());
    let after = percept_model::weights::save(trainer.image());
    for ((name, _, before), (_, _, after)) in before.iter().zip(&after) {
        let learns = Learning::Last(1).learns(name, depth);
        assert_eq!(before != after, learns, "{name}");
        assert_eq!(shapes.contains(&format!("image.{name}")), learns, "{name}");
    }
    assert!(shapes.iter().any(|name| name == "image.norm.weight"));
}

/// Threads of this process in place of processes.
struct Thread<'a> {
    rank: usize,
    met: &'a Barrier,
    boxes: &'a [Mutex<Vec<u8>>],
}

impl Collective for Thread<'_> {
    fn rank(&self) -> u32 {
        self.rank as u32
    }

    fn world(&self) -> u32 {
        self.boxes.len() as u32
    }

    fn gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>, TrainError> {
        *self.boxes[self.rank].lock().unwrap() = own.to_vec();
        self.met.wait();
        let all = self.boxes.iter().map(|b| b.lock().unwrap().clone());
        let all = all.collect();
        self.met.wait();
        Ok(all)
    }

    fn sum(&self, values: &mut [f32]) -> Result<(), TrainError> {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_ne_bytes()).collect();
        values.fill(0.0);
        for other in self.gather(&bytes)? {
            for (sum, bytes) in values.iter_mut().zip(other.as_chunks::<4>().0) {
                *sum += f32::from_ne_bytes(*bytes);
            }
        }
        Ok(())
    }
}

#[test]
fn processes_that_share_a_batch_are_one() {
    share_a_batch(None);
}

#[test]
fn they_are_one_with_the_sides_of_photos_too() {
    share_a_batch(sides());
}

fn share_a_batch(sides: Option<Sides>) {
    const SHARES: [usize; 3] = [60, 40, 28];
    let start = || {
        let golden = Golden::open();
        let batch = many(&golden);
        let trainer = trainer(golden, OptimConfig::default(), |config| {
            config.patch_dropout = 0.5;
            config.chunk = 16;
            config.targets = Targets::IdenticalCaptions;
            config.sides = sides;
        });
        (trainer, batch)
    };
    let steps = |trainer: &mut Trainer, batch: &Batch, collective: &dyn Collective| {
        [(); 3].map(|()| train_step(trainer, batch, collective).unwrap())
    };
    let (mut alone, batch) = start();
    let expected = steps(&mut alone, &batch, &Alone);

    let met = Barrier::new(SHARES.len());
    let boxes = SHARES.map(|_| Mutex::default());
    let run = |rank: usize| {
        let (mut trainer, mut batch) = start();
        let first = SHARES[..rank].iter().sum::<usize>();
        let own = first..first + SHARES[rank];
        let per_image = batch.pixels.len() / batch.captions.len();
        batch.pixels = batch.pixels[own.start * per_image..own.end * per_image].to_vec();
        batch.captions = batch.captions[own.clone()].to_vec();
        batch.words = batch.words[own].to_vec();
        let (met, boxes) = (&met, &boxes);
        let reports = steps(&mut trainer, &batch, &Thread { rank, met, boxes });
        (reports, weights(&trainer))
    };
    let ranks: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..SHARES.len())
            .map(|rank| scope.spawn(move || run(rank)))
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    for (reports, weights_of) in &ranks {
        // Every process holds the same, to the last bit.
        assert!(*weights_of == ranks[0].1, "weights differ");
        for (report, expected) in reports.iter().zip(&expected) {
            assert!(
                (report.loss - expected.loss).abs() < 1e-5,
                "{report:?} {expected:?}"
            );
            assert!((report.grad_norm / expected.grad_norm - 1.0).abs() < 1e-4);
            assert_eq!(report.accuracy, expected.accuracy);
        }
    }
    for (name, values) in weights(&alone) {
        for (a, b) in values.iter().zip(&ranks[0].1[&name]) {
            assert!((a - b).abs() < 1e-4, "{name}: {a} and {b}");
        }
    }
}

#[test]
fn a_resumed_training_is_the_same_bit_for_bit() {
    let start = |golden| {
        trainer(golden, OptimConfig::default(), |config| {
            config.patch_dropout = 0.5;
            config.chunk = 4;
        })
    };
    let golden = Golden::open();
    let batch = batch(&golden);
    let mut first = start(golden);
    for _ in 0..2 {
        train_step(&mut first, &batch, &Alone).unwrap();
    }
    let saved = weights(&first);
    let state: BTreeMap<String, Vec<f32>> = first
        .optimizer()
        .tensors()
        .map(|(name, _, values)| (name, values.to_vec()))
        .collect();
    let mut second = start(Golden::open());
    second
        .restore_weights(|name| saved.get(name).cloned())
        .unwrap();
    let step = first.optimizer().step();
    second
        .optimizer_mut()
        .restore(step, |name| state.get(name).cloned())
        .unwrap();
    let (a, b) = (
        train_step(&mut first, &batch, &Alone).unwrap(),
        train_step(&mut second, &batch, &Alone).unwrap(),
    );
    assert_eq!(a, b);
    assert!(weights(&first) == weights(&second), "weights differ");
}

#[test]
fn what_is_not_finite_changes_nothing() {
    let golden = Golden::open();
    let mut batch = batch(&golden);
    batch.pixels[5] = f32::NAN;
    let mut trainer = trainer(golden, OptimConfig::default(), |_| {});
    let before = weights(&trainer);
    let error = train_step(&mut trainer, &batch, &Alone).unwrap_err();
    assert!(matches!(error, TrainError::NotFinite { .. }), "{error}");
    assert!(weights(&trainer) == before, "weights changed");
    assert_eq!(trainer.optimizer().step(), 0);
    batch.pixels.pop();
    let error = train_step(&mut trainer, &batch, &Alone).unwrap_err();
    assert!(matches!(error, TrainError::Batch { .. }), "{error}");
}
