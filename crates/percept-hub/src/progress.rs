//! Telling someone how a download goes.

/// Told about each file that is downloaded; never about one that the cache already has.
pub trait Progress {
    /// A download begins, or begins again from nothing because the server would not resume it.
    /// `total` is in bytes, where the server says.
    fn start(&self, file: &str, total: Option<u64>);

    /// More bytes are there. On resuming, the first call counts what was there before.
    fn advance(&self, bytes: u64);

    /// The file begun last is complete and verified.
    fn finish(&self);
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn start(&self, _file: &str, _total: Option<u64>) {}
    fn advance(&self, _bytes: u64) {}
    fn finish(&self) {}
}
