//! Names, calls and instances: the part of pickle that would run code, and here does not.

use super::globals::{Global, lookup, reaches_out};
use super::pickle::{MAX_VALUES, Machine, Step};
use super::values::{INERT, Id, Opaque, Storage, Tensor, Value};
use crate::dtype::{Dtype, MAX_RANK};

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

    /// What REDUCE would call. The result is a value of ours, known or opaque, or a refusal; there is no
    /// third way.
    pub(super) fn call(&mut self, callable: Id, arguments: Id) -> Step<Id> {
        let global = match self.value(callable) {
            &Value::Global { global, .. } => global,
            // Such as the result of `functools.partial(…)`, or an instance with `__call__`.
            Value::Opaque(_) | Value::Object { .. } => Global::Unknown,
            _ => return Err(self.refused(callable)),
        };
        let Value::Tuple(arguments) = self.value(arguments) else {
            return Err(self.expected("a tuple of arguments"));
        };
        match global {
            Global::Inert => Ok(INERT),
            Global::Namespace => self.instance_of(callable),
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
            Global::RebuildTensor | Global::RebuildTyped => {
                let value = self.tensor(arguments, global == Global::RebuildTyped)?;
                self.new_value(value)
            }
            Global::RebuildFromType => {
                let (Some(&function), Some(&inner)) = (arguments.first(), arguments.get(2)) else {
                    return Err(self.expected("a function and its arguments"));
                };
                // One level only: a tensor subclass wraps a tensor, never another wrapper.
                match self.value(function) {
                    Value::Global {
                        global:
                            Global::RebuildTensor
                            | Global::RebuildTyped
                            | Global::FirstArgument
                            | Global::Unreadable(_),
                        ..
                    } => self.call(function, inner),
                    Value::Global { .. } | Value::Opaque(_) => {
                        self.new_value(Value::Opaque(Opaque::Call(function)))
                    }
                    _ => Err(self.refused(function)),
                }
            }
            Global::Unreadable(kind) => self.new_value(Value::Opaque(Opaque::Tensor(kind))),
            Global::Reconstruct => match arguments.first() {
                Some(&class) => self.instance_of(class),
                None => Err(self.expected("a class")),
            },
            Global::GetAttribute => {
                let name = arguments.get(1).map(|&name| self.value(name));
                if let Some(Value::Text(name)) = name
                    && reaches_out(name)
                {
                    return Err(self.refused(callable));
                }
                self.new_value(Value::Opaque(Opaque::Call(callable)))
            }
            Global::TorchScript
            | Global::Unknown
            | Global::Storage(_)
            | Global::OtherStorage { .. }
            | Global::Type(_) => self.new_value(Value::Opaque(Opaque::Call(callable))),
            Global::Forbidden => Err(self.refused(callable)),
        }
    }

    /// The pairs given to `OrderedDict([[key, value], …])`, as Python 2 wrote it, or to `dict({…})`.
    /// Anything else (such as the factory of a `defaultdict`) makes an empty dictionary, filled by
    /// SETITEMS.
    fn pairs(&self, items: Option<Id>) -> Vec<(Id, Id)> {
        let items = match items.map(|id| self.value(id)) {
            Some(Value::List(items) | Value::Tuple(items)) => items,
            Some(Value::Dict(pairs)) => return pairs.clone(),
            _ => return Vec::new(),
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

    /// `(storage, offset, size, stride, …)`; where the storage is bytes (`typed`), the type of the
    /// elements is the seventh.
    fn tensor(&self, arguments: &[Id], typed: bool) -> Step<Value> {
        let &[storage, offset, shape, strides, ref rest @ ..] = arguments else {
            return Err(self.expected("storage, offset, size and stride"));
        };
        let storage = match self.value(storage) {
            &Value::Storage(storage) => storage,
            Value::Opaque(_) | Value::Object { .. } => {
                return Ok(Value::Opaque(Opaque::Tensor(
                    "a tensor whose storage is an object",
                )));
            }
            _ => return Err(self.expected("a storage")),
        };
        let storage = match (typed, rest.get(2)) {
            (false, _) => storage,
            (true, Some(&class)) => self.retyped(storage, class)?,
            (true, None) => return Err(self.expected("the type of a tensor")),
        };
        let &Value::Int(offset) = self.value(offset) else {
            return Err(self.expected("an integer offset"));
        };
        let rank = self.integers(shape)?;
        if rank != self.integers(strides)? {
            return Err(self.expected("as many strides as dimensions"));
        }
        if rank > MAX_RANK {
            return Ok(Value::Opaque(Opaque::Tensor(
                "a tensor of more than 16 dimensions",
            )));
        }
        Ok(Value::Tensor(Tensor {
            storage,
            offset,
            shape,
            strides,
        }))
    }

    /// A storage of bytes as one of elements of the type that `class` names.
    fn retyped(&self, bytes: Storage, class: Id) -> Step<Storage> {
        let Value::Global { global, .. } = self.value(class) else {
            return Err(self.expected("the type of a tensor"));
        };
        let dtype = match global {
            Global::Type(dtype) => Some(*dtype),
            _ => None,
        };
        let (old, new) = (
            bytes.dtype.map_or(1, Dtype::size),
            dtype.map_or(1, Dtype::size),
        );
        Ok(Storage {
            dtype,
            class,
            elements: bytes.elements.saturating_mul(old as u64) / new as u64,
            ..bytes
        })
    }

    /// Checks that a value is a tuple of integers, and counts them.
    fn integers(&self, id: Id) -> Step<usize> {
        let (Value::Tuple(items) | Value::List(items)) = self.value(id) else {
            return Err(self.expected("a tuple of integers"));
        };
        // Above it they are not looked at.
        if (items.iter().take(MAX_RANK)).any(|&item| !matches!(self.value(item), Value::Int(_))) {
            return Err(self.expected("a tuple of integers"));
        }
        Ok(items.len())
    }

    /// `('storage', class, key, location, elements[, view])`; `('module', class, file, source)` in files
    /// of before 1.6 that hold a whole module.
    pub(super) fn persistent_id(&mut self) -> Step {
        let id = self.pop()?;
        let Value::Tuple(parts) = self.value(id) else {
            return Err(self.expected("a storage's description"));
        };
        if let &[tag, class, _file, _source] = &parts[..]
            && matches!(self.value(tag), Value::Text(tag) if tag.as_ref() == "module")
        {
            return self.push(class);
        }
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
                global: Global::OtherStorage { .. },
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
        let instance = self.instance_of(class)?;
        self.push(instance)
    }

    fn instance_of(&mut self, class: Id) -> Step<Id> {
        match self.value(class) {
            Value::Global {
                global: Global::Dict,
                ..
            } => self.new_value(Value::Dict(Vec::new())),
            Value::Global {
                global: Global::Inert,
                ..
            } => Ok(INERT),
            Value::Global {
                global: Global::Forbidden,
                ..
            } => Err(self.refused(class)),
            Value::Global { .. } => self.new_value(Value::Object { class, state: None }),
            Value::Opaque(_) | Value::Object { .. } => {
                self.new_value(Value::Opaque(Opaque::Call(class)))
            }
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
            Value::Inert | Value::Dict(_) | Value::Tensor(_) | Value::Opaque(_) => {}
            _ => return Err(self.expected("an object")),
        }
        Ok(())
    }
}
