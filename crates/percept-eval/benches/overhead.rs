//! What the harness adds to the bare forward passes: reading photos and truths, resizing, classes,
//! metrics, records. Both are timed in turn on the same photos; the limit is 10 %.
//!
//! ```sh
//! cargo bench -p percept-eval --bench overhead -- MODEL VOCDEVKIT [PHOTOS]
//! ```

use std::path::PathBuf;
use std::time::{Duration, Instant};

use percept::{Hints, Model, Size, View, device};
use percept_data::{SegmentationSet, open_voc};
use percept_eval::{Protocol, Run, RunOptions, Subject};
use percept_image::{ChwImage, Limits};

/// Most that the harness may take, as a part of the time of the forward passes.
const LIMIT: f64 = 0.10;
/// Both ways are timed this often, in turn; the quickest counts.
const ROUNDS: usize = 3;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Cargo adds a flag of its own.
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let (Some(path), Some(data)) = (args.next(), args.next()) else {
        eprintln!("SKIPPED: name a model and a VOC tree after --");
        return Ok(());
    };
    let path = PathBuf::from(path);
    let photos: usize = args.next().map_or(Ok(60), |n| n.parse())?;
    let model = Model::load(&path, &Hints::default(), &device("cpu")?)?;
    let subject = Subject::new(&model, "model", &path)?;
    let set = open_voc(data.as_ref(), None)?;
    let photos = photos.min(set.samples().len());
    let mut lost = false;
    for name in ["clippy", "clippy-448"] {
        let protocol = Protocol::load(name, "voc", &[])?;
        let size = match name {
            "clippy" => Size::Exact {
                width: 224,
                height: 224,
            },
            _ => Size::ShortSide(448),
        };
        let view = View::new(&model, size, None)?;
        let inputs = set
            .samples()
            .iter()
            .take(photos)
            .map(|sample| {
                let photo = percept_image::open(&sample.image, &Limits::default())?;
                Ok(view.prepare(&photo))
            })
            .collect::<Result<Vec<ChwImage>, Box<dyn std::error::Error>>>()?;
        let (mut bare, mut harness) = (Duration::MAX, Duration::MAX);
        for _ in 0..ROUNDS {
            let start = Instant::now();
            for input in &inputs {
                std::hint::black_box(view.encode(std::slice::from_ref(input))?);
            }
            bare = bare.min(start.elapsed());

            let folder = tempfile::tempdir()?;
            let options = RunOptions {
                limit: photos,
                batch_size: 1,
                out: Some(folder.path().to_owned()),
                resume: false,
                ..RunOptions::default()
            };
            let result = percept_eval::segmentation(
                &set,
                Run {
                    subject: &subject,
                    protocol: &protocol,
                    options: &options,
                    progress: &|_| (),
                },
            )?;
            harness = harness.min(Duration::from_secs_f64(result.seconds.total));
        }
        let added = harness.as_secs_f64() / bare.as_secs_f64() - 1.0;
        lost |= added > LIMIT;
        println!(
            "{name}: {photos} photos, forward passes {:.2} s, harness {:.2} s, {:+.1} %",
            bare.as_secs_f64(),
            harness.as_secs_f64(),
            100.0 * added
        );
    }
    if lost {
        return Err(format!("the harness adds more than {:.0} %", 100.0 * LIMIT).into());
    }
    Ok(())
}
