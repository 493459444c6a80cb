//! Everything that can be wrong with a checkpoint.

use std::path::PathBuf;

use crate::stand_in::StandIn;

/// Why a checkpoint could not be opened, read or written. Each variant names the file, and the
/// tensor where there is one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The operating system refused a read or a write.
    #[error("cannot access {}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },

    /// A file of no bytes: usually a download that never began.
    #[error("{}: the file is empty", path.display())]
    EmptyFile {
        /// The file.
        path: PathBuf,
    },

    /// The first bytes are those of no known format.
    #[error(
        "{}: neither a PyTorch checkpoint nor safetensors (it begins with {start:02x?})",
        path.display()
    )]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// Its first bytes, at most 16.
        start: Vec<u8>,
    },

    /// A folder without a checkpoint under any of the usual names.
    #[error(
        "{}: no model.safetensors, *.safetensors.index.json, pytorch_model.bin or single \
         .safetensors/.pt/.pth/.bin file in this folder",
        path.display()
    )]
    NothingInFolder {
        /// The folder.
        path: PathBuf,
    },

    /// A folder with several candidates and no rule to choose between them.
    #[error("{}: several checkpoints ({}); name one of them", path.display(), candidates.join(", "))]
    AmbiguousFolder {
        /// The folder.
        path: PathBuf,
        /// The names found in it.
        candidates: Vec<String>,
    },

    /// The file parses but holds no tensor.
    #[error("{}: no tensors{}", path.display(), hint.as_ref().map(|h| format!(": {h}")).unwrap_or_default())]
    NoTensors {
        /// The file.
        path: PathBuf,
        /// What was found instead, when that helps.
        hint: Option<String>,
    },

    /// A name that the checkpoint does not hold.
    #[error("{}: no tensor `{tensor}`", path.display())]
    UnknownTensor {
        /// The checkpoint.
        path: PathBuf,
        /// The name asked for.
        tensor: String,
    },

    /// A tensor that the file has and that percept cannot read.
    #[error("{}: tensor `{tensor}` cannot be read: {reason}", path.display())]
    LeftOut {
        /// The checkpoint.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What it is instead of plain numbers.
        reason: String,
    },

    /// A file with tensors of which none can be read.
    #[error(
        "{}: nothing in it can be read; `{tensor}`: {reason}{}",
        path.display(),
        if *others == 0 { String::new() } else { format!(" (and {others} more)") }
    )]
    AllLeftOut {
        /// The file.
        path: PathBuf,
        /// The first of them by name.
        tensor: String,
        /// What it is instead of plain numbers.
        reason: String,
        /// How many more there are.
        others: usize,
    },

    /// Something else in the place of the file.
    #[error("{}: {what}", path.display())]
    StandIn {
        /// The file.
        path: PathBuf,
        /// What is there, and what to do about it.
        what: StandIn,
    },

    /// The same tensor name twice, after a leading `module.` is dropped.
    #[error("{}: tensor `{tensor}` appears twice", path.display())]
    DuplicateTensor {
        /// The file.
        path: PathBuf,
        /// The repeated name.
        tensor: String,
    },

    /// An element type that safetensors does not have.
    #[error("{}: tensor `{tensor}` has the unknown type {dtype}", path.display())]
    UnsupportedDtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The type as the file spells it.
        dtype: String,
    },

    /// A shape with too many dimensions, a negative one, or more elements than can be counted.
    #[error("{}: tensor `{tensor}` has an impossible shape {shape:?}", path.display())]
    BadShape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The dimensions, as many as are worth printing.
        shape: Vec<i64>,
    },

    /// A NaN or infinite weight (or one that becomes infinite in the target precision).
    #[error("tensor `{tensor}`: value {index} is not a finite number")]
    NonFinite {
        /// The tensor.
        tensor: String,
        /// Row-major index of the first such value.
        index: usize,
    },

    /// A count or a length beyond what any honest checkpoint needs.
    #[error("{}: more than {limit} {what}", path.display())]
    LimitExceeded {
        /// The file.
        path: PathBuf,
        /// What there is too much of.
        what: &'static str,
        /// The most that percept accepts.
        limit: u64,
    },

    /// A safetensors header length beyond the format's own limit.
    #[error("{}: safetensors header of {length} bytes, the limit is {limit}", path.display())]
    HeaderTooLong {
        /// The file.
        path: PathBuf,
        /// The length that the file claims.
        length: u64,
        /// The limit of the format.
        limit: u64,
    },

    /// A safetensors header that runs past the end: a truncated file, or not safetensors.
    #[error(
        "{}: safetensors header of {length} bytes in a file of {file} bytes (truncated download?)",
        path.display()
    )]
    HeaderPastEnd {
        /// The file.
        path: PathBuf,
        /// The length that the file claims.
        length: u64,
        /// The length of the file.
        file: u64,
    },

    /// A safetensors header or shard index that is not the JSON it should be.
    #[error("{}: malformed JSON", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What the JSON parser said.
        source: serde_json::Error,
    },

    /// Offsets in the wrong order, or past the end of the file.
    #[error(
        "{}: tensor `{tensor}` claims bytes {begin}..{end} of {available} (truncated download?)",
        path.display()
    )]
    OffsetsOutOfRange {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// First byte after the header.
        begin: u64,
        /// One past the last byte.
        end: u64,
        /// Bytes after the header.
        available: u64,
    },

    /// Elements of less than a byte that end within one.
    #[error("{}: tensor `{tensor}` of type {dtype} ends within a byte", path.display())]
    PartialByte {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its type.
        dtype: String,
    },

    /// A byte range that is not as long as the shape and type need.
    #[error("{}: tensor `{tensor}` needs {needed} bytes and has {stored}", path.display())]
    SizeMismatch {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Bytes by shape and type.
        needed: u64,
        /// Bytes by offsets.
        stored: u64,
    },

    /// Two safetensors tensors that share bytes.
    #[error("{}: tensors `{first}` and `{second}` overlap", path.display())]
    OverlappingTensors {
        /// The file.
        path: PathBuf,
        /// The tensor that begins first.
        first: String,
        /// The tensor that begins inside it.
        second: String,
    },

    /// Bytes in a safetensors file that belong to no tensor, which the format forbids.
    #[error("{}: {bytes} bytes at offset {offset} belong to no tensor", path.display())]
    UnclaimedBytes {
        /// The file.
        path: PathBuf,
        /// Where they begin, counted from the end of the header.
        offset: u64,
        /// How many.
        bytes: u64,
    },

    /// A shard name in an index that is not a plain file name.
    #[error("{}: shard `{shard}` is not a plain file name in the same folder", path.display())]
    ShardPath {
        /// The index.
        path: PathBuf,
        /// The name as the index spells it.
        shard: String,
    },

    /// A shard that the index names and the folder lacks.
    #[error("{}: shard `{shard}` is missing", path.display())]
    MissingShard {
        /// The index.
        path: PathBuf,
        /// The shard's file name.
        shard: String,
    },

    /// A tensor that the index places in a shard that lacks it.
    #[error("{}: tensor `{tensor}` is not in shard `{shard}`", path.display())]
    NotInShard {
        /// The index.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The shard's file name.
        shard: String,
    },

    /// A zip archive that cannot be read, often a truncated download.
    #[error("{}: broken zip archive (truncated download?)", path.display())]
    Zip {
        /// The file.
        path: PathBuf,
        /// What the zip reader said.
        source: zip::result::ZipError,
    },

    /// A zip archive with two entries of one name.
    #[error("{}: two zip entries share a name", path.display())]
    DuplicateEntry {
        /// The file.
        path: PathBuf,
    },

    /// A zip archive that is no PyTorch checkpoint, or has several in it.
    #[error("{}: a zip archive with {found} data.pkl entries; a PyTorch checkpoint has one", path.display())]
    NotTorch {
        /// The file.
        path: PathBuf,
        /// How many were found.
        found: usize,
    },

    /// A compressed or encrypted entry. PyTorch stores its entries plainly.
    #[error("{}: zip entry `{entry}` is compressed or encrypted, which PyTorch never does", path.display())]
    CompressedEntry {
        /// The file.
        path: PathBuf,
        /// The entry.
        entry: String,
    },

    /// A zip entry that runs past the end of the file.
    #[error("{}: zip entry `{entry}` runs past the end of the file", path.display())]
    EntryPastEnd {
        /// The file.
        path: PathBuf,
        /// The entry.
        entry: String,
    },

    /// Written on a big-endian machine.
    #[error("{}: big-endian tensors are not supported", path.display())]
    BigEndian {
        /// The file.
        path: PathBuf,
    },

    /// The pickle asks for a function to be called. Nothing was called.
    #[error(
        "{}: refused: its pickle calls `{callable}`, and percept calls nothing from a checkpoint. \
         If you trust the file, load it in PyTorch and save its state_dict() as safetensors",
        path.display()
    )]
    UnsafePickle {
        /// The file.
        path: PathBuf,
        /// The function's full name, such as `posix.system`.
        callable: String,
    },

    /// The pickle ends in the middle.
    #[error("{}: pickle ends at byte {at} without STOP", path.display())]
    PickleTruncated {
        /// The file.
        path: PathBuf,
        /// Offset in the pickle.
        at: usize,
    },

    /// An instruction that PyTorch does not write.
    #[error("{}: unknown pickle instruction 0x{opcode:02x} at byte {at}", path.display())]
    PickleOpcode {
        /// The file.
        path: PathBuf,
        /// The instruction.
        opcode: u8,
        /// Offset in the pickle.
        at: usize,
    },

    /// An instruction whose operands are missing or of the wrong kind.
    #[error("{}: malformed pickle at byte {at}: expected {expected}", path.display())]
    PickleOperand {
        /// The file.
        path: PathBuf,
        /// Offset in the pickle.
        at: usize,
        /// What the instruction needs.
        expected: &'static str,
    },

    /// Dictionaries or modules nested beyond any real model (or within themselves).
    #[error("{}: more than {limit} levels of nesting under `{prefix}`", path.display())]
    NestedTooDeep {
        /// The file.
        path: PathBuf,
        /// Where, by its outermost names.
        prefix: String,
        /// The limit.
        limit: usize,
    },

    /// A tensor whose storage is not in the file.
    #[error("{}: tensor `{tensor}` needs storage `{key}`, which is missing", path.display())]
    MissingStorage {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The storage's key.
        key: String,
    },

    /// A storage with fewer bytes than its pickle claims.
    #[error(
        "{}: tensor `{tensor}`: storage `{key}` has {stored} bytes and should have {needed}",
        path.display()
    )]
    StorageTooShort {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The storage's key.
        key: String,
        /// Bytes needed.
        needed: u64,
        /// Bytes in the file.
        stored: u64,
    },

    /// A view (offset, shape, strides) that reaches outside its storage.
    #[error("{}: tensor `{tensor}` reaches outside its storage of {elements} elements", path.display())]
    OutsideStorage {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Elements in the storage.
        elements: u64,
    },

    /// Weights in fewer bits, stored in a way that this version of percept does not know.
    #[error(
        "{}: its weights are quantised in a way called `{version}`, which this version of percept does \
         not know; get a newer one",
        path.display()
    )]
    UnknownQuantization {
        /// The file.
        path: PathBuf,
        /// What the file calls it.
        version: String,
    },

    /// Weights in fewer bits whose factors are not theirs.
    #[error("{}: `{tensor}` and its scales do not fit each other: {reason}", path.display())]
    Quantized {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Types and shapes.
        reason: String,
    },

    /// Values to write that do not fill their shape.
    #[error("tensor `{tensor}` has shape {shape:?} and {values} values")]
    ShapeMismatch {
        /// The tensor.
        tensor: String,
        /// Its shape.
        shape: Vec<usize>,
        /// How many values were given.
        values: usize,
    },

    /// A name that safetensors keeps for itself.
    #[error("a tensor cannot be called `{tensor}`")]
    ReservedName {
        /// The name.
        tensor: String,
    },
}
