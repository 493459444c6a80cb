//! Image-caption pairs to train on, in batches.
//!
//! | step | items |
//! |---|---|
//! | what there is | [`PairSource`], [`PairOptions`], [`CsvOptions`], [`Part`], [`HoldOut`] |
//! | in which order | [`PairOrder`], [`Sampling`], [`Position`] |
//! | made into inputs | [`Augment`], [`Prepare`], [`Decoding`] |
//! | in batches | [`PairLoader`], [`LoaderOptions`], [`PairBatch`], [`Skipped`] |
//!
//! All that is random is counted, not drawn in turn: the order from seed, epoch and process, crops
//! and captions from the position as well. So a run can be taken up at any [`Position`], with any
//! number of threads, and sees what the unbroken run would have seen, to the bit.

mod augment;
mod brace;
mod holdout;
mod loader;
mod order;
mod shard;
mod source;
mod table;
#[cfg(test)]
mod tests;
mod things;

pub use augment::{Augment, Decoding, Prepare};
pub use holdout::HoldOut;
pub use loader::{BadSample, LastBatch, LoaderOptions, PairBatch, PairLoader, Skipped};
pub use order::{PairOrder, Position, Sampling};
pub use source::{CaptionChoice, PairOptions, PairSource, Part};
pub use table::CsvOptions;
