//! Shards made small, read in every way.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use percept_image::{Normalization, Rgb, RgbImage, jpeg_rgb, png_rgb};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::{DataError, Omissions};

const SIZE: u32 = 8;

/// A folder of shards.
struct Shards(TempDir);

impl Shards {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, members: &[(&str, &[u8])]) -> &Self {
        fs::write(self.path(name), archive(members)).unwrap();
        self
    }

    /// Shards `0.tar`, `1.tar` … with so many samples each, `S-N` with the caption `about S-N`.
    fn fill(&self, counts: &[usize]) -> &Self {
        for (shard, &count) in counts.iter().enumerate() {
            let samples: Vec<_> = (0..count).map(|at| sample(shard, at)).collect();
            let members: Vec<(&str, &[u8])> = (samples.iter().flatten())
                .map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
                .collect();
            self.write(&format!("{shard}.tar"), &members);
        }
        self
    }

    fn open(&self, options: PairOptions) -> Arc<PairSource> {
        let pattern = self.path("*.tar");
        Arc::new(PairSource::webdataset(pattern.to_str().unwrap(), options).unwrap())
    }

    fn all(&self) -> Arc<PairSource> {
        self.open(PairOptions::default())
    }
}

/// A value with a change to it.
fn with<T>(mut value: T, change: impl FnOnce(&mut T)) -> T {
    change(&mut value);
    value
}

fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, name, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

/// A photo whose colours tell it from others.
fn photo(a: usize, b: usize) -> Vec<u8> {
    let pixels = RgbImage::from_fn(12, 10, |x, y| {
        Rgb([20 * x as u8, 20 * y as u8, (40 * a + 5 * b) as u8])
    });
    jpeg_rgb(&pixels, 90).unwrap()
}

fn sample(shard: usize, at: usize) -> [(String, Vec<u8>); 2] {
    let key = format!("{shard}-{at}");
    let caption = format!(" about {key}\n").into_bytes();
    [
        (format!("{key}.jpg"), photo(shard, at)),
        (format!("{key}.txt"), caption),
    ]
}

fn augment() -> Augment {
    Augment::train(SIZE, Normalization::OPENAI)
}

fn options(batch_size: usize) -> LoaderOptions {
    LoaderOptions {
        batch_size,
        threads: 2,
        prefetch: 2,
        last: LastBatch::Drop,
    }
}

/// Damaged shards are errors.
fn stop() -> PairOptions {
    with(PairOptions::default(), |x| x.damaged = Damaged::Stop)
}

fn order(seed: u64) -> PairOrder {
    with(PairOrder::default(), |x| {
        (x.seed, x.sampling) = (seed, Sampling::Shuffled { buffer: 4 })
    })
}

/// From the start of epoch 0.
fn load(source: &Arc<PairSource>, order: PairOrder, batch: usize) -> PairLoader {
    load_with(source, order, options(batch), Position::default())
}

fn load_with(
    source: &Arc<PairSource>,
    order: PairOrder,
    options: LoaderOptions,
    start: Position,
) -> PairLoader {
    PairLoader::new(source.clone(), order, augment(), options, start).unwrap()
}

fn refused(source: &Arc<PairSource>, order: PairOrder) -> String {
    let start = Position::default();
    message(PairLoader::new(
        source.clone(),
        order,
        augment(),
        options(1),
        start,
    ))
}

fn batches(loader: PairLoader) -> Vec<PairBatch> {
    loader.map(|batch| batch.unwrap()).collect()
}

fn keys(source: &Arc<PairSource>, order: PairOrder, epoch: u64) -> Vec<String> {
    let loader = load_with(source, order, options(1), Position::epoch(epoch));
    batches(loader).into_iter().flat_map(|b| b.keys).collect()
}

fn sorted<T: Ord>(mut list: Vec<T>) -> Vec<T> {
    list.sort();
    list
}

#[track_caller]
fn says(text: &str, part: &str) {
    assert!(text.contains(part), "{text}");
}

fn message<T>(result: Result<T, DataError>) -> String {
    result.err().unwrap().to_string()
}

#[test]
fn an_epoch_has_every_sample_once_in_an_order_of_its_own() {
    let shards = Shards::new();
    let source = shards.fill(&[5, 7, 3, 6]).all();
    assert_eq!(source.samples().unwrap(), 21);
    let in_order = with(order(0), |x| x.sampling = Sampling::InOrder);
    let listed = keys(&source, in_order, 0);
    assert_eq!(listed[..6], ["0-0", "0-1", "0-2", "0-3", "0-4", "1-0"]);
    let first = keys(&source, order(1), 0);
    assert_eq!(sorted(first.clone()), sorted(listed.clone()));
    assert_eq!(first, keys(&shards.all(), order(1), 0));
    let others = [
        keys(&source, order(1), 1),
        keys(&source, order(2), 0),
        listed,
    ];
    for other in &others {
        assert_eq!(sorted(other.clone()), sorted(first.clone()));
        assert_ne!(*other, first);
    }
    // Captions go with their photos, and the last, smaller batch is kept only if asked for.
    for batch in batches(load(&source, order(1), 4)) {
        assert_eq!(batch.images.len(), 4);
        for (key, caption) in batch.keys.iter().zip(&batch.captions) {
            assert_eq!(*caption, format!("about {key}"));
        }
    }
    let sizes = |last| -> Vec<usize> {
        let options = with(options(4), |x| x.last = last);
        let batches = batches(load_with(&source, order(1), options, Position::default()));
        batches.iter().map(|b| b.images.len()).collect()
    };
    assert_eq!(sizes(LastBatch::Drop), [4; 5]);
    assert_eq!(sizes(LastBatch::Keep), [4, 4, 4, 4, 4, 1]);
}

#[test]
fn a_photo_has_as_many_views_as_there_are_in_every_run() {
    let shards = Shards::new();
    let source = shards.fill(&[5, 4]).all();
    // Epochs of runs of several seeds, with the inputs that each photo became.
    let seen = |views: Option<u32>, seeds: std::ops::Range<u64>| {
        let mut seen: HashMap<String, HashSet<Vec<u32>>> = HashMap::new();
        for seed in seeds {
            let order = with(order(seed), |x| x.views = views);
            for epoch in 0..8 {
                let loader = load_with(&source, order, options(1), Position::epoch(epoch));
                for batch in batches(loader) {
                    let bits = batch.images[0].data.iter().map(|v| v.to_bits()).collect();
                    seen.entry(batch.keys[0].clone()).or_default().insert(bits);
                }
            }
        }
        seen
    };
    let numbers = |seen: &HashMap<String, HashSet<Vec<u32>>>| -> Vec<usize> {
        seen.values().map(HashSet::len).collect()
    };
    // Photos are small: two crops may be the same pixels.
    let some = seen(Some(2), 0..2);
    let found = numbers(&some);
    assert!(
        found.len() == 9 && found.iter().all(|n| *n <= 2),
        "{found:?}"
    );
    assert!(found.iter().sum::<usize>() > 13, "{found:?}");
    assert_eq!(seen(Some(2), 5..7), some);
    let always = numbers(&seen(None, 0..2));
    assert!(always.iter().all(|n| *n > 2), "{always:?}");
}

#[test]
fn ranks_share_the_samples() {
    let shards = Shards::new();
    let source = shards.fill(&[5, 7, 3, 6]).all();
    for (world, sampling) in [
        (2, order(3).sampling),
        (4, Sampling::InOrder),
        // Fewer shards than processes: samples are dealt.
        (7, order(3).sampling),
    ] {
        let dealt = with(order(3), |x| (x.world, x.sampling) = (world, sampling));
        let rank = |rank| keys(&source, with(dealt, |x| x.rank = rank), 5);
        let ranks: Vec<Vec<String>> = (0..world).map(rank).collect();
        let all: HashSet<&String> = ranks.iter().flatten().collect();
        assert_eq!(all.len(), 21);
        assert_eq!(ranks.iter().flatten().count(), 21);
        if world == 7 {
            assert!(ranks.iter().all(|rank| rank.len() == 3));
        }
    }
    let bad = with(order(0), |x| (x.rank, x.world) = (2, 2));
    assert_eq!(refused(&source, bad), "rank 2 of 2 processes");
}

#[test]
fn an_epoch_of_set_length_goes_round() {
    let shards = Shards::new();
    let source = shards.fill(&[5, 4]).all();
    let counts = |order| {
        let mut counts = HashMap::new();
        for key in keys(&source, order, 0) {
            *counts.entry(key).or_insert(0) += 1;
        }
        counts
    };
    let round = with(order(0), |x| x.samples_per_epoch = Some(40));
    let twice = with(round, |x| x.world = 2);
    assert_eq!(counts(round).values().sum::<i32>(), 40);
    assert!(counts(round).values().all(|n| (3..=6).contains(n)));
    assert_eq!(counts(twice).values().sum::<i32>(), 20);
    let fewer = with(order(0), |x| x.samples_per_epoch = Some(3));
    assert_eq!(counts(fewer).len(), 3);
    let sampling = Sampling::Resampled { buffer: 3 };
    let resampled = with(round, |x| x.sampling = sampling);
    assert_eq!(counts(resampled).values().sum::<i32>(), 40);
    let other = with(resampled, |x| (x.world, x.rank) = (2, 1));
    assert_ne!(counts(resampled), counts(other));
    let endless = with(resampled, |x| x.samples_per_epoch = None);
    says(&refused(&source, endless), "samples per epoch must be set");
}

/// A set with every third sample bad.
fn spoilt(shards: &Shards) {
    shards.fill(&[4, 4]);
    let photo = photo(3, 3);
    shards.write(
        "2.tar",
        &[
            ("broken.jpg", &photo[..photo.len() / 2]),
            ("broken.txt", b"cut short"),
            ("good.jpg", &photo),
            ("good.txt", b"good"),
            ("noise.png", b"no photo"),
            ("noise.json", br#"{"caption": "noise"}"#),
            ("silent.jpg", &photo),
            ("blank.jpg", &photo),
            ("blank.txt", b" \n"),
            ("latin.jpg", &photo),
            ("latin.txt", b"caf\xe9"),
            ("odd.jpg", &photo),
            ("odd.json", br#"{"caption": 5}"#),
            ("bare.jpg", &photo),
            ("bare.json", br#"{"labels": ["dog"]}"#),
            ("README.txt", b"not a sample"),
            ("stats.csv", b"ignored"),
            ("folder/deep.name.jpg", &photo),
        ],
    );
}

#[test]
fn bad_samples_are_named_and_replaced() {
    let shards = Shards::new();
    spoilt(&shards);
    let source = shards.all();
    let mut loader = load(&source, order(2), 3);
    let batches: Vec<PairBatch> = loader.by_ref().map(|batch| batch.unwrap()).collect();
    assert_eq!(batches.len(), 3);
    assert!(batches.iter().all(|batch| batch.keys.len() == 3));
    let keys: HashSet<&String> = batches.iter().flat_map(|batch| &batch.keys).collect();
    assert!(keys.len() == 9 && keys.contains(&"good".to_owned()));
    let bad = loader.skipped();
    assert_eq!(bad.total, 8);
    assert!(bad.first.iter().all(|bad| bad.file == shards.path("2.tar")));
    let reason = |key| {
        let mut named = bad.first.iter().filter(|bad| bad.key == key);
        named.next().unwrap().reason.as_str()
    };
    for (key, expected) in [
        ("broken", "the image is cut short"),
        ("noise", "not an image (JPEG, PNG"),
        ("silent", "no caption (KEY.txt"),
        ("blank", "the caption is empty"),
        ("latin", "the caption is not UTF-8"),
        ("odd", "`caption` in its JSON is a number"),
        ("bare", "no `caption` or `captions`"),
        ("README", "no image (KEY.jpg"),
    ] {
        assert!(reason(key).contains(expected), "{key}: {}", reason(key));
    }
    // The counts do not depend on how far the threads have come.
    let mut again = load(&source, order(2), 3);
    let start = again.next().unwrap().unwrap();
    let skipped = start.position.sample - start.position.taken;
    assert_eq!(again.skipped().total, skipped);
}

#[test]
fn photos_that_are_odd_are_used_and_counted() {
    let shards = Shards::new();
    let whole = png_rgb(&RgbImage::from_pixel(8, 8, Rgb([9, 8, 7]))).unwrap();
    shards.write(
        "0.tar",
        &[
            // Without its end mark.
            ("cut.png", &whole[..whole.len() - 12]),
            ("cut.txt", b"cut"),
            ("whole.png", &whole),
            ("whole.txt", b"whole"),
        ],
    );
    let mut loader = load(&shards.all(), order(1), 2);
    let batch = loader.next().unwrap().unwrap();
    assert_eq!(sorted(batch.keys), ["cut", "whole"]);
    assert_eq!(batch.images[0].data, batch.images[1].data);
    let told = ["photos read in spite of a missing end mark: 1 (0.tar: cut)"];
    assert_eq!(left_out(&loader.skipped().omissions), told);
    assert_eq!(loader.skipped().total, 0);
}

#[test]
fn a_run_goes_on_where_it_stopped() {
    let shards = Shards::new();
    spoilt(&shards);
    let source = shards.all();
    let round = with(order(9), |x| x.samples_per_epoch = Some(30));
    let resampled = with(round, |x| x.sampling = Sampling::Resampled { buffer: 4 });
    for order in [order(9), round, resampled] {
        let run = |source: &_, size, start| batches(load_with(source, order, options(size), start));
        let whole = run(&source, 1, Position::epoch(4));
        assert!(whole.len() >= 9);
        for (at, batch) in whole.iter().enumerate() {
            let saved = serde_json::to_string(&batch.position).unwrap();
            let position: Position = serde_json::from_str(&saved).unwrap();
            let rest = run(&shards.all(), 1, position);
            assert!(rest == whole[at + 1..], "after {position:?}");
        }
        // Other batches, the same samples.
        let images = |batches: Vec<PairBatch>| {
            let images = batches.into_iter().flat_map(|batch| batch.images);
            images.take(9).collect::<Vec<_>>()
        };
        let threes = run(&source, 3, Position::epoch(4));
        assert!(images(threes) == images(whole));
    }
}

#[test]
fn threads_change_nothing() {
    let shards = Shards::new();
    spoilt(&shards);
    let source = shards.all();
    let run = |threads, prefetch, epoch| {
        let options = with(options(2), |x| {
            (x.threads, x.prefetch) = (threads, prefetch)
        });
        batches(load_with(
            &source,
            order(1),
            options,
            Position::epoch(epoch),
        ))
    };
    let one = run(1, 1, 0);
    assert!(one == run(4, 1, 0) && one == run(4, 5, 0));
    // The same photos, cut otherwise in the next epoch.
    let by_key = |batches: Vec<PairBatch>| -> HashMap<String, _> {
        let pairs = batches
            .into_iter()
            .flat_map(|b| b.keys.into_iter().zip(b.images));
        pairs.collect()
    };
    let (one, next) = (by_key(one), by_key(run(2, 2, 1)));
    let both = one.iter().filter(|(key, _)| next.contains_key(*key));
    let same = both
        .clone()
        .filter(|(key, image)| next.get(*key) == Some(image));
    assert!(both.count() >= 7 && same.count() <= 3);
    // Threads end with the loader, in the middle of their work.
    let mut loader = load(&source, order(1), 2);
    loader.next().unwrap().unwrap();
    assert!(Arc::strong_count(&source) > 1);
    drop(loader);
    assert_eq!(Arc::strong_count(&source), 1);
}

#[test]
fn a_set_of_nothing_good_is_an_error() {
    let shards = Shards::new();
    shards.write(
        "0.tar",
        &[("a.jpg", b"no"), ("a.txt", b"a"), ("b.txt", b"b")],
    );
    let source = shards.all();
    for samples_per_epoch in [None, Some(1000)] {
        let order = with(order(0), |x| x.samples_per_epoch = samples_per_epoch);
        let mut loader = load(&source, order, 2);
        let error = message(loader.next().unwrap());
        says(&error, "no batch of 2 samples: there are 0 usable ones");
        says(&error, "0.tar: ");
        assert!(loader.next().is_none());
    }
    // Too few for a batch, but enough to evaluate.
    shards.fill(&[3]);
    let source = shards.all();
    let error = message(load(&source, order(0), 4).next().unwrap());
    assert!(
        error.ends_with(": no batch of 4 samples: there are 3 usable ones"),
        "{error}"
    );
    let options = with(options(4), |x| x.last = LastBatch::Keep);
    let eval = Augment::eval(SIZE, Normalization::OPENAI);
    let loader = PairLoader::new(source, order(0), eval, options, Position::default()).unwrap();
    assert_eq!(batches(loader)[0].images.len(), 3);
}

#[test]
fn damaged_shards_are_named() {
    let shards = Shards::new();
    let whole = fs::read(shards.fill(&[2, 2]).path("1.tar")).unwrap();
    for (content, expected) in [
        (
            &whole[..700],
            "1.tar: the shard is cut short: it has 700 bytes, and should go on to byte 1536 for `1-0.jpg`",
        ),
        (
            &whole[..whole.len() - 1024 - 600],
            "1.tar: the shard is cut short",
        ),
        (&[][..], "1.tar: the file is empty"),
        (&[0x1f, 0x8b].repeat(600), "1.tar: a compressed archive"),
        (&b"<html>".repeat(200), "1.tar: no tar archive"),
    ] {
        fs::write(shards.path("1.tar"), content).unwrap();
        let error = message(shards.open(stop()).samples());
        says(&error, expected);
        // A run gives what comes before, then says why there is no more.
        let in_order = with(order(0), |x| x.sampling = Sampling::InOrder);
        let mut loader = load(&shards.open(stop()), in_order, 1);
        assert_eq!(loader.by_ref().take(2).filter(Result::is_ok).count(), 2);
        assert!(message(loader.next().unwrap()).contains(expected));
        assert!(loader.next().is_none());
    }
    // Any cut and any flipped byte: an error or fewer samples, never a panic.
    for at in (0..whole.len()).step_by(97) {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x55;
        for bytes in [&whole[..at], &flipped] {
            fs::write(shards.path("1.tar"), bytes).unwrap();
            let _ = (shards.all().samples(), shards.open(stop()).samples());
        }
    }
}

#[test]
fn members_of_any_shape_are_found() {
    let shards = Shards::new();
    let photo = photo(1, 1);
    let long = format!("{}/{}", "folder".repeat(30), "n".repeat(150));
    let mut bytes = archive(&[
        ("./a/b.c/d.jpg", &photo),
        // Photos first, captions after them.
        ("e.JPEG", &photo),
        (&format!("{long}.jpg"), &photo),
        ("a/b.c/d.txt", b"folder"),
        ("e.txt", b"capitals"),
        (&format!("{long}.txt"), b"long"),
    ]);
    // A member that states more bytes than it may have, with them.
    let mut header = tar::Header::new_gnu();
    header.set_path("big.txt").unwrap();
    header.set_size((1 << 20) + 1);
    header.set_cksum();
    bytes.truncate(bytes.len() - 1024);
    bytes.extend(header.as_bytes());
    bytes.extend(vec![b'x'; (1 << 20) + 512]);
    bytes.extend(archive(&[("big.jpg", &photo)]));
    fs::write(shards.path("0.tar"), bytes).unwrap();
    let mut loader = load(&shards.all(), order(0), 3);
    let batch = loader.next().unwrap().unwrap();
    let pairs = batch.keys.iter().zip(&batch.captions);
    let pairs = sorted(pairs.map(|(k, c)| (k.as_str(), c.as_str())).collect());
    let expected = [
        ("a/b.c/d", "folder"),
        ("e", "capitals"),
        (long.as_str(), "long"),
    ];
    assert_eq!(pairs, expected);
    assert!(loader.next().is_none());
    let source = shards.all();
    let nine = with(order(0), |x| x.samples_per_epoch = Some(9));
    let mut loader = load(&source, nine, 9);
    loader.next().unwrap().unwrap();
    let bad = &loader.skipped().first[0];
    assert_eq!(
        bad.reason,
        "the caption has 1048577 bytes, over the limit of 1048576"
    );
    // A name without end.
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNULongName);
    header.set_size(1 << 17);
    header.set_cksum();
    let bytes = [header.as_bytes().as_slice(), &vec![b'x'; 1 << 17]].concat();
    fs::write(shards.path("0.tar"), bytes).unwrap();
    let error = message(shards.open(stop()).samples());
    assert!(error.ends_with("0.tar: a name of 131072 bytes"), "{error}");
}

#[test]
fn captions_are_chosen() {
    let shards = Shards::new();
    let photo = photo(0, 0);
    shards.write(
        "0.tar",
        &[
            ("both.jpg", &photo),
            ("both.txt", b"text"),
            (
                "both.json",
                br#"{"source": "x", "captions": ["one", "two", "three"]}"#,
            ),
            ("list.jpg", &photo),
            ("list.json", br#"{"captions": ["one", "two"]}"#),
            ("text.jpg", &photo),
            ("text.txt", b"text"),
            ("text.json", b"{broken"),
        ],
    );
    let heard = |captions| {
        let source = shards.open(with(PairOptions::default(), |x| x.captions = captions));
        let mut heard: HashMap<String, HashSet<String>> = HashMap::new();
        for epoch in 0..40 {
            let start = Position::epoch(epoch);
            for batch in batches(load_with(&source, order(0), options(1), start)) {
                let [key, caption] = [batch.keys, batch.captions].map(|mut list| list.remove(0));
                heard.entry(key).or_default().insert(caption);
            }
        }
        ["both", "list", "text"]
            .map(|key| sorted(heard[key].iter().cloned().collect::<Vec<_>>()).join(" "))
    };
    assert_eq!(heard(CaptionChoice::First), ["text", "one", "text"]);
    assert_eq!(
        heard(CaptionChoice::Random),
        ["one three two", "one two", "text"]
    );
}

#[test]
fn labels_come_with_the_captions_if_they_are_asked_for() {
    let shards = Shards::new();
    let photo = photo(0, 0);
    shards.write(
        "0.tar",
        &[
            ("many.jpg", &photo),
            ("many.txt", b"text"),
            ("many.json", br#"{"labels": ["dog", " ", " tennis ball "]}"#),
            ("none.jpg", &photo),
            ("none.txt", b"text"),
            ("some.jpg", &photo),
            ("some.json", br#"{"captions": ["one"], "labels": ["cat"]}"#),
            ("told.jpg", &photo),
            ("told.json", br#"{"captions": ["A boy", "two"]}"#),
        ],
    );
    let said = |labels| {
        let source = shards.open(with(PairOptions::default(), |x| x.labels = labels));
        let mut said = HashMap::new();
        for batch in batches(load_with(&source, order(0), options(1), Position::epoch(0))) {
            let caption = batch.captions[0].clone();
            said.insert(batch.keys[0].clone(), (caption, batch.labels[0].join(",")));
        }
        ["many", "none", "some", "told"].map(|key| {
            let (caption, labels) = &said[key];
            format!("{caption}: {labels}")
        })
    };
    assert_eq!(
        said(true),
        [
            "text: dog,tennis ball",
            "text: ",
            "one: cat",
            "A boy: person"
        ]
    );
    assert_eq!(said(false), ["text: ", "text: ", "one: ", "A boy: "]);
}

#[test]
fn missing_shards_are_named_with_what_is_there() {
    let shards = Shards::new();
    shards.fill(&[1, 1]);
    fs::rename(shards.path("0.tar"), shards.path("train-00000.tar")).unwrap();
    let open = |list: &str| {
        let list = list.replace("DIR", shards.0.path().to_str().unwrap());
        message(PairSource::webdataset(&list, PairOptions::default()))
    };
    let error = open("DIR/train-{00000..00002}.tar");
    says(&error, "train-00001.tar, found 1.tar, train-00000.tar in");
    says(&error, "; 2 of 3 shards are not there");
    let error = open("DIR/trian-00000.tar");
    says(&error, "did you mean");
    says(&error, "/train-00000.tar?");
    says(&open("DIR"), "/*.tar");
    says(&open("DIR/x*.tar"), "x*.tar, found");
    says(&open("{1..9999999}"), "more than 1000000 paths");
    says(&open("pipe:aws s3 cp"), "only files are read");
    assert_eq!(open(" , "), "no shards in ` , `");
}

#[test]
fn csv_rows_are_pairs() {
    let shards = Shards::new();
    for name in ["a.jpg", "b.jpg", "c.png"] {
        fs::write(shards.path(name), photo(2, 2)).unwrap();
    }
    let rows = "id\ttitle\tfilepath\n1\t\"two\nlines\"\ta.jpg\n2\tb, or not\tb.jpg\n\n\
        3\tsea\tROOT/c.png\n4\tgone\tgone.jpg\n5\t\ta.jpg\n6\n7\tagain\ta.jpg\n";
    let rows = rows.replace("ROOT", shards.0.path().to_str().unwrap());
    let csv = shards.path("pairs.tsv");
    fs::write(&csv, rows).unwrap();
    let open = |csv_options: &CsvOptions, options| PairSource::csv(&csv, csv_options, options);
    let source = open(&CsvOptions::default(), PairOptions::default());
    let source = Arc::new(source.unwrap());
    assert_eq!(source.samples().unwrap(), 7);
    let mut loader = load(&source, order(0), 2);
    let found: Vec<PairBatch> = loader.by_ref().map(|batch| batch.unwrap()).collect();
    let captions = sorted(found.into_iter().flat_map(|batch| batch.captions).collect());
    assert_eq!(captions, ["again", "b, or not", "sea", "two\nlines"]);
    let reasons = loader.skipped().first.iter().map(|bad| bad.reason.as_str());
    let reasons = sorted(reasons.collect());
    assert_eq!(loader.skipped().total, 3);
    assert!(reasons[0].contains("gone.jpg: No such file"), "{reasons:?}");
    assert_eq!(reasons[1], "1 columns, where the header has 3");
    assert_eq!(reasons[2], "the caption is empty");
    let rank = |rank| with(order(0), |x| (x.rank, x.world) = (rank, 2));
    let shared = [0, 1].map(|at| keys(&source, rank(at), 0));
    assert_eq!(shared.concat().len(), 4);
    // Rows of one photo stay in one part.
    let parts = [Part::Train, Part::Held].map(|part| {
        let part = part(HoldOut::EveryNth(2));
        let options = with(PairOptions::default(), |x| x.part = part);
        open(&CsvOptions::default(), options)
            .unwrap()
            .samples()
            .unwrap()
    });
    assert_eq!(parts.iter().sum::<u64>(), 7);
    let other = with(CsvOptions::default(), |x| {
        x.caption_column = "caption".to_owned()
    });
    let error = message(open(&other, PairOptions::default()));
    says(&error, "no column `caption`, only id, title, filepath");
}

#[test]
fn held_out_samples_are_never_trained_on() {
    let shards = Shards::new();
    shards.fill(&[20, 20, 20]);
    for hold_out in [HoldOut::Fraction(0.25), HoldOut::EveryNth(4)] {
        let [train, held] = [Part::Train(hold_out), Part::Held(hold_out)].map(|part| {
            let source = shards.open(with(PairOptions::default(), |x| x.part = part));
            keys(&source, order(0), 0)
        });
        assert!((5..25).contains(&held.len()), "{}", held.len());
        let all: HashSet<&String> = train.iter().chain(&held).collect();
        assert_eq!((all.len(), train.len() + held.len()), (60, 60));
    }
    let names: Vec<String> = (0..10_000).map(|n| format!("{n:09}")).collect();
    let share = |hold_out: HoldOut| names.iter().filter(|name| hold_out.holds(name)).count();
    for (hold_out, expected) in [
        (HoldOut::Fraction(0.1), 900..1100),
        (HoldOut::EveryNth(10), 900..1100),
        (HoldOut::Fraction(0.0), 0..1),
        (HoldOut::EveryNth(0), 0..1),
        (HoldOut::Fraction(1.0), 10_000..10_001),
        (HoldOut::EveryNth(1), 10_000..10_001),
    ] {
        assert!(expected.contains(&share(hold_out)), "{hold_out:?}");
    }
}

/// What was left out, as lines.
fn left_out(omissions: &Omissions) -> Vec<String> {
    let kinds = omissions.kinds().iter();
    kinds.map(ToString::to_string).collect()
}

/// Keys and captions of all samples, in order, and what was left out on the way.
fn told(source: &Arc<PairSource>) -> (Vec<String>, Vec<String>) {
    let in_order = with(order(0), |x| x.sampling = Sampling::InOrder);
    let mut loader = load(source, in_order, 1);
    let mut pairs = Vec::new();
    for batch in loader.by_ref() {
        let batch = batch.unwrap();
        pairs.push(format!("{}: {}", batch.keys[0], batch.captions[0]));
    }
    let mut omissions = source.omissions();
    omissions.merge(&loader.skipped().omissions);
    (pairs, left_out(&omissions))
}

/// One header and its bytes, without an end mark.
fn member(name: &str, bytes: &[u8], change: impl FnOnce(&mut tar::Header)) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_path(name).unwrap();
    header.set_size(bytes.len() as u64);
    change(&mut header);
    header.set_cksum();
    let mut all = [header.as_bytes(), bytes].concat();
    all.resize(all.len().next_multiple_of(512), 0);
    all
}

/// An extended header with these records.
fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let record = |(key, value): &(&str, &str)| {
        let rest = format!(" {key}={value}\n");
        let digits = (1..5)
            .find(|d| (d + rest.len()).to_string().len() == *d)
            .unwrap();
        format!("{}{rest}", digits + rest.len())
    };
    let text: String = records.iter().map(record).collect();
    member("PaxHeader", text.as_bytes(), |header| {
        header.set_entry_type(tar::EntryType::XHeader);
    })
}

/// The mark at the end of an archive.
const END: [u8; 1024] = [0; 1024];

#[test]
fn a_key_twice_never_mixes_photo_and_caption() {
    let shards = Shards::new();
    let [one, two] = [photo(1, 1), photo(6, 1)];
    let read = |members: &[(&str, &[u8])]| {
        shards.write("0.tar", members);
        told(&shards.all())
    };
    let apart = "samples of a name that comes twice in its shard, each read by itself";
    // A shard that was appended to, and two pairs that follow each other.
    for middle in [&[("b.jpg", one.as_slice()), ("b.txt", b"b")][..], &[]] {
        let first = [("a.jpg", one.as_slice()), ("a.txt", b"old")];
        let last = [("a.jpg", two.as_slice()), ("a.txt", b"new")];
        let (pairs, left) = read(&[&first, middle, &last].concat());
        let a: Vec<&String> = pairs.iter().filter(|pair| pair.starts_with('a')).collect();
        assert_eq!(a, ["a: old", "a: new"]);
        assert_eq!(left, [format!("{apart}: 2 (0.tar: a, 0.tar: a)")]);
    }
    // Each photo with the caption beside it.
    let source = shards.all();
    let in_order = with(order(0), |x| x.sampling = Sampling::InOrder);
    let eval = Augment::eval(SIZE, Normalization::OPENAI);
    let load = PairLoader::new(source, in_order, eval, options(1), Position::default());
    let brightest = |image: &percept_image::ChwImage| {
        let blue = &image.data[2 * image.data.len() / 3..];
        blue.iter().sum::<f32>()
    };
    let blue: Vec<f32> = batches(load.unwrap())
        .iter()
        .map(|b| brightest(&b.images[0]))
        .collect();
    assert!(blue[1] > blue[0] + 1.0, "{blue:?}");

    // A newer caption alone is none for the old photo.
    let (pairs, left) = read(&[
        ("a.jpg", &one),
        ("a.txt", b"old"),
        ("b.jpg", &one),
        ("b.txt", b"b"),
        ("a.txt", b"new"),
    ]);
    assert_eq!(pairs, ["a: old", "b: b"]);
    assert!(
        left.contains(&"samples without an image: 1 (0.tar: a)".to_owned()),
        "{left:?}"
    );
    // Which of the captions is the photo's, nobody knows.
    let (pairs, left) = read(&[
        ("b.jpg", &one),
        ("b.txt", b"b"),
        ("a.txt", b" "),
        ("a.jpg", &two),
        ("a.txt", b"cat"),
    ]);
    assert_eq!(pairs, ["b: b"]);
    assert_eq!(
        left,
        ["samples whose parts come twice in their shard: 2 (0.tar: a, 0.tar: a)"]
    );
    // Parts that are apart are joined where each comes once.
    let (pairs, left) = read(&[
        ("a.jpg", &one),
        ("b.jpg", &two),
        ("c.cls", b"1"),
        ("a.txt", b"a"),
        ("b.txt", b"b"),
    ]);
    assert_eq!(pairs, ["a: a", "b: b"]);
    assert_eq!(
        left,
        ["members passed over for the ending .cls: 1 (0.tar: c.cls)"]
    );
    // A mask beside a photo is no second photo.
    let (pairs, left) = read(&[("a.png", b"mask"), ("a.txt", b"a"), ("a.jpg", &one)]);
    assert_eq!(pairs, ["a: a"]);
    assert!(left[0].starts_with("samples of several images"), "{left:?}");
}

#[test]
fn damaged_shards_are_read_up_to_the_damage_and_counted() {
    let shards = Shards::new();
    let whole = fs::read(shards.fill(&[2, 3, 2]).path("1.tar")).unwrap();
    let second = whole
        .windows(7)
        .position(|name| name == b"1-1.jpg")
        .unwrap();
    for (content, samples, bad, damage) in [
        // In the middle of the second photo.
        (&whole[..second + 700], 5, 1, "for `1-1.jpg`; 2 samples"),
        // Between two members, where webdataset notices nothing.
        (
            &whole[..second],
            5,
            0,
            "the shard may be cut short; 1 samples",
        ),
        (&whole[..second + 100], 5, 0, "in a header; 1 samples"),
        (&[], 4, 0, "the file is empty; 0 samples"),
        (&b"<html>".repeat(200), 4, 0, "no tar archive; 0 samples"),
        (
            &[&whole[..second], &b"x".repeat(1024)].concat(),
            5,
            0,
            "no header where one should be; 1 samples",
        ),
    ] {
        fs::write(shards.path("1.tar"), content).unwrap();
        let source = shards.all();
        let (pairs, left) = told(&source);
        assert_eq!(pairs.len(), samples, "{damage}");
        let expected = "damaged shards, read up to the damage: 1 (1.tar: ";
        assert!(
            left[0].starts_with(expected) && left[0].contains(damage),
            "{left:?}"
        );
        let cut = "samples with a member that cannot be read: 1 (1.tar: 1-1)";
        assert_eq!(left[1..].iter().filter(|line| *line == cut).count(), bad);
        assert!(message(shards.open(stop()).samples()).contains("1.tar: "));
        // Listed twice, told once.
        source.samples().unwrap();
        assert_eq!(source.omissions().kinds()[0].count, 1);
    }
    // What is not read at all is no damage.
    fs::write(shards.path("1.tar"), [0x1f, 0x8b].repeat(600)).unwrap();
    says(
        &message(shards.all().samples()),
        "1.tar: a compressed archive (gzip)",
    );
    // Where nothing else is left, the damage is why.
    for shard in ["0.tar", "1.tar", "2.tar"] {
        fs::write(shards.path(shard), b"<html>").unwrap();
    }
    let error = message(load(&shards.all(), order(0), 1).next().unwrap());
    says(
        &error,
        "0 usable ones; damaged shards, read up to the damage: 3 (",
    );
}

#[test]
fn archives_of_all_writers_are_read() {
    let shards = Shards::new();
    let photo = photo(1, 1);
    let plain = |_: &mut tar::Header| {};
    let pair = |key: &str| {
        let caption = format!("about {key}");
        let parts = [
            (format!("{key}.jpg"), photo.as_slice()),
            (format!("{key}.txt"), caption.as_bytes()),
        ];
        parts
            .map(|(name, bytes)| member(&name, bytes, plain))
            .concat()
    };
    let read = |parts: &[Vec<u8>]| {
        fs::write(shards.path("0.tar"), parts.concat()).unwrap();
        told(&shards.all())
    };
    let end = END.to_vec();
    // node-tar: an extended header with the size, beside one in the header or in place of it.
    for stated in [photo.len() as u64, 0] {
        let size = photo.len().to_string();
        let named = pax(&[("path", "é.jpg"), ("mtime", "1.5"), ("size", &size)]);
        let image = member("e.jpg", &photo, |header| header.set_size(stated));
        let text = pax(&[("path", "é.txt"), ("size", "3")]);
        let caption = member("e.txt", b"say", plain);
        let (pairs, left) = read(&[named, image, text, caption, pair("b"), end.clone()]);
        assert_eq!(
            (pairs.as_slice(), left.len()),
            (["é: say", "b: about b"].map(String::from).as_slice(), 0)
        );
    }
    // `cat` of two archives: tar and webdataset end at the first end mark.
    let (pairs, left) = read(&[
        pair("a"),
        end.clone(),
        vec![0; 8192],
        pair("b"),
        end.clone(),
    ]);
    assert_eq!(pairs, ["a: about a"]);
    assert_eq!(
        left,
        [
            "members behind a shard's end mark, where `cat` joined archives, not read: 2 (0.tar: b.jpg, 0.tar: b.txt)"
        ]
    );
    let (pairs, left) = read(&[pair("a"), end.clone(), b"noise".repeat(500)]);
    assert_eq!((pairs.len(), left.len()), (1, 0));
    // Hard links are the files they name, symbolic ones are not followed.
    let link = |name: &str, to: &str, kind| {
        member(name, b"", |header| {
            header.set_entry_type(kind);
            header.set_link_name(to).unwrap();
            // GNU tar leaves 0, others the size of the file.
            header.set_size(photo.len() as u64);
        })
    };
    let caption = |name: &str, text: &str| member(name, text.as_bytes(), plain);
    let (pairs, left) = read(&[
        pair("a"),
        link("b.jpg", "./a.jpg", tar::EntryType::Link),
        caption("b.txt", "b"),
        link("c.jpg", "a.jpg", tar::EntryType::Symlink),
        caption("c.txt", "c"),
        link("d.jpg", "gone.jpg", tar::EntryType::Link),
        caption("d.txt", "d"),
        end.clone(),
    ]);
    assert_eq!(pairs, ["a: about a", "b: b"]);
    assert_eq!(
        left,
        ["samples with a member that cannot be read: 2 (0.tar: c, 0.tar: d)"]
    );
    // Sparse files in all their forms are named, and do not put out what follows.
    let gnu = member("s.jpg", &[vec![0; 512], photo.clone()].concat(), |header| {
        header.set_entry_type(tar::EntryType::GNUSparse);
        header.set_size(photo.len() as u64);
        header.as_mut_bytes()[482] = 1;
    });
    let posix = [
        pax(&[
            ("GNU.sparse.major", "1"),
            ("GNU.sparse.name", "s.jpg"),
            ("path", "GNUSparseFile.1/s.jpg"),
        ]),
        member("GNUSparseFile.1/s.jpg", &photo, plain),
    ];
    for sparse in [gnu, posix.concat()] {
        let (pairs, left) = read(&[sparse, caption("s.txt", "s"), pair("b"), end.clone()]);
        assert_eq!(pairs, ["b: about b"]);
        assert_eq!(
            left,
            ["samples with a member that cannot be read: 1 (0.tar: s)"]
        );
    }
    // An archive of nothing is whole.
    fs::write(shards.path("0.tar"), [0; 10240]).unwrap();
    let empty = shards.all();
    assert_eq!(empty.samples().unwrap(), 0);
    assert_eq!(
        left_out(&empty.omissions()),
        ["shards without a sample: 1 (0.tar)"]
    );
    // Names that begin as compressed files do.
    let (pairs, _) = read(&[pair("BZhang"), end.clone()]);
    assert_eq!(pairs, ["BZhang: about BZhang"]);
    // Names that are none of a sample.
    let (pairs, left) = read(&[
        member("folder/", b"", |header| {
            header.set_entry_type(tar::EntryType::Directory)
        }),
        member("global", b"11 comment=\n", |header| {
            header.set_entry_type(tar::EntryType::XGlobalHeader)
        }),
        pair("./a"),
        member("a/._x.jpg", b"mac", plain),
        member("__meta__/x.jpg", &photo, plain),
        member("www.a.org_1.jpg", &photo, plain),
        member("README", b"text", plain),
        pair("a/a"),
        end,
    ]);
    assert_eq!(pairs, ["a: about ./a", "a/a: about a/a"]);
    assert_eq!(
        left,
        [
            "members whose name begins with a dot, not read: 1 (0.tar: a/._x.jpg)",
            "members of webdataset's own (__…__), not read: 1 (0.tar: __meta__/x.jpg)",
            "members not read since their key ends at their name's first dot: 1 (0.tar: www.a.org_1.jpg)",
            "members whose name has no ending, not read: 1 (0.tar: README)",
        ]
    );
}

#[test]
fn captions_are_read_as_tools_leave_them() {
    let shards = Shards::new();
    let photo = photo(0, 0);
    let texts: [(&str, &[u8]); 8] = [
        (
            "nan.json",
            br#"{"caption": "nan beside", "similarity": NaN}"#,
        ),
        (
            "odd.json",
            br#"{"caption": "odd labels", "labels": [1, 2]}"#,
        ),
        ("list.json", br#"{"caption": ["one", "two"]}"#),
        ("mark.txt", b"\xef\xbb\xbfmarked"),
        ("null.json", br#"{"caption": null}"#),
        ("number.json", br#"{"caption": 7}"#),
        ("wide.txt", b"\xff\xfea\0"),
        ("zero.txt", "\u{200b}\u{a0}".as_bytes()),
    ];
    let mut members: Vec<(String, &[u8])> = Vec::new();
    for (name, text) in texts {
        let key = name.split('.').next().unwrap();
        members.extend([
            (format!("{key}.jpg"), photo.as_slice()),
            (name.to_owned(), text),
        ]);
    }
    let members: Vec<(&str, &[u8])> = members.iter().map(|(n, b)| (n.as_str(), *b)).collect();
    shards.write("0.tar", &members);
    let (pairs, left) = told(&shards.all());
    assert_eq!(
        pairs,
        [
            "nan: nan beside",
            "odd: odd labels",
            "list: one",
            "mark: marked"
        ]
    );
    assert_eq!(
        left,
        [
            "samples without a caption: 1 (0.tar: null)",
            "samples whose caption or labels cannot be read: 2 (0.tar: number, 0.tar: wide)",
            "samples with an empty caption: 1 (0.tar: zero)",
        ]
    );
    // Labels that are asked for are not guessed where they are odd.
    let source = shards.open(with(PairOptions::default(), |x| x.labels = true));
    let (pairs, left) = told(&source);
    assert_eq!(pairs.len(), 3);
    assert!(
        left[0].ends_with("labels cannot be read: 3 (0.tar: odd, 0.tar: number, 0.tar: wide)"),
        "{left:?}"
    );
    // Captions that are asked for and cannot be read are told.
    shards.write(
        "0.tar",
        &[
            ("a.jpg", &photo),
            ("a.txt", b"text"),
            ("a.json", br#"{"captions": [1]}"#),
        ],
    );
    let random = with(PairOptions::default(), |x| {
        x.captions = CaptionChoice::Random
    });
    let (pairs, left) = told(&shards.open(random));
    assert_eq!(pairs, ["a: text"]);
    assert_eq!(
        left,
        ["samples whose JSON cannot be read, of which the .txt is used: 1 (0.tar: a)"]
    );
}

#[test]
fn images_of_a_pixel_show_nothing() {
    let shards = Shards::new();
    let line = jpeg_rgb(&RgbImage::from_fn(40, 1, |x, _| Rgb([x as u8; 3])), 90).unwrap();
    let good = photo(0, 0);
    shards.write(
        "0.tar",
        &[
            ("a.jpg", &good),
            ("a.txt", b"a"),
            ("b.jpg", &line),
            ("b.txt", b"b"),
        ],
    );
    let (pairs, left) = told(&shards.all());
    assert_eq!(pairs, ["a: a"]);
    let kind = "samples whose image cannot be decoded or shows nothing: 1 (0.tar: b)";
    assert_eq!(left, [kind]);
}

/// A CSV beside photos `0.jpg` to `11.jpg`, as text or in other bytes.
fn csv_of(
    shards: &Shards,
    content: impl AsRef<[u8]>,
    quoting: Quoting,
) -> Result<Arc<PairSource>, DataError> {
    for at in 0..12 {
        fs::write(shards.path(&format!("{at}.jpg")), photo(1, at)).unwrap();
    }
    let csv = shards.path("pairs.csv");
    fs::write(&csv, content).unwrap();
    let options = with(CsvOptions::default(), |x| x.quoting = quoting);
    PairSource::csv(&csv, &options, PairOptions::default()).map(Arc::new)
}

#[test]
fn rows_in_a_quote_are_refused_with_the_row() {
    let shards = Shards::new();
    let rows = |captions: &[(usize, &str)]| {
        let row = |at: usize| {
            let named = captions.iter().find(|(of, _)| *of == at);
            let caption = named.map_or(format!("a dog {at}"), |(_, text)| (*text).to_owned());
            format!("{at}.jpg\t{caption}\n")
        };
        format!("filepath\ttitle\n{}", (0..12).map(row).collect::<String>())
    };
    let read = |text: &str| csv_of(&shards, text, Quoting::Minimal);
    let never = rows(&[(3, "\"Fluffy, the dog")]);
    let error = message(read(&never));
    says(
        &error,
        "pairs.csv: row 4: a quote is opened in it and never closed; ",
    );
    says(&error, "`--csv-quoting none`");
    // Closed by the quote of another row, with and without more behind it.
    for close in ["\"a dog named so", "a 5\"", "a \"good\" dog"] {
        let late = rows(&[(3, "\"Fluffy, the dog"), (9, close)]);
        says(
            &message(read(&late)),
            "pairs.csv: row 4: a quote is opened in it and closed in a later row",
        );
    }
    // Without quoting all are letters.
    let source = csv_of(&shards, &never, Quoting::None).unwrap();
    let (pairs, left) = told(&source);
    assert_eq!((pairs.len(), left.len()), (12, 0));
    assert_eq!(pairs[3], "3.jpg: \"Fluffy, the dog");
    // What pandas reads as it is meant.
    let within = rows(&[
        (3, "\"Fluffy\" the dog"),
        (5, "5\" screen"),
        (9, "\"two\nlines, a \"\"dog\"\"\""),
    ]);
    let (pairs, _) = told(&read(&within).unwrap());
    assert_eq!(pairs.len(), 12);
    assert_eq!(
        [&pairs[3], &pairs[5], &pairs[9]],
        [
            "3.jpg: Fluffy the dog",
            "5.jpg: 5\" screen",
            "9.jpg: two\nlines, a \"dog\""
        ]
    );
}

#[test]
fn csvs_of_all_writers_are_read_or_named() {
    let shards = Shards::new();
    let read = |text: &[u8]| csv_of(&shards, text, Quoting::Minimal).map(|source| told(&source));
    let rows = |separator: &str, end: &str| {
        let rows = (0..12).map(|at| format!("{at}.jpg{separator}dog {at}{end}"));
        format!("filepath{separator}title{end}{}", rows.collect::<String>())
    };
    let quoted = rows("\",\"", "\"\n")
        .replace("\n", "\n\"")
        .replacen("", "\"", 1);
    for text in [
        rows(",", "\n"),
        rows("\t", "\r\n"),
        rows(";", "\n"),
        rows("|", "\n"),
        rows(",", "\r"),
        format!("\u{feff}{}", rows(",", "\n")),
        // Excel, and pandas with `utf-8-sig` and QUOTE_ALL.
        format!("\u{feff}{}", quoted.trim_end_matches('"')),
        rows(",", "\n")
            .replace("title", "title,\"no\tte\"")
            .replace('\n', ",x\n")
            .replace("te\",x", "te\""),
        rows(",", "\n\n \t\n"),
    ] {
        let (pairs, left) = read(text.as_bytes()).unwrap();
        assert_eq!(pairs.len(), 12, "{text}");
        assert_eq!(
            (pairs[11].as_str(), left.len()),
            ("11.jpg: dog 11", 0),
            "{text}"
        );
    }
    // Two bytes a letter.
    let wide: Vec<u8> = rows(",", "\n")
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    says(&message(read(&wide)), "zero bytes in the beginning");
    let marked = [b"\xff\xfe".as_slice(), &wide].concat();
    says(&message(read(&marked)), "pairs.csv: UTF-16");
    says(&message(read(b"")), "no header, and no rows");
    says(
        &message(read(b"sep=;\nfilepath;title\n")),
        "no column `filepath`, only sep=",
    );
    // Captions that are none, and rows of another width.
    let odd = "filepath,title,x\n0.jpg,nan,1\n1.jpg,,1\n2.jpg,null,1\n3.jpg,\"NA\",1\n4.jpg, \u{a0},1\n\
        5.jpg,a dog, running,1\n6.jpg\n,a cat,1\n7.jpg,a cow\n8.jpg,a nan,1\n";
    let (pairs, left) = read(odd.as_bytes()).unwrap();
    assert_eq!(pairs, ["7.jpg: a cow", "8.jpg: a nan"]);
    assert_eq!(
        left,
        [
            "samples with an empty caption: 5 (pairs.csv: row 1, pairs.csv: row 2, pairs.csv: row 3, \
             pairs.csv: row 4, pairs.csv: row 5)",
            "rows with too many or too few columns: 3 (pairs.csv: row 6, pairs.csv: row 7, pairs.csv: row 8)",
        ]
    );
    // Photos that are no files.
    let odd = "filepath,title,title\nhttps://a.org/0.jpg,a,b\na\\0.jpg,a,b\ngone.jpg,a,b\n.,a,b\n0.jpg,first,second\n";
    let source = csv_of(&shards, odd, Quoting::Minimal).unwrap();
    let (pairs, left) = told(&source);
    assert_eq!(pairs, ["0.jpg: first"]);
    assert_eq!(
        left,
        [
            "columns whose name comes twice, of which the first is read: 1 (pairs.csv: title)",
            "rows whose photo cannot be read: 4 (pairs.csv: row 1, pairs.csv: row 2, pairs.csv: row 3, \
             pairs.csv: row 4)",
        ]
    );
    let mut loader = load(&source, order(0), 1);
    loader.by_ref().for_each(drop);
    let reasons = sorted(
        loader
            .skipped()
            .first
            .iter()
            .map(ToString::to_string)
            .collect(),
    );
    let expected = [
        "row 1: https://a.org/0.jpg: the photo is an address: only files are read",
        "row 2: a\\0.jpg: ",
        "row 3: gone.jpg: ",
        "row 4: .: ",
    ];
    for (reason, expected) in reasons.iter().zip(expected) {
        says(reason, &format!("pairs.csv: {expected}"));
    }
}

#[test]
fn sets_that_change_are_told_apart() {
    let shards = Shards::new();
    shards.fill(&[2, 2]);
    let first = shards.all().fingerprint().unwrap();
    assert_eq!(first, shards.all().fingerprint().unwrap());
    assert_eq!(first.files, 2);
    shards.write("1.tar", &[("a.txt", b"a")]);
    let changed = shards.all().fingerprint().unwrap();
    assert_ne!(first, changed);
    fs::rename(shards.path("1.tar"), shards.path("2.tar")).unwrap();
    assert_ne!(changed, shards.all().fingerprint().unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Parts of samples in any order are joined, each with its own.
    #[test]
    fn parts_in_any_order_are_joined(
        order in prop::collection::vec(any::<u64>(), 2..12),
        folders in prop::collection::vec("[a-c]{0,2}", 12),
    ) {
        let keys = order.len() / 2;
        let mut members: Vec<(u64, String, Vec<u8>)> = (0..2 * keys)
            .map(|part| {
                let (at, ending) = (part / 2, ["jpg", "txt"][part % 2]);
                let key = format!("f{}/{at}", folders[at]);
                (order[part], format!("{key}.{ending}"), key.into_bytes())
            })
            .collect();
        members.sort();
        let bytes: Vec<Vec<u8>> = members.iter().map(|(_, name, bytes)| member(name, bytes, |_| {})).collect();
        let shards = Shards::new();
        fs::write(shards.path("0.tar"), [bytes.concat(), END.to_vec()].concat()).unwrap();
        let path = shards.path("0.tar");
        let listing = shard::index(&path, |_| true).unwrap();
        prop_assert_eq!(listing.entries.len(), keys);
        let mut file = fs::File::open(&path).unwrap();
        for entry in &listing.entries {
            let text = shard::read(&mut file, "", entry.text.unwrap(), 100).ok().unwrap();
            let key = String::from_utf8(text).unwrap();
            prop_assert_eq!(key.as_str(), &*entry.key);
            prop_assert!(entry.image.is_some() && entry.repeats == shard::Repeats::No);
        }
        prop_assert!(listing.omissions.is_empty() && listing.damage.is_none());
    }

    /// Whatever headers say: no panic, and no more samples than members.
    #[test]
    fn any_headers_are_read_or_refused(
        headers in prop::collection::vec((any::<u8>(), "[a./_]{0,5}(jpg|txt)?", any::<u64>(), prop::collection::vec(any::<u8>(), 0..700)), 1..6),
        cut in 0_usize..6000,
    ) {
        let mut bytes = Vec::new();
        for (kind, name, size, body) in &headers {
            bytes.extend(member("x", body, |header| {
                header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
                // Often a kind that there is, and a size that is true.
                let kinds = *b"00012LKxgSX";
                header.as_mut_bytes()[156] = match kind % 2 {
                    0 => kinds[*kind as usize % kinds.len()],
                    _ => *kind,
                };
                if size % 3 == 0 {
                    header.set_size(*size);
                }
            }));
        }
        bytes.truncate(cut);
        let shards = Shards::new();
        fs::write(shards.path("0.tar"), &bytes).unwrap();
        if let Ok(listing) = shard::index(&shards.path("0.tar"), |_| true) {
            prop_assert!(listing.entries.len() <= headers.len());
        }
    }

    /// Whatever the shards, processes and buffer: each sample once, and any suffix from its position.
    #[test]
    fn streams_are_exact(
        counts in prop::collection::vec(0_usize..9, 1..6),
        world in 1_u32..5,
        buffer in 1_usize..12,
        seed: u64,
    ) {
        let shards = Shards::new();
        let source = shards.fill(&counts).all();
        let mut all = Vec::new();
        for rank in 0..world {
            let sampling = Sampling::Shuffled { buffer };
            let order = PairOrder { seed, rank, world, sampling, samples_per_epoch: None, views: None };
            let from = |sample| {
                let position = Position { sample, ..Position::epoch(7) };
                let mut stream = order::Stream::new(source.clone(), order, position).unwrap();
                let next = || stream.next().unwrap().map(|at| (at.place.unit, at.place.sample));
                std::iter::from_fn(next).collect::<Vec<_>>()
            };
            let whole = from(0);
            for at in 0..=whole.len() {
                prop_assert_eq!(&from(at as u64), &whole[at..]);
            }
            all.extend(whole);
        }
        let expected = counts.iter().enumerate().flat_map(|(unit, &count)| {
            (0..count as u32).map(move |at| (unit as u32, at))
        });
        prop_assert_eq!(sorted(all), expected.collect::<Vec<_>>());
    }
}

/// The shards that stand beside the project on machines that have them.
#[test]
fn real_shards_are_read() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/train");
    if !data.is_dir() {
        println!("SKIPPED: no {}", data.display());
        return;
    }
    let list = data.join("{00000..00011}.tar");
    let source = PairSource::webdataset(list.to_str().unwrap(), PairOptions::default()).unwrap();
    assert_eq!(source.samples().unwrap(), 5711);
    let augment = Augment::train(224, Normalization::IMAGENET);
    let (order, start) = (PairOrder::default(), Position::default());
    let mut loader = PairLoader::new(Arc::new(source), order, augment, options(32), start).unwrap();
    let batch = loader.next().unwrap().unwrap();
    let pixels = 3 * 224 * 224;
    assert!(batch.images.iter().all(|image| image.data.len() == pixels));
    assert_eq!(loader.skipped().total, 0);
}
