//! Checkpoint layouts: which towers a file holds, and under which names.
//!
//! A layout is told from the tensors' names alone. It answers where the values of a parameter of ours stand
//! ([`ImageLayout::recipe`], [`TextLayout::recipe`]). What nothing asks for is judged in `leftover.rs`.

use std::fmt;

use crate::source::Source;
use crate::weights::Recipe;
use crate::{ModelError, names};

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
    /// Name of the dense layer's matrix, if there is one without bias and activation.
    pub dense: Option<String>,
    /// What stands before the names of the dense layers in folders of their own, such as `2_Dense/linear.`.
    pub head: Vec<String>,
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

/// A tower that was found, and where else in the file there are towers of its kind.
#[derive(Debug)]
pub(crate) struct Found<L> {
    pub(crate) layout: L,
    /// Prefixes of copies that were passed over.
    pub(crate) others: Vec<String>,
}

/// A prefix before some name of `checkpoint` that ends in `suffix`, and what is known of the tower there.
fn places<S: Copy>(checkpoint: &Source, suffix: &str, style: S) -> Vec<(String, S)> {
    checkpoint
        .names()
        .filter_map(|name| name.strip_suffix(suffix))
        .filter(|prefix| prefix.is_empty() || prefix.ends_with('.'))
        .map(|prefix| (prefix.to_owned(), style))
        .collect()
}

/// Which of several copies of a tower its trainer evaluates: small is better. DINO evaluates the teacher, MoCo the query
/// encoder, timm the moving average.
fn rank(prefix: &str) -> u8 {
    let is = |names: &[&str]| prefix.split('.').any(|part| names.contains(&part));
    let chosen = [
        "teacher",
        "ema",
        "ema_model",
        "model_ema",
        "encoder_q",
        "base_encoder",
    ];
    let other = ["student", "encoder_k", "momentum_encoder"];
    if is(&chosen) {
        0
    } else if is(&other) || prefix.split('.').any(|part| part.ends_with("_m")) {
        2
    } else {
        1
    }
}

/// Takes the tower under `wanted` or, where nothing is asked for, the one that its trainer evaluates, else the outermost.
fn choose<S>(
    checkpoint: &Source,
    kind: &str,
    mut places: Vec<(String, S)>,
    wanted: Option<&str>,
) -> Result<Option<(String, S, Vec<String>)>, ModelError> {
    // A file may hold a tower of the other kind under the prefix alone.
    if let Some(wanted) = wanted
        && places.iter().any(|(prefix, _)| is_under(prefix, wanted))
    {
        places.retain(|(prefix, _)| is_under(prefix, wanted));
    }
    places.sort_by_key(|(prefix, _)| (rank(prefix), prefix.len()));
    let Some((first, _)) = places.first() else {
        return Ok(None);
    };
    // With copies of a tower nested in a file, the outermost is the one in use.
    let is_rival =
        |prefix: &str| rank(prefix) == rank(first) && !prefix.starts_with(first.as_str());
    if places.iter().any(|(prefix, _)| is_rival(prefix)) {
        let all: Vec<String> = places
            .iter()
            .map(|(prefix, _)| format!("{prefix}*"))
            .collect();
        return Err(ModelError::config(
            checkpoint.main().path(),
            format!(
                "holds several {kind} towers ({}); say which with `percept convert --prefix PREFIX`",
                all.join(", ")
            ),
        ));
    }
    let (prefix, style) = places.remove(0);
    let others = places.into_iter().map(|(prefix, _)| prefix).collect();
    Ok(Some((prefix, style, others)))
}

/// Whether a tower's prefix begins as a user asks for, wrappers aside.
fn is_under(prefix: &str, wanted: &str) -> bool {
    let wanted = names::canonical(wanted.trim_end_matches('.'));
    !wanted.is_empty() && format!("{prefix}.").starts_with(&format!("{wanted}."))
}

/// Refuses a prefix under which no tower was found.
pub(crate) fn check_prefix<'a>(
    checkpoint: &Source,
    wanted: &str,
    found: impl Iterator<Item = &'a String> + Clone,
) -> Result<(), ModelError> {
    if found.clone().any(|prefix| is_under(prefix, wanted)) {
        return Ok(());
    }
    let there: Vec<String> = found.map(|prefix| format!("\"{prefix}\"")).collect();
    Err(ModelError::config(
        checkpoint.main().path(),
        format!(
            "no tower under the prefix \"{wanted}\", only under {}",
            there.join(", ")
        ),
    ))
}

impl ImageLayout {
    /// Looks for an image tower, under `wanted` if there is one.
    pub(crate) fn detect(
        checkpoint: &Source,
        wanted: Option<&str>,
    ) -> Result<Option<Found<Self>>, ModelError> {
        let mut all = places(checkpoint, "patch_embed.proj.weight", ImageStyle::Timm);
        let suffix = "embeddings.patch_embeddings.projection.weight";
        for (prefix, _) in places(checkpoint, suffix, ()) {
            let dinov2 = format!("{prefix}encoder.layer.0.norm1.weight");
            let style = match checkpoint.info(&dinov2) {
                Some(_) => ImageStyle::HfDinov2,
                None => ImageStyle::HfVit,
            };
            all.push((prefix, style));
        }
        let chosen = choose(checkpoint, "image", all, wanted)?;
        Ok(chosen.map(|(prefix, style, others)| Found {
            layout: Self { style, prefix },
            others,
        }))
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
}

impl TextLayout {
    /// Looks for a text tower, under `wanted` if there is one.
    pub(crate) fn detect(
        checkpoint: &Source,
        wanted: Option<&str>,
    ) -> Result<Option<Found<Self>>, ModelError> {
        let of = |style, prefix: String, dense: Option<String>, others| {
            let (layout, head) = (style, Vec::new());
            let layout = Self {
                style: layout,
                prefix,
                dense,
                head,
            };
            Ok(Some(Found { layout, others }))
        };
        if checkpoint.info("text.embedding.weight").is_some() {
            let dense = "text.dense.weight";
            let dense = checkpoint.info(dense).map(|_| dense.to_owned());
            return of(TextStyle::PerceptT5, "text.".into(), dense, Vec::new());
        }
        if checkpoint.info("text.word.weight").is_some() {
            return of(TextStyle::PerceptBert, "text.".into(), None, Vec::new());
        }
        let t5 = "encoder.block.0.layer.0.SelfAttention.q.weight";
        let mut all = places(checkpoint, t5, TextStyle::HfT5);
        let bert = "embeddings.word_embeddings.weight";
        all.extend(places(checkpoint, bert, TextStyle::HfBert));
        let Some((prefix, style, others)) = choose(checkpoint, "text", all, wanted)? else {
            return Ok(None);
        };
        // clippy_5k.pt holds a sentence-transformers pipeline: part 0 is T5, part 2 the dense.
        let dense = (pipeline(&prefix))
            .map(|pipeline| format!("{pipeline}2.linear.weight"))
            .filter(|name| style == TextStyle::HfT5 && checkpoint.info(name).is_some());
        of(style, prefix, dense, others)
    }

    /// Whether it stands as a sentence-transformers pipeline does in memory, after its pooling and dense layers.
    pub(crate) fn is_pipeline(&self) -> bool {
        pipeline(&self.prefix).is_some()
    }

    /// Where the parameter `name` of [`T5`](crate::t5::T5) or [`Bert`](crate::bert::Bert) stands.
    pub fn recipe(&self, name: &str) -> Recipe {
        if name == "dense.weight"
            && let Some(dense) = &self.dense
        {
            return Recipe::Copy(dense.clone());
        }
        if let Some((index, kind)) =
            (name.strip_prefix("head.layers.")).and_then(|layer| layer.split_once('.'))
            && let Some(layer) = index.parse().ok().and_then(|i: usize| self.head.get(i))
        {
            return Recipe::Copy(format!("{layer}{kind}"));
        }
        let translated = match self.style {
            TextStyle::PerceptT5 | TextStyle::PerceptBert => name.to_owned(),
            TextStyle::HfT5 => hf_t5(name),
            TextStyle::HfBert => hf_bert(name),
        };
        Recipe::Copy(format!("{}{translated}", self.prefix))
    }
}

/// What stands before the parts of a sentence-transformers pipeline, whose part 0 has this prefix.
fn pipeline(prefix: &str) -> Option<&str> {
    let outer = (prefix.strip_suffix("0.auto_model.")).or(prefix.strip_suffix("0.model."))?;
    (outer.is_empty() || outer.ends_with('.')).then_some(outer)
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
