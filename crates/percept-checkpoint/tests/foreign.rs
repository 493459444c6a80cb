//! Files as other programs leave them: what is beside the model does not cost the model, and is named.

// The lints let tests panic, but not the functions that tests share.
#![allow(clippy::panic, clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use common::{Pickle, TempFile, one_tensor, refusal, safetensors, torch_zip};
use percept_checkpoint::{Checkpoint, CheckpointError as E, Dtype, Format, StandIn};
use proptest::prelude::*;

fn open(file: &TempFile) -> Checkpoint {
    Checkpoint::open(&file.path).unwrap_or_else(|e| panic!("{e}"))
}

// PyTorch's zip layout, byte by byte.

/// Places each entry's bytes at a multiple of this.
const ALIGNMENT: usize = 64;

#[derive(Default)]
struct TorchZip {
    bytes: Vec<u8>,
    directory: Vec<u8>,
    entries: u64,
}

impl TorchZip {
    /// A local header with the padding in its extra field, the bytes, a data descriptor.
    fn entry(&mut self, name: &str, bytes: &[u8]) {
        let header_at = self.bytes.len();
        let name_len = u16::try_from(name.len()).unwrap();
        let unpadded = header_at + 30 + name.len() + 4;
        let padding = unpadded.next_multiple_of(ALIGNMENT) - unpadded;
        let padding = u16::try_from(padding).unwrap();
        // CRC-32 is not looked at: entries are read by offset.
        let (crc, len) = (0u32, u32::try_from(bytes.len()).unwrap());

        self.bytes.extend(b"PK\x03\x04\0\0\x08\x08");
        self.bytes.extend([0; 18]);
        self.bytes.extend(name_len.to_le_bytes());
        self.bytes.extend((padding + 4).to_le_bytes());
        self.bytes.extend(name.as_bytes());
        self.bytes.extend(b"FB");
        self.bytes.extend(padding.to_le_bytes());
        self.bytes.extend(std::iter::repeat_n(b'Z', padding.into()));
        self.bytes.extend(bytes);
        self.bytes.extend(b"PK\x07\x08");
        for value in [crc, len, len] {
            self.bytes.extend(value.to_le_bytes());
        }

        self.directory
            .extend(b"PK\x01\x02\0\0\0\0\x08\x08\0\0\0\0\0\0");
        for value in [crc, len, len] {
            self.directory.extend(value.to_le_bytes());
        }
        self.directory.extend(name_len.to_le_bytes());
        self.directory.extend([0; 12]);
        (self.directory).extend(u32::try_from(header_at).unwrap().to_le_bytes());
        self.directory.extend(name.as_bytes());
        self.entries += 1;
    }

    /// The directory, the zip64 end record and its locator, the end record.
    fn finish(mut self) -> Vec<u8> {
        let start = self.bytes.len() as u64;
        let size = self.directory.len() as u64;
        self.bytes.append(&mut self.directory);
        let end = self.bytes.len() as u64;
        self.bytes.extend(b"PK\x06\x06");
        self.bytes.extend(44u64.to_le_bytes());
        self.bytes.extend(b"\x1e\x03\x2d\0");
        self.bytes.extend([0; 8]);
        for value in [self.entries, self.entries, size, start] {
            self.bytes.extend(value.to_le_bytes());
        }
        self.bytes.extend(b"PK\x06\x07\0\0\0\0");
        self.bytes.extend(end.to_le_bytes());
        self.bytes.extend(1u32.to_le_bytes());
        self.bytes.extend(b"PK\x05\x06\0\0\0\0");
        for _ in 0..2 {
            self.bytes
                .extend(u16::try_from(self.entries).unwrap().to_le_bytes());
        }
        for value in [size, start] {
            self.bytes
                .extend(u32::try_from(value).unwrap().to_le_bytes());
        }
        self.bytes.extend([0; 2]);
        self.bytes
    }
}

/// What `torch.save({'w': torch.tensor([1.5, -2.0])}, NAME.pt)` writes.
fn archive_named(name: &str) -> Vec<u8> {
    let mut zip = TorchZip::default();
    let values = [1.5f32.to_le_bytes(), (-2f32).to_le_bytes()].concat();
    for (entry, bytes) in [
        ("data.pkl", &one_tensor(2, 0, &[2], &[1])[..]),
        (".format_version", b"1"),
        (".storage_alignment", b"64"),
        ("byteorder", b"little"),
        ("data/0", &values),
        ("version", b"3\n"),
        (".data/serialization_id", &[b'0'; 40]),
    ] {
        zip.entry(&format!("{name}/{entry}"), bytes);
    }
    zip.finish()
}

#[test]
fn archive_names_of_any_length() {
    for length in 1..=80 {
        let file = TempFile::new("file", &archive_named(&"m".repeat(length)));
        let checkpoint = Checkpoint::open(&file.path).unwrap_or_else(|e| panic!("{length}: {e}"));
        assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["w"], "{length}");
        assert_eq!(checkpoint.read_f32("w").unwrap(), [1.5, -2.0], "{length}");
    }
}

#[test]
fn archives_with_data_before_them_are_refused_as_torch_does() {
    // Torch looks for an archive in the first four bytes.
    let before = [b"#!/bin/sh\n", &archive_named("m")[..]].concat();
    assert!(matches!(refusal(before), E::UnknownFormat { .. }));
    // And counts offsets from there, where this file has another archive.
    let two = [archive_named("m"), archive_named("other")].concat();
    assert!(matches!(refusal(two), E::Zip { .. }));
}

// What stands beside the tensors in a PyTorch file.

/// A state dict of the tensor `w` and `value`, one or more instructions, under `x`.
fn beside(value: impl FnOnce(Pickle) -> Pickle) -> Vec<u8> {
    value(
        Pickle::new()
            .raw(b"}(")
            .text("w")
            .tensor(1, 0, &[1], &[1])
            .text("x"),
    )
    .raw(b"u")
    .stop()
}

/// Opens that, checks `w`, and returns why `x` was left out.
fn reason_for(value: impl FnOnce(Pickle) -> Pickle) -> Option<String> {
    let file = TempFile::new("f", &torch_zip(&beside(value), &2.5f32.to_le_bytes()));
    let checkpoint = open(&file);
    assert_eq!(checkpoint.read_f32("w").unwrap(), [2.5]);
    assert!(checkpoint.info("x").is_none());
    let reason = checkpoint.left_out().get("x").cloned();
    if let Some(reason) = &reason {
        let note = format!("left out: x: {reason}");
        assert_eq!(checkpoint.notes(), [note]);
        let error = checkpoint.read_f32("x").unwrap_err();
        assert!(
            matches!(&error, E::LeftOut { reason: r, .. } if r == reason),
            "{error:?}"
        );
    }
    reason
}

/// A storage `0` of the class `module.name`.
fn storage(pickle: Pickle, module: &str, name: &str, elements: i64) -> Pickle {
    (pickle.raw(b"(").text("storage").global(module, name))
        .text("0")
        .text("cpu")
        .int(elements)
        .raw(b"tQ")
}

/// A call of `module.name` with nothing.
fn call(module: &'static str, name: &'static str) -> impl FnOnce(Pickle) -> Pickle {
    move |p| p.global(module, name).raw(b")R")
}

#[test]
fn tensors_of_other_kinds_are_left_out_by_name() {
    for (function, kind) in [
        ("_rebuild_qtensor", "a quantised tensor"),
        ("_rebuild_sparse_tensor", "a sparse tensor"),
        ("_rebuild_nested_tensor", "a nested tensor"),
        (
            "_rebuild_meta_tensor_no_storage",
            "a tensor on the meta device, which has no values",
        ),
        (
            "_rebuild_wrapper_subclass",
            "a tensor subclass without a storage of its own",
        ),
    ] {
        assert_eq!(reason_for(call("torch._utils", function)).unwrap(), kind);
    }
    let array = call("numpy._core.multiarray", "_reconstruct");
    assert_eq!(reason_for(array).unwrap(), "a NumPy array, not a tensor");
    let complex = reason_for(|p| {
        let p = p.global("torch._utils", "_rebuild_tensor_v2").raw(b"(");
        let p = storage(p, "torch", "ComplexFloatStorage", 1).int(0);
        p.ints(&[1]).ints(&[1]).raw(b"\x89NtR")
    });
    assert_eq!(
        complex.unwrap(),
        "its numbers are of type torch.ComplexFloatStorage"
    );
    let expanded = reason_for(|p| p.tensor(1, 0, &[5], &[0])).unwrap();
    assert!(expanded.contains("a storage of 1 to 5"), "{expanded}");
    let list = reason_for(|p| p.raw(b"]").tensor(1, 0, &[1], &[1]).raw(b"a"));
    assert_eq!(
        list.unwrap(),
        "it is a list of 1, with tensors that have no names"
    );
    let bare = reason_for(|p| storage(p, "torch", "FloatStorage", 1));
    assert_eq!(bare.unwrap(), "it is a storage, which has no shape");
}

#[test]
fn unknown_calls_and_objects_are_left_out_by_name() {
    let called = reason_for(call("functools", "partial")).unwrap();
    assert!(called.contains("calling `functools.partial`"), "{called}");
    // The result of a call, called, given items and a state.
    let again = reason_for(|p| {
        call("mine", "make")(p)
            .raw(b")R")
            .text("a")
            .int(1)
            .raw(b"s}b")
    });
    assert!(again.is_some());
    let object = reason_for(|p| p.global("mine", "Config").raw(b")\x81}b")).unwrap();
    assert!(
        object.contains("an object of class `mine.Config`"),
        "{object}"
    );
    let old = reason_for(|p| {
        let p = p
            .global("copy_reg", "_reconstructor")
            .raw(b"(")
            .global("mine", "Config");
        p.global("__builtin__", "object").raw(b"NtR}b")
    });
    assert_eq!(old.unwrap(), object);
    // An enumeration's member and a method, as Python 3 names them.
    let member = reason_for(|p| {
        let p = p
            .global("builtins", "getattr")
            .raw(b"(")
            .global("mine", "Color");
        p.text("RED").raw(b"tR")
    });
    assert!(member.unwrap().contains("builtins.getattr"));
}

#[test]
fn many_that_are_left_out_are_counted() {
    let pickle = Pickle::new().raw(b"}(").text("w").tensor(1, 0, &[1], &[1]);
    let pickle = (0..25).fold(pickle, |p, i| call("mine", "make")(p.int(i)));
    let file = TempFile::new("f", &torch_zip(&pickle.raw(b"u").stop(), &[0; 4]));
    let checkpoint = open(&file);
    assert_eq!(checkpoint.left_out().len(), 25);
    assert_eq!(checkpoint.notes().len(), 21);
    assert_eq!(checkpoint.notes()[20], "left out: 5 more");
}

#[test]
fn plain_data_is_no_news() {
    for (module, name) in [
        ("argparse", "Namespace"),
        ("builtins", "Ellipsis"),
        ("builtins", "complex"),
        ("builtins", "set"),
        ("collections", "Counter"),
        ("collections", "deque"),
        ("datetime", "datetime"),
        ("numpy._core.multiarray", "scalar"),
        ("pathlib", "PosixPath"),
        ("torch", "device"),
        ("types", "SimpleNamespace"),
    ] {
        assert_eq!(reason_for(call(module, name)), None, "{module}.{name}");
        // As a value, and given a state.
        assert_eq!(
            reason_for(|p| p.global(module, name)),
            None,
            "{module}.{name}"
        );
        assert_eq!(
            reason_for(|p| call(module, name)(p).raw(b"}b")),
            None,
            "{module}.{name}"
        );
    }
    assert_eq!(reason_for(|p| p.global("torch", "float32")), None);
    assert_eq!(reason_for(|p| p.text("adamw")), None);
    // Protocol 1: a number, a truth value, a long one, a fraction.
    for text in ["I7\n", "I01\n", "L12345678901234567890123L\n", "F0.5\n"] {
        assert_eq!(reason_for(|p| p.raw(text.as_bytes())), None, "{text}");
    }
}

#[test]
fn plain_numbers_are_noted_and_read() {
    // The number 4.6 as protocol 2 writes it; 7 and 1 as protocol 1 does; a truth value is none.
    let half = |p: Pickle| p.raw(b"G").raw(&4.6f64.to_be_bytes());
    let file = TempFile::new("f", &torch_zip(&beside(half), &2.5f32.to_le_bytes()));
    let checkpoint = open(&file);
    assert_eq!(checkpoint.numbers().get("x"), Some(&4.6));
    assert_eq!(checkpoint.read_f32("x").unwrap(), [4.6]);
    assert_eq!(checkpoint.info("x"), None);
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["w"]);
    for (text, number) in [
        ("I7\n", Some(7.0)),
        ("I01\n", None),
        ("F0.5\n", Some(0.5)),
        ("L12345678901234567890123L\n", None),
    ] {
        let file = beside(|p| p.raw(text.as_bytes()));
        let file = TempFile::new("f", &torch_zip(&file, &2.5f32.to_le_bytes()));
        assert_eq!(open(&file).numbers().get("x").copied(), number, "{text}");
    }
    let nan = |p: Pickle| p.raw(b"G").raw(&f64::NAN.to_be_bytes());
    let file = TempFile::new("f", &torch_zip(&beside(nan), &2.5f32.to_le_bytes()));
    assert!(open(&file).read_f32("x").is_err());
    // A history of losses is no reason to refuse a file, nor to keep all of it.
    let history = beside(|p| {
        (0..5000)
            .fold(p.raw(b"}("), |p, step| p.int(step).int(1))
            .raw(b"u")
    });
    let file = TempFile::new("f", &torch_zip(&history, &2.5f32.to_le_bytes()));
    assert_eq!(open(&file).numbers().len(), 4096);
}

#[test]
fn namespaces_are_dictionaries() {
    for (module, name) in [("argparse", "Namespace"), ("types", "SimpleNamespace")] {
        let filled = beside(|p| {
            let p = call(module, name)(p).raw(b"}");
            p.text("a").tensor(1, 0, &[1], &[1]).raw(b"sb")
        });
        let file = TempFile::new("f", &torch_zip(&filled, &2.5f32.to_le_bytes()));
        let checkpoint = open(&file);
        assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["w", "x.a"]);
        assert_eq!(checkpoint.read_f32("x.a").unwrap(), [2.5]);
    }
    // As a whole file, with a model among its attributes.
    let p = call("types", "SimpleNamespace")(Pickle::new()).raw(b"}");
    let p = p.text("state_dict").raw(b"}").text("a");
    let pickle = p.tensor(1, 0, &[1], &[1]).raw(b"ssb").stop();
    let file = TempFile::new("f", &torch_zip(&pickle, &2.5f32.to_le_bytes()));
    assert_eq!(open(&file).names().collect::<Vec<_>>(), ["a"]);
    assert_eq!(
        open(&file).taken().map(|taken| taken.key.as_str()),
        Some("state_dict")
    );
}

#[test]
fn dictionaries_of_any_make_are_read() {
    let names = |value: &dyn Fn(Pickle) -> Pickle| {
        let file = TempFile::new("f", &torch_zip(&beside(value), &2.5f32.to_le_bytes()));
        open(&file).names().map(str::to_owned).collect::<Vec<_>>()
    };
    let filled = |p: Pickle| p.text("a").tensor(1, 0, &[1], &[1]).raw(b"s");
    let default = |p: Pickle| {
        let p = p.global("collections", "defaultdict");
        filled(p.global("builtins", "list").raw(b"\x85R"))
    };
    assert_eq!(names(&default), ["w", "x.a"]);
    let copied = |p: Pickle| filled(p.global("builtins", "dict").raw(b"}")).raw(b"\x85R");
    assert_eq!(names(&copied), ["w", "x.a"]);
}

#[test]
fn parameters_with_a_state_and_size_objects_are_read() {
    let pickle = beside(|p| {
        let p = p
            .global("torch._utils", "_rebuild_parameter_with_state")
            .raw(b"(");
        let p = p.global("torch._utils", "_rebuild_tensor_v2").raw(b"(");
        let p = storage(p, "torch", "FloatStorage", 1).int(0);
        let p = p
            .global("torch", "Size")
            .ints(&[1])
            .raw(b"\x85R")
            .ints(&[1]);
        p.raw(b"\x89NtR\x88N}tR")
    });
    let file = TempFile::new("f", &torch_zip(&pickle, &2.5f32.to_le_bytes()));
    assert_eq!(open(&file).read_f32("x").unwrap(), [2.5]);
}

/// `_rebuild_tensor_v3` of `shape` over a storage of `bytes`.
fn typed(pickle: Pickle, dtype: &str, bytes: i64, offset: i64, shape: &[i64]) -> Pickle {
    let pickle = pickle
        .global("torch._utils", "_rebuild_tensor_v3")
        .raw(b"(");
    let pickle = storage(pickle, "torch.storage", "UntypedStorage", bytes).int(offset);
    (pickle.ints(shape).ints(&[1]).raw(b"\x89N"))
        .global("torch", dtype)
        .raw(b"tR")
}

#[test]
fn tensors_over_bytes_have_the_type_that_they_name() {
    let bytes: Vec<u8> = (1..=8).collect();
    let read = |dtype: &str, offset: i64, len: i64| {
        let pickle = Pickle::new().raw(b"}").text("x");
        let pickle = typed(pickle, dtype, 8, offset, &[len]).raw(b"s").stop();
        let file = TempFile::new("f", &torch_zip(&pickle, &bytes));
        Checkpoint::open(&file.path).map(|c| (c.info("x").unwrap().dtype, c.read_f32("x").unwrap()))
    };
    assert_eq!(
        read("uint16", 1, 2).unwrap(),
        (Dtype::U16, vec![1027.0, 1541.0])
    );
    assert_eq!(
        read("uint32", 1, 1).unwrap(),
        (Dtype::U32, vec![0x0807_0605 as f32])
    );
    assert_eq!(
        read("uint64", 0, 1).unwrap(),
        (Dtype::U64, vec![0x0807_0605_0403_0201u64 as f32])
    );
    let float = f32::from_le_bytes([5, 6, 7, 8]);
    assert_eq!(read("float32", 1, 1).unwrap(), (Dtype::F32, vec![float]));
    assert!(matches!(
        read("float32", 1, 2),
        Err(E::OutsideStorage { elements: 2, .. })
    ));
    let error = read("float8_e4m3fn", 0, 8).unwrap_err();
    assert!(
        matches!(error, E::AllLeftOut { reason, .. } if reason.ends_with("torch.float8_e4m3fn"))
    );
}

#[test]
fn files_of_before_the_zip_are_read_whatever_is_beside() {
    let magic_2 = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
    let magic_4 =
        b"\x80\x04\x95\x0d\0\0\0\0\0\0\0\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
    for magic in [&magic_2[..], magic_4, b"L119547037146038801333356L\n."] {
        // A complex tensor in storage `0`, one of 8-bit floats in `1`, one that is read in `2`.
        let stored = |p: Pickle, key: &str, class: (&str, &str), elements: i64| {
            (p.raw(b"(").text("storage").global(class.0, class.1))
                .text(key)
                .text("cpu")
                .int(elements)
                .raw(b"NtQ")
        };
        let plain = |p: Pickle, key: &str, class: &str, len: i64| {
            let p = p.global("torch._utils", "_rebuild_tensor_v2").raw(b"(");
            let p = stored(p, key, ("torch", class), len).int(0);
            p.ints(&[len]).ints(&[1]).raw(b"\x89NtR")
        };
        let p = Pickle::new().raw(b"}(").text("complex");
        let p = plain(p, "0", "ComplexFloatStorage", 1).text("eight");
        let p = p.global("torch._utils", "_rebuild_tensor_v3").raw(b"(");
        let p = stored(p, "1", ("torch.storage", "UntypedStorage"), 3).int(0);
        let p = p
            .ints(&[3])
            .ints(&[1])
            .raw(b"\x89N")
            .global("torch", "float8_e5m2");
        let object = plain(p.raw(b"tR").text("w"), "2", "FloatStorage", 2)
            .raw(b"u")
            .stop();
        let keys = ["0", "1", "2"]
            .iter()
            .fold(Pickle::new().raw(b"]("), |p, key| p.text(key));
        let mut bytes = magic.to_vec();
        bytes.extend(Pickle::new().int(1001).stop());
        bytes.extend(Pickle::new().raw(b"}").stop());
        bytes.extend(object);
        bytes.extend(keys.raw(b"e").stop());
        for (elements, storage) in [(1u64, &[9; 8][..]), (3, &[9; 3])] {
            bytes.extend(elements.to_le_bytes());
            bytes.extend(storage);
        }
        bytes.extend(2u64.to_le_bytes());
        bytes.extend([1.5f32.to_le_bytes(), (-2f32).to_le_bytes()].concat());

        let checkpoint = open(&TempFile::new("f", &bytes));
        assert_eq!(checkpoint.format(), Format::TorchLegacy);
        assert_eq!(checkpoint.read_f32("w").unwrap(), [1.5, -2.0]);
        let left_out: Vec<&str> = checkpoint.left_out().keys().map(String::as_str).collect();
        assert_eq!(left_out, ["complex", "eight"]);
    }
}

// Which dictionary is the model.

/// A training checkpoint with a dictionary of one tensor under each key, of the value of its place.
fn training(keys: &[&str]) -> TempFile {
    let pickle = Pickle::new().raw(b"}(").text("epoch").int(3);
    let pickle = (keys.iter().zip(0..)).fold(pickle, |p, (key, place)| {
        let p = p.text(key).raw(b"}").text("w");
        p.tensor(keys.len() as i64, place, &[1], &[1]).raw(b"s")
    });
    let values: Vec<u8> = (0..keys.len())
        .flat_map(|i| (i as f32).to_le_bytes())
        .collect();
    TempFile::new("f", &torch_zip(&pickle.raw(b"u").stop(), &values))
}

#[test]
fn averaged_weights_are_taken_first() {
    let order = [
        "state_dict_ema",
        "model_ema",
        "state_dict",
        "model_state_dict",
        "model",
    ];
    for (place, key) in order.iter().enumerate() {
        // In the file they stand the other way round.
        let rest: Vec<&str> = order[place..].iter().rev().copied().collect();
        let file = training(&rest);
        let checkpoint = open(&file);
        let taken = checkpoint.taken().unwrap();
        assert_eq!(taken.key, *key);
        assert_eq!(taken.passed_over, rest[..rest.len() - 1]);
        assert_eq!(checkpoint.read_f32("w").unwrap(), [(rest.len() - 1) as f32]);
    }
    // Options beside them are no news.
    let options = Pickle::new()
        .raw(b"}(")
        .text("hyper_parameters")
        .raw(b"}")
        .text("lr")
        .int(1);
    let options = options.raw(b"s").text("model").raw(b"}").text("w");
    let options = options.tensor(1, 0, &[1], &[1]).raw(b"su").stop();
    let file = TempFile::new("f", &torch_zip(&options, &[0; 4]));
    assert_eq!(open(&file).notes(), ["took `model`"]);
    let file = training(&["state_dict", "state_dict_ema", "optimizer"]);
    let note = "took `state_dict_ema`; passed over `state_dict`, `optimizer`";
    assert_eq!(open(&file).notes(), [note]);
    assert!(
        open(&TempFile::new("f", &archive_named("m")))
            .taken()
            .is_none()
    );
}

#[test]
fn averaged_weights_that_are_none_or_cannot_be_read() {
    let with = |value: &dyn Fn(Pickle) -> Pickle| {
        let p = value(Pickle::new().raw(b"}(").text("state_dict_ema"));
        let p = p
            .text("state_dict")
            .raw(b"}")
            .text("w")
            .tensor(1, 0, &[1], &[1]);
        let pickle = p.raw(b"su").stop();
        open(&TempFile::new(
            "f",
            &torch_zip(&pickle, &2.5f32.to_le_bytes()),
        ))
    };
    let none = with(&|p| p.raw(b"N"));
    assert_eq!(none.taken().unwrap().key, "state_dict");
    assert!(none.left_out().is_empty());
    // A pickled module.
    let object = with(&|p| p.global("timm.utils", "ModelEma").raw(b")\x81}b"));
    assert_eq!(object.taken().unwrap().key, "state_dict");
    assert!(object.left_out()["state_dict_ema"].contains("`timm.utils.ModelEma`"));
}

// Safetensors.

#[test]
fn safetensors_are_read_as_their_own_reader_reads_them() {
    let w = r#""w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#;
    for header in [
        format!(" {{{w}}}"),
        format!("\n\t{{{w}}}  "),
        format!(r#"{{"__metadata__":null,{w}}}"#),
        format!(r#"{{"__metadata__":{{}},{w}}}"#),
        r#"{"w":["F32",[1],[0,4]]}"#.to_owned(),
        r#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"more":1}}"#.to_owned(),
    ] {
        let bytes = safetensors(&header, &1.5f32.to_le_bytes());
        safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let checkpoint = open(&TempFile::new("f", &bytes));
        assert_eq!(checkpoint.read_f32("w").unwrap(), [1.5], "{header}");
    }
}

#[test]
fn safetensors_of_other_types_are_left_out_by_name() {
    let types = [
        ("F4", 2, 1),
        ("F6_E2M3", 4, 3),
        ("F6_E3M2", 4, 3),
        ("F8_E4M3", 1, 1),
        ("F8_E4M3FNUZ", 1, 1),
        ("F8_E5M2", 1, 1),
        ("F8_E5M2FNUZ", 1, 1),
        ("F8_E8M0", 1, 1),
        ("C64", 1, 8),
    ];
    for (dtype, elements, bytes) in types {
        let end = 4 + bytes;
        let header = format!(
            r#"{{"w":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}},
                 "x":{{"dtype":"{dtype}","shape":[{elements}],"data_offsets":[4,{end}]}}}}"#
        );
        let mut data = 1.5f32.to_le_bytes().to_vec();
        data.resize(end, 7);
        let bytes = safetensors(&header, &data);
        safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let checkpoint = open(&TempFile::new("f", &bytes));
        assert_eq!(checkpoint.read_f32("w").unwrap(), [1.5]);
        let reason = format!("its numbers are of type {dtype}");
        assert_eq!(
            checkpoint.left_out(),
            &BTreeMap::from([("x".to_owned(), reason)])
        );
    }
    // Three halves of a byte.
    let header = r#"{"x":{"dtype":"F4","shape":[3],"data_offsets":[0,2]}}"#;
    assert!(matches!(
        refusal(safetensors(header, &[0; 2])),
        E::PartialByte { .. }
    ));
    // Unsigned numbers, and tensors of nothing.
    let header = r#"{"a":{"dtype":"U16","shape":[2],"data_offsets":[0,4]},
        "b":{"dtype":"F32","shape":[0,3],"data_offsets":[4,4]},
        "c":{"dtype":"F32","shape":[],"data_offsets":[4,8]}}"#;
    let data = [1, 0, 255, 255, 0, 0, 192, 63];
    let checkpoint = open(&TempFile::new("f", &safetensors(header, &data)));
    assert_eq!(checkpoint.read_f32("a").unwrap(), [1.0, 65_535.0]);
    assert_eq!(checkpoint.read_f32("b").unwrap(), [0f32; 0]);
    assert_eq!(checkpoint.read_f32("c").unwrap(), [1.5]);
}

/// A header's JSON of a few tensors, right or nearly so, and the bytes after it.
fn nearly_safetensors() -> impl Strategy<Value = (String, usize)> {
    let dtype = prop::sample::select(vec![
        "F32", "F16", "U16", "I64", "BOOL", "F4", "F6_E2M3", "F8_E4M3", "F8_E8M0", "C64", "F128",
    ]);
    let bits = |dtype: &str| match dtype {
        "F32" => 32,
        "F16" | "U16" => 16,
        "I64" | "C64" => 64,
        "F4" => 4,
        "F6_E2M3" => 6,
        _ => 8,
    };
    let tensor = (dtype, prop::collection::vec(0usize..5, 0..4), 0usize..12);
    let opening = prop::sample::select(vec!["{", " {", "{\"__metadata__\":null,", "\n\n{"]);
    (prop::collection::vec(tensor, 1..4), opening, 0usize..12).prop_map(
        move |(tensors, opening, extra)| {
            let mut at = 0;
            let entries: Vec<String> = (tensors.iter().enumerate())
                .map(|(i, (dtype, shape, odd))| {
                    let len = shape.iter().product::<usize>() * bits(dtype) / 8;
                    // Now and then a gap, or a byte too much.
                    let begin = at + usize::from(*odd == 1);
                    at = begin + len + usize::from(*odd == 2);
                    format!(
                        r#""t{i}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{begin},{at}]}}"#
                    )
                })
                .collect();
            let header = format!("{opening}{}}}", entries.join(","));
            (header, at + usize::from(extra == 1))
        },
    )
}

proptest! {
    #[test]
    fn safetensors_and_percept_agree_on_what_is_a_file((header, len) in nearly_safetensors()) {
        let bytes = safetensors(&header, &vec![0; len]);
        let upstream = safetensors::SafeTensors::deserialize(&bytes);
        match (Checkpoint::open(&TempFile::new("f", &bytes).path), upstream) {
            (Ok(ours), Ok(theirs)) => {
                prop_assert_eq!(ours.len() + ours.left_out().len(), theirs.len());
                for name in ours.names() {
                    let shape = &ours.info(name).unwrap().shape;
                    let view = theirs.tensor(name).unwrap();
                    prop_assert_eq!(&shape[..], view.shape());
                }
            }
            (Err(E::AllLeftOut { others, .. }), Ok(theirs)) => {
                prop_assert_eq!(others + 1, theirs.len());
            }
            (Err(_), Err(_)) => {}
            (ours, theirs) => prop_assert!(false, "{header}: {ours:?}, {theirs:?}"),
        }
    }
}

// Shards.

/// A folder with an index and its shards.
fn sharded(index_name: &str, map: &str, shards: &[(&str, Vec<u8>)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let index = format!("\u{feff}{{\"metadata\":{{\"total_size\":8}},\"weight_map\":{map}}}");
    std::fs::write(folder.path().join(index_name), index).unwrap();
    for (name, bytes) in shards {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

/// A PyTorch shard with a tensor of one value under each name.
fn torch_shard(tensors: &[(&str, f32)]) -> Vec<u8> {
    let pickle = (tensors.iter().zip(0..)).fold(Pickle::new().raw(b"}("), |p, ((name, _), at)| {
        p.text(name).tensor(tensors.len() as i64, at, &[1], &[1])
    });
    let values: Vec<u8> = tensors.iter().flat_map(|(_, v)| v.to_le_bytes()).collect();
    torch_zip(&pickle.raw(b"u").stop(), &values)
}

const BIN_INDEX: &str = "pytorch_model.bin.index.json";

#[test]
fn shards_of_pytorch_are_read() {
    let folder = sharded(
        BIN_INDEX,
        r#"{"a":"1.bin","b":"2.bin"}"#,
        &[
            ("1.bin", torch_shard(&[("a", 1.5)])),
            ("2.bin", torch_shard(&[("b", 2.5), ("extra", 3.5)])),
        ],
    );
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(checkpoint.format(), Format::ShardedTorch);
    assert_eq!(checkpoint.files().count(), 2);
    // As in transformers, also what the index does not name.
    for (name, value) in [("a", 1.5), ("b", 2.5), ("extra", 3.5)] {
        assert_eq!(checkpoint.read_f32(name).unwrap(), [value], "{name}");
    }
}

#[test]
fn a_tensor_in_two_shards_is_the_one_that_the_index_names() {
    let shards = [
        ("1.bin", torch_shard(&[("a", 1.5), ("b", 9.5)])),
        ("2.bin", torch_shard(&[("a", 7.5), ("b", 2.5)])),
    ];
    let folder = sharded(BIN_INDEX, r#"{"a":"1.bin","b":"2.bin"}"#, &shards);
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(checkpoint.read_f32("a").unwrap(), [1.5]);
    assert_eq!(checkpoint.read_f32("b").unwrap(), [2.5]);
    let left_out: Vec<_> = checkpoint.left_out().iter().collect();
    assert_eq!(left_out.len(), 2);
    assert_eq!(left_out[0].0, "1.bin: b");
    assert!(left_out[0].1.contains("2.bin"), "{left_out:?}");

    let shards = [
        ("1.bin", torch_shard(&[("a", 1.5), ("c", 9.5)])),
        ("2.bin", torch_shard(&[("b", 7.5), ("c", 2.5)])),
    ];
    let folder = sharded(BIN_INDEX, r#"{"a":"1.bin","b":"2.bin"}"#, &shards);
    let error = Checkpoint::open(folder.path()).unwrap_err();
    assert!(matches!(error, E::DuplicateTensor { tensor, .. } if tensor == "c"));
}

#[test]
fn shards_that_are_not_what_the_index_says() {
    let shard = || torch_shard(&[("a", 1.5)]);
    let error = |map: &str, bytes: Vec<u8>| {
        let folder = sharded(BIN_INDEX, map, &[("1.bin", bytes)]);
        Checkpoint::open(folder.path()).unwrap_err()
    };
    let gone = error(r#"{"a":"1.bin","b":"2.bin"}"#, shard());
    assert!(matches!(gone, E::MissingShard { shard, .. } if shard == "2.bin"));
    let absent = error(r#"{"a":"1.bin","b":"1.bin"}"#, shard());
    assert!(matches!(absent, E::NotInShard { tensor, .. } if tensor == "b"));
    let index = error(r#"{"a":"1.bin"}"#, br#"{"weight_map":{}}"#.to_vec());
    assert!(matches!(index, E::ShardPath { .. }));
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n".to_vec();
    let pointer = error(r#"{"a":"1.bin"}"#, pointer);
    assert!(
        matches!(&pointer, E::StandIn { path, what: StandIn::LfsPointer { size: Some(9) } } if path.ends_with("1.bin"))
    );
    assert!(matches!(
        error(r#"{"a":"1.bin"}"#, Vec::new()),
        E::EmptyFile { .. }
    ));
}

#[test]
fn a_folder_means_its_one_safetensors_file() {
    let header = r#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    put("open_clip_pytorch_model.bin", &archive_named("m"));
    put(
        "open_clip_model.safetensors",
        &safetensors(header, &1f32.to_le_bytes()),
    );
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert!(checkpoint.path().ends_with("open_clip_model.safetensors"));
}

// What stands in a file's place.

#[test]
fn stand_ins_are_called_by_name() {
    let told = |name: &str, bytes: &[u8]| {
        let file = TempFile::new(name, bytes);
        let message = Checkpoint::open(&file.path).unwrap_err().to_string();
        assert!(
            message.starts_with(file.path.to_str().unwrap()),
            "{message}"
        );
        message
    };
    let pointer = b"version https://git-lfs.github.com/spec/v1\n\
        oid sha256:53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db\n\
        size 90868376\n";
    let message = told("model.safetensors", pointer);
    assert!(message.contains("Git LFS pointer"), "{message}");
    assert!(message.contains("git lfs pull"), "{message}");
    assert!(told("m.pt", b"<!DOCTYPE html>\n<html>").contains("web page"));
    assert!(told("m.pt", b"Entry not found").contains("refusal"));
    assert!(told("m.pt", b"").contains("empty"));
    assert!(told("m.pt", &[0; 4096]).contains("zeros"));
    assert!(told("m.pt.incomplete", &archive_named("m")).contains("has not ended"));
    assert!(told("m.pth.tar", b"\x1f\x8b\x08\0").contains("gzip"));
    let zip = |name| common::zip(&[(name, b"x")]);
    assert!(told("m.npz", &zip("w.npy")).contains("NumPy archive"));
    assert!(told("m.pt2", &zip("m/archive_format")).contains("torch.export"));
    assert!(told("m.zip", &zip("m/model.safetensors")).contains("unpack it"));
    assert_eq!(StandIn::at(Path::new("/nonexistent")), None);
}
