//! Divides one photo into regions without any labels, and writes a palette mask.
//!
//! ```text
//! cargo run --release -p percept --example group -- MODEL PHOTO mask.png
//! ```

use percept::image::{mask_png, write_atomic};
use percept::{GroupOptions, Grouper, Hints, Model};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, photo, out] = args.as_slice() else {
        return Err("usage: group MODEL PHOTO OUT.png".into());
    };
    let model = Model::load(model.as_ref(), &Hints::default(), &percept::device("auto")?)?;
    let grouper = Grouper::new(&model, &GroupOptions::default())?;
    let photo = percept::image::open(photo.as_ref(), &Default::default())?;
    let result = grouper.group(&photo)?;
    for (i, explained) in result.explained.iter().enumerate() {
        let number = i + 1;
        println!(
            "direction {number} explains {:.1} % of the variance",
            100.0 * explained
        );
    }
    write_atomic(out.as_ref(), &mask_png(&result.labels)?)?;
    Ok(())
}
