//! Class lists: from a command line, and from files of any form.

use std::collections::HashMap;
use std::path::Path;

use crate::names::{abbreviate, is_foreign_id, is_number, split_names, tidy, why_no_name};
use crate::structure::{Node, Value, parse};
use crate::text::{read_text, visible};
use crate::{FileError, Refused, lines};

/// Labels of one list at most. The largest vocabularies in use (ImageNet-21k) are as large.
pub const MAX_LABELS: usize = 25_000;

/// Keys under which files keep their labels, the first that is there counting.
const KEYS: [&str; 6] = [
    "names",
    "labels",
    "classes",
    "categories",
    "id2label",
    "label2id",
];

/// One class: its name and other names for the same thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// The name shown in results.
    pub name: String,
    /// All names that are put into prompts; the first is `name`.
    pub synonyms: Vec<String>,
}

impl Label {
    /// A label without synonyms.
    pub fn new(name: impl Into<String>) -> Self {
        let name = name.into();
        Self {
            synonyms: vec![name.clone()],
            name,
        }
    }
}

/// A class of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its names.
    pub label: Label,
    /// The line where it stands, from 1.
    pub line: usize,
    /// Its id, where the file has ids: a number, or one of WordNet or Freebase.
    pub id: Option<String>,
}

/// The classes of a file, in its order; by number where it numbers them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelList {
    /// The classes.
    pub entries: Vec<Entry>,
    /// What the reader may not expect, for people.
    pub notes: Vec<String>,
    /// Empty lines before the last class, from 1, where classes are lines.
    pub blank_lines: Vec<usize>,
}

impl LabelList {
    /// Reads a file of classes: see [`parse_list`].
    ///
    /// # Errors
    /// The file cannot be read, or does not hold one list of classes.
    pub fn from_file(path: &Path) -> Result<Self, FileError> {
        parse_list(&read_text(path)?).map_err(|refused| FileError::Refused {
            path: path.to_owned(),
            refused,
        })
    }

    /// The labels without lines and ids.
    pub fn into_labels(self) -> Vec<Label> {
        self.entries.into_iter().map(|entry| entry.label).collect()
    }
}

/// The classes of a text, in any form of the [crate's table](crate).
///
/// # Errors
/// It is none of these forms, may mean several things, holds no class, or one twice.
pub fn parse_list(text: &str) -> Result<LabelList, Refused> {
    let mut list = if is_structure(text) {
        from_structure(&parse(text)?)?
    } else {
        lines::parse(text)?
    };
    sort_by_number(&mut list)?;
    check(&list)?;
    list.notes.extend(shared_name(&list.entries));
    Ok(list)
}

/// Labels from a list such as `dog, grass, sky`, `"dog", "grass"` or `["dog", "grass"]`; also one label
/// a line, as the contents of a file are given on a command line. Each is a class without synonyms.
///
/// # Errors
/// The list is empty, a label is empty or something else than a label, or one is there twice.
pub fn parse_labels(list: &str) -> Result<Vec<Label>, Refused> {
    let list = visible(list);
    let list = list.trim();
    if list.starts_with(['[', '{']) {
        let names = structured_names(&parse(list)?)?;
        return labels_of(&names);
    }
    let list = without_outer_quotes(list);
    let lines: Vec<&str> = list
        .split(['\n', '\r'])
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let names = match lines.as_slice() {
        [] => Vec::new(),
        [line] => split_names(line).map_err(Refused::new)?,
        lines => one_a_line(lines)?,
    };
    let count = names.len();
    for (number, name) in (1..).zip(&names) {
        if name.text.is_empty() && count > 1 && names.iter().any(|name| !name.text.is_empty()) {
            return Err(Refused::new(format!("number {number} is empty")));
        }
        if !name.is_quoted
            && !name.text.is_empty()
            && let Some(reason) = why_no_name(&name.text)
        {
            return Err(Refused::new(reason));
        }
    }
    let names: Vec<String> = names.into_iter().map(|name| name.text).collect();
    labels_of(&names)
}

/// Labels that are in a list already, each without synonyms.
///
/// # Errors
/// The list is empty, a label is empty, or one is there twice.
pub fn labels_of<S: AsRef<str>>(names: &[S]) -> Result<Vec<Label>, Refused> {
    let entries = (1..)
        .zip(names)
        .map(|(line, name)| {
            Ok(Entry {
                label: Label::new(tidy(name.as_ref())?),
                line,
                id: None,
            })
        })
        .collect::<Result<Vec<Entry>, Refused>>()?;
    if entries.iter().all(|entry| entry.label.name.is_empty()) {
        return Err(nothing());
    }
    too_many(entries.len())?;
    if let Some(empty) = entries.iter().find(|entry| entry.label.name.is_empty()) {
        return Err(Refused::new(format!("number {} is empty", empty.line)));
    }
    if let Some((first, again)) = twice(&entries) {
        return Err(Refused::new(format!(
            "\"{}\" is there twice, as number {} and number {}",
            abbreviate(&again.label.name),
            first.line,
            again.line
        )));
    }
    Ok(entries.into_iter().map(|entry| entry.label).collect())
}

/// A list that a shell or a launcher wrapped in quotes once more.
fn without_outer_quotes(list: &str) -> &str {
    for quote in ['"', '\''] {
        let inner = list
            .strip_prefix(quote)
            .and_then(|list| list.strip_suffix(quote));
        if let Some(inner) = inner
            && !inner.contains(quote)
        {
            return inner;
        }
    }
    list
}

/// Several lines are labels if no comma says otherwise.
fn one_a_line(lines: &[&str]) -> Result<Vec<crate::names::Name>, Refused> {
    let mut names = Vec::new();
    for line in lines {
        match split_names(line).map_err(Refused::new)?.as_slice() {
            [name] => names.push(name.clone()),
            _ => {
                return Err(Refused::new(
                    "several lines with commas: in a list commas separate labels, in a file \
                     (--labels-file) synonyms; which is meant?",
                ));
            }
        }
    }
    Ok(names)
}

fn nothing() -> Refused {
    Refused::new("none given; name at least one thing to look for, such as \"dog, grass\"")
}

fn too_many(count: usize) -> Result<(), Refused> {
    if count <= MAX_LABELS {
        return Ok(());
    }
    Err(Refused::new(format!(
        "{count} are too many, the limit is {MAX_LABELS}"
    )))
}

/// The first label that is there twice, in upper or lower case.
fn twice(entries: &[Entry]) -> Option<(&Entry, &Entry)> {
    let mut seen: HashMap<String, &Entry> = HashMap::new();
    entries.iter().find_map(|entry| {
        let first = seen.insert(entry.label.name.to_lowercase(), entry)?;
        Some((first, entry))
    })
}

/// A note on names that two classes have, such as ImageNet's two cranes: no text encoder tells such classes apart
/// by them.
fn shared_name(entries: &[Entry]) -> Option<String> {
    let mut owners: HashMap<String, &Entry> = HashMap::new();
    let mut shared = Vec::new();
    for entry in entries {
        for name in &entry.label.synonyms {
            let owner = *owners.entry(name.to_lowercase()).or_insert(entry);
            if owner.line != entry.line || owner.label != entry.label {
                shared.push((name, owner, entry));
            }
        }
    }
    let (name, owner, other) = shared.first()?;
    let more = match shared.len() - 1 {
        0 => String::new(),
        more => format!(", and {more} more are shared"),
    };
    let [name, owner, other] = [name, &owner.label.name, &other.label.name].map(|n| abbreviate(n));
    Some(format!(
        "\"{name}\" is a name of \"{owner}\" and of \"{other}\", which it cannot tell apart{more}"
    ))
}

fn check(list: &LabelList) -> Result<(), Refused> {
    if list.entries.is_empty() {
        return Err(nothing());
    }
    too_many(list.entries.len())?;
    if let Some((first, again)) = twice(&list.entries) {
        let [first, again] = if first.line <= again.line {
            [first, again]
        } else {
            [again, first]
        };
        return Err(Refused::at(
            again.line,
            format!(
                "\"{}\" is there twice, first on line {}",
                abbreviate(&again.label.name),
                first.line
            ),
        ));
    }
    let mut ids: HashMap<&str, usize> = HashMap::new();
    for entry in &list.entries {
        let Some(id) = &entry.id else { continue };
        if let Some(first) = ids.insert(id, entry.line) {
            let line = first.max(entry.line);
            let first = first.min(entry.line);
            return Err(Refused::at(
                line,
                format!(
                    "the id {} is there twice, first on line {first}",
                    abbreviate(id)
                ),
            ));
        }
    }
    Ok(())
}

/// Puts classes that are all numbered into the order of their numbers.
fn sort_by_number(list: &mut LabelList) -> Result<(), Refused> {
    let number = |entry: &Entry| entry.id.as_ref()?.parse::<u64>().ok();
    if list.entries.iter().any(|entry| number(entry).is_none()) {
        return Ok(());
    }
    if !list.entries.is_sorted_by_key(number) {
        list.notes
            .push("the classes are in the order of their numbers, not of the lines".into());
        list.entries.sort_by_key(number);
    }
    // Equal numbers in two spellings, such as 1 and 01.
    for pair in list.entries.windows(2) {
        if let [a, b] = pair
            && number(a) == number(b)
        {
            return Err(Refused::at(
                a.line.max(b.line),
                format!(
                    "the id {} is there twice, first on line {}",
                    number(a).unwrap_or(0),
                    a.line.min(b.line)
                ),
            ));
        }
    }
    Ok(())
}

/// Whether a text is JSON, a Python list or YAML rather than lines.
fn is_structure(text: &str) -> bool {
    let mut content = text
        .lines()
        .filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'))
        .peekable();
    let begins = content.peek().map(|line| line.trim());
    if begins.is_some_and(|line| line.starts_with(['[', '{']) || line == "---") {
        return true;
    }
    let is_item = |line: &str| line.trim_start().starts_with("- ");
    let is_key = |line: &str| {
        line.split_once(':').is_some_and(|(key, _)| {
            !key.starts_with(' ') && KEYS.contains(&key.trim().trim_matches(['"', '\'']))
        })
    };
    let lines: Vec<&str> = content.collect();
    !lines.is_empty() && (lines.iter().all(|line| is_item(line)) || lines.iter().any(|l| is_key(l)))
}

/// The class of the names of one line or entry.
///
/// # Errors
/// The first is missing, or one is no name.
pub(crate) fn entry(line: usize, names: Vec<String>, id: Option<String>) -> Result<Entry, Refused> {
    let mut synonyms: Vec<String> = Vec::with_capacity(names.len());
    for name in names {
        let name = tidy(&name).map_err(|refused| Refused::at(line, refused.reason))?;
        if name.is_empty() {
            return Err(Refused::at(line, "has an empty name"));
        }
        // A name said twice is said once.
        if !synonyms.contains(&name) {
            synonyms.push(name);
        }
    }
    match synonyms.first() {
        Some(name) => Ok(Entry {
            label: Label {
                name: name.clone(),
                synonyms,
            },
            line,
            id,
        }),
        None => Err(Refused::at(line, "has no name")),
    }
}

/// The names of a JSON list on the command line, each whole.
fn structured_names(node: &Node) -> Result<Vec<String>, Refused> {
    let list = from_structure_as(node, &|line, text| {
        Ok(vec![tidy(text).map_err(|r| Refused::at(line, r.reason))?])
    })?;
    Ok(list
        .entries
        .into_iter()
        .map(|entry| entry.label.name)
        .collect())
}

fn from_structure(node: &Node) -> Result<LabelList, Refused> {
    from_structure_as(node, &|line, text| {
        // As in lines: synonyms stand after commas.
        let names = split_names(text).map_err(|reason| Refused::at(line, reason))?;
        Ok(names.into_iter().map(|name| name.text).collect())
    })
}

/// From a text on a line to its names.
type Names<'a> = &'a dyn Fn(usize, &str) -> Result<Vec<String>, Refused>;

fn from_structure_as(node: &Node, names: Names<'_>) -> Result<LabelList, Refused> {
    let entries = match &node.value {
        Value::List(items) => items
            .iter()
            .map(|item| item_entry(item, None, names))
            .collect::<Result<_, _>>()?,
        Value::Map(pairs) => return from_map(node.line, pairs, names),
        Value::Text { .. } => return Err(Refused::at(node.line, "a text where a list should be")),
    };
    Ok(LabelList {
        entries,
        ..LabelList::default()
    })
}

fn from_map(line: usize, pairs: &[(Node, Node)], names: Names<'_>) -> Result<LabelList, Refused> {
    let inner = KEYS.iter().find_map(|key| {
        let mut found = pairs.iter().filter(|(k, _)| text_of(k) == Some(*key));
        Some((found.next()?, found.next()))
    });
    match inner {
        Some((_, Some((again, _)))) => {
            let key = text_of(again).unwrap_or_default();
            return Err(Refused::at(again.line, format!("`{key}` is there twice")));
        }
        // An object of names may have a class of this name.
        Some(((_, value), None)) if !matches!(value.value, Value::Text { .. }) => {
            let list = from_structure_as(value, names)?;
            return check_count(pairs, list);
        }
        _ => {}
    }
    let all = |test: &dyn Fn(&str) -> bool, of_key: bool| {
        pairs
            .iter()
            .all(|(key, value)| text_of(if of_key { key } else { value }).is_some_and(test))
    };
    let is_id = |text: &str| is_index(text) || is_foreign_id(text);
    if pairs.is_empty() {
        return Err(nothing());
    }
    let entries = if all(&is_id, true) {
        pairs
            .iter()
            .map(|(key, value)| item_entry(value, text_of(key), names))
            .collect::<Result<_, _>>()?
    } else if all(&is_index, false) {
        pairs
            .iter()
            .map(|(key, value)| item_entry(key, text_of(value), names))
            .collect::<Result<_, _>>()?
    } else {
        let keys: Vec<&str> = pairs.iter().filter_map(|(key, _)| text_of(key)).collect();
        return Err(Refused::at(
            line,
            format!(
                "an object of {}, which is no list of classes; looked for {}, or ids with names",
                abbreviate(&keys.join(", ")),
                KEYS.join(", ")
            ),
        ));
    };
    Ok(LabelList {
        entries,
        ..LabelList::default()
    })
}

/// ultralytics says beside the names how many they are.
fn check_count(pairs: &[(Node, Node)], list: LabelList) -> Result<LabelList, Refused> {
    let stated = pairs.iter().find(|(key, _)| text_of(key) == Some("nc"));
    let Some((key, value)) = stated else {
        return Ok(list);
    };
    match text_of(value).and_then(|text| text.parse::<usize>().ok()) {
        Some(count) if count == list.entries.len() => Ok(list),
        _ => Err(Refused::at(
            key.line,
            format!(
                "nc is {}, but there are {} names",
                text_of(value).unwrap_or("no number"),
                list.entries.len()
            ),
        )),
    }
}

fn text_of(node: &Node) -> Option<&str> {
    match &node.value {
        Value::Text { text, .. } => Some(text),
        _ => None,
    }
}

/// Whether a text is the number of a class.
pub(crate) fn is_index(text: &str) -> bool {
    !text.is_empty() && text.len() <= 18 && text.bytes().all(|c| c.is_ascii_digit())
}

/// The class of an item of a list or object.
fn item_entry(node: &Node, id: Option<&str>, names: Names<'_>) -> Result<Entry, Refused> {
    let id = id.map(str::to_owned);
    match &node.value {
        Value::Text { text, is_plain } => {
            if *is_plain
                && (is_number(text) || ["", "~", "null", "true", "false"].contains(&text.as_str()))
            {
                return Err(Refused::at(
                    node.line,
                    format!("{} is no label; in quotes it is one", named(text)),
                ));
            }
            if *is_plain && let Some(reason) = why_no_name(text) {
                return Err(Refused::at(node.line, reason));
            }
            entry(node.line, names(node.line, text)?, id)
        }
        Value::List(items) => {
            let mut texts = Vec::with_capacity(items.len());
            for item in items {
                texts.push(text_of(item).ok_or_else(|| {
                    Refused::at(item.line, "a list or object where a name should be")
                })?);
            }
            // Keras: the synset, then the name.
            match texts.split_first() {
                Some((first, rest)) if is_foreign_id(first) && !rest.is_empty() => {
                    let rest = rest.iter().map(|&text| text.to_owned()).collect();
                    entry(node.line, rest, Some(id.unwrap_or((*first).to_owned())))
                }
                _ => entry(
                    node.line,
                    texts.into_iter().map(str::to_owned).collect(),
                    id,
                ),
            }
        }
        Value::Map(pairs) => {
            let value = |key: &str| {
                let found = pairs.iter().find(|(k, _)| text_of(k) == Some(key));
                found.map(|(_, value)| value)
            };
            let name = value("name")
                .and_then(text_of)
                .ok_or_else(|| Refused::at(node.line, "an object without a `name`"))?;
            let mut all = names(node.line, name)?;
            if let Some(more) = value("synonyms") {
                all.extend(synonyms(more)?);
            }
            let own = value("id").map(own_id).transpose()?.flatten();
            entry(node.line, all, id.or(own))
        }
    }
}

/// The further names of a class.
///
/// # Errors
/// They are no list of texts.
fn synonyms(node: &Node) -> Result<Vec<String>, Refused> {
    let items = match &node.value {
        Value::List(items) => items.as_slice(),
        _ if is_null(node) => &[],
        _ => return Err(Refused::at(node.line, "`synonyms` is no list")),
    };
    let text = |item: &Node| match &item.value {
        Value::Text { text, is_plain } if !(*is_plain && is_number(text) || is_null(item)) => {
            Ok(text.clone())
        }
        _ => {
            let reason = "`synonyms` holds something that is no text";
            Err(Refused::at(item.line, reason))
        }
    };
    items.iter().map(text).collect()
}

/// The id that a class says it has.
///
/// # Errors
/// It is neither a number nor of a public vocabulary.
fn own_id(node: &Node) -> Result<Option<String>, Refused> {
    match text_of(node) {
        _ if is_null(node) => Ok(None),
        Some(id) if is_index(id) || is_foreign_id(id) => Ok(Some(id.to_owned())),
        id => {
            let shown = id.map_or("a list or object".into(), named);
            Err(Refused::at(
                node.line,
                format!("the id is {shown}, which is no index of a class"),
            ))
        }
    }
}

/// Whether nothing is said, as YAML and JSON write it.
fn is_null(node: &Node) -> bool {
    matches!(&node.value, Value::Text { text, is_plain: true } if ["", "~", "null"].contains(&text.as_str()))
}

fn named(text: &str) -> String {
    match text {
        "" => "nothing".into(),
        text => format!("`{}`", abbreviate(text)),
    }
}
