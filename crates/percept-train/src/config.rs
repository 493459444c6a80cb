//! Everything that decides a run, in open_clip's words: `params.json` of its folder.

use std::path::{Path, PathBuf};

use percept_data::pairs::{
    Augment, CaptionChoice, CsvOptions, Damaged, Decoding, HoldOut, LoaderOptions, PairOptions,
    PairOrder, PairSource, Part, Quoting, Sampling,
};
use percept_image::Normalization;
use percept_model::{ImageConfig, Pooling};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::TrainError;
use crate::ema::EmaStart;
use crate::gradcache::{Keep, Learning};
use crate::loss::Targets;
use crate::optim::{NoDecay, OptimConfig, Rule};
use crate::schedule::{Schedule, Shape};
use crate::sides::Sides;
use crate::step::StepConfig;

/// Recipes by name: settings that stand before those of the command line.
pub const RECIPES: [(&str, &str); 3] = [
    ("clippy-cc12m", include_str!("../recipes/clippy-cc12m.toml")),
    ("percept-s14", include_str!("../recipes/percept-s14.toml")),
    ("pilot", include_str!("../recipes/pilot.toml")),
];

/// Recipes and parameters are a few kilobytes.
const MAX_RECIPE_BYTES: u64 = 1 << 20;

/// Some settings by name, before they are a [`TrainConfig`].
pub type Settings = Map<String, Value>;

/// All settings of a run. Names and defaults are open_clip's where it has them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Name of the run and of its folder; made of the time and some settings unless given.
    pub name: Option<String>,
    /// Folder of all runs.
    pub logs: PathBuf,

    /// Shards or CSV to train on: see [`PairSource`].
    pub train_data: String,
    /// What that is.
    pub dataset_type: DatasetType,
    /// A CSV's column of photos.
    pub csv_img_key: String,
    /// A CSV's column of captions.
    pub csv_caption_key: String,
    /// What quotes mean in a CSV.
    pub csv_quoting: CsvQuoting,
    /// What becomes of a shard that is cut short or damaged otherwise.
    pub damaged_shards: DamagedShards,
    /// Pairs of an epoch, of all processes together; each once unless given.
    pub train_num_samples: Option<u64>,
    /// Draw shards with replacement.
    pub dataset_resampled: bool,
    /// Samples that the next one is drawn from.
    pub shuffle_buffer: usize,
    /// Which of a sample's captions is taken.
    pub caption: Caption,
    /// Area of the random crop as a share of the photo's, from the least to the most.
    pub aug_scale: [f64; 2],
    /// Width over height of the random crop, from the least to the most.
    pub aug_ratio: [f64; 2],
    /// How likely a photo is mirrored.
    pub aug_flip: f64,
    /// How many crops and mirrorings of a photo there are, the same in every run; new ones each time unless given.
    pub views: Option<u32>,
    /// Decode large JPEGs at a part of their size: faster, but not quite the same pixels.
    pub decode_reduced: bool,
    /// Threads that read and decode; one for each core unless given.
    pub workers: Option<usize>,
    /// Batches made ahead.
    pub prefetch: usize,

    /// Shards or CSV to validate on.
    pub val_data: Option<String>,
    /// Share of the training pairs that is held out to validate on, if there is no `val_data`.
    pub val_fraction: f64,
    /// Most pairs to validate on.
    pub val_num_samples: u64,
    /// Epochs from one validation to the next; 0 for none but the last.
    pub val_frequency: u64,
    /// Steps from one validation to the next, as well.
    pub val_steps: Option<u64>,
    /// Steps from one evaluation to the next; only at the end unless given.
    pub eval_steps: Option<u64>,

    /// Where the image tower begins: see [`Init`](crate::start::Init).
    pub init_image: String,
    /// Where the text tower begins.
    pub init_text: String,
    /// The tokeniser, where it does not come with the text tower.
    pub tokenizer: Option<PathBuf>,
    /// Begin in spite of tensors that percept does not understand, as if they were not there.
    pub allow_unused: bool,
    /// How tokens become an image embedding; as the image tower has it unless given.
    pub pool: Option<Pooling>,
    /// Side of the square inputs in pixels; as the image tower has it unless given.
    pub image_size: Option<usize>,
    /// Keep the image tower as it is.
    pub lock_image: bool,
    /// With `lock_image`, the last blocks that learn all the same, and the final norm with them.
    pub lock_image_unlocked_groups: usize,
    /// Where it is kept, from run to run, what the locked blocks make of each view: see
    /// [`LockedCache`](crate::locked::LockedCache).
    pub locked_cache: Option<PathBuf>,
    /// Keep the text tower as it is.
    pub lock_text: bool,
    /// Share of the patches that is dropped (paper §2.3).
    pub force_patch_dropout: f64,

    /// Pairs of a batch, for this process.
    pub batch_size: usize,
    /// Batches that make one step, whose loss is that of all their pairs: a larger batch, exactly.
    pub accum_freq: usize,
    /// Pairs computed at once. Changes memory and time, not the result; the batch unless given.
    pub chunk: Option<usize>,
    /// How often all pairs are seen.
    pub epochs: u64,
    /// Steps instead of epochs.
    pub steps: Option<u64>,

    /// Learning rate after the warm-up.
    pub lr: f64,
    /// The same for the image tower, where it differs.
    pub image_lr: Option<f64>,
    /// The same for the text tower, where it differs.
    pub text_lr: Option<f64>,
    /// Factor on the image tower's rate for every block further from the output.
    pub layer_decay: Option<f64>,
    /// Steps of linear warm-up.
    pub warmup: u64,
    /// What follows.
    pub lr_scheduler: Scheduler,
    /// Steps of the descent of `const-cooldown`.
    pub cooldown: u64,
    /// Its power: 1 for a straight line.
    pub lr_cooldown_power: f64,
    /// Its end.
    pub lr_cooldown_end: f64,
    /// The optimiser.
    pub opt: Opt,
    /// Decay of the gradient's average; the optimiser's own unless given.
    pub beta1: Option<f64>,
    /// Decay of the squared gradient's average; the optimiser's own unless given.
    pub beta2: Option<f64>,
    /// Added to the deviation; the optimiser's own unless given.
    pub eps: Option<f64>,
    /// Weight decay.
    pub wd: f64,
    /// Which parameters have none.
    pub no_decay: NoDecay,
    /// The gradient of all parameters is scaled down to this norm.
    pub grad_clip_norm: Option<f64>,
    /// Compute each block of the image tower again on the way back, for less memory.
    pub grad_checkpointing: bool,
    /// Precision of all arithmetic.
    pub precision: Precision,
    /// All captions that read the same are right.
    pub multi_positive: bool,
    /// Weight in the loss of the patches of things: see [`Sides`].
    pub object_weight: f64,
    /// Weight in the loss of the patches of what surrounds them.
    pub surroundings_weight: f64,
    /// Weight in the loss of each thing being somewhere on its photo.
    pub coverage_weight: f64,
    /// How many patches of a photo, drawn anew in every step, stand for things, and for surroundings.
    pub side_patches: usize,
    /// How far words that many photos show are held back: see [`Sides::balance`].
    pub word_balance: f64,
    /// Surroundings of photos that show several things may be these: see [`Sides::lenient`].
    pub lenient_surroundings: bool,
    /// Decay of the average of the weights, which is then what is validated and written.
    pub ema: Option<f64>,
    /// How the average starts.
    pub ema_start: EmaStart,
    /// Of everything that is drawn.
    pub seed: u64,

    /// Epochs from one checkpoint to the next; 0 for none but the last.
    pub save_frequency: u64,
    /// Steps from one checkpoint to the next, as well.
    pub save_steps: Option<u64>,
    /// Checkpoints kept, beside the best.
    pub keep: usize,
    /// Steps from one line of the log to the next.
    pub log_every_n_steps: u64,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            name: None,
            logs: "logs".into(),
            train_data: String::new(),
            dataset_type: DatasetType::Auto,
            csv_img_key: "filepath".into(),
            csv_caption_key: "title".into(),
            csv_quoting: CsvQuoting::Minimal,
            damaged_shards: DamagedShards::Warn,
            train_num_samples: None,
            dataset_resampled: false,
            shuffle_buffer: 5000,
            caption: Caption::First,
            aug_scale: [0.9, 1.0],
            aug_ratio: [3.0 / 4.0, 4.0 / 3.0],
            aug_flip: 0.5,
            views: None,
            decode_reduced: false,
            workers: None,
            prefetch: 2,
            val_data: None,
            val_fraction: 0.0,
            // Enough for a loss to two digits; every one is compared with every other.
            val_num_samples: 5000,
            val_frequency: 1,
            val_steps: None,
            eval_steps: None,
            init_image: String::new(),
            init_text: String::new(),
            tokenizer: None,
            allow_unused: false,
            pool: None,
            image_size: None,
            lock_image: false,
            lock_image_unlocked_groups: 0,
            locked_cache: None,
            lock_text: false,
            force_patch_dropout: 0.0,
            batch_size: 64,
            accum_freq: 1,
            chunk: None,
            epochs: 32,
            steps: None,
            lr: 5e-4,
            image_lr: None,
            text_lr: None,
            layer_decay: None,
            warmup: 10_000,
            lr_scheduler: Scheduler::Cosine,
            cooldown: 0,
            lr_cooldown_power: 1.0,
            lr_cooldown_end: 0.0,
            opt: Opt::AdamW,
            beta1: None,
            beta2: None,
            eps: None,
            wd: 0.2,
            no_decay: NoDecay::OpenClip,
            grad_clip_norm: None,
            grad_checkpointing: false,
            precision: Precision::F32,
            multi_positive: false,
            object_weight: 0.0,
            surroundings_weight: 0.0,
            coverage_weight: 0.0,
            side_patches: 16,
            word_balance: 0.0,
            lenient_surroundings: false,
            ema: None,
            ema_start: EmaStart::Full,
            seed: 0,
            save_frequency: 1,
            save_steps: None,
            keep: 3,
            log_every_n_steps: 10,
        }
    }
}

/// What `train_data` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DatasetType {
    /// A CSV if it ends in `.csv` or `.tsv`, in letters of either case, else shards.
    #[default]
    Auto,
    /// Shards.
    Webdataset,
    /// A CSV.
    Csv,
}

/// What quotes mean in a CSV.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CsvQuoting {
    /// A value that begins with one ends with one.
    #[default]
    Minimal,
    /// Nothing: they are letters as others.
    None,
}

/// What becomes of a shard that is cut short or damaged otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DamagedShards {
    /// Its samples before the damage are used, and it is counted and named.
    #[default]
    Warn,
    /// The run ends.
    Stop,
}

/// Which of a sample's captions is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Caption {
    /// The first.
    #[default]
    First,
    /// Any, another one each epoch.
    Random,
}

/// The learning rate after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheduler {
    /// Half a cosine, to zero.
    #[default]
    Cosine,
    /// The same to the end.
    Const,
    /// The same, then down.
    ConstCooldown,
}

/// The optimiser.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Opt {
    /// [`Rule::AdamW`].
    #[default]
    #[serde(rename = "adamw")]
    AdamW,
    /// [`Rule::Lamb`].
    Lamb,
}

/// Precision of the arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// 32 bits: half precision is slower on the CPU.
    #[default]
    #[serde(alias = "fp32")]
    F32,
}

/// How long a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// So many times through all pairs.
    Epochs(u64),
    /// So many steps.
    Steps(u64),
}

/// The settings of a recipe, by its name or from a TOML file of them.
///
/// # Errors
/// [`TrainError::Config`] for a name or file that is not there, or no TOML.
pub fn recipe(name: &str) -> Result<Settings, TrainError> {
    let fail = |reason: String| TrainError::config(format!("recipe {name}"), reason);
    let known = RECIPES.iter().find(|(known, _)| *known == name);
    let text = match known {
        Some((_, text)) => (*text).to_owned(),
        None => {
            let path = Path::new(name);
            let about = std::fs::metadata(path).map_err(|error| {
                let names: Vec<&str> = RECIPES.iter().map(|(name, _)| *name).collect();
                fail(format!(
                    "{error}; recipes are {} and TOML files",
                    names.join(", ")
                ))
            })?;
            if about.len() > MAX_RECIPE_BYTES {
                return Err(fail("larger than 1 MiB".into()));
            }
            std::fs::read_to_string(path).map_err(|e| fail(e.to_string()))?
        }
    };
    toml::from_str(&text).map_err(|e| fail(e.to_string()))
}

impl TrainConfig {
    /// The settings of several layers, later ones before earlier ones; the rest are defaults.
    ///
    /// # Errors
    /// [`TrainError::Config`] for a name that is no setting, or a value of the wrong kind.
    pub fn layered(
        layers: impl IntoIterator<Item = (String, Settings)>,
    ) -> Result<Self, TrainError> {
        let mut all = Settings::new();
        for (origin, mut layer) in layers {
            layer.retain(|_, value| !value.is_null());
            // The other way to say how long would have the last word.
            if layer.contains_key("epochs") && !layer.contains_key("steps") {
                all.remove("steps");
            }
            all.extend(layer);
            // Here, so that the message can say whose it is.
            serde_json::from_value::<Self>(Value::Object(all.clone()))
                .map_err(|e| TrainError::config(origin, e.to_string()))?;
        }
        serde_json::from_value(Value::Object(all))
            .map_err(|e| TrainError::config("settings", e.to_string()))
    }

    /// The settings by name, as a layer for [`layered`](Self::layered).
    pub fn settings(&self) -> Settings {
        match serde_json::to_value(self) {
            Ok(Value::Object(settings)) => settings,
            _ => Settings::new(),
        }
    }

    /// Checks what can be checked without the data and the towers.
    ///
    /// # Errors
    /// [`TrainError::Setting`] with the one at fault.
    pub fn validate(&self) -> Result<(), TrainError> {
        let fraction = |value: f64| (0.0..1.0).contains(&value);
        let increasing = |[least, most]: [f64; 2]| 0.0 < least && least <= most && most.is_finite();
        let [least, most] = self.aug_scale;
        let scale = format!("{least},{most}");
        let ratio = format!("{},{}", self.aug_ratio[0], self.aug_ratio[1]);
        for (name, value, good, reason) in [
            (
                "train_data",
                self.train_data.clone(),
                !self.train_data.is_empty(),
                "nothing to train on",
            ),
            (
                "init_image",
                self.init_image.clone(),
                !self.init_image.is_empty(),
                "not where a tower begins",
            ),
            (
                "init_text",
                self.init_text.clone(),
                !self.init_text.is_empty(),
                "not where a tower begins",
            ),
            (
                "batch_size",
                self.batch().to_string(),
                self.batch() >= 2,
                "a pair needs others to be told from",
            ),
            (
                "chunk",
                format!("{:?}", self.chunk),
                self.chunk != Some(0),
                "no pairs at all",
            ),
            (
                "epochs",
                self.epochs.to_string(),
                self.epochs > 0 || self.steps.is_some(),
                "no training at all",
            ),
            (
                "steps",
                format!("{:?}", self.steps),
                self.steps != Some(0),
                "no training at all",
            ),
            (
                "lr",
                self.lr.to_string(),
                self.lr > 0.0 && self.lr.is_finite(),
                "not above 0",
            ),
            (
                "val_fraction",
                self.val_fraction.to_string(),
                fraction(self.val_fraction),
                "not in [0, 1)",
            ),
            (
                "aug_scale",
                scale,
                increasing(self.aug_scale) && most <= 1.0,
                "not two shares in (0, 1], the lesser first",
            ),
            (
                "aug_ratio",
                ratio,
                increasing(self.aug_ratio),
                "not two ratios, the lesser first",
            ),
            (
                "aug_flip",
                self.aug_flip.to_string(),
                (0.0..=1.0).contains(&self.aug_flip),
                "not in [0, 1]",
            ),
            (
                "ema",
                format!("{:?}", self.ema),
                self.ema.is_none_or(fraction),
                "not in [0, 1)",
            ),
            (
                "keep",
                self.keep.to_string(),
                self.keep > 0,
                "there would be none to go on from",
            ),
            (
                "log_every_n_steps",
                self.log_every_n_steps.to_string(),
                self.log_every_n_steps > 0,
                "not above 0",
            ),
            (
                "lock_image_unlocked_groups",
                self.lock_image_unlocked_groups.to_string(),
                self.lock_image || self.lock_image_unlocked_groups == 0,
                "without lock_image",
            ),
            (
                "views",
                format!("{:?}", self.views),
                self.views != Some(0),
                "no crops at all",
            ),
            (
                "locked_cache",
                format!("{:?}", self.locked_cache),
                self.locked_cache.is_none() || self.views.is_some(),
                "of no use where no crop is seen twice: views are needed",
            ),
            (
                "val_num_samples",
                self.val_num_samples.to_string(),
                self.val_num_samples >= 2,
                "fewer than two pairs",
            ),
            (
                "val_steps",
                format!("{:?}", self.val_steps),
                self.val_steps != Some(0),
                "not above 0",
            ),
            (
                "eval_steps",
                format!("{:?}", self.eval_steps),
                self.eval_steps != Some(0),
                "not above 0",
            ),
            (
                "save_steps",
                format!("{:?}", self.save_steps),
                self.save_steps != Some(0),
                "not above 0",
            ),
        ] {
            if !good {
                return Err(TrainError::Setting {
                    name,
                    value,
                    reason,
                });
            }
        }
        if let Some(name) = &self.name
            && (name.is_empty() || name.starts_with('.') || name.contains(['/', '\\']))
        {
            return Err(TrainError::Setting {
                name: "name",
                value: name.clone(),
                reason: "not the name of a folder",
            });
        }
        self.optim().validate()
    }

    /// Pairs of a step, for this process.
    pub fn batch(&self) -> usize {
        self.batch_size.saturating_mul(self.accum_freq)
    }

    /// How long the run is.
    pub fn length(&self) -> Length {
        match self.steps {
            Some(steps) => Length::Steps(steps),
            None => Length::Epochs(self.epochs),
        }
    }

    /// The optimiser's settings.
    pub fn optim(&self) -> OptimConfig {
        let or = |given: Option<f64>, own: f64| given.unwrap_or(own);
        let rule = match (self.opt, Rule::ADAMW, Rule::LAMB) {
            (Opt::AdamW, Rule::AdamW { beta1, beta2, eps }, _) => Rule::AdamW {
                beta1: or(self.beta1, beta1),
                beta2: or(self.beta2, beta2),
                eps: or(self.eps, eps),
            },
            (
                _,
                _,
                Rule::Lamb {
                    beta1,
                    beta2,
                    eps,
                    max_grad_norm,
                    trust,
                },
            ) => Rule::Lamb {
                beta1: or(self.beta1, beta1),
                beta2: or(self.beta2, beta2),
                eps: or(self.eps, eps),
                max_grad_norm,
                trust,
            },
            (_, own, _) => own,
        };
        OptimConfig {
            rule,
            weight_decay: self.wd,
            no_decay: self.no_decay,
            image_lr: self.image_lr.map_or(1.0, |lr| lr / self.lr),
            text_lr: self.text_lr.map_or(1.0, |lr| lr / self.lr),
            layer_decay: self.layer_decay,
            clip_grad_norm: self.grad_clip_norm,
        }
    }

    /// The learning rates of a run of `steps` steps.
    pub fn schedule(&self, steps: u64) -> Schedule {
        Schedule {
            lr: self.lr,
            warmup: self.warmup,
            steps,
            shape: match self.lr_scheduler {
                Scheduler::Cosine => Shape::Cosine,
                Scheduler::Const => Shape::Const,
                Scheduler::ConstCooldown => Shape::ConstCooldown {
                    steps: self.cooldown,
                    power: self.lr_cooldown_power,
                    end: self.lr_cooldown_end,
                },
            },
        }
    }

    /// The settings of a step, for this image tower.
    pub fn step(&self, image: &ImageConfig) -> StepConfig {
        let learning = |locked| match locked {
            true => Learning::Locked,
            false => Learning::Trained,
        };
        StepConfig {
            pooling: image.pooling,
            targets: match self.multi_positive {
                true => Targets::IdenticalCaptions,
                false => Targets::Diagonal,
            },
            sides: self.step_sides(),
            patch_dropout: self.force_patch_dropout,
            chunk: self.chunk.unwrap_or(self.batch_size),
            keep: match self.grad_checkpointing {
                true => Keep::BlockInputs,
                false => Keep::Activations,
            },
            image: match (self.lock_image, self.lock_image_unlocked_groups) {
                (true, blocks @ 1..) => Learning::Last(blocks),
                (locked, _) => learning(locked),
            },
            text: learning(self.lock_text),
            seed: self.seed,
        }
    }

    /// What patches weigh in the loss.
    fn step_sides(&self) -> Option<Sides> {
        Sides::new(
            self.object_weight,
            self.surroundings_weight,
            self.coverage_weight,
            self.side_patches,
        )
        .map(|sides| Sides {
            balance: self.word_balance,
            lenient: self.lenient_surroundings,
            ..sides
        })
    }

    /// The pairs to train on.
    ///
    /// # Errors
    /// See [`PairSource`].
    pub fn train_source(&self) -> Result<PairSource, TrainError> {
        let part = match &self.val_data {
            None if self.val_fraction > 0.0 => Part::Train(HoldOut::Fraction(self.val_fraction)),
            _ => Part::All,
        };
        let captions = match self.caption {
            Caption::First => CaptionChoice::First,
            Caption::Random => CaptionChoice::Random,
        };
        let labels = self.step_sides().is_some();
        let options = PairOptions {
            part,
            captions,
            labels,
            damaged: self.damaged(),
        };
        self.source(&self.train_data, options)
    }

    /// The pairs to validate on, if there are any: always with their first captions.
    ///
    /// # Errors
    /// See [`PairSource`].
    pub fn val_source(&self) -> Result<Option<PairSource>, TrainError> {
        let (data, part) = match &self.val_data {
            Some(data) => (data, Part::All),
            None if self.val_fraction > 0.0 => (
                &self.train_data,
                Part::Held(HoldOut::Fraction(self.val_fraction)),
            ),
            None => return Ok(None),
        };
        let captions = CaptionChoice::First;
        let options = PairOptions {
            part,
            captions,
            labels: false,
            damaged: self.damaged(),
        };
        self.source(data, options).map(Some)
    }

    fn damaged(&self) -> Damaged {
        match self.damaged_shards {
            DamagedShards::Warn => Damaged::Warn,
            DamagedShards::Stop => Damaged::Stop,
        }
    }

    fn source(&self, data: &str, options: PairOptions) -> Result<PairSource, TrainError> {
        let table = match self.dataset_type {
            DatasetType::Auto => {
                let data = data.to_ascii_lowercase();
                [".csv", ".tsv"].iter().any(|ending| data.ends_with(ending))
            }
            DatasetType::Webdataset => false,
            DatasetType::Csv => true,
        };
        if !table {
            return Ok(PairSource::webdataset(data, options)?);
        }
        let columns = CsvOptions {
            image_column: self.csv_img_key.clone(),
            caption_column: self.csv_caption_key.clone(),
            quoting: match self.csv_quoting {
                CsvQuoting::Minimal => Quoting::Minimal,
                CsvQuoting::None => Quoting::None,
            },
            ..CsvOptions::default()
        };
        Ok(PairSource::csv(Path::new(data), &columns, options)?)
    }

    /// The order of the pairs for one of `world` processes.
    pub fn order(&self, rank: u32, world: u32) -> PairOrder {
        let buffer = self.shuffle_buffer;
        PairOrder {
            seed: self.seed,
            rank,
            world,
            sampling: match self.dataset_resampled {
                true => Sampling::Resampled { buffer },
                false => Sampling::Shuffled { buffer },
            },
            samples_per_epoch: self.train_num_samples,
            views: self.views,
        }
    }

    /// What is done to photos before the image tower.
    pub fn augment(&self, size: u32, normalization: Normalization) -> Augment {
        Augment {
            scale: self.aug_scale,
            ratio: self.aug_ratio,
            flip: self.aug_flip,
            decoding: match self.decode_reduced {
                true => Decoding::Reduced,
                false => Decoding::Full,
            },
            ..Augment::train(size, normalization)
        }
    }

    /// How batches are made.
    pub fn loader(&self) -> LoaderOptions {
        let usual = LoaderOptions::default();
        LoaderOptions {
            batch_size: self.batch(),
            threads: self.workers.unwrap_or(usual.threads),
            prefetch: self.prefetch,
            ..usual
        }
    }

    /// Names of the settings in which two runs differ, with both values.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let (ours, theirs) = (self.settings(), other.settings());
        ours.iter()
            .filter(|(name, value)| theirs.get(*name) != Some(value))
            .map(|(name, value)| {
                format!(
                    "{name} {} -> {value}",
                    theirs.get(name).unwrap_or(&Value::Null)
                )
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(text: &str) -> (String, Settings) {
        ("a test".into(), serde_json::from_str(text).unwrap())
    }

    #[test]
    fn every_recipe_is_a_config() {
        for (name, _) in RECIPES {
            let towers = layer(r#"{"init_image": "a", "init_text": "b", "train_data": "c"}"#);
            let layers = [(name.to_owned(), recipe(name).unwrap()), towers];
            TrainConfig::layered(layers).unwrap().validate().unwrap();
        }
        assert!(
            recipe("nowhere")
                .unwrap_err()
                .to_string()
                .contains("clippy-cc12m")
        );
    }

    #[test]
    fn the_last_layer_has_the_last_word() {
        let layers = [
            layer(r#"{"lr": 0.1, "steps": 7, "wd": null}"#),
            layer(r#"{"epochs": 2}"#),
        ];
        let config = TrainConfig::layered(layers).unwrap();
        assert_eq!((config.lr, config.wd), (0.1, 0.2));
        assert_eq!(config.length(), Length::Epochs(2));
        let error = TrainConfig::layered([layer(r#"{"larning_rate": 1}"#)]).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("a test: unknown field `larning_rate`"),
            "{error}"
        );
        let same = TrainConfig::layered([("x".into(), config.settings())]).unwrap();
        assert_eq!(same, config);
        let other = TrainConfig {
            lr: 0.2,
            ..config.clone()
        };
        assert_eq!(other.differences(&config), ["lr 0.1 -> 0.2"]);
    }

    #[test]
    fn settings_that_make_no_sense_are_refused_by_name() {
        let good = TrainConfig {
            train_data: "a".into(),
            init_image: "b".into(),
            init_text: "c".into(),
            ..Default::default()
        };
        good.validate().unwrap();
        let bad = [
            TrainConfig {
                batch_size: 1,
                ..good.clone()
            },
            TrainConfig {
                lr: f64::NAN,
                ..good.clone()
            },
            TrainConfig {
                aug_scale: [0.9, 0.1],
                ..good.clone()
            },
            TrainConfig {
                name: Some("../x".into()),
                ..good.clone()
            },
            TrainConfig {
                beta1: Some(2.0),
                ..good.clone()
            },
        ];
        for (config, name) in bad
            .iter()
            .zip(["batch_size", "lr", "aug_scale", "name", "beta1"])
        {
            let error = config.validate().unwrap_err().to_string();
            assert!(error.starts_with(&format!("{name} is")), "{error}");
        }
    }
}
