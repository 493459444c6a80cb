//! A pickle interpreter that can only make data.
//!
//! The instructions are those that PyTorch and CPython write with protocols 1 to 5. Values live in
//! one flat list and refer to each other by index, so deep nesting, sharing and cycles cost nothing
//! to build or to drop, and nothing here recurses. Nothing is ever called: a few names of
//! [`super::globals`] stand for fixed behaviours of [`super::calls`], any other callable makes an opaque
//! value.

use std::collections::HashMap;
use std::path::Path;

use super::values::{FALSE, INERT, Id, Pickle, Value, qualified_name};
use crate::error::CheckpointError;

/// Largest pickle read. Tensors' values stay outside it, so a state dict takes about 100 bytes a
/// tensor and a full training checkpoint well under 10 MB. No instruction makes more than 8 bytes of
/// container for each of its own, so this bounds memory too.
pub(super) const MAX_PICKLE: usize = 32 * 1024 * 1024;

/// Values in one pickle, of some 50 bytes each with their text. An optimiser over a thousand tensors
/// makes about 10⁵.
pub(super) const MAX_VALUES: usize = 1 << 22;

/// Entries waiting on the stack. CPython writes long containers in batches of 1000; TorchScript does
/// not, and its longest are tensor lists.
const MAX_STACK: usize = 1 << 20;

/// Containers begun and not finished: real files reach about ten.
const MAX_MARKS: usize = 4096;

/// Longer strings are kept as values without content: no tensor name or storage key is this long.
const MAX_TEXT: usize = 1024;

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

pub(super) struct Machine<'a> {
    path: &'a Path,
    input: &'a [u8],
    at: usize,
    /// Where the current instruction began, for messages.
    op_at: usize,
    pub(super) values: Vec<Value>,
    stack: Vec<Id>,
    /// Stack heights at which containers were begun.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    /// Pairs copied from lists into dictionaries: the one instruction whose result is not bounded by
    /// its operands, since the list can be used again.
    pub(super) copied: usize,
}

pub(super) type Step<T = ()> = Result<T, CheckpointError>;

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
                let number = f64::from_be_bytes(self.bytes()?);
                self.push_new(Value::Float(number))
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
            // INT, LONG, FLOAT: numbers as text, in protocol 1.
            b'I' | b'L' => self.number(),
            b'F' => {
                let line = self.line()?;
                let number = match &self.values[line as usize] {
                    Value::Text(text) => text.parse().ok(),
                    _ => None,
                };
                self.push_new(number.map_or(Value::Inert, Value::Float))
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
            // INST, OBJ: protocol 1's instances, whose arguments stand above a mark.
            b'i' => {
                let module = self.line()?;
                let name = self.line()?;
                self.pop_to_mark()?;
                self.global(module, name)?;
                let class = self.pop()?;
                self.instance(class)
            }
            b'o' => {
                let items = self.pop_to_mark()?;
                match items.first() {
                    Some(&class) => self.instance(class),
                    None => Err(self.expected("a class")),
                }
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

    /// A line with a number, with the `L` of Python 2 behind it perhaps, or with `00` and `01` for the
    /// truth values.
    fn number(&mut self) -> Step {
        let line = self.line()?;
        let text = match &self.values[line as usize] {
            Value::Text(text) => text.trim_end_matches('L'),
            _ => "",
        };
        let value = match text {
            "00" => return self.push(FALSE),
            "01" => return self.push(INERT),
            _ => text.parse().map_or(Value::Inert, Value::Int),
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

    pub(super) fn new_value(&mut self, value: Value) -> Step<Id> {
        if self.values.len() >= MAX_VALUES {
            return Err(self.limit("values in a pickle", MAX_VALUES));
        }
        // Below 2²², so it fits.
        let id = self.values.len() as Id;
        self.values.push(value);
        Ok(id)
    }

    pub(super) fn push(&mut self, id: Id) -> Step {
        if self.stack.len() >= MAX_STACK {
            return Err(self.limit("entries on a pickle's stack", MAX_STACK));
        }
        self.stack.push(id);
        Ok(())
    }

    pub(super) fn push_new(&mut self, value: Value) -> Step {
        let id = self.new_value(value)?;
        self.push(id)
    }

    /// Pops, but never below the innermost mark.
    pub(super) fn pop(&mut self) -> Step<Id> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err(self.expected("a value on the stack"));
        }
        self.stack
            .pop()
            .ok_or_else(|| self.expected("a value on the stack"))
    }

    pub(super) fn top(&self) -> Step<Id> {
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
            Value::Inert | Value::Object { .. } | Value::Opaque(_) => {}
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
            Value::Inert | Value::Object { .. } | Value::Opaque(_) => {}
            _ => return Err(self.expected("a dictionary")),
        }
        Ok(())
    }

    // Errors.

    pub(super) fn refused(&self, callable: Id) -> CheckpointError {
        CheckpointError::UnsafePickle {
            path: self.path.to_owned(),
            callable: qualified_name(&self.values, callable),
        }
    }

    pub(super) fn expected(&self, expected: &'static str) -> CheckpointError {
        CheckpointError::PickleOperand {
            path: self.path.to_owned(),
            at: self.op_at,
            expected,
        }
    }

    pub(super) fn limit(&self, what: &'static str, limit: usize) -> CheckpointError {
        CheckpointError::LimitExceeded {
            path: self.path.to_owned(),
            what,
            limit: limit as u64,
        }
    }
}
