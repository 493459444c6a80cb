//! What a TIFF says its samples are: those that would be shown wrongly are refused by name.

use std::borrow::Cow;

use image::RgbImage;

use super::ImageError;
use super::metadata::Ifd;

const BITS_PER_SAMPLE: u16 = 258;
const PHOTOMETRIC: u16 = 262;
const SAMPLES_PER_PIXEL: u16 = 277;
const COLOUR_MAP: u16 = 320;
const SAMPLE_FORMAT: u16 = 339;

/// Photometric interpretation: samples are brightness.
const GREY: u8 = 1;
/// Photometric interpretation: samples are places in a palette.
const PALETTE: u64 = 3;

/// Colours by index.
pub(super) struct Palette(Vec<[u8; 3]>);

impl Palette {
    /// Replaces grey levels, which were indices.
    pub(super) fn paint(&self, indices: &mut RgbImage) -> Result<(), ImageError> {
        for pixel in indices.pixels_mut() {
            let colour = self.0.get(usize::from(pixel.0[0])).ok_or_else(|| {
                ImageError::Decode("a pixel is of no colour of the palette".into())
            })?;
            pixel.0 = *colour;
        }
        Ok(())
    }
}

/// The file as the decoder takes it, and the palette to look its samples up in: it knows none, so that
/// the file is made to say that indices are grey levels.
///
/// # Errors
/// [`ImageError::Foreign`] for samples that are not read, some of which the decoder would scale by guess.
pub(super) fn readable(file: &[u8]) -> Result<(Cow<'_, [u8]>, Option<Palette>), ImageError> {
    let Some(ifd) = Ifd::first(file) else {
        return Ok((file.into(), None));
    };
    let first = |tag| ifd.find(tag).and_then(|value| value.numbers().next());
    let any = |tag, is_so: fn(u64) -> bool| {
        let value = ifd.find(tag);
        value.is_some_and(|value| value.numbers().any(is_so))
    };
    let photometric = first(PHOTOMETRIC);
    let has_palette = photometric == Some(PALETTE);
    let bits = first(BITS_PER_SAMPLE).unwrap_or(1);
    let samples = first(SAMPLES_PER_PIXEL).unwrap_or(1);
    let what = match photometric {
        _ if any(SAMPLE_FORMAT, |format| format == 3) => "a TIFF of floating-point numbers",
        _ if any(SAMPLE_FORMAT, |format| format == 2) => "a TIFF of numbers with a sign",
        _ if any(BITS_PER_SAMPLE, |bits| bits > 16) => "a TIFF of more than 16 bits a sample",
        Some(6) => "a TIFF with YCbCr colours",
        Some(8..=10) => "a TIFF with CIELab colours",
        Some(0 | 1) if samples == 2 => "a TIFF of grey with alpha",
        Some(PALETTE) if (bits, samples) != (8, 1) => {
            "a TIFF with a palette of other than 256 colours"
        }
        _ if !has_palette => return Ok((file.into(), None)),
        _ => {
            let palette = palette(&ifd).ok_or(ImageError::Truncated)?;
            return Ok((as_grey(file, &ifd).into(), Some(palette)));
        }
    };
    Err(ImageError::Foreign {
        what,
        remedy: "save it as PNG or JPEG first",
    })
}

fn palette(ifd: &Ifd<'_>) -> Option<Palette> {
    const COLOURS: usize = 256;
    let levels: Vec<u64> = ifd.find(COLOUR_MAP)?.numbers().take(3 * COLOURS).collect();
    if levels.len() < 3 * COLOURS {
        return None;
    }
    // Levels have 16 bits. Some programs write 8, which libtiff tells by there being no larger ones.
    let shift = if levels.iter().any(|&level| level > 255) {
        8
    } else {
        0
    };
    let level = |at: usize| (levels[at] >> shift).min(255) as u8;
    let colours = (0..COLOURS).map(|i| [i, COLOURS + i, 2 * COLOURS + i].map(level));
    Some(Palette(colours.collect()))
}

fn as_grey(file: &[u8], ifd: &Ifd<'_>) -> Vec<u8> {
    let mut grey = file.to_vec();
    let value = ifd
        .find(PHOTOMETRIC)
        .and_then(|value| grey.get_mut(value.range()));
    if let Some(bytes) = value {
        // The byte that is not zero, whatever the order of bytes.
        for byte in bytes.iter_mut().filter(|byte| **byte != 0) {
            *byte = GREY;
        }
    }
    grey
}
