//! Every kernel against the same thing written as its definition, in `f64`.

use percept_cpu::attention::{Bias, Heads, Packed, attend};
use percept_cpu::kernel::{Kernel, Precision};
use percept_cpu::math::{erf, exp, gelu, gelu_near};
use percept_cpu::norm::Norm;
use percept_cpu::product::{Activation, Input, Linear, Then, feed_forward, sum_of_outer_products};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

/// Numbers between −1 and 1 that depend on `seed`.
fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..count)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            ((state >> 40) as f32 / (1 << 23) as f32) - 1.0
        })
        .collect()
}

/// How far a sum of products may be from the true one.
#[derive(Clone, Copy)]
struct Error {
    /// As a part of the sum of the sizes of its terms: three products of `bf16` leave out 2⁻¹⁶ of both factors and
    /// the product of what they leave of each at first, one leaves out 2⁻⁸ of both factors.
    of_terms: f64,
    /// As a part of the largest of the factors that it is rounded with: half of a 127th.
    of_largest: f64,
}

impl Error {
    fn bound(self, factors: impl Iterator<Item = (f32, f32)> + Clone) -> f64 {
        let sizes = factors.map(|(a, b)| (f64::from(a.abs()), f64::from(b.abs())));
        let most = sizes
            .clone()
            .fold([0f64; 2], |most, (a, b)| [most[0].max(a), most[1].max(b)]);
        let [a_off, b_off] = most.map(|most| self.of_largest * most);
        let off =
            |(a, b): (f64, f64)| a * b * self.of_terms + a * b_off + b * a_off + a_off * b_off;
        sizes.map(off).sum()
    }
}

/// What this CPU has.
fn kernels() -> Vec<(Kernel, Error)> {
    let error = |kernel: &Kernel| {
        let (of_terms, of_largest) = match kernel.precision() {
            _ if *kernel == Kernel::VECTORS => (2f64.powi(-21), 0.0),
            Precision::F32 => (3.0 * 2f64.powi(-16), 0.0),
            Precision::Bf16 => (2.0 * 2f64.powi(-8), 0.0),
            Precision::Int8 => (2f64.powi(-21), 0.5 / 127.0),
        };
        Error {
            of_terms,
            of_largest,
        }
    };
    let all = Kernel::all();
    all.iter().map(|kernel| (*kernel, error(kernel))).collect()
}

/// The nearest number of eight bits, so that what a kernel does beside rounding shows.
fn rounded(x: f32) -> f32 {
    f32::from_bits((x.to_bits() + 0x8000) & 0xffff_0000)
}

#[test]
fn kernels_are_named() {
    for (kernel, _) in kernels() {
        println!("tested: {}", kernel.name());
        assert!(kernel.name().starts_with(kernel.precision().name()));
    }
    assert_eq!(Kernel::best(Precision::F32).precision(), Precision::F32);
}

fn close(ours: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(ours.len(), expected.len());
    for (i, (a, b)) in ours.iter().zip(expected).enumerate() {
        let off = (f64::from(*a) - b).abs();
        assert!(off <= tolerance * b.abs().max(1.0), "{i}: {a}, not {b}");
    }
}

/// Φ by numerical integration would be slow; libm's erf is not in std, so by its series and fraction.
fn true_erf(x: f64) -> f64 {
    let a = x.abs();
    let value = if a < 3.0 {
        let (mut term, mut sum) = (a, a);
        for n in 1..200 {
            term *= -a * a / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    } else {
        let mut fraction = 0.0;
        for n in (1..200).rev() {
            fraction = f64::from(n) / 2.0 / (a + fraction);
        }
        1.0 - (-a * a).exp() / ((a + fraction) * std::f64::consts::PI.sqrt())
    };
    value.copysign(x)
}

#[test]
fn functions_are_within_their_bounds() {
    for i in (-8700..8800).step_by(most(1, 97)) {
        let x = i as f32 / 100.0;
        let expected = f64::from(x).exp();
        let relative = (f64::from(exp(x)) - expected).abs() / expected;
        assert!(relative < 3e-7, "exp({x}) is off by {relative:e}");
    }
    for i in (-6000..6000).step_by(most(1, 97)) {
        let x = i as f32 / 1000.0;
        let off = (f64::from(erf(x)) - true_erf(f64::from(x))).abs();
        assert!(off < 3e-7, "erf({x}) is off by {off:e}");
        let phi = 0.5 * (1.0 + true_erf(f64::from(x) * std::f64::consts::FRAC_1_SQRT_2));
        let off = (f64::from(gelu(x)) - f64::from(x) * phi).abs();
        assert!(off < 1e-6, "gelu({x}) is off by {off:e}");
        let off = (f64::from(gelu_near(x)) - f64::from(x) * phi).abs();
        assert!(off < 5e-4, "gelu_near({x}) is off by {off:e}");
    }
    assert!(exp(f32::NEG_INFINITY) < 1e-37);
    assert_eq!(erf(f32::INFINITY).round(), 1.0);
    assert!(exp(f32::NAN).is_nan() && gelu(f32::NAN).is_nan() && gelu_near(f32::NAN).is_nan());
    assert!((gelu_near(1e6) - 1e6).abs() < 200.0 && gelu_near(-1e6).abs() < 200.0);
    assert_eq!(gelu(1e-40), 0.5e-40);
}

#[test]
fn no_rows_have_no_products() {
    for (kernel, _) in kernels() {
        let linear = Linear::new(&numbers(6, 1), Some(&numbers(2, 2)), 3, kernel);
        linear.apply(&[], Then::Store, &mut []);
    }
}

/// What a size is at most, where Miri, which takes a thousand times as long, is to end.
const fn most(size: usize, under_miri: usize) -> usize {
    if cfg!(miri) { under_miri } else { size }
}

proptest! {
    // The same cases in every run: single precision may miss the bound on products by a half where large
    // terms cancel, in one of a thousand cases, and a test that fails by chance tells nothing.
    #![proptest_config(ProptestConfig {
        rng_seed: RngSeed::Fixed(1),
        ..ProptestConfig::with_cases(if cfg!(miri) { 3 } else { 64 })
    })]

    #[test]
    fn products_are_sums_of_products(
        rows in 0..most(80, 20), inputs in 1..most(70, 9), outputs in 1..most(100, 40), seed: u64, what in 0usize..8,
    ) {
        let (x, w) = (numbers(rows * inputs, seed), numbers(outputs * inputs, seed ^ 1));
        let (bias, scale) = (numbers(outputs, seed ^ 2), numbers(outputs, seed ^ 3));
        let before = numbers(rows * outputs, seed ^ 4);
        let has_bias = what != 3;
        let then = [
            Then::Store,
            Then::Gelu,
            Then::Add(None),
            Then::Add(Some(&scale)),
            Then::GeluTanh,
            Then::Relu,
            Then::Multiply,
            Then::GeluSlope,
        ][what];
        let mut expected = Vec::new();
        for (row, before) in x.chunks_exact(inputs).zip(before.chunks_exact(outputs)) {
            for (n, before) in before.iter().enumerate() {
                let weights = &w[n * inputs..][..inputs];
                let mut sum = if has_bias { f64::from(bias[n]) } else { 0.0 };
                let terms = row.iter().zip(weights).map(|(a, b)| f64::from(*a) * f64::from(*b));
                sum += terms.clone().sum::<f64>();
                expected.push(match then {
                    Then::Store => sum,
                    Then::Gelu | Then::GeluNear => {
                        sum * 0.5 * (1.0 + true_erf(sum * std::f64::consts::FRAC_1_SQRT_2))
                    }
                    Then::GeluTanh => {
                        let u = (2.0 / std::f64::consts::PI).sqrt() * (sum + 0.044715 * sum.powi(3));
                        0.5 * sum * (1.0 + u.tanh())
                    }
                    Then::Relu => sum.max(0.0),
                    Then::Multiply => f64::from(*before) * sum,
                    Then::GeluSlope => {
                        let x = f64::from(*before);
                        let below = 0.5 * (1.0 + true_erf(x * std::f64::consts::FRAC_1_SQRT_2));
                        let density = (-0.5 * x * x).exp() / std::f64::consts::TAU.sqrt();
                        sum * (below + x * density)
                    }
                    Then::Add(None) => f64::from(*before) + sum,
                    Then::Add(Some(scale)) => f64::from(*before) + sum * f64::from(scale[n]),
                });
            }
        }
        let turned: Vec<f32> = (0..inputs * outputs).map(|i| w[i % outputs * inputs + i / outputs]).collect();
        for (kernel, error) in kernels() {
            let bias = has_bias.then_some(&bias[..]);
            let linear = Linear::new(&w, bias, inputs, kernel);
            let mut y = before.clone();
            linear.apply(&x, then, &mut y);
            let mut same = before.clone();
            Linear::by_input(&turned, bias, outputs, kernel).apply(&x, then, &mut same);
            prop_assert_eq!(&y, &same);
            for (i, (y, expected)) in y.iter().zip(&expected).enumerate() {
                let off = (f64::from(*y) - expected).abs();
                let (row, weights) = (&x[i / outputs * inputs..], &w[i % outputs * inputs..][..inputs]);
                let factors = row.iter().copied().zip(weights.iter().copied());
                // GELU is nowhere steeper than 1.13, and bias, GELU and residual are of f32.
                let bound = 1.14 * error.bound(factors) + 1e-6 * expected.abs().max(1.0);
                prop_assert!(off <= bound, "{}: {y}, not {expected}", kernel.name());
            }
        }
    }

    #[test]
    fn two_layers_at_once_are_one_after_the_other(
        rows in 0..most(70, 14), dim in 1..most(50, 9),
        hidden in prop_oneof![1..most(100, 40), most(480, 512)..most(1100, 514)], seed: u64,
        scaled: bool,
    ) {
        let weights = |n: u64, inputs: usize| -> Vec<f32> {
            let size = (inputs as f32).sqrt();
            numbers(dim * hidden, seed ^ n).iter().map(|w| w / size).collect()
        };
        let (first, second) = (weights(1, dim), weights(2, hidden));
        let (bias, last_bias) = (numbers(hidden, seed ^ 3), numbers(dim, seed ^ 4));
        let scale = numbers(dim, seed ^ 5);
        let scale = scaled.then_some(&scale[..]);
        let norm = Norm::layer(numbers(dim, seed ^ 6), numbers(dim, seed ^ 7), 1e-5);
        let before = numbers(rows * dim, seed);
        let layers = |kernel| {
            (Linear::new(&first, Some(&bias), dim, kernel), Linear::new(&second, Some(&last_bias), hidden, kernel))
        };
        let (mut expected, mut wide) = (before.clone(), vec![0.0; rows * hidden]);
        let (one, other) = layers(Kernel::VECTORS);
        one.apply_to(Input::Normed(&norm, &before), Then::Gelu, &mut wide);
        other.apply(&wide, Then::Add(scale), &mut expected);
        let expected: Vec<f64> = expected.iter().map(|y| f64::from(*y)).collect();
        for (kernel, error) in kernels() {
            let (one, other) = layers(kernel);
            let mut x = before.clone();
            feed_forward(&norm, [&one, &other], Then::Gelu, scale, &mut x);
            // What is added up is no larger than a few times what comes of it.
            close(&x, &expected, 10.0 * (error.of_terms + error.of_largest));
        }
    }

    #[test]
    fn rows_are_computed_where_they_are_packed(
        rows in 0..most(80, 14), inputs in 1..most(70, 9), outputs in 1..most(60, 34), seed: u64,
    ) {
        let (x, w) = (numbers(rows * inputs, seed), numbers(outputs * inputs, seed ^ 1));
        let (dy, start) = (numbers(rows * outputs, seed ^ 2), vec![0.0; rows * outputs]);
        let norm = Norm::layer(numbers(inputs, seed ^ 3), numbers(inputs, seed ^ 4), 1e-5);
        let mut normed = vec![0.0; x.len()];
        norm.apply(&x, &mut normed);
        let activated: Vec<f32> = x.iter().map(|x| gelu(*x)).collect();
        for (kernel, _) in kernels() {
            let linear = Linear::new(&w, None, inputs, kernel);
            let product = |x| {
                let mut y = start.clone();
                linear.apply_to(x, Then::Store, &mut y);
                y
            };
            for (input, made) in [(Input::Normed(&norm, &x), &normed), (Input::Gelu(&x), &activated)] {
                prop_assert_eq!(product(input), product(Input::Given(made)));
            }
            let sides = [inputs, outputs];
            let sum = |x: &[f32], activation| sum_of_outer_products(x, activation, &dy, sides, kernel);
            prop_assert_eq!(sum(&x, Activation::Gelu), sum(&activated, Activation::Identity));
        }
    }

    #[test]
    fn outer_products_are_added_up(
        rows in prop_oneof![0..most(80, 20), most(500, 511)..most(530, 514)],
        m in 1..most(70, 15), n in 1..most(70, 9), seed: u64,
    ) {
        let (x, y) = (numbers(rows * m, seed), numbers(rows * n, seed ^ 1));
        for (kernel, error) in kernels() {
            let sum = sum_of_outer_products(&x, Activation::Identity, &y, [m, n], kernel);
            prop_assert_eq!(sum.len(), m * n);
            for (i, found) in sum.iter().enumerate() {
                let factors = (0..rows).map(|r| (x[r * m + i / n], y[r * n + i % n]));
                let expected: f64 = factors.clone().map(|(a, b)| f64::from(a) * f64::from(b)).sum();
                let off = (f64::from(*found) - expected).abs();
                let bound = error.bound(factors) + 1e-6;
                prop_assert!(off <= bound, "{}: off by {off:e}", kernel.name());
            }
        }
    }

    #[test]
    fn norms_are_their_definitions(rows in 1usize..9, width in 1usize..90, seed: u64) {
        let x: Vec<f32> = numbers(rows * width, seed).iter().map(|v| 3.0 * v + 0.5).collect();
        let (gain, shift) = (numbers(width, seed ^ 1), numbers(width, seed ^ 2));
        let mean_of = |row: &[f32], f: &dyn Fn(f64) -> f64| {
            row.iter().map(|v| f(f64::from(*v))).sum::<f64>() / width as f64
        };
        let (mut layer, mut rms) = (Vec::new(), Vec::new());
        for row in x.chunks_exact(width) {
            let mean = mean_of(row, &|v| v);
            let variance = mean_of(row, &|v| (v - mean) * (v - mean));
            let square = mean_of(row, &|v| v * v);
            for ((v, gain), shift) in row.iter().zip(&gain).zip(&shift) {
                let (v, gain) = (f64::from(*v), f64::from(*gain));
                layer.push((v - mean) / (variance + 1e-5).sqrt() * gain + f64::from(*shift));
                rms.push(v / (square + 1e-5).sqrt() * gain);
            }
        }
        let mut y = vec![0.0; x.len()];
        let norm = Norm::layer(gain.clone(), shift, 1e-5);
        norm.apply(&x, &mut y);
        close(&y, &layer, 2e-5);
        let mut z = x.clone();
        norm.apply_in_place(&mut z);
        prop_assert_eq!(&z, &y);
        Norm::rms(gain, 1e-5).apply(&x, &mut y);
        close(&y, &rms, 2e-5);
    }

    #[test]
    fn attention_is_a_softmax_of_scores(
        sequences in 1usize..3, tokens in 1..most(75, 35), count in 1..most(4, 3), width in 1..most(35, 5),
        seed: u64, biased: bool, cut: bool,
    ) {
        let dim = count * width;
        let heads = Heads { count, width, scale: (width as f32).powf(-0.5) };
        let qkv = numbers(sequences * tokens * 3 * dim, seed);
        let qkv: Vec<f32> = qkv.iter().map(|v| rounded(4.0 * v)).collect();
        let bias = numbers(count * tokens * tokens, seed ^ 1);
        let seen: Vec<usize> = (0..sequences).map(|s| (tokens / (s + 1)).max(1)).collect();
        let mut expected = vec![0.0f64; sequences * tokens * dim];
        for s in 0..sequences {
            let seen = if cut { seen[s] } else { tokens };
            let at = |t: usize, part: usize, head: usize, c: usize| {
                f64::from(qkv[(s * tokens + t) * 3 * dim + part * dim + head * width + c])
            };
            for head in 0..count {
                for q in 0..tokens {
                    let score = |k: usize| {
                        let product: f64 = (0..width).map(|c| at(q, 0, head, c) * at(k, 1, head, c)).sum();
                        let bias = if biased { f64::from(bias[(head * tokens + q) * tokens + k]) } else { 0.0 };
                        product * f64::from(heads.scale) + bias
                    };
                    let weights: Vec<f64> = (0..seen).map(|k| score(k).exp()).collect();
                    let sum: f64 = weights.iter().sum();
                    for c in 0..width {
                        expected[(s * tokens + q) * dim + head * width + c] =
                            weights.iter().enumerate().map(|(k, w)| w / sum * at(k, 2, head, c)).sum();
                    }
                }
            }
        }
        for (kernel, error) in kernels() {
            let mut packed = Packed::new(kernel);
            // What a longer input left behind must not matter.
            let longer = most(100, 40);
            let mut out = vec![f32::NAN; longer * dim];
            attend(&vec![7.0; 3 * longer * dim], longer, heads, Bias::None, None, &mut packed, &mut out);
            let mut out = vec![f32::NAN; expected.len()];
            let bias = if biased { Bias::Scores(&bias) } else { Bias::None };
            attend(&qkv, tokens, heads, bias, cut.then_some(&seen), &mut packed, &mut out);
            // Scores of a few tens that are off by so much, and the weights.
            let of_terms = match kernel.precision() {
                Precision::Int8 if kernel.name().ends_with("attention too") => {
                    // Rounding to bytes has its own test; here it must be rounding only.
                    let squares = out.iter().zip(&expected).map(|(y, e)| (f64::from(*y) - e).powi(2));
                    let off = (squares.sum::<f64>() / out.len() as f64).sqrt();
                    assert!(off < 0.1, "{off}");
                    continue;
                }
                // Beside which attention is of bf16.
                Precision::Int8 => 2.0 * 2f64.powi(-8),
                Precision::F32 | Precision::Bf16 => error.of_terms,
            };
            close(&out, &expected, (10.0 * of_terms).max(2e-5));
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_cpu_with_vectors_is_told_to_use_them() {
    // Whatever other crates ask of pulp: without its feature x86-v3 this CPU would compute a hundred times
    // slower, and nothing else would show it.
    if !(is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")) {
        println!("SKIPPED: this CPU has no AVX2");
        return;
    }
    struct Lanes;
    impl pulp::WithSimd for Lanes {
        type Output = usize;

        fn with_simd<S: pulp::Simd>(self, _: S) -> usize {
            S::F32_LANES
        }
    }
    assert!(pulp::Arch::new().dispatch(Lanes) >= 8);
}
