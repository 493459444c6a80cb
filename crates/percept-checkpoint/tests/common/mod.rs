//! Pickles, zips and safetensors put together byte by byte, right or wrong as a test wants them.

use std::io::{Cursor, Write};
use std::path::PathBuf;

use percept_checkpoint::{Checkpoint, CheckpointError};

/// A pickle assembler: each method appends one instruction.
#[derive(Default)]
pub struct Pickle(pub Vec<u8>);

impl Pickle {
    pub fn new() -> Self {
        Self(vec![0x80, 2])
    }

    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub fn global(self, module: &str, name: &str) -> Self {
        self.raw(format!("c{module}\n{name}\n").as_bytes())
    }

    pub fn text(self, text: &str) -> Self {
        let len = u32::try_from(text.len()).unwrap();
        self.raw(b"X").raw(&len.to_le_bytes()).raw(text.as_bytes())
    }

    pub fn int(self, n: i64) -> Self {
        self.raw(&[0x8a, 8]).raw(&n.to_le_bytes())
    }

    pub fn ints(mut self, values: &[i64]) -> Self {
        self = self.raw(b"(");
        for &n in values {
            self = self.int(n);
        }
        self.raw(b"t")
    }

    /// A float32 tensor over storage `0` of `elements`.
    pub fn tensor(self, elements: i64, offset: i64, shape: &[i64], strides: &[i64]) -> Self {
        self.global("torch._utils", "_rebuild_tensor_v2")
            .raw(b"((")
            .text("storage")
            .global("torch", "FloatStorage")
            .text("0")
            .text("cpu")
            .int(elements)
            .raw(b"tQ")
            .int(offset)
            .ints(shape)
            .ints(strides)
            .raw(b"\x89)tR")
    }

    pub fn stop(mut self) -> Vec<u8> {
        self.0.push(b'.');
        self.0
    }
}

/// A state dict with one tensor called `w`.
pub fn one_tensor(elements: i64, offset: i64, shape: &[i64], strides: &[i64]) -> Vec<u8> {
    Pickle::new()
        .raw(b"}")
        .text("w")
        .tensor(elements, offset, shape, strides)
        .raw(b"s")
        .stop()
}

/// A zip of stored entries.
pub fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, bytes) in entries {
        writer.start_file(*name, options).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// A PyTorch archive with the pickle and a storage `0` of `storage`.
pub fn torch_zip(pickle: &[u8], storage: &[u8]) -> Vec<u8> {
    zip(&[("a/data.pkl", pickle), ("a/data/0", storage)])
}

/// A safetensors file: the length of `header`, `header`, `data`.
pub fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

/// A file in a folder of its own, both gone when it is dropped.
pub struct TempFile {
    #[allow(dead_code)]
    pub folder: tempfile::TempDir,
    pub path: PathBuf,
}

impl TempFile {
    pub fn new(name: &str, bytes: &[u8]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        Self { folder, path }
    }
}

/// Writes the bytes to a file, opens it, and returns what was wrong with it.
pub fn refusal(bytes: impl AsRef<[u8]>) -> CheckpointError {
    let file = TempFile::new("file", bytes.as_ref());
    match Checkpoint::open(&file.path) {
        Ok(_) => panic!("it was accepted"),
        Err(error) => error,
    }
}
