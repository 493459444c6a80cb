//! Weights into modules and out again, by name.
//!
//! The path of a field is the parameter's name (`blocks.0.attn.qkv.weight`), spelled as PyTorch
//! spells it: norms have `weight` and `bias`, linear layers keep `[out, in]` in files.

use std::collections::BTreeMap;
use std::fmt;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorData};
use percept_checkpoint::{CheckpointError, Dtype};
use rayon::prelude::*;
use serde::{Serialize, Serializer};

use crate::source::Source;

/// Where the values of one parameter stand in a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recipe {
    /// One tensor of this name.
    Copy(String),
    /// Several tensors, stacked along their first axis (separate query, key and value).
    Stack(Vec<String>),
}

impl Recipe {
    /// The names of the tensors, in the spelling of layouts.
    pub fn names(&self) -> &[String] {
        match self {
            Recipe::Copy(name) => std::slice::from_ref(name),
            Recipe::Stack(names) => names,
        }
    }
}

/// What a checkpoint did and did not hold, by its own names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Needed, and not there.
    pub missing: Vec<String>,
    /// There with another shape than the model's.
    pub misshaped: Vec<Misshaped>,
    /// There as whole numbers, which are no weights without the factors that belong to them.
    pub whole: Vec<Whole>,
    /// There and not understood: they may change what the model computes.
    pub unused: Vec<Unused>,
    /// There and of no use to tokens and embeddings: names by the reason.
    pub left_out: BTreeMap<LeftOutAs, Vec<String>>,
}

/// What a tensor is that is left out, which is why.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum LeftOutAs {
    /// Of a tower of the same kind as the one that was taken. Which of two is taken changes every result.
    OtherTower {
        /// What stands before the names of its tensors.
        prefix: String,
    },
    /// A dictionary of a training checkpoint beside the one that was taken; it may be another copy of the model.
    BesideTaken {
        /// The key of the one that was taken.
        taken: String,
    },
    /// Something that has no plain numbers, with the reason.
    Unreadable(String),
    /// Something that has no say in tokens and embeddings.
    Useless(&'static str),
}

impl fmt::Display for LeftOutAs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherTower { prefix } => write!(f, "another copy of a tower, {prefix}*"),
            Self::BesideTaken { taken } => {
                write!(f, "another copy of a tower, perhaps, beside `{taken}`")
            }
            Self::Unreadable(reason) => f.write_str(reason),
            Self::Useless(what) => f.write_str(what),
        }
    }
}

impl Serialize for LeftOutAs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A tensor that nothing uses, and that may matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unused {
    /// Its name in the checkpoint.
    pub name: String,
    /// What it is, if its name tells.
    pub what: Option<&'static str>,
}

impl fmt::Display for Unused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.what {
            Some(what) => write!(f, "{} ({what})", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// A tensor of whole numbers where weights should be, as bitsandbytes, GPTQ and others keep them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whole {
    /// Its name in the checkpoint.
    pub name: String,
    /// The type of its numbers.
    pub dtype: Dtype,
}

/// A tensor of the wrong shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misshaped {
    /// Its name in the checkpoint.
    pub name: String,
    /// The shape that the model needs.
    pub expected: Vec<usize>,
    /// The shape that the checkpoint holds.
    pub found: Vec<usize>,
}

impl LoadReport {
    /// Whether every parameter got its values.
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty() && self.misshaped.is_empty() && self.whole.is_empty()
    }

    /// Adds a name that is left out.
    pub(crate) fn leave_out(&mut self, what: LeftOutAs, name: &str) {
        self.left_out.entry(what).or_default().push(name.to_owned());
    }

    /// What is in the checkpoint and left out, by the reason: a line for each.
    pub fn left_out_lines(&self) -> impl Iterator<Item = String> {
        self.left_out
            .iter()
            .map(|(reason, names)| format!("{} of {reason}: {}", names.len(), shorten(names)))
    }

    /// Adds what another one has.
    pub fn join(&mut self, other: Self) {
        self.missing.extend(other.missing);
        self.misshaped.extend(other.misshaped);
        self.whole.extend(other.whole);
        self.unused.extend(other.unused);
        for (reason, names) in other.left_out {
            self.left_out.entry(reason).or_default().extend(names);
        }
    }
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if !self.missing.is_empty() {
            parts.push(format!("missing: {}", shorten(&self.missing)));
        }
        if !self.misshaped.is_empty() {
            let described: Vec<String> = self
                .misshaped
                .iter()
                .map(|m| format!("{} is {:?}, not {:?}", m.name, m.found, m.expected))
                .collect();
            parts.push(format!("wrong shape: {}", shorten(&described)));
        }
        if !self.whole.is_empty() {
            let described: Vec<String> = (self.whole.iter())
                .map(|whole| format!("{} ({})", whole.name, whole.dtype))
                .collect();
            parts.push(format!(
                "whole numbers, whose factors percept does not read: {}",
                shorten(&described)
            ));
        }
        if !self.unused.is_empty() {
            let described: Vec<String> = self.unused.iter().map(Unused::to_string).collect();
            parts.push(format!("not understood: {}", shorten(&described)));
        }
        f.write_str(&parts.join("; "))
    }
}

/// The first few of a long list, and how many more there are.
fn shorten(items: &[String]) -> String {
    const SHOWN: usize = 8;
    let mut text = items[..items.len().min(SHOWN)].join(", ");
    if items.len() > SHOWN {
        text.push_str(&format!(" and {} more", items.len() - SHOWN));
    }
    text
}

/// Fills `module` from `checkpoint`: `recipe` says for each parameter name where its values are.
///
/// Missing and misshaped names are added to `report`, and their parameters are left as they were.
///
/// # Errors
/// A tensor's bytes cannot be read, or are not finite.
pub fn load<M: Module>(
    module: M,
    checkpoint: &Source,
    recipe: impl Fn(&str) -> Recipe,
    report: &mut LoadReport,
) -> Result<M, CheckpointError> {
    let mut loader = Loader {
        path: Path::default(),
        checkpoint,
        recipe,
        report,
        error: None,
    };
    let module = module.map(&mut loader);
    match loader.error {
        Some(error) => Err(error),
        None => Ok(module),
    }
}

/// The module path during a traversal.
#[derive(Default)]
struct Path(Vec<(String, String)>);

impl Path {
    fn enter(&mut self, name: &str, container: &str) {
        self.0.push((name.to_owned(), container.to_owned()));
    }

    fn exit(&mut self) {
        self.0.pop();
    }

    /// The parameter's name as PyTorch spells it.
    fn name(&self) -> String {
        let mut names: Vec<&str> = self
            .0
            .iter()
            // The variant of an enum is a step of the path to Burn, not to PyTorch.
            .filter(|(_, container)| !container.starts_with("Enum:"))
            .map(|(name, _)| name.as_str())
            .collect();
        if let Some((name, container)) = self.0.last()
            && (container.ends_with("LayerNorm") || container.ends_with("RmsNorm"))
            && let Some(last) = names.last_mut()
        {
            *last = match name.as_str() {
                "gamma" => "weight",
                "beta" => "bias",
                other => other,
            };
        }
        names.join(".")
    }

    /// Whether the parameter is a linear layer's matrix, `[in, out]` here and `[out, in]` in files.
    fn is_linear_weight(&self) -> bool {
        self.0
            .last()
            .is_some_and(|(name, container)| container.ends_with("Linear") && name == "weight")
    }
}

struct Loader<'a, F> {
    path: Path,
    checkpoint: &'a Source,
    recipe: F,
    report: &'a mut LoadReport,
    error: Option<CheckpointError>,
}

/// Whether one parameter of this shape is in the file; what is missing or has another shape is added to `report`.
pub(crate) fn check(
    checkpoint: &Source,
    recipe: &Recipe,
    shape: &[usize],
    report: &mut LoadReport,
) -> bool {
    let names = recipe.names();
    let mut part = shape.to_vec();
    if names.len() > 1 {
        part[0] /= names.len();
    }
    let mut is_complete = true;
    for name in names {
        let stored = checkpoint.stored_name(name).to_owned();
        match checkpoint.info(name) {
            None => report.missing.push(stored),
            Some(info) if !same_matrix(&info.shape, &part) => {
                report.misshaped.push(Misshaped {
                    name: stored,
                    expected: part.clone(),
                    found: info.shape.clone(),
                });
            }
            Some(info) if !info.dtype.is_float() && !checkpoint.is_quantized(name) => {
                report.whole.push(Whole {
                    name: stored,
                    dtype: info.dtype,
                });
            }
            Some(_) => continue,
        }
        is_complete = false;
    }
    is_complete
}

/// The values of one parameter of this shape in the file, row-major; `None` when they are missing or
/// have another shape, which is added to `report`.
pub(crate) fn values(
    checkpoint: &Source,
    recipe: Recipe,
    shape: &[usize],
    report: &mut LoadReport,
) -> Result<Option<Vec<f32>>, CheckpointError> {
    if !check(checkpoint, &recipe, shape, report) {
        return Ok(None);
    }
    let mut values = Vec::new();
    for name in recipe.names() {
        let part = checkpoint.read_f32(name)?;
        if values.is_empty() {
            values = part;
        } else {
            values.extend(part);
        }
    }
    Ok(Some(values))
}

/// Whether two shapes hold the same matrix: equal, or equal once a convolution's trailing axes
/// are flattened (`[dim, 3, p, p]` is `[dim, 3·p·p]`).
fn same_matrix(found: &[usize], expected: &[usize]) -> bool {
    found == expected
        || (expected.len() == 2
            && found.len() == 4
            && found[0] == expected[0]
            && found[1..].iter().product::<usize>() == expected[1])
}

impl<F: Fn(&str) -> Recipe> ModuleMapper for Loader<'_, F> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.error.is_some() {
            return param;
        }
        let shape: Vec<usize> = param.lazy_shape().to_vec();
        let transposed = self.path.is_linear_weight();
        let mut in_file = shape.clone();
        if transposed {
            in_file.reverse();
        }
        let recipe = (self.recipe)(&self.path.name());
        let read = values(self.checkpoint, recipe, &in_file, self.report);
        let mut values = match read {
            Ok(Some(values)) => values,
            Ok(None) => return param,
            Err(error) => {
                self.error = Some(error);
                return param;
            }
        };
        if transposed {
            values = transpose(&values, in_file[0], in_file[1]);
        }
        let device = param.lazy_device();
        let tensor = Tensor::from_data(TensorData::new(values, shape), &device);
        Param::initialized(param.id, tensor)
    }
}

/// The parameters of `module` with their names and their shapes in files, in order.
pub fn save<M: Module>(module: &M) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let mut saver = Saver::default();
    module.visit(&mut saver);
    saver.tensors
}

#[derive(Default)]
struct Saver {
    path: Path,
    tensors: Vec<(String, Vec<usize>, Vec<f32>)>,
}

impl ModuleVisitor for Saver {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let mut shape: Vec<usize> = param.lazy_shape().to_vec();
        let mut values: Vec<f32> = param.val().into_data().iter::<f32>().collect();
        if self.path.is_linear_weight() {
            values = transpose(&values, shape[0], shape[1]);
            shape.reverse();
        }
        self.tensors.push((self.path.name(), shape, values));
    }
}

/// Hands the values of every parameter to `change`, with its name, and puts them back. On the CPU
/// they are changed where they are.
pub fn update<M: Module>(module: M, change: impl FnMut(&str, &mut [f32])) -> M {
    module.map(&mut Updater {
        path: Path::default(),
        change,
    })
}

struct Updater<F> {
    path: Path,
    change: F,
}

impl<F: FnMut(&str, &mut [f32])> ModuleMapper for Updater<F> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.path.name();
        param.map(|tensor| {
            let device = tensor.device();
            let shape = tensor.dims();
            let mut data = tensor.into_data();
            if let Ok(values) = data.as_mut_slice::<f32>() {
                (self.change)(&name, values);
                return Tensor::from_data(data, &device);
            }
            // A device that stores half precision.
            let mut values: Vec<f32> = data.iter().collect();
            (self.change)(&name, &mut values);
            Tensor::from_data(TensorData::new(values, shape), &device)
        })
    }
}

/// Names of the parameters of `module` with their shapes in memory, in order. They are those of
/// [`save`], except that a linear layer's matrix is `[in, out]`.
pub fn shapes<M: Module>(module: &M) -> Vec<(String, Vec<usize>)> {
    let mut visitor = Visitor {
        path: Path::default(),
        see: Shapes(Vec::new()),
    };
    module.visit(&mut visitor);
    visitor.see.0
}

struct Shapes(Vec<(String, Vec<usize>)>);

impl See for Shapes {
    fn see<const D: usize>(&mut self, name: String, param: &Param<Tensor<D>>) {
        self.0.push((name, param.lazy_shape().to_vec()));
    }
}

/// As [`shapes`], with the shapes that files have: a linear layer's matrix is `[out, in]`.
pub(crate) fn shapes_in_files<M: Module>(module: &M) -> Vec<(String, Vec<usize>)> {
    #[derive(Default)]
    struct InFiles {
        path: Path,
        found: Vec<(String, Vec<usize>)>,
    }
    impl ModuleVisitor for InFiles {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.enter(name, container);
        }

        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.exit();
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let mut shape = param.lazy_shape().to_vec();
            if self.path.is_linear_weight() {
                shape.reverse();
            }
            self.found.push((self.path.name(), shape));
        }
    }
    let mut visitor = InFiles::default();
    module.visit(&mut visitor);
    visitor.found
}

/// Gives the name and the values of every parameter, row-major in the shapes of [`shapes`].
pub fn read<M: Module>(module: &M, see: impl FnMut(&str, Vec<f32>)) {
    struct Reader<F>(F);
    impl<F: FnMut(&str, Vec<f32>)> See for Reader<F> {
        fn see<const D: usize>(&mut self, name: String, param: &Param<Tensor<D>>) {
            (self.0)(&name, param.val().into_data().iter().collect());
        }
    }
    module.visit(&mut Visitor {
        path: Path::default(),
        see: Reader(see),
    });
}

/// What a [`Visitor`] does with a parameter.
trait See {
    fn see<const D: usize>(&mut self, name: String, param: &Param<Tensor<D>>);
}

struct Visitor<S> {
    path: Path,
    see: S,
}

impl<S: See> ModuleVisitor for Visitor<S> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let name = self.path.name();
        self.see.see(name, param);
    }
}

/// `module` with every parameter a leaf of Burn's graph: what is computed with it can be
/// differentiated. The values are shared with the original.
#[cfg(feature = "autodiff")]
pub fn recorded<M: Module>(module: &M) -> M {
    struct Recorder;
    impl ModuleMapper for Recorder {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|tensor| tensor.without_autodiff().autodiff().require_grad())
        }
    }
    module.clone().map(&mut Recorder)
}

/// Takes the gradients of a [`recorded`] module out of `gradients`: name and values, row-major in
/// the shapes of [`shapes`]. Parameters that the loss did not depend on are left out.
#[cfg(feature = "autodiff")]
pub fn take_gradients<M: Module>(
    module: &M,
    gradients: &mut burn::tensor::Gradients,
    take: impl FnMut(&str, &[f32]),
) {
    struct Taker<'a, F> {
        gradients: &'a mut burn::tensor::Gradients,
        take: F,
    }
    impl<F: FnMut(&str, &[f32])> See for Taker<'_, F> {
        fn see<const D: usize>(&mut self, name: String, param: &Param<Tensor<D>>) {
            let Some(gradient) = param.val().grad_remove(self.gradients) else {
                return;
            };
            let data = gradient.into_data();
            match data.as_slice::<f32>() {
                Ok(values) => (self.take)(&name, values),
                Err(_) => (self.take)(&name, &data.iter().collect::<Vec<f32>>()),
            }
        }
    }
    module.visit(&mut Visitor {
        path: Path::default(),
        see: Taker { gradients, take },
    });
}

/// Row-major `[rows, columns]` to row-major `[columns, rows]`.
fn transpose(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    // Blocks of output rows: the reads of one block stay within the cache lines it shares.
    const BLOCK: usize = 16;
    let mut out = vec![0.0; values.len()];
    if rows == 0 || columns == 0 {
        return out;
    }
    out.par_chunks_mut(BLOCK * rows)
        .enumerate()
        .for_each(|(block, out)| {
            let first = block * BLOCK;
            for row in 0..rows {
                for (i, out) in out.chunks_exact_mut(rows).enumerate() {
                    out[row] = values[row * columns + first + i];
                }
            }
        });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transposing_twice_is_the_identity() {
        for (rows, columns) in [(1, 1), (3, 5), (17, 33), (32, 16)] {
            let values: Vec<f32> = (0..rows * columns).map(|v| v as f32).collect();
            let turned = transpose(&values, rows, columns);
            assert_eq!(
                turned[columns.min(2) / 2 * rows],
                values[columns.min(2) / 2]
            );
            assert_eq!(transpose(&turned, columns, rows), values);
        }
    }
}
