//! Transformer inference on CPUs, without a framework.
//!
//! ```text
//! pixels ─ Linear ─ + positions ─ blocks: Norm ─ Linear ─ attend ─ Linear ─ Norm ─ Linear ─ Linear ─ Norm
//! ```
//!
//! Weights are packed once, for the loops that read them ([`product::Linear`]). Everything is plain
//! `f32` slices, row-major, a row for a token. There is no `unsafe`: the loops are written so that the
//! compiler makes vectors of them, for the instructions that `pulp` finds at run time.

pub mod attention;
pub mod bert;
pub mod math;
pub mod norm;
pub mod product;
pub mod vit;
