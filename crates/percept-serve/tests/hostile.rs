//! Clients that mean no good: each is answered within the limits, and the others are served on.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failing helper fails its test"
)]

mod common;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::{Running, connect, form, parse, png, read, send, start};
use percept_serve::{Config, SessionLimits};
use serde_json::json;

fn running() -> Running {
    start(Config {
        max_upload: 200_000,
        timeout: Duration::from_secs(5),
        ..Config::default()
    })
}

/// The service still does what it is for.
fn still_serves(server: &Running) {
    let answer = server.form("/v1/segment", &png(20, 20), &[("labels", "dog")]);
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[test]
fn large_bodies_are_refused_stated_or_not() {
    let server = running();
    // A client that is refused at its first bytes still gets to read why.
    let answer = server.post("/v1/segment", "application/json", &vec![b' '; 5_000_000]);
    answer.is_problem(413, "too-large");

    let mut stream = connect(server.addr);
    let head = "POST /v1/segment HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
                Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let chunk = [b"4000\r\n".as_slice(), &[b' '; 0x4000], b"\r\n"].concat();
    for _ in 0..40 {
        if stream.write_all(&chunk).is_err() {
            break;
        }
    }
    let _ = stream.write_all(b"0\r\n\r\n");
    read(&mut stream).is_problem(413, "too-large");
    still_serves(&server);
}

#[test]
fn a_name_pointed_at_this_machine_is_no_way_in() {
    let server = running();
    let ask = |host: &str| {
        let mut stream = connect(server.addr);
        let head = format!("GET /v1/models HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        read(&mut stream)
    };
    ask("rebound.example:8080").is_problem(403, "foreign-origin");
    assert_eq!(ask("localhost:8080").status, 200);
}

#[test]
fn heads_that_never_end_are_cut_off() {
    let server = running();
    let begun = Instant::now();
    let slow = || {
        let mut stream = connect(server.addr);
        let head = "GET /v1/models HTTP/1.1\r\nHost: localhost\r\nX-Slow: ";
        stream.write_all(head.as_bytes()).unwrap();
        let patience = Some(Duration::from_secs(40));
        stream.set_read_timeout(patience).unwrap();
        stream
    };
    let streams: Vec<_> = (0..20).map(|_| slow()).collect();
    still_serves(&server);
    for mut stream in streams {
        let mut rest = Vec::new();
        // Closed, with or without saying why.
        if let Err(error) = stream.read_to_end(&mut rest) {
            assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "still open");
        }
        assert!(!rest.starts_with(b"HTTP/1.1 2"));
    }
    let waited = begun.elapsed();
    let limit = Duration::from_secs(14)..Duration::from_secs(30);
    assert!(limit.contains(&waited), "{waited:?}");
    still_serves(&server);
}

#[test]
fn slow_bodies_end() {
    let server = start(Config {
        timeout: Duration::from_millis(300),
        ..Config::default()
    });
    let start = Instant::now();
    let mut stream = connect(server.addr);
    let head = "POST /v1/segment HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
                Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{";
    stream.write_all(head.as_bytes()).unwrap();
    read(&mut stream).is_problem(408, "slow-upload");
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn slow_bodies_take_no_places() {
    let server = start(Config {
        queue: 2,
        ..Config::default()
    });
    let head = "POST /v1/segment HTTP/1.1\r\nHost: localhost\r\n\
                Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{";
    let slow: Vec<_> = (0..20)
        .map(|_| {
            let mut stream = connect(server.addr);
            stream.write_all(head.as_bytes()).unwrap();
            stream
        })
        .collect();
    still_serves(&server);
    drop(slow);
}

/// A PNG that states `width` x `height` pixels and holds none.
fn png_that_claims(width: u32, height: u32) -> Vec<u8> {
    let mut file = png(4, 4);
    file[16..20].copy_from_slice(&width.to_be_bytes());
    file[20..24].copy_from_slice(&height.to_be_bytes());
    // The checksum of the header, so that the size is believed.
    let mut crc = !0u32;
    for byte in &file[12..29] {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xEDB8_8320 & 0u32.wrapping_sub(crc & 1));
        }
    }
    file[29..33].copy_from_slice(&(!crc).to_be_bytes());
    file
}

#[test]
fn photos_that_are_none_are_refused() {
    let server = running();
    let ask = |file: &[u8]| server.form("/v1/segment", file, &[("labels", "dog")]);
    ask(&png_that_claims(60_000, 60_000)).is_problem(413, "too-large");
    ask(&png_that_claims(9_000, 9_000)).is_problem(413, "too-large");
    ask(&png_that_claims(5_000, 5_000)).is_problem(422, "image");
    ask(b"").is_problem(422, "image");
    ask(b"<svg onload=alert(1)>").is_problem(422, "image");
    ask(&png(50, 50)[..200]).is_problem(422, "image");
    ask(&[0xFF, 0xD8, 0xFF, 0xE0, 0xFF, 0xD9]).is_problem(422, "image");
    // A small file of many pixels is a photo like any other, and is answered at its size.
    let flat = percept::image::RgbImage::new(3000, 3000);
    let flat = percept::image::png_rgb(&flat).unwrap();
    assert!(flat.len() < 200_000);
    assert_eq!(ask(&flat).json()["width"], 3000);
    still_serves(&server);
}

#[test]
fn bodies_of_another_kind_are_refused() {
    let server = running();
    for content_type in [
        "text/plain",
        "",
        "application/xml",
        "multipart/mixed",
        "json",
    ] {
        server
            .post("/v1/segment", content_type, b"{}")
            .is_problem(415, "unsupported-media-type");
    }
    let json = |body: &str| server.post("/v1/segment", "application/json", body.as_bytes());
    json("").is_problem(400, "malformed");
    json("{\"labels\": [\"dog\"").is_problem(400, "malformed");
    json(&"[".repeat(100_000)).is_problem(422, "invalid");
    json("{\"labels\": 7}").is_problem(422, "invalid");
    json("[]").is_problem(422, "invalid");
    json("{\"labels\": [\"dog\"], \"colour\": 1}").is_problem(422, "invalid");
    json("{\"labels\": [\"dog\"], \"image\": \"%%\"}").is_problem(422, "invalid");
    let invalid_utf8 = b"{\"labels\": [\"\xff\"]}";
    let answer = server.post("/v1/segment", "application/json", invalid_utf8);
    assert!(answer.status == 400 || answer.status == 422);
}

#[test]
fn bodies_in_other_encodings_are_refused() {
    let server = running();
    let ask = |headers: &[(&str, &str)]| {
        send(server.addr, "POST", "/v1/segment", headers, b"{}")
            .is_problem(415, "unsupported-media-type");
    };
    ask(&[("Content-Type", "application/json; charset=utf-16")]);
    ask(&[
        ("Content-Type", "application/json"),
        ("Content-Encoding", "gzip"),
    ]);
    ask(&[("Content-Type", "image/jpeg")]);
}

#[test]
fn what_is_not_understood_is_named_and_not_sent_back() {
    let server = running();
    let image = STANDARD.encode(png(8, 8));
    let long = "x".repeat(50_000);
    for (body, expected) in [
        (
            json!({ "image": image, "labels": [{ "name": "dog" }] }),
            "labels[0]: invalid type: map, expected a text",
        ),
        (
            json!({ "image": image, "labels": ["dog", 7] }),
            "labels[1]: invalid type: integer `7`, expected a text",
        ),
        (
            json!({ "image": image, "labels": ["dog"], "colour": 1 }),
            "unknown field `colour`",
        ),
        (
            json!({ "image": image, "labels": ["dog"], "size": long }),
            "size: invalid type",
        ),
        (
            json!({ "image": image, "labels": ["dog"], (long.as_str()): 1 }),
            "unknown field",
        ),
        (
            json!({ "image": "https://a.b/c.jpg", "labels": ["dog"] }),
            "image: a web address",
        ),
        (
            json!({ "image": image, "labels": ["dog"], "background": ["sky"] }),
            "background: invalid type",
        ),
    ] {
        let answer = server.json("/v1/segment", &body);
        answer.is_problem(422, "invalid");
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(expected), "{detail}");
        assert!(answer.body.len() < 1_000, "{}", answer.body.len());
    }
    let words = "sky,".repeat(20_000);
    let body = json!({ "image": image, "labels": ["dog"], "background": words });
    server
        .json("/v1/segment", &body)
        .is_problem(413, "too-large");
    // A photo under another name.
    let (content_type, body) = form(&png(8, 8), &[("labels", "dog")]);
    let other = String::from_utf8_lossy(&body)
        .find("name=\"image\"")
        .unwrap();
    let body = [&body[..other], b"name=\"photo\"", &body[other + 12..]].concat();
    let answer = server.post("/v1/segment", &content_type, &body);
    answer.is_problem(422, "invalid");
    assert!(
        answer.text().contains("call it `image`"),
        "{}",
        answer.text()
    );
}

#[test]
fn broken_forms_are_refused() {
    let server = running();
    let (content_type, whole) = form(&png(8, 8), &[("labels", "dog")]);
    let ask = |content_type: &str, body: &[u8]| server.post("/v1/segment", content_type, body);
    ask(&content_type, &whole[..whole.len() - 20]).is_problem(400, "malformed");
    ask(&content_type, b"").is_problem(400, "malformed");
    ask(&content_type, b"--XX\r\n\r\nno name\r\n--XX--\r\n").is_problem(400, "malformed");
    ask("multipart/form-data", &whole).is_problem(400, "malformed");
    ask("multipart/form-data; boundary=\"\"", &whole).is_problem(400, "malformed");
    ask("multipart/form-data; boundary=YY", &whole).is_problem(400, "malformed");
    let twice = [&whole[..whole.len() - 8], b"\r\n", &whole[..]].concat();
    let answer = ask(&content_type, &twice);
    assert!(
        answer.status == 400 || answer.status == 422,
        "{}",
        answer.text()
    );
    let long = "x".repeat(70_000);
    let field = |name, value| {
        server.form(
            "/v1/segment",
            &png(8, 8),
            &[("labels", "dog"), (name, value)],
        )
    };
    field("labels", "dog").is_problem(422, "invalid");
    field("size", "huge").is_problem(422, "invalid");
    field("size", "4294967295").is_problem(422, "invalid");
    field("size", "0").is_problem(422, "invalid");
    field("max_side", "0").is_problem(422, "invalid");
    field("output", "exe").is_problem(422, "invalid");
    field("background", "7").is_problem(422, "invalid");
    field("colour", "red").is_problem(422, "invalid");
    field("background", &long).is_problem(413, "too-large");
    field("session", "and-a-photo").is_problem(422, "invalid");
    still_serves(&server);
}

#[test]
fn too_many_labels_are_refused() {
    let server = running();
    let many: Vec<String> = (0..10_000).map(|i| format!("thing {i}")).collect();
    let image = STANDARD.encode(png(8, 8));
    let ask = |labels: serde_json::Value| {
        let body = json!({ "image": image, "labels": labels });
        server.json("/v1/segment", &body).is_problem(422, "invalid");
    };
    ask(json!(many));
    ask(json!([]));
    ask(json!([""]));
    ask(json!(["dog", "Dog"]));
    ask(json!(["x".repeat(2000)]));
    server
        .form("/v1/segment", &png(8, 8), &[("labels", &many.join(","))])
        .is_problem(413, "too-large");
    let fields: Vec<(&str, &str)> = many
        .iter()
        .take(5000)
        .map(|l| ("labels", l.as_str()))
        .collect();
    let answer = server.form("/v1/segment", &png(8, 8), &fields);
    assert!(matches!(answer.status, 413 | 422), "{}", answer.status);
    let body = json!({ "image": image, "labels": many[..200], "templates": "imagenet80" });
    server.json("/v1/segment", &body).is_problem(422, "invalid");
    still_serves(&server);
}

#[test]
fn addresses_lead_nowhere_else() {
    let server = running();
    for path in [
        "/../Cargo.toml",
        "/..%2f..%2fetc/passwd",
        "/page/../../Cargo.toml",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/v1/sessions/../models",
        "/v1/sessions/..%2f..%2fetc%2fpasswd/photo",
        "/v1/sessions//photo",
        "/v1/sessions/%00/photo",
        "/v1/sessions/%ff/photo",
        "//etc/passwd",
        "/app.js/",
        "/.git/config",
    ] {
        let answer = server.get(path);
        assert!(
            matches!(answer.status, 400 | 404),
            "{path}: {}",
            answer.status
        );
        assert_eq!(
            answer.header("content-type"),
            "application/problem+json",
            "{path}"
        );
    }
}

#[test]
fn broken_heads_are_refused() {
    let server = running();
    let long = format!(
        "GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "a".repeat(100_000)
    );
    let many = format!(
        "GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n",
        "X-A: b\r\n".repeat(500)
    );
    for head in [
        "nonsense\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "POST /v1/segment HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        long.as_str(),
        many.as_str(),
    ] {
        let mut stream = connect(server.addr);
        let _ = stream.write_all(head.as_bytes());
        let mut bytes = Vec::new();
        // Some are not worth an answer; none is served.
        let _ = stream.read_to_end(&mut bytes);
        if !bytes.is_empty() {
            let answer = parse(&bytes);
            assert!(
                (400..500).contains(&answer.status),
                "{head:.40}: {}",
                answer.status
            );
        }
    }
    still_serves(&server);
}

#[test]
fn pages_of_other_sites_may_not_call() {
    let server = running();
    let ask = |server: &Running, origin: &str| {
        send(server.addr, "GET", "/v1/models", &[("Origin", origin)], b"")
    };
    let own = format!("http://{}", server.addr);
    assert_eq!(ask(&server, &own).status, 200);
    ask(&server, "https://example.org").is_problem(403, "foreign-origin");
    let open = start(Config {
        allow_origins: vec!["https://example.org".into()],
        ..Config::default()
    });
    let answer = ask(&open, "https://example.org");
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.header("access-control-allow-origin"),
        "https://example.org"
    );
    assert_eq!(ask(&open, "https://example.com").status, 403);
}

#[test]
fn one_session_may_be_used_and_forgotten_at_once() {
    let server = start(Config {
        sessions: SessionLimits {
            count: 4,
            ..SessionLimits::default()
        },
        ..Config::default()
    });
    let keep = |size: u32| {
        let answer = server.form("/v1/sessions", &png(size, size), &[]);
        answer.json()["session"].as_str().unwrap().to_owned()
    };
    let id = keep(30);
    std::thread::scope(|scope| {
        for i in 0..8 {
            let (server, id) = (&server, &id);
            scope.spawn(move || {
                for _ in 0..5 {
                    let body = json!({ "session": id, "labels": [format!("dog {i}")] });
                    let answer = server.json("/v1/segment", &body);
                    match answer.status {
                        200 => assert_eq!(answer.json()["width"], 30),
                        _ => answer.is_problem(404, "no-session"),
                    }
                    if i == 7 {
                        server.delete(&format!("/v1/sessions/{id}"));
                    }
                }
            });
        }
    });
    // Each id shows its own photo, also where others made room for it.
    let ids: Vec<String> = (40..50).map(keep).collect();
    for (size, id) in (40..50).zip(&ids) {
        let answer = server.json("/v1/segment", &json!({ "session": id, "labels": ["dog"] }));
        match size {
            46.. => assert_eq!(answer.json()["width"], size),
            _ => answer.is_problem(404, "no-session"),
        }
    }
    for id in ["", "..", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
        let body = json!({ "session": id, "labels": ["dog"] });
        server
            .json("/v1/segment", &body)
            .is_problem(404, "no-session");
    }
}
