//! What becomes of tensors that no parameter asks for: known to be of no use, or not understood.

use crate::layout::{ImageLayout, TextLayout};
use crate::weights::LeftOutAs;

/// A tensor that nothing uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Leftover {
    /// It has no part in what percept computes.
    LeftOut(LeftOutAs),
    /// It may change what the model computes; what it is, if that is known.
    NotUnderstood(Option<&'static str>),
}

/// Names of parts that have no say in tokens and embeddings, and what they are.
const USELESS: [(&str, &str); 34] = [
    ("mask_token", "mask token of pre-training"),
    ("masked_embed", "mask token of pre-training"),
    ("position_ids", "numbers of positions"),
    ("token_type_ids", "numbers of token types"),
    ("pooler", "pooler behind the tokens"),
    ("head", "classification or pre-training head"),
    ("heads", "classification or pre-training head"),
    ("classifier", "classification or pre-training head"),
    ("classification_head", "classification or pre-training head"),
    ("score", "classification or pre-training head"),
    ("cls", "classification or pre-training head"),
    ("lm_head", "classification or pre-training head"),
    (
        "generator_predictions",
        "classification or pre-training head",
    ),
    ("generator_lm_head", "classification or pre-training head"),
    (
        "discriminator_predictions",
        "classification or pre-training head",
    ),
    ("qa_outputs", "classification or pre-training head"),
    ("dino_head", "classification or pre-training head"),
    ("ibot_head", "classification or pre-training head"),
    ("dino_loss", "classification or pre-training head"),
    ("ibot_patch_loss", "classification or pre-training head"),
    ("projector", "classification or pre-training head"),
    ("predictor", "classification or pre-training head"),
    ("prototypes", "classification or pre-training head"),
    ("decoder", "decoder"),
    ("decoder_embed", "decoder"),
    ("decoder_pos_embed", "decoder"),
    ("decoder_blocks", "decoder"),
    ("decoder_norm", "decoder"),
    ("decoder_pred", "decoder"),
    ("n_averaged", "state of training"),
    ("queue", "state of training"),
    ("queue_ptr", "state of training"),
    ("logit_bias", "bias of a sigmoid loss"),
    ("logit_scale", "temperature"),
];

/// First parts of names that trainers write beside a model.
const TRAINING: [&str; 10] = [
    "optimizer",
    "optimizers",
    "optimizer_states",
    "lr_scheduler",
    "lr_schedulers",
    "scheduler",
    "scaler",
    "callbacks",
    "loops",
    "rng_state",
];

/// Parts of names that say: this belongs to the embedding.
const PROJECTIONS: [&str; 13] = [
    "text_projection",
    "visual_projection",
    "image_projection",
    "vision_projection",
    "text_proj",
    "visual_proj",
    "image_proj",
    "vision_proj",
    "img_proj",
    "txt_proj",
    "image_projector",
    "text_projector",
    // DPR.
    "encode_proj",
];

/// Parts of names that say: this is a tower, or a part of one.
const TOWERS: [&str; 17] = [
    "visual",
    "vision_model",
    "vision_tower",
    "vision_encoder",
    "visual_encoder",
    "image_encoder",
    "image_model",
    "img_encoder",
    "text",
    "text_model",
    "text_encoder",
    "text_tower",
    "language_model",
    "text_decoder",
    "multi_modal_projector",
    // CLIP's text tower, which stands at the root.
    "resblocks",
    "token_embedding",
];

/// Where the towers of a file are, for judging what else is in it.
pub(crate) struct Judge<'a> {
    pub(crate) image: Option<&'a ImageLayout>,
    pub(crate) text: Option<&'a TextLayout>,
    /// Prefixes of towers of the same kinds that were passed over.
    pub(crate) others: &'a [String],
}

impl Judge<'_> {
    /// What a tensor is that nothing asked for.
    pub(crate) fn judge(&self, name: &str) -> Leftover {
        let parts: Vec<&str> = name.split('.').collect();
        let inside = |prefix: &str| !prefix.is_empty() && name.starts_with(prefix);
        if let Some(other) = self.others.iter().find(|prefix| {
            let outermost = !self.prefixes().any(|own| own.starts_with(prefix.as_str()));
            outermost && inside(prefix)
        }) {
            return Leftover::LeftOut(LeftOutAs::OtherTower {
                prefix: other.clone(),
            });
        }
        if let Some(what) = projection(&parts) {
            return Leftover::NotUnderstood(Some(what));
        }
        if name.contains('/') {
            return Leftover::NotUnderstood(Some("of a dense layer"));
        }
        if TRAINING.contains(&parts[0]) {
            return Leftover::LeftOut(LeftOutAs::Useless("state of training"));
        }
        if let Some(what) = self.useless(name) {
            return Leftover::LeftOut(LeftOutAs::Useless(what));
        }
        if let Some(what) = signature(&parts) {
            return Leftover::NotUnderstood(Some(what));
        }
        if self.prefixes().any(|prefix| name.starts_with(prefix)) {
            return Leftover::NotUnderstood(None);
        }
        if self
            .text
            .is_some_and(|text| text.is_pipeline() && is_pipeline_part(&parts))
        {
            return Leftover::NotUnderstood(Some("a layer behind the text tower"));
        }
        if parts.iter().any(|part| TOWERS.contains(part)) {
            return Leftover::NotUnderstood(Some("of a tower that percept does not read"));
        }
        Leftover::LeftOut(LeftOutAs::Useless("outside the towers"))
    }

    fn prefixes(&self) -> impl Iterator<Item = &str> {
        let image = self.image.map(|layout| layout.prefix.as_str());
        let text = self.text.map(|layout| layout.prefix.as_str());
        image.into_iter().chain(text)
    }

    /// What a tensor is that has no say in what percept computes. It stands where a tower does, or above it.
    fn useless(&self, name: &str) -> Option<&'static str> {
        let parts: Vec<&str> = name.split('.').collect();
        // `encoder.block.0.layer.1.decoder` is none of these; `decoder.…` and `teacher.backbone.mask_token` are.
        let rest = (self.prefixes())
            .filter_map(|prefix| name.strip_prefix(prefix))
            .min_by_key(|rest| rest.len());
        let own: Vec<&str> = rest.map_or(parts.clone(), |rest| rest.split('.').collect());
        let own = match own.as_slice() {
            [
                "embeddings" | "vit" | "bert" | "encoder" | "model",
                rest @ ..,
            ] if !rest.is_empty() => rest,
            all => all,
        };
        let find = |part: &str| USELESS.iter().find(|(useless, _)| *useless == part);
        let found = match rest {
            Some(_) => own.first().and_then(|part| find(part)),
            // Beside the towers a head may stand under any wrapper.
            None => parts.iter().find_map(|part| find(part)),
        };
        found.map(|(_, what)| *what)
    }
}

/// `2.linear.bias`, behind `0.auto_model.…`.
fn is_pipeline_part(parts: &[&str]) -> bool {
    parts
        .iter()
        .any(|part| part.bytes().all(|byte| byte.is_ascii_digit()))
}

/// What a name says it is, if it is a projection of the embedding.
fn projection(parts: &[&str]) -> Option<&'static str> {
    let is_pair = |first: &str, second: &[&str]| {
        (parts.windows(2)).any(|pair| pair[0] == first && second.contains(&pair[1]))
    };
    let found = parts.iter().any(|part| PROJECTIONS.contains(part))
        || is_pair("visual", &["proj", "projection"])
        || is_pair("visual", &["head"])
        || is_pair("trunk", &["head"])
        || is_pair("text", &["proj", "projection"]);
    found.then_some("a projection of the embedding, which is not applied")
}

/// What a name says of a model that percept does not compute.
pub(crate) fn signature(parts: &[&str]) -> Option<&'static str> {
    let has = |names: &[&str]| parts.iter().any(|part| names.contains(part));
    let last_two = |first: &str, second: &[&str]| {
        (parts.windows(2)).any(|pair| pair[0] == first && second.contains(&pair[1]))
    };
    if parts.iter().any(|part| part.starts_with("lora_")) {
        Some("a LoRA adapter; merge it into the weights first")
    } else if has(&["norm_pre", "ln_pre", "pre_layrnorm", "pre_layernorm"]) {
        Some("a norm before the blocks, as CLIP has")
    } else if has(&["storage_tokens", "bias_mask", "local_cls_norm"]) {
        Some("DINOv3's")
    } else if has(&["q_norm", "k_norm"]) {
        Some("norms of queries and keys")
    } else if has(&["fc_norm"]) {
        Some("a norm behind the pooling")
    } else if has(&["dist_token", "distillation_token", "head_dist"]) {
        Some("of DeiT's distillation")
    } else if has(&["attn_pool", "attnpool"]) {
        Some("attention that pools, as SigLIP has")
    } else if last_two(
        "mlp",
        &["w1", "w2", "w3", "w12", "gate_proj", "up_proj", "down_proj"],
    ) || last_two("mlp", &["weights_in", "weights_out", "fc1_g", "fc1_x"])
    {
        Some("a gated feed-forward part (SwiGLU)")
    } else if has(&[
        "rope",
        "rope_embed",
        "rotary_emb",
        "rotary_pos_emb",
        "freqs_cis",
    ]) {
        Some("rotary positions, as DINOv3 and EVA have")
    } else if has(&[
        "relative_attention_bias",
        "relative_position_bias_table",
        "rel_pos_bias",
    ]) || has(&[
        "relative_position_bias",
        "relative_position_index",
        "distance_embedding",
    ]) || has(&["rel_embeddings", "rel_pos_h", "rel_pos_w"])
    {
        Some("relative positions, as BEiT and MPNet have")
    } else if has(&["lambda_1", "lambda_2", "gamma_1", "gamma_2"]) {
        Some("scales of residuals, as BEiT has")
    } else if has(&["q_bias", "v_bias"]) {
        Some("separate biases of attention, as BEiT and EVA have")
    } else if has(&["crossattention", "cross_attn", "EncDecAttention"]) && !has(&["decoder"]) {
        Some("attention to another tower")
    } else if has(&["embeddings_project", "embedding_hidden_mapping_in"]) {
        Some("a projection of the token table, as ELECTRA and ALBERT have")
    } else if has(&["albert_layer_groups"]) {
        Some("ALBERT's shared layers")
    } else if has(&["q_lin", "k_lin", "v_lin"]) {
        Some("DistilBERT's layers")
    } else {
        None
    }
}

/// A file without any tower that percept reads, by names that tell whose it is.
pub(crate) fn owner<'a>(mut names: impl Iterator<Item = &'a str>) -> Option<&'static str> {
    const OWNERS: [(&str, &str); 9] = [
        (
            "embeddings.patch_embedding.weight",
            "CLIP or SigLIP as transformers names it",
        ),
        (
            "visual.conv1.weight",
            "CLIP as OpenAI and open_clip name it",
        ),
        ("conv1.weight", "a CLIP tower or a convolutional network"),
        (
            "embeddings.patch_embeddings.weight",
            "DINOv3 or another model of transformers",
        ),
        (
            "relative_attention_bias.weight",
            "a text tower with relative positions (MPNet, T5's decoder)",
        ),
        ("model.embed_tokens.weight", "a language model"),
        ("wte.weight", "a language model (GPT-2)"),
        ("conv_stem.weight", "EfficientNet as timm names it"),
        ("stem.0.weight", "ConvNeXt as timm names it"),
    ];
    names.find_map(|name| {
        let found = OWNERS.iter().find(|(suffix, _)| {
            (name.strip_suffix(suffix))
                .is_some_and(|prefix| prefix.is_empty() || prefix.ends_with('.'))
        });
        found.map(|(_, what)| *what)
    })
}
