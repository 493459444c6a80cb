//! A pickle interpreter that can only make data.
//!
//! The instructions are those that PyTorch and CPython write with protocols 2 to 5. Values live in
//! one flat list and refer to each other by index, so deep nesting, sharing and cycles cost nothing
//! to build or to drop, and nothing here recurses. A call is possible only to the few names of
//! [`super::globals`], each of which stands for a fixed behaviour of this file.

use std::collections::HashMap;
use std::path::Path;

use super::globals::{Global, lookup};
use crate::dtype::{Dtype, MAX_RANK};
use crate::error::CheckpointError;

/// Largest pickle read. Tensors' values stay outside it, so a state dict takes about 100 bytes a
/// tensor and a full training checkpoint well under 10 MB. No instruction makes more than 8 bytes of
/// container for each of its own, so this bounds memory too.
pub(super) const MAX_PICKLE: usize = 32 * 1024 * 1024;

/// Values in one pickle, of some 50 bytes each with their text. An optimiser over a thousand tensors
/// makes about 10⁵.
const MAX_VALUES: usize = 1 << 22;

/// Entries waiting on the stack. CPython writes long containers in batches of 1000; TorchScript does
/// not, and its longest are tensor lists.
const MAX_STACK: usize = 1 << 20;

/// Containers begun and not finished: real files reach about ten.
const MAX_MARKS: usize = 4096;

/// Longer strings are kept as values without content: no tensor name or storage key is this long.
const MAX_TEXT: usize = 1024;

/// A value's place in the list.
pub(super) type Id = u32;

/// The place of the one value that stands for all that is carried and ignored: `None`, booleans,
/// floats, bytes, sets, unknown objects.
const INERT: Id = 0;

/// The place of `False`, which is kept apart for the byte order of legacy files.
const FALSE: Id = 1;

/// What a pickle can build.
#[derive(Debug)]
pub(super) enum Value {
    Inert,
    Int(i64),
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
    /// An instance of a class, with the class's place and the state it was given.
    Object {
        class: Id,
        state: Option<Id>,
    },
}

/// A persistent id: a run of elements stored outside the pickle.
#[derive(Debug, Clone, Copy)]
pub(super) struct Storage {
    /// `None` for a type that percept does not read.
    pub(super) dtype: Option<Dtype>,
    /// The class that gave the type, for messages.
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
    shape: Id,
    strides: Id,
}

/// A finished pickle.
pub(super) struct Pickle {
    values: Vec<Value>,
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

    /// The full name of a global.
    pub(super) fn class_name(&self, id: Id) -> String {
        qualified_name(&self.values, id)
    }

    /// Every storage that a tensor refers to.
    pub(super) fn storages(&self) -> impl Iterator<Item = &Storage> {
        self.values.iter().filter_map(|value| match value {
            Value::Storage(storage) => Some(storage),
            _ => None,
        })
    }
}

fn qualified_name(values: &[Value], id: Id) -> String {
    let text = |id: Id| match values.get(id as usize) {
        Some(Value::Text(text)) => text.as_ref(),
        _ => "?",
    };
    match values.get(id as usize) {
        Some(Value::Global { module, name, .. }) => format!("{}.{}", text(*module), text(*name)),
        _ => "something that is not a function".to_owned(),
    }
}

/// Interprets the first pickle in `input`. `path` is for messages.
pub(super) fn parse(path: &Path, input: &[u8]) -> Result<Pickle, CheckpointError> {
    let mut machine = Machine {
        path,
        input,
        at: 0,
        op_at: 0,
        // INERT and FALSE.
        values: vec![Value::Inert, Value::Inert],
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        copied: 0,
    };
    let root = machine.run()?;
    Ok(Pickle {
        values: machine.values,
        root,
        consumed: machine.at,
    })
}

struct Machine<'a> {
    path: &'a Path,
    input: &'a [u8],
    at: usize,
    /// Where the current instruction began, for messages.
    op_at: usize,
    values: Vec<Value>,
    stack: Vec<Id>,
    /// Stack heights at which containers were begun.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    /// Pairs copied from lists into dictionaries: the one instruction whose result is not bounded by
    /// its operands, since the list can be used again.
    copied: usize,
}

type Step<T = ()> = Result<T, CheckpointError>;

impl Machine<'_> {
    /// Runs to STOP and returns the root.
    fn run(&mut self) -> Step<Id> {
        loop {
            self.op_at = self.at;
            let [opcode] = self.bytes()?;
            if opcode == b'.' {
                return self.pop();
            }
            self.step(opcode)?;
        }
    }

    /// One instruction, named as in CPython's `pickletools`.
    fn step(&mut self, opcode: u8) -> Step {
        match opcode {
            // PROTO, FRAME: nothing to do but skip their operand.
            0x80 => self.bytes::<1>().map(drop),
            0x95 => self.bytes::<8>().map(drop),

            // NONE, NEWTRUE, EMPTY_SET; NEWFALSE.
            b'N' | 0x88 | 0x8f => self.push(INERT),
            0x89 => self.push(FALSE),
            // BINFLOAT.
            b'G' => {
                self.bytes::<8>()?;
                self.push(INERT)
            }

            // BININT, BININT1, BININT2.
            b'J' => {
                let n = i32::from_le_bytes(self.bytes()?);
                self.push_new(Value::Int(n.into()))
            }
            b'K' => {
                let [n] = self.bytes()?;
                self.push_new(Value::Int(n.into()))
            }
            b'M' => {
                let n = u16::from_le_bytes(self.bytes()?);
                self.push_new(Value::Int(n.into()))
            }
            // LONG1, LONG4.
            0x8a => {
                let [len] = self.bytes()?;
                self.long(len.into())
            }
            0x8b => {
                let len = self.len4()?;
                self.long(len)
            }

            // SHORT_BINSTRING, BINSTRING, SHORT_BINUNICODE, BINUNICODE, BINUNICODE8.
            b'U' | 0x8c => {
                let [len] = self.bytes()?;
                self.text(len.into())
            }
            b'T' | b'X' => {
                let len = self.len4()?;
                self.text(len)
            }
            0x8d => {
                let len = self.len8()?;
                self.text(len)
            }
            // SHORT_BINBYTES, BINBYTES, BINBYTES8, BYTEARRAY8.
            b'C' => {
                let [len] = self.bytes()?;
                self.skip(len.into())
            }
            b'B' => {
                let len = self.len4()?;
                self.skip(len)
            }
            0x8e | 0x96 => {
                let len = self.len8()?;
                self.skip(len)
            }

            // MARK, POP, POP_MARK, DUP.
            b'(' => self.mark(),
            b'0' => {
                // Popping right after a mark removes the mark, as in CPython.
                if self.marks.last() == Some(&self.stack.len()) {
                    self.marks.pop();
                    Ok(())
                } else {
                    self.pop().map(drop)
                }
            }
            b'1' => self.pop_to_mark().map(drop),
            b'2' => {
                let top = self.top()?;
                self.push(top)
            }

            // EMPTY_TUPLE, TUPLE, TUPLE1, TUPLE2, TUPLE3.
            b')' => self.push_new(Value::Tuple(Vec::new())),
            b't' => {
                let items = self.pop_to_mark()?;
                self.push_new(Value::Tuple(items))
            }
            0x85..=0x87 => {
                let mut items = Vec::new();
                for _ in 0..(opcode - 0x84) {
                    items.push(self.pop()?);
                }
                items.reverse();
                self.push_new(Value::Tuple(items))
            }
            // EMPTY_LIST, APPEND, APPENDS.
            b']' => self.push_new(Value::List(Vec::new())),
            b'a' => {
                let item = self.pop()?;
                self.append(&[item])
            }
            b'e' => {
                let items = self.pop_to_mark()?;
                self.append(&items)
            }
            // EMPTY_DICT, SETITEM, SETITEMS.
            b'}' => self.push_new(Value::Dict(Vec::new())),
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set_items(&[key, value])
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.set_items(&items)
            }
            // ADDITEMS, FROZENSET: sets are inert.
            0x90 => self.pop_to_mark().map(drop),
            0x91 => {
                self.pop_to_mark()?;
                self.push(INERT)
            }

            // BINPUT, LONG_BINPUT, MEMOIZE.
            b'q' => {
                let [slot] = self.bytes()?;
                self.put(slot.into())
            }
            b'r' => {
                let slot = u32::from_le_bytes(self.bytes()?);
                self.put(slot)
            }
            0x94 => {
                let slot = u32::try_from(self.memo.len()).unwrap_or(u32::MAX);
                self.put(slot)
            }
            // BINGET, LONG_BINGET.
            b'h' => {
                let [slot] = self.bytes()?;
                self.fetch(slot.into())
            }
            b'j' => {
                let slot = u32::from_le_bytes(self.bytes()?);
                self.fetch(slot)
            }

            // GLOBAL, STACK_GLOBAL.
            b'c' => {
                let module = self.line()?;
                let name = self.line()?;
                self.global(module, name)
            }
            0x93 => {
                let name = self.pop()?;
                let module = self.pop()?;
                self.global(module, name)
            }
            // BINPERSID.
            b'Q' => self.persistent_id(),
            // REDUCE, BUILD.
            b'R' => {
                let arguments = self.pop()?;
                let callable = self.pop()?;
                let result = self.call(callable, arguments)?;
                self.push(result)
            }
            b'b' => self.build(),
            // NEWOBJ, NEWOBJ_EX: an instance without running its constructor.
            0x81 => {
                self.pop()?;
                let class = self.pop()?;
                self.instance(class)
            }
            0x92 => {
                self.pop()?;
                self.pop()?;
                let class = self.pop()?;
                self.instance(class)
            }
            // INST, OBJ: protocol 1's calls, which PyTorch never wrote.
            b'i' => {
                let module = self.line()?;
                let name = self.line()?;
                self.global(module, name)?;
                let class = self.top()?;
                Err(self.refused(class))
            }
            b'o' => {
                let items = self.pop_to_mark()?;
                Err(self.refused(items.first().copied().unwrap_or(INERT)))
            }
            _ => Err(CheckpointError::PickleOpcode {
                path: self.path.to_owned(),
                opcode,
                at: self.op_at,
            }),
        }
    }

    // Operands.

    fn take(&mut self, len: usize) -> Step<&[u8]> {
        let Some(bytes) = (self.at.checked_add(len)).and_then(|end| self.input.get(self.at..end))
        else {
            return Err(CheckpointError::PickleTruncated {
                path: self.path.to_owned(),
                at: self.input.len(),
            });
        };
        self.at += len;
        Ok(bytes)
    }

    fn bytes<const N: usize>(&mut self) -> Step<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn len4(&mut self) -> Step<usize> {
        Ok(u32::from_le_bytes(self.bytes()?) as usize)
    }

    fn len8(&mut self) -> Step<usize> {
        let len = u64::from_le_bytes(self.bytes()?);
        // Too large for this machine is also too large for the input.
        Ok(usize::try_from(len).unwrap_or(usize::MAX))
    }

    /// A little-endian two's complement integer; one beyond 64 bits is no size and is ignored.
    fn long(&mut self, len: usize) -> Step {
        let bytes = self.take(len)?;
        let value = if len > 8 {
            Value::Inert
        } else {
            let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
            let mut wide = if negative { [0xff; 8] } else { [0; 8] };
            wide[..len].copy_from_slice(bytes);
            Value::Int(i64::from_le_bytes(wide))
        };
        self.push_new(value)
    }

    fn text(&mut self, len: usize) -> Step {
        let bytes = self.take(len)?;
        let value = match std::str::from_utf8(bytes) {
            Ok(text) if len <= MAX_TEXT => Value::Text(text.into()),
            _ => Value::Inert,
        };
        self.push_new(value)
    }

    fn skip(&mut self, len: usize) -> Step {
        self.take(len)?;
        self.push(INERT)
    }

    /// A newline-terminated operand.
    fn line(&mut self) -> Step<Id> {
        let rest = self.input.get(self.at..).unwrap_or_default();
        let Some(len) = rest.iter().take(MAX_TEXT).position(|&b| b == b'\n') else {
            return Err(self.expected("a short line"));
        };
        let Ok(text) = std::str::from_utf8(&rest[..len]) else {
            return Err(self.expected("a name in UTF-8"));
        };
        let text = Value::Text(text.into());
        self.at += len + 1;
        self.new_value(text)
    }

    // The stack.

    fn new_value(&mut self, value: Value) -> Step<Id> {
        if self.values.len() >= MAX_VALUES {
            return Err(self.limit("values in a pickle", MAX_VALUES));
        }
        // Below 2²², so it fits.
        let id = self.values.len() as Id;
        self.values.push(value);
        Ok(id)
    }

    fn push(&mut self, id: Id) -> Step {
        if self.stack.len() >= MAX_STACK {
            return Err(self.limit("entries on a pickle's stack", MAX_STACK));
        }
        self.stack.push(id);
        Ok(())
    }

    fn push_new(&mut self, value: Value) -> Step {
        let id = self.new_value(value)?;
        self.push(id)
    }

    /// Pops, but never below the innermost mark.
    fn pop(&mut self) -> Step<Id> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err(self.expected("a value on the stack"));
        }
        self.stack
            .pop()
            .ok_or_else(|| self.expected("a value on the stack"))
    }

    fn top(&self) -> Step<Id> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.last() {
            Some(&id) if self.stack.len() > floor => Ok(id),
            _ => Err(self.expected("a value on the stack")),
        }
    }

    fn mark(&mut self) -> Step {
        if self.marks.len() >= MAX_MARKS {
            return Err(self.limit("unfinished containers in a pickle", MAX_MARKS));
        }
        self.marks.push(self.stack.len());
        Ok(())
    }

    fn pop_to_mark(&mut self) -> Step<Vec<Id>> {
        match self.marks.pop() {
            Some(height) => Ok(self.stack.split_off(height)),
            None => Err(self.expected("a mark on the stack")),
        }
    }

    fn put(&mut self, slot: u32) -> Step {
        let top = self.top()?;
        if self.memo.len() >= MAX_VALUES && !self.memo.contains_key(&slot) {
            return Err(self.limit("memo entries in a pickle", MAX_VALUES));
        }
        self.memo.insert(slot, top);
        Ok(())
    }

    fn fetch(&mut self, slot: u32) -> Step {
        match self.memo.get(&slot) {
            Some(&id) => self.push(id),
            None => Err(self.expected("a memo entry that was stored")),
        }
    }

    // Containers. What is set on an inert value or an object is dropped with it.

    fn append(&mut self, items: &[Id]) -> Step {
        let id = self.top()?;
        match &mut self.values[id as usize] {
            Value::List(list) => list.extend_from_slice(items),
            Value::Inert | Value::Object { .. } => {}
            _ => return Err(self.expected("a list")),
        }
        Ok(())
    }

    fn set_items(&mut self, items: &[Id]) -> Step {
        let (pairs, odd) = items.as_chunks::<2>();
        if !odd.is_empty() {
            return Err(self.expected("keys and values in pairs"));
        }
        let id = self.top()?;
        match &mut self.values[id as usize] {
            Value::Dict(dict) => dict.extend(pairs.iter().map(|&[k, v]| (k, v))),
            Value::Inert | Value::Object { .. } => {}
            _ => return Err(self.expected("a dictionary")),
        }
        Ok(())
    }

    // Names, calls and instances.

    fn global(&mut self, module: Id, name: Id) -> Step {
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
    fn call(&mut self, callable: Id, arguments: Id) -> Step<Id> {
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
    fn persistent_id(&mut self) -> Step {
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
    fn instance(&mut self, class: Id) -> Step {
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
    fn build(&mut self) -> Step {
        let given = self.pop()?;
        let id = self.top()?;
        match &mut self.values[id as usize] {
            Value::Object { state, .. } => *state = Some(given),
            Value::Inert | Value::Dict(_) | Value::Tensor(_) => {}
            _ => return Err(self.expected("an object")),
        }
        Ok(())
    }

    // Errors.

    fn refused(&self, callable: Id) -> CheckpointError {
        CheckpointError::UnsafePickle {
            path: self.path.to_owned(),
            callable: qualified_name(&self.values, callable),
        }
    }

    fn expected(&self, expected: &'static str) -> CheckpointError {
        CheckpointError::PickleOperand {
            path: self.path.to_owned(),
            at: self.op_at,
            expected,
        }
    }

    fn limit(&self, what: &'static str, limit: usize) -> CheckpointError {
        CheckpointError::LimitExceeded {
            path: self.path.to_owned(),
            what,
            limit: limit as u64,
        }
    }
}
