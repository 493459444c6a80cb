//! How fast each kernel of this CPU is, in GFLOP/s of one thread and of all, for what a ViT is made of.
//!
//! ```sh
//! cargo run --release -p percept-cpu --example time_kernels [-- TOKENS DIM HEADS]
//! ```

use std::hint::black_box;
use std::time::{Duration, Instant};

use percept_cpu::attention::{Bias, Heads, Packed, attend};
use percept_cpu::kernel::Kernel;
use percept_cpu::norm::Norm;
use percept_cpu::product::{Activation, Input, Linear, Then, feed_forward, sum_of_outer_products};

/// How long each is measured.
const TIME: Duration = Duration::from_millis(700);

fn main() {
    let arguments: Vec<usize> = (std::env::args().skip(1))
        .map(|argument| argument.parse().expect("a number"))
        .collect();
    // ViT-S/14 at 448 px, unless told otherwise.
    let [tokens, dim, heads] = arguments[..].try_into().unwrap_or([1025, 384, 6]);
    let all = rayon::current_num_threads();
    println!("{tokens} tokens of {dim}, {heads} heads; GFLOP/s of 1 thread and of {all}");
    for kernel in Kernel::all() {
        println!("{}", kernel.name());
        let found = [1, all].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            let pool = pool.expect("threads");
            pool.install(|| measure(kernel, tokens, dim, heads))
        });
        for ((what, one), (_, many)) in found[0].iter().zip(&found[1]) {
            println!("  {what:<14}{one:>8.1}{many:>8.1}");
        }
    }
}

fn measure(kernel: Kernel, tokens: usize, dim: usize, heads: usize) -> [(&'static str, f64); 7] {
    let numbers = |count: usize| -> Vec<f32> {
        (0..count)
            .map(|i| ((i * 7919 % 1009) as f32 / 504.5 - 1.0) / 20.0)
            .collect()
    };
    let linear = |inputs: usize, outputs: usize| {
        Linear::new(
            &numbers(inputs * outputs),
            Some(&numbers(outputs)),
            inputs,
            kernel,
        )
    };
    let norm = Norm::layer(vec![1.0; dim], vec![0.0; dim], 1e-6);
    let mut x = numbers(tokens * dim);
    let (qkv, proj) = (linear(dim, 3 * dim), linear(dim, dim));
    let (first, second) = (linear(dim, 4 * dim), linear(4 * dim, dim));
    let mut wide = vec![0.0; 3 * tokens * dim];
    let mut mixed = vec![0.0; tokens * dim];
    let mut hidden = vec![0.0; 4 * tokens * dim];
    let mut packed = Packed::new(kernel);
    let shape = Heads::of(dim, heads);
    let product = (2 * tokens * dim * dim) as f64;
    let scale = vec![1e-3; dim];
    [
        (
            "qkv",
            rate(3.0 * product, || {
                qkv.apply_to(Input::Normed(&norm, &x), Then::Store, &mut wide)
            }),
        ),
        (
            "attention",
            rate(4.0 * (tokens * tokens * dim) as f64, || {
                attend(
                    &wide,
                    tokens,
                    shape,
                    Bias::None,
                    None,
                    &mut packed,
                    &mut mixed,
                );
            }),
        ),
        (
            "proj",
            rate(product, || {
                proj.apply(&mixed, Then::Add(Some(&scale)), &mut x)
            }),
        ),
        (
            "feed-forward",
            rate(8.0 * product, || {
                let layers = [&first, &second];
                feed_forward(&norm, layers, Then::Gelu, Some(&scale), black_box(&mut x));
            }),
        ),
        // Of training, where the hidden layer is kept.
        (
            "first layer",
            rate(4.0 * product, || first.apply(&x, Then::Store, &mut hidden)),
        ),
        (
            "second layer",
            rate(4.0 * product, || {
                second.apply(&hidden, Then::Store, &mut mixed)
            }),
        ),
        (
            "its weights'",
            rate(4.0 * product, || {
                black_box(sum_of_outer_products(
                    &hidden,
                    Activation::Identity,
                    &mixed,
                    [4 * dim, dim],
                    kernel,
                ));
            }),
        ),
    ]
}

/// GFLOP/s of what computes so many operations, where nothing was in its way: the quickest time counts.
fn rate(operations: f64, mut compute: impl FnMut()) -> f64 {
    let (start, mut quickest) = (Instant::now(), f64::INFINITY);
    while start.elapsed() < TIME {
        let before = Instant::now();
        compute();
        quickest = quickest.min(before.elapsed().as_secs_f64());
    }
    operations / quickest / 1e9
}
