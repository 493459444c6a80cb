//! Values of parameters as clients write them.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use percept_labels::parse_labels;
use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer};

use crate::config::MAX_LABELS;

/// What some editors put before a text.
pub(crate) const BYTE_ORDER_MARK: char = '\u{FEFF}';

/// Base64 with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Base64 as it comes: in lines, with the alphabet of URLs, without padding, as a `data:` URL.
pub(crate) fn from_base64(text: &str) -> Result<Vec<u8>, String> {
    let text = text.trim_start_matches(BYTE_ORDER_MARK).trim_start();
    let data = match text.split_once(',') {
        Some((head, data)) if head.starts_with("data:") => match head.ends_with(";base64") {
            true => data,
            false => return Err("a data: URL that is not in base64".into()),
        },
        _ if text.starts_with("http://") || text.starts_with("https://") => {
            return Err("a web address; send the photo itself, in base64".into());
        }
        _ => text,
    };
    let standard: Vec<u8> = data
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .map(|byte| match byte {
            b'-' => b'+',
            b'_' => b'/',
            byte => byte,
        })
        .collect();
    BASE64
        .decode(standard)
        .map_err(|error| format!("not base64: {error}"))
}

/// Labels, words or texts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names(pub(crate) Vec<String>);

impl<'de> Deserialize<'de> for Names {
    /// A list of strings, or one string: names with commas between them, or a list in JSON.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(List(|text: &str| {
            // One more than is allowed is enough to tell.
            let names = text.split(',').take(MAX_LABELS + 2);
            let mut names: Vec<_> = names.map(|name| name.trim().to_owned()).collect();
            // A trailing comma is a slip, not a label.
            if names.len() > 1 && names.last().is_some_and(String::is_empty) {
                names.pop();
            }
            Ok(Names(names))
        }))
    }
}

/// Reads a list, or a string that holds one in JSON; any other string is for the function.
struct List<F>(F);

impl<'de, F: FnOnce(&str) -> Result<Names, String>> Visitor<'de> for List<F> {
    type Value = Names;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list of strings, or one with commas")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Names, E> {
        let text = text.trim_start_matches(BYTE_ORDER_MARK).trim();
        match text.starts_with(['[', '{']) {
            true => names_in_json(text),
            false => (self.0)(text),
        }
        .map_err(E::custom)
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<Names, A::Error> {
        let mut names = Vec::new();
        while let Some(name) = list.next_element::<Name>()? {
            if names.len() >= MAX_LABELS {
                let reason = format!("more than {MAX_LABELS} in a list");
                return Err(A::Error::custom(reason));
            }
            names.push(name.0);
        }
        Ok(Names(names))
    }
}

/// Labels: as [`Names`], but for one string, which is read as the command line reads it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Labels(pub(crate) Names);

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_any(List(|text: &str| {
                let labels = parse_labels(text).map_err(|refused| refused.to_string())?;
                Ok(Names(labels.into_iter().map(|label| label.name).collect()))
            }))
            .map(Self)
    }
}

/// A list in JSON that is the text of a field.
fn names_in_json(text: &str) -> Result<Names, String> {
    if text.starts_with('{') {
        return Err("an object where a list of texts is meant".into());
    }
    serde_json::from_str(text).map_err(|error| format!("a list in JSON is meant: {error}"))
}

/// One of a list of names.
struct Name(String);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Name;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a text")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Name, E> {
                let text = text.trim_start_matches(BYTE_ORDER_MARK);
                if text.trim_start().starts_with(['[', '{']) {
                    return Err(E::custom("a list or an object inside of a list"));
                }
                Ok(Name(text.to_owned()))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// `labels[1]: `, or nothing where the whole is at fault.
pub(crate) fn place(path: &serde_path_to_error::Path) -> String {
    match path.iter().next() {
        None => String::new(),
        Some(serde_path_to_error::Segment::Unknown) => String::new(),
        // A key may be as long as the body.
        Some(_) => format!("{:.80}: ", path.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As on the command line.
    #[test]
    fn labels_in_one_string_may_stand_in_quotes_and_lines() {
        for (text, expected) in [
            ("dog, grass,", vec!["dog", "grass"]),
            (r#""Paris, France", dog"#, vec!["Paris, France", "dog"]),
            ("dog\r\nhot  dog\n", vec!["dog", "hot dog"]),
            ("狗，猫", vec!["狗", "猫"]),
            (r#"["dog", "a, b"]"#, vec!["dog", "a, b"]),
        ] {
            let json = serde_json::to_string(text).unwrap();
            let labels = serde_json::from_str::<Labels>(&json).unwrap();
            assert_eq!(labels.0.0, expected);
        }
        assert!(serde_json::from_str::<Labels>(r#""\"dog, cat""#).is_err());
    }

    #[test]
    fn lists_of_names_are_bounded() {
        let many = serde_json::to_string(&vec!["a"; 10_000]).unwrap();
        assert!(serde_json::from_str::<Names>(&many).is_err());
        let names = serde_json::from_str::<Names>("\"dog, grass,\"").unwrap();
        assert_eq!(names.0, ["dog", "grass"]);
        let names = serde_json::from_str::<Names>(r#""\uFEFF[\"dog\", \"a, b\"]""#).unwrap();
        assert_eq!(names.0, ["dog", "a, b"]);
        for wrong in [
            r#"[{"name": "dog"}]"#,
            r#"["[\"dog\"]"]"#,
            r#""[dog, cat]""#,
            r#""{}""#,
            "[1]",
        ] {
            assert!(serde_json::from_str::<Names>(wrong).is_err(), "{wrong}");
        }
    }
}
