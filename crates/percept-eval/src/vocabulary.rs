//! What pixels are compared with under a protocol: rows of text, each standing for a class.

use std::collections::HashSet;
use std::path::Path;

use percept::{Label, Model, embed_labels};
use percept_data::{ClassName, classes};

use crate::EvalError;
use crate::protocol::{BackgroundRule, Extra, Protocol, Templates, Text};

/// The 39 names that the paper's protocol adds to VOC's, in its order.
const CLIPPY_EXTRA: [&str; 39] = [
    "bag",
    "bed",
    "bench",
    "book",
    "building",
    "cabinet",
    "ceiling",
    "cloth",
    "computer",
    "cup",
    "door",
    "fence",
    "floor",
    "flower",
    "food",
    "grass",
    "ground",
    "keyboard",
    "light",
    "mountain",
    "mouse",
    "curtain",
    "platform",
    "sign",
    "plate",
    "road",
    "rock",
    "shelves",
    "sidewalk",
    "sky",
    "snow",
    "bedclothes",
    "track",
    "tree",
    "truck",
    "wall",
    "water",
    "window",
    "wood",
];

/// Rows of text and the classes that they stand for.
#[derive(Debug, Clone, PartialEq)]
pub struct Vocabulary {
    /// What each row says.
    pub texts: Vec<String>,
    /// L2-normalised embedding of each row.
    pub embeddings: Vec<Vec<f32>>,
    /// Class of each row.
    pub class_of: Vec<u16>,
    /// Number of classes.
    pub classes: usize,
    /// The class of pixels below the threshold, where the set has one.
    pub background: Option<u16>,
    /// Texts that the encoder cut.
    pub truncated: Vec<String>,
}

impl Vocabulary {
    /// The rows for the classes of a dataset: one a class, and what stands for background.
    ///
    /// # Errors
    /// The model has no text tower, or names, templates and dataset do not fit together.
    pub fn new(
        model: &Model,
        dataset: &str,
        classes: &[ClassName],
        background: Option<u16>,
        protocol: &Protocol,
    ) -> Result<Self, EvalError> {
        let rows = rows(dataset, classes, background, protocol)?;
        Self::embed(model, rows, classes.len(), background, &protocol.text)
    }

    /// One row a class.
    ///
    /// # Errors
    /// As [`Vocabulary::new`].
    pub fn plain(model: &Model, classes: &[ClassName], text: &Text) -> Result<Self, EvalError> {
        let rows = classes
            .iter()
            .zip(0..)
            .map(|(class, index)| (label(class), index))
            .collect();
        Self::embed(model, rows, classes.len(), None, text)
    }

    /// The same rows, one class of which is background.
    #[must_use]
    pub fn with_background(self, class: u16) -> Self {
        Self {
            background: Some(class),
            ..self
        }
    }

    /// Cosine of an L2-normalised embedding with every row.
    pub fn cosines(&self, embedding: &[f32]) -> Vec<f32> {
        let dot = |row: &Vec<f32>| row.iter().zip(embedding).map(|(a, b)| a * b).sum();
        self.embeddings.iter().map(dot).collect()
    }

    fn embed(
        model: &Model,
        rows: Vec<(Label, u16)>,
        classes: usize,
        background: Option<u16>,
        text: &Text,
    ) -> Result<Self, EvalError> {
        let (mut labels, class_of): (Vec<Label>, Vec<u16>) = rows.into_iter().unzip();
        if text.lowercase {
            for name in labels.iter_mut().flat_map(|label| &mut label.synonyms) {
                *name = name.to_lowercase();
            }
        }
        let templates = templates(model, &text.templates)?;
        let references: Vec<&Label> = labels.iter().collect();
        let embedded = embed_labels(model, &references, &templates)?;
        Ok(Self {
            truncated: embedded
                .truncated
                .iter()
                .map(|&i| labels[i].name.clone())
                .collect(),
            texts: labels.into_iter().map(|label| label.name).collect(),
            embeddings: embedded.embeddings,
            class_of,
            classes,
            background,
        })
    }
}

fn label(class: &ClassName) -> Label {
    Label {
        name: class.name.clone(),
        synonyms: class.synonyms.clone(),
    }
}

/// The labels of all rows and the classes that they stand for.
fn rows(
    dataset: &str,
    classes: &[ClassName],
    background: Option<u16>,
    protocol: &Protocol,
) -> Result<Vec<(Label, u16)>, EvalError> {
    let names = names(dataset, classes, &protocol.text.names)?;
    let is_background = |index: u16| Some(index) == background;
    let mut rows: Vec<(Label, u16)> = names
        .into_iter()
        .zip(0..)
        .filter(|(_, index)| {
            !is_background(*index) || protocol.background.rule == BackgroundRule::Name
        })
        .collect();
    let Some(background) = background else {
        return Ok(rows);
    };
    let mut taken: HashSet<String> = rows
        .iter()
        .flat_map(|(label, _)| &label.synonyms)
        .map(|name| name.to_lowercase())
        .collect();
    let words = match protocol.background.rule {
        BackgroundRule::Words => protocol.background.words.clone(),
        BackgroundRule::Name | BackgroundRule::Threshold => Vec::new(),
    };
    for word in words.into_iter().chain(extra(&protocol.text.extra)?) {
        if taken.insert(word.to_lowercase()) {
            rows.push((Label::new(word), background));
        }
    }
    Ok(rows)
}

/// The names of the classes, in the set's order.
fn names(dataset: &str, classes: &[ClassName], names: &str) -> Result<Vec<Label>, EvalError> {
    let labels: Vec<Label> = match names {
        "set" => classes.iter().map(label).collect(),
        // The other sets bear mmsegmentation's names already.
        "mmseg" if dataset == "voc" => classes::voc_mmseg().iter().map(label).collect(),
        "mmseg" => classes.iter().map(label).collect(),
        file => percept::read_labels(Path::new(file)).map_err(|e| {
            let reason = percept_image::message(&e);
            EvalError::Setting(format!(
                "text.names is set, mmseg or a class file: {reason}"
            ))
        })?,
    };
    if labels.len() != classes.len() {
        return Err(EvalError::Setting(format!(
            "text.names: {} names for the {} classes of {dataset}",
            labels.len(),
            classes.len()
        )));
    }
    Ok(labels)
}

fn extra(extra: &Extra) -> Result<Vec<String>, EvalError> {
    match extra {
        Extra::Named(name) if name == "clippy" => Ok(CLIPPY_EXTRA.map(str::to_owned).to_vec()),
        Extra::Named(name) if name == "none" => Ok(Vec::new()),
        Extra::Named(name) => Err(EvalError::Setting(format!(
            "text.extra is clippy, none or a list, not {name}"
        ))),
        Extra::List(names) => Ok(names.clone()),
    }
}

fn templates(model: &Model, templates: &Templates) -> Result<percept::Templates, EvalError> {
    Ok(match templates {
        Templates::Named(name) => match name.as_str() {
            "simple" => percept::Templates::new(model.config().templates.clone())?,
            "imagenet7" => percept::Templates::imagenet7(),
            "imagenet80" => percept::Templates::imagenet80(),
            other => {
                return Err(EvalError::Setting(format!(
                    "text.templates is simple, imagenet7, imagenet80 or a list, not {other}"
                )));
            }
        },
        Templates::List(list) => percept::Templates::new(list.clone())?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voc_rows(protocol: &str) -> Vec<(Label, u16)> {
        let protocol = Protocol::load(protocol, "voc", &[]).unwrap();
        rows("voc", &classes::voc(), Some(0), &protocol).unwrap()
    }

    #[test]
    fn the_papers_voc_protocol_has_sixty_names() {
        let rows = voc_rows("clippy");
        assert_eq!(rows.len(), 60);
        assert_eq!((rows[0].0.name.as_str(), rows[0].1), ("background", 0));
        assert_eq!(rows[20].1, 20);
        assert!(rows[21..].iter().all(|(_, class)| *class == 0));
    }

    #[test]
    fn background_is_what_the_rule_says() {
        let threshold = voc_rows("tcl");
        assert_eq!(threshold.len(), 20);
        assert!(threshold.iter().all(|(_, class)| *class > 0));
        let words = voc_rows("sclip");
        assert_eq!(words.len(), 20 + 26);
        assert_eq!(words[20].0.name, "sky");
        assert_eq!(words[19].0.name, "tvmonitor");
    }

    #[test]
    fn a_class_name_is_no_extra() {
        let protocol = Protocol::load("clippy", "custom", &[]).unwrap();
        let class = |name: &str| ClassName {
            name: name.into(),
            synonyms: vec![name.into()],
        };
        let classes = [class("background"), class("Grass")];
        let rows = rows("custom", &classes, Some(0), &protocol).unwrap();
        assert_eq!(rows.len(), 2 + 38);
        // Without a background there is nothing that extras could mean.
        let bare = super::rows("custom", &classes, None, &protocol).unwrap();
        assert_eq!(bare.len(), 2);
    }
}
