//! Functions of one number without branches, which the compiler turns into vectors.

/// 1.5·2²³: adding it rounds to an integer, which then stands in the low bits of the sum.
pub(crate) const ROUND: f32 = 12_582_912.0;

/// As many numbers as there is room for, with zeros behind the last one.
#[inline(always)]
pub(crate) fn filled<const N: usize>(values: &[f32]) -> [f32; N] {
    // A whole array without a call.
    match values.first_chunk() {
        Some(all) => *all,
        None => {
            let mut filled = [0.0; N];
            filled[..values.len()].copy_from_slice(values);
            filled
        }
    }
}

/// The largest of all lanes, half by half: one after the other they would wait for each other.
#[inline(always)]
pub(crate) fn largest(lanes: [f32; 16]) -> f32 {
    #[inline(always)]
    fn halved<const N: usize>(lanes: &[f32]) -> [f32; N] {
        let mut half = [0.0; N];
        for i in 0..N {
            half[i] = if lanes[i] > lanes[i + N] {
                lanes[i]
            } else {
                lanes[i + N]
            };
        }
        half
    }
    let four: [f32; 4] = halved(&halved::<8>(&lanes));
    let [one, other] = halved::<2>(&four);
    if one > other { one } else { other }
}

/// `eˣ`, relative error below 3e-7 for x in −87 to 88; beyond, as at these ends.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let x = x.clamp(-87.0, 88.0);
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    // ln 2 in two parts: the first has few bits, so that n · LN2_HIGH is exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, x));
    // Taylor series to r⁶: |r| ≤ ln2 / 2, so the next term is below 1.2e-7.
    let p = 1.0 / 720.0;
    let p = r.mul_add(p, 1.0 / 120.0);
    let p = r.mul_add(p, 1.0 / 24.0);
    let p = r.mul_add(p, 1.0 / 6.0);
    let p = r.mul_add(p, 0.5);
    let p = r.mul_add(p, 1.0);
    let p = r.mul_add(p, 1.0);
    p * f32::from_bits(shifted.to_bits().wrapping_add(127) << 23)
}

/// `2ˣ` for x ≤ 0, relative error below 2e-7 down to −126; beyond, as there.
#[inline(always)]
pub(crate) fn exp2_of_negative(x: f32) -> f32 {
    // Not `max`, which would make a number of NaN.
    let x = if x < -126.0 { -126.0 } else { x };
    let shifted = x + ROUND;
    let r = x - (shifted - ROUND);
    // The polynomial of the fifth degree that comes closest for |r| ≤ ½, by least squares with Lawson's weights.
    let p = 0.001_327_646_9;
    let p = r.mul_add(p, 0.009_675_541);
    let p = r.mul_add(p, 0.055_507_135);
    let p = r.mul_add(p, 0.240_221_2);
    let p = r.mul_add(p, 0.693_146_94);
    let p = r.mul_add(p, 1.000_000_1);
    p * f32::from_bits(shifted.to_bits().wrapping_add(127) << 23)
}

/// The error function, absolute error below 3e-7: `x` times a polynomial of its square. No quotient: a division takes
/// a CPU as long as thirty products.
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    // Beyond, it is 1 but for 6e-8.
    const LIMIT: f32 = 3.85;
    let x = x.clamp(-LIMIT, LIMIT);
    // From −1 to 1, where the coefficients of a polynomial do not cancel each other.
    let t = (x * x).mul_add(2.0 / (LIMIT * LIMIT), -1.0);
    // The one of degree 14 that comes closest to erf(x), by least squares with Lawson's weights.
    let p = 1.280_750_1e-3;
    let p = t.mul_add(p, -3.309_697_4e-3);
    let p = t.mul_add(p, 2.662_174_4e-3);
    let p = t.mul_add(p, -3.430_723_4e-3);
    let p = t.mul_add(p, 1.106_033e-2);
    let p = t.mul_add(p, -2.017_261_6e-2);
    let p = t.mul_add(p, 2.833_550_6e-2);
    let p = t.mul_add(p, -4.041_695_6e-2);
    let p = t.mul_add(p, 5.640_521e-2);
    let p = t.mul_add(p, -7.331_274_4e-2);
    let p = t.mul_add(p, 9.081_911e-2);
    let p = t.mul_add(p, -0.110_374_7);
    let p = t.mul_add(p, 0.136_211_54);
    let p = t.mul_add(p, -0.183_301_75);
    let p = t.mul_add(p, 0.367_284_8);
    x * p
}

/// Exact GELU, `x · Φ(x)`.
#[inline(always)]
pub fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// [`gelu`] of what is rounded to eight bits next: within 5e-4 of it from −6 to 6, and
/// beyond within 2e-4 of the number's size.
#[inline(always)]
pub fn gelu_near(x: f32) -> f32 {
    // As in `erf`, of a lower degree: within 2e-4. Beyond, it is 1 but for 8e-5.
    const LIMIT: f32 = 2.8;
    let z = (x * std::f32::consts::FRAC_1_SQRT_2).clamp(-LIMIT, LIMIT);
    let t = (z * z).mul_add(2.0 / (LIMIT * LIMIT), -1.0);
    let p = 0.019_510_826;
    let p = t.mul_add(p, -0.047_473_82);
    let p = t.mul_add(p, 0.062_737_04);
    let p = t.mul_add(p, -0.096_856_31);
    let p = t.mul_add(p, 0.157_463_6);
    let p = t.mul_add(p, -0.240_728_94);
    let p = t.mul_add(p, 0.502_531_23);
    0.5 * x * z.mul_add(p, 1.0)
}

/// Derivative of [`gelu`], `Φ(x) + x · φ(x)`.
#[inline(always)]
pub fn gelu_slope(x: f32) -> f32 {
    /// 1/√(2π), the height of the standard normal density φ.
    const PEAK: f32 = 0.398_942_3;
    let below = 0.5 + 0.5 * erf(x * std::f32::consts::FRAC_1_SQRT_2);
    (PEAK * x).mul_add(exp(-0.5 * x * x), below)
}

/// GELU by its formula with tanh (T5 v1.1), as `x · σ(2u)`.
#[inline(always)]
pub fn gelu_tanh(x: f32) -> f32 {
    const ROOT_2_OVER_PI: f32 = 0.797_884_6;
    let u = ROOT_2_OVER_PI * (x * x * x).mul_add(0.044_715, x);
    x / (1.0 + exp(-2.0 * u))
}
