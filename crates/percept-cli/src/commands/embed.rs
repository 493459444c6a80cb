//! `percept embed`

use std::collections::BTreeMap;
use std::path::Path;

use percept::image::npy_f32;
use percept::{Embedder, Model};
use percept_checkpoint::{Precision, TensorToWrite, write_safetensors};
use serde_json::json;

use crate::args::{Common, EmbedArgs};
use crate::console::Console;
use crate::output::{print_line, write_file};
use crate::pipeline::Summary;
use crate::{Outcome, Usage, inputs, models, pipeline};

/// Which file to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Safetensors,
    Npy,
}

/// A named array.
type Named = (String, Vec<usize>, Vec<f32>);

pub fn run(args: &EmbedArgs, common: &Common, console: &Console) -> anyhow::Result<Outcome> {
    let kind = match args.out.extension().and_then(|e| e.to_str()) {
        Some("safetensors") => Kind::Safetensors,
        Some("npy") => Kind::Npy,
        _ => {
            return Err(Usage(format!(
                "--out {}: must end in .safetensors or .npy",
                args.out.display()
            ))
            .into());
        }
    };
    if args.text.is_empty() {
        embed_photos(args, kind, common, console)
    } else {
        let model = models::load(common, console)?;
        embed_texts(args, kind, &model, common, console)
    }
}

fn embed_texts(
    args: &EmbedArgs,
    kind: Kind,
    model: &Model,
    common: &Common,
    console: &Console,
) -> anyhow::Result<Outcome> {
    let encoded = model.encode_texts(&args.text)?;
    for index in encoded.truncated {
        console.note(&format!("text {} was too long and was cut", index + 1));
    }
    let rows = encoded.embeddings;
    write(&args.out, kind, vec![stack(&rows)], &args.text)?;
    report(&args.out, rows.len(), common, console)?;
    Ok(Outcome::Done)
}

fn embed_photos(
    args: &EmbedArgs,
    kind: Kind,
    common: &Common,
    console: &Console,
) -> anyhow::Result<Outcome> {
    let found = inputs::expand(&args.inputs, console)?;
    if args.tokens && kind == Kind::Npy && found.photos.len() > 1 {
        return Err(Usage(
            "an .npy file holds the tokens of one photo; use .safetensors for several".into(),
        )
        .into());
    }
    let model = models::load(common, console)?;
    let embedder = Embedder::new(&model, args.pool, args.size)?;
    let mut names: Vec<String> = Vec::new();
    let mut rows: Vec<Vec<f32>> = Vec::new();
    let mut grids: Vec<Named> = Vec::new();
    let ended = pipeline::run(
        &found.photos.iter().collect::<Vec<_>>(),
        common.together(&model),
        console,
        |photo| embedder.prepare(photo),
        |images| embedder.encode(images),
        |job| {
            let name = job.input.path.display().to_string();
            if args.tokens {
                let grid = job.grid;
                let shape = vec![grid.rows, grid.columns, grid.dim];
                grids.push((format!("tokens.{name}"), shape, grid.patches));
                grids.push((format!("cls.{name}"), vec![grid.dim], grid.cls));
            } else {
                rows.push(embedder.pool(&job.grid));
            }
            names.push(name);
            Ok(())
        },
    )?;
    let summary = Summary {
        found: &found,
        resumed: 0,
        folder: None,
    };
    if names.is_empty() {
        return summary.tell(&ended, common.json, console);
    }
    let tensors = if args.tokens {
        grids
    } else {
        vec![stack(&rows)]
    };
    write(&args.out, kind, tensors, &names)?;
    report(&args.out, names.len(), common, console)?;
    summary.tell(&ended, common.json, console)
}

/// Rows of one width as one array, `embeddings` `[count, dim]`.
fn stack(rows: &[Vec<f32>]) -> Named {
    let width = rows.first().map_or(0, Vec::len);
    ("embeddings".into(), vec![rows.len(), width], rows.concat())
}

/// Writes arrays; the names of the rows go into the metadata, as a JSON list.
fn write(path: &Path, kind: Kind, tensors: Vec<Named>, names: &[String]) -> anyhow::Result<()> {
    match kind {
        Kind::Npy => {
            if let Some((_, shape, values)) = tensors.first() {
                write_file(path, &npy_f32(shape, values))?;
            }
        }
        Kind::Safetensors => {
            let metadata = BTreeMap::from([("names".to_owned(), json!(names).to_string())]);
            let tensors = tensors
                .into_iter()
                .map(|(name, shape, values)| TensorToWrite {
                    name,
                    shape,
                    values: values.into(),
                    precision: Precision::F32,
                });
            write_safetensors(path, tensors, &metadata)?;
        }
    }
    Ok(())
}

fn report(path: &Path, count: usize, common: &Common, console: &Console) -> anyhow::Result<()> {
    if common.json {
        let line = json!({ "file": path.display().to_string(), "count": count });
        print_line(&line.to_string())?;
    } else {
        console.note(&format!("{count} written to {}", path.display()));
    }
    Ok(())
}
