//! Label maps and scores as pictures.

use std::borrow::Cow;

use image::{Rgb, RgbImage};

use crate::label_map::LabelMap;
use crate::legend;
use crate::palette::{Palette, heat_ramp};
use crate::resize::{Filter, resize, resize_labels};
use crate::save::{check_not_empty, encoding, png_as_result};

/// Share of a region's colour in an [`overlay`] that shows both well.
pub const OVERLAY_OPACITY: f32 = 0.5;

/// How bright the background of an overlay stays, of 256: dark enough for the labelled regions to
/// stand out, light enough to recognise what is there.
const BACKGROUND_BRIGHTNESS: u32 = 200;

/// Colour of the lines between regions. White is far from every label colour.
const OUTLINE: [u8; 3] = [255, 255, 255];

/// Opacity of the lines between regions, of 256.
const OUTLINE_OPACITY: u32 = 210;

/// Photo width or height, whichever is larger, per pixel of outline: lines stay hair-thin, but do
/// not vanish when a large overlay is scaled down to a screen.
const PIXELS_PER_OUTLINE: u32 = 900;

/// Photos with no side of this many pixels get no outlines: they would cover the regions.
const MIN_OUTLINED: u32 = 128;

/// Why a picture could not be encoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RenderError {
    /// Image files need at least one pixel.
    #[error("there are no pixels to encode ({width} x {height})")]
    Empty {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// The encoder's own words; for instance, a side is too long for the format.
    #[error("cannot encode: {0}")]
    Encode(String),
}

/// One line of an overlay's legend.
#[derive(Debug, Clone, PartialEq)]
pub struct LegendEntry {
    /// The label in the map; decides the colour.
    pub index: u16,
    /// What to call it.
    pub name: String,
    /// Its part of all pixels, 0 to 1.
    pub share: f32,
}

/// A label map as a lossless mask file.
///
/// Up to index 255: 8-bit palette PNG (Pillow's mode `P`) in the colours of an [`overlay`], where the
/// stored bytes are the labels. If any index is higher: 16-bit grey PNG, where the stored values are
/// the labels. Either way, reading the file without converting it gives the map back.
///
/// The file says that it is a result ([`is_result`](crate::is_result)).
///
/// # Errors
/// [`RenderError`] if the map has no pixels.
pub fn mask_png(map: &LabelMap) -> Result<Vec<u8>, RenderError> {
    mask_png_with(map, Palette::default())
}

/// As [`mask_png`], in the colours of a palette.
///
/// # Errors
/// [`RenderError`] if the map has no pixels.
pub fn mask_png_with(map: &LabelMap, palette: Palette) -> Result<Vec<u8>, RenderError> {
    check_not_empty(map.width(), map.height())?;
    let mut file = Vec::new();
    let mut encoder = png_as_result(&mut file, map.width(), map.height())?;
    let bytes: Vec<u8> = if map.data().iter().all(|&label| label <= 255) {
        encoder.set_color(png::ColorType::Indexed);
        encoder.set_depth(png::BitDepth::Eight);
        let colours: Vec<_> = (0..=255).map(|index| palette.colour(index)).collect();
        encoder.set_palette(colours.concat());
        map.data().iter().map(|&label| label as u8).collect()
    } else {
        encoder.set_color(png::ColorType::Grayscale);
        encoder.set_depth(png::BitDepth::Sixteen);
        map.data().iter().flat_map(|v| v.to_be_bytes()).collect()
    };
    let mut writer = encoder.write_header().map_err(encoding)?;
    writer.write_image_data(&bytes).map_err(encoding)?;
    writer.finish().map_err(encoding)?;
    Ok(file)
}

/// The photo with its labels painted over it, and a legend in a strip below.
///
/// - Each region is tinted with its [colour](Palette) at opacity `alpha` (0 to 1), and thin white lines
///   run between regions (not on thumbnails). Pixels of the `background` label show the photo, a
///   little darker.
/// - A map of another size is resized to the photo's (nearest).
/// - The legend has the entries by share, largest first: colour, name and percentage. Text scales
///   with the width; names that are too long end in "…", and entries that do not fit are summed up
///   as "+N more". It never covers the photo: the photo is the top left of the result, which is
///   higher by the strip and, for photos less than 160 px wide, wider so that text can be read.
///   Without entries there is no strip.
///
/// Names are set in DejaVu Sans, which has Latin, Greek, Cyrillic, Armenian, Georgian, Hebrew and
/// Arabic letters (unshaped), but no Chinese, Japanese or Korean.
pub fn overlay(
    img: &RgbImage,
    map: &LabelMap,
    legend: &[LegendEntry],
    alpha: f32,
    background: Option<u16>,
) -> RgbImage {
    let style = OverlayStyle {
        opacity: alpha,
        background,
        ..OverlayStyle::default()
    };
    overlay_with(img, map, legend, &style)
}

/// How an [`overlay`] looks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OverlayStyle {
    /// Share of a region's colour, 0 to 1.
    pub opacity: f32,
    /// The label whose pixels show the photo, if any.
    pub background: Option<u16>,
    /// Colours of the other labels.
    pub palette: Palette,
    /// Most pixels along the longer side of the photo in the overlay; larger ones are shrunk.
    pub max_side: Option<u32>,
}

impl Default for OverlayStyle {
    /// [`OVERLAY_OPACITY`], a background of index 0, percept's colours and the photo's own size.
    fn default() -> Self {
        Self {
            opacity: OVERLAY_OPACITY,
            background: Some(0),
            palette: Palette::default(),
            max_side: None,
        }
    }
}

/// As [`overlay`], in a style.
pub fn overlay_with(
    img: &RgbImage,
    map: &LabelMap,
    legend: &[LegendEntry],
    style: &OverlayStyle,
) -> RgbImage {
    let mut painted = within(img, style.max_side);
    let img = &painted;
    let map = if (map.width(), map.height()) == img.dimensions() {
        Cow::Borrowed(map)
    } else {
        Cow::Owned(resize_labels(map, img.width(), img.height()))
    };
    tint(&mut painted, &map, style);
    draw_outlines(&mut painted, &map);
    legend::attach(&painted, legend, style)
}

/// A copy of a photo whose sides have `most` pixels at most; the aspect is kept.
fn within(img: &RgbImage, most: Option<u32>) -> RgbImage {
    let (width, height) = img.dimensions();
    let longest = width.max(height);
    let Some(most) = most.filter(|&most| most > 0 && longest > most) else {
        return img.clone();
    };
    let scaled = |side: u32| {
        let scaled = f64::from(side) * f64::from(most) / f64::from(longest);
        (scaled.round() as u32).max(1)
    };
    resize(img, scaled(width), scaled(height), Filter::Bicubic)
}

fn tint(img: &mut RgbImage, map: &LabelMap, style: &OverlayStyle) {
    // A cast takes NaN to zero.
    let opacity = (style.opacity.clamp(0.0, 1.0) * 256.0) as u32;
    for (pixel, &label) in img.pixels_mut().zip(map.data()) {
        if Some(label) == style.background {
            mix(pixel, [0; 3], 256 - BACKGROUND_BRIGHTNESS);
        } else {
            mix(pixel, style.palette.colour(label), opacity);
        }
    }
}

/// Moves a pixel towards `colour`, by `weight` of 256.
pub(crate) fn mix(pixel: &mut Rgb<u8>, colour: [u8; 3], weight: u32) {
    for (value, target) in pixel.0.iter_mut().zip(colour) {
        let mixed = u32::from(*value) * (256 - weight) + u32::from(target) * weight;
        *value = ((mixed + 128) / 256) as u8;
    }
}

fn draw_outlines(img: &mut RgbImage, map: &LabelMap) {
    let (width, height) = img.dimensions();
    let longest = width.max(height);
    if longest < MIN_OUTLINED {
        return;
    }
    let thickness = (longest / PIXELS_PER_OUTLINE).max(1);
    // Marked first and painted after, because painting twice would make crossings brighter.
    let mut marked = vec![false; width as usize * height as usize];
    let at = |x: u32, y: u32| y as usize * width as usize + x as usize;
    // The pixels of a line across the border behind `i`, in a row or column of `n`.
    let across = |i: u32, n: u32| {
        let first = (i + 1).saturating_sub(thickness.div_ceil(2));
        first..(i + 1 + thickness / 2).min(n)
    };
    for y in 0..height {
        for x in 0..width {
            let label = map.get(x, y);
            if x + 1 < width && map.get(x + 1, y) != label {
                for x in across(x, width) {
                    marked[at(x, y)] = true;
                }
            }
            if y + 1 < height && map.get(x, y + 1) != label {
                for y in across(y, height) {
                    marked[at(x, y)] = true;
                }
            }
        }
    }
    for (pixel, marked) in img.pixels_mut().zip(marked) {
        if marked {
            mix(pixel, OUTLINE, OUTLINE_OPACITY);
        }
    }
}

/// Scores, `[height, width]` row by row, as colours: 0 and below dark blue, 1 and above pale yellow.
///
/// Made for the similarity of one label across a photo. NaN and scores missing at the end count as
/// 0.
pub fn heatmap(scores: &[f32], width: u32, height: u32) -> RgbImage {
    let ramp = heat_ramp();
    let mut img = RgbImage::new(width, height);
    let scores = scores.iter().copied().chain(std::iter::repeat(0.0));
    for (pixel, score) in img.pixels_mut().zip(scores) {
        // A cast to u8 saturates, and takes NaN to 0.
        *pixel = Rgb(ramp[usize::from((score * 255.0).round() as u8)]);
    }
    img
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::palette::{colour, voc_palette};

    fn entry(index: u16, name: &str, share: f32) -> LegendEntry {
        LegendEntry {
            index,
            name: name.to_owned(),
            share,
        }
    }

    #[test]
    fn masks_are_palette_png_with_the_labels_as_bytes() {
        let map = LabelMap::new(3, 2, vec![0, 1, 2, 20, 255, 0]).unwrap();
        let file = mask_png(&map).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(&file))
            .read_info()
            .unwrap();
        assert_eq!(reader.info().color_type, png::ColorType::Indexed);
        let palette = reader.info().palette.as_deref().unwrap();
        assert_eq!(palette.len(), 3 * 256);
        assert_eq!(palette[..3], [0, 0, 0]);
        assert_eq!(palette[3 * 20..3 * 21], colour(20));
        let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut bytes).unwrap();
        assert_eq!(bytes, [0, 1, 2, 20, 255, 0]);
    }

    #[test]
    fn masks_have_vocs_colours_where_they_are_asked_for() {
        let map = LabelMap::new(1, 1, vec![15]).unwrap();
        let file = mask_png_with(&map, Palette::Voc).unwrap();
        let reader = png::Decoder::new(std::io::Cursor::new(&file)).read_info();
        let palette = reader.unwrap().info().palette.clone().unwrap();
        assert_eq!(palette[..], voc_palette().concat());
    }

    #[test]
    fn masks_and_overlays_say_that_they_are_results() {
        let map = LabelMap::new(3, 1, vec![0, 1, 300]).unwrap();
        let photo = RgbImage::new(3, 1);
        assert!(crate::is_result(&mask_png(&map).unwrap()));
        assert!(crate::is_result(&crate::result_png(&photo).unwrap()));
        // Pixels as they were.
        let limits = crate::Limits::default();
        let png = crate::result_png(&photo).unwrap();
        assert_eq!(crate::decode(&png, &limits).unwrap(), photo);
        // A photo of anybody's is none.
        assert!(!crate::is_result(&crate::png_rgb(&photo).unwrap()));
    }

    #[test]
    fn large_photos_have_smaller_overlays_with_the_same_colours() {
        let img = RgbImage::from_pixel(1000, 100, Rgb([100, 100, 100]));
        let map = LabelMap::from_fn(1000, 100, |x, _| 2 * u16::from(x >= 500));
        let style = OverlayStyle {
            opacity: 1.0,
            palette: Palette::Voc,
            max_side: Some(200),
            ..OverlayStyle::default()
        };
        let small = overlay_with(&img, &map, &[], &style);
        assert_eq!(small.dimensions(), (200, 20));
        assert_eq!(small.get_pixel(150, 10).0, voc_palette()[2]);
        assert_eq!(small.get_pixel(50, 10).0, [78; 3]);
        let legend = [entry(2, "dog", 0.5)];
        let with = overlay_with(&img, &map, &legend, &style);
        assert!(
            with.enumerate_pixels()
                .any(|(_, y, p)| y >= 20 && p.0 == voc_palette()[2])
        );
        // One that is small enough keeps its size.
        let own = OverlayStyle {
            max_side: Some(1000),
            ..style
        };
        assert_eq!(
            overlay_with(&img, &map, &[], &own).dimensions(),
            (1000, 100)
        );
        let thin = overlay_with(&RgbImage::new(5000, 1), &map, &[], &style);
        assert_eq!(thin.dimensions(), (200, 1));
    }

    #[test]
    fn masks_with_high_labels_are_sixteen_bit() {
        let map = LabelMap::new(2, 1, vec![3, 256]).unwrap();
        let img = image::load_from_memory(&mask_png(&map).unwrap()).unwrap();
        assert_eq!(img.as_luma16().unwrap().as_raw(), &[3, 256]);
    }

    #[test]
    fn a_mask_without_pixels_is_an_error() {
        let map = LabelMap::new(0, 2, vec![]).unwrap();
        let error = mask_png(&map).unwrap_err().to_string();
        assert_eq!(error, "there are no pixels to encode (0 x 2)");
    }

    #[test]
    fn regions_are_tinted_and_the_background_is_not() {
        let img = RgbImage::from_pixel(400, 20, Rgb([100, 100, 100]));
        let map = LabelMap::from_fn(400, 20, |x, _| if x < 200 { 0 } else { 1 });
        let painted = overlay(&img, &map, &[], 1.0, Some(0));
        assert_eq!(painted.dimensions(), (400, 20));
        assert_eq!(painted.get_pixel(10, 10).0, [78; 3]);
        assert_eq!(painted.get_pixel(300, 10).0, colour(1));
        assert!(painted.get_pixel(199, 10).0[0] > 200);
        let untouched = overlay(&img, &map, &[], f32::NAN, None);
        assert_eq!(untouched.get_pixel(300, 10).0, [100; 3]);
    }

    #[test]
    fn the_legend_never_covers_the_photo() {
        let legend = [entry(0, "background", 0.5), entry(1, "dog", 0.5)];
        for (width, height) in [(1, 1), (32, 24), (500, 375), (2000, 30), (30, 900)] {
            let img = RgbImage::from_pixel(width, height, Rgb([10, 20, 30]));
            let map = LabelMap::from_fn(width, height, |x, y| u16::from(x + y > 40));
            let bare = overlay(&img, &map, &[], 0.5, None);
            let with = overlay(&img, &map, &legend, 0.5, None);
            assert!(with.height() > height && with.width() == width.max(160));
            for (x, y, pixel) in bare.enumerate_pixels() {
                assert_eq!(with.get_pixel(x, y), pixel);
            }
        }
    }

    #[test]
    fn a_thousand_labels_and_odd_names_fit() {
        let mut legend: Vec<_> = (0..1000)
            .map(|i| entry(i, &format!("label {i}"), 0.001))
            .collect();
        legend[0].name = "x".repeat(100_000);
        legend[1].name = "line\nbreak \u{7f} 漢字 🐕".to_owned();
        legend[2].name = String::new();
        legend[3].share = f32::NAN;
        let img = RgbImage::new(200, 150);
        let map = LabelMap::from_fn(20, 15, |x, y| (x * y) as u16);
        let painted = overlay(&img, &map, &legend, 0.6, Some(0));
        assert!(painted.height() < 2 * img.height(), "{}", painted.height());
    }

    #[test]
    fn scores_become_colours_and_nonsense_is_the_lowest() {
        let img = heatmap(&[0.0, 1.0, f32::NAN, -3.0, 7.0], 3, 2);
        let ramp = heat_ramp();
        let expected = [0, 255, 0, 0, 255, 0].map(|i| ramp[i]);
        assert_eq!(img.as_raw(), expected.as_flattened());
    }
}
