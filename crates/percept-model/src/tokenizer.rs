//! Texts to token ids, exactly as the model's Python home does it.

use std::path::{Path, PathBuf};

use tokenizers::{Tokenizer as HfTokenizer, TruncationParams};

use crate::ModelError;
use crate::json_file::stand_in;

/// T5's and BERT's files are 1 to 3 MB; the largest multilingual ones stay below this.
const MAX_BYTES: u64 = 64 << 20;

/// Bytes of a text that are looked at. Far more than any token limit can hold; without it one
/// label of gigabytes would stall the normaliser.
const MAX_TEXT_BYTES: usize = 100_000;

/// A `tokenizer.json`, cutting at the model's token limit and padding nothing.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: HfTokenizer,
    path: PathBuf,
}

/// A text's token ids, special tokens included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// The ids.
    pub ids: Vec<u32>,
    /// Whether the text was longer than the model can read, and was cut.
    pub truncated: bool,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`. Its own truncation and padding settings are replaced:
    /// sentence-transformers does the same, and files in the wild carry wrong ones.
    ///
    /// `vocab_size` is the number of rows of the model's token table.
    ///
    /// # Errors
    /// The file cannot be read, is no tokeniser, or can make ids that the model has no row for.
    pub fn open(path: &Path, max_tokens: usize, vocab_size: usize) -> Result<Self, ModelError> {
        let io = |source| ModelError::Io {
            path: path.to_owned(),
            source,
        };
        let bad = |reason: String| ModelError::Tokenizer {
            path: path.to_owned(),
            reason,
        };
        if std::fs::metadata(path).map_err(io)?.len() > MAX_BYTES {
            return Err(bad("larger than any tokeniser (64 MiB)".into()));
        }
        let bytes = std::fs::read(path).map_err(io)?;
        if let Some(what) = stand_in(path, &bytes) {
            return Err(bad(what));
        }
        let mut inner =
            HfTokenizer::from_bytes(&bytes).map_err(|e| bad(format!("not a tokeniser: {e}")))?;
        let largest = inner.get_vocab(true).into_values().max().unwrap_or(0);
        if largest as usize >= vocab_size {
            return Err(bad(format!(
                "has token ids up to {largest}, but the model's table has {vocab_size} rows: \
                 this tokeniser belongs to another model"
            )));
        }
        inner.with_padding(None);
        inner
            .with_truncation(Some(TruncationParams {
                max_length: max_tokens,
                ..Default::default()
            }))
            .map_err(|e| bad(e.to_string()))?;
        Ok(Self {
            inner,
            path: path.to_owned(),
        })
    }

    /// The file it came from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All tokens as the tokeniser spells them, in no order.
    pub fn vocabulary(&self) -> Vec<String> {
        self.inner.get_vocab(true).into_keys().collect()
    }

    /// Token ids of `text`, at least one.
    ///
    /// # Errors
    /// The tokeniser itself fails, which a well-formed one does not.
    pub fn encode(&self, text: &str) -> Result<Tokens, ModelError> {
        let cut = text.floor_char_boundary(MAX_TEXT_BYTES);
        let bad = |reason: String| ModelError::Tokenizer {
            path: self.path.clone(),
            reason,
        };
        let encoding = self
            .inner
            .encode_fast(&text[..cut], true)
            .map_err(|e| bad(e.to_string()))?;
        let ids = encoding.get_ids().to_vec();
        if ids.is_empty() {
            return Err(bad(format!("makes no tokens of {text:?}")));
        }
        Ok(Tokens {
            ids,
            truncated: cut < text.len() || !encoding.get_overflowing().is_empty(),
        })
    }
}
