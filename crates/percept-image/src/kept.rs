//! Results that are kept from run to run, in files named after all that they follow from: nothing stale is ever
//! found.
//!
//! A file is the hash of a result, then the result. One that is damaged is as good as none.

use std::io;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::write_atomic;

/// Bytes of a hash.
pub const HASH: usize = 32;

/// The name of the file of what follows from all that was hashed: 64 digits.
pub fn name(key: Sha256) -> String {
    let hash = key.finalize();
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads a result of `most` bytes at most; `None` where there is none that is whole.
pub fn read(path: &Path, most: u64) -> Option<Vec<u8>> {
    if path.metadata().ok()?.len() > most.saturating_add(HASH as u64) {
        return None;
    }
    let mut file = std::fs::read(path).ok()?;
    let (hash, result) = file.split_first_chunk::<HASH>()?;
    if Sha256::digest(result)[..] != hash[..] {
        return None;
    }
    file.drain(..HASH);
    Some(file)
}

/// Writes a result, whole or not at all.
///
/// # Errors
/// As [`write_atomic`].
pub fn write(path: &Path, result: &[u8]) -> io::Result<()> {
    let hash = Sha256::digest(result);
    write_atomic(path, &[&hash[..], result].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_comes_back_where_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new").join("a");
        assert_eq!(read(&path, 9), None);
        for result in [&b"a result"[..], b""] {
            write(&path, result).unwrap();
            assert_eq!(read(&path, 8).as_deref(), Some(result));
        }
        write(&path, b"a result").unwrap();
        assert_eq!(read(&path, 7), None, "more than was expected");
        let whole = std::fs::read(&path).unwrap();
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(read(&path, 8), None, "{length} bytes");
        }
        for at in 0..whole.len() {
            let mut other = whole.clone();
            other[at] ^= 1;
            std::fs::write(&path, other).unwrap();
            assert_eq!(read(&path, 8), None, "byte {at}");
        }
    }

    #[test]
    fn names_are_hashes() {
        let mut key = Sha256::new();
        key.update("abc");
        // The example of FIPS 180-2.
        let begin = "ba7816bf8f01cfea414140de5dae2223";
        assert_eq!(
            name(key),
            format!("{begin}b00361a396177a9cb410ff61f20015ad")
        );
    }
}
