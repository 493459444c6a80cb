//! `percept segment`

use percept::{Background, ClassBank, SegmentOptions, Segmenter};
use serde_json::json;

use super::{hint, labels, percent, templates, window};
use crate::args::{Common, SegmentArgs};
use crate::console::Console;
use crate::output::{Writer, class_json, print_line};
use crate::{Outcome, Usage, inputs, models, pipeline};

pub fn run(args: &SegmentArgs, common: &Common, console: &Console) -> anyhow::Result<Outcome> {
    let inputs = inputs::expand(&args.inputs.inputs)?;
    let labels = labels(&args.labels, console)?;
    let background: Background = args
        .background
        .parse()
        .map_err(|e: percept::Error| Usage(format!("--{e}")))?;
    let model = models::load(common, console)?;
    hint(&labels, &model, console);
    let templates = templates(&args.labels, &model)?;
    let bank = ClassBank::new(&model, &labels, &templates, &background)?;
    for name in bank.truncated() {
        console.note(&format!(
            "a label was too long for the text encoder and was cut: {name:.60}…"
        ));
    }
    let options = SegmentOptions {
        size: args.view.size,
        window: window(&args.view),
    };
    let segmenter = Segmenter::new(&model, &bank, &options)?;

    let classes: Vec<_> = bank
        .classes()
        .iter()
        .enumerate()
        .map(|(index, name)| class_json(index as u16, name))
        .collect();
    let rows: Vec<_> = bank
        .rows()
        .iter()
        .map(|row| json!({ "text": row.name, "class": row.class }))
        .collect();
    let mut writer = Writer::new(
        &args.output,
        &json!({
            "percept": env!("CARGO_PKG_VERSION"),
            "model": models::named(common),
            "classes": classes,
            "rows": rows,
            "templates": templates.as_slice(),
            "background": args.background,
            "size": format!("{:?}", args.view.size),
            "window": options.window.map(|w| [w.side, w.stride]),
        }),
    )?;
    let failures = pipeline::run(
        &inputs,
        common.together(&model),
        console,
        |photo| segmenter.prepare(photo),
        |images| segmenter.encode(images),
        |job| {
            pipeline::tell_shrunk(console, job.input, segmenter.shrunk(&job.photo));
            let result = segmenter.assign(&job.grid, job.photo.width(), job.photo.height())?;
            let regions = result.regions();
            let described = writer.write(
                job.input,
                &job.photo,
                &result.labels,
                &result.similarity,
                &regions,
            )?;
            if common.json {
                print_line(&described.to_string())?;
            } else if !common.quiet {
                let parts: Vec<String> = regions
                    .iter()
                    .map(|r| format!("{} {}", r.name, percent(r.share)))
                    .collect();
                print_line(&format!(
                    "{}: {}",
                    job.input.path.display(),
                    parts.join(", ")
                ))?;
            }
            Ok(())
        },
    )?;
    writer.finish()?;
    console.detail(&format!("results in {}", args.output.out.display()));
    pipeline::summarize(inputs.len(), &failures, common.json, console)
}
