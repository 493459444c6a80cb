//! Zero-shot classification, as CLIP does it, and image embeddings.

use percept_image::{ChwImage, RgbImage};
use percept_model::{Model, Pooling, TokenGrid};
use serde::Serialize;

use crate::bank::dot;
use crate::view::View;
use crate::{ClassBank, Error, Size};

/// CLIP's factor on cosines before the softmax.
const LOGIT_SCALE: f32 = 100.0;

/// Says which of a bank's labels describes a photo.
#[derive(Debug, Clone)]
pub struct Classifier<'a> {
    bank: &'a ClassBank,
    embedder: Embedder<'a>,
}

/// A label and how well it describes the photo.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Score {
    /// Index of the class in [`ClassBank::classes`].
    #[serde(rename = "index")]
    pub class: u16,
    /// Its name.
    pub name: String,
    /// Softmax over the labels of 100 · cosine.
    pub probability: f32,
    /// Cosine similarity of the embeddings.
    pub cosine: f32,
}

impl<'a> Classifier<'a> {
    /// A classifier for the labels of `bank`, at the model's own image size (short side resized,
    /// centre cropped, as CLIP does it).
    ///
    /// # Errors
    /// The model has no image tower.
    pub fn new(model: &'a Model, bank: &'a ClassBank) -> Result<Self, Error> {
        Ok(Self {
            bank,
            embedder: Embedder::new(model, None, None)?,
        })
    }

    /// Scores of all labels for one photo, the best first.
    ///
    /// # Errors
    /// The encoder fails.
    pub fn classify(&self, photo: &RgbImage) -> Result<Vec<Score>, Error> {
        let grid = self.encode(&[self.prepare(photo)])?.remove(0);
        Ok(self.score(&grid))
    }

    /// Resizes and normalises a photo: the first step of [`Self::classify`].
    pub fn prepare(&self, photo: &RgbImage) -> ChwImage {
        self.embedder.prepare(photo)
    }

    /// Encodes prepared photos: the second step.
    ///
    /// # Errors
    /// The encoder fails.
    pub fn encode(&self, images: &[ChwImage]) -> Result<Vec<TokenGrid>, Error> {
        self.embedder.encode(images)
    }

    /// Scores of all labels for a photo's tokens, the best first: the last step.
    pub fn score(&self, grid: &TokenGrid) -> Vec<Score> {
        let embedding = self.embedder.pool(grid);
        let mut scores: Vec<Score> = self
            .bank
            .rows()
            .iter()
            .filter(|row| row.class > 0)
            .map(|row| Score {
                class: row.class,
                name: row.name.clone(),
                probability: 0.0,
                cosine: dot(&embedding, &row.embedding),
            })
            .collect();
        let best = scores
            .iter()
            .map(|score| score.cosine)
            .fold(f32::NEG_INFINITY, f32::max);
        for score in &mut scores {
            score.probability = (LOGIT_SCALE * (score.cosine - best)).exp();
        }
        let sum: f32 = scores.iter().map(|score| score.probability).sum();
        for score in &mut scores {
            score.probability /= sum;
        }
        scores.sort_by(|a, b| b.cosine.total_cmp(&a.cosine).then(a.class.cmp(&b.class)));
        scores
    }
}

/// Photos to tokens and embeddings.
#[derive(Debug, Clone)]
pub struct Embedder<'a> {
    view: View<'a>,
    pooling: Pooling,
}

impl<'a> Embedder<'a> {
    /// An embedder with the model's own pooling and image size, or others.
    ///
    /// # Errors
    /// The model has no image tower, or the size makes no sense.
    pub fn new(
        model: &'a Model,
        pooling: Option<Pooling>,
        size: Option<Size>,
    ) -> Result<Self, Error> {
        let config = model.image_config()?;
        let size = size.unwrap_or(Size::CenterCrop(config.image_size as u32));
        Ok(Self {
            view: View::new(model, size, None)?,
            pooling: pooling.unwrap_or(config.pooling),
        })
    }

    /// Resizes and normalises a photo.
    pub fn prepare(&self, photo: &RgbImage) -> ChwImage {
        self.view.prepare(photo)
    }

    /// Tokens of prepared photos.
    ///
    /// # Errors
    /// The encoder fails.
    pub fn encode(&self, images: &[ChwImage]) -> Result<Vec<TokenGrid>, Error> {
        self.view.encode(images)
    }

    /// The L2-normalised embedding `[dim]` of an image's tokens.
    pub fn pool(&self, grid: &TokenGrid) -> Vec<f32> {
        grid.pool(self.pooling)
    }
}
