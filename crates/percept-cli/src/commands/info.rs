//! `percept info`

use percept::model::{TextConfig, Tokenizer};
use percept::{Hints, ModelConfig, ModelFiles};
use serde_json::json;

use crate::args::{Common, InfoArgs};
use crate::console::Console;
use crate::output::print_line;
use crate::{Outcome, models};

pub fn run(args: &InfoArgs, common: &Common, console: &Console) -> anyhow::Result<Outcome> {
    let path = models::resolve(&args.path)?;
    let hints = Hints {
        allow_unused: common.allow_unused,
        ..Hints::default()
    };
    // All that loading would refuse but weights that are not finite: names, shapes, settings, and the tokeniser.
    let files = ModelFiles::open(&path, &hints)?;
    let tokenizer = match (&files.config.text, &files.tokenizer) {
        (Some(text), Some(path)) => {
            Tokenizer::open(path, text.max_tokens(), text.vocab_size()).map(Some)
        }
        _ => Ok(None),
    };
    match common.json {
        true => print_line(&as_json(&files).to_string())?,
        false => print_text(&files)?,
    }
    for source in sources(&files) {
        for name in source.names() {
            if let Some(info) = source.info(name) {
                let stored = source.stored_name(name);
                console.detail(&format!("  {stored} {} {:?}", info.dtype, info.shape));
            }
        }
    }
    tokenizer?;
    Ok(Outcome::Done)
}

/// The checkpoint of the towers: both come from one path.
fn sources(files: &ModelFiles) -> impl Iterator<Item = &percept::model::Source> {
    let image = files.image.as_ref().map(|tower| &*tower.source);
    let text = files.text.as_ref().map(|tower| &*tower.source);
    image.or(text).into_iter()
}

/// How many numbers there are in all tensors.
fn count_values(files: &ModelFiles) -> usize {
    sources(files)
        .flat_map(|source| source.names().filter_map(|name| source.info(name)))
        .map(|info| info.shape.iter().product::<usize>())
        .sum()
}

fn as_json(files: &ModelFiles) -> serde_json::Value {
    let checkpoint = sources(files).map(percept::model::Source::main).next();
    let origins: serde_json::Map<_, _> = (files.origins.iter())
        .map(|origin| (origin.what.to_owned(), origin.from.clone().into()))
        .collect();
    json!({
        "path": checkpoint.map(|checkpoint| checkpoint.path().display().to_string()),
        "format": checkpoint.map(|checkpoint| checkpoint.format().to_string()),
        "tensors": checkpoint.map(|checkpoint| checkpoint.len()),
        "values": count_values(files),
        "config": files.config,
        "origins": origins,
        "image_layout": files.image.as_ref().map(|t| t.layout.to_string()),
        "text_layout": files.text.as_ref().map(|t| t.layout.to_string()),
        "tokenizer": files.tokenizer.as_ref().map(|p| p.display().to_string()),
        "logit_scale": files.logit_scale.is_some(),
        "unused": files.report.unused.iter().map(|unused| &unused.name).collect::<Vec<_>>(),
        "left_out": files.report.left_out,
    })
}

fn print_text(files: &ModelFiles) -> anyhow::Result<()> {
    for checkpoint in sources(files).map(percept::model::Source::main) {
        print_line(&format!(
            "{}: {}, {} tensors, {:.1} million values",
            checkpoint.path().display(),
            checkpoint.format(),
            checkpoint.len(),
            count_values(files) as f64 / 1e6
        ))?;
    }
    print_image(files)?;
    print_words(files)?;
    for origin in &files.origins {
        print_line(&format!("from:  {}: {}", origin.what, origin.from))?;
    }
    for unused in &files.report.unused {
        print_line(&format!("not understood, and left out: {unused}"))?;
    }
    for line in files.report.left_out_lines() {
        print_line(&format!("left out: {line}"))?;
    }
    Ok(())
}

fn print_image(files: &ModelFiles) -> anyhow::Result<()> {
    let (Some(image), Some(tower)) = (&files.config.image, &files.image) else {
        return Ok(());
    };
    let vit = &image.vit;
    print_line(&format!(
        "image: ViT, {} blocks of width {}, {} heads, patch {}, positions {}x{}{}{}",
        vit.depth,
        vit.dim,
        vit.heads,
        vit.patch_size,
        vit.grid[0],
        vit.grid[1],
        if vit.layer_scale { ", LayerScale" } else { "" },
        match vit.registers {
            0 => String::new(),
            n => format!(", {n} registers"),
        },
    ))?;
    print_line(&format!(
        "       pooling {}, {} px, mean {:?}, std {:?}, {} ({})",
        image.pooling.name(),
        image.image_size,
        image.normalization.mean,
        image.normalization.std,
        vit.interpolation.description(),
        tower.layout,
    ))?;
    Ok(())
}

fn print_words(files: &ModelFiles) -> anyhow::Result<()> {
    let (Some(text), Some(tower)) = (&files.config.text, &files.text) else {
        return Ok(());
    };
    print_line(&format!(
        "text:  {}, embeds in {} dimensions, up to {} tokens ({})",
        described(text),
        text.dim(),
        text.max_tokens(),
        tower.layout
    ))?;
    let head = text.head();
    let layers = head.dense.iter().map(|layer| {
        let bias = if layer.bias { "" } else { " without bias" };
        format!(", dense {}{bias} {}", layer.width, layer.activation.name())
    });
    print_line(&format!(
        "       pooling {}{}",
        head.pooling.name(),
        layers.collect::<String>()
    ))?;
    match &files.tokenizer {
        Some(path) => print_line(&format!("       tokeniser {}", path.display()))?,
        None => print_line(
            "       no tokeniser beside it: put tokenizer.json there, or `percept convert --tokenizer FILE`",
        )?,
    }
    let ModelConfig { templates, .. } = &files.config;
    print_line(&format!("       templates {templates:?}"))?;
    Ok(())
}

fn described(text: &TextConfig) -> String {
    match text {
        TextConfig::T5(c) => format!("T5, {} blocks of width {}", c.depth, c.dim),
        TextConfig::Bert(c) if c.first_position > 0 => {
            format!("RoBERTa, {} blocks of width {}", c.depth, c.dim)
        }
        TextConfig::Bert(c) => format!("BERT, {} blocks of width {}", c.depth, c.dim),
    }
}
