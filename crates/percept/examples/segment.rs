//! Finds things by name in one photo, and writes an overlay.
//!
//! ```text
//! cargo run --release -p percept --example segment -- MODEL PHOTO "dog, grass" overlay.png
//! ```

use percept::image::{LegendEntry, overlay, png_rgb, write_atomic};
use percept::{Background, ClassBank, Hints, Model, SegmentOptions, Segmenter, Templates};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, photo, labels, out] = args.as_slice() else {
        return Err("usage: segment MODEL PHOTO LABELS OUT.png".into());
    };
    let model = Model::load(model.as_ref(), &Hints::default(), &percept::device("auto")?)?;
    let labels = percept::parse_labels(labels)?;
    let templates = Templates::new(model.config().templates.clone())?;
    // The text encoder runs here, once; the bank could now serve any number of photos.
    let bank = ClassBank::new(&model, &labels, &templates, &Background::Auto)?;
    let segmenter = Segmenter::new(&model, &bank, &SegmentOptions::default())?;

    let photo = percept::image::open(photo.as_ref(), &Default::default())?;
    let result = segmenter.segment(&photo)?;
    let legend: Vec<LegendEntry> = result
        .found
        .iter()
        .map(|class| LegendEntry {
            index: class.class,
            name: class.name.clone(),
            share: class.share,
        })
        .collect();
    for class in &result.found {
        println!(
            "{:20} {:5.1} %  similarity {:.3}",
            class.name,
            100.0 * class.share,
            class.score
        );
    }
    let picture = overlay(&photo, &result.labels, &legend, 0.5, Some(0));
    write_atomic(out.as_ref(), &png_rgb(&picture)?)?;
    Ok(())
}
