//! Text-driven segmentation: top-down grouping (paper §2.4).

use percept_image::{ChwImage, LabelMap, RgbImage};
use percept_model::{Model, TokenGrid};

use crate::view::View;
use crate::{BACKGROUND, ClassBank, Error, SimilarityMaps, Size, Window};

/// Settings of a [`Segmenter`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentOptions {
    /// Size at which images are encoded.
    pub size: Size,
    /// Encode in windows; `None` encodes the whole image in one pass.
    pub window: Option<Window>,
}

impl Default for SegmentOptions {
    /// Short side 448, no windows.
    fn default() -> Self {
        Self {
            size: Size::ShortSide(448),
            window: None,
        }
    }
}

/// Gives every pixel of a photo one of a bank's classes.
#[derive(Debug, Clone)]
pub struct Segmenter<'a> {
    bank: &'a ClassBank,
    view: View<'a>,
}

/// A segmented photo.
#[derive(Debug, Clone, PartialEq)]
pub struct Segmentation {
    /// The class of every pixel at the photo's own size, an index into [`ClassBank::classes`].
    pub labels: LabelMap,
    /// The classes that occur, the largest first.
    pub found: Vec<ClassShare>,
    /// Similarities at the resolution of the token grid, one map for each row of the bank.
    pub similarity: SimilarityMaps,
}

/// How much of a photo a class covers.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassShare {
    /// Index of the class.
    pub class: u16,
    /// Its name.
    pub name: String,
    /// Number of pixels.
    pub pixels: u64,
    /// Share of the pixels, 0 to 1.
    pub share: f32,
    /// Mean cosine similarity of its pixels with the text that won there, −1 to 1.
    pub score: f32,
}

impl<'a> Segmenter<'a> {
    /// A segmenter for the classes of `bank`, which was made with the same `model`.
    ///
    /// # Errors
    /// The model has no image tower, a size makes no sense, or a label has the name of class 0.
    pub fn new(
        model: &'a Model,
        bank: &'a ClassBank,
        options: &SegmentOptions,
    ) -> Result<Self, Error> {
        // Lists of public datasets begin with it, some as `__background__`.
        let is_background = |name: &&String| {
            let name = name.trim_matches('_');
            name.eq_ignore_ascii_case(BACKGROUND)
        };
        if let Some(name) = bank.classes().iter().skip(1).find(is_background) {
            return Err(Error::Labels(format!(
                "\"{name}\" is class 0 of every result and no label: leave it out; to compare pixels with the \
                 word, make it one of the background's"
            )));
        }
        Ok(Self {
            bank,
            view: View::new(model, options.size, options.window)?,
        })
    }

    /// Segments one photo.
    ///
    /// # Errors
    /// The encoder fails.
    pub fn segment(&self, photo: &RgbImage) -> Result<Segmentation, Error> {
        let grid = self.encode(&[self.prepare(photo)])?.remove(0);
        self.assign(&grid, photo.width(), photo.height())
    }

    /// Resizes and normalises a photo: the first step of [`Self::segment`], for callers that
    /// prepare on one thread and encode on another.
    pub fn prepare(&self, photo: &RgbImage) -> ChwImage {
        self.view.prepare(photo)
    }

    /// Width and height at which a photo is encoded, where the size asked for is more than the encoder
    /// takes ([`MAX_PATCHES`](percept_model::MAX_PATCHES)); windows have no such limit.
    pub fn shrunk(&self, photo: &RgbImage) -> Option<[u32; 2]> {
        self.view.shrunk(photo)
    }

    /// Encodes prepared photos: the second step. The tokens do not depend on the labels.
    ///
    /// # Errors
    /// The encoder fails.
    pub fn encode(&self, images: &[ChwImage]) -> Result<Vec<TokenGrid>, Error> {
        self.view.encode(images)
    }

    /// Compares tokens with every row of the bank.
    pub fn similarity(&self, grid: &TokenGrid) -> SimilarityMaps {
        let rows = self.bank.rows().iter();
        SimilarityMaps::new(grid, rows.map(|row| row.embedding.as_slice()))
    }

    /// Gives every pixel of a `width` x `height` photo its class: the last step.
    ///
    /// # Errors
    /// The photo has no pixels, or too many.
    pub fn assign(&self, grid: &TokenGrid, width: u32, height: u32) -> Result<Segmentation, Error> {
        let rows = self.bank.rows();
        let similarity = self.similarity(grid);
        let class_of: Vec<u16> = rows.iter().map(|row| row.class).collect();
        let classes = self.bank.classes();
        let assigned = similarity.assign(
            width,
            height,
            &class_of,
            classes.len(),
            self.bank.threshold(),
        )?;
        let counts = assigned.labels.counts(classes.len());
        let total = f64::from(width) * f64::from(height);
        let mut found: Vec<ClassShare> = counts
            .iter()
            .enumerate()
            .filter(|(_, pixels)| **pixels > 0)
            .map(|(class, pixels)| ClassShare {
                class: class as u16,
                name: classes[class].clone(),
                pixels: *pixels,
                share: (*pixels as f64 / total) as f32,
                score: (assigned.score_sums[class] / *pixels as f64) as f32,
            })
            .collect();
        found.sort_by_key(|class| std::cmp::Reverse(class.pixels));
        Ok(Segmentation {
            labels: assigned.labels,
            found,
            similarity,
        })
    }
}
