//! One step of training, from a batch to new weights.

use std::ops::Range;
use std::path::Path;

use burn::tensor::{Device, IndexingUpdateOp, Int, Tensor, TensorData};
use percept_model::text::TextTower;
use percept_model::vit::Vit;
use percept_model::{FrozenVit, Pooling, weights};
use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::collective::Collective;
use crate::ema::Ema;
use crate::gradcache::{Embedded, ImageSide, Keep, Learning, TextSide};
use crate::locked::LockedCache;
use crate::loss::{MAX_LOGIT_SCALE, Targets, contrast, group};
use crate::optim::{GradientSum, IMAGE, LOGIT_SCALE, OptimConfig, Optimizer, TEXT};
use crate::schedule::Schedule;
use crate::sides::{Division, Sides, Words};
use crate::subsample::{Kept, kept_count};

/// Settings of a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepConfig {
    /// How tokens become an image embedding.
    pub pooling: Pooling,
    /// Which captions are right.
    #[serde(default)]
    pub targets: Targets,
    /// What patches weigh in the loss, if they have a part in it.
    #[serde(default)]
    pub sides: Option<Sides>,
    /// Part of the patch tokens that is dropped (paper §2.3); 0 keeps all.
    #[serde(default)]
    pub patch_dropout: f64,
    /// Samples computed at once; a larger batch is accumulated exactly. Of texts so many more as they have
    /// fewer tokens than images.
    pub chunk: usize,
    /// What the image tower keeps for the way back.
    #[serde(default)]
    pub keep: Keep,
    /// Whether the image tower learns.
    #[serde(default)]
    pub image: Learning,
    /// Whether the text tower learns.
    #[serde(default)]
    pub text: Learning,
    /// Of everything that is drawn.
    #[serde(default)]
    pub seed: u64,
}

impl StepConfig {
    fn validate(&self) -> Result<(), TrainError> {
        let setting = |name, value: String, reason| {
            Err(TrainError::Setting {
                name,
                value,
                reason,
            })
        };
        if !(0.0..1.0).contains(&self.patch_dropout) {
            let value = self.patch_dropout.to_string();
            return setting("patch_dropout", value, "not in [0, 1)");
        }
        if self.chunk == 0 {
            return setting("chunk", "0".into(), "no samples at all");
        }
        if let Some(sides) = self.sides {
            sides.validate()?;
        }
        if let Learning::Last(blocks) = self.text {
            let reason = "a text tower learns as a whole or not at all";
            return setting("text", format!("the last {blocks} blocks"), reason);
        }
        Ok(())
    }
}

/// Image–caption pairs, ready to be encoded.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Normalised pixels, `[samples, 3, height, width]`, row-major.
    pub pixels: Vec<f32>,
    /// Height and width of every image, in pixels.
    pub size: [usize; 2],
    /// Token ids of each sample's caption.
    pub captions: Vec<Vec<u32>>,
    /// Token ids of what each sample shows, one thing at least; looked at where [`StepConfig::sides`] are
    /// given.
    pub words: Vec<Vec<Vec<u32>>>,
    /// Token ids of the [`CAPTION`](crate::sides::CAPTION) of what surrounds the things; likewise.
    pub surroundings: Vec<u32>,
}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct StepReport {
    /// The step, counted from 0.
    pub step: u64,
    /// The loss before the update.
    pub loss: f32,
    /// L2 norm of the gradient of all parameters, before clipping.
    pub grad_norm: f64,
    /// The logarithm of the temperature after the update.
    pub logit_scale: f32,
    /// As [`Contrast::accuracy`](crate::loss::Contrast::accuracy), before the update.
    pub accuracy: f32,
    /// The learning rate.
    pub lr: f64,
}

/// Two towers that learn, with all that a step changes.
#[derive(Debug)]
pub struct Trainer {
    image: Vit,
    text: TextTower,
    logit_scale: f32,
    /// The image tower as it began, where some of it stays or where it divides photos into their
    /// [`Sides`].
    begun: Option<FrozenVit>,
    config: StepConfig,
    schedule: Schedule,
    optimizer: Optimizer,
    ema: Option<Ema>,
    cache: Option<LockedCache>,
    device: Device,
}

impl Trainer {
    /// A trainer at its first step. The towers are on `device`, without autodiff, and as training began,
    /// also where it is then taken up later: see [`Sides`].
    ///
    /// # Errors
    /// [`TrainError::Setting`] for a setting outside its range.
    #[expect(clippy::too_many_arguments, reason = "one of each of what it holds")]
    pub fn new(
        image: Vit,
        text: TextTower,
        logit_scale: f32,
        config: StepConfig,
        schedule: Schedule,
        optim: OptimConfig,
        ema: Option<Ema>,
        device: Device,
    ) -> Result<Self, TrainError> {
        config.validate()?;
        schedule.validate()?;
        let optimizer = Optimizer::new(optim, &trained_shapes(&image, &text, &config))?;
        let locked = config.image.locked_blocks(image.depth());
        let needs_begun = config.sides.is_some() || locked.is_some();
        Ok(Self {
            begun: needs_begun.then(|| FrozenVit::new(image.clone())),
            image,
            text,
            logit_scale: logit_scale.clamp(0.0, MAX_LOGIT_SCALE),
            config,
            schedule,
            optimizer,
            ema,
            cache: None,
            device,
        })
    }

    /// Keeps what the locked blocks of the image tower make of inputs in `folder`, and takes it from there: the
    /// patches that are dropped are then dropped behind these blocks. To be called before any weights are
    /// restored.
    ///
    /// # Errors
    /// [`TrainError::Setting`] where no blocks are locked while others learn; [`TrainError::Io`].
    pub fn keep_locked(&mut self, folder: &Path) -> Result<(), TrainError> {
        let Some(count) = self.config.image.locked_blocks(self.image.depth()) else {
            return Err(TrainError::Setting {
                name: "locked_cache",
                value: folder.display().to_string(),
                reason: "no blocks are locked while others learn (lock_image_unlocked_groups)",
            });
        };
        let whole = self.config.sides.is_some();
        self.cache = Some(LockedCache::open(folder, &self.image, count, whole)?);
        Ok(())
    }

    /// The image tower.
    pub fn image(&self) -> &Vit {
        &self.image
    }

    /// The text tower.
    pub fn text(&self) -> &TextTower {
        &self.text
    }

    /// The logarithm of the temperature.
    pub fn logit_scale(&self) -> f32 {
        self.logit_scale
    }

    /// The settings.
    pub fn config(&self) -> &StepConfig {
        &self.config
    }

    /// The learning rates.
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// The optimiser, whose [`step`](Optimizer::step) is the number of steps taken.
    pub fn optimizer(&self) -> &Optimizer {
        &self.optimizer
    }

    /// The optimiser, to restore its state.
    pub fn optimizer_mut(&mut self) -> &mut Optimizer {
        &mut self.optimizer
    }

    /// The average of the weights.
    pub fn ema(&self) -> Option<&Ema> {
        self.ema.as_ref()
    }

    /// The average of the weights, to restore its state.
    pub fn ema_mut(&mut self) -> Option<&mut Ema> {
        self.ema.as_mut()
    }

    /// Names and shapes in memory of the parameters that learn.
    pub fn shapes(&self) -> Vec<(String, Vec<usize>)> {
        trained_shapes(&self.image, &self.text, &self.config)
    }

    /// Names and values of the parameters that learn, in the shapes of [`shapes`](Self::shapes).
    pub fn weights(&self) -> impl Iterator<Item = (String, Vec<f32>)> {
        let mut found = Vec::new();
        let (image, depth) = (self.config.image, self.image.depth());
        if image != Learning::Locked {
            weights::read(&self.image, |name, values| {
                if image.learns(name, depth) {
                    found.push((format!("{IMAGE}{name}"), values));
                }
            });
        }
        if self.config.text == Learning::Trained {
            weights::read(&self.text, |name, values| {
                found.push((format!("{TEXT}{name}"), values));
            });
        }
        found.push((LOGIT_SCALE.to_owned(), vec![self.logit_scale]));
        found.into_iter()
    }

    /// Puts back weights by the names of [`shapes`](Self::shapes); `read` has the values of a name, in
    /// the shape that the parameter has in memory.
    ///
    /// # Errors
    /// [`TrainError::State`] when one is absent or has another length; nothing is changed.
    pub fn restore_weights(
        &mut self,
        mut read: impl FnMut(&str) -> Option<Vec<f32>>,
    ) -> Result<(), TrainError> {
        let mut found = std::collections::BTreeMap::new();
        for (name, shape) in self.shapes() {
            let values = crate::optim::read_state(&name, &shape, &mut read)?;
            found.insert(name, values);
        }
        let (weights, _, _) = self.parts();
        weights.change(|name, values| {
            if let Some(found) = found.get(name) {
                values.copy_from_slice(found);
            }
        });
        Ok(())
    }
}

/// What a step changes of a [`Trainer`], apart from its optimiser.
struct Weights<'a> {
    image: Option<&'a mut Vit>,
    /// Which part of the image tower that is.
    image_learning: Learning,
    text: Option<&'a mut TextTower>,
    logit_scale: &'a mut f32,
}

impl Weights<'_> {
    /// Hands every parameter that learns to `change`, by its name.
    fn change(self, mut change: impl FnMut(&str, &mut [f32])) {
        if let Some(image) = self.image {
            let (learning, depth) = (self.image_learning, image.depth());
            *image = weights::update(image.clone(), |name, values| {
                if learning.learns(name, depth) {
                    change(&format!("{IMAGE}{name}"), values);
                }
            });
        }
        if let Some(text) = self.text {
            *text = weights::update(text.clone(), |name, values| {
                change(&format!("{TEXT}{name}"), values);
            });
        }
        change(LOGIT_SCALE, std::slice::from_mut(self.logit_scale));
    }
}

fn trained_shapes(image: &Vit, text: &TextTower, config: &StepConfig) -> Vec<(String, Vec<usize>)> {
    let mut shapes = Vec::new();
    let mut add = |prefix: &str, named: Vec<(String, Vec<usize>)>| {
        shapes.extend(
            named
                .into_iter()
                .map(|(name, shape)| (format!("{prefix}{name}"), shape)),
        );
    };
    if config.image != Learning::Locked {
        let mut learned = weights::shapes(image);
        learned.retain(|(name, _)| config.image.learns(name, image.depth()));
        add(IMAGE, learned);
    }
    if config.text == Learning::Trained {
        add(TEXT, weights::shapes(text));
    }
    add("", vec![(LOGIT_SCALE.to_owned(), vec![])]);
    shapes
}

/// Takes one step: embeds the batch, finds the loss and its gradients, and updates every
/// parameter that learns.
///
/// # Errors
/// [`TrainError::Batch`] for one that cannot be computed; [`TrainError::NotFinite`] for a loss or
/// a gradient that is not finite; [`TrainError::Collective`]. The trainer is then as it was.
pub fn train_step(
    trainer: &mut Trainer,
    batch: &Batch,
    collective: &dyn Collective,
) -> Result<StepReport, TrainError> {
    let config = trainer.config.clone();
    let step = trainer.optimizer.step();
    let not_finite = |what: String| TrainError::NotFinite { step, what };
    let global = GlobalBatch::gather(batch, collective)?;
    let images = trainer.image_side(batch, step, global.own.start, collective)?;
    let (texts, groups, words) = trainer.text_side(batch);

    let image = Embedded::new(&images, &trainer.image, config.chunk, config.image);
    let chunk_of_texts = config.chunk * (images.tokens(&trainer.image) / texts.tokens()).max(1);
    let text = Embedded::new(&texts, &trainer.text, chunk_of_texts, config.text);
    // Each caption was embedded once; here it is again at every image that has it.
    let which = indices(&groups, &trainer.device);
    let captions = text.embeddings.clone().select(0, which.clone());
    let captions = global.rows(captions, collective)?;
    let words = match config.sides {
        None => None,
        Some(sides) => {
            let words = GlobalWords::gather(words, &texts.ids, &text.embeddings, collective)?;
            Some((words, sides))
        }
    };
    let found = contrast(
        global.rows(image.embeddings.clone(), collective)?,
        captions,
        trainer.logit_scale,
        &global.groups,
        config.targets,
        words.as_ref().map(|(words, sides)| (&words.all, *sides)),
    );
    if !found.loss.is_finite() {
        return Err(not_finite("the loss".into()));
    }

    let mut gradients = GradientSum::new();
    if collective.is_first() {
        // Every process has found the whole of it.
        gradients.add(LOGIT_SCALE, &[found.logit_scale]);
    } else {
        gradients.add(LOGIT_SCALE, &[0.0]);
    }
    if config.image != Learning::Locked {
        let by_image = global.own(found.images);
        image.backward(&images, &trainer.image, by_image, &mut gradients);
    }
    if config.text == Learning::Trained {
        let add = IndexingUpdateOp::Add;
        let own = global.own(found.texts);
        let mut by_caption = text.embeddings.zeros_like();
        by_caption = by_caption.select_assign(0, which, own, add);
        if let (Some((words, _)), Some(by_word)) = (&words, found.words) {
            // As with the temperature, every process has found the whole of it: one of them adds it.
            let [rows, numbers] =
                [&words.rows, &words.numbers].map(|x| indices(x, &trainer.device));
            by_caption = by_caption.select_assign(0, rows, by_word.select(0, numbers), add);
        }
        text.backward(&texts, &trainer.text, by_caption, &mut gradients);
    }
    for (_, gradient) in gradients.iter_mut() {
        collective.sum(gradient)?;
    }
    let grad_norm = gradients.norm();
    if !grad_norm.is_finite() {
        let name = gradients.not_finite().unwrap_or("all parameters");
        return Err(not_finite(format!("the gradient of {name}")));
    }

    let lr = trainer.schedule.at(step);
    trainer.update(&gradients, grad_norm, lr);
    Ok(StepReport {
        step,
        loss: found.loss,
        grad_norm,
        logit_scale: trainer.logit_scale,
        accuracy: found.accuracy,
        lr,
    })
}

/// The batches of all processes, one after the other.
struct GlobalBatch {
    /// Which samples are those of this process.
    own: Range<usize>,
    /// Numbers of all captions: equal ones have the same.
    groups: Vec<usize>,
}

impl GlobalBatch {
    fn gather(batch: &Batch, collective: &dyn Collective) -> Result<Self, TrainError> {
        let captions = collective.gather_ids(&batch.captions)?;
        let before = captions.iter().take(collective.rank() as usize);
        let start = before.map(Vec::len).sum();
        let captions: Vec<&Vec<u32>> = captions.iter().flatten().collect();
        Ok(Self {
            own: start..start + batch.captions.len(),
            groups: group(captions),
        })
    }

    /// Rows `[samples, dim]` of all processes from those of each.
    fn rows(&self, own: Tensor<2>, collective: &dyn Collective) -> Result<Tensor<2>, TrainError> {
        gather_rows(own, self.groups.len(), collective)
    }

    /// The rows of this process.
    fn own(&self, rows: Tensor<2>) -> Tensor<2> {
        rows.narrow(0, self.own.start, self.own.len())
    }
}

/// `count` rows of all processes from those of each.
fn gather_rows(
    own: Tensor<2>,
    count: usize,
    collective: &dyn Collective,
) -> Result<Tensor<2>, TrainError> {
    let (device, [_, dim]) = (own.device(), own.dims());
    if collective.world() == 1 {
        return Ok(own);
    }
    let values: Vec<f32> = own.into_data().iter().collect();
    let all = collective.gather_f32(&values)?.concat();
    if all.len() != count * dim {
        return Err(TrainError::Collective {
            reason: format!("{} values for {count} embeddings of {dim}", all.len()),
        });
    }
    let all = TensorData::new(all, [count, dim]);
    Ok(Tensor::from_data(all, &device))
}

/// What the images of a process show.
struct OwnWords {
    /// Where each of them is among the texts; the last one is that of the surroundings.
    rows: Vec<usize>,
    /// Which of them each sample shows.
    shown: Vec<Vec<u32>>,
}

/// What the images of all processes show, each thing once.
struct GlobalWords {
    all: Words,
    /// Where among the texts of this process those are that are taken from it, and which they are of all.
    rows: Vec<usize>,
    numbers: Vec<usize>,
}

impl GlobalWords {
    fn gather(
        own: OwnWords,
        texts: &[Vec<u32>],
        embeddings: &Tensor<2>,
        collective: &dyn Collective,
    ) -> Result<Self, TrainError> {
        let ids: Vec<Vec<u32>> = own.rows.iter().map(|row| texts[*row].clone()).collect();
        let ids = collective.gather_ids(&ids)?;
        let shown = collective.gather_ids(&own.shown)?;
        let starts = ids.iter().scan(0, |next, ids| {
            let start = *next;
            *next += ids.len();
            Some(start)
        });
        let starts: Vec<usize> = starts.collect();
        // The same word of several processes has one number, and the embedding of the first of them.
        let listed: Vec<&Vec<u32>> = ids.iter().flatten().collect();
        let numbers = group(&listed);
        let mut first = Vec::new();
        for (at, number) in numbers.iter().enumerate() {
            if *number == first.len() {
                first.push(at);
            }
        }
        let mut of_samples = Vec::new();
        for (shown, start) in shown.iter().zip(&starts) {
            for shown in shown {
                let numbers = shown.iter().map(|word| numbers.get(start + *word as usize));
                let numbers = numbers.flatten().copied().collect::<Vec<_>>();
                of_samples.push(numbers);
            }
        }
        let device = embeddings.device();
        let rows = embeddings.clone().select(0, indices(&own.rows, &device));
        let rows = gather_rows(rows, listed.len(), collective)?;
        let start = starts[collective.rank() as usize];
        let mut of_own = (Vec::new(), Vec::new());
        for (i, row) in own.rows.iter().enumerate() {
            let number = numbers[start + i];
            if first[number] == start + i {
                of_own.0.push(*row);
                of_own.1.push(number);
            }
        }
        Ok(Self {
            all: Words {
                embeddings: rows.select(0, indices(&first, &device)),
                shown: of_samples,
                surroundings: numbers[start + own.rows.len() - 1],
            },
            rows: of_own.0,
            numbers: of_own.1,
        })
    }
}

impl Trainer {
    /// The images of a batch, with the patches that this step keeps; the first one is number `first`
    /// of all processes' images.
    fn image_side(
        &self,
        batch: &Batch,
        step: u64,
        first: usize,
        collective: &dyn Collective,
    ) -> Result<ImageSide, TrainError> {
        let fail = |reason: String| Err(TrainError::Batch { reason });
        let samples = batch.captions.len();
        let [height, width] = batch.size;
        let patch = self.image.patch_size();
        if samples == 0 {
            return fail("it is empty".into());
        }
        if height == 0
            || width == 0
            || !height.is_multiple_of(patch)
            || !width.is_multiple_of(patch)
        {
            return fail(format!("{height} x {width} pixels in patches of {patch}"));
        }
        if batch.pixels.len() != samples * 3 * height * width {
            let values = batch.pixels.len();
            return fail(format!(
                "{values} values for {samples} images of {height} x {width}"
            ));
        }
        if self.config.sides.is_some() {
            if batch.surroundings.is_empty() {
                return fail("the caption of the surroundings has no tokens".into());
            }
            let is_bad =
                |words: &Vec<Vec<u32>>| words.is_empty() || words.iter().any(Vec::is_empty);
            if batch.words.len() != samples || batch.words.iter().any(is_bad) {
                return fail("it is not told what every image shows".into());
            }
        }
        if let Some(empty) = batch.captions.iter().position(Vec::is_empty) {
            return fail(format!("caption {empty} has no tokens"));
        }
        let [rows, columns] = self.image.grid_of(batch.size);
        let patches = rows * columns;
        let keep = (self.config.patch_dropout > 0.0).then(|| {
            let count = kept_count(patches, self.config.patch_dropout);
            let kept = Kept::draw(self.config.seed, step, first, samples, patches, count);
            kept.rows(0, samples, &self.device)
        });
        let draw = (self.config.seed, step, first);
        let pixels = TensorData::new(batch.pixels.clone(), [samples, 3, height, width]);
        let mut side = ImageSide {
            pixels: Tensor::from_data(pixels, &self.device),
            keep,
            pooling: self.config.pooling,
            division: None,
            memory: self.config.keep,
            locked: None,
        };
        let chunk = self.config.chunk;
        let Some(begun) = &self.begun else {
            return Ok(side);
        };
        let outputs = match (&self.cache, self.config.image.locked_blocks(begun.depth())) {
            (Some(cache), Some(count)) => {
                let found = cache.find(begun, &batch.pixels, batch.size, chunk, &self.device)?;
                side = side.behind(found.tokens, patches, count);
                found.whole.map(|whole| vec![side.output(whole, patches)])
            }
            (_, locked) => {
                if let Some(locked) = locked {
                    side = side.past(begun, locked, chunk);
                }
                (self.config.sides).map(|_| side.outputs(begun, chunk))
            }
        };
        if let (Some(sides), Some(outputs)) = (self.config.sides, outputs) {
            side.division = Some(Division::new(&outputs, sides.patches, draw, collective)?);
        }
        Ok(side)
    }

    /// The different texts of a batch, which of them is each sample's caption, and which are words.
    fn text_side(&self, batch: &Batch) -> (TextSide, Vec<usize>, OwnWords) {
        let (words, surroundings): (&[Vec<Vec<u32>>], _) = match self.config.sides {
            None => (&[], None),
            Some(_) => (&batch.words, Some(&batch.surroundings)),
        };
        let all = (batch.captions.iter())
            .chain(words.iter().flatten())
            .chain(surroundings);
        let mut numbers = group(all.clone());
        let mut ids: Vec<Vec<u32>> = Vec::new();
        for (text, number) in all.zip(&numbers) {
            if *number == ids.len() {
                ids.push(text.clone());
            }
        }
        let of_words = numbers.split_off(batch.captions.len());
        let mut rows: Vec<usize> = Vec::new();
        let mut place = |row: usize| {
            let known = rows.iter().position(|other| *other == row);
            known.unwrap_or_else(|| {
                rows.push(row);
                rows.len() - 1
            }) as u32
        };
        let mut rest = of_words.iter().copied();
        let shown = words
            .iter()
            .map(|words| rest.by_ref().take(words.len()).map(&mut place).collect())
            .collect();
        // Last, whether or not a sample shows it as well.
        rows.extend(rest);
        let device = self.device.clone();
        (TextSide { ids, device }, numbers, OwnWords { rows, shown })
    }

    /// Moves every parameter by its gradient, and the average of the weights with it.
    fn update(&mut self, gradients: &GradientSum, norm: f64, lr: f64) {
        let (weights, optimizer, mut ema) = self.parts();
        let update = optimizer.begin(norm, lr);
        if let Some(ema) = &mut ema {
            ema.begin();
        }
        weights.change(|name, values| {
            if let Some(gradient) = gradients.get(name) {
                optimizer.apply(&update, name, values, gradient);
            }
            if name == LOGIT_SCALE {
                // As open_clip: the parameter itself, after the update.
                values[0] = values[0].clamp(0.0, MAX_LOGIT_SCALE);
            }
            if let Some(ema) = &mut ema {
                ema.observe(name, values);
            }
        });
    }

    /// Everything that a step changes, apart.
    fn parts(&mut self) -> (Weights<'_>, &mut Optimizer, Option<&mut Ema>) {
        let learns = |learning| learning != Learning::Locked;
        let weights = Weights {
            image: learns(self.config.image).then_some(&mut self.image),
            image_learning: self.config.image,
            text: learns(self.config.text).then_some(&mut self.text),
            logit_scale: &mut self.logit_scale,
        };
        (weights, &mut self.optimizer, self.ema.as_mut())
    }
}

fn indices(groups: &[usize], device: &Device) -> Tensor<1, Int> {
    let rows: Vec<i64> = groups.iter().map(|group| *group as i64).collect();
    Tensor::from_data(TensorData::new(rows, [groups.len()]), device)
}
