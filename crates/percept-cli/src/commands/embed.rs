//! `percept embed`

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::path::{Path, PathBuf};

use percept::image::npy_f32;
use percept::{Embedder, Model};
use percept_checkpoint::{Checkpoint, Precision, TensorToWrite, write_safetensors};
use serde_json::{Value, json};

use crate::args::{Common, EmbedArgs};
use crate::console::Console;
use crate::output::{print_line, write_file, write_json};
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
    if !args.force {
        refuse_loss(&args.out, kind)?;
    }
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
    let mut texts = args.text.clone();
    for (index, text) in texts.iter_mut().enumerate() {
        if let Some(rest) = text.strip_prefix('\u{FEFF}') {
            *text = rest.to_owned();
            console.note(&format!(
                "text {} begins with a byte order mark, which was dropped",
                index + 1
            ));
        }
    }
    let encoded = model.encode_texts(&texts)?;
    for index in encoded.truncated {
        console.note(&format!("text {} was too long and was cut", index + 1));
    }
    let rows = encoded.embeddings;
    write(&args.out, kind, vec![stack(&rows)], &texts)?;
    report(&args.out, kind, rows.len(), common, console)?;
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
    if ended.is_stopped {
        let (done, all) = (names.len(), found.photos.len());
        let is_kept = args.out.exists();
        let kept = match is_kept {
            true => format!("; {} is as it was", args.out.display()),
            false => String::new(),
        };
        console.progress(&format!("stopped: {done} of {all} photos{kept}"));
        if is_kept {
            return summary.tell(&ended, common.json, console);
        }
    }
    if names.is_empty() {
        return summary.tell(&ended, common.json, console);
    }
    let tensors = if args.tokens {
        grids
    } else {
        vec![stack(&rows)]
    };
    write(&args.out, kind, tensors, &names)?;
    report(&args.out, kind, names.len(), common, console)?;
    summary.tell(&ended, common.json, console)
}

/// Rows of one width as one array, `embeddings` `[count, dim]`.
fn stack(rows: &[Vec<f32>]) -> Named {
    let width = rows.first().map_or(0, Vec::len);
    ("embeddings".into(), vec![rows.len(), width], rows.concat())
}

/// # Errors
/// [`Usage`] where a file would be lost that holds no embeddings.
fn refuse_loss(path: &Path, kind: Kind) -> Result<(), Usage> {
    let shown = path.display();
    let about = path.metadata().ok();
    if about.as_ref().is_some_and(Metadata::is_dir) {
        return Err(Usage(format!("--out {shown}: is a folder")));
    }
    let is_ours = match kind {
        Kind::Npy => inputs::start_of(path).is_ok_and(|start| start.starts_with(b"\x93NUMPY")),
        // The weights of a model are such a file too, and have no names.
        Kind::Safetensors => {
            Checkpoint::open(path).is_ok_and(|file| file.metadata().contains_key("names"))
        }
    };
    let is_full = about.is_some_and(|about| about.is_file() && about.len() > 0);
    if is_full && !is_ours {
        return Err(Usage(format!(
            "{shown} holds no embeddings, and would be lost; name another file with --out, or add --force"
        )));
    }
    let names = names_of(path);
    let has_names = |bytes: Vec<u8>| {
        let value: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        value["percept"].is_string() && value["names"].is_array()
    };
    if kind == Kind::Npy && names.exists() && !std::fs::read(&names).is_ok_and(has_names) {
        return Err(Usage(format!(
            "{} is to have the names of the rows, and holds something else, which would be lost; name another \
             file with --out, or add --force",
            names.display()
        )));
    }
    Ok(())
}

/// Where the names of the rows of an .npy file are: `FILE.json`.
fn names_of(path: &Path) -> PathBuf {
    let mut name = path.to_owned().into_os_string();
    name.push(".json");
    name.into()
}

/// Writes arrays; the names of the rows go into the metadata, as a JSON list, or into a file beside it.
fn write(path: &Path, kind: Kind, tensors: Vec<Named>, names: &[String]) -> anyhow::Result<()> {
    match kind {
        Kind::Npy => {
            if let Some((_, shape, values)) = tensors.first() {
                write_file(path, &npy_f32(shape, values))?;
                let names = json!({ "percept": env!("CARGO_PKG_VERSION"), "names": names });
                write_json(&names_of(path), &names)?;
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

fn report(
    path: &Path,
    kind: Kind,
    count: usize,
    common: &Common,
    console: &Console,
) -> anyhow::Result<()> {
    let names = (kind == Kind::Npy).then(|| names_of(path).display().to_string());
    if common.json {
        let mut line = json!({ "file": path.display().to_string(), "count": count });
        if let Some(names) = names {
            line["names"] = json!(names);
        }
        print_line(&line.to_string())?;
    } else {
        let names = names.map_or_else(String::new, |names| {
            format!(", the names of its rows to {names}")
        });
        console.note(&format!("{count} written to {}{names}", path.display()));
    }
    Ok(())
}
