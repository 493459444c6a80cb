//! Products of `bf16` that are added up in `f32`, in the matrix registers of Intel's CPUs since Sapphire Rapids
//! (AMX), or in vectors of 512 bits (AVX512-BF16: AMD since Zen 4, Intel since Cooper Lake).
//!
//! An `f32` is the sum of two `bf16` and a rest of at most 2⁻¹⁶ of
//! it, so that three such products make one of `f32` ([`Parts::Two`]): in matrix registers twice as fast as the vector
//! unit is with `f32` itself. Of one part ([`Parts::One`]) they are three times as fast again, and have the
//! eight bits of `bf16`.
//!
//! Here is what is `unsafe` about that: asking the system for the registers, setting their shape, splitting
//! and turning numbers, and the products of two panels.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::OnceLock;

#[cfg(all(target_arch = "x86_64", not(miri)))]
use crate::math::filled;

/// Rows, and columns, of a product: two registers by two.
pub(crate) const SIDE: usize = 32;
/// Inner values of a step.
pub(crate) const DEPTH: usize = 32;
/// Rows of a register.
const HALF: usize = SIDE / 2;
/// Rows of a tile of vectors: twice as many sums, and two columns and a row, fit into 32 registers.
const PAIRS_HIGH: usize = 12;
/// Rows that such a tile has at least, and by which it has fewer.
const PAIRS_STEP: usize = 4;
/// Bytes of a row of a register.
#[cfg(all(target_arch = "x86_64", target_os = "linux", not(miri)))]
const ROW_BYTES: usize = 64;

/// As many `bf16` as a row of a register has, where it is loaded fastest.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Line([u16; DEPTH]);

impl Line {
    pub(crate) const ZERO: Self = Self([0; DEPTH]);
}

/// How many `bf16` stand for a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parts {
    /// The nearest.
    One,
    /// And that of the rest.
    Two,
}

impl Parts {
    const fn count(self) -> usize {
        match self {
            Self::One => 1,
            Self::Two => 2,
        }
    }

    /// Lines of a panel of [`SIDE`] rows or columns, over so many inner values.
    pub(crate) const fn panel(self, depth: usize) -> usize {
        depth.div_ceil(DEPTH) * self.step()
    }

    const fn step(self) -> usize {
        self.count() * SIDE
    }
}

/// What multiplies panels. Only this module makes one, where the CPU has it and this process may use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unit(Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Matrix registers (AMX).
    Matrix,
    /// Dot products of pairs in vectors of 512 bits (AVX512-BF16).
    Pairs,
}

impl Unit {
    /// The matrix registers. Asks the CPU and the system, once.
    pub(crate) fn matrix() -> Option<Self> {
        static FOUND: OnceLock<bool> = OnceLock::new();
        FOUND.get_or_init(is_granted).then_some(Self(Kind::Matrix))
    }

    /// Vectors. Of [`Parts::Two`] they are slower than plain `f32`.
    pub(crate) fn pairs() -> Option<Self> {
        has_pairs().then_some(Self(Kind::Pairs))
    }

    /// What the number of rows is best a multiple of.
    pub(crate) fn step(self) -> usize {
        match self.0 {
            Kind::Matrix => HALF,
            Kind::Pairs => PAIRS_STEP,
        }
    }

    /// Lines of packed rows that a task takes through all panels: with a panel they stay in the second-level cache,
    /// 2 MB of which CPUs with matrix registers have, and 1 MB others. It is the weights, which each task reads from
    /// beyond it, that bound the time.
    pub(crate) fn lines_at_once(self) -> usize {
        match self.0 {
            Kind::Matrix => 24 * 768,
            Kind::Pairs => 12 * 768,
        }
    }

    /// Writes row `r` of a panel of rows, with zeros behind the last of `values`.
    pub(crate) fn set_row(self, panel: &mut [Line], parts: Parts, r: usize, values: &[f32]) {
        set_row(panel, parts, r, values);
    }

    /// Writes part of row `r` of a panel of rows of [`Parts::One`]: 2 to the power of each score less `most`, within 8e-5
    /// of it before it is rounded. They are added to `sums`. There are as many scores as a multiple of [`DEPTH`].
    pub(crate) fn set_powers(
        self,
        panel: &mut [Line],
        r: usize,
        scores: &[f32],
        most: f32,
        sums: &mut [f32; HALF],
    ) {
        set_powers(panel, r, scores, most, sums);
    }

    /// Writes a panel of columns from their transpose, `[columns, depth]` with `stride` numbers from one to
    /// the next, with zeros beyond both.
    pub(crate) fn set_transposed(
        self,
        panel: &mut [Line],
        parts: Parts,
        columns: &[f32],
        stride: usize,
        depth: usize,
    ) {
        set_transposed(panel, parts, columns, stride, depth);
    }

    /// Writes a panel of columns from rows that follow each other, `[depth, columns]` with `stride` numbers from
    /// one to the next, with zeros beyond the last column and beside the last row.
    pub(crate) fn set_columns(
        self,
        panel: &mut [Line],
        parts: Parts,
        rows: &[f32],
        stride: usize,
        columns: usize,
    ) {
        set_columns(panel, parts, rows, stride, columns);
    }

    /// Gets this thread ready to multiply.
    pub(crate) fn open(self) -> Open {
        if self.0 == Kind::Matrix {
            set_shape();
        }
        Open(self.0, PhantomData)
    }
}

/// What is computed while a product is.
pub(crate) trait Beside {
    /// Does share `step` of `steps`. To be inlined: a function of its own would not be compiled for the
    /// instructions that were found.
    fn work(&mut self, step: usize, steps: usize);

    /// What is needed soon: a few of these lines are asked for at each step.
    fn ahead(&self) -> &[Line] {
        &[]
    }
}

/// Portion `n` of so many.
#[inline(always)]
pub(crate) fn portion<T>(values: &[T], n: usize, count: usize) -> &[T] {
    &values[n * values.len() / count..(n + 1) * values.len() / count]
}

/// A thread that is ready, until this is dropped: matrix registers are in their shape.
pub(crate) struct Open(Kind, PhantomData<*const ()>);

impl Drop for Open {
    fn drop(&mut self) {
        if self.0 == Kind::Matrix {
            release();
        }
    }
}

impl Open {
    /// The products of up to [`SIDE`] rows of a panel of rows with all columns of a panel of columns: rows
    /// of [`SIDE`] numbers in `out`, `stride` from one to the next. More rows than `count` may be written,
    /// up to a multiple of 16.
    ///
    /// `beside` has a share of its work done at each step: what it computes in vectors, the CPU does while the matrix
    /// registers multiply.
    ///
    /// # Panics
    /// The panels have other numbers of steps than each other, or `out` is too short.
    #[inline(always)]
    pub(crate) fn product(
        &self,
        [rows, columns]: [&[Line]; 2],
        parts: Parts,
        count: usize,
        out: &mut [f32],
        stride: usize,
        beside: &mut impl Beside,
    ) {
        assert_eq!(rows.len(), columns.len());
        let written = count.div_ceil(HALF) * HALF;
        assert!((1..=SIDE).contains(&count) && stride >= SIDE);
        assert!(out.len() >= (written - 1) * stride + SIDE);
        let count_of_steps = rows.len() / parts.step();
        let steps = rows.chunks_exact(parts.step());
        let steps = steps.zip(columns.chunks_exact(parts.step())).enumerate();
        match self.0 {
            Kind::Matrix => {
                let both = written > HALF;
                clear();
                for (step, (rows, columns)) in steps {
                    multiply(rows, columns, parts, both);
                    beside.work(step, count_of_steps);
                    fetch(portion(beside.ahead(), step, count_of_steps));
                }
                store(both, out, stride);
            }
            Kind::Pairs => {
                let tiles = count.div_ceil(PAIRS_HIGH);
                for tile in 0..tiles {
                    beside.work(tile, tiles);
                    let first = tile * PAIRS_HIGH;
                    let of_tile = first..count.min(first + PAIRS_HIGH);
                    let ahead = portion(beside.ahead(), tile, tiles);
                    multiply_pairs([rows, columns], parts, of_tile, ahead, out, stride);
                }
            }
        }
    }
}

/// Asks for values to be in the second-level cache soon. A few at a time: the CPU has room for so many requests, and
/// waits where there are more.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline(always)]
pub(crate) fn fetch<T>(values: &[T]) {
    use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
    for at in (0..size_of_val(values)).step_by(size_of::<Line>()) {
        let address = values.as_ptr().cast::<i8>().wrapping_add(at);
        // SAFETY: it changes nothing, and may be given any address.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(address) };
    }
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
fn has_pairs() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512bf16")
}

/// See [`Unit::set_row`].
#[cfg(all(target_arch = "x86_64", not(miri)))]
fn set_row(panel: &mut [Line], parts: Parts, r: usize, values: &[f32]) {
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    fn set(panel: &mut [Line], parts: Parts, r: usize, values: &[f32]) {
        let steps = panel.chunks_exact_mut(parts.step());
        for (step, values) in steps.zip(values.chunks(DEPTH)) {
            let (high, rest) = split(&filled(values), parts);
            step[r] = high;
            if parts == Parts::Two {
                step[SIDE + r] = rest;
            }
        }
    }
    // SAFETY: there is a `Unit`, so the CPU has the instructions.
    unsafe { set(panel, parts, r, values) }
}

/// See [`Unit::set_powers`].
#[cfg(all(target_arch = "x86_64", not(miri)))]
fn set_powers(panel: &mut [Line], r: usize, scores: &[f32], most: f32, sums: &mut [f32; HALF]) {
    use std::arch::x86_64::{
        __m512, __m512bh, __m512i, _mm512_add_ps, _mm512_cvtne2ps_pbh, _mm512_fmadd_ps,
        _mm512_reduce_ps, _mm512_scalef_ps, _mm512_set1_ps, _mm512_sub_ps,
    };

    /// What is left after rounding down to a whole number.
    const LEFT: i32 = 0b0001;
    /// The polynomial of the third degree that comes closest to 2ʳ for 0 ≤ r < 1, by least squares with Lawson's weights.
    /// That of the highest power is the first.
    const POWER: [f32; 4] = [0.078_024_52, 0.226_067_16, 0.695_833_5, 0.999_925_2];

    #[target_feature(enable = "avx512f,avx512dq,avx512bf16")]
    fn set(panel: &mut [Line], r: usize, scores: &[f32], most: f32, sums: &mut [f32; HALF]) {
        let [third, second, first, constant] = POWER.map(|x| _mm512_set1_ps(x));
        let most = _mm512_set1_ps(most);
        let power = |score: __m512| {
            let x = _mm512_sub_ps(score, most);
            let left = _mm512_reduce_ps::<LEFT>(x);
            let p = _mm512_fmadd_ps(third, left, second);
            let p = _mm512_fmadd_ps(p, left, first);
            let p = _mm512_fmadd_ps(p, left, constant);
            // It rounds down by itself. Of −∞ it makes 0.
            _mm512_scalef_ps(p, x)
        };
        // SAFETY: both are 512 bits of anything.
        let mut sum = unsafe { std::mem::transmute::<[f32; HALF], __m512>(*sums) };
        for (step, scores) in panel.chunks_exact_mut(SIDE).zip(scores.as_chunks().0) {
            // SAFETY: both are twice 512 bits of anything.
            let scores = unsafe { std::mem::transmute::<[f32; DEPTH], [__m512; 2]>(*scores) };
            let [low, high] = scores.map(power);
            sum = _mm512_add_ps(sum, _mm512_add_ps(low, high));
            let line = _mm512_cvtne2ps_pbh(high, low);
            // SAFETY: both are 512 bits of anything.
            step[r] = to_line(unsafe { std::mem::transmute::<__m512bh, __m512i>(line) });
        }
        // SAFETY: both are 512 bits of anything.
        *sums = unsafe { std::mem::transmute::<__m512, [f32; HALF]>(sum) };
    }
    // SAFETY: there is a `Unit`, so the CPU has the instructions.
    unsafe { set(panel, r, scores, most, sums) }
}

/// See [`Unit::set_transposed`].
#[cfg(all(target_arch = "x86_64", not(miri)))]
fn set_transposed(panel: &mut [Line], parts: Parts, columns: &[f32], stride: usize, depth: usize) {
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    fn set(panel: &mut [Line], parts: Parts, columns: &[f32], stride: usize, depth: usize) {
        for (n, step) in panel.chunks_exact_mut(parts.step()).enumerate() {
            let values = n * DEPTH..depth.min((n + 1) * DEPTH);
            let (of_high, of_rest) = step.split_at_mut(SIDE);
            for first in [0, HALF] {
                let (mut high, mut rest) = ([Line::ZERO; HALF], [Line::ZERO; HALF]);
                let columns = columns.chunks(stride).skip(first);
                for ((column, high), rest) in columns.zip(&mut high).zip(&mut rest) {
                    (*high, *rest) = split(&filled(&column[values.clone()]), parts);
                }
                of_high[first..first + HALF].copy_from_slice(&turn(high));
                if parts == Parts::Two {
                    of_rest[first..first + HALF].copy_from_slice(&turn(rest));
                }
            }
        }
    }
    // SAFETY: there is a `Unit`, so the CPU has the instructions.
    unsafe { set(panel, parts, columns, stride, depth) }
}

/// See [`Unit::set_columns`].
#[cfg(all(target_arch = "x86_64", not(miri)))]
fn set_columns(panel: &mut [Line], parts: Parts, rows: &[f32], stride: usize, columns: usize) {
    use std::arch::x86_64::{_mm512_permutex2var_epi16, _mm512_set_epi16};

    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    fn set(panel: &mut [Line], parts: Parts, rows: &[f32], stride: usize, columns: usize) {
        // From either row in turn: those of the first half of the columns, to which 16 are added for the other.
        let lower = [
            47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37, 5, 36,
            4, 35, 3, 34, 2, 33, 1, 32, 0,
        ];
        let [lower, upper] = [0, HALF as i16].map(|more| lower.map(|at| at + more));
        macro_rules! vector {
            ($v:ident) => {
                _mm512_set_epi16(
                    $v[0], $v[1], $v[2], $v[3], $v[4], $v[5], $v[6], $v[7], $v[8], $v[9], $v[10],
                    $v[11], $v[12], $v[13], $v[14], $v[15], $v[16], $v[17], $v[18], $v[19], $v[20],
                    $v[21], $v[22], $v[23], $v[24], $v[25], $v[26], $v[27], $v[28], $v[29], $v[30],
                    $v[31],
                )
            };
        }
        let places = [vector!(lower), vector!(upper)];
        for (pair, rows) in rows.chunks(2 * stride).enumerate() {
            let (row, next) = rows.split_at(stride.min(rows.len()));
            let row = split(&filled(&row[..columns]), parts);
            let next = split(&filled(next.get(..columns).unwrap_or_default()), parts);
            let (step, place) = (pair / HALF * parts.step(), pair % HALF);
            let both = [(row.0, next.0, 0), (row.1, next.1, SIDE)];
            for (row, next, first) in &both[..parts.count()] {
                for (half, places) in places.iter().enumerate() {
                    let line =
                        _mm512_permutex2var_epi16(from_line(*row), *places, from_line(*next));
                    panel[step + first + half * HALF + place] = to_line(line);
                }
            }
        }
    }
    // SAFETY: there is a `Unit`, so the CPU has the instructions.
    unsafe { set(panel, parts, rows, stride, columns) }
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline(always)]
fn from_line(line: Line) -> std::arch::x86_64::__m512i {
    // SAFETY: both are 512 bits of anything.
    unsafe { std::mem::transmute::<[u16; DEPTH], std::arch::x86_64::__m512i>(line.0) }
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline(always)]
fn to_line(bits: std::arch::x86_64::__m512i) -> Line {
    // SAFETY: both are 512 bits of anything.
    Line(unsafe { std::mem::transmute::<std::arch::x86_64::__m512i, [u16; DEPTH]>(bits) })
}

/// The nearest `bf16` of numbers, and, of two [`Parts`], those of what they leave. Not finite, or too large for `bf16`:
/// nothing is left. Numbers too small for a normal `bf16` become 0, as they do in the products.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn split(values: &[f32; DEPTH], parts: Parts) -> (Line, Line) {
    use std::arch::x86_64::{
        __m512, __m512bh, __m512i, _CMP_LT_OQ, _mm512_abs_ps, _mm512_cmp_ps_mask,
        _mm512_cvtne2ps_pbh, _mm512_cvtneps_pbh, _mm512_cvtpbh_ps, _mm512_maskz_sub_ps,
        _mm512_set1_ps, _mm512_sub_ps,
    };
    // SAFETY: both are 512 bits of anything.
    let as_line = |line| to_line(unsafe { std::mem::transmute::<__m512bh, __m512i>(line) });
    // SAFETY: both are twice 512 bits of anything.
    let [first, next] = unsafe { std::mem::transmute::<[f32; DEPTH], [__m512; 2]>(*values) };
    let high = as_line(_mm512_cvtne2ps_pbh(next, first));
    if parts == Parts::One {
        return (high, Line::ZERO);
    }
    let rest = |x: __m512| {
        let high = _mm512_cvtpbh_ps(_mm512_cvtneps_pbh(x));
        let size = _mm512_abs_ps(_mm512_sub_ps(x, high));
        let is_finite = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(size, _mm512_set1_ps(f32::INFINITY));
        _mm512_maskz_sub_ps(is_finite, x, high)
    };
    (high, as_line(_mm512_cvtne2ps_pbh(rest(next), rest(first))))
}

/// The transpose of 16 rows of 16 pairs.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn turn(rows: [Line; HALF]) -> [Line; HALF] {
    use std::arch::x86_64::{
        _mm512_shuffle_i32x4, _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32,
        _mm512_unpacklo_epi64,
    };
    const EVEN: i32 = 0x88;
    const ODD: i32 = 0xdd;
    let mut r = rows.map(from_line);
    // Pairs of two rows, then of four, in turn within each quarter of a row.
    for i in (0..HALF).step_by(2) {
        (r[i], r[i + 1]) = (
            _mm512_unpacklo_epi32(r[i], r[i + 1]),
            _mm512_unpackhi_epi32(r[i], r[i + 1]),
        );
    }
    for i in (0..HALF).step_by(4) {
        (r[i], r[i + 1], r[i + 2], r[i + 3]) = (
            _mm512_unpacklo_epi64(r[i], r[i + 2]),
            _mm512_unpackhi_epi64(r[i], r[i + 2]),
            _mm512_unpacklo_epi64(r[i + 1], r[i + 3]),
            _mm512_unpackhi_epi64(r[i + 1], r[i + 3]),
        );
    }
    // The quarters: `r[4 i + k]` has the pairs `4 q + k` of rows `4 i` to `4 i + 3` in its quarter `q`.
    let mut turned = r;
    for k in 0..4 {
        let even = [0, 8].map(|i| _mm512_shuffle_i32x4::<EVEN>(r[i + k], r[i + 4 + k]));
        let odd = [0, 8].map(|i| _mm512_shuffle_i32x4::<ODD>(r[i + k], r[i + 4 + k]));
        turned[k] = _mm512_shuffle_i32x4::<EVEN>(even[0], even[1]);
        turned[4 + k] = _mm512_shuffle_i32x4::<EVEN>(odd[0], odd[1]);
        turned[8 + k] = _mm512_shuffle_i32x4::<ODD>(even[0], even[1]);
        turned[12 + k] = _mm512_shuffle_i32x4::<ODD>(odd[0], odd[1]);
    }
    turned.map(to_line)
}

/// See [`Open::product`]: these rows, at most [`PAIRS_HIGH`].
#[cfg(all(target_arch = "x86_64", not(miri)))]
fn multiply_pairs(
    panels: [&[Line]; 2],
    parts: Parts,
    which: Range<usize>,
    ahead: &[Line],
    out: &mut [f32],
    stride: usize,
) {
    const LOW: usize = PAIRS_STEP;
    const MIDDLE: usize = 2 * LOW;
    let first = which.start;
    // SAFETY: there is a `Unit` of this kind, so the CPU has the instructions.
    unsafe {
        match which.len().div_ceil(PAIRS_STEP) {
            ..2 => pairs::<LOW>(panels, parts, first, ahead, out, stride),
            2 => pairs::<MIDDLE>(panels, parts, first, ahead, out, stride),
            _ => pairs::<PAIRS_HIGH>(panels, parts, first, ahead, out, stride),
        }
    }
}

/// The products of `HIGH` rows from `first` on, or up to the last row of the panel.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[target_feature(enable = "avx512f,avx512bf16")]
fn pairs<const HIGH: usize>(
    [rows, columns]: [&[Line]; 2],
    parts: Parts,
    first: usize,
    ahead: &[Line],
    out: &mut [f32],
    stride: usize,
) {
    use std::arch::x86_64::{
        __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_set1_epi32, _mm512_setzero_ps, _mm512_storeu_ps,
    };
    // SAFETY: both are 512 bits of anything.
    let as_pairs = |line: __m512i| unsafe { std::mem::transmute::<__m512i, __m512bh>(line) };
    // SAFETY: likewise, and a `Line` is aligned as that has to be.
    let load = |line: &Line| unsafe { std::mem::transmute_copy::<Line, __m512bh>(line) };
    // Where the panel ends earlier, some are computed twice, to the same.
    let first = first.min(SIDE - HIGH);
    let mut sums = [[_mm512_setzero_ps(); 2]; HIGH];
    let step = parts.step();
    // Each combination of parts but that of both rests, the smallest first.
    let combinations: &[[usize; 2]] = match parts {
        Parts::One => &[[0, 0]],
        Parts::Two => &[[0, SIDE], [SIDE, 0], [0, 0]],
    };
    let steps = rows.len() / step;
    let both = rows.chunks_exact(step).zip(columns.chunks_exact(step));
    for (n, (rows, columns)) in both.enumerate() {
        fetch(portion(ahead, n, steps));
        for [of_rows, of_columns] in combinations {
            let rows = &rows[of_rows + first..][..HIGH];
            let columns = &columns[*of_columns..][..SIDE];
            for p in 0..HALF {
                let (left, right) = (load(&columns[p]), load(&columns[HALF + p]));
                for (row, sums) in rows.iter().zip(&mut sums) {
                    let [low, high] = [row.0[2 * p], row.0[2 * p + 1]].map(i32::from);
                    let pair = as_pairs(_mm512_set1_epi32(low | high << 16));
                    sums[0] = _mm512_dpbf16_ps(sums[0], pair, left);
                    sums[1] = _mm512_dpbf16_ps(sums[1], pair, right);
                }
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        // Beyond the last row that is asked for there may be no room.
        let Some(out) = out
            .get_mut((first + r) * stride..)
            .filter(|out| out.len() >= SIDE)
        else {
            break;
        };
        // SAFETY: there are twice sixteen numbers.
        unsafe {
            _mm512_storeu_ps(out.as_mut_ptr(), sums[0]);
            _mm512_storeu_ps(out[HALF..].as_mut_ptr(), sums[1]);
        }
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux", not(miri)))]
fn is_granted() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    const BF16: u32 = 1 << 22;
    const TILE: u32 = 1 << 24;
    const REQUEST: libc::c_long = 0x1023;
    const TILE_DATA: libc::c_long = 18;
    // No CPU has the registers and lacks these; a virtual one may.
    if !has_pairs() || __cpuid(0).eax < 7 || __cpuid_count(7, 0).edx & (BF16 | TILE) != BF16 | TILE
    {
        return false;
    }
    // SAFETY: `ARCH_REQ_XCOMP_PERM` takes a number and touches no memory of this process. It is refused
    // where the system does not save the registers, or does not know the request.
    unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST, TILE_DATA) == 0 }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux", not(miri)))]
fn set_shape() {
    /// As `ldtilecfg` reads it.
    #[repr(C, align(64))]
    struct Shape {
        palette: u8,
        start: u8,
        reserved: [u8; 14],
        row_bytes: [u16; 16],
        rows: [u8; 16],
    }
    let mut shape = Shape {
        palette: 1,
        start: 0,
        reserved: [0; 14],
        row_bytes: [0; 16],
        rows: [0; 16],
    };
    shape.row_bytes[..8].fill(ROW_BYTES as u16);
    shape.rows[..8].fill(HALF as u8);
    // SAFETY: there is a `Unit` of this kind, so the instruction exists and is allowed; it reads the 64 bytes of
    // `shape`, which are as the first palette has them.
    unsafe {
        std::arch::asm!("ldtilecfg [{}]", in(reg) &raw const shape, options(nostack, readonly));
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux", not(miri)))]
fn release() {
    // SAFETY: as for `set_shape`; it touches no memory.
    unsafe { std::arch::asm!("tilerelease", options(nostack, nomem)) }
}

/// Empties the sums.
#[cfg(all(target_arch = "x86_64", target_os = "linux", not(miri)))]
#[inline(always)]
fn clear() {
    // SAFETY: the registers have their shape, for `Open` exists, and nothing else uses them.
    unsafe {
        std::arch::asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            options(nostack, nomem, preserves_flags),
        );
    }
}

/// Writes the sums: see [`Open::product`], which checks the length. The upper half only, unless `both`.
#[cfg(all(target_arch = "x86_64", target_os = "linux", not(miri)))]
#[inline(always)]
fn store(both: bool, out: &mut [f32], stride: usize) {
    macro_rules! run {
        ($out:expr, $($store:literal),+) => {
            // SAFETY: the registers have their shape, for `Open` exists. 16 rows of 16 numbers are written at
            // `c`, and 16 numbers further on: all within `out`.
            unsafe {
                std::arch::asm!(
                    $($store,)+
                    c = in(reg) $out.as_mut_ptr(),
                    t = in(reg) stride * size_of::<f32>(),
                    options(nostack, preserves_flags),
                );
            }
        };
    }
    run!(
        out,
        "tilestored [{c} + {t}], tmm0",
        "tilestored [{c} + {t} + 64], tmm1"
    );
    if both {
        run!(
            out[HALF * stride..],
            "tilestored [{c} + {t}], tmm2",
            "tilestored [{c} + {t} + 64], tmm3"
        );
    }
}

/// Adds the products of one step, `parts.step()` lines of either panel, to the sums. Those of the upper half of
/// the rows only, unless `both`.
///
/// From `clear` to `store` the sums stay in their registers, from one block of assembly to the next: the
/// compiler knows nothing of these registers and has no instruction that uses them.
#[cfg(all(target_arch = "x86_64", target_os = "linux", not(miri)))]
#[inline(always)]
fn multiply(rows: &[Line], columns: &[Line], parts: Parts, both: bool) {
    assert!(rows.len() == parts.step() && columns.len() == parts.step());
    // Registers 0 to 3 are sums, 4 and 5 rows, 6 and 7 columns.
    macro_rules! run {
        ($($step:literal),+) => {
            // SAFETY: the registers have their shape, for `Open` exists, and what is read are the lines whose
            // number was just checked.
            unsafe {
                std::arch::asm!(
                    $($step,)+
                    a = in(reg) rows.as_ptr(),
                    b = in(reg) columns.as_ptr(),
                    s = in(reg) ROW_BYTES,
                    options(nostack, readonly, preserves_flags),
                );
            }
        };
    }
    match (parts, both) {
        (Parts::One, true) => run!(
            "tileloadd tmm4, [{a} + {s}]",
            "tileloadd tmm6, [{b} + {s}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b} + {s} + 1024]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{a} + {s} + 1024]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7"
        ),
        (Parts::One, false) => run!(
            "tileloadd tmm4, [{a} + {s}]",
            "tileloadd tmm6, [{b} + {s}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b} + {s} + 1024]",
            "tdpbf16ps tmm1, tmm4, tmm7"
        ),
        // The rests of the columns, of the rows, and both without a rest: the smaller ones first.
        (Parts::Two, true) => run!(
            "tileloadd tmm4, [{a} + {s}]",
            "tileloadd tmm6, [{b} + {s} + 2048]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b} + {s} + 3072]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{a} + {s} + 1024]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "tileloadd tmm6, [{b} + {s}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b} + {s} + 1024]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm4, [{a} + {s} + 2048]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "tileloadd tmm5, [{a} + {s} + 3072]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7"
        ),
        (Parts::Two, false) => run!(
            "tileloadd tmm4, [{a} + {s}]",
            "tileloadd tmm6, [{b} + {s} + 2048]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b} + {s} + 3072]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm6, [{b} + {s}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b} + {s} + 1024]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm4, [{a} + {s} + 2048]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7"
        ),
    }
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
pub(crate) fn fetch<T>(_: &[T]) {}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
fn has_pairs() -> bool {
    false
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
fn set_row(_: &mut [Line], _: Parts, _: usize, _: &[f32]) {
    unreachable!("no `Unit` is found here")
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
fn set_powers(_: &mut [Line], _: usize, _: &[f32], _: f32, _: &mut [f32; HALF]) {
    unreachable!("no `Unit` is found here")
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
fn set_transposed(_: &mut [Line], _: Parts, _: &[f32], _: usize, _: usize) {
    unreachable!("no `Unit` is found here")
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
fn set_columns(_: &mut [Line], _: Parts, _: &[f32], _: usize, _: usize) {
    unreachable!("no `Unit` is found here")
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
fn multiply_pairs(_: [&[Line]; 2], _: Parts, _: Range<usize>, _: &[Line], _: &mut [f32], _: usize) {
    unreachable!("no `Unit` is found here, so there is no `Open`")
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux", not(miri))))]
fn is_granted() -> bool {
    false
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux", not(miri))))]
fn set_shape() {}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux", not(miri))))]
fn release() {}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux", not(miri))))]
fn clear() {}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux", not(miri))))]
fn store(_: bool, _: &mut [f32], _: usize) {}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux", not(miri))))]
fn multiply(_: &[Line], _: &[Line], _: Parts, _: bool) {
    unreachable!("no `Unit` is found here, so there is no `Open`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_are_powers_of_two() {
        let Some(unit) = Unit::pairs() else {
            println!("SKIPPED: this CPU has no AVX512-BF16");
            return;
        };
        let mut scores = [0.0; 2 * DEPTH];
        for (i, score) in scores.iter_mut().enumerate() {
            *score = 3.0 - i as f32 * 0.37;
        }
        scores[5] = f32::NEG_INFINITY;
        scores[40] = -1e30;
        scores[63] = f32::NAN;
        let (most, r) = (3.0, 7);
        let mut panel = [Line::ZERO; 2 * SIDE];
        let mut sums = [1.0; HALF];
        unit.set_powers(&mut panel, r, &scores, most, &mut sums);
        let mut expected_sums = [1.0; HALF];
        for (i, score) in scores.iter().enumerate() {
            let bits = panel[i / DEPTH * SIDE + r].0[i % DEPTH];
            let found = f32::from_bits(u32::from(bits) << 16);
            let expected = f64::from(score - most).exp2();
            expected_sums[i % HALF] += expected;
            if score.is_nan() {
                assert!(found.is_nan());
                continue;
            }
            let off = (f64::from(found) - expected).abs();
            assert!(off <= expected / 250.0, "{score}: {found}, not {expected}");
        }
        assert_eq!(panel[5 / DEPTH * SIDE + r].0[5], 0);
        for (found, expected) in sums.iter().zip(expected_sums) {
            let off = (f64::from(*found) - expected).abs();
            assert!(off <= 1e-4 * expected || expected.is_nan() && found.is_nan());
        }
        // The other rows are as they were.
        let others = panel.iter().enumerate().filter(|(n, _)| n % SIDE != r);
        assert!(others.into_iter().all(|(_, line)| line.0 == [0; DEPTH]));
    }
}
