//! Many clients at once against a running service: what they were answered, and how soon.
//!
//! ```sh
//! cargo run --release -p percept-serve --example load -- 127.0.0.1:8080 examples/photos 64 120 PID
//! ```
//!
//! Each client segments one photo of the folder after the other. With the service's PID, its memory is
//! written down as it goes (Linux).

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How often the memory is looked at.
const LOOK: Duration = Duration::from_secs(5);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [addr, folder, clients, seconds, pid @ ..] = args.as_slice() else {
        return Err("usage: load ADDR FOLDER CLIENTS SECONDS [PID]".into());
    };
    let (clients, seconds): (usize, u64) = (clients.parse()?, seconds.parse()?);
    let requests: Vec<Vec<u8>> = photos(folder)?
        .iter()
        .map(|photo| request(addr, photo))
        .collect();
    if requests.is_empty() {
        return Err("the folder holds no photos".into());
    }
    let answers: Mutex<Vec<(u16, Duration)>> = Mutex::default();
    let start = Instant::now();
    let end = start + Duration::from_secs(seconds);
    std::thread::scope(|scope| {
        for client in 0..clients {
            let (requests, answers) = (&requests, &answers);
            scope.spawn(move || {
                // Each begins at another photo, so that sizes are mixed at any time.
                for request in requests.iter().cycle().skip(client) {
                    if Instant::now() >= end {
                        return;
                    }
                    let begun = Instant::now();
                    let status = ask(addr, request).unwrap_or(0);
                    let answer = (status, begun.elapsed());
                    if let Ok(mut answers) = answers.lock() {
                        answers.push(answer);
                    }
                    if status != 200 {
                        // As Retry-After asks.
                        std::thread::sleep(Duration::from_secs(1));
                    }
                }
            });
        }
        if let Some(pid) = pid.first() {
            while Instant::now() < end {
                let memory = memory(pid).unwrap_or_else(|| "unknown".into());
                println!("{:4} s  memory {memory}", start.elapsed().as_secs());
                std::thread::sleep(LOOK);
            }
        }
    });
    report(&answers.into_inner()?, start.elapsed());
    Ok(())
}

fn photos(folder: &str) -> std::io::Result<Vec<Vec<u8>>> {
    let mut paths: Vec<_> = std::fs::read_dir(Path::new(folder))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "jpg" || e == "png"))
        .collect();
    paths.sort();
    paths.iter().map(std::fs::read).collect()
}

/// A whole request: a form with the photo, and a mask wanted.
fn request(addr: &str, photo: &[u8]) -> Vec<u8> {
    let part = |name: &str| format!("--XX\r\nContent-Disposition: form-data; name=\"{name}\"");
    let mut body = format!(
        "{}\r\n\r\ncat, coffee cup, rocket, person\r\n{}\r\n\r\nmask\r\n{}; filename=\"a.jpg\"\r\n\r\n",
        part("labels"),
        part("output"),
        part("image"),
    )
    .into_bytes();
    body.extend_from_slice(photo);
    body.extend_from_slice(b"\r\n--XX--\r\n");
    let head = format!(
        "POST /v1/segment HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\
         Content-Type: multipart/form-data; boundary=XX\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), &body].concat()
}

/// Sends a request and gives the status of the answer once all of it is there.
fn ask(addr: &str, request: &[u8]) -> std::io::Result<u16> {
    let mut stream = TcpStream::connect(addr)?;
    stream.write_all(request)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let status = answer
        .get(9..12)
        .and_then(|status| std::str::from_utf8(status).ok());
    Ok(status.and_then(|status| status.parse().ok()).unwrap_or(0))
}

/// Resident memory of a process, as Linux tells it.
fn memory(pid: &str) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    Some(line.trim_start_matches("VmRSS:").trim().to_owned())
}

fn report(answers: &[(u16, Duration)], took: Duration) {
    let mut counts: BTreeMap<u16, usize> = BTreeMap::new();
    for (status, _) in answers {
        *counts.entry(*status).or_default() += 1;
    }
    println!("answers by status (0: none): {counts:?}");
    let mut times: Vec<Duration> = answers
        .iter()
        .filter(|(status, _)| *status == 200)
        .map(|(_, time)| *time)
        .collect();
    times.sort();
    let rate = times.len() as f64 / took.as_secs_f64();
    println!("{rate:.2} photos a second over {:.1} s", took.as_secs_f64());
    for percent in [50, 90, 99] {
        let at = (times.len() * percent / 100).min(times.len().saturating_sub(1));
        if let Some(time) = times.get(at) {
            println!("p{percent}  {:.2} s", time.as_secs_f64());
        }
    }
}
