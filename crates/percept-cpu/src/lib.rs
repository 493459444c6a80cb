//! Transformer inference on CPUs, without a framework.
//!
//! ```text
//! pixels ─ Linear ─ + positions ─ blocks: Norm ─ Linear ─ attend ─ Linear ─ Norm ─ Linear ─ Linear ─ Norm
//! ```
//!
//! Weights are packed once, for the loops that read them ([`product::Linear`]); percept-model packs those that
//! learn for each call. Everything is plain
//! `f32` slices, row-major, a row for a token. The loops are written so that the compiler makes vectors of
//! them, for the instructions that `pulp` finds at run time; where the CPU has matrix registers, or products of
//! eight bits are asked for, they are computed by instructions of their own ([`kernel::Kernel`]). What is `unsafe`
//! about these is in `tiles` and in `bytes`.

pub mod attention;
pub mod bert;
mod bytes;
pub mod kernel;
pub mod math;
pub mod norm;
pub mod product;
mod room;
pub mod t5;
pub mod text;
mod tiles;
pub mod vit;
