//! `percept data`: datasets made out of others.

use percept_data::spurious::{Place, SpuriousSettings, build};

use super::eval::segmentation_set;
use crate::args::{Common, DataArgs, DataCommand, SpuriousArgs};
use crate::console::Console;
use crate::output::print_line;
use crate::{Outcome, Usage};

/// Runs the command.
///
/// # Errors
/// The sources cannot be used, or the set cannot be written.
pub fn run(args: &DataArgs, common: &Common, console: &Console) -> anyhow::Result<Outcome> {
    match &args.command {
        DataCommand::Spurious(args) => spurious(args, common, console),
    }
}

fn spurious(args: &SpuriousArgs, common: &Common, console: &Console) -> anyhow::Result<Outcome> {
    let two = |what: &str| Usage(format!("{what} are needed, no more and no less"));
    let objects: [String; 2] = args
        .objects
        .clone()
        .try_into()
        .map_err(|_| two("two objects, such as --objects cow,cat,"))?;
    let places: Vec<Place> = args
        .place
        .iter()
        .map(|text| {
            let (name, folder) = text
                .split_once('=')
                .ok_or_else(|| Usage(format!("--place {text}: expected NAME=DIR")))?;
            Ok(Place {
                name: name.trim().to_owned(),
                folder: folder.trim().into(),
            })
        })
        .collect::<Result<_, Usage>>()?;
    let places: [Place; 2] = places
        .try_into()
        .map_err(|_| two("two places, each with --place NAME=DIR,"))?;
    let set = segmentation_set(args.task, &args.data, args.split.as_deref(), None)?
        .ok_or_else(|| Usage("objects are cut out of segmentation sets, such as voc".into()))?;
    let settings = SpuriousSettings {
        per_group: args.per_group,
        seed: args.seed,
        ..SpuriousSettings::new(objects, places)
    };
    let bar = console.bar(settings.per_group as u64, "of each group");
    let report = build(set.as_ref(), &settings, &args.out, &mut |_| bar.advance(1));
    bar.finish();
    let report = report?;
    for unusable in &report.unusable {
        console.error(&format!("{}: {}", unusable.photo, unusable.reason));
    }
    for kind in report.left_out.kinds() {
        console.note(&kind.to_string());
    }
    if common.json {
        print_line(&serde_json::to_string(&report)?)?;
    } else {
        print_line(&format!(
            "{}: 4 groups of {} photos, from {} photos looked at ({} objects too small, {} cut off, \
             {} photos with both)",
            args.out.display(),
            report.per_group,
            report.looked_at,
            report.too_small,
            report.cut_off,
            report.both_classes
        ))?;
    }
    Ok(if report.unusable_in_all > 0 {
        Outcome::SomeFailed
    } else {
        Outcome::Done
    })
}
