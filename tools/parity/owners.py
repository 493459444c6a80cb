"""What the libraries that own a layout make of tiny models: transformers, timm and sentence-transformers.

    python owners.py ../../crates/percept-model/tests/goldens

Writes `owners.json` (files, names and shapes of each case) and `owners.safetensors` (some of the results). Weights and
pixels are numbers made from names, so that tests can make the same ones: see `numbers`.
"""
import json
import os
import pathlib
import shutil
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import timm
import torch
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer
from timm.models.vision_transformer import VisionTransformer
from transformers import (
    AutoModel, BertConfig, Dinov2Config, Dinov2WithRegistersConfig, RobertaConfig, T5Config, T5EncoderModel, ViTConfig,
    logging,
)  # fmt: skip

import common

logging.set_verbosity_error()
logging.disable_progress_bar()
PHOTO_SIZES = {14: [(224, 224), (448, 448), (224, 336)], 16: [(224, 224), (448, 448), (224, 336)]}
EVERY = 97  # tokens that are kept: each so manyth
TEXTS = ["a photo of a dog", "sky", "the dog and the cat sat on the grass near a potted plant, and a road " * 3]
BERT = dict(vocab_size=305, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=48,
            max_position_embeddings=66)  # fmt: skip


def numbers(name: str, shape, scale: float = 1.0) -> torch.Tensor:
    """Numbers in -scale to scale, spread by a hash of their index and the name's FNV-1a hash."""
    seed = 2166136261
    for byte in name.encode():
        seed = (seed ^ byte) * 16777619 % 2**32
    x = np.arange(int(np.prod(shape)), dtype=np.uint64)
    x = (x + seed) * 0x9E3779B1 % 2**32
    x ^= x >> 15
    x = x * 0x85EBCA77 % 2**32
    x ^= x >> 13
    values = (x >> 8).astype(np.float64) / 2**23 - 1
    return torch.tensor(values * scale, dtype=torch.float32).reshape(list(shape))


def weight(name: str, shape) -> torch.Tensor:
    """A norm's gain is near 1, a matrix keeps the size of what it takes."""
    if len(shape) == 1:
        gain = name.lower().replace("weight", "").endswith(("norm.", "norm1.", "norm2.", "before.", "after.", "gamma"))
        gain = gain and not name.endswith("bias") or name.endswith("lambda1")
        return numbers(name, shape, 0.3) + (1.0 if gain else 0.0)
    fan_in = int(np.prod(shape[1:])) if "embed" not in name and "shared" not in name and "token" not in name else 1
    return numbers(name, shape, 2.0 / fan_in**0.5)


def weights(shapes: dict) -> dict:
    return {name: weight(name, shape) for name, shape in shapes.items()}


class Owners:
    def __init__(self):
        self.cases, self.results = {}, {}

    def image(self, name, shapes, forward, patch, files=None, weights_at="model.safetensors", registers=0):
        """`forward` gives tokens [1, 1 + registers + patches, dim] of an image."""
        for height, width in PHOTO_SIZES[patch]:
            with torch.inference_mode():
                tokens = forward(numbers("photo", (1, 3, height, width)))
            tokens = torch.cat([tokens[:, :1], tokens[:, 1 + registers :]], 1)
            self.results[f"{name}.{height}x{width}"] = tokens[0, ::EVERY].contiguous()
        self.cases[name] = {
            "files": files or {}, "weights": {weights_at: shapes}, "sizes": PHOTO_SIZES[patch], "every": EVERY,
        }  # fmt: skip

    def text(self, name, files, shapes, tokenizer):
        """A folder that sentence-transformers reads."""
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            for path, content in files.items():
                (folder / path).parent.mkdir(exist_ok=True)
                common.write_json(folder / path, content)
            for path, of_file in shapes.items():
                (folder / path).parent.mkdir(exist_ok=True)
                save_file(weights(of_file), folder / path, {"format": "pt"})
            shutil.copy(tokenizer, folder / "tokenizer.json")
            model = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})
            found = torch.tensor(model.encode(TEXTS, normalize_embeddings=True))
        self.results[name] = found
        self.cases[name] = {"files": files, "weights": shapes, "texts": TEXTS}


def shapes_of(state: dict) -> dict:
    return {name: list(value.shape) for name, value in state.items()}


def saved_shapes(model) -> dict:
    """Names and shapes as `save_pretrained` writes them."""
    from safetensors import safe_open

    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        with safe_open(folder + "/model.safetensors", "pt") as file:
            return {name: list(file.get_slice(name).get_shape()) for name in file.keys()}


def from_folder(config, shapes: dict, **kwargs):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        common.write_json(folder / "config.json", config)
        save_file(weights(shapes), folder / "model.safetensors", {"format": "pt"})
        return AutoModel.from_pretrained(folder, dtype=torch.float32, **kwargs).eval()


def image_cases(owners: Owners):
    width = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    for name, config, registers, kwargs in [
        ("transformers-dinov2", Dinov2Config(image_size=518, patch_size=14, mlp_ratio=2, **width), 0, {}),
        ("transformers-dinov2-registers",
         Dinov2WithRegistersConfig(image_size=518, patch_size=14, mlp_ratio=2, **width), 4, {}),
        ("transformers-vit", ViTConfig(image_size=224, patch_size=16, intermediate_size=32, **width), 0,
         {"add_pooling_layer": False}),
    ]:  # fmt: skip
        run = {"interpolate_pos_encoding": True} if config.model_type == "vit" else {}
        drawn = AutoModel.from_config(config, **kwargs)
        small = {k: v for k, v in config.to_dict().items() if k in (
            "model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "image_size", "patch_size",
            "mlp_ratio", "intermediate_size", "layer_norm_eps", "hidden_act", "qkv_bias", "use_swiglu_ffn",
            "num_register_tokens")}  # fmt: skip
        shapes = saved_shapes(drawn)
        model = from_folder(small, shapes, **kwargs)
        forward = lambda x, model=model, run=run: model(x, **run).last_hidden_state
        owners.image(name, shapes, forward, config.patch_size, {"config.json": small}, registers=registers)
        # `torch.save(model.state_dict())`: the names that transformers 5 has in memory, without a configuration.
        memory = shapes_of(drawn.state_dict())
        drawn.load_state_dict(weights(memory))
        forward = lambda x, model=drawn.eval(), run=run: model(x, **run).last_hidden_state
        owners.image(name + "-memory", memory, forward, config.patch_size, None, "lone.safetensors", registers)

    def vit(patch, size, **kwargs):
        return VisionTransformer(
            img_size=size, patch_size=patch, embed_dim=16, depth=1, num_heads=2, mlp_ratio=2, num_classes=0,
            global_pool="", fc_norm=False, dynamic_img_size=True, **kwargs).eval()  # fmt: skip

    cfg = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "input_size": [3, 224, 224], "crop_pct": 1.0}
    for name, model, patch, registers, files in [
        ("timm-dinov2", vit(14, 518, init_values=1e-5), 14, 0, None),
        ("timm-registers", vit(14, 518, init_values=1e-5, reg_tokens=4, no_embed_class=True), 14, 4, None),
        ("timm-vit", vit(16, 224), 16, 0, {"config.json": {
            "architecture": "vit_tiny_patch16_224", "num_classes": 0, "global_pool": "token",
            "model_args": {"embed_dim": 16, "depth": 1, "num_heads": 2, "mlp_ratio": 2}, "pretrained_cfg": cfg}}),
    ]:  # fmt: skip
        shapes = shapes_of(model.state_dict())
        model.load_state_dict(weights(shapes))
        owners.image(name, shapes, model.forward_features, patch, files, registers=registers)

    # Meta's hub code has DINO's rule for models without registers; its names are timm's, with a mask token.
    model = vit(14, 518, init_values=1e-5)
    shapes = shapes_of(model.state_dict())
    state = weights(shapes)
    args = dict(dim=16, depth=1, heads=2, patch=14, grid=37, mlp_ratio=2, init_values=1e-5)
    forward = lambda x: common.vit_tokens(args, state, x, "dino")
    owners.image("meta-dinov2", shapes | {"mask_token": [1, 16]}, forward, 14)


def text_cases(owners: Owners, tokenizer: pathlib.Path):
    bert = BertConfig(**BERT).to_dict()
    keep = (*BERT, "model_type", "hidden_act", "layer_norm_eps", "type_vocab_size", "pad_token_id",
            "position_embedding_type")  # fmt: skip
    small = lambda config: {k: config[k] for k in keep if k in config}
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    base = {
        "config.json": small(bert),
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 24} | special,
        "sentence_bert_config.json": {"transformer_task": "feature-extraction", "modality_config": {
            "text": {"method": "forward", "method_output_name": "last_hidden_state"}},
            "module_output_name": "token_embeddings"},
    }  # fmt: skip
    shapes = {"model.safetensors": saved_shapes(AutoModel.from_config(BertConfig(**BERT), add_pooling_layer=False))}
    new = "sentence_transformers.{}"
    kinds = {"Transformer": "base.modules.transformer.Transformer", "Dense": "base.modules.dense.Dense",
             "Pooling": "sentence_transformer.modules.pooling.Pooling",
             "Normalize": "base.modules.normalize.Normalize"}  # fmt: skip

    def modules(*names):
        listed = [(name, f"{i}_{name}" if i else "") for i, name in enumerate(names)]
        return {"modules.json": [
            {"idx": i, "name": str(i), "path": path, "type": new.format(kinds[name])}
            for i, (name, path) in enumerate(listed)]}  # fmt: skip

    def dense(i, inputs, outputs, bias, activation):
        folder = f"{i}_Dense"
        config = {"in_features": inputs, "out_features": outputs, "bias": bias, "activation_function": activation,
                  "module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"}  # fmt: skip
        names = {"linear.weight": [outputs, inputs]} | ({"linear.bias": [outputs]} if bias else {})
        return {f"{folder}/config.json": config}, {f"{folder}/model.safetensors": names}

    pooling = lambda mode, **more: {"1_Pooling/config.json": {"embedding_dimension": 32, "pooling_mode": mode} | more}
    for mode in ("mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"):
        files = base | modules("Transformer", "Pooling", "Normalize") | pooling(mode, include_prompt=True)
        owners.text(f"pooling-{mode}", files, shapes, tokenizer)
    flags = {"1_Pooling/config.json": {
        "word_embedding_dimension": 32, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": False,
        "pooling_mode_max_tokens": True, "pooling_mode_mean_sqrt_len_tokens": False,
        "pooling_mode_weightedmean_tokens": False, "pooling_mode_lasttoken": False}}  # fmt: skip
    old = {"sentence_bert_config.json": {"max_seq_length": 16, "do_lower_case": False}}
    owners.text("pooling-flags", base | modules("Transformer", "Pooling") | flags | old, shapes, tokenizer)
    tanh, identity = "torch.nn.modules.activation.Tanh", "torch.nn.modules.linear.Identity"
    one, of_one = dense(2, 32, 12, True, tanh)
    files = base | modules("Transformer", "Pooling", "Dense") | pooling("mean") | one
    owners.text("dense-tanh", files, shapes | of_one, tokenizer)
    first, of_first = dense(2, 32, 20, True, "torch.nn.modules.activation.GELU")
    second, of_second = dense(3, 20, 8, False, identity)
    files = base | modules("Transformer", "Pooling", "Dense", "Dense", "Normalize") | pooling("cls") | first | second
    owners.text("dense-twice", files, shapes | of_first | of_second, tokenizer)
    plain, of_plain = dense(2, 32, 12, False, identity)
    files = base | modules("Transformer", "Pooling", "Dense") | pooling("mean_sqrt_len_tokens") | plain
    owners.text("dense-plain", files, shapes | of_plain, tokenizer)

    config = RobertaConfig(**BERT, type_vocab_size=1)
    drawn = AutoModel.from_config(config, add_pooling_layer=False)
    files = base | modules("Transformer", "Pooling") | pooling("mean") | {"config.json": small(config.to_dict())}
    owners.text("roberta", files, {"model.safetensors": saved_shapes(drawn)}, tokenizer)

    t5 = dict(vocab_size=305, d_model=32, d_kv=12, num_heads=2, num_layers=1, d_ff=48, feed_forward_proj="relu")
    names = saved_shapes(T5EncoderModel(T5Config(**t5)))
    bias, of_bias = dense(2, 32, 12, True, tanh)
    files = base | modules("Transformer", "Pooling", "Dense") | pooling("max") | bias
    files |= {"config.json": t5 | {"model_type": "t5", "architectures": ["T5EncoderModel"]}}
    owners.text("t5-dense", files, {"model.safetensors": names} | of_bias, tokenizer)


def main() -> None:
    goldens = pathlib.Path(sys.argv[1])
    owners = Owners()
    image_cases(owners)
    text_cases(owners, goldens / "minilm/tokenizer.json")
    versions = common.versions() | {"sentence-transformers": __import__("sentence_transformers").__version__}
    (goldens / "owners.json").write_text(
        json.dumps({"versions": versions, "cases": owners.cases}, separators=(",", ":"), sort_keys=True) + "\n")
    common.write_tensors(goldens / "owners.safetensors", owners.results)
    for name in owners.cases:
        print(name)


if __name__ == "__main__":
    main()
