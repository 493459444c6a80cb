//! How many photos a second are read, decoded and augmented.
//!
//! `cargo run --release -p percept-data --example decode_rate -- 'shards/*.tar' 2 224 full`: shards,
//! threads, pixels a side, and `full` or `reduced` decoding.

use std::env;
use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use percept_data::pairs::{
    Augment, Decoding, LoaderOptions, PairLoader, PairOptions, PairOrder, PairSource, Position,
};
use percept_image::Normalization;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let shards = args
        .next()
        .ok_or("usage: decode_rate SHARDS [THREADS] [SIZE] [full|reduced]")?;
    let threads = args.next().map_or(Ok(2), |text| text.parse())?;
    let size = args.next().map_or(Ok(224), |text| text.parse())?;
    let decoding = match args.next().as_deref() {
        None | Some("full") => Decoding::Full,
        Some("reduced") => Decoding::Reduced,
        Some(other) => return Err(format!("full or reduced, not {other}").into()),
    };

    let source = Arc::new(PairSource::webdataset(&shards, PairOptions::default())?);
    let start = Instant::now();
    let samples = source.samples()?;
    println!(
        "{samples} samples listed in {:.2} s",
        start.elapsed().as_secs_f64()
    );

    let augment = Augment {
        decoding,
        ..Augment::train(size, Normalization::IMAGENET)
    };
    let options = LoaderOptions {
        threads,
        ..LoaderOptions::default()
    };
    let start = Instant::now();
    let order = PairOrder::default();
    let mut loader = PairLoader::new(source, order, augment, options, Position::default())?;
    let mut images = 0;
    for batch in loader.by_ref() {
        images += batch?.images.len();
    }
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{images} images of {size} x {size} in {seconds:.2} s: {:.0} a second with {threads} threads, {} bad",
        images as f64 / seconds,
        loader.skipped().total
    );
    Ok(())
}
