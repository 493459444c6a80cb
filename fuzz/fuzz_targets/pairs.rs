//! Any bytes are a shard, a CSV of pairs, or refused; what is read of them are no more pairs than were counted.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use percept_data::pairs::{
    Augment, CaptionChoice, CsvOptions, LastBatch, LoaderOptions, PairLoader, PairOptions,
    PairOrder, PairSource, Position, Sampling,
};
use percept_image::Normalization;

fuzz_target!(|input: (bool, &[u8])| {
    let (is_table, bytes) = input;
    let ending = if is_table { "csv" } else { "tar" };
    let name = format!("percept-fuzz-{}.{ending}", std::process::id());
    let path = std::env::temp_dir().join(name);
    std::fs::write(&path, bytes).expect("the folder of temporary files can be written");
    let options = PairOptions {
        captions: CaptionChoice::Random,
        labels: true,
        ..PairOptions::default()
    };
    let source = match is_table {
        true => PairSource::csv(&path, &CsvOptions::default(), options),
        false => PairSource::webdataset(&path.to_string_lossy(), options),
    };
    let Ok(source) = source else { return };
    let Ok(samples) = source.samples() else {
        return;
    };
    let order = PairOrder {
        sampling: Sampling::InOrder,
        ..PairOrder::default()
    };
    let loader = PairLoader::new(
        Arc::new(source),
        order,
        Augment::eval(8, Normalization::OPENAI),
        LoaderOptions {
            batch_size: 1,
            threads: 1,
            prefetch: 1,
            last: LastBatch::Keep,
        },
        Position::default(),
    );
    let usable = loader.map_or(0, |loader| loader.filter(Result::is_ok).count());
    assert!(usable as u64 <= samples);
});
