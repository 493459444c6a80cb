//! Many clients at once: batches, a full queue, clients that leave, and an orderly end.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failing helper fails its test"
)]

mod common;

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::{Running, connect, form, png, read, start};
use percept_serve::Config;

fn running(queue: usize) -> Running {
    start(Config {
        queue,
        workers: 2,
        ..Config::default()
    })
}

/// The value of a line of `/metrics`.
fn metric(server: &Running, name: &str) -> f64 {
    let text = server.get("/metrics").text();
    let line = text.lines().find(|line| line.starts_with(name));
    let value = line.and_then(|line| line.rsplit(' ').next()).unwrap();
    value.parse().unwrap()
}

/// Slow enough that others come meanwhile: the largest that is encoded, in many groups.
const SLOW: [(&str, &str); 3] = [("size", "1024"), ("groups", "64"), ("output", "overlay")];

/// Sends what takes long, and does not wait for the answer.
fn ask_slowly(server: &Running) -> TcpStream {
    let (content_type, body) = form(&png(300, 300), &SLOW);
    let mut stream = connect(server.addr);
    let head = format!(
        "POST /v1/group HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&body).unwrap();
    stream
}

#[test]
fn photos_of_all_clients_share_passes_and_results_stay_apart() {
    let server = running(64);
    let sizes: Vec<u32> = (0..24).map(|i| 40 + i % 3).collect();
    std::thread::scope(|scope| {
        for size in &sizes {
            let server = &server;
            scope.spawn(move || {
                let file = png(*size, 40);
                let map = server.form("/v1/segment", &file, &[("labels", "dog"), ("size", "64")]);
                assert_eq!(map.status, 200, "{}", map.text());
                assert_eq!(map.json()["width"], *size);
            });
        }
    });
    let passes = metric(&server, "percept_batch_images_count");
    assert_eq!(metric(&server, "percept_batch_images_sum"), 24.0);
    assert!(passes < 24.0, "{passes} passes for 24 photos");
}

#[test]
fn a_full_queue_says_when_to_come_again() {
    let server = running(1);
    let (content_type, body) = form(&png(300, 300), &SLOW);
    let answers: Vec<_> = std::thread::scope(|scope| {
        let ask = || {
            let (server, content_type, body) = (&server, &content_type, &body);
            scope.spawn(move || server.post("/v1/group", content_type, body))
        };
        let threads: Vec<_> = (0..12).map(|_| ask()).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let served = answers.iter().filter(|answer| answer.status == 200).count();
    assert!(served >= 1);
    for refused in answers.iter().filter(|answer| answer.status != 200) {
        refused.is_problem(429, "busy");
        assert_eq!(refused.header("retry-after"), "1");
    }
    assert!(served < 12, "the queue of one took all");
    assert_eq!(metric(&server, "percept_places_taken"), 0.0);
}

#[test]
fn a_client_that_leaves_frees_its_place() {
    let server = running(1);
    for _ in 0..5 {
        drop(ask_slowly(&server));
    }
    let start = Instant::now();
    while metric(&server, "percept_places_taken") > 0.0 {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "a place is still taken"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn what_was_begun_is_finished() {
    let mut server = running(8);
    let mut stream = ask_slowly(&server);
    while metric(&server, "percept_places_taken") < 1.0 {
        std::thread::sleep(Duration::from_millis(5));
        assert!(metric(&server, "percept_requests_total{route=\"/metrics\"") < 400.0);
    }
    let addr = server.addr;
    server.stop();
    let answer = read(&mut stream);
    assert_eq!(answer.status, 200, "{}", answer.text());
    server.join();
    assert!(TcpStream::connect(addr).is_err());
}
