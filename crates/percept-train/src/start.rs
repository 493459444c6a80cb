//! Where a run begins: two towers from checkpoints of any layout, or drawn.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use burn::module::Module;
use burn::tensor::Device;
use percept_image::{Filter, Normalization};
use percept_model::text::TextTower;
use percept_model::vit::Vit;
use percept_model::{
    BertConfig, FORMAT, Hints, ImageConfig, ModelConfig, ModelError, ModelFiles, Pooling,
    PositionInterpolation, T5Config, T5FeedForward, TextConfig, TextHead, Tokenizer, Towers,
    VitConfig, default_templates,
    weights::{self, LoadReport},
};

use crate::TrainError;
use crate::config::TrainConfig;
use crate::loss::INITIAL_LOGIT_SCALE;

/// What stands before the shape of a tower that is drawn.
const RANDOM: &str = "random";
/// The image tower of the paper, and of `random` alone.
const VIT_B16: &str = "vit-b16";
/// The text tower of the paper, and of `random` alone.
const T5_BASE: &str = "t5-base";

/// Where a tower begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Init {
    /// With the weights of a checkpoint: a path, or a name that is looked up.
    Pretrained(String),
    /// With random weights: `random`, `random:SHAPE` or `random:PATH`, the shape of a checkpoint.
    Random(String),
}

impl Init {
    fn parse(text: &str, usual: &str) -> Self {
        match text.split_once(':') {
            None if text == RANDOM => Self::Random(usual.to_owned()),
            Some((RANDOM, shape)) => Self::Random(shape.to_owned()),
            _ => Self::Pretrained(text.to_owned()),
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Pretrained(name) | Self::Random(name) => name,
        }
    }
}

/// Two towers that are to be trained, on a device without autodiff.
#[derive(Debug)]
pub struct Start {
    /// The image tower.
    pub image: Vit,
    /// The text tower.
    pub text: TextTower,
    /// The logarithm of the temperature.
    pub logit_scale: f32,
    /// What of the checkpoints is not used.
    pub report: LoadReport,
    /// What comes before and after them.
    pub setup: Setup,
}

/// What a run needs beside the towers, and does not change.
#[derive(Debug)]
pub struct Setup {
    /// What the towers are together; of the trained model as well.
    pub model: ModelConfig,
    /// The image tower's part of `model`.
    pub image_config: ImageConfig,
    /// Makes tokens of captions.
    pub tokenizer: Tokenizer,
    /// Where they are.
    pub device: Device,
}

impl Start {
    /// Loads or draws the towers of `config`. `resolve` finds the path of a name.
    ///
    /// # Errors
    /// [`TrainError::Model`] for towers that cannot be loaded or do not fit together, and
    /// [`TrainError::Config`] for an image size that is no multiple of the patch.
    pub fn open(
        config: &TrainConfig,
        device: &Device,
        mut resolve: impl FnMut(&str) -> Result<PathBuf, TrainError>,
    ) -> Result<Self, TrainError> {
        let image_init = Init::parse(&config.init_image, VIT_B16);
        let text_init = Init::parse(&config.init_text, T5_BASE);
        let hints = Hints {
            pooling: config.pool,
            image_size: config.image_size,
            tokenizer: config.tokenizer.clone(),
            allow_unused: config.allow_unused,
            ..Hints::default()
        };
        let mut image_files = None;
        let mut image_config = match shape_of_image(image_init.name()) {
            Some(shape) if matches!(image_init, Init::Random(_)) => shape,
            _ => {
                let files = ModelFiles::open(&resolve(image_init.name())?, &hints)?;
                let found = files.config.image.clone().ok_or(ModelError::NoTower {
                    tower: "image",
                    hint: Some("--init-image names another file"),
                })?;
                image_files = Some(files);
                found
            }
        };
        image_config.pooling = config.pool.unwrap_or(image_config.pooling);
        image_config.image_size = config.image_size.unwrap_or(image_config.image_size);

        let mut text_files = None;
        let text_config = match shape_of_text(text_init.name()) {
            Some(shape) if matches!(text_init, Init::Random(_)) => shape,
            _ => {
                let files = ModelFiles::open(&resolve(text_init.name())?, &hints)?;
                let found = files.config.text.clone().ok_or(ModelError::NoTower {
                    tower: "text",
                    hint: Some("--init-text names another file"),
                })?;
                text_files = Some(files);
                found
            }
        };

        let model = ModelConfig {
            format: FORMAT.to_owned(),
            name: config.name.clone(),
            image: Some(image_config.clone()),
            text: Some(text_config.clone()),
            templates: match (&image_files, &text_files) {
                (Some(files), _) | (None, Some(files)) => files.config.templates.clone(),
                (None, None) => default_templates(),
            },
        };
        model
            .validate()
            .map_err(|reason| TrainError::config("the towers", reason))?;
        check_size(&image_config)?;

        let found = text_files
            .as_ref()
            .and_then(|files| files.tokenizer.clone());
        let path = config.tokenizer.clone().or(found);
        let path = path.ok_or_else(|| ModelError::NoTokenizer {
            path: config.init_text.clone().into(),
        })?;
        let tokenizer = Tokenizer::open(&path, text_config.max_tokens(), text_config.vocab_size())?;

        // The temperature belongs to the pair: to two towers that were trained with each other.
        let pair = matches!(image_init, Init::Pretrained(_)) && image_init == text_init;
        let mut logit_scale = None;
        let mut report = LoadReport::default();
        let other_text = text_files.as_ref().filter(|_| image_init != text_init);
        for files in image_files.iter().chain(other_text) {
            report.join(files.report.clone());
        }
        let image = match (image_init, image_files) {
            (Init::Pretrained(_), Some(files)) => {
                let towers = Towers::load(&without_text(files), device)?;
                logit_scale = towers.logit_scale.filter(|_| pair);
                towers.image
            }
            _ => None,
        };
        let text = match (text_init, text_files) {
            (Init::Pretrained(_), Some(files)) => Towers::load(&without_image(files), device)?.text,
            _ => None,
        };
        Ok(Self {
            image: image
                .unwrap_or_else(|| drawn(config.seed, device, |on| image_config.vit.init(on))),
            text: text.unwrap_or_else(|| {
                drawn(config.seed.wrapping_add(1), device, |on| {
                    text_config.init(on)
                })
            }),
            logit_scale: logit_scale.unwrap_or(INITIAL_LOGIT_SCALE),
            report,
            setup: Setup {
                model,
                image_config,
                tokenizer,
                device: device.clone(),
            },
        })
    }
}

/// A tower with random weights that depend on nothing but `seed`: a locked one must be the same when
/// a run goes on.
///
/// Burn draws all numbers of a process from one generator, and a parameter's when it is first looked
/// at. So one tower is drawn at a time, and looked at here.
fn drawn<M: Module>(seed: u64, device: &Device, init: impl FnOnce(&Device) -> M) -> M {
    static GENERATOR: Mutex<()> = Mutex::new(());
    // Nothing of the generator's own is behind the lock that a panic could have spoilt.
    let _alone = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
    device.seed(seed);
    let tower = init(device);
    weights::read(&tower, |_, _| {});
    tower
}

fn without_text(mut files: ModelFiles) -> ModelFiles {
    files.config.text = None;
    files.text = None;
    files
}

fn without_image(mut files: ModelFiles) -> ModelFiles {
    files.config.image = None;
    files.image = None;
    files.logit_scale = None;
    files
}

fn check_size(image: &ImageConfig) -> Result<(), TrainError> {
    let (size, patch) = (image.image_size, image.vit.patch_size);
    if size.is_multiple_of(patch) {
        return Ok(());
    }
    let (below, above) = (size / patch * patch, (size / patch + 1) * patch);
    let near = match below {
        0 => above.to_string(),
        _ => format!("{below} or {above}"),
    };
    Err(TrainError::config(
        format!("image_size {size}"),
        format!("no multiple of the patch size {patch}; take {near}"),
    ))
}

/// The usual shapes, for towers that are drawn.
fn shape_of_image(name: &str) -> Option<ImageConfig> {
    let (dim, heads, patch_size) = match name {
        VIT_B16 => (768, 12, 16),
        "vit-s16" => (384, 6, 16),
        "vit-s14" => (384, 6, 14),
        _ => return None,
    };
    Some(ImageConfig {
        vit: VitConfig {
            dim,
            depth: 12,
            heads,
            mlp_dim: 4 * dim,
            patch_size,
            grid: [224 / patch_size; 2],
            registers: 0,
            position_prefix: 1,
            layer_scale: false,
            layer_norm_eps: 1e-6,
            interpolation: PositionInterpolation::Dino,
        },
        pooling: Pooling::Max,
        image_size: 224,
        filter: Filter::Bicubic,
        normalization: Normalization::IMAGENET,
    })
}

fn shape_of_text(name: &str) -> Option<TextConfig> {
    match name {
        T5_BASE => Some(TextConfig::T5(T5Config {
            vocab_size: 32_128,
            dim: 768,
            depth: 12,
            heads: 12,
            head_dim: 64,
            mlp_dim: 3072,
            feed_forward: T5FeedForward::Relu,
            relative_buckets: 32,
            relative_max_distance: 128,
            rms_norm_eps: 1e-6,
            projection: Some(768),
            max_tokens: 256,
            head: TextHead::default(),
        })),
        "minilm" => Some(TextConfig::Bert(BertConfig {
            vocab_size: 30_522,
            dim: 384,
            depth: 6,
            heads: 12,
            mlp_dim: 1536,
            max_positions: 512,
            token_types: 2,
            layer_norm_eps: 1e-12,
            max_tokens: 256,
            first_position: 0,
            head: TextHead::default(),
        })),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn towers_begin_where_they_are_told() {
        let random = |shape: &str| Init::Random(shape.into());
        assert_eq!(Init::parse("random", VIT_B16), random(VIT_B16));
        assert_eq!(Init::parse("random:minilm", T5_BASE), random("minilm"));
        let name = "hf:facebook/dino-vitb16";
        assert_eq!(Init::parse(name, VIT_B16), Init::Pretrained(name.into()));
    }

    #[test]
    fn what_else_is_drawn_changes_nothing() {
        let vit = VitConfig {
            dim: 16,
            depth: 2,
            heads: 2,
            mlp_dim: 32,
            grid: [2; 2],
            ..shape_of_image(VIT_B16).unwrap().vit
        };
        let numbers = |seed: u64| {
            let mut all = Vec::new();
            let tower = drawn(seed, &Device::flex(), |on| vit.init(on));
            weights::read(&tower, |_, values| all.extend(values));
            all
        };
        let expected = numbers(7);
        assert_ne!(numbers(8), expected);
        std::thread::scope(|scope| {
            for seed in 1..7 {
                scope.spawn(move || (0..9).for_each(|_| drop(numbers(seed))));
            }
            for _ in 0..9 {
                assert_eq!(numbers(7), expected);
            }
        });
    }

    #[test]
    fn usual_shapes_fit() {
        for (image, text) in [
            (VIT_B16, T5_BASE),
            ("vit-s14", "minilm"),
            ("vit-s16", "minilm"),
        ] {
            let image = shape_of_image(image);
            check_size(image.as_ref().unwrap()).unwrap();
            let model = ModelConfig {
                format: FORMAT.into(),
                name: None,
                image,
                text: shape_of_text(text),
                templates: default_templates(),
            };
            model.validate().unwrap();
        }
        let mut odd = shape_of_image(VIT_B16).unwrap();
        odd.image_size = 230;
        assert!(
            check_size(&odd)
                .unwrap_err()
                .to_string()
                .contains("take 224 or 240")
        );
    }
}
