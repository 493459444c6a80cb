//! Why a sample cannot be used.

use std::io;

/// What is wrong with a sample, in the kinds that are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BadKind {
    /// A caption without an image.
    NoImage,
    /// An image without a caption.
    NoCaption,
    /// A caption of nothing, or of white space alone, or a CSV's word for a missing value.
    EmptyCaption,
    /// A caption or labels that are there but are no text.
    Caption,
    /// An image that cannot be decoded, or shows nothing.
    Image,
    /// A CSV's photo that is not a file which can be read.
    File,
    /// A row of a CSV with more or fewer columns than its header.
    Row,
    /// Parts of one name of which it is not known which belong together.
    Repeated,
    /// A member of a shard that is cut off, or stored in a way that is not read.
    Member,
}

impl BadKind {
    /// What such samples are called where they are counted.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoImage => "samples without an image",
            Self::NoCaption => "samples without a caption",
            Self::EmptyCaption => "samples with an empty caption",
            Self::Caption => "samples whose caption or labels cannot be read",
            Self::Image => "samples whose image cannot be decoded or shows nothing",
            Self::File => "rows whose photo cannot be read",
            Self::Row => "rows with too many or too few columns",
            Self::Repeated => "samples whose parts come twice in their shard",
            Self::Member => "samples with a member that cannot be read",
        }
    }
}

/// A sample that is bad itself; others may be good.
#[derive(Debug)]
pub(super) struct Bad {
    pub(super) kind: BadKind,
    pub(super) reason: String,
}

impl Bad {
    pub(super) fn new(kind: BadKind, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self { kind, reason }
    }
}

/// Why a sample could not be read.
pub(super) enum ReadError {
    /// It is bad itself.
    Bad(Bad),
    /// The shard cannot be read.
    Io(io::Error),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Bad> for ReadError {
    fn from(bad: Bad) -> Self {
        Self::Bad(bad)
    }
}
