//! What a path holds: which towers, in which layout, of which shape. No weights are read here.
//!
//! All that a loader would refuse is found here, from names and shapes: [`ModelFiles::open`] fails where
//! [`Model::load`](crate::Model::load) would, but for values that are not finite and for the tokeniser.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::Device;
use percept_image::{Filter, Normalization};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::config::{FORMAT, default_templates};
use crate::json_file::JsonFile;
use crate::layout::{self, Found, ImageLayout, ImageStyle, TextLayout, TextStyle, count_blocks};
use crate::leftover::{self, Judge, Leftover};
use crate::names;
use crate::preprocessing::Preprocessing;
use crate::sentence_transformers::Pipeline;
use crate::source::Source;
use crate::text::TextTower;
use crate::weights::{self, LeftOutAs, LoadReport, Recipe, Unused};
use crate::{
    BertConfig, DenseActivation, DenseConfig, ImageConfig, ModelConfig, ModelError, Pooling,
    PositionInterpolation, T5Config, T5FeedForward, TextConfig, TextHead, VitConfig,
};

/// Side of the square that classification sees, unless the position grid is smaller.
const IMAGE_SIZE: usize = 224;
/// Sentence-T5's and MiniLM's own limit.
const MAX_TOKENS: usize = 256;
/// What the encoders take at most.
const MOST_TOKENS: usize = 4096;

/// Name of the weights in a model folder.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// Name of the configuration in a model folder.
pub const CONFIG_FILE: &str = "config.json";
/// Name of the tokeniser in a model folder.
pub const TOKENIZER_FILE: &str = "tokenizer.json";

/// Weights beside which a `config.json` is theirs; beside a lone file of another name it may be anything's.
const NAMES_OF_FOLDERS: [&str; 6] = [
    WEIGHTS_FILE,
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
];

fn sha256_of(path: &Path) -> std::io::Result<[u8; 32]> {
    let mut file = std::fs::File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hash.finalize().into()),
            read => hash.update(&buffer[..read]),
        }
    }
}

/// What a checkpoint does not say by itself; each overrides what is inferred.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Hints {
    /// Pooling of the image tower.
    pub pooling: Option<Pooling>,
    /// Attention heads of the image tower.
    pub heads: Option<usize>,
    /// Rule for position embeddings.
    pub interpolation: Option<PositionInterpolation>,
    /// Mean and standard deviation of the image tower's input.
    pub normalization: Option<Normalization>,
    /// Side of the square that classification sees, in pixels.
    pub image_size: Option<usize>,
    /// Resampling filter of the resize before the image tower.
    pub filter: Option<Filter>,
    /// ε of the image tower's layer norms.
    pub layer_norm_eps: Option<f64>,
    /// What stands before the names of the tower that is meant, where a file holds several.
    pub prefix: Option<String>,
    /// Leaves out tensors that are not understood, which is an error otherwise.
    pub allow_unused: bool,
    /// The tokeniser, when it is not beside the weights.
    pub tokenizer: Option<PathBuf>,
}

/// A tower on disk.
#[derive(Debug, Clone)]
pub struct TowerFiles<L> {
    /// Where its tensors are.
    pub source: Arc<Source>,
    /// Under which names.
    pub layout: L,
}

/// A model on disk, understood but not loaded.
#[derive(Debug, Clone)]
pub struct ModelFiles {
    /// The file or folder that was opened.
    pub path: PathBuf,
    /// What the model is.
    pub config: ModelConfig,
    /// The image tower.
    pub image: Option<TowerFiles<ImageLayout>>,
    /// The text tower.
    pub text: Option<TowerFiles<TextLayout>>,
    /// The tokeniser of the text tower.
    pub tokenizer: Option<PathBuf>,
    /// Where the learned temperature is: a checkpoint and a name.
    pub logit_scale: Option<(Arc<Source>, String)>,
    /// What of the checkpoint is not used.
    pub report: LoadReport,
    /// Where what files do not have to say comes from.
    pub origins: Vec<Origin>,
}

/// Where a setting of a model comes from: a file beside the weights, a hint, or an assumption.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The setting, such as `mean and std`.
    pub what: &'static str,
    /// Where it comes from, in words.
    pub from: String,
}

impl ModelFiles {
    /// Looks at a model folder of ours, or any checkpoint of a known layout (`layout.rs`).
    ///
    /// # Errors
    /// The path cannot be read, holds no tower that is known, one that cannot exist or is not whole, or tensors that
    /// may change what a tower computes and are not understood.
    pub fn open(path: &Path, hints: &Hints) -> Result<Self, ModelError> {
        let beside = Beside::read(path)?;
        let source = Source::with_parts(&beside.weights, &beside.parts())?;
        let wanted = hints.prefix.as_deref();
        let image = ImageLayout::detect(&source, wanted)?;
        let mut text = TextLayout::detect(&source, wanted)?;
        if let Some(wanted) = wanted {
            let found = (image.iter().map(|found| &found.layout.prefix))
                .chain(text.iter().map(|found| &found.layout.prefix));
            layout::check_prefix(&source, wanted, found)?;
        }
        if image.is_none() && text.is_none() {
            let main = source.main();
            return Err(ModelError::UnknownLayout {
                path: main.path().to_owned(),
                count: main.len(),
                examples: main.names().take(3).map(str::to_owned).collect(),
                owner: leftover::owner(source.names()),
            });
        }
        let mut origins = Origins::default();
        let mut config = if beside.is_ours() {
            beside.as_ours()?
        } else {
            let beside = beside.for_towers(image.as_ref(), text.as_ref())?;
            let is_clippy = is_clippy(image.as_ref(), text.as_ref());
            let infer = Infer {
                source: &source,
                beside: &beside,
                hints,
            };
            let explained = |error| infer.explain(error, image.as_ref(), text.as_ref());
            let image_config = (image.as_ref())
                .map(|found| infer.image(&found.layout, is_clippy, &mut origins))
                .transpose()
                .map_err(explained)?;
            let text_config = (text.as_mut())
                .map(|found| infer.text(&mut found.layout, &mut origins))
                .transpose();
            let text_config =
                text_config.map_err(|error| infer.explain(error, image.as_ref(), text.as_ref()))?;
            ModelConfig {
                format: FORMAT.into(),
                name: None,
                image: image_config,
                text: text_config,
                templates: default_templates(),
            }
        };
        hints.apply(&mut config, &mut origins);
        config
            .validate()
            .map_err(|reason| ModelError::config(source.main().path(), reason))?;
        let report = inspect(&source, image.as_ref(), text.as_ref(), &config);
        if !report.is_complete() || !(report.unused.is_empty() || hints.allow_unused) {
            return Err(ModelError::Weights {
                path: source.main().path().to_owned(),
                report: Box::new(report),
            });
        }

        let source = Arc::new(source);
        let logit_scale = logit_scale(&source).map(|name| (Arc::clone(&source), name));
        let image = (config.image.as_ref().and(image)).map(|found| TowerFiles {
            source: Arc::clone(&source),
            layout: found.layout,
        });
        let text = (config.text.as_ref().and(text)).map(|found| TowerFiles {
            source: Arc::clone(&source),
            layout: found.layout,
        });
        Ok(Self {
            path: path.to_owned(),
            image,
            text,
            config,
            tokenizer: hints.tokenizer.clone().or_else(|| beside.tokenizer()),
            logit_scale,
            report,
            origins: origins.0,
        })
    }

    /// SHA-256 of all that decides what the model computes, in hexadecimal: the configuration, and the content of
    /// weights and tokeniser wherever they lie.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn digest(&self) -> Result<String, ModelError> {
        let mut hash = Sha256::new();
        let config = serde_json::to_vec(&self.config).map_err(|e| {
            ModelError::config(&self.path, format!("has no configuration to write: {e}"))
        })?;
        hash.update(config);
        let image = self.image.iter().map(|tower| &tower.source);
        let text = self.text.iter().map(|tower| &tower.source);
        let mut seen = BTreeSet::new();
        let weights = image.chain(text).flat_map(|source| source.files());
        for path in weights.chain(self.tokenizer.as_deref()) {
            if seen.insert(path) {
                hash.update(sha256_of(path).map_err(|source| ModelError::Io {
                    path: path.to_owned(),
                    source,
                })?);
            }
        }
        Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect())
    }

    /// The image tower of `self` with the text tower of `text`.
    ///
    /// # Errors
    /// A tower is absent, or the two embed in spaces of different width.
    pub fn with_text_of(self, text: Self) -> Result<Self, ModelError> {
        if self.image.is_none() {
            return Err(ModelError::NoTower {
                tower: "image",
                hint: Some("--image names another file"),
            });
        }
        if text.text.is_none() {
            return Err(ModelError::NoTower {
                tower: "text",
                hint: Some("--text names another file"),
            });
        }
        let config = ModelConfig {
            text: text.config.text,
            ..self.config
        };
        config
            .validate()
            .map_err(|reason| ModelError::config(&text.path, reason))?;
        let mut report = self.report;
        report.join(text.report);
        let mut origins = self.origins;
        origins.retain(|origin| !origin.what.starts_with("text"));
        origins.extend((text.origins.into_iter()).filter(|o| o.what.starts_with("text")));
        Ok(Self {
            config,
            text: text.text,
            tokenizer: text.tokenizer,
            report,
            origins,
            ..self
        })
    }
}

impl Hints {
    fn apply(&self, config: &mut ModelConfig, origins: &mut Origins) {
        let Some(image) = &mut config.image else {
            return;
        };
        let vit = &mut image.vit;
        let mut told = |what, is_told: bool| {
            if is_told {
                origins.set(what, "as told");
            }
        };
        told("heads", self.heads.is_some());
        told("position rule", self.interpolation.is_some());
        told("pooling", self.pooling.is_some());
        told("mean and std", self.normalization.is_some());
        told("filter", self.filter.is_some());
        told("image size", self.image_size.is_some());
        vit.heads = self.heads.unwrap_or(vit.heads);
        vit.interpolation = self.interpolation.unwrap_or(vit.interpolation);
        vit.layer_norm_eps = self.layer_norm_eps.unwrap_or(vit.layer_norm_eps);
        image.pooling = self.pooling.unwrap_or(image.pooling);
        image.normalization = self.normalization.unwrap_or(image.normalization);
        image.filter = self.filter.unwrap_or(image.filter);
        image.image_size = self.image_size.unwrap_or(image.image_size);
    }
}

/// Where settings come from, one line each.
#[derive(Debug, Default)]
struct Origins(Vec<Origin>);

impl Origins {
    fn set(&mut self, what: &'static str, from: impl Into<String>) {
        self.0.retain(|origin| origin.what != what);
        self.0.push(Origin {
            what,
            from: from.into(),
        });
    }
}

/// The small files beside the weights that belong to them.
#[derive(Debug, Clone)]
struct Beside {
    /// File or folder of the weights.
    weights: PathBuf,
    /// The folder of the transformer, its configuration and tokeniser.
    folder: PathBuf,
    /// The folder that was opened.
    root: PathBuf,
    /// Whether a folder was opened, which is one model's.
    is_folder: bool,
    config: JsonFile,
    pipeline: Option<Pipeline>,
}

impl Beside {
    fn read(path: &Path) -> Result<Self, ModelError> {
        let is_folder = path.is_dir();
        let root = match is_folder {
            true => path,
            false => path.parent().unwrap_or(Path::new(".")),
        };
        let name = path.file_name().and_then(|name| name.to_str());
        let belongs = is_folder || name.is_some_and(|name| NAMES_OF_FOLDERS.contains(&name));
        let mut beside = Self {
            weights: path.to_owned(),
            folder: root.to_owned(),
            root: root.to_owned(),
            is_folder,
            config: JsonFile::none(&root.join(CONFIG_FILE)),
            pipeline: None,
        };
        if !belongs {
            return Ok(beside);
        }
        beside.config = JsonFile::read(&root.join(CONFIG_FILE))?;
        if !beside.is_ours() {
            let pipeline = Pipeline::read(root)?;
            if pipeline.transformer != root {
                beside.config = JsonFile::read(&pipeline.transformer.join(CONFIG_FILE))?;
                if is_folder {
                    beside.weights.clone_from(&pipeline.transformer);
                }
            }
            beside.folder.clone_from(&pipeline.transformer);
            beside.pipeline = Some(pipeline);
        }
        Ok(beside)
    }

    fn is_ours(&self) -> bool {
        (self.config.get("format").and_then(Value::as_str))
            .is_some_and(|format| format.starts_with("percept"))
    }

    fn as_ours(&self) -> Result<ModelConfig, ModelError> {
        let config: ModelConfig = serde_json::from_value(self.config.json.clone())
            .map_err(|e| self.config.refuse(e.to_string()))?;
        (config.validate()).map_err(|reason| self.config.refuse(reason))?;
        Ok(config)
    }

    /// Folders of dense layers, with what stands before their tensors' names.
    fn parts(&self) -> Vec<(String, PathBuf)> {
        let dense = self.pipeline.iter().flat_map(|pipeline| &pipeline.dense);
        dense
            .map(|layer| (layer.prefix.clone(), layer.folder.clone()))
            .collect()
    }

    fn tokenizer(&self) -> Option<PathBuf> {
        [&self.folder, &self.root]
            .map(|folder| folder.join(TOKENIZER_FILE))
            .into_iter()
            .find(|file| file.is_file())
    }

    /// These files, if their `config.json` is about such towers. One that is about another model costs a folder,
    /// which is that model's, but not a file.
    fn for_towers(
        &self,
        image: Option<&Found<ImageLayout>>,
        text: Option<&Found<TextLayout>>,
    ) -> Result<Self, ModelError> {
        const VITS: [&str; 3] = ["vit", "vit_mae", "vit_msn"];
        const DINOV2: [&str; 2] = ["dinov2", "dinov2_with_registers"];
        const BERTS: [&str; 5] = ["bert", "roberta", "xlm-roberta", "camembert", "electra"];
        const T5: [&str; 2] = ["t5", "mt5"];
        let Some(kind) = self.config.get("model_type") else {
            return Ok(self.clone());
        };
        let of_image = image.map_or(&[] as &[&str], |found| match found.layout.style {
            ImageStyle::Timm => &["timm_wrapper"],
            ImageStyle::HfVit => &VITS,
            ImageStyle::HfDinov2 => &DINOV2,
        });
        let of_text = text.map_or(&[] as &[&str], |found| match found.layout.style {
            TextStyle::HfT5 => &T5,
            TextStyle::HfBert => &BERTS,
            TextStyle::PerceptT5 | TextStyle::PerceptBert => &[],
        });
        let is_theirs =
            (kind.as_str()).is_some_and(|kind| of_image.contains(&kind) || of_text.contains(&kind));
        if is_theirs {
            return Ok(self.clone());
        }
        if self.is_folder {
            return Err(self.config.refuse_value("model_type", kind));
        }
        Ok(Self {
            config: JsonFile::none(&self.folder.join(CONFIG_FILE)),
            pipeline: None,
            ..self.clone()
        })
    }

    /// What the tokeniser does to a text before it looks for words; nothing where there is no file. What is wrong
    /// with the file is said where it is opened.
    fn normalizer(&self) -> Option<Value> {
        let json: Value = serde_json::from_slice(&std::fs::read(self.tokenizer()?).ok()?).ok()?;
        Some(json["normalizer"].clone())
    }

    /// BERT's tokenisers in transformers have the case of `tokenizer_config.json`, lower unless it says otherwise,
    /// whatever `tokenizer.json` says. percept does what `tokenizer.json` says, so the two have to agree.
    fn check_case(&self) -> Result<(), ModelError> {
        const BERTS: [&str; 5] = ["Bert", "DistilBert", "Electra", "MPNet", "MobileBert"];
        let config = JsonFile::read(&self.folder.join("tokenizer_config.json"))?;
        if self.pipeline.is_none() || !config.is_there() {
            return Ok(());
        }
        let is_berts = match config.str("tokenizer_class")? {
            Some(class) => {
                let name = class.strip_suffix("Fast").unwrap_or(class);
                (name.strip_suffix("Tokenizer")).is_some_and(|model| BERTS.contains(&model))
            }
            None => matches!(self.config.str("model_type")?, Some("bert" | "electra")),
        };
        let normalizer = self.normalizer().unwrap_or_default();
        let wanted = config.bool("do_lower_case")?.unwrap_or(true);
        match normalizer["lowercase"].as_bool() {
            Some(does) if is_berts && does != wanted => Err(config.refuse(format!(
                "do_lower_case is {wanted} in transformers, and tokenizer.json has lowercase {does}: make \
                 them the same"
            ))),
            _ => Ok(()),
        }
    }

    /// Whether the tokeniser makes texts lower-case.
    fn lower_cases(&self) -> bool {
        let Some(normalizer) = self.normalizer() else {
            return true;
        };
        let lowers =
            |step: &Value| step["type"] == "Lowercase" || step["lowercase"] == Value::Bool(true);
        let steps = normalizer["normalizers"].as_array();
        lowers(&normalizer) || steps.is_some_and(|steps| steps.iter().any(lowers))
    }
}

/// Name of the learned temperature: the outermost one, a tensor or else a plain number.
fn logit_scale(source: &Source) -> Option<String> {
    let is_scale = |name: &&str| *name == "logit_scale" || name.ends_with(".logit_scale");
    let outermost = |names: &mut dyn Iterator<Item = &str>| {
        let found = names.filter(is_scale).min_by_key(|name| name.len());
        found.map(str::to_owned)
    };
    let numbers = &mut source.main().numbers().keys().map(String::as_str);
    outermost(&mut source.names()).or_else(|| outermost(numbers))
}

/// Whether these are the towers of the public CLIPpy checkpoint: a ViT and Sentence-T5's pipeline in one file.
fn is_clippy(image: Option<&Found<ImageLayout>>, text: Option<&Found<TextLayout>>) -> bool {
    image.zip(text).is_some_and(|(image, text)| {
        image.layout.style == ImageStyle::Timm
            && text.layout.style == TextStyle::HfT5
            && text.layout.is_pipeline()
    })
}

/// What of a checkpoint such towers use, from names and shapes alone.
fn inspect(
    source: &Source,
    image: Option<&Found<ImageLayout>>,
    text: Option<&Found<TextLayout>>,
    config: &ModelConfig,
) -> LoadReport {
    let mut report = LoadReport::default();
    let mut used = BTreeSet::new();
    let mut look = |shapes: Vec<(String, Vec<usize>)>, recipe: &dyn Fn(&str) -> Recipe| {
        for (name, shape) in shapes {
            let recipe = recipe(&name);
            weights::check(source, &recipe, &shape, &mut report);
            used.extend(recipe.names().iter().cloned());
        }
    };
    // Burn draws a parameter when it is first looked at: nothing is allocated here.
    let device = Device::flex();
    if let (Some(found), Some(config)) = (image, &config.image) {
        let shapes = weights::shapes_in_files(&config.vit.init(&device));
        look(shapes, &|name| found.layout.recipe(name));
    }
    if let (Some(found), Some(config)) = (text, &config.text) {
        let shapes = match config.init(&device) {
            TextTower::T5(t5) => weights::shapes_in_files(&t5),
            TextTower::Bert(bert) => weights::shapes_in_files(&bert),
        };
        look(shapes, &|name| found.layout.recipe(name));
    }
    used.extend(logit_scale(source));
    let others: Vec<String> = (image.iter().flat_map(|found| &found.others))
        .chain(text.iter().flat_map(|found| &found.others))
        .cloned()
        .collect();
    let judge = Judge {
        image: image.map(|found| &found.layout),
        text: text.map(|found| &found.layout),
        others: &others,
    };
    // T5's second name of its table of tokens.
    let twin = |name: &str| {
        let shared = name.strip_suffix("encoder.embed_tokens.weight");
        shared.is_some_and(|prefix| used.contains(&format!("{prefix}shared.weight")))
    };
    for name in source.names().filter(|name| !used.contains(*name)) {
        let stored = source.stored_name(name).to_owned();
        match judge.judge(name) {
            _ if twin(name) => {}
            Leftover::NotUnderstood(what) => report.unused.push(Unused { name: stored, what }),
            Leftover::LeftOut(reason) => report.left_out.entry(reason).or_default().push(stored),
        }
    }
    look_beside(source, &judge, &used, &mut report);
    report
}

/// What a checkpoint holds beside the tensors that can be read.
fn look_beside(
    source: &Source,
    judge: &Judge<'_>,
    used: &BTreeSet<String>,
    report: &mut LoadReport,
) {
    let main = source.main();
    for (name, reason) in main.left_out() {
        // A second copy of a tensor that another shard has.
        let is_copy =
            (name.rsplit_once(": ")).is_some_and(|(_, tensor)| main.info(tensor).is_some());
        match judge.judge(&names::canonical(name)) {
            // It may be any tensor's values; an object is nobody's.
            Leftover::NotUnderstood(what) if main.is_tensor_left_out(name) && !is_copy => {
                // Of tensors that are missed it is said that they are missing.
                let name = name.clone();
                if !report.missing.contains(&name) {
                    report.unused.push(Unused { name, what });
                }
            }
            _ => report.leave_out(LeftOutAs::Unreadable(reason.clone()), name),
        }
    }
    let numbers = main.numbers().keys().filter(|name| !used.contains(*name));
    for name in numbers {
        report.leave_out(
            LeftOutAs::Useless("plain numbers, which are no tensors"),
            name,
        );
    }
    let Some(taken) = main.taken() else { return };
    for key in &taken.passed_over {
        let what = match is_of_training(key) {
            true => LeftOutAs::Useless("state of training"),
            false => LeftOutAs::BesideTaken {
                taken: taken.key.clone(),
            },
        };
        report.leave_out(what, key);
    }
}

/// Whether a dictionary of this name is a trainer's own, and no model's.
fn is_of_training(key: &str) -> bool {
    const OWN: [&str; 7] = [
        "optim", "sched", "scaler", "loss", "callback", "rng", "loop",
    ];
    let key = key.to_ascii_lowercase();
    OWN.iter().any(|own| key.contains(own))
}

/// The file's own name for a parameter, for reading its shape.
fn name_of(recipe: Recipe) -> String {
    match recipe {
        Recipe::Copy(name) => name,
        Recipe::Stack(names) => names.into_iter().next().unwrap_or_default(),
    }
}

/// One side of a tensor that the tower cannot be without.
fn side(source: &Source, name: &str, axis: usize) -> Result<usize, ModelError> {
    source.side(name, axis).ok_or_else(|| {
        let mut report = LoadReport::default();
        report.missing.push(name.to_owned());
        ModelError::Weights {
            path: source.main().path().to_owned(),
            report: Box::new(report),
        }
    })
}

/// Heads of a ViT of this width: 64 numbers each, but for the large ones of timm and MAE, which have 16.
fn usual_heads(dim: usize) -> usize {
    match dim {
        1152 | 1280 | 1408 | 1664 => 16,
        _ => (dim / 64).max(1),
    }
}

/// Reads shapes and settings of towers out of names, shapes and the files beside the weights.
struct Infer<'a> {
    source: &'a Source,
    beside: &'a Beside,
    hints: &'a Hints,
}

impl Infer<'_> {
    /// An error about missing tensors, with those of the towers that tell which model it is.
    fn explain(
        &self,
        error: ModelError,
        image: Option<&Found<ImageLayout>>,
        text: Option<&Found<TextLayout>>,
    ) -> ModelError {
        let ModelError::Weights { path, mut report } = error else {
            return error;
        };
        let prefixes = [
            image.map(|found| found.layout.prefix.as_str()),
            text.map(|found| found.layout.prefix.as_str()),
        ];
        for name in self.source.names() {
            let parts: Vec<&str> = name.split('.').collect();
            let is_inside = (prefixes.iter().flatten()).any(|prefix| name.starts_with(prefix));
            if let (true, Some(what)) = (is_inside, leftover::signature(&parts)) {
                let name = self.source.stored_name(name).to_owned();
                let what = Some(what);
                report.unused.push(Unused { name, what });
            }
        }
        ModelError::Weights { path, report }
    }

    /// The configuration of the tower counts blocks as the weights do.
    fn check_depth(&self, key: &str, depth: usize) -> Result<(), ModelError> {
        match self.beside.config.usize(key)? {
            Some(stated) if stated != depth => Err(self.beside.config.refuse(format!(
                "{key} is {stated}, but the weights have {depth} blocks"
            ))),
            _ => Ok(()),
        }
    }

    fn image(
        &self,
        layout: &ImageLayout,
        is_clippy: bool,
        origins: &mut Origins,
    ) -> Result<ImageConfig, ModelError> {
        let Self { source, beside, .. } = self;
        let json = &beside.config;
        let named = |name: &str| name_of(layout.recipe(name));
        let has = |name: &str| source.info(&named(name)).is_some();
        let dim = side(source, &named("cls_token"), 2)?;
        let patch_size = side(source, &named("patch_embed.proj.weight"), 2)?;
        let positions = side(source, &named("pos_embed"), 1)?;
        let registers = match has("reg_token") {
            true => side(source, &named("reg_token"), 1)?,
            false => 0,
        };
        let (grid, position_prefix) = square_grid(positions, registers).ok_or_else(|| {
            ModelError::config(
                source.main().path(),
                format!(
                    "{} holds {positions} positions, which is no square grid with or without CLS",
                    named("pos_embed")
                ),
            )
        })?;
        let layer_scale = has("blocks.0.ls1.gamma");
        let depth = count_blocks(source, |n| named(&format!("blocks.{n}.norm1.weight")));
        match layout.style {
            ImageStyle::Timm => self.check_timm()?,
            ImageStyle::HfVit | ImageStyle::HfDinov2 => {
                json.only("hidden_act", &["gelu", "gelu_python"])?;
                json.only_bool("qkv_bias", true)?;
                json.only_bool("use_swiglu_ffn", false)?;
                self.check_depth("num_hidden_layers", depth)?;
            }
        }
        let rule = self.position_rule(layout, registers, layer_scale, origins);
        let vit = VitConfig {
            dim,
            depth,
            heads: self.heads(layout, dim, origins)?,
            mlp_dim: side(source, &named("blocks.0.mlp.fc1.weight"), 0)?,
            patch_size,
            grid: [grid, grid],
            registers,
            position_prefix,
            layer_scale,
            // Where nothing is said, what the library has.
            layer_norm_eps: json.f64("layer_norm_eps")?.unwrap_or(match layout.style {
                ImageStyle::HfVit => 1e-12,
                ImageStyle::HfDinov2 | ImageStyle::Timm => 1e-6,
            }),
            interpolation: rule,
        };
        let stated = match beside.pipeline {
            Some(_) => Preprocessing::read(&beside.folder, json)?,
            None => Preprocessing::default(),
        };
        let from_file = |is_there: bool, otherwise: &str| match is_there {
            true => stated.from.clone(),
            false => otherwise.to_owned(),
        };
        let normalization = stated.normalization;
        // The public CLIPpy checkpoint was trained with OpenAI's numbers, all backbones with ImageNet's.
        let (usual, owner) = match is_clippy {
            true => (Normalization::OPENAI, "CLIPpy's, which are OpenAI's"),
            false => (Normalization::IMAGENET, "assumed: ImageNet's"),
        };
        origins.set("mean and std", from_file(normalization.is_some(), owner));
        origins.set("filter", from_file(stated.filter.is_some(), "assumed"));
        let size = from_file(stated.image_size.is_some(), "assumed");
        let size = match &stated.other_fit {
            Some(fit) => format!(
                "{size}, whose library {fit}: percept cuts the middle square out of the whole photo"
            ),
            None => size,
        };
        origins.set("image size", size);
        // What the model was made with stands above what its architecture has.
        let arguments = json.inside("model_args")?;
        let pool = (arguments.str("global_pool")?).or(json.str("global_pool")?);
        let (pooling, from) = match (is_clippy, layout.style, pool) {
            (true, ..) => (Pooling::Max, "CLIPpy's".to_owned()),
            (_, ImageStyle::Timm, Some("avg")) => (Pooling::Avg, json.name()),
            (_, ImageStyle::Timm, Some("token")) => (Pooling::Cls, json.name()),
            _ => (Pooling::Cls, "assumed".to_owned()),
        };
        origins.set("pooling", from);
        let native = grid.saturating_mul(patch_size);
        Ok(ImageConfig {
            image_size: stated.image_size.unwrap_or(IMAGE_SIZE.min(native)),
            vit,
            pooling,
            filter: stated.filter.unwrap_or(Filter::Bicubic),
            normalization: normalization.unwrap_or(usual),
        })
    }

    /// The rule of the library that owns the layout.
    fn position_rule(
        &self,
        layout: &ImageLayout,
        registers: usize,
        layer_scale: bool,
        origins: &mut Origins,
    ) -> PositionInterpolation {
        use PositionInterpolation::{Dino, Size, Timm};
        let is_of_timm = self.beside.config.get("architecture").is_some();
        let prefix = &layout.prefix;
        let has_mask = self.source.info(&format!("{prefix}mask_token")).is_some();
        let block = format!("{prefix}blocks.0.norm1.weight");
        // timm drops the mask token when it converts, and has no chunks of blocks.
        let is_of_meta = has_mask || self.source.stored_name(&block).contains("blocks.0.0.");
        let (rule, from) = match layout.style {
            _ if registers > 0 => (Timm, "that of every DINOv2 with registers"),
            ImageStyle::HfVit | ImageStyle::HfDinov2 => {
                (Size, "that of transformers, whose names these are")
            }
            ImageStyle::Timm if is_of_timm => (Timm, "that of timm, whose config.json this is"),
            ImageStyle::Timm if layer_scale && is_of_meta => {
                (Dino, "that of Meta's DINOv2, whose names these are")
            }
            ImageStyle::Timm if layer_scale => (Timm, "that of timm, whose names these are"),
            ImageStyle::Timm => (Dino, "that of DINO and CLIPpy, whose names these may be"),
        };
        origins.set("position rule", from);
        rule
    }

    fn heads(
        &self,
        layout: &ImageLayout,
        dim: usize,
        origins: &mut Origins,
    ) -> Result<usize, ModelError> {
        /// Width of the ViT-S that has 6 heads with everyone but MoCo v3.
        const SMALL: usize = 384;
        let json = &self.beside.config;
        let stated = (json.usize("num_attention_heads")?)
            .or(json.inside("model_args")?.usize("num_heads")?);
        if let Some(heads) = self.hints.heads.or(stated) {
            origins.set("heads", json.name());
            return Ok(heads);
        }
        // timm's towers for its own tests are narrower than any that is in use.
        if (json.str("architecture")?).is_some_and(|name| name.starts_with("test_vit")) {
            origins.set("heads", json.name());
            return Ok((dim / 32).max(1));
        }
        let is_mocos = (layout.prefix.split('.'))
            .any(|part| matches!(part, "base_encoder" | "momentum_encoder"));
        if dim == SMALL && is_mocos {
            origins.set("heads", "MoCo v3's, whose names these are");
            return Ok(12);
        }
        let is_of_timm = json.get("architecture").is_some();
        if dim == SMALL && layout.style == ImageStyle::Timm && !is_of_timm {
            // MoCo's positions are sines, and zero for CLS; learned ones never are.
            let positions = self.source.read_f32(&name_of(layout.recipe("pos_embed")))?;
            if positions.iter().take(dim).all(|value| *value == 0.0) {
                return Err(ModelError::config(
                    self.source.main().path(),
                    "a ViT-S with fixed positions, as MoCo v3 has: MoCo v3's has 12 attention heads, others \
                     have 6, and the weights do not tell; say it with `percept convert --heads N`",
                ));
            }
        }
        origins.set("heads", "assumed from the width");
        Ok(usual_heads(dim))
    }

    /// What timm's `config.json` says beside the preprocessing.
    fn check_timm(&self) -> Result<(), ModelError> {
        // Seen in the weights, or without a say in what the tower computes.
        const KNOWN: [&str; 23] = [
            "img_size",
            "patch_size",
            "embed_dim",
            "depth",
            "num_heads",
            "mlp_ratio",
            "num_classes",
            "in_chans",
            "global_pool",
            "dynamic_img_size",
            "dynamic_img_pad",
            "strict_img_size",
            "reg_tokens",
            "no_embed_class",
            "init_values",
            "drop_rate",
            "drop_path_rate",
            "pos_drop_rate",
            "patch_drop_rate",
            "proj_drop_rate",
            "attn_drop_rate",
            "weight_init",
            "pretrained",
        ];
        // What every tower has that percept reads; files may say so all the same.
        const PLAIN: [(&str, Value); 9] = [
            ("class_token", Value::Bool(true)),
            ("qkv_bias", Value::Bool(true)),
            ("proj_bias", Value::Bool(true)),
            ("final_norm", Value::Bool(true)),
            ("pre_norm", Value::Bool(false)),
            ("qk_norm", Value::Bool(false)),
            ("fc_norm", Value::Bool(false)),
            ("pool_include_prefix", Value::Bool(false)),
            ("fix_init", Value::Bool(false)),
        ];
        let json = &self.beside.config;
        if let Some(architecture) = json.get("architecture")
            && (architecture.as_str()).is_some_and(|name| name.contains("quickgelu"))
        {
            return Err(json.refuse_value("architecture", architecture));
        }
        let arguments = json.inside("model_args")?;
        for file in [json, &arguments] {
            file.only("global_pool", &["token", "avg", ""])?;
        }
        let is_plain = |key: &str, value: &Value| {
            value.is_null() || (PLAIN.iter()).any(|(known, plain)| *known == key && plain == value)
        };
        let unknown = (arguments.json.as_object().into_iter().flatten())
            .find(|(key, value)| !KNOWN.contains(&key.as_str()) && !is_plain(key, value));
        match unknown {
            Some((key, value)) => Err(json.refuse_value(&format!("model_args.{key}"), value)),
            None => Ok(()),
        }
    }

    fn text(
        &self,
        layout: &mut TextLayout,
        origins: &mut Origins,
    ) -> Result<TextConfig, ModelError> {
        let Self { source, beside, .. } = self;
        let json = &beside.config;
        if let Some(pipeline) = &beside.pipeline
            && pipeline.lower_case
            && !beside.lower_cases()
        {
            let file = beside.folder.join("sentence_bert_config.json");
            let reason =
                "do_lower_case is set and tokenizer.json keeps capitals, which is not supported";
            return Err(ModelError::config(&file, reason));
        }
        if self.hints.tokenizer.is_none() {
            beside.check_case()?;
        }
        let head = self.head(layout)?;
        origins.set(
            "text pooling",
            match &beside.pipeline {
                Some(pipeline) if pipeline.is_stated => "modules.json",
                _ if layout.is_pipeline() => "Sentence-T5's",
                _ => "assumed",
            },
        );
        let named = |name: &str| name_of(layout.recipe(name));
        let config = match layout.style {
            TextStyle::HfT5 | TextStyle::PerceptT5 => {
                let heads = side(source, &named("relative_bias.weight"), 1)?;
                let inner = side(source, &named("blocks.0.attn.q.weight"), 0)?;
                let gated = source.info(&named("blocks.0.mlp.wi_0.weight")).is_some();
                let wide = if gated { "wi_0" } else { "wi" };
                match gated {
                    true => json.only("feed_forward_proj", &["gated-gelu"])?,
                    false => json.only("feed_forward_proj", &["relu"])?,
                }
                json.only(
                    "dense_act_fn",
                    if gated { &["gelu_new"] } else { &["relu"] },
                )?;
                json.only_bool("is_gated_act", gated)?;
                let projection = layout.dense.as_ref();
                let depth = count_blocks(source, |n| named(&format!("blocks.{n}.norm1.weight")));
                self.check_depth("num_layers", depth)?;
                TextConfig::T5(T5Config {
                    vocab_size: side(source, &named("embedding.weight"), 0)?,
                    dim: side(source, &named("embedding.weight"), 1)?,
                    depth,
                    heads,
                    head_dim: inner / heads.max(1),
                    mlp_dim: side(source, &named(&format!("blocks.0.mlp.{wide}.weight")), 0)?,
                    feed_forward: match gated {
                        true => T5FeedForward::GatedGelu,
                        false => T5FeedForward::Relu,
                    },
                    relative_buckets: side(source, &named("relative_bias.weight"), 0)?,
                    relative_max_distance: json
                        .usize("relative_attention_max_distance")?
                        .unwrap_or(128),
                    rms_norm_eps: json.f64("layer_norm_epsilon")?.unwrap_or(1e-6),
                    projection: projection.map(|name| side(source, name, 0)).transpose()?,
                    max_tokens: self.max_tokens(MOST_TOKENS, origins),
                    head,
                })
            }
            TextStyle::HfBert | TextStyle::PerceptBert => {
                json.only("hidden_act", &["gelu", "gelu_python"])?;
                json.only("position_embedding_type", &["absolute"])?;
                json.only_bool("is_decoder", false)?;
                json.only_bool("add_cross_attention", false)?;
                let dim = side(source, &named("word.weight"), 1)?;
                let depth =
                    count_blocks(source, |n| named(&format!("blocks.{n}.attn.query.weight")));
                // Known by name where it is known; else by what is missing.
                side(source, &named("blocks.0.attn.query.weight"), 0)?;
                self.check_depth("num_hidden_layers", depth)?;
                let max_positions = side(source, &named("position.weight"), 0)?;
                let token_types = side(source, &named("token_type.weight"), 0)?;
                let first_position = self.first_position(layout, max_positions, token_types)?;
                TextConfig::Bert(BertConfig {
                    vocab_size: side(source, &named("word.weight"), 0)?,
                    dim,
                    depth,
                    // MiniLM's heads are half as wide as those of others.
                    heads: json.usize("num_attention_heads")?.unwrap_or(match dim {
                        384 => 12,
                        _ => (dim / 64).max(1),
                    }),
                    mlp_dim: side(source, &named("blocks.0.mlp.fc1.weight"), 0)?,
                    max_positions,
                    token_types,
                    layer_norm_eps: json.f64("layer_norm_eps")?.unwrap_or(1e-12),
                    max_tokens: self
                        .max_tokens(max_positions.saturating_sub(first_position), origins),
                    first_position,
                    head,
                })
            }
        };
        if let Some(width) = beside.pipeline.as_ref().and_then(|p| p.token_width)
            && width != self.token_width(&config)
        {
            let file = beside.root.join("1_Pooling").join(CONFIG_FILE);
            let own = self.token_width(&config);
            let reason = format!("pools tokens of width {width}, but the transformer's have {own}");
            return Err(ModelError::config(&file, reason));
        }
        Ok(config)
    }

    fn token_width(&self, config: &TextConfig) -> usize {
        match config {
            TextConfig::T5(t5) => t5.dim,
            TextConfig::Bert(bert) => bert.dim,
        }
    }

    /// Pooling and dense layers of the pipeline, whose places become known to `layout`.
    fn head(&self, layout: &mut TextLayout) -> Result<TextHead, ModelError> {
        let Some(pipeline) = &self.beside.pipeline else {
            return Ok(TextHead::default());
        };
        let mut dense = Vec::new();
        for layer in &pipeline.dense {
            let linear = format!("{}linear.", layer.prefix);
            let rows = side(self.source, &format!("{linear}weight"), 0)?;
            let has_bias = self.source.info(&format!("{linear}bias")).is_some();
            dense.push(DenseConfig {
                width: layer.sides.map_or(rows, |[_, outputs]| outputs),
                bias: layer.bias.unwrap_or(has_bias),
                activation: layer.activation,
            });
            layout.head.push(linear);
        }
        let is_plain =
            |layer: &DenseConfig| !layer.bias && layer.activation == DenseActivation::Identity;
        // Sentence-T5's own layer is a part of the tower.
        if layout.style == TextStyle::HfT5
            && let ([only], [linear]) = (dense.as_slice(), layout.head.as_slice())
            && is_plain(only)
        {
            layout.dense = Some(format!("{linear}weight"));
            layout.head.clear();
            dense.clear();
        }
        Ok(TextHead {
            pooling: pipeline.pooling,
            dense,
        })
    }

    /// Longest input in tokens: what a file states, as far as the tower goes.
    fn max_tokens(&self, most: usize, origins: &mut Origins) -> usize {
        let most = most.min(MOST_TOKENS);
        let pipeline = self.beside.pipeline.as_ref();
        let stated = pipeline.and_then(|pipeline| pipeline.max_tokens);
        let (tokens, from) = match stated {
            Some(tokens) => (
                tokens,
                "the tokeniser's or sentence-transformers' configuration",
            ),
            None if pipeline.is_some_and(|p| p.is_stated) => (most, "what the tower can read"),
            None => (MAX_TOKENS, "assumed"),
        };
        origins.set("text length", from);
        tokens.min(most)
    }

    /// Row of the position table that the first token gets. RoBERTa's begins after that of the padding.
    fn first_position(
        &self,
        layout: &TextLayout,
        positions: usize,
        token_types: usize,
    ) -> Result<usize, ModelError> {
        const ROBERTAS: [&str; 3] = ["roberta", "xlm-roberta", "camembert"];
        let json = &self.beside.config;
        Ok(match json.str("model_type")? {
            Some(kind) if ROBERTAS.contains(&kind) => json.usize("pad_token_id")?.unwrap_or(1) + 1,
            Some(_) => 0,
            None => {
                let is_named = (layout.prefix.split('.'))
                    .any(|part| part.ends_with("roberta") || part == "camembert");
                // 514 positions and one type of tokens.
                let is_shaped = token_types == 1 && positions % 64 == 2;
                if layout.style == TextStyle::HfBert && (is_named || is_shaped) {
                    2
                } else {
                    0
                }
            }
        })
    }
}

/// Side of the square grid and number of rows before it.
fn square_grid(positions: usize, registers: usize) -> Option<(usize, usize)> {
    [1, 0, 1 + registers].into_iter().find_map(|prefix| {
        let patches = positions.checked_sub(prefix)?;
        let side = patches.isqrt();
        (side > 0 && side * side == patches).then_some((side, prefix))
    })
}

#[cfg(test)]
mod tests {
    use super::square_grid;

    #[test]
    fn grids_with_and_without_prefix() {
        assert_eq!(square_grid(197, 0), Some((14, 1)));
        assert_eq!(square_grid(37 * 37, 4), Some((37, 0)));
        assert_eq!(square_grid(14, 4), Some((3, 5)));
        assert_eq!(square_grid(12, 0), None);
        assert_eq!(square_grid(0, 0), None);
    }
}
