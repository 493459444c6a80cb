//! The tensors of a model on disk: one checkpoint, and the dense layers that stand in folders of their own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use percept_checkpoint::{Checkpoint, CheckpointError, TensorInfo};

use crate::names::canonical;

/// A checkpoint, with the layers that sentence-transformers keeps in folders of their own, under one spelling of
/// their names (`names.rs`).
#[derive(Debug)]
pub struct Source {
    /// The main checkpoint, then the others.
    parts: Vec<Checkpoint>,
    /// The spelling that layouts know, with the part and the name in it.
    names: BTreeMap<String, (usize, String)>,
}

impl Source {
    /// Opens a checkpoint file or folder.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        Self::with_parts(path, &[])
    }

    /// As [`open`](Self::open), with the checkpoints of other folders, whose names begin with what stands before each:
    /// `2_Dense/` and the folder.
    pub(crate) fn with_parts(
        path: &Path,
        folders: &[(String, PathBuf)],
    ) -> Result<Self, CheckpointError> {
        let main = Checkpoint::open(path)?;
        let mut names = BTreeMap::new();
        // Two copies that only a wrapper's name tells apart keep their own names, so that neither hides the other.
        let (plain, wrapped): (Vec<_>, Vec<_>) = (main.names())
            .map(|name| (canonical(name), name))
            .partition(|(spelled, name)| spelled == name);
        for (spelled, name) in plain.into_iter().chain(wrapped) {
            let spelled = match names.contains_key(&spelled) {
                true => name.to_owned(),
                false => spelled,
            };
            names.insert(spelled, (0, name.to_owned()));
        }
        name_tables(&mut names);
        let mut parts = vec![main];
        for (prefix, folder) in folders {
            let part = Checkpoint::open(folder)?;
            let index = parts.len();
            for name in part.names() {
                let spelled = format!("{prefix}{}", canonical(name));
                names.insert(spelled, (index, name.to_owned()));
            }
            parts.push(part);
        }
        Ok(Self { parts, names })
    }

    /// The main checkpoint.
    pub fn main(&self) -> &Checkpoint {
        &self.parts[0]
    }

    /// The files that it reads.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.parts.iter().flat_map(Checkpoint::files)
    }

    /// All names in the spelling that layouts know; those of other folders begin with the folder's name.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }

    /// How the file itself spells a name.
    pub fn stored_name<'a>(&'a self, name: &'a str) -> &'a str {
        (self.names.get(name)).map_or(name, |(_, stored)| stored.as_str())
    }

    /// Type and shape of a tensor.
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        let (part, name) = self.names.get(name)?;
        self.parts[*part].info(name)
    }

    /// Whether a tensor's whole numbers stand for weights, as percept's own smaller models have them.
    pub fn is_quantized(&self, name: &str) -> bool {
        (self.names.get(name)).is_some_and(|(part, name)| self.parts[*part].is_quantized(name))
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
        match self.names.get(name) {
            Some((part, name)) => self.parts[*part].read_f32(name),
            None => self.main().read_f32(name),
        }
    }
}

/// T5's table of tokens has two names; some files keep the one that transformers drops.
fn name_tables(names: &mut BTreeMap<String, (usize, String)>) {
    const TABLE: &str = "encoder.embed_tokens.weight";
    let alone: Vec<(String, String)> = (names.keys())
        .filter_map(|name| {
            let shared = format!("{}shared.weight", name.strip_suffix(TABLE)?);
            (!names.contains_key(&shared)).then(|| (name.clone(), shared))
        })
        .collect();
    for (name, shared) in alone {
        if let Some(stored) = names.remove(&name) {
            names.insert(shared, stored);
        }
    }
}
