//! Checkpoint layouts: which towers a file holds, and under which names.
//!
//! A layout is told from the tensors' names alone. It answers two questions: where the values of
//! a parameter of ours stand ([`ImageLayout::recipe`], [`TextLayout::recipe`]), and what the
//! shapes say about the tower.

use std::fmt;

use crate::source::{DENSE, Source};
use crate::weights::Recipe;

/// Spelling of an image tower's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageStyle {
    /// timm's names, which are also ours: DINO, DINOv2 in timm, the trunk of clippy_5k.pt.
    Timm,
    /// `facebook/dino-*` in transformers (`ViTModel`).
    HfVit,
    /// `facebook/dinov2-*` in transformers (`Dinov2Model`).
    HfDinov2,
}

/// Spelling of a text tower's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextStyle {
    /// T5's encoder in transformers; Sentence-T5 and clippy_5k.pt.
    HfT5,
    /// BERT in transformers; MiniLM.
    HfBert,
    /// Ours, a T5.
    PerceptT5,
    /// Ours, a BERT.
    PerceptBert,
}

/// An image tower found in a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageLayout {
    /// How names are spelled.
    pub style: ImageStyle,
    /// What stands before every name, such as `visual.trunk.`.
    pub prefix: String,
}

/// A text tower found in a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextLayout {
    /// How names are spelled.
    pub style: TextStyle,
    /// What stands before every name, such as `text.0.auto_model.`.
    pub prefix: String,
    /// Name of the dense layer's matrix in the same checkpoint, if there is one.
    pub dense: Option<String>,
}

impl fmt::Display for ImageLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let style = match self.style {
            ImageStyle::Timm => "timm",
            ImageStyle::HfVit => "transformers ViT (DINO)",
            ImageStyle::HfDinov2 => "transformers DINOv2",
        };
        describe(f, style, &self.prefix)
    }
}

impl fmt::Display for TextLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let style = match self.style {
            TextStyle::HfT5 => "transformers T5",
            TextStyle::HfBert => "transformers BERT",
            TextStyle::PerceptT5 | TextStyle::PerceptBert => "percept",
        };
        describe(f, style, &self.prefix)
    }
}

fn describe(f: &mut fmt::Formatter<'_>, style: &str, prefix: &str) -> fmt::Result {
    if prefix.is_empty() {
        write!(f, "{style} names")
    } else {
        write!(f, "{style} names under {prefix}*")
    }
}

/// The shortest prefix that some name of `checkpoint` has before `suffix`. The shortest: with
/// copies of a tower nested in a file, the outermost is the one in use.
fn prefix_of(checkpoint: &Source, suffix: &str) -> Option<String> {
    checkpoint
        .names()
        .filter_map(|name| name.strip_suffix(suffix).map(str::to_owned))
        .filter(|prefix| prefix.is_empty() || prefix.ends_with('.'))
        .min_by_key(String::len)
}

impl ImageLayout {
    /// Looks for an image tower.
    pub fn detect(checkpoint: &Source) -> Option<Self> {
        if let Some(prefix) = prefix_of(checkpoint, "patch_embed.proj.weight") {
            return Some(Self {
                style: ImageStyle::Timm,
                prefix,
            });
        }
        let prefix = prefix_of(checkpoint, "embeddings.patch_embeddings.projection.weight")?;
        let dinov2 = format!("{prefix}encoder.layer.0.norm1.weight");
        let style = if checkpoint.info(&dinov2).is_some() {
            ImageStyle::HfDinov2
        } else {
            ImageStyle::HfVit
        };
        Some(Self { style, prefix })
    }

    /// Where the parameter `name` of [`Vit`](crate::vit::Vit) stands.
    pub fn recipe(&self, name: &str) -> Recipe {
        let prefix = &self.prefix;
        if self.style == ImageStyle::Timm {
            return Recipe::Copy(format!("{prefix}{name}"));
        }
        let fixed = match name {
            "cls_token" => Some("embeddings.cls_token"),
            "reg_token" => Some("embeddings.register_tokens"),
            "pos_embed" => Some("embeddings.position_embeddings"),
            "patch_embed.proj.weight" => Some("embeddings.patch_embeddings.projection.weight"),
            "patch_embed.proj.bias" => Some("embeddings.patch_embeddings.projection.bias"),
            "norm.weight" => Some("layernorm.weight"),
            "norm.bias" => Some("layernorm.bias"),
            _ => None,
        };
        if let Some(fixed) = fixed {
            return Recipe::Copy(format!("{prefix}{fixed}"));
        }
        let Some((block, part, kind)) = split_block(name) else {
            return Recipe::Copy(format!("{prefix}{name}"));
        };
        let layer = format!("{prefix}encoder.layer.{block}");
        if part == "attn.qkv" {
            let names = ["query", "key", "value"]
                .map(|which| format!("{layer}.attention.attention.{which}.{kind}"));
            return Recipe::Stack(names.into());
        }
        let dinov2 = self.style == ImageStyle::HfDinov2;
        let part = match part {
            "norm1" if !dinov2 => "layernorm_before",
            "norm2" if !dinov2 => "layernorm_after",
            "mlp.fc1" if !dinov2 => "intermediate.dense",
            "mlp.fc2" if !dinov2 => "output.dense",
            "attn.proj" => "attention.output.dense",
            "ls1" => "layer_scale1",
            "ls2" => "layer_scale2",
            other => other,
        };
        let kind = if kind == "gamma" { "lambda1" } else { kind };
        Recipe::Copy(format!("{layer}.{part}.{kind}"))
    }

    /// Whether a name that no parameter asked for belongs to a part that percept never uses.
    pub fn ignores(&self, name: &str) -> bool {
        name.strip_prefix(&self.prefix).is_some_and(|name| {
            matches!(name, "mask_token" | "embeddings.mask_token")
                || ["head.", "pooler.", "classifier.", "fc_norm."]
                    .iter()
                    .any(|part| name.starts_with(part))
        })
    }
}

impl TextLayout {
    /// Looks for a text tower.
    pub fn detect(checkpoint: &Source) -> Option<Self> {
        if checkpoint.info("text.embedding.weight").is_some() {
            let dense = "text.dense.weight";
            return Some(Self {
                style: TextStyle::PerceptT5,
                prefix: "text.".into(),
                dense: checkpoint.info(dense).map(|_| dense.to_owned()),
            });
        }
        if checkpoint.info("text.word.weight").is_some() {
            return Some(Self {
                style: TextStyle::PerceptBert,
                prefix: "text.".into(),
                dense: None,
            });
        }
        let t5 = "encoder.block.0.layer.0.SelfAttention.q.weight";
        if let Some(prefix) = prefix_of(checkpoint, t5) {
            // clippy_5k.pt holds a sentence-transformers pipeline: part 0 is T5, part 2 the dense.
            let pipeline = prefix.strip_suffix("0.auto_model.");
            let dense = pipeline
                .map(|pipeline| format!("{pipeline}2.linear.weight"))
                .into_iter()
                .chain([format!("{DENSE}linear.weight")])
                .find(|name| checkpoint.info(name).is_some());
            return Some(Self {
                style: TextStyle::HfT5,
                prefix,
                dense,
            });
        }
        let prefix = prefix_of(checkpoint, "embeddings.word_embeddings.weight")?;
        Some(Self {
            style: TextStyle::HfBert,
            prefix,
            dense: None,
        })
    }

    /// Where the parameter `name` of [`T5`](crate::t5::T5) or [`Bert`](crate::bert::Bert) stands.
    pub fn recipe(&self, name: &str) -> Recipe {
        if name == "dense.weight"
            && let Some(dense) = &self.dense
        {
            return Recipe::Copy(dense.clone());
        }
        let translated = match self.style {
            TextStyle::PerceptT5 | TextStyle::PerceptBert => name.to_owned(),
            TextStyle::HfT5 => hf_t5(name),
            TextStyle::HfBert => hf_bert(name),
        };
        Recipe::Copy(format!("{}{translated}", self.prefix))
    }

    /// As [`ImageLayout::ignores`].
    pub fn ignores(&self, name: &str) -> bool {
        name.strip_prefix(&self.prefix).is_some_and(|name| {
            matches!(
                name,
                // The same table as `shared.weight`, saved twice.
                "encoder.embed_tokens.weight" | "embeddings.position_ids"
            ) || ["decoder.", "lm_head.", "pooler.", "cls."]
                .iter()
                .any(|part| name.starts_with(part))
        })
    }
}

fn hf_t5(name: &str) -> String {
    match name {
        "embedding.weight" => return "shared.weight".into(),
        "relative_bias.weight" => {
            return "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight".into();
        }
        "norm.weight" => return "encoder.final_layer_norm.weight".into(),
        _ => {}
    }
    let Some((block, part, kind)) = split_block(name) else {
        return name.to_owned();
    };
    let part = match part {
        "norm1" => "layer.0.layer_norm".to_owned(),
        "norm2" => "layer.1.layer_norm".to_owned(),
        other => match other.split_once('.') {
            Some(("attn", matrix)) => format!("layer.0.SelfAttention.{matrix}"),
            Some(("mlp", matrix)) => format!("layer.1.DenseReluDense.{matrix}"),
            _ => other.to_owned(),
        },
    };
    format!("encoder.block.{block}.{part}.{kind}")
}

fn hf_bert(name: &str) -> String {
    let fixed = match name {
        "word.weight" => Some("embeddings.word_embeddings.weight"),
        "position.weight" => Some("embeddings.position_embeddings.weight"),
        "token_type.weight" => Some("embeddings.token_type_embeddings.weight"),
        "norm.weight" => Some("embeddings.LayerNorm.weight"),
        "norm.bias" => Some("embeddings.LayerNorm.bias"),
        _ => None,
    };
    if let Some(fixed) = fixed {
        return fixed.to_owned();
    }
    let Some((block, part, kind)) = split_block(name) else {
        return name.to_owned();
    };
    let part = match part {
        "attn.query" => "attention.self.query",
        "attn.key" => "attention.self.key",
        "attn.value" => "attention.self.value",
        "attn.output" => "attention.output.dense",
        "attn_norm" => "attention.output.LayerNorm",
        "mlp.fc1" => "intermediate.dense",
        "mlp.fc2" => "output.dense",
        "mlp_norm" => "output.LayerNorm",
        other => other,
    };
    format!("encoder.layer.{block}.{part}.{kind}")
}

/// `blocks.3.attn.qkv.weight` is (`3`, `attn.qkv`, `weight`).
fn split_block(name: &str) -> Option<(&str, &str, &str)> {
    let (block, rest) = name.strip_prefix("blocks.")?.split_once('.')?;
    let (part, kind) = rest.rsplit_once('.')?;
    Some((block, part, kind))
}

/// How many blocks there are: the first `N` for which the name that `of_block(N)` gives is absent.
pub fn count_blocks(checkpoint: &Source, of_block: impl Fn(usize) -> String) -> usize {
    (0..)
        .take_while(|n| checkpoint.info(&of_block(*n)).is_some())
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_every_style() {
        let image = |style, name: &str| {
            ImageLayout {
                style,
                prefix: "p.".into(),
            }
            .recipe(name)
        };
        let copy = |name: &str| Recipe::Copy(name.into());
        assert_eq!(
            image(ImageStyle::Timm, "blocks.3.ls1.gamma"),
            copy("p.blocks.3.ls1.gamma")
        );
        assert_eq!(
            image(ImageStyle::HfDinov2, "blocks.3.ls1.gamma"),
            copy("p.encoder.layer.3.layer_scale1.lambda1")
        );
        assert_eq!(
            image(ImageStyle::HfVit, "blocks.3.mlp.fc2.bias"),
            copy("p.encoder.layer.3.output.dense.bias")
        );
        assert_eq!(
            image(ImageStyle::HfVit, "blocks.0.attn.qkv.bias"),
            Recipe::Stack(
                ["query", "key", "value"]
                    .map(|n| format!("p.encoder.layer.0.attention.attention.{n}.bias"))
                    .into()
            )
        );
        assert_eq!(
            hf_t5("blocks.1.mlp.wi_0.weight"),
            "encoder.block.1.layer.1.DenseReluDense.wi_0.weight"
        );
        assert_eq!(
            hf_bert("blocks.1.attn_norm.bias"),
            "encoder.layer.1.attention.output.LayerNorm.bias"
        );
    }
}
