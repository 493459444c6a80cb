//! One result as Markdown.

use std::fmt::Write;

use super::words::{
    flatten, headline, metric_label, metric_value, number_of, percent, task_label, thousands,
};
use crate::result::EvalResult;

/// Widest column that others are lined up with, in characters: one long value must not push all of
/// its column off the screen.
const MAX_WIDTH: usize = 60;

/// A result as a short Markdown text: headline numbers, classes in the dataset's order, settings.
/// Equal results give equal text. Values are percentages.
pub fn markdown(result: &EvalResult) -> String {
    let mut text = brief(result);
    let settings = flatten(&result.settings);
    if !settings.is_empty() {
        let mut lines = vec![row(&["setting", "value"])];
        let escaped = settings
            .iter()
            .map(|(name, value)| vec![escape_markdown(name), escape_markdown(value)]);
        lines.extend(escaped);
        let _ = write!(text, "\n## Settings\n\n{}", table(&lines));
    }
    if !result.failures.is_empty() {
        let mut lines = vec![row(&["failed sample", "reason"])];
        let escaped = result.failures.iter().map(|failure| {
            vec![
                escape_markdown(&failure.sample),
                escape_markdown(&failure.reason),
            ]
        });
        lines.extend(escaped);
        let _ = write!(text, "\n## Failures\n\n{}", table(&lines));
    }
    text
}

/// The part of [`markdown`] that fits a terminal: no settings and no failures.
pub fn brief(result: &EvalResult) -> String {
    let mut text = format!(
        "# {} on {}\n\n",
        escape_markdown(&result.model),
        escape_markdown(&result.dataset)
    );
    text.push_str(&table(&summary(result)));

    let mut metrics = vec![row(&["metric", "value"])];
    metrics.extend(ordered_metrics(result).into_iter().map(|(name, value)| {
        vec![
            escape_markdown(&metric_label(name)),
            metric_value(name, value),
        ]
    }));
    if metrics.len() > 1 {
        text.push('\n');
        text.push_str(&table(&metrics));
    }
    for (name, reason) in &result.missing {
        let (label, reason) = (metric_label(name), escape_markdown(reason));
        let _ = write!(text, "\nNo {}: {reason}.\n", escape_markdown(&label));
    }
    if !result.left_out.is_empty() {
        text.push_str("\n## Left out, or read otherwise than written\n\n");
        for kind in &result.left_out {
            let _ = writeln!(text, "- {}", escape_markdown(&kind.to_string()));
        }
    }
    if !result.per_class.is_empty() {
        let _ = write!(text, "\n## Classes\n\n{}", table(&classes(result)));
    }
    text
}

/// One row a class, with IoU only where the task has it.
fn classes(result: &EvalResult) -> Vec<Vec<String>> {
    let has_iou = result.per_class.iter().any(|class| class.iou.is_some());
    let mut rows = vec![match has_iou {
        true => row(&["class", "IoU %", "accuracy %", "in the truth"]),
        false => row(&["class", "accuracy %", "in the truth"]),
    }];
    rows.extend(result.per_class.iter().map(|class| {
        let mut cells = vec![escape_markdown(&class.name)];
        if has_iou {
            cells.push(percent(class.iou));
        }
        cells.extend([percent(class.accuracy), thousands(class.count)]);
        cells
    }));
    rows
}

/// The metrics that are numbers: those that stand for the task first, then the others by name.
pub(super) fn ordered_metrics(result: &EvalResult) -> Vec<(&str, f64)> {
    let first = headline(result.task);
    let mut metrics: Vec<_> = result
        .metrics
        .iter()
        .filter(|(_, value)| value.is_finite())
        .map(|(name, &value)| (name.as_str(), value))
        .collect();
    // Stable: the others stay in the order of their names.
    metrics.sort_by_key(|(name, _)| first.iter().position(|f| f == name).unwrap_or(usize::MAX));
    metrics
}

fn summary(result: &EvalResult) -> Vec<Vec<String>> {
    let counts = &result.counts;
    let mut rows = vec![
        row(&["", ""]),
        row(&["task", task_label(result.task)]),
        row(&["split", &escape_markdown(&result.split)]),
        row(&["protocol", &escape_markdown(&result.protocol)]),
        row(&["weights", &escape_markdown(&result.pretrained)]),
        row(&[
            "samples",
            &format!("{} of {}", thousands(counts.done), thousands(counts.found)),
        ]),
    ];
    if counts.failed > 0 {
        rows.push(row(&["failed", &number_of(counts.failed, "sample")]));
    }
    rows
}

fn row(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|&cell| cell.to_owned()).collect()
}

/// A Markdown table whose columns line up, so that it also reads well in a terminal. The first row
/// is the head; all columns but the first are aligned right if every cell below the head is a
/// number.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let Some(head) = rows.first() else {
        return String::new();
    };
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells
            .map(|c| c.chars().count())
            .max()
            .unwrap_or(0)
            .clamp(3, MAX_WIDTH)
    };
    let is_number = |column: usize| {
        let mut cells = rows.iter().skip(1).filter_map(|row| row.get(column));
        column > 0 && cells.all(|c| c.starts_with(|c: char| c.is_ascii_digit() || "-–".contains(c)))
    };
    let columns: Vec<_> = (0..head.len()).map(|c| (width(c), is_number(c))).collect();

    let mut text = String::new();
    for (i, row) in rows.iter().enumerate() {
        for (cell, &(width, right)) in row.iter().zip(&columns) {
            let _ = match right {
                true => write!(text, "| {cell:>width$} "),
                false => write!(text, "| {cell:<width$} "),
            };
        }
        text.push_str("|\n");
        if i == 0 {
            for &(width, right) in &columns {
                let end = if right { ":" } else { "-" };
                let _ = write!(text, "|{}{end}", "-".repeat(width + 1));
            }
            text.push_str("|\n");
        }
    }
    text
}

/// Text from a file as text in a Markdown table: no markup, links, pictures, HTML or line breaks.
pub(crate) fn escape_markdown(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | '|' | '`' | '*' | '[' | ']' => {
                escaped.push('\\');
                escaped.push(c);
            }
            '<' => escaped.push_str("&lt;"),
            '&' => escaped.push_str("&amp;"),
            // Also keeps escape sequences away from terminals.
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_numbers_go_right() {
        let rows = [
            row(&["class", "IoU %"]),
            row(&["cat", "60.51"]),
            row(&["sheep", "–"]),
        ];
        assert_eq!(
            table(&rows),
            "| class | IoU % |\n|-------|------:|\n| cat   | 60.51 |\n| sheep |     – |\n"
        );
        assert_eq!(table(&[]), "");
    }

    #[test]
    fn no_markup_comes_through() {
        assert_eq!(
            escape_markdown("a|b\n![x](http://y) <script>\u{1b}[2J"),
            "a\\|b !\\[x\\](http://y) &lt;script> \\[2J"
        );
        assert_eq!(escape_markdown("miou_present"), "miou_present");
    }
}
