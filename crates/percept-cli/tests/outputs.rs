//! Where results go, what they are called, and what becomes of earlier ones.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failing helper fails its test"
)]

mod common;

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::process::Output;

use percept::image::{Filter, Rgb, RgbImage, jpeg_rgb, png_rgb, resize};
use serde_json::Value;

use crate::common::{expect, percept_in, photos, text, tiny};

/// A folder with photos, in which percept runs.
struct Place(tempfile::TempDir);

impl Place {
    fn with(names: &[&str]) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        for name in names {
            place.photo(name, names.len() as u32);
        }
        place
    }

    /// A small photo, another one for each `kind`.
    fn photo(&self, name: &str, kind: u32) {
        let coffee = percept::image::open(&photos().join("coffee.jpg"), &Default::default());
        let small = resize(&coffee.unwrap(), 40 + kind, 30, Filter::Box);
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, jpeg_rgb(&small, 80).unwrap()).unwrap();
    }

    fn path(&self, below: &str) -> std::path::PathBuf {
        self.0.path().join(below)
    }

    fn run(&self, command: &str) -> Output {
        let mut words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
        if ["segment", "group"].contains(&words[0].as_str()) {
            words.extend(["--size".into(), "64".into()]);
        }
        let mut program = percept_in(self.0.path());
        program.env("PERCEPT_MODEL", tiny()).args(&words);
        program.output().unwrap()
    }

    /// Runs a command that works, and what it said on standard error.
    fn works(&self, command: &str) -> String {
        let output = self.run(command);
        let said = text(&output.stderr);
        assert!(output.status.success(), "{command}: {said}");
        said
    }

    fn json(&self, below: &str) -> Value {
        serde_json::from_slice(&fs::read(self.path(below)).unwrap()).unwrap()
    }

    fn names(&self, below: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(below)).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn summary(output: &Output) -> Value {
    serde_json::from_str(text(&output.stdout).lines().last().unwrap()).unwrap()
}

#[test]
fn commands_do_not_overwrite_each_other() {
    let place = Place::with(&["a.jpg"]);
    let said = place.works("segment a.jpg --labels cat --format overlay,mask,rle,npy,json");
    assert!(
        said.contains("1 photo done; results in percept-out"),
        "{said}"
    );
    let segmented = place.names("percept-out");
    let expected = [
        "a.json",
        "a.mask.png",
        "a.npy",
        "a.overlay.png",
        "images.json",
        "labels.json",
        "results.json",
        "segment.jsonl",
    ];
    assert_eq!(segmented, expected);
    let before: Vec<_> = segmented
        .iter()
        .map(|name| fs::read(place.path("percept-out").join(name)).unwrap())
        .collect();
    place.works("group a.jpg --groups 3 --format overlay,mask,rle,npy,json");
    for (name, bytes) in segmented.iter().zip(before) {
        assert_eq!(
            fs::read(place.path("percept-out").join(name)).unwrap(),
            bytes,
            "{name}"
        );
    }
    let all = place.names("percept-out");
    for name in [
        "a.groups.png",
        "a.groups.overlay.png",
        "a.groups.npy",
        "a.groups.json",
        "groups.json",
        "groups.results.json",
        "groups.images.json",
        "groups.jsonl",
    ] {
        assert!(all.iter().any(|found| found == name), "{all:?}");
    }
}

#[test]
fn other_settings_go_elsewhere_or_are_refused_or_forced() {
    let place = Place::with(&["a.jpg"]);
    place.works("segment a.jpg --labels cat --out out");
    let labels = fs::read(place.path("out/labels.json")).unwrap();
    // The same again, and another format of it.
    place.works("segment a.jpg --labels cat --out out");
    place.works("segment a.jpg --labels cat --out out --format npy");
    place.photo("b.jpg", 9);
    place.works("segment b.jpg --labels cat --out out");
    assert_eq!(fs::read(place.path("out/labels.json")).unwrap(), labels);
    // Other labels.
    let output = place.run("segment b.jpg --labels dog --out out");
    expect(&output, 2, "other settings (--labels: cat there, dog here)");
    expect(&output, 2, "--force");
    assert_eq!(fs::read(place.path("out/labels.json")).unwrap(), labels);
    let output = place.run("segment b.jpg --labels dog --out out --resume");
    expect(&output, 2, "other settings");
    place.works("segment b.jpg --labels dog --out out --force");
    assert_eq!(place.json("out/labels.json")["classes"][1]["name"], "dog");
    // Masks of the other labels would be told wrongly by these.
    assert!(!place.path("out/a.mask.png").exists() && !place.path("out/a.npy").exists());
    // Another photo of the same name.
    place.photo("other/b.jpg", 3);
    let output = place.run("segment other/b.jpg --labels dog --out out");
    expect(&output, 2, "out/b.overlay.png is of b.jpg");
    // Without a folder named, nothing is refused and nothing lost.
    place.works("segment a.jpg --labels cat");
    let said = place.works("segment a.jpg --labels dog");
    assert!(said.contains("results in percept-out-2"), "{said}");
    assert_eq!(
        place.json("percept-out/labels.json")["classes"][1]["name"],
        "cat"
    );
    assert_eq!(
        place.json("percept-out-2/labels.json")["classes"][1]["name"],
        "dog"
    );
    let said = place.works("segment a.jpg --labels dog --resume --format mask");
    assert!(
        said.contains("0 photos done, 1 done before") && said.contains("percept-out-2"),
        "{said}"
    );
}

#[test]
fn other_weights_under_the_same_name_are_other_settings() {
    let place = Place::with(&["a.jpg"]);
    place.works(&format!("convert {} model", tiny().display()));
    let line = "segment a.jpg --labels cat --out out --resume --model model";
    place.works(line);
    assert!(place.works(line).contains("1 done before"));
    // One number of the last tensor, of another value.
    let weights = place.path("model/model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let at = bytes.len() - 3;
    bytes[at] ^= 1;
    fs::write(&weights, bytes).unwrap();
    expect(&place.run(line), 2, "other settings (weights)");
    place.works(&line.replace("--resume", "--force"));
    // Results of other arithmetic would be mixed, too.
    let output = place.run(&format!("{line} --precision bf16"));
    let is_same_here = text(&output.stderr).contains("computing in f32");
    let is_told =
        text(&output.stderr).contains("other settings (--precision: f32 there, bf16 here)");
    assert!(is_same_here || is_told);
}

#[test]
fn what_is_not_percepts_is_never_overwritten() {
    let place = Place::with(&["a.jpg"]);
    let photo = png_rgb(&RgbImage::new(3, 3)).unwrap();
    fs::write(place.path("a.mask.png"), &photo).unwrap();
    for force in ["", " --force"] {
        let output = place.run(&format!("segment a.jpg --labels cat --out .{force}"));
        expect(&output, 2, "a.mask.png is no result of percept's");
    }
    assert_eq!(fs::read(place.path("a.mask.png")).unwrap(), photo);
    fs::remove_file(place.path("a.mask.png")).unwrap();
    // Beside results of percept's, with the same settings and with others.
    place.works("segment a.jpg --labels cat --out . --format mask");
    for (format, file) in [
        ("json", "a.json"),
        ("npy", "a.npy"),
        ("rle", "results.json"),
        ("mask,rle", "images.json"),
    ] {
        fs::write(place.path(file), b"mine").unwrap();
        for more in ["", " --force", " --resume", ",dog --force"] {
            let output = place.run(&format!(
                "segment a.jpg --out . --format {format} --labels cat{more}"
            ));
            expect(&output, 2, &format!("{file} is no result of percept's"));
            assert_eq!(fs::read(place.path(file)).unwrap(), b"mine");
            // Nothing is removed by a run that is refused.
            for ours in ["a.mask.png", "segment.jsonl"] {
                assert!(place.path(ours).is_file(), "{ours}");
            }
            assert_eq!(
                place.json("labels.json")["classes"]
                    .as_array()
                    .unwrap()
                    .len(),
                2
            );
        }
        fs::remove_file(place.path(file)).unwrap();
    }
    // What is recorded is replaced.
    place.works("segment a.jpg --labels cat --out . --format json,npy,rle");
    place.works("segment a.jpg --labels cat --out . --format json,npy,rle");
    place.works("segment a.jpg --labels cat,dog --out . --format json,npy,rle --force");
    assert!(!place.path("a.mask.png").exists());
    for format in ["mask", "json", "npy"] {
        fs::write(place.path("labels.json"), b"[\"mine\"]").unwrap();
        let output = place.run(&format!(
            "segment a.jpg --labels cat --out . --format {format} --force"
        ));
        expect(&output, 2, "labels.json is no file of percept's");
        assert_eq!(fs::read(place.path("labels.json")).unwrap(), b"[\"mine\"]");
    }
}

#[test]
fn photos_of_one_name_keep_their_masks_in_the_file_of_all() {
    let place = Place::with(&["a.jpg", "other/a.jpg"]);
    place.works("segment a.jpg --labels cat --background none --out out --format rle");
    let output =
        place.run("segment other/a.jpg --labels cat --background none --out out --format rle");
    expect(&output, 2, "out/results.json is of a.jpg");
    let output =
        place.run("segment other/a.jpg --labels cat --background none --out out --format npy");
    expect(
        &output,
        2,
        "is of a.jpg; --out names another folder, --force replaces it",
    );
    assert_eq!(place.json("out/images.json")["images"][0]["path"], "a.jpg");
}

#[test]
fn a_photo_from_standard_input_has_results_like_others() {
    let place = Place::with(&["a.jpg", "b.jpg"]);
    let pipe = |name: &str, more: &str| {
        let mut program = percept_in(place.0.path());
        let words = "segment - --labels cat --background none --size 64 --out out";
        let photo = fs::File::open(place.path(name)).unwrap();
        program.env("PERCEPT_MODEL", tiny()).stdin(photo);
        program.args(words.split(' ').chain(more.split_whitespace()));
        program.output().unwrap()
    };
    expect(&pipe("a.jpg", "--format rle"), 0, "1 photo done");
    let results = place.json("out/results.json");
    assert_eq!(results.as_array().unwrap().len(), 1);
    assert_eq!(
        results[0]["segmentation"]["size"],
        serde_json::json!([30, 42])
    );
    let images = place.json("out/images.json");
    assert_eq!(images["images"][0]["file_name"], "stdin");
    assert_eq!(images["images"][0]["id"], results[0]["image_id"]);
    // The next one is another photo.
    for more in ["--format rle", "--format rle --resume", "--format npy"] {
        let output = pipe("b.jpg", more);
        expect(&output, 2, "is of an earlier photo from standard input");
    }
    expect(
        &pipe("b.jpg", "--format npy,rle --force"),
        0,
        "1 photo done",
    );
    assert!(place.path("out/stdin.npy").is_file());
}

#[test]
fn settings_are_those_that_results_hang_on() {
    let place = Place::with(&["a.jpg"]);
    for (command, file) in [
        ("segment a.jpg --labels cat", "labels"),
        ("group a.jpg", "groups"),
    ] {
        place.works(command);
        let settings = place.json(&format!("percept-out/{file}.json"));
        assert_eq!(settings["precision"], "f32");
        assert_eq!(settings["size"], serde_json::json!({ "short_side": 64 }));
    }
    // Settings that cannot be read are not taken for none.
    fs::create_dir_all(place.path("out/labels.json")).unwrap();
    let output = place.run("segment a.jpg --labels cat --out out");
    expect(&output, 1, "cannot read out/labels.json: ");
    assert_eq!(place.names("out"), ["labels.json"]);
}

#[cfg(unix)]
#[test]
fn names_that_are_no_unicode_are_told_apart() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let place = Place::with(&["in/a.jpg"]);
    let names = [&b"in/\xfe.jpg"[..], b"in/\xff.jpg"];
    for name in names.map(|name| place.0.path().join(OsStr::from_bytes(name))) {
        if fs::copy(place.path("in/a.jpg"), name).is_err() {
            // Not every file system has such names.
            return;
        }
    }
    let run = "segment in --labels cat --background none --format mask,rle --out out";
    place.works(run);
    let images = place.json("out/images.json")["images"].clone();
    let told = |key: &str| -> HashSet<String> {
        let images = images.as_array().unwrap().iter();
        images.map(|image| image[key].to_string()).collect()
    };
    assert_eq!(
        (told("id").len(), told("file_name").len()),
        (3, 3),
        "{images}"
    );
    assert_eq!(place.json("out/results.json").as_array().unwrap().len(), 3);
    let told = summary(&place.run(&format!("{run} --resume --json")));
    assert_eq!(told["done_before"], 3, "{told}");
    // They are replaced with the others.
    place.works("segment in/a.jpg --labels dog --format mask --out out --force");
    assert_eq!(fs::read_dir(place.path("out")).unwrap().count(), 3);
}

#[test]
fn own_results_are_no_photos_of_the_next_run() {
    let place = Place::with(&["a.jpg", "b.jpg"]);
    place.works("segment . --labels cat");
    for out in ["", " --out .", " --out results"] {
        for _ in 0..2 {
            let output = place.run(&format!("segment . --labels cat --json{out}"));
            let summary = summary(&output);
            assert_eq!(summary["done"], 2, "{out} {summary}");
        }
    }
    let output = place.run("segment . --labels cat --json --out .");
    let passed = &summary(&output)["passed_over"];
    assert_eq!(passed["kinds"]["made by percept"], 12, "{passed}");
    // Named one by one, as shells expand globs.
    let output = place.run("segment a.jpg a.mask.png --labels cat --out . --json");
    assert_eq!(summary(&output)["done"], 1);
    let output = place.run("segment a.mask.png --labels cat --out .");
    expect(
        &output,
        2,
        "a.mask.png: no photo: 1 file passed over (1 made by percept)",
    );
    // A photo of somebody's that only is called so.
    let photo = png_rgb(&RgbImage::new(9, 9)).unwrap();
    fs::write(place.path("c.mask.png"), photo).unwrap();
    let output = place.run("segment . --labels cat --json --out more");
    assert_eq!(summary(&output)["done"], 3);
}

#[test]
fn what_is_passed_over_is_told() {
    let place = Place::with(&["in/a.jpg"]);
    for name in ["b.heic", "c.HEIC", "d.mp4", "e.txt"] {
        fs::write(place.path("in").join(name), b"").unwrap();
    }
    let said = place.works("segment in --labels cat --verbose");
    let told = "4 files passed over (2 .heic, 1 .mp4, 1 .txt)";
    assert!(said.contains(told), "{said}");
    assert!(said.contains("passed over: in/d.mp4"), "{said}");
    for command in [
        "segment in --labels cat",
        "group in",
        "classify in --labels cat",
        "embed in --out e.npy",
    ] {
        let output = place.run(&format!("{command} --json"));
        let passed = &summary(&output)["passed_over"];
        assert_eq!(passed["kinds"][".heic"], 2, "{command}");
        assert_eq!(passed["files"].as_array().unwrap().len(), 4);
    }
    fs::remove_file(place.path("in/a.jpg")).unwrap();
    let output = place.run("segment in --labels cat");
    expect(&output, 2, told);
}

#[test]
fn photos_have_ids_of_their_own_and_a_map_to_them() {
    let place = Place::with(&[
        "in/x/cat.jpg",
        "in/y/cat.jpg",
        "in/42.jpg",
        "in/000000000139.jpg",
        "in/139.jpg",
        "in/COCO_val2014_000000000007.jpg",
        "in/labels.jpg",
        "in/results.jpg",
    ]);
    let said = place.works("segment in --labels cat --background none --format rle,json --out out");
    assert!(said.contains("2 photos share a number"), "{said}");
    let images = place.json("out/images.json")["images"]
        .as_array()
        .unwrap()
        .clone();
    let of = |file: &str| {
        images
            .iter()
            .find(|image| image["file_name"] == file)
            .unwrap()
            .clone()
    };
    assert_eq!(of("42.jpg")["id"], 42);
    assert_eq!(of("COCO_val2014_000000000007.jpg")["id"], 7);
    assert_eq!(of("42.jpg")["made_up"], false);
    assert_eq!(of("139.jpg")["made_up"], true);
    assert_eq!(of("x/cat.jpg")["width"], 48);
    // The same without the others, whose results it shares no name with then.
    fs::write(
        place.path("in/image1.png"),
        png_rgb(&RgbImage::new(9, 9)).unwrap(),
    )
    .unwrap();
    place.works("segment in --labels cat --format rle --out alone");
    let before = place.json("alone/images.json")["images"].clone();
    fs::write(
        place.path("in/image1.gif.png"),
        png_rgb(&RgbImage::new(8, 9)).unwrap(),
    )
    .unwrap();
    place.photo("in/image1.jpg", 7);
    place.works("segment in --labels cat --format rle --out together");
    let after = place.json("together/images.json")["images"].clone();
    for image in before.as_array().unwrap() {
        let same = |other: &&Value| other["file_name"] == image["file_name"];
        let other = after.as_array().unwrap().iter().find(same).unwrap();
        assert_eq!(other["id"], image["id"], "{image}");
    }
    let ids: HashSet<u64> = images
        .iter()
        .map(|image| image["id"].as_u64().unwrap())
        .collect();
    assert_eq!(ids.len(), 8);
    let results = place.json("out/results.json");
    let results = results.as_array().unwrap();
    assert_eq!(results.len(), 8);
    for result in results {
        assert!(ids.contains(&result["image_id"].as_u64().unwrap()));
        assert!(result.get("bbox").is_none());
    }
    // Files of all photos are not those of one.
    assert_eq!(place.json("out/labels.json")["command"], "segment");
    assert_eq!(place.json("out/labels.jpg.json")["image"], "in/labels.jpg");
    assert_eq!(
        place.json("out/results.jpg.json")["image"],
        "in/results.jpg"
    );
}

#[test]
fn categories_come_from_a_file() {
    let place = Place::with(&["a.jpg"]);
    let file =
        r#"{"images": [], "categories": [{"id": 17, "name": "cat"}, {"id": 18, "name": "dog"}]}"#;
    fs::write(place.path("coco.json"), file).unwrap();
    place.works(
        "segment a.jpg --labels dog,cat --background none --format rle --categories coco.json",
    );
    let results = place.json("percept-out/results.json");
    let results = results.as_array().unwrap();
    assert!(!results.is_empty());
    for result in results {
        let number = if result["category_name"] == "cat" {
            17
        } else {
            18
        };
        assert_eq!(result["category_id"], number);
    }
    let classes = place.json("percept-out/labels.json")["classes"].clone();
    assert_eq!(classes[1]["category_id"], 18);
    let output = place.run("segment a.jpg --labels dog,bird --categories coco.json --format rle");
    expect(&output, 2, "coco.json: no category is called bird");
}

#[test]
fn one_palette_is_told_and_used() {
    let place = Place::with(&["a.jpg"]);
    for (palette, first) in [("percept", [46, 134, 222]), ("voc", [128, 0, 0])] {
        let out = format!("out-{palette}");
        place.works(&format!(
            "segment a.jpg --labels cat --background none --palette {palette} --opacity 1 --no-legend --out {out}"
        ));
        let labels = place.json(&format!("{out}/labels.json"));
        assert_eq!(labels["palette"], palette);
        assert_eq!(labels["classes"][0]["colour"], serde_json::json!([0, 0, 0]));
        assert_eq!(labels["classes"][1]["colour"], serde_json::json!(first));
        for file in ["a.mask.png", "a.overlay.png"] {
            let path = place.path(&out).join(file);
            let picture = percept::image::open(&path, &Default::default()).unwrap();
            assert_eq!(picture.dimensions(), (41, 30));
            assert!(picture.pixels().all(|pixel| pixel.0 == first), "{file}");
        }
    }
    place.works("segment a.jpg --labels cat --overlay-size 20 --no-legend --out small");
    let path = place.path("small/a.overlay.png");
    let small = percept::image::open(&path, &Default::default()).unwrap();
    assert_eq!(small.dimensions(), (20, 15));
    let output = place.run("segment a.jpg --labels cat --opacity 1.5");
    expect(&output, 2, "not a number from 0 to 1");
}

#[test]
fn nothing_found_and_few_groups_are_explained() {
    let place = Place::with(&["a.jpg"]);
    let output = place.run("segment a.jpg --labels cat --background 0.99 --out out");
    let said = text(&output.stdout);
    assert!(
        said.starts_with("a.jpg: nothing found (best: cat at "),
        "{said}"
    );
    assert!(
        said.contains("below 0.99; a lower --background finds more, such as "),
        "{said}"
    );
    let output = place.run("segment a.jpg --labels cat --background 0.99 --out out --json");
    let line: Value = serde_json::from_str(text(&output.stdout).lines().next().unwrap()).unwrap();
    assert_eq!(line["nothing_found"]["best"]["name"], "cat");
    assert!(line["nothing_found"]["best"]["score"].as_f64().unwrap() < 0.99);
    let output = place.run("segment a.jpg --labels cat --background none --out none --json");
    let line: Value = serde_json::from_str(text(&output.stdout).lines().next().unwrap()).unwrap();
    assert!(line.get("nothing_found").is_none());

    let output = place.run("group a.jpg --groups 1 --out one");
    assert!(text(&output.stdout).starts_with("a.jpg: 1 group (100 %)"));
    let output = place.run("group a.jpg --groups 60 --out many");
    let said = text(&output.stdout);
    assert!(said.contains("; 60 asked for: "), "{said}");
    let output = place.run("group a.jpg --groups 60 --out many --json");
    let line: Value = serde_json::from_str(text(&output.stdout).lines().next().unwrap()).unwrap();
    assert_eq!(line["groups_asked_for"], 60);
    assert!(line["fewer_because"].is_string());
}

#[test]
fn a_run_is_taken_up_where_it_ended() {
    let place = Place::with(&["in/a.jpg", "in/b.jpg", "in/c.jpg"]);
    let all = "segment in --labels cat --background none --format mask,rle --out whole";
    place.works(all);
    let run = all.replace("whole", "out");
    // As a run leaves it that was killed in the middle of a line.
    place.works(&run.replace("segment in", "segment in/a.jpg"));
    let mut record = fs::read(place.path("out/segment.jsonl")).unwrap();
    record.extend(b"{\"image\": \"in/b.jp");
    fs::write(place.path("out/segment.jsonl"), record).unwrap();
    let output = place.run(&format!("{run} --resume --json"));
    let told = summary(&output);
    assert_eq!(
        (&told["done"], &told["done_before"]),
        (&2.into(), &1.into()),
        "{told}"
    );
    assert_eq!(
        place.json("out/results.json"),
        place.json("whole/results.json")
    );
    assert_eq!(place.json("out/results.json").as_array().unwrap().len(), 3);
    // As a run leaves it that was killed when it had begun with a photo's files.
    let record = fs::read_to_string(place.path("out/segment.jsonl")).unwrap();
    let kept: String = record
        .lines()
        .filter(|line| line.contains("is_begun") || !line.contains("in/c.jpg"))
        .map(|line| format!("{line}\n"))
        .collect();
    fs::write(place.path("out/segment.jsonl"), kept).unwrap();
    let told = summary(&place.run(&format!("{run} --resume --json")));
    assert_eq!(told["done"], 1, "{told}");
    assert_eq!(place.json("out/results.json").as_array().unwrap().len(), 3);
    // A photo that changed, and a mask that is gone.
    place.photo("in/b.jpg", 20);
    fs::remove_file(place.path("out/c.mask.png")).unwrap();
    let told = summary(&place.run(&format!("{run} --resume --json")));
    assert_eq!(told["done"], 2, "{told}");
    assert_eq!(place.json("out/results.json").as_array().unwrap().len(), 3);
}

#[cfg(unix)]
#[test]
fn a_stopped_run_keeps_what_it_has() {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::process::Stdio;
    use std::time::{Duration, Instant};
    let place = Place::with(&["in/000.jpg"]);
    let photo = fs::read(place.path("in/000.jpg")).unwrap();
    fs::create_dir(place.path("more")).unwrap();
    for at in 1..400 {
        let folder = if at < 50 { "in" } else { "more" };
        fs::write(place.path(&format!("{folder}/{at:03}.jpg")), &photo).unwrap();
    }
    // The photo from standard input comes when this test lets it, and holds up all behind it.
    let run =
        "segment in - more --labels cat --background none --format mask,rle --out out --size 64";
    let mut child = percept_in(place.0.path())
        .env("PERCEPT_MODEL", tiny())
        .args(run.split(' '))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let record = place.path("out/segment.jsonl");
    let deadline = Instant::now() + Duration::from_secs(60);
    while !fs::read_to_string(&record).is_ok_and(|record| record.contains("counts")) {
        assert!(Instant::now() < deadline, "no photo in a minute");
        std::thread::sleep(Duration::from_millis(10));
    }
    common::interrupt(&child);
    let mut told = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("stopping after the photos on their way") {
        assert!(told.read_line(&mut said).unwrap() > 0, "{said}");
    }
    child.stdin.take().unwrap().write_all(&photo).unwrap();
    told.read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{said}");
    assert!(said.contains("--resume goes on"), "{said}");
    let results = place.json("out/results.json");
    let done = results.as_array().unwrap().len();
    assert!(done > 0 && done < 400, "{done}");
    let names = place.names("out");
    assert_eq!(
        names
            .iter()
            .filter(|name| name.ends_with(".mask.png"))
            .count(),
        done
    );
    assert!(names.iter().all(|name| !name.starts_with('.')), "{names:?}");
}

#[cfg(unix)]
#[test]
fn names_of_files_do_not_command_the_terminal() {
    let place = Place::with(&["in/a.jpg"]);
    for name in ["in/b.\u{1b}[2J", "in/\u{1b}[31mc.jpg"] {
        fs::write(place.path(name), b"x").unwrap();
    }
    let output = place.run("segment in --labels cat --verbose");
    expect(&output, 1, "in/\u{fffd}[31mc.jpg: ");
    let said = text(&output.stderr);
    assert!(
        said.contains("1 file passed over (1 .\u{fffd}[2j)"),
        "{said}"
    );
    assert!(!said.contains('\u{1b}'), "{said:?}");
}

#[cfg(unix)]
#[test]
fn pipes_are_refused_and_not_waited_for() {
    let place = Place::with(&["in/a.jpg"]);
    let pipe = place.path("in/b.jpg");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let output = place.run("segment in --labels cat --json");
    assert_eq!(summary(&output)["passed_over"]["kinds"]["pipe"], 1);
    let output = place.run("segment in/b.jpg --labels cat");
    expect(&output, 2, "in/b.jpg: a pipe, which is no photo");
    let output = place.run("segment in/a.jpg --labels cat --format rle --categories in/b.jpg");
    expect(&output, 2, "--categories in/b.jpg: a pipe and no file");
    // Where a folder may hold results of an older percept, its labels are looked at.
    fs::rename(&pipe, place.path("in/labels.json")).unwrap();
    fs::copy(place.path("in/a.jpg"), place.path("in/a.mask.png")).unwrap();
    assert_eq!(
        summary(&place.run("segment in --labels cat --json"))["done"],
        2
    );
    let pipe = place.path("in/segment.jsonl");
    fs::rename(place.path("in/labels.json"), &pipe).unwrap();
    let output = place.run("segment in/a.jpg --labels cat --out in");
    expect(
        &output,
        1,
        "cannot read in/segment.jsonl: a pipe and no file",
    );
    assert!(Path::new(&pipe).exists());
}

/// A file that has lost its end and its pixels all the same.
#[test]
fn what_is_odd_about_a_file_is_told_in_every_result() {
    let place = Place::with(&["a.jpg", "b.jpg"]);
    let mut png = png_rgb(&RgbImage::from_pixel(40, 30, Rgb([200, 30, 30]))).unwrap();
    png.truncate(png.len() - 12);
    fs::write(place.path("cut.png"), png).unwrap();
    let note = "the file has no end mark";
    for command in [
        "segment . --labels cat --format json",
        "group . --format json",
        "classify . --labels cat",
    ] {
        let output = place.run(command);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let said = text(&output.stderr);
        let notes: Vec<_> = said.lines().filter(|line| line.contains(note)).collect();
        assert_eq!(notes.len(), 1, "{said}");
        assert!(
            notes[0].starts_with("note: ") && notes[0].contains("cut.png: "),
            "{said}"
        );
        let quiet = place.run(&format!("{command} --quiet --force").replace(
            "classify . --labels cat --quiet --force",
            "classify . --labels cat --quiet",
        ));
        assert_eq!(text(&quiet.stderr), "");
        let output = place.run(&format!("{command} --json"));
        let summary = summary(&output);
        assert_eq!(summary["notes"].as_array().unwrap().len(), 1);
        assert_eq!(
            summary["notes"][0]["kind"],
            "read in spite of a missing end mark"
        );
        assert_eq!(summary["notes"][0]["count"], 1);
        assert!(
            summary["notes"][0]["images"][0]
                .as_str()
                .unwrap()
                .ends_with("cut.png")
        );
        let of_photos = text(&output.stdout);
        let with_note = of_photos.lines().filter(|line| line.contains(note));
        assert_eq!(with_note.count(), 1, "{of_photos}");
    }
    let told = "3 photos done, 1 read in spite of a missing end mark, ";
    let said = place.works("segment . --labels dog --out elsewhere");
    assert!(said.contains(told), "{said}");
}
