//! Image files to 8-bit RGB pixels, for input nobody has vetted.
//!
//! The format is told from the content, never from the file name. Width and height are checked
//! before pixels are allocated, and a panic inside a third-party decoder becomes an
//! [`ImageError::Decode`].
//!
//! What comes out is what Pillow's `ImageOps.exif_transpose(image).convert("RGB")` gives, the
//! pixels that PyTorch pipelines see, with one departure:
//!
//! - JPEG goes through libjpeg-turbo's decoder, which Pillow uses too: the pixels are the same. Other
//!   decoders round differently, by up to 5 levels, which a vision transformer's output shows.
//! - EXIF orientation is applied.
//! - Grey is repeated to three channels; palettes are looked up; CMYK JPEG becomes RGB.
//! - **Alpha is dropped**, not composited: transparent pixels keep their stored colour.
//! - Of an animated GIF, WebP or PNG, the first frame is taken.
//! - **16-bit samples are scaled** (`round(v / 257)`). Pillow keeps the high byte of 16-bit colour
//!   (at most one level away), but *clips* 16-bit grey at 255, which turns most of such a photo
//!   white; that is not followed.

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageReader, RgbImage};
use mozjpeg::{ColorSpace, DctMethod, Decompress, Marker};

/// File endings to look for in folders, lower case and without the dot.
///
/// Only for finding files: [`open`] goes by content.
pub const EXTENSIONS: &[&str] = &["jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff"];

/// Bytes that a decoder may allocate per permitted pixel: four 16-bit channels.
const BYTES_PER_PIXEL: u64 = 8;

/// Bytes that a decoder may allocate besides pixels (metadata, tables), so that tight pixel limits
/// do not refuse small images.
const DECODER_SLACK: u64 = 16 << 20;

/// Most scans in a JPEG. Encoders write about ten; each costs a pass over all pixels, though ten bytes
/// can hold it, so that a small file could keep the decoder busy for hours.
const MAX_SCANS: u64 = 500;

/// What is refused before it can fill the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes in an encoded file. Default: 256 MiB.
    pub max_file_bytes: u64,
    /// Most pixels along either side. Default: 20 000.
    pub max_side: u32,
    /// Most pixels in all. Default: 120 million, above any current camera's single exposure and
    /// 360 MB as RGB.
    pub max_pixels: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_file_bytes: 256 << 20,
            max_side: 20_000,
            max_pixels: 120_000_000,
        }
    }
}

/// Why an image could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// Any of the other reasons, with the file it happened to. Made by [`open`].
    #[error("{}: {reason}", path.display())]
    File {
        /// The file as it was given to [`open`].
        path: PathBuf,
        /// What is wrong with it.
        reason: Box<ImageError>,
    },
    /// The operating system could not open or read the file.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// There are no bytes at all.
    #[error("the file is empty")]
    Empty,
    /// Over one of the [`Limits`].
    #[error("{what} is over the limit of {limit}")]
    TooLarge {
        /// What is too large, with its size where that is known: `the width of 30000 px`.
        what: String,
        /// The limit, in the unit of `what`.
        limit: u64,
    },
    /// The first bytes are of no image format that is known here.
    #[error("not an image (JPEG, PNG, WebP, GIF, BMP and TIFF are understood)")]
    UnknownFormat,
    /// The image stops before its last pixel, as after a broken download.
    #[error("the image is cut short")]
    Truncated,
    /// The format is known, but the content is damaged or of a kind that is not supported. Carries
    /// the decoder's own words.
    #[error("cannot decode: {0}")]
    Decode(String),
}

/// Reads and decodes the image file at `path`.
///
/// # Errors
/// [`ImageError::File`] with the path and the reason: the file cannot be read, or [`decode`]
/// refuses its content.
pub fn open(path: &Path, limits: &Limits) -> Result<RgbImage, ImageError> {
    read(path, limits)
        .and_then(|bytes| decode(&bytes, limits))
        .map_err(|reason| ImageError::File {
            path: path.to_owned(),
            reason: Box::new(reason),
        })
}

/// An image as its file stores it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The pixels, in the rows and columns of the file.
    pub pixels: RgbImage,
    /// Whether the file's metadata asks for them to be turned or mirrored.
    pub turned: bool,
}

/// As [`open`], but without applying the orientation that the metadata asks for: what
/// `Image.open(path).convert("RGB")` gives in Pillow. Annotations that were drawn on stored pixels fit
/// these.
///
/// # Errors
/// As [`open`].
pub fn open_stored(path: &Path, limits: &Limits) -> Result<Stored, ImageError> {
    read(path, limits)
        .and_then(|bytes| {
            if bytes.is_empty() {
                return Err(ImageError::Empty);
            }
            contain_panics(|| decode_pixels(&bytes, limits, None))
        })
        .map(|(pixels, orientation)| Stored {
            pixels,
            turned: orientation != Orientation::NoTransforms,
        })
        .map_err(|reason| ImageError::File {
            path: path.to_owned(),
            reason: Box::new(reason),
        })
}

/// Width and height of the image that a file stores, from its header alone and whatever orientation
/// its metadata asks for.
///
/// # Errors
/// [`ImageError::File`]: the file cannot be read, is no image, or is larger than the limits.
pub fn stored_size(path: &Path, limits: &Limits) -> Result<(u32, u32), ImageError> {
    let size = || {
        let reader = ImageReader::new(io::BufReader::new(File::open(path)?));
        let reader = reader.with_guessed_format()?;
        if reader.format().is_none() {
            return Err(ImageError::UnknownFormat);
        }
        let size = reader.into_dimensions().map_err(refused)?;
        check_dimensions(size, limits)?;
        Ok(size)
    };
    contain_panics(size).map_err(|reason| ImageError::File {
        path: path.to_owned(),
        reason: Box::new(reason),
    })
}

/// The whole file, unless it holds more than `limits.max_file_bytes`.
fn read(path: &Path, limits: &Limits) -> Result<Vec<u8>, ImageError> {
    let file = File::open(path)?;
    // The length the system states may be wrong (a pipe, a device, a file still growing), so the
    // read itself is bounded too: one byte more than allowed is enough to tell.
    check_file_bytes(file.metadata()?.len(), limits)?;
    let mut bytes = Vec::new();
    file.take(limits.max_file_bytes.saturating_add(1))
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Decodes an encoded image to RGB, as the [module](self) describes.
///
/// # Errors
/// Any [`ImageError`] but `File` and `Io`.
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<RgbImage, ImageError> {
    if bytes.is_empty() {
        return Err(ImageError::Empty);
    }
    check_file_bytes(bytes.len() as u64, limits)?;
    contain_panics(|| decode_pixels(bytes, limits, None)).map(turn_upright)
}

/// As [`decode`], but a JPEG may come out at 1/2, 1/4 or 1/8 of its size: the smallest of them whose
/// short side has at least `min_side` pixels. Other formats are not reduced.
///
/// Such a JPEG is decoded several times faster. Its pixels are means of the full ones but for
/// rounding, which after a resize is not what a model's own preprocessing makes: for training only.
///
/// # Errors
/// As [`decode`]. The limits hold for the size before it is reduced.
pub fn decode_reduced(
    bytes: &[u8],
    limits: &Limits,
    min_side: u32,
) -> Result<RgbImage, ImageError> {
    if bytes.is_empty() {
        return Err(ImageError::Empty);
    }
    check_file_bytes(bytes.len() as u64, limits)?;
    contain_panics(|| decode_pixels(bytes, limits, Some(min_side))).map(turn_upright)
}

/// The stored pixels, and what turns them upright. `min_side`: see [`decode_reduced`]; `None` keeps
/// the size.
fn decode_pixels(
    bytes: &[u8],
    limits: &Limits,
    min_side: Option<u32>,
) -> Result<(RgbImage, Orientation), ImageError> {
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?;
    match reader.format() {
        None => return Err(ImageError::UnknownFormat),
        Some(image::ImageFormat::Jpeg) => return decode_jpeg(bytes, limits, min_side),
        Some(_) => {}
    }

    // Memory is bounded from the first header byte on. The sides are not given yet: checking them
    // here lets the error name the size.
    let mut budget = image::Limits::no_limits();
    budget.max_alloc = Some(
        limits
            .max_pixels
            .saturating_mul(BYTES_PER_PIXEL)
            .saturating_add(DECODER_SLACK),
    );
    reader.limits(budget.clone());
    let mut decoder = reader.into_decoder().map_err(refused)?;

    check_dimensions(decoder.dimensions(), limits)?;
    budget.max_image_width = Some(limits.max_side);
    budget.max_image_height = Some(limits.max_side);
    budget.reserve(decoder.total_bytes()).map_err(refused)?;
    decoder.set_limits(budget).map_err(refused)?;

    // Unreadable metadata is no reason to refuse readable pixels.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let pixels = DynamicImage::from_decoder(decoder)
        .map_err(refused)?
        .into_rgb8();
    Ok((pixels, orientation))
}

fn turn_upright((pixels, orientation): (RgbImage, Orientation)) -> RgbImage {
    let mut upright = DynamicImage::ImageRgb8(pixels);
    upright.apply_orientation(orientation);
    upright.into_rgb8()
}

/// Decodes a JPEG with the settings of Pillow.
///
/// libjpeg's fatal errors come as panics that bypass the panic hook, for [`contain_panics`]. Its
/// warnings about damaged data are dropped and never printed.
fn decode_jpeg(
    bytes: &[u8],
    limits: &Limits,
    min_side: Option<u32>,
) -> Result<(RgbImage, Orientation), ImageError> {
    // The decoder fills what is missing with grey and reports success.
    if !jpeg_has_end(bytes) {
        return Err(ImageError::Truncated);
    }
    // libjpeg states the size too, but has a limit of its own at 65500 px, whose error names none.
    let outline = jpeg_outline(bytes);
    if let Some(size) = outline.size {
        check_dimensions(size, limits)?;
    }
    check(outline.scans, MAX_SCANS, |n| {
        format!("the count of {n} scans")
    })?;
    // Reads up to the first scan and allocates nothing in proportion to the stated size.
    let mut decoder = Decompress::builder()
        .with_markers(&[Marker::APP(1)])
        .from_mem(bytes)
        .map_err(jpeg_refused)?;
    // A JPEG's sides have 16 bits.
    let (mut width, mut height) = (decoder.width() as u32, decoder.height() as u32);
    check_dimensions((width, height), limits)?;
    let orientation = exif_orientation(&decoder);

    if let Some(min_side) = min_side {
        // Eighths. libjpeg has fast transforms for these, and rounds sides up.
        let reduced = |side: u32, eighths: u32| (side * eighths).div_ceil(8);
        let eighths = [1, 2, 4, 8]
            .into_iter()
            .find(|&eighths| reduced(width.min(height), eighths) >= min_side)
            .unwrap_or(8);
        decoder.scale(eighths as u8);
        (width, height) = (reduced(width, eighths), reduced(height, eighths));
    }

    decoder.dct_method(DctMethod::IntegerSlow);
    decoder.do_fancy_upsampling(true);
    let samples = match decoder.color_space() {
        ColorSpace::JCS_CMYK | ColorSpace::JCS_YCCK => {
            let mut rows = decoder
                .to_colorspace(ColorSpace::JCS_CMYK)
                .map_err(jpeg_refused)?;
            let inks = rows.read_scanlines::<[u8; 4]>().map_err(jpeg_refused)?;
            inks.into_iter().flat_map(cmyk_to_rgb).collect()
        }
        _ => {
            let mut rows = decoder.rgb().map_err(jpeg_refused)?;
            rows.read_scanlines::<u8>().map_err(jpeg_refused)?
        }
    };
    let pixels = RgbImage::from_raw(width, height, samples).ok_or(ImageError::Truncated)?;
    Ok((pixels, orientation))
}

/// What the EXIF block asks for. Unreadable metadata is no reason to refuse readable pixels.
fn exif_orientation<R>(jpeg: &Decompress<R>) -> Orientation {
    jpeg.markers()
        .filter(|segment| segment.marker == Marker::APP(1))
        .find_map(|segment| segment.data.strip_prefix(b"Exif\0\0"))
        .and_then(Orientation::from_exif_chunk)
        .unwrap_or(Orientation::NoTransforms)
}

/// Pillow's conversion, rounding included. JPEGs store ink inverted: 255 is none, as Adobe does.
fn cmyk_to_rgb([cyan, magenta, yellow, black]: [u8; 4]) -> [u8; 3] {
    [cyan, magenta, yellow].map(|ink| {
        let scaled = u32::from(255 - ink) * u32::from(black) + 128;
        // `scaled / 255`, rounded: at most `black`.
        black - (((scaled >> 8) + scaled) >> 8) as u8
    })
}

fn jpeg_refused(error: io::Error) -> ImageError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => ImageError::Truncated,
        _ => ImageError::Decode(error.to_string()),
    }
}

fn check_file_bytes(size: u64, limits: &Limits) -> Result<(), ImageError> {
    check(size, limits.max_file_bytes, |n| {
        format!("the file size of {n} bytes")
    })
}

fn check_dimensions((width, height): (u32, u32), limits: &Limits) -> Result<(), ImageError> {
    let max_side = u64::from(limits.max_side);
    let (width, height) = (u64::from(width), u64::from(height));
    if width == 0 || height == 0 {
        return Err(ImageError::Decode(format!(
            "the image is {width} x {height} px"
        )));
    }
    check(width, max_side, |n| format!("the width of {n} px"))?;
    check(height, max_side, |n| format!("the height of {n} px"))?;
    check(width * height, limits.max_pixels, |n| {
        format!("the area of {n} px ({width} x {height})")
    })
}

fn check(size: u64, limit: u64, what: impl Fn(u64) -> String) -> Result<(), ImageError> {
    if size <= limit {
        return Ok(());
    }
    Err(ImageError::TooLarge {
        what: what(size),
        limit,
    })
}

/// The reason a decoder gave, as one of ours.
fn refused(error: image::ImageError) -> ImageError {
    match error {
        image::ImageError::IoError(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
            ImageError::Truncated
        }
        other => ImageError::Decode(other.to_string()),
    }
}

/// Runs `work`, turning a panic into [`ImageError::Decode`].
///
/// Decoders for hostile input do have bugs, and one bad file must not end a run over a million. The
/// panic message still goes to stderr through the process's panic hook; libjpeg's errors, which are
/// panics only in form, do not.
fn contain_panics<T>(work: impl FnOnce() -> Result<T, ImageError>) -> Result<T, ImageError> {
    // Sound to assert: whatever `work` owned is dropped by the unwinding, and it only reads what it
    // borrows.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let message = panic
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        Err(ImageError::Decode(
            match message.strip_prefix("libjpeg fatal error: ") {
                Some(reason) => reason.to_owned(),
                None => format!("the decoder failed: {message}"),
            },
        ))
    })
}

/// Whether the compressed data of a JPEG is followed by the end-of-image marker.
///
/// Segments are walked up to the first scan, because an EXIF thumbnail before it is a JPEG with an
/// end marker of its own. Inside a scan, 0xFF is always followed by a zero or a restart marker, so
/// `FF D9` cannot be pixel data. Anything odd counts as complete: the decoder is the better judge.
fn jpeg_has_end(bytes: &[u8]) -> bool {
    const START_OF_SCAN: u8 = 0xDA;
    const END_OF_IMAGE: [u8; 2] = [0xFF, 0xD9];

    let mut at = 2; // past the start-of-image marker
    loop {
        let (Some(&0xFF), Some(&marker)) = (bytes.get(at), bytes.get(at + 1)) else {
            // Not a marker: damaged, or cut off between segments.
            return at < bytes.len();
        };
        match marker {
            0xFF => at += 1, // fill byte
            START_OF_SCAN => break,
            0x01 | 0xD0..=0xD9 => at += 2, // markers without a payload
            _ => {
                let (Some(&high), Some(&low)) = (bytes.get(at + 2), bytes.get(at + 3)) else {
                    return false;
                };
                at += 2 + usize::from(u16::from_be_bytes([high, low]));
            }
        }
    }
    // From the back, where it nearly always is.
    bytes[at..]
        .windows(2)
        .rev()
        .any(|pair| pair == END_OF_IMAGE)
}

/// What a JPEG's headers say before anything is decoded.
#[derive(Debug, PartialEq, Eq)]
struct JpegOutline {
    /// Width and height, if there is a frame header.
    size: Option<(u32, u32)>,
    scans: u64,
}

/// Walks all segments up to the end-of-image marker, skipping what libjpeg skips.
fn jpeg_outline(bytes: &[u8]) -> JpegOutline {
    let (mut size, mut scans) = (None, 0);
    let mut at = 2; // past the start-of-image marker
    while let Some(skipped) = bytes
        .get(at..)
        .and_then(|rest| rest.iter().position(|&byte| byte == 0xFF))
    {
        at += skipped;
        match bytes.get(at + 1).copied() {
            None | Some(0xD9) => break, // end of image
            Some(0xFF) => at += 1,      // fill byte
            // A pixel's 0xFF, restart markers and what libjpeg ignores or refuses.
            Some(..0xC0 | 0xD0..=0xD8) => at += 2,
            Some(marker) => {
                let segment = &bytes[at + 2..];
                let &[high, low, ..] = segment else { break };
                match (marker, segment) {
                    (0xDA, _) => scans += 1,
                    // Tables and an extension.
                    (0xC4 | 0xC8 | 0xCC, _) => {}
                    // A frame header: length (2 bytes), precision (1), height and width.
                    (0xC0..=0xCF, &[_, _, _, h1, h0, w1, w0, ..]) => {
                        let side = |high, low| u32::from(u16::from_be_bytes([high, low]));
                        size = size.or(Some((side(w1, w0), side(h1, h0))));
                    }
                    _ => {}
                }
                at += 2 + usize::from(u16::from_be_bytes([high, low]));
            }
        }
    }
    JpegOutline { size, scans }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panicking_decoder_is_an_error() {
        let result = contain_panics::<()>(|| panic!("index {} out of range", 7));
        let message = result.unwrap_err().to_string();
        assert_eq!(
            message,
            "cannot decode: the decoder failed: index 7 out of range"
        );
    }

    #[test]
    fn a_thumbnails_end_marker_is_not_the_images() {
        let thumbnail = [0xFF, 0xD9];
        let mut jpeg = vec![0xFF, 0xD8, 0xFF, 0xE1, 0x00, 0x04];
        jpeg.extend(thumbnail);
        jpeg.extend([0xFF, 0xDA, 0x00, 0x02, 0x12, 0x34]);
        assert!(!jpeg_has_end(&jpeg));
        jpeg.extend([0xFF, 0xD9]);
        assert!(jpeg_has_end(&jpeg));
        jpeg.extend(b"trailing bytes of a motion photo");
        assert!(jpeg_has_end(&jpeg));
    }

    #[test]
    fn scans_are_counted_up_to_the_end() {
        let comment_with_markers = [0xFF, 0xFE, 0x00, 0x06, 0xFF, 0xD9, 0xFF, 0xDA];
        let frame = [0xFF, 0xC2, 0x00, 0x07, 8, 0x01, 0x02, 0x03, 0x04];
        let scan = [0xFF, 0xDA, 0x00, 0x02, 0x12, 0xFF, 0x00, 0xFF, 0xD0, 0x34];
        let end = [0xFF, 0xD9];
        let jpeg = [
            [0xFF, 0xD8].as_slice(),
            &comment_with_markers,
            &frame,
            &scan,
            &comment_with_markers,
            &scan,
            &end,
            &scan,
        ]
        .concat();
        let expected = JpegOutline {
            size: Some((0x0304, 0x0102)),
            scans: 2,
        };
        assert_eq!(jpeg_outline(&jpeg), expected);
    }
}
