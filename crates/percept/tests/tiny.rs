//! The whole way from pixels to maps on a tiny model with random weights.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failing helper fails its test"
)]

use std::path::{Path, PathBuf};

use percept::image::RgbImage;
use percept::{
    Background, ClassBank, Classifier, Embedder, GroupOptions, Grouper, Hints, Label, Model,
    SegmentOptions, Segmenter, Size, Templates, Window, device,
};

/// A dual encoder in the layout of the public CLIPpy checkpoint: patch 16, width 32.
fn model() -> Model {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../percept-model/tests/goldens/clippy/clippy.pt");
    Model::load(&path, &Hints::default(), &device("cpu").unwrap()).unwrap()
}

fn photo(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        image_pixel(x * 7 + y * 3, x * y, x ^ y)
    })
}

fn image_pixel(r: u32, g: u32, b: u32) -> percept::image::Rgb<u8> {
    percept::image::Rgb([r as u8, g as u8, b as u8])
}

fn bank(model: &Model, labels: &[&str], background: &Background) -> ClassBank {
    let labels: Vec<Label> = labels.iter().map(|name| Label::new(*name)).collect();
    let templates = Templates::new(model.config().templates.clone()).unwrap();
    ClassBank::new(model, &labels, &templates, background).unwrap()
}

fn options(size: u32) -> SegmentOptions {
    SegmentOptions {
        size: Size::ShortSide(size),
        window: None,
    }
}

#[test]
fn any_size_in_gives_that_size_out() {
    let model = model();
    let bank = bank(&model, &["dog", "sky"], &Background::Auto);
    let segmenter = Segmenter::new(&model, &bank, &options(48)).unwrap();
    for (width, height) in [(1, 1), (1, 300), (37, 23), (200, 31), (64, 64)] {
        let result = segmenter.segment(&photo(width, height)).unwrap();
        assert_eq!(
            (result.labels.width(), result.labels.height()),
            (width, height)
        );
        let share: f32 = result.found.iter().map(|class| class.share).sum();
        assert!((share - 1.0).abs() < 1e-4);
    }
}

#[test]
fn permuting_the_labels_permutes_the_map() {
    let model = model();
    let photo = photo(90, 60);
    let segment = |labels: &[&str]| {
        let bank = bank(&model, labels, &Background::None);
        let segmenter = Segmenter::new(&model, &bank, &options(96)).unwrap();
        let result = segmenter.segment(&photo).unwrap();
        let names = bank.classes().to_vec();
        result
            .labels
            .data()
            .iter()
            .map(|index| names[usize::from(*index)].clone())
            .collect::<Vec<_>>()
    };
    let forward = segment(&["dog", "sky", "a red car", "grass"]);
    let backward = segment(&["grass", "a red car", "sky", "dog"]);
    assert_eq!(forward, backward);
    assert!(!forward.iter().any(|name| name == "background"));
}

#[test]
fn similarities_are_the_references() {
    // `similarity.a` of the parity case: [texts, rows, columns].
    use percept_checkpoint::Checkpoint;
    let folder: PathBuf =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../percept-model/tests/goldens/clippy");
    let expect = Checkpoint::open(&folder.join("expect.safetensors")).unwrap();
    let case: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(folder.join("case.json")).unwrap()).unwrap();
    let texts: Vec<&str> = case["texts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v.as_str().unwrap())
        .collect();
    let hints = Hints {
        heads: case["config"]["num_heads"].as_u64().map(|v| v as usize),
        ..Default::default()
    };
    let device = device("cpu").unwrap();
    let model = Model::load(&folder.join("clippy.pt"), &hints, &device).unwrap();
    let rows = model.encode_texts(&texts).unwrap().embeddings;
    for image in ["a", "b"] {
        let key = format!("input.{image}");
        let shape = expect.info(&key).unwrap().shape.clone();
        let pixels = percept::image::ChwImage {
            data: expect.read_f32(&key).unwrap(),
            height: shape[2],
            width: shape[3],
        };
        let grid = model.encode_images(&[pixels]).unwrap().remove(0);
        let ours = percept::SimilarityMaps::new(&grid, rows.iter().map(Vec::as_slice));
        let theirs = expect.read_f32(&format!("similarity.{image}")).unwrap();
        assert_eq!(ours.values.len(), theirs.len());
        for (a, b) in ours.values.iter().zip(&theirs) {
            assert!((a - b).abs() < 1e-5);
        }
    }
}

#[test]
fn a_thousand_labels_and_a_very_long_one() {
    let model = model();
    let mut labels: Vec<String> = (0..999).map(|i| format!("thing {i}")).collect();
    labels.push("word ".repeat(2000));
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    let bank = bank(&model, &labels, &Background::None);
    assert_eq!(bank.classes().len(), 1001);
    assert_eq!(bank.truncated().len(), 1);
    let segmenter = Segmenter::new(&model, &bank, &options(32)).unwrap();
    let result = segmenter.segment(&photo(100, 80)).unwrap();
    assert!(
        result
            .labels
            .data()
            .iter()
            .all(|index| (1..=1000).contains(index))
    );
}

#[test]
fn backgrounds_do_what_they_say() {
    let model = model();
    let photo = photo(50, 50);
    let indices = |background: &Background| {
        let bank = bank(&model, &["dog"], background);
        let segmenter = Segmenter::new(&model, &bank, &options(48)).unwrap();
        segmenter.segment(&photo).unwrap().labels.data().to_vec()
    };
    assert!(indices(&Background::None).iter().all(|i| *i == 1));
    assert!(indices(&Background::Threshold(1.0)).iter().all(|i| *i == 0));
    assert!(
        indices(&Background::Threshold(-1.0))
            .iter()
            .all(|i| *i == 1)
    );
    let words = Background::Words(vec!["wall".into(), "sky".into()]);
    assert!(indices(&words).iter().all(|i| *i <= 1));
}

#[test]
fn windows_that_hold_the_whole_image_change_little() {
    let model = model();
    let bank = bank(&model, &["dog", "sky", "grass"], &Background::None);
    let photo = photo(96, 64);
    let whole = Segmenter::new(&model, &bank, &options(64)).unwrap();
    let windowed = |side, stride| {
        let options = SegmentOptions {
            window: Some(Window { side, stride }),
            ..options(64)
        };
        let segmenter = Segmenter::new(&model, &bank, &options).unwrap();
        segmenter.segment(&photo).unwrap().labels
    };
    assert_eq!(whole.segment(&photo).unwrap().labels, windowed(96, 48));
    let pieces = windowed(32, 16);
    assert_eq!((pieces.width(), pieces.height()), (96, 64));
    let wrong = SegmentOptions {
        window: Some(Window {
            side: 32,
            stride: 64,
        }),
        ..options(64)
    };
    assert!(Segmenter::new(&model, &bank, &wrong).is_err());
}

#[test]
fn a_batch_gives_what_single_images_give() {
    let model = model();
    let bank = bank(&model, &["dog", "sky"], &Background::Auto);
    let segmenter = Segmenter::new(&model, &bank, &options(48)).unwrap();
    let photos = [photo(60, 40), photo(61, 40), photo(40, 60)];
    let prepared: Vec<_> = photos.iter().map(|p| segmenter.prepare(p)).collect();
    let grids = segmenter.encode(&prepared).unwrap();
    for (photo, grid) in photos.iter().zip(&grids) {
        let together = segmenter
            .assign(grid, photo.width(), photo.height())
            .unwrap();
        let alone = segmenter.segment(photo).unwrap();
        for (a, b) in together
            .similarity
            .values
            .iter()
            .zip(&alone.similarity.values)
        {
            assert!((a - b).abs() < 1e-5);
        }
    }
}

#[test]
fn groups_repeat_and_number_from_one() {
    let model = model();
    let grouper = Grouper::new(
        &model,
        &GroupOptions {
            groups: 4,
            size: Size::ShortSide(96),
            ..Default::default()
        },
    )
    .unwrap();
    let photo = photo(120, 90);
    let first = grouper.group(&photo).unwrap();
    assert_eq!(first.labels, grouper.group(&photo).unwrap().labels);
    assert!(
        first
            .labels
            .data()
            .iter()
            .all(|index| (1..=4).contains(index))
    );
    assert!(first.explained.windows(2).all(|pair| pair[0] >= pair[1]));
}

#[test]
fn probabilities_sum_to_one_and_are_sorted() {
    let model = model();
    let bank = bank(&model, &["dog", "sky", "grass"], &Background::None);
    let classifier = Classifier::new(&model, &bank).unwrap();
    let scores = classifier.classify(&photo(70, 50)).unwrap();
    assert_eq!(scores.len(), 3);
    assert!((scores.iter().map(|s| s.probability).sum::<f32>() - 1.0).abs() < 1e-5);
    assert!(
        scores
            .windows(2)
            .all(|pair| pair[0].cosine >= pair[1].cosine)
    );
}

#[test]
fn embeddings_have_unit_length() {
    let model = model();
    for pooling in percept::Pooling::ALL {
        let embedder = Embedder::new(&model, Some(pooling), None).unwrap();
        let grids = embedder
            .encode(&[embedder.prepare(&photo(70, 50))])
            .unwrap();
        let embedding = embedder.pool(&grids[0]);
        let length: f32 = embedding.iter().map(|v| v * v).sum();
        assert!((length - 1.0).abs() < 1e-5, "{}", pooling.name());
    }
}
