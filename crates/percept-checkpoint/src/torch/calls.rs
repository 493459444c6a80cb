//! Names, calls and instances: the part of pickle that would run code, and here does not.

use super::globals::{Global, lookup};
use super::pickle::{MAX_VALUES, Machine, Step};
use super::values::{INERT, Id, Storage, Tensor, Value};
use crate::dtype::MAX_RANK;

impl Machine<'_> {
    pub(super) fn global(&mut self, module: Id, name: Id) -> Step {
        let (Value::Text(m), Value::Text(n)) = (self.value(module), self.value(name)) else {
            return Err(self.expected("a module and a name"));
        };
        let global = lookup(m, n);
        let id = self.new_value(Value::Global {
            global,
            module,
            name,
        })?;
        if global == Global::Forbidden {
            return Err(self.refused(id));
        }
        self.push(id)
    }

    fn value(&self, id: Id) -> &Value {
        // Every id was made by `new_value`.
        &self.values[id as usize]
    }

    /// What REDUCE would call. The result is a value of ours or a refusal; there is no third way.
    pub(super) fn call(&mut self, callable: Id, arguments: Id) -> Step<Id> {
        let &Value::Global { global, .. } = self.value(callable) else {
            return Err(self.refused(callable));
        };
        let Value::Tuple(arguments) = self.value(arguments) else {
            return Err(self.expected("a tuple of arguments"));
        };
        match global {
            Global::Inert => Ok(INERT),
            Global::Dict => {
                let items = arguments.first().copied();
                let pairs = self.pairs(items);
                self.copied += pairs.len();
                if self.copied > MAX_VALUES {
                    return Err(self.limit("values in a pickle", MAX_VALUES));
                }
                self.new_value(Value::Dict(pairs))
            }
            Global::FirstArgument => match arguments.first() {
                Some(&first) => Ok(first),
                None => Err(self.expected("a tensor to rebuild")),
            },
            Global::RebuildTensor => {
                let tensor = self.tensor(arguments)?;
                self.new_value(Value::Tensor(tensor))
            }
            Global::RebuildFromType => {
                let (Some(&function), Some(&inner)) = (arguments.first(), arguments.get(2)) else {
                    return Err(self.expected("a function and its arguments"));
                };
                // One level only: a tensor subclass wraps a tensor, never another wrapper.
                match self.value(function) {
                    Value::Global {
                        global: Global::RebuildTensor | Global::FirstArgument,
                        ..
                    } => self.call(function, inner),
                    _ => Err(self.refused(function)),
                }
            }
            Global::Storage(_)
            | Global::OtherStorage
            | Global::TorchScript
            | Global::Unknown
            | Global::Forbidden => Err(self.refused(callable)),
        }
    }

    /// The pairs given to `OrderedDict([[key, value], …])`, as Python 2 wrote it. Anything else (such
    /// as the factory of a `defaultdict`) makes an empty dictionary, filled by SETITEMS.
    fn pairs(&self, items: Option<Id>) -> Vec<(Id, Id)> {
        let Some(Value::List(items)) = items.map(|id| self.value(id)) else {
            return Vec::new();
        };
        (items.iter())
            .filter_map(|&item| match self.value(item) {
                Value::List(pair) | Value::Tuple(pair) => match pair[..] {
                    [key, value] => Some((key, value)),
                    _ => None,
                },
                _ => None,
            })
            .collect()
    }

    /// `(storage, offset, size, stride, …)`.
    fn tensor(&self, arguments: &[Id]) -> Step<Tensor> {
        let &[storage, offset, shape, strides, ..] = arguments else {
            return Err(self.expected("storage, offset, size and stride"));
        };
        let &Value::Storage(storage) = self.value(storage) else {
            return Err(self.expected("a storage"));
        };
        let &Value::Int(offset) = self.value(offset) else {
            return Err(self.expected("an integer offset"));
        };
        if self.integers(shape)? != self.integers(strides)? {
            return Err(self.expected("as many strides as dimensions"));
        }
        Ok(Tensor {
            storage,
            offset,
            shape,
            strides,
        })
    }

    /// Checks that a value is a tuple of integers, and counts them.
    fn integers(&self, id: Id) -> Step<usize> {
        let (Value::Tuple(items) | Value::List(items)) = self.value(id) else {
            return Err(self.expected("a tuple of integers"));
        };
        if items.len() > MAX_RANK {
            return Err(self.limit("dimensions of a tensor", MAX_RANK));
        }
        if (items.iter()).any(|&item| !matches!(self.value(item), Value::Int(_))) {
            return Err(self.expected("a tuple of integers"));
        }
        Ok(items.len())
    }

    /// `('storage', class, key, location, elements[, view])`.
    pub(super) fn persistent_id(&mut self) -> Step {
        let id = self.pop()?;
        let Value::Tuple(parts) = self.value(id) else {
            return Err(self.expected("a storage's description"));
        };
        let &[tag, class, key, _location, elements, ref view @ ..] = &parts[..] else {
            return Err(self.expected("a storage's description"));
        };
        let is_view = view.iter().any(|&v| v != INERT);
        let (Value::Text(tag), Value::Text(_), &Value::Int(elements)) =
            (self.value(tag), self.value(key), self.value(elements))
        else {
            return Err(self.expected("a storage's description"));
        };
        let dtype = match self.value(class) {
            Value::Global {
                global: Global::Storage(dtype),
                ..
            } => Some(*dtype),
            Value::Global {
                global: Global::OtherStorage,
                ..
            } => None,
            _ => return Err(self.expected("a storage class")),
        };
        let Ok(elements) = u64::try_from(elements) else {
            return Err(self.expected("a number of elements"));
        };
        if tag.as_ref() != "storage" {
            return Err(self.expected("the word `storage`"));
        }
        self.push_new(Value::Storage(Storage {
            dtype,
            class,
            key,
            elements,
            is_view,
        }))
    }

    /// An instance: data with a class's name on it. Its constructor is not run, and whatever
    /// arguments it had are dropped.
    pub(super) fn instance(&mut self, class: Id) -> Step {
        match self.value(class) {
            Value::Global {
                global: Global::Dict,
                ..
            } => self.push_new(Value::Dict(Vec::new())),
            Value::Global {
                global: Global::Inert,
                ..
            } => self.push(INERT),
            Value::Global {
                global: Global::TorchScript | Global::Unknown,
                ..
            } => self.push_new(Value::Object { class, state: None }),
            _ => Err(self.refused(class)),
        }
    }

    /// Gives the value under the top its state. `OrderedDict` has attributes in state dicts
    /// (`_metadata`), tensors can have them too: ignored.
    pub(super) fn build(&mut self) -> Step {
        let given = self.pop()?;
        let id = self.top()?;
        match &mut self.values[id as usize] {
            Value::Object { state, .. } => *state = Some(given),
            Value::Inert | Value::Dict(_) | Value::Tensor(_) => {}
            _ => return Err(self.expected("an object")),
        }
        Ok(())
    }
}
