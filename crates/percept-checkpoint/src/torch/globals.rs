//! What the names in a pickle are taken to mean. Nothing here is ever imported or called: a name
//! selects one of a few fixed behaviours of the interpreter, or is refused.

use crate::dtype::Dtype;

/// The meaning of a `module.name` in a pickle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Global {
    /// A typed storage class, in persistent ids.
    Storage(Dtype),
    /// A storage class of a type that percept does not read, and the bytes of an element where they are
    /// known.
    OtherStorage {
        /// 0 where it is not known.
        size: u8,
    },
    /// A type of elements, such as `torch.float32`.
    Type(Dtype),
    /// `collections.OrderedDict` and its kind: calling it makes a dictionary.
    Dict,
    /// `torch._utils._rebuild_tensor_v2(storage, offset, size, stride, …)`.
    RebuildTensor,
    /// `torch._utils._rebuild_tensor_v3(bytes, offset, size, stride, …, type)`.
    RebuildTyped,
    /// `torch._utils._rebuild_parameter(tensor, …)`: its first argument.
    FirstArgument,
    /// `torch._tensor._rebuild_from_type_v2(function, type, arguments, state)`.
    RebuildFromType,
    /// Makes a tensor that is not plain numbers in a storage; what it is.
    Unreadable(&'static str),
    /// `copyreg._reconstructor(class, …)`: an instance, as protocol 1 has it.
    Reconstruct,
    /// `getattr`, by which pickles name nested classes, methods and members of enumerations.
    GetAttribute,
    /// Known to be harmless and no tensor: calling it makes a value that is carried and ignored.
    Inert,
    /// Attributes by name and nothing else: `argparse.Namespace`, `types.SimpleNamespace`.
    Namespace,
    /// A class or attribute of a TorchScript module.
    TorchScript,
    /// Unknown: its instances and results are carried as opaque values.
    Unknown,
    /// Has no business in a checkpoint: refused at sight.
    Forbidden,
}

/// Modules that run programs, load code or reach the system. No checkpoint names them; a file that
/// does is an attack, even where it does not get as far as a call. Nothing would be called anyway: the
/// list is a warning to the user, and leaves out modules whose names research code has for its own.
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
    "codeop",
    "ctypes",
    "doctest",
    "ftplib",
    "httplib",
    "imp",
    "importlib",
    "io",
    "marshal",
    "nt",
    "os",
    "pdb",
    "pickle",
    "pip",
    "pkgutil",
    "popen2",
    "posix",
    "pty",
    "pydoc",
    "requests",
    "runpy",
    "shutil",
    "smtplib",
    "socket",
    "ssl",
    "subprocess",
    "sys",
    "tempfile",
    "urllib",
    "urllib2",
    "webbrowser",
    "zipimport",
];

/// Functions of other modules that do the same.
const FORBIDDEN_NAMES: &[(&str, &str)] = &[
    ("cProfile", "run"),
    ("cProfile", "runctx"),
    ("code", "InteractiveConsole"),
    ("code", "InteractiveInterpreter"),
    ("code", "interact"),
    ("commands", "getoutput"),
    ("commands", "getstatusoutput"),
    ("platform", "popen"),
    ("profile", "run"),
    ("profile", "runctx"),
    ("timeit", "main"),
    ("timeit", "timeit"),
    ("torch", "load"),
    ("torch.hub", "load"),
    ("torch.serialization", "load"),
];

/// Built-in functions that run code, reach the system or change objects.
const FORBIDDEN_BUILTINS: &[&str] = &[
    "__build_class__",
    "__import__",
    "apply",
    "breakpoint",
    "compile",
    "delattr",
    "eval",
    "exec",
    "execfile",
    "file",
    "globals",
    "input",
    "locals",
    "open",
    "raw_input",
    "reload",
    "setattr",
    "vars",
];

/// Constructors that training checkpoints contain beside their tensors. Their arguments are dropped.
const INERT: &[(&str, &str)] = &[
    // Bytes, as protocol 2 writes them.
    ("_codecs", "encode"),
    ("_io", "BytesIO"),
    ("_io", "StringIO"),
    ("collections", "Counter"),
    ("collections", "deque"),
    ("datetime", "date"),
    ("datetime", "datetime"),
    ("datetime", "time"),
    ("datetime", "timedelta"),
    ("datetime", "timezone"),
    ("decimal", "Decimal"),
    ("fractions", "Fraction"),
    ("numpy", "dtype"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy.core.multiarray", "scalar"),
    ("pathlib", "Path"),
    ("pathlib", "PosixPath"),
    ("pathlib", "PurePath"),
    ("pathlib", "PurePosixPath"),
    ("pathlib", "PureWindowsPath"),
    ("pathlib", "WindowsPath"),
    ("pathlib._local", "PosixPath"),
    ("pathlib._local", "PurePosixPath"),
    ("pathlib._local", "WindowsPath"),
    ("torch", "device"),
    ("torch.jit._pickle", "build_boollist"),
    ("torch.jit._pickle", "build_doublelist"),
    ("torch.jit._pickle", "build_intlist"),
    ("torch.jit._pickle", "build_tensorlist"),
    ("torch.serialization", "_get_layout"),
    ("uuid", "UUID"),
];

/// Built-in types and constants, which hold numbers and text.
const INERT_BUILTINS: &[&str] = &[
    "Ellipsis",
    "NotImplemented",
    "bool",
    "bytearray",
    "bytes",
    "complex",
    "float",
    "frozenset",
    "int",
    "list",
    "long",
    "object",
    "range",
    "set",
    "slice",
    "str",
    "tuple",
    "type",
    "unicode",
    "xrange",
];

/// Classifies a name.
pub(super) fn lookup(module: &str, name: &str) -> Global {
    if let Some(global) = torch_global(module, name) {
        return global;
    }
    if INERT.contains(&(module, name)) {
        return Global::Inert;
    }
    if matches!(module, "builtins" | "__builtin__") {
        return builtin(name);
    }
    match (module, name) {
        ("collections", "OrderedDict" | "defaultdict") => return Global::Dict,
        ("argparse", "Namespace") | ("types", "SimpleNamespace") => return Global::Namespace,
        ("copyreg" | "copy_reg", "_reconstructor" | "__newobj__" | "__newobj_ex__") => {
            return Global::Reconstruct;
        }
        (
            "numpy" | "numpy.core.multiarray" | "numpy._core.multiarray",
            "ndarray" | "_reconstruct",
        )
        | ("numpy.core.numeric" | "numpy._core.numeric", "_frombuffer") => {
            return Global::Unreadable("a NumPy array, not a tensor");
        }
        _ => {}
    }
    let top = module.split('.').next().unwrap_or_default();
    if top == "__torch__" {
        return Global::TorchScript;
    }
    let forbidden = FORBIDDEN_MODULES.contains(&top)
        || FORBIDDEN_NAMES.contains(&(module, name))
        || reaches_out(name);
    match forbidden {
        true => Global::Forbidden,
        false => Global::Unknown,
    }
}

/// Whether a name, dotted perhaps, leads to something dangerous through whatever module it is in.
pub(super) fn reaches_out(name: &str) -> bool {
    let mut parts = name.split('.');
    let last = parts.next_back().unwrap_or_default();
    parts.any(|module| FORBIDDEN_MODULES.contains(&module))
        || matches!(
            last,
            "__builtins__"
                | "__globals__"
                | "__import__"
                | "__subclasses__"
                | "eval"
                | "exec"
                | "execfile"
                | "popen"
                | "system"
        )
}

fn builtin(name: &str) -> Global {
    match name {
        "dict" => Global::Dict,
        "getattr" => Global::GetAttribute,
        _ if INERT_BUILTINS.contains(&name) => Global::Inert,
        _ if FORBIDDEN_BUILTINS.contains(&name) || name.contains('.') => Global::Forbidden,
        _ => Global::Unknown,
    }
}

fn torch_global(module: &str, name: &str) -> Option<Global> {
    let other = |size| Global::OtherStorage { size };
    let global = match (module, name) {
        ("torch._utils", name) => return rebuild(name),
        ("torch._tensor", "_rebuild_from_type" | "_rebuild_from_type_v2") => {
            Global::RebuildFromType
        }
        // A tuple with a name; the wrapper of a tensor; the declared type of a TorchScript container.
        ("torch", "Size")
        | ("torch.nn.parameter", "Parameter" | "Buffer")
        | ("torch.jit._pickle", "restore_type_tag") => Global::FirstArgument,
        // What torch takes for bytes.
        ("torch.storage" | "torch", "UntypedStorage") => Global::Storage(Dtype::U8),
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
            "QInt8Storage" | "QUInt8Storage" | "QUInt4x2Storage" | "QUInt2x4Storage" => other(1),
            "QInt32Storage" => other(4),
            "ComplexFloatStorage" => other(8),
            "ComplexDoubleStorage" => other(16),
            _ => other(0),
        },
        ("torch", _) => Global::Type(element_type(name)?),
        _ => return None,
    };
    Some(global)
}

/// The functions of `torch._utils` that make tensors.
fn rebuild(name: &str) -> Option<Global> {
    Some(match name {
        "_rebuild_tensor" | "_rebuild_tensor_v2" => Global::RebuildTensor,
        "_rebuild_tensor_v3" => Global::RebuildTyped,
        "_rebuild_parameter"
        | "_rebuild_parameter_with_state"
        // The tensor as it was on the CPU, from a device without storages.
        | "_rebuild_device_tensor_from_cpu_tensor" => Global::FirstArgument,
        "_rebuild_qtensor" => Global::Unreadable("a quantised tensor"),
        "_rebuild_sparse_tensor" | "_rebuild_sparse_csr_tensor" => {
            Global::Unreadable("a sparse tensor")
        }
        "_rebuild_nested_tensor" => Global::Unreadable("a nested tensor"),
        "_rebuild_meta_tensor_no_storage" => {
            Global::Unreadable("a tensor on the meta device, which has no values")
        }
        "_rebuild_wrapper_subclass" => {
            Global::Unreadable("a tensor subclass without a storage of its own")
        }
        "_rebuild_device_tensor_from_numpy" | "_rebuild_xla_tensor" => {
            Global::Unreadable("a tensor of another device, written as a NumPy array")
        }
        _ => return None,
    })
}

/// The type of elements that is `torch.NAME`.
fn element_type(name: &str) -> Option<Dtype> {
    Some(match name {
        "float64" | "double" => Dtype::F64,
        "float32" | "float" => Dtype::F32,
        "float16" | "half" => Dtype::F16,
        "bfloat16" => Dtype::BF16,
        "int64" | "long" => Dtype::I64,
        "int32" | "int" => Dtype::I32,
        "int16" | "short" => Dtype::I16,
        "int8" => Dtype::I8,
        "uint64" => Dtype::U64,
        "uint32" => Dtype::U32,
        "uint16" => Dtype::U16,
        "uint8" => Dtype::U8,
        "bool" => Dtype::Bool,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_friend_from_foe() {
        assert_eq!(lookup("torch", "HalfStorage"), Global::Storage(Dtype::F16));
        let complex = Global::OtherStorage { size: 8 };
        assert_eq!(lookup("torch", "ComplexFloatStorage"), complex);
        assert_eq!(lookup("torch", "uint16"), Global::Type(Dtype::U16));
        assert_eq!(lookup("torch", "float8_e4m3fn"), Global::Unknown);
        assert_eq!(lookup("__torch__.clip.model", "CLIP"), Global::TorchScript);
        assert_eq!(lookup("builtins", "set"), Global::Inert);
        assert_eq!(lookup("my.package", "Config"), Global::Unknown);
        // Of research code, though the standard library has modules of these names.
        assert_eq!(lookup("code.model", "Config"), Global::Unknown);
        assert_eq!(lookup("test", "Config"), Global::Unknown);
        assert_eq!(lookup("builtins", "Ellipsis"), Global::Inert);
        assert_eq!(lookup("builtins", "getattr"), Global::GetAttribute);
        assert_eq!(lookup("builtins", "ValueError"), Global::Unknown);
        for (module, name) in [
            ("posix", "system"),
            ("os", "path"),
            ("os.path", "join"),
            ("subprocess", "Popen"),
            ("builtins", "eval"),
            ("__builtin__", "setattr"),
            ("code", "InteractiveInterpreter"),
            ("torch.hub", "load"),
            ("importlib._bootstrap", "_gcd_import"),
            ("torch.serialization", "os.system"),
        ] {
            assert_eq!(lookup(module, name), Global::Forbidden, "{module}.{name}");
        }
    }
}
