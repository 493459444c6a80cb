//! Refinement of class maps by the colours of the photo.

pub mod pamr;

pub use pamr::{Pamr, RefineError};
