//! A result for people: a Markdown table and a page with pictures.

mod charts;
mod gallery;
mod html;
mod markdown;
mod words;

use percept_image::{LabelMap, RgbImage};

pub use html::html;
pub use markdown::{brief, markdown};
pub(crate) use markdown::{escape_markdown, table};
pub(crate) use words::{flatten, headline, is_count, metric_label, percent, shorten};

use crate::result::EvalResult;

/// What a report is made of.
#[derive(Debug, Clone, Copy)]
pub struct Report<'a> {
    /// The numbers.
    pub result: &'a EvalResult,
    /// The pictures, in the order they are to be shown within each [`Rank`].
    pub gallery: &'a [GalleryItem],
    /// Names of the labels in the pictures' maps. A label without a name is shown by its number.
    pub class_names: &'a [String],
    /// The label that means "none of the others", drawn without a colour of its own.
    pub background: Option<u16>,
}

impl<'a> Report<'a> {
    /// A report of a result with the pictures it carries.
    pub fn new(result: &'a EvalResult, class_names: &'a [String], background: Option<u16>) -> Self {
        Self {
            result,
            gallery: &result.gallery,
            class_names,
            background,
        }
    }
}

/// One photo of a report, with what is there and what the model found.
#[derive(Debug, Clone, PartialEq)]
pub struct GalleryItem {
    /// Name of the sample.
    pub id: String,
    /// Its score, a fraction.
    pub score: f64,
    /// The metric that the score is of, such as `miou`.
    pub score_name: String,
    /// The photo.
    pub photo: RgbImage,
    /// The annotation, any size; `u16::MAX` marks pixels that no metric counts.
    pub truth: Option<LabelMap>,
    /// What the model found, any size.
    pub prediction: Option<LabelMap>,
    /// Anything else to say, or nothing.
    pub note: String,
    /// Why it is shown.
    pub rank: Rank,
}

/// Why a photo is in the gallery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rank {
    /// Among the highest scores.
    Best,
    /// Around the middle.
    Median,
    /// Among the lowest scores.
    Worst,
}
