//! How a photo is to be turned, from what its file says beside the pixels: the order of Pillow's
//! `Image.getexif`, which `ImageOps.exif_transpose` goes by.
//!
//! 1. The EXIF block, wherever it stands (in a PNG also behind the pixels), or else ImageMagick's
//!    `Raw profile type exif`. An orientation there decides, also one that means nothing.
//! 2. XMP's `tiff:Orientation`, where EXIF has none.
//!
//! Blocks that cannot be read say nothing: unreadable metadata is no reason to refuse readable
//! pixels. (Pillow raises an error for some of them.)

use std::borrow::Cow;
use std::ops::Range;

use image::metadata::Orientation;

const ORIENTATION: u16 = 0x0112;

/// What a file says about itself.
#[derive(Debug, Default)]
pub(super) struct Metadata<'a> {
    /// A TIFF header and its directory, with or without `Exif\0\0` before it.
    pub(super) exif: Option<Cow<'a, [u8]>>,
    /// The same out of the text chunk that ImageMagick writes; counts where there is no `exif`.
    pub(super) raw_profile: Option<Vec<u8>>,
    /// An XMP packet.
    pub(super) xmp: Option<Cow<'a, [u8]>>,
}

impl Metadata<'_> {
    /// The turn that makes the photo upright.
    pub(super) fn orientation(&self) -> Orientation {
        let exif = self.exif.as_deref().or(self.raw_profile.as_deref());
        exif.and_then(exif_orientation)
            .or_else(|| self.xmp.as_deref().and_then(xmp_orientation))
            .and_then(|value| u8::try_from(value).ok())
            .and_then(Orientation::from_exif)
            .unwrap_or(Orientation::NoTransforms)
    }
}

/// The orientation in an EXIF block; a value that is no whole number counts as 0, which means nothing.
fn exif_orientation(mut block: &[u8]) -> Option<u64> {
    while let Some(rest) = block.strip_prefix(b"Exif\0\0") {
        block = rest;
    }
    let value = Ifd::first(block)?.find(ORIENTATION)?;
    Some(value.numbers().next().unwrap_or(0))
}

/// The digit behind the first `tiff:Orientation="` or `tiff:Orientation>`.
fn xmp_orientation(packet: &[u8]) -> Option<u64> {
    const NAME: &[u8] = b"tiff:Orientation";
    let mut rest = packet;
    while let Some(at) = rest.windows(NAME.len()).position(|part| part == NAME) {
        rest = &rest[at + NAME.len()..];
        let value = rest.strip_prefix(b"=\"").or(rest.strip_prefix(b">"));
        if let Some(&[digit @ b'0'..=b'9', ..]) = value {
            return Some(u64::from(digit - b'0'));
        }
    }
    None
}

/// The bytes of a raw profile: hexadecimal digits behind an empty line, a name and a length.
pub(super) fn raw_profile(text: &[u8]) -> Option<Vec<u8>> {
    let mut digits = text
        .split(|&byte| byte == b'\n')
        .skip(3)
        .flatten()
        .filter(|byte| !byte.is_ascii_whitespace())
        .map(|&byte| char::from(byte).to_digit(16));
    let mut bytes = Vec::new();
    while let Some(high) = digits.next() {
        let (high, low) = (high?, digits.next()??);
        bytes.push(u8::try_from(high << 4 | low).ok()?);
    }
    Some(bytes)
}

/// The first directory of a TIFF file or EXIF block. Nothing is copied; what lies outside is not there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ifd<'a> {
    block: &'a [u8],
    is_big_endian: bool,
    /// BigTIFF: 64-bit counts and offsets.
    is_big: bool,
    entries: &'a [u8],
    /// Where the entries begin.
    start: usize,
}

/// The values of one tag.
#[derive(Debug, Clone, Copy)]
pub(super) struct Value<'a> {
    kind: u16,
    is_big_endian: bool,
    /// The values' bytes, no more than there are.
    pub(super) bytes: &'a [u8],
    /// Where they begin.
    at: usize,
}

impl<'a> Ifd<'a> {
    pub(super) fn first(block: &'a [u8]) -> Option<Self> {
        let (is_big_endian, is_big) = match block.get(..4)? {
            b"II*\0" | b"II\0*" => (false, false),
            b"MM\0*" | b"MM*\0" => (true, false),
            b"II+\0" => (false, true),
            b"MM\0+" => (true, true),
            _ => return None,
        };
        let read = |at: usize, width: usize| number(block.get(at..)?.get(..width)?, is_big_endian);
        let (at, count, entries) = match is_big {
            false => {
                let at = usize::try_from(read(4, 4)?).ok()?;
                (at, read(at, 2)?, at.checked_add(2)?)
            }
            true => {
                let at = usize::try_from(read(8, 8)?).ok()?;
                (at, read(at, 8)?, at.checked_add(8)?)
            }
        };
        debug_assert!(entries > at);
        let width = if is_big { 20 } else { 12 };
        let rest = block.get(entries..)?;
        let length = usize::try_from(count).ok()?.saturating_mul(width);
        Some(Self {
            block,
            is_big_endian,
            is_big,
            entries: &rest[..length.min(rest.len())],
            start: entries,
        })
    }

    /// The values of a tag; of one that is there twice, the last.
    pub(super) fn find(&self, tag: u16) -> Option<Value<'a>> {
        let (width, count_width) = if self.is_big { (20, 8) } else { (12, 4) };
        let read = |bytes: &[u8]| number(bytes, self.is_big_endian);
        let mut entries = self.entries.chunks_exact(width);
        let index = entries.rposition(|entry| read(&entry[..2]) == Some(u64::from(tag)))?;
        let entry = &self.entries[index * width..][..width];
        let kind = u16::try_from(read(&entry[2..4])?).ok()?;
        let count = usize::try_from(read(&entry[4..4 + count_width])?).ok()?;
        let inline = &entry[4 + count_width..];
        let length = count.saturating_mul(width_of(kind));
        let (at, place) = match length <= inline.len() {
            true => (self.start + index * width + 4 + count_width, inline),
            false => {
                let at = usize::try_from(read(inline)?).ok()?;
                (at, self.block.get(at..)?)
            }
        };
        Some(Value {
            kind,
            is_big_endian: self.is_big_endian,
            bytes: &place[..length.min(place.len())],
            at,
        })
    }
}

impl Value<'_> {
    /// Where in the block the values stand.
    pub(super) fn range(&self) -> Range<usize> {
        self.at..self.at + self.bytes.len()
    }

    /// The values, where they are whole numbers; negative ones are large.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u64> {
        // SHORT, LONG, SSHORT, SLONG and those of BigTIFF.
        let width = match self.kind {
            3 | 8 => 2,
            4 | 9 => 4,
            16 | 17 => 8,
            _ => usize::MAX,
        };
        self.bytes
            .chunks_exact(width)
            .filter_map(|bytes| number(bytes, self.is_big_endian))
    }
}

/// Bytes of one value of a TIFF type.
fn width_of(kind: u16) -> usize {
    match kind {
        3 | 8 => 2,
        4 | 9 | 11 | 13 => 4,
        5 | 10 | 12 | 16..=18 => 8,
        _ => 1,
    }
}

/// At most 8 bytes as a number.
fn number(bytes: &[u8], is_big_endian: bool) -> Option<u64> {
    let join = |number: u64, &byte: &u8| number << 8 | u64::from(byte);
    match is_big_endian {
        true => Some(bytes.iter().fold(0, join)),
        false => Some(bytes.iter().rev().fold(0, join)),
    }
}
