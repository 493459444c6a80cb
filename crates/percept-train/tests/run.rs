//! Whole runs on a tiny model: broken off and taken up, with files that cannot be written, on
//! numbers that explode.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failing helper fails its test"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use percept_checkpoint::Checkpoint;
use percept_image::{Rgb, RgbImage, jpeg_rgb};
use percept_model::{Hints, Model, device};
use percept_train::checkpoint::Checkpoints;
use percept_train::config::DamagedShards;
use percept_train::run::find_checkpoint;
use percept_train::{
    Alone, Ending, Evaluator, Event, Finished, Hooks, Resume, Saved, Start, TrainConfig,
    TrainError, train,
};
use serde_json::Value;
use tempfile::TempDir;

const WORDS: [&str; 6] = ["dog", "cat", "sofa", "window", "sheep", "aeroplane"];

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../percept-model/tests/goldens")
}

/// A place for shards and runs. The shards have 3 x 14 samples, of which one is bad.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        for shard in 0..3 {
            let mut builder = tar::Builder::new(Vec::new());
            let mut add = |name: String, bytes: &[u8]| {
                let mut header = tar::Header::new_gnu();
                header.set_size(bytes.len() as u64);
                builder.append_data(&mut header, name, bytes).unwrap();
            };
            for at in 0..14 {
                let word = WORDS[(shard + at) % WORDS.len()];
                let tint = (shard * 14 + at) as u8;
                let photo = RgbImage::from_fn(70, 66, |x, y| {
                    Rgb([x as u8 * 3, y as u8 * 3, tint.wrapping_mul(6)])
                });
                let photo = match (shard, at) {
                    (1, 5) => b"no photo".to_vec(),
                    _ => jpeg_rgb(&photo, 90).unwrap(),
                };
                add(format!("s{shard}-{at:02}.jpg"), &photo);
                let caption = format!("a photo of a {word} near the {}", WORDS[at % 5]);
                add(format!("s{shard}-{at:02}.txt"), caption.as_bytes());
            }
            let bytes = builder.into_inner().unwrap();
            fs::write(place.0.path().join(format!("{shard}.tar")), bytes).unwrap();
        }
        place
    }

    fn config(&self, name: &str) -> TrainConfig {
        let here = self.0.path().display();
        TrainConfig {
            name: Some(name.into()),
            logs: self.0.path().join("logs"),
            train_data: format!("{here}/{{0..2}}.tar"),
            init_image: goldens()
                .join("timm-dino/model.safetensors")
                .display()
                .to_string(),
            init_text: goldens().join("minilm").display().to_string(),
            workers: Some(2),
            batch_size: 8,
            chunk: Some(3),
            steps: Some(11),
            lr: 1e-3,
            warmup: 2,
            force_patch_dropout: 0.5,
            multi_positive: true,
            ema: Some(0.7),
            val_fraction: 0.2,
            log_every_n_steps: 1,
            ..TrainConfig::default()
        }
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.0.path().join("logs").join(name)
    }

    fn checkpoints(&self, name: &str) -> PathBuf {
        self.folder(name).join("checkpoints")
    }
}

fn start(config: &TrainConfig) -> Start {
    Start::open(config, &device("cpu").unwrap(), |name| Ok(name.into())).unwrap()
}

/// Runs until the end, or until `stop_at` steps are taken.
fn run(config: &TrainConfig, resume: Resume, stop_at: Option<u64>) -> Result<Finished, TrainError> {
    let stop = AtomicBool::new(false);
    let mut watch = |event: &Event<'_>| {
        if let Event::Step(report) = event
            && Some(report.step + 1) == stop_at
        {
            stop.store(true, Ordering::Relaxed);
        }
    };
    let hooks = Hooks {
        observer: &mut watch,
        evaluator: None,
        stop: &stop,
        collective: &Alone,
    };
    train(config, start(config), resume, hooks)
}

fn latest(folder: &Path) -> Resume {
    let (saved, broken) = find_checkpoint(folder).unwrap();
    assert!(broken.is_empty(), "{broken:?}");
    Resume::From(Box::new(saved.unwrap()))
}

/// Every number of a checkpoint, as bits.
fn bits(path: &Path) -> BTreeMap<String, Vec<u32>> {
    let file = Checkpoint::open(path).unwrap();
    file.names()
        .map(|name| {
            let values = file.read_f32(name).unwrap();
            (
                name.to_owned(),
                values.iter().map(|v| v.to_bits()).collect(),
            )
        })
        .collect()
}

fn results(folder: &Path) -> Vec<Value> {
    let text = fs::read_to_string(folder.join("results.jsonl")).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The steps that a run's log has, with the loss of each.
fn losses(folder: &Path) -> Vec<(u64, f64)> {
    let lines = results(folder);
    let trained = lines.iter().filter(|line| line["kind"] == "train");
    trained
        .map(|l| (l["step"].as_u64().unwrap(), l["loss"].as_f64().unwrap()))
        .collect()
}

#[test]
fn a_broken_run_ends_as_an_unbroken_one() {
    let place = Place::new();
    let whole = run(&place.config("whole"), Resume::New, None).unwrap();
    assert_eq!(whole.progress.step, 11);
    let expected = bits(&place.checkpoints("whole").join("step_00000011.safetensors"));
    assert!(expected.keys().any(|name| name.starts_with("ema.")));
    let losses = |name: &str| losses(&place.folder(name));
    // In the first epoch, at the end of it, and again in later ones.
    for stops in [vec![1], vec![4], vec![3, 5, 9], vec![10]] {
        let name = format!("broken-{stops:?}").replace([' ', ',', '[', ']'], "");
        let config = place.config(&name);
        let mut resume = Resume::New;
        for stop in stops {
            let stopped = run(&config, resume, Some(stop)).unwrap();
            assert!(matches!(stopped.ending, Ending::Stopped { .. }));
            resume = latest(&place.folder(&name));
        }
        let ended = run(&config, resume, None).unwrap();
        assert_eq!(ended.validation, whole.validation);
        assert_eq!(ended.progress.bad_samples, whole.progress.bad_samples);
        assert_eq!(ended.left_out, whole.left_out);
        // What is measured at the step of a checkpoint is there once, however often it was taken up.
        let lines = results(&place.folder(&name)).into_iter();
        let mut steps: Vec<(String, u64)> = lines
            .map(|line| (line["kind"].to_string(), line["step"].as_u64().unwrap()))
            .collect();
        let all = steps.len();
        steps.sort();
        steps.dedup();
        assert_eq!(steps.len(), all, "{name}");
        let found = bits(&place.checkpoints(&name).join("step_00000011.safetensors"));
        assert!(found == expected, "{name}: other numbers");
        assert_eq!(losses(&name), losses("whole"));
        let model = |name: &str| fs::read(place.folder(name).join("model/model.safetensors"));
        assert!(model(&name).unwrap() == model("whole").unwrap());
    }
}

#[test]
fn what_is_left_out_is_counted_and_changed_data_are_noticed() {
    let place = Place::new();
    let third = place.0.path().join("2.tar");
    let whole = fs::read(&third).unwrap();
    fs::write(&third, &whole[..whole.len() / 2]).unwrap();
    let mut config = place.config("x");
    config.val_fraction = 0.0;
    config.val_data = Some(place.0.path().join("1.tar").display().to_string());
    let ended = run(&config, Resume::New, None).unwrap();
    let kinds: Vec<String> = ended
        .left_out
        .kinds()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert!(
        kinds[0]
            .starts_with("damaged shards, read up to the damage: 1 (2.tar: the shard is cut short")
    );
    let decoded = "samples whose image cannot be decoded or shows nothing: ";
    assert!(
        kinds
            .iter()
            .any(|kind| kind.starts_with(decoded) && kind.contains("1.tar: s1-05")),
        "{kinds:?}"
    );
    let bad: u64 = ended.left_out.kinds()[1..]
        .iter()
        .map(|kind| kind.count)
        .sum();
    assert_eq!(bad, ended.progress.bad_samples);
    let out = fs::read_to_string(place.folder("x").join("out.log")).unwrap();
    let named = "not validated on ";
    assert_eq!(out.lines().filter(|line| line.contains(named)).count(), 1);
    for kind in kinds {
        assert!(
            out.contains(&format!("left out or read otherwise: {kind}")),
            "{kind}"
        );
    }
    let lines = results(&place.folder("x"));
    let trained = lines.iter().rfind(|line| line["kind"] == "train").unwrap();
    assert_eq!(
        trained["left_out"],
        serde_json::to_value(&ended.left_out).unwrap()
    );
    let validated = lines.iter().find(|line| line["kind"] == "val").unwrap();
    assert_eq!(
        (&validated["samples"], &validated["bad_samples"]),
        (&13.into(), &1.into())
    );

    let noticed = |config: &TrainConfig| {
        let mut notes = Vec::new();
        let mut watch = |event: &Event<'_>| {
            if let Event::Note(note) = event {
                notes.push((*note).to_owned());
            }
        };
        let hooks = Hooks {
            observer: &mut watch,
            evaluator: None,
            stop: &AtomicBool::new(false),
            collective: &Alone,
        };
        let resume = latest(&place.folder("x"));
        train(config, start(config), resume, hooks).unwrap();
        notes.retain(|note| note.contains("are not those of the checkpoint"));
        notes
    };
    config.steps = Some(12);
    assert_eq!(noticed(&config), [""; 0]);
    fs::write(&third, &whole).unwrap();
    config.steps = Some(13);
    let changed = noticed(&config);
    assert!(
        changed[0].contains("names or sizes of files differ"),
        "{changed:?}"
    );
    config.train_data = config.train_data.replace("0..2", "0..1");
    config.steps = Some(14);
    assert!(noticed(&config)[0].contains("3 files then, 2 now"));
    // A damaged shard may be asked to end a run.
    fs::write(&third, &whole[..whole.len() / 2]).unwrap();
    let mut config = place.config("y");
    config.damaged_shards = DamagedShards::Stop;
    let error = run(&config, Resume::New, None).unwrap_err().to_string();
    assert!(error.contains("2.tar: the shard is cut short"), "{error}");
    // Pairs to validate on are tried before the first step.
    fs::write(
        place.0.path().join("bad.csv"),
        "filepath,title\nno.jpg,a\nno.jpg,b\n",
    )
    .unwrap();
    let mut config = place.config("z");
    config.val_data = Some(place.0.path().join("bad.csv").display().to_string());
    let error = run(&config, Resume::New, None).unwrap_err().to_string();
    assert!(error.contains("bad.csv"), "{error}");
}

#[test]
fn looking_changes_nothing() {
    struct Count(usize);
    impl Evaluator for Count {
        fn evaluate(&mut self, model: &Path) -> Result<BTreeMap<String, f64>, String> {
            Model::load(model, &Hints::default(), &device("cpu").unwrap())
                .map_err(|e| e.to_string())?;
            self.0 += 1;
            if self.0 == 2 {
                return Err("the dataset has gone".into());
            }
            Ok(BTreeMap::from([("voc/miou".to_owned(), 0.25)]))
        }
    }
    let place = Place::new();
    run(&place.config("blind"), Resume::New, None).unwrap();
    let config = TrainConfig {
        val_steps: Some(2),
        eval_steps: Some(4),
        save_steps: Some(3),
        ..place.config("seen")
    };
    let mut evaluator = Count(0);
    let mut notes = Vec::new();
    let mut watch = |event: &Event<'_>| {
        if let Event::Note(note) = event {
            notes.push((*note).to_owned());
        }
    };
    let hooks = Hooks {
        observer: &mut watch,
        evaluator: Some(&mut evaluator),
        stop: &AtomicBool::new(false),
        collective: &Alone,
    };
    train(&config, start(&config), Resume::New, hooks).unwrap();
    assert_eq!(evaluator.0, 3);
    assert!(notes[0].contains("the dataset has gone"), "{notes:?}");
    let last = "step_00000011.safetensors";
    let seen = place.checkpoints("seen").join(last);
    assert!(bits(&seen) == bits(&place.checkpoints("blind").join(last)));

    let lines = results(&place.folder("seen"));
    let of = |kind: &str| {
        lines
            .iter()
            .filter(|line| line["kind"] == kind)
            .collect::<Vec<_>>()
    };
    assert_eq!(of("train").len(), 11);
    assert!(of("train").iter().all(|line| {
        line["images_per_second"].as_f64().unwrap() > 0.0
            && (0.0..=1.0).contains(&line["data_wait"].as_f64().unwrap())
    }));
    assert_eq!(of("eval")[0]["voc/miou"], 0.25);
    let validated: Vec<u64> = of("val")
        .iter()
        .map(|l| l["step"].as_u64().unwrap())
        .collect();
    for step in [2, 4, 6, 8, 10, 11] {
        assert!(validated.contains(&step), "{validated:?}");
    }
    // The last three and the best, which knows that it is.
    let mut names: Vec<String> = fs::read_dir(place.checkpoints("seen"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names.len(), 4, "{names:?}");
    assert_eq!(
        (names[0].as_str(), names[3].as_str()),
        ("best.safetensors", last)
    );
    let best = Saved::open(&place.checkpoints("seen").join("best.safetensors")).unwrap();
    let least = of("val")
        .iter()
        .map(|l| l["loss"].as_f64().unwrap())
        .fold(f64::MAX, f64::min);
    assert_eq!(best.progress().best.unwrap().loss, least);
    assert_eq!(best.progress().best.unwrap().step, best.progress().step);

    let log = fs::read_to_string(place.folder("seen").join("out.log")).unwrap();
    assert!(log.contains("s1-05"), "{log}");
    let events = fs::read_dir(place.folder("seen").join("tensorboard")).unwrap();
    let bytes = fs::read(events.last().unwrap().unwrap().path()).unwrap();
    for tag in ["train/loss", "val/image_to_text", "eval/voc/miou"] {
        assert!(
            bytes.windows(tag.len()).any(|w| w == tag.as_bytes()),
            "{tag}"
        );
    }
}

/// All files below a folder, with what is in them.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.append(&mut files(&path)),
            false => drop(found.insert(path.clone(), fs::read(path).unwrap())),
        }
    }
    found
}

#[test]
fn what_locked_blocks_made_is_taken_from_where_it_is_kept() {
    let place = Place::new();
    let cache = place.0.path().join("cache");
    let config = |name: &str, cached: bool| TrainConfig {
        lock_image: true,
        lock_image_unlocked_groups: 1,
        object_weight: 0.5,
        surroundings_weight: 1.0,
        side_patches: 2,
        force_patch_dropout: 0.0,
        views: Some(2),
        locked_cache: cached.then(|| cache.clone()),
        ..place.config(name)
    };
    let done = |config: &TrainConfig, resume: Resume| {
        run(config, resume, None).unwrap();
        let path = place.checkpoints(config.name.as_deref().unwrap());
        bits(&path.join("step_00000011.safetensors"))
    };
    let first = done(&config("first", true), Resume::New);
    let kept = files(&cache);
    // Two views of each of the pairs that are not held out, most of which eleven batches of eight have met.
    assert!((40..=66).contains(&kept.len()), "{}", kept.len());
    // The second time nothing is made again, and the third what is damaged.
    let second = done(&config("second", true), Resume::New);
    assert!(second == first && files(&cache) == kept);
    let paths: Vec<&PathBuf> = kept.keys().collect();
    fs::write(paths[0], b"odd").unwrap();
    fs::write(paths[1], []).unwrap();
    fs::remove_file(paths[2]).unwrap();
    // Half of it by one run, the rest by the one that goes on with it.
    let third = config("third", true);
    run(&third, Resume::New, Some(5)).unwrap();
    let third = done(&third, latest(&place.folder("third")));
    assert!(third == first && files(&cache) == kept);

    // Beside half precision it is what a run that computes everything has.
    done(&config("plain", false), Resume::New);
    let [kept, plain] = ["first", "plain"].map(|name| losses(&place.folder(name)));
    assert_eq!(kept.len(), 11);
    for ((step, kept), (_, plain)) in kept.iter().zip(&plain) {
        assert!(
            (kept - plain).abs() < 2e-3 * plain,
            "{step}: {kept}, not {plain}"
        );
    }

    let all = TrainConfig {
        lock_image_unlocked_groups: 0,
        ..config("all", true)
    };
    let error = run(&all, Resume::New, None).unwrap_err().to_string();
    assert!(error.contains("no blocks are locked"), "{error}");
    let endless = TrainConfig {
        views: None,
        ..config("endless", true)
    };
    let error = run(&endless, Resume::New, None).unwrap_err().to_string();
    assert!(error.contains("views are needed"), "{error}");
}

#[test]
fn half_a_checkpoint_is_none() {
    let place = Place::new();
    let config = TrainConfig {
        save_steps: Some(2),
        val_fraction: 0.0,
        steps: Some(6),
        save_frequency: 0,
        ..place.config("x")
    };
    run(&config, Resume::New, None).unwrap();
    let folder = place.checkpoints("x");
    let newest = folder.join("step_00000006.safetensors");
    let whole = fs::read(&newest).unwrap();
    let mut random = 1u64;
    for cut in 0..40 {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let length = match cut {
            0 => 0,
            1 => 7,
            2 => whole.len() - 1,
            _ => (random >> 33) as usize % whole.len(),
        };
        fs::write(&newest, &whole[..length]).unwrap();
        let (saved, broken) = find_checkpoint(&place.folder("x")).unwrap();
        assert_eq!(saved.unwrap().progress().step, 4);
        assert!(
            broken[0].to_string().contains("step_00000006"),
            "{}",
            broken[0]
        );
    }
    // Weights that are no state, and names that are no checkpoints.
    let weights = goldens().join("timm-dino/model.safetensors");
    fs::copy(&weights, &newest).unwrap();
    let error = Saved::open(&newest).unwrap_err().to_string();
    assert!(error.contains("--init-image"), "{error}");
    fs::write(folder.join("step_7.safetensors"), &whole).unwrap();
    fs::write(folder.join(".percept-abc.incomplete"), &whole[..100]).unwrap();
    let (saved, _) = find_checkpoint(&folder).unwrap();
    assert_eq!(saved.unwrap().progress().step, 4);
    Checkpoints::open(&folder, 3).unwrap();
    assert!(!folder.join(".percept-abc.incomplete").exists());
    assert!(
        find_checkpoint(&place.folder("nowhere"))
            .unwrap()
            .0
            .is_none()
    );

    // From the older one the run ends as before.
    let (saved, _) = find_checkpoint(&folder).unwrap();
    run(&config, Resume::From(Box::new(saved.unwrap())), None).unwrap();
    fs::write(folder.join("whole"), &whole).unwrap();
    assert!(bits(&newest) == bits(&folder.join("whole")));
}

#[test]
fn a_checkpoint_that_cannot_be_written_leaves_the_last() {
    let place = Place::new();
    let config = TrainConfig {
        save_steps: Some(3),
        val_fraction: 0.0,
        save_frequency: 0,
        ..place.config("x")
    };
    // Nothing can take the name of a folder that is not empty; root may write everywhere else.
    let blocked = place.checkpoints("x").join("step_00000006.safetensors");
    fs::create_dir_all(blocked.join("inside")).unwrap();
    let error = run(&config, Resume::New, None).unwrap_err();
    let TrainError::Ended { source: why, .. } = &error else {
        panic!("{error}");
    };
    assert!(matches!(**why, TrainError::Save { .. }));
    let message = percept_image::message(&error);
    assert!(message.contains("cannot save"), "{message}");
    assert!(message.contains("last good checkpoint is"), "{message}");
    assert!(message.contains("step_00000003.safetensors"), "{message}");
    let (saved, _) = find_checkpoint(&place.folder("x")).unwrap();
    assert_eq!(saved.unwrap().progress().step, 3);

    // A folder that cannot be made.
    let file = place.0.path().join("file");
    fs::write(&file, b"").unwrap();
    let config = TrainConfig {
        logs: file.join("logs"),
        ..place.config("x")
    };
    let error = run(&config, Resume::New, None).unwrap_err().to_string();
    assert!(error.contains("file"), "{error}");
    // One that has a run.
    let error = run(&place.config("x"), Resume::New, None)
        .unwrap_err()
        .to_string();
    assert!(error.contains("--resume latest"), "{error}");
}

#[test]
fn numbers_that_explode_are_told_with_their_pairs() {
    let place = Place::new();
    let config = TrainConfig {
        lr: 1e30,
        warmup: 0,
        save_steps: Some(1),
        ..place.config("x")
    };
    let error = run(&config, Resume::New, None).unwrap_err();
    let TrainError::Ended {
        source: why,
        last_good,
    } = &error
    else {
        panic!("{error}");
    };
    let TrainError::Diverged { keys, .. } = &**why else {
        panic!("{why}");
    };
    assert_eq!(keys.len(), 8);
    assert!(Saved::open(last_good).is_ok());
    let message = percept_image::message(&error);
    assert!(
        message.contains("not finite") || message.contains("knowing nothing"),
        "{message}"
    );
    assert!(message.contains(&keys[0]), "{message}");
    let log = fs::read_to_string(place.folder("x").join("out.log")).unwrap();
    assert!(keys.iter().all(|key| log.contains(key.as_str())), "{log}");
}

#[test]
fn a_state_goes_with_its_towers_alone() {
    let place = Place::new();
    let config = TrainConfig {
        lock_text: true,
        steps: Some(2),
        ..place.config("x")
    };
    run(&config, Resume::New, None).unwrap();
    let again = |change: &dyn Fn(&mut TrainConfig)| {
        let mut config = config.clone();
        config.steps = Some(3);
        change(&mut config);
        run(&config, latest(&place.folder("x")), None)
    };
    let error = again(&|c| c.lock_text = false).unwrap_err().to_string();
    assert!(error.contains("locked tower"), "{error}");
    let other = format!("random:{}", config.init_text);
    let error = again(&|c| c.init_text.clone_from(&other))
        .unwrap_err()
        .to_string();
    assert!(error.contains("locked tower"), "{error}");
    let error = again(&|c| c.lock_image = true).unwrap_err().to_string();
    assert!(error.contains("locked tower"), "{error}");
    // More steps and another rate are the user's choice, and are told.
    again(&|c| c.lr = 5e-4).unwrap();
    let log = fs::read_to_string(place.folder("x").join("out.log")).unwrap();
    assert!(log.contains("changed: lr 0.001 -> 0.0005"), "{log}");
}

#[test]
fn epochs_end_when_all_pairs_were_seen() {
    let place = Place::new();
    let config = TrainConfig {
        steps: None,
        epochs: 2,
        val_fraction: 0.0,
        init_image: format!("random:{}", place.config("x").init_image),
        ema: None,
        ..place.config("x")
    };
    let ended = run(&config, Resume::New, None).unwrap();
    // 41 good pairs make five batches of eight.
    assert_eq!(ended.progress.step, 10);
    assert_eq!(ended.progress.samples, 80);
    assert!(matches!(ended.ending, Ending::Complete { .. }));
    // Once more, with nothing left to do.
    let again = run(&config, latest(&place.folder("x")), None).unwrap();
    assert_eq!(again.progress.step, 10);
    let twice = TrainConfig {
        name: Some("y".into()),
        ..config.clone()
    };
    run(&twice, Resume::New, None).unwrap();
    let last = "step_00000010.safetensors";
    let (x, y) = (
        place.checkpoints("x").join(last),
        place.checkpoints("y").join(last),
    );
    assert!(
        bits(&x) == bits(&y),
        "a drawn tower depends on more than the seed"
    );
}
