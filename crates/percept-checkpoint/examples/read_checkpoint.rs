//! Reads every tensor of a checkpoint and says how long it took:
//! `cargo run --release -p percept-checkpoint --example read_checkpoint -- FILE`.

use std::path::Path;
use std::time::Instant;

use percept_checkpoint::{Checkpoint, CheckpointError};

fn main() -> Result<(), CheckpointError> {
    for path in std::env::args().skip(1) {
        let start = Instant::now();
        let checkpoint = Checkpoint::open(Path::new(&path))?;
        let opened = start.elapsed();
        let mut values = 0;
        for name in checkpoint.names() {
            values += checkpoint.read_f32(name)?.len();
        }
        println!(
            "{path}: {}, {} tensors, {values} values; opened in {opened:.1?}, all read in {:.1?}",
            checkpoint.format(),
            checkpoint.len(),
            start.elapsed()
        );
    }
    Ok(())
}
