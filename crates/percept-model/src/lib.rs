//! Image and text encoders: ViT, T5 and BERT on Burn, with their configurations, weights and
//! tokenisers.
//!
//! ```text
//! path ─ files (layout, shapes) ─ weights ─ vit │ t5 │ bert ─ encoder ─ TokenGrid, embeddings
//! ```
//!
//! [`Model::load`] takes a model folder or a checkpoint in any layout of `layout.rs`. From there on only
//! plain arrays are seen: [`Model::encode_images`] makes [`TokenGrid`]s, [`Model::encode_texts`]
//! L2-normalised embeddings.

mod config;
mod cpu;
mod device;
mod encoder;
mod error;
mod files;
mod frozen;
#[cfg(feature = "autodiff")]
mod grad;
mod json_file;
mod layout;
mod leftover;
mod model;
mod names;
mod ops;
mod preprocessing;
mod sentence_transformers;
mod source;
mod spare;
mod text_cache;
mod tokenizer;

pub mod bert;
pub mod pos_embed;
pub mod t5;
pub mod text;
pub mod vit;
pub mod weights;

pub use burn::tensor::Device;
pub use config::{
    BertConfig, DEFAULT_TEMPLATE, DenseActivation, DenseConfig, FORMAT, ImageConfig, ModelConfig,
    Pooling, PositionInterpolation, T5Config, T5FeedForward, TextConfig, TextHead, TextPooling,
    VitConfig, default_templates,
};
pub use cpu::{CpuImageEncoder, CpuTextEncoder};
pub use device::device;
pub use encoder::{
    BurnImageEncoder, BurnTextEncoder, ImageEncoder, MAX_PATCHES, TextEncoder, TokenGrid, normalize,
};
pub use error::ModelError;
pub use files::{CONFIG_FILE, Hints, ModelFiles, Origin, TOKENIZER_FILE, TowerFiles, WEIGHTS_FILE};
pub use frozen::FrozenVit;
pub use layout::{ImageLayout, ImageStyle, TextLayout, TextStyle};
pub use model::{Model, Storage, TextEmbeddings, Towers};
pub use percept_checkpoint::CheckpointError;
pub use percept_cpu::kernel::{Kernel, Precision};
pub use source::Source;
pub use tokenizer::{Tokenizer, Tokens};
