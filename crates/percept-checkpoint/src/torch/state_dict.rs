//! Named tensors out of a parsed pickle.

use std::collections::BTreeMap;
use std::path::Path;

use super::globals::Global;
use super::values::{Id, Pickle, Tensor, Value};
use crate::dtype::{TensorInfo, checked_len};
use crate::error::CheckpointError;
use crate::read::{Stored, is_contiguous, span};
use crate::safetensors::MAX_TENSORS;

/// Where training checkpoints keep the model, best first. `teacher` before `student` as DINO
/// evaluates its teacher.
const MODEL_KEYS: [&str; 5] = [
    "state_dict",
    "model_state_dict",
    "model",
    "teacher",
    "student",
];

/// Dictionaries and modules within each other; the deepest published TorchScript models have 12.
const MAX_NESTING: usize = 64;

/// Entries looked at while flattening. Values can be shared, so a small pickle can describe a tree
/// of any size; this bounds the walk.
const MAX_VISITS: usize = 1 << 22;

/// Longest tensor name: several times what nesting and naming in real models come to.
const MAX_NAME: usize = 512;

/// Dictionaries and modules among them, each of which keeps its name while it waits.
const MAX_CONTAINERS: usize = 1 << 18;

/// A run of bytes in the file that holds a storage.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extent {
    pub(super) offset: u64,
    pub(super) len: u64,
}

/// Lists the model's tensors, each checked to lie inside its storage. `locate` finds a storage by
/// its key.
pub(super) fn tensors(
    path: &Path,
    pickle: &Pickle,
    mut locate: impl FnMut(&str) -> Result<Option<Extent>, CheckpointError>,
) -> Result<BTreeMap<String, Stored>, CheckpointError> {
    let mut found = BTreeMap::new();
    for (name, tensor) in model_tensors(path, pickle)? {
        let stored = check(path, pickle, &name, tensor, &mut locate)?;
        if found.contains_key(&name) {
            return Err(CheckpointError::DuplicateTensor {
                path: path.to_owned(),
                tensor: name,
            });
        }
        found.insert(name, stored);
    }
    if found.is_empty() {
        return Err(CheckpointError::NoTensors {
            path: path.to_owned(),
            hint: hint(pickle),
        });
    }
    Ok(found)
}

/// The tensors of the first of [`MODEL_KEYS`] that has any, else of the whole pickle.
fn model_tensors<'a>(
    path: &Path,
    pickle: &'a Pickle,
) -> Result<Vec<(String, &'a Tensor)>, CheckpointError> {
    if let Value::Dict(entries) = pickle.get(pickle.root) {
        for key in MODEL_KEYS {
            let entry = (entries.iter().rev()).find(|(k, _)| pickle.text(*k) == Some(key));
            if let Some(&(_, value)) = entry {
                let tensors = flatten(path, pickle, value)?;
                if !tensors.is_empty() {
                    return Ok(tensors);
                }
            }
        }
    }
    flatten(path, pickle, pickle.root)
}

/// Walks dictionaries and TorchScript modules, joining keys with dots. Not recursive, since the file
/// decides how deep it goes.
fn flatten<'a>(
    path: &Path,
    pickle: &'a Pickle,
    root: Id,
) -> Result<Vec<(String, &'a Tensor)>, CheckpointError> {
    let limit = |what, limit: usize| CheckpointError::LimitExceeded {
        path: path.to_owned(),
        what,
        limit: limit as u64,
    };
    let mut found = Vec::new();
    let mut visits = 0;
    let mut containers = 0;
    let mut pending = vec![(root, String::new(), 0)];
    while let Some((id, prefix, depth)) = pending.pop() {
        let Some(entries) = entries_of(pickle, id) else {
            continue;
        };
        if depth > MAX_NESTING {
            return Err(CheckpointError::NestedTooDeep {
                path: path.to_owned(),
                prefix: prefix.chars().take(80).collect(),
                limit: MAX_NESTING,
            });
        }
        for &(key, value) in entries {
            visits += 1;
            if visits > MAX_VISITS {
                return Err(limit("entries in nested dictionaries", MAX_VISITS));
            }
            let leaf = match pickle.get(value) {
                Value::Tensor(tensor) => Some(tensor),
                _ if entries_of(pickle, value).is_some() => None,
                _ => continue,
            };
            let Some(name) = join(pickle, &prefix, key) else {
                if leaf.is_none() {
                    continue;
                }
                return Err(CheckpointError::BadName {
                    path: path.to_owned(),
                    prefix,
                });
            };
            match leaf {
                None => {
                    containers += 1;
                    if containers > MAX_CONTAINERS {
                        return Err(limit("nested dictionaries", MAX_CONTAINERS));
                    }
                    pending.push((value, name, depth + 1));
                }
                Some(_) if found.len() >= MAX_TENSORS => {
                    return Err(limit("tensors", MAX_TENSORS));
                }
                Some(tensor) => {
                    let name = name.strip_prefix("module.").unwrap_or(&name).to_owned();
                    found.push((name, tensor));
                }
            }
        }
    }
    Ok(found)
}

/// The named members of a dictionary, or of a TorchScript module.
fn entries_of(pickle: &Pickle, id: Id) -> Option<&[(Id, Id)]> {
    match pickle.get(id) {
        Value::Dict(entries) => Some(entries),
        Value::Object {
            class,
            state: Some(state),
        } if matches!(
            pickle.get(*class),
            Value::Global {
                global: Global::TorchScript,
                ..
            }
        ) =>
        {
            match pickle.get(*state) {
                Value::Dict(entries) => Some(entries),
                _ => None,
            }
        }
        _ => None,
    }
}

/// `prefix.key`, unless the key is no name or the result is too long.
fn join(pickle: &Pickle, prefix: &str, key: Id) -> Option<String> {
    let name = match (pickle.get(key), prefix) {
        (Value::Text(key), "") => key.to_string(),
        (Value::Text(key), _) => format!("{prefix}.{key}"),
        (Value::Int(key), "") => key.to_string(),
        (Value::Int(key), _) => format!("{prefix}.{key}"),
        _ => return None,
    };
    (name.len() <= MAX_NAME).then_some(name)
}

/// Checks a view against its storage, and its storage against the file.
fn check(
    path: &Path,
    pickle: &Pickle,
    name: &str,
    tensor: &Tensor,
    locate: &mut impl FnMut(&str) -> Result<Option<Extent>, CheckpointError>,
) -> Result<Stored, CheckpointError> {
    let storage = &tensor.storage;
    if storage.is_view {
        return Err(CheckpointError::StorageView {
            path: path.to_owned(),
        });
    }
    let Some(dtype) = storage.dtype else {
        return Err(CheckpointError::UnsupportedDtype {
            path: path.to_owned(),
            tensor: name.to_owned(),
            dtype: pickle.class_name(storage.class),
        });
    };
    let key = pickle.text(storage.key).unwrap_or_default();
    let Some(extent) = locate(key)? else {
        return Err(CheckpointError::MissingStorage {
            path: path.to_owned(),
            tensor: name.to_owned(),
            key: key.to_owned(),
        });
    };
    let size = dtype.size() as u64;
    match storage.elements.checked_mul(size) {
        Some(needed) if needed <= extent.len => {}
        needed => {
            return Err(CheckpointError::StorageTooShort {
                path: path.to_owned(),
                tensor: name.to_owned(),
                key: key.to_owned(),
                needed: needed.unwrap_or(u64::MAX),
                stored: extent.len,
            });
        }
    }

    let (raw_shape, raw_strides) = pickle.shape_and_strides(tensor);
    let bad_shape = || CheckpointError::BadShape {
        path: path.to_owned(),
        tensor: name.to_owned(),
        shape: raw_shape.clone(),
    };
    let outside = || CheckpointError::OutsideStorage {
        path: path.to_owned(),
        tensor: name.to_owned(),
        elements: storage.elements,
    };
    let unsigned = |values: &[i64]| -> Option<Vec<usize>> {
        values.iter().map(|&v| usize::try_from(v).ok()).collect()
    };
    let shape = unsigned(&raw_shape).ok_or_else(bad_shape)?;
    let elements = checked_len(&shape).ok_or_else(bad_shape)? as u64;
    // Torch has no negative strides; a file that has reaches before its beginning.
    let strides = unsigned(&raw_strides).ok_or_else(outside)?;
    let offset = u64::try_from(tensor.offset).map_err(|_| outside())?;
    let span = span(&shape, &strides).ok_or_else(outside)? as u64;
    match offset.checked_add(span) {
        Some(end) if end <= storage.elements => {}
        _ if elements == 0 => {}
        _ => return Err(outside()),
    }
    if elements > storage.elements {
        return Err(CheckpointError::ExpandedView {
            path: path.to_owned(),
            tensor: name.to_owned(),
            elements,
            stored: storage.elements,
        });
    }
    let strides = (elements > 0 && !is_contiguous(&shape, &strides)).then_some(strides);
    Ok(Stored {
        info: TensorInfo { dtype, shape },
        source: 0,
        // Cannot overflow where there is something to read: it lies inside the extent.
        offset: extent.offset.saturating_add(offset.saturating_mul(size)),
        scales: None,
        strides,
    })
}

/// What a pickle without tensors is, for the most common mistake.
fn hint(pickle: &Pickle) -> Option<String> {
    let class = |id: Id| match pickle.get(id) {
        Value::Object { class, .. } => Some(pickle.class_name(*class)),
        _ => None,
    };
    let class = match pickle.get(pickle.root) {
        Value::Dict(entries) => entries.iter().find_map(|&(_, value)| class(value)),
        _ => class(pickle.root),
    }?;
    Some(format!(
        "it holds a pickled `{class}`, not its tensors; save its state_dict() in PyTorch"
    ))
}
