//! `percept eval` and `percept data` as their users meet them, on sets made here.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failing helper fails its test"
)]

mod common;

use std::path::Path;
use std::process::Output;

use percept::LabelMap;
use percept::image::{Rgb, RgbImage, jpeg_rgb, mask_png, png_rgb};
use serde_json::Value;
use tempfile::TempDir;

use crate::common::{expect, percept_in, text, tiny};
/// Runs percept on the tiny model.
fn percept(args: &[&str]) -> Output {
    let empty = tempfile::tempdir().unwrap();
    percept_in(empty.path())
        .env("PERCEPT_MODEL", tiny())
        .args(args)
        .output()
        .unwrap()
}
fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}
/// The result that `--json` prints.
fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}{}", text(&output.stdout), text(&output.stderr)))
}

/// Photos of 24 x 20 pixels with a red or a blue square on green, and their masks.
fn squares(photos: usize) -> TempDir {
    let set = tempfile::tempdir().unwrap();
    for folder in ["images", "masks"] {
        std::fs::create_dir(set.path().join(folder)).unwrap();
    }
    std::fs::write(
        set.path().join("classes.txt"),
        "background\nred square, red\nblue square\n",
    )
    .unwrap();
    for i in 0..photos {
        let class = 1 + (i % 2) as u16;
        let is_square = |x: u32, y: u32| (4..16).contains(&x) && (4..14).contains(&y);
        let photo = RgbImage::from_fn(24, 20, |x, y| match (is_square(x, y), class) {
            (true, 1) => Rgb([220, 20, 20]),
            (true, _) => Rgb([20, 20, 220]),
            (false, _) => Rgb([30, 120 + (i % 100) as u8, 30]),
        });
        let mask = LabelMap::from_fn(24, 20, |x, y| if is_square(x, y) { class } else { 0 });
        let write = |folder: &str, bytes: Vec<u8>| {
            std::fs::write(set.path().join(folder).join(format!("{i:04}.png")), bytes).unwrap();
        };
        write("images", png_rgb(&photo).unwrap());
        write("masks", mask_png(&mask).unwrap());
    }
    set
}

/// Evaluates a set of squares with a small input.
fn eval_custom(set: &TempDir, rest: &[&str]) -> Output {
    let mut args = vec!["eval", "custom", "--data", path(set.path()), "--json"];
    args.extend(["--set", "image.size=32", "--set", "truth.resize=20"]);
    args.extend(rest);
    percept(&args)
}

#[test]
fn two_thousand_photos_with_a_broken_one_are_counted_and_named() {
    let set = squares(2000);
    std::fs::write(set.path().join("images/0777.png"), "no photo").unwrap();
    let out = tempfile::tempdir().unwrap();
    let output = eval_custom(&set, &["--out", path(out.path()), "--batch-size", "16"]);
    expect(&output, 1, "0777");
    expect(&output, 1, "1 of 2000 photos failed, 1999 done");
    let result = json(&output);
    assert_eq!(result["counts"]["samples"], 2000);
    assert_eq!(result["counts"]["done"], 1999);
    assert_eq!(result["failures"][0]["sample"], "0777");
    // Every pixel of every other photo is in the confusion matrix once.
    let counted: u64 = result["confusion"]["counts"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|row| row.as_array().unwrap())
        .map(|count| count.as_u64().unwrap())
        .sum();
    assert_eq!(counted, 1999 * 20 * 20);
    for file in ["result.json", "result.md", "report.html"] {
        let content = std::fs::read_to_string(out.path().join(file)).unwrap();
        assert!(content.contains("0777"), "{file}");
    }
    let records = std::fs::read_to_string(out.path().join("records.jsonl")).unwrap();
    assert_eq!(records.lines().count(), 2001);
}

/// A photo as JPEG, its EXIF asking to be shown as `orientation` says.
fn jpeg_turned(photo: &RgbImage, orientation: u8) -> Vec<u8> {
    let jpeg = jpeg_rgb(photo, 95).unwrap();
    let mut exif =
        b"\xff\xe1\x00\x22Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
    exif.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
    [&jpeg[..2], &exif, &jpeg[2..]].concat()
}

/// Lines of what a result says was left out.
fn left_out(result: &Value) -> Vec<String> {
    let kinds = result["left_out"].as_array().unwrap().iter();
    kinds
        .map(|kind| format!("{}: {}", kind["kind"].as_str().unwrap(), kind["count"]))
        .collect()
}

#[test]
fn photos_are_read_as_stored_where_their_masks_are_drawn() {
    // Not the same upside down: the square is at the top left.
    let photo = RgbImage::from_fn(24, 20, |x, y| match (x < 12, y < 8) {
        (true, true) => Rgb([220, 20, 20]),
        _ => Rgb([30, 120, 30]),
    });
    let upside_down = RgbImage::from_fn(24, 20, |x, y| *photo.get_pixel(23 - x, 19 - y));
    let mask = LabelMap::from_fn(24, 20, |x, y| u16::from(x < 12 && y < 8));
    let eval = |orientation: u8, photo: &RgbImage, rest: &[&str]| {
        let set = tempfile::tempdir().unwrap();
        for folder in ["images", "masks"] {
            std::fs::create_dir(set.path().join(folder)).unwrap();
        }
        std::fs::write(set.path().join("classes.txt"), "background\nred square\n").unwrap();
        std::fs::write(set.path().join("masks/a.png"), mask_png(&mask).unwrap()).unwrap();
        let jpeg = jpeg_turned(photo, orientation);
        std::fs::write(set.path().join("images/a.jpg"), jpeg).unwrap();
        json(&eval_custom(&set, rest))
    };
    let plain = eval(1, &photo, &[]);
    assert!(left_out(&plain).is_empty());
    assert_eq!(
        plain["settings"]["protocol"]["image"]["orientation"],
        "stored"
    );
    let upright = ["--set", "image.orientation=upright"];
    for orientation in [2, 3, 4] {
        let turned = eval(orientation, &photo, &[]);
        assert_eq!(turned["confusion"], plain["confusion"], "{orientation}");
        let kind = "photos whose EXIF asks for turning, read as stored";
        assert!(left_out(&turned)[0].starts_with(kind), "{orientation}");
    }
    // Drawn on what is shown: the stored photo is upside down, its mask is not.
    let turned = eval(3, &upside_down, &upright);
    assert!(left_out(&turned)[0].starts_with("photos turned upright as their EXIF asks"));
    let close = |result: &Value| result["metrics"]["pixel_accuracy"].as_f64().unwrap();
    // A JPEG is not the same to the last bit when it is stored upside down.
    assert!((close(&turned) - close(&plain)).abs() < 0.03);
}

#[test]
fn every_mean_iou_stands_under_its_name() {
    let set = squares(4);
    let more = "background\nred square, red\nblue square\nzebra\nviolin\n";
    std::fs::write(set.path().join("classes.txt"), more).unwrap();
    let result = json(&eval_custom(&set, &[]));
    let metric = |name: &str| result["metrics"][name].as_f64().unwrap();
    let classes = result["per_class"].as_array().unwrap();
    let mean = |keep: &dyn Fn(&Value) -> bool| {
        let kept = classes.iter().filter(|class| keep(class));
        let iou: Vec<f64> = kept
            .map(|class| class["iou"].as_f64().unwrap_or(0.0))
            .collect();
        iou.iter().sum::<f64>() / iou.len() as f64
    };
    let close = |a: f64, b: f64| (a - b).abs() < 1e-12;
    assert!(close(metric("miou_all_classes"), mean(&|_| true)));
    assert!(close(
        metric("miou_truth_or_prediction"),
        mean(&|class| !class["iou"].is_null())
    ));
    assert!(close(
        metric("miou_present"),
        mean(&|class| class["count"] != 0)
    ));
    assert_eq!(metric("miou"), metric("miou_truth_or_prediction"));
    let of = |name: &str| json(&eval_custom(&set, &["--set", name]));
    assert_eq!(
        of("score.mean_over=all")["metrics"]["miou"],
        metric("miou_all_classes")
    );
    assert_eq!(
        of("score.mean_over=truth")["metrics"]["miou"],
        metric("miou_present")
    );
}

#[test]
fn where_every_photo_fails_there_is_no_number() {
    let set = squares(2);
    for photo in ["0000", "0001"] {
        std::fs::write(set.path().join(format!("images/{photo}.png")), "no photo").unwrap();
    }
    let output = eval_custom(&set, &[]);
    expect(&output, 1, "2 of 2 photos failed, 0 done");
    let result = json(&output);
    for metric in [
        "miou",
        "miou_truth_or_prediction",
        "miou_present",
        "miou_all_classes",
        "pixel_accuracy",
    ] {
        assert_eq!(result["metrics"][metric], Value::Null, "{metric}");
        assert!(result["metrics"].get(metric).is_some());
        assert_eq!(result["missing"][metric], "no photo could be evaluated");
    }
}

#[test]
fn masks_of_0_and_255_are_told() {
    let set = squares(2);
    std::fs::write(set.path().join("classes.txt"), "background\nred square\n").unwrap();
    let mask = LabelMap::from_fn(24, 20, |x, _| if x < 10 { 255 } else { 0 });
    for name in ["0000", "0001"] {
        let path = set.path().join(format!("masks/{name}.png"));
        std::fs::write(path, mask_png(&mask).unwrap()).unwrap();
    }
    let output = eval_custom(&set, &[]);
    expect(&output, 0, "store 1 for red square): 2 (0000, 0001)");
    let result = json(&output);
    assert_eq!(result["left_out"][0]["count"], 2);
    assert_eq!(result["metrics"]["miou"], Value::Null);
    let reason = result["missing"]["miou"].as_str().unwrap();
    assert!(reason.contains("no pixel is of red square"), "{reason}");

    // One mask of two that knows the class.
    let mask = LabelMap::from_fn(24, 20, |x, _| u16::from(x < 10));
    let path = set.path().join("masks/0001.png");
    std::fs::write(path, mask_png(&mask).unwrap()).unwrap();
    let result = json(&eval_custom(&set, &[]));
    assert_eq!(result["left_out"][0]["count"], 1);
    assert!(result["metrics"]["miou"].is_number());
}

#[test]
fn masks_of_percept_need_a_background_in_the_list() {
    let set = squares(1);
    let list = set.path().join("classes.txt");
    let mask = LabelMap::from_fn(24, 20, |x, _| u16::from(x < 10));
    let own = mask_png(&mask).unwrap();
    std::fs::write(set.path().join("masks/0000.png"), own).unwrap();
    std::fs::write(&list, "red square\nblue square\n").unwrap();
    expect(
        &eval_custom(&set, &[]),
        1,
        "write `background` as the first line",
    );
    std::fs::write(&list, "background\nred square\n").unwrap();
    expect(&eval_custom(&set, &[]), 0, "");
}

#[test]
fn results_of_other_settings_or_data_are_neither_replaced_nor_resumed() {
    let (set, out) = (squares(3), tempfile::tempdir().unwrap());
    let kept = ["--out", path(out.path())];
    let eval = |rest: &[&str]| eval_custom(&set, &[&kept[..], rest].concat());
    expect(&eval(&[]), 0, "");
    expect(&eval(&[]), 0, "");
    expect(&eval(&["--resume"]), 0, "3 of 3 photos are done");
    let other = ["--set", "score.softmax=40"];
    expect(&eval(&other), 1, "of other settings (protocol.score");
    expect(&eval(&[&other[..], &["--force"]].concat()), 0, "");
    let mask = LabelMap::from_fn(24, 20, |_, _| 1);
    std::fs::write(set.path().join("masks/0001.png"), mask_png(&mask).unwrap()).unwrap();
    let resumed = eval(&[&other[..], &["--resume"]].concat());
    expect(&resumed, 1, "the data changed since it was written");
    expect(&resumed, 1, "masks/0001.png");
    std::fs::write(out.path().join("result.json"), "{\"mine\": 1}").unwrap();
    expect(&eval(&other), 1, "not a result of percept");
}

/// Folders with a photo each, and what `percept eval folder` says.
fn eval_folders(folders: &[&str], rest: &[&str]) -> Output {
    let set = tempfile::tempdir().unwrap();
    for (index, folder) in folders.iter().enumerate() {
        let path = set.path().join(folder);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let photo = RgbImage::from_pixel(20, 20, Rgb([40 * index as u8, 90, 200]));
        std::fs::write(path, png_rgb(&photo).unwrap()).unwrap();
    }
    let mut args = vec!["eval", "folder", "--data", path(set.path()), "--json"];
    args.extend(rest);
    percept(&args)
}

#[test]
fn class_folders_are_named_or_refused() {
    let folders = [
        "n01440764/1.png",
        "n02102040-springer/1.png",
        "unsorted/1.png",
    ];
    let output = eval_folders(&folders, &[]);
    expect(&output, 0, "folders named otherwise among wnids");
    let result = json(&output);
    let names: Vec<&str> = (result["per_class"].as_array().unwrap().iter())
        .map(|class| class["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["tench", "English Springer Spaniel", "unsorted"]);
    assert_eq!(left_out(&result).len(), 1);
    // Of three classes, every one is among the best five.
    assert!(result["metrics"].get("acc5").is_none());
    assert!(
        result["missing"]["acc5"]
            .as_str()
            .unwrap()
            .starts_with("of five classes or fewer")
    );

    let nested = ["cat/1.png", "dog/images/1.png"];
    let output = eval_folders(&nested, &[]);
    expect(
        &output,
        2,
        "dog: a class folder without photos; it holds only folders, such as images",
    );
    expect(&output, 2, "--keep-empty-classes");
    let result = json(&eval_folders(&nested, &["--keep-empty-classes"]));
    assert_eq!(result["per_class"][1]["name"], "dog");
    assert_eq!(result["per_class"][1]["count"], 0);
    assert_eq!(left_out(&result).len(), 2);
    expect(
        &eval_folders(&nested, &["--split", "train"]),
        2,
        "split train: folder has no splits; name what is to be measured with --data",
    );
}

#[test]
fn an_odd_row_of_captions_is_counted_and_named() {
    let set = tempfile::tempdir().unwrap();
    for (index, name) in ["a", "b", "c"].iter().enumerate() {
        let photo = RgbImage::from_pixel(20, 20, Rgb([80 * index as u8, 90, 200]));
        std::fs::write(
            set.path().join(format!("{name}.png")),
            png_rgb(&photo).unwrap(),
        )
        .unwrap();
    }
    let csv = set.path().join("set.csv");
    let rows = "filepath,title\na.png,a cat\nb.png,\nc.png,a bird\nz.png,a dog\nb.png,x,y\n";
    std::fs::write(&csv, rows).unwrap();
    let output = percept(&["eval", "retrieval", "--data", path(&csv), "--json"]);
    expect(
        &output,
        1,
        "1 of 3 photos failed, 2 done; 2 things left out",
    );
    expect(
        &output,
        1,
        "rows without a caption, left out: 1 (line 3: `b.png`)",
    );
    let result = json(&output);
    assert_eq!(result["metrics"]["captions"], 2.0);
    assert_eq!(result["failures"][0]["sample"], "z");
    assert_eq!(left_out(&result).len(), 2);
}

#[test]
fn a_resumed_run_ends_with_the_same_numbers() {
    let set = squares(12);
    let (once, twice) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let whole = json(&eval_custom(&set, &["--out", path(once.path())]));
    let part = json(&eval_custom(
        &set,
        &["--out", path(twice.path()), "--limit", "5"],
    ));
    assert_eq!(part["counts"]["done"], 5);
    let rest = json(&eval_custom(
        &set,
        &["--out", path(twice.path()), "--resume"],
    ));
    for field in ["metrics", "per_class", "confusion", "counts", "left_out"] {
        assert_eq!(whole[field], rest[field], "{field}");
    }
    let other = eval_custom(
        &set,
        &[
            "--out",
            path(twice.path()),
            "--resume",
            "--set",
            "score.softmax=40",
        ],
    );
    expect(&other, 1, "made with other settings (protocol.score");
}

#[test]
fn kept_tokens_are_used_for_all_that_is_measured_of_a_photo() {
    let set = squares(5);
    let folder = tempfile::tempdir().unwrap();
    let kept = ["--keep-tokens", path(folder.path())];
    let files = || -> Vec<_> {
        let files = std::fs::read_dir(folder.path()).unwrap();
        let mut files: Vec<_> = files
            .map(|file| {
                let file = file.unwrap();
                (file.path(), file.metadata().unwrap().modified().unwrap())
            })
            .collect();
        files.sort();
        files
    };
    let first = json(&eval_custom(&set, &kept));
    let written = files();
    assert_eq!(written.len(), 5);
    for grouping in [&[][..], &["--grouping"]] {
        let with = json(&eval_custom(&set, &[grouping, &kept].concat()));
        let without = json(&eval_custom(&set, grouping));
        for field in ["metrics", "per_class", "confusion", "counts", "left_out"] {
            assert_eq!(with[field], without[field], "{grouping:?} {field}");
        }
        if grouping.is_empty() {
            assert_eq!(with["metrics"], first["metrics"]);
        }
        assert_eq!(files(), written, "{grouping:?}");
    }
    // What the encoder sees is not the same any more.
    eval_custom(&set, &[&kept[..], &["--set", "image.size=48"]].concat());
    assert_eq!(files().len(), 10);
    // A place that cannot be used is named.
    let file = path(&written[0].0);
    let output = eval_custom(&set, &["--keep-tokens", file]);
    expect(&output, 1, file);
}

#[test]
fn results_are_compared() {
    let set = squares(6);
    let out = tempfile::tempdir().unwrap();
    let [a, b] = ["a", "b"].map(|name| out.path().join(name));
    assert!(eval_custom(&set, &["--out", path(&a)]).status.success());
    let limited = eval_custom(&set, &["--out", path(&b), "--limit", "4"]);
    assert!(limited.status.success());
    let [a, b] = [a, b].map(|folder| folder.join("result.json"));
    let output = percept(&["eval", "compare", path(&a), path(&b)]);
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("mIoU"), "{said}");
    assert!(said.contains("limited to 4 of 6 samples"), "{said}");
    assert!(said.contains("not comparable"), "{said}");
    let nothing = percept(&["eval", "compare"]);
    expect(&nothing, 2, "name the result files");
    let broken = out.path().join("broken.json");
    std::fs::write(&broken, "{").unwrap();
    expect(
        &percept(&["eval", "compare", path(&broken)]),
        1,
        "broken.json",
    );
}

#[test]
fn groups_are_scored_on_any_segmentation_set() {
    let set = squares(4);
    let sweep = ["--grouping", "--set", "grouping.sweep=[2,8]"];
    let result = json(&eval_custom(&set, &sweep));
    assert_eq!(result["task"], "grouping");
    let jaccard = result["metrics"]["jaccard"].as_f64().unwrap();
    assert!((0.0..=1.0).contains(&jaccard), "{jaccard}");
    // The protocol's own number of groups again, and another.
    assert_eq!(result["metrics"]["jaccard@8"].as_f64(), Some(jaccard));
    assert!(result["metrics"]["jaccard@2"].is_f64());
    assert_eq!(result["metrics"]["regions"].as_f64().unwrap(), 4.0);
}

#[test]
fn layouts_and_settings_that_are_wrong_are_explained() {
    let set = squares(1);
    let wrong = percept(&["eval", "voc", "--data", path(set.path())]);
    expect(&wrong, 2, "ImageSets/Segmentation/val.txt");
    let nowhere = percept(&["eval", "voc", "--data", "/nowhere"]);
    expect(&nowhere, 2, "nowhere");
    expect(&percept(&["eval", "voc"]), 2, "--data");
    let unknown = percept(&["eval", "voc", "--data", ".", "--protocol", "clipy"]);
    expect(&unknown, 2, "unknown; there are clippy");
    let setting = eval_custom(&set, &["--set", "image.sise=3"]);
    expect(&setting, 2, "sise");
    let grouping = percept(&["eval", "folder", "--data", ".", "--grouping"]);
    assert_eq!(grouping.status.code(), Some(2));
}

#[test]
fn protocols_are_printed_as_they_can_be_read() {
    let folder = tempfile::tempdir().unwrap();
    for name in [
        "clippy",
        "clippy-448",
        "clippy-notebook",
        "tcl",
        "sclip",
        "groupvit",
    ] {
        for task in ["voc", "cityscapes"] {
            let show = |protocol: &str| {
                let output = percept(&["eval", task, "--show-protocol", "--protocol", protocol]);
                assert!(output.status.success(), "{}", text(&output.stderr));
                text(&output.stdout)
            };
            let printed = show(name);
            let file = folder.path().join(format!("{name}.toml"));
            std::fs::write(&file, &printed).unwrap();
            assert_eq!(show(path(&file)), printed, "{name} {task}");
        }
    }
    assert!(percept(&["eval", "--show-protocol"]).status.success());
}

#[test]
fn a_spurious_set_is_built_and_evaluated() {
    let set = squares(8);
    let folder = tempfile::tempdir().unwrap();
    for (place, colour) in [("sand", [230, 220, 150]), ("sea", [40, 90, 160])] {
        std::fs::create_dir(folder.path().join(place)).unwrap();
        let photo = RgbImage::from_pixel(64, 48, Rgb(colour));
        std::fs::write(
            folder.path().join(place).join("a.png"),
            png_rgb(&photo).unwrap(),
        )
        .unwrap();
    }
    let place = |name: &str| format!("{name}={}", path(&folder.path().join(name)));
    let out = folder.path().join("set");
    let built = percept(&[
        "data",
        "spurious",
        "custom",
        "--data",
        path(set.path()),
        "--objects",
        "red,blue square",
        "--place",
        &place("sand"),
        "--place",
        &place("sea"),
        "--per-group",
        "2",
        "--out",
        path(&out),
    ]);
    assert!(built.status.success(), "{}", text(&built.stderr));
    assert!(text(&built.stdout).contains("4 groups of 2 photos"));
    let output = percept(&[
        "eval",
        "waterbirds",
        "--data",
        path(&out),
        "--set",
        "image.size=32",
        "--json",
    ]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let result = json(&output);
    assert_eq!(result["counts"]["done"], 8);
    let metrics = result["metrics"].as_object().unwrap();
    for way in ["grouping", "pooled"] {
        let names = metrics.keys().filter(|name| name.starts_with(way));
        assert!(names.count() >= 6, "{metrics:?}");
    }
    let stray = percept(&[
        "data",
        "spurious",
        "custom",
        "--data",
        path(set.path()),
        "--objects",
        "red,green",
        "--place",
        &place("sand"),
        "--place",
        &place("sea"),
        "--out",
        path(&out),
    ]);
    expect(&stray, 2, "no objects called `green`");
}

#[test]
fn waterbirds_without_a_group_have_no_worst_group() {
    let set = tempfile::tempdir().unwrap();
    let mut rows = "img_filename,y,split,place\n".to_owned();
    for index in 0..4_u8 {
        let photo = RgbImage::from_pixel(20, 20, Rgb([40 * index, 90, 200]));
        std::fs::write(
            set.path().join(format!("{index}.png")),
            png_rgb(&photo).unwrap(),
        )
        .unwrap();
        rows += &format!("{index}.png,0,2,{}\n", index % 2);
    }
    std::fs::write(set.path().join("metadata.csv"), rows).unwrap();
    let output = percept(&["eval", "waterbirds", "--data", path(set.path()), "--json"]);
    expect(
        &output,
        0,
        "no photo of waterbird on land, waterbird on water",
    );
    let result = json(&output);
    for metric in ["grouping_worst_group", "pooled_worst_group"] {
        assert_eq!(result["metrics"][metric], Value::Null);
        assert!(
            result["missing"][metric]
                .as_str()
                .unwrap()
                .contains("waterbird on land")
        );
    }
    assert!(result["metrics"]["pooled_average"].is_number());
}

#[test]
fn protocols_that_mean_nothing_are_refused() {
    let set = squares(1);
    for (setting, reason) in [
        ("score.softmax=0", "score.softmax is above 0"),
        ("score.softmax=-3", "score.softmax is above 0"),
        ("truth.resize=0", "truth.resize is at least 1"),
    ] {
        let output = eval_custom(&set, &["--set", setting]);
        expect(&output, 2, reason);
    }
}
