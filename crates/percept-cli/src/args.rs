//! The command line's flags, each documented once: here.

mod parse;
mod serve;
mod train;

use std::path::PathBuf;

use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use percept::image::OVERLAY_OPACITY;
use percept::{Pooling, Size};

pub use parse::{ignored, parse};
pub use serve::ServeArgs;
pub use train::TrainArgs;

const EXAMPLES: &str = "\
Examples:
  percept segment photos/ --labels \"dog, grass, sky\"
  percept group photo.jpg --groups 6
  percept classify 'photos/*.jpg' --labels \"cat, dog\" --json
  percept serve
  percept eval voc --data VOCdevkit --out results/voc
  percept train --recipe pilot --train-data 'shards/{00000..00011}.tar' --name mine --model model/
  percept convert --image vit.safetensors --text minilm/ --pool cls model/
  percept info model/

Without --model the model that comes with percept is used: models/percept-s14 in the working folder, beside the
program or above it, or in ~/.local/share/percept. `percept models` lists others.

Exit codes: 0 everything worked, 1 something failed, 2 the command could not be carried out as given,
130 stopped by Ctrl-C.";

/// Segment, group and classify photos with words.
#[derive(Debug, Parser)]
#[command(name = "percept", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    pub talk: Talk,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Find things by name: a mask for every label (top-down grouping).
    Segment(SegmentArgs),
    /// Divide photos into regions without any labels (bottom-up grouping).
    Group(GroupArgs),
    /// Say which label describes each photo best.
    Classify(ClassifyArgs),
    /// Write embeddings of photos or texts to a file.
    Embed(EmbedArgs),
    /// Measure a model on a benchmark, or compare results.
    Eval(EvalArgs),
    /// Train a model on photos with captions.
    // Ten times the size of the others.
    Train(Box<TrainArgs>),
    /// Serve a model over HTTP, with a web page.
    Serve(ServeArgs),
    /// Build datasets.
    Data(DataArgs),
    /// Make a model folder out of checkpoints.
    Convert(ConvertArgs),
    /// Say what a model or checkpoint holds.
    Info(InfoArgs),
    /// List the models that can be pulled by name.
    Models(ModelsArgs),
    /// Download a model into the Hugging Face cache.
    Pull(PullArgs),
}

/// Flags of every command.
#[derive(Debug, Args)]
pub struct Talk {
    /// No progress bar, no notes and no line a photo of segment and group; errors are still printed.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say more about what is done.
    #[arg(short, long, global = true)]
    pub verbose: bool,
}

/// The flag of commands that print results.
#[derive(Debug, Default, Args)]
pub struct JsonArgs {
    /// Print results as JSON, one object a line.
    // Of `data` before or behind the name of the set.
    #[arg(long, global = true)]
    pub json: bool,
}

/// The flag of commands that read a model.
#[derive(Debug, Default, Args)]
pub struct ReadArgs {
    /// Load a model in spite of tensors that percept does not understand, as if they were not there.
    #[arg(long)]
    pub allow_unused: bool,
}

/// Flags of commands that compute with a model.
#[derive(Debug, Default, Args)]
pub struct ModelArgs {
    /// A model folder, a checkpoint file, or a name from `percept models`; the model that comes with percept
    /// unless given.
    #[arg(
        short,
        long,
        env = "PERCEPT_MODEL",
        hide_env_values = true,
        value_name = "DIR|FILE|NAME",
        value_parser = home_text
    )]
    pub model: Option<String>,
    /// Where to compute: auto, cpu, vulkan[:N], metal[:N] or webgpu[:N].
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// CPU threads, no more than there are cores; all cores unless given.
    #[arg(long, value_name = "N", value_parser = positive)]
    pub threads: Option<usize>,
    #[command(flatten)]
    pub read: ReadArgs,
}

/// Flags of commands that send photos through a model.
#[derive(Debug, Default, Args)]
pub struct EncodeArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// How exact products on the CPU are: bf16 and int8 are faster where the CPU has instructions for them, and
    /// round to 8 bits.
    #[arg(long, value_enum, default_value = "f32")]
    pub precision: Precision,
    /// Photos encoded in one pass, where they have the same size
    ///
    /// [default: 1, of serve 8]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub batch_size: Option<usize>,
}

/// What a command was told by the flags above; what it has no flag for is at its default.
#[derive(Debug)]
pub struct Common {
    pub model: Option<String>,
    pub device: String,
    pub precision: Precision,
    pub text_cache: Option<PathBuf>,
    pub allow_unused: bool,
    pub threads: Option<usize>,
    pub batch_size: Option<usize>,
    pub json: bool,
    pub quiet: bool,
    pub verbose: bool,
}

impl Cli {
    /// What the command was told by flags that several have.
    pub fn common(&self) -> Common {
        let none = ModelArgs::default();
        let (model, encode, json) = match &self.command {
            Command::Segment(args) => (&args.encode.model, Some(&args.encode), args.json.json),
            Command::Group(args) => (&args.encode.model, Some(&args.encode), args.json.json),
            Command::Classify(args) => (&args.encode.model, Some(&args.encode), args.json.json),
            Command::Embed(args) => (&args.encode.model, Some(&args.encode), args.json.json),
            Command::Eval(args) => (&args.encode.model, Some(&args.encode), args.json.json),
            Command::Serve(args) => (&args.encode.model, Some(&args.encode), false),
            Command::Train(args) => (&args.model, None, args.json.json),
            Command::Data(args) => (&none, None, args.json.json),
            Command::Convert(args) => (&none, None, args.json.json),
            Command::Info(args) => (&none, None, args.json.json),
            Command::Models(args) => (&none, None, args.json.json),
            Command::Pull(args) => (&none, None, args.json.json),
        };
        let of_labels =
            |args: &LabelArgs| args.kept.text_cache.clone().or_else(text_cache_variable);
        let text_cache = match &self.command {
            Command::Segment(args) => of_labels(&args.labels),
            Command::Classify(args) => of_labels(&args.labels),
            Command::Embed(args) => Some(args.kept.text_cache.clone().unwrap_or("off".into())),
            _ => None,
        };
        Common {
            model: model.model.clone(),
            // Of commands without the flag: where `auto` is.
            device: match model.device.as_str() {
                "" => "auto".into(),
                device => device.into(),
            },
            precision: encode.map_or(Precision::F32, |encode| encode.precision),
            text_cache,
            allow_unused: match &self.command {
                Command::Convert(args) => args.read.allow_unused,
                Command::Info(args) => args.read.allow_unused,
                _ => model.read.allow_unused,
            },
            threads: model.threads,
            batch_size: encode.and_then(|encode| encode.batch_size),
            json,
            quiet: self.talk.quiet,
            verbose: self.talk.verbose,
        }
    }
}

/// Where the variable of the environment says that embeddings of labels are kept.
fn text_cache_variable() -> Option<PathBuf> {
    let folder = std::env::var_os("PERCEPT_TEXT_CACHE").filter(|folder| !folder.is_empty())?;
    Some(crate::inputs::at_home(folder.as_ref()))
}

/// How exact products are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Precision {
    /// As 32 bits are.
    #[default]
    #[value(alias = "fp32")]
    F32,
    /// Rounded to 8 bits, added up in 32.
    Bf16,
    /// Whole numbers of 8 bits, with a factor for each token and output.
    Int8,
}

impl From<Precision> for percept::Precision {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32,
            Precision::Bf16 => Self::Bf16,
            Precision::Int8 => Self::Int8,
        }
    }
}

impl Common {
    /// Photos encoded in one pass.
    pub fn batch_size(&self) -> usize {
        self.batch_size.unwrap_or(1)
    }

    /// Photos that go through a model together: of one pass, and in how many passes at a time.
    pub fn together(&self, model: &percept::Model) -> percept::Together {
        percept::Together {
            batch_size: self.batch_size(),
            passes: model.passes(),
        }
    }
}

/// The photos of a command.
#[derive(Debug, Args)]
pub struct Inputs {
    /// Photos: files, folders (searched for images), globs, or - for one photo from standard input.
    #[arg(required = true, value_name = "INPUT")]
    pub inputs: Vec<String>,
}

/// The flag of commands that embed texts.
#[derive(Debug, Args)]
pub struct KeptTextsArgs {
    /// Folder where embeddings of texts are kept between runs, or `off`
    ///
    /// [default: PERCEPT_TEXT_CACHE, else ~/.cache/percept/texts; of embed off]
    // Not read from the variable here: for embed, whose texts would push out the labels that are kept, it
    // does not count.
    #[arg(long, value_name = "DIR|off", value_parser = path())]
    pub text_cache: Option<PathBuf>,
}

/// The labels of a command.
#[derive(Debug, Args)]
pub struct LabelArgs {
    /// What to look for, separated by commas, or a JSON list; may be given several times.
    #[arg(
        short,
        long,
        value_name = "\"dog, grass\"",
        required_unless_present = "labels_file",
        conflicts_with = "labels_file"
    )]
    pub labels: Vec<String>,
    /// A file with one label a line, synonyms separated by commas; numbered lists, JSON and YAML are read too.
    #[arg(long, value_name = "FILE", value_parser = path())]
    pub labels_file: Option<PathBuf>,
    #[command(flatten)]
    pub kept: KeptTextsArgs,
    /// Prompts that labels are put into: simple (the model's own), imagenet7, imagenet80 or a file
    /// with one template a line ({} for the label, {a} for the label with a or an).
    #[arg(long, value_name = "NAME|FILE", default_value = "simple", value_parser = home_text)]
    pub templates: String,
}

/// How photos are shown to the encoder.
#[derive(Debug, Args)]
pub struct ViewArgs {
    /// Size at which photos are encoded: the short side in pixels (aspect kept), or WxH.
    #[arg(long, value_name = "PX|WxH", default_value = "448", value_parser = size)]
    pub size: Size,
    /// Encode in square windows of this many pixels.
    #[arg(long, value_name = "PX", value_parser = positive)]
    pub window: Option<usize>,
    /// Step between windows; half a window unless given.
    #[arg(long, value_name = "PX", requires = "window", value_parser = positive)]
    pub stride: Option<usize>,
}

/// Where results go.
#[derive(Debug, Args)]
pub struct OutputArgs {
    /// What to write for each photo.
    #[arg(
        short,
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "overlay,mask"
    )]
    pub format: Vec<Format>,
    /// Folder that results are written to
    ///
    /// [default: percept-out, or percept-out-2 and so on where that has other results]
    #[arg(short, long, value_name = "DIR", value_parser = path())]
    pub out: Option<PathBuf>,
    /// Replace results that are in the way: all those of an earlier run with other settings, and those of other
    /// photos with the same names. Files that are not percept's own are never replaced.
    #[arg(long, conflicts_with = "resume")]
    pub force: bool,
    /// Go on with a run that was stopped: photos that have results with the same settings are not done
    /// again.
    #[arg(long)]
    pub resume: bool,
    /// Colours of masks and overlays.
    #[arg(long, value_enum, default_value = "percept", value_name = "NAME")]
    pub palette: Palette,
    /// How much of the colours overlays show, 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = OVERLAY_OPACITY, value_parser = share)]
    pub opacity: f32,
    /// Longest side of an overlay's photo in pixels, or `full` for the photo's own size.
    #[arg(long, value_name = "PX|full", default_value = "2048", value_parser = overlay_size)]
    pub overlay_size: OverlaySize,
    /// No legend below overlays.
    #[arg(long)]
    pub no_legend: bool,
}

impl OutputArgs {
    /// What to write, each once.
    pub fn formats(&self) -> Vec<Format> {
        let mut formats = Vec::new();
        for format in &self.format {
            if !formats.contains(format) {
                formats.push(*format);
            }
        }
        formats
    }

    /// How overlays look, as settings tell it.
    pub fn overlay_json(&self) -> serde_json::Value {
        serde_json::json!({
            "opacity": self.opacity,
            "size": self.overlay_size.0,
            "legend": !self.no_legend,
        })
    }
}

/// Colours of masks and overlays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Palette {
    /// Those of overlays and the web page, easily told apart.
    Percept,
    /// Those of PASCAL VOC's masks.
    Voc,
}

impl From<Palette> for percept::image::Palette {
    fn from(palette: Palette) -> Self {
        match palette {
            Palette::Percept => Self::Percept,
            Palette::Voc => Self::Voc,
        }
    }
}

/// The longest side of an overlay, if there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverlaySize(pub Option<u32>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// The photo with coloured regions and a legend, PNG.
    Overlay,
    /// Class indices, palette PNG (0 is background).
    Mask,
    /// COCO results with compressed run lengths, results.json for all photos together.
    Rle,
    /// Cosine similarities at the resolution of the tokens, float32 [rows, height, width].
    Npy,
    /// Classes with their shares and scores.
    Json,
}

impl Format {
    /// The name by which it is asked for.
    pub fn name(self) -> &'static str {
        match self {
            Self::Overlay => "overlay",
            Self::Mask => "mask",
            Self::Rle => "rle",
            Self::Npy => "npy",
            Self::Json => "json",
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Background:
  auto       everyday words compete with the labels; where one of them wins is background
  none       every pixel gets one of the labels
  0.2        background where the best cosine similarity is below 0.2
  \"wall, sky\" these words compete with the labels and are background

Examples:
  percept segment dog.jpg --labels \"dog, grass, sky\"
  percept segment photos/ --labels cat --background none --format mask,rle --out masks
  percept segment 'shots/*.jpg' --labels-file cls_voc.txt --templates imagenet80 --size 672
  percept segment big.jpg --labels boat --window 448 --stride 224")]
pub struct SegmentArgs {
    #[command(flatten)]
    pub inputs: Inputs,
    #[command(flatten)]
    pub labels: LabelArgs,
    /// What becomes of pixels that show none of the labels: auto, none, a similarity, or words.
    #[arg(short, long, default_value = "auto", allow_hyphen_values = true)]
    pub background: String,
    #[command(flatten)]
    pub view: ViewArgs,
    #[command(flatten)]
    pub output: OutputArgs,
    /// A COCO file: results.json has the numbers that its categories give to the labels.
    #[arg(long, value_name = "FILE", value_parser = path())]
    pub categories: Option<PathBuf>,
    #[command(flatten)]
    pub encode: EncodeArgs,
    #[command(flatten)]
    pub json: JsonArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  percept group photo.jpg
  percept group photos/ --groups 5 --format mask --out regions")]
pub struct GroupArgs {
    #[command(flatten)]
    pub inputs: Inputs,
    /// Number of groups.
    #[arg(short, long, default_value_t = 8, value_name = "N")]
    pub groups: usize,
    /// Compare tokens less their mean with the principal directions.
    #[arg(long)]
    pub centered: bool,
    #[command(flatten)]
    pub view: ViewArgs,
    #[command(flatten)]
    pub output: OutputArgs,
    #[command(flatten)]
    pub encode: EncodeArgs,
    #[command(flatten)]
    pub json: JsonArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  percept classify photos/ --labels \"cat, dog, bird\" --top 1
  percept classify photo.jpg --labels-file imagenet.txt --templates imagenet7 --json")]
pub struct ClassifyArgs {
    #[command(flatten)]
    pub inputs: Inputs,
    #[command(flatten)]
    pub labels: LabelArgs,
    /// How many of the best labels to print.
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = positive)]
    pub top: usize,
    #[command(flatten)]
    pub encode: EncodeArgs,
    #[command(flatten)]
    pub json: JsonArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  percept embed photos/ --out photos.safetensors
  percept embed --text \"a dog\" --text \"a cat\" --out words.npy
  percept embed photo.jpg --tokens --size 448 --out tokens.safetensors")]
pub struct EmbedArgs {
    /// Photos: files, folders (searched for images), globs, or - for one photo from standard input.
    #[arg(
        value_name = "INPUT",
        required_unless_present = "text",
        conflicts_with = "text"
    )]
    pub inputs: Vec<String>,
    /// A text to embed; may be given several times.
    #[arg(long)]
    pub text: Vec<String>,
    /// File to write, told by its ending: .safetensors or .npy. Which row is of which photo or text is in the
    /// metadata `names` of the one, and in FILE.json beside the other; photos that fail have no row.
    #[arg(short, long, value_name = "FILE", value_parser = path())]
    pub out: PathBuf,
    /// Replace a file that holds no embeddings.
    #[arg(long)]
    pub force: bool,
    /// Write patch tokens instead of one embedding a photo (held in memory until the end).
    #[arg(long, conflicts_with = "text")]
    pub tokens: bool,
    /// Pooling: max, max-with-cls, avg, cls or cls-avg; the model's own unless given.
    #[arg(long, value_parser = pooling, conflicts_with = "text")]
    pub pool: Option<Pooling>,
    /// Size at which photos are encoded: the short side in pixels (aspect kept), or WxH. Unless
    /// given, the middle square at the model's own size.
    #[arg(long, value_name = "PX|WxH", value_parser = size, conflicts_with = "text")]
    pub size: Option<Size>,
    #[command(flatten)]
    pub kept: KeptTextsArgs,
    #[command(flatten)]
    pub encode: EncodeArgs,
    #[command(flatten)]
    pub json: JsonArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  percept convert clippy_5k.pt --tokenizer tokenizer.json clippy/
  percept convert --image vit.safetensors --text minilm/ --pool cls model/
  percept convert logs/one/model --average logs/other/model --storage int8 model/")]
pub struct ConvertArgs {
    /// A model to convert (unless --image or --text name its towers), then the folder to write.
    #[arg(required = true, num_args = 1..=2, value_name = "[MODEL] OUT", value_parser = path())]
    pub paths: Vec<PathBuf>,
    /// File or folder to take the image tower from.
    #[arg(long, value_name = "PATH", value_parser = path())]
    pub image: Option<PathBuf>,
    /// File or folder to take the text tower from.
    #[arg(long, value_name = "PATH", value_parser = path())]
    pub text: Option<PathBuf>,
    /// Take the mean of the weights with those of this model, trained from the same start; may be given several
    /// times.
    #[arg(long, value_name = "PATH", value_parser = path())]
    pub average: Vec<PathBuf>,
    /// Bits of the stored weights: exact, half, or a quarter of the size.
    #[arg(long, value_enum, default_value_t = Storage::F32)]
    pub storage: Storage,
    /// A prompt template of the model; may be given several times.
    #[arg(long = "template", value_name = "TEXT")]
    pub templates: Vec<String>,
    /// A name for people.
    #[arg(long)]
    pub name: Option<String>,
    /// Write into a folder that has files and is no model of percept's; those of a model's names are replaced.
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub hints: HintArgs,
    #[command(flatten)]
    pub read: ReadArgs,
    #[command(flatten)]
    pub json: JsonArgs,
}

/// How `convert` stores weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Storage {
    F32,
    F16,
    Int8,
}

/// What a checkpoint does not say by itself.
#[derive(Debug, Args)]
pub struct HintArgs {
    /// Pooling: max, max-with-cls, avg, cls or cls-avg.
    #[arg(long, value_parser = pooling)]
    pub pool: Option<Pooling>,
    /// Attention heads of the image tower.
    #[arg(long, value_name = "N")]
    pub heads: Option<usize>,
    /// Rule for position embeddings at other sizes.
    #[arg(long, value_enum)]
    pub interpolation: Option<Interpolation>,
    /// Mean and standard deviation of the input, by name.
    #[arg(long, value_enum, conflicts_with_all = ["mean", "std"])]
    pub normalization: Option<Normalization>,
    /// Mean of the input's channels, where values are 0 to 1.
    #[arg(long, value_name = "R,G,B", value_parser = triple, requires = "std")]
    pub mean: Option<[f32; 3]>,
    /// Standard deviation of the input's channels, where values are 0 to 1.
    #[arg(long, value_name = "R,G,B", value_parser = triple, requires = "mean")]
    pub std: Option<[f32; 3]>,
    /// Resampling filter of the resize before the image tower.
    #[arg(long, value_enum)]
    pub filter: Option<ResizeFilter>,
    /// Side of the square that classification sees, in pixels.
    #[arg(long, value_name = "PX")]
    pub image_size: Option<usize>,
    /// What stands before the names of the tower that is meant, where a file holds several.
    #[arg(long, value_name = "NAME.")]
    pub prefix: Option<String>,
    /// The tokeniser, when it is not beside the weights.
    #[arg(long, value_name = "FILE", value_parser = path())]
    pub tokenizer: Option<PathBuf>,
}

/// How a photo is resized.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum ResizeFilter {
    Nearest,
    Box,
    Bilinear,
    Bicubic,
    Lanczos,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Interpolation {
    /// Bicubic at the scale factor (n + 0.1) / grid, as DINO and CLIPpy.
    Dino,
    /// Bicubic with antialiasing to the target size, as timm.
    Timm,
    /// Bicubic to the target size without antialiasing, as transformers.
    Size,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Normalization {
    /// ImageNet's mean and deviation (DINO, DINOv2).
    Imagenet,
    /// OpenAI CLIP's (the public CLIPpy checkpoint).
    Openai,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  percept info model/
  percept info clippy_5k.pt --verbose")]
pub struct InfoArgs {
    /// A model folder, a checkpoint file, or a name from `percept models`.
    #[arg(value_name = "PATH", value_parser = home_text)]
    pub path: String,
    #[command(flatten)]
    pub read: ReadArgs,
    #[command(flatten)]
    pub json: JsonArgs,
}

#[derive(Debug, Args)]
pub struct ModelsArgs {
    #[command(flatten)]
    pub json: JsonArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  percept pull clippy
  percept pull hf:facebook/dino-vitb16
  percept pull https://example.org/model.safetensors --sha256 2c26b46b68ffc68f…

HF_HOME, HF_HUB_CACHE, HF_ENDPOINT and HF_TOKEN are honoured; HF_HUB_OFFLINE=1 never touches the
network. A broken download goes on where it stopped.")]
pub struct PullArgs {
    /// A name from `percept models`, hf:ORG/NAME[@REVISION] or a URL.
    #[arg(value_name = "NAME|hf:ORG/NAME|URL")]
    pub reference: String,
    /// SHA-256 that the file, or the model's weights, must have.
    #[arg(long, value_name = "HEX")]
    pub sha256: Option<String>,
    #[command(flatten)]
    pub json: JsonArgs,
}

/// A path; `~/` at its beginning, which a shell leaves alone in quotes and behind `=`, is the user's home.
fn path() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().map(|path| crate::inputs::at_home(&path))
}

/// As [`path`], where a name is allowed too.
fn home_text(text: &str) -> Result<String, std::convert::Infallible> {
    let path = crate::inputs::at_home(text.as_ref());
    Ok(path.to_str().unwrap_or(text).to_owned())
}

fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("not a positive whole number".into()),
        Ok(value) => Ok(value),
    }
}

fn triple(text: &str) -> Result<[f32; 3], String> {
    let numbers: Result<Vec<f32>, _> = text
        .split(',')
        .map(|number| number.trim().parse())
        .collect();
    let three = numbers.ok().and_then(|numbers| numbers.try_into().ok());
    three.ok_or_else(|| "not three numbers, such as 0.5,0.5,0.5".into())
}

fn size(text: &str) -> Result<Size, String> {
    let side = |text: &str| -> Result<u32, String> {
        match text.trim().parse() {
            Ok(0) | Err(_) => Err("neither a number of pixels nor WxH, such as 640x480".into()),
            Ok(value) => Ok(value),
        }
    };
    match text.split_once(['x', 'X', '×']) {
        None => Ok(Size::ShortSide(side(text)?)),
        Some((width, height)) => Ok(Size::Exact {
            width: side(width)?,
            height: side(height)?,
        }),
    }
}

fn share(text: &str) -> Result<f32, String> {
    let share = text
        .parse()
        .ok()
        .filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "not a number from 0 to 1".into())
}

fn overlay_size(text: &str) -> Result<OverlaySize, String> {
    match text.parse() {
        Ok(side) if side > 0 => Ok(OverlaySize(Some(side))),
        _ if text == "full" => Ok(OverlaySize(None)),
        _ => Err("neither a number of pixels nor `full`".into()),
    }
}

fn pooling(text: &str) -> Result<Pooling, String> {
    Pooling::ALL
        .into_iter()
        .find(|pooling| pooling.name() == text)
        .ok_or_else(|| "not one of max, max-with-cls, avg, cls, cls-avg".into())
}

#[derive(Debug, Default, Args)]
#[command(after_help = "\
Tasks and what --data is:
  voc, context, context59        VOCdevkit, or VOC2012 or VOC2010 in it
  ade20k                         ADEChallengeData2016
  coco-object, coco, coco-stuff  a COCO folder with annotations/ (80 things, 133 panoptic, 171)
  cityscapes                     leftImg8bit/ and gtFine/
  custom                         images/, masks/ (PNG of class indices) and classes.txt
  folder, imagenet, imagenet-v2  one folder of photos a class
  retrieval                      a COCO folder with captions, or a CSV of filepath and title
  waterbirds                     metadata.csv, or what `percept data spurious` made
  compare                        result files, side by side and with published numbers

Examples:
  percept eval voc --data VOCdevkit --protocol clippy-448 --out results/voc
  percept eval voc --data VOCdevkit --grouping --set grouping.groups=16
  percept eval ade20k --data ADEChallengeData2016 --set image.size=336 --resume --out results/ade
  percept eval voc --protocol sclip --show-protocol
  percept eval compare results/*/result.json")]
pub struct EvalArgs {
    /// What to evaluate.
    #[arg(
        value_enum,
        value_name = "TASK",
        required_unless_present = "show_protocol"
    )]
    pub task: Option<Task>,
    /// Result files of `compare`.
    #[arg(value_name = "RESULT", value_parser = path())]
    pub results: Vec<PathBuf>,
    /// The dataset's folder.
    #[arg(long, value_name = "DIR", value_parser = path())]
    pub data: Option<PathBuf>,
    /// How to measure: clippy, clippy-448, clippy-notebook, tcl, sclip, groupvit or a TOML file.
    #[arg(long, value_name = "NAME|FILE.toml", default_value = "clippy")]
    pub protocol: String,
    /// A setting of the protocol to change; may be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Print the protocol with all its settings, and stop.
    #[arg(long)]
    pub show_protocol: bool,
    /// Measure groups without words instead (Jaccard), on any segmentation set.
    #[arg(long)]
    pub grouping: bool,
    /// The split, of sets that have several; the usual one unless given.
    #[arg(long, value_name = "NAME")]
    pub split: Option<String>,
    /// Class names of folder: lines of a folder's name and its class, with a comma or tab between; of custom: a
    /// file in the place of classes.txt.
    #[arg(long, value_name = "FILE", value_parser = path())]
    pub classes: Option<PathBuf>,
    /// Of folder, imagenet and imagenet-v2: go on where a class folder has no photos. Its class competes, without
    /// photos of its own.
    #[arg(long)]
    pub keep_empty_classes: bool,
    /// Only the first N photos.
    #[arg(long, value_name = "N", value_parser = positive)]
    pub limit: Option<usize>,
    /// Folder for result.json, result.md, report.html and records.jsonl.
    #[arg(short, long, value_name = "DIR", value_parser = path())]
    pub out: Option<PathBuf>,
    /// Go on with what a killed run left in --out, if neither settings nor data changed.
    #[arg(long, requires = "out")]
    pub resume: bool,
    /// Replace what is in --out, also results of other settings and files that are not percept's.
    #[arg(long, requires = "out", conflicts_with = "resume")]
    pub force: bool,
    /// Folder for what the image encoder makes of each photo, some 2 MB: photos whose tokens are there are
    /// not encoded again, and can be measured in other ways in no time.
    #[arg(long, value_name = "DIR", value_parser = path())]
    pub keep_tokens: Option<PathBuf>,
    #[command(flatten)]
    pub encode: EncodeArgs,
    #[command(flatten)]
    pub json: JsonArgs,
}

/// Benchmarks, and the comparison of their results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Task {
    Voc,
    Context,
    Context59,
    Ade20k,
    Coco,
    CocoObject,
    CocoStuff,
    Cityscapes,
    Custom,
    Folder,
    Imagenet,
    ImagenetV2,
    Retrieval,
    Waterbirds,
    Compare,
}

impl Task {
    /// Whether `--classes` gives its classes names.
    pub fn takes_names(self) -> bool {
        matches!(self, Self::Folder | Self::Custom)
    }

    /// Whether it is about one folder of photos a class.
    pub fn is_of_folders(self) -> bool {
        matches!(self, Self::Folder | Self::Imagenet | Self::ImagenetV2)
    }
}

#[derive(Debug, Args)]
pub struct DataArgs {
    #[command(subcommand)]
    pub command: DataCommand,
    #[command(flatten)]
    pub json: JsonArgs,
}

#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Build a set like Waterbirds: objects cut out of one set, pasted on places they do or do not
    /// belong to.
    Spurious(SpuriousArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  percept data spurious voc --data VOCdevkit --objects cow,cat \\
      --place \"a meadow=photos/meadows\" --place \"a room=photos/rooms\" --out cows-and-cats
  percept eval waterbirds --data cows-and-cats --protocol clippy-448

The first object usually is at the first place, the second at the second. All four groups are
equally large, as in Waterbirds' test set.")]
pub struct SpuriousArgs {
    /// The set that objects are cut out of: voc, coco-object, ade20k or any other with masks.
    #[arg(value_enum, value_name = "SET")]
    pub task: Task,
    /// Its folder.
    #[arg(long, value_name = "DIR", value_parser = path())]
    pub data: PathBuf,
    /// Its split; the usual one unless given.
    #[arg(long, value_name = "NAME")]
    pub split: Option<String>,
    /// The two classes, as the set names them.
    #[arg(long, value_name = "A,B", value_delimiter = ',', num_args = 1)]
    pub objects: Vec<String>,
    /// A place and a folder of photos of it; given twice.
    #[arg(long, value_name = "NAME=DIR", required = true)]
    pub place: Vec<String>,
    /// Most photos in each of the four groups.
    #[arg(long, value_name = "N", default_value = "100", value_parser = positive)]
    pub per_group: usize,
    /// Decides which object goes where.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Folder to write: images/, metadata.csv and set.json.
    #[arg(short, long, value_name = "DIR", value_parser = path())]
    pub out: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_named_twice_is_written_once() {
        let arguments = "percept segment a.jpg --labels cat --format mask,npy,mask -f npy";
        let cli = Cli::try_parse_from(arguments.split(' ')).unwrap();
        let Command::Segment(args) = cli.command else {
            panic!("{:?}", cli.command)
        };
        assert_eq!(args.output.formats(), [Format::Mask, Format::Npy]);
    }
}
