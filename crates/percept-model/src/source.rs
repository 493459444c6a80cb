//! The tensors of a model on disk: one checkpoint, and Sentence-T5's dense layer beside it.

use std::path::Path;

use percept_checkpoint::{Checkpoint, CheckpointError, TensorInfo};

/// Prefix of the names that stand in the folder of the dense layer.
pub const DENSE: &str = "2_Dense/";

/// A checkpoint, with the dense layer that sentence-transformers keeps in a folder of its own.
#[derive(Debug)]
pub struct Source {
    main: Checkpoint,
    dense: Option<Checkpoint>,
}

impl Source {
    /// Opens a checkpoint file, or a folder with its `2_Dense` if it has one.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let main = Checkpoint::open(path)?;
        let dense_folder = path.join(DENSE);
        let dense = if path.is_dir() && dense_folder.is_dir() {
            Some(Checkpoint::open(&dense_folder)?)
        } else {
            None
        };
        Ok(Self { main, dense })
    }

    /// The main checkpoint.
    pub fn main(&self) -> &Checkpoint {
        &self.main
    }

    /// The files that it reads.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let dense = self.dense.iter().flat_map(Checkpoint::files);
        self.main.files().chain(dense)
    }

    /// All names; those of the dense layer begin with `2_Dense/`.
    pub fn names(&self) -> impl Iterator<Item = String> {
        let dense = self.dense.iter().flat_map(Checkpoint::names);
        self.main
            .names()
            .map(str::to_owned)
            .chain(dense.map(|name| format!("{DENSE}{name}")))
    }

    /// Type and shape of a tensor.
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        match (name.strip_prefix(DENSE), &self.dense) {
            (Some(name), Some(dense)) => dense.info(name),
            _ => self.main.info(name),
        }
    }

    /// Shape of a tensor, one side at a time; `None` if there is no such tensor or side.
    pub fn side(&self, name: &str, axis: usize) -> Option<usize> {
        self.info(name)?.shape.get(axis).copied()
    }

    /// The values of a tensor, row-major.
    ///
    /// # Errors
    /// As [`Checkpoint::read_f32`].
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>, CheckpointError> {
        match (name.strip_prefix(DENSE), &self.dense) {
            (Some(name), Some(dense)) => dense.read_f32(name),
            _ => self.main.read_f32(name),
        }
    }
}
