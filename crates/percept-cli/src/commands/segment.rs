//! `percept segment`

use std::path::Path;

use percept::image::message;
use percept::{Background, Categories, ClassBank, Nearest, SegmentOptions, Segmenter, abbreviate};
use serde_json::json;

use super::{hint, labels, percent, size_json, templates, window};
use crate::args::{Common, Format, SegmentArgs};
use crate::console::Console;
use crate::output::{Kind, Writer, class_json, print_line};
use crate::pipeline::Summary;
use crate::{Outcome, Usage, inputs, models, pipeline};

/// Most bytes of the file of `--categories`, which may be one of a million annotations.
const MAX_CATEGORIES: u64 = 2 << 30;

pub fn run(args: &SegmentArgs, common: &Common, console: &Console) -> anyhow::Result<Outcome> {
    let found = inputs::expand(&args.inputs.inputs, console)?;
    found.tell_names(console);
    let labels = labels(&args.labels, console)?;
    let background: Background = args
        .background
        .parse()
        .map_err(|e: percept::Error| Usage(format!("--{}", message(&e))))?;
    let (model, digest) = models::load_known(common, console)?;
    hint(&labels, &model, console);
    let templates = templates(&args.labels, &model)?;
    let bank = ClassBank::new(&model, &labels, &templates, &background)?;
    for name in bank.truncated() {
        console.note(&format!(
            "a label was too long for the text encoder and was cut: {}",
            abbreviate(name)
        ));
    }
    let options = SegmentOptions {
        size: args.view.size,
        window: window(&args.view),
    };
    let segmenter = Segmenter::new(&model, &bank, &options)?;

    let mut classes: Vec<_> = bank
        .classes()
        .iter()
        .enumerate()
        .map(|(index, name)| class_json(index as u16, name, args.output.palette.into()))
        .collect();
    let categories = match &args.categories {
        Some(path) => Some(numbers(path, bank.classes())?),
        None => None,
    };
    if let Some(numbers) = &categories {
        for (class, number) in classes.iter_mut().zip(numbers).skip(1) {
            class["category_id"] = json!(number);
        }
    }
    for (class, label) in classes.iter_mut().skip(1).zip(&labels) {
        if label.synonyms.len() > 1 {
            class["synonyms"] = json!(label.synonyms);
        }
    }
    tell_of_ids(args, bank.classes(), console);
    let rows: Vec<_> = bank
        .rows()
        .iter()
        .map(|row| json!({ "text": row.name, "class": row.class }))
        .collect();
    let (mut writer, to_do) = Writer::new(
        &args.output,
        Kind::Segment,
        &json!({
            "percept": env!("CARGO_PKG_VERSION"),
            "command": Kind::Segment.name(),
            "model": models::named(common),
            "weights": format!("sha256:{digest}"),
            "precision": model.precision().name(),
            "classes": classes,
            "rows": rows,
            "templates": templates.as_slice(),
            "background": args.background,
            "precision": model.precision().name(),
            "size": size_json(args.view.size),
            "window": options.window.map(|w| [w.side, w.stride]),
            "palette": percept::image::Palette::from(args.output.palette).name(),
            "overlay": args.output.overlay_json(),
        }),
        &found.photos,
    )?;
    writer.tell_removed(console);
    if let Some(numbers) = categories {
        writer.number_classes(numbers);
    }
    let ended = pipeline::run(
        &to_do,
        common.together(&model),
        console,
        |photo| segmenter.prepare(photo),
        |images| segmenter.encode(images),
        |job| {
            pipeline::tell_shrunk(console, job.input, segmenter.shrunk(&job.photo));
            let result = segmenter.assign(&job.grid, job.photo.width(), job.photo.height())?;
            let regions = result.regions();
            let nearest = result.nearest(&bank).filter(|_| !result.has_found());
            let mut more = json!({ "notes": job.notes_json() });
            if let Some(nearest) = &nearest {
                more["nothing_found"] = json!({ "best": nearest });
            }
            let described = writer.write(
                job.input,
                &job.photo,
                &result.labels,
                &result.similarity,
                &regions,
                more,
            )?;
            if common.json {
                print_line(&described.to_string())?;
            } else if !common.quiet {
                let parts: Vec<String> = regions
                    .iter()
                    .map(|r| format!("{} {}", r.name, percent(r.share)))
                    .collect();
                let parts = match &nearest {
                    Some(nearest) => nothing_found(nearest, &background),
                    None => parts.join(", "),
                };
                print_line(&format!("{}: {parts}", job.input.path.display()))?;
            }
            Ok(())
        },
    );
    let folder = writer.folder().to_owned();
    // What was done is kept, however it ended.
    let finished = writer.finish(console);
    let ended = ended?;
    finished?;
    Summary {
        found: &found,
        resumed: found.photos.len() - to_do.len(),
        folder: Some(&folder),
    }
    .tell(&ended, common.json, console)
}

/// What is said of a photo that is all background.
fn nothing_found(nearest: &Nearest, background: &Background) -> String {
    let Nearest { name, score } = nearest;
    // A little below the best, so that it finds something.
    let below = (score - 0.02).max(-1.0);
    let advice = match background {
        Background::Threshold(least) => format!(
            "below {least}; a lower --background finds more, such as {below:.2}, none gives every pixel a label"
        ),
        _ => format!(
            "the background is nearer everywhere; try --background {below:.2}, or name what is around it as a \
             label too; --background none gives every pixel a label"
        ),
    };
    format!("nothing found (best: {name} at {score:.2}, {advice})")
}

/// Says that the file of labels gives classes numbers that COCO results do not have.
fn tell_of_ids(args: &SegmentArgs, classes: &[String], console: &Console) {
    let has_results = args.output.format.contains(&Format::Rle) && args.categories.is_none();
    let Some(path) = args.labels.labels_file.as_deref().filter(|_| has_results) else {
        return;
    };
    // A list without ids has none.
    let Ok(numbers) = numbers(path, classes) else {
        return;
    };
    if (0..).zip(&numbers).any(|(index, number)| index != *number) {
        let path = path.display();
        console.note(&format!(
            "results have the classes' places as category_id, not the ids of {path}; to have those add \
             --categories {path}"
        ));
    }
}

/// The numbers that a COCO file gives to classes; the background, of which there are no results, has 0.
fn numbers(path: &Path, classes: &[String]) -> anyhow::Result<Vec<u64>> {
    let in_file = |reason: String| Usage(format!("--categories {}: {reason}", path.display()));
    let json =
        inputs::read_file(path, MAX_CATEGORIES).map_err(|error| in_file(error.to_string()))?;
    let categories = Categories::parse(&json).map_err(in_file)?;
    let mut numbers = vec![0];
    let mut missing = Vec::new();
    for class in classes.iter().skip(1) {
        match categories.id(class) {
            Some(number) => numbers.push(number),
            None => missing.push(class.as_str()),
        }
    }
    match missing.is_empty() {
        true => Ok(numbers),
        false => Err(in_file(format!("no category is called {}", missing.join(", "))).into()),
    }
}
