//! One spelling for the names of tensors, whatever wrapped the model and whichever release wrote it.
//!
//! Layouts ([`layout`](crate::layout)) know one spelling each: that of the files which a library publishes. What
//! compilers and trainers put between the parts of a name is dropped here, and names that a library uses in memory
//! or used in earlier releases become those of its files.

/// Parts of a name that wrappers add, wherever they stand: DataParallel and DeepSpeed, `torch.compile`, Fairscale and
/// PyTorch FSDP, Accelerate, activation checkpointing.
const WRAPPERS: [&str; 8] = [
    "module",
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_fpw_module",
    "_forward_module",
    "_checkpoint_wrapped_module",
    "_original_module",
    "state_dict",
];

/// The spelling of `name` that layouts know.
pub(crate) fn canonical(name: &str) -> String {
    let mut parts: Vec<&str> = name
        .split('.')
        .filter(|part| !WRAPPERS.contains(part))
        .collect();
    in_files(&mut parts);
    earlier(&mut parts);
    parts.join(".")
}

/// transformers 5 names attention, and ViT's layers, in another way in memory than in its files.
fn in_files(parts: &mut Vec<&str>) {
    let Some(layers) = parts
        .windows(2)
        .rposition(|pair| is_number(pair[1]) && is_list(pair[0]))
    else {
        return;
    };
    let is_vit = parts[layers] == "layers";
    let tail: &[&str] = match (&parts[layers + 2..], is_vit) {
        (["attention", "q_proj", _], _) => &["attention", "attention", "query"],
        (["attention", "k_proj", _], _) => &["attention", "attention", "key"],
        (["attention", "v_proj", _], _) => &["attention", "attention", "value"],
        (["attention", "o_proj", _], _) => &["attention", "output", "dense"],
        (["mlp", "fc1", _], true) => &["intermediate", "dense"],
        (["mlp", "fc2", _], true) => &["output", "dense"],
        ([part @ ("layernorm_before" | "layernorm_after"), _], true) => &[part],
        _ => return,
    };
    let (number, kind) = (parts[layers + 1], parts[parts.len() - 1]);
    let tail: Vec<&str> = tail.to_vec();
    let head = if is_vit {
        layers
    } else {
        layers.saturating_sub(1)
    };
    // DINOv3 has `layer.0` without an encoder, and positions of another kind: its names stay.
    if !is_vit && parts.get(head) != Some(&"encoder") {
        return;
    }
    parts.truncate(head);
    parts.extend(["encoder", "layer", number]);
    parts.extend(tail);
    parts.push(kind);
}

/// Names of earlier releases, and of Meta's DINOv2.
fn earlier(parts: &mut Vec<&str>) {
    if let [.., norm, last @ ("gamma" | "beta")] = parts.as_mut_slice()
        && *norm == "LayerNorm"
    {
        *last = if *last == "gamma" { "weight" } else { "bias" };
    }
    // Meta's register tokens; those of transformers stand under `embeddings`.
    if let Some(last) = parts.len().checked_sub(1)
        && parts[last] == "register_tokens"
        && (last == 0 || parts[last - 1] != "embeddings")
    {
        parts[last] = "reg_token";
    }
    // Meta's blocks in chunks: `blocks.CHUNK.NUMBER`, where the number counts through all chunks.
    let chunked = (parts.windows(3))
        .position(|three| three[0] == "blocks" && is_number(three[1]) && is_number(three[2]));
    if let Some(blocks) = chunked {
        parts.remove(blocks + 1);
    }
}

fn is_number(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_list(part: &str) -> bool {
    matches!(part, "layer" | "layers")
}

#[cfg(test)]
mod tests {
    use super::canonical;

    #[test]
    fn what_wrappers_add_is_dropped_wherever_it_stands() {
        for name in [
            "_orig_mod.visual.trunk.cls_token",
            "module._orig_mod.visual.trunk.cls_token",
            "_orig_mod.module.visual.trunk.cls_token",
            "visual._fsdp_wrapped_module.trunk._checkpoint_wrapped_module.cls_token",
            "_forward_module.module.visual.trunk.cls_token",
            "state_dict.visual._orig_mod.trunk.cls_token",
        ] {
            assert_eq!(canonical(name), "visual.trunk.cls_token", "{name}");
        }
    }

    #[test]
    fn names_in_memory_become_those_of_files() {
        for (memory, file) in [
            (
                "vit.layers.3.attention.q_proj.bias",
                "vit.encoder.layer.3.attention.attention.query.bias",
            ),
            (
                "layers.0.attention.o_proj.weight",
                "encoder.layer.0.attention.output.dense.weight",
            ),
            (
                "layers.11.mlp.fc2.weight",
                "encoder.layer.11.output.dense.weight",
            ),
            (
                "layers.11.layernorm_after.bias",
                "encoder.layer.11.layernorm_after.bias",
            ),
            (
                "dinov2.encoder.layer.1.attention.v_proj.weight",
                "dinov2.encoder.layer.1.attention.attention.value.weight",
            ),
            (
                "encoder.layer.1.mlp.fc1.weight",
                "encoder.layer.1.mlp.fc1.weight",
            ),
            (
                "layer.1.attention.q_proj.weight",
                "layer.1.attention.q_proj.weight",
            ),
            (
                "bert.embeddings.LayerNorm.gamma",
                "bert.embeddings.LayerNorm.weight",
            ),
            ("blocks.3.ls1.gamma", "blocks.3.ls1.gamma"),
            ("register_tokens", "reg_token"),
            ("embeddings.register_tokens", "embeddings.register_tokens"),
            ("blocks.2.7.attn.qkv.bias", "blocks.7.attn.qkv.bias"),
            (
                "encoder.block.0.layer.0.SelfAttention.q.weight",
                "encoder.block.0.layer.0.SelfAttention.q.weight",
            ),
        ] {
            assert_eq!(canonical(memory), file);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_name_has_a_spelling(name in "(\\PC{0,6}|blocks|layers|layer|attention|q_proj|module|_orig_mod|[0-9]{1,2}|\\.){0,12}") {
            let spelled = canonical(&name);
            proptest::prop_assert!(spelled.split('.').all(|part| !super::WRAPPERS.contains(&part)));
        }
    }
}
