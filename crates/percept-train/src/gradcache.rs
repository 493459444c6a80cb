//! Large batches in bounded memory, exactly (GradCache, Gao et al., 2021).
//!
//! The contrastive loss needs the embeddings of the whole batch, but not their graphs. So every
//! chunk is embedded without a graph; the loss gives its gradient with respect to every embedding;
//! then each chunk is computed a second time with a graph, and only its own gradients are sent
//! back through it. The result is that of the whole batch at once, to rounding.
//!
//! A batch of a single chunk keeps its graph from the first pass, and is not computed twice.

use std::ops::Range;

use burn::module::Module;
use burn::tensor::{Gradients, Int, Tensor};
use percept_model::text::{TextTower, TokenBatch};
use percept_model::vit::{Vit, VitOutput};
use percept_model::{FrozenVit, Pooling, weights};
use serde::{Deserialize, Serialize};

use crate::optim::{GradientSum, IMAGE, TEXT, block_number};
use crate::sides::Division;

/// Whether a tower learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Learning {
    /// Its weights are trained.
    #[default]
    Trained,
    /// The last blocks, so many of them, and the final norm are trained; what comes before stays,
    /// and is computed once and without a graph (open_clip's `--lock-image-unlocked-groups`). Of
    /// the image tower only.
    Last(usize),
    /// Its weights stay; it is computed without a graph (open_clip's `--lock-image`,
    /// `--lock-text`).
    Locked,
}

impl Learning {
    /// How many blocks of a tower of `depth` blocks stay, with what comes before them, where others
    /// learn.
    pub fn locked_blocks(self, depth: usize) -> Option<usize> {
        match self {
            Self::Last(blocks) => Some(depth.saturating_sub(blocks)),
            Self::Trained | Self::Locked => None,
        }
    }

    /// Whether a parameter of the image tower, of `depth` blocks, learns.
    pub fn learns(self, name: &str, depth: usize) -> bool {
        match (self, block_number(name)) {
            (Self::Trained, _) => true,
            (Self::Locked, _) => false,
            (Self::Last(blocks), Some(block)) => block >= depth.saturating_sub(blocks),
            (Self::Last(_), None) => name.starts_with("norm."),
        }
    }
}

/// What the image tower keeps for the way back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keep {
    /// Everything.
    #[default]
    Activations,
    /// The input of each block, whose inside is computed again (open_clip's
    /// `--grad-checkpointing`): a third more time for a tenth of the activations.
    BlockInputs,
}

/// A tower over a batch that is divided into chunks.
pub trait Side {
    /// Its weights.
    type Tower: Module;
    /// What a pass keeps for the way back.
    type Kept;

    /// Samples in the batch.
    fn count(&self) -> usize;

    /// Embeddings `[samples, width]` of some of the samples, not normalised, of which nothing is kept.
    fn embed(&self, tower: &Self::Tower, samples: Range<usize>) -> Tensor<2>;

    /// The same outside any graph, with what [`backward`](Self::backward) needs.
    fn forward(&self, tower: &Self::Tower, samples: Range<usize>) -> (Tensor<2>, Self::Kept);

    /// Adds the gradients of `Σ embeddings · gradient` by the tower's parameters to `sum`.
    fn backward(
        &self,
        tower: &Self::Tower,
        kept: Self::Kept,
        gradient: Tensor<2>,
        sum: &mut GradientSum,
    );
}

/// A tower in a graph, and its output there.
#[derive(Debug)]
pub struct Graph<M> {
    tower: M,
    embeddings: Tensor<2>,
}

impl<M: Module> Graph<M> {
    fn new(tower: &M, embed: impl FnOnce(&M) -> Tensor<2>) -> (Tensor<2>, Self) {
        let tower = weights::recorded(tower);
        let embeddings = embed(&tower);
        let plain = embeddings.clone().without_autodiff();
        (plain, Self { tower, embeddings })
    }

    fn backward(self, prefix: &str, gradient: Tensor<2>, sum: &mut GradientSum) {
        let mut gradients = (self.embeddings * gradient).sum().backward();
        collect(&self.tower, prefix, &mut gradients, sum);
    }
}

/// Adds a recorded tower's gradients to `sum`, under names that begin with `prefix`.
fn collect<M: Module>(
    recorded: &M,
    prefix: &str,
    gradients: &mut Gradients,
    sum: &mut GradientSum,
) {
    weights::take_gradients(recorded, gradients, |name, values| {
        sum.add(&format!("{prefix}{name}"), values);
    });
}

/// The images of a batch.
#[derive(Debug)]
pub struct ImageSide {
    /// Normalised pixels, `[batch, 3, height, width]`, on a device without autodiff.
    pub pixels: Tensor<4>,
    /// Indices of the patches that are kept, `[batch, kept]`; all if `None`.
    pub keep: Option<Tensor<2, Int>>,
    /// How tokens become an embedding.
    pub pooling: Pooling,
    /// With it the tokens of the patches that it [`choose`](Division::choose)s stand behind the embedding
    /// of each image, which is then `(1 + 2 · patches) · dim` long.
    pub division: Option<Division>,
    /// What is kept for the way back.
    pub memory: Keep,
    /// What the locked first part of the tower made of the batch, where there is such a part.
    pub locked: Option<LockedBlocks>,
}

/// A batch after the part of the tower that does not learn: computed once, though what follows is
/// computed twice where the batch has several chunks.
#[derive(Debug)]
pub struct LockedBlocks {
    /// `[batch, tokens, dim]`.
    tokens: Tensor<3>,
    /// Number of the blocks that they have been through.
    count: usize,
}

impl ImageSide {
    /// The same with everything before block number `count` of `tower` computed, `chunk` images at a
    /// time, of which nothing is kept but the output.
    #[must_use]
    pub fn past(mut self, tower: &FrozenVit, count: usize, chunk: usize) -> Self {
        let count = count.min(tower.depth());
        let parts = chunks(self.count(), chunk.max(1)).map(|samples| {
            let (first, tokens) = self.first(|pixels, keep| tower.embed(pixels, keep), samples);
            tower.blocks(first..count, tokens)
        });
        let tokens = Tensor::cat(parts.collect(), 0);
        self.locked = Some(LockedBlocks { tokens, count });
        self
    }

    /// The same where `tokens` `[batch, tokens, dim]`, the last of them those of all `patches`, have been through
    /// the first `count` blocks already: patches that are dropped are dropped now.
    #[must_use]
    pub fn behind(mut self, tokens: Tensor<3>, patches: usize, count: usize) -> Self {
        let tokens = self.kept(tokens, patches);
        self.locked = Some(LockedBlocks { tokens, count });
        self
    }

    /// What a tower made of the batch, from its CLS and the tokens of all `patches` behind its norm
    /// `[batch, 1 + patches, dim]`: that of the patches that are kept.
    pub fn output(&self, whole: Tensor<3>, patches: usize) -> VitOutput {
        let kept = self.kept(whole, patches);
        let [batch, tokens, dim] = kept.dims();
        VitOutput {
            cls: kept.clone().narrow(1, 0, 1).reshape([batch, dim]),
            patches: kept.narrow(1, 1, tokens - 1),
            grid: [1, tokens - 1],
        }
    }

    /// Of `tokens`, the last of them those of all `patches`, what stands before these and those that are kept.
    fn kept(&self, tokens: Tensor<3>, patches: usize) -> Tensor<3> {
        let Some(keep) = &self.keep else {
            return tokens;
        };
        let ([_, all, dim], [batch, kept]) = (tokens.dims(), keep.dims());
        let before = all - patches;
        let which = keep
            .clone()
            .unsqueeze_dim::<3>(2)
            .expand([batch, kept, dim]);
        let first = tokens.clone().narrow(1, 0, before);
        let chosen = tokens.narrow(1, before, patches).gather(1, which);
        Tensor::cat(vec![first, chosen], 1)
    }

    /// Tokens that are computed of an image, at most.
    pub fn tokens(&self, tower: &Vit) -> usize {
        let [rows, columns] = tower.grid_of(self.sides());
        let kept = self.keep.as_ref().map(|keep| keep.dims()[1]);
        1 + kept.unwrap_or(rows * columns)
    }

    /// What `tower` makes of the batch, `chunk` images at a time, outside any graph. Its locked blocks
    /// are those that the batch has been through.
    pub fn outputs(&self, tower: &FrozenVit, chunk: usize) -> Vec<VitOutput> {
        chunks(self.count(), chunk.max(1))
            .map(|samples| {
                let (first, tokens) = self.first(|pixels, keep| tower.embed(pixels, keep), samples);
                let tokens = tower.blocks(first..tower.depth(), tokens);
                tower.finish(tokens, tower.grid_of(self.sides()))
            })
            .collect()
    }

    /// Tokens of some of the samples, and the first block that they have not been through; `embed` makes
    /// them of pixels.
    fn first(
        &self,
        embed: impl FnOnce(Tensor<4>, Option<Tensor<2, Int>>) -> Tensor<3>,
        samples: Range<usize>,
    ) -> (usize, Tensor<3>) {
        match &self.locked {
            Some(LockedBlocks { tokens, count }) => {
                let part = tokens.clone().narrow(0, samples.start, samples.len());
                (*count, part)
            }
            None => {
                let (pixels, keep) = self.inputs(samples);
                (0, embed(pixels, keep))
            }
        }
    }

    fn inputs(&self, samples: Range<usize>) -> (Tensor<4>, Option<Tensor<2, Int>>) {
        let length = samples.len();
        let pixels = self.pixels.clone().narrow(0, samples.start, length);
        let keep = self.keep.clone();
        (
            pixels,
            keep.map(|keep| keep.narrow(0, samples.start, length)),
        )
    }
}

/// What a pass over images keeps.
#[derive(Debug)]
pub enum ImageKept {
    /// [`Keep::Activations`].
    Activations(Box<Graph<Vit>>),
    /// [`Keep::BlockInputs`].
    BlockInputs {
        /// The samples of the pass.
        samples: Range<usize>,
        /// What goes into each block, and what comes out of the last.
        inputs: Vec<Tensor<3>>,
    },
}

impl Side for ImageSide {
    type Tower = Vit;
    type Kept = ImageKept;

    fn count(&self) -> usize {
        self.pixels.dims()[0]
    }

    fn embed(&self, tower: &Vit, samples: Range<usize>) -> Tensor<2> {
        let (first, tokens) = self.first(|pixels, keep| tower.embed(pixels, keep), samples.clone());
        self.pool(
            tower.forward_from(first, tokens, tower.grid_of(self.sides())),
            samples,
        )
    }

    fn forward(&self, tower: &Vit, samples: Range<usize>) -> (Tensor<2>, ImageKept) {
        match self.memory {
            Keep::Activations => {
                let (embeddings, graph) = Graph::new(tower, |tower| self.embed(tower, samples));
                (embeddings, ImageKept::Activations(Box::new(graph)))
            }
            Keep::BlockInputs => {
                let (first, mut tokens) =
                    self.first(|pixels, keep| tower.embed(pixels, keep), samples.clone());
                let mut inputs = vec![tokens.clone()];
                for block in first..tower.depth() {
                    tokens = tower.block(block, tokens);
                    inputs.push(tokens.clone());
                }
                let output = tower.finish(tokens, tower.grid_of(self.sides()));
                let embeddings = self.pool(output, samples.clone());
                (embeddings, ImageKept::BlockInputs { samples, inputs })
            }
        }
    }

    fn backward(&self, tower: &Vit, kept: ImageKept, gradient: Tensor<2>, sum: &mut GradientSum) {
        match kept {
            ImageKept::Activations(graph) => graph.backward(IMAGE, gradient, sum),
            ImageKept::BlockInputs { samples, inputs } => {
                self.backward_by_block(tower, samples, inputs, gradient, sum);
            }
        }
    }
}

impl ImageSide {
    /// Embeddings of some of the samples from their tokens.
    fn pool(&self, output: VitOutput, samples: Range<usize>) -> Tensor<2> {
        match &self.division {
            None => output.pool(self.pooling),
            Some(division) => {
                let chosen = division.of(samples).choose(output.patches.clone());
                let [batch, count, dim] = chosen.dims();
                let chosen = chosen.reshape([batch, count * dim]);
                Tensor::cat(vec![output.pool(self.pooling), chosen], 1)
            }
        }
    }

    /// Height and width of the images, in pixels.
    fn sides(&self) -> [usize; 2] {
        let [_, _, height, width] = self.pixels.dims();
        [height, width]
    }

    /// Computes one stage of the tower after the other again, from the last to the first, and
    /// sends the gradient through it.
    fn backward_by_block(
        &self,
        tower: &Vit,
        samples: Range<usize>,
        mut inputs: Vec<Tensor<3>>,
        gradient: Tensor<2>,
        sum: &mut GradientSum,
    ) {
        let recorded = weights::recorded(tower);
        let mut through = None;
        if let Some(tokens) = inputs.pop() {
            let tokens = tokens.autodiff().require_grad();
            let output = recorded.finish(tokens.clone(), tower.grid_of(self.sides()));
            let pooled = self.pool(output, samples.clone());
            let mut gradients = (pooled * gradient).sum().backward();
            collect(&recorded, IMAGE, &mut gradients, sum);
            through = tokens.grad_remove(&mut gradients);
        }
        let first = self.locked.as_ref().map_or(0, |locked| locked.count);
        for block in (first..tower.depth()).rev() {
            let (Some(input), Some(gradient)) = (inputs.pop(), through.take()) else {
                return;
            };
            let input = input.autodiff().require_grad();
            let output = recorded.block(block, input.clone());
            let mut gradients = (output * gradient).sum().backward();
            collect(&recorded, IMAGE, &mut gradients, sum);
            through = input.grad_remove(&mut gradients);
        }
        if let (None, Some(gradient)) = (&self.locked, through) {
            let (pixels, keep) = self.inputs(samples);
            let tokens = recorded.embed(pixels, keep);
            let mut gradients = (tokens * gradient).sum().backward();
            collect(&recorded, IMAGE, &mut gradients, sum);
        }
    }
}

/// The texts of a batch.
#[derive(Debug)]
pub struct TextSide {
    /// Token ids of each text.
    pub ids: Vec<Vec<u32>>,
    /// Where they are computed, without autodiff.
    pub device: burn::tensor::Device,
}

impl TextSide {
    /// Tokens of the longest text; 1 at least.
    pub fn tokens(&self) -> usize {
        self.ids.iter().map(Vec::len).max().unwrap_or(0).max(1)
    }
}

impl Side for TextSide {
    type Tower = TextTower;
    type Kept = Graph<TextTower>;

    fn count(&self) -> usize {
        self.ids.len()
    }

    fn embed(&self, tower: &TextTower, samples: Range<usize>) -> Tensor<2> {
        let ids: Vec<&[u32]> = self.ids[samples].iter().map(Vec::as_slice).collect();
        tower.forward(&TokenBatch::new(&ids, &self.device))
    }

    fn forward(&self, tower: &TextTower, samples: Range<usize>) -> (Tensor<2>, Self::Kept) {
        Graph::new(tower, |tower| self.embed(tower, samples))
    }

    fn backward(
        &self,
        _tower: &TextTower,
        kept: Self::Kept,
        gradient: Tensor<2>,
        sum: &mut GradientSum,
    ) {
        kept.backward(TEXT, gradient, sum);
    }
}

/// The embeddings of a whole batch, and the way back.
#[derive(Debug)]
pub struct Embedded<K> {
    /// `[batch, width]`, not normalised, outside any graph.
    pub embeddings: Tensor<2>,
    chunk: usize,
    kept: Option<K>,
}

impl<K> Embedded<K> {
    /// Embeds a batch, `chunk` samples at a time.
    pub fn new<S: Side<Kept = K>>(
        side: &S,
        tower: &S::Tower,
        chunk: usize,
        learning: Learning,
    ) -> Self {
        let count = side.count();
        let chunk = chunk.max(1);
        if learning != Learning::Locked && count <= chunk {
            let (embeddings, kept) = side.forward(tower, 0..count);
            return Self {
                embeddings,
                chunk,
                kept: Some(kept),
            };
        }
        let parts = chunks(count, chunk).map(|samples| side.embed(tower, samples));
        Self {
            embeddings: Tensor::cat(parts.collect(), 0),
            chunk,
            kept: None,
        }
    }

    /// Sends the gradients of the embeddings `[batch, dim]` back through the tower and adds its
    /// parameters' to `sum`.
    pub fn backward<S: Side<Kept = K>>(
        self,
        side: &S,
        tower: &S::Tower,
        gradient: Tensor<2>,
        sum: &mut GradientSum,
    ) {
        if let Some(kept) = self.kept {
            side.backward(tower, kept, gradient, sum);
            return;
        }
        for samples in chunks(side.count(), self.chunk) {
            let part = gradient.clone().narrow(0, samples.start, samples.len());
            let (_, kept) = side.forward(tower, samples);
            side.backward(tower, kept, part, sum);
        }
    }
}

fn chunks(count: usize, chunk: usize) -> impl Iterator<Item = Range<usize>> {
    (0..count)
        .step_by(chunk)
        .map(move |start| start..count.min(start.saturating_add(chunk)))
}
