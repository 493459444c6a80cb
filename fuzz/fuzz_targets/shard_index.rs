//! Any bytes are refused or are an index of shards, which leads to no file but those beside it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use percept_checkpoint::Checkpoint;

/// A safetensors file of one tensor, `w`.
const SHARD: &[u8] =
    b"\x36\0\0\0\0\0\0\0{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}\0\0\x80\x3f";

fuzz_target!(|bytes: &[u8]| {
    let folder = tempfile::tempdir().expect("a folder");
    let index = folder.path().join("model.safetensors.index.json");
    std::fs::write(&index, bytes).expect("a file");
    std::fs::write(folder.path().join("s"), SHARD).expect("a file");
    if let Ok(checkpoint) = Checkpoint::open(&index) {
        for file in checkpoint.files() {
            assert_eq!(file.parent(), Some(folder.path()));
        }
    }
});
