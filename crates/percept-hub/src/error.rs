//! Everything that can go wrong between a name and its files.

use std::path::PathBuf;

/// Why a model could not be found or downloaded. Each variant names the file or the address.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// A name that is in no table, and no `hf:` or `https:` reference either.
    #[error(
        "unknown model `{name}`{}; known names: {}; or give hf:ORG/NAME or an https:// address",
        suggestion.map(|s| format!(", did you mean `{s}`?")).unwrap_or_default(),
        known.join(", ")
    )]
    UnknownModel {
        /// What was asked for.
        name: String,
        /// The nearest known name, when one is near.
        suggestion: Option<&'static str>,
        /// All known names.
        known: Vec<&'static str>,
    },

    /// A reference that is malformed.
    #[error("`{text}` is no model reference: {reason}")]
    BadReference {
        /// The reference.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },

    /// Not in the cache, and downloads are switched off.
    #[error(
        "`{reference}` is not in the cache ({}){} and HF_HUB_OFFLINE forbids downloading; \
         on a machine with a connection run `percept pull {reference}`",
        cache.display(),
        if missing.is_empty() { String::new() } else { format!(" but in part: {} missing,", listed(missing)) }
    )]
    Offline {
        /// The reference.
        reference: String,
        /// The cache that was searched.
        cache: PathBuf,
        /// What is missing, where some of it is there.
        missing: Vec<String>,
    },

    /// Some files of a model are in the cache, and not all.
    #[error(
        "`{reference}` is only partly in the cache: {} lacks {}; run `percept pull {reference}`, \
         which fetches what is missing",
        folder.display(),
        listed(missing)
    )]
    PartlyCached {
        /// The reference.
        reference: String,
        /// Where the files are that are there.
        folder: PathBuf,
        /// Those that are not.
        missing: Vec<String>,
    },

    /// Not in the cache.
    #[error(
        "model {reference} has not been downloaded; run `percept pull {reference}` first{}",
        if others.is_empty() { String::new() } else { format!("; the cache has other versions: {}", listed(others)) }
    )]
    NotCached {
        /// The reference.
        reference: String,
        /// References to other versions that are there.
        others: Vec<String>,
    },

    /// Neither `HF_HOME` nor a home directory.
    #[error("no home directory for the model cache; set HF_HOME")]
    NoHome,

    /// The server has no such file.
    #[error("{file}: not found at {url}")]
    NotFound {
        /// The file, or the repository.
        file: String,
        /// Where it was looked for.
        url: String,
    },

    /// The server wants to know who is asking, or does not like who asks.
    #[error("{file}: access denied ({status}) at {url}; {hint}")]
    Denied {
        /// The file, or the repository.
        file: String,
        /// Where.
        url: String,
        /// 401 or 403.
        status: u16,
        /// What to do about it.
        hint: &'static str,
    },

    /// Any other status that is not success.
    #[error("{file}: the server answered {status} at {url}")]
    Status {
        /// The file, or the repository.
        file: String,
        /// Where.
        url: String,
        /// The HTTP status.
        status: u16,
    },

    /// No connection, or one that kept breaking.
    #[error("{file}: cannot be fetched from {url}")]
    Network {
        /// The file, or the repository.
        file: String,
        /// Where.
        url: String,
        /// What the connection said.
        #[source]
        source: Box<ureq::Error>,
    },

    /// A connection that kept ending before the file did.
    #[error("{file}: {url}: the connection broke off at {received} bytes, again and again")]
    BrokenOff {
        /// The file.
        file: String,
        /// Where.
        url: String,
        /// Bytes received; they are kept, and the next attempt goes on from there.
        received: u64,
    },

    /// An answer that makes no sense.
    #[error("{url}: unusable answer: {reason}")]
    BadAnswer {
        /// Where.
        url: String,
        /// What is wrong with it.
        reason: String,
    },

    /// An address that is not `https://`, or not an address.
    #[error("{url}: {reason}")]
    BadUrl {
        /// The address.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },

    /// More redirects than any server needs.
    #[error("{url}: more than {limit} redirects")]
    TooManyRedirects {
        /// The address at which they began.
        url: String,
        /// The limit.
        limit: u32,
    },

    /// A file of another size than announced. Nothing was kept.
    #[error("{file}: expected {expected} bytes, got {found}")]
    WrongSize {
        /// The file.
        file: String,
        /// Bytes announced.
        expected: u64,
        /// Bytes sent.
        found: u64,
    },

    /// A file with another SHA-256 than it should have. Nothing was kept.
    #[error("{file}: SHA-256 is {found}, expected {expected}; it was damaged or replaced")]
    WrongDigest {
        /// The file.
        file: String,
        /// The digest it should have.
        expected: String,
        /// The digest it has.
        found: String,
    },

    /// More bytes than any model percept can run.
    #[error("{file}: larger than {limit} bytes")]
    TooLarge {
        /// The file or repository.
        file: String,
        /// The limit.
        limit: u64,
    },

    /// A file name that would leave the cache.
    #[error("{repo}: unsafe file name {path:?}; nothing was downloaded")]
    UnsafePath {
        /// The repository.
        repo: String,
        /// The name.
        path: String,
    },

    /// A repository without any weights that percept reads.
    #[error("{repo}: no .safetensors, pytorch_model.bin or single .pt file in this repository")]
    NoWeights {
        /// The repository.
        repo: String,
    },

    /// A digest was given for something with several weight files.
    #[error("{reference}: a SHA-256 was given, but there are {files} weight files")]
    AmbiguousDigest {
        /// The reference.
        reference: String,
        /// How many.
        files: usize,
    },

    /// A digest that is not 64 hexadecimal digits.
    #[error("`{digest}` is no SHA-256: 64 hexadecimal digits are needed")]
    BadDigest {
        /// What was given.
        digest: String,
    },

    /// The operating system refused a read or a write.
    #[error("cannot access {}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// The first few of a list, and how many more there are.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let shown = names
        .iter()
        .take(SHOWN)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    match names.len().checked_sub(SHOWN) {
        None | Some(0) => shown,
        Some(more) => format!("{shown} and {more} more"),
    }
}
