//! Bytes for files, and files that are either whole or absent.

use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;

use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder, RgbImage};

use crate::render::RenderError;

/// Writes a file so that nobody ever sees half of it: into a temporary file beside it, which then
/// takes its name. Creates the folders above it and replaces a file that is there.
///
/// Guards against a run that is stopped or a full disk, not against power loss: the system may
/// still hold the bytes in memory.
///
/// # Errors
/// What the operating system reports. As with [`std::fs::write`], callers name the path. A file that
/// was there before is then untouched.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    std::fs::create_dir_all(folder)?;
    let mut file = temporary_file(folder)?;
    file.write_all(bytes)?;
    file.persist(path).map_err(|failed| failed.error)?;
    Ok(())
}

/// A file in `folder` that is removed unless it gets a name, for what is written bit by bit.
///
/// # Errors
/// What the operating system reports.
pub fn temporary_file(folder: &Path) -> io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".percept-");
    // Temporary files are private by default; a result should be as readable as any other new file,
    // which is what these permissions less the umask are.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    // The name of a file that was never made helps nobody.
    (builder.tempfile_in(folder)).map_err(|error| match error.raw_os_error() {
        Some(_) => error,
        None => io::Error::from(error.kind()),
    })
}

/// An array as a NumPy file: format 1.0, little-endian `f4`, C order.
///
/// `shape` should multiply out to `data.len()`; if it does not, the data is written as one
/// dimension, so that the file can always be read.
pub fn npy_f32(shape: &[usize], data: &[f32]) -> Vec<u8> {
    const MAGIC: &[u8] = b"\x93NUMPY\x01\x00";
    /// The format wants the data to start at a multiple of this, for memory mapping.
    const ALIGNMENT: usize = 64;

    let size = shape
        .iter()
        .try_fold(1_usize, |n, &side| n.checked_mul(side));
    let flat = [data.len()];
    let shape = if size == Some(data.len()) {
        shape
    } else {
        &flat
    };
    // As Python writes a tuple: with a comma after a lone element.
    let sides: String = shape.iter().map(|side| format!("{side}, ")).collect();
    let sides = match shape.len() {
        1 => sides.trim_end(),
        _ => sides.trim_end_matches(", "),
    };
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({sides}), }}");
    let unpadded = MAGIC.len() + 2 + header.len() + 1;
    header.extend(std::iter::repeat_n(
        ' ',
        unpadded.next_multiple_of(ALIGNMENT) - unpadded,
    ));
    header.push('\n');

    let mut file = Vec::with_capacity(MAGIC.len() + 2 + header.len() + 4 * data.len());
    file.extend_from_slice(MAGIC);
    // Fits: a shape would need thousands of dimensions to fill 65 535 bytes.
    file.extend_from_slice(&(header.len() as u16).to_le_bytes());
    file.extend_from_slice(header.as_bytes());
    file.extend(data.iter().flat_map(|value| value.to_le_bytes()));
    file
}

/// A photo as PNG, 8 bits a channel.
///
/// # Errors
/// [`RenderError`] if the image has no pixels.
pub fn png_rgb(img: &RgbImage) -> Result<Vec<u8>, RenderError> {
    let mut file = Vec::new();
    encode(PngEncoder::new(&mut file), img)?;
    Ok(file)
}

/// What the text chunk `Software` of a result holds.
const SOFTWARE: (&str, &str) = ("Software", "percept");

/// An overlay as PNG, which says that it is a result and no photo ([`is_result`]).
///
/// # Errors
/// [`RenderError`] if the image has no pixels.
pub fn result_png(img: &RgbImage) -> Result<Vec<u8>, RenderError> {
    check_not_empty(img.width(), img.height())?;
    let mut file = Vec::new();
    let mut encoder = png_as_result(&mut file, img.width(), img.height())?;
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    // As `png_rgb`: overlays are written often and seldom kept.
    encoder.set_compression(png::Compression::Fast);
    let mut writer = encoder.write_header().map_err(encoding)?;
    writer.write_image_data(img).map_err(encoding)?;
    writer.finish().map_err(encoding)?;
    Ok(file)
}

/// An encoder of a PNG that says that percept made it.
pub(crate) fn png_as_result(
    file: &mut Vec<u8>,
    width: u32,
    height: u32,
) -> Result<png::Encoder<'_, &mut Vec<u8>>, RenderError> {
    let mut encoder = png::Encoder::new(file, width, height);
    let (keyword, text) = SOFTWARE;
    encoder
        .add_text_chunk(keyword.to_owned(), text.to_owned())
        .map_err(encoding)?;
    Ok(encoder)
}

/// Whether a PNG, of which `start` is the first few kilobytes, is a mask or an overlay that percept
/// made: it has the text `Software: percept` in front of its pixels. False for anything else.
pub fn is_result(start: &[u8]) -> bool {
    const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
    let Some(mut rest) = start.strip_prefix(SIGNATURE) else {
        return false;
    };
    // Length, kind, content and checksum, again and again.
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        let Some((kind, after)) = after.split_first_chunk::<4>() else {
            return false;
        };
        let Some((content, after)) = after.split_at_checked(length) else {
            return false;
        };
        match kind {
            b"tEXt" if says_percept(content) => return true,
            b"IDAT" => return false,
            _ => {}
        }
        let Some((_, after)) = after.split_first_chunk::<4>() else {
            return false;
        };
        rest = after;
    }
    false
}

/// Whether a text chunk, a keyword, a zero and a text, is the one of results.
fn says_percept(content: &[u8]) -> bool {
    let mut parts = content.splitn(2, |&byte| byte == 0);
    let (keyword, text) = SOFTWARE;
    parts.next() == Some(keyword.as_bytes()) && parts.next() == Some(text.as_bytes())
}

/// A photo as baseline JPEG. `quality` goes from 1 to 100; values outside are taken as the nearest.
///
/// # Errors
/// [`RenderError`] if the image has no pixels or a side beyond 65 535.
pub fn jpeg_rgb(img: &RgbImage, quality: u8) -> Result<Vec<u8>, RenderError> {
    let mut file = Vec::new();
    encode(
        JpegEncoder::new_with_quality(&mut file, quality.clamp(1, 100)),
        img,
    )?;
    Ok(file)
}

fn encode(encoder: impl ImageEncoder, img: &RgbImage) -> Result<(), RenderError> {
    check_not_empty(img.width(), img.height())?;
    encoder
        .write_image(img, img.width(), img.height(), ExtendedColorType::Rgb8)
        .map_err(encoding)
}

pub(crate) fn check_not_empty(width: u32, height: u32) -> Result<(), RenderError> {
    if width == 0 || height == 0 {
        return Err(RenderError::Empty { width, height });
    }
    Ok(())
}

pub(crate) fn encoding(error: impl Display) -> RenderError {
    RenderError::Encode(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_file_is_replaced_whole_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/folders/mask.png");
        write_atomic(&path, b"first").unwrap();
        write_atomic(&path, b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_write_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("taken");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("inside"), b"").unwrap();
        assert!(write_atomic(&path, b"bytes").is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn a_result_has_the_permissions_of_an_ordinary_file() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let mode = |name: &str| {
            let file = folder.path().join(name);
            fs::metadata(file).unwrap().permissions().mode()
        };
        fs::write(folder.path().join("ordinary"), b"").unwrap();
        write_atomic(&folder.path().join("ours"), b"").unwrap();
        assert_eq!(mode("ours"), mode("ordinary"));
    }

    #[test]
    fn npy_bytes_are_numpys() {
        let file = npy_f32(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, -6.5]);
        // numpy.save(…, numpy.float32([[1, 2, 3], [4, 5, -6.5]]))
        let header =
            b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }";
        assert!(file.starts_with(header));
        assert!(file[header.len()..127].iter().all(|&byte| byte == b' '));
        assert_eq!(file[127], b'\n');
        assert_eq!(file[128..132], [0, 0, 0x80, 0x3f]);
        assert_eq!(file.len(), 128 + 6 * 4);
    }

    #[test]
    fn npy_shapes_are_python_tuples() {
        let shape = |shape: &[usize], n| {
            let file = npy_f32(shape, &vec![0.0; n]);
            let text = String::from_utf8_lossy(&file[10..128]).into_owned();
            text[text.find('(').unwrap()..=text.find(')').unwrap()].to_owned()
        };
        assert_eq!(shape(&[], 1), "()");
        assert_eq!(shape(&[5], 5), "(5,)");
        assert_eq!(shape(&[1, 2, 3, 4], 24), "(1, 2, 3, 4)");
        assert_eq!(shape(&[0, 4], 0), "(0, 4)");
        // Shapes that do not fit the data.
        assert_eq!(shape(&[2, 2], 5), "(5,)");
        assert_eq!(shape(&[usize::MAX, 2], 3), "(3,)");
    }

    proptest::proptest! {
        #[test]
        fn only_marked_files_are_results(bytes: Vec<u8>, cut in 0_usize..2000) {
            assert!(!is_result(&bytes));
            let png = [b"\x89PNG\r\n\x1a\n", &bytes[..]].concat();
            assert!(!is_result(&png));
            // A result that is cut says so as soon as its text is whole.
            let whole = result_png(&RgbImage::new(9, 9)).unwrap();
            let end = whole.windows(7).position(|window| window == b"percept").unwrap() + 7;
            let start = &whole[..cut.min(whole.len())];
            assert_eq!(is_result(start), start.len() >= end);
        }
    }

    #[test]
    fn text_behind_the_pixels_or_of_others_is_no_mark() {
        let chunk = |kind: &[u8; 4], content: &[u8]| {
            let length = (content.len() as u32).to_be_bytes();
            [&length[..], kind, content, &[0; 4]].concat()
        };
        let file = |chunks: &[Vec<u8>]| [b"\x89PNG\r\n\x1a\n", &chunks.concat()[..]].concat();
        let mark = chunk(b"tEXt", b"Software\0percept");
        assert!(is_result(&file(&[chunk(b"IHDR", &[0; 13]), mark.clone()])));
        for other in [
            &[chunk(b"IDAT", b"x"), mark.clone()][..],
            &[chunk(b"tEXt", b"Software\0Adobe ImageReady")],
            &[chunk(b"tEXt", b"Software\0percept2")],
            &[chunk(b"tEXt", b"Comment\0percept")],
            &[chunk(b"zTXt", b"Software\0percept")],
        ] {
            assert!(!is_result(&file(other)));
        }
    }

    #[test]
    fn photos_survive_encoding() {
        let img = RgbImage::from_fn(17, 9, |x, y| image::Rgb([x as u8 * 9, y as u8 * 20, 80]));
        let limits = crate::Limits::default();
        let png = png_rgb(&img).unwrap();
        assert_eq!(crate::decode(&png, &limits).unwrap(), img);
        let jpeg = crate::decode(&jpeg_rgb(&img, 255).unwrap(), &limits).unwrap();
        let worst = img
            .iter()
            .zip(jpeg.iter())
            .map(|(a, b)| a.abs_diff(*b))
            .max();
        assert!(worst < Some(16), "{worst:?}");
        assert!(png_rgb(&RgbImage::new(0, 3)).is_err());
        assert!(jpeg_rgb(&RgbImage::new(3, 0), 90).is_err());
    }
}
