//! What a path holds: which towers, in which layout, of which shape. No weights are read here.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use percept_image::{Filter, Normalization};
use serde_json::Value;

use crate::config::{FORMAT, default_templates};
use crate::layout::{ImageLayout, ImageStyle, TextLayout, TextStyle, count_blocks};
use crate::source::Source;
use crate::weights::Recipe;
use crate::{
    BertConfig, ImageConfig, ModelConfig, ModelError, Pooling, PositionInterpolation, T5Config,
    T5FeedForward, TextConfig, VitConfig,
};

/// Side of the square that classification sees, unless the position grid is smaller.
const IMAGE_SIZE: usize = 224;
/// Sentence-T5's and MiniLM's own limit.
const MAX_TOKENS: usize = 256;
/// Configuration files of other libraries are a few kilobytes.
const MAX_JSON_BYTES: u64 = 1 << 20;

/// Name of the weights in a model folder.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// Name of the configuration in a model folder.
pub const CONFIG_FILE: &str = "config.json";
/// Name of the tokeniser in a model folder.
pub const TOKENIZER_FILE: &str = "tokenizer.json";

/// What a checkpoint does not say by itself; each overrides what is inferred.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Hints {
    /// Pooling of the image tower.
    pub pooling: Option<Pooling>,
    /// Attention heads of the image tower.
    pub heads: Option<usize>,
    /// Rule for position embeddings.
    pub interpolation: Option<PositionInterpolation>,
    /// Mean and standard deviation of the image tower's input.
    pub normalization: Option<Normalization>,
    /// Side of the square that classification sees, in pixels.
    pub image_size: Option<usize>,
    /// ε of the image tower's layer norms.
    pub layer_norm_eps: Option<f64>,
    /// The tokeniser, when it is not beside the weights.
    pub tokenizer: Option<PathBuf>,
}

/// A tower on disk.
#[derive(Debug, Clone)]
pub struct TowerFiles<L> {
    /// Where its tensors are.
    pub source: Arc<Source>,
    /// Under which names.
    pub layout: L,
}

/// A model on disk, understood but not loaded.
#[derive(Debug, Clone)]
pub struct ModelFiles {
    /// The file or folder that was opened.
    pub path: PathBuf,
    /// What the model is.
    pub config: ModelConfig,
    /// The image tower.
    pub image: Option<TowerFiles<ImageLayout>>,
    /// The text tower.
    pub text: Option<TowerFiles<TextLayout>>,
    /// The tokeniser of the text tower.
    pub tokenizer: Option<PathBuf>,
    /// Where the learned temperature is: a checkpoint and a name.
    pub logit_scale: Option<(Arc<Source>, String)>,
}

impl ModelFiles {
    /// Looks at a model folder of ours, or any checkpoint of a known layout (`layout.rs`).
    ///
    /// # Errors
    /// The path cannot be read, holds no tower that is known, or one that cannot exist.
    pub fn open(path: &Path, hints: &Hints) -> Result<Self, ModelError> {
        let source = Arc::new(Source::open(path)?);
        let folder = if path.is_dir() {
            path
        } else {
            path.parent().unwrap_or(Path::new("."))
        };
        let image = ImageLayout::detect(&source);
        let text = TextLayout::detect(&source);
        if image.is_none() && text.is_none() {
            let main = source.main();
            return Err(ModelError::UnknownLayout {
                path: main.path().to_owned(),
                count: main.len(),
                examples: main.names().take(3).map(str::to_owned).collect(),
            });
        }
        // Beside a lone file of another name, a config.json may be anything's.
        let belongs = path.is_dir() || path.file_name().is_some_and(|name| name == WEIGHTS_FILE);
        let json = ConfigFile::read(&folder.join(CONFIG_FILE), belongs)?;
        let mut config = if json.is_ours() {
            json.as_ours()?
        } else {
            let image = image
                .as_ref()
                .map(|layout| infer_image(&source, layout, text.is_some(), &json, hints))
                .transpose()?;
            let text = text
                .as_ref()
                .map(|layout| infer_text(&source, layout, folder, &json))
                .transpose()?;
            ModelConfig {
                format: FORMAT.into(),
                name: None,
                image,
                text,
                templates: default_templates(),
            }
        };
        hints.apply(&mut config);
        config
            .validate()
            .map_err(|reason| ModelError::config(source.main().path(), reason))?;

        let beside = folder.join(TOKENIZER_FILE);
        let tokenizer = match &hints.tokenizer {
            Some(path) => Some(path.clone()),
            None => beside.is_file().then_some(beside),
        };
        let logit_scale = source
            .info("logit_scale")
            .map(|_| (Arc::clone(&source), "logit_scale".to_owned()));
        let tower = |layout| TowerFiles {
            source: Arc::clone(&source),
            layout,
        };
        Ok(Self {
            path: path.to_owned(),
            image: config.image.as_ref().and(image).map(tower),
            text: config.text.as_ref().and(text).map(|layout| TowerFiles {
                source: Arc::clone(&source),
                layout,
            }),
            config,
            tokenizer,
            logit_scale,
        })
    }

    /// The image tower of `self` with the text tower of `text`.
    ///
    /// # Errors
    /// A tower is absent, or the two embed in spaces of different width.
    pub fn with_text_of(self, text: Self) -> Result<Self, ModelError> {
        if self.image.is_none() {
            return Err(ModelError::NoTower {
                tower: "image",
                hint: Some("--image names another file"),
            });
        }
        if text.text.is_none() {
            return Err(ModelError::NoTower {
                tower: "text",
                hint: Some("--text names another file"),
            });
        }
        let config = ModelConfig {
            text: text.config.text,
            ..self.config
        };
        config
            .validate()
            .map_err(|reason| ModelError::config(&text.path, reason))?;
        Ok(Self {
            config,
            text: text.text,
            tokenizer: text.tokenizer,
            ..self
        })
    }
}

impl Hints {
    fn apply(&self, config: &mut ModelConfig) {
        let Some(image) = &mut config.image else {
            return;
        };
        let vit = &mut image.vit;
        vit.heads = self.heads.unwrap_or(vit.heads);
        vit.interpolation = self.interpolation.unwrap_or(vit.interpolation);
        vit.layer_norm_eps = self.layer_norm_eps.unwrap_or(vit.layer_norm_eps);
        image.pooling = self.pooling.unwrap_or(image.pooling);
        image.normalization = self.normalization.unwrap_or(image.normalization);
        image.image_size = self.image_size.unwrap_or(image.image_size);
    }
}

/// A `config.json`, ours or of another library, or none.
struct ConfigFile {
    path: PathBuf,
    json: Value,
}

impl ConfigFile {
    /// Reads a configuration if it is there and belongs to the weights.
    fn read(path: &Path, belongs: bool) -> Result<Self, ModelError> {
        let none = || Self {
            path: path.to_owned(),
            json: Value::Null,
        };
        if !belongs || !path.is_file() {
            return Ok(none());
        }
        let io = |source| ModelError::Io {
            path: path.to_owned(),
            source,
        };
        if std::fs::metadata(path).map_err(io)?.len() > MAX_JSON_BYTES {
            return Err(ModelError::config(path, "larger than 1 MiB"));
        }
        let text = std::fs::read_to_string(path).map_err(io)?;
        let json =
            serde_json::from_str(&text).map_err(|e| ModelError::config(path, e.to_string()))?;
        Ok(Self {
            path: path.to_owned(),
            json,
        })
    }

    fn is_ours(&self) -> bool {
        self.json
            .get("format")
            .and_then(Value::as_str)
            .is_some_and(|format| format.starts_with("percept"))
    }

    fn as_ours(&self) -> Result<ModelConfig, ModelError> {
        let config: ModelConfig =
            serde_json::from_value(self.json.clone()).map_err(|e| self.refuse(e.to_string()))?;
        config.validate().map_err(|reason| self.refuse(reason))?;
        Ok(config)
    }

    fn usize(&self, key: &str) -> Option<usize> {
        self.json
            .get(key)?
            .as_u64()
            .and_then(|v| usize::try_from(v).ok())
    }

    fn f64(&self, key: &str) -> Option<f64> {
        self.json.get(key)?.as_f64()
    }

    fn str(&self, key: &str) -> Option<&str> {
        self.json.get(key)?.as_str()
    }

    fn refuse(&self, reason: impl Into<String>) -> ModelError {
        ModelError::config(&self.path, reason)
    }
}

/// The file's own name for a parameter, for reading its shape.
fn name_of(recipe: Recipe) -> String {
    match recipe {
        Recipe::Copy(name) => name,
        Recipe::Stack(names) => names.into_iter().next().unwrap_or_default(),
    }
}

/// One side of a tensor that the tower cannot be without.
fn side(source: &Source, name: &str, axis: usize) -> Result<usize, ModelError> {
    source.side(name, axis).ok_or_else(|| {
        let mut report = crate::weights::LoadReport::default();
        report.missing.push(name.to_owned());
        ModelError::Weights {
            path: source.main().path().to_owned(),
            report,
        }
    })
}

fn infer_image(
    source: &Source,
    layout: &ImageLayout,
    with_text: bool,
    json: &ConfigFile,
    hints: &Hints,
) -> Result<ImageConfig, ModelError> {
    let named = |name: &str| name_of(layout.recipe(name));
    let has = |name: &str| source.info(&named(name)).is_some();
    let dim = side(source, &named("cls_token"), 2)?;
    let patch_size = side(source, &named("patch_embed.proj.weight"), 2)?;
    let positions = side(source, &named("pos_embed"), 1)?;
    let registers = if has("reg_token") {
        side(source, &named("reg_token"), 1)?
    } else {
        0
    };
    let (grid, position_prefix) = square_grid(positions, registers).ok_or_else(|| {
        ModelError::config(
            source.main().path(),
            format!(
                "{} holds {positions} positions, which is no square grid with or without CLS",
                named("pos_embed")
            ),
        )
    })?;
    let layer_scale = has("blocks.0.ls1.gamma");
    let is_clippy = layout.prefix == "visual.trunk." && with_text;
    let vit = VitConfig {
        dim,
        depth: count_blocks(source, |n| named(&format!("blocks.{n}.norm1.weight"))),
        // timm's ViTs and DINO's: heads of 64.
        heads: hints
            .heads
            .or(json.usize("num_attention_heads"))
            .unwrap_or((dim / 64).max(1)),
        mlp_dim: side(source, &named("blocks.0.mlp.fc1.weight"), 0)?,
        patch_size,
        grid: [grid, grid],
        registers,
        position_prefix,
        layer_scale,
        layer_norm_eps: json.f64("layer_norm_eps").unwrap_or(1e-6),
        interpolation: if layer_scale {
            PositionInterpolation::Timm
        } else {
            PositionInterpolation::Dino
        },
    };
    if layout.style != ImageStyle::Timm
        && let Some(activation) = json.str("hidden_act")
        && activation != "gelu"
    {
        return Err(json.refuse(format!("hidden_act \"{activation}\" is not supported")));
    }
    let native = grid.saturating_mul(patch_size);
    Ok(ImageConfig {
        image_size: IMAGE_SIZE.min(native),
        vit,
        pooling: if is_clippy {
            Pooling::Max
        } else {
            Pooling::Cls
        },
        filter: Filter::Bicubic,
        // The public CLIPpy checkpoint was trained with OpenAI's numbers, all backbones with
        // ImageNet's.
        normalization: if is_clippy {
            Normalization::OPENAI
        } else {
            Normalization::IMAGENET
        },
    })
}

/// Side of the square grid and number of rows before it.
fn square_grid(positions: usize, registers: usize) -> Option<(usize, usize)> {
    [1, 0, 1 + registers].into_iter().find_map(|prefix| {
        let patches = positions.checked_sub(prefix)?;
        let side = patches.isqrt();
        (side > 0 && side * side == patches).then_some((side, prefix))
    })
}

fn infer_text(
    source: &Source,
    layout: &TextLayout,
    folder: &Path,
    json: &ConfigFile,
) -> Result<TextConfig, ModelError> {
    check_sentence_transformer(folder)?;
    let named = |name: &str| name_of(layout.recipe(name));
    match layout.style {
        TextStyle::HfT5 | TextStyle::PerceptT5 => {
            let heads = side(source, &named("relative_bias.weight"), 1)?;
            let inner = side(source, &named("blocks.0.attn.q.weight"), 0)?;
            let gated = source.info(&named("blocks.0.mlp.wi_0.weight")).is_some();
            let wide = if gated { "wi_0" } else { "wi" };
            let act = json.str("feed_forward_proj").unwrap_or("relu");
            if !gated && act != "relu" {
                return Err(json.refuse(format!("feed_forward_proj \"{act}\" is not supported")));
            }
            let projection = layout.dense.as_ref();
            Ok(TextConfig::T5(T5Config {
                vocab_size: side(source, &named("embedding.weight"), 0)?,
                dim: side(source, &named("embedding.weight"), 1)?,
                depth: count_blocks(source, |n| named(&format!("blocks.{n}.norm1.weight"))),
                heads,
                head_dim: inner / heads.max(1),
                mlp_dim: side(source, &named(&format!("blocks.0.mlp.{wide}.weight")), 0)?,
                feed_forward: if gated {
                    T5FeedForward::GatedGelu
                } else {
                    T5FeedForward::Relu
                },
                relative_buckets: side(source, &named("relative_bias.weight"), 0)?,
                relative_max_distance: json.usize("relative_attention_max_distance").unwrap_or(128),
                rms_norm_eps: json.f64("layer_norm_epsilon").unwrap_or(1e-6),
                projection: projection.map(|name| side(source, name, 0)).transpose()?,
                max_tokens: max_tokens(folder)?,
            }))
        }
        TextStyle::HfBert | TextStyle::PerceptBert => {
            let act = json.str("hidden_act").unwrap_or("gelu");
            if act != "gelu" {
                return Err(json.refuse(format!("hidden_act \"{act}\" is not supported")));
            }
            let max_positions = side(source, &named("position.weight"), 0)?;
            Ok(TextConfig::Bert(BertConfig {
                vocab_size: side(source, &named("word.weight"), 0)?,
                dim: side(source, &named("word.weight"), 1)?,
                depth: count_blocks(source, |n| named(&format!("blocks.{n}.attn.query.weight"))),
                // BERT-base's and MiniLM's number.
                heads: json.usize("num_attention_heads").unwrap_or(12),
                mlp_dim: side(source, &named("blocks.0.mlp.fc1.weight"), 0)?,
                max_positions,
                token_types: side(source, &named("token_type.weight"), 0)?,
                layer_norm_eps: json.f64("layer_norm_eps").unwrap_or(1e-12),
                max_tokens: max_tokens(folder)?.min(max_positions),
            }))
        }
    }
}

/// sentence-transformers' own limit, where the folder states one.
fn max_tokens(folder: &Path) -> Result<usize, ModelError> {
    let config = ConfigFile::read(&folder.join("sentence_bert_config.json"), true)?;
    Ok(config.usize("max_seq_length").unwrap_or(MAX_TOKENS))
}

/// Refuses sentence-transformers pipelines that pool in another way than by the mean.
fn check_sentence_transformer(folder: &Path) -> Result<(), ModelError> {
    let config = ConfigFile::read(&folder.join("1_Pooling").join(CONFIG_FILE), true)?;
    let other = config
        .json
        .as_object()
        .into_iter()
        .flatten()
        .find(|(key, value)| {
            key.starts_with("pooling_mode_")
                && key.as_str() != "pooling_mode_mean_tokens"
                && **value == Value::Bool(true)
        });
    match other {
        Some((key, _)) => Err(config.refuse(format!("{key} is not supported, only the mean is"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::square_grid;

    #[test]
    fn grids_with_and_without_prefix() {
        assert_eq!(square_grid(197, 0), Some((14, 1)));
        assert_eq!(square_grid(37 * 37, 4), Some((37, 0)));
        assert_eq!(square_grid(14, 4), Some((3, 5)));
        assert_eq!(square_grid(12, 0), None);
        assert_eq!(square_grid(0, 0), None);
    }
}
