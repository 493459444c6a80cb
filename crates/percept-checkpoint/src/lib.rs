//! Named tensors from PyTorch and safetensors files, read without running anything in them.
//!
//! [`Checkpoint::open`] looks at what a file holds, not at what it is called, and lists its
//! tensors; [`Checkpoint::read_f32`] then reads one tensor's bytes from disk. Opening is cheap and
//! memory stays bounded by the tensor being read, whatever the size of the file.
//!
//! Checkpoints are downloaded from strangers, so every byte is taken to be hostile: sizes are
//! checked against the file before anything is allocated, and a pickle is read by a parser that can
//! build tensors, strings, numbers and containers and has no way to call anything.
//!
//! ```no_run
//! # fn main() -> Result<(), percept_checkpoint::CheckpointError> {
//! let checkpoint = percept_checkpoint::Checkpoint::open("model.pt".as_ref())?;
//! for name in checkpoint.names() {
//!     let weights: Vec<f32> = checkpoint.read_f32(name)?;
//!     println!("{name}: {} values", weights.len());
//! }
//! # Ok(())
//! # }
//! ```

mod checkpoint;
mod dtype;
mod error;
mod json;
mod locate;
mod quantized;
mod read;
mod safetensors;
mod sharded;
mod stand_in;
mod torch;
mod write;

pub use checkpoint::{Checkpoint, Format, Taken};
pub use dtype::{Dtype, TensorInfo};
pub use error::CheckpointError;
pub use read::check_finite;
pub use stand_in::StandIn;
pub use write::{Precision, TensorToWrite, write_safetensors};

/// Entry points for the fuzzers in `fuzz/`; no part of the public interface.
#[doc(hidden)]
pub mod fuzzing {
    use std::path::Path;

    use crate::CheckpointError;

    /// Interprets raw pickle bytes and lists their tensors against no storage table at all.
    ///
    /// # Errors
    /// Whatever the bytes deserve; a panic, a hang or an abort is a bug.
    pub fn pickle(bytes: &[u8]) -> Result<usize, CheckpointError> {
        crate::torch::fuzz(Path::new("fuzz"), bytes)
    }

    /// Parses `bytes` as a whole safetensors file and lists its tensors.
    ///
    /// # Errors
    /// Whatever the bytes deserve; a panic, a hang or an abort is a bug.
    pub fn safetensors_header(bytes: &[u8]) -> Result<usize, CheckpointError> {
        let header = crate::safetensors::read_header(Path::new("fuzz"), bytes, bytes.len() as u64)?;
        Ok(header.tensors.len())
    }
}
