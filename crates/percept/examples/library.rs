//! Finds things by name in a photo, with the model that comes with percept.

use percept::{Background, ClassBank, Hints, Model, SegmentOptions, Segmenter, Templates};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = "models/percept-s14".as_ref();
    let model = Model::load(path, &Hints::default(), &percept::device("auto")?)?;
    let labels = percept::parse_labels("cat, dog, grass")?;
    let templates = Templates::new(model.config().templates.clone())?;
    // The text encoder runs once; the bank serves every photo.
    let bank = ClassBank::new(&model, &labels, &templates, &Background::Auto)?;
    let segmenter = Segmenter::new(&model, &bank, &SegmentOptions::default())?;

    let photo = percept::image::open("examples/photos/chelsea.jpg".as_ref(), &Default::default())?;
    for class in segmenter.segment(&photo)?.found {
        println!("{} covers {:.0} %", class.name, 100.0 * class.share);
    }
    Ok(())
}
