//! Metrics: plain arrays in, numbers out.
//!
//! | question | item |
//! |---|---|
//! | is every pixel's class right? | [`Confusion`] |
//! | do groups match what was annotated, whatever the label? | [`GroupSizes`], [`Jaccard`] |
//! | is a photo's class right? | [`Classification`] |
//! | do captions find their photos, and photos their captions? | [`recall`] |
//! | does the background decide? | [`Waterbirds`] |
//!
//! A share of nothing is `None`, never NaN. Accumulators of parts of a set can be merged.

pub mod classification;
pub mod confusion;
pub mod groups;
pub mod jaccard;
pub mod retrieval;

pub use classification::{ClassAccuracy, Classification};
pub use confusion::{ClassPixels, Confusion, MeanOver, SparseConfusion};
pub use groups::{Habitat, Waterbirds};
pub use jaccard::{BestGroup, GroupSizes, Jaccard};
pub use retrieval::{Recall, RecallAt, recall};

/// Label in a truth map of pixels that no metric counts.
pub const IGNORE: u16 = u16::MAX;

/// Why a metric refused what it was given. Nothing is counted of what is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MetricError {
    /// No classes, or more than a metric can hold.
    #[error("a metric over {classes} classes; 1 to {limit} can be counted")]
    Classes {
        /// How many were asked for.
        classes: usize,
        /// The most there can be.
        limit: usize,
    },
    /// A class beyond the last.
    #[error("class {value} in the {what}, at index {index}; there are {classes} classes")]
    Class {
        /// Where it stands: "truth" or "prediction".
        what: &'static str,
        /// The class.
        value: usize,
        /// Its place in the array.
        index: usize,
        /// How many classes there are.
        classes: usize,
    },
    /// An array of another length than it should have.
    #[error("{what}: {actual} values, expected {expected}")]
    Length {
        /// Which array.
        what: &'static str,
        /// The length it should have.
        expected: usize,
        /// Its length.
        actual: usize,
    },
    /// A region or map of another size than the map it is compared with.
    #[error(
        "the {what} is {} x {} (height x width), the groups are {} x {}",
        actual.0, actual.1, expected.0, expected.1
    )]
    Size {
        /// "region" or "truth".
        what: &'static str,
        /// Rows and columns of the groups.
        expected: (u32, u32),
        /// Rows and columns of the other.
        actual: (u32, u32),
    },
    /// A region whose runs do not fill its size.
    #[error("the runs of a region cover {actual} pixels, its size is {expected}")]
    Runs {
        /// Pixels of its size.
        expected: u64,
        /// Pixels of its runs.
        actual: u64,
    },
    /// A score that is not a finite number.
    #[error("{what}: the value at index {index} is not finite")]
    NotFinite {
        /// Which array.
        what: &'static str,
        /// Its place in the array.
        index: usize,
    },
    /// An embedding whose length is not 1.
    #[error("{what} {row} does not have length 1")]
    NotUnit {
        /// "image embedding" or "text embedding".
        what: &'static str,
        /// Its row.
        row: usize,
    },
    /// A caption of a photo that does not exist.
    #[error("text {text} belongs to image {owner}; there are {images} images")]
    Owner {
        /// The caption.
        text: usize,
        /// The photo it is said to belong to.
        owner: usize,
        /// How many photos there are.
        images: usize,
    },
    /// A setting that makes no sense.
    #[error("{0}")]
    Setting(&'static str),
}

/// `part` of `whole`, if there is a whole.
fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// The mean, if there is anything to average.
fn mean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values
        .into_iter()
        .fold((0.0, 0_u64), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / count as f64)
}

/// Refuses arrays with infinities or NaN, which would compare as neither better nor worse.
fn check_finite(what: &'static str, values: &[f32]) -> Result<(), MetricError> {
    match values.iter().position(|value| !value.is_finite()) {
        Some(index) => Err(MetricError::NotFinite { what, index }),
        None => Ok(()),
    }
}
