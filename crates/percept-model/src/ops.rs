//! The operations that plain Burn runs slowly on a CPU: linear layers, self-attention, norms, and residual
//! connections whose branch ends in a linear layer, with GELU before it or not.
//!
//! Burn's CPU backend evaluates `erf` and `exp` one scalar at a time, adds and copies on one thread, and
//! multiplies in vectors where the CPU has matrix registers (`docs/performance.md`). Here products and
//! attention are those of percept-cpu, and the rest loops that the compiler vectorises for the CPU found
//! at run time, on all threads. While gradients are recorded on the CPU, the same kernels run and
//! `grad.rs` holds their derivatives; on any other device the same functions call Burn's own operations.
//! So an encoder has one forward pass everywhere.

use burn::backend::Flex;
use burn::backend::ops::AttentionModuleOptions;
use burn::backend::tensor::FloatTensor;
use burn::nn::{LayerNorm, Linear};
use burn::tensor::{Device, Tensor, TensorData, activation, module};
use percept_cpu::attention::{Bias, Heads, MAX_HEAD_WIDTH, Packed, attend};
use percept_cpu::kernel::{Kernel, Precision};
pub(crate) use percept_cpu::math::exp;
use percept_cpu::norm::Norm;
pub use percept_cpu::product::Activation;
use percept_cpu::product::{self, Input, Then};
use pulp::WithSimd;
use rayon::prelude::*;

#[cfg(feature = "autodiff")]
use crate::grad;
use crate::spare;

pub(crate) type FlexTensor = FloatTensor<Flex>;

/// Elements handed to one rayon task: enough work to pay for the hand-over.
pub(crate) const ELEMENTS_PER_TASK: usize = 32 * 1024;

/// Attention scores that are computed, normalised and used before the next: 4 MB of `f32`, a
/// share of the last cache that a desktop or a rented core can count on.
const SCORES_IN_CACHE: usize = 1 << 20;

/// Queries in a block at least: fewer would make the matrix products too thin.
const MIN_QUERY_BLOCK: usize = 64;

/// Multiplications of a product from which on the fastest kernel computes it. Less takes no time to speak
/// of, and plain `f32` is a little more exact.
const MIN_OF_BEST_KERNEL: usize = 1 << 24;

/// Independent partial sums of a row, so that a sum needs no particular order of additions and
/// can use whole vector registers (16 `f32` fill one of AVX-512).
pub(crate) const LANES: usize = 16;

/// Who computes on these devices.
enum Engine {
    /// The kernels of this module.
    Kernels,
    /// The kernels of this module, and `grad.rs` for the way back.
    #[cfg(feature = "autodiff")]
    Recorded,
    /// Burn's own operations.
    Burn,
}

impl Engine {
    fn of<const N: usize>(devices: [Device; N]) -> Self {
        if devices.iter().any(|device| *device != Device::flex()) {
            return Engine::Burn;
        }
        if !devices.iter().any(Device::is_autodiff) {
            return Engine::Kernels;
        }
        #[cfg(feature = "autodiff")]
        if devices.iter().all(grad::can_record) {
            return Engine::Recorded;
        }
        Engine::Burn
    }
}

/// A linear layer: `x · weight + bias`, `[batch, tokens, in]` to `[batch, tokens, out]`.
pub fn linear(x: Tensor<3>, layer: &Linear) -> Tensor<3> {
    let weight = layer.weight.val();
    match Engine::of([x.device(), weight.device()]) {
        Engine::Burn => layer.forward(x),
        Engine::Kernels => affine(x, weight, layer.bias.as_ref().map(|bias| bias.val())),
        #[cfg(feature = "autodiff")]
        Engine::Recorded => grad::linear(x, weight, layer.bias.as_ref().map(|bias| bias.val())),
    }
}

/// [`linear`] on the CPU.
pub(crate) fn affine(x: Tensor<3>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<3> {
    let [_, out] = weight.dims();
    let kernel = kernel_of(x.shape().num_elements() * out);
    let weight = cpu_primitive(weight).to_contiguous();
    let bias = bias.map(|bias| cpu_primitive(bias).to_contiguous());
    let bias = bias.as_ref().map(|bias| bias.storage::<f32>());
    let packed = product::Linear::by_input(weight.storage(), bias, out, kernel);
    apply(x, &packed)
}

/// `x · weightᵀ` of `[batch, tokens, out]` and `[in, out]`, on the CPU.
#[cfg(feature = "autodiff")]
pub(crate) fn transposed_product(x: Tensor<3>, weight: Tensor<2>) -> Tensor<3> {
    let [width, out] = weight.dims();
    let kernel = kernel_of(x.shape().num_elements() * width);
    let weight = cpu_primitive(weight).to_contiguous();
    apply(
        x,
        &product::Linear::new(weight.storage(), None, out, kernel),
    )
}

fn apply(x: Tensor<3>, linear: &product::Linear) -> Tensor<3> {
    let [batch, tokens, width] = x.dims();
    assert_eq!(width, linear.inputs(), "width of the tokens");
    let device = x.device();
    let x = cpu_primitive(x).to_contiguous();
    let mut y = spare::take(batch * tokens * linear.outputs());
    linear.apply(x.storage(), Then::Store, &mut y);
    spare::give(x);
    let shape = [batch, tokens, linear.outputs()];
    Tensor::from_data(TensorData::new(y, shape), &device)
}

/// What computes a product of so many multiplications.
pub(crate) fn kernel_of(multiplications: usize) -> Kernel {
    if multiplications < MIN_OF_BEST_KERNEL {
        return Kernel::VECTORS;
    }
    Kernel::best(Precision::F32)
}

/// Rows of this width that make a rayon task.
pub(crate) fn rows_of_task(width: usize) -> usize {
    (ELEMENTS_PER_TASK / width.max(1)).max(1)
}

/// A layer norm over the last axis; `epsilon` is that of `layer`, which keeps it to itself.
pub fn layer_norm(x: Tensor<3>, layer: &LayerNorm, epsilon: f64) -> Tensor<3> {
    let (gain, device) = (layer.gamma.val(), x.device());
    let Some(shift) = &layer.beta else {
        return layer.forward(x);
    };
    match Engine::of([device.clone(), gain.device()]) {
        Engine::Burn => layer.forward(x),
        #[cfg(feature = "autodiff")]
        Engine::Recorded => grad::layer_norm(x, gain, shift.val(), epsilon),
        Engine::Kernels => {
            let shape = x.dims();
            let [gain, shift] = [gain, shift.val()]
                .map(|row| cpu_primitive(row).to_contiguous().storage().to_vec());
            let x = cpu_primitive(x).to_contiguous();
            let mut y = spare::take(shape.iter().product());
            Norm::layer(gain, shift, epsilon as f32).apply(x.storage(), &mut y);
            spare::give(x);
            Tensor::from_data(TensorData::new(y, shape), &device)
        }
    }
}

/// `x + scale · layer(activation(hidden))`, a residual connection; `scale` is per channel (LayerScale).
///
/// Shapes: `x` `[batch, tokens, out]`, `hidden` `[batch, tokens, in]`.
pub fn add_linear(
    x: Tensor<3>,
    hidden: Tensor<3>,
    activation: Activation,
    layer: &Linear,
    scale: Option<Tensor<1>>,
) -> Tensor<3> {
    let weight = layer.weight.val();
    match Engine::of([x.device(), hidden.device(), weight.device()]) {
        Engine::Burn => {
            let hidden = match activation {
                Activation::Identity => hidden,
                Activation::Gelu => activation::gelu(hidden),
            };
            let branch = layer.forward(hidden);
            x + match scale {
                Some(scale) => branch * scale.unsqueeze(),
                None => branch,
            }
        }
        Engine::Kernels => {
            let vector = |row: Tensor<1>| cpu_primitive(row).to_contiguous();
            let bias = layer.bias.as_ref().map(|bias| vector(bias.val()));
            let scale = scale.map(vector);
            let hidden = cpu_primitive(hidden).to_contiguous();
            let sum = add_product(
                x,
                activation.of(hidden.storage()),
                weight,
                bias.as_ref().map(|bias| bias.storage()),
                scale.as_ref().map(|scale| scale.storage()),
            );
            spare::give(hidden);
            sum
        }
        #[cfg(feature = "autodiff")]
        Engine::Recorded => {
            let bias = layer.bias.as_ref().map(|bias| bias.val());
            grad::add_linear(x, hidden, activation, weight, bias, scale)
        }
    }
}

/// `x + scale · (hidden · weight + bias)` on the CPU, in place when nobody else holds `x`.
pub(crate) fn add_product(
    x: Tensor<3>,
    hidden: Input<'_>,
    weight: Tensor<2>,
    bias: Option<&[f32]>,
    scale: Option<&[f32]>,
) -> Tensor<3> {
    let [inputs, out] = weight.dims();
    let kernel = kernel_of(x.shape().num_elements() * inputs);
    let weight = cpu_primitive(weight).to_contiguous();
    let packed = product::Linear::by_input(weight.storage(), bias, out, kernel);
    let mut sum = cpu_primitive(map_chunks(x, ELEMENTS_PER_TASK, |_, _| ()));
    packed.apply_to(hidden, Then::Add(scale), sum.storage_mut());
    Tensor::from_primitive::<Flex>(sum)
}

/// Multi-head self-attention of queries, keys and values that stand side by side:
/// `[batch, tokens, 3 · dim]` to `[batch, tokens, dim]`, scores scaled by `1/√head_dim`.
pub fn self_attention(qkv: Tensor<3>, heads: usize) -> Tensor<3> {
    #[cfg(feature = "autodiff")]
    if let Engine::Recorded = Engine::of([qkv.device()]) {
        return grad::self_attention(qkv, heads);
    }
    let [batch, tokens, width] = qkv.dims();
    let device = qkv.device();
    let dim = width / 3;
    let engine = Engine::of([device.clone()]);
    if matches!(engine, Engine::Burn) || dim / heads > MAX_HEAD_WIDTH {
        let [q, k, v] = split_heads(qkv, heads);
        return merge_heads(attention(q, k, v, None, head_scale(dim / heads)));
    }
    let kernel = kernel_of(2 * batch * tokens * tokens * dim);
    let qkv = cpu_primitive(qkv).to_contiguous();
    let mut mixed = spare::take(batch * tokens * dim);
    attend(
        qkv.storage(),
        tokens,
        Heads::of(dim, heads),
        Bias::None,
        None,
        &mut Packed::new(kernel),
        &mut mixed,
    );
    spare::give(qkv);
    Tensor::from_data(TensorData::new(mixed, [batch, tokens, dim]), &device)
}

/// Queries, keys and values `[batch, heads, tokens, head_dim]` of `[batch, tokens, 3 · dim]`.
/// They are views where the device has them: nothing is copied.
pub(crate) fn split_heads(qkv: Tensor<3>, heads: usize) -> [Tensor<4>; 3] {
    let [batch, tokens, width] = qkv.dims();
    let parts = qkv
        .reshape([batch, tokens, 3 * heads, width / 3 / heads])
        .swap_dims(1, 2);
    [0, 1, 2].map(|i| parts.clone().narrow(1, i * heads, heads))
}

/// `1/√head_dim`.
pub(crate) fn head_scale(head_dim: usize) -> f64 {
    (head_dim as f64).powf(-0.5)
}

/// Heads side by side again: `[batch, heads, tokens, head_dim]` to
/// `[batch, tokens, heads · head_dim]`.
fn merge_heads(x: Tensor<4>) -> Tensor<3> {
    let [batch, heads, tokens, head_dim] = x.dims();
    x.swap_dims(1, 2).reshape([batch, tokens, heads * head_dim])
}

/// Multi-head attention `softmax(scale · q·kᵀ + bias) · v`.
///
/// Shapes: `q`, `k`, `v` `[batch, heads, tokens, head_dim]`; `bias` broadcastable to
/// `[batch, heads, tokens, tokens]`; the result is `[batch, heads, tokens, head_dim]`.
pub fn attention(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    bias: Option<Tensor<4>>,
    scale: f64,
) -> Tensor<4> {
    let kernels = matches!(Engine::of([q.device()]), Engine::Kernels);
    if bias.is_some() || !kernels {
        let options = AttentionModuleOptions {
            scale: Some(scale),
            ..Default::default()
        };
        return module::attention(q, k, v, None, bias, options);
    }
    let [batch, heads, tokens, _] = q.dims();
    let keys = k.swap_dims(2, 3);
    // A block of queries at a time: the scores of a whole image at 448 px are 30 MB, which would
    // go out to memory and come back twice.
    let block = (SCORES_IN_CACHE / (batch * heads * tokens).max(1)).max(MIN_QUERY_BLOCK);
    let attend = |q: Tensor<4>| softmax(q.matmul(keys.clone()), scale as f32).matmul(v.clone());
    if block >= tokens {
        return attend(q);
    }
    Tensor::cat(q.split(block, 2).into_iter().map(attend).collect(), 2)
}

/// `softmax(scale · x)` over the last axis, on the CPU.
pub(crate) fn softmax(x: Tensor<4>, scale: f32) -> Tensor<4> {
    let [.., row] = x.dims();
    let rows_per_task = rows_of_task(row);
    map_chunks(x, rows_per_task * row.max(1), |_, rows| {
        let width = row;
        pulp::Arch::new().dispatch(SoftmaxRows { rows, width, scale });
    })
}

/// [`softmax_row`] of rows of this width, in place.
///
/// Like every kernel with [`exp`] in it this is a type, not a closure: the compiler may leave a closure a
/// function of its own, which is not compiled for the instructions that were found. There a `mul_add`
/// is a call, and a softmax takes ten times as long.
struct SoftmaxRows<'a> {
    rows: &'a mut [f32],
    width: usize,
    scale: f32,
}

impl WithSimd for SoftmaxRows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        for row in self.rows.chunks_mut(self.width.max(1)) {
            softmax_row(row, self.scale);
        }
    }
}

/// Applies `kernel` to consecutive pieces of `x`, `chunk` elements each (the last may be
/// shorter), in parallel and compiled for this CPU's vector instructions; it is told where its
/// piece begins. In place when nobody else holds the tensor.
pub(crate) fn map_chunks<const D: usize>(
    x: Tensor<D>,
    chunk: usize,
    kernel: impl Fn(usize, &mut [f32]) + Sync,
) -> Tensor<D> {
    let mut primitive = cpu_primitive(x).to_contiguous();
    let arch = pulp::Arch::new();
    if primitive.is_unique() {
        primitive
            .storage_mut::<f32>()
            .par_chunks_mut(chunk.max(1))
            .enumerate()
            .for_each(|(i, piece)| arch.dispatch(|| kernel(i * chunk, piece)));
        return Tensor::from_primitive::<Flex>(primitive);
    }
    // A copy as large as the tensor would leave the cache before the kernel comes to it.
    let values = primitive.storage::<f32>();
    let mut result = spare::take(values.len());
    result
        .par_chunks_mut(chunk.max(1))
        .zip(values.par_chunks(chunk.max(1)))
        .enumerate()
        .for_each(|(i, (piece, values))| {
            piece.copy_from_slice(values);
            arch.dispatch(|| kernel(i * chunk, piece));
        });
    let shape = primitive.layout().shape().clone();
    Tensor::from_primitive::<Flex>(FlexTensor::from_data(TensorData::new(result, shape)))
}

/// The CPU backend's own tensor inside a tensor of [`Engine::Kernels`].
pub(crate) fn cpu_primitive<const D: usize>(x: Tensor<D>) -> FlexTensor {
    match x.try_into_primitive::<Flex>() {
        Ok(primitive) => primitive,
        Err(error) => unreachable!("Engine::of checked the backend: {error:?}"),
    }
}

/// `softmax(scale · row)` in place: subtract the maximum, exponentiate, divide by the sum.
#[inline(always)]
pub(crate) fn softmax_row(row: &mut [f32], scale: f32) {
    let mut max = [f32::NEG_INFINITY; LANES];
    let (body, tail) = row.as_chunks::<LANES>();
    for lanes in body {
        for (m, v) in max.iter_mut().zip(lanes) {
            *m = if *v > *m { *v } else { *m };
        }
    }
    for (m, v) in max.iter_mut().zip(tail) {
        *m = if *v > *m { *v } else { *m };
    }
    let max = max.into_iter().fold(f32::NEG_INFINITY, f32::max);

    let mut sum = [0.0; LANES];
    let (body, tail) = row.as_chunks_mut::<LANES>();
    for lanes in body {
        for (s, v) in sum.iter_mut().zip(lanes) {
            *v = exp((*v - max) * scale);
            *s += *v;
        }
    }
    for (s, v) in sum.iter_mut().zip(tail) {
        *v = exp((*v - max) * scale);
        *s += *v;
    }
    let inverse = 1.0 / sum.iter().sum::<f32>();
    for v in row {
        *v *= inverse;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Distribution;

    #[test]
    fn residuals_agree_with_burn() {
        let device = Device::flex();
        for (activation, biased, scaled) in [
            (Activation::Identity, true, true),
            (Activation::Gelu, true, false),
            (Activation::Gelu, false, true),
        ] {
            let random =
                |shape| Tensor::<3>::random(shape, Distribution::Normal(0.0, 1.5), &device);
            let (x, hidden) = (random([2, 70, 24]), random([2, 70, 33]));
            let scale = scaled.then(|| random([1, 1, 24]).flatten(0, 2));
            let layer = burn::nn::LinearConfig::new(33, 24)
                .with_bias(biased)
                .init(&device);
            let activated = match activation {
                Activation::Identity => hidden.clone(),
                Activation::Gelu => activation::gelu(hidden.clone()),
            };
            let branch = layer.forward(activated);
            let branch = match &scale {
                Some(scale) => branch * scale.clone().unsqueeze(),
                None => branch,
            };
            let found = add_linear(x.clone(), hidden, activation, &layer, scale);
            let difference = (found - (x + branch)).abs().max().into_scalar::<f32>();
            assert!(difference < 1e-5, "{activation:?}: {difference:e}");
        }
    }

    #[test]
    fn norms_agree_with_burn() {
        let device = Device::flex();
        let x = Tensor::<3>::random([2, 700, 96], Distribution::Normal(0.0, 1.0), &device);
        let mut layer = burn::nn::LayerNormConfig::new(96)
            .with_epsilon(1e-3)
            .init(&device);
        let gain = Tensor::<1>::random([96], Distribution::Normal(0.0, 1.0), &device);
        layer.gamma = burn::module::Param::from_tensor(gain);
        let difference = layer_norm(x.clone(), &layer, 1e-3) - layer.forward(x);
        let difference = difference.abs().max().into_scalar::<f32>();
        assert!(difference < 5e-6, "{difference:e}");
    }

    #[test]
    fn self_attention_agrees_with_burn_also_of_wide_heads() {
        let device = Device::flex();
        for (heads, dim) in [(3, 24), (1, 300)] {
            let qkv =
                Tensor::<3>::random([2, 17, 3 * dim], Distribution::Normal(0.0, 1.0), &device);
            let [q, k, v] = split_heads(qkv.clone(), heads);
            let options = AttentionModuleOptions {
                scale: Some(head_scale(dim / heads)),
                ..Default::default()
            };
            let expected = merge_heads(module::attention(q, k, v, None, None, options));
            let difference = (self_attention(qkv, heads) - expected).abs().max();
            let difference = difference.into_scalar::<f32>();
            assert!(difference < 1e-5, "{heads} heads of {dim}: {difference:e}");
        }
    }

    #[test]
    fn linear_agrees_with_burn() {
        let device = Device::flex();
        for bias in [true, false] {
            let layer = burn::nn::LinearConfig::new(33, 7)
                .with_bias(bias)
                .init(&device);
            let x = Tensor::<3>::random([2, 5, 33], Distribution::Normal(0.0, 1.0), &device);
            let difference = (linear(x.clone(), &layer) - layer.forward(x)).abs().max();
            assert!(difference.into_scalar::<f32>() < 1e-5);
        }
    }

    #[test]
    fn attention_agrees_with_burn_also_on_strided_inputs() {
        let device = Device::flex();
        for tokens in [1, 2, 15, 16, 17, 50, 333] {
            let random = || {
                Tensor::<4>::random([2, tokens, 3, 8], Distribution::Normal(0.0, 1.0), &device)
                    .swap_dims(1, 2)
            };
            let (q, k, v) = (random(), random(), random());
            let options = AttentionModuleOptions {
                scale: Some(0.5),
                ..Default::default()
            };
            let expected = module::attention(q.clone(), k.clone(), v.clone(), None, None, options);
            let difference = (attention(q, k, v, None, 0.5) - expected).abs().max();
            let difference = difference.into_scalar::<f32>();
            assert!(difference < 1e-5, "{tokens} tokens: {difference:e}");
        }
    }

    #[test]
    fn a_shared_tensor_is_left_as_it_was() {
        let device = Device::flex();
        let x = Tensor::<3>::from_floats([[[1.0, -1.0, 0.0]]], &device);
        let (kept, layer) = (x.clone(), burn::nn::LinearConfig::new(3, 3).init(&device));
        let _ = add_linear(x.clone(), x, Activation::Gelu, &layer, None);
        let values: Vec<f32> = kept.into_data().try_to_vec().unwrap();
        assert_eq!(values, [1.0, -1.0, 0.0]);
    }
}
