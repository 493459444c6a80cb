//! Times the image encoder's forward pass: one JSON line for `benches/peers/run.py`.
//!
//! ```text
//! time_vit --model PATH --height H --width W --batch N --seconds S [--threads T] [--heads N]
//!          [--device D] [--precision f32|bf16]
//! ```

use std::time::{Duration, Instant};

use percept_image::ChwImage;
use percept_model::{Hints, Model, ModelFiles, Precision, device};

/// As the command line has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut values = std::collections::BTreeMap::new();
    let mut args = std::env::args().skip(1);
    while let (Some(flag), Some(value)) = (args.next(), args.next()) {
        values.insert(flag, value);
    }
    let get = |flag: &str| values.get(flag).ok_or(format!("{flag} is missing"));
    let number = |flag: &str| -> Result<usize, Box<dyn std::error::Error>> {
        Ok(get(flag)?.parse::<usize>()?)
    };
    if let Ok(threads) = number("--threads") {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build_global()?;
    }
    let (height, width, batch) = (number("--height")?, number("--width")?, number("--batch")?);
    let limit = Duration::from_secs_f64(get("--seconds")?.parse()?);
    let name = values.get("--device").map_or("cpu", String::as_str);
    let hints = Hints {
        heads: number("--heads").ok(),
        ..Default::default()
    };
    let precision = match values.get("--precision").map_or("f32", String::as_str) {
        "f32" => Precision::F32,
        "bf16" => Precision::Bf16,
        "int8" => Precision::Int8,
        other => return Err(format!("--precision {other}: not f32, bf16 or int8").into()),
    };
    let files = ModelFiles::open(get("--model")?.as_ref(), &hints)?;
    let model = Model::from_files(&files, &device(name)?, precision)?;
    let kernel = model
        .kernel()
        .map_or("another device", |kernel| kernel.name());

    // Any values will do: the time does not depend on them.
    let images: Vec<ChwImage> = (0..batch)
        .map(|i| ChwImage {
            data: (0..3 * height * width)
                .map(|j| ((i + j) % 251) as f32 / 125.0 - 1.0)
                .collect(),
            height,
            width,
        })
        .collect();
    for _ in 0..2 {
        model.encode_images(&images)?;
    }
    let mut times = Vec::new();
    let start = Instant::now();
    while start.elapsed() < limit || times.len() < 3 {
        let one = Instant::now();
        std::hint::black_box(model.encode_images(&images)?);
        times.push(one.elapsed().as_secs_f64() * 1e3);
    }
    let mut sorted = times.clone();
    sorted.sort_by(f64::total_cmp);
    let median = sorted[sorted.len() / 2];
    println!(
        "{}",
        serde_json::json!({ "ms": median, "all": times, "kernel": kernel })
    );
    Ok(())
}
