//! A set of classes as text embeddings: made once, used for every image.

use std::collections::HashSet;

use percept_labels::abbreviate;
use percept_model::{Model, normalize};

use crate::prompt::{everyday_words, parse_labels};
use crate::{Error, Label, Templates};

/// Name of class 0 in a segmentation.
pub const BACKGROUND: &str = "background";

/// Everyday words whose centred embedding has a cosine above this with a label's are not taken as
/// background: they mean the same, or a kind of it. With MiniLM's embeddings pairs such as
/// lawn/grass (0.77), man/person (0.53) and lake/water (0.51) lie above it, pairs such as
/// sofa/chair (0.41), cow/sheep (0.40) and cat/dog (0.36) below.
const SAME_MEANING: f32 = 0.45;

/// What becomes of pixels that show none of the labels.
#[derive(Debug, Clone, PartialEq)]
pub enum Background {
    /// Nothing: every pixel gets the label it resembles most.
    None,
    /// Everyday words compete with the labels, and where one of them wins is background.
    ///
    /// The words are `data/everyday.txt`: the 39 extra names of the paper's VOC protocol and some
    /// fifty things, places and materials that photos are full of. Words that mean nearly the
    /// same as a label are left out, so that "lawn" does not lose to "grass": those whose text
    /// embedding, less the mean of all the words' embeddings, has a cosine above 0.45 with the
    /// label's. There is no threshold to guess, since a pixel is always compared with what else
    /// it could be.
    Auto,
    /// These words are background, wherever they win against the labels.
    Words(Vec<String>),
    /// Pixels whose cosine similarity to every label is below this are background. What a good
    /// value is depends on the model: look at the scores of `--json` or `--format npy`.
    Threshold(f32),
}

impl std::str::FromStr for Background {
    type Err = Error;

    /// `auto`, `none`, a similarity such as `0.2`, or words such as `wall, sky`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        match text.to_lowercase().as_str() {
            "auto" => return Ok(Self::Auto),
            "none" => return Ok(Self::None),
            "off" | "no" | "false" | "null" | "disabled" | "nothing" | "non" | "nil" | "noone"
            | "nobackground" | "no background" | "n/a" | "na" => {
                return Err(setting(format!(
                    "{text}: to give every pixel a label write none"
                )));
            }
            "on" | "yes" | "true" | "default" | "automatic" | "automatically" => {
                return Err(setting(format!(
                    "{text}: to let everyday words compete write auto"
                )));
            }
            _ => {}
        }
        match text.parse::<f32>() {
            Ok(value) if (-1.0..=1.0).contains(&value) => return Ok(Self::Threshold(value)),
            Ok(value) => {
                return Err(setting(format!(
                    "{value}: a similarity is between -1 and 1"
                )));
            }
            Err(_) => {}
        }
        // `30%`, `0,2`, `<0.3`: meant as a number, and no words.
        if !text.is_empty() && !text.contains(char::is_alphabetic) {
            return Err(setting(format!(
                "{text} is neither a similarity between -1 and 1, such as 0.2, nor words"
            )));
        }
        let words = parse_labels(text).map_err(|error| match error {
            Error::Labels(reason) => setting(reason),
            other => other,
        })?;
        if let Some(word) = words.iter().find(|word| is_setting(&word.name)) {
            return Err(setting(format!(
                "{}: not a word of a list, but a setting by itself; give it alone, or the words alone",
                word.name
            )));
        }
        Ok(Self::Words(words.into_iter().map(|w| w.name).collect()))
    }
}

/// Whether a word of a list is one of the settings that are given alone.
fn is_setting(word: &str) -> bool {
    let is_keyword = ["auto", "none", "off", "null"].contains(&word.to_lowercase().as_str());
    is_keyword || word.trim_end_matches('%').trim_end().parse::<f32>().is_ok()
}

fn setting(reason: String) -> Error {
    Error::Setting(format!("background: {reason}"))
}

/// Classes and their text embeddings.
///
/// Several rows may stand for one class: the class of a pixel is that of the row it resembles
/// most. Class 0 is background; the labels are 1, 2, ….
#[derive(Debug, Clone, PartialEq)]
pub struct ClassBank {
    classes: Vec<String>,
    rows: Vec<Row>,
    threshold: Option<f32>,
    truncated: Vec<String>,
}

/// One text that pixels are compared with.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// What it says.
    pub name: String,
    /// The class that it stands for.
    pub class: u16,
    /// Its L2-normalised embedding.
    pub embedding: Vec<f32>,
}

impl ClassBank {
    /// Embeds `labels`, and the words of `background` after them. One pass of the text encoder
    /// over all prompts; keep the bank to use it again.
    ///
    /// # Errors
    /// The model has no text tower, there are too many labels for a label map, or a word of the background is
    /// a label.
    pub fn new(
        model: &Model,
        labels: &[Label],
        templates: &Templates,
        background: &Background,
    ) -> Result<Self, Error> {
        Self::from_embedded(labels, background, |names| {
            embed_labels(model, names, templates)
        })
    }

    /// As [`Self::new`], with the embeddings that `embed` gives for the labels and the words of
    /// `background`, in that order: for callers that keep embeddings (see [`embed_labels`]).
    ///
    /// # Errors
    /// There are no labels or too many for a label map, a word of the background is a label, or `embed`
    /// fails.
    pub fn from_embedded(
        labels: &[Label],
        background: &Background,
        embed: impl FnOnce(&[&Label]) -> Result<EmbeddedLabels, Error>,
    ) -> Result<Self, Error> {
        if labels.is_empty() {
            return Err(Error::Labels("none given".into()));
        }
        if labels.len() >= usize::from(u16::MAX) {
            return Err(Error::Labels("more than 65,534".into()));
        }
        if let Background::Words(words) = background {
            check_apart(labels, words)?;
        }
        let words: Vec<Label> = match background {
            Background::None | Background::Threshold(_) => Vec::new(),
            Background::Auto => everyday_words().map(Label::new).collect(),
            Background::Words(words) => words.iter().map(Label::new).collect(),
        };
        let names: Vec<&Label> = labels.iter().chain(&words).collect();
        let EmbeddedLabels {
            embeddings,
            truncated,
        } = embed(&names)?;

        let mut rows: Vec<Row> = names
            .iter()
            .zip(embeddings)
            .enumerate()
            .map(|(i, (label, embedding))| Row {
                name: label.name.clone(),
                class: if i < labels.len() { i as u16 + 1 } else { 0 },
                embedding,
            })
            .collect();
        if *background == Background::Auto {
            drop_near_synonyms(&mut rows, labels.len());
        }
        let classes = std::iter::once(BACKGROUND.to_owned())
            .chain(labels.iter().map(|label| label.name.clone()))
            .collect();
        Ok(Self {
            classes,
            rows,
            threshold: match background {
                Background::Threshold(value) => Some(*value),
                _ => None,
            },
            truncated: truncated
                .into_iter()
                .map(|i| names[i].name.clone())
                .collect(),
        })
    }

    /// Names of the classes by index; the first is [`BACKGROUND`].
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// The texts that pixels are compared with: first one for each label, then the background's.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Similarity below which a pixel is background.
    pub fn threshold(&self) -> Option<f32> {
        self.threshold
    }

    /// Labels that were longer than the text encoder can read, and were cut.
    pub fn truncated(&self) -> &[String] {
        &self.truncated
    }

    /// Whether any pixel can become background.
    pub fn has_background(&self) -> bool {
        self.threshold.is_some() || self.rows.iter().any(|row| row.class == 0)
    }
}

/// # Errors
/// A word of the background is a label: no pixel could tell which it is.
fn check_apart(labels: &[Label], words: &[String]) -> Result<(), Error> {
    let labels: HashSet<String> = labels
        .iter()
        .flat_map(|label| &label.synonyms)
        .map(|name| name.to_lowercase())
        .collect();
    match words
        .iter()
        .find(|word| labels.contains(&word.to_lowercase()))
    {
        Some(word) => Err(setting(format!(
            "\"{}\" is one of the labels as well",
            abbreviate(word)
        ))),
        None => Ok(()),
    }
}

/// Labels as embeddings.
#[derive(Debug, Clone, PartialEq)]
pub struct EmbeddedLabels {
    /// One L2-normalised embedding `[dim]` a label.
    pub embeddings: Vec<Vec<f32>>,
    /// Indices of labels that were longer than the text encoder can read, and were cut.
    pub truncated: Vec<usize>,
}

/// Embeds labels, each as the normalised mean over the prompts of its synonyms. One pass
/// of the text encoder.
///
/// # Errors
/// The model has no text tower.
pub fn embed_labels(
    model: &Model,
    labels: &[&Label],
    templates: &Templates,
) -> Result<EmbeddedLabels, Error> {
    let mut prompts = Vec::new();
    let mut owners = Vec::new();
    for (i, label) in labels.iter().enumerate() {
        for name in &label.synonyms {
            let filled = templates.fill(name);
            owners.extend(std::iter::repeat_n(i, filled.len()));
            prompts.extend(filled);
        }
    }
    let encoded = model.encode_texts(&prompts)?;
    let width = encoded.embeddings.first().map_or(0, Vec::len);
    let mut sums = vec![vec![0.0; width]; labels.len()];
    for (owner, embedding) in owners.iter().zip(&encoded.embeddings) {
        for (sum, value) in sums[*owner].iter_mut().zip(embedding) {
            *sum += value;
        }
    }
    sums.iter_mut().for_each(|sum| normalize(sum));
    let mut truncated: Vec<usize> = encoded.truncated.iter().map(|&i| owners[i]).collect();
    truncated.dedup();
    Ok(EmbeddedLabels {
        embeddings: sums,
        truncated,
    })
}

/// Removes background rows that mean nearly the same as one of the first `labels` rows.
///
/// Text embeddings share a large common part, how large depending on the encoder. Without their
/// mean, cosines of different encoders can be held against one threshold.
fn drop_near_synonyms(rows: &mut Vec<Row>, labels: usize) {
    let words = rows.split_off(labels);
    let mut mean = vec![0.0; words.first().map_or(0, |word| word.embedding.len())];
    for word in &words {
        for (m, v) in mean.iter_mut().zip(&word.embedding) {
            *m += v / words.len() as f32;
        }
    }
    let centered = |row: &Row| {
        let mut vector: Vec<f32> = row
            .embedding
            .iter()
            .zip(&mean)
            .map(|(v, m)| v - m)
            .collect();
        normalize(&mut vector);
        vector
    };
    let label_vectors: Vec<Vec<f32>> = rows.iter().map(centered).collect();
    let kept: Vec<Row> = words
        .into_iter()
        .filter(|word| {
            let vector = centered(word);
            rows.iter().zip(&label_vectors).all(|(label, other)| {
                dot(&vector, other) < SAME_MEANING && !word.name.eq_ignore_ascii_case(&label.name)
            })
        })
        .collect();
    rows.extend(kept);
}

/// Inner product of two vectors of one length.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    // A sum in which each addition waits for the one before takes several times as long.
    const LANES: usize = 16;
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sums = [0.0; LANES];
    for (a, b) in a.iter().zip(b) {
        for i in 0..LANES {
            sums[i] += a[i] * b[i];
        }
    }
    let rest = a_rest.iter().zip(b_rest).map(|(a, b)| a * b);
    sums.into_iter().chain(rest).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inner_products_are_sums_of_products() {
        for length in 0..50 {
            let a: Vec<f32> = (0..length).map(|i| i as f32 - 7.0).collect();
            let b: Vec<f32> = (0..length).map(|i| (3 * i % 11) as f32).collect();
            let expected: f32 = (0..length)
                .map(|i| ((i as i64 - 7) * (3 * i % 11) as i64) as f32)
                .sum();
            // Whole numbers this small leave nothing to round.
            assert_eq!(dot(&a, &b), expected, "{length}");
        }
    }

    fn row(name: &str, embedding: [f32; 3]) -> Row {
        Row {
            name: name.into(),
            class: 0,
            embedding: embedding.into(),
        }
    }

    #[test]
    fn every_form_of_background_is_understood() {
        let parse = str::parse::<Background>;
        assert_eq!(parse("auto").unwrap(), Background::Auto);
        assert_eq!(parse("none").unwrap(), Background::None);
        assert_eq!(parse("-0.1").unwrap(), Background::Threshold(-0.1));
        let words = Background::Words(vec!["wall".into(), "sky".into()]);
        assert_eq!(parse("wall, sky").unwrap(), words);
        assert_eq!(parse("None").unwrap(), Background::None);
        assert_eq!(parse(".2").unwrap(), Background::Threshold(0.2));
        assert_eq!(parse("[\"wall\", \"sky\"]").unwrap(), words);
        for wrong in [
            "7",
            "30",
            "NaN",
            "inf",
            "",
            "wall,,sky",
            "30%",
            "0,2",
            "<0.3",
            "0.2.1",
            "off",
            "True",
            "nothing",
            "Non",
            "automatic",
            "0.2, sky",
            "sky, 30%",
            "sky, None",
            "auto, sky",
        ] {
            let message = parse(wrong).unwrap_err().to_string();
            assert!(message.starts_with("background: "), "{wrong:?}: {message}");
        }
    }

    #[test]
    fn a_word_is_either_a_label_or_background() {
        let label = Label {
            name: "sofa".into(),
            synonyms: vec!["sofa".into(), "Couch".into()],
        };
        let bank = |word: &str| {
            let background = Background::Words(vec!["wall".into(), word.into()]);
            ClassBank::from_embedded(std::slice::from_ref(&label), &background, |names| {
                Ok(EmbeddedLabels {
                    embeddings: vec![vec![1.0]; names.len()],
                    truncated: vec![],
                })
            })
        };
        assert_eq!(bank("sky").unwrap().rows().len(), 3);
        let message = bank("couch").unwrap_err().to_string();
        assert!(
            message.contains("\"couch\" is one of the labels"),
            "{message}"
        );
    }

    #[test]
    fn words_that_mean_a_label_are_no_background() {
        // All share a large common part, as text embeddings do.
        let mut rows = vec![
            row("lawn", [10.0, 1.0, 0.1]),
            row("sky", [10.0, 0.0, 0.1]),
            row("grass", [10.0, 1.0, 0.0]),
            row("wall", [10.0, -1.0, 0.4]),
            row("SKY", [10.0, 0.0, -0.4]),
        ];
        drop_near_synonyms(&mut rows, 2);
        let names: Vec<_> = rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(names, ["lawn", "sky", "wall"]);
    }
}
