//! What the names in a pickle are taken to mean. Nothing here is ever imported or called: a name
//! selects one of a few fixed behaviours of the interpreter, or is refused.

use crate::dtype::Dtype;

/// The meaning of a `module.name` in a pickle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Global {
    /// A typed storage class, in persistent ids.
    Storage(Dtype),
    /// A storage class of a type that percept does not read. Refused only if a tensor needs it.
    OtherStorage,
    /// `collections.OrderedDict` and its kind: calling it makes a dictionary.
    Dict,
    /// `torch._utils._rebuild_tensor_v2(storage, offset, size, stride, …)`.
    RebuildTensor,
    /// `torch._utils._rebuild_parameter(tensor, …)`: its first argument.
    FirstArgument,
    /// `torch._tensor._rebuild_from_type_v2(function, type, arguments, state)`.
    RebuildFromType,
    /// Known to be harmless and no tensor: calling it makes a value that is carried and ignored.
    Inert,
    /// A class or attribute of a TorchScript module.
    TorchScript,
    /// Unknown: its instances are carried as data, calling it as a function is refused.
    Unknown,
    /// Has no business in a checkpoint: refused at sight.
    Forbidden,
}

/// Modules that run programs, load code or reach the system. No checkpoint names them; a file that
/// does is an attack, even where it does not get as far as a call.
const FORBIDDEN_MODULES: &[&str] = &[
    "_aix_support",
    "_frozen_importlib",
    "_io",
    "_pickle",
    "_posixsubprocess",
    "_socket",
    "_thread",
    "aiohttp",
    "asyncio",
    "bdb",
    "builtins",
    "__builtin__",
    "code",
    "codeop",
    "commands",
    "concurrent",
    "ctypes",
    "cProfile",
    "doctest",
    "ftplib",
    "http",
    "httplib",
    "imp",
    "importlib",
    "io",
    "linecache",
    "marshal",
    "multiprocessing",
    "nt",
    "ntpath",
    "os",
    "pdb",
    "pickle",
    "pip",
    "pkgutil",
    "platform",
    "popen2",
    "posix",
    "posixpath",
    "profile",
    "pty",
    "pydoc",
    "requests",
    "runpy",
    "shutil",
    "signal",
    "site",
    "smtplib",
    "socket",
    "ssl",
    "subprocess",
    "sys",
    "tempfile",
    "test",
    "threading",
    "timeit",
    "trace",
    "urllib",
    "urllib2",
    "venv",
    "webbrowser",
    "zipimport",
];

/// Constructors that training checkpoints contain beside their tensors. Their arguments are dropped.
const INERT: &[(&str, &str)] = &[
    ("__builtin__", "bytearray"),
    ("__builtin__", "complex"),
    ("__builtin__", "frozenset"),
    ("__builtin__", "object"),
    ("__builtin__", "range"),
    ("__builtin__", "set"),
    ("__builtin__", "slice"),
    ("__builtin__", "xrange"),
    ("builtins", "bytearray"),
    ("builtins", "complex"),
    ("builtins", "frozenset"),
    ("builtins", "object"),
    ("builtins", "range"),
    ("builtins", "set"),
    ("builtins", "slice"),
    // Bytes, as protocol 2 writes them.
    ("_codecs", "encode"),
    ("argparse", "Namespace"),
    ("collections", "Counter"),
    ("collections", "deque"),
    ("datetime", "date"),
    ("datetime", "datetime"),
    ("datetime", "timedelta"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("pathlib", "Path"),
    ("pathlib", "PosixPath"),
    ("pathlib", "PurePosixPath"),
    ("pathlib", "WindowsPath"),
    ("pathlib._local", "PosixPath"),
    ("pathlib._local", "WindowsPath"),
    ("torch", "Size"),
    ("torch", "device"),
    ("torch.jit._pickle", "build_boollist"),
    ("torch.jit._pickle", "build_doublelist"),
    ("torch.jit._pickle", "build_intlist"),
    ("torch.jit._pickle", "build_tensorlist"),
    ("torch.serialization", "_get_layout"),
];

/// Classifies a name.
pub(super) fn lookup(module: &str, name: &str) -> Global {
    if let Some(global) = torch_global(module, name) {
        return global;
    }
    if INERT.contains(&(module, name)) {
        return Global::Inert;
    }
    match (module, name) {
        ("collections", "OrderedDict" | "defaultdict") => return Global::Dict,
        // Restores the declared type of a TorchScript container, its first argument.
        ("torch.jit._pickle", "restore_type_tag") => return Global::FirstArgument,
        _ => {}
    }
    let top = module.split('.').next().unwrap_or_default();
    if top == "__torch__" {
        return Global::TorchScript;
    }
    // Also where the dangerous thing is reached through another module or a dotted name.
    let dangerous = |part: &str| {
        matches!(
            part,
            "eval" | "exec" | "execfile" | "system" | "popen" | "__import__" | "getattr"
        )
    };
    if FORBIDDEN_MODULES.contains(&top) || name.split('.').any(dangerous) {
        return Global::Forbidden;
    }
    Global::Unknown
}

fn torch_global(module: &str, name: &str) -> Option<Global> {
    let global = match (module, name) {
        ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Global::RebuildTensor,
        ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => {
            Global::FirstArgument
        }
        ("torch._tensor", "_rebuild_from_type_v2") => Global::RebuildFromType,
        ("torch" | "torch.cuda", _) if name.ends_with("Storage") => match name {
            "DoubleStorage" => Global::Storage(Dtype::F64),
            "FloatStorage" => Global::Storage(Dtype::F32),
            "HalfStorage" => Global::Storage(Dtype::F16),
            "BFloat16Storage" => Global::Storage(Dtype::BF16),
            "LongStorage" => Global::Storage(Dtype::I64),
            "IntStorage" => Global::Storage(Dtype::I32),
            "ShortStorage" => Global::Storage(Dtype::I16),
            "CharStorage" => Global::Storage(Dtype::I8),
            "ByteStorage" => Global::Storage(Dtype::U8),
            "BoolStorage" => Global::Storage(Dtype::Bool),
            _ => Global::OtherStorage,
        },
        ("torch.storage", "UntypedStorage" | "TypedStorage") => Global::OtherStorage,
        _ => return None,
    };
    Some(global)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_friend_from_foe() {
        assert_eq!(lookup("torch", "HalfStorage"), Global::Storage(Dtype::F16));
        assert_eq!(lookup("torch", "ComplexFloatStorage"), Global::OtherStorage);
        assert_eq!(lookup("__torch__.clip.model", "CLIP"), Global::TorchScript);
        assert_eq!(lookup("builtins", "set"), Global::Inert);
        assert_eq!(lookup("my.package", "Config"), Global::Unknown);
        for (module, name) in [
            ("posix", "system"),
            ("os", "path"),
            ("os.path", "join"),
            ("subprocess", "Popen"),
            ("builtins", "eval"),
            ("__builtin__", "getattr"),
            ("importlib._bootstrap", "_gcd_import"),
            ("torch.serialization", "os.system"),
        ] {
            assert_eq!(lookup(module, name), Global::Forbidden, "{module}.{name}");
        }
    }
}
