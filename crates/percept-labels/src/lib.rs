//! What people write: class lists and templates, in the forms in which they lie about, understood or
//! refused with the line; and hints for words that look like slips.
//!
//! Nothing is guessed. A list that is plainly in one of the forms below gives its labels; anything that
//! could be meant in two ways, or is none of them, is a [`Refused`] that names the line.
//!
//! | form | where it comes from |
//! |---|---|
//! | one class a line, synonyms after commas | percept, mmsegmentation, Darknet's `.names` |
//! | the same with ids before or behind: `0 cat`, `1: dog`, `n02123045 tabby, tabby cat`, `cat⇥0` | Caffe, COCO-Stuff, ImageNet, Open Images |
//! | a JSON or Python list; objects with a `name` | any script; COCO's categories |
//! | an object or YAML with `names`, `labels`, `classes`, `categories`, `id2label` or `label2id` | ultralytics, transformers |
//! | an object of ids and names, either way round | Keras, torchvision |

mod hint;
mod lines;
mod list;
mod names;
mod structure;
mod templates;
mod text;

pub use hint::{Dictionary, Hint};
pub use list::{Entry, Label, LabelList, MAX_LABELS, labels_of, parse_labels, parse_list};
pub use names::{abbreviate, tidy};
pub use templates::{MAX_TEMPLATES, parse_templates};
pub use text::{MAX_FILE_BYTES, decode, read_text};

use std::path::PathBuf;

/// Why a text is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{reason}", line.map(|line| format!("line {line}: ")).unwrap_or_default())]
pub struct Refused {
    /// The line, from 1, where there is one to name.
    pub line: Option<usize>,
    /// What is wrong with it.
    pub reason: String,
}

impl Refused {
    pub(crate) fn at(line: usize, reason: impl Into<String>) -> Self {
        Self {
            line: Some(line),
            reason: reason.into(),
        }
    }

    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self {
            line: None,
            reason: reason.into(),
        }
    }
}

/// Why a file of labels or templates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("{}: cannot be read", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It does not hold what it should.
    #[error("{}: {refused}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// Where and why.
        refused: Refused,
    },
}
