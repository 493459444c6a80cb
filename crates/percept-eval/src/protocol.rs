//! Protocols: every choice behind a number, as data.
//!
//! A protocol is TOML (`data/protocols/`). What differs from dataset to dataset stands in
//! `[datasets.NAME]` and is laid over the rest; what a user asks for (`--set image.size=336`) is
//! laid over that. The outcome is one [`Protocol`] without any gaps, and it is what a result
//! records.

use std::path::Path;

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::EvalError;
use crate::metrics::MeanOver;

/// The protocols that come with percept, by name.
const BUILT_IN: [(&str, &str); 6] = [
    ("clippy", include_str!("../data/protocols/clippy.toml")),
    (
        "clippy-448",
        include_str!("../data/protocols/clippy-448.toml"),
    ),
    (
        "clippy-notebook",
        include_str!("../data/protocols/clippy-notebook.toml"),
    ),
    ("tcl", include_str!("../data/protocols/tcl.toml")),
    ("sclip", include_str!("../data/protocols/sclip.toml")),
    ("groupvit", include_str!("../data/protocols/groupvit.toml")),
];

/// A protocol is a page of settings; a larger file is something else.
const MAX_BYTES: u64 = 1 << 20;

/// How photos are shown to a model and how its answers are compared with the truth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Protocol {
    /// What it is called in results.
    #[serde(default)]
    pub name: String,
    /// Where it comes from, in a sentence or two.
    pub about: String,
    /// The split of the dataset; the dataset's usual one unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// The model's input for dense tasks.
    pub image: Image,
    /// The truth that predictions are compared with.
    pub truth: Truth,
    /// What stands for a class.
    pub text: Text,
    /// What becomes background.
    pub background: Background,
    /// From similarities to classes.
    pub score: Score,
    /// Refinement of the maps by the photo's colours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refine: Option<Refine>,
    /// The label-free score.
    pub grouping: Grouping,
    /// The model's input where the whole photo has one answer.
    pub classify: Classify,
}

/// How a photo becomes the model's input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// The rule.
    pub resize: Resize,
    /// Short side, or both sides, in pixels.
    pub size: u32,
    /// Side of sliding windows in pixels; the whole image in one pass unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<u32>,
    /// Step between windows in pixels; half a window unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stride: Option<u32>,
    /// Whether photos are turned as their metadata (EXIF) asks, in all tasks.
    #[serde(default)]
    pub orientation: Orientation,
}

/// What becomes of photos whose metadata (EXIF) asks for turning or mirroring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Orientation {
    /// The pixels as stored: what the sets' own code reads (VOC, COCO, ADE20K, Cityscapes) and their
    /// masks are drawn on, and what `Image.open` gives in torchvision, open_clip and clip_benchmark.
    #[default]
    Stored,
    /// Turned upright, for masks that were drawn in a program that shows photos so.
    Upright,
}

/// Which size a photo is brought to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resize {
    /// Both sides, the aspect not kept.
    Squash,
    /// The short side, the aspect kept, both sides rounded to whole patches.
    ShortSide,
    /// The short side, then the middle square.
    CenterCrop,
}

/// The size at which predictions meet the truth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Truth {
    /// Both sides of the mask in pixels, by nearest neighbour; its own size unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resize: Option<u32>,
}

/// Names and prompts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Text {
    /// `set` for the dataset's own names, `mmseg` for mmsegmentation's, or a class file with one
    /// class a line and synonyms after commas.
    pub names: String,
    /// Further names, whose pixels become background, where the dataset has a background:
    /// `clippy` for the 39 of the paper's protocol, or a list. A name that a class bears is left
    /// out.
    #[serde(default)]
    pub extra: Extra,
    /// `simple` for the model's own, `imagenet7`, `imagenet80`, or a list with `{}` or `{a}`.
    pub templates: Templates,
    /// Names in lower case.
    #[serde(default)]
    pub lowercase: bool,
}

/// Names beside the dataset's own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Extra {
    /// A list that has a name.
    Named(String),
    /// A list of one's own.
    List(Vec<String>),
}

impl Default for Extra {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

/// Sentences that names are put into.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Templates {
    /// A set that has a name.
    Named(String),
    /// A set of one's own.
    List(Vec<String>),
}

/// What becomes background, where the dataset has one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Background {
    /// What stands for it among the names.
    pub rule: BackgroundRule,
    /// The words of [`BackgroundRule::Words`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub words: Vec<String>,
    /// A pixel whose best score is below this is background: a probability where `score.softmax`
    /// is given, else a cosine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f32>,
    /// The threshold is never above the photo's own best score, so that something is left.
    #[serde(default)]
    pub keep_best: bool,
}

/// What stands for the background class among the names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackgroundRule {
    /// Its name, as any other class.
    Name,
    /// A list of words, each competing by itself.
    Words,
    /// Nothing: only the threshold makes background.
    Threshold,
}

/// From similarities to a class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Score {
    /// Factor on cosines before a softmax over all names; the cosines themselves unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub softmax: Option<f32>,
    /// Only this many classes compete: those that fit the pooled photo best.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_classes: Option<usize>,
    /// The classes that the metric `miou` is over; the other means are given under their own names.
    #[serde(default)]
    pub mean_over: MeanOver,
}

/// Refinement of class maps by the photo's colours.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refine {
    /// The method.
    pub method: RefineMethod,
    /// How often.
    #[serde(default = "Refine::default_iterations")]
    pub iterations: usize,
    /// Distances of the eight neighbours, in pixels.
    #[serde(default = "Refine::default_dilations")]
    pub dilations: Vec<usize>,
}

impl Refine {
    fn default_iterations() -> usize {
        10
    }

    fn default_dilations() -> Vec<usize> {
        vec![1, 2, 4, 8, 12, 24]
    }
}

/// Methods of refinement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefineMethod {
    /// Pixel-adaptive mask refinement (Araslanov and Roth 2020).
    Pamr,
}

/// How groups are made and what they are held against.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grouping {
    /// Principal directions, each the centre of a group.
    pub groups: usize,
    /// Other numbers of groups, measured on the same tokens as `jaccard@N`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sweep: Vec<usize>,
    /// Which tokens are compared with the centres.
    pub centering: Centering,
    /// How groups reach the photo's size.
    pub upsample: Upsample,
    /// What is looked for among the groups.
    pub regions: Regions,
}

/// Which tokens are compared with the principal directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Centering {
    /// The tokens as they are.
    Raw,
    /// The tokens less their mean.
    Centered,
}

/// How groups of tokens become groups of pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Upsample {
    /// A pixel has the group of its token.
    Nearest,
    /// The similarities are interpolated, as they are with words.
    Bilinear,
}

/// The annotated regions of the Jaccard score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Regions {
    /// Objects; all of a class where the set does not tell objects apart.
    Instances,
    /// All of a class in a photo together, background left out.
    Classes,
}

/// The model's input where the whole photo has one answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Classify {
    /// The rule.
    pub resize: Resize,
    /// Short side, or both sides, in pixels; the model's own size unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u32>,
}

impl Protocol {
    /// Names of the protocols that come with percept.
    pub fn names() -> impl Iterator<Item = &'static str> {
        BUILT_IN.iter().map(|(name, _)| *name)
    }

    /// The protocol `name`, or the file of that name, for one dataset; `overrides` such as
    /// `image.size=336` are laid over it.
    ///
    /// # Errors
    /// There is no such protocol, or a setting is unknown or has the wrong type.
    pub fn load(name: &str, dataset: &str, overrides: &[String]) -> Result<Self, EvalError> {
        let built_in = BUILT_IN.iter().find(|(known, _)| *known == name);
        let (text, title) = match built_in {
            Some((title, text)) => ((*text).to_owned(), (*title).to_owned()),
            None => (read(name)?, stem(name)),
        };
        let refuse = |reason: String| EvalError::Protocol {
            name: name.to_owned(),
            reason,
        };
        let mut table: Table = text.parse().map_err(|e| refuse(format!("{e}")))?;
        if let Some(per_dataset) = table.remove("datasets") {
            let Value::Table(mut per_dataset) = per_dataset else {
                return Err(refuse("datasets is not a table".into()));
            };
            match per_dataset.remove(dataset) {
                Some(Value::Table(own)) => overlay(&mut table, own),
                Some(_) => return Err(refuse(format!("datasets.{dataset} is not a table"))),
                None => {}
            }
        }
        for text in overrides {
            let own = parse_override(text)
                .map_err(|reason| EvalError::Setting(format!("--set {text}: {reason}")))?;
            overlay(&mut table, own);
        }
        let given_name = matches!(table.get("name"), Some(Value::String(n)) if !n.is_empty());
        if !given_name {
            table.insert("name".into(), Value::String(title));
        }
        let protocol: Self = table
            .try_into()
            .map_err(|e: toml::de::Error| refuse(e.message().to_owned()))?;
        protocol.check().map_err(refuse)?;
        Ok(protocol)
    }

    /// The protocol as TOML, as `--show-protocol` prints it and [`Protocol::load`] reads it.
    pub fn to_toml(&self) -> String {
        // A protocol is plain strings, numbers and lists, which TOML can always hold.
        toml::to_string_pretty(self).unwrap_or_default()
    }

    /// What types cannot rule out.
    fn check(&self) -> Result<(), String> {
        if self.image.stride.is_some() && self.image.window.is_none() {
            return Err("image.stride needs image.window".into());
        }
        let finite = [self.background.threshold, self.score.softmax];
        if finite.into_iter().flatten().any(|v| !v.is_finite()) {
            return Err("a threshold or factor is not a number".into());
        }
        if self.score.softmax.is_some_and(|factor| factor <= 0.0) {
            return Err("score.softmax is above 0".into());
        }
        if self.truth.resize == Some(0) {
            return Err("truth.resize is at least 1".into());
        }
        if self.background.rule == BackgroundRule::Threshold && self.background.threshold.is_none()
        {
            return Err("background.rule \"threshold\" needs background.threshold".into());
        }
        if self.background.rule == BackgroundRule::Words && self.background.words.is_empty() {
            return Err("background.rule \"words\" needs background.words".into());
        }
        if self.score.top_classes == Some(0) {
            return Err("score.top_classes is at least 1".into());
        }
        Ok(())
    }
}

fn read(name: &str) -> Result<String, EvalError> {
    let path = Path::new(name);
    let refuse = |reason: String| EvalError::Protocol {
        name: name.to_owned(),
        reason,
    };
    if path.extension().is_none_or(|e| e != "toml") {
        let known: Vec<_> = Protocol::names().collect();
        return Err(refuse(format!(
            "unknown; there are {} and files that end in .toml",
            known.join(", ")
        )));
    }
    let size = std::fs::metadata(path)
        .map_err(|e| refuse(e.to_string()))?
        .len();
    if size > MAX_BYTES {
        return Err(refuse("larger than 1 MiB".into()));
    }
    std::fs::read_to_string(path).map_err(|e| refuse(e.to_string()))
}

fn stem(path: &str) -> String {
    Path::new(path)
        .file_stem()
        .map_or_else(|| path.to_owned(), |s| s.to_string_lossy().into_owned())
}

/// Lays `own` over `table`, table by table.
fn overlay(table: &mut Table, own: Table) {
    for (key, value) in own {
        match (table.get_mut(&key), value) {
            (Some(Value::Table(inner)), Value::Table(value)) => overlay(inner, value),
            (_, value) => {
                table.insert(key, value);
            }
        }
    }
}

/// `image.size=336` as a table. A value that is not TOML is taken as a string, so that quotes are
/// not needed in a shell.
fn parse_override(text: &str) -> Result<Table, String> {
    let (key, value) = text
        .split_once('=')
        .ok_or("expected KEY=VALUE, such as image.size=336")?;
    let (key, value) = (key.trim(), value.trim());
    let is_key = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if key.is_empty() || !key.chars().all(is_key) || value.contains(['\n', '\r']) {
        return Err("expected KEY=VALUE, such as image.size=336".into());
    }
    let quoted = || Value::String(value.to_owned()).to_string();
    format!("{key} = {value}")
        .parse()
        .or_else(|_| format!("{key} = {}", quoted()).parse())
        .map_err(|e: toml::de::Error| e.message().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_built_in_protocols_load_and_round_trip() {
        for name in Protocol::names() {
            let protocol = Protocol::load(name, "voc", &[]).unwrap();
            assert_eq!(protocol.name, name);
            let again: Protocol = toml::from_str(&protocol.to_toml()).unwrap();
            assert_eq!(again, protocol);
        }
    }

    #[test]
    fn datasets_have_settings_of_their_own() {
        let size = |dataset| Protocol::load("sclip", dataset, &[]).unwrap().image.size;
        assert_eq!((size("voc"), size("cityscapes")), (336, 560));
        let context = Protocol::load("groupvit", "context", &[]).unwrap();
        assert_eq!(context.background.threshold, Some(0.35));
        assert!(context.background.keep_best);
        let notebook = Protocol::load("clippy-notebook", "voc", &[]).unwrap();
        assert_eq!(notebook.split.as_deref(), Some("train"));
    }

    #[test]
    fn settings_can_be_laid_over() {
        let overrides = [
            "image.size=336",
            "image.resize=short-side",
            "background.words=[\"sky\", \"wall\"]",
            "refine.method=pamr",
            "text.templates=imagenet7",
        ]
        .map(str::to_owned);
        let protocol = Protocol::load("clippy", "voc", &overrides).unwrap();
        assert_eq!(protocol.image.size, 336);
        assert_eq!(protocol.image.resize, Resize::ShortSide);
        assert_eq!(protocol.background.words, ["sky", "wall"]);
        assert_eq!(protocol.refine.unwrap().iterations, 10);
        assert_eq!(
            protocol.text.templates,
            Templates::Named("imagenet7".into())
        );
    }

    #[test]
    fn slips_are_named() {
        let fail = |name: &str, set: &[&str]| {
            let set: Vec<String> = set.iter().map(|s| (*s).to_owned()).collect();
            Protocol::load(name, "voc", &set).unwrap_err().to_string()
        };
        assert!(fail("clipy", &[]).contains("clippy-448"));
        assert!(fail("clippy", &["image.sise=3"]).contains("sise"));
        assert!(fail("clippy", &["image.size=big"]).contains("clippy"));
        assert!(fail("clippy", &["image.size"]).contains("KEY=VALUE"));
        assert!(fail("clippy", &["image.stride=3"]).contains("window"));
        assert!(fail("clippy", &["background.rule=words"]).contains("words"));
        assert!(fail("none.toml", &[]).contains("none.toml"));
    }
}
