//! What the text encoders share: padded batches of token ids, pooling and the dense layers behind it.

use burn::module::{Initializer, Module};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Int, Tensor, TensorData, activation};

use crate::bert::Bert;
use crate::t5::T5;
use crate::{DenseActivation, DenseConfig, TextConfig, TextHead, TextPooling};

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

/// What makes an embedding of the tokens of a text: a pooling, then dense layers.
#[derive(Module, Debug)]
pub struct Head {
    layers: Vec<Linear>,
    #[module(skip)]
    activations: Vec<DenseActivation>,
    #[module(skip)]
    pooling: TextPooling,
}

impl Head {
    /// A head with random weights over vectors of width `dim`.
    pub(crate) fn init(config: &TextHead, dim: usize, device: &Device) -> Self {
        let mut width = dim;
        let layer = |layer: &DenseConfig| {
            let from = std::mem::replace(&mut width, layer.width);
            let std = (from as f64).powf(-0.5);
            LinearConfig::new(from, layer.width)
                .with_bias(layer.bias)
                .with_initializer(Initializer::Normal { mean: 0.0, std })
                .init(device)
        };
        Self {
            layers: config.dense.iter().map(layer).collect(),
            activations: config.dense.iter().map(|layer| layer.activation).collect(),
            pooling: config.pooling,
        }
    }

    /// Tokens `[batch, length, dim]` to vectors `[batch, dim]`; padding never counts.
    pub(crate) fn pool(&self, tokens: Tensor<3>, batch: &TokenBatch) -> Tensor<2> {
        let [size, length, dim] = tokens.dims();
        let mask = batch.mask.clone();
        let count = mask.clone().sum_dim(1).clamp_min(1e-9);
        let of_all = |count: Tensor<2>| mask.clone() / count;
        let weights = match self.pooling {
            TextPooling::Max => {
                let hidden = batch.attention_bias().reshape([size, length, 1]);
                return (tokens + hidden).max_dim(1).reshape([size, dim]);
            }
            TextPooling::Cls => return tokens.slice([0..size, 0..1]).reshape([size, dim]),
            TextPooling::LastToken if length == 1 => return tokens.reshape([size, dim]),
            TextPooling::Mean => of_all(count),
            TextPooling::MeanSqrtLen => of_all(count.sqrt()),
            TextPooling::WeightedMean => {
                let places = Tensor::<1, Int>::arange(1..length as i64 + 1, &mask.device()).float();
                let weights = mask * places.unsqueeze::<2>();
                weights.clone() / weights.sum_dim(1).clamp_min(1e-9)
            }
            TextPooling::LastToken => {
                // A token with padding, or nothing, behind it.
                let none = Tensor::zeros([size, 1], &mask.device());
                let next = Tensor::cat(vec![mask.clone().slice([0..size, 1..length]), none], 1);
                mask - next
            }
        };
        let sum = (tokens * weights.reshape([size, length, 1])).sum_dim(1);
        sum.reshape([size, dim])
    }

    /// Vectors through the dense layers.
    pub(crate) fn dense(&self, pooled: Tensor<2>) -> Tensor<2> {
        let layers = self.layers.iter().zip(&self.activations);
        layers.fold(pooled, |x, (layer, activation)| {
            let x = layer.forward(x);
            match activation {
                DenseActivation::Identity => x,
                DenseActivation::Tanh => activation::tanh(x),
                DenseActivation::Relu => activation::relu(x),
                DenseActivation::Gelu => activation::gelu(x),
            }
        })
    }
}

/// Any of the text towers.
#[derive(Module, Debug)]
pub enum TextTower {
    /// T5.
    T5(T5),
    /// BERT or RoBERTa.
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
