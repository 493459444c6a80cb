//! `percept classify`

use percept::{Background, ClassBank, Classifier};
use serde_json::json;

use super::{hint, labels, templates};
use crate::args::{ClassifyArgs, Common};
use crate::console::Console;
use crate::output::print_line;
use crate::pipeline::Summary;
use crate::{Outcome, inputs, models, pipeline};

pub fn run(args: &ClassifyArgs, common: &Common, console: &Console) -> anyhow::Result<Outcome> {
    let found = inputs::expand(&args.inputs.inputs, console)?;
    let labels = labels(&args.labels, console)?;
    let model = models::load(common, console)?;
    hint(&labels, &model, console);
    let templates = templates(&args.labels, &model)?;
    let bank = ClassBank::new(&model, &labels, &templates, &Background::None)?;
    if labels.len() == 1 {
        console.note(&format!(
            "with one label there is nothing to choose from, and \"{}\" has all of every photo; the cosine tells \
             how well it fits, and more labels what fits better",
            labels[0].name
        ));
    }
    let classifier = Classifier::new(&model, &bank)?;
    let ended = pipeline::run(
        &found.photos.iter().collect::<Vec<_>>(),
        common.together(&model),
        console,
        |photo| classifier.prepare(photo),
        |images| classifier.encode(images),
        |job| {
            let scores = classifier.score(&job.grid);
            let best = &scores[..args.top.min(scores.len())];
            let image = job.input.path.display();
            if common.json {
                let notes = job.notes_json();
                let line = json!({ "image": image.to_string(), "labels": best, "notes": notes });
                print_line(&line.to_string())?;
            } else {
                let parts: Vec<String> = best
                    .iter()
                    .map(|score| {
                        let share = 100.0 * score.probability;
                        format!("{} {share:.1} % (cosine {:.2})", score.name, score.cosine)
                    })
                    .collect();
                print_line(&format!("{image}: {}", parts.join(", ")))?;
            }
            Ok(())
        },
    )?;
    Summary {
        found: &found,
        resumed: 0,
        folder: None,
    }
    .tell(&ended, common.json, console)
}
