//! What the text encoders share: padded batches of token ids and the masked mean.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::TextConfig;
use crate::bert::Bert;
use crate::t5::T5;

/// Added to the score of a padding token: its softmax weight underflows to zero.
const MASKED: f32 = -1e9;

/// Texts as token ids, padded to one length.
#[derive(Debug, Clone)]
pub struct TokenBatch {
    /// Token ids, `[batch, length]`; padding is 0.
    pub ids: Tensor<2, Int>,
    /// 1 for tokens, 0 for padding, `[batch, length]`.
    pub mask: Tensor<2>,
}

impl TokenBatch {
    /// Pads `texts` to the longest of them.
    pub fn new(texts: &[&[u32]], device: &Device) -> Self {
        let length = texts.iter().map(|ids| ids.len()).max().unwrap_or(0).max(1);
        let mut ids = vec![0i64; texts.len() * length];
        let mut mask = vec![0f32; texts.len() * length];
        for (i, text) in texts.iter().enumerate() {
            for (j, id) in text.iter().enumerate() {
                ids[i * length + j] = i64::from(*id);
                mask[i * length + j] = 1.0;
            }
        }
        let shape = [texts.len(), length];
        Self {
            ids: Tensor::from_data(TensorData::new(ids, shape), device),
            mask: Tensor::from_data(TensorData::new(mask, shape), device),
        }
    }

    /// Bias on attention scores that hides the padding, `[batch, 1, 1, length]`.
    pub fn attention_bias(&self) -> Tensor<4> {
        let [batch, length] = self.mask.dims();
        // 0 stays 0 for tokens; 1 − mask selects the padding.
        self.mask
            .clone()
            .neg()
            .add_scalar(1.0)
            .mul_scalar(MASKED)
            .reshape([batch, 1, 1, length])
    }
}

/// Mean over the tokens that are not padding: `[batch, length, dim]` to `[batch, dim]`.
pub fn masked_mean(tokens: Tensor<3>, batch: &TokenBatch) -> Tensor<2> {
    let [size, length, dim] = tokens.dims();
    let mask = batch.mask.clone();
    let count = mask.clone().sum_dim(1).clamp_min(1e-9);
    let sum = (tokens * mask.reshape([size, length, 1])).sum_dim(1);
    sum.reshape([size, dim]) / count
}

/// Any of the text towers.
#[derive(Module, Debug)]
pub enum TextTower {
    /// T5 with Sentence-T5's pooling.
    T5(T5),
    /// BERT with mean pooling.
    Bert(Bert),
}

impl TextConfig {
    /// A tower with random weights.
    pub fn init(&self, device: &Device) -> TextTower {
        match self {
            TextConfig::T5(config) => TextTower::T5(config.init(device)),
            TextConfig::Bert(config) => TextTower::Bert(config.init(device)),
        }
    }
}

impl TextTower {
    /// Sentence embeddings `[batch, dim]`, not normalised.
    pub fn forward(&self, batch: &TokenBatch) -> Tensor<2> {
        match self {
            TextTower::T5(tower) => tower.forward(batch),
            TextTower::Bert(tower) => tower.forward(batch),
        }
    }
}
