//! Image files to 8-bit RGB pixels, for input nobody has vetted.
//!
//! The format is told from the content, never from the file name. Width and height are checked
//! before pixels are allocated, and a panic inside a third-party decoder becomes an
//! [`ImageError::Decode`].
//!
//! What comes out is what Pillow's `ImageOps.exif_transpose(image).convert("RGB")` gives, the
//! pixels that PyTorch pipelines see, with two departures on purpose:
//!
//! - JPEG goes through libjpeg-turbo's decoder, which Pillow uses too: the pixels are the same. Other
//!   decoders round differently, by up to 5 levels, which a vision transformer's output shows.
//! - The orientation is applied: EXIF's, also where it stands behind a PNG's pixels or in
//!   ImageMagick's raw profile, and XMP's where EXIF has none.
//! - Grey is repeated to three channels; palettes are looked up; CMYK JPEG becomes RGB.
//! - Of an animated GIF, WebP or PNG, the first frame is taken.
//! - A photo that is cut short is refused. One whose pixels are all there and whose end is not is
//!   read, with a [`Note`].
//! - What a TIFF says its samples are is used or refused by name: no colours are guessed.
//! - **Transparent pixels lie on white**, in part where they are so in part. Pillow drops alpha, so
//!   that what an editor left under it comes to light.
//! - **16-bit samples are scaled** (`round(v / 257)`). Pillow keeps the high byte of 16-bit colour
//!   (at most one level away), but *clips* 16-bit grey at 255, which turns most of such a photo
//!   white; that is not followed.

mod ends;
mod foreign;
mod jpeg;
mod metadata;
mod png;
mod tiff;

use std::fmt;
use std::fs::{File, FileType};
use std::io::{self, BufReader, Cursor, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, RgbImage};

use serde::{Deserialize, Serialize};

use metadata::{Ifd, Metadata};

/// File endings to look for in folders, lower case and without the dot.
///
/// Only for finding files: [`open`] goes by content.
pub const EXTENSIONS: &[&str] = &["jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff"];

/// Bytes that a decoder may allocate per permitted pixel: four 16-bit channels.
const BYTES_PER_PIXEL: u64 = 8;

/// Bytes that a decoder may allocate besides pixels (metadata, tables), so that tight pixel limits
/// do not refuse small images.
const DECODER_SLACK: u64 = 16 << 20;

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
    #[error(transparent)]
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
    /// A kind of file that is known and not read.
    #[error("not an image that percept reads: this is {what}; {remedy}")]
    Foreign {
        /// What the file is: `an SVG drawing`.
        what: &'static str,
        /// What to do about it.
        remedy: &'static str,
    },
    /// The path leads to something that is no file: reading it might never end.
    #[error("{what}, not a file")]
    NotAFile {
        /// What it is: `a folder`, `a named pipe`.
        what: &'static str,
    },
    /// The image stops before its last pixel, as after a broken download.
    #[error("the image is cut short")]
    Truncated,
    /// The format is known, but the content is damaged or of a kind that is not supported. Carries
    /// the decoder's own words.
    #[error("cannot decode: {0}")]
    Decode(String),
}

/// What is odd about a file that could be read all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Note {
    /// The pixels are there; the end of the file is not, or something else is in its place.
    NoEnd,
    /// A checksum of pixels is wrong, though the pixels' own is right.
    BadChecksum,
    /// Not one pixel can be seen.
    AllTransparent,
}

impl Note {
    /// What is said of such photos where they are counted, behind their number.
    pub fn kind(self) -> &'static str {
        match self {
            Note::NoEnd => "read in spite of a missing end mark",
            Note::BadChecksum => "read in spite of a wrong checksum",
            Note::AllTransparent => "read in spite of having no pixel that can be seen",
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Note::NoEnd => "the file has no end mark; it may have been cut or damaged",
            Note::BadChecksum => "a checksum is wrong; the file was changed or damaged",
            Note::AllTransparent => "every pixel is transparent, so that the image is white",
        })
    }
}

/// An image, and what is odd about its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// The pixels, upright.
    pub image: RgbImage,
    /// What there is to say about the file: nearly always nothing.
    pub notes: Vec<Note>,
}

/// An image as its file stores it, as annotations of some datasets count pixels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The pixels, not turned.
    pub pixels: RgbImage,
    /// Whether the file asks for a turn or a mirror image, which [`open`] makes.
    pub turned: bool,
    /// What there is to say about the file: nearly always nothing.
    pub notes: Vec<Note>,
    orientation: Orientation,
}

impl Stored {
    /// The pixels as [`open`] gives them.
    pub fn upright(self) -> RgbImage {
        turn(self.pixels, self.orientation)
    }
}

fn turn(pixels: RgbImage, orientation: Orientation) -> RgbImage {
    let mut upright = DynamicImage::ImageRgb8(pixels);
    upright.apply_orientation(orientation);
    upright.into_rgb8()
}

/// Reads and decodes the image file at `path`.
///
/// # Errors
/// [`ImageError::File`] with the path and the reason: the file cannot be read, or [`decode`]
/// refuses its content.
pub fn open(path: &Path, limits: &Limits) -> Result<RgbImage, ImageError> {
    Ok(open_noted(path, limits)?.image)
}

/// As [`open`], with what is odd about the file.
///
/// # Errors
/// As [`open`].
pub fn open_noted(path: &Path, limits: &Limits) -> Result<Decoded, ImageError> {
    in_file(path, || decode_noted(&read(path, limits)?, limits))
}

/// As [`open`], but the orientation that the file asks for is not applied.
///
/// # Errors
/// As [`open`].
pub fn open_stored(path: &Path, limits: &Limits) -> Result<Stored, ImageError> {
    in_file(path, || {
        let unturned = checked(&read(path, limits)?, limits, None)?;
        Ok(Stored {
            turned: unturned.orientation != Orientation::NoTransforms,
            orientation: unturned.orientation,
            pixels: unturned.pixels,
            notes: unturned.notes,
        })
    })
}

/// Width and height in pixels as the header states them. No pixel is read, and the orientation that the
/// file asks for is not applied.
///
/// # Errors
/// [`ImageError::File`] with the path and the reason: the file cannot be read or is no image.
pub fn stored_size(path: &Path) -> Result<(u32, u32), ImageError> {
    in_file(path, || {
        let reader = ImageReader::new(BufReader::new(open_file(path)?)).with_guessed_format()?;
        if reader.format().is_none_or(|format| !is_read(format)) {
            return Err(ImageError::UnknownFormat);
        }
        contain_panics(|| reader.into_dimensions().map_err(refused))
    })
}

/// Gives errors the file that they happened to.
fn in_file<T>(path: &Path, work: impl FnOnce() -> Result<T, ImageError>) -> Result<T, ImageError> {
    work().map_err(|reason| ImageError::File {
        path: path.to_owned(),
        reason: Box::new(reason),
    })
}

/// The whole file, unless it holds more than `limits.max_file_bytes`.
fn read(path: &Path, limits: &Limits) -> Result<Vec<u8>, ImageError> {
    let file = open_file(path)?;
    // The length the system states may be wrong (a file still growing), so the read itself is bounded
    // too: one byte more than allowed is enough to tell.
    check_file_bytes(file.metadata()?.len(), limits)?;
    let mut bytes = Vec::new();
    file.take(limits.max_file_bytes.saturating_add(1))
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A regular file. Others are not even opened: a pipe nobody writes to would never open, and to open a
/// device may do something.
fn open_file(path: &Path) -> Result<File, ImageError> {
    let kind = std::fs::metadata(path)?.file_type();
    if !kind.is_file() {
        let what = what_it_is(kind);
        return Err(ImageError::NotAFile { what });
    }
    Ok(File::open(path)?)
}

fn what_it_is(kind: FileType) -> &'static str {
    if kind.is_dir() {
        return "a folder";
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if kind.is_fifo() {
            return "a named pipe";
        }
        if kind.is_socket() {
            return "a socket";
        }
        if kind.is_char_device() || kind.is_block_device() {
            return "a device";
        }
    }
    "something else"
}

/// Decodes an encoded image to RGB, as the [module](self) describes.
///
/// # Errors
/// Any [`ImageError`] but `File`, `Io` and `NotAFile`.
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<RgbImage, ImageError> {
    Ok(decode_noted(bytes, limits)?.image)
}

/// As [`decode()`], with what is odd about the file.
///
/// # Errors
/// As [`decode()`].
pub fn decode_noted(bytes: &[u8], limits: &Limits) -> Result<Decoded, ImageError> {
    checked(bytes, limits, None).map(Unturned::upright)
}

/// As [`decode_noted`], but a JPEG may come out at 1/2, 1/4 or 1/8 of its size: the smallest of them whose
/// short side has at least `min_side` pixels. Other formats are not reduced.
///
/// Such a JPEG is decoded several times faster. Its pixels are means of the full ones but for
/// rounding, which after a resize is not what a model's own preprocessing makes: for training only.
///
/// # Errors
/// As [`decode()`]. The limits hold for the size before it is reduced.
pub fn decode_reduced(bytes: &[u8], limits: &Limits, min_side: u32) -> Result<Decoded, ImageError> {
    checked(bytes, limits, Some(min_side)).map(Unturned::upright)
}

/// Pixels as they are stored.
struct Unturned {
    pixels: RgbImage,
    orientation: Orientation,
    notes: Vec<Note>,
}

impl Unturned {
    fn upright(self) -> Decoded {
        Decoded {
            image: turn(self.pixels, self.orientation),
            notes: self.notes,
        }
    }
}

/// `min_side`: see [`decode_reduced`]; `None` keeps the size.
fn checked(bytes: &[u8], limits: &Limits, min_side: Option<u32>) -> Result<Unturned, ImageError> {
    if bytes.is_empty() {
        return Err(ImageError::Empty);
    }
    check_file_bytes(bytes.len() as u64, limits)?;
    if let Some(foreign::Foreign { what, remedy }) = foreign::name(bytes) {
        return Err(ImageError::Foreign { what, remedy });
    }
    match image::guess_format(bytes) {
        Ok(ImageFormat::Jpeg) => {
            let (pixels, notes) = jpeg::decode(bytes, limits, min_side)?;
            Ok(Unturned {
                pixels,
                orientation: jpeg::metadata(bytes).orientation(),
                notes,
            })
        }
        Ok(ImageFormat::Png) => decode_png(bytes, limits),
        Ok(ImageFormat::Tiff) => decode_tiff(bytes, limits),
        Ok(ImageFormat::Gif) => decode_gif(bytes, limits),
        Ok(ImageFormat::Bmp) => decode_bmp(bytes, limits),
        Ok(format) if is_read(format) => decode_other(bytes, format, limits),
        _ => Err(ImageError::UnknownFormat),
    }
}

fn is_read(format: ImageFormat) -> bool {
    use ImageFormat::{Bmp, Gif, Jpeg, Png, Tiff, WebP};
    matches!(format, Jpeg | Png | WebP | Gif | Bmp | Tiff)
}

/// Reads over the faults that Pillow reads over, once the file as it is was refused.
fn decode_png(bytes: &[u8], limits: &Limits) -> Result<Unturned, ImageError> {
    let orientation = png::metadata(bytes).orientation();
    let decode = |bytes: &[u8]| decode_other(bytes, ImageFormat::Png, limits);
    let decoded = decode(bytes).map(|whole| {
        let is_cut = !png::has_end(bytes);
        (whole, is_cut.then_some(Note::NoEnd).into_iter().collect())
    });
    let (whole, more) = decoded.or_else(|error| match error {
        ImageError::TooLarge { .. } => Err(error),
        _ => {
            let (mended, notes) = png::mended(bytes, limits).ok_or(error)?;
            // The first error is about the file as it is.
            decode(&mended)
                .map(|whole| (whole, notes))
                .map_err(|_| ImageError::Truncated)
        }
    })?;
    if !png::has_right_pixels(bytes, limits) {
        let reason = "the checksum of the pixels is wrong";
        return Err(ImageError::Decode(reason.into()));
    }
    Ok(Unturned {
        orientation,
        notes: [more, whole.notes].concat(),
        ..whole
    })
}

fn decode_tiff(bytes: &[u8], limits: &Limits) -> Result<Unturned, ImageError> {
    let (readable, palette) = tiff::readable(bytes)?;
    let mut decoded = decode_other(&readable, ImageFormat::Tiff, limits)?;
    if let Some(palette) = palette {
        palette.paint(&mut decoded.pixels)?;
    }
    Ok(decoded)
}

fn decode_gif(bytes: &[u8], limits: &Limits) -> Result<Unturned, ImageError> {
    let mut decoded = decode_other(bytes, ImageFormat::Gif, limits)?;
    if !ends::has_gif_end(bytes) {
        decoded.notes.insert(0, Note::NoEnd);
    }
    Ok(decoded)
}

/// Reads over bytes that would only fill up the last row, as Pillow does.
fn decode_bmp(bytes: &[u8], limits: &Limits) -> Result<Unturned, ImageError> {
    let decode = |bytes: &[u8]| decode_other(bytes, ImageFormat::Bmp, limits);
    let Some(filled) = ends::filled_bmp(bytes) else {
        return decode(bytes);
    };
    let mut decoded = decode(&filled)?;
    decoded.notes.insert(0, Note::NoEnd);
    Ok(decoded)
}

/// Bytes that a decoder may make.
fn budget(limits: &Limits) -> u64 {
    let pixels = limits.max_pixels.saturating_mul(BYTES_PER_PIXEL);
    pixels.saturating_add(DECODER_SLACK)
}

/// Every format but JPEG, as far as the decoder goes.
fn decode_other(
    bytes: &[u8],
    format: ImageFormat,
    limits: &Limits,
) -> Result<Unturned, ImageError> {
    contain_panics(|| decode_unguarded(bytes, format, limits))
}

fn decode_unguarded(
    bytes: &[u8],
    format: ImageFormat,
    limits: &Limits,
) -> Result<Unturned, ImageError> {
    // Memory is bounded from the first header byte on. The sides are not given yet: checking them
    // here lets the error name the size.
    let mut allowed = image::Limits::no_limits();
    allowed.max_alloc = Some(budget(limits));
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(allowed.clone());
    let mut decoder = reader.into_decoder().map_err(refused)?;

    check_dimensions(decoder.dimensions(), limits)?;
    allowed.max_image_width = Some(limits.max_side);
    allowed.max_image_height = Some(limits.max_side);
    allowed.reserve(decoder.total_bytes()).map_err(refused)?;
    decoder.set_limits(allowed).map_err(refused)?;

    let (orientation, alpha) = match format {
        ImageFormat::WebP => {
            let metadata = Metadata {
                exif: decoder.exif_metadata().ok().flatten().map(Into::into),
                xmp: decoder.xmp_metadata().ok().flatten().map(Into::into),
                ..Metadata::default()
            };
            (metadata.orientation(), Alpha::Straight)
        }
        ImageFormat::Tiff => {
            const XMP: u16 = 700;
            let packet = Ifd::first(bytes).and_then(|ifd| ifd.find(XMP));
            let metadata = Metadata {
                // A TIFF file is what an EXIF block is.
                exif: Some(bytes.into()),
                xmp: packet.map(|packet| packet.bytes.into()),
                ..Metadata::default()
            };
            (metadata.orientation(), tiff_alpha(bytes))
        }
        _ => (Orientation::NoTransforms, Alpha::Straight),
    };
    let pixels = DynamicImage::from_decoder(decoder).map_err(refused)?;
    let (pixels, notes) = on_white(pixels, alpha);
    Ok(Unturned {
        pixels,
        orientation,
        notes,
    })
}

/// What the fourth channel of an image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Alpha {
    /// Opacity.
    Straight,
    /// Opacity, by which colours are multiplied already.
    Premultiplied,
    /// Something else, which is dropped.
    None,
}

/// What a TIFF file says about its fourth channel.
fn tiff_alpha(bytes: &[u8]) -> Alpha {
    const EXTRA_SAMPLES: u16 = 338;
    let extra = Ifd::first(bytes).and_then(|ifd| ifd.find(EXTRA_SAMPLES)?.numbers().next());
    match extra {
        Some(1) => Alpha::Premultiplied,
        // Files that do not say mean opacity, and so does Corel Draw by 999: as Pillow has it.
        None | Some(2 | 999) => Alpha::Straight,
        Some(_) => Alpha::None,
    }
}

/// The image as it is seen on white.
fn on_white(image: DynamicImage, alpha: Alpha) -> (RgbImage, Vec<Note>) {
    if alpha == Alpha::None || !image.color().has_alpha() {
        return (image.into_rgb8(), Vec::new());
    }
    let is_deep = image.color().bytes_per_pixel() > 4 || image.color() == image::ColorType::La16;
    let mut is_seen = false;
    let mut blend = |colour: u64, opacity: u64, white: u64| {
        is_seen |= opacity > 0;
        let light = match alpha {
            Alpha::Premultiplied => colour * white,
            _ => colour * opacity,
        };
        // To the nearest; premultiplied colours above their opacity are white at most.
        ((light + white * (white - opacity) + white / 2) / white).min(white)
    };
    let pixels = if is_deep {
        let white = u64::from(u16::MAX);
        let seen = image.into_rgba16();
        let (width, height) = seen.dimensions();
        image::ImageBuffer::<image::Rgb<u16>, _>::from_fn(width, height, |x, y| {
            let [r, g, b, opacity] = seen.get_pixel(x, y).0.map(u64::from);
            image::Rgb([r, g, b].map(|c| blend(c, opacity, white) as u16))
        })
        .into()
    } else {
        let white = u64::from(u8::MAX);
        let seen = image.into_rgba8();
        let (width, height) = seen.dimensions();
        RgbImage::from_fn(width, height, |x, y| {
            let [r, g, b, opacity] = seen.get_pixel(x, y).0.map(u64::from);
            image::Rgb([r, g, b].map(|c| blend(c, opacity, white) as u8))
        })
        .into()
    };
    let pixels: DynamicImage = pixels;
    let notes = if is_seen {
        Vec::new()
    } else {
        vec![Note::AllTransparent]
    };
    (pixels.into_rgb8(), notes)
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
}
