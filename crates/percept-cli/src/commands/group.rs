//! `percept group`

use percept::{Centering, GroupOptions, Grouper};
use serde_json::json;

use super::{percent, window};
use crate::args::{Common, GroupArgs};
use crate::console::Console;
use crate::output::{Writer, class_json, print_line};
use crate::{Outcome, inputs, models, pipeline};

pub fn run(args: &GroupArgs, common: &Common, console: &Console) -> anyhow::Result<Outcome> {
    let inputs = inputs::expand(&args.inputs.inputs)?;
    let options = GroupOptions {
        groups: args.groups,
        centering: if args.centered {
            Centering::Centered
        } else {
            Centering::Raw
        },
        size: args.view.size,
        window: window(&args.view),
    };
    let model = models::load(common, console)?;
    let grouper = Grouper::new(&model, &options)?;

    let name = |index: u16| format!("group {index}");
    let classes: Vec<_> = (1..=args.groups as u16)
        .map(|index| class_json(index, &name(index)))
        .collect();
    let mut writer = Writer::new(
        &args.output,
        &json!({
            "percept": env!("CARGO_PKG_VERSION"),
            "model": models::named(common),
            "classes": classes,
            "centered": args.centered,
            "size": format!("{:?}", args.view.size),
            "window": options.window.map(|w| [w.side, w.stride]),
        }),
    )?;
    let failures = pipeline::run(
        &inputs,
        common.together(&model),
        console,
        |photo| grouper.prepare(photo),
        |images| grouper.encode(images),
        |job| {
            pipeline::tell_shrunk(console, job.input, grouper.shrunk(&job.photo));
            let result = grouper.assign(&job.grid, job.photo.width(), job.photo.height())?;
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
                let shares: Vec<String> = regions.iter().map(|r| percent(r.share)).collect();
                print_line(&format!(
                    "{}: {} groups ({})",
                    job.input.path.display(),
                    regions.len(),
                    shares.join(", ")
                ))?;
            }
            Ok(())
        },
    )?;
    writer.finish()?;
    console.detail(&format!("results in {}", args.output.out.display()));
    pipeline::summarize(inputs.len(), &failures, common.json, console)
}
