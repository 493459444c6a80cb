"""Write checkpoints with random weights in every supported layout, with PyTorch's outputs beside them.

    python cases.py OUT                          # tiny cases, for crates/percept-model/tests/goldens
    python cases.py OUT --full --tokenizer-t5 tokenizer.json --minilm DIR    # full size, not committed
    python cases.py OUT --only hf-dino clippy    # some of them

Each case is a folder: a checkpoint, `case.json` and `expect.safetensors`; README.md has the format.
`max |f32 - f64|` on each line is the reference's own rounding noise.
"""
import argparse
import math
import os
import pathlib
import re
import shutil
import tempfile
from collections import Counter

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoModel, BertConfig, BertModel, T5Config, T5EncoderModel, logging

import common

logging.set_verbosity_error()
logging.disable_progress_bar()

TEXTS = [
    "a photo of a dog",
    "a photo of a cat and a sofa near the window.",
    "An ORIGAMI  aeroplane; 3 sheep, 12 cows & a horse!",
    "sky",
    "",
    "the dog and the cat sat on the grass near a potted plant, and " * 24,  # longer than 256 tokens
]

# --- tiny tokenizers (the real ones are not ours to commit) -------------------------------------

CORPUS = [
    f"{a} photo of {a} {b} {c} near the {d}, {n} {b}s and {a} {d}."
    for a in ("a", "an", "the")
    for b in ("dog", "cat", "horse", "sheep", "cow", "bird", "aeroplane", "sofa", "potted plant", "person")
    for c in ("on grass", "in the sky", "by a window", "origami", "large", "small")
    for d in ("road", "tree", "water", "wall", "building")
    for n in (3, 12, 45)
] + ["abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ 0123456789 .,;:!?&-'\"()"] * 20


def pieces(words: dict, count: int) -> list:
    """The `count` substrings (up to 8 characters) that cover most of the corpus, with their frequency.

    Not the tokenizers crate's trainers: their result differs from run to run.
    """
    found = Counter()
    for word, n in words.items():
        for i in range(len(word)):
            for j in range(i + 1, min(len(word), i + 8) + 1):
                found[word[i:j]] += n
    single = {p for p in found if len(p) == 1}
    longer = sorted((p for p in found if len(p) > 1), key=lambda p: (-found[p] * len(p), p))
    chosen = sorted(single) + longer[: count - len(single)]
    return [(p, found[p]) for p in chosen]


def tiny_t5_tokenizer(vocab: int = 300) -> Tokenizer:
    """Unigram with Metaspace as T5's: <pad> 0, </s> 1 appended, <unk> 2."""
    special = ["<pad>", "</s>", "<unk>"]
    words = Counter("\u2581" + w for line in CORPUS for w in line.split())
    scored = pieces(words, vocab - len(special))
    total = sum(n for _, n in scored)
    table = [(s, 0.0) for s in special] + [(p, round(math.log(n / total), 4)) for p, n in scored]
    tok = Tokenizer(models.Unigram(table, unk_id=2, byte_fallback=False))
    tok.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tok.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tok.decoder = decoders.Metaspace(prepend_scheme="first")
    tok.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tok.add_special_tokens(special)
    return tok


def tiny_bert_tokenizer(vocab: int = 300) -> Tokenizer:
    """WordPiece with BERT's lower-casing normaliser: [PAD] 0, [UNK] 1, [CLS] 2, [SEP] 3."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = Counter(w for line in CORPUS for w in re.findall(r"\w+|[^\w\s]", line.lower()))
    chosen = [p for p, _ in pieces(words, vocab // 2)]
    table = special + [form for p in chosen for form in (p, "##" + p)]
    tok = Tokenizer(models.WordPiece({p: i for i, p in enumerate(table)}, unk_token="[UNK]"))
    tok.normalizer = normalizers.BertNormalizer(lowercase=True)
    tok.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tok.decoder = decoders.WordPiece()
    tok.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])  # fmt: skip
    tok.add_special_tokens(special)
    return tok


# --- one case -----------------------------------------------------------------------------------


class Case:
    """Collects what a case folder holds, then writes it."""

    def __init__(self, out: pathlib.Path, name: str, kind: str, layout: str, about: str):
        self.dir = out / name
        shutil.rmtree(self.dir, ignore_errors=True)
        self.dir.mkdir(parents=True)
        self.info = {"kind": kind, "layout": layout, "about": about, "checkpoint": ".", "config": {}}
        self.tensors = {}
        self.notes = []

    def write(self, **info) -> None:
        self.info |= info | {"versions": common.versions(), "tolerance": 1e-4}
        common.write_json(self.dir / "case.json", self.info)
        common.write_tensors(self.dir / "expect.safetensors", self.tensors)
        size = sum(f.stat().st_size for f in self.dir.rglob("*") if f.is_file())
        print(f"{self.dir.name}: {size / 1e3:.0f} kB; " + "; ".join(self.notes), flush=True)

    def add_images(self, args: dict, state: dict, sizes: list, rule: str, norm: str = "imagenet") -> None:
        """`input.*` and `tokens.*` for images a, b, ... of the given (height, width)."""
        names = [chr(ord("a") + i) for i in range(len(sizes))]
        for i, (name, size) in enumerate(zip(names, sizes)):
            x = common.image(*size, seed=100 + i, norm=norm)
            tokens = common.vit_tokens(args, state, x, rule)
            self.tensors |= {f"input.{name}": x, f"tokens.{name}": tokens}
            if i == 0:
                exact = common.vit_tokens(args, {k: v.double() for k, v in state.items()}, x, rule, torch.float64)
                self.notes.append(f"tokens max |f32 - f64| {(tokens - exact).abs().max():.1e}")
        self.info |= {"images": names}
        self.info["config"] |= {
            "num_heads": args["heads"],
            "patch_size": args["patch"],
            "grid": args["grid"],
            "pos_interpolation": rule,
            "layer_norm_eps": args.get("eps", 1e-6),
            "activation": "gelu",
        }

    def compare(self, label: str, got: torch.Tensor, want: torch.Tensor, limit=2e-5) -> None:
        """Note the largest difference between two references; stop above `limit`."""
        diff = (got - want).abs().max().item()
        self.notes.append(f"{label} {diff:.1e}")
        assert limit is None or diff < limit, (self.dir.name, label, diff)


def vit_state(args: dict, seed: int, half: bool = False) -> dict:
    """Random timm state dict; with `half`, rounded to f16 (the caller stores it as such)."""
    model = common.make_vit(**args)
    common.randomise(model, seed)
    state = {k: v.detach() for k, v in model.state_dict().items()}
    return {k: v.half().float() for k, v in state.items()} if half else state


def stored(state: dict, half: bool) -> dict:
    return {k: v.half() for k, v in state.items()} if half else state


# --- image towers -------------------------------------------------------------------------------


def timm_case(out, name, layout, rule, about, args, sizes, half=False, seed=1):
    case = Case(out, name, "vit", layout, about)
    state = vit_state(args, seed, half)
    common.write_tensors(case.dir / "model.safetensors", stored(state, half))
    case.add_images(args, state, sizes, rule)
    if args.get("reg_tokens"):
        case.info["config"] |= {"reg_tokens": args["reg_tokens"], "no_embed_class": args["no_embed_class"]}
    case.write(checkpoint="model.safetensors")


def to_hf(state: dict, model_type: str, seed: int) -> dict:
    """timm keys to those of facebook/dino-* ("vit") or facebook/dinov2-* ("dinov2"...) on the Hub."""
    dim = state["cls_token"].shape[-1]
    out = {
        "embeddings.cls_token": state["cls_token"],
        "embeddings.position_embeddings": state["pos_embed"],
        "embeddings.patch_embeddings.projection.weight": state["patch_embed.proj.weight"],
        "embeddings.patch_embeddings.projection.bias": state["patch_embed.proj.bias"],
        "layernorm.weight": state["norm.weight"],
        "layernorm.bias": state["norm.bias"],
    }
    v2 = model_type != "vit"
    if v2:
        out["embeddings.mask_token"] = torch.randn(1, dim, generator=common.generator(seed))
    if "reg_token" in state:  # transformers has a position for CLS, none for registers
        out["embeddings.register_tokens"] = state["reg_token"]
        cls_pos = torch.randn(1, 1, dim, generator=common.generator(seed + 1)).half().float()
        out["embeddings.position_embeddings"] = torch.cat([cls_pos, state["pos_embed"]], 1)
        state["cls_token"] = state["cls_token"] + cls_pos  # as timm's converter folds it
    rename = {
        "norm1": "norm1" if v2 else "layernorm_before",
        "norm2": "norm2" if v2 else "layernorm_after",
        "attn.proj": "attention.output.dense",
        "mlp.fc1": "mlp.fc1" if v2 else "intermediate.dense",
        "mlp.fc2": "mlp.fc2" if v2 else "output.dense",
    }
    for key, value in state.items():
        if not key.startswith("blocks."):
            continue
        _, n, rest = key.split(".", 2)
        layer = f"encoder.layer.{n}."
        if rest.startswith("attn.qkv."):
            leaf = rest.rsplit(".", 1)[1]
            for part, chunk in zip(("query", "key", "value"), value.chunk(3)):
                out[f"{layer}attention.attention.{part}.{leaf}"] = chunk
        elif rest.startswith("ls"):
            out[f"{layer}layer_scale{rest[2]}.lambda1"] = value
        else:
            module, leaf = rest.rsplit(".", 1)
            out[f"{layer}{rename[module]}.{leaf}"] = value
    return out


def hf_case(out, name, layout, model_type, about, args, sizes, half=False, seed=2, shards=1):
    """A transformers folder; its own forward is checked against timm at the native size."""
    case = Case(out, name, "vit", layout, about)
    rule = "dino" if model_type == "vit" else "timm"
    state = vit_state(args, seed, half)
    tensors = stored(to_hf(state, model_type, seed), half)
    config = {
        "model_type": model_type,
        "architectures": [{"vit": "ViTModel", "dinov2": "Dinov2Model"}.get(model_type, "Dinov2WithRegistersModel")],
        "hidden_size": args["dim"],
        "num_hidden_layers": args["depth"],
        "num_attention_heads": args["heads"],
        "patch_size": args["patch"],
        "image_size": args["grid"] * args["patch"],
        "num_channels": 3,
        "hidden_act": "gelu",
        "layer_norm_eps": args.get("eps", 1e-6),
        "qkv_bias": True,
        "torch_dtype": "float16" if half else "float32",
    }
    if model_type == "vit":
        config |= {"intermediate_size": int(args.get("mlp_ratio", 4) * args["dim"])}
    else:
        config |= {"mlp_ratio": args.get("mlp_ratio", 4), "use_swiglu_ffn": False, "layerscale_value": 1.0}
    if args.get("reg_tokens"):
        config |= {"num_register_tokens": args["reg_tokens"]}
        case.info["config"] |= {"reg_tokens": args["reg_tokens"]}
    common.write_json(case.dir / "config.json", config)
    if shards == 1:
        common.write_tensors(case.dir / "model.safetensors", tensors)
    else:
        write_shards(case.dir, tensors, shards)
    case.add_images(args, state, sizes, rule)
    kwargs = {"add_pooling_layer": False} if model_type == "vit" else {}
    model, report = AutoModel.from_pretrained(case.dir, dtype=torch.float32, output_loading_info=True, **kwargs)
    assert not any(report.values()), report
    run = {"interpolate_pos_encoding": True} if model_type == "vit" else {}
    native = args["grid"] * args["patch"]
    with torch.inference_mode():
        for image, size in [("native", (native, native)), *zip(case.info["images"], sizes)]:
            x = common.image(native, native, seed=99) if image == "native" else case.tensors[f"input.{image}"]
            want = common.vit_tokens(args, state, x, rule) if image == "native" else case.tensors[f"tokens.{image}"]
            got = model.eval()(x, **run).last_hidden_state
            got = torch.cat([got[:, :1], got[:, 1 + args.get("reg_tokens", 0) :]], 1)
            same_rule = size == (native, native) or args.get("reg_tokens")
            case.compare(f"transformers {image}", got, want, 2e-5 if same_rule else None)
    case.write()


def write_shards(folder: pathlib.Path, tensors: dict, n: int) -> None:
    """model-0000i-of-0000n.safetensors and the index, as transformers writes them."""
    keys = sorted(tensors)
    index = {}
    for i in range(n):
        file = f"model-{i + 1:05}-of-{n:05}.safetensors"
        part = {k: tensors[k] for k in keys[i::n]}
        common.write_tensors(folder / file, part)
        index |= dict.fromkeys(part, file)
    size = sum(v.numel() * v.element_size() for v in tensors.values())
    common.write_json(folder / "model.safetensors.index.json", {
        "metadata": {"total_size": size}, "weight_map": dict(sorted(index.items()))})  # fmt: skip


# --- text towers --------------------------------------------------------------------------------


def t5_model(config: dict, seed: int, half: bool) -> T5EncoderModel:
    model = T5EncoderModel(T5Config(**config)).eval()
    common.randomise(model, seed, d_kv=config["d_kv"])
    return model.half().float() if half else model


def dense_weight(dim: int, seed: int) -> torch.Tensor:
    return torch.randn(dim, dim, generator=common.generator(seed)) / dim**0.5


def sentence_folder(folder: pathlib.Path, dim: int, max_length: int, dense=None) -> None:
    """The small files of a sentence-transformers model: modules, pooling, Dense, length limit."""
    kinds = ["Transformer", "Pooling"] + (["Dense"] if dense is not None else []) + ["Normalize"]
    common.write_json(folder / "modules.json", [
        {"idx": i, "name": str(i), "path": f"{i}_{k}" if i else "", "type": f"sentence_transformers.models.{k}"}
        for i, k in enumerate(kinds)])  # fmt: skip
    common.write_json(folder / "sentence_bert_config.json", {"max_seq_length": max_length, "do_lower_case": False})
    (folder / "1_Pooling").mkdir()
    common.write_json(folder / "1_Pooling/config.json", {
        "word_embedding_dimension": dim, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True,
        "pooling_mode_max_tokens": False, "pooling_mode_mean_sqrt_len_tokens": False})  # fmt: skip
    if dense is not None:
        (folder / "2_Dense").mkdir()
        common.write_json(folder / "2_Dense/config.json", {
            "in_features": dim, "out_features": dense.shape[0], "bias": False,
            "activation_function": "torch.nn.modules.linear.Identity"})  # fmt: skip
        common.write_tensors(folder / "2_Dense/model.safetensors", {"linear.weight": dense})


def check_sentence_transformers(case: Case, special: dict) -> None:
    """Load a copy of the folder, with the tokenizer config that it wants, in sentence-transformers itself."""
    from sentence_transformers import SentenceTransformer

    with tempfile.TemporaryDirectory() as copy:
        shutil.copytree(case.dir, copy, dirs_exist_ok=True)
        common.write_json(
            pathlib.Path(copy) / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"} | special)
        model = SentenceTransformer(copy, device="cpu", model_kwargs={"dtype": torch.float32})
        got = torch.tensor(model.encode(case.info["texts"]))
    case.compare("sentence-transformers", got, case.tensors["text_embeddings"])


def add_texts(case: Case, model, tokenizer: Tokenizer, texts: list, max_length: int, dense=None) -> torch.Tensor:
    ids, mask = common.encode(tokenizer, texts, max_length)
    emb = common.sentence_embeddings(model, ids, mask, dense)
    exact = common.sentence_embeddings(model.double(), ids, mask, dense)
    model.float()
    case.notes.append(f"text max |f32 - f64| {(emb - exact).abs().max():.1e}")
    case.tensors |= {"text_embeddings": emb, "input_ids": ids, "attention_mask": mask}
    case.info |= {"texts": texts}
    case.info["config"] |= {"max_length": max_length}
    return emb


def sentence_t5_case(out, name, about, config, tokenizer, file="model.safetensors", texts=TEXTS, seed=3):
    case = Case(out, name, "text", "sentence-t5", about)
    model = t5_model(config, seed, half=True)
    weights = {k: v.half() for k, v in model.state_dict().items()}
    if file.endswith(".safetensors"):
        weights.pop("encoder.embed_tokens.weight")  # the same tensor as shared.weight
        common.write_tensors(case.dir / file, weights)
    else:
        torch.save(weights, case.dir / file)
    dense = dense_weight(config["d_model"], seed)
    sentence_folder(case.dir, config["d_model"], 256, dense)
    common.write_json(case.dir / "config.json", config | {
        "model_type": "t5", "architectures": ["T5EncoderModel"], "torch_dtype": "float16"})  # fmt: skip
    (case.dir / "tokenizer.json").write_text(tokenizer.to_str(pretty=False), encoding="utf-8")
    add_texts(case, model, tokenizer, texts, 256, dense)
    check_sentence_transformers(case, {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"})
    case.write()


def minilm_case(out, name, about, config, tokenizer, half, seed=4):
    case = Case(out, name, "text", "minilm", about)
    model = BertModel(BertConfig(**config), add_pooling_layer=False).eval()
    common.randomise(model, seed)
    model = model.half().float() if half else model
    common.write_tensors(case.dir / "model.safetensors", stored(model.state_dict(), half))
    sentence_folder(case.dir, config["hidden_size"], 256)
    common.write_json(case.dir / "config.json", config | {
        "model_type": "bert", "architectures": ["BertModel"], "position_embedding_type": "absolute",
        "torch_dtype": "float16" if half else "float32"})  # fmt: skip
    # As the published file: its own truncation and fixed padding, which are not those of the model.
    tokenizer.enable_truncation(128)
    tokenizer.enable_padding(length=128, pad_id=0, pad_token="[PAD]")
    (case.dir / "tokenizer.json").write_text(tokenizer.to_str(pretty=False), encoding="utf-8")
    add_texts(case, model, tokenizer, TEXTS, 256)
    check_sentence_transformers(
        case, {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"})
    case.write()


def clippy_case(out, name, about, args, sizes, t5, tokenizer, seed=5):
    """The public checkpoint's layout: one .pt, both towers, a leading `module.`."""
    case = Case(out, name, "dual", "clippy", about)
    state = vit_state(args, seed)
    text = t5_model(t5, seed + 1, half=False)
    dense = dense_weight(t5["d_model"], seed + 2)
    weights = {f"module.visual.trunk.{k}": v for k, v in state.items()}
    weights |= {f"module.text.0.auto_model.{k}": v for k, v in text.state_dict().items()}
    weights |= {"module.text.2.linear.weight": dense, "module.logit_scale": torch.tensor(3.9120)}
    torch.save({"epoch": 5, "name": name, "state_dict": weights}, case.dir / "clippy.pt")
    (case.dir / "tokenizer.json").write_text(tokenizer.to_str(pretty=False), encoding="utf-8")
    case.add_images(args, state, sizes, "dino", norm="openai")
    emb = add_texts(case, text, tokenizer, TEXTS[:-1], 256, dense)
    for image, size in zip(case.info["images"], sizes):
        grid = tuple(n // args["patch"] for n in size)
        case.tensors[f"similarity.{image}"] = common.similarity(case.tensors[f"tokens.{image}"], emb, grid)
    for pool, value in common.pooled(case.tensors["tokens.a"]).items():
        case.tensors[f"image_embedding.{pool}"] = value
    case.info["config"] |= {
        "text": {k: t5[k] for k in ("num_heads", "d_kv", "feed_forward_proj", "relative_attention_max_distance")}
    }
    case.info["config"]["text"] |= {"layer_norm_epsilon": 1e-6}
    case.write(checkpoint="clippy.pt", tokenizer="tokenizer.json")


# --- the lists ----------------------------------------------------------------------------------


def t5_config(d_model, d_ff, heads, d_kv, layers, vocab, ff="relu") -> dict:
    return {
        "vocab_size": vocab, "d_model": d_model, "d_ff": d_ff, "num_heads": heads, "d_kv": d_kv,
        "num_layers": layers, "feed_forward_proj": ff, "relative_attention_num_buckets": 32,
        "relative_attention_max_distance": 128, "layer_norm_epsilon": 1e-6, "pad_token_id": 0, "eos_token_id": 1,
    }  # fmt: skip


def bert_config(dim, layers, heads, vocab, positions) -> dict:
    return {
        "vocab_size": vocab, "hidden_size": dim, "num_hidden_layers": layers, "num_attention_heads": heads,
        "intermediate_size": 4 * dim, "max_position_embeddings": positions, "type_vocab_size": 2,
        "hidden_act": "gelu", "layer_norm_eps": 1e-12, "pad_token_id": 0,
    }  # fmt: skip


ABOUT = {
    "timm-dino": "timm/DINO keys; positions resampled by DINO's rule",
    "timm-dinov2": "timm keys with LayerScale; positions resampled by timm's rule",
    "reg": "timm reg4 keys: pos_embed has no CLS part, the registers follow CLS",
    "reg-pos": "timm with no_embed_class=False: pos_embed has CLS, the registers and the patches, in this order",
    "hf-dino": "facebook/dino-* folder; eps 1e-12 from config.json; other sizes by DINO's rule, unlike transformers",
    "hf-dinov2": "facebook/dinov2-* folder with an unused mask_token; other sizes by timm's rule, unlike transformers",
    "hf-reg": "facebook/dinov2-with-registers-* folder: position for CLS, none for the registers",
    "shards": "as hf-dinov2, in three files with an index",
    "clippy": "torch.save of {epoch, name, state_dict} with `module.`; shared and embed_tokens are one storage",
    "t5": "sentence-t5 folder: f16 transformer, f32 Dense, mean pooling, L2",
    "t5-v1.1": "sentence-t5 folder with gated-gelu (tanh GELU; wi_0, wi_1), transformer in pytorch_model.bin",
    "minilm": "all-MiniLM folder; tokenizer.json's own truncation and padding must be overridden",
}


def tiny(out, _args):
    vit = dict(dim=32, depth=2, heads=2)
    p16, p14 = vit | dict(patch=16, grid=4), vit | dict(patch=14, grid=3)
    scaled = p14 | dict(init_values=1e-5, mlp_ratio=2)
    reg = scaled | dict(reg_tokens=4, depth=1)
    native, wide, tall = (42, 42), (28, 56), (56, 28)
    t5_tok, bert_tok = tiny_t5_tokenizer(), tiny_bert_tokenizer()
    t5 = t5_config(32, 64, 2, 12, 2, t5_tok.get_vocab_size())
    return {
        "timm-dino": lambda n: timm_case(out, n, "timm-dino", "dino", ABOUT["timm-dino"], p16,
                                         [(64, 64), (32, 80), (48, 32)], half=True),
        "timm-dinov2": lambda n: timm_case(out, n, "timm-dinov2", "timm", ABOUT["timm-dinov2"], scaled,
                                           [native, wide, tall], half=True),
        "timm-dinov2-reg": lambda n: timm_case(out, n, "timm-dinov2", "timm", ABOUT["reg"],
                                               reg | dict(no_embed_class=True), [wide], half=True),
        "timm-dinov2-reg-pos": lambda n: timm_case(out, n, "timm-dinov2", "timm", ABOUT["reg-pos"],
                                                   reg | dict(no_embed_class=False), [wide], half=True),
        "hf-dino": lambda n: hf_case(out, n, "hf-dino", "vit", ABOUT["hf-dino"],
                                     p16 | dict(grid=3, eps=1e-12, mlp_ratio=2), [(48, 48), (32, 48)], half=True),
        "hf-dinov2": lambda n: hf_case(out, n, "hf-dinov2", "dinov2", ABOUT["hf-dinov2"], scaled,
                                       [native, wide], half=True),
        "hf-dinov2-reg": lambda n: hf_case(out, n, "hf-dinov2", "dinov2_with_registers", ABOUT["hf-reg"],
                                           reg | dict(no_embed_class=True), [wide], half=True),
        "hf-dinov2-shards": lambda n: hf_case(out, n, "hf-dinov2", "dinov2", ABOUT["shards"],
                                              scaled | dict(depth=1), [native], half=True, shards=3),
        "clippy": lambda n: clippy_case(out, n, ABOUT["clippy"], p16 | dict(grid=3, depth=1, mlp_ratio=2),
                                        [(48, 48), (32, 48)], t5 | dict(num_layers=1), t5_tok),
        "sentence-t5": lambda n: sentence_t5_case(out, n, ABOUT["t5"], t5, t5_tok),
        "sentence-t5-v1_1": lambda n: sentence_t5_case(out, n, ABOUT["t5-v1.1"], t5 | dict(
            feed_forward_proj="gated-gelu", num_layers=1), t5_tok, "pytorch_model.bin", TEXTS[:-1]),
        "minilm": lambda n: minilm_case(out, n, ABOUT["minilm"], bert_config(
            32, 2, 2, bert_tok.get_vocab_size(), 264), bert_tok, half=True),
    }  # fmt: skip


def full(out, args):
    b, s = dict(dim=768, depth=12, heads=12), dict(dim=384, depth=12, heads=6)
    p16, p14 = dict(patch=16, grid=14), dict(patch=14, grid=37, init_values=1e-5)
    sizes = [(224, 224), (224, 336), (448, 448)]
    t5 = t5_config(768, 3072, 12, 64, 12, 32128)

    def tok(path, name):
        return Tokenizer.from_file(str(path)) if path else exit(f"{name} is needed for this case")

    return {
        "timm-dino-b16": lambda n: timm_case(out, n, "timm-dino", "dino", ABOUT["timm-dino"], b | p16, sizes),
        "timm-dinov2-s14": lambda n: timm_case(out, n, "timm-dinov2", "timm", ABOUT["timm-dinov2"], s | p14, sizes),
        "timm-dinov2-b14": lambda n: timm_case(out, n, "timm-dinov2", "timm", ABOUT["timm-dinov2"], b | p14, sizes),
        "timm-dinov2-reg4-s14": lambda n: timm_case(
            out, n, "timm-dinov2", "timm", ABOUT["reg"], s | p14 | dict(reg_tokens=4, no_embed_class=True), sizes),
        "hf-dino-s16": lambda n: hf_case(out, n, "hf-dino", "vit", ABOUT["hf-dino"], s | p16 | dict(eps=1e-12), sizes),
        "hf-dino-b16": lambda n: hf_case(out, n, "hf-dino", "vit", ABOUT["hf-dino"], b | p16 | dict(eps=1e-12), sizes),
        "hf-dinov2-s14": lambda n: hf_case(out, n, "hf-dinov2", "dinov2", ABOUT["hf-dinov2"], s | p14, sizes),
        "hf-dinov2-b14": lambda n: hf_case(out, n, "hf-dinov2", "dinov2", ABOUT["hf-dinov2"], b | p14, sizes),
        "clippy-b16-t5": lambda n: clippy_case(out, n, ABOUT["clippy"], b | p16, sizes, t5,
                                               tok(args.tokenizer_t5, "--tokenizer-t5")),
        "sentence-t5-base": lambda n: sentence_t5_case(out, n, ABOUT["t5"], t5,
                                                       tok(args.tokenizer_t5, "--tokenizer-t5")),
        "minilm-l6": lambda n: minilm_case(out, n, ABOUT["minilm"], bert_config(384, 6, 12, 30522, 512), tok(
            args.minilm and args.minilm / "tokenizer.json", "--minilm"), half=False),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path, help="folder that gets one folder per case")
    parser.add_argument("--full", action="store_true", help="full-size models instead of tiny ones")
    parser.add_argument("--only", nargs="+", metavar="CASE", help="only these cases")
    parser.add_argument("--tokenizer-t5", type=pathlib.Path, help="T5's tokenizer.json (full cases)")
    parser.add_argument("--minilm", type=pathlib.Path, help="all-MiniLM-L6-v2 folder (full cases)")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cases = (full if args.full else tiny)(args.out, args)
    for name in args.only or cases:
        cases[name](name)


if __name__ == "__main__":
    main()
