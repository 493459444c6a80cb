//! Every kind of file a folder of photos may hold, and some it should not.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

use std::collections::BTreeMap;
use std::io::{Cursor, Write};
use std::path::PathBuf;

use image::{DynamicImage, ImageBuffer, ImageFormat, Luma, LumaA, Rgb, RgbImage, Rgba};
use percept_image::{
    EXTENSIONS, ImageError, Limits, Note, decode, decode_noted, decode_reduced, open, open_noted,
    open_stored, stored_size,
};
use proptest::prelude::*;
use sha2::Digest;

fn data(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/data/decode", name]
        .iter()
        .collect()
}

fn encode(img: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    img.into().write_to(&mut file, format).unwrap();
    file.into_inner()
}

fn read(bytes: &[u8]) -> Result<RgbImage, ImageError> {
    decode(bytes, &Limits::default())
}

/// A PNG with the given header and raw rows, each starting with its filter byte.
fn png(
    (width, height): (u32, u32),
    colour: png::ColorType,
    depth: png::BitDepth,
    palette: &[u8],
    transparency: &[u8],
    pixels: &[u8],
) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(colour);
    encoder.set_depth(depth);
    if !palette.is_empty() {
        encoder.set_palette(palette.to_vec());
    }
    if !transparency.is_empty() {
        encoder.set_trns(transparency.to_vec());
    }
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(pixels).unwrap();
    writer.finish().unwrap();
    file
}

/// A PNG that states the given size and has no pixels.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut file = Vec::new();
    let encoder = png::Encoder::new(&mut file, width, height);
    let mut writer = encoder.write_header().unwrap();
    writer.write_chunk(png::chunk::IDAT, &[]).unwrap();
    drop(writer);
    file
}

/// The picture of `tools/parity/photos.py`, upright.
fn assert_is_quarters(img: &RgbImage, name: &str) {
    assert_eq!(img.dimensions(), (48, 32), "{name}");
    for ((x, y), expected) in [
        ((8, 8), [255, 0, 0]),
        ((40, 8), [0, 255, 0]),
        ((8, 24), [0, 0, 255]),
        ((40, 24), [255, 255, 255]),
    ] {
        let actual = img.get_pixel(x, y).0;
        let close = actual.iter().zip(expected).all(|(a, b)| a.abs_diff(b) <= 4);
        assert!(close, "{name} at {x}, {y}: {actual:?}, not {expected:?}");
    }
}

#[test]
fn lossless_formats_give_the_pixels_back() {
    let img = RgbImage::from_fn(19, 11, |x, y| Rgb([x as u8 * 7, y as u8 * 11, 200]));
    for format in [
        ImageFormat::Png,
        ImageFormat::WebP,
        ImageFormat::Bmp,
        ImageFormat::Tiff,
    ] {
        assert_eq!(
            read(&encode(img.clone(), format)).unwrap(),
            img,
            "{format:?}"
        );
    }
}

#[test]
fn one_pixel_is_enough() {
    for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Gif] {
        let img = read(&encode(RgbImage::new(1, 1), format)).unwrap();
        assert_eq!(img, RgbImage::new(1, 1), "{format:?}");
    }
}

#[test]
fn exif_orientations_are_applied() {
    for orientation in 1..=8 {
        let name = format!("exif-{orientation}.jpg");
        let img = open(&data(&name), &Limits::default()).unwrap();
        assert_is_quarters(&img, &name);
    }
}

#[test]
fn cmyk_jpeg_becomes_rgb() {
    let img = open(&data("cmyk.jpg"), &Limits::default()).unwrap();
    assert_is_quarters(&img, "cmyk.jpg");
}

/// A smooth and noisy pattern of odd size, and what Pillow 13.0.0 makes of the same file.
#[test]
fn jpeg_pixels_are_pillows() {
    for name in ["444", "422", "420", "420-progressive", "grey", "cmyk"] {
        let [actual, expected] = ["jpg", "png"].map(|extension| {
            let path = data(&format!("pillow-{name}.{extension}"));
            open(&path, &Limits::default()).unwrap()
        });
        assert_eq!(actual.dimensions(), (33, 21), "{name}");
        assert!(actual == expected, "{name}: the pixels differ");
    }
}

/// Damage is an image or an error. Nothing else is promised, so nothing else is asserted.
#[test]
fn damaged_jpegs_do_not_panic() {
    let tight = Limits {
        max_pixels: 1 << 20,
        ..Limits::default()
    };
    let mut seed = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed as usize % below
    };
    for name in ["pillow-420.jpg", "pillow-420-progressive.jpg"] {
        let file = std::fs::read(data(name)).unwrap();
        for keep in (0..file.len()).step_by(7) {
            let _ = decode(&file[..keep], &tight);
            let _ = decode(&[&file[..keep], &[0xFF, 0xD9]].concat(), &tight);
        }
        for _ in 0..2_000 {
            let mut file = file.clone();
            let at = random(file.len());
            file[at] = random(256) as u8;
            let _ = decode(&file, &tight);
        }
    }
}

#[test]
fn libjpegs_reason_is_the_message() {
    // Arithmetic coding, which is not built in.
    let mut jpeg = encode(RgbImage::new(8, 8), ImageFormat::Jpeg);
    let frame = jpeg.windows(2).position(|m| m == [0xFF, 0xC0]).unwrap();
    jpeg[frame + 1] = 0xC9;
    let error = read(&jpeg).unwrap_err().to_string();
    assert!(error.starts_with("cannot decode: "), "{error}");
    assert!(!error.contains("the decoder failed"), "{error}");
}

#[test]
fn grey_is_repeated() {
    let img = ImageBuffer::from_fn(5, 1, |x, _| Luma([x as u8 * 50]));
    let expected = RgbImage::from_fn(5, 1, |x, _| Rgb([x as u8 * 50; 3]));
    assert_eq!(
        read(&encode(img.clone(), ImageFormat::Png)).unwrap(),
        expected
    );
    assert_eq!(read(&encode(img, ImageFormat::Tiff)).unwrap(), expected);
}

#[test]
fn bits_become_black_and_white() {
    let (grey, one) = (png::ColorType::Grayscale, png::BitDepth::One);
    let img = read(&png((4, 1), grey, one, &[], &[], &[0b1010_0000])).unwrap();
    let reds: Vec<u8> = img.pixels().map(|pixel| pixel.0[0]).collect();
    assert_eq!(reds, [255, 0, 255, 0]);
}

#[test]
fn sixteen_bits_are_scaled_not_clipped() {
    let values = [0_u16, 128, 129, 256, 257, 32_768, 65_406, 65_535];
    let expected = values.map(|v| ((u32::from(v) + 128) / 257) as u8);
    let grey = ImageBuffer::from_fn(8, 1, |x, _| Luma([values[x as usize]]));
    let colour = ImageBuffer::from_fn(8, 1, |x, _| Rgb([values[x as usize]; 3]));
    for file in [
        encode(grey.clone(), ImageFormat::Png),
        encode(grey, ImageFormat::Tiff),
        encode(colour, ImageFormat::Png),
    ] {
        let img = read(&file).unwrap();
        for (pixel, expected) in img.pixels().zip(expected) {
            assert_eq!(pixel.0, [expected; 3]);
        }
    }
}

#[test]
fn palettes_are_looked_up() {
    let palette = [10, 20, 30, 200, 150, 100];
    let (indexed, eight) = (png::ColorType::Indexed, png::BitDepth::Eight);
    let img = read(&png((2, 1), indexed, eight, &palette, &[], &[1, 0])).unwrap();
    assert_eq!(img.as_raw(), &[200, 150, 100, 10, 20, 30]);
}

#[test]
fn transparent_pixels_lie_on_white() {
    let img = ImageBuffer::from_fn(3, 1, |x, _| {
        Rgba([200_u8, 100, 50, [0, 51, 255][x as usize]])
    });
    // 255 - (255 - colour) * opacity / 255.
    let expected = [255, 255, 255, 244, 224, 214, 200, 100, 50];
    for format in [ImageFormat::Png, ImageFormat::WebP] {
        let read = read(&encode(img.clone(), format)).unwrap();
        assert_eq!(read.as_raw(), &expected, "{format:?}");
    }
    let grey = ImageBuffer::from_pixel(1, 1, LumaA([77_u8, 0]));
    let noted = decode_noted(&encode(grey, ImageFormat::Png), &Limits::default()).unwrap();
    assert_eq!(noted.image.get_pixel(0, 0).0, [255; 3]);
    assert_eq!(noted.notes, [Note::AllTransparent]);

    let deep = ImageBuffer::from_pixel(1, 1, Rgba([0_u16, 65_535, 32_768, 32_768]));
    let img = read(&encode(deep, ImageFormat::Png)).unwrap();
    assert_eq!(img.get_pixel(0, 0).0, [127, 255, 191]);

    // A transparent palette entry.
    let (indexed, eight) = (png::ColorType::Indexed, png::BitDepth::Eight);
    let palette = [9, 8, 7, 1, 2, 3];
    let file = png((2, 1), indexed, eight, &palette, &[0], &[0, 1]);
    assert_eq!(read(&file).unwrap().as_raw(), &[255, 255, 255, 1, 2, 3]);
}

/// A TIFF says whether its colours are multiplied by the opacity already, or that the fourth sample is
/// none.
#[test]
fn the_fourth_sample_of_a_tiff_is_what_the_file_says() {
    let file = std::fs::read(data("../pillow").join("rgba.tif")).unwrap();
    // The tag ExtraSamples with one SHORT.
    let entry = [0x52, 1, 3, 0, 1, 0, 0, 0];
    let entry = file.windows(8).position(|e| e == entry).unwrap();
    // At 5, 3 the file has 90, 84, 88 with an opacity of 95.
    for (kind, expected) in [
        (0, [90, 84, 88]),
        (1, [250, 244, 248]),
        (2, [194, 191, 193]),
    ] {
        let mut file = file.clone();
        file[entry + 8] = kind;
        assert_eq!(read(&file).unwrap().get_pixel(5, 3).0, expected, "{kind}");
    }
    // Files that do not say mean opacity.
    let img = ImageBuffer::from_pixel(1, 1, Rgba([100_u8, 50, 0, 102]));
    let img = read(&encode(img, ImageFormat::Tiff)).unwrap();
    assert_eq!(img.get_pixel(0, 0).0, [193, 173, 153]);
}

/// What Pillow makes of odd files: see `tools/parity/decode.py`.
#[test]
fn odd_files_are_read_as_pillow_reads_them() {
    #[derive(serde::Deserialize)]
    struct Reading {
        size: (u32, u32),
        sha256: String,
    }
    /// Pillow takes the text for the head of a chunk; the pixels are there all the same.
    const READ_ON_PURPOSE: [&str; 1] = ["with-text-for-end.png"];

    let folder = data("../pillow");
    let expected = std::fs::read_to_string(folder.join("expected.json")).unwrap();
    let expected: BTreeMap<String, Option<Reading>> = serde_json::from_str(&expected).unwrap();
    assert!(expected.len() > 50);
    for (name, expected) in expected {
        let actual = open(&folder.join(&name), &Limits::default());
        let Some(expected) = expected else {
            assert_eq!(actual.is_ok(), READ_ON_PURPOSE.contains(&&*name), "{name}");
            continue;
        };
        let actual = actual.unwrap();
        assert_eq!(actual.dimensions(), expected.size, "{name}");
        let digest = sha2::Sha256::digest(actual.as_raw());
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(digest, expected.sha256, "{name}");
    }
}

#[test]
fn ends_that_are_not_there_are_noted() {
    let notes = |name: &str| {
        let path = data("../pillow").join(name);
        open_noted(&path, &Limits::default()).unwrap().notes
    };
    for name in [
        "baseline-with-zeros-for-end.jpg",
        "baseline-cut-with-zeros.jpg",
        "without-end.png",
        "cut-in-inner-checksum.png",
        "with-text-for-end.png",
    ] {
        assert_eq!(notes(name), [Note::NoEnd], "{name}");
    }
    assert_eq!(notes("wrong-checksum.png"), [Note::BadChecksum]);
    for name in [
        "xmp.jpg",
        "baseline-twice.jpg",
        "exif-behind.png",
        "two.mpo.jpg",
    ] {
        assert_eq!(notes(name), [], "{name}");
    }
}

#[test]
fn pixels_that_were_changed_are_refused() {
    let img = RgbImage::from_fn(40, 40, |x, y| Rgb([(x * y) as u8, x as u8, y as u8]));
    let file = encode(img, ImageFormat::Png);
    let idat = file.windows(4).position(|kind| kind == b"IDAT").unwrap();
    let mut changed = file.clone();
    // Within the compressed pixels: the checksums of the chunk and of the pixels are wrong.
    changed[idat + 60] ^= 0x10;
    assert!(read(&changed).is_err());
}

/// A grey PNG whose pixels, compressed in chunks of 10 bytes, are `rows`; its first checksum of them is
/// wrong.
fn with_wrong_checksum(side: u32, interlace: u8, rows: &[u8]) -> Vec<u8> {
    let mut pixels = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    pixels.write_all(rows).unwrap();
    let side = side.to_be_bytes();
    let header = [&side[..], &side, &[8, 0, 0, 0, interlace]].concat();
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut push = |kind: &[u8; 4], data: &[u8], change: u32| {
        let mut crc = flate2::Crc::new();
        crc.update(kind);
        crc.update(data);
        file.extend((data.len() as u32).to_be_bytes());
        file.extend(kind);
        file.extend(data);
        file.extend((crc.sum() ^ change).to_be_bytes());
    };
    push(b"IHDR", &header, 0);
    for (at, part) in (0..).zip(pixels.finish().unwrap().chunks(10)) {
        push(b"IDAT", part, u32::from(at == 0));
    }
    push(b"IEND", &[], 0);
    file
}

#[test]
fn pixels_with_a_wrong_checksum_are_inflated_no_further_than_their_header_says() {
    // Seven passes of rows that begin with their filter.
    let passes = [(1, 1), (1, 1), (2, 1), (2, 2), (4, 2), (4, 4), (8, 4)];
    let row = |width: usize| [vec![0], (0..width).map(|x| 16 * x as u8).collect()].concat();
    let interlaced: Vec<u8> = (passes.iter())
        .flat_map(|&(width, height)| row(width).repeat(height))
        .collect();
    for (interlace, rows) in [(0, row(8).repeat(8)), (1, interlaced)] {
        let file = with_wrong_checksum(8, interlace, &rows);
        let decoded = decode_noted(&file, &Limits::default()).unwrap();
        assert_eq!(decoded.notes, [Note::BadChecksum]);
        // In the last pass, as in a photo that has none, rows are whole.
        assert_eq!(decoded.image.get_pixel(7, 7).0, [112; 3]);
        assert_eq!(decoded.image.get_pixel(0, 0).0, [0; 3]);
    }
    // A photo of two bytes, and 16 MB behind.
    let file = with_wrong_checksum(1, 0, &vec![0; 16 << 20]);
    assert!(file.len() < 64 << 10);
    let error = read(&file).unwrap_err().to_string();
    assert!(error.contains("CRC"), "{error}");
}

#[test]
fn stored_pixels_are_not_turned() {
    let path = data("exif-6.jpg");
    let stored = open_stored(&path, &Limits::default()).unwrap();
    assert_eq!(stored.pixels.dimensions(), (32, 48));
    assert!(stored.turned);
    assert_eq!(stored.upright(), open(&path, &Limits::default()).unwrap());
    assert_eq!(stored_size(&path).unwrap(), (32, 48));
    let path = data("exif-1.jpg");
    assert!(!open_stored(&path, &Limits::default()).unwrap().turned);
    assert_eq!(stored_size(&path).unwrap(), (48, 32));
    assert!(stored_size(&data("none.jpg")).is_err());
}

#[test]
fn other_files_are_called_what_they_are() {
    let media = |brands: &[&[u8; 4]]| {
        let length = u32::try_from(8 + 4 * brands.len()).unwrap();
        let brands: Vec<u8> = brands.iter().copied().flatten().copied().collect();
        [&length.to_be_bytes(), b"ftyp".as_slice(), &brands].concat()
    };
    let none = b"\0\0\0\0";
    // One directory entry, DNGVersion, in a TIFF file.
    let dng = b"II*\0\x08\0\0\0\x01\0\x12\xc6\x01\0\x04\0\0\0\x01\x04\0\0\0\0\0\0";
    let nef = b"MM\0*\0\0\0\x08\0\x02\0\xfe\0\x04\0\0\0\x01\0\0\0\x01\x01\x4a\0\x04\0\0\0\x01\0\0\0\x40\0\0\0\0";
    for (file, what) in [
        (media(&[b"heic", none, b"mif1", b"heic"]), "HEIC"),
        (media(&[b"mif1", none, b"mif1", b"heic"]), "HEIC"),
        (media(&[b"avif", none, b"mif1", b"miaf"]), "AVIF"),
        (media(&[b"mif1", none, b"avif"]), "AVIF"),
        (
            media(&[b"isom", none, b"mp41"]),
            "a video (MP4 or QuickTime)",
        ),
        (media(&[b"crx ", none]), "a camera's raw file (CR3)"),
        (
            b"II*\0\x10\0\0\0CR\x02\0aaaaaaaa".to_vec(),
            "a camera's raw file (CR2)",
        ),
        (dng.to_vec(), "a camera's raw file (DNG)"),
        (nef.to_vec(), "a camera's raw file (as NEF or ARW)"),
        (b"\0\0\0\x0cjP  \r\n\x87\n".to_vec(), "JPEG 2000"),
        (b"\xff\x0a\x01".to_vec(), "JPEG XL"),
        (b"%PDF-1.7".to_vec(), "a PDF document"),
        (b"8BPS\0\x01".to_vec(), "a Photoshop document"),
        (b"v/1\x01\x02".to_vec(), "OpenEXR"),
        (
            b"\xEF\xBB\xBF<?xml version=\"1.0\"?>\n<!-- x --><svg>".to_vec(),
            "an SVG drawing",
        ),
        (b"\n<!DOCTYPE html><html>".to_vec(), "an HTML page"),
        (
            b"version https://git-lfs.github.com/spec/v1\n".to_vec(),
            "a Git LFS pointer in place of the photo",
        ),
        (b"RIFF\x10\0\0\0AVI LIST".to_vec(), "a video (AVI)"),
        (b"\x1aE\xdf\xa3".to_vec(), "a video (Matroska or WebM)"),
        (b"P6\n1 1\n255\nabc".to_vec(), "a PNM image"),
        (vec![0; 300], "nothing but zero bytes"),
        (
            b"{\"error\": \"no such photo\"}".to_vec(),
            "a JSON document",
        ),
        (b"/9j/4AAQSkZJRg".to_vec(), "an image in base64"),
    ] {
        let error = read(&file).unwrap_err().to_string();
        let start = format!("not an image that percept reads: this is {what}; ");
        assert!(
            error.starts_with(&start) && error.len() > start.len(),
            "{error}"
        );
    }
}

#[cfg(unix)]
#[test]
fn pipes_and_devices_are_not_opened() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("photo.jpg");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let link = folder.path().join("link.jpg");
    std::os::unix::fs::symlink(&pipe, &link).unwrap();
    let socket = folder.path().join("socket.jpg");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    for (path, what) in [
        (pipe, "a named pipe"),
        (link, "a named pipe"),
        (socket, "a socket"),
        ("/dev/zero".into(), "a device"),
        (folder.path().to_owned(), "a folder"),
    ] {
        let error = open(&path, &Limits::default()).unwrap_err().to_string();
        assert_eq!(error, format!("{}: {what}, not a file", path.display()));
        assert!(stored_size(&path).is_err());
    }
}

/// A JPEG and a PNG of 14 x 9 px that say `exif`, `xmp` and a raw profile about themselves.
fn with_metadata(exif: &[u8], xmp: &[u8], profile: &[u8]) -> [Vec<u8>; 2] {
    let segment = |start: &[u8], content: &[u8]| {
        let content = [start, content].concat();
        let length = u16::try_from(content.len() + 2).unwrap().to_be_bytes();
        [&[0xFF, 0xE1], &length[..], &content].concat()
    };
    let jpeg = encode(RgbImage::new(14, 9), ImageFormat::Jpeg);
    let jpeg = [
        &jpeg[..2],
        &segment(b"Exif\0\0", exif),
        &segment(b"http://ns.adobe.com/xap/1.0/\0", xmp),
        &jpeg[2..],
    ]
    .concat();
    let mut file = Vec::new();
    let mut writer = png::Encoder::new(&mut file, 14, 9).write_header().unwrap();
    let text = |key: &[u8], value: &[u8]| [key, b"\0", value].concat();
    writer.write_image_data(&[0; 14 * 9]).unwrap();
    for (kind, content) in [
        (png::chunk::eXIf, exif.to_vec()),
        (png::chunk::tEXt, text(b"Raw profile type exif", profile)),
        (
            png::chunk::zTXt,
            text(b"Raw profile type exif", &[&[0], profile].concat()),
        ),
        (
            png::chunk::iTXt,
            text(b"XML:com.adobe.xmp", &[&[0; 4], xmp].concat()),
        ),
        (
            png::chunk::iTXt,
            text(b"XML:com.adobe.xmp", &[&[1, 0, 0, 0], xmp].concat()),
        ),
    ] {
        writer.write_chunk(kind, &content).unwrap();
    }
    writer.finish().unwrap();
    [jpeg, file]
}

proptest! {
    /// Whatever metadata says, the pixels are read, upright or turned.
    #[test]
    fn metadata_never_costs_the_pixels(
        start in prop::sample::select(vec![&b""[..], b"II*\0\x08\0\0\0\x01\0\x12\x01", b"MM\0*\0\0\0\x08", b"MM\0+\0\x08\0\0"]),
        exif in prop::collection::vec(any::<u8>(), 0..80),
        xmp in "(tiff:Orientation)?[ =>\"0-9a-z<]{0,20}(tiff:Orientation)?=?\"?[0-9]?",
        profile in "\n?exif\n? {0,4}[0-9]{0,3}\n?[0-9a-f \n]{0,40}[g-z]?",
    ) {
        let exif = [start, &exif].concat();
        for file in with_metadata(&exif, xmp.as_bytes(), profile.as_bytes()) {
            let (width, height) = read(&file).unwrap().dimensions();
            prop_assert!((width, height) == (14, 9) || (width, height) == (9, 14));
        }
    }

    /// An orientation is found whatever its place, byte order and type.
    #[test]
    fn orientations_are_found(value in 1_u8..=8, is_big_endian: bool, is_long: bool, place in 0..3) {
        let (kind, wide) = if is_long { (4, 4) } else { (3, 2) };
        let number = |n: u64, width: usize| {
            let bytes = n.to_be_bytes();
            let mut bytes = bytes[8 - width..].to_vec();
            if !is_big_endian { bytes.reverse(); }
            bytes
        };
        let mut exif = if is_big_endian { b"MM\0*".to_vec() } else { b"II*\0".to_vec() };
        for (n, width) in [(8, 4), (1, 2), (0x112, 2), (kind, 2), (1, 4), (u64::from(value), wide), (0, 8 - wide)] {
            exif.extend(number(n, width));
        }
        let hex: String = exif.iter().map(|byte| format!("{byte:02X}")).collect();
        let profile = format!("\nexif\n{:8}\n{hex}\n", exif.len());
        let xmp = format!("<r tiff:Orientation=\"{value}\"/>");
        let files = match place {
            0 => with_metadata(&exif, b"", b"").to_vec(),
            1 => with_metadata(b"", xmp.as_bytes(), b"").to_vec(),
            // Where there is an EXIF block, if empty, the profile does not count: a PNG alone has none.
            _ => vec![{
                let mut file = Vec::new();
                let mut writer = png::Encoder::new(&mut file, 14, 9).write_header().unwrap();
                writer.write_image_data(&[0; 14 * 9]).unwrap();
                let text = [b"Raw profile type exif\0", profile.as_bytes()].concat();
                writer.write_chunk(png::chunk::tEXt, &text).unwrap();
                writer.finish().unwrap();
                file
            }],
        };
        for file in files {
            let turned = read(&file).unwrap().dimensions() == (9, 14);
            prop_assert_eq!(turned, value >= 5);
        }
    }
}

#[test]
fn animations_give_their_first_frame() {
    let mut gif = Vec::new();
    let mut encoder = image::codecs::gif::GifEncoder::new(&mut gif);
    for grey in [0, 255] {
        let frame = ImageBuffer::from_pixel(4, 3, Rgba([grey, grey, grey, 255]));
        encoder.encode_frame(image::Frame::new(frame)).unwrap();
    }
    drop(encoder);
    assert_eq!(read(&gif).unwrap(), RgbImage::new(4, 3));

    let webp = open(&data("animated.webp"), &Limits::default()).unwrap();
    assert_is_quarters(&webp, "animated.webp");
}

#[test]
fn a_wrong_extension_does_not_matter() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("photo.jpg");
    let img = RgbImage::from_pixel(3, 2, Rgb([1, 2, 3]));
    std::fs::write(&path, encode(img.clone(), ImageFormat::Png)).unwrap();
    assert_eq!(open(&path, &Limits::default()).unwrap(), img);
}

#[test]
fn truncated_files_are_errors() {
    let img = RgbImage::from_fn(64, 64, |x, y| Rgb([(x * y) as u8, x as u8, y as u8]));
    for format in [
        ImageFormat::Jpeg,
        ImageFormat::Png,
        ImageFormat::WebP,
        ImageFormat::Gif,
        ImageFormat::Bmp,
        ImageFormat::Tiff,
    ] {
        let file = encode(img.clone(), format);
        for keep in [file.len() / 2, file.len() * 9 / 10, 20] {
            let result = read(&file[..keep]);
            assert!(
                matches!(result, Err(ImageError::Truncated | ImageError::Decode(_))),
                "{format:?} cut to {keep} of {}: {result:?}",
                file.len()
            );
        }
    }
}

#[test]
fn what_is_no_image_is_refused() {
    assert!(matches!(read(b""), Err(ImageError::Empty)));
    for bytes in [b"hello, I am a text file".as_slice(), b"\0", &[0xFF; 4096]] {
        assert!(matches!(read(bytes), Err(ImageError::UnknownFormat)));
    }
    // The right first bytes and nothing sensible after them.
    for start in [
        b"\xFF\xD8\xFF".as_slice(),
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a",
        b"BM",
        b"II*\0",
    ] {
        let mut bytes = start.to_vec();
        bytes.extend([7; 300]);
        assert!(read(&bytes).is_err(), "{start:?}");
    }
}

#[test]
fn limits_hold_before_pixels_are_allocated() {
    // 2.7 GB as pixels, 50 bytes as a file.
    let error = read(&png_header(30_000, 30_000)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the width of 30000 px is over the limit of 20000"
    );
    let error = read(&png_header(19_000, 19_000)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the area of 361000000 px (19000 x 19000) is over the limit of 120000000"
    );

    // The same for a JPEG, whose header says 65535 x 65535.
    let mut jpeg = encode(RgbImage::new(8, 8), ImageFormat::Jpeg);
    let frame = jpeg
        .windows(2)
        .position(|marker| marker == [0xFF, 0xC0])
        .unwrap();
    jpeg[frame + 5..frame + 9].fill(0xFF);
    assert!(matches!(
        read(&jpeg),
        Err(ImageError::TooLarge { limit: 20_000, .. })
    ));

    let tight = Limits {
        max_file_bytes: 10,
        ..Limits::default()
    };
    let error = decode(&png_header(1, 1), &tight).unwrap_err();
    assert!(matches!(error, ImageError::TooLarge { limit: 10, .. }));

    // Small limits still admit small images.
    let small = Limits {
        max_side: 8,
        max_pixels: 64,
        ..Limits::default()
    };
    for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP] {
        let file = encode(RgbImage::new(8, 8), format);
        assert!(decode(&file, &small).is_ok(), "{format:?}");
    }
}

#[test]
fn endless_scans_are_refused() {
    let mut jpeg = std::fs::read(data("pillow-420-progressive.jpg")).unwrap();
    let last = jpeg.windows(2).rposition(|m| m == [0xFF, 0xDA]).unwrap();
    jpeg.truncate(jpeg.len() - 2);
    let scan = jpeg[last..].to_vec();
    for _ in 0..500 {
        jpeg.extend(&scan);
    }
    jpeg.extend([0xFF, 0xD9]);
    let error = read(&jpeg).unwrap_err().to_string();
    assert_eq!(error, "the count of 510 scans is over the limit of 500");
}

#[test]
fn open_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("empty.png");
    std::fs::write(&path, b"").unwrap();
    let error = open(&path, &Limits::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("{}: the file is empty", path.display())
    );

    let missing = folder.path().join("missing.png");
    let error = open(&missing, &Limits::default()).unwrap_err().to_string();
    assert!(error.starts_with(&missing.display().to_string()), "{error}");
    assert!(open(folder.path(), &Limits::default()).is_err());

    let tight = Limits {
        max_file_bytes: 3,
        ..Limits::default()
    };
    std::fs::write(&path, b"four").unwrap();
    let error = open(&path, &tight).unwrap_err().to_string();
    assert!(error.ends_with("the file size of 4 bytes is over the limit of 3"));
}

#[test]
fn extensions_are_lower_case_without_dots() {
    let plain = |e: &&str| e.chars().all(|c| c.is_ascii_lowercase());
    assert!(EXTENSIONS.iter().all(plain));
}

/// A TIFF, little-endian, with one strip: tags with SHORTs, in the order of their numbers.
fn tiff(width: u16, height: u16, tags: &[(u16, &[u16])], pixels: &[u8]) -> Vec<u8> {
    let strip = [
        (256, vec![width]),
        (257, vec![height]),
        (278, vec![height]),
        (279, vec![u16::try_from(pixels.len()).unwrap()]),
    ];
    let tags = tags.iter().map(|(tag, values)| (*tag, values.to_vec()));
    let mut tags: BTreeMap<u16, Vec<u16>> = strip.into_iter().chain(tags).collect();
    tags.insert(273, vec![8]);
    let mut file = b"II*\0\0\0\0\0".to_vec();
    file.extend(pixels);
    let mut entries = Vec::new();
    for (tag, values) in tags {
        entries.extend([tag.to_le_bytes(), [3, 0]].concat());
        entries.extend(u32::try_from(values.len()).unwrap().to_le_bytes());
        let values: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        match values.len() {
            ..=4 => entries.extend([&values[..], &[0; 4]].concat().iter().take(4)),
            _ => {
                entries.extend(u32::try_from(file.len()).unwrap().to_le_bytes());
                file.extend(values);
            }
        }
    }
    let directory = u32::try_from(file.len()).unwrap();
    file[4..8].copy_from_slice(&directory.to_le_bytes());
    file.extend(u16::try_from(entries.len() / 12).unwrap().to_le_bytes());
    file.extend(entries);
    file.extend([0; 4]);
    file
}

#[test]
fn palettes_of_tiffs_are_looked_up() {
    // Red goes up, green goes down, blue is 7: as 16-bit levels, and as some programs write them.
    for shift in [8, 0] {
        let levels = (0..256).chain((0..256).rev()).chain([7; 256]);
        let levels: Vec<u16> = levels.map(|level: u16| level << shift).collect();
        let file = tiff(
            3,
            1,
            &[(258, &[8]), (262, &[3]), (320, &levels)],
            &[0, 100, 255],
        );
        let img = read(&file).unwrap();
        let pixels: Vec<_> = img.pixels().map(|pixel| pixel.0).collect();
        assert_eq!(pixels, [[0, 255, 7], [100, 155, 7], [255, 0, 7]]);
        let short = tiff(
            3,
            1,
            &[(258, &[8]), (262, &[3]), (320, &levels[..767])],
            &[0, 1, 2],
        );
        assert!(read(&short).is_err());
    }
}

#[test]
fn samples_of_tiffs_that_are_not_read_are_named() {
    let refused = |tags: &[(u16, &[u16])]| read(&tiff(2, 2, tags, &[0; 64])).unwrap_err();
    let rgb = [8; 3].as_slice();
    type Tags<'a> = &'a [(u16, &'a [u16])];
    let cases: [(Tags, &str); 9] = [
        (&[(258, &[32]), (262, &[1]), (339, &[3])], "floating-point"),
        (
            &[(258, &[32; 3]), (262, &[2]), (277, &[3]), (339, &[3; 3])],
            "floating-point",
        ),
        (&[(258, &[32]), (262, &[1]), (339, &[2])], "with a sign"),
        (&[(258, &[16]), (262, &[1]), (339, &[2])], "with a sign"),
        (&[(258, &[32]), (262, &[1])], "more than 16 bits"),
        (&[(258, rgb), (262, &[6]), (277, &[3])], "YCbCr"),
        (&[(258, rgb), (262, &[8]), (277, &[3])], "CIELab"),
        (
            &[(258, &[8; 2]), (262, &[1]), (277, &[2])],
            "grey with alpha",
        ),
        (&[(258, &[4]), (262, &[3]), (320, &[0; 48])], "a palette"),
    ];
    for (tags, what) in cases {
        let message = refused(tags).to_string();
        assert!(
            message.contains("a TIFF") && message.contains(what),
            "{message}"
        );
    }
    let plain = tiff(2, 2, &[(258, &[8]), (262, &[1])], &[1, 2, 3, 4]);
    assert_eq!(read(&plain).unwrap().get_pixel(1, 1).0, [4; 3]);
}

#[test]
fn inks_of_tiffs_become_colours() {
    let tags: [(u16, &[u16]); 3] = [(258, &[8; 4]), (262, &[5]), (277, &[4])];
    let img = read(&tiff(2, 1, &tags, &[191, 64, 63, 0, 100, 0, 50, 80])).unwrap();
    // Pillow 13 has 141 for the last level: it rounds where the decoder does not.
    assert_eq!(img.get_pixel(0, 0).0, [64, 191, 192]);
    assert_eq!(img.get_pixel(1, 0).0, [106, 175, 140]);
}

/// Other rounding than libtiff's, which Pillow uses: by one level at most.
#[test]
fn jpeg_in_a_tiff_is_one_level_off_at_most() {
    let grey = ImageBuffer::from_fn(16, 16, |x, y| Luma([(x * 9 + y * 5) as u8]));
    let jpeg = encode(grey, ImageFormat::Jpeg);
    let file = tiff(16, 16, &[(258, &[8]), (259, &[7]), (262, &[1])], &jpeg);
    let (actual, expected) = (read(&file).unwrap(), read(&jpeg).unwrap());
    let off = actual
        .iter()
        .zip(expected.iter())
        .map(|(a, b)| a.abs_diff(*b));
    assert!(off.max().unwrap() <= 1);
}

#[test]
fn a_wrong_checksum_of_a_pngs_pixels_is_refused() {
    let img = RgbImage::from_fn(20, 10, |x, y| Rgb([(x * y) as u8, x as u8, y as u8]));
    let mut file = encode(img, ImageFormat::Png);
    assert!(read(&file).is_ok());
    // The last chunk of pixels: its stream ends with the checksum of what is packed in it.
    let idat = file.windows(4).rposition(|kind| kind == b"IDAT").unwrap();
    let length = u32::from_be_bytes(file[idat - 4..idat].try_into().unwrap()) as usize;
    let end = idat + 4 + length;
    file[end - 1] ^= 1;
    let mut crc = flate2::Crc::new();
    crc.update(&file[idat..end]);
    file[end..end + 4].copy_from_slice(&crc.sum().to_be_bytes());
    let message = read(&file).unwrap_err().to_string();
    assert!(message.contains("checksum of the pixels"), "{message}");
}

#[test]
fn gif_and_bmp_without_their_last_bytes_are_noted() {
    let notes = |file: &[u8]| decode_noted(file, &Limits::default()).map(|read| read.notes);
    let img = RgbImage::from_fn(5, 4, |x, y| Rgb([(x * 50) as u8, (y * 60) as u8, 9]));
    let gif = encode(img.clone(), ImageFormat::Gif);
    assert_eq!(notes(&gif).unwrap(), []);
    assert_eq!(notes(&gif[..gif.len() - 1]).unwrap(), [Note::NoEnd]);
    assert!(notes(&gif[..gif.len() / 2]).is_err());

    // Rows of 15 bytes, filled up to 16.
    let bmp = encode(img.clone(), ImageFormat::Bmp);
    assert_eq!(notes(&bmp).unwrap(), []);
    let cut = &bmp[..bmp.len() - 1];
    assert_eq!(notes(cut).unwrap(), [Note::NoEnd]);
    assert_eq!(read(cut).unwrap(), img);
    assert!(notes(&bmp[..bmp.len() - 2]).is_err());
}

#[test]
fn notes_are_kept_however_a_photo_is_read() {
    let path = data("../pillow").join("baseline-with-zeros-for-end.jpg");
    let limits = Limits::default();
    let reduced = decode_reduced(&std::fs::read(&path).unwrap(), &limits, 1).unwrap();
    assert_eq!(reduced.notes, [Note::NoEnd]);
    assert_eq!(open_stored(&path, &limits).unwrap().notes, [Note::NoEnd]);
}

proptest! {
    /// Sizes, places and kinds that a file states may be anything.
    #[test]
    fn changed_files_do_not_panic(
        kind in 0..4_usize,
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<proptest::sample::Index>(),
    ) {
        let img = RgbImage::from_fn(5, 4, |x, y| Rgb([(x * 50) as u8, (y * 60) as u8, 9]));
        let levels: Vec<u16> = (0..768).map(|level| level * 80).collect();
        let mut file = match kind {
            0 => tiff(5, 4, &[(258, &[8]), (262, &[3]), (320, &levels)], &[7; 20]),
            1 => encode(img, ImageFormat::Gif),
            2 => encode(img, ImageFormat::Bmp),
            _ => encode(img, ImageFormat::Png),
        };
        for (at, value) in changes {
            let at = at.index(file.len());
            file[at] = value;
        }
        file.truncate(cut.index(4 * file.len()).max(1));
        let limits = Limits { max_side: 1000, max_pixels: 100_000, ..Limits::default() };
        if let Ok(read) = decode_noted(&file, &limits) {
            prop_assert!(read.image.width() <= 1000 && read.image.height() <= 1000);
        }
    }
}
