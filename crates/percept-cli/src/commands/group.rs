//! `percept group`

use percept::{Centering, GroupOptions, Grouper, Grouping};
use serde_json::json;

use super::{percent, size_json, window};
use crate::args::{Common, GroupArgs};
use crate::console::Console;
use crate::output::{Kind, Writer, class_json, print_line};
use crate::pipeline::{Summary, counted, plural};
use crate::{Outcome, inputs, models, pipeline};

pub fn run(args: &GroupArgs, common: &Common, console: &Console) -> anyhow::Result<Outcome> {
    let found = inputs::expand(&args.inputs.inputs, console)?;
    found.tell_names(console);
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
    let (model, digest) = models::load_known(common, console)?;
    let grouper = Grouper::new(&model, &options)?;

    let name = |index: u16| format!("group {index}");
    let classes: Vec<_> = (1..=args.groups as u16)
        .map(|index| class_json(index, &name(index), args.output.palette.into()))
        .collect();
    let (mut writer, to_do) = Writer::new(
        &args.output,
        Kind::Group,
        &json!({
            "percept": env!("CARGO_PKG_VERSION"),
            "command": Kind::Group.name(),
            "model": models::named(common),
            "weights": format!("sha256:{digest}"),
            "precision": model.precision().name(),
            "classes": classes,
            "centered": args.centered,
            "precision": model.precision().name(),
            "size": size_json(args.view.size),
            "window": options.window.map(|w| [w.side, w.stride]),
            "palette": percept::image::Palette::from(args.output.palette).name(),
            "overlay": args.output.overlay_json(),
        }),
        &found.photos,
    )?;
    writer.tell_removed(console);
    let ended = pipeline::run(
        &to_do,
        common.together(&model),
        console,
        |photo| grouper.prepare(photo),
        |images| grouper.encode(images),
        |job| {
            pipeline::tell_shrunk(console, job.input, grouper.shrunk(&job.photo));
            let result = grouper.assign(&job.grid, job.photo.width(), job.photo.height())?;
            let regions = result.regions();
            let fewer = fewer(&result, regions.len(), args.groups);
            let mut more = json!({ "notes": job.notes_json() });
            if let Some(reason) = &fewer {
                more["groups_asked_for"] = json!(args.groups);
                more["fewer_because"] = json!(reason);
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
                let shares: Vec<String> = regions.iter().map(|r| percent(r.share)).collect();
                let reason = fewer.map(|reason| format!("; {} asked for: {reason}", args.groups));
                print_line(&format!(
                    "{}: {} ({}){}",
                    job.input.path.display(),
                    plural(regions.len(), "group"),
                    shares.join(", "),
                    reason.unwrap_or_default()
                ))?;
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

/// Why a photo has fewer groups than were asked for.
fn fewer(grouping: &Grouping, found: usize, asked: usize) -> Option<String> {
    let directions = grouping.explained.len();
    if found >= asked {
        None
    } else if directions < asked {
        let patches = grouping.similarity.height * grouping.similarity.width;
        Some(format!(
            "{} of the encoder have {}; a larger --size gives more",
            counted(patches, "patch", "patches"),
            plural(directions, "principal direction"),
        ))
    } else {
        Some(format!(
            "{} nearest to no pixel",
            counted(
                asked - found,
                "principal direction is",
                "principal directions are"
            ),
        ))
    }
}
