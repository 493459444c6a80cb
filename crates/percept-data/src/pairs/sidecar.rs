//! What is said of an image: captions as text and in JSON, as tools leave them.

use serde_json::Value;

use super::bad::{Bad, BadKind};
use crate::json::{Item, from_reader, loose};

/// What some editors put first, which is no part of a text.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// A caption without the space around it.
///
/// # Errors
/// It is no UTF-8, or there is nothing to read.
pub(super) fn caption(bytes: &[u8]) -> Result<String, Bad> {
    let bytes = bytes.strip_prefix(BOM).unwrap_or(bytes);
    let text = std::str::from_utf8(bytes).map_err(|_| {
        let reason = match bytes {
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "the caption is UTF-16, not UTF-8",
            _ => "the caption is not UTF-8",
        };
        Bad::new(BadKind::Caption, reason)
    })?;
    match is_blank(text) {
        true => Err(Bad::new(BadKind::EmptyCaption, "the caption is empty")),
        false => Ok(text.trim().to_owned()),
    }
}

/// Whether a text has nothing to read: white space, and what takes no space at all.
pub(super) fn is_blank(text: &str) -> bool {
    let unseen = |c: char| {
        c.is_whitespace()
            || c.is_control()
            || matches!(
                c,
                '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}'
            )
    };
    text.chars().all(unseen)
}

loose! {
    /// What `KEY.json` may hold, among other things that nobody asks for.
    struct Object {
        caption: Value,
        captions: Value,
        labels: Value,
    }
}

/// The JSON of a sample.
#[derive(Debug)]
pub(super) struct Sidecar(Object);

impl Sidecar {
    /// Reads JSON as Python writes and reads it: with `NaN` and `Infinity`, a mark before the first byte, and of
    /// a key that comes twice the last.
    ///
    /// # Errors
    /// It is no JSON, or no object.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Bad> {
        let bytes = bytes.strip_prefix(BOM).unwrap_or(bytes);
        match from_reader(bytes) {
            Ok(Item::Object(object)) => Ok(Self(object)),
            Ok(Item::Other) => Err(Bad::new(BadKind::Caption, "the JSON: no object")),
            Err(error) => Err(Bad::new(BadKind::Caption, format!("the JSON: {error}"))),
        }
    }

    /// Its `captions` that are not blank.
    ///
    /// # Errors
    /// They are there but no list of texts.
    pub(super) fn captions(&self) -> Result<Vec<String>, Bad> {
        let mut captions = texts("captions", &self.0.captions)?;
        captions.retain(|caption| !is_blank(caption));
        Ok(captions)
    }

    /// The caption that comes first: `caption`, or else the first of `captions`.
    ///
    /// # Errors
    /// There is none, or it is no text.
    pub(super) fn first(&self) -> Result<String, Bad> {
        let mut found = false;
        for (name, value) in [("caption", &self.0.caption), ("captions", &self.0.captions)] {
            let texts = texts(name, value)?;
            found |= !texts.is_empty();
            if let Some(text) = texts.into_iter().find(|text| !is_blank(text)) {
                return Ok(text);
            }
        }
        Err(match found {
            true => Bad::new(BadKind::EmptyCaption, "the caption in its JSON is empty"),
            false => Bad::new(BadKind::NoCaption, "no `caption` or `captions` in its JSON"),
        })
    }

    /// Its labels that are not blank, trimmed.
    ///
    /// # Errors
    /// They are there but no list of texts.
    pub(super) fn labels(&self) -> Result<Vec<String>, Bad> {
        if self.0.labels.is_string() {
            let reason = "`labels` in its JSON is a text, and should be a list";
            return Err(Bad::new(BadKind::Caption, reason));
        }
        let mut labels = texts("labels", &self.0.labels)?;
        labels.retain(|label| !is_blank(label));
        for label in &mut labels {
            *label = label.trim().to_owned();
        }
        Ok(labels)
    }
}

/// The texts of a value: itself, or those of a list; none for null.
fn texts(name: &str, value: &Value) -> Result<Vec<String>, Bad> {
    let odd = |name: &str, value: &Value| {
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "true or false",
            Value::Number(_) => "a number",
            Value::String(_) => "a text",
            Value::Array(_) => "a list",
            Value::Object(_) => "an object",
        };
        let reason = format!("`{name}` in its JSON is {kind}, not a text");
        Bad::new(BadKind::Caption, reason)
    };
    match value {
        Value::Null => Ok(Vec::new()),
        Value::String(text) => Ok(vec![text.clone()]),
        Value::Array(list) => (list.iter().enumerate())
            .map(|(at, value)| match value {
                Value::String(text) => Ok(text.clone()),
                _ => Err(odd(&format!("{name}[{at}]"), value)),
            })
            .collect(),
        _ => Err(odd(name, value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reason<T>(result: Result<T, Bad>) -> String {
        result.err().unwrap().reason
    }

    #[test]
    fn json_is_read_as_python_writes_it() {
        for json in [
            r#"{"caption": "a dog", "similarity": NaN, "punsafe": -Infinity, "x": [Infinity]}"#,
            "\u{feff}{\"caption\": \"a dog\"}",
            r#"{"caption": "first", "caption": "a dog"}"#,
            r#"{"caption": ["a dog", "a cat"], "exif": {"NaN": "\ud83d"}}"#,
            r#"{"caption": " ", "captions": ["", "a dog"]}"#,
            r#"{"labels": [1, 2], "caption": "a dog", "captions": null}"#,
        ] {
            let sidecar = Sidecar::parse(json.as_bytes()).unwrap();
            assert_eq!(sidecar.first().unwrap(), "a dog", "{json}");
        }
        // Only where it is no text.
        let sidecar = Sidecar::parse(br#"{"caption": "\"NaN Infinity", "x": NaN}"#).unwrap();
        assert_eq!(sidecar.first().unwrap(), "\"NaN Infinity");
        for (json, expected) in [
            (r#"{"caption": null}"#, "no `caption` or `captions`"),
            (r#"{"caption": 5}"#, "`caption` in its JSON is a number"),
            (r#"{"caption": NaN}"#, "no `caption` or `captions`"),
            (
                r#"{"captions": ["a", NaN]}"#,
                "`captions[1]` in its JSON is null",
            ),
            (
                r#"{"captions": ["a", null]}"#,
                "`captions[1]` in its JSON is null",
            ),
            (
                r#"{"caption": {"en": "a"}}"#,
                "`caption` in its JSON is an object",
            ),
            (
                r#"{"caption": "\u200b \n"}"#,
                "the caption in its JSON is empty",
            ),
        ] {
            let sidecar = Sidecar::parse(json.as_bytes()).unwrap();
            let found = reason(sidecar.first());
            assert!(found.contains(expected), "{json}: {found}");
        }
        for json in ["", "[1]", "{broken", "{\"caption\": Nan}"] {
            assert!(reason(Sidecar::parse(json.as_bytes())).starts_with("the JSON: "));
        }
    }

    #[test]
    fn labels_are_lists_of_texts() {
        let labels = |json: &str| Sidecar::parse(json.as_bytes()).unwrap().labels();
        let read = |json| labels(json).unwrap().join(",");
        assert_eq!(read(r#"{"labels": [" dog", "", "cat "]}"#), "dog,cat");
        assert_eq!(
            read(r#"{"labels": null}"#) + &read("{}") + &read(r#"{"labels": []}"#),
            ""
        );
        for (json, expected) in [
            (
                r#"{"labels": [1, 2]}"#,
                "`labels[0]` in its JSON is a number",
            ),
            (r#"{"labels": "dog"}"#, "`labels` in its JSON is a text"),
            (
                r#"{"labels": {"dog": 1}}"#,
                "`labels` in its JSON is an object",
            ),
        ] {
            assert!(reason(labels(json)).contains(expected), "{json}");
        }
    }

    #[test]
    fn captions_that_show_nothing_are_empty() {
        assert_eq!(caption("\u{feff} a dog\r\n".as_bytes()).unwrap(), "a dog");
        for text in ["", " \n", "\u{feff}", "\u{200b}\u{a0}", "\0\0"] {
            assert_eq!(reason(caption(text.as_bytes())), "the caption is empty");
        }
        assert_eq!(reason(caption(b"caf\xe9")), "the caption is not UTF-8");
        let utf16 = "the caption is UTF-16, not UTF-8";
        assert_eq!(reason(caption(b"\xff\xfea\0")), utf16);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = (caption(&bytes), Sidecar::parse(&bytes).map(|read| read.first()));
        }

        #[test]
        fn any_text_comes_back(text in ".{0,40}", beside in "[NaInfity\"\\\\ -]{0,12}") {
            let mut json = serde_json::json!({"caption": text, "x": beside}).to_string();
            json.insert_str(1, "\"y\": NaN, ");
            let found = Sidecar::parse(json.as_bytes()).unwrap().first();
            match is_blank(&text) {
                true => prop_assert!(found.is_err()),
                false => prop_assert_eq!(found.unwrap(), text),
            }
        }
    }
}
