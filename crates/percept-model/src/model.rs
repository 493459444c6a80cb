//! A loaded model: towers, tokeniser and temperature, ready to encode.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

use burn::tensor::Device;
use percept_checkpoint::{Precision as StoredPrecision, TensorToWrite, write_safetensors};
use percept_cpu::kernel::{Kernel, Precision};
use percept_image::ChwImage;

use crate::cpu::{CpuImageEncoder, CpuTextEncoder};
use crate::encoder::{BurnImageEncoder, BurnTextEncoder, ImageEncoder, TextEncoder, TokenGrid};
use crate::files::{CONFIG_FILE, Hints, ModelFiles, TOKENIZER_FILE, WEIGHTS_FILE};
use crate::text::TextTower;
use crate::text_cache::TextCache;
use crate::tokenizer::Tokenizer;
use crate::vit::Vit;
use crate::weights::{self, LoadReport};
use crate::{ImageConfig, ModelConfig, ModelError};

/// An image tower, a text tower, or both.
#[derive(Debug)]
pub struct Model {
    config: ModelConfig,
    image: Option<Box<dyn ImageEncoder>>,
    text: Option<TextSide>,
    logit_scale: Option<f32>,
    report: LoadReport,
    kernel: Option<Kernel>,
}

/// The text tower, loaded or to be loaded when it is needed.
#[derive(Debug)]
struct TextSide {
    loaded: OnceLock<LoadedText>,
    /// Where it is not loaded from the start.
    later: Option<Box<Later>>,
}

#[derive(Debug)]
struct Later {
    /// What earlier runs embedded.
    cache: Option<TextCache>,
    files: ModelFiles,
    device: Device,
    kernel: Kernel,
}

#[derive(Debug)]
struct LoadedText {
    encoder: Box<dyn TextEncoder>,
    tokenizer: Box<Tokenizer>,
}

/// Texts as embeddings.
#[derive(Debug, Clone, PartialEq)]
pub struct TextEmbeddings {
    /// L2-normalised embeddings `[dim]`, in the order of the texts.
    pub embeddings: Vec<Vec<f32>>,
    /// Indices of texts that were longer than the model can read, and were cut.
    pub truncated: Vec<usize>,
}

/// How a model folder stores weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Storage {
    /// Exactly: 4 bytes a weight.
    #[default]
    F32,
    /// Rounded to half precision: 2 bytes a weight.
    F16,
    /// Matrices in 8 bits with a factor per output channel or position, the token table in 4 bits with
    /// one per 128 weights, vectors in half precision: about 1 byte a weight. What
    /// it costs a pilot model is in `docs/results.md`.
    Int8,
}

impl Storage {
    /// How the parameter of this name (ours, not a file's) and shape is stored.
    fn precision(self, name: &str, shape: &[usize]) -> StoredPrecision {
        match (self, shape.len()) {
            (Storage::F32, _) => StoredPrecision::F32,
            (Storage::F16, _) => StoredPrecision::F16,
            // T5's table of relative positions has a column per head: nothing to gain.
            (Storage::Int8, _) if name.contains("relative") => StoredPrecision::F32,
            (Storage::Int8, 2) if is_token_table(name) => StoredPrecision::Int4,
            (Storage::Int8, 2..) => StoredPrecision::Int8,
            (Storage::Int8, 1) => StoredPrecision::F16,
            (Storage::Int8, _) => StoredPrecision::F32,
        }
    }
}

/// Whether a parameter of a text tower is the table of token embeddings.
fn is_token_table(name: &str) -> bool {
    matches!(name, "text.word.weight" | "text.embedding.weight")
}

/// Towers as Burn modules: what loading makes, and saving and training start from.
#[derive(Debug)]
pub struct Towers {
    /// The image tower.
    pub image: Option<Vit>,
    /// The text tower.
    pub text: Option<TextTower>,
    /// The learned temperature, as a logarithm (paper §2.1).
    pub logit_scale: Option<f32>,
    /// What of the checkpoint was not used.
    pub report: LoadReport,
}

impl Towers {
    /// Reads the weights of `files` onto `device`.
    ///
    /// # Errors
    /// A tensor is missing, has another shape, cannot be read or is not finite.
    pub fn load(files: &ModelFiles, device: &Device) -> Result<Self, ModelError> {
        let mut loading = Loading::new(files);
        Ok(Self {
            image: loading.image(device)?,
            text: loading.text(device)?,
            logit_scale: loading.logit_scale()?,
            report: files.report.clone(),
        })
    }

    /// The mean of the weights of these towers and others, all counting alike: a soup of models that were trained from
    /// one start (Wortsman et al., 2022), which costs no more than one of them.
    ///
    /// # Errors
    /// [`ModelError::NoMean`].
    pub fn mean_with(mut self, others: &[Self]) -> Result<Self, ModelError> {
        let count = (others.len() + 1) as f32;
        let mut sums = self.values();
        for other in others {
            let mut values = other.values();
            let differ = |tensor: &str, reason| ModelError::NoMean {
                tensor: tensor.to_owned(),
                reason,
            };
            for (name, sum) in &mut sums {
                let missing = || differ(name, "is not in all of them");
                let values = values.remove(name).ok_or_else(missing)?;
                if values.len() != sum.len() {
                    return Err(differ(name, "has another shape in some of them"));
                }
                for (sum, value) in sum.iter_mut().zip(values) {
                    *sum += value;
                }
            }
            if let Some(name) = values.keys().next() {
                return Err(differ(name, "is not in all of them"));
            }
        }
        let mean = |name: &str, values: &mut [f32]| {
            for (value, sum) in values.iter_mut().zip(&sums[name]) {
                *value = sum / count;
            }
        };
        self.image = (self.image)
            .map(|vit| weights::update(vit, |name, values| mean(&format!("image.{name}"), values)));
        self.text = (self.text).map(|text| {
            weights::update(text, |name, values| mean(&format!("text.{name}"), values))
        });
        if let Some(scale) = &mut self.logit_scale {
            mean("logit_scale", std::slice::from_mut(scale));
        }
        Ok(self)
    }

    /// All weights, in the order that [`weights::update`] shows them in.
    fn values(&self) -> BTreeMap<String, Vec<f32>> {
        let mut all = BTreeMap::new();
        let mut add = |prefix: &str, name: &str, values: Vec<f32>| {
            all.insert(format!("{prefix}{name}"), values);
        };
        if let Some(vit) = &self.image {
            weights::read(vit, |name, values| add("image.", name, values));
        }
        if let Some(text) = &self.text {
            weights::read(text, |name, values| add("text.", name, values));
        }
        if let Some(scale) = self.logit_scale {
            add("", "logit_scale", vec![scale]);
        }
        all
    }

    /// Writes the towers as a model folder: `config.json`, `model.safetensors` and a copy of the
    /// tokeniser. Each file is whole or absent.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn save(
        &self,
        config: &ModelConfig,
        tokenizer: Option<&Path>,
        storage: Storage,
        folder: &Path,
    ) -> Result<(), ModelError> {
        let io = |path: &Path, source| ModelError::Io {
            path: path.to_owned(),
            source,
        };
        std::fs::create_dir_all(folder).map_err(|e| io(folder, e))?;

        let mut tensors = Vec::new();
        // timm's names under `image.`, ours under `text.`: see `layout`.
        let mut add = |prefix: &str, named: Vec<(String, Vec<usize>, Vec<f32>)>| {
            for (name, shape, values) in named {
                tensors.push((format!("{prefix}{name}"), shape, values));
            }
        };
        if let (Some(vit), Some(image)) = (&self.image, &config.image) {
            let mut named = weights::save(vit);
            for (name, shape, _) in &mut named {
                if name == "patch_embed.proj.weight" {
                    // The matrix of a convolution: its file form is four-dimensional.
                    *shape = vec![shape[0], 3, image.vit.patch_size, image.vit.patch_size];
                }
            }
            add("image.", named);
        }
        match &self.text {
            Some(TextTower::T5(t5)) => add("text.", weights::save(t5)),
            Some(TextTower::Bert(bert)) => add("text.", weights::save(bert)),
            None => {}
        }
        if let Some(scale) = self.logit_scale {
            tensors.push(("logit_scale".into(), vec![], vec![scale]));
        }
        let to_write = tensors
            .into_iter()
            .map(|(name, shape, values)| TensorToWrite {
                precision: storage.precision(&name, &shape),
                name,
                shape,
                values: values.into(),
            });
        write_safetensors(&folder.join(WEIGHTS_FILE), to_write, &BTreeMap::new())?;

        if let Some(tokenizer) = tokenizer {
            let bytes = std::fs::read(tokenizer).map_err(|e| io(tokenizer, e))?;
            let to = folder.join(TOKENIZER_FILE);
            percept_image::write_atomic(&to, &bytes).map_err(|e| io(&to, e))?;
        }
        // Last, since its presence is what makes the folder a model.
        let to = folder.join(CONFIG_FILE);
        let mut json = serde_json::to_string_pretty(config)
            .map_err(|e| ModelError::config(&to, e.to_string()))?;
        json.push('\n');
        percept_image::write_atomic(&to, json.as_bytes()).map_err(|e| io(&to, e))
    }
}

/// Weights on their way out of files.
struct Loading<'a> {
    files: &'a ModelFiles,
    /// What is missing or has another shape, after all: [`ModelFiles::open`] looked before.
    report: LoadReport,
}

impl<'a> Loading<'a> {
    fn new(files: &'a ModelFiles) -> Self {
        Self {
            files,
            report: LoadReport::default(),
        }
    }

    /// The image tower as a Burn module.
    fn image(&mut self, device: &Device) -> Result<Option<Vit>, ModelError> {
        let (Some(config), Some(tower)) = (&self.files.config.image, &self.files.image) else {
            return Ok(None);
        };
        let path = tower.source.main().path();
        let vit = weights::load(
            config.vit.init(device),
            &tower.source,
            |name| tower.layout.recipe(name),
            &mut self.report,
        )?;
        fail_if_incomplete(path, &self.report)?;
        Ok(Some(vit))
    }

    /// The image tower in the engine for a device.
    fn image_encoder(
        &mut self,
        device: &Device,
        kernel: Kernel,
    ) -> Result<Option<Box<dyn ImageEncoder>>, ModelError> {
        let (Some(config), Some(tower)) = (&self.files.config.image, &self.files.image) else {
            return Ok(None);
        };
        if *device != Device::flex() || !CpuImageEncoder::can_run(&config.vit) {
            let vit = self.image(device)?;
            return Ok(vit.map(|vit| {
                Box::new(BurnImageEncoder::new(vit, config, device.clone()))
                    as Box<dyn ImageEncoder>
            }));
        }
        let path = tower.source.main().path();
        let encoder = CpuImageEncoder::load(config, tower, kernel, &mut self.report)?;
        fail_if_incomplete(path, &self.report)?;
        Ok(encoder.map(|encoder| Box::new(encoder) as Box<dyn ImageEncoder>))
    }

    fn text(&mut self, device: &Device) -> Result<Option<TextTower>, ModelError> {
        let (Some(config), Some(tower)) = (&self.files.config.text, &self.files.text) else {
            return Ok(None);
        };
        let path = tower.source.main().path();
        let recipe = |name: &str| tower.layout.recipe(name);
        let report = &mut self.report;
        let text = match config.init(device) {
            TextTower::T5(t5) => TextTower::T5(weights::load(t5, &tower.source, recipe, report)?),
            TextTower::Bert(bert) => {
                TextTower::Bert(weights::load(bert, &tower.source, recipe, report)?)
            }
        };
        fail_if_incomplete(path, &self.report)?;
        Ok(Some(text))
    }

    /// The text tower in the engine for a device.
    fn text_encoder(
        &mut self,
        device: &Device,
        kernel: Kernel,
    ) -> Result<Option<Box<dyn TextEncoder>>, ModelError> {
        let (Some(config), Some(tower)) = (&self.files.config.text, &self.files.text) else {
            return Ok(None);
        };
        if *device != Device::flex() || !CpuTextEncoder::can_run(config) {
            let text = self.text(device)?;
            return Ok(text.map(|text| {
                Box::new(BurnTextEncoder::new(text, config.dim(), device.clone()))
                    as Box<dyn TextEncoder>
            }));
        }
        let path = tower.source.main().path();
        let encoder = CpuTextEncoder::load(config, tower, kernel, &mut self.report)?;
        fail_if_incomplete(path, &self.report)?;
        Ok(encoder.map(|encoder| Box::new(encoder) as Box<dyn TextEncoder>))
    }

    /// The text tower in the engine for a device, with its tokeniser.
    fn text_side(
        &mut self,
        device: &Device,
        kernel: Kernel,
    ) -> Result<Option<LoadedText>, ModelError> {
        let Some(text) = &self.files.config.text else {
            return Ok(None);
        };
        let no_tokenizer = || ModelError::NoTokenizer {
            path: self.files.path.clone(),
        };
        let path = self.files.tokenizer.as_ref().ok_or_else(no_tokenizer)?;
        let (tokenizer, encoder) = rayon::join(
            || Tokenizer::open(path, text.max_tokens(), text.vocab_size()),
            || self.text_encoder(device, kernel),
        );
        let tokenizer = Box::new(tokenizer?);
        Ok(encoder?.map(|encoder| LoadedText { encoder, tokenizer }))
    }

    fn logit_scale(&mut self) -> Result<Option<f32>, ModelError> {
        let Some((source, name)) = &self.files.logit_scale else {
            return Ok(None);
        };
        Ok(source.read_f32(name)?.first().copied())
    }
}

fn fail_if_incomplete(path: &Path, report: &LoadReport) -> Result<(), ModelError> {
    if report.is_complete() {
        return Ok(());
    }
    Err(ModelError::Weights {
        path: path.to_owned(),
        report: Box::new(report.clone()),
    })
}

impl Model {
    /// Loads a model folder or any checkpoint of a known layout (`layout.rs`) onto `device`.
    ///
    /// # Errors
    /// See [`ModelFiles::open`] and [`Towers::load`].
    pub fn load(path: &Path, hints: &Hints, device: &Device) -> Result<Self, ModelError> {
        Self::from_files(&ModelFiles::open(path, hints)?, device, Precision::F32)
    }

    /// Loads what [`ModelFiles::open`] found. A text tower without a tokeniser is an error. On the CPU,
    /// products are computed in `precision`, if it has instructions for that ([`kernel`](Self::kernel)).
    ///
    /// # Errors
    /// See [`Towers::load`].
    pub fn from_files(
        files: &ModelFiles,
        device: &Device,
        precision: Precision,
    ) -> Result<Self, ModelError> {
        let kernel = Kernel::best(precision);
        let mut loading = Loading::new(files);
        let text = loading.text_side(device, kernel)?;
        let text = text.map(|text| TextSide {
            loaded: OnceLock::from(text),
            later: None,
        });
        Self::of(loading, device, kernel, text)
    }

    /// As [`from_files`](Self::from_files), for programs that run often. Embeddings of lists of texts that were
    /// embedded before are read from the folder `cache`, where there is one; the text tower is loaded when
    /// others are asked for, so that weights that are not finite, or a wrong tokeniser, are found only then.
    ///
    /// # Errors
    /// As [`from_files`](Self::from_files), less those of the text tower.
    pub fn with_texts_on_demand(
        files: &ModelFiles,
        device: &Device,
        precision: Precision,
        cache: Option<&Path>,
    ) -> Result<Self, ModelError> {
        let kernel = Kernel::best(precision);
        let engine = match *device == Device::flex() {
            true => kernel.name().to_owned(),
            false => format!("{device:?}"),
        };
        let text = files.config.text.as_ref().map(|_| TextSide {
            loaded: OnceLock::new(),
            later: Some(Box::new(Later {
                cache: cache.and_then(|folder| TextCache::new(folder, files, &engine)),
                files: files.clone(),
                device: device.clone(),
                kernel,
            })),
        });
        Self::of(Loading::new(files), device, kernel, text)
    }

    fn of(
        mut loading: Loading<'_>,
        device: &Device,
        kernel: Kernel,
        text: Option<TextSide>,
    ) -> Result<Self, ModelError> {
        let image = loading.image_encoder(device, kernel)?;
        Ok(Self {
            config: loading.files.config.clone(),
            image,
            text,
            logit_scale: loading.logit_scale()?,
            report: loading.files.report.clone(),
            kernel: (*device == Device::flex()).then_some(kernel),
        })
    }

    /// How exact products are: of `f32`, where nothing here is faster with what was asked for.
    pub fn precision(&self) -> Precision {
        self.kernel.map_or(Precision::F32, Kernel::precision)
    }

    /// How many calls of [`encode_images`](Self::encode_images) are best made at a time: see [`ImageEncoder::passes`].
    pub fn passes(&self) -> usize {
        self.image.as_ref().map_or(1, |image| image.passes())
    }

    /// What computes products; `None` where Burn does, on other devices than the CPU.
    pub fn kernel(&self) -> Option<Kernel> {
        self.kernel
    }

    /// What the model is.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The learned temperature: `exp` of it multiplies cosines (paper §2.1).
    pub fn logit_scale(&self) -> Option<f32> {
        self.logit_scale
    }

    /// What of the checkpoint was not used.
    pub fn report(&self) -> &LoadReport {
        &self.report
    }

    /// The image tower's configuration.
    ///
    /// # Errors
    /// [`ModelError::NoTower`] for a text-only model.
    pub fn image_config(&self) -> Result<&ImageConfig, ModelError> {
        self.config.image.as_ref().ok_or(NO_IMAGE)
    }

    /// Encodes preprocessed images of one size.
    ///
    /// # Errors
    /// [`ModelError::NoTower`] for a text-only model; [`ModelError::ImageSize`].
    pub fn encode_images(&self, images: &[ChwImage]) -> Result<Vec<TokenGrid>, ModelError> {
        self.image.as_ref().ok_or(NO_IMAGE)?.encode(images)
    }

    /// All tokens as the tokeniser spells them, in no order. The text tower is not loaded for it.
    ///
    /// # Errors
    /// [`ModelError::NoTower`] for an image-only model; [`ModelError::Tokenizer`].
    pub fn vocabulary(&self) -> Result<Vec<String>, ModelError> {
        let side = self.text.as_ref().ok_or(NO_TEXT)?;
        if let Some(text) = side.loaded.get() {
            return Ok(text.tokenizer.vocabulary());
        }
        let later = side.later.as_ref().ok_or(NO_TEXT)?;
        let config = later.files.config.text.as_ref().ok_or(NO_TEXT)?;
        let path = later.files.tokenizer.as_ref();
        let path = path.ok_or_else(|| ModelError::NoTokenizer {
            path: later.files.path.clone(),
        })?;
        let tokenizer = Tokenizer::open(path, config.max_tokens(), config.vocab_size())?;
        Ok(tokenizer.vocabulary())
    }

    /// Encodes texts.
    ///
    /// # Errors
    /// [`ModelError::NoTower`] for an image-only model; [`ModelError::Tokenizer`].
    pub fn encode_texts<S: AsRef<str>>(&self, texts: &[S]) -> Result<TextEmbeddings, ModelError> {
        let side = self.text.as_ref().ok_or(NO_TEXT)?;
        if texts.is_empty() {
            return Ok(TextEmbeddings {
                embeddings: Vec::new(),
                truncated: Vec::new(),
            });
        }
        let dim = self.config.text.as_ref().ok_or(NO_TEXT)?.dim();
        let cache = side.cache();
        if let Some(embeddings) = cache.and_then(|cache| cache.get(texts, dim)) {
            return Ok(TextEmbeddings {
                embeddings,
                truncated: Vec::new(),
            });
        }
        let encoded = side.loaded()?.encode(texts)?;
        // What was cut is to be told each time.
        if let (Some(cache), true) = (cache, encoded.truncated.is_empty()) {
            cache.put(texts, &encoded.embeddings);
        }
        Ok(encoded)
    }
}

impl TextSide {
    fn cache(&self) -> Option<&TextCache> {
        self.later.as_ref()?.cache.as_ref()
    }

    /// The tower, which is loaded if it is not.
    fn loaded(&self) -> Result<&LoadedText, ModelError> {
        if let Some(text) = self.loaded.get() {
            return Ok(text);
        }
        let later = self.later.as_ref().ok_or(NO_TEXT)?;
        let text = Loading::new(&later.files).text_side(&later.device, later.kernel)?;
        let text = text.ok_or(NO_TEXT)?;
        Ok(self.loaded.get_or_init(|| text))
    }
}

impl LoadedText {
    fn encode<S: AsRef<str>>(&self, texts: &[S]) -> Result<TextEmbeddings, ModelError> {
        let mut ids = Vec::with_capacity(texts.len());
        let mut truncated = Vec::new();
        for (i, text) in texts.iter().enumerate() {
            let tokens = self.tokenizer.encode(text.as_ref())?;
            if tokens.truncated {
                truncated.push(i);
            }
            ids.push(tokens.ids);
        }
        Ok(TextEmbeddings {
            embeddings: self.encoder.encode(&ids)?,
            truncated,
        })
    }
}

const NO_TEXT: ModelError = ModelError::NoTower {
    tower: "text",
    hint: Some("join it with one: percept convert --image A --text B OUT/"),
};

const NO_IMAGE: ModelError = ModelError::NoTower {
    tower: "image",
    hint: None,
};
