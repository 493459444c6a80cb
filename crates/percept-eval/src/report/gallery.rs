//! The pictures of a report: photo, truth and prediction side by side.

use std::collections::BTreeMap;
use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percept_image::{
    Filter, LabelMap, Rgb, RgbImage, colour, jpeg_rgb, png_rgb, resize, resize_labels,
};

use super::html::escape;
use super::words::{metric_label, percent};
use super::{GalleryItem, Rank, Report};

/// Widest picture, in pixels: three fit beside each other, and ten rows stay below a few megabytes.
const MAX_WIDTH: u32 = 320;

/// Highest picture, in pixels: a strip of a photo must not push everything else off the page.
const MAX_HEIGHT: u32 = 480;

/// Good enough to judge a segmentation by.
const JPEG_QUALITY: u8 = 82;

/// Most colours named below a row of pictures.
const MAX_LEGEND: usize = 14;

/// Parts of a picture smaller than this are not named: nobody could find them.
const MIN_SHARE: f64 = 0.0005;

/// Truth pixels that no metric counts.
const IGNORED: u16 = u16::MAX;

/// The label that means "none of the others", as in overlays: grey, not a colour.
const BACKGROUND_GREY: [u8; 3] = [188, 190, 194];

/// Pixels not counted: white with grey stripes, since they are no label.
const STRIPES: [[u8; 3]; 2] = [[250, 250, 248], [205, 207, 211]];

/// Width of a stripe, in pixels.
const STRIPE: u32 = 4;

/// All pictures under their ranks.
pub(super) fn gallery(report: &Report<'_>) -> String {
    let ranks = [
        (Rank::Best, "Best"),
        (Rank::Median, "Around the median"),
        (Rank::Worst, "Worst"),
    ];
    let mut html = String::new();
    for (rank, title) in ranks {
        let mut items = report.gallery.iter().filter(|i| i.rank == rank).peekable();
        if items.peek().is_none() {
            continue;
        }
        let _ = writeln!(html, "<h3>{title}</h3>");
        for item in items {
            html.push_str(&row(item, report));
        }
    }
    html
}

fn row(item: &GalleryItem, report: &Report<'_>) -> String {
    let mut html = String::from("<article class=\"shot\">\n<header>");
    let _ = write!(
        html,
        "<h4>{}</h4><p class=\"score\">{} <b>{}</b></p></header>\n<div class=\"trio\">\n",
        escape(&item.id),
        escape(&metric_label(&item.score_name)),
        percent(Some(item.score))
    );
    let (width, height) = thumbnail_size(item.photo.dimensions());
    let photo = resize(&item.photo, width, height, Filter::Bicubic);
    if let Ok(jpeg) = jpeg_rgb(&photo, JPEG_QUALITY) {
        let src = data_uri("image/jpeg", &jpeg);
        html.push_str(&figure(&src, "Photo", &item.id, (width, height)));
    }
    let mut areas = BTreeMap::new();
    for (map, caption) in [(&item.truth, "Truth"), (&item.prediction, "Prediction")] {
        let Some(map) = map else { continue };
        let map = resize_labels(map, width, height);
        for &label in map.data() {
            *areas.entry(label).or_insert(0_u64) += 1;
        }
        if let Ok(png) = png_rgb(&paint(&map, report.background)) {
            let src = data_uri("image/png", &png);
            html.push_str(&figure(&src, caption, &item.id, (width, height)));
        }
    }
    html.push_str("</div>\n");
    html.push_str(&legend(&areas, report));
    if !item.note.is_empty() {
        let _ = writeln!(html, "<p class=\"note\">{}</p>", escape(&item.note));
    }
    html.push_str("</article>\n");
    html
}

fn figure(src: &str, caption: &str, id: &str, (width, height): (u32, u32)) -> String {
    format!(
        "<figure><img src=\"{src}\" width=\"{width}\" height=\"{height}\" loading=\"lazy\" \
         alt=\"{caption} of {}\"><figcaption>{caption}</figcaption></figure>\n",
        escape(id)
    )
}

/// The size at which a picture is shown: its aspect, but for strips, within the limits.
fn thumbnail_size((width, height): (u32, u32)) -> (u32, u32) {
    let scale = (f64::from(MAX_WIDTH) / f64::from(width.max(1)))
        .min(f64::from(MAX_HEIGHT) / f64::from(height.max(1)))
        .min(1.0);
    [width, height]
        .map(|side| ((f64::from(side) * scale).round() as u32).max(1))
        .into()
}

fn paint(map: &LabelMap, background: Option<u16>) -> RgbImage {
    RgbImage::from_fn(map.width(), map.height(), |x, y| {
        Rgb(match map.get(x, y) {
            None | Some(IGNORED) if ((x + y) / STRIPE).is_multiple_of(2) => STRIPES[0],
            None | Some(IGNORED) => STRIPES[1],
            Some(label) => label_colour(label, background),
        })
    })
}

fn label_colour(label: u16, background: Option<u16>) -> [u8; 3] {
    if Some(label) == background {
        BACKGROUND_GREY
    } else {
        colour(label)
    }
}

/// The colours present, the largest areas first, and what they stand for.
fn legend(areas: &BTreeMap<u16, u64>, report: &Report<'_>) -> String {
    let total: u64 = areas.values().sum();
    let mut present: Vec<_> = areas
        .iter()
        .filter(|&(_, &area)| area as f64 >= MIN_SHARE * total as f64)
        .map(|(&label, &area)| (label, area))
        .collect();
    if present.is_empty() {
        return String::new();
    }
    present.sort_by_key(|&(label, area)| (std::cmp::Reverse(area), label));
    let mut html = String::from("<ul class=\"legend\">");
    for &(label, _) in present.iter().take(MAX_LEGEND) {
        let name = match report.class_names.get(usize::from(label)) {
            Some(name) => escape(name),
            None if label == IGNORED => "not counted".to_owned(),
            None => format!("label {label}"),
        };
        let swatch = match label {
            IGNORED => "<i class=\"stripes\"></i>".to_owned(),
            _ => {
                let [r, g, b] = label_colour(label, report.background);
                format!("<i style=\"background:#{r:02x}{g:02x}{b:02x}\"></i>")
            }
        };
        let _ = write!(html, "<li>{swatch}{name}</li>");
    }
    if present.len() > MAX_LEGEND {
        let _ = write!(html, "<li>and {} more</li>", present.len() - MAX_LEGEND);
    }
    html.push_str("</ul>\n");
    html
}

/// A file inside the page.
pub(super) fn data_uri(media_type: &str, bytes: &[u8]) -> String {
    format!("data:{media_type};base64,{}", STANDARD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_keep_their_aspect_within_the_limits() {
        assert_eq!(thumbnail_size((500, 375)), (320, 240));
        assert_eq!(thumbnail_size((100, 80)), (100, 80));
        assert_eq!(thumbnail_size((500, 10_000)), (24, 480));
        assert_eq!(thumbnail_size((20_000, 1)), (320, 1));
        assert_eq!(thumbnail_size((0, 0)), (1, 1));
    }

    #[test]
    fn ignored_pixels_are_striped_and_background_is_grey() {
        let map = LabelMap::from_fn(8, 1, |x, _| match x {
            0 => 0,
            1 => 1,
            _ => IGNORED,
        });
        let picture = paint(&map, Some(0));
        let pixel = |x| picture.get_pixel(x, 0).0;
        assert_eq!(pixel(0), BACKGROUND_GREY);
        assert_eq!(pixel(1), colour(1));
        assert_eq!((pixel(2), pixel(4)), (STRIPES[0], STRIPES[1]));
        assert_eq!(paint(&map, None).get_pixel(0, 0).0, colour(0));
    }

    #[test]
    fn a_file_becomes_an_address() {
        assert_eq!(data_uri("image/png", b"abc"), "data:image/png;base64,YWJj");
    }
}
