//! PNG files whose pixels are numbers rather than colours.
//!
//! A mask stores the index of a class in every pixel. Image decoders look palettes up and scale grey
//! to 8 bits, which loses the index: these functions read what is stored.

use std::io::{Cursor, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use percept_image::{LabelMap, Limits, RgbImage};
use png::{BitDepth, ColorType};

use crate::DataError;
use crate::files::open_regular;

/// Bytes the decoder may allocate besides pixels: the palette, and text nobody asked for.
const DECODER_SLACK: usize = 16 << 20;

/// Reads a palette PNG of 1 to 8 bits as its indices, or a grey one of 1 to 16 bits as its values.
///
/// The limits are [`Limits::default`].
///
/// # Errors
/// [`DataError::Io`] if the file cannot be read; [`DataError::Invalid`] if it is no PNG, is damaged,
/// too large, or holds colours.
pub fn read_index_png(path: &Path) -> Result<LabelMap, DataError> {
    let pixels = read(path, &|colour, depth| match colour {
        ColorType::Indexed | ColorType::Grayscale => Ok(()),
        _ => Err(format!(
            "expected a mask of indices (palette or grey PNG), found {}",
            in_words(colour, depth)
        )),
    })?;
    let data = match pixels.depth {
        BitDepth::Sixteen => (pixels.bytes.chunks_exact(2))
            .map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
            .collect(),
        BitDepth::Eight => pixels.bytes.iter().map(|&value| u16::from(value)).collect(),
        depth => unpack(&pixels, depth as u8),
    };
    LabelMap::new(pixels.width, pixels.height, data)
        .map_err(|error| invalid(path, error.to_string()))
}

/// Reads a PNG of 8-bit RGB, as panoptic segmentations are: `r + 256·g + 65536·b` is a segment's id.
///
/// # Errors
/// As [`read_index_png`], with anything but 8-bit RGB refused.
pub fn read_rgb_png(path: &Path) -> Result<RgbImage, DataError> {
    let pixels = read(path, &|colour, depth| match (colour, depth) {
        (ColorType::Rgb, BitDepth::Eight) => Ok(()),
        _ => Err(format!(
            "expected an 8-bit RGB PNG of segment ids, found {}",
            in_words(colour, depth)
        )),
    })?;
    RgbImage::from_raw(pixels.width, pixels.height, pixels.bytes)
        .ok_or_else(|| invalid(path, "the pixels do not fill the image".to_owned()))
}

/// What a PNG stores: samples as they are, rows padded to whole bytes.
struct Pixels {
    width: u32,
    height: u32,
    depth: BitDepth,
    bytes: Vec<u8>,
}

/// Reads a PNG if `accept` takes its colour type and depth.
fn read(
    path: &Path,
    accept: &dyn Fn(ColorType, BitDepth) -> Result<(), String>,
) -> Result<Pixels, DataError> {
    let limits = Limits::default();
    let io_error = |source| DataError::Io {
        path: path.to_owned(),
        source,
    };
    let mut encoded = Vec::new();
    // The length the system states may be wrong, so the read itself is bounded: one byte more than
    // allowed is enough to tell.
    (open_regular(path).map_err(io_error)?)
        .take(limits.max_file_bytes + 1)
        .read_to_end(&mut encoded)
        .map_err(io_error)?;
    if encoded.len() as u64 > limits.max_file_bytes {
        let reason = format!("larger than {} bytes", limits.max_file_bytes);
        return Err(invalid(path, reason));
    }
    catch_unwind(AssertUnwindSafe(|| decode(&encoded, &limits, accept)))
        .unwrap_or_else(|_| Err("the PNG decoder failed on it".to_owned()))
        .map_err(|reason| invalid(path, reason))
}

fn decode(
    encoded: &[u8],
    limits: &Limits,
    accept: &dyn Fn(ColorType, BitDepth) -> Result<(), String>,
) -> Result<Pixels, String> {
    let cannot = |error: png::DecodingError| format!("cannot decode as PNG: {error}");
    let bytes = DECODER_SLACK;
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(encoded), png::Limits { bytes });
    decoder.set_ignore_text_chunk(true);
    let header = decoder.read_header_info().map_err(cannot)?;
    let (width, height) = (header.width, header.height);
    let (colour, depth) = (header.color_type, header.bit_depth);
    // Before anything is allocated: a few bytes can claim any size.
    if width.max(height) > limits.max_side
        || u64::from(width) * u64::from(height) > limits.max_pixels
    {
        return Err(format!(
            "{width} x {height} pixels are over the limit ({} a side, {} in all)",
            limits.max_side, limits.max_pixels
        ));
    }
    accept(colour, depth)?;
    let mut reader = decoder.read_info().map_err(cannot)?;
    let size = (reader.output_buffer_size()).ok_or("the image does not fit the memory")?;
    let mut bytes = vec![0; size];
    let frame = reader.next_frame(&mut bytes).map_err(cannot)?;
    if (frame.width, frame.height) != (width, height) {
        return Err("an animation whose first frame does not fill the image".to_owned());
    }
    Ok(Pixels {
        width,
        height,
        depth,
        bytes,
    })
}

/// Samples of 1, 2 or 4 bits, the first in the highest bits of a byte.
fn unpack(pixels: &Pixels, bits: u8) -> Vec<u16> {
    let width = pixels.width as usize;
    let per_byte = usize::from(8 / bits);
    let mask = (1_u8 << bits) - 1;
    let mut data = Vec::with_capacity(width * pixels.height as usize);
    for row in pixels.bytes.chunks_exact(width.div_ceil(per_byte)) {
        let samples = row.iter().flat_map(|&byte| {
            (1..=per_byte).map(move |n| u16::from(byte >> (8 - bits * n as u8) & mask))
        });
        data.extend(samples.take(width));
    }
    data
}

fn in_words(colour: ColorType, depth: BitDepth) -> String {
    let colour = match colour {
        ColorType::Grayscale => "grey",
        ColorType::Rgb => "RGB",
        ColorType::Indexed => "palette",
        ColorType::GrayscaleAlpha => "grey with alpha",
        ColorType::Rgba => "RGB with alpha",
    };
    format!("{colour} of {} bits", depth as u8)
}

fn invalid(path: &Path, reason: String) -> DataError {
    DataError::Invalid {
        path: path.to_owned(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(width: u32, height: u32, colour: ColorType, depth: BitDepth, data: &[u8]) -> Vec<u8> {
        let mut encoded = Vec::new();
        let mut encoder = png::Encoder::new(&mut encoded, width, height);
        encoder.set_color(colour);
        encoder.set_depth(depth);
        if colour == ColorType::Indexed {
            encoder.set_palette(vec![200; 3 * 16]);
        }
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(data).unwrap();
        writer.finish().unwrap();
        encoded
    }

    fn with_file<T>(encoded: &[u8], read: impl Fn(&Path) -> T) -> T {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mask.png");
        std::fs::write(&path, encoded).unwrap();
        read(&path)
    }

    fn indices(encoded: &[u8]) -> Vec<u16> {
        with_file(encoded, read_index_png).unwrap().data().to_vec()
    }

    #[test]
    fn what_is_stored_is_read_at_every_depth() {
        use BitDepth::{Eight, Four, One, Sixteen, Two};
        for colour in [ColorType::Indexed, ColorType::Grayscale] {
            // Three pixels a row, so that rows of few bits end inside a byte.
            let one = encode(3, 2, colour, One, &[0b1011_1111, 0b0100_0000]);
            assert_eq!(indices(&one), [1, 0, 1, 0, 1, 0]);
            let two = encode(3, 1, colour, Two, &[0b1101_1000]);
            assert_eq!(indices(&two), [3, 1, 2]);
            let four = encode(3, 1, colour, Four, &[0x1f, 0x70]);
            assert_eq!(indices(&four), [1, 15, 7]);
            let eight = encode(3, 1, colour, Eight, &[0, 9, 255]);
            assert_eq!(indices(&eight), [0, 9, 255]);
        }
        let sixteen = encode(
            2,
            1,
            ColorType::Grayscale,
            Sixteen,
            &[0x01, 0x02, 0xff, 0xff],
        );
        assert_eq!(indices(&sixteen), [258, 65535]);
    }

    #[test]
    fn colours_are_refused_with_what_was_expected() {
        let rgb = encode(1, 1, ColorType::Rgb, BitDepth::Eight, &[1, 2, 3]);
        let error = with_file(&rgb, read_index_png).unwrap_err().to_string();
        assert!(error.ends_with(
            "mask.png: expected a mask of indices (palette or grey PNG), found RGB of 8 bits"
        ));
        assert_eq!(
            with_file(&rgb, read_rgb_png).unwrap().get_pixel(0, 0).0,
            [1, 2, 3]
        );
        let grey = encode(1, 1, ColorType::Grayscale, BitDepth::Eight, &[1]);
        let error = with_file(&grey, read_rgb_png).unwrap_err().to_string();
        assert!(error.ends_with("found grey of 8 bits"), "{error}");
    }

    #[test]
    fn no_beginning_of_a_file_passes_for_the_whole() {
        let whole = encode(40, 40, ColorType::Grayscale, BitDepth::Eight, &[7; 1600]);
        // The last twelve bytes are the chunk that only says that the file ends.
        for length in 0..whole.len() - 12 {
            assert!(
                with_file(&whole[..length], read_index_png).is_err(),
                "{length}"
            );
        }
    }

    #[test]
    fn a_size_is_refused_before_memory_is_taken() {
        let mut huge = encode(1, 1, ColorType::Grayscale, BitDepth::Sixteen, &[0, 0]);
        huge[16..20].copy_from_slice(&60_000_u32.to_be_bytes());
        huge[20..24].copy_from_slice(&60_000_u32.to_be_bytes());
        let sum = crc32(&huge[12..29]);
        huge[29..33].copy_from_slice(&sum.to_be_bytes());
        let error = with_file(&huge, read_index_png).unwrap_err().to_string();
        assert!(
            error.contains("60000 x 60000 pixels are over the limit"),
            "{error}"
        );
    }

    /// The checksum of PNG's chunks.
    fn crc32(bytes: &[u8]) -> u32 {
        let mut crc = u32::MAX;
        for &byte in bytes {
            crc ^= u32::from(byte);
            for _ in 0..8 {
                crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
            }
        }
        !crc
    }

    #[test]
    fn other_files_are_refused_by_name() {
        let error = with_file(b"GIF89a", read_index_png)
            .unwrap_err()
            .to_string();
        assert!(error.contains("mask.png: cannot decode as PNG"), "{error}");
        assert!(matches!(
            read_index_png(Path::new("/nowhere/mask.png")),
            Err(DataError::Io { .. })
        ));
    }
}
