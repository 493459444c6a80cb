//! Which instructions compute products, found at run time.

use crate::tiles::{Parts, Unit};

/// How exact products are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// As those of `f32`.
    #[default]
    F32,
    /// Of numbers rounded to the eight bits of `bf16`, added up in `f32`.
    Bf16,
}

/// What computes products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernel(pub(crate) Option<(Unit, Parts)>);

impl Kernel {
    /// The vector unit, in `f32`: on every CPU.
    pub const VECTORS: Self = Self(None);

    /// All that this CPU has, the fastest of each precision last.
    pub fn all() -> Vec<Self> {
        let pairs = Unit::pairs().map(|unit| (unit, Parts::One));
        let matrix = [Parts::Two, Parts::One].map(|parts| Unit::matrix().map(|unit| (unit, parts)));
        let found = [pairs].into_iter().chain(matrix).flatten();
        std::iter::once(Self::VECTORS)
            .chain(found.map(|kernel| Self(Some(kernel))))
            .collect()
    }

    /// The fastest on this CPU for a precision; of `f32` where it has nothing faster for that.
    pub fn best(precision: Precision) -> Self {
        let all = Self::all();
        let of = |precision| all.iter().rfind(|kernel| kernel.precision() == precision);
        of(precision)
            .or_else(|| of(Precision::F32))
            .copied()
            .unwrap_or(Self::VECTORS)
    }

    /// How exact its products are.
    pub fn precision(self) -> Precision {
        match self.0 {
            Some((_, Parts::One)) => Precision::Bf16,
            Some((_, Parts::Two)) | None => Precision::F32,
        }
    }

    /// What it is, for people.
    pub fn name(self) -> &'static str {
        match self.0 {
            None => "f32 in vectors",
            Some((unit, Parts::One)) if Some(unit) == Unit::matrix() => "bf16 in AMX tiles",
            Some((_, Parts::One)) => "bf16 in AVX-512 vectors",
            Some((_, Parts::Two)) => "f32 as three products of bf16 in AMX tiles",
        }
    }
}
