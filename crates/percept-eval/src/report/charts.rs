//! Bars for the classes and the confusion matrix.

use std::fmt::Write;

use percept_image::{Rgb, RgbImage, png_rgb};

use super::gallery::data_uri;
use super::html::escape;
use super::words::{percent, thousands};
use crate::result::{ClassResult, Confusion, Task};

/// Most classes whose confusion matrix is a table that can be read; above, it is a picture.
const MAX_MATRIX_TABLE: usize = 40;

/// How many confusions are listed beside a matrix that is a picture.
const WORST_CONFUSIONS: usize = 40;

/// Most classes in the picture of a matrix, one pixel or more each: beyond it would outgrow every
/// screen and, at 25,000 classes, memory.
const MAX_MATRIX_PICTURE: usize = 1000;

/// Most classes whose bars are all shown at once.
const MAX_OPEN_BARS: usize = 40;

/// Classes as bars, the best first, those without a value last.
pub(super) fn bars(classes: &[ClassResult], task: Task) -> String {
    let (unit, value): (_, fn(&ClassResult) -> Option<f64>) =
        match classes.iter().any(|c| c.iou.is_some()) {
            true => ("IoU", |class| class.iou),
            false => ("accuracy", |class| class.accuracy),
        };
    let things = match task {
        Task::SemanticSegmentation => "pixels",
        Task::Grouping => "objects",
        _ => "photos",
    };
    let of = |class: &ClassResult| value(class).filter(|v| v.is_finite());
    let mut sorted: Vec<_> = classes.iter().collect();
    // Stable, so that equal values keep the dataset's order.
    sorted.sort_by(|a, b| {
        let [a, b] = [a, b].map(|class| of(class).unwrap_or(f64::NEG_INFINITY));
        b.total_cmp(&a)
    });
    let (open, folded) = sorted.split_at(sorted.len().min(MAX_OPEN_BARS));
    let mut html = bar_table(open, unit, things, &of);
    if !folded.is_empty() {
        let _ = write!(
            html,
            "<details><summary>{} more classes</summary>{}</details>",
            folded.len(),
            bar_table(folded, unit, things, &of)
        );
    }
    html
}

fn bar_table(
    classes: &[&ClassResult],
    unit: &str,
    things: &str,
    value: &impl Fn(&ClassResult) -> Option<f64>,
) -> String {
    let mut html = format!(
        "<table class=\"bars\"><thead><tr><th scope=\"col\">Class</th>\
         <th scope=\"col\" class=\"wide\"><span class=\"sr\">Bar</span></th>\
         <th scope=\"col\" class=\"n\">{unit} %</th>\
         <th scope=\"col\" class=\"n extra\">{things} in the truth</th></tr></thead><tbody>\n"
    );
    for class in classes {
        let value = value(class);
        let width = 100.0 * value.unwrap_or(0.0).clamp(0.0, 1.0);
        let _ = writeln!(
            html,
            "<tr><th scope=\"row\">{}</th>\
             <td class=\"wide\"><span class=\"bar\"><i style=\"width:{width:.1}%\"></i></span></td>\
             <td class=\"n\">{}</td><td class=\"n extra\">{}</td></tr>",
            escape(&class.name),
            percent(value),
            thousands(class.count)
        );
    }
    html.push_str("</tbody></table>\n");
    html
}

/// The confusion matrix, every row as parts of its truth.
pub(super) fn confusion(confusion: &Confusion) -> String {
    if confusion.classes.len() <= MAX_MATRIX_TABLE {
        matrix_table(confusion)
    } else {
        matrix_picture(confusion) + &worst(confusion)
    }
}

/// The rows of a matrix as fractions. Rows and cells that are missing count as zero.
fn rows(confusion: &Confusion) -> impl Iterator<Item = (&str, u64, &[u64])> {
    confusion.classes.iter().enumerate().map(|(i, name)| {
        let counts = confusion.counts.get(i).map_or(&[][..], Vec::as_slice);
        let total = counts.iter().fold(0_u64, |sum, &n| sum.saturating_add(n));
        (name.as_str(), total, counts)
    })
}

fn part(count: u64, total: u64) -> f64 {
    count as f64 / total.max(1) as f64
}

fn matrix_table(confusion: &Confusion) -> String {
    let mut html = String::from(
        "<div class=\"scroll\" tabindex=\"0\" role=\"group\" aria-label=\"Confusion matrix\">\
         <table class=\"matrix\"><caption class=\"sr\">Each row: what the pixels or photos of one \
         class were taken for, in percent</caption><thead><tr><th scope=\"col\">truth ↓ \
         prediction →</th>",
    );
    for name in &confusion.classes {
        let _ = write!(html, "<th scope=\"col\"><span>{}</span></th>", escape(name));
    }
    html.push_str("</tr></thead><tbody>\n");
    for (i, (name, total, counts)) in rows(confusion).enumerate() {
        let _ = write!(html, "<tr><th scope=\"row\">{}</th>", escape(name));
        for j in 0..confusion.classes.len() {
            let part = part(counts.get(j).copied().unwrap_or(0), total);
            let kind = if i == j { "right" } else { "wrong" };
            let strong = if part >= 0.5 { " strong" } else { "" };
            // Cells below one percent stay empty: the eye should go to the others.
            if part < 0.005 {
                let _ = write!(html, "<td class=\"{kind}\"></td>");
            } else {
                let _ = write!(
                    html,
                    "<td class=\"{kind}{strong}\" style=\"--v:{:.0}%\">{:.0}</td>",
                    // Full colour for all, but a visible tint from the first percent on.
                    8.0 + 92.0 * part,
                    100.0 * part
                );
            }
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</tbody></table></div>\n");
    html
}

fn matrix_picture(confusion: &Confusion) -> String {
    let all = confusion.classes.len();
    let n = all.min(MAX_MATRIX_PICTURE);
    let mut picture = RgbImage::from_pixel(n as u32, n as u32, Rgb([255; 3]));
    for (i, (_, total, counts)) in rows(confusion).take(n).enumerate() {
        for (j, &count) in counts.iter().take(n).enumerate() {
            let full = if i == j { RIGHT } else { WRONG };
            // The root lets the many small confusions show beside the few large ones.
            let strength = part(count, total).sqrt();
            let mix = |c: u8| (255.0 - (255.0 - f64::from(c)) * strength).round() as u8;
            picture.put_pixel(j as u32, i as u32, Rgb(full.map(mix)));
        }
    }
    let Ok(png) = png_rgb(&picture) else {
        return String::new();
    };
    let cut = match all > n {
        true => format!(", the first {n} classes of {all}"),
        false => String::new(),
    };
    format!(
        "<figure><img class=\"matrix-picture\" alt=\"Confusion matrix of {n} by {n} classes; the \
         largest confusions are listed below\" src=\"{}\"><figcaption>Rows: truth, columns: \
         prediction, both in the dataset's order{cut}. The diagonal is what was \
         right.</figcaption></figure>\n",
        data_uri("image/png", &png)
    )
}

/// The colours of right and wrong cells, also in the style sheet.
const RIGHT: [u8; 3] = [15, 118, 110];
const WRONG: [u8; 3] = [194, 65, 12];

fn worst(confusion: &Confusion) -> String {
    let mut cells: Vec<(u64, f64, &str, &str)> = Vec::new();
    for (i, (truth, total, counts)) in rows(confusion).enumerate() {
        let wrong = counts.iter().zip(&confusion.classes).enumerate();
        cells.extend(
            wrong
                .filter(|&(j, (&count, _))| j != i && count > 0)
                .map(|(_, (&count, name))| (count, part(count, total), truth, name.as_str())),
        );
    }
    // Stable, so that equal counts keep the dataset's order.
    cells.sort_by_key(|&(count, ..)| std::cmp::Reverse(count));
    cells.truncate(WORST_CONFUSIONS);
    if cells.is_empty() {
        return String::new();
    }
    let mut html = String::from(
        "<h3>Largest confusions</h3><table><thead><tr><th scope=\"col\">Truth</th>\
         <th scope=\"col\">taken for</th><th scope=\"col\" class=\"n\">% of the truth</th>\
         <th scope=\"col\" class=\"n\">count</th></tr></thead><tbody>\n",
    );
    for (count, part, truth, prediction) in cells {
        let _ = writeln!(
            html,
            "<tr><th scope=\"row\">{}</th><td>{}</td><td class=\"n\">{}</td>\
             <td class=\"n\">{}</td></tr>",
            escape(truth),
            escape(prediction),
            percent(Some(part)),
            thousands(count)
        );
    }
    html.push_str("</tbody></table>\n");
    html
}
