//! One name: what may be one, and what is something else.

use crate::Refused;
use crate::text::visible;

/// A name as it is meant: without marks that nobody sees, in NFC, with single spaces.
///
/// # Errors
/// It holds control characters.
pub fn tidy(name: &str) -> Result<String, Refused> {
    let words: Vec<&str> = name.split_whitespace().collect();
    let name = visible(&words.join(" "));
    // What was dropped may have stood between spaces.
    let words: Vec<&str> = name.split_whitespace().collect();
    let name = words.join(" ");
    match name.chars().find(|c| c.is_control()) {
        Some(c) => Err(Refused::new(format!(
            "the control character U+{:04X} in \"{}\"",
            u32::from(c),
            abbreviate(&name.escape_debug().to_string())
        ))),
        None => Ok(name),
    }
}

/// A name short enough for a message.
pub fn abbreviate(name: &str) -> String {
    const SHOWN: usize = 40;
    if name.chars().count() <= SHOWN {
        return name.to_owned();
    }
    name.chars().take(SHOWN).chain(['…']).collect()
}

/// What separates names: commas, those of other scripts included.
pub(crate) fn is_comma(c: char) -> bool {
    matches!(c, ',' | '，' | '、' | '،')
}

/// A name of a list, and whether it stood in quotes, which make anything a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name {
    pub text: String,
    pub is_quoted: bool,
}

/// The closing quote that belongs to an opening one.
fn closing(open: char) -> Option<char> {
    Some(match open {
        '"' => '"',
        '\'' => '\'',
        '“' => '”',
        '„' => '“',
        '‘' => '’',
        '«' => '»',
        _ => return None,
    })
}

/// The names between commas. Quotes around a name keep its commas and are dropped; two `"` within them
/// are one. A comma at the end is a slip. Names may be empty.
///
/// # Errors
/// A quote is not closed, or something follows it.
pub(crate) fn split_names(list: &str) -> Result<Vec<Name>, String> {
    let mut names = Vec::new();
    let mut rest = list.trim();
    loop {
        let (name, after) = first_name(rest)?;
        names.push(name);
        match after {
            Some(after) => rest = after.trim(),
            None => break,
        }
    }
    let is_empty = |name: &Name| name.text.is_empty() && !name.is_quoted;
    if names.len() > 1 && names.last().is_some_and(is_empty) {
        names.pop();
    }
    Ok(names)
}

/// The first name, and what follows its comma.
fn first_name(list: &str) -> Result<(Name, Option<&str>), String> {
    let open = list.chars().next();
    let Some((open, close)) = open.and_then(|open| Some((open, closing(open)?))) else {
        return Ok(plain_name(list));
    };
    let mut text = String::new();
    let mut rest = list[open.len_utf8()..].chars();
    loop {
        match rest.next() {
            Some(c) if c == close => {
                let after = rest.as_str();
                if after.starts_with(close) && close == '"' {
                    rest.next();
                    text.push(close);
                    continue;
                }
                let after = after.trim_start();
                match after.chars().next() {
                    None => {}
                    Some(c) if is_comma(c) => {}
                    // The apostrophe of 'tis a name's own.
                    Some(_) if open == '\'' => return Ok(plain_name(list)),
                    Some(_) => {
                        return Err(format!(
                            "something follows the quote of {}; names are separated by commas",
                            abbreviate(list)
                        ));
                    }
                }
                let after = after.chars().next().map(|c| &after[c.len_utf8()..]);
                let name = Name {
                    text: text.trim().to_owned(),
                    is_quoted: true,
                };
                return Ok((name, after));
            }
            Some(c) => text.push(c),
            None if open == '\'' && !list.contains(is_comma) => return Ok(plain_name(list)),
            None => {
                return Err(format!("the quote of {} is not closed", abbreviate(list)));
            }
        }
    }
}

fn plain_name(list: &str) -> (Name, Option<&str>) {
    let name = |text: &str| Name {
        text: text.trim().to_owned(),
        is_quoted: false,
    };
    match list.char_indices().find(|(_, c)| is_comma(*c)) {
        Some((at, comma)) => (name(&list[..at]), Some(&list[at + comma.len_utf8()..])),
        None => (name(list), None),
    }
}

/// Why a name without quotes is something else than a name, or at least may be.
pub(crate) fn why_no_name(name: &str) -> Option<String> {
    let shown = abbreviate(name);
    let quotes = "in quotes it is a label";
    if name.contains("{}") || name.contains("{a}") {
        return Some(format!(
            "\"{shown}\" is a template; those go to --templates"
        ));
    }
    if name.starts_with('<') {
        return Some(format!("\"{shown}\" is XML or HTML, not a list of labels"));
    }
    if name.trim_end_matches('{').trim_end() == "item" && name.ends_with('{') {
        return Some(format!(
            "`{shown}` begins an entry of TensorFlow's label map (pbtxt, with `{{`); write its names alone, one a line"
        ));
    }
    if let Some(c) = name.chars().find(|c| "{}[]<>".contains(*c)) {
        return Some(format!("what does `{c}` mean in \"{shown}\"? {quotes}"));
    }
    if let Some(c) = name.chars().find(|c| ";|；".contains(*c)) {
        return Some(format!(
            "`{c}` in \"{shown}\": labels and synonyms are separated by commas; {quotes}"
        ));
    }
    if name.contains("://") {
        return Some(format!("\"{shown}\" is an address, not a label"));
    }
    if name.contains([':', '=', '：']) {
        return Some(format!(
            "\"{shown}\" has a colon or `=`, and more beside it than a name; keep the names alone (of CVAT's and \
             other label maps what is before the first colon), or write it in quotes if all of it is the label"
        ));
    }
    if name.contains('"') {
        return Some(format!("a quote within \"{shown}\""));
    }
    if name.starts_with(['/', '\\', '@', '~']) || name.starts_with("./") {
        return Some(format!("\"{shown}\" looks like a path; {quotes}"));
    }
    let is_sentences = name.ends_with('.') && name.contains(". ");
    if is_sentences || name.contains(" . ") || name.ends_with(" .") {
        return Some(format!(
            "labels are separated by commas, not by points as in \"{shown}\"; {quotes}"
        ));
    }
    if name.chars().all(|c| c.is_ascii_punctuation() || c == ' ') {
        return Some(format!("\"{shown}\" has no letters"));
    }
    None
}

/// Whether a name is a plain number, or one in percent.
pub(crate) fn is_number(name: &str) -> bool {
    let number = name.trim_end_matches('%').trim_end();
    let has_digit = number.contains(|c: char| c.is_ascii_digit());
    has_digit && number.replace('_', "").parse::<f64>().is_ok()
}

/// Whether a name is an id of a public vocabulary: a synset of WordNet or a topic of Freebase.
pub(crate) fn is_foreign_id(name: &str) -> bool {
    is_wnid(name)
        || ["/m/", "/g/", "/t/"]
            .iter()
            .any(|start| name.starts_with(start))
}

fn is_wnid(name: &str) -> bool {
    let Some(digits) = name.strip_prefix(['n', 'v', 'a', 'r']) else {
        return false;
    };
    digits.len() == 8 && digits.bytes().all(|c| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(list: &str) -> Vec<String> {
        let names = split_names(list).unwrap();
        names.into_iter().map(|name| name.text).collect()
    }

    #[test]
    fn commas_separate_and_quotes_hold_together() {
        assert_eq!(
            split(" dog,grass ,  potted plant,"),
            ["dog", "grass", "potted plant"]
        );
        assert_eq!(split("\"cat, domestic\", 'dog'"), ["cat, domestic", "dog"]);
        assert_eq!(split("“cat”， „hund“、dog"), ["cat", "hund", "dog"]);
        assert_eq!(split("\"5\"\" disk\""), ["5\" disk"]);
        assert_eq!(split("'tis, o'clock"), ["'tis", "o'clock"]);
        assert_eq!(split("a,,b,"), ["a", "", "b"]);
        for wrong in ["\"cat", "\"cat\" dog", "“cat, dog", "'cat, dog"] {
            assert!(split_names(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_are_tidied() {
        assert_eq!(tidy(" hot \u{A0}\t dog\u{200B}").unwrap(), "hot dog");
        assert_eq!(tidy("cafe\u{301}").unwrap(), "café");
        assert_eq!(tidy("a \u{FEFF} b").unwrap(), "a b");
        assert!(tidy("a\0b").is_err());
    }
}
