//! One result as a page that needs nothing but itself.

use std::fmt::Write;

use super::markdown::ordered_metrics;
use super::words::{
    flatten, headline, metric_label, metric_meaning, metric_value, number_of, percent,
    protocol_meaning, task_label, thousands,
};
use super::{Report, charts, gallery};
use crate::result::EvalResult;

const STYLE: &str = include_str!("style.css");

/// Nothing is fetched and nothing runs, whatever a name in the data may contain.
const POLICY: &str = "default-src 'none'; img-src data:; style-src 'unsafe-inline'";

/// Most failures shown; all of them are in the JSON file.
const MAX_FAILURES: usize = 100;

/// A report as one HTML page: headline numbers, how they were measured, failures, classes,
/// confusions, pictures. It works offline, holds its pictures and runs no scripts.
pub fn html(report: &Report<'_>) -> String {
    let result = report.result;
    let title = format!("{} on {}", escape(&result.model), escape(&result.dataset));
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n"
    );
    let _ = writeln!(
        html,
        "<header class=\"top\"><p class=\"kicker\">{}</p><h1>{title}</h1></header>",
        escape(task_label(result.task))
    );
    html.push_str(&tiles(result));
    html.push_str(&method(result));
    html.push_str(&failures(result));
    html.push_str(&left_out(result));
    if !result.per_class.is_empty() {
        let bars = charts::bars(&result.per_class, result.task);
        html.push_str(&section("Classes", &bars));
    }
    if let Some(confusion) = &result.confusion
        && !confusion.classes.is_empty()
    {
        let intro = "<p>Each row shows what one class of the truth was taken for, in percent of \
                     it; <span class=\"key right\">right</span> on the diagonal, \
                     <span class=\"key wrong\">wrong</span> elsewhere.</p>\n";
        let matrix = charts::confusion(confusion);
        html.push_str(&section("Confusions", &format!("{intro}{matrix}")));
    }
    if !report.gallery.is_empty() {
        html.push_str(&section("Photos", &gallery::gallery(report)));
    }
    html.push_str(&footer(result));
    html.push_str("</main>\n</body>\n</html>\n");
    html
}

fn section(title: &str, content: &str) -> String {
    format!("<section>\n<h2>{title}</h2>\n{content}</section>\n")
}

/// The numbers that stand for the task, large, and all others as a table.
fn tiles(result: &EvalResult) -> String {
    let metrics = ordered_metrics(result);
    if metrics.is_empty() {
        return "<p class=\"empty\">No metric could be computed.</p>\n".to_owned();
    }
    let first = headline(result.task);
    let (large, small): (Vec<_>, Vec<_>) = metrics.iter().partition(|(n, _)| first.contains(n));
    let mut html = String::new();
    if !large.is_empty() {
        html.push_str("<dl class=\"tiles\">\n");
        for (name, value) in large {
            let meaning = metric_meaning(name).unwrap_or_default();
            let _ = writeln!(
                html,
                "<div><dt>{}</dt><dd><b>{}</b><span>%</span></dd><dd class=\"what\">{}</dd></div>",
                escape(&metric_label(name)),
                percent(Some(value)),
                escape(meaning)
            );
        }
        html.push_str("</dl>\n");
    }
    if !small.is_empty() {
        html.push_str(
            "<table class=\"numbers\"><thead><tr><th scope=\"col\">Metric</th>\
             <th scope=\"col\" class=\"n\">Value</th></tr></thead><tbody>\n",
        );
        for (name, value) in small {
            let _ = writeln!(
                html,
                "<tr><th scope=\"row\">{}</th><td class=\"n\">{}</td></tr>",
                escape(&metric_label(name)),
                metric_value(name, value)
            );
        }
        html.push_str("</tbody></table>\n");
    }
    html
}

/// How the numbers were made, in a few sentences and as a table.
fn method(result: &EvalResult) -> String {
    let counts = &result.counts;
    let mut html = String::from("<p>");
    if !result.protocol.is_empty() {
        let _ = write!(html, "Protocol <b>{}</b>. ", escape(&result.protocol));
        if let Some(meaning) = protocol_meaning(&result.protocol) {
            let _ = write!(html, "{} ", escape(meaning));
        }
    }
    let split = match result.split.as_str() {
        "" => "the dataset".to_owned(),
        split => format!("the {} split", escape(split)),
    };
    let _ = write!(
        html,
        "The numbers are made of {} out of {} in {split}",
        number_of(counts.done, "sample"),
        thousands(counts.found.max(counts.samples))
    );
    if counts.samples < counts.found {
        let _ = write!(html, " (limited to {})", thousands(counts.samples));
    }
    html.push_str(".</p>\n");

    let rows = flatten(&result.settings);
    if !rows.is_empty() {
        html.push_str(
            "<details><summary>All settings</summary><table class=\"settings\"><thead><tr>\
             <th scope=\"col\">Setting</th><th scope=\"col\">Value</th></tr></thead><tbody>\n",
        );
        for (name, value) in rows {
            let _ = writeln!(
                html,
                "<tr><th scope=\"row\">{}</th><td>{}</td></tr>",
                escape(&name.replace('_', " ")),
                escape(&value)
            );
        }
        html.push_str("</tbody></table></details>\n");
    }
    section("How it was measured", &html)
}

fn failures(result: &EvalResult) -> String {
    let failed = result.counts.failed.max(result.failures.len() as u64);
    if failed == 0 {
        return String::new();
    }
    let mut html = format!(
        "<p class=\"alert\">{} could not be evaluated and {} in no number here.</p>\n",
        number_of(failed, "sample"),
        if failed == 1 { "is" } else { "are" }
    );
    if !result.failures.is_empty() {
        html.push_str(
            "<table><thead><tr><th scope=\"col\">Sample</th><th scope=\"col\">Reason</th></tr>\
             </thead><tbody>\n",
        );
        for failure in result.failures.iter().take(MAX_FAILURES) {
            let _ = writeln!(
                html,
                "<tr><th scope=\"row\">{}</th><td>{}</td></tr>",
                escape(&failure.sample),
                escape(&failure.reason)
            );
        }
        html.push_str("</tbody></table>\n");
    }
    if result.failures.len() > MAX_FAILURES {
        let _ = writeln!(
            html,
            "<p>and {} more, in the JSON file.</p>",
            result.failures.len() - MAX_FAILURES
        );
    }
    section("Failures", &html)
}

/// What was left out of the set, and the metrics that have no number.
fn left_out(result: &EvalResult) -> String {
    let mut html = String::new();
    for (name, reason) in &result.missing {
        let label = escape(&metric_label(name));
        let _ = writeln!(
            html,
            "<p class=\"alert\">No {label}: {}.</p>",
            escape(reason)
        );
    }
    if !result.left_out.is_empty() {
        html.push_str(
            "<table><thead><tr><th scope=\"col\">What</th><th scope=\"col\" class=\"n\">Count</th>\
             <th scope=\"col\">Such as</th></tr></thead><tbody>\n",
        );
        for kind in &result.left_out {
            let _ = writeln!(
                html,
                "<tr><th scope=\"row\">{}</th><td class=\"n\">{}</td><td>{}</td></tr>",
                escape(&kind.kind),
                thousands(kind.count),
                escape(&kind.examples.join(", "))
            );
        }
        html.push_str("</tbody></table>\n");
    }
    match html.is_empty() {
        true => html,
        false => section("Left out, or read otherwise than written", &html),
    }
}

fn footer(result: &EvalResult) -> String {
    let (versions, seconds) = (&result.versions, &result.seconds);
    let mut parts = Vec::new();
    if !result.pretrained.is_empty() {
        parts.push(format!("weights {}", escape(&result.pretrained)));
    }
    if !versions.percept.is_empty() {
        parts.push(format!("percept {}", escape(&versions.percept)));
    }
    if !versions.os.is_empty() {
        let mut machine = format!("{} {}", escape(&versions.os), escape(&versions.arch));
        for feature in &versions.cpu_features {
            let _ = write!(machine, " {}", escape(feature));
        }
        parts.push(machine);
    }
    if seconds.total.is_finite() && seconds.total > 0.0 {
        parts.push(format!(
            "{:.0} s, {:.0} s of it in the encoders",
            seconds.total, seconds.encode
        ));
    }
    format!("<footer><p>{}</p></footer>\n", parts.join(" · "))
}

/// Text as it may stand in an element or a quoted attribute. Control characters, which HTML does
/// not allow, become the replacement character.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' => escaped.push(' '),
            c if c.is_control() => escaped.push(char::REPLACEMENT_CHARACTER),
            c => escaped.push(c),
        }
    }
    escaped
}
