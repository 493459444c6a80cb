//! The flags of `percept train`, in open_clip's words.

use std::path::PathBuf;

use clap::Args;
use percept::Pooling;
use serde::Serialize;

use super::{JsonArgs, ModelArgs, path, pooling, positive};

// The last of equal flags counts, so that a script's settings can be changed at the end of its line.
#[derive(Debug, Args)]
#[command(
    args_override_self = true,
    after_help = "\
Settings come from the recipe, then from the flags. With --resume they come from the checkpoint, then
from the flags: `percept train --name x --resume latest` is enough. All of them are written to
LOGS/NAME/params.json; --show-params prints them and stops.

Towers (--init-image, --init-text):
  PATH, clippy, hf:ORG/NAME  the tower of a model folder or checkpoint of any layout
  random:vit-b16             drawn: vit-b16, vit-s16 or vit-s14; t5-base or minilm for text
  random:PATH                drawn, in the shape of the tower at PATH
  With neither, both are those of --model.

What is written to LOGS/NAME/:
  params.json   all settings
  out.log       what happened, with every pair that was skipped, and what was left out by kind
  results.jsonl the numbers, one object a line; tensorboard/ has them as well
  checkpoints/  the last --keep states, and the best by the loss on held-out pairs
  model/        the trained model, for `percept segment --model`

Examples:
  percept train --recipe pilot --train-data 'shards/{00000..00011}.tar' --name pilot \\
      --init-image vit_small_patch14.safetensors --init-text minilm/
  percept train --name pilot --resume latest
  percept train --model model/ --train-data pairs.csv --epochs 2 --lr 1e-5 --warmup 100 \\
      --batch-size 512 --chunk 16 --val-fraction 0.05 --ema 0.999
  percept train --name x --resume latest --eval voc=VOCdevkit --eval-steps 500 --eval-limit 100

Ctrl-C saves and stops with exit code 130; a second one stops at once."
)]
pub struct TrainArgs {
    /// Settings to begin with: clippy-cc12m, percept-s14, pilot, or a TOML file of them.
    #[arg(long, value_name = "NAME|FILE.toml")]
    pub recipe: Option<String>,
    /// Go on with a run: `latest` of --name (or begin it, if it has no checkpoint), or a checkpoint.
    #[arg(long, value_name = "latest|PATH")]
    pub resume: Option<String>,
    /// Print all settings, and stop.
    #[arg(long)]
    pub show_params: bool,
    #[command(flatten)]
    pub settings: TrainSettings,
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub json: JsonArgs,
    /// Measure the model on a benchmark of `percept eval`; may be given several times.
    #[arg(long, value_name = "TASK=DIR", help_heading = "Validation")]
    pub eval: Vec<String>,
    /// Only the first N photos of each benchmark.
    #[arg(long, value_name = "N", value_parser = positive, help_heading = "Validation")]
    pub eval_limit: Option<usize>,
    /// How the benchmarks are measured.
    #[arg(
        long,
        value_name = "NAME|FILE.toml",
        default_value = "clippy",
        help_heading = "Validation"
    )]
    pub eval_protocol: String,
}

/// What goes into [`TrainConfig`](percept_train::TrainConfig): the fields have its names. What is
/// not given stays as it is.
#[derive(Debug, Args, Serialize)]
pub struct TrainSettings {
    /// Name of the run and of its folder; made of the time unless given.
    #[arg(long)]
    name: Option<String>,
    /// Folder of all runs [default: logs].
    #[arg(long, value_name = "DIR", value_parser = path())]
    logs: Option<PathBuf>,

    /// Shards, such as 'shards/{00000..01242}.tar', or a CSV.
    #[arg(long, value_name = "SHARDS|CSV", help_heading = "Data")]
    train_data: Option<String>,
    /// What that is; told from its ending unless given.
    #[arg(long, value_name = "TYPE", value_parser = ["auto", "webdataset", "csv"], help_heading = "Data")]
    dataset_type: Option<String>,
    /// A CSV's column of photos [default: filepath]. Its header tells what stands between columns: a tab, a comma, a
    /// semicolon or a bar.
    #[arg(long, value_name = "NAME", help_heading = "Data")]
    csv_img_key: Option<String>,
    /// A CSV's column of captions [default: title].
    #[arg(long, value_name = "NAME", help_heading = "Data")]
    csv_caption_key: Option<String>,
    /// What quotes mean in a CSV [default: minimal]: a value that begins with one ends with one; or, for captions with
    /// stray quotes, none: they are letters as others.
    #[arg(long, value_name = "HOW", value_parser = ["minimal", "none"], help_heading = "Data")]
    csv_quoting: Option<String>,
    /// A shard that is cut short or damaged otherwise: use what comes before, count and name it, or end the run
    /// [default: warn].
    #[arg(long, value_name = "WHAT", value_parser = ["warn", "stop"], help_heading = "Data")]
    damaged_shards: Option<String>,
    /// Pairs of an epoch; each once unless given.
    #[arg(long, value_name = "N", help_heading = "Data")]
    train_num_samples: Option<u64>,
    /// Draw shards with replacement; needs --train-num-samples.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", help_heading = "Data")]
    dataset_resampled: Option<bool>,
    /// Samples that the next one is drawn from [default: 5000].
    #[arg(long, value_name = "N", help_heading = "Data")]
    shuffle_buffer: Option<usize>,
    /// Which of a sample's captions is taken [default: first].
    #[arg(long, value_name = "WHICH", value_parser = ["first", "random"], help_heading = "Data")]
    caption: Option<String>,
    /// Area of the random crop as a share of the photo's [default: 0.9,1].
    #[arg(
        long,
        value_name = "MIN,MAX",
        value_delimiter = ',',
        num_args = 1,
        help_heading = "Data"
    )]
    aug_scale: Option<Vec<f64>>,
    /// How many crops and mirrorings of a photo there are; new ones each time unless given.
    #[arg(long, value_name = "N", help_heading = "Data")]
    views: Option<u32>,
    /// Decode large JPEGs at a part of their size: faster, but not quite the same pixels.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", help_heading = "Data")]
    decode_reduced: Option<bool>,
    /// Threads that read and decode; one for each core unless given.
    #[arg(long, value_name = "N", help_heading = "Data")]
    workers: Option<usize>,

    /// Where the image tower begins: a path, a name, or random.
    #[arg(long, value_name = "PATH|random", help_heading = "Towers")]
    init_image: Option<String>,
    /// Where the text tower begins: a path, a name, or random.
    #[arg(long, value_name = "PATH|random", help_heading = "Towers")]
    init_text: Option<String>,
    /// The tokeniser, when it does not come with the text tower.
    #[arg(long, value_name = "FILE", value_parser = path(), help_heading = "Towers")]
    tokenizer: Option<PathBuf>,
    /// How tokens become an embedding: max, max-with-cls, avg, cls or cls-avg.
    #[arg(long, value_parser = pooling, help_heading = "Towers")]
    pool: Option<Pooling>,
    /// Side of the square inputs; the image tower's own unless given.
    #[arg(long, value_name = "PX", help_heading = "Towers")]
    image_size: Option<usize>,
    /// Keep the image tower as it is.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", help_heading = "Towers")]
    lock_image: Option<bool>,
    /// With --lock-image: the last N blocks, and the final norm, learn all the same [default: 0].
    #[arg(long, value_name = "N", help_heading = "Towers")]
    lock_image_unlocked_groups: Option<usize>,
    /// Keep in this folder what the locked blocks make of each of the --views, for this run and later ones:
    /// several times faster from the second time that a view is seen.
    #[arg(long, value_name = "DIR", value_parser = path(), help_heading = "Towers")]
    locked_cache: Option<PathBuf>,
    /// Keep the text tower as it is.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", help_heading = "Towers")]
    lock_text: Option<bool>,
    /// Share of the patches that is dropped in training [default: 0].
    #[arg(long, value_name = "SHARE", help_heading = "Towers")]
    force_patch_dropout: Option<f64>,

    /// Pairs of a batch [default: 64].
    #[arg(long, value_name = "N", value_parser = positive, help_heading = "Optimisation")]
    batch_size: Option<usize>,
    /// Batches that make one step, exactly as one larger batch would [default: 1].
    #[arg(long, value_name = "N", help_heading = "Optimisation")]
    accum_freq: Option<usize>,
    /// Pairs computed at once: less memory, the same result [default: the batch].
    #[arg(long, value_name = "N", help_heading = "Optimisation")]
    chunk: Option<usize>,
    /// How often all pairs are seen [default: 32].
    #[arg(
        long,
        value_name = "N",
        conflicts_with = "steps",
        help_heading = "Optimisation"
    )]
    epochs: Option<u64>,
    /// Steps, instead of epochs.
    #[arg(long, value_name = "N", help_heading = "Optimisation")]
    steps: Option<u64>,
    /// Learning rate after the warm-up [default: 5e-4].
    #[arg(long, value_name = "RATE", help_heading = "Optimisation")]
    lr: Option<f64>,
    /// The image tower's, where it differs.
    #[arg(long, value_name = "RATE", help_heading = "Optimisation")]
    image_lr: Option<f64>,
    /// The text tower's, where it differs.
    #[arg(long, value_name = "RATE", help_heading = "Optimisation")]
    text_lr: Option<f64>,
    /// Factor on the image tower's rate for every block further from the output.
    #[arg(long, value_name = "FACTOR", help_heading = "Optimisation")]
    layer_decay: Option<f64>,
    /// Steps of linear warm-up [default: 10000].
    #[arg(long, value_name = "STEPS", help_heading = "Optimisation")]
    warmup: Option<u64>,
    /// What follows [default: cosine].
    #[arg(long, value_name = "SHAPE", value_parser = ["cosine", "const", "const-cooldown"], help_heading = "Optimisation")]
    lr_scheduler: Option<String>,
    /// Steps of the descent of const-cooldown.
    #[arg(long, value_name = "STEPS", help_heading = "Optimisation")]
    cooldown: Option<u64>,
    /// Its power [default: 1, a straight line].
    #[arg(long, value_name = "POWER", help_heading = "Optimisation")]
    lr_cooldown_power: Option<f64>,
    /// Its end [default: 0].
    #[arg(long, value_name = "RATE", help_heading = "Optimisation")]
    lr_cooldown_end: Option<f64>,
    /// The optimiser [default: adamw].
    #[arg(long, value_name = "NAME", value_parser = ["adamw", "lamb"], help_heading = "Optimisation")]
    opt: Option<String>,
    /// Decay of the gradient's average [default: 0.9].
    #[arg(long, value_name = "B", help_heading = "Optimisation")]
    beta1: Option<f64>,
    /// Decay of the squared gradient's average [default: 0.98, lamb 0.999].
    #[arg(long, value_name = "B", help_heading = "Optimisation")]
    beta2: Option<f64>,
    /// Added to the deviation [default: 1e-6].
    #[arg(long, value_name = "EPS", help_heading = "Optimisation")]
    eps: Option<f64>,
    /// Weight decay, of matrices alone [default: 0.2].
    #[arg(long, value_name = "WD", help_heading = "Optimisation")]
    wd: Option<f64>,
    /// The gradient of all parameters is scaled down to this norm.
    #[arg(long, value_name = "NORM", help_heading = "Optimisation")]
    grad_clip_norm: Option<f64>,
    /// Compute each block of the image tower twice, for less memory.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", help_heading = "Optimisation")]
    grad_checkpointing: Option<bool>,
    /// All captions of a batch that read the same are right.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", help_heading = "Optimisation")]
    multi_positive: Option<bool>,
    /// Weight in the loss of patches of things, found without masks: they are of any of the photo's labels,
    /// or of its caption where it has none [default: 0, the paper].
    #[arg(long, value_name = "W", help_heading = "Optimisation")]
    object_weight: Option<f64>,
    /// Weight in the loss of patches of what surrounds things: they are "a photo of a background"
    /// [default: 0, the paper].
    #[arg(long, value_name = "W", help_heading = "Optimisation")]
    surroundings_weight: Option<f64>,
    /// Weight in the loss of each label of a photo being somewhere on it [default: 0, the paper].
    #[arg(long, value_name = "W", help_heading = "Optimisation")]
    coverage_weight: Option<f64>,
    /// How many patches of a photo, drawn anew in every step, stand for things, and for surroundings
    /// [default: 16].
    #[arg(long, value_name = "N", help_heading = "Optimisation")]
    side_patches: Option<usize>,
    /// How far words that many photos show are held back in the loss of patches: 1 for as if all were shown
    /// equally often [default: 0].
    #[arg(long, value_name = "SHARE", help_heading = "Optimisation")]
    word_balance: Option<f64>,
    /// Where a photo shows several things, patches of what surrounds the main one may be of these as well.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", help_heading = "Optimisation")]
    lenient_surroundings: Option<bool>,
    /// Decay of the average of the weights, which is then validated and written.
    #[arg(long, value_name = "DECAY", help_heading = "Optimisation")]
    ema: Option<f64>,
    /// How the average starts [default: full].
    #[arg(long, value_name = "HOW", value_parser = ["full", "ramp"], help_heading = "Optimisation")]
    ema_start: Option<String>,
    /// Of everything that is drawn [default: 0].
    #[arg(long, value_name = "N", help_heading = "Optimisation")]
    seed: Option<u64>,

    /// Epochs from one checkpoint to the next; 0 for none but the last [default: 1].
    #[arg(long, value_name = "EPOCHS", help_heading = "Checkpoints and log")]
    save_frequency: Option<u64>,
    /// Steps from one checkpoint to the next, as well.
    #[arg(long, value_name = "STEPS", help_heading = "Checkpoints and log")]
    save_steps: Option<u64>,
    /// Checkpoints kept, beside the best [default: 3].
    #[arg(long, value_name = "N", help_heading = "Checkpoints and log")]
    keep: Option<usize>,
    /// Steps from one line of the log to the next [default: 10].
    #[arg(long, value_name = "STEPS", help_heading = "Checkpoints and log")]
    log_every_n_steps: Option<u64>,

    /// Shards or CSV to validate on.
    #[arg(long, value_name = "SHARDS|CSV", help_heading = "Validation")]
    val_data: Option<String>,
    /// Share of the training pairs that is held out to validate on, by their keys [default: 0].
    #[arg(
        long,
        value_name = "SHARE",
        conflicts_with = "val_data",
        help_heading = "Validation"
    )]
    val_fraction: Option<f64>,
    /// Most pairs to validate on [default: 5000].
    #[arg(long, value_name = "N", help_heading = "Validation")]
    val_num_samples: Option<u64>,
    /// Epochs from one validation to the next; 0 for none but the last [default: 1].
    #[arg(long, value_name = "EPOCHS", help_heading = "Validation")]
    val_frequency: Option<u64>,
    /// Steps from one validation to the next, as well.
    #[arg(long, value_name = "STEPS", help_heading = "Validation")]
    val_steps: Option<u64>,
    /// Steps from one evaluation to the next; only at the end unless given.
    #[arg(
        long,
        value_name = "STEPS",
        requires = "eval",
        help_heading = "Validation"
    )]
    eval_steps: Option<u64>,
}
