//! Perceptual grouping with vision-language models: segment, group, classify and embed photos.
//!
//! ```no_run
//! use percept::{Background, ClassBank, Hints, Model, SegmentOptions, Segmenter, Templates};
//!
//! # fn main() -> Result<(), percept::Error> {
//! let model = Model::load("models/percept-s14".as_ref(), &Hints::default(), &percept::device("auto")?)?;
//! let labels = percept::parse_labels("dog, grass, sky")?;
//! let templates = Templates::new(model.config().templates.clone())?;
//! // The text encoder runs once; the bank serves every photo.
//! let bank = ClassBank::new(&model, &labels, &templates, &Background::Auto)?;
//! let segmenter = Segmenter::new(&model, &bank, &SegmentOptions::default())?;
//!
//! let photo = percept::image::open("photo.jpg".as_ref(), &Default::default())?;
//! for class in segmenter.segment(&photo)?.found {
//!     println!("{} covers {:.0} %", class.name, 100.0 * class.share);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The types are the story: a [`Model`] turns an image into a [`TokenGrid`]; a [`ClassBank`] holds
//! labels as text embeddings; a [`Segmenter`] compares the two and makes a [`LabelMap`]; a
//! [`Grouper`] makes one from the tokens alone; a [`Classifier`] pools them first. [`stream`] sends
//! many photos through any of them.

mod bank;
mod classify;
mod error;
mod group;
mod prompt;
mod region;
mod segment;
mod similarity;
mod stream;
mod view;

pub use bank::{BACKGROUND, Background, ClassBank, EmbeddedLabels, Row, embed_labels};
pub use classify::{Classifier, Embedder, Score};
pub use error::Error;
pub use group::{Centering, GroupOptions, Grouper, Grouping};
pub use percept_image as image;
pub use percept_image::LabelMap;
pub use percept_labels::{Dictionary, Hint, Label, LabelList, abbreviate};
pub use percept_model as model;
pub use percept_model::{
    Device, Hints, Kernel, Model, ModelConfig, ModelFiles, Pooling, Precision, TextEmbeddings,
    TokenGrid, Towers, device,
};
pub use prompt::{
    Templates, everyday_words, labels_of, parse_labels, read_label_list, read_labels,
};
pub use region::{Categories, CocoResult, CompressedRle, ImageId, Nearest, Region, coco_results};
pub use segment::{ClassShare, SegmentOptions, Segmentation, Segmenter};
pub use similarity::{Assignment, SimilarityMaps};
pub use stream::{Together, stream};
pub use view::{Size, View, Window};
