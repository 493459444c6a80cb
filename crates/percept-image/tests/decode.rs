//! Every kind of file a folder of photos may hold, and some it should not.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

use std::io::Cursor;
use std::path::PathBuf;

use image::{DynamicImage, ImageBuffer, ImageFormat, Luma, LumaA, Rgb, RgbImage, Rgba};
use percept_image::{EXTENSIONS, ImageError, Limits, decode, open};

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
fn alpha_is_dropped_and_colours_kept() {
    let img = ImageBuffer::from_pixel(2, 2, Rgba([200_u8, 100, 50, 0]));
    for format in [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Tiff] {
        let read = read(&encode(img.clone(), format)).unwrap();
        assert_eq!(read.get_pixel(0, 0).0, [200, 100, 50], "{format:?}");
    }
    let grey = ImageBuffer::from_pixel(1, 1, LumaA([77_u8, 3]));
    let img = read(&encode(grey, ImageFormat::Png)).unwrap();
    assert_eq!(img.get_pixel(0, 0).0, [77; 3]);

    // A transparent palette entry.
    let (indexed, eight) = (png::ColorType::Indexed, png::BitDepth::Eight);
    let file = png((1, 1), indexed, eight, &[9, 8, 7], &[0], &[0]);
    assert_eq!(read(&file).unwrap().get_pixel(0, 0).0, [9, 8, 7]);
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
