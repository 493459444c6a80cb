//! Tokens of photos, kept between runs: the same photos are measured in another way without encoding them again.
//!
//! A file holds the tokens of one photo. Its name is a hash of what the encoder was shown and of what it is. A file
//! that is damaged is computed and written again.

use std::io;
use std::path::{Path, PathBuf};

use percept::TokenGrid;
use percept_image::{ChwImage, kept};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Counts changes of the form of the files, and of engines that change tokens by more than rounding.
const VERSION: u32 = 1;
const ENDING: &str = "percept-tokens";
/// Bytes of a file at most: more than the tokens of any photo take.
const MAX_BYTES: u64 = 1 << 30;
/// Bytes of rows, columns and width of a token.
const SIDES: usize = 3 * size_of::<u32>();

/// A folder of tokens.
#[derive(Debug, Clone)]
pub(crate) struct TokenStore {
    folder: PathBuf,
    /// What makes tokens of an image.
    encoder: Sha256,
}

impl TokenStore {
    /// Tokens in `folder`, which is made, of an encoder that `encoder` tells from all others.
    ///
    /// # Errors
    /// There is no such folder and none can be made.
    pub(crate) fn open(folder: &Path, encoder: &Value) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let mut hash = Sha256::new();
        hash.update(VERSION.to_le_bytes());
        hash.update(env!("CARGO_PKG_VERSION"));
        hash.update(encoder.to_string());
        Ok(Self {
            folder: folder.to_owned(),
            encoder: hash,
        })
    }

    /// Where the tokens of an image are.
    pub(crate) fn path(&self, image: &ChwImage) -> PathBuf {
        let mut hash = self.encoder.clone();
        for side in [image.height, image.width] {
            hash.update((side as u64).to_le_bytes());
        }
        hash.update(bytemuck::cast_slice(&image.data));
        self.folder.join(kept::name(hash)).with_extension(ENDING)
    }

    /// Reads tokens; `None` where they are not whole.
    pub(crate) fn read(path: &Path) -> Option<TokenGrid> {
        let file = kept::read(path, MAX_BYTES)?;
        let (sides, values) = file.split_first_chunk::<SIDES>()?;
        let (sides, _) = sides.as_chunks();
        let [rows, columns, dim] = [0, 1, 2].map(|i| u32::from_le_bytes(sides[i]) as usize);
        let (values, _) = values.as_chunks();
        let tokens = rows.checked_mul(columns)?.checked_add(1)?;
        if tokens.checked_mul(dim)? != values.len() {
            return None;
        }
        let mut cls: Vec<f32> = values.iter().map(|v| f32::from_le_bytes(*v)).collect();
        let patches = cls.split_off(dim);
        Some(TokenGrid {
            rows,
            columns,
            dim,
            cls,
            patches,
        })
    }

    /// Writes tokens, whole or not at all.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn write(path: &Path, grid: &TokenGrid) -> io::Result<()> {
        let mut file = Vec::with_capacity(SIDES + 4 * (grid.cls.len() + grid.patches.len()));
        for side in [grid.rows, grid.columns, grid.dim] {
            file.extend((side as u32).to_le_bytes());
        }
        for value in grid.cls.iter().chain(&grid.patches) {
            file.extend(value.to_le_bytes());
        }
        kept::write(path, &file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn image(value: f32) -> ChwImage {
        ChwImage {
            data: vec![value; 3 * 2 * 700],
            height: 2,
            width: 700,
        }
    }

    fn grid() -> TokenGrid {
        TokenGrid {
            rows: 1,
            columns: 2,
            dim: 3,
            cls: vec![0.5, -1.0, f32::MIN_POSITIVE],
            patches: vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
        }
    }

    #[test]
    fn tokens_come_back_as_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let store = TokenStore::open(&folder.path().join("new"), &json!("one")).unwrap();
        let path = store.path(&image(0.5));
        assert!(TokenStore::read(&path).is_none());
        TokenStore::write(&path, &grid()).unwrap();
        let (found, kept) = (TokenStore::read(&path).unwrap(), grid());
        assert_eq!((found.rows, found.columns, found.dim), (1, 2, 3));
        assert_eq!((found.cls, found.patches), (kept.cls, kept.patches));
    }

    #[test]
    fn other_images_and_encoders_have_other_files() {
        let folder = tempfile::tempdir().unwrap();
        let store = |name| TokenStore::open(folder.path(), &json!(name)).unwrap();
        let path = store("one").path(&image(0.5));
        assert_eq!(path, store("one").path(&image(0.5)));
        assert_ne!(path, store("one").path(&image(0.25)));
        assert_ne!(path, store("two").path(&image(0.5)));
        let mut other = image(0.5);
        (other.height, other.width) = (700, 2);
        assert_ne!(path, store("one").path(&other));
    }

    #[test]
    fn what_is_damaged_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        TokenStore::write(&path, &grid()).unwrap();
        let whole = kept::read(&path, MAX_BYTES).unwrap();
        for length in [0, 10, SIDES, whole.len() - 4] {
            kept::write(&path, &whole[..length]).unwrap();
            assert!(TokenStore::read(&path).is_none(), "{length} bytes");
        }
        // Sides that nobody has memory for.
        let mut huge = whole;
        huge[..SIDES].fill(0xff);
        kept::write(&path, &huge).unwrap();
        assert!(TokenStore::read(&path).is_none());
    }
}
