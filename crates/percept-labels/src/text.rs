//! Bytes to text, whatever the editor that wrote them.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use unicode_normalization::UnicodeNormalization;

use crate::{FileError, Refused};

/// Class and template files are text; this is room for [`MAX_LABELS`](crate::MAX_LABELS) with synonyms.
pub const MAX_FILE_BYTES: u64 = 4 << 20;

/// Reads a text file of at most [`MAX_FILE_BYTES`], as [`decode`] does.
///
/// # Errors
/// It cannot be read, is larger, or is no text.
pub fn read_text(path: &Path) -> Result<String, FileError> {
    let io = |source| FileError::Io {
        path: path.to_owned(),
        source,
    };
    let refused = |refused| FileError::Refused {
        path: path.to_owned(),
        refused,
    };
    let mut bytes = Vec::new();
    // Pipes do not tell their length.
    File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(io)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(refused(Refused::new("larger than 4 MiB")));
    }
    decode(&bytes).map_err(refused)
}

/// Text as people mean it: UTF-8, or UTF-16 with a byte order mark; lines end with `\n`; marks that
/// nobody sees are gone (byte order marks anywhere, zero-width spaces, soft hyphens, marks of
/// direction); letters with accents are one character (NFC).
///
/// # Errors
/// It is in another encoding, or holds control characters: the line says where.
pub fn decode(bytes: &[u8]) -> Result<String, Refused> {
    if bytes.starts_with(b"\xFF\xFE\0\0") || bytes.starts_with(b"\0\0\xFE\xFF") {
        return Err(Refused::new("is UTF-32; save it as UTF-8"));
    }
    if let Some(reason) = document(bytes) {
        return Err(Refused::new(reason));
    }
    let text = match bytes {
        [0xFF, 0xFE, rest @ ..] => utf16(rest, u16::from_le_bytes)?,
        [0xFE, 0xFF, rest @ ..] => utf16(rest, u16::from_be_bytes)?,
        _ => utf8(bytes)?,
    };
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '\r' => {
                characters.next_if_eq(&'\n');
                plain.push('\n');
            }
            // Page breaks, and what Unicode has for line ends.
            '\u{B}' | '\u{C}' | '\u{85}' | '\u{2028}' | '\u{2029}' => plain.push('\n'),
            c => plain.push(c),
        }
    }
    let plain = visible(&plain);
    for (line, text) in (1..).zip(plain.split('\n')) {
        if let Some(c) = text.chars().find(|c| c.is_control() && *c != '\t') {
            let what = match c {
                '\0' => "a NUL byte: this is no text, or UTF-16 without its mark".to_owned(),
                c => format!("the control character U+{:04X}", u32::from(c)),
            };
            return Err(Refused::at(line, what));
        }
    }
    Ok(plain)
}

/// What a program's document is that was given as text, and what to do.
fn document(bytes: &[u8]) -> Option<&'static str> {
    let has = |name: &[u8]| bytes.windows(name.len()).any(|part| part == name);
    match bytes {
        // Names of an archive's members stand in it as they are.
        [b'P', b'K', 3, 4, ..] if has(b"xl/") => {
            Some("is an Excel workbook; save it as CSV UTF-8, with the names alone")
        }
        [b'P', b'K', 3, 4, ..] if has(b"word/") => {
            Some("is a Word document; save it as plain text in UTF-8")
        }
        [b'P', b'K', 3, 4, ..] if has(b"opendocument") => {
            Some("is an OpenDocument file; save it as CSV or text in UTF-8")
        }
        [b'P', b'K', 3, 4, ..] => Some("is a ZIP archive; unpack it first"),
        [0xD0, 0xCF, 0x11, 0xE0, ..] => {
            Some("is a document of an older Office; save it as CSV UTF-8 or plain text")
        }
        [0x1F, 0x8B, ..] => Some("is compressed with gzip; unpack it first"),
        [b'%', b'P', b'D', b'F', ..] => Some("is a PDF; save its text as UTF-8"),
        [b'{', b'\\', b'r', b't', b'f', ..] => Some("is rich text (RTF); save it as plain text"),
        _ => None,
    }
}

fn utf8(bytes: &[u8]) -> Result<String, Refused> {
    let error = match std::str::from_utf8(bytes) {
        Ok(text) => return Ok(text.to_owned()),
        Err(error) => error,
    };
    let (before, wrong) = bytes.split_at(error.valid_up_to());
    let ends = before
        .iter()
        .zip(before.iter().skip(1).chain([&0]))
        .filter(|&(&c, &next)| c == b'\n' || c == b'\r' && next != b'\n');
    Err(Refused::at(
        ends.count() + 1,
        format!(
            "byte 0x{:02X} is not UTF-8 (Latin-1, Windows-1252 or GBK?); save the file as UTF-8",
            wrong.first().unwrap_or(&0)
        ),
    ))
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<String, Refused> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let mut text = String::with_capacity(pairs.len());
    for c in char::decode_utf16(pairs.iter().map(|pair| unit(*pair))) {
        match c {
            Ok(c) => text.push(c),
            Err(_) => return Err(broken_utf16(&text)),
        }
    }
    match rest {
        [] => Ok(text),
        _ => Err(broken_utf16(&text)),
    }
}

fn broken_utf16(before: &str) -> Refused {
    let line = before.lines().count().max(1);
    Refused::at(line, "broken UTF-16; save the file as UTF-8")
}

/// The text without marks that nobody sees, in NFC.
pub(crate) fn visible(text: &str) -> String {
    let shown: Vec<char> = text.chars().filter(|c| !is_mark(*c)).nfc().collect();
    let mut kept = String::with_capacity(text.len());
    let mut rest = shown.as_slice();
    let mut last = ' ';
    while let [first, behind @ ..] = rest {
        let joiners = rest.iter().take_while(|c| is_joiner(**c)).count();
        if joiners == 0 {
            kept.push(*first);
            (last, rest) = (*first, behind);
            continue;
        }
        // Spelling between letters of Persian or Hindi and in emoji, else left over.
        let (run, behind) = rest.split_at(joiners);
        if !last.is_ascii() && behind.first().is_some_and(|next| !next.is_ascii()) {
            kept.extend(run);
        }
        rest = behind;
    }
    // Letters and accents may have met.
    kept.nfc().collect()
}

/// Byte order mark, zero-width space, word joiner, soft hyphen, marks of direction.
fn is_mark(c: char) -> bool {
    matches!(
        c,
        '\u{FEFF}' | '\u{200B}' | '\u{2060}' | '\u{AD}' | '\u{200E}' | '\u{200F}'
    ) || matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

fn is_joiner(c: char) -> bool {
    matches!(c, '\u{200C}' | '\u{200D}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_encoding_that_says_what_it_is_gives_the_same_text() {
        let expected = "café\ndog\n";
        let utf16 = |unit: fn(u16) -> [u8; 2]| -> Vec<u8> {
            let text = "\u{FEFF}café\r\ndog\r\n";
            text.encode_utf16().flat_map(unit).collect()
        };
        for bytes in [
            expected.as_bytes().to_vec(),
            "\u{FEFF}café\r\ndog\r\n".into(),
            "café\rdog\r".into(),
            "caf\u{65}\u{301}\u{2028}\u{FEFF}dog\u{85}".into(),
            "ca\u{AD}fé\u{200B}\n\u{200E}do\u{200D}g\n".into(),
            utf16(u16::to_le_bytes),
            utf16(u16::to_be_bytes),
        ] {
            assert_eq!(decode(&bytes).unwrap(), expected, "{bytes:?}");
        }
        // A family and a Persian word need their joiners.
        for text in ["👨\u{200D}👩", "می\u{200C}خواهم"] {
            assert_eq!(decode(text.as_bytes()).unwrap(), text);
        }
    }

    #[test]
    fn what_is_no_text_is_refused_with_its_line() {
        for (bytes, line, reason) in [
            (&b"dog\ncaf\xE9\n"[..], Some(2), "0xE9 is not UTF-8"),
            (b"dog\rcat\r\ncaf\xE9", Some(3), "0xE9 is not UTF-8"),
            (b"cat\n\0d\0o", Some(2), "NUL"),
            (b"cat\nd\x1Bog", Some(2), "U+001B"),
            (b"\xFF\xFE\0\0c\0\0\0", None, "UTF-32"),
            (b"\xFF\xFEc\0a", Some(1), "broken UTF-16"),
            (b"\xFF\xFEc\0\n\0\x00\xD8", Some(1), "broken UTF-16"),
        ] {
            let refused = decode(bytes).unwrap_err();
            assert_eq!(refused.line, line, "{refused}");
            assert!(refused.reason.contains(reason), "{refused}");
        }
    }
}
