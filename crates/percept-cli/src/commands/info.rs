//! `percept info`

use percept::model::TextConfig;
use percept::{Hints, ModelFiles};
use serde_json::json;

use crate::args::{Common, InfoArgs};
use crate::console::Console;
use crate::output::print_line;
use crate::{Outcome, models};

pub fn run(args: &InfoArgs, common: &Common, console: &Console) -> anyhow::Result<Outcome> {
    let path = models::resolve(&args.path)?;
    let files = ModelFiles::open(&path, &Hints::default())?;
    let source = files
        .image
        .as_ref()
        .map(|tower| &tower.source)
        .or(files.text.as_ref().map(|tower| &tower.source));
    let Some(source) = source else {
        return Ok(Outcome::Done);
    };
    let checkpoint = source.main();
    let values: usize = source
        .names()
        .filter_map(|name| source.info(&name))
        .map(|info| info.shape.iter().product::<usize>())
        .sum();
    if common.json {
        let line = json!({
            "path": checkpoint.path().display().to_string(),
            "format": checkpoint.format().to_string(),
            "tensors": checkpoint.len(),
            "values": values,
            "config": files.config,
            "image_layout": files.image.as_ref().map(|t| t.layout.to_string()),
            "text_layout": files.text.as_ref().map(|t| t.layout.to_string()),
            "tokenizer": files.tokenizer.as_ref().map(|p| p.display().to_string()),
            "logit_scale": files.logit_scale.is_some(),
        });
        print_line(&line.to_string())?;
        return Ok(Outcome::Done);
    }
    print_line(&format!(
        "{}: {}, {} tensors, {:.1} million values",
        checkpoint.path().display(),
        checkpoint.format(),
        checkpoint.len(),
        values as f64 / 1e6
    ))?;
    if let (Some(image), Some(tower)) = (&files.config.image, &files.image) {
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
            match vit.interpolation {
                percept::model::PositionInterpolation::Dino => "DINO's position rule",
                percept::model::PositionInterpolation::Timm => "timm's position rule",
            },
            tower.layout,
        ))?;
    }
    if let (Some(text), Some(tower)) = (&files.config.text, &files.text) {
        let kind = match text {
            TextConfig::T5(c) => format!("T5, {} blocks of width {}", c.depth, c.dim),
            TextConfig::Bert(c) => format!("BERT, {} blocks of width {}", c.depth, c.dim),
        };
        print_line(&format!(
            "text:  {kind}, embeds in {} dimensions, up to {} tokens ({})",
            text.dim(),
            text.max_tokens(),
            tower.layout
        ))?;
        match &files.tokenizer {
            Some(path) => print_line(&format!("       tokeniser {}", path.display()))?,
            None => print_line(
                "       no tokeniser beside it: put tokenizer.json there, or `percept convert --tokenizer FILE`",
            )?,
        }
        print_line(&format!("       templates {:?}", files.config.templates))?;
    }
    for name in source.names() {
        if let Some(info) = source.info(&name) {
            console.detail(&format!("  {name} {} {:?}", info.dtype, info.shape));
        }
    }
    Ok(Outcome::Done)
}
