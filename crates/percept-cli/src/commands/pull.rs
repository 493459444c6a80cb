//! `percept models` and `percept pull`

use std::cell::RefCell;

use percept_hub::{Hub, HubError, Part, Progress, PullOptions, Reference, known_models};
use serde_json::json;

use crate::args::{Common, ModelsArgs, PullArgs};
use crate::console::{Bar, Console};
use crate::output::print_line;
use crate::{Outcome, Usage};

pub fn list(_args: &ModelsArgs, common: &Common) -> anyhow::Result<Outcome> {
    let hub = Hub::from_env()?;
    let widest = known_models()
        .iter()
        .map(|m| m.name.len())
        .max()
        .unwrap_or(0);
    for model in known_models() {
        let cached = hub.cached(&Reference::Known(model));
        let part = match model.part {
            Part::Image => "image",
            Part::Text => "text",
            Part::Both => "image + text",
        };
        if common.json {
            let line = json!({
                "name": model.name,
                "part": part,
                "summary": model.summary,
                "licence": model.licence,
                "cached": cached.map(|path| path.display().to_string()),
            });
            print_line(&line.to_string())?;
        } else {
            let mark = if cached.is_some() { "*" } else { " " };
            print_line(&format!(
                "{mark} {:widest$}  {part:12}  {} ({})",
                model.name, model.summary, model.licence
            ))?;
        }
    }
    if !common.json {
        print_line("* downloaded; others: percept pull NAME")?;
    }
    Ok(Outcome::Done)
}

pub fn run(args: &PullArgs, common: &Common, console: &Console) -> anyhow::Result<Outcome> {
    let reference: Reference = args.reference.parse().map_err(|e: HubError| Usage::of(e))?;
    let bars = Bars {
        console,
        bar: RefCell::new(None),
    };
    let path = Hub::from_env()?.pull(
        &reference,
        &PullOptions {
            sha256: args.sha256.clone(),
            progress: &bars,
        },
    )?;
    if common.json {
        let line = json!({ "reference": args.reference, "path": path.display().to_string() });
        print_line(&line.to_string())?;
    } else {
        print_line(&path.display().to_string())?;
    }
    Ok(Outcome::Done)
}

/// A bar for each file.
struct Bars<'a> {
    console: &'a Console,
    bar: RefCell<Option<Bar>>,
}

impl Progress for Bars<'_> {
    fn start(&self, file: &str, total: Option<u64>) {
        self.finish();
        self.console.detail(&format!("downloading {file}"));
        *self.bar.borrow_mut() = Some(self.console.bytes_bar(file, total));
    }

    fn advance(&self, bytes: u64) {
        if let Some(bar) = self.bar.borrow().as_ref() {
            bar.advance(bytes);
        }
    }

    fn finish(&self) {
        if let Some(bar) = self.bar.borrow_mut().take() {
            bar.finish();
        }
    }
}
