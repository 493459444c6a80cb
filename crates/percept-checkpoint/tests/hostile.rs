//! Broken and malicious files: each is refused by its own error, without a panic and at once.

// The lints let tests panic, but not the functions that tests share.
#![allow(clippy::panic, clippy::unwrap_used)]

mod common;

use common::{Pickle, TempFile, one_tensor, refusal, safetensors, torch_zip, zip};
use percept_checkpoint::{Checkpoint, CheckpointError as E, StandIn};
use proptest::prelude::*;

/// Asserts that bytes are refused by the given variant.
macro_rules! assert_refused {
    ($bytes:expr, $pattern:pat $(if $guard:expr)?) => {{
        let error = refusal(&$bytes);
        assert!(
            matches!(&error, $pattern $(if $guard)?),
            "wrong error: {error:?}"
        );
    }};
}

fn data(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/data/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

// Files that are not what they seem.

#[test]
fn empty_and_unknown_files() {
    assert_refused!(b"", E::EmptyFile { .. });
    assert_refused!(b"x", E::UnknownFormat { start, .. } if start == b"x");
    assert_refused!(b"\x89PNG\r\n\x1a\n and so on", E::UnknownFormat { .. });
    assert_refused!(
        b"<!DOCTYPE html><html>",
        E::StandIn {
            what: StandIn::Page,
            ..
        }
    );
    let missing = Checkpoint::open("/nonexistent/model.pt".as_ref());
    assert!(matches!(missing, Err(E::Io { .. })));
}

#[test]
fn every_truncation_of_every_format_is_refused() {
    for name in ["types.pt", "types_legacy.pt", "plain.safetensors"] {
        let bytes = data(name);
        for len in (0..bytes.len()).step_by(7) {
            let file = TempFile::new("file", &bytes[..len]);
            let opened = Checkpoint::open(&file.path);
            assert!(opened.is_err(), "{name} cut at {len}");
        }
    }
    assert_refused!(data("types.pt")[..2000], E::Zip { .. });
}

// Safetensors.

const ONE: &str = r#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;

#[test]
fn safetensors_header_length() {
    let mut bytes = safetensors(ONE, &[0; 8]);
    assert!(Checkpoint::open(&TempFile::new("f", &bytes).path).is_ok());
    bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    assert_refused!(
        bytes,
        E::HeaderTooLong {
            length: u64::MAX,
            ..
        }
    );
    bytes[..8].copy_from_slice(&99_000_000u64.to_le_bytes());
    assert_refused!(
        bytes,
        E::HeaderPastEnd {
            length: 99_000_000,
            ..
        }
    );
    bytes[..8].copy_from_slice(&1u64.to_le_bytes());
    assert_refused!(bytes, E::Json { .. });
}

#[test]
fn safetensors_truncated_data() {
    let bytes = safetensors(ONE, &[0; 7]);
    assert_refused!(bytes, E::OffsetsOutOfRange { tensor, available: 7, .. } if tensor == "w");
}

#[test]
fn safetensors_headers_that_lie() {
    let refused = |header: &str| refusal(safetensors(header, &[0; 16]));
    let error = refused(r#"{"w":{"dtype":"F8_E4M3","shape":[16],"data_offsets":[0,16]}}"#);
    assert!(
        matches!(&error, E::AllLeftOut { tensor, reason, others: 0, .. } if tensor == "w" && reason.ends_with("F8_E4M3")),
        "{error:?}"
    );
    let error = refused(r#"{"w":{"dtype":"F128","shape":[1],"data_offsets":[0,16]}}"#);
    assert!(matches!(error, E::UnsupportedDtype { dtype, .. } if dtype == "F128"));
    let error = refused(r#"{"w":{"dtype":"F32","shape":[3],"data_offsets":[0,16]}}"#);
    assert!(matches!(
        error,
        E::SizeMismatch {
            needed: 12,
            stored: 16,
            ..
        }
    ));
    let error = refused(r#"{"w":{"dtype":"F32","shape":[4],"data_offsets":[16,0]}}"#);
    assert!(matches!(error, E::OffsetsOutOfRange { .. }));
    let error =
        refused(r#"{"w":{"dtype":"F32","shape":[18446744073709551615,4],"data_offsets":[0,16]}}"#);
    assert!(matches!(error, E::BadShape { .. }));
    let error = refused(r#"{"w":{"dtype":"F32","shape":[-4],"data_offsets":[0,16]}}"#);
    assert!(matches!(error, E::Json { .. }));
    let error = refused(
        r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,12]},
            "b":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}"#,
    );
    assert!(
        matches!(error, E::OverlappingTensors { first, second, .. } if first == "a" && second == "b")
    );
    let error = refused(
        r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},
            "b":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}"#,
    );
    assert!(matches!(
        error,
        E::UnclaimedBytes {
            offset: 4,
            bytes: 4,
            ..
        }
    ));
    let error = refused(r#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#);
    assert!(matches!(
        error,
        E::UnclaimedBytes {
            offset: 8,
            bytes: 8,
            ..
        }
    ));
    let error = refused(
        r#"{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},
            "w":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}"#,
    );
    let cause = std::error::Error::source(&error).unwrap();
    assert!(cause.to_string().contains("`w` appears twice"), "{cause}");
    let nested = "[".repeat(100_000);
    assert!(matches!(
        refused(&format!(r#"{{"w":{nested}"#)),
        E::Json { .. }
    ));
    assert_refused!(safetensors("{}", &[]), E::NoTensors { .. });
}

// Shards.

fn index(weight_map: &str) -> TempFile {
    let json = format!(r#"{{"weight_map":{weight_map}}}"#);
    let file = TempFile::new("model.safetensors.index.json", json.as_bytes());
    std::fs::write(
        file.folder.path().join("s.safetensors"),
        safetensors(ONE, &[0; 8]),
    )
    .unwrap();
    file
}

#[test]
fn shards_must_be_there_and_nowhere_else() {
    let open = |map: &str| Checkpoint::open(index(map).folder.path()).map(drop);
    // The folder has one shard, whose index is preferred to it.
    open(r#"{"w":"s.safetensors"}"#).unwrap();
    for shard in [
        "../s.safetensors",
        "/etc/passwd",
        "a/../s.safetensors",
        "..",
        "",
    ] {
        let error = open(&format!(r#"{{"w":"{shard}"}}"#)).unwrap_err();
        assert!(
            matches!(&error, E::ShardPath { shard: s, .. } if s == shard),
            "{error:?}"
        );
    }
    let error = open(r#"{"w":"gone.safetensors"}"#).unwrap_err();
    assert!(matches!(error, E::MissingShard { shard, .. } if shard == "gone.safetensors"));
    let error = open(r#"{"v":"s.safetensors"}"#).unwrap_err();
    assert!(matches!(error, E::NotInShard { tensor, .. } if tensor == "v"));
    let error = open(r#"{"w":"s.safetensors","w":"t.safetensors"}"#).unwrap_err();
    assert!(matches!(error, E::Json { .. }));
    assert!(matches!(open("{}").unwrap_err(), E::NoTensors { .. }));
    assert!(matches!(open("[]").unwrap_err(), E::Json { .. }));
}

// Zip archives.

#[test]
fn zip_archives_that_are_no_checkpoint() {
    assert_refused!(zip(&[("a.txt", b"hello")]), E::NotTorch { found: 0, .. });
    let two = zip(&[("a/data.pkl", b"}."), ("b/data.pkl", b"}.")]);
    assert_refused!(two, E::NotTorch { found: 2, .. });
    let big = zip(&[("a/data.pkl", b"}."), ("a/byteorder", b"big")]);
    assert_refused!(big, E::BigEndian { .. });
}

#[test]
fn compressed_entries_are_refused() {
    let mut bytes = torch_zip(&one_tensor(1, 0, &[1], &[1]), &[0; 4]);
    // The method, 2 bytes, of every local (at 8) and central (at 10) header.
    for at in 0..bytes.len() - 4 {
        match &bytes[at..at + 4] {
            b"PK\x03\x04" => bytes[at + 8] = 8,
            b"PK\x01\x02" => bytes[at + 10] = 8,
            _ => {}
        }
    }
    assert_refused!(bytes, E::CompressedEntry { entry, .. } if entry == "a/data.pkl");
}

#[test]
fn entries_past_the_end_are_refused() {
    let mut bytes = torch_zip(&one_tensor(1 << 20, 0, &[1 << 20], &[1]), &[0; 4]);
    // The sizes of the last central header (at 20 and 24): 4 MB that are not there.
    let at = bytes.windows(4).rposition(|w| w == b"PK\x01\x02").unwrap();
    bytes[at + 20..at + 24].copy_from_slice(&(4u32 << 20).to_le_bytes());
    bytes[at + 24..at + 28].copy_from_slice(&(4u32 << 20).to_le_bytes());
    assert_refused!(bytes, E::EntryPastEnd { .. } | E::Zip { .. });
}

// Pickles that want something done.

fn refused_call(pickle: Vec<u8>) -> String {
    match refusal(torch_zip(&pickle, &[])) {
        E::UnsafePickle { callable, .. } => callable,
        other => panic!("wrong error: {other:?}"),
    }
}

#[test]
fn calls_are_refused_by_name() {
    let command = |p: Pickle| p.text("touch /tmp/owned").raw(b"\x85R").stop();
    let called = |module, name| refused_call(command(Pickle::new().global(module, name)));
    assert_eq!(called("posix", "system"), "posix.system");
    assert_eq!(called("os", "system"), "os.system");
    assert_eq!(called("subprocess", "Popen"), "subprocess.Popen");
    assert_eq!(called("builtins", "eval"), "builtins.eval");
    assert_eq!(called("__builtin__", "exec"), "__builtin__.exec");
    assert_eq!(called("torch.hub", "load"), "torch.hub.load");
    // Assembled on the stack, as protocol 4 does.
    let stacked = Pickle::new().text("posix").text("system").raw(b"\x93");
    assert_eq!(refused_call(command(stacked)), "posix.system");
    // Named without being called.
    let named = Pickle::new().global("posix", "system").stop();
    assert_eq!(refused_call(named), "posix.system");
    // Protocol 1's ways, and the wrapper for tensor subclasses.
    let inst = Pickle::new().raw(b"(").text("x").raw(b"iposix\nsystem\n");
    assert_eq!(refused_call(inst.stop()), "posix.system");
    // What another name leads to.
    let reached = |name: &str| {
        let pickle = Pickle::new().global("builtins", "getattr").raw(b"(N");
        refused_call(pickle.text(name).raw(b"tR").stop())
    };
    assert_eq!(reached("system"), "builtins.getattr");
    assert_eq!(reached("os.path"), "builtins.getattr");
    assert_eq!(
        called("torch.serialization", "os.remove"),
        "torch.serialization.os.remove"
    );
    // What is no function at all.
    assert!(refused_call(Pickle::new().text("f").raw(b")R").stop()).contains("not a function"));
}

#[test]
fn unknown_calls_are_not_made() {
    let hint = |pickle: Vec<u8>| match refusal(torch_zip(&pickle, &[])) {
        E::NoTensors {
            hint: Some(hint), ..
        } => hint,
        other => panic!("wrong error: {other:?}"),
    };
    let global = || Pickle::new().global("mine", "Cls");
    let called = hint(global().text("x").raw(b"\x85R").stop());
    assert!(called.contains("`mine.Cls`"), "{called}");
    let inst = Pickle::new()
        .raw(b"(")
        .text("x")
        .raw(b"imine\nCls\n")
        .stop();
    assert_eq!(hint(inst), called);
    let obj = Pickle::new()
        .raw(b"(")
        .global("mine", "Cls")
        .raw(b"o")
        .stop();
    assert_eq!(hint(obj), called);
    let wrapped = Pickle::new()
        .global("torch._tensor", "_rebuild_from_type_v2")
        .raw(b"(")
        .global("mine", "Cls")
        .raw(b"NNNtR")
        .stop();
    assert_eq!(hint(wrapped), called);
}

#[test]
fn instances_beside_the_model_are_carried_and_dropped() {
    let pickle = Pickle::new()
        .raw(b"}(")
        .text("config")
        .global("mine", "Config")
        .raw(b")\x81}")
        .text("w")
        .tensor(1, 0, &[1], &[1])
        .raw(b"sb")
        .text("state_dict")
        .raw(b"}")
        .text("w")
        .tensor(1, 0, &[1], &[1])
        .raw(b"su")
        .stop();
    let file = TempFile::new("f", &torch_zip(&pickle, &2.5f32.to_le_bytes()));
    let checkpoint = Checkpoint::open(&file.path).unwrap();
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["w"]);
    assert_eq!(checkpoint.read_f32("w").unwrap(), [2.5]);
}

#[test]
fn whole_modules_are_explained() {
    let error = refusal(data("whole_module.pt"));
    assert!(
        matches!(error, E::NoTensors { .. } | E::UnsafePickle { .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains("state_dict()"), "{error}");
}

// Pickles that want all of the memory, or all of the stack.

#[test]
fn deep_nesting_is_no_danger() {
    const DEEP: usize = 100_000;
    let lists = Pickle::new()
        .raw(&b"]".repeat(DEEP))
        .raw(&b"a".repeat(DEEP - 1))
        .stop();
    assert_refused!(torch_zip(&lists, &[]), E::NoTensors { .. });
    let tuples = Pickle::new().raw(b")").raw(&b"\x85".repeat(DEEP)).stop();
    assert_refused!(torch_zip(&tuples, &[]), E::NoTensors { .. });
    let marks = Pickle::new().raw(&b"(".repeat(DEEP)).stop();
    assert_refused!(torch_zip(&marks, &[]), E::LimitExceeded { .. });
    let mut dicts = Pickle::new();
    for _ in 0..DEEP {
        dicts = dicts.raw(b"}").text("k");
    }
    let dicts = dicts.raw(b"}").raw(&b"s".repeat(DEEP)).stop();
    assert_refused!(torch_zip(&dicts, &[]), E::NestedTooDeep { .. });
    let itself = Pickle::new().raw(b"}q\0").text("k").raw(b"h\0s").stop();
    assert_refused!(torch_zip(&itself, &[]), E::NestedTooDeep { .. });
}

#[test]
fn bombs_hit_a_limit() {
    // Each level holds the one below ten times: 10^40 tensors in two kilobytes.
    let mut bomb = Pickle::new()
        .raw(b"}")
        .text("w")
        .tensor(1, 0, &[1], &[1])
        .raw(b"sq\0");
    for level in 0..40u8 {
        bomb = bomb.raw(b"}(");
        for key in 0..10 {
            bomb = bomb.int(key).raw(&[b'h', level]);
        }
        bomb = bomb.raw(&[b'u', b'q', level + 1]);
    }
    assert_refused!(torch_zip(&bomb.stop(), &[0; 4]), E::LimitExceeded { .. });

    let mut memo = Vec::new();
    for slot in 0..5_000_000u32 {
        memo.push(b'r');
        memo.extend(slot.to_le_bytes());
    }
    let memo = Pickle::new().raw(b"N").raw(&memo).stop();
    assert_refused!(
        torch_zip(&memo, &[]),
        E::LimitExceeded {
            what: "memo entries in a pickle",
            ..
        }
    );

    let values = Pickle::new().raw(&b"]0".repeat(5_000_000)).stop();
    assert_refused!(
        torch_zip(&values, &[]),
        E::LimitExceeded {
            what: "values in a pickle",
            ..
        }
    );
    let stack = Pickle::new().raw(&b"N".repeat(2_000_000)).stop();
    assert_refused!(torch_zip(&stack, &[]), E::LimitExceeded { .. });
    let size = vec![b'N'; 33 << 20];
    assert_refused!(
        torch_zip(&size, &[]),
        E::LimitExceeded {
            what: "bytes in a pickle",
            ..
        }
    );

    // One list of pairs copied into many dictionaries.
    let mut copies = Pickle::new().raw(b"](");
    for _ in 0..1000 {
        copies = copies.raw(b"NN\x86");
    }
    let copies = copies
        .raw(b"e\x85q\0")
        .global("collections", "OrderedDict")
        .raw(b"q\x01")
        .raw(&b"h\x01h\0R".repeat(10_000))
        .stop();
    assert_refused!(torch_zip(&copies, &[]), E::LimitExceeded { .. });
    // A length that is not there.
    let long = Pickle::new().raw(b"\x8d").raw(&[0xff; 8]).stop();
    assert_refused!(torch_zip(&long, &[]), E::PickleTruncated { .. });
}

#[test]
fn malformed_pickles_are_located() {
    let refused = |bytes: &[u8]| refusal(torch_zip(bytes, &[]));
    assert!(matches!(refused(b""), E::PickleTruncated { at: 0, .. }));
    assert!(matches!(refused(b"}"), E::PickleTruncated { at: 1, .. }));
    assert!(matches!(
        refused(b"\xff."),
        E::PickleOpcode {
            opcode: 0xff,
            at: 0,
            ..
        }
    ));
    assert!(matches!(refused(b"0."), E::PickleOperand { at: 0, .. }));
    assert!(matches!(refused(b"N(a."), E::PickleOperand { at: 2, .. }));
    assert!(matches!(
        refused(b"}h\x07s."),
        E::PickleOperand { at: 1, .. }
    ));
    assert!(matches!(refused(b"}(Nu."), E::PickleOperand { .. }));
    assert!(matches!(refused(b"t."), E::PickleOperand { .. }));
    assert!(matches!(refused(b"NQ."), E::PickleOperand { .. }));
    assert!(matches!(refused(b"cno newline"), E::PickleOperand { .. }));
    assert!(matches!(refused(b"}N."), E::NoTensors { .. }));
}

// Tensors that reach where they should not.

#[test]
fn views_stay_inside_their_storage() {
    let open = |elements, offset, shape: &[i64], strides: &[i64]| {
        refusal(torch_zip(
            &one_tensor(elements, offset, shape, strides),
            &[0; 16],
        ))
    };
    assert!(matches!(
        open(4, 0, &[5], &[1]),
        E::OutsideStorage { elements: 4, .. }
    ));
    assert!(matches!(open(4, 1, &[4], &[1]), E::OutsideStorage { .. }));
    assert!(matches!(open(4, -1, &[4], &[1]), E::OutsideStorage { .. }));
    assert!(matches!(
        open(4, 0, &[2, 2], &[3, 1]),
        E::OutsideStorage { .. }
    ));
    assert!(matches!(
        open(4, 0, &[2, 2], &[-1, 1]),
        E::OutsideStorage { .. }
    ));
    assert!(matches!(
        open(4, 0, &[2, 2], &[i64::MAX, i64::MAX]),
        E::OutsideStorage { .. }
    ));
    assert!(matches!(
        open(4, i64::MAX, &[1], &[1]),
        E::OutsideStorage { .. }
    ));
    assert!(matches!(open(4, 0, &[-2], &[1]), E::BadShape { .. }));
    assert!(matches!(
        open(4, 0, &[1 << 40, 1 << 40], &[0, 0]),
        E::BadShape { .. }
    ));
    let left_out = |error: E| match error {
        E::AllLeftOut { reason, .. } => reason,
        other => panic!("wrong error: {other:?}"),
    };
    assert!(left_out(open(4, 0, &[1 << 40], &[0])).contains("save it contiguous"));
    assert!(matches!(
        open(5, 0, &[5], &[1]),
        E::StorageTooShort {
            needed: 20,
            stored: 16,
            ..
        }
    ));
    assert!(matches!(
        open(i64::MAX, 0, &[5], &[1]),
        E::StorageTooShort { .. }
    ));
    assert!(matches!(open(-1, 0, &[5], &[1]), E::PickleOperand { .. }));
    assert!(matches!(open(4, 0, &[2, 2], &[1]), E::PickleOperand { .. }));
    assert!(left_out(open(4, 0, &[1; 17], &[1; 17])).contains("16 dimensions"));
    let expanded = left_out(refusal(data("expanded.pt")));
    assert!(expanded.contains("a storage of 1 to 1000"), "{expanded}");
    let lost = zip(&[("a/data.pkl", &one_tensor(4, 0, &[4], &[1]))]);
    assert_refused!(lost, E::MissingStorage { key, .. } if key == "0");
}

#[test]
fn names_must_be_usable_and_unique() {
    let one = |p: Pickle| p.tensor(1, 0, &[1], &[1]);
    let twice = one(one(Pickle::new().raw(b"}").text("w"))
        .raw(b"s")
        .text("module.w"))
    .raw(b"s");
    assert_refused!(
        torch_zip(&twice.stop(), &[0; 4]),
        E::DuplicateTensor { tensor, .. } if tensor == "w"
    );
    let nameless = one(Pickle::new().raw(b"}N")).raw(b"s").stop();
    assert_refused!(torch_zip(&nameless, &[0; 4]), E::AllLeftOut { tensor, .. } if tensor == ".?1");
    let long = one(Pickle::new().raw(b"}").text(&"n".repeat(600)))
        .raw(b"s")
        .stop();
    assert_refused!(torch_zip(&long, &[0; 4]), E::AllLeftOut { tensor, .. } if tensor == ".?1");
}

#[test]
fn types_and_values_that_no_model_should_have() {
    assert_refused!(
        data("complex.pt"),
        E::AllLeftOut { reason, .. } if reason.ends_with("torch.ComplexFloatStorage")
    );
    let file = TempFile::new("f", &data("nan.pt"));
    let checkpoint = Checkpoint::open(&file.path).unwrap();
    let error = checkpoint.read_f32("x").unwrap_err();
    assert!(
        matches!(&error, E::NonFinite { tensor, index: 1 } if tensor == "x"),
        "{error:?}"
    );
    let infinite = safetensors(
        r#"{"w":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}}"#,
        &[0, 0, 0, 0x7c],
    );
    let file = TempFile::new("f", &infinite);
    let error = Checkpoint::open(&file.path)
        .unwrap()
        .read_f32("w")
        .unwrap_err();
    assert!(matches!(error, E::NonFinite { index: 1, .. }));
}

// Anything at all.

#[test]
fn quantised_tensors_must_fit_their_scales() {
    let file = |numbers: &str, scales: &str, bytes: usize| {
        let header = format!(
            r#"{{"__metadata__":{{"percept.quantized":"1"}},"w":{numbers},"w.scale":{scales}}}"#
        );
        safetensors(&header, &vec![0; bytes])
    };
    let eight = r#"{"dtype":"I8","shape":[2,4],"data_offsets":[8,16]}"#;
    let four = r#"{"dtype":"U8","shape":[2,4],"data_offsets":[16,24]}"#;
    let scale = |shape: &str, end: usize| {
        format!(r#"{{"dtype":"F32","shape":{shape},"data_offsets":[0,{end}]}}"#)
    };
    let read = |bytes: &[u8]| {
        let file = TempFile::new("f", bytes);
        Checkpoint::open(&file.path).unwrap().read_f32("w")
    };
    assert_eq!(
        read(&file(eight, &scale("[2,1]", 8), 16)).unwrap(),
        [0.0; 8]
    );
    for bad in [
        file(eight, &scale("[1,2]", 8), 16),
        file(eight, &scale("[2]", 8), 16),
        file(four, &scale("[4,1]", 16), 24),
        file(
            r#"{"dtype":"I8","shape":[8],"data_offsets":[8,16]}"#,
            &scale("[2,1]", 8),
            16,
        ),
        file(
            r#"{"dtype":"F32","shape":[1,2],"data_offsets":[8,16]}"#,
            &scale("[2,1]", 8),
            16,
        ),
        file(
            eight,
            r#"{"dtype":"F16","shape":[4,1],"data_offsets":[0,8]}"#,
            16,
        ),
        file(
            eight,
            r#"{"dtype":"I32","shape":[2,1],"data_offsets":[0,8]}"#,
            16,
        ),
        // Three factors for rows of eight values.
        file(
            r#"{"dtype":"U8","shape":[1,4],"data_offsets":[12,16]}"#,
            &scale("[1,3]", 12),
            16,
        ),
    ] {
        assert_refused!(bad, E::Quantized { tensor, .. } if tensor == "w");
    }
    // Another way to store them must not be read as plain numbers.
    let newer = r#"{"__metadata__":{"percept.quantized":"2"},
        "w":{"dtype":"I8","shape":[2],"data_offsets":[0,2]}}"#;
    let newer = safetensors(newer, &[1, 2]);
    assert_refused!(newer, E::UnknownQuantization { version, .. } if version == "2");
    // A factor that is not a number, and one that makes a weight infinite.
    let mut bytes = file(eight, &scale("[2,1]", 8), 16);
    let at = bytes.len() - 16;
    bytes[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    assert!(matches!(read(&bytes), Err(E::NonFinite { tensor, .. }) if tensor == "w.scale"));
    bytes[at..at + 4].copy_from_slice(&f32::MAX.to_le_bytes());
    bytes[at + 8] = 127;
    assert!(matches!(read(&bytes), Err(E::NonFinite { tensor, .. }) if tensor == "w"));
}

/// An instruction or a few, such as files have, with something to work on or not.
fn instructions() -> impl Strategy<Value = Vec<u8>> {
    let names = [
        ("builtins", "dict"),
        ("builtins", "getattr"),
        ("collections", "OrderedDict"),
        ("mine", "Cls"),
        ("numpy", "ndarray"),
        ("torch", "FloatStorage"),
        ("torch", "QInt8Storage"),
        ("torch", "uint16"),
        ("torch._tensor", "_rebuild_from_type_v2"),
        ("torch._utils", "_rebuild_parameter"),
        ("torch._utils", "_rebuild_qtensor"),
        ("torch._utils", "_rebuild_tensor_v2"),
        ("torch._utils", "_rebuild_tensor_v3"),
        ("torch.storage", "UntypedStorage"),
        ("__torch__", "Module"),
    ];
    let raw: Vec<Vec<u8>> = (b"NQR.()}]aestubo012\x81\x85\x86\x87\x88\x89\x90\x91\x92\x94".iter())
        .map(|&opcode| vec![opcode])
        .chain([b"q\0", b"q\x01", b"h\0", b"h\x01", b"K\x02"].map(|b| b.to_vec()))
        .chain([&b"I01\n"[..], b"L9L\n", b"F1\n", b"imine\nCls\n"].map(<[u8]>::to_vec))
        .chain(names.map(|(module, name)| format!("c{module}\n{name}\n").into_bytes()))
        .chain(
            ["storage", "module", "state_dict", "model_ema", "w"]
                .map(|t| Pickle::default().text(t).0),
        )
        .chain([Pickle::default().tensor(4, 0, &[2, 2], &[2, 1]).0])
        .collect();
    prop::collection::vec(prop::sample::select(raw), 0..40).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn no_pickle_panics(bytes: Vec<u8>) {
        let _ = percept_checkpoint::fuzzing::pickle(&bytes);
    }

    #[test]
    fn no_assembled_pickle_panics(code in instructions(), into in 0usize..3) {
        // Alone, as a value of a state dict, and as the arguments of a call.
        let bytes = match into {
            0 => Pickle::new().raw(&code).stop(),
            1 => Pickle::new().raw(b"}").text("state_dict").raw(&code).raw(b"s").stop(),
            _ => {
                let function = Pickle::new().global("torch._utils", "_rebuild_tensor_v3");
                function.raw(b"(").raw(&code).raw(b"tR").stop()
            }
        };
        let _ = percept_checkpoint::fuzzing::pickle(&bytes);
    }

    #[test]
    fn no_shard_index_panics(map in "[{}\\[\\]\",:a-c./0-9 ]{0,60}", whole: bool) {
        let json = match whole {
            true => format!(r#"{{"w":"{map}"}}"#),
            false => map,
        };
        let _ = Checkpoint::open(index(&json).folder.path());
    }

    #[test]
    fn any_bytes_are_a_stand_in_or_not(bytes: Vec<u8>, text: String) {
        let _ = StandIn::of("m.bin".as_ref(), &bytes);
        let _ = StandIn::of(text.as_ref(), text.as_bytes());
        // A length of safetensors, which fits a file, is never taken for one.
        let mut start = (bytes.len() as u64 + 1).to_le_bytes().to_vec();
        start.push(b'{');
        start.extend(&bytes);
        prop_assert_eq!(StandIn::of("m.safetensors".as_ref(), &start), None);
    }

    #[test]
    fn no_damaged_checkpoint_panics(at in 0usize..4000, value: u8, which in 0usize..4) {
        let name = ["types.pt", "views_legacy.pt", "plain.safetensors", "torchscript.pt"][which];
        let mut bytes = data(name);
        let at = at % bytes.len();
        bytes[at] = value;
        let file = TempFile::new("f", &bytes);
        if let Ok(checkpoint) = Checkpoint::open(&file.path) {
            for tensor in checkpoint.names() {
                let _ = checkpoint.read_f32(tensor);
            }
        }
    }
}
