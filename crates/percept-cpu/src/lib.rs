//! Transformer inference on CPUs, without a framework.
//!
//! ```text
//! pixels ─ Linear ─ + positions ─ blocks: Norm ─ Linear ─ attend ─ Linear ─ Norm ─ Linear ─ Linear ─ Norm
//! ```
//!
//! Weights are packed once, for the loops that read them ([`product::Linear`]); percept-model packs those that
//! learn for each call. Everything is plain
//! `f32` slices, row-major, a row for a token. The loops are written so that the compiler makes vectors of
//! them, for the instructions that `pulp` finds at run time; where the CPU has matrix registers, products
//! are computed in these ([`kernel::Kernel`]), and what is `unsafe` about them is in one module.

pub mod attention;
pub mod bert;
pub mod kernel;
pub mod math;
pub mod norm;
pub mod product;
pub mod t5;
mod text;
mod tiles;
pub mod vit;
