//! Any bytes are refused or are a checkpoint of some format; of its tensors those that are small are
//! read, and what is left out has a reason.
#![no_main]

use libfuzzer_sys::fuzz_target;
use percept_checkpoint::Checkpoint;

/// Values of a tensor that is read.
const SMALL: usize = 1 << 16;

fuzz_target!(|bytes: &[u8]| {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model");
    std::fs::write(&path, bytes).expect("a file");
    let Ok(checkpoint) = Checkpoint::open(&path) else {
        return;
    };
    for name in checkpoint.names() {
        let info = checkpoint.info(name).expect("a tensor that is listed");
        if info.len() <= SMALL
            && let Ok(values) = checkpoint.read_f32(name)
        {
            assert_eq!(values.len(), info.len());
        }
    }
    assert!(
        checkpoint
            .left_out()
            .values()
            .all(|reason| !reason.is_empty())
    );
});
