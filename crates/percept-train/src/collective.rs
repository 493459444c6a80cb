//! The processes that train together.
//!
//! One process trains alone. Several would share each step: the loss is that of all their pairs,
//! so [`train_step`](crate::train_step) would gather the embeddings before
//! [`contrast`](crate::loss::contrast), and sum the gradients before the update
//! ([`GradientSum::iter_mut`](crate::optim::GradientSum::iter_mut)). Everything else that they have
//! to agree on goes through here.

use percept_data::pairs::Position;

/// The processes that train together, as one of them sees them.
pub trait Collective {
    /// Which of them this is. The first one, 0, logs and saves.
    fn rank(&self) -> u32;

    /// How many there are.
    fn world(&self) -> u32;

    /// Where all of them are in their data, in the order of their ranks.
    fn positions(&self, own: Position) -> Vec<Position>;
}

/// One process, which is all there is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

impl Collective for Alone {
    fn rank(&self) -> u32 {
        0
    }

    fn world(&self) -> u32 {
        1
    }

    fn positions(&self, own: Position) -> Vec<Position> {
        vec![own]
    }
}
