//! The chunks of a PNG: what it says about itself, and the faults that Pillow reads over.

use std::borrow::Cow;
use std::io::Read;

use flate2::Crc;
use flate2::read::ZlibDecoder;

use super::metadata::{Metadata, raw_profile};
use super::{Limits, Note, check_dimensions};

pub(super) const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// Bytes that compressed texts of one file may become: real ones have a few thousand.
const MAX_TEXT: u64 = 4 << 20;

/// A piece of a PNG.
#[derive(Debug, Clone, Copy)]
struct Chunk<'a> {
    kind: [u8; 4],
    /// What there is of it: less than it states where the file is cut.
    data: &'a [u8],
    /// The checksum behind it, if that is there.
    checksum: Option<u32>,
    is_whole: bool,
}

/// The chunks up to the end mark, or to where there are none.
fn chunks(file: &[u8]) -> impl Iterator<Item = Chunk<'_>> {
    let mut rest = file.strip_prefix(SIGNATURE).unwrap_or(&[]);
    std::iter::from_fn(move || {
        let &[l3, l2, l1, l0, k0, k1, k2, k3, ref data @ ..] = rest else {
            return None;
        };
        let kind = [k0, k1, k2, k3];
        if !kind.iter().all(u8::is_ascii_alphabetic) {
            return None;
        }
        let length = u32::from_be_bytes([l3, l2, l1, l0]) as usize;
        let (data, behind) = data.split_at(length.min(data.len()));
        let (checksum, next) = match behind {
            &[c3, c2, c1, c0, ref next @ ..] => (Some(u32::from_be_bytes([c3, c2, c1, c0])), next),
            _ => (None, &[][..]),
        };
        rest = if &kind == b"IEND" { &[] } else { next };
        Some(Chunk {
            kind,
            data,
            checksum,
            is_whole: data.len() == length,
        })
    })
}

/// Whether the end mark is there.
pub(super) fn has_end(file: &[u8]) -> bool {
    chunks(file).any(|chunk| &chunk.kind == b"IEND")
}

/// What the chunks say, also those behind the pixels. Of a thing that is said twice, the last counts.
pub(super) fn metadata(file: &[u8]) -> Metadata<'_> {
    let mut metadata = Metadata::default();
    let mut budget = MAX_TEXT;
    for chunk in chunks(file).filter(|chunk| chunk.is_whole) {
        if &chunk.kind == b"eXIf" {
            metadata.exif = Some(chunk.data.into());
            continue;
        }
        let Some((key, text)) = text_of(&chunk, &mut budget) else {
            continue;
        };
        match key {
            b"exif" if &chunk.kind == b"tEXt" => metadata.exif = Some(text),
            b"Raw profile type exif" => metadata.raw_profile = raw_profile(&text),
            b"XML:com.adobe.xmp" => metadata.xmp = Some(text),
            _ => {}
        }
    }
    metadata
}

/// Key and value of a text chunk, if it is one that says how to turn the photo.
fn text_of<'a>(chunk: &Chunk<'a>, budget: &mut u64) -> Option<(&'a [u8], Cow<'a, [u8]>)> {
    const KEYS: [&[u8]; 3] = [b"exif", b"Raw profile type exif", b"XML:com.adobe.xmp"];
    let (key, rest) = split_at_zero(chunk.data)?;
    if !KEYS.contains(&key) {
        return None;
    }
    let (is_compressed, text) = match (&chunk.kind, rest) {
        (b"tEXt", text) => (false, text),
        (b"zTXt", [0, text @ ..]) => (true, text),
        (b"iTXt", &[is_compressed, 0, ref rest @ ..]) => {
            let (_language, rest) = split_at_zero(rest)?;
            let (_translated, text) = split_at_zero(rest)?;
            (is_compressed != 0, text)
        }
        _ => return None,
    };
    if !is_compressed {
        return Some((key, text.into()));
    }
    let mut inflated = Vec::new();
    let read = ZlibDecoder::new(text)
        .take(*budget)
        .read_to_end(&mut inflated);
    *budget = budget.saturating_sub(inflated.len() as u64);
    read.ok()?;
    Some((key, inflated.into()))
}

fn split_at_zero(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let zero = bytes.iter().position(|&byte| byte == 0)?;
    Some((&bytes[..zero], &bytes[zero + 1..]))
}

/// The file without the faults that Pillow reads over: an end mark that is missing or cut, and wrong
/// or missing checksums of pixel data whose own checksum is right. `None` where there are none of them.
///
/// Whether all pixels are there is for the decoder to say.
pub(super) fn mended(file: &[u8], limits: &Limits) -> Option<(Vec<u8>, Vec<Note>)> {
    let mut mended = SIGNATURE.to_vec();
    let (mut has_end, mut is_cut, mut has_wrong) = (false, false, false);
    let mut pixels = Vec::new();
    for chunk in chunks(file) {
        let is_pixels = &chunk.kind == b"IDAT";
        // Behind a cut chunk there is nothing, and a cut one that is no pixels is of no use.
        if !chunk.is_whole && !is_pixels {
            break;
        }
        has_end |= &chunk.kind == b"IEND";
        let actual = checksum_of(&chunk);
        let is_right = chunk.checksum == Some(actual);
        if is_pixels {
            pixels.push(chunk.data);
            is_cut |= chunk.checksum.is_none();
            has_wrong |= !is_right && chunk.checksum.is_some();
        }
        let stated = match chunk.checksum {
            // Wrong elsewhere: the decoder refuses it, as Pillow does.
            Some(stated) if !is_pixels && &chunk.kind != b"IEND" => stated,
            _ => actual,
        };
        push(&mut mended, &chunk, stated);
        if is_cut || has_end {
            break;
        }
    }
    if pixels.is_empty() || (has_end && !has_wrong) {
        return None;
    }
    if has_wrong && !is_sound(&pixels, most_bytes(file, limits)?) {
        return None;
    }
    if !has_end {
        let end = Chunk {
            kind: *b"IEND",
            data: &[],
            checksum: None,
            is_whole: true,
        };
        push(&mut mended, &end, checksum_of(&end));
    }
    let notes = [(!has_end, Note::NoEnd), (has_wrong, Note::BadChecksum)];
    let notes = notes.into_iter().filter(|(is_so, _)| *is_so);
    Some((mended, notes.map(|(_, note)| note).collect()))
}

fn checksum_of(chunk: &Chunk<'_>) -> u32 {
    let mut crc = Crc::new();
    crc.update(&chunk.kind);
    crc.update(chunk.data);
    crc.sum()
}

fn push(file: &mut Vec<u8>, chunk: &Chunk<'_>, checksum: u32) {
    // No longer than it was in the file, whose lengths have 32 bits.
    let length = u32::try_from(chunk.data.len()).unwrap_or(u32::MAX);
    file.extend(length.to_be_bytes());
    file.extend(chunk.kind);
    file.extend(chunk.data);
    file.extend(checksum.to_be_bytes());
}

/// Most bytes that compressed pixels may become, by the header: those of all pixels, and for each row
/// the filter and what the last byte is filled up with. Interlaced photos have fewer than two rows for
/// one, besides one for each of the seven passes.
fn most_bytes(file: &[u8], limits: &Limits) -> Option<u64> {
    let header = chunks(file).next().filter(|chunk| &chunk.kind == b"IHDR")?;
    let &[w3, w2, w1, w0, h3, h2, h1, h0, depth, colour, ..] = header.data else {
        return None;
    };
    let [width, height] = [[w3, w2, w1, w0], [h3, h2, h1, h0]].map(u32::from_be_bytes);
    check_dimensions((width, height), limits).ok()?;
    let channels = match colour {
        2 => 3,
        4 => 2,
        6 => 4,
        _ => 1,
    };
    let [width, height] = [width, height].map(u64::from);
    let bits = width * height * channels * u64::from(depth);
    Some(bits.div_ceil(8) + 2 * (2 * height + 7))
}

/// Whether the pixels have the checksum that their compressed stream ends with, as far as it goes: the
/// decoder does not look. More bytes than pixels need are for the decoder to judge.
pub(super) fn has_right_pixels(file: &[u8], limits: &Limits) -> bool {
    let pixels = chunks(file).filter(|chunk| &chunk.kind == b"IDAT");
    let parts: Vec<&[u8]> = pixels.map(|chunk| chunk.data).collect();
    most_bytes(file, limits).is_none_or(|most| inflated(&parts, most).is_some())
}

/// Whether compressed pixels hold what their own checksum says, as far as they go, and no more than
/// `most` bytes.
fn is_sound(parts: &[&[u8]], most: u64) -> bool {
    inflated(parts, most).is_some_and(|bytes| bytes <= most)
}

/// How many bytes compressed pixels become, counted to one beyond `most`; `None` where they are damaged.
fn inflated(parts: &[&[u8]], most: u64) -> Option<u64> {
    let parts = Parts {
        first: &[],
        rest: parts.iter().copied(),
    };
    let mut inflated = ZlibDecoder::new(parts).take(most + 1);
    match std::io::copy(&mut inflated, &mut std::io::sink()) {
        Ok(bytes) => Some(bytes),
        // Cut short, which is for the decoder to say.
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Some(0),
        Err(_) => None,
    }
}

/// Reads slices one after the other.
struct Parts<'a, I> {
    first: &'a [u8],
    rest: I,
}

impl<'a, I: Iterator<Item = &'a [u8]>> Read for Parts<'a, I> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        while self.first.is_empty() {
            match self.rest.next() {
                Some(next) => self.first = next,
                None => return Ok(0),
            }
        }
        self.first.read(out)
    }
}
