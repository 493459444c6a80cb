//! Checkpoints as other tools leave them: read as their owner reads them, or refused by name.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failing helper fails its test"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use percept_checkpoint::{Checkpoint, Precision, TensorToWrite, write_safetensors};
use percept_image::{ChwImage, Filter, Normalization};
use percept_model::{
    Hints, Model, ModelFiles, Pooling, PositionInterpolation, TextPooling, device,
};
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/goldens")
        .join(name)
}

fn tensors(path: &Path) -> Tensors {
    let file = Checkpoint::open(path).unwrap();
    let read = |name: &str| {
        let shape = file.info(name).unwrap().shape.clone();
        (name.to_owned(), (shape, file.read_f32(name).unwrap()))
    };
    file.names().map(read).collect()
}

fn write(path: &Path, tensors: &Tensors) {
    let tensors = tensors.iter().map(|(name, (shape, values))| TensorToWrite {
        precision: Precision::F32,
        name: name.clone(),
        shape: shape.clone(),
        values: values.clone().into(),
    });
    write_safetensors(path, tensors, &BTreeMap::new()).unwrap();
}

fn filled(shape: &[usize], value: f32) -> (Vec<usize>, Vec<f32>) {
    (shape.to_vec(), vec![value; shape.iter().product()])
}

/// A copy of a golden folder, to be changed.
struct Copy(TempDir);

impl Copy {
    fn of(name: &str) -> Self {
        let folder = tempdir().unwrap();
        copy(&golden(name), folder.path());
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write_json(&self, name: &str, content: &Value) {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content.to_string()).unwrap();
    }

    fn weights(&self) -> PathBuf {
        self.path().join("model.safetensors")
    }

    fn change(&self, change: impl FnOnce(&mut Tensors)) {
        let mut all = tensors(&self.weights());
        change(&mut all);
        write(&self.weights(), &all);
    }

    fn open(&self) -> Result<ModelFiles, String> {
        open(self.path(), &Hints::default())
    }

    fn texts(&self) -> Vec<Vec<f32>> {
        let model = Model::load(self.path(), &Hints::default(), &device("cpu").unwrap()).unwrap();
        let texts = ["a photo of a dog", "a cat and a sofa near the window"];
        model.encode_texts(&texts).unwrap().embeddings
    }

    /// What is said of it when it is refused.
    fn refusal(&self) -> String {
        match self.open() {
            Ok(_) => panic!("{} was opened", self.path().display()),
            Err(error) => error,
        }
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in from.read_dir().unwrap() {
        let path = entry.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        if path.is_dir() {
            std::fs::create_dir_all(&to).unwrap();
            copy(&path, &to);
        } else {
            std::fs::copy(&path, to).unwrap();
        }
    }
}

fn open(path: &Path, hints: &Hints) -> Result<ModelFiles, String> {
    ModelFiles::open(path, hints).map_err(|error| error.to_string())
}

/// A lone file of these tensors.
fn lone(tensors: &Tensors) -> (TempDir, PathBuf) {
    let folder = tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    write(&path, tensors);
    (folder, path)
}

fn timm(name: &str) -> Tensors {
    tensors(&golden(name).join("model.safetensors"))
}

fn with_prefix(prefix: &str, tensors: &Tensors) -> Tensors {
    let add = |(name, tensor): (&String, &_)| (format!("{prefix}{name}"), Clone::clone(tensor));
    tensors.iter().map(add).collect()
}

/// Patch tokens of a small photo.
fn tokens(path: &Path) -> Vec<f32> {
    let hints = Hints {
        heads: Some(2),
        // For those that have a text tower too.
        tokenizer: Some(golden("clippy/tokenizer.json")),
        ..Hints::default()
    };
    let model = Model::load(path, &hints, &device("cpu").unwrap()).unwrap();
    let side = 2 * model.image_config().unwrap().vit.patch_size;
    let data = (0..3 * side * side)
        .map(|i| (i % 17) as f32 / 9.0 - 1.0)
        .collect();
    let photo = ChwImage {
        data,
        height: side,
        width: side,
    };
    model.encode_images(&[photo]).unwrap().remove(0).patches
}

#[test]
fn a_tensor_in_a_tower_that_nothing_uses_is_an_error_that_names_it() {
    for (name, shape, reason) in [
        ("norm_pre.weight", &[32][..], "before the blocks"),
        ("blocks.0.attn.q_norm.weight", &[16], "queries and keys"),
        ("blocks.0.attn.k_norm.bias", &[16], "queries and keys"),
        ("fc_norm.weight", &[32], "behind the pooling"),
        ("dist_token", &[1, 1, 32], "distillation"),
        ("attn_pool.latent", &[1, 1, 32], "pools"),
        ("blocks.0.attn.qkv.lora_A.weight", &[4, 32], "LoRA"),
        ("rope.periods", &[8], "rotary"),
        ("blocks.0.never_seen.weight", &[32], ""),
    ] {
        let mut all = timm("timm-dino");
        all.insert(name.into(), filled(shape, 1.0));
        let (_folder, path) = lone(&all);
        let error = open(&path, &Hints::default()).unwrap_err();
        assert!(error.contains(name) && error.contains(reason), "{error}");
        assert!(error.contains("--allow-unused"), "{error}");
        let hints = Hints {
            allow_unused: true,
            ..Hints::default()
        };
        let files = open(&path, &hints).unwrap();
        assert_eq!(files.report.unused.len(), 1);
        assert_eq!(files.report.unused[0].name, name);
    }
}

#[test]
fn what_is_of_no_use_is_left_out_and_counted() {
    let mut all = timm("timm-dino");
    for name in [
        "mask_token",
        "head.weight",
        "head.bias",
        "decoder_blocks.0.norm1.weight",
        "decoder_pos_embed",
        "optimizer.state.0.exp_avg",
    ] {
        all.insert(name.into(), filled(&[3], 1.0));
    }
    let (_folder, path) = lone(&all);
    let report = open(&path, &Hints::default()).unwrap().report;
    assert!(report.unused.is_empty(), "{report}");
    let counts: Vec<usize> = report.left_out.values().map(Vec::len).collect();
    assert_eq!(counts.iter().sum::<usize>(), 6, "{:?}", report.left_out);
    let lines: Vec<String> = report.left_out_lines().collect();
    assert!(
        lines
            .iter()
            .any(|line| line.contains("head.bias, head.weight")),
        "{lines:?}"
    );
}

#[test]
fn projections_of_the_embedding_are_refused() {
    for name in [
        "visual.head.proj.weight",
        "visual.trunk.head.weight",
        "text.proj.0.weight",
        "text_projection.weight",
        "visual_projection.weight",
        "visual.proj",
        "text_projection",
    ] {
        let mut all = with_prefix("visual.trunk.", &timm("timm-dino"));
        all.extend(with_prefix("text.transformer.", &timm("minilm")));
        all.insert(name.into(), filled(&[16, 32], 1.0));
        let (_folder, path) = lone(&all);
        let error = open(&path, &Hints::default()).unwrap_err();
        assert!(
            error.contains(name) && error.contains("projection"),
            "{error}"
        );
    }
}

#[test]
fn a_model_whose_image_tower_is_unknown_is_no_text_model() {
    // ALIGN: BERT beside EfficientNet and a projection of texts.
    let mut all = with_prefix("text_model.", &timm("minilm"));
    all.insert(
        "vision_model.embeddings.convolution.weight".into(),
        filled(&[8, 3, 3, 3], 1.0),
    );
    let (_folder, path) = lone(&all);
    let error = open(&path, &Hints::default()).unwrap_err();
    assert!(
        error.contains("vision_model.embeddings.convolution.weight"),
        "{error}"
    );
    let folder = Copy::of("minilm");
    folder.write_json("config.json", &json!({"model_type": "align"}));
    assert!(folder.refusal().contains("model_type \"align\""));
}

#[test]
fn other_models_are_refused_by_name() {
    let swiglu = |all: &mut Tensors| {
        for part in ["fc1", "fc2"] {
            for kind in ["weight", "bias"] {
                all.remove(&format!("blocks.0.mlp.{part}.{kind}"));
            }
        }
        all.insert("blocks.0.mlp.w12.weight".into(), filled(&[64, 32], 1.0));
    };
    let rope = |all: &mut Tensors| {
        all.remove("pos_embed");
        all.insert("rope_embed.periods".into(), filled(&[8], 1.0));
    };
    let mut gated = timm("timm-dino");
    swiglu(&mut gated);
    let mut rotary = timm("timm-dinov2");
    rope(&mut rotary);
    for (all, words) in [(gated, "SwiGLU"), (rotary, "DINOv3")] {
        let (_folder, path) = lone(&all);
        let error = open(&path, &Hints::default()).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
    let clip = [
        ("visual.conv1.weight", "CLIP"),
        ("vision_model.embeddings.patch_embedding.weight", "SigLIP"),
    ];
    for (name, words) in clip {
        let (_folder, path) = lone(&Tensors::from([(name.into(), filled(&[8, 3, 4, 4], 1.0))]));
        let error = open(&path, &Hints::default()).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
    for kind in [
        "mpnet",
        "distilbert",
        "albert",
        "deberta-v2",
        "xlm-roberta-xl",
        "nomic_bert",
    ] {
        let folder = Copy::of("minilm");
        folder.write_json("config.json", &json!({"model_type": kind}));
        assert!(folder.refusal().contains(kind));
    }
    // Beside a lone file it may be another model's.
    let folder = Copy::of("timm-dino");
    folder.write_json("config.json", &json!({"model_type": "llama"}));
    assert!(folder.refusal().contains("llama"));
    let hints = Hints::default();
    assert!(open(&folder.weights(), &hints).unwrap().image.is_some());
    std::fs::rename(folder.weights(), folder.path().join("dino.safetensors")).unwrap();
    std::fs::write(folder.path().join("config.json"), "no JSON").unwrap();
    assert!(
        open(&folder.path().join("dino.safetensors"), &hints)
            .unwrap()
            .image
            .is_some()
    );
}

#[test]
fn settings_of_a_configuration_are_used_or_refused() {
    for (key, value) in [
        ("hidden_act", json!("relu")),
        ("hidden_act", json!("gelu_new")),
        ("position_embedding_type", json!("relative_key_query")),
        ("is_decoder", json!(true)),
        ("num_hidden_layers", json!(3)),
    ] {
        let folder = Copy::of("minilm");
        let config = std::fs::read(folder.path().join("config.json")).unwrap();
        let mut config: Value = serde_json::from_slice(&config).unwrap();
        config[key] = value;
        folder.write_json("config.json", &config);
        assert!(folder.refusal().contains(key), "{}", folder.refusal());
    }
    for (golden, key, value) in [
        ("sentence-t5", "feed_forward_proj", json!("gated-gelu")),
        ("sentence-t5", "feed_forward_proj", json!("gelu")),
        ("sentence-t5-v1_1", "feed_forward_proj", json!("gated-silu")),
        ("sentence-t5-v1_1", "is_gated_act", json!(false)),
        ("hf-dinov2", "hidden_act", json!("quick_gelu")),
        ("hf-dinov2", "use_swiglu_ffn", json!(true)),
        ("hf-dino", "qkv_bias", json!(false)),
    ] {
        let folder = Copy::of(golden);
        let config = std::fs::read(folder.path().join("config.json")).unwrap();
        let mut config: Value = serde_json::from_slice(&config).unwrap();
        config[key] = value;
        folder.write_json("config.json", &config);
        assert!(folder.refusal().contains(key), "{}", folder.refusal());
    }
}

#[test]
fn values_of_another_type_are_refused_where_a_default_would_be_a_guess() {
    for (golden, file, key, value) in [
        ("minilm", "config.json", "num_attention_heads", json!("2")),
        ("minilm", "config.json", "layer_norm_eps", json!("1e-12")),
        ("minilm", "config.json", "num_hidden_layers", json!(2.5)),
        (
            "minilm",
            "sentence_bert_config.json",
            "max_seq_length",
            json!("128"),
        ),
        (
            "minilm",
            "sentence_bert_config.json",
            "do_lower_case",
            json!("no"),
        ),
        (
            "minilm",
            "1_Pooling/config.json",
            "word_embedding_dimension",
            json!([32]),
        ),
        (
            "minilm",
            "1_Pooling/config.json",
            "pooling_mode_cls_token",
            json!("true"),
        ),
        ("hf-dino", "config.json", "num_attention_heads", json!(-2)),
        (
            "hf-dino",
            "preprocessor_config.json",
            "do_normalize",
            json!("false"),
        ),
        (
            "hf-dino",
            "preprocessor_config.json",
            "rescale_factor",
            json!("1/255"),
        ),
        (
            "sentence-t5",
            "config.json",
            "relative_attention_max_distance",
            json!("128"),
        ),
        (
            "sentence-t5",
            "config.json",
            "layer_norm_epsilon",
            json!({}),
        ),
        ("timm-dino", "config.json", "pretrained_cfg", json!("dino")),
    ] {
        let folder = Copy::of(golden);
        let content = std::fs::read(folder.path().join(file)).unwrap_or(b"{}".to_vec());
        let mut content: Value = serde_json::from_slice(&content).unwrap();
        content[key] = value;
        folder.write_json(file, &content);
        let refusal = folder.refusal();
        assert!(
            refusal.contains(key) && refusal.contains(" is not "),
            "{golden}: {refusal}"
        );
    }
    // The tokeniser's word for "no limit" is no mistake.
    let folder = Copy::of("minilm");
    std::fs::remove_file(folder.path().join("sentence_bert_config.json")).unwrap();
    folder.write_json("tokenizer_config.json", &json!({"model_max_length": 1e30}));
    assert!(folder.open().is_ok());
}

#[test]
fn what_timm_says_a_model_was_made_with_is_used_or_refused() {
    let open = |config: Value| {
        let folder = Copy::of("timm-dino");
        folder.write_json("config.json", &config);
        folder.open().map(|files| files.config.image.unwrap())
    };
    // As `save_for_hf` of timm 1.0.31 writes it, and what people add.
    let image = open(json!({
        "architecture": "vit_tiny_patch16_224",
        "global_pool": "token",
        "model_args": {
            "in_chans": 3, "num_classes": 0, "global_pool": "avg", "fc_norm": false, "qk_norm": null,
            "drop_rate": 0.1, "class_token": true, "num_heads": 1,
        },
    }))
    .unwrap();
    assert_eq!((image.pooling, image.vit.heads), (Pooling::Avg, 1));
    for (key, value) in [
        ("act_layer", json!("quick_gelu")),
        ("qk_norm", json!(true)),
        ("final_norm", json!(false)),
        ("norm_layer", json!("rmsnorm")),
        ("global_pool", json!("map")),
    ] {
        let error = open(json!({"architecture": "vit", "model_args": {key: value}})).unwrap_err();
        assert!(error.contains(key), "{error}");
    }
    // Heads of timm's test models are half as wide as others.
    let image = open(json!({"architecture": "test_vit"})).unwrap();
    assert_eq!(image.vit.heads, image.vit.dim / 32);
}

#[test]
fn clippys_layout_is_known_under_any_wrapper() {
    let all = tensors(&golden("clippy/clippy.pt"));
    let (_plain, plain_path) = lone(&all);
    let plain = open(&plain_path, &Hints::default()).unwrap();
    assert_eq!(plain.config.image.as_ref().unwrap().pooling, Pooling::Max);
    for prefix in [
        "_orig_mod.",
        "module._orig_mod.",
        "model.",
        "net.module.",
        "_forward_module.model.",
        "_fsdp_wrapped_module._orig_mod.",
        "ema_model.module.",
        "state_dict.model.",
    ] {
        let (_folder, path) = lone(&with_prefix(prefix, &all));
        let files = open(&path, &Hints::default()).unwrap();
        assert_eq!(files.config, plain.config, "{prefix}");
        assert!(files.logit_scale.is_some(), "{prefix}");
        assert_eq!(tokens(&path), tokens(&plain_path), "{prefix}");
    }
    // Wrappers around parts of the model, in the middle of names.
    let renamed = |name: &String| {
        name.replace(
            "visual.trunk.",
            "visual._orig_mod.trunk._checkpoint_wrapped_module.",
        )
    };
    let middle: Tensors = all
        .iter()
        .map(|(name, tensor)| (renamed(name), tensor.clone()))
        .collect();
    let (_folder, path) = lone(&middle);
    assert_eq!(open(&path, &Hints::default()).unwrap().config, plain.config);
}

#[test]
fn of_two_towers_the_one_that_is_evaluated_is_taken() {
    let right = timm("timm-dino");
    let mut wrong = right.clone();
    for (_, values) in wrong.values_mut() {
        values.iter_mut().for_each(|value| *value *= -0.5);
    }
    let (_folder, plain) = lone(&right);
    for (chosen, other) in [
        ("teacher.backbone.", "student.backbone."),
        ("module.encoder_q.", "module.encoder_k."),
        ("ema_model.", "model."),
        ("", "copy_of."),
    ] {
        let mut all = with_prefix(chosen, &right);
        all.extend(with_prefix(other, &wrong));
        let (_folder, path) = lone(&all);
        let report = open(&path, &Hints::default()).unwrap().report;
        let said: Vec<String> = report.left_out_lines().collect();
        assert!(
            said.iter().any(|line| line.contains("another copy")),
            "{chosen}: {said:?}"
        );
        assert_eq!(tokens(&path), tokens(&plain), "{chosen}");
    }
    let mut all = with_prefix("one.", &right);
    all.extend(with_prefix("two.", &wrong));
    let (_folder, path) = lone(&all);
    let error = open(&path, &Hints::default()).unwrap_err();
    assert!(
        error.contains("one.*") && error.contains("two.*") && error.contains("--prefix"),
        "{error}"
    );
    let hints = Hints {
        prefix: Some("two".into()),
        ..Hints::default()
    };
    assert_eq!(
        open(&path, &hints).unwrap().image.unwrap().layout.prefix,
        "two."
    );
    let hints = Hints {
        prefix: Some("three.".into()),
        ..Hints::default()
    };
    let (_folder, alone) = lone(&with_prefix("one.", &right));
    let error = open(&alone, &hints).unwrap_err();
    assert!(
        error.contains("three.") && error.contains("one."),
        "{error}"
    );
}

#[test]
fn of_a_copy_under_a_wrapper_and_a_plain_one_neither_is_hidden() {
    let plain = timm("timm-dino");
    let zeros =
        |(name, (shape, _)): (&String, &(Vec<usize>, Vec<f32>))| (name.clone(), filled(shape, 0.0));
    for wrapper in ["_orig_mod.", "module."] {
        let mut all = plain.clone();
        all.extend(with_prefix(wrapper, &plain.iter().map(zeros).collect()));
        let (_folder, path) = lone(&all);
        // The outermost is the one in use; the other is named.
        let files = open(&path, &Hints::default()).unwrap();
        let said: Vec<String> = files.report.left_out_lines().collect();
        assert!(
            said.iter().any(|line| line.contains(wrapper)),
            "{wrapper}: {said:?}"
        );
        assert_eq!(tokens(&path), tokens(&lone(&plain).1), "{wrapper}");
    }
}

#[test]
fn limits_of_the_older_files_of_sentence_transformers_count() {
    let folder = Copy::of("minilm");
    std::fs::remove_file(folder.path().join("sentence_bert_config.json")).ok();
    folder.write_json(
        "sentence_roberta_config.json",
        &json!({"max_seq_length": 7}),
    );
    let text = folder.open().unwrap().config.text.unwrap();
    assert_eq!(text.max_tokens(), 7);
}

#[test]
fn heads_of_moco_are_not_guessed() {
    let small = |cls: f32| {
        let dim = 384;
        let mut positions = vec![cls; dim];
        positions.extend((0..4 * dim).map(|i| (i as f32).sin()));
        let mut all = Tensors::from([
            ("cls_token".to_owned(), filled(&[1, 1, dim], 0.1)),
            ("pos_embed".to_owned(), (vec![1, 5, dim], positions)),
            (
                "patch_embed.proj.weight".to_owned(),
                filled(&[dim, 3, 2, 2], 0.1),
            ),
        ]);
        for (name, shape) in [
            ("patch_embed.proj.bias", vec![dim]),
            ("norm.weight", vec![dim]),
            ("norm.bias", vec![dim]),
            ("blocks.0.norm1.weight", vec![dim]),
            ("blocks.0.norm1.bias", vec![dim]),
            ("blocks.0.norm2.weight", vec![dim]),
            ("blocks.0.norm2.bias", vec![dim]),
            ("blocks.0.attn.qkv.weight", vec![3 * dim, dim]),
            ("blocks.0.attn.qkv.bias", vec![3 * dim]),
            ("blocks.0.attn.proj.weight", vec![dim, dim]),
            ("blocks.0.attn.proj.bias", vec![dim]),
            ("blocks.0.mlp.fc1.weight", vec![8, dim]),
            ("blocks.0.mlp.fc1.bias", vec![8]),
            ("blocks.0.mlp.fc2.weight", vec![dim, 8]),
            ("blocks.0.mlp.fc2.bias", vec![dim]),
        ] {
            all.insert(name.to_owned(), filled(&shape, 0.1));
        }
        all
    };
    let heads = |path: &Path| {
        open(path, &Hints::default()).map(|files| files.config.image.unwrap().vit.heads)
    };
    let (_folder, moco) = lone(&with_prefix("module.base_encoder.", &small(0.0)));
    assert_eq!(heads(&moco), Ok(12));
    let (_folder, other) = lone(&small(0.3));
    assert_eq!(heads(&other), Ok(6));
    let (_folder, unknown) = lone(&small(0.0));
    assert!(heads(&unknown).unwrap_err().contains("--heads"));
    let hints = Hints {
        heads: Some(12),
        ..Hints::default()
    };
    assert!(open(&unknown, &hints).is_ok());
}

#[test]
fn registers_and_chunks_of_meta_are_read() {
    let ours = timm("timm-dinov2-reg");
    let (_folder, plain) = lone(&ours);
    let meta: Tensors = ours
        .iter()
        .map(|(name, tensor)| {
            let name = name.replace("reg_token", "register_tokens");
            (name.replace("blocks.0.", "blocks.0.0."), tensor.clone())
        })
        .chain([("mask_token".to_owned(), filled(&[1, 32], 0.0))])
        .collect();
    let (_folder, path) = lone(&meta);
    let files = open(&path, &Hints::default()).unwrap();
    let vit = files.config.image.unwrap().vit;
    assert_eq!(
        (vit.registers, vit.interpolation),
        (4, PositionInterpolation::Timm)
    );
    assert_eq!(tokens(&path), tokens(&plain));
}

#[test]
fn earlier_names_of_bert_and_t5_are_read() {
    let bert = Copy::of("minilm");
    let plain = bert.texts();
    bert.change(|all| {
        *all = std::mem::take(all)
            .into_iter()
            .map(|(name, tensor)| {
                let name = name.replace("LayerNorm.weight", "LayerNorm.gamma");
                (
                    format!("bert.{}", name.replace("LayerNorm.bias", "LayerNorm.beta")),
                    tensor,
                )
            })
            .collect();
        all.insert("cls.predictions.bias".into(), filled(&[3], 0.0));
        all.insert("bert.pooler.dense.bias".into(), filled(&[3], 0.0));
        all.insert("bert.embeddings.position_ids".into(), filled(&[1, 3], 0.0));
    });
    assert_eq!(bert.texts(), plain);
    assert_eq!(
        bert.open()
            .unwrap()
            .report
            .left_out
            .values()
            .map(Vec::len)
            .sum::<usize>(),
        3
    );
    let t5 = Copy::of("sentence-t5");
    let plain = t5.texts();
    t5.change(|all| {
        let table = all.remove("shared.weight").unwrap();
        all.insert("encoder.embed_tokens.weight".into(), table);
    });
    assert_eq!(t5.texts(), plain);
}

#[test]
fn roberta_is_known_without_a_configuration() {
    let mut all = with_prefix("roberta.", &timm("minilm"));
    let (_folder, path) = lone(&all);
    let Some(percept_model::TextConfig::Bert(config)) =
        open(&path, &Hints::default()).unwrap().config.text
    else {
        panic!("no BERT");
    };
    assert_eq!(config.first_position, 2);
    all.insert(
        "roberta.encoder.relative_attention_bias.weight".into(),
        filled(&[32, 2], 0.1),
    );
    let (_folder, path) = lone(&all);
    assert!(
        open(&path, &Hints::default())
            .unwrap_err()
            .contains("MPNet")
    );
}

#[test]
fn modules_of_sentence_transformers_are_supported_or_refused() {
    let module = |kind: &str, path: &str| json!({"idx": 0, "name": "", "path": path, "type": format!("sentence_transformers.models.{kind}")});
    let refusal = |modules: Vec<Value>, files: &[(&str, Value)]| {
        let folder = Copy::of("minilm");
        folder.write_json("modules.json", &Value::Array(modules));
        for (name, content) in files {
            folder.write_json(name, content);
        }
        folder.refusal()
    };
    let usual = || vec![module("Transformer", ""), module("Pooling", "1_Pooling")];
    let with = |kind: &str, path: &str| [usual(), vec![module(kind, path)]].concat();
    for kind in ["LayerNorm", "LSTM", "CNN", "WeightedLayerPooling", "Router"] {
        let error = refusal(with(kind, "2_Other"), &[]);
        assert!(error.contains(kind) && error.contains("2_Other"), "{error}");
    }
    assert!(refusal(vec![module("CLIPModel", "0_CLIPModel")], &[]).contains("CLIPModel"));
    assert!(refusal(vec![module("Transformer", "")], &[]).contains("no Pooling"));
    assert!(refusal(with("Dense", "2_Dense_1024"), &[]).contains("2_Dense_1024"));
    assert!(refusal(with("Dense", "../elsewhere"), &[]).contains("elsewhere"));
    let dense = |key: &str, value: Value| {
        let mut config = json!({"in_features": 32, "out_features": 8, "bias": true, "activation_function": "torch.nn.modules.activation.Tanh"});
        config[key] = value;
        refusal(with("Dense", "2_Dense"), &[("2_Dense/config.json", config)])
    };
    assert!(
        dense(
            "activation_function",
            json!("torch.nn.modules.activation.SiLU")
        )
        .contains("SiLU")
    );
    assert!(dense("activation_function", json!("my_module.Swish")).contains("Swish"));
    assert!(dense("use_residual", json!(true)).contains("use_residual"));
    assert!(dense("module_input_name", json!("token_embeddings")).contains("token_embeddings"));
    let several = json!({"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true});
    assert!(refusal(usual(), &[("1_Pooling/config.json", several)]).contains("beside each other"));
    let list = json!({"pooling_mode": ["mean", "max"]});
    assert!(refusal(usual(), &[("1_Pooling/config.json", list)]).contains("pooling_mode"));
    let wide = json!({"pooling_mode": "mean", "embedding_dimension": 64});
    assert!(refusal(usual(), &[("1_Pooling/config.json", wide)]).contains("width 64"));
    let prompt = json!({"prompts": {"query": "query: "}, "default_prompt_name": "query"});
    assert!(refusal(usual(), &[("config_sentence_transformers.json", prompt)]).contains("query"));
    let lower = json!({"max_seq_length": 16, "do_lower_case": true});
    let folder = Copy::of("sentence-t5");
    folder.write_json("sentence_bert_config.json", &lower);
    assert!(folder.refusal().contains("do_lower_case"));
    // BERT's own tokeniser makes texts lower-case anyway.
    let folder = Copy::of("minilm");
    folder.write_json("sentence_bert_config.json", &lower);
    assert_eq!(folder.open().unwrap().config.text.unwrap().max_tokens(), 16);
}

#[test]
fn what_changes_embeddings_beside_the_weights_is_refused() {
    for (file, content, named) in [
        (
            "adapter_config.json",
            json!({"peft_type": "LORA"}),
            "adapter",
        ),
        (
            "config_sentence_transformers.json",
            json!({"truncate_dim": 16}),
            "truncate_dim 16",
        ),
    ] {
        let folder = Copy::of("minilm");
        folder.write_json(file, &content);
        assert!(folder.refusal().contains(named), "{}", folder.refusal());
    }
    let folder = Copy::of("minilm");
    folder.write_json(
        "config_sentence_transformers.json",
        &json!({"truncate_dim": null}),
    );
    assert!(folder.open().is_ok());
}

#[test]
fn a_transformer_may_stand_in_a_folder_of_its_own() {
    let plain = Copy::of("minilm");
    let folder = Copy::of("minilm");
    let inner = folder.path().join("0_Transformer");
    std::fs::create_dir(&inner).unwrap();
    for name in [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "sentence_bert_config.json",
    ] {
        std::fs::rename(folder.path().join(name), inner.join(name)).unwrap();
    }
    let mut modules: Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("modules.json")).unwrap())
            .unwrap();
    modules[0]["path"] = json!("0_Transformer");
    folder.write_json("modules.json", &modules);
    assert_eq!(folder.texts(), plain.texts());
}

#[test]
fn a_dense_layer_stands_where_modules_json_says() {
    let plain = Copy::of("sentence-t5");
    let folder = Copy::of("sentence-t5");
    std::fs::rename(
        folder.path().join("2_Dense"),
        folder.path().join("2_Dense_1024"),
    )
    .unwrap();
    let mut modules: Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("modules.json")).unwrap())
            .unwrap();
    modules[2]["path"] = json!("2_Dense_1024");
    folder.write_json("modules.json", &modules);
    assert_eq!(folder.texts(), plain.texts());
    // A bias that the configuration denies, and one that it promises.
    let weights = plain.path().join("2_Dense/model.safetensors");
    let mut all = tensors(&weights);
    all.insert("linear.bias".into(), filled(&[32], 0.5));
    write(&weights, &all);
    assert!(
        plain.refusal().contains("linear.bias"),
        "{}",
        plain.refusal()
    );
}

#[test]
fn what_files_say_of_photos_is_used() {
    let image = |folder: &Copy| folder.open().unwrap().config.image.unwrap();
    let numbers = |mean: f32, std: f32| Normalization {
        mean: [mean; 3],
        std: [std; 3],
    };
    let vit = |content: Value| {
        let folder = Copy::of("hf-dino");
        folder.write_json("preprocessor_config.json", &content);
        folder
    };
    let half = json!({"do_normalize": true, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25],
        "resample": 2, "size": {"height": 48, "width": 48}});
    let found = image(&vit(half.clone()));
    assert_eq!(found.normalization, numbers(0.5, 0.25));
    assert_eq!((found.filter, found.image_size), (Filter::Bilinear, 48));
    let changed = |key: &str, value: Value| {
        let mut content = half.clone();
        content[key] = value;
        vit(content)
    };
    assert_eq!(
        image(&changed("do_normalize", json!(false))).normalization,
        numbers(0.0, 1.0)
    );
    // Values of 0 to 255, and of 0 to 2.
    let unscaled = image(&changed("do_rescale", json!(false))).normalization;
    assert!((unscaled.std[0] - 0.25 / 255.0).abs() < 1e-7);
    let doubled = image(&changed("rescale_factor", json!(2.0 / 255.0))).normalization;
    assert!((doubled.mean[0] - 0.25).abs() < 1e-6 && (doubled.std[0] - 0.125).abs() < 1e-6);
    let cropped = json!({"do_center_crop": true, "crop_size": {"height": 48, "width": 48}, "size": {"shortest_edge": 96}});
    assert_eq!(image(&vit(cropped)).image_size, 48);
    assert!(changed("resample", json!(5)).refusal().contains("resample"));
    let lone_mean = vit(json!({"image_mean": [0.5, 0.5, 0.5]}));
    assert!(lone_mean.refusal().contains("image_mean without image_std"));
    let lone_factor = vit(json!({"rescale_factor": 0.5}));
    assert!(lone_factor.refusal().contains("rescale_factor"));
    assert!(vit(json!({"rescale_factor": 1.0 / 255.0})).open().is_ok());
    assert!(
        changed("image_std", json!([0.5, 0.5]))
            .refusal()
            .contains("image_std")
    );
    assert!(
        changed("image_std", json!([0.0, 0.5, 0.5]))
            .refusal()
            .contains("deviation")
    );
    assert!(
        changed("size", json!({"height": 48, "width": 32}))
            .refusal()
            .contains("size")
    );

    let timm = |content: Value| {
        let folder = Copy::of("timm-dino");
        folder.write_json("config.json", &content);
        folder
    };
    let cfg = json!({"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bilinear", "input_size": [3, 64, 64]});
    let hub = json!({"architecture": "vit_tiny", "global_pool": "avg", "pretrained_cfg": cfg});
    let found = image(&timm(hub.clone()));
    assert_eq!(found.normalization, numbers(0.5, 0.5));
    assert_eq!(
        (found.filter, found.image_size, found.pooling),
        (Filter::Bilinear, 64, Pooling::Avg)
    );
    assert_eq!(found.vit.interpolation, PositionInterpolation::Timm);
    let mut odd = hub.clone();
    odd["pretrained_cfg"]["interpolation"] = json!("random");
    assert!(timm(odd).refusal().contains("interpolation"));
    let mut odd = hub.clone();
    odd["model_args"] = json!({"act_layer": "quick_gelu"});
    assert!(timm(odd).refusal().contains("act_layer"));
    let mut odd = hub;
    odd["global_pool"] = json!("map");
    assert!(timm(odd).refusal().contains("global_pool"));

    let folder = Copy::of("timm-dino");
    folder.write_json("open_clip_config.json", &json!({"model_cfg": {"vision_cfg": {"image_size": 32}},
        "preprocess_cfg": {"mean": [0.1, 0.1, 0.1], "std": [0.2, 0.2, 0.2], "interpolation": "bilinear"}}));
    let found = image(&folder);
    assert_eq!(found.normalization, numbers(0.1, 0.2));
    assert_eq!((found.filter, found.image_size), (Filter::Bilinear, 32));
}

#[test]
fn what_trainers_put_beside_a_model_is_read_or_counted() {
    let files = open(&golden("trained/beside.pt"), &Hints::default()).unwrap();
    assert_eq!(files.config.image.unwrap().vit.dim, 8);
    let (source, name) = files.logit_scale.unwrap();
    assert_eq!(source.read_f32(&name).unwrap(), [4.6]);
    let left_out = files.report.left_out;
    let under = |part: &str| {
        let found = left_out
            .iter()
            .find(|(reason, _)| reason.to_string().contains(part));
        found.unwrap_or_else(|| panic!("{left_out:?}")).1.clone()
    };
    assert_eq!(under("plain numbers"), ["steps"]);
    assert_eq!(under("state of training"), ["optimizer"]);
    // No key that timm knows: not taken, and everyone is told.
    assert_eq!(under("another copy of a tower"), ["ema"]);
    assert_eq!(under("float"), ["head.scale"]);

    let error = open(&golden("trained/inside.pt"), &Hints::default()).unwrap_err();
    assert!(
        error.contains("visual.trunk.norm_pre.weight (a norm before the blocks, as CLIP has)"),
        "{error}"
    );
}

/// Makes one tensor of a safetensors file one of whole numbers, as many and none of them read otherwise.
fn as_whole_numbers(path: &Path, name: &str, dtype: &str, size: usize) {
    let bytes = std::fs::read(path).unwrap();
    let (length, rest) = bytes.split_first_chunk::<8>().unwrap();
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let header: BTreeMap<String, Value> = serde_json::from_slice(header).unwrap();
    let (mut all, mut content) = (BTreeMap::new(), Vec::new());
    for (key, mut about) in header.into_iter().filter(|(key, _)| key != "__metadata__") {
        let place = |i: usize| about["data_offsets"][i].as_u64().unwrap() as usize;
        let mut values = data[place(0)..place(1)].to_vec();
        if key == name {
            let sides = about["shape"].as_array().unwrap().iter();
            let count: u64 = sides.map(|side| side.as_u64().unwrap()).product();
            values = vec![1; count as usize * size];
            about["dtype"] = json!(dtype);
        }
        about["data_offsets"] = json!([content.len(), content.len() + values.len()]);
        content.extend(values);
        all.insert(key, about);
    }
    let header = serde_json::to_vec(&all).unwrap();
    let length = (header.len() as u64).to_le_bytes();
    std::fs::write(path, [&length[..], &header, &content].concat()).unwrap();
}

#[test]
fn whole_numbers_are_no_weights() {
    for (model, name) in [
        ("minilm", "encoder.layer.0.output.dense.weight"),
        ("sentence-t5", "shared.weight"),
        ("timm-dino", "blocks.0.attn.qkv.weight"),
    ] {
        for (dtype, size) in [("I8", 1), ("U8", 1), ("BOOL", 1), ("I32", 4), ("U16", 2)] {
            let folder = Copy::of(model);
            let all = tensors(&folder.weights());
            let name = all.keys().find(|key| key.ends_with(name)).cloned().unwrap();
            as_whole_numbers(&folder.weights(), &name, dtype, size);
            for hints in [
                Hints::default(),
                Hints {
                    allow_unused: true,
                    ..Hints::default()
                },
            ] {
                let error = open(folder.path(), &hints).unwrap_err();
                let expected =
                    format!("whole numbers, whose factors percept does not read: {name} ({dtype})");
                assert!(error.contains(&expected), "{error}");
            }
        }
    }
}

#[test]
fn the_digest_follows_the_weights() {
    let folder = Copy::of("minilm");
    let before = folder.open().unwrap().digest().unwrap();
    assert_eq!(before.len(), 64);
    assert_eq!(Copy::of("minilm").open().unwrap().digest().unwrap(), before);
    // Other values of the same names and shapes, in a file of the same size.
    folder.change(|all| {
        let (_, values) = all.values_mut().next().unwrap();
        values[0] += 1.0;
    });
    assert_ne!(folder.open().unwrap().digest().unwrap(), before);
}

#[test]
fn the_case_of_berts_tokenisers_is_that_of_their_configuration() {
    let open = |config: Value, lower: bool| {
        let folder = Copy::of("minilm");
        let path = folder.path().join("tokenizer.json");
        let mut tokenizer: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(tokenizer["normalizer"]["type"], "BertNormalizer");
        tokenizer["normalizer"]["lowercase"] = json!(lower);
        folder.write_json("tokenizer.json", &tokenizer);
        folder.write_json("tokenizer_config.json", &config);
        folder.open().map(drop)
    };
    let bert = |lower: bool| json!({"tokenizer_class": "BertTokenizer", "do_lower_case": lower});
    open(bert(true), true).unwrap();
    open(bert(false), false).unwrap();
    for error in [
        open(bert(true), false).unwrap_err(),
        open(bert(false), true).unwrap_err(),
        // Lower case is their default.
        open(json!({"tokenizer_class": "MPNetTokenizerFast"}), false).unwrap_err(),
        open(json!({}), false).unwrap_err(),
    ] {
        assert!(error.contains("do_lower_case"), "{error}");
    }
    // These take tokenizer.json as it is.
    for class in [
        "PreTrainedTokenizerFast",
        "TokenizersBackend",
        "RobertaTokenizerFast",
    ] {
        open(
            json!({"tokenizer_class": class, "do_lower_case": true}),
            false,
        )
        .unwrap();
        open(
            json!({"tokenizer_class": class, "do_lower_case": false}),
            true,
        )
        .unwrap();
    }
}

#[test]
fn a_pointer_to_a_file_is_called_one() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7\n";
    for name in ["config.json", "modules.json", "1_Pooling/config.json"] {
        let folder = Copy::of("minilm");
        std::fs::write(folder.path().join(name), pointer).unwrap();
        let error = folder.refusal();
        assert!(error.contains("Git LFS") && error.contains(name), "{error}");
    }
    let folder = Copy::of("minilm");
    std::fs::write(folder.path().join("tokenizer.json"), pointer).unwrap();
    let error = Model::load(folder.path(), &Hints::default(), &device("cpu").unwrap()).unwrap_err();
    assert!(error.to_string().contains("Git LFS"), "{error}");
}

#[test]
fn the_pooling_of_a_folder_is_that_of_its_modules() {
    for (pooling, name) in TextPooling::ALL {
        let folder = Copy::of("minilm");
        folder.write_json(
            "1_Pooling/config.json",
            &json!({"pooling_mode": name, "embedding_dimension": 32}),
        );
        assert_eq!(
            folder.open().unwrap().config.text.unwrap().head().pooling,
            pooling
        );
    }
}
