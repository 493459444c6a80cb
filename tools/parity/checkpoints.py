"""Writes the small PyTorch and safetensors files that percept-checkpoint is tested on.

    python tools/parity/checkpoints.py crates/percept-checkpoint/tests/data

Needs torch and NumPy, and nothing else. `left_out.json` names what is beside the model in `beside.pt`
and cannot be read. `expected.json` has, per file, each tensor's dtype, shape and values
as torch itself sees them.
"""

import argparse
import collections
import datetime
import enum
import functools
import json
import pathlib
import struct
import sys
import types

import numpy as np
import torch

NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint64: "U64", torch.uint32: "U32", torch.uint16: "U16", torch.uint8: "U8",
    torch.bool: "BOOL",
}
OUT = pathlib.Path(sys.argv[1])
EXPECTED = {}
LEFT_OUT = []


def describe(tensors):
    return {
        name: {
            "dtype": NAMES[t.dtype],
            "shape": list(t.shape),
            "values": t.detach().to(torch.float32).flatten().tolist(),
        }
        for name, t in tensors.items()
    }


def save(file, obj, tensors, **options):
    torch.save(obj, OUT / file, **options)
    EXPECTED[file] = describe(tensors)


class Inner(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.proj = torch.nn.Linear(3, 2)
        self.register_buffer("steps", torch.tensor([1, 2, 3]))

    def forward(self, x):
        return self.proj(x)


class Outer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = torch.nn.Sequential(Inner(), torch.nn.GELU(), Inner())
        self.scale = torch.nn.Parameter(torch.tensor(2.5))

    def forward(self, x):
        return x * self.scale


def write_safetensors(file, tensors, metadata=None):
    """The format by hand: eight bytes of length, JSON, bytes."""
    header, data = {}, b""
    if metadata:
        header["__metadata__"] = metadata
    for name, t in tensors.items():
        raw = t.contiguous().flatten().view(torch.uint8).numpy().tobytes()
        header[name] = {"dtype": NAMES[t.dtype], "shape": list(t.shape),
                        "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (OUT / file).parent.mkdir(exist_ok=True)
    (OUT / file).write_bytes(struct.pack("<Q", len(text)) + text + data)
    return describe(tensors)


class Colour(enum.Enum):
    RED = 1


class Settings:
    class Nested:
        pass


def beside(base):
    """A model with one of everything beside it that a state dict or a training run may have."""
    parameter = torch.nn.Parameter(base)
    parameter.note = "kept"
    read = {
        "w": base,
        "with_state": parameter,
        "u16": torch.tensor([1, 65535], dtype=torch.uint16),
        "u32": torch.tensor([1, 1 << 20], dtype=torch.uint32),
        "u64": torch.tensor([1, 1 << 20], dtype=torch.uint64),
    }
    left_out = {
        "float8": base.to(torch.float8_e4m3fn),
        "quantised": torch.quantize_per_tensor(base, 0.1, 0, torch.qint8),
        "per_channel": torch.quantize_per_channel(
            base, torch.full((4,), 0.1), torch.zeros(4, dtype=torch.long), 0, torch.qint8),
        "sparse": torch.eye(2).to_sparse(),
        "rows": torch.eye(2).to_sparse_csr(),
        "meta": torch.empty(2, device="meta"),
        "complex": torch.zeros(2, dtype=torch.complex64),
        "array": np.ones(3),
        "generator": np.random.default_rng(0),
        "list": [base],
        "storage": base.clone().untyped_storage(),
        "module": torch.nn.Linear(1, 1),
        "partial": functools.partial(print, end=""),
        "colour": Colour.RED,
        "nested": Settings.Nested(),
    }
    silent = {
        "ellipsis": ..., "size": base.shape, "device": base.device, "dtype": base.dtype,
        "namespace": types.SimpleNamespace(a=1), "arguments": argparse.Namespace(kind=int),
        "path": pathlib.PurePosixPath("/x"), "date": datetime.date(2020, 1, 1), "number": np.float32(1),
        "set": {1}, "bytes": b"x", "counter": collections.Counter("ab"), "class": Colour,
        "deque": collections.deque([1]), "long": 10**30, "none": None,
    }
    dictionary = {"default": collections.defaultdict(list, {"a": base + 1})}
    everything = read | left_out | silent | dictionary
    expected = read | {"default.a": base + 1}
    save("beside.pt", everything, expected)
    # Where this format keeps the sources of modules.
    plain = {name: value for name, value in everything.items() if name != "module"}
    save("beside_legacy.pt", plain, expected, _use_new_zipfile_serialization=False)
    save("protocol1.pt", everything, expected, pickle_protocol=1)
    LEFT_OUT.extend(sorted(left_out))


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    base = torch.randn(4, 6)
    types = collections.OrderedDict(
        f64=torch.randn(3, dtype=torch.float64),
        f32=torch.randn(2, 3),
        f16=torch.randn(5).half(),
        bf16=torch.randn(5).bfloat16(),
        i64=torch.tensor([-(1 << 20), 7]),
        i32=torch.tensor([-3, 1 << 20], dtype=torch.int32),
        i16=torch.tensor([-300, 300], dtype=torch.int16),
        i8=torch.tensor([-128, 127], dtype=torch.int8),
        u8=torch.tensor([0, 255], dtype=torch.uint8),
        bool=torch.tensor([True, False]),
        scalar=torch.tensor(0.25),
        empty=torch.zeros(0, 4),
    )
    save("types.pt", types, types)
    views = {
        "whole": base,
        "transposed": base.t(),
        "columns": base[:, 1:3],
        "every_other": base[::2, ::3],
        "last": base[3],
        "permuted": torch.arange(24.0).view(2, 3, 4).permute(2, 0, 1),
        "half_transposed": base.half().t(),
    }
    save("views.pt", views, views)
    save("views_legacy.pt", views, views, _use_new_zipfile_serialization=False)
    save("types_legacy.pt", types, types, _use_new_zipfile_serialization=False)
    for protocol in (3, 4, 5):
        save(f"protocol{protocol}.pt", types, types, pickle_protocol=protocol)

    # A training checkpoint: DataParallel names, optimiser, arguments, counters.
    model = Outer()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    sum(p.sum() for p in model.parameters()).backward()
    optimiser.step()
    state = model.state_dict()
    arguments = argparse.Namespace(lr=1e-3, name="run", layers=[1, 2], path=pathlib.PurePosixPath("/x"))
    save("training.pt", {
        "epoch": 3,
        "args": arguments,
        "state_dict": collections.OrderedDict((f"module.{k}", v) for k, v in state.items()),
        "optimizer": optimiser.state_dict(),
        "best": float("nan"),
        "rng": torch.get_rng_state(),
    }, state)
    student = {k: v + 1 for k, v in state.items()}
    save("dino.pt", {"student": student, "teacher": state, "epoch": 1}, state)
    save("parameters.pt", dict(model.named_parameters()), dict(model.named_parameters()))
    nested = {"a": {"b": {"c": base}}, "d": base + 1}
    save("nested.pt", nested, {"a.b.c": base, "d": base + 1})

    scripted = torch.jit.script(model.half())
    scripted.save(str(OUT / "torchscript.pt"))
    EXPECTED["torchscript.pt"] = describe(scripted.state_dict())

    beside(base)
    averaged = {k: v + 1 for k, v in types.items() if v.dtype == torch.float32}
    save("averaged.pt", {
        "epoch": 1, "state_dict": types, "state_dict_ema": averaged, "optimizer": optimiser.state_dict(),
    }, averaged)
    # 21 letters, which put the name of the first entry at 30 bytes.
    save("checkpoint_epoch_0001.pt", {"w": base}, {"w": base})

    # Refused, each for its own reason.
    torch.save(model, OUT / "whole_module.pt")
    torch.save({"x": torch.zeros(2, dtype=torch.complex64)}, OUT / "complex.pt")
    torch.save({"x": torch.zeros(1).expand(1000)}, OUT / "expanded.pt")
    torch.save({"x": torch.tensor([0.0, float("nan")])}, OUT / "nan.pt")

    EXPECTED["plain.safetensors"] = write_safetensors("plain.safetensors", types, {"format": "pt"})
    first = write_safetensors("sharded/model-00001-of-00002.safetensors", {"a": base})
    second = write_safetensors("sharded/model-00002-of-00002.safetensors", {"b.c": base.half()})
    EXPECTED["sharded"] = first | second
    (OUT / "sharded/model.safetensors.index.json").write_text(json.dumps({
        "metadata": {"total_size": 144},
        "weight_map": {"a": "model-00001-of-00002.safetensors",
                       "b.c": "model-00002-of-00002.safetensors"},
    }))
    (OUT / "expected.json").write_text(json.dumps(EXPECTED, indent=1))
    (OUT / "left_out.json").write_text(json.dumps(LEFT_OUT))


if __name__ == "__main__":
    main()
