//! Derivatives of the kernels of [`ops`](crate::ops), for training on the CPU.
//!
//! Each operation computes its output as `ops` does, keeps what its derivative needs, and is
//! recorded as one step of Burn's graph. What is kept is small: inputs that the graph holds
//! anyway, two numbers a row for a layer norm, and no attention scores, which are computed again.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Flex};
use burn::tensor::{Device, GradientCheckpointingStrategy, Tensor, TensorData};
use percept_cpu::attention::Heads;
use percept_cpu::kernel::Kernel;
use percept_cpu::product::{Linear, Then, sum_of_outer_products};
use rayon::prelude::*;

use crate::ops::{self, Activation, FlexTensor, LANES, cpu_primitive, map_chunks, rows_of_task};
use crate::spare;

type Recorder = Autodiff<Flex, NoCheckpointing>;
type Tracked = FloatTensor<Recorder>;

/// Whether a CPU tensor of this device can enter the operations below. Burn's own recomputing of
/// activations cannot see into them; its devices take Burn's operations.
pub fn can_record(device: &Device) -> bool {
    matches!(
        device.gradient_checkpointing_strategy(),
        None | Some(GradientCheckpointingStrategy::Disabled)
    )
}

/// [`ops::linear`].
pub fn linear(x: Tensor<3>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<3> {
    match bias {
        Some(bias) => {
            let inputs = [track(x), track(weight), track(bias)];
            record(LinearStep, inputs, |[x, weight, bias]| {
                let (x, weight, bias) = (plain(x), plain(weight), plain(bias));
                let kept = (x.clone(), weight.clone());
                (kept, ops::affine(x, weight, Some(bias)))
            })
        }
        None => {
            let inputs = [track(x), track(weight)];
            record(LinearStep, inputs, |[x, weight]| {
                let (x, weight) = (plain(x), plain(weight));
                let kept = (x.clone(), weight.clone());
                (kept, ops::affine(x, weight, None))
            })
        }
    }
}

#[derive(Debug)]
struct LinearStep;

/// With and without bias: the inputs are `x`, `weight` and perhaps `bias`.
impl<const N: usize> Backward<Flex, N> for LinearStep {
    type State = (Tensor<3>, Tensor<2>);

    fn backward(self, step: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (x, weight) = step.state;
        let gradient = grads.consume::<Flex>(&step.node).to_contiguous();
        if let Some(Some(bias)) = step.parents.get(2) {
            let [_, out] = weight.dims();
            let sum = sum_rows(gradient.storage(), out);
            grads.register::<Flex>(bias.id, vector(sum, out));
        }
        if let Some(node) = &step.parents[1] {
            let x = primitive(x).to_contiguous();
            let sides = weight.dims();
            let dw = weight_gradient(x.storage(), Activation::Identity, gradient.storage(), sides);
            spare::give(x);
            grads.register::<Flex>(node.id, FlexTensor::from_data(TensorData::new(dw, sides)));
        }
        if let Some(node) = &step.parents[0] {
            let dx = ops::transposed_product(plain(gradient), weight);
            grads.register::<Flex>(node.id, primitive(dx));
        }
    }
}

/// [`ops::add_linear`].
pub fn add_linear(
    x: Tensor<3>,
    hidden: Tensor<3>,
    activation: Activation,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    scale: Option<Tensor<1>>,
) -> Tensor<3> {
    let compute = |[x, hidden, weight]: [FlexTensor; 3], [bias, scale]: [Option<FlexTensor>; 2]| {
        let hidden = hidden.to_contiguous();
        let [bias, scale] = [bias, scale].map(|row| row.map(|row| row.to_contiguous()));
        let sum = ops::add_product(
            plain(x),
            activation.of(hidden.storage()),
            plain(weight.clone()),
            bias.as_ref().map(|row| row.storage()),
            scale.as_ref().map(|row| row.storage()),
        );
        let kept = Branch {
            hidden,
            activation,
            weight: weight.to_contiguous(),
            bias,
            scale,
        };
        (kept, sum)
    };
    let step = AddLinearStep;
    let (x, hidden, weight) = (track(x), track(hidden), track(weight));
    match (bias.map(track), scale.map(track)) {
        (None, None) => {
            let inputs = [x, hidden, weight];
            record(step, inputs, |inputs| compute(inputs, [None, None]))
        }
        (Some(bias), None) => record(step, [x, hidden, weight, bias], |[x, h, w, bias]| {
            compute([x, h, w], [Some(bias), None])
        }),
        (None, Some(scale)) => record(step, [x, hidden, weight, scale], |[x, h, w, scale]| {
            compute([x, h, w], [None, Some(scale)])
        }),
        (Some(bias), Some(scale)) => {
            let inputs = [x, hidden, weight, bias, scale];
            record(step, inputs, |[x, h, w, bias, scale]| {
                compute([x, h, w], [Some(bias), Some(scale)])
            })
        }
    }
}

/// What [`AddLinearStep`] needs: neither the branch, nor the activated hidden layer.
#[derive(Debug, Clone)]
struct Branch {
    hidden: FlexTensor,
    activation: Activation,
    weight: FlexTensor,
    bias: Option<FlexTensor>,
    scale: Option<FlexTensor>,
}

/// The inputs are `x`, `hidden`, `weight`, and then `bias` and `scale` where the state has them.
#[derive(Debug)]
struct AddLinearStep;

impl<const N: usize> Backward<Flex, N> for AddLinearStep {
    type State = Branch;

    fn backward(self, step: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let Branch {
            hidden,
            activation,
            weight,
            bias,
            scale,
        } = step.state;
        let [x_to, hidden_to, weight_to] = [0, 1, 2].map(|i| step.parents[i].as_ref());
        let mut vectors = step.parents.iter().skip(3).map(Option::as_ref);
        let bias_to = bias.as_ref().and_then(|_| vectors.next().flatten());
        let scale_to = scale.as_ref().and_then(|_| vectors.next().flatten());
        let gradient = grads.consume::<Flex>(&step.node).to_contiguous();
        let dy = gradient.storage::<f32>();
        let w = weight.storage::<f32>();
        let [inputs, out] = weight.layout().shape().dims();
        let scale = scale.as_ref().map(|scale| scale.storage::<f32>());
        // Gradients as if there were no scale. That of the scale itself is the sum over rows of gradient times branch,
        // and so the diagonal of Wᵀ · dw, plus the bias's part: the branch is not needed.
        let has_scale = scale_to.is_some();
        let dw = (weight_to.is_some() || has_scale)
            .then(|| weight_gradient(hidden.storage(), activation, dy, [inputs, out]));
        let db = (bias_to.is_some() || has_scale && bias.is_some()).then(|| sum_rows(dy, out));
        if let (Some(node), Some(dw)) = (scale_to, &dw) {
            let mut dscale = vec![0.0; out];
            if let (Some(bias), Some(db)) = (&bias, &db) {
                add_products(&mut dscale, bias.storage(), db);
            }
            for (w, dw) in w.chunks_exact(out).zip(dw.chunks_exact(out)) {
                add_products(&mut dscale, w, dw);
            }
            grads.register::<Flex>(node.id, vector(dscale, out));
        }
        if let (Some(node), Some(mut dw)) = (weight_to, dw) {
            multiply_rows(&mut dw, scale);
            let dw = TensorData::new(dw, [inputs, out]);
            grads.register::<Flex>(node.id, FlexTensor::from_data(dw));
        }
        if let (Some(node), Some(mut db)) = (bias_to, db) {
            multiply_rows(&mut db, scale);
            grads.register::<Flex>(node.id, vector(db, out));
        }
        if let Some(node) = hidden_to {
            let kernel = ops::kernel_of(dy.len() * inputs);
            let back = match scale {
                Some(_) => {
                    let mut scaled = w.to_vec();
                    multiply_rows(&mut scaled, scale);
                    Linear::new(&scaled, None, out, kernel)
                }
                None => Linear::new(w, None, out, kernel),
            };
            let then = match activation {
                Activation::Identity => Then::Store,
                Activation::Gelu => Then::GeluSlope,
            };
            // In the place of the hidden layer.
            let mut dhidden = hidden;
            back.apply(dy, then, dhidden.storage_mut());
            grads.register::<Flex>(node.id, dhidden);
        }
        if let Some(node) = x_to {
            grads.register::<Flex>(node.id, gradient);
        }
    }
}

/// `sum += a · b`, number by number.
fn add_products(sum: &mut [f32], a: &[f32], b: &[f32]) {
    for ((sum, a), b) in sum.iter_mut().zip(a).zip(b) {
        *sum += a * b;
    }
}

/// Rows times `scale`, if there is one.
fn multiply_rows(rows: &mut [f32], scale: Option<&[f32]>) {
    let Some(scale) = scale else { return };
    for row in rows.chunks_exact_mut(scale.len()) {
        row.iter_mut().zip(scale).for_each(|(v, s)| *v *= s);
    }
}

/// `activation(x)ᵀ · dy` over all rows: the gradient of weights `[in, out]`.
fn weight_gradient(
    x: &[f32],
    activation: Activation,
    dy: &[f32],
    [inputs, out]: [usize; 2],
) -> Vec<f32> {
    let kernel = ops::kernel_of(x.len() * out);
    sum_of_outer_products(x, activation, dy, [inputs, out], kernel)
}

/// [`ops::layer_norm`].
pub fn layer_norm(x: Tensor<3>, gamma: Tensor<1>, beta: Tensor<1>, epsilon: f64) -> Tensor<3> {
    let inputs = [track(x), track(gamma), track(beta)];
    record(LayerNormStep, inputs, |[x, gamma, beta]| {
        let x = plain::<3>(x);
        let shape = x.dims();
        let [.., dim] = shape;
        let (x, gamma) = (primitive(x).to_contiguous(), gamma.to_contiguous());
        let beta = beta.to_contiguous();
        let moments: Vec<Moments> = rows(&x, dim)
            .par_chunks(rows_of_task(dim) * dim)
            .flat_map_iter(|rows| {
                let arch = pulp::Arch::new();
                let rows = rows.chunks_exact(dim);
                rows.map(move |row| arch.dispatch(|| Moments::of(row, epsilon as f32)))
            })
            .collect();
        let (g, b) = (gamma.storage::<f32>(), beta.storage::<f32>());
        let y = map_chunks(plain::<3>(x.clone()), chunk_of_rows(dim), |start, rows| {
            for (row, m) in rows.chunks_mut(dim).zip(&moments[start / dim..]) {
                for ((v, g), b) in row.iter_mut().zip(g).zip(b) {
                    *v = (*v - m.mean) * m.inverse * g + b;
                }
            }
        });
        ((x, gamma, moments), y)
    })
}

/// Mean and inverse deviation of a row.
#[derive(Debug, Clone, Copy)]
struct Moments {
    mean: f32,
    inverse: f32,
}

impl Moments {
    #[inline(always)]
    fn of(row: &[f32], epsilon: f32) -> Self {
        let count = row.len() as f32;
        let mean = sums(row, row, |v, _| [v])[0] / count;
        let variance = sums(row, row, |v, _| [(v - mean) * (v - mean)])[0] / count;
        Self {
            mean,
            inverse: 1.0 / (variance + epsilon).sqrt(),
        }
    }
}

#[derive(Debug)]
struct LayerNormStep;

impl Backward<Flex, 3> for LayerNormStep {
    type State = (FlexTensor, FlexTensor, Vec<Moments>);

    fn backward(self, step: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (kept, gamma, moments) = step.state;
        let mut dy = grads.consume::<Flex>(&step.node).to_contiguous();
        let gamma = gamma.storage::<f32>();
        let dim = gamma.len();
        let x = rows(&kept, dim);
        let [dx_to, dgamma_to, dbeta_to] = &step.parents;
        if dgamma_to.is_some() || dbeta_to.is_some() {
            let dy = dy.storage::<f32>();
            let found = column_sums(moments.len(), dim, [0.0; 2], |row, [dgamma, dbeta]| {
                let range = row * dim..(row + 1) * dim;
                let (x, dy, m) = (&x[range.clone()], &dy[range], moments[row]);
                for i in 0..dim {
                    dgamma[i] += dy[i] * (x[i] - m.mean) * m.inverse;
                    dbeta[i] += dy[i];
                }
            });
            let [dgamma, dbeta] = found.map(|sum| vector(sum, dim));
            if let Some(node) = dgamma_to {
                grads.register::<Flex>(node.id, dgamma);
            }
            if let Some(node) = dbeta_to {
                grads.register::<Flex>(node.id, dbeta);
            }
        }
        if let Some(node) = dx_to {
            for_chunks(&mut dy, chunk_of_rows(dim), |start, chunk| {
                for (i, dy) in chunk.chunks_mut(dim).enumerate() {
                    let (row, m) = (start / dim + i, moments[start / dim + i]);
                    let x = &x[row * dim..(row + 1) * dim];
                    dy.iter_mut().zip(gamma).for_each(|(d, g)| *d *= g);
                    let normal = |x: f32| (x - m.mean) * m.inverse;
                    let [sum, product] = sums(dy, x, |d, x| [d, d * normal(x)]);
                    let (mean, slope) = (sum / dim as f32, product / dim as f32);
                    for (d, x) in dy.iter_mut().zip(x) {
                        *d = m.inverse * (*d - mean - normal(*x) * slope);
                    }
                }
            });
            grads.register::<Flex>(node.id, dy);
        }
        spare::give(kept);
    }
}

/// [`ops::self_attention`].
pub fn self_attention(qkv: Tensor<3>, heads: usize) -> Tensor<3> {
    record(AttentionStep, [track(qkv)], |[qkv]| {
        let qkv = plain::<3>(qkv);
        ((qkv.clone(), heads), ops::self_attention(qkv, heads))
    })
}

#[derive(Debug)]
struct AttentionStep;

impl Backward<Flex, 1> for AttentionStep {
    type State = (Tensor<3>, usize);

    fn backward(self, step: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (qkv, heads) = step.state;
        let dy = grads.consume::<Flex>(&step.node).to_contiguous();
        let [Some(node)] = &step.parents else { return };
        let [batch, tokens, width] = qkv.dims();
        let heads = Heads::of(width / 3, heads);
        let qkv = primitive(qkv).to_contiguous();
        // All products of a head are as large.
        let kernel = ops::kernel_of(tokens * tokens * heads.width);
        let mut dqkv = spare::take(batch * tokens * width);
        let sequences = (dqkv.par_chunks_mut(tokens * width))
            .zip(qkv.storage::<f32>().par_chunks(tokens * width))
            .zip(dy.storage::<f32>().par_chunks(tokens * width / 3));
        sequences.for_each_init(AttentionGradient::default, |gradient, ((dqkv, qkv), dy)| {
            for head in 0..heads.count {
                gradient.of_head(qkv, dy, heads, head, kernel, dqkv);
            }
        });
        spare::give(qkv);
        spare::give(dy);
        let dqkv = TensorData::new(dqkv, [batch, tokens, width]);
        grads.register::<Flex>(node.id, FlexTensor::from_data(dqkv));
    }
}

/// The way back through attention of one sequence, a head at a time; what one head leaves is used by the next.
#[derive(Debug, Default)]
struct AttentionGradient {
    /// Queries, keys, values and the gradient of what came of them, `[tokens, head_dim]` each.
    parts: [Vec<f32>; 4],
    /// Weights of the values, `[tokens, tokens]`.
    weights: Vec<f32>,
    /// Gradient of the weights, then of the scores.
    scores: Vec<f32>,
    dq: Vec<f32>,
}

impl AttentionGradient {
    /// Writes the gradients of the queries, keys and values of a head to their places in `dqkv` `[tokens, 3 · dim]`.
    fn of_head(
        &mut self,
        qkv: &[f32],
        dy: &[f32],
        heads: Heads,
        head: usize,
        kernel: Kernel,
        dqkv: &mut [f32],
    ) {
        let Heads { width, scale, .. } = heads;
        let dim = heads.count * width;
        let (tokens, at) = (dy.len() / dim, head * width);
        let sources = [(qkv, 0), (qkv, dim), (qkv, 2 * dim), (dy, 0)];
        for (part, (rows, first)) in self.parts.iter_mut().zip(sources) {
            part.clear();
            for row in rows.chunks_exact(rows.len() / tokens) {
                part.extend_from_slice(&row[first + at..][..width]);
            }
        }
        let [q, k, v, dy] = self.parts.each_ref().map(Vec::as_slice);
        self.weights.resize(tokens * tokens, 0.0);
        self.scores.resize(tokens * tokens, 0.0);
        self.dq.resize(tokens * width, 0.0);
        let (weights, scores) = (&mut self.weights, &mut self.scores);
        Linear::new(k, None, width, kernel).apply(q, Then::Store, weights);
        Linear::new(v, None, width, kernel).apply(dy, Then::Store, scores);
        pulp::Arch::new().dispatch(SoftmaxGradient {
            weights,
            scores,
            tokens,
            scale,
        });
        Linear::by_input(k, None, width, kernel).apply(scores, Then::Store, &mut self.dq);
        let as_is = Activation::Identity;
        let dk = sum_of_outer_products(scores, as_is, q, [tokens, width], kernel);
        let dv = sum_of_outer_products(weights, as_is, dy, [tokens, width], kernel);
        for (part, rows) in [&self.dq, &dk, &dv].into_iter().enumerate() {
            for (to, row) in dqkv.chunks_exact_mut(3 * dim).zip(rows.chunks_exact(width)) {
                to[part * dim + at..][..width].copy_from_slice(row);
            }
        }
    }
}

/// Makes weights of scores by `softmax(scale · s)`, and of the weights' gradients in `scores` those of the scores.
struct SoftmaxGradient<'a> {
    weights: &'a mut [f32],
    scores: &'a mut [f32],
    tokens: usize,
    scale: f32,
}

impl pulp::WithSimd for SoftmaxGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let rows = self.weights.chunks_exact_mut(self.tokens);
        for (p, dp) in rows.zip(self.scores.chunks_exact_mut(self.tokens)) {
            ops::softmax_row(p, self.scale);
            let [dot] = sums(dp, p, |d, p| [d * p]);
            for (d, p) in dp.iter_mut().zip(&*p) {
                *d = self.scale * p * (*d - dot);
            }
        }
    }
}

/// Computes an operation on plain tensors and records it: `compute` gives what the derivative
/// will need, and the output.
fn record<O, S, const N: usize, const D: usize>(
    operation: O,
    inputs: [Tracked; N],
    compute: impl FnOnce([FlexTensor; N]) -> (S, Tensor<D>),
) -> Tensor<D>
where
    O: Backward<Flex, N, State = S>,
    S: Clone + Send + std::fmt::Debug + 'static,
{
    let guards = inputs.each_ref().map(|input| input.node());
    let (kept, output) = compute(inputs.map(|input| input.into_primitive()));
    let output = primitive(output);
    let output = match operation
        .prepare::<NoCheckpointing>(guards)
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(step) => step.finish(kept, output),
        OpsKind::UnTracked(step) => step.finish(output),
    };
    Tensor::from_primitive::<Recorder>(output)
}

/// The graph's tensor inside a CPU tensor; a constant if it is not part of a graph.
fn track<const D: usize>(x: Tensor<D>) -> Tracked {
    match x.autodiff().try_into_primitive::<Recorder>() {
        Ok(tracked) => tracked,
        Err(error) => unreachable!("can_record checked the backend: {error:?}"),
    }
}

fn plain<const D: usize>(x: FlexTensor) -> Tensor<D> {
    Tensor::from_primitive::<Flex>(x)
}

fn primitive<const D: usize>(x: Tensor<D>) -> FlexTensor {
    cpu_primitive(x)
}

fn vector(values: Vec<f32>, length: usize) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, [length]))
}

/// [`map_chunks`] in place.
fn for_chunks(x: &mut FlexTensor, chunk: usize, kernel: impl Fn(usize, &mut [f32]) + Sync) {
    let arch = pulp::Arch::new();
    x.storage_mut::<f32>()
        .par_chunks_mut(chunk.max(1))
        .enumerate()
        .for_each(|(i, piece)| arch.dispatch(|| kernel(i * chunk, piece)));
}

/// The values of a contiguous tensor whose last axis is `dim`.
fn rows(x: &FlexTensor, dim: usize) -> &[f32] {
    let values = x.storage::<f32>();
    debug_assert!(values.len().is_multiple_of(dim.max(1)));
    values
}

/// Elements of a task that works on whole rows.
fn chunk_of_rows(width: usize) -> usize {
    rows_of_task(width) * width.max(1)
}

/// Rows that are added up one after the other. The longer such a chain, the more of its last terms is lost where
/// large ones cancel, as those of a bias's gradient do.
const ROWS_OF_PART: usize = 64;

/// Sums over rows, `add` telling what a row adds to each of `M` sums of width `width`. The order of additions
/// does not depend on the number of threads.
fn column_sums<const M: usize>(
    count: usize,
    width: usize,
    start: [f32; M],
    add: impl Fn(usize, &mut [Vec<f32>; M]) + Sync,
) -> [Vec<f32>; M] {
    let arch = pulp::Arch::new();
    let step = rows_of_task(width).min(ROWS_OF_PART);
    let parts: Vec<[Vec<f32>; M]> = (0..count.div_ceil(step))
        .into_par_iter()
        .map(|task| {
            let mut part = start.map(|v| vec![v; width]);
            let end = ((task + 1) * step).min(count);
            arch.dispatch(|| {
                for row in task * step..end {
                    add(row, &mut part);
                }
            });
            part
        })
        .collect();
    let mut total = start.map(|v| vec![v; width]);
    for part in parts {
        for (total, part) in total.iter_mut().zip(part) {
            total.iter_mut().zip(part).for_each(|(t, p)| *t += p);
        }
    }
    total
}

/// `[rows, width]` summed to `[width]`.
fn sum_rows(x: &[f32], width: usize) -> Vec<f32> {
    let [sum] = column_sums(x.len() / width, width, [0.0; 1], |row, [sum]| {
        let row = &x[row * width..(row + 1) * width];
        sum.iter_mut().zip(row).for_each(|(s, v)| *s += v);
    });
    sum
}

/// Sums of `term` over two rows of one length, in independent lanes (see [`LANES`]).
#[inline(always)]
fn sums<const M: usize>(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> [f32; M]) -> [f32; M] {
    let mut lanes = [[0.0f32; LANES]; M];
    let (a_body, a_tail) = a.as_chunks::<LANES>();
    let (b_body, b_tail) = b.as_chunks::<LANES>();
    for (a, b) in a_body.iter().zip(b_body) {
        for i in 0..LANES {
            let terms = term(a[i], b[i]);
            for (lanes, term) in lanes.iter_mut().zip(terms) {
                lanes[i] += term;
            }
        }
    }
    for (i, (a, b)) in a_tail.iter().zip(b_tail).enumerate() {
        let terms = term(*a, *b);
        for (lanes, term) in lanes.iter_mut().zip(terms) {
            lanes[i] += term;
        }
    }
    lanes.map(|lanes| lanes.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Distribution, activation};

    fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
        Tensor::random(shape, Distribution::Normal(0.0, 1.0), &Device::flex())
    }

    /// Largest difference between the gradients of two functions of the same inputs, over the
    /// largest gradient.
    fn difference<const N: usize>(
        inputs: [Tensor<3>; N],
        ours: impl Fn([Tensor<3>; N]) -> Tensor<3>,
        burns: impl Fn([Tensor<3>; N]) -> Tensor<3>,
    ) -> f32 {
        let gradients = |f: &dyn Fn([Tensor<3>; N]) -> Tensor<3>| {
            let inputs = inputs.clone().map(|x| x.autodiff().require_grad());
            let y = f(inputs.clone());
            // Uneven weights: a plain sum would hide errors that cancel.
            let shape = y.dims();
            let count = shape.iter().product::<usize>() as i64;
            let weights = Tensor::<1, burn::tensor::Int>::arange(0..count, &Device::flex())
                .float()
                .sin()
                .reshape(shape);
            let grads = (y * weights).sum().backward();
            inputs.map(|x| x.grad(&grads).unwrap())
        };
        let (ours, burns) = (gradients(&ours), gradients(&burns));
        let mut worst = 0.0f32;
        for (a, b) in ours.into_iter().zip(burns) {
            let scale = b.clone().abs().max().into_scalar::<f32>();
            worst = worst.max((a - b).abs().max().into_scalar::<f32>() / scale);
        }
        worst
    }

    fn row(x: Tensor<3>) -> Tensor<1> {
        x.flatten(0, 2)
    }

    #[test]
    fn linear_agrees_with_burn() {
        // The second one is large enough for the CPU's fastest kernel.
        for ([tokens, width, out], bound) in [([5, 33, 7], 1e-5), ([350, 130, 165], 5e-5)] {
            let inputs = [
                random([3, tokens, width]),
                random([1, width, out]),
                random([1, 1, out]),
            ];
            let d = difference(
                inputs.clone(),
                |[x, w, b]| linear(x, w.squeeze_dim(0), Some(row(b))),
                |[x, w, b]| x.matmul(w) + b,
            );
            assert!(d < bound, "{d:e}");
            let [x, w, _] = inputs;
            let d = difference(
                [x, w],
                |[x, w]| linear(x, w.squeeze_dim(0), None),
                |[x, w]| x.matmul(w),
            );
            assert!(d < bound, "{d:e}");
        }
    }

    #[test]
    fn residuals_agree_with_burn() {
        let inputs = [
            random([3, 50, 24]),
            random([3, 50, 33]).mul_scalar(3.0),
            random([1, 33, 24]),
            random([1, 1, 24]),
            random([1, 1, 24]),
        ];
        for activation in [Activation::Identity, Activation::Gelu] {
            let activated = |x| match activation {
                Activation::Identity => x,
                Activation::Gelu => activation::gelu(x),
            };
            let d = difference(
                inputs.clone(),
                |[x, h, w, b, s]| {
                    add_linear(
                        x,
                        h,
                        activation,
                        w.squeeze_dim(0),
                        Some(row(b)),
                        Some(row(s)),
                    )
                },
                |[x, h, w, b, s]| x + (activated(h).matmul(w) + b) * s,
            );
            assert!(d < 1e-5, "{activation:?}: {d:e}");
            let [x, h, w, ..] = inputs.clone();
            let d = difference(
                [x, h, w],
                |[x, h, w]| add_linear(x, h, activation, w.squeeze_dim(0), None, None),
                |[x, h, w]| x + activated(h).matmul(w),
            );
            assert!(d < 1e-5, "{activation:?}: {d:e}");
        }
    }

    #[test]
    fn layer_norm_agrees_with_burn() {
        for dim in [24, 33, 384] {
            let inputs = [
                random([3, 150, dim]).add_scalar(0.5),
                random([1, 1, dim]),
                random([1, 1, dim]),
            ];
            let d = difference(
                inputs,
                |[x, g, b]| layer_norm(x, row(g), row(b), 1e-6),
                |[x, g, b]| {
                    let centered = x.clone() - x.mean_dim(2);
                    let variance = (centered.clone() * centered.clone()).mean_dim(2);
                    centered / (variance + 1e-6).sqrt() * g + b
                },
            );
            // Burn sums a row in one go, which costs a digit.
            assert!(d < 5e-5, "{dim}: {d:e}");
        }
    }

    #[test]
    fn attention_agrees_with_burn() {
        for (batch, tokens, heads) in [(2, 5, 3), (5, 17, 2), (3, 600, 1)] {
            let width = 3 * heads * 8;
            let plain = |[qkv]: [Tensor<3>; 1]| {
                let [batch, tokens, _] = qkv.dims();
                let parts = qkv
                    .reshape([batch, tokens, 3, heads, 8])
                    .permute([2, 0, 3, 1, 4]);
                let part = |i| parts.clone().narrow(0, i, 1).squeeze_dim::<4>(0);
                let scores = part(0).matmul(part(1).swap_dims(2, 3)) * ops::head_scale(8);
                let mixed = activation::softmax(scores, 3).matmul(part(2));
                mixed.swap_dims(1, 2).reshape([batch, tokens, heads * 8])
            };
            let inputs = [random([batch, tokens, width])];
            let d = difference(inputs, |[x]| self_attention(x, heads), plain);
            assert!(d < 1e-5, "{batch} {tokens} {heads}: {d:e}");
        }
    }
}
