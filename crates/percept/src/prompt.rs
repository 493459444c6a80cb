//! Labels and the sentences they are put into.

use std::path::Path;

use percept_labels::{FileError, LabelList, Refused, abbreviate, parse_templates, read_text};

use crate::{Error, Label};

/// Templates in one set at most; CLIP's largest has 80.
const MAX_TEMPLATES: usize = percept_labels::MAX_TEMPLATES;

const IMAGENET7: &str = include_str!("../data/imagenet7.txt");
const IMAGENET80: &str = include_str!("../data/imagenet80.txt");

/// Labels from a list such as `dog, grass, sky`, or a JSON list of them: see
/// [`percept_labels::parse_labels`].
///
/// # Errors
/// The list is empty, a label is empty or something else than a label, or one is there twice.
pub fn parse_labels(list: &str) -> Result<Vec<Label>, Error> {
    percept_labels::parse_labels(list).map_err(labels)
}

/// Labels that are in a list already, each without synonyms.
///
/// # Errors
/// The list is empty, a label is empty, or one is there twice.
pub fn labels_of<S: AsRef<str>>(names: &[S]) -> Result<Vec<Label>, Error> {
    percept_labels::labels_of(names).map_err(labels)
}

/// Labels from a class file: one class a line, synonyms separated by commas, or one of the other forms
/// that [`percept_labels`] reads.
///
/// # Errors
/// The file cannot be read, is in none of the forms, holds no label, or holds one twice.
pub fn read_labels(path: &Path) -> Result<Vec<Label>, Error> {
    Ok(read_label_list(path)?.into_labels())
}

/// As [`read_labels`], with lines, ids, and what people should be told of how the file was read.
///
/// # Errors
/// As [`read_labels`].
pub fn read_label_list(path: &Path) -> Result<LabelList, Error> {
    LabelList::from_file(path).map_err(|error| in_file(error, Error::Labels))
}

fn labels(refused: Refused) -> Error {
    Error::Labels(refused.to_string())
}

fn in_file(error: FileError, refused: impl FnOnce(String) -> Error) -> Error {
    match error {
        FileError::Io { path, source } => Error::Io { path, source },
        error => refused(error.to_string()),
    }
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

    /// Reads a file with one template a line, or a list of them: see
    /// [`percept_labels::parse_templates`].
    ///
    /// # Errors
    /// The file cannot be read, or one of its templates has no place for the label.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = read_text(path).map_err(|error| in_file(error, Error::Templates))?;
        parse_templates(&text)
            .map(Self)
            .map_err(|refused| Error::Templates(format!("{}: {refused}", path.display())))
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
pub fn everyday_words() -> impl Iterator<Item = String> {
    lines(include_str!("../data/everyday.txt"))
}

fn lines(text: &str) -> impl Iterator<Item = String> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

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
