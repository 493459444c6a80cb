//! Image-caption pairs to train on, in batches.
//!
//! | step | items |
//! |---|---|
//! | what there is | [`PairSource`], [`PairOptions`], [`CsvOptions`], [`Part`], [`HoldOut`], [`Damaged`] |
//! | in which order | [`PairOrder`], [`Sampling`], [`Position`] |
//! | made into inputs | [`Augment`], [`Prepare`], [`Decoding`] |
//! | in batches | [`PairLoader`], [`LoaderOptions`], [`PairBatch`], [`Skipped`], [`BadKind`] |
//!
//! All that is random is counted, not drawn in turn: the order from seed, epoch and process, crops
//! and captions from the position as well. So a run can be taken up at any [`Position`], with any
//! number of threads, and sees what the unbroken run would have seen, to the bit.

mod augment;
mod bad;
mod brace;
mod holdout;
mod loader;
mod order;
mod rows;
mod shard;
mod sidecar;
mod source;
mod table;
mod tape;
#[cfg(test)]
mod tests;
mod things;

pub use augment::{Augment, Decoding, Prepare};
pub use bad::BadKind;
pub use holdout::HoldOut;
pub use loader::{BadSample, LastBatch, LoaderOptions, PairBatch, PairLoader, Skipped};
pub use order::{PairOrder, Position, Sampling};
pub use rows::Quoting;
pub use shard::DAMAGED;
pub use source::{CaptionChoice, Damaged, Fingerprint, PairOptions, PairSource, Part};
pub use table::CsvOptions;
