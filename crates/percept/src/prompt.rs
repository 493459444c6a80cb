//! Labels and the sentences they are put into.

use std::collections::HashMap;
use std::path::Path;

use crate::Error;

/// Labels of one class file at most. The largest vocabularies in use (ImageNet-21k) are as large.
const MAX_LABELS: usize = 25_000;
/// Class and template files are text; this is room for [`MAX_LABELS`] with synonyms.
const MAX_FILE_BYTES: u64 = 4 << 20;
/// Templates in one set at most; CLIP's largest has 80.
const MAX_TEMPLATES: usize = 1000;

const IMAGENET7: &str = include_str!("../data/imagenet7.txt");
const IMAGENET80: &str = include_str!("../data/imagenet80.txt");

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

/// Labels from a comma-separated list such as `dog, grass, sky`.
///
/// # Errors
/// The list is empty, a label is empty, or one is there twice.
pub fn parse_labels(list: &str) -> Result<Vec<Label>, Error> {
    let mut labels: Vec<Label> = list
        .split(',')
        .map(|label| Label::new(label.trim()))
        .collect();
    // A trailing comma is a slip, not a label.
    if labels.len() > 1 && labels.last().is_some_and(|l| l.name.is_empty()) {
        labels.pop();
    }
    check_labels(labels)
}

/// Labels that are in a list already, each without synonyms.
///
/// # Errors
/// The list is empty, a label is empty, or one is there twice.
pub fn labels_of<S: AsRef<str>>(names: &[S]) -> Result<Vec<Label>, Error> {
    let names = names.iter().map(|name| name.as_ref().trim());
    check_labels(names.map(Label::new).collect())
}

/// Labels from a class file: one class a line, synonyms separated by commas; empty lines and
/// lines that begin with `#` are passed over.
///
/// # Errors
/// The file cannot be read, holds no label, or holds one twice.
pub fn read_labels(path: &Path) -> Result<Vec<Label>, Error> {
    let in_file = |error| match error {
        Error::Labels(reason) => Error::Labels(format!("{}: {reason}", path.display())),
        other => other,
    };
    let labels = lines(&read_text(path).map_err(in_file)?)
        .map(|line| {
            let synonyms: Vec<String> = line
                .split(',')
                .map(|name| name.trim().to_owned())
                .filter(|name| !name.is_empty())
                .collect();
            Label {
                name: synonyms.first().cloned().unwrap_or_default(),
                synonyms,
            }
        })
        .collect();
    check_labels(labels).map_err(in_file)
}

fn check_labels(labels: Vec<Label>) -> Result<Vec<Label>, Error> {
    if labels.iter().all(|label| label.name.is_empty()) {
        return Err(Error::Labels(
            "none given; name at least one thing to look for, such as \"dog, grass\"".into(),
        ));
    }
    if labels.len() > MAX_LABELS {
        return Err(Error::Labels(format!(
            "{} are too many, the limit is {MAX_LABELS}",
            labels.len()
        )));
    }
    let mut seen: HashMap<String, usize> = HashMap::new();
    for (i, label) in labels.iter().enumerate() {
        if label.name.is_empty() {
            return Err(Error::Labels(format!("number {} is empty", i + 1)));
        }
        if let Some(first) = seen.insert(label.name.to_lowercase(), i) {
            return Err(Error::Labels(format!(
                "\"{}\" is there twice, as number {} and number {}",
                abbreviate(&label.name),
                first + 1,
                i + 1
            )));
        }
    }
    Ok(labels)
}

/// A name short enough for a message.
pub(crate) fn abbreviate(name: &str) -> String {
    const SHOWN: usize = 40;
    if name.chars().count() <= SHOWN {
        return name.to_owned();
    }
    name.chars().take(SHOWN).chain(['…']).collect()
}

/// Sentences with a place for a label: `{}` the label, `{a}` the label with its indefinite
/// article. The embedding of a class is the mean over all of them, as CLIP's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Templates(Vec<String>);

impl Templates {
    /// The seven that CLIP's authors chose from the 80 for ImageNet.
    pub fn imagenet7() -> Self {
        Self(lines(IMAGENET7).collect())
    }

    /// All 80 of CLIP's ImageNet prompts.
    pub fn imagenet80() -> Self {
        Self(lines(IMAGENET80).collect())
    }

    /// Templates of one's own.
    ///
    /// # Errors
    /// There are none, too many, or one has no place for the label.
    pub fn new(templates: Vec<String>) -> Result<Self, Error> {
        if templates.is_empty() || templates.len() > MAX_TEMPLATES {
            return Err(Error::Templates(format!(
                "{} given, not between 1 and {MAX_TEMPLATES}",
                templates.len()
            )));
        }
        match templates
            .iter()
            .find(|t| !t.contains("{}") && !t.contains("{a}"))
        {
            Some(template) => Err(Error::Templates(format!(
                "\"{}\" has no {{}} or {{a}} where the label goes",
                abbreviate(template)
            ))),
            None => Ok(Self(templates)),
        }
    }

    /// Reads a file with one template a line; `#` begins a comment line.
    ///
    /// # Errors
    /// The file cannot be read, or as [`Templates::new`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        let in_file = |error| match error {
            Error::Labels(reason) | Error::Templates(reason) => {
                Error::Templates(format!("{}: {reason}", path.display()))
            }
            other => other,
        };
        let text = read_text(path).map_err(in_file)?;
        Self::new(lines(&text).collect()).map_err(in_file)
    }

    /// The templates as written.
    pub fn as_slice(&self) -> &[String] {
        &self.0
    }

    /// All prompts for one name.
    pub fn fill(&self, name: &str) -> Vec<String> {
        self.0
            .iter()
            .map(|template| {
                // The label last, so that braces in it are not taken for places.
                template
                    .replace("{a}", &format!("{} {{}}", article(name)))
                    .replace("{}", name)
            })
            .collect()
    }
}

/// `an` before a written vowel, as the reference's prompts have it.
fn article(name: &str) -> &'static str {
    match name.chars().next().map(|c| c.to_ascii_lowercase()) {
        Some('a' | 'e' | 'i' | 'o' | 'u') => "an",
        _ => "a",
    }
}

/// The words behind `--background auto`.
pub(crate) fn everyday_words() -> impl Iterator<Item = String> {
    lines(include_str!("../data/everyday.txt"))
}

fn lines(text: &str) -> impl Iterator<Item = String> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
}

fn read_text(path: &Path) -> Result<String, Error> {
    let io = |source| Error::Io {
        path: path.to_owned(),
        source,
    };
    if std::fs::metadata(path).map_err(io)?.len() > MAX_FILE_BYTES {
        return Err(Error::Labels("larger than 4 MiB".into()));
    }
    std::fs::read_to_string(path).map_err(io)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(labels: &[Label]) -> Vec<&str> {
        labels.iter().map(|label| label.name.as_str()).collect()
    }

    #[test]
    fn lists_are_split_and_trimmed() {
        let labels = parse_labels(" dog,grass ,  potted plant,").unwrap();
        assert_eq!(names(&labels), ["dog", "grass", "potted plant"]);
    }

    #[test]
    fn empty_and_doubled_labels_are_refused_by_name() {
        for empty in ["", "  ", ",", ",,,"] {
            assert!(parse_labels(empty).is_err(), "{empty:?}");
        }
        let doubled = parse_labels("dog, cat, Dog").unwrap_err().to_string();
        assert!(doubled.contains("\"Dog\" is there twice, as number 1 and number 3"));
        let hole = parse_labels("dog,,cat").unwrap_err().to_string();
        assert!(hole.contains("number 2 is empty"), "{hole}");
    }

    #[test]
    fn a_label_of_any_length_is_named_briefly() {
        let long = "x".repeat(10_000);
        assert_eq!(parse_labels(&long).unwrap()[0].name, long);
        let message = parse_labels(&format!("{long},{long}"))
            .unwrap_err()
            .to_string();
        assert!(message.len() < 200);
    }

    #[test]
    fn prompts_have_the_right_article() {
        let templates = Templates::new(vec!["a photo of {a}".into(), "{}!".into()]).unwrap();
        assert_eq!(templates.fill("dog"), ["a photo of a dog", "dog!"]);
        assert_eq!(templates.fill("Owl"), ["a photo of an Owl", "Owl!"]);
        assert_eq!(templates.fill("{a} {}")[1], "{a} {}!");
    }

    #[test]
    fn the_published_sets_have_their_sizes() {
        assert_eq!(Templates::imagenet7().as_slice().len(), 7);
        assert_eq!(Templates::imagenet80().as_slice().len(), 80);
        for set in [Templates::imagenet7(), Templates::imagenet80()] {
            assert!(Templates::new(set.as_slice().to_vec()).is_ok());
        }
    }

    #[test]
    fn templates_without_a_place_are_refused() {
        assert!(Templates::new(vec!["a photo".into()]).is_err());
        assert!(Templates::new(vec![]).is_err());
    }
}
