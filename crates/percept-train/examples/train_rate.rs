//! Images a second of a training step: ViT-S/14 at 224 px, half the patches dropped, text locked.
//!
//! ```sh
//! cargo run --release -p percept-train --example train_rate -- --batch 64 --steps 5
//! ```
//!
//! `--chunk N` divides the batch, `--keep block-inputs` recomputes blocks, `--text trained` trains
//! both towers. `benches/peers/train.py` times the same in PyTorch.

use std::time::Instant;

use percept_model::{
    BertConfig, Pooling, PositionInterpolation, TextConfig, TextHead, VitConfig, device,
};
use percept_train::gradcache::{Keep, Learning};
use percept_train::loss::{INITIAL_LOGIT_SCALE, Targets};
use percept_train::optim::OptimConfig;
use percept_train::schedule::{Schedule, Shape};
use percept_train::{Alone, Batch, StepConfig, Trainer, train_step};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let after = |name: &str| {
        let at = arguments.iter().position(|a| a == name)?;
        arguments.get(at + 1).map(String::as_str)
    };
    let number = |name: &str, default: usize| -> Result<usize, std::num::ParseIntError> {
        after(name).map_or(Ok(default), str::parse)
    };
    let batch = number("--batch", 64)?;
    let chunk = number("--chunk", batch)?;
    let steps = number("--steps", 5)?;
    let size = number("--size", 224)?;
    let dropout: f64 = after("--dropout").unwrap_or("0.5").parse()?;
    let keep = match after("--keep") {
        Some("block-inputs") => Keep::BlockInputs,
        _ => Keep::Activations,
    };
    let device = device(after("--device").unwrap_or("cpu"))?;

    let dim = 384;
    let vit = VitConfig {
        dim,
        depth: 12,
        heads: 6,
        mlp_dim: 4 * dim,
        patch_size: 14,
        grid: [37, 37],
        registers: 0,
        position_prefix: 1,
        layer_scale: true,
        layer_norm_eps: 1e-6,
        interpolation: PositionInterpolation::Timm,
    };
    // MiniLM's shape.
    let text = TextConfig::Bert(BertConfig {
        vocab_size: 30_522,
        dim,
        depth: 6,
        heads: 12,
        mlp_dim: 4 * dim,
        max_positions: 512,
        token_types: 2,
        layer_norm_eps: 1e-12,
        max_tokens: 256,
        first_position: 0,
        head: TextHead::default(),
    });
    let config = StepConfig {
        pooling: Pooling::Max,
        targets: Targets::Diagonal,
        sides: None,
        patch_dropout: dropout,
        chunk,
        keep,
        image: Learning::Trained,
        text: if after("--text") == Some("trained") {
            Learning::Trained
        } else {
            Learning::Locked
        },
        seed: 0,
    };
    let schedule = Schedule {
        lr: 1e-4,
        warmup: 0,
        steps: 1000,
        shape: Shape::Const,
    };
    let mut trainer = Trainer::new(
        vit.init(&device),
        text.init(&device),
        INITIAL_LOGIT_SCALE,
        config,
        schedule,
        OptimConfig::default(),
        None,
        device,
    )?;
    let values = batch * 3 * size * size;
    let batch = Batch {
        pixels: (0..values)
            .map(|i| (i * 7919 % 1000) as f32 / 500.0 - 1.0)
            .collect(),
        size: [size, size],
        // Captions of 12 tokens, all different.
        captions: (0..batch)
            .map(|i| {
                (0..12)
                    .map(|j| 1000 + ((i * 12 + j) * 31 % 20_000) as u32)
                    .collect()
            })
            .collect(),
        words: Vec::new(),
        surroundings: Vec::new(),
    };
    let mut times = Vec::new();
    for step in 0..=steps {
        let start = Instant::now();
        let report = train_step(&mut trainer, &batch, &Alone)?;
        let seconds = start.elapsed().as_secs_f64();
        // The first step warms up.
        if step > 0 {
            times.push(seconds);
        }
        eprintln!("{seconds:.3} s, loss {:.4}", report.loss);
    }
    times.sort_by(f64::total_cmp);
    let median = times[times.len() / 2];
    println!(
        "{{\"ms\": {:.1}, \"images_per_second\": {:.2}}}",
        median * 1e3,
        batch.captions.len() as f64 / median
    );
    Ok(())
}
