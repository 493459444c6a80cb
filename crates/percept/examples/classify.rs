//! Says which of some labels describes each photo best: one bank, many photos.
//!
//! ```text
//! cargo run --release -p percept --example classify -- MODEL "cat, dog, rocket" PHOTO...
//! ```

use percept::{Background, ClassBank, Classifier, Hints, Model, Templates};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, labels, photos @ ..] = args.as_slice() else {
        return Err("usage: classify MODEL LABELS PHOTO...".into());
    };
    let model = Model::load(model.as_ref(), &Hints::default(), &percept::device("auto")?)?;
    let labels = percept::parse_labels(labels)?;
    let bank = ClassBank::new(&model, &labels, &Templates::imagenet7(), &Background::None)?;
    let classifier = Classifier::new(&model, &bank)?;
    for path in photos {
        // One unreadable photo does not stop the others.
        match percept::image::open(path.as_ref(), &Default::default()) {
            Err(error) => eprintln!("{error}"),
            Ok(photo) => {
                for score in classifier.classify(&photo)?.iter().take(3) {
                    println!("{path}: {} {:.1} %", score.name, 100.0 * score.probability);
                }
            }
        }
    }
    Ok(())
}
