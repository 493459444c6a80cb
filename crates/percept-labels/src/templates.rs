//! Files of prompt templates.

use std::collections::HashMap;

use crate::Refused;
use crate::names::{abbreviate, tidy};
use crate::structure::{Node, Value, parse};

/// Templates in one set at most; CLIP's largest has 80.
pub const MAX_TEMPLATES: usize = 1000;

/// What a template may hold: the label, and the label with its article.
const PLACES: [&str; 2] = ["{}", "{a}"];

/// The templates of a text: one a line, with `#` before comments, or a JSON list; lines may be those of a
/// Python list, in quotes and with commas behind them.
///
/// # Errors
/// There are none or too many; one has no place for the label, another kind of place, or is there twice.
pub fn parse_templates(text: &str) -> Result<Vec<String>, Refused> {
    let begins = text.trim_start();
    let templates = if begins.starts_with('[') || begins.starts_with("- ") {
        from_list(&parse(text)?)?
    } else {
        from_lines(text)?
    };
    if templates.is_empty() {
        return Err(Refused::new("holds no template, such as: a photo of {a}"));
    }
    if templates.len() > MAX_TEMPLATES {
        return Err(Refused::new(format!(
            "{} templates, the limit is {MAX_TEMPLATES}",
            templates.len()
        )));
    }
    let mut seen = HashMap::new();
    for (line, template) in &templates {
        check(template).map_err(|reason| Refused::at(*line, reason))?;
        if let Some(first) = seen.insert(template, *line) {
            return Err(Refused::at(
                *line,
                format!(
                    "\"{}\" is there twice, first on line {first}",
                    abbreviate(template)
                ),
            ));
        }
    }
    Ok(templates
        .into_iter()
        .map(|(_, template)| template)
        .collect())
}

type Lines = Vec<(usize, String)>;

fn from_list(node: &Node) -> Result<Lines, Refused> {
    let wrong = |line| Refused::at(line, "not a list of templates");
    let Value::List(items) = &node.value else {
        return Err(wrong(node.line));
    };
    let text = |item: &Node| match &item.value {
        Value::Text { text, .. } => Ok((item.line, tidied(item.line, text)?)),
        _ => Err(wrong(item.line)),
    };
    items.iter().map(text).collect()
}

fn from_lines(text: &str) -> Result<Lines, Refused> {
    let lines = (1..).zip(text.lines().map(str::trim));
    lines
        .filter(|(_, text)| !text.is_empty() && !text.starts_with('#'))
        .map(|(line, text)| Ok((line, tidied(line, without_quotes(text))?)))
        .collect()
}

fn tidied(line: usize, text: &str) -> Result<String, Refused> {
    tidy(text).map_err(|refused| Refused::at(line, refused.reason))
}

/// A line of a Python list is a template in quotes, with a comma behind it.
fn without_quotes(text: &str) -> &str {
    let item = text.strip_suffix(',').unwrap_or(text).trim_end();
    let inner = ['"', '\''].iter().find_map(|quote| {
        let item = item.strip_prefix('f').unwrap_or(item);
        item.strip_prefix(*quote)?.strip_suffix(*quote)
    });
    inner.unwrap_or(text)
}

fn check(template: &str) -> Result<(), String> {
    let shown = abbreviate(template);
    let rest = PLACES
        .iter()
        .fold(template.to_owned(), |rest, place| rest.replace(place, ""));
    let other = rest.find('{').map(|from| {
        let to = rest[from..]
            .find('}')
            .map_or(rest.len(), |to| from + to + 1);
        abbreviate(&rest[from..to])
    });
    if let Some(other) = other {
        return Err(format!(
            "{other} in \"{shown}\" is no place for the label; write {{}}, or {{a}} for the label with a or an"
        ));
    }
    if rest.contains('}') {
        return Err(format!("a lone }} in \"{shown}\""));
    }
    if rest.len() == template.len() {
        return Err(format!(
            "\"{shown}\" has no {{}} or {{a}} where the label goes"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_read_as_they_lie_about() {
        let expected = ["a photo of {a}", "{} up close"];
        for text in [
            "# mine {}\na photo of {a}\n\n  {} up  close \n",
            "'a photo of {a}',\n'{} up close',\n",
            "[\"a photo of {a}\", \"{} up close\",]",
            "- a photo of {a}\n- '{} up close'",
        ] {
            assert_eq!(parse_templates(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn other_places_are_refused_with_their_line() {
        for (text, line, reason) in [
            ("a {}\na photo", Some(2), "has no {}"),
            ("a {c} and {}", Some(1), "{c}"),
            ("a {}\n\na {}", Some(3), "twice, first on line 1"),
            ("a {} }", Some(1), "a lone }"),
            ("[\"{}\", {\"a\": 1}]", Some(1), "not a list"),
            ("# nothing", None, "no template"),
        ] {
            let refused = parse_templates(text).unwrap_err();
            assert_eq!(refused.line, line, "{text}: {refused}");
            assert!(refused.reason.contains(reason), "{text}: {refused}");
        }
    }
}
