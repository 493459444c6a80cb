//! Folders that sentence-transformers writes: which modules a text goes through.
//!
//! `modules.json` decides: a Transformer, a Pooling, then Dense and Normalize modules, each in a folder of its own. What
//! is none of these, or does something else than percept can, is refused by name. Checked with releases 5.4 to 6.2,
//! and with the form of their files before.

use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use crate::json_file::JsonFile;
use crate::{DenseActivation, ModelError, TextPooling};

/// The list of modules.
const MODULES: &str = "modules.json";

/// What sentence-transformers does with a text.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Pipeline {
    /// The folder of the transformer and its tokeniser.
    pub(crate) transformer: PathBuf,
    /// How the tokens become one vector.
    pub(crate) pooling: TextPooling,
    /// Width of a token that the pooling states.
    pub(crate) token_width: Option<usize>,
    /// The layers behind it.
    pub(crate) dense: Vec<Dense>,
    /// Longest input in tokens, special tokens counted, where a file states it.
    pub(crate) max_tokens: Option<usize>,
    /// Whether texts are made lower-case, whatever the tokeniser does.
    pub(crate) lower_case: bool,
    /// Whether there is a `modules.json`.
    pub(crate) is_stated: bool,
}

/// A dense layer in a folder of its own.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Dense {
    /// What stands before its tensors' names, such as `2_Dense/`.
    pub(crate) prefix: String,
    /// Its folder.
    pub(crate) folder: PathBuf,
    /// Inputs and outputs that its configuration states.
    pub(crate) sides: Option<[usize; 2]>,
    /// Whether its configuration states a bias.
    pub(crate) bias: Option<bool>,
    /// What is applied to its results.
    pub(crate) activation: DenseActivation,
}

/// A line of `modules.json`.
struct Module {
    kind: String,
    path: String,
    folder: PathBuf,
}

impl Pipeline {
    /// Reads the small files of a folder; without a `modules.json`, what usually stands in one is assumed.
    ///
    /// # Errors
    /// A file cannot be read, or asks for what percept does not do.
    pub(crate) fn read(folder: &Path) -> Result<Self, ModelError> {
        let list = JsonFile::read(&folder.join(MODULES))?;
        let modules = match list.is_there() {
            true => modules(&list, folder)?,
            false => usual_modules(folder),
        };
        check_settings(folder)?;
        let mut pipeline = Self {
            transformer: folder.to_owned(),
            pooling: TextPooling::Mean,
            token_width: None,
            dense: Vec::new(),
            max_tokens: None,
            lower_case: false,
            is_stated: list.is_there(),
        };
        let mut pooled = false;
        let mut normalized = false;
        for (index, module) in modules.iter().enumerate() {
            let place = || format!("module {index} ({}, \"{}\")", module.kind, module.path);
            match (module.kind.as_str(), index) {
                ("Transformer", 0) => pipeline.read_transformer(&module.folder)?,
                (_, 0) => return Err(list.refuse(format!("{} is no Transformer", place()))),
                ("Pooling", _) if !pooled => {
                    pipeline.read_pooling(module)?;
                    pooled = true;
                }
                ("Dense", _) if pooled && !normalized => pipeline.dense.push(Dense::read(module)?),
                ("Normalize", _) if pooled => normalized = true,
                // It does nothing when nothing is trained.
                ("Dropout", _) => {}
                ("Dense", _) if normalized => {
                    let reason = format!("{} after a Normalize is not supported", place());
                    return Err(list.refuse(reason));
                }
                _ => return Err(list.refuse(format!("{} is not supported here", place()))),
            }
        }
        if list.is_there() && !pooled {
            return Err(list.refuse("no Pooling among its modules"));
        }
        Ok(pipeline)
    }

    fn read_transformer(&mut self, folder: &Path) -> Result<(), ModelError> {
        self.transformer = folder.to_owned();
        let own = own_config(folder)?;
        own.only("transformer_task", &["feature-extraction"])?;
        own.only("module_output_name", &["token_embeddings"])?;
        self.lower_case = own.bool("do_lower_case")?.unwrap_or(false);
        let tokenizer = JsonFile::read(&folder.join("tokenizer_config.json"))?;
        self.max_tokens = match own.usize("max_seq_length")? {
            // The tokeniser's own limit has a sentinel of 10³⁰ for "none".
            None if tokenizer
                .f64("model_max_length")?
                .is_some_and(|most| most >= 1e29) =>
            {
                None
            }
            None => tokenizer.usize("model_max_length")?,
            stated => stated,
        };
        Ok(())
    }

    fn read_pooling(&mut self, module: &Module) -> Result<(), ModelError> {
        let config = JsonFile::read(&module.folder.join("config.json"))?;
        if self.is_stated && !config.is_there() {
            return Err(config.refuse("missing, and modules.json names its folder"));
        }
        // `include_prompt` makes no difference without a prompt, and `check_settings` refused that.
        self.token_width =
            (config.usize("embedding_dimension")?).or(config.usize("word_embedding_dimension")?);
        self.pooling = match config.get("pooling_mode") {
            Some(word) => pooling_of_words(&config, word)?,
            None => pooling_of_flags(&config)?,
        };
        Ok(())
    }
}

/// What sentence-transformers says of a transformer: a file whose name depended on the model's kind before version 3.
/// As there, the first of these that is there counts.
fn own_config(folder: &Path) -> Result<JsonFile, ModelError> {
    const KINDS: [&str; 7] = [
        "bert",
        "roberta",
        "distilbert",
        "camembert",
        "albert",
        "xlm-roberta",
        "xlnet",
    ];
    let mut last = JsonFile::none(folder);
    for kind in KINDS {
        last = JsonFile::read(&folder.join(format!("sentence_{kind}_config.json")))?;
        if last.is_there() {
            break;
        }
    }
    Ok(last)
}

/// `pooling_mode`, a word or a list of words, as sentence-transformers writes it since 5.4.
fn pooling_of_words(config: &JsonFile, value: &Value) -> Result<TextPooling, ModelError> {
    let word = match value {
        Value::Array(words) if words.len() == 1 => &words[0],
        other => other,
    };
    let named = |word: &str| TextPooling::ALL.into_iter().find(|(_, name)| *name == word);
    let found = word.as_str().and_then(named);
    let (pooling, _) = found.ok_or_else(|| config.refuse_value("pooling_mode", value))?;
    Ok(pooling)
}

/// `pooling_mode_*` flags, as before 5.4. None of them is the mean.
fn pooling_of_flags(config: &JsonFile) -> Result<TextPooling, ModelError> {
    const FLAGS: [(&str, TextPooling); 6] = [
        ("pooling_mode_cls_token", TextPooling::Cls),
        ("pooling_mode_max_tokens", TextPooling::Max),
        ("pooling_mode_mean_tokens", TextPooling::Mean),
        (
            "pooling_mode_mean_sqrt_len_tokens",
            TextPooling::MeanSqrtLen,
        ),
        (
            "pooling_mode_weightedmean_tokens",
            TextPooling::WeightedMean,
        ),
        ("pooling_mode_lasttoken", TextPooling::LastToken),
    ];
    let flags = (config.json.as_object().into_iter().flatten())
        .map(|(key, _)| key.as_str())
        .filter(|key| key.starts_with("pooling_mode_"));
    let mut on = Vec::new();
    for key in flags {
        if config.bool(key)? == Some(true) {
            on.push(key);
        }
    }
    let &[key] = on.as_slice() else {
        return match on.is_empty() {
            true => Ok(TextPooling::Mean),
            false => Err(config.refuse(format!("several poolings beside each other: {on:?}"))),
        };
    };
    let known = FLAGS.into_iter().find(|(flag, _)| *flag == key);
    let (_, pooling) = known.ok_or_else(|| config.refuse(format!("{key} is not supported")))?;
    Ok(pooling)
}

impl Dense {
    fn read(module: &Module) -> Result<Self, ModelError> {
        let config = JsonFile::read(&module.folder.join("config.json"))?;
        if !config.is_there() || module.path.is_empty() {
            return Err(config.refuse("missing, and it says what this layer does"));
        }
        config.only("module_input_name", &["sentence_embedding"])?;
        config.only("module_output_name", &["sentence_embedding"])?;
        config.only_bool("use_residual", false)?;
        let activation = match config.get("activation_function") {
            // What the class takes where nothing is said.
            None => DenseActivation::Tanh,
            Some(value) => {
                let name = value
                    .as_str()
                    .and_then(|path| path.strip_prefix("torch.nn."));
                let class = name.map(|name| name.rsplit('.').next().unwrap_or(name));
                let known = [
                    DenseActivation::Identity,
                    DenseActivation::Tanh,
                    DenseActivation::Relu,
                    DenseActivation::Gelu,
                ];
                (known.into_iter())
                    .find(|known| Some(known.name()) == class)
                    .ok_or_else(|| config.refuse_value("activation_function", value))?
            }
        };
        let sides = config
            .usize("in_features")?
            .zip(config.usize("out_features")?);
        Ok(Self {
            prefix: format!("{}/", module.path.trim_end_matches('/')),
            folder: module.folder.clone(),
            sides: sides.map(|(inputs, outputs)| [inputs, outputs]),
            bias: config.bool("bias")?,
            activation,
        })
    }
}

/// The modules that a `modules.json` lists, in order.
fn modules(list: &JsonFile, folder: &Path) -> Result<Vec<Module>, ModelError> {
    const MOST: usize = 64;
    let lines = list.json.as_array().filter(|lines| lines.len() <= MOST);
    let lines = lines.ok_or_else(|| list.refuse("no list of modules"))?;
    let module = |line: &Value| {
        let text = |key: &str| line.get(key).and_then(Value::as_str);
        let (path, class) = text("path").zip(text("type"))?;
        let is_inside = (Path::new(path).components())
            .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        is_inside.then(|| Module {
            kind: class.rsplit('.').next().unwrap_or(class).to_owned(),
            path: path.to_owned(),
            folder: folder.join(path),
        })
    };
    (lines.iter())
        .map(|line| module(line).ok_or_else(|| list.refuse_value("the module", line)))
        .collect()
}

/// What stands in a folder whose `modules.json` was lost, or in one of transformers.
fn usual_modules(folder: &Path) -> Vec<Module> {
    let module = |kind: &str, path: &str| Module {
        kind: kind.to_owned(),
        path: path.to_owned(),
        folder: folder.join(path),
    };
    let mut modules = vec![module("Transformer", ""), module("Pooling", "1_Pooling")];
    if folder.join("2_Dense").is_dir() {
        modules.push(module("Dense", "2_Dense"));
    }
    modules
}

/// A prompt that goes before every text, a shorter embedding and an adapter would have to be used.
fn check_settings(folder: &Path) -> Result<(), ModelError> {
    let adapter = folder.join("adapter_config.json");
    if adapter.exists() {
        let reason = "an adapter stands beside the weights, which is not supported: merge it into them first";
        return Err(ModelError::config(&adapter, reason));
    }
    let config = JsonFile::read(&folder.join("config_sentence_transformers.json"))?;
    if let Some(width) = config.get("truncate_dim") {
        return Err(config.refuse_value("truncate_dim", width));
    }
    let Some(name) = config.str("default_prompt_name")? else {
        return Ok(());
    };
    let prompt = config.inside("prompts")?;
    match prompt.str(name)? {
        Some("") => Ok(()),
        _ => Err(config.refuse(format!(
            "default_prompt_name \"{name}\": prompts before texts are not supported"
        ))),
    }
}
