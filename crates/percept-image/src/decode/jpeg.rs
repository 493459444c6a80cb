//! JPEG with the settings of Pillow.

use std::cell::Cell;
use std::io::{self, BufRead, Cursor, Read};

use image::RgbImage;
use mozjpeg::{ColorSpace, DctMethod, Decompress};

use super::metadata::Metadata;
use super::{ImageError, Limits, Note, check, check_dimensions, contain_panics};

/// Most scans in a JPEG. Encoders write about ten; each costs a pass over all pixels, though ten bytes
/// can hold it, so that a small file could keep the decoder busy for hours.
const MAX_SCANS: u64 = 500;

/// The pixels as they are stored, and what is odd about the file.
///
/// libjpeg's warnings about damaged data are dropped and never printed.
pub(super) fn decode(
    bytes: &[u8],
    limits: &Limits,
    min_side: Option<u32>,
) -> Result<(RgbImage, Vec<Note>), ImageError> {
    // libjpeg states the size too, but has a limit of its own at 65500 px, whose error names none.
    let outline = outline(bytes);
    if let Some(size) = outline.size {
        check_dimensions(size, limits)?;
    }
    check(outline.scans, MAX_SCANS, |n| {
        format!("the count of {n} scans")
    })?;
    // Where data is missing, libjpeg fills up with grey and reports success; Pillow refuses as soon as
    // a byte behind the end is asked for. Pixels may be whole though the end mark is not there.
    let is_past_end = Cell::new(false);
    let source = Source {
        bytes: Cursor::new(bytes),
        is_past_end: &is_past_end,
    };
    // libjpeg's fatal errors come as panics that bypass the panic hook.
    let pixels = contain_panics(|| read(source, limits, min_side));
    match pixels {
        Err(ImageError::Decode(_)) | Ok(_) if is_past_end.get() => Err(ImageError::Truncated),
        Ok(pixels) if has_end(bytes) => Ok((pixels, Vec::new())),
        Ok(pixels) => Ok((pixels, vec![Note::NoEnd])),
        Err(error) => Err(error),
    }
}

/// A file's bytes, and whether more were asked for than there are.
struct Source<'a> {
    bytes: Cursor<&'a [u8]>,
    is_past_end: &'a Cell<bool>,
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.bytes.read(buffer)
    }
}

impl BufRead for Source<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let rest = self.bytes.fill_buf()?;
        if rest.is_empty() {
            self.is_past_end.set(true);
        }
        Ok(rest)
    }

    fn consume(&mut self, count: usize) {
        self.bytes.consume(count);
    }
}

fn read(
    source: Source<'_>,
    limits: &Limits,
    min_side: Option<u32>,
) -> Result<RgbImage, ImageError> {
    // Reads up to the first scan and allocates nothing in proportion to the stated size.
    let mut decoder = Decompress::builder().from_reader(source).map_err(refused)?;
    // A JPEG's sides have 16 bits.
    let (mut width, mut height) = (decoder.width() as u32, decoder.height() as u32);
    check_dimensions((width, height), limits)?;

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
                .map_err(refused)?;
            let inks = rows.read_scanlines::<[u8; 4]>().map_err(refused)?;
            inks.into_iter().flat_map(cmyk_to_rgb).collect()
        }
        _ => {
            let mut rows = decoder.rgb().map_err(refused)?;
            rows.read_scanlines::<u8>().map_err(refused)?
        }
    };
    RgbImage::from_raw(width, height, samples).ok_or(ImageError::Truncated)
}

/// Pillow's conversion, rounding included. JPEGs store ink inverted: 255 is none, as Adobe does.
fn cmyk_to_rgb([cyan, magenta, yellow, black]: [u8; 4]) -> [u8; 3] {
    [cyan, magenta, yellow].map(|ink| {
        let scaled = u32::from(255 - ink) * u32::from(black) + 128;
        // `scaled / 255`, rounded: at most `black`.
        black - (((scaled >> 8) + scaled) >> 8) as u8
    })
}

fn refused(error: io::Error) -> ImageError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => ImageError::Truncated,
        _ => ImageError::Decode(error.to_string()),
    }
}

/// What the segments before the pixels say, as Pillow puts them together.
pub(super) fn metadata(bytes: &[u8]) -> Metadata<'_> {
    const XMP: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";
    let mut metadata = Metadata::default();
    for (_, data) in segments(bytes).filter(|(marker, _)| *marker == 0xE1) {
        if let Some(part) = data.strip_prefix(b"Exif\0\0") {
            // A block above 64 KiB goes on in the next segment.
            match &mut metadata.exif {
                Some(exif) => exif.to_mut().extend(part),
                none => *none = Some(part.into()),
            }
        } else if let Some(packet) = data.strip_prefix(XMP) {
            metadata.xmp = Some(packet.into());
        }
    }
    metadata
}

/// Markers and contents of the segments before the first scan.
fn segments(bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    const START_OF_SCAN: u8 = 0xDA;
    let mut rest = bytes.get(2..).unwrap_or(&[]);
    std::iter::from_fn(move || {
        loop {
            // What stands between segments is passed over, as libjpeg does.
            let at = rest.iter().position(|&byte| byte == 0xFF)?;
            match &rest[at..] {
                [_, 0xFF, ..] => rest = &rest[at + 1..],
                [_, 0x00 | 0x01 | 0xD0..=0xD9, ..] => rest = &rest[at + 2..],
                [_, START_OF_SCAN, ..] => return None,
                &[_, marker, high, low, ref data @ ..] => {
                    let length = usize::from(u16::from_be_bytes([high, low])).saturating_sub(2);
                    let (data, next) = data.split_at_checked(length)?;
                    rest = next;
                    return Some((marker, data));
                }
                _ => return None,
            }
        }
    })
}

/// Whether the compressed data of a JPEG is followed by the end-of-image marker.
///
/// Segments are walked up to the first scan, because an EXIF thumbnail before it is a JPEG with an
/// end marker of its own. Inside a scan, 0xFF is always followed by a zero or a restart marker, so
/// `FF D9` cannot be pixel data. Anything odd counts as complete: the decoder is the better judge.
fn has_end(bytes: &[u8]) -> bool {
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
struct Outline {
    /// Width and height, if there is a frame header.
    size: Option<(u32, u32)>,
    scans: u64,
}

/// Walks all segments up to the end-of-image marker, skipping what libjpeg skips.
fn outline(bytes: &[u8]) -> Outline {
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
    Outline { size, scans }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thumbnails_end_marker_is_not_the_images() {
        let thumbnail = [0xFF, 0xD9];
        let mut jpeg = vec![0xFF, 0xD8, 0xFF, 0xE1, 0x00, 0x04];
        jpeg.extend(thumbnail);
        jpeg.extend([0xFF, 0xDA, 0x00, 0x02, 0x12, 0x34]);
        assert!(!has_end(&jpeg));
        jpeg.extend([0xFF, 0xD9]);
        assert!(has_end(&jpeg));
        jpeg.extend(b"trailing bytes of a motion photo");
        assert!(has_end(&jpeg));
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
        let expected = Outline {
            size: Some((0x0304, 0x0102)),
            scans: 2,
        };
        assert_eq!(outline(&jpeg), expected);
    }
}
