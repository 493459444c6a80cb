//! JSON, Python lists and YAML as a tree of texts that knows its lines. YAML reads the other two.

use saphyr_parser::{Event, Parser, ScalarStyle};

use crate::Refused;

/// Levels of lists and objects within each other; a list of labels has four.
const MAX_DEPTH: usize = 16;

/// A part of a file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    /// Where it begins, from 1.
    pub line: usize,
    pub value: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// A text; `is_plain` without quotes, as numbers are written.
    Text {
        text: String,
        is_plain: bool,
    },
    List(Vec<Node>),
    /// Keys with values in the order of the file, repeated keys included.
    Map(Vec<(Node, Node)>),
}

/// The one document of a text.
///
/// # Errors
/// It is not well formed, has another document or an alias, or is nested deeply.
pub(crate) fn parse(text: &str) -> Result<Node, Refused> {
    let text = join_surrogates(text);
    // The end of the text counts as a line of its own.
    let last = text.lines().count().max(1);
    let mut parser = Parser::new_from_str(&text);
    let mut open: Vec<Open> = Vec::new();
    let mut root = None;
    while let Some(event) = parser.next_event() {
        let (event, span) = event
            .map_err(|e| Refused::at(e.marker().line().clamp(1, last), e.info().to_owned()))?;
        let line = span.start.line().clamp(1, last);
        let value = match event {
            Event::Scalar(text, style, ..) => Value::Text {
                text: text.into_owned(),
                is_plain: style == ScalarStyle::Plain,
            },
            Event::SequenceStart(..) | Event::MappingStart(..) => {
                if open.len() == MAX_DEPTH {
                    return Err(Refused::at(line, "nested too deeply for a list of labels"));
                }
                open.push(Open {
                    line,
                    is_map: matches!(event, Event::MappingStart(..)),
                    nodes: Vec::new(),
                });
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(closed) => {
                    put(closed.close(), &mut open, &mut root)?;
                    continue;
                }
                None => continue,
            },
            Event::Alias(_) => return Err(Refused::at(line, "YAML aliases are not read")),
            _ => continue,
        };
        put(Node { line, value }, &mut open, &mut root)?;
    }
    root.ok_or_else(|| Refused::new("holds nothing"))
}

/// A list or object whose end has not come yet.
struct Open {
    line: usize,
    is_map: bool,
    /// Of an object, keys and values in turn.
    nodes: Vec<Node>,
}

impl Open {
    fn close(self) -> Node {
        let value = if self.is_map {
            let mut pairs = Vec::with_capacity(self.nodes.len() / 2);
            let mut nodes = self.nodes.into_iter();
            while let (Some(key), Some(value)) = (nodes.next(), nodes.next()) {
                pairs.push((key, value));
            }
            Value::Map(pairs)
        } else {
            Value::List(self.nodes)
        };
        Node {
            line: self.line,
            value,
        }
    }
}

/// Puts a node that is complete where it belongs.
fn put(node: Node, open: &mut [Open], root: &mut Option<Node>) -> Result<(), Refused> {
    match open.last_mut() {
        Some(parent) => parent.nodes.push(node),
        None if root.is_none() => *root = Some(node),
        None => return Err(Refused::at(node.line, "a second document begins here")),
    }
    Ok(())
}

/// JSON writes characters beyond the first 65,536 as two escapes, which YAML does not know.
fn join_surrogates(text: &str) -> String {
    let unit = |at: usize| -> Option<u32> {
        let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
        u32::from_str_radix(digits, 16).ok()
    };
    let mut joined = String::with_capacity(text.len());
    let (mut at, mut copied) = (0, 0);
    while let Some(found) = text[at..].find('\\') {
        let escape = at + found;
        let pair = (unit(escape), unit(escape + 6));
        if let (Some(high @ 0xD800..=0xDBFF), Some(low @ 0xDC00..=0xDFFF)) = pair
            && let Some(c) = char::from_u32(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00))
        {
            joined.push_str(&text[copied..escape]);
            joined.push(c);
            at = escape + 12;
            copied = at;
            continue;
        }
        // What follows a backslash is not the beginning of an escape of its own.
        at = escape + 1 + text[escape + 1..].chars().next().map_or(0, char::len_utf8);
    }
    joined.push_str(&text[copied..]);
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn surrogates_are_joined_and_other_escapes_left() {
        assert_eq!(join_surrogates(r#""\ud83d\ude00\n""#), "\"😀\\n\"");
        for same in [r"\\ud83d\ude00", r"\ud83d", r"\ud83d\u0041", "\\", "é\\é"] {
            assert_eq!(join_surrogates(same), same);
        }
    }

    #[test]
    fn hostile_texts_are_refused() {
        for text in [
            "[".repeat(10_000),
            "a: &a [1]\nb: *a".to_owned(),
            "[a]\n---\n[b]".to_owned(),
            "{a".to_owned(),
            String::new(),
        ] {
            assert!(parse(&text).is_err(), "{text:.20}");
        }
    }
}
