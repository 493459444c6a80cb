//! What is found in a file's place when the file itself never came: pointers, error pages, halves of
//! downloads, other formats.

use std::fmt;
use std::io::Read;
use std::path::Path;

/// Bytes that settle what a file is. The longest pointers have some 200; a tar archive says its name
/// at byte 257.
const ENOUGH: usize = 1024;

/// Endings that browsers and download managers give to what they have not finished.
const UNFINISHED: [&str; 5] = ["incomplete", "part", "partial", "crdownload", "aria2"];

/// First words of the texts that model hubs answer in place of a file.
const REFUSALS: [&str; 6] = [
    "Access to model ",
    "Entry not found",
    "Invalid credentials",
    "Invalid username or password",
    "Not Found",
    "Repository not found",
];

/// Something else in the place of a model's file. `Display` says what it is and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StandIn {
    /// What Git leaves of a large file where Git LFS did not run.
    LfsPointer {
        /// Bytes that the file itself has, if the pointer says so.
        size: Option<u64>,
    },
    /// What git-annex leaves of a file that was not fetched.
    AnnexPointer,
    /// A symbolic link that became a text file when it was copied, and where it led.
    LinkText(String),
    /// A page or an XML document, such as a login, a warning or an error.
    Page,
    /// The words with which a server refused, their beginning.
    Refusal(String),
    /// No bytes at all.
    Empty,
    /// Room that was made for a download of which nothing has come.
    Zeros,
    /// A download that has not ended, by its name; the ending.
    Unfinished(String),
    /// A format that percept does not read.
    Other(&'static str),
}

impl fmt::Display for StandIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LfsPointer { size } => {
                f.write_str("a Git LFS pointer, not the file itself")?;
                if let Some(size) = size {
                    write!(f, " ({size} bytes)")?;
                }
                f.write_str("; run `git lfs pull` in its repository")
            }
            Self::AnnexPointer => f.write_str(
                "a git-annex pointer, not the file itself; run `git annex get` on it",
            ),
            Self::LinkText(target) => write!(
                f,
                "the text of a symbolic link to `{target}`, not the file itself; copy the folder \
                 again with its links followed (`cp -L`), or download it again"
            ),
            Self::Page => f.write_str(
                "a web page or XML message saved in the file's place; download the file again, \
                 logged in if it needs that",
            ),
            Self::Refusal(text) => write!(
                f,
                "a server's refusal saved in the file's place (\"{text}\"); download the file again"
            ),
            Self::Empty => f.write_str("the file is empty; download it again"),
            Self::Zeros => f.write_str(
                "it begins with zeros only, as a download that never arrived does; download it again",
            ),
            Self::Unfinished(ending) => write!(
                f,
                "a download that has not ended (`.{ending}`); let it end, or begin it again"
            ),
            Self::Other(format) => write!(f, "{format}, which percept does not read"),
        }
    }
}

impl StandIn {
    /// What stands in the place of the file at `path`, whose first bytes are `start` (1 KiB is
    /// enough); `None` for all that may be the file itself.
    #[must_use]
    pub fn of(path: &Path, start: &[u8]) -> Option<Self> {
        let ending = path
            .extension()
            .and_then(|e| e.to_str())
            .unwrap_or_default();
        if UNFINISHED.contains(&ending.to_ascii_lowercase().as_str()) {
            return Some(Self::Unfinished(ending.to_owned()));
        }
        if start.is_empty() {
            return Some(Self::Empty);
        }
        let start = &start[..start.len().min(ENOUGH)];
        if start.len() >= 64 && start.iter().all(|&b| b == 0) {
            return Some(Self::Zeros);
        }
        binary_format(start).map(Self::Other).or_else(|| {
            // Text may end within a character here.
            let text = String::from_utf8_lossy(start);
            of_text(text.trim_start_matches('\u{feff}').trim_ascii_start())
        })
    }

    /// As [`StandIn::of`], reading the first bytes. A file that cannot be read is none.
    #[must_use]
    pub fn at(path: &Path) -> Option<Self> {
        let mut start = Vec::new();
        std::fs::File::open(path)
            .and_then(|file| file.take(ENOUGH as u64).read_to_end(&mut start))
            .ok()?;
        Self::of(path, &start)
    }
}

fn of_text(text: &str) -> Option<StandIn> {
    let first_line = text.lines().next().unwrap_or_default();
    let version = first_line.strip_prefix("version https://");
    if version.is_some_and(|v| v.contains("git-lfs") || v.contains("hawser")) {
        let size = (text.lines()).find_map(|line| line.strip_prefix("size ")?.trim().parse().ok());
        return Some(StandIn::LfsPointer { size });
    }
    if first_line.contains("/annex/objects/") && !first_line.contains(['{', '<']) {
        return Some(StandIn::AnnexPointer);
    }
    if first_line.starts_with("../") && first_line.contains("blobs/") {
        let target = first_line.chars().take(120).collect();
        return Some(StandIn::LinkText(target));
    }
    if is_page(text) {
        return Some(StandIn::Page);
    }
    let refused = REFUSALS.iter().any(|words| text.starts_with(words))
        || text.replace(' ', "").starts_with("{\"error\":");
    refused.then(|| StandIn::Refusal(first_line.chars().take(120).collect()))
}

fn is_page(text: &str) -> bool {
    let head: String = text
        .chars()
        .take(14)
        .collect::<String>()
        .to_ascii_lowercase();
    ([
        "<!doctype html",
        "<html",
        "<head",
        "<?xml",
        "<error",
        "<!--",
    ]
    .iter())
    .any(|opening| head.starts_with(opening))
}

/// Formats of weights, and of archives of them, that people take for a checkpoint.
fn binary_format(start: &[u8]) -> Option<&'static str> {
    const KNOWN: [(&[u8], &str); 9] = [
        (b"\x1f\x8b", "a gzip archive"),
        (b"BZh", "a bzip2 archive"),
        (b"\xfd7zXZ", "an xz archive"),
        (b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
        (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
        (b"Rar!", "a RAR archive"),
        (b"\x89HDF\r\n", "HDF5 (Keras)"),
        (b"GGUF", "GGUF (llama.cpp)"),
        (b"\x93NUMPY", "a NumPy array"),
    ];
    if start.get(257..262) == Some(b"ustar") {
        return Some("a tar archive");
    }
    (KNOWN.iter())
        .find(|(magic, _)| start.starts_with(magic))
        .map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(start: &[u8]) -> Option<StandIn> {
        StandIn::of(Path::new("model.safetensors"), start)
    }

    #[test]
    fn pointers_are_told() {
        let pointer = b"version https://git-lfs.github.com/spec/v1\r\n\
            oid sha256:53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db\r\n\
            size 90868376\r\n";
        let size = Some(90_868_376);
        assert_eq!(of(pointer), Some(StandIn::LfsPointer { size }));
        assert!(of(pointer).unwrap().to_string().contains("git lfs pull"));
        assert_eq!(
            of(b"/annex/objects/SHA256E-s90--53aa.bin\n"),
            Some(StandIn::AnnexPointer)
        );
        let link = of(b"../../blobs/53aa51172d").unwrap();
        assert_eq!(link, StandIn::LinkText("../../blobs/53aa51172d".to_owned()));
    }

    #[test]
    fn pages_and_refusals_are_told() {
        for page in [
            "<!DOCTYPE html><html>",
            "\n <!doctype HTML>",
            "\u{feff}<html lang=\"en\">",
            "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code>",
        ] {
            assert_eq!(of(page.as_bytes()), Some(StandIn::Page), "{page}");
        }
        for text in ["Entry not found", "{\"error\": \"Repository not found\"}"] {
            assert_eq!(of(text.as_bytes()), Some(StandIn::Refusal(text.to_owned())));
        }
    }

    #[test]
    fn halves_of_downloads_are_told() {
        assert_eq!(of(b""), Some(StandIn::Empty));
        assert_eq!(of(&[0; 100]), Some(StandIn::Zeros));
        let unfinished = StandIn::of(Path::new("53aa.incomplete"), b"PK\x03\x04");
        assert_eq!(
            unfinished,
            Some(StandIn::Unfinished("incomplete".to_owned()))
        );
    }

    #[test]
    fn other_formats_are_told() {
        assert_eq!(of(b"\x1f\x8b\x08"), Some(StandIn::Other("a gzip archive")));
        let mut tar = vec![b'a'; 512];
        tar[257..262].copy_from_slice(b"ustar");
        assert_eq!(of(&tar), Some(StandIn::Other("a tar archive")));
    }

    #[test]
    fn what_may_be_the_file_is_left_alone() {
        for start in [
            &b"{\"version\": \"1.0\"}"[..],
            b"{\"errors\": []}",
            b"PK\x03\x04",
            b"\x80\x02\x8a\x0a",
            b"\x40\0\0\0\0\0\0\0{\"w\":",
            b"version: 1",
            &[0xff; 2000],
        ] {
            assert_eq!(of(start), None, "{start:02x?}");
        }
    }
}
