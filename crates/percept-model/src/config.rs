//! What a model is: the shape of its towers, how it pools, how it wants its images and prompts.
//!
//! A [`ModelConfig`] is the `config.json` of a model folder. Everything that changes a number is
//! in it, so that a folder says by itself how its embeddings are to be made.

use percept_image::{Filter, Normalization};
use serde::{Deserialize, Serialize};

/// A side of a tower beyond this is not a ViT, T5 or BERT that exists: refuse before allocating.
const MAX_DIM: usize = 16_384;
/// As [`MAX_DIM`], for the number of blocks.
const MAX_DEPTH: usize = 256;
/// As [`MAX_DIM`], for vocabularies (the largest multilingual ones have about 256,000 entries).
const MAX_VOCABULARY: usize = 1_000_000;
/// sentence-transformers models have one or two dense layers.
const MAX_DENSE: usize = 16;
/// CLIP's largest published set has 80 templates.
const MAX_TEMPLATES: usize = 1000;
/// A template is a sentence.
const MAX_TEMPLATE_BYTES: usize = 10_000;
/// The name that [`ModelConfig::format`] must carry.
pub const FORMAT: &str = "percept-1";

/// A whole model: `config.json` of a model folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Always [`FORMAT`]; tells our folders from those of other libraries.
    pub format: String,
    /// A name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The image tower; absent in a text-only model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageConfig>,
    /// The text tower; absent in an image-only model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<TextConfig>,
    /// Prompt templates used when none are asked for; `{}` stands for a label, `{a}` for a label
    /// with its indefinite article.
    #[serde(default = "default_templates")]
    pub templates: Vec<String>,
}

/// The paper's prompt.
pub const DEFAULT_TEMPLATE: &str = "a photo of {a}";

/// The templates of a model that names none.
pub fn default_templates() -> Vec<String> {
    vec![DEFAULT_TEMPLATE.to_owned()]
}

/// The image tower with all that comes before and after it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageConfig {
    /// The transformer.
    pub vit: VitConfig,
    /// How tokens become one embedding (paper §2.1).
    pub pooling: Pooling,
    /// Side of the square that classification sees, in pixels.
    pub image_size: usize,
    /// Resampling filter of the resize before the encoder.
    pub filter: Filter,
    /// Channel mean and standard deviation that the weights were trained with.
    pub normalization: Normalization,
}

/// How the output tokens become one image embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pooling {
    /// Maximum over the patch tokens, per channel (CLIPpy, paper §2.1).
    Max,
    /// Maximum over patch tokens and CLS: what the public training code does.
    MaxWithCls,
    /// Mean of the patch tokens.
    Avg,
    /// The CLS token.
    Cls,
    /// Half the CLS token, half the mean of the patch tokens, neither normalised before.
    ClsAvg,
}

impl Pooling {
    /// All poolings, for messages and menus.
    pub const ALL: [Pooling; 5] = [
        Pooling::Max,
        Pooling::MaxWithCls,
        Pooling::Avg,
        Pooling::Cls,
        Pooling::ClsAvg,
    ];

    /// The name used in configs and flags.
    pub fn name(self) -> &'static str {
        match self {
            Pooling::Max => "max",
            Pooling::MaxWithCls => "max-with-cls",
            Pooling::Avg => "avg",
            Pooling::Cls => "cls",
            Pooling::ClsAvg => "cls-avg",
        }
    }
}

/// Shape of a vision transformer (timm/DINO and DINOv2 forms).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VitConfig {
    /// Width of a token.
    pub dim: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads; divides `dim`.
    pub heads: usize,
    /// Width of the hidden layer of the feed-forward part.
    pub mlp_dim: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Rows and columns of the position grid that the weights hold.
    pub grid: [usize; 2],
    /// Register tokens (DINOv2 with registers), dropped from the output.
    #[serde(default)]
    pub registers: usize,
    /// Rows of `pos_embed` before the patches: 1 for CLS (the usual form), 0 in timm's register
    /// models, whose CLS token carries its own position, or `1 + registers`.
    pub position_prefix: usize,
    /// Whether blocks scale their residuals (DINOv2's LayerScale).
    pub layer_scale: bool,
    /// ε of the layer norms.
    pub layer_norm_eps: f64,
    /// How the position grid is resampled for other image sizes.
    pub interpolation: PositionInterpolation,
}

/// How the position grid is brought to another size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PositionInterpolation {
    /// DINO and CLIPpy: bicubic (A = −0.75), no antialiasing, sampled at the scale factor
    /// `(n + 0.1) / grid`.
    Dino,
    /// timm, and every DINOv2 with registers: bicubic (A = −0.5) with antialiasing to the target size.
    Timm,
    /// transformers' ViT and DINOv2: bicubic (A = −0.75) to the target size, no antialiasing.
    Size,
}

impl PositionInterpolation {
    /// What the rule does, for people.
    pub fn description(self) -> &'static str {
        match self {
            Self::Dino => "DINO's position rule (bicubic, scale factor (n + 0.1) / grid)",
            Self::Timm => "timm's position rule (bicubic, antialiased)",
            Self::Size => "transformers' position rule (bicubic to the size, not antialiased)",
        }
    }
}

/// The text tower.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum TextConfig {
    /// T5 encoder (Sentence-T5).
    T5(T5Config),
    /// BERT or RoBERTa encoder (MiniLM and other sentence-transformers).
    Bert(BertConfig),
}

impl TextConfig {
    /// Width of the embedding.
    pub fn dim(&self) -> usize {
        match self {
            TextConfig::T5(c) => c.head.width(c.projection.unwrap_or(c.dim)),
            TextConfig::Bert(c) => c.head.width(c.dim),
        }
    }

    /// What makes an embedding of the tokens.
    pub fn head(&self) -> &TextHead {
        match self {
            TextConfig::T5(c) => &c.head,
            TextConfig::Bert(c) => &c.head,
        }
    }

    /// Longest input in tokens, special tokens counted; longer texts are cut.
    pub fn max_tokens(&self) -> usize {
        match self {
            TextConfig::T5(c) => c.max_tokens,
            TextConfig::Bert(c) => c.max_tokens,
        }
    }

    /// Number of rows of the token table.
    pub fn vocab_size(&self) -> usize {
        match self {
            TextConfig::T5(c) => c.vocab_size,
            TextConfig::Bert(c) => c.vocab_size,
        }
    }
}

/// What turns the tokens of a text into its embedding, as sentence-transformers has it: a pooling, then dense layers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextHead {
    /// How the tokens become one vector.
    #[serde(default)]
    pub pooling: TextPooling,
    /// Layers that the pooled vector goes through, in order.
    #[serde(default)]
    pub dense: Vec<DenseConfig>,
}

impl TextHead {
    /// Whether it is the mean and nothing more.
    pub fn is_mean(&self) -> bool {
        *self == Self::default()
    }

    /// Width of the embedding, where the tower's own is `dim`.
    pub fn width(&self, dim: usize) -> usize {
        self.dense.last().map_or(dim, |layer| layer.width)
    }

    fn validate(&self) -> Result<(), String> {
        if self.dense.len() > MAX_DENSE {
            return Err(format!("text.head has more than {MAX_DENSE} dense layers"));
        }
        (self.dense.iter())
            .try_for_each(|layer| in_range("text.head.dense width", layer.width, 1, MAX_DIM))
    }
}

/// How the tokens of a text become one vector; padding never counts. Names are those of sentence-transformers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TextPooling {
    /// Their mean.
    #[default]
    Mean,
    /// The first one.
    Cls,
    /// Their maximum, per channel.
    Max,
    /// Their sum over the root of their number.
    MeanSqrtLen,
    /// Their mean, the n-th of them counting n times.
    WeightedMean,
    /// The last one.
    LastToken,
}

impl TextPooling {
    /// All poolings with the names that sentence-transformers gives them.
    pub const ALL: [(TextPooling, &'static str); 6] = [
        (TextPooling::Mean, "mean"),
        (TextPooling::Cls, "cls"),
        (TextPooling::Max, "max"),
        (TextPooling::MeanSqrtLen, "mean_sqrt_len_tokens"),
        (TextPooling::WeightedMean, "weightedmean"),
        (TextPooling::LastToken, "lasttoken"),
    ];

    /// The name that sentence-transformers gives it.
    pub fn name(self) -> &'static str {
        let named = Self::ALL.into_iter().find(|(pooling, _)| *pooling == self);
        named.map_or("mean", |(_, name)| name)
    }
}

/// A linear layer with an activation behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DenseConfig {
    /// Numbers that it gives.
    pub width: usize,
    /// Whether it adds a bias.
    pub bias: bool,
    /// What is applied to its results.
    pub activation: DenseActivation,
}

/// The activation of a [`DenseConfig`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DenseActivation {
    /// None.
    Identity,
    /// The hyperbolic tangent.
    Tanh,
    /// `max(x, 0)`.
    Relu,
    /// GELU by the error function.
    Gelu,
}

impl DenseActivation {
    /// The name of its class in `torch.nn`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Identity => "Identity",
            Self::Tanh => "Tanh",
            Self::Relu => "ReLU",
            Self::Gelu => "GELU",
        }
    }
}

/// Shape of a T5 encoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct T5Config {
    /// Rows of the token table.
    pub vocab_size: usize,
    /// Width of a token.
    pub dim: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads.
    pub heads: usize,
    /// Width of one head; `heads · head_dim` need not be `dim`.
    pub head_dim: usize,
    /// Width of the hidden layer of the feed-forward part.
    pub mlp_dim: usize,
    /// Form of the feed-forward part.
    pub feed_forward: T5FeedForward,
    /// Buckets of the relative position bias.
    pub relative_buckets: usize,
    /// Distance from which all positions share a bucket.
    pub relative_max_distance: usize,
    /// ε of the RMS norms.
    pub rms_norm_eps: f64,
    /// Width of Sentence-T5's dense layer after pooling, if there is one: without bias or activation.
    pub projection: Option<usize>,
    /// Longest input in tokens.
    pub max_tokens: usize,
    /// Pooling, and further dense layers.
    #[serde(default, skip_serializing_if = "TextHead::is_mean")]
    pub head: TextHead,
}

/// Form of T5's feed-forward part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum T5FeedForward {
    /// `wo(relu(wi(x)))`: T5.
    Relu,
    /// `wo(gelu_tanh(wi_0(x)) · wi_1(x))`: T5 v1.1.
    GatedGelu,
}

/// Shape of a BERT encoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BertConfig {
    /// Rows of the token table.
    pub vocab_size: usize,
    /// Width of a token.
    pub dim: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads; divides `dim`.
    pub heads: usize,
    /// Width of the hidden layer of the feed-forward part.
    pub mlp_dim: usize,
    /// Rows of the position table.
    pub max_positions: usize,
    /// Rows of the token type table.
    pub token_types: usize,
    /// ε of the layer norms.
    pub layer_norm_eps: f64,
    /// Longest input in tokens.
    pub max_tokens: usize,
    /// Row of the position table that the first token gets: 0 in BERT, 2 in RoBERTa (its padding has one too).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub first_position: usize,
    /// Pooling and dense layers.
    #[serde(default, skip_serializing_if = "TextHead::is_mean")]
    pub head: TextHead,
}

fn is_zero(value: &usize) -> bool {
    *value == 0
}

impl ModelConfig {
    /// Parses and validates the text of a `config.json`.
    ///
    /// # Errors
    /// A sentence that says which value is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let config: Self = serde_json::from_str(text).map_err(|e| e.to_string())?;
        config.validate()?;
        Ok(config)
    }

    /// Checks what the types alone cannot: sizes that divide, ranges that exist, widths that fit.
    ///
    /// # Errors
    /// A sentence that says which value is wrong.
    pub fn validate(&self) -> Result<(), String> {
        if self.format != FORMAT {
            return Err(format!(
                "format is \"{}\", this version reads \"{FORMAT}\"",
                self.format
            ));
        }
        if let Some(image) = &self.image {
            image.validate()?;
        }
        if let Some(text) = &self.text {
            text.validate()?;
        }
        if self.templates.is_empty()
            || self.templates.len() > MAX_TEMPLATES
            || self.templates.iter().any(|t| t.len() > MAX_TEMPLATE_BYTES)
        {
            return Err("templates are none, too many or too long".into());
        }
        match (&self.image, &self.text) {
            (None, None) => Err("neither an image nor a text tower".into()),
            (Some(image), Some(text)) if image.vit.dim != text.dim() => Err(format!(
                "the image tower embeds in {} dimensions, the text tower in {}",
                image.vit.dim,
                text.dim()
            )),
            _ => Ok(()),
        }
    }
}

impl ImageConfig {
    fn validate(&self) -> Result<(), String> {
        self.vit.validate()?;
        in_range("image_size", self.image_size, 1, MAX_DIM)?;
        let normal = &self.normalization;
        if normal.mean.iter().any(|v| !v.is_finite())
            || normal.std.iter().any(|v| !v.is_finite() || *v <= 0.0)
        {
            return Err("normalization needs finite means and positive deviations".into());
        }
        Ok(())
    }
}

impl VitConfig {
    /// Checks that such a transformer can exist.
    ///
    /// # Errors
    /// A sentence that says which value is wrong.
    pub fn validate(&self) -> Result<(), String> {
        in_range("vit.dim", self.dim, 1, MAX_DIM)?;
        in_range("vit.depth", self.depth, 1, MAX_DEPTH)?;
        in_range("vit.heads", self.heads, 1, self.dim)?;
        divides("vit.heads", self.heads, "vit.dim", self.dim)?;
        in_range("vit.mlp_dim", self.mlp_dim, 1, 4 * MAX_DIM)?;
        in_range("vit.patch_size", self.patch_size, 1, 256)?;
        in_range("vit.grid rows", self.grid[0], 1, 1024)?;
        in_range("vit.grid columns", self.grid[1], 1, 1024)?;
        in_range("vit.registers", self.registers, 0, 64)?;
        if ![0, 1, 1 + self.registers].contains(&self.position_prefix) {
            return Err(format!(
                "vit.position_prefix is {}, not 0, 1 or 1 + registers",
                self.position_prefix
            ));
        }
        positive("vit.layer_norm_eps", self.layer_norm_eps)
    }
}

impl TextConfig {
    fn validate(&self) -> Result<(), String> {
        in_range("text.vocab_size", self.vocab_size(), 1, MAX_VOCABULARY)?;
        in_range("text.max_tokens", self.max_tokens(), 2, 4096)?;
        self.head().validate()?;
        match self {
            TextConfig::T5(c) => {
                in_range("text.dim", c.dim, 1, MAX_DIM)?;
                in_range("text.depth", c.depth, 1, MAX_DEPTH)?;
                in_range("text.heads", c.heads, 1, MAX_DIM)?;
                in_range("text.head_dim", c.head_dim, 1, MAX_DIM)?;
                in_range("text.mlp_dim", c.mlp_dim, 1, 4 * MAX_DIM)?;
                in_range("text.relative_buckets", c.relative_buckets, 4, 1024)?;
                in_range(
                    "text.relative_max_distance",
                    c.relative_max_distance,
                    c.relative_buckets / 4 + 1,
                    1 << 20,
                )?;
                if let Some(width) = c.projection {
                    in_range("text.projection", width, 1, MAX_DIM)?;
                }
                positive("text.rms_norm_eps", c.rms_norm_eps)
            }
            TextConfig::Bert(c) => {
                in_range("text.dim", c.dim, 1, MAX_DIM)?;
                in_range("text.depth", c.depth, 1, MAX_DEPTH)?;
                in_range("text.heads", c.heads, 1, c.dim)?;
                divides("text.heads", c.heads, "text.dim", c.dim)?;
                in_range("text.mlp_dim", c.mlp_dim, 1, 4 * MAX_DIM)?;
                in_range("text.first_position", c.first_position, 0, 1 << 16)?;
                let needed = c.first_position + c.max_tokens;
                in_range("text.max_positions", c.max_positions, needed, 1 << 17)?;
                in_range("text.token_types", c.token_types, 1, 16)?;
                positive("text.layer_norm_eps", c.layer_norm_eps)
            }
        }
    }
}

fn in_range(what: &str, value: usize, low: usize, high: usize) -> Result<(), String> {
    if (low..=high).contains(&value) {
        Ok(())
    } else {
        Err(format!("{what} is {value}, not between {low} and {high}"))
    }
}

fn divides(part: &str, divisor: usize, whole: &str, value: usize) -> Result<(), String> {
    if value.is_multiple_of(divisor) {
        Ok(())
    } else {
        Err(format!(
            "{part} ({divisor}) does not divide {whole} ({value})"
        ))
    }
}

fn positive(what: &str, value: f64) -> Result<(), String> {
    if value.is_finite() && value > 0.0 && value < 1.0 {
        Ok(())
    } else {
        Err(format!("{what} is {value}, not between 0 and 1"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small valid model, as JSON.
    const SMALL: &str = r#"{
        "format": "percept-1",
        "image": {
            "vit": {
                "dim": 32, "depth": 2, "heads": 2, "mlp_dim": 64, "patch_size": 16,
                "grid": [4, 4], "position_prefix": 1, "layer_scale": false,
                "layer_norm_eps": 1e-24, "interpolation": "dino"
            },
            "pooling": "max", "image_size": 64, "filter": "bicubic",
            "normalization": { "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2] }
        }
    }"#;

    #[test]
    fn writing_and_reading_change_nothing() {
        let config = ModelConfig::parse(SMALL).unwrap();
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(ModelConfig::parse(&text).unwrap(), config);
        assert_eq!(config.templates, [DEFAULT_TEMPLATE]);
    }

    #[test]
    fn impossible_models_are_refused_by_the_value_at_fault() {
        for (from, to, message) in [
            ("percept-1", "percept-9", "this version reads"),
            ("\"heads\": 2", "\"heads\": 5", "does not divide"),
            ("\"dim\": 32", "\"dim\": 99999999", "vit.dim"),
            (
                "\"position_prefix\": 1",
                "\"position_prefix\": 3",
                "position_prefix",
            ),
            ("\"depth\": 2", "\"deep\": 2", "unknown field"),
            ("1e-24", "-1.0", "layer_norm_eps"),
            ("[0.2, 0.2, 0.2]", "[0.2, 0.0, 0.2]", "positive deviations"),
        ] {
            let broken = SMALL.replace(from, to);
            assert_ne!(broken, SMALL);
            let error = ModelConfig::parse(&broken).unwrap_err();
            assert!(error.contains(message), "{error}");
        }
    }
}
