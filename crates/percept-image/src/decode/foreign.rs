//! What a file is that is no image percept reads, so that the error can say it.

use super::metadata::Ifd;

/// Bytes from the start of a file that are looked at.
const LOOKED_AT: usize = 1024;

/// A kind of file and what to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Foreign {
    pub(super) what: &'static str,
    pub(super) remedy: &'static str,
}

const CONVERT: &str = "convert it to JPEG or PNG first";
const DEVELOP: &str = "develop it to JPEG or PNG first, as with darktable or dcraw";
const DRAW: &str = "draw it as PNG first";
const FRAMES: &str = "take frames out of it first, as with ffmpeg";
const UNPACK: &str = "unpack it first";
const DOWNLOAD: &str = "the download went wrong: fetch the photo again";
const REMOVE: &str = "it is no photo: leave it out";

/// Starts of files.
const STARTS: &[(&[u8], &str, &str)] = &[
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000", CONVERT),
    (b"\xff\x4f\xff\x51", "JPEG 2000", CONVERT),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL", CONVERT),
    (b"\xff\x0a", "JPEG XL", CONVERT),
    (b"II\xbc", "JPEG XR", CONVERT),
    (b"8BPS", "a Photoshop document", CONVERT),
    (b"v/1\x01", "OpenEXR", CONVERT),
    (b"#?RADIANCE", "a Radiance HDR image", CONVERT),
    (b"#?RGBE", "a Radiance HDR image", CONVERT),
    (b"gimp xcf", "a GIMP document", CONVERT),
    (b"DDS ", "a DDS texture", CONVERT),
    (b"qoif", "a QOI image", CONVERT),
    (b"farbfeld", "a farbfeld image", CONVERT),
    (b"BPG\xfb", "a BPG image", CONVERT),
    (b"\0\0\x01\0", "an icon (ICO)", CONVERT),
    (b"\0\0\x02\0", "a cursor (CUR)", CONVERT),
    (b"icns", "an icon (ICNS)", CONVERT),
    (b"\x8aMNG", "an MNG animation", CONVERT),
    (b"\x8bJNG", "a JNG image", CONVERT),
    (b"SIMPLE  =", "a FITS image", CONVERT),
    (b"FUJIFILMCCD-RAW", "a camera's raw file (RAF)", DEVELOP),
    (b"IIU\0", "a camera's raw file (RW2)", DEVELOP),
    (b"IIRO", "a camera's raw file (ORF)", DEVELOP),
    (b"IIRS", "a camera's raw file (ORF)", DEVELOP),
    (b"MMOR", "a camera's raw file (ORF)", DEVELOP),
    (b"FOVb", "a camera's raw file (X3F)", DEVELOP),
    (b"\0MRM", "a camera's raw file (MRW)", DEVELOP),
    (b"%PDF", "a PDF document", DRAW),
    (b"%!PS", "a PostScript document", DRAW),
    (b"\xc5\xd0\xd3\xc6", "a PostScript document", DRAW),
    (b"\x1aE\xdf\xa3", "a video (Matroska or WebM)", FRAMES),
    (b"FLV\x01", "a video (FLV)", FRAMES),
    (b"\0\0\x01\xba", "a video (MPEG)", FRAMES),
    (b"OggS", "an Ogg file", FRAMES),
    (b"PK\x03\x04", "a zip archive", UNPACK),
    (b"\x1f\x8b", "a gzip archive", UNPACK),
    (b"BZh", "a bzip2 archive", UNPACK),
    (b"\xfd7zXZ\0", "an xz archive", UNPACK),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", UNPACK),
    (b"Rar!", "a RAR archive", UNPACK),
    (b"\x93NUMPY", "a NumPy array", "save it as PNG first"),
    (b"\x89HDF", "an HDF5 file", "save its images as PNG first"),
    (
        b"\0\x05\x16\x07",
        "what macOS keeps beside a photo (AppleDouble)",
        REMOVE,
    ),
    (b"ID3", "a sound", REMOVE),
    (b"fLaC", "a sound", REMOVE),
    (
        b"version https://git-lfs",
        "a Git LFS pointer in place of the photo",
        "run `git lfs pull`",
    ),
    (
        b"/9j/",
        "an image in base64",
        "decode it first, as with `base64 -d`",
    ),
    (
        b"iVBORw0KGgo",
        "an image in base64",
        "decode it first, as with `base64 -d`",
    ),
    (
        b"data:image/",
        "an image as a data: URL",
        "decode it first, as with `base64 -d`",
    ),
];

/// Brands of ISO media files.
const BRANDS: &[(&[u8], &str, &str)] = &[
    (b"avif", "AVIF", CONVERT),
    (b"avis", "AVIF", CONVERT),
    (b"crx ", "a camera's raw file (CR3)", DEVELOP),
    (b"jxl ", "JPEG XL", CONVERT),
    (b"heic", "HEIC", CONVERT),
    (b"heix", "HEIC", CONVERT),
    (b"heim", "HEIC", CONVERT),
    (b"heis", "HEIC", CONVERT),
    (b"hevc", "HEIC", CONVERT),
    (b"hevx", "HEIC", CONVERT),
    (b"mif1", "HEIF", CONVERT),
    (b"msf1", "HEIF", CONVERT),
];

/// What `file` is, if that is known and percept does not read it.
pub(super) fn name(file: &[u8]) -> Option<Foreign> {
    let known = |&(_, what, remedy): &(&[u8], _, _)| Foreign { what, remedy };
    let start = &file[..file.len().min(LOOKED_AT)];
    if start.get(4..8) == Some(b"ftyp") {
        return Some(media_file(start));
    }
    if let Some(raw) = raw_photo(file) {
        return Some(raw);
    }
    if let Some(found) = STARTS.iter().find(|(magic, ..)| start.starts_with(magic)) {
        return Some(known(found));
    }
    let is = |what, remedy| Some(Foreign { what, remedy });
    match (start.get(..4), start.get(8..12)) {
        (Some(b"RIFF"), Some(b"AVI ")) => return is("a video (AVI)", FRAMES),
        (Some(b"RIFF"), Some(b"WAVE")) => return is("a sound", REMOVE),
        _ => {}
    }
    if let [b'P', b'1'..=b'7', after, ..] = start
        && after.is_ascii_whitespace()
    {
        return is("a PNM image", CONVERT);
    }
    // What stands further inside says something of files only that are no image by their first bytes.
    if image::guess_format(start).is_ok() {
        return None;
    }
    if start.get(128..132) == Some(b"DICM") {
        return is("a DICOM image", CONVERT);
    }
    if start.get(257..262) == Some(b"ustar") {
        return is("a tar archive", UNPACK);
    }
    if start.len() > 16 && file.iter().all(|&byte| byte == 0) {
        return is("nothing but zero bytes", "the file is lost: fetch it again");
    }
    markup(start)
}

/// An ISO media file by its brands, the main one first.
fn media_file(start: &[u8]) -> Foreign {
    let length = start.get(..4).map_or(0, |length| {
        length.iter().fold(0, |n, &b| n << 8 | usize::from(b))
    });
    let brands = start.get(8..length.min(start.len())).unwrap_or(&[]);
    let brands = brands
        .chunks_exact(4)
        .enumerate()
        // The second is a version.
        .filter(|(i, _)| *i != 1)
        .map(|(_, brand)| brand);
    // `mif1` is also the main brand of many AVIF files.
    let known = |(brand, ..): &&(&[u8], _, _)| brands.clone().any(|named| named == *brand);
    match BRANDS.iter().find(known) {
        Some(&(_, what, remedy)) => Foreign { what, remedy },
        None => Foreign {
            what: "a video (MP4 or QuickTime)",
            remedy: FRAMES,
        },
    }
}

/// Raw files of cameras that are TIFF files in form. Their first picture is a thumbnail.
fn raw_photo(file: &[u8]) -> Option<Foreign> {
    const NEW_SUBFILE_TYPE: u16 = 254;
    const SUB_IFDS: u16 = 330;
    const DNG_VERSION: u16 = 50_706;
    let first = Ifd::first(file)?;
    let what = if file.get(8..10) == Some(b"CR") {
        "a camera's raw file (CR2)"
    } else if first.find(DNG_VERSION).is_some() {
        "a camera's raw file (DNG)"
    } else {
        let kind = first.find(NEW_SUBFILE_TYPE)?.numbers().next()?;
        first.find(SUB_IFDS)?;
        if kind & 1 == 0 {
            return None;
        }
        "a camera's raw file (as NEF or ARW)"
    };
    Some(Foreign {
        what,
        remedy: DEVELOP,
    })
}

/// Texts: drawings, and what servers send in place of a photo.
fn markup(start: &[u8]) -> Option<Foreign> {
    let text = start.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(start);
    let text = String::from_utf8_lossy(text.trim_ascii_start()).to_ascii_lowercase();
    let is = |what, remedy| Some(Foreign { what, remedy });
    if text.starts_with('<') && text.contains("<svg") {
        return is("an SVG drawing", DRAW);
    }
    if text.starts_with("<!doctype html") || text.starts_with('<') && text.contains("<html") {
        return is("an HTML page", DOWNLOAD);
    }
    if text.starts_with("<?xml") {
        return is("an XML document", DOWNLOAD);
    }
    if text.starts_with('{') && text.contains('"') {
        return is("a JSON document", DOWNLOAD);
    }
    None
}
