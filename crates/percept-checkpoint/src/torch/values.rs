//! What a pickle can build: data, in one flat list.

use super::globals::Global;
use crate::dtype::{Dtype, MAX_RANK};

/// A value's place in the list.
pub(super) type Id = u32;

/// The place of the one value that stands for all that is carried and ignored: `None`, booleans,
/// floats, bytes, sets, unknown objects.
pub(super) const INERT: Id = 0;

/// The place of `False`, which is kept apart for the byte order of legacy files.
pub(super) const FALSE: Id = 1;

/// What a pickle can build.
#[derive(Debug)]
pub(super) enum Value {
    Inert,
    Int(i64),
    Float(f64),
    Text(Box<str>),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global {
        global: Global,
        module: Id,
        name: Id,
    },
    Storage(Storage),
    Tensor(Tensor),
    /// What stands where a tensor may be expected and has no values here.
    Opaque(Opaque),
    /// An instance of a class, with the class's place and the state it was given.
    Object {
        class: Id,
        state: Option<Id>,
    },
}

/// Something whose values are not known.
#[derive(Debug, Clone, Copy)]
pub(super) enum Opaque {
    /// What a call would have made: the callable, which was not called.
    Call(Id),
    /// A tensor of another kind than plain numbers, and which.
    Tensor(&'static str),
}

/// A persistent id: a run of elements stored outside the pickle.
#[derive(Debug, Clone, Copy)]
pub(super) struct Storage {
    /// `None` for a type that percept does not read.
    pub(super) dtype: Option<Dtype>,
    /// The class or the type that gave it, for messages.
    pub(super) class: Id,
    /// Where its key (a string) is.
    pub(super) key: Id,
    /// Its length.
    pub(super) elements: u64,
    /// Whether it is a view of another, as PyTorch 0.3 wrote.
    pub(super) is_view: bool,
}

/// A view of a storage, unchecked. Shape and strides stay where they are, so that a pickle cannot
/// make many copies of a long one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tensor {
    pub(super) storage: Storage,
    pub(super) offset: i64,
    pub(super) shape: Id,
    pub(super) strides: Id,
}

/// A finished pickle.
pub(super) struct Pickle {
    pub(super) values: Vec<Value>,
    pub(super) root: Id,
    /// How many bytes it took, for files with several in a row.
    pub(super) consumed: usize,
}

impl Pickle {
    pub(super) fn get(&self, id: Id) -> &Value {
        self.values.get(id as usize).unwrap_or(&Value::Inert)
    }

    pub(super) fn text(&self, id: Id) -> Option<&str> {
        match self.get(id) {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn is_false(&self, id: Id) -> bool {
        id == FALSE
    }

    /// Shape and strides of a tensor, as the pickle has them: at most [`MAX_RANK`] of each, as many
    /// of one as of the other.
    pub(super) fn shape_and_strides(&self, tensor: &Tensor) -> (Vec<i64>, Vec<i64>) {
        let integers = |id| match self.get(id) {
            Value::Tuple(items) | Value::List(items) => (items.iter())
                .take(MAX_RANK)
                .filter_map(|&item| match self.get(item) {
                    &Value::Int(n) => Some(n),
                    _ => None,
                })
                .collect(),
            _ => Vec::new(),
        };
        (integers(tensor.shape), integers(tensor.strides))
    }

    /// The full name of a global, cut where it is longer than any that is worth printing.
    pub(super) fn class_name(&self, id: Id) -> String {
        const PRINTED: usize = 120;
        let name = qualified_name(&self.values, id);
        match name.char_indices().nth(PRINTED) {
            Some((end, _)) => format!("{}…", &name[..end]),
            None => name,
        }
    }

    /// Bytes of an element of a storage, where they are known.
    pub(super) fn element_size(&self, storage: &Storage) -> Option<u64> {
        match (storage.dtype, self.get(storage.class)) {
            (Some(dtype), _) => Some(dtype.size() as u64),
            (
                None,
                &Value::Global {
                    global: Global::OtherStorage { size },
                    ..
                },
            ) if size > 0 => Some(size.into()),
            _ => None,
        }
    }

    /// Every storage that a tensor refers to.
    pub(super) fn storages(&self) -> impl Iterator<Item = &Storage> {
        self.values.iter().filter_map(|value| match value {
            Value::Storage(storage) => Some(storage),
            _ => None,
        })
    }
}

/// `module.name` of a global, for messages.
pub(super) fn qualified_name(values: &[Value], id: Id) -> String {
    let text = |id: Id| match values.get(id as usize) {
        Some(Value::Text(text)) => text.as_ref(),
        _ => "?",
    };
    match values.get(id as usize) {
        Some(Value::Global { module, name, .. }) => format!("{}.{}", text(*module), text(*name)),
        Some(Value::Opaque(Opaque::Call(callable))) if *callable != id => {
            match values.get(*callable as usize) {
                Some(Value::Global { .. }) => qualified_name(values, *callable),
                _ => "a result of another call".to_owned(),
            }
        }
        _ => "something that is not a function".to_owned(),
    }
}
