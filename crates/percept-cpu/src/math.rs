//! Functions of one number without branches, which the compiler turns into vectors.

/// `eˣ`, relative error below 3e-7 for x in −87 to 88; beyond, as at these ends.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let x = x.clamp(-87.0, 88.0);
    // Adding 1.5·2²³ rounds to an integer, which then stands in the low bits of the sum.
    const ROUND: f32 = 12_582_912.0;
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

/// The error function, absolute error below 5e-7: a quotient of polynomials, with the coefficients that
/// XLA and Eigen use.
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    // Beyond, it is 1 to the last bit but one.
    let x = x.clamp(-4.0, 4.0);
    let y = x * x;
    let p = -2.726_142_3e-10;
    let p = y.mul_add(p, 2.770_681_4e-8);
    let p = y.mul_add(p, -2.101_024e-6);
    let p = y.mul_add(p, -5.692_506_4e-5);
    let p = y.mul_add(p, -7.349_906_3e-4);
    let p = y.mul_add(p, -2.954_6e-3);
    let p = y.mul_add(p, -1.609_603_3e-2);
    let q = -1.456_607_2e-5;
    let q = y.mul_add(q, -2.133_740_6e-4);
    let q = y.mul_add(q, -1.682_827e-3);
    let q = y.mul_add(q, -7.373_329_2e-3);
    let q = y.mul_add(q, -1.426_473_9e-2);
    x * p / q
}

/// Exact GELU, `x · Φ(x)`.
#[inline(always)]
pub fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// GELU by its formula with tanh (T5 v1.1), as `x · σ(2u)`.
#[inline(always)]
pub fn gelu_tanh(x: f32) -> f32 {
    const ROOT_2_OVER_PI: f32 = 0.797_884_6;
    let u = ROOT_2_OVER_PI * (x * x * x).mul_add(0.044_715, x);
    x / (1.0 + exp(-2.0 * u))
}
