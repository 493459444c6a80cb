//! Named tensors out of a parsed pickle.

use std::collections::BTreeMap;
use std::path::Path;

use super::globals::Global;
use super::values::{Id, Opaque, Pickle, Tensor, Value};
use crate::checkpoint::{Parts, Taken};
use crate::dtype::{TensorInfo, checked_len};
use crate::error::CheckpointError;
use crate::read::{Stored, is_contiguous, span};
use crate::safetensors::MAX_TENSORS;

/// Where training checkpoints keep the model, best first: averaged weights before the others, as timm's
/// `load_state_dict` takes them; `teacher` before `student` as DINO evaluates its teacher.
const MODEL_KEYS: [&str; 7] = [
    "state_dict_ema",
    "model_ema",
    "state_dict",
    "model_state_dict",
    "model",
    "teacher",
    "student",
];

/// Keys that are named as passed over.
const MAX_PASSED_OVER: usize = 64;

/// Entries looked at to tell which other dictionaries have tensors. In real files the first few of each
/// tell it.
const MAX_LOOKS: usize = 1 << 18;

/// Entries that are left out by name: many times what a real file has.
const MAX_LEFT_OUT: usize = 1 << 16;

/// Plain numbers that are noted by name: many times what a real model has.
const MAX_NUMBERS: usize = 1 << 12;

/// How the reason begins for what is no tensor of any kind.
const OBJECT: &str = "it is no tensor but ";

/// The same for a list of tensors.
const LIST: &str = "it is a list of ";

/// Whether what is left out for this reason may be a tensor of the model.
pub(crate) fn may_be_tensor(reason: &str) -> bool {
    !reason.starts_with(OBJECT) && !reason.starts_with(LIST)
}

/// Characters of a name that is too long to be one, for messages.
const PRINTED: usize = 80;

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

/// Lists the model's tensors, each checked to lie inside its storage, and what is among them that
/// cannot be read. `locate` finds a storage by its key.
pub(super) fn read(
    path: &Path,
    pickle: &Pickle,
    mut locate: impl FnMut(&str) -> Result<Option<Extent>, CheckpointError>,
) -> Result<Parts, CheckpointError> {
    let (entries, taken) = model_entries(path, pickle)?;
    let mut parts = Parts {
        left_out: entries.left_out,
        numbers: entries.numbers,
        taken,
        ..Parts::default()
    };
    for (name, tensor) in entries.tensors {
        match check(path, pickle, &name, tensor, &mut locate)? {
            Checked::Plain(_) if parts.tensors.contains_key(&name) => {
                return Err(CheckpointError::DuplicateTensor {
                    path: path.to_owned(),
                    tensor: name,
                });
            }
            Checked::Plain(stored) => {
                parts.tensors.insert(name, stored);
            }
            Checked::LeftOut(reason) => {
                parts.left_out.insert(name, reason);
            }
        }
    }
    // Where objects are all there is, that is the news, not what each of them is.
    if parts.tensors.is_empty()
        && parts
            .left_out
            .values()
            .all(|reason| reason.starts_with(OBJECT))
        && let Some(hint) = hint(pickle)
    {
        return Err(CheckpointError::NoTensors {
            path: path.to_owned(),
            hint: Some(hint),
        });
    }
    Ok(parts)
}

/// What a walk over dictionaries finds.
#[derive(Default)]
struct Entries<'a> {
    tensors: Vec<(String, &'a Tensor)>,
    /// What may be a tensor and cannot be read, and why.
    left_out: BTreeMap<String, String>,
    /// What is a plain number.
    numbers: BTreeMap<String, f64>,
}

/// The entries of the first of [`MODEL_KEYS`] that has tensors, else of the whole pickle.
fn model_entries<'a>(
    path: &Path,
    pickle: &'a Pickle,
) -> Result<(Entries<'a>, Option<Taken>), CheckpointError> {
    let Some(root) = entries_of(pickle, pickle.root) else {
        return Ok((flatten(path, pickle, pickle.root)?, None));
    };
    let mut instead = BTreeMap::new();
    for key in MODEL_KEYS {
        let entry = (root.iter().rev()).find(|(k, _)| pickle.text(*k) == Some(key));
        let Some(&(_, value)) = entry else { continue };
        if let Some(reason) = why_unreadable(pickle, value) {
            // Better weights may be there that cannot be had.
            instead.insert(key.to_owned(), reason);
            continue;
        }
        let mut entries = flatten(path, pickle, value)?;
        if entries.tensors.is_empty() {
            for (name, reason) in entries.left_out {
                instead.insert(format!("{key}.{name}"), reason);
            }
            continue;
        }
        entries.left_out.append(&mut instead);
        let taken = Taken {
            key: key.to_owned(),
            passed_over: others(pickle, root, key),
        };
        return Ok((entries, Some(taken)));
    }
    Ok((flatten(path, pickle, pickle.root)?, None))
}

/// The keys of the other dictionaries in `root` that have tensors.
fn others(pickle: &Pickle, root: &[(Id, Id)], taken: &str) -> Vec<String> {
    let mut looks = MAX_LOOKS;
    (root.iter())
        .filter(|(key, _)| pickle.text(*key).is_some_and(|key| key != taken))
        .filter(|(_, value)| holds_tensors(pickle, *value, &mut looks))
        .filter_map(|(key, _)| pickle.text(*key))
        .take(MAX_PASSED_OVER)
        .map(|key| key.chars().take(PRINTED).collect())
        .collect()
}

/// Whether a dictionary has tensors in itself or in those in it, as far as `looks` reach.
fn holds_tensors(pickle: &Pickle, id: Id, looks: &mut usize) -> bool {
    let mut pending = vec![id];
    while let Some(id) = pending.pop() {
        for &(_, value) in entries_of(pickle, id).unwrap_or_default() {
            if matches!(pickle.get(value), Value::Tensor(_)) {
                return true;
            }
            if *looks == 0 {
                return false;
            }
            *looks -= 1;
            pending.push(value);
        }
    }
    false
}

/// Why a value cannot be read though it may be a tensor or hold some; `None` for dictionaries, and for
/// what is no tensor: numbers, texts, options.
fn why_unreadable(pickle: &Pickle, id: Id) -> Option<String> {
    match pickle.get(id) {
        Value::Opaque(Opaque::Tensor(kind)) => Some((*kind).to_owned()),
        Value::Opaque(Opaque::Call(_)) => Some(format!(
            "{OBJECT}what calling `{}` would make, and percept calls nothing from a checkpoint",
            pickle.class_name(id)
        )),
        Value::Object { class, .. } if is_of(pickle, *class, Global::Namespace) => None,
        Value::Object { class, .. } if entries_of(pickle, id).is_none() => Some(format!(
            "{OBJECT}an object of class `{}`",
            pickle.class_name(*class)
        )),
        Value::Storage(_) => Some("it is a storage, which has no shape".to_owned()),
        Value::Tuple(items) | Value::List(items)
            if (items.iter()).any(|&item| {
                matches!(
                    pickle.get(item),
                    Value::Tensor(_) | Value::Opaque(Opaque::Tensor(_))
                )
            }) =>
        {
            Some(format!(
                "{LIST}{}, with tensors that have no names",
                items.len()
            ))
        }
        _ => None,
    }
}

/// Walks dictionaries and TorchScript modules, joining keys with dots. Not recursive, since the file
/// decides how deep it goes.
fn flatten<'a>(path: &Path, pickle: &'a Pickle, root: Id) -> Result<Entries<'a>, CheckpointError> {
    let limit = |what, limit: usize| CheckpointError::LimitExceeded {
        path: path.to_owned(),
        what,
        limit: limit as u64,
    };
    let mut found = Entries::default();
    let mut visits = 0;
    let mut containers = 0;
    let mut nameless = 0;
    let mut pending = vec![(root, String::new(), 0)];
    while let Some((id, prefix, depth)) = pending.pop() {
        let Some(entries) = entries_of(pickle, id) else {
            continue;
        };
        if depth > MAX_NESTING {
            return Err(CheckpointError::NestedTooDeep {
                path: path.to_owned(),
                prefix: prefix.chars().take(PRINTED).collect(),
                limit: MAX_NESTING,
            });
        }
        for &(key, value) in entries {
            visits += 1 + looked_through(pickle, value);
            if visits > MAX_VISITS {
                return Err(limit("entries in nested dictionaries", MAX_VISITS));
            }
            let leaf = match pickle.get(value) {
                Value::Tensor(tensor) => Some(Ok(tensor)),
                &Value::Int(number) => {
                    found.add_number(join(pickle, &prefix, key), number as f64);
                    continue;
                }
                &Value::Float(number) => {
                    found.add_number(join(pickle, &prefix, key), number);
                    continue;
                }
                _ if entries_of(pickle, value).is_some() => None,
                _ => match why_unreadable(pickle, value) {
                    Some(reason) => Some(Err(reason)),
                    None => continue,
                },
            };
            let Some(name) = join(pickle, &prefix, key) else {
                if leaf.is_some() {
                    nameless += 1;
                    let prefix: String = prefix.chars().take(PRINTED).collect();
                    let reason = "its key is neither a short text nor a whole number".to_owned();
                    (found.left_out).insert(format!("{prefix}.?{nameless}"), reason);
                }
                continue;
            };
            match leaf {
                None => {
                    containers += 1;
                    if containers > MAX_CONTAINERS {
                        return Err(limit("nested dictionaries", MAX_CONTAINERS));
                    }
                    pending.push((value, name, depth + 1));
                }
                Some(Ok(_)) if found.tensors.len() >= MAX_TENSORS => {
                    return Err(limit("tensors", MAX_TENSORS));
                }
                Some(Ok(tensor)) => found.tensors.push((short(&name), tensor)),
                Some(Err(reason)) => {
                    found.left_out.insert(short(&name), reason);
                }
            }
            if found.left_out.len() > MAX_LEFT_OUT {
                return Err(limit("entries that cannot be read", MAX_LEFT_OUT));
            }
        }
    }
    Ok(found)
}

impl Entries<'_> {
    /// Notes a number, if it has a name. Those beyond the limit are a history, not a model's.
    fn add_number(&mut self, name: Option<String>, number: f64) {
        if let Some(name) = name
            && self.numbers.len() < MAX_NUMBERS
        {
            self.numbers.insert(short(&name), number);
        }
    }
}

/// A name without what `DataParallel` puts before it.
fn short(name: &str) -> String {
    name.strip_prefix("module.").unwrap_or(name).to_owned()
}

/// How many values are looked at to tell whether a list has tensors.
fn looked_through(pickle: &Pickle, id: Id) -> usize {
    match pickle.get(id) {
        Value::Tuple(items) | Value::List(items) => items.len(),
        _ => 0,
    }
}

/// Whether a class is of this kind.
fn is_of(pickle: &Pickle, class: Id, kind: Global) -> bool {
    matches!(pickle.get(class), Value::Global { global, .. } if *global == kind)
}

/// The named members of a dictionary, of a namespace or of a TorchScript module.
fn entries_of(pickle: &Pickle, id: Id) -> Option<&[(Id, Id)]> {
    match pickle.get(id) {
        Value::Dict(entries) => Some(entries),
        Value::Object {
            class,
            state: Some(state),
        } if [Global::TorchScript, Global::Namespace]
            .iter()
            .any(|kind| is_of(pickle, *class, *kind)) =>
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

/// A tensor that was checked.
enum Checked {
    Plain(Stored),
    /// It is sound, and not of a kind that percept reads; why.
    LeftOut(String),
}

/// Checks a view against its storage, and its storage against the file.
fn check(
    path: &Path,
    pickle: &Pickle,
    name: &str,
    tensor: &Tensor,
    locate: &mut impl FnMut(&str) -> Result<Option<Extent>, CheckpointError>,
) -> Result<Checked, CheckpointError> {
    let storage = &tensor.storage;
    if storage.is_view {
        return Ok(Checked::LeftOut(
            "its storage is a view of another, as PyTorch wrote before 0.4".to_owned(),
        ));
    }
    let Some(dtype) = storage.dtype else {
        return Ok(Checked::LeftOut(format!(
            "its numbers are of type {}",
            pickle.class_name(storage.class)
        )));
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
        // A few bytes could fill all memory.
        return Ok(Checked::LeftOut(format!(
            "it repeats a storage of {} to {elements} values (`expand`); save it contiguous",
            storage.elements
        )));
    }
    let strides = (elements > 0 && !is_contiguous(&shape, &strides)).then_some(strides);
    Ok(Checked::Plain(Stored {
        info: TensorInfo { dtype, shape },
        source: 0,
        // Cannot overflow where there is something to read: it lies inside the extent.
        offset: extent.offset.saturating_add(offset.saturating_mul(size)),
        scales: None,
        strides,
    }))
}

/// What a pickle without tensors is, for the most common mistake: an object was saved, not its tensors.
fn hint(pickle: &Pickle) -> Option<String> {
    let class = |id: Id| match pickle.get(id) {
        Value::Object { class, .. } if is_of(pickle, *class, Global::Namespace) => None,
        Value::Object { class, .. } => Some(pickle.class_name(*class)),
        Value::Opaque(Opaque::Call(callable)) => Some(pickle.class_name(*callable)),
        _ => None,
    };
    let class = match pickle.get(pickle.root) {
        Value::Dict(entries) => entries.iter().find_map(|&(_, value)| class(value)),
        Value::Tuple(items) | Value::List(items) => {
            return Some(format!(
                "it holds a list of {}, not a dictionary of tensors",
                items.len()
            ));
        }
        _ => class(pickle.root),
    }?;
    Some(format!(
        "it holds a pickled `{class}`, not its tensors; save its state_dict() in PyTorch"
    ))
}
