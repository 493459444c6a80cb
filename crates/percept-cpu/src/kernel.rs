//! Which instructions compute products, found at run time.

use crate::bytes;
use crate::tiles::{Parts, Unit};

/// How exact products are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// As those of `f32`.
    #[default]
    F32,
    /// Of numbers rounded to the eight bits of `bf16`, added up in `f32`.
    Bf16,
    /// Of whole numbers from −127 to 127, times a factor for each row and for each output; attention likewise, or of
    /// `bf16` where that is faster.
    Int8,
}

impl Precision {
    /// As options and results name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }
}

/// What computes products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernel(pub(crate) Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Vectors,
    Tiles(Unit, Parts),
    Bytes(bytes::Unit),
}

impl Kernel {
    /// The vector unit, in `f32`: on every CPU.
    pub const VECTORS: Self = Self(Kind::Vectors);

    /// All that this CPU has, the fastest of each precision last.
    pub fn all() -> Vec<Self> {
        let pairs = Unit::pairs().map(|unit| Kind::Tiles(unit, Parts::One));
        let matrix = [Parts::Two, Parts::One]
            .map(|parts| Unit::matrix().map(|unit| Kind::Tiles(unit, parts)));
        let bytes = bytes::Unit::find().map(Kind::Bytes);
        let found = [pairs].into_iter().chain(matrix).chain([bytes]).flatten();
        std::iter::once(Self::VECTORS)
            .chain(found.map(Self))
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

    /// What computes attention beside this.
    pub(crate) fn of_attention(self) -> Self {
        match self.0 {
            Kind::Vectors | Kind::Tiles(..) => self,
            // Matrix registers are four times as fast as vectors of bf16, those of bytes twice.
            Kind::Bytes(_) => {
                Unit::matrix().map_or(self, |unit| Self(Kind::Tiles(unit, Parts::One)))
            }
        }
    }

    /// How exact its products are.
    pub fn precision(self) -> Precision {
        match self.0 {
            Kind::Vectors | Kind::Tiles(_, Parts::Two) => Precision::F32,
            Kind::Tiles(_, Parts::One) => Precision::Bf16,
            Kind::Bytes(_) => Precision::Int8,
        }
    }

    /// What it is, for people.
    pub fn name(self) -> &'static str {
        match self.0 {
            Kind::Vectors => "f32 in vectors",
            Kind::Tiles(unit, Parts::One) if Some(unit) == Unit::matrix() => "bf16 in AMX tiles",
            Kind::Tiles(_, Parts::One) => "bf16 in AVX-512 vectors",
            Kind::Tiles(_, Parts::Two) => "f32 as three products of bf16 in AMX tiles",
            // What is kept between runs has this name: it tells results that differ.
            Kind::Bytes(_) if self.of_attention() == self => {
                "int8 in AVX-512 vectors, attention too"
            }
            Kind::Bytes(_) => "int8 in AVX-512 vectors, attention in AMX tiles",
        }
    }
}
