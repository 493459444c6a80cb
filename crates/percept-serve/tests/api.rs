//! What the calls give, over a real connection, with a tiny model.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failing helper fails its test"
)]

mod common;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::{Answer, Running, model, photo, png, read_png, send, start};
use percept::image::{RgbImage, Rle, decode};
use percept::{Background, ClassBank, Label, SegmentOptions, Segmenter, Templates, parse_labels};
use percept_serve::{ApiKeys, Config};
use serde_json::{Value, json};

fn running() -> Running {
    start(Config::default())
}

fn session(server: &Running, photo: &[u8]) -> Value {
    let answer = server.form("/v1/sessions", photo, &[]);
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()
}

/// The map that the library makes, which the service must not change.
fn expected(pixels: &RgbImage, labels: &str, background: &Background) -> Vec<u16> {
    let model = model();
    let labels: Vec<Label> = parse_labels(labels).unwrap();
    let templates = Templates::new(model.config().templates.clone()).unwrap();
    let bank = ClassBank::new(&model, &labels, &templates, background).unwrap();
    let segmenter = Segmenter::new(&model, &bank, &SegmentOptions::default()).unwrap();
    segmenter.segment(pixels).unwrap().labels.data().to_vec()
}

/// The map of a JSON answer.
fn indices(map: &Value) -> Vec<u16> {
    let (width, height) = (
        map["width"].as_u64().unwrap(),
        map["height"].as_u64().unwrap(),
    );
    let mut indices = vec![u16::MAX; (width * height) as usize];
    for region in map["regions"].as_array().unwrap() {
        let counts = region["segmentation"]["counts"].as_str().unwrap();
        let rle = Rle::from_compressed(counts, height as u32, width as u32).unwrap();
        assert_eq!(rle.area(), region["pixels"].as_u64().unwrap());
        for (index, inside) in indices.iter_mut().zip(rle.to_mask().unwrap()) {
            if inside {
                *index = region["index"].as_u64().unwrap() as u16;
            }
        }
    }
    assert!(!indices.contains(&u16::MAX), "regions cover the photo");
    indices
}

#[test]
fn every_form_of_a_result_is_the_librarys_map() {
    let server = running();
    let (pixels, file) = (photo(61, 40), png(61, 40));
    let expected = expected(&pixels, "dog, sky, grass", &Background::None);
    assert!(expected.iter().any(|index| *index != expected[0]));
    let ask = |output: &str| {
        let answer = server.form(
            "/v1/segment",
            &file,
            &[
                ("labels", "dog, sky, grass"),
                ("background", "none"),
                ("output", output),
            ],
        );
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer
    };
    assert_eq!(indices(&ask("json").json()), expected);

    let mask = ask("mask");
    assert_eq!(mask.header("content-type"), "image/png");
    let (width, height, samples) = read_png(&mask.body);
    assert_eq!((width, height), (61, 40));
    let as_bytes: Vec<u8> = expected.iter().map(|index| *index as u8).collect();
    assert_eq!(samples, as_bytes);

    let (width, height, _) = read_png(&ask("overlay").body);
    // A legend below makes it higher, and wide enough to be read.
    assert!(width >= 61 && height > 40);

    let coco = ask("rle").json();
    for result in coco.as_array().unwrap() {
        // Made up of the name, which stands beside it.
        assert!(result["image_id"].as_u64() >= Some(1 << 52));
        assert_eq!(result["file_name"], "cat.png");
        let index = result["category_id"].as_u64().unwrap();
        let area = expected.iter().filter(|i| u64::from(**i) == index).count();
        assert_eq!(result["area"].as_u64().unwrap(), area as u64);
    }
}

#[test]
fn json_forms_and_sessions_say_the_same() {
    let server = running();
    let file = png(80, 50);
    let by_form = server.form(
        "/v1/segment",
        &file,
        &[("labels", "dog"), ("labels", "sky")],
    );
    let body = json!({ "image": STANDARD.encode(&file), "labels": ["dog", "sky"] });
    let by_json = server.json("/v1/segment", &body);
    let id = session(&server, &file)["session"].clone();
    let by_session = server.json(
        "/v1/segment",
        &json!({ "session": id, "labels": "dog, sky" }),
    );
    assert_eq!(by_form.status, 200, "{}", by_form.text());
    assert_eq!(by_form.text(), by_json.text());
    assert_eq!(by_form.text(), by_session.text());
    // At another size the tokens are computed anew.
    let other = json!({ "session": id, "labels": ["dog", "sky"], "size": 64 });
    assert_eq!(server.json("/v1/segment", &other).status, 200);
}

#[test]
fn sessions_end_when_told() {
    let server = running();
    let kept = session(&server, &png(33, 57));
    assert_eq!(
        (kept["width"].as_u64(), kept["height"].as_u64()),
        (Some(33), Some(57))
    );
    let id = kept["session"].as_str().unwrap();
    let photo = server.get(&format!("/v1/sessions/{id}/photo"));
    assert_eq!(photo.header("content-type"), "image/jpeg");
    assert_eq!(
        decode(&photo.body, &Default::default())
            .unwrap()
            .dimensions(),
        (33, 57)
    );
    let small = server.get(&format!("/v1/sessions/{id}/photo?max_side=19"));
    assert_eq!(
        decode(&small.body, &Default::default())
            .unwrap()
            .dimensions(),
        (11, 19)
    );
    let forget = || server.delete(&format!("/v1/sessions/{id}"));
    assert_eq!(forget().status, 204);
    forget().is_problem(404, "no-session");
    let gone = json!({ "session": id, "labels": ["dog"] });
    server
        .json("/v1/segment", &gone)
        .is_problem(404, "no-session");
}

#[test]
fn photos_of_any_size_line_up() {
    let server = running();
    for (width, height) in [(1, 1), (1, 90), (300, 7), (64, 64)] {
        let map = server
            .form("/v1/segment", &png(width, height), &[("labels", "dog")])
            .json();
        assert_eq!(map["width"], width);
        assert_eq!(map["height"], height);
        indices(&map);
    }
    let fields = [("labels", "dog"), ("max_side", "50")];
    let small = server.form("/v1/segment", &png(200, 100), &fields).json();
    assert_eq!(
        (small["width"].as_u64(), small["height"].as_u64()),
        (Some(50), Some(25))
    );
    // Longer than the encoder is allowed: encoded smaller, answered at its own size.
    let long = server.form(
        "/v1/segment",
        &png(3000, 100),
        &[("labels", "dog"), ("size", "448")],
    );
    assert_eq!(long.json()["width"], 3000);
}

#[test]
fn large_files_are_taken_in_both_forms() {
    let server = running();
    // Noise does not compress: more than 5 MB.
    let mut state = 1u32;
    let noise = RgbImage::from_fn(1600, 1200, |_, _| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        percept::image::Rgb([(state >> 8) as u8, (state >> 16) as u8, (state >> 24) as u8])
    });
    let file = percept::image::png_rgb(&noise).unwrap();
    assert!(file.len() > 5_000_000);
    let fields = [("labels", "dog"), ("max_side", "100")];
    let by_form = server.form("/v1/segment", &file, &fields);
    assert_eq!(by_form.status, 200, "{}", by_form.text());
    let body = json!({ "image": STANDARD.encode(&file), "labels": ["dog"], "max_side": 100 });
    assert_eq!(server.json("/v1/segment", &body).text(), by_form.text());
}

/// A JPEG of `width` x `height` stored pixels whose EXIF block asks for an orientation.
fn jpeg_turned(width: u32, height: u32, orientation: u8) -> Vec<u8> {
    let jpeg = percept::image::jpeg_rgb(&photo(width, height), 95).unwrap();
    let mut exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    exif.extend_from_slice(&[orientation, 0, 0, 0, 0, 0, 0]);
    let length = (exif.len() as u16 + 2).to_be_bytes();
    let segment = [&[0xFF, 0xE1], &length[..], &exif].concat();
    [&jpeg[..2], &segment, &jpeg[2..]].concat()
}

#[test]
fn turned_photos_come_out_upright() {
    let server = running();
    for orientation in [1, 3, 6, 8] {
        let file = jpeg_turned(90, 40, orientation);
        let upright = decode(&file, &Default::default()).unwrap();
        let map = server
            .form("/v1/segment", &file, &[("labels", "dog, sky")])
            .json();
        assert_eq!(map["width"], upright.width());
        assert_eq!(
            indices(&map),
            expected(&upright, "dog, sky", &Background::Auto)
        );
        let is_turned = orientation > 4;
        assert_eq!(upright.width() == 40, is_turned);
    }
}

#[test]
fn heat_maps_groups_classes_and_embeddings() {
    let server = running();
    let file = png(70, 50);
    let heat = [
        ("labels", "dog, sky"),
        ("output", "heatmap"),
        ("label", "sky"),
    ];
    let (width, height, _) = read_png(&server.form("/v1/segment", &file, &heat).body);
    assert_eq!((width, height), (70, 50));
    let unnamed = [("labels", "dog, sky"), ("output", "heatmap")];
    server
        .form("/v1/segment", &file, &unnamed)
        .is_problem(422, "invalid");

    let groups = server.form("/v1/group", &file, &[("groups", "3"), ("centered", "true")]);
    assert!(
        indices(&groups.json())
            .iter()
            .all(|index| (1..=3).contains(index))
    );

    let scores = server.form(
        "/v1/classify",
        &file,
        &[("labels", "dog, sky"), ("top", "1")],
    );
    assert_eq!(scores.json()["labels"].as_array().unwrap().len(), 1);

    let unit = |answer: Answer| {
        let json = answer.json();
        let embeddings = json["embeddings"].as_array().unwrap();
        for embedding in embeddings {
            let values = embedding.as_array().unwrap();
            assert_eq!(values.len(), json["dim"].as_u64().unwrap() as usize);
            let length: f64 = values.iter().map(|v| v.as_f64().unwrap().powi(2)).sum();
            assert!((length - 1.0).abs() < 1e-4);
        }
        embeddings.len()
    };
    assert_eq!(unit(server.form("/v1/embed", &file, &[])), 1);
    assert_eq!(
        unit(server.json("/v1/embed", &json!({ "texts": ["a dog", "", "é🐕"] }))),
        3
    );
}

#[test]
fn accept_chooses_and_excludes() {
    let server = running();
    let (content_type, body) = common::form(&png(20, 20), &[("labels", "dog")]);
    let ask = |accept: &str| {
        let headers = [("Content-Type", content_type.as_str()), ("Accept", accept)];
        send(server.addr, "POST", "/v1/segment", &headers, &body)
    };
    assert_eq!(ask("image/png").header("content-type"), "image/png");
    assert_eq!(ask("*/*").header("content-type"), "application/json");
    ask("text/html").is_problem(406, "not-acceptable");
}

#[test]
fn keys_guard_every_call_and_only_calls() {
    let api_keys = ApiKeys::parse("a-key-that-nobody-guesses").unwrap();
    let server = start(Config {
        api_keys: Some(api_keys),
        ..Config::default()
    });
    for path in ["/v1/models", "/v1/sessions/x/photo"] {
        server.get(path).is_problem(401, "unauthorized");
    }
    for path in [
        "/v1/segment",
        "/v1/group",
        "/v1/classify",
        "/v1/embed",
        "/v1/sessions",
    ] {
        let answer = server.form(path, &png(8, 8), &[("labels", "dog")]);
        answer.is_problem(401, "unauthorized");
        assert_eq!(answer.header("www-authenticate"), "Bearer");
    }
    let key = [("Authorization", "Bearer a-key-that-nobody-guesses")];
    assert_eq!(
        send(server.addr, "GET", "/v1/models", &key, b"").status,
        200
    );
    for path in [
        "/",
        "/docs",
        "/openapi.json",
        "/healthz",
        "/readyz",
        "/metrics",
        "/app.js",
    ] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
}

#[test]
fn the_page_asks_nobody_else() {
    let server = running();
    for path in [
        "/",
        "/docs",
        "/app.js",
        "/canvas.js",
        "/service.js",
        "/view.js",
        "/docs.js",
        "/style.css",
    ] {
        let answer = server.get(path);
        assert!(
            answer
                .header("content-security-policy")
                .starts_with("default-src 'none'")
        );
        for scheme in ["http://", "https://", "//cdn"] {
            let text = answer.text().replace("http://127.0.0.1:8080", "");
            let text = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!text.contains(scheme), "{path} names another host");
        }
    }
}

#[test]
fn numbers_are_there_for_prometheus() {
    let server = running();
    server.form("/v1/segment", &png(20, 20), &[("labels", "dog")]);
    server.get("/v1/sessions/secret-id/photo");
    let answer = server.get("/metrics");
    assert!(
        answer
            .header("content-type")
            .starts_with("application/openmetrics-text")
    );
    let text = answer.text();
    for line in [
        "percept_requests_total{route=\"/v1/segment\",status=\"200\"} 1",
        "percept_requests_total{route=\"/v1/sessions/{id}/photo\",status=\"404\"} 1",
        "percept_batch_images_count 1",
        "percept_places_taken 0",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
    assert!(!text.contains("secret-id"));
}

#[test]
fn the_description_names_what_is_there() {
    let server = running();
    let description = server.get("/openapi.json").json();
    let statuses = |path: &str, method: &str| -> Vec<String> {
        let responses = &description["paths"][path][method]["responses"];
        responses.as_object().unwrap().keys().cloned().collect()
    };
    for (path, calls) in description["paths"].as_object().unwrap() {
        for (method, call) in calls.as_object().unwrap() {
            assert!(call["operationId"].is_string());
            // Every call is there, and what it answers to nonsense is described.
            let path_asked = path.replace("{id}", "nonsense");
            let answer = send(server.addr, &method.to_uppercase(), &path_asked, &[], b"");
            assert_ne!(answer.status, 405, "{method} {path}");
            let status = answer.status.to_string();
            assert!(
                statuses(path, method).contains(&status),
                "{method} {path}: {status}"
            );
        }
        let answer = send(server.addr, "PATCH", &path.replace("{id}", "x"), &[], b"");
        answer.is_problem(405, "method-not-allowed");
        assert!(!answer.header("allow").is_empty());
    }
    // The problem types of the page are those that the service uses.
    let docs = server.get("/docs").text();
    for kind in [
        "busy",
        "image",
        "invalid",
        "no-session",
        "timeout",
        "too-large",
    ] {
        assert!(docs.contains(&format!("id=\"{kind}\"")), "{kind}");
    }
}

/// Labels mean the same however they are written, and photos in base64 however it is.
#[test]
fn labels_and_photos_come_in_many_forms() {
    let server = start(Config::default());
    let photo = png(48, 32);
    let form = |fields: &[(&str, &str)]| server.form("/v1/segment", &photo, fields).json();
    let expected = form(&[("labels", "cat, dog"), ("background", "none")]);
    let json = |image: String, labels: serde_json::Value| {
        let body = json!({ "image": image, "labels": labels, "background": "none" }).to_string();
        let body = format!("\u{FEFF}{body}");
        let answer = server.post("/v1/segment", "application/json", body.as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    };
    let plain = STANDARD.encode(&photo);
    let lines: Vec<_> = plain
        .as_bytes()
        .chunks(76)
        .map(|line| String::from_utf8_lossy(line))
        .collect();
    let for_urls = plain.replace('+', "-").replace('/', "_");
    for actual in [
        form(&[("labels", r#"["cat", "dog"]"#), ("background", "none")]),
        form(&[("labels", "cat"), ("labels", "dog"), ("background", "none")]),
        form(&[("labels", "\u{FEFF}cat, dog"), ("background", "none")]),
        json(plain.clone(), json!(["cat", "dog"])),
        json(lines.join("\r\n"), json!("cat, dog")),
        json(for_urls.trim_end_matches('=').to_owned(), json!("cat,dog")),
        json(
            format!("data:image/png;base64,{plain}"),
            json!("[\"cat\",\"dog\"]"),
        ),
    ] {
        assert_eq!(actual, expected);
    }
}

#[test]
fn odd_files_are_noted() {
    let server = start(Config::default());
    let photo = png(20, 20);
    let cut = &photo[..photo.len() - 12];
    let noted = "the file has no end mark; it may have been cut or damaged";
    let segmented = server.form("/v1/segment", cut, &[("labels", "dog")]).json();
    assert_eq!(segmented["notes"], json!([noted]));
    let kept = server.form("/v1/sessions", cut, &[]).json();
    assert_eq!(kept["notes"], json!([noted]));
    let whole = server.form("/v1/sessions", &photo, &[]).json();
    assert_eq!(whole["notes"], json!([]));
}

/// Heat maps have one scale: a number means one colour, whatever the photo and label.
#[test]
fn similarities_are_numbers_on_one_scale() {
    let server = start(Config::default());
    let photo = png(48, 32);
    let ask = |output: &str| {
        let fields = [
            ("labels", "cat, dog"),
            ("label", "dog"),
            ("output", output),
            ("size", "32"),
        ];
        server.form("/v1/segment", &photo, &fields)
    };
    let numbers = ask("similarity").json();
    assert_eq!(numbers["label"], "dog");
    assert_eq!(numbers["scale"], json!([0.1, 0.45]));
    let values = numbers["values"].as_array().unwrap();
    let (rows, columns) = (
        numbers["rows"].as_u64().unwrap(),
        numbers["columns"].as_u64().unwrap(),
    );
    assert_eq!((rows, columns, values.len()), (2, 3, 6));
    // What is downloaded into a folder of photos is told from them.
    for output in ["mask", "overlay", "heatmap"] {
        assert!(percept::image::is_result(&ask(output).body), "{output}");
    }
    let heat = percept::image::decode(&ask("heatmap").body, &Default::default()).unwrap();
    // The corner of the map is the corner's patch.
    let value = values[0].as_f64().unwrap() as f32;
    let value = (value - 0.1) / (0.45 - 0.1);
    let expected = percept::image::heatmap(&[value], 1, 1);
    assert_eq!(heat.get_pixel(0, 0), expected.get_pixel(0, 0));
}
