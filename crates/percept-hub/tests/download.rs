//! Downloads from a server on this machine that does everything a server can do wrong.

// The lints let tests panic, but not the functions that tests share.
#![allow(clippy::panic, clippy::unwrap_used)]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use common::{Request, Response, Server};
use percept_hub::{Cached, Hub, HubError, Progress, PullOptions, Reference};
use sha2::{Digest, Sha256};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const GIT_HASH: &str = "89abcdef0123456789abcdef0123456789abcdef";

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

/// Large enough to be sent in several pieces.
fn weights() -> Vec<u8> {
    (0..500_000u32).flat_map(u32::to_le_bytes).collect()
}

struct Setup {
    home: tempfile::TempDir,
    hub: Hub,
}

fn setup(server: &Server) -> Setup {
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::new(home.path())
        .endpoint(&server.url)
        .retry_delay(Duration::from_millis(1));
    Setup { home, hub }
}

impl Setup {
    fn pull(&self, reference: &str) -> Result<PathBuf, HubError> {
        self.hub.pull(&parse(reference), &PullOptions::default())
    }

    fn pull_with_digest(&self, reference: &str, sha256: &str) -> Result<PathBuf, HubError> {
        let options = PullOptions {
            sha256: Some(sha256.to_owned()),
            ..PullOptions::default()
        };
        self.hub.pull(&parse(reference), &options)
    }

    /// Every file under the home, as relative paths, except locks.
    fn files(&self) -> Vec<String> {
        fn walk(root: &Path, folder: &Path, found: &mut Vec<String>) {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.file_type().unwrap().is_dir() {
                    walk(root, &entry.path(), found);
                } else {
                    let path = entry.path();
                    let name = path.strip_prefix(root).unwrap().to_str().unwrap();
                    found.push(name.replace('\\', "/"));
                }
            }
        }
        let mut found = Vec::new();
        walk(self.home.path(), self.home.path(), &mut found);
        found.retain(|name| !name.ends_with(".lock"));
        found.sort();
        found
    }
}

fn parse(reference: &str) -> Reference {
    reference.parse().unwrap()
}

// Single files.

#[test]
fn a_file_is_downloaded_once() {
    let server = Server::new(|_, _| Response::ok(weights()));
    let setup = setup(&server);
    let url = format!("{}/releases/model.pt?x=1", server.url);
    let path = setup.pull(&url).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), weights());
    assert_eq!(path.file_name().unwrap(), "model.pt");
    let digest = sha256(&weights());
    assert_eq!(path.parent().unwrap().file_name().unwrap(), digest.as_str());

    assert_eq!(setup.pull(&url).unwrap(), path);
    assert_eq!(
        setup
            .pull_with_digest(&url, &digest.to_uppercase())
            .unwrap(),
        path
    );
    assert_eq!(setup.hub.cached(&parse(&url)), Some(path));
    assert_eq!(server.log(), ["GET /releases/model.pt?x=1"]);
    assert_eq!(setup.files().len(), 2, "{:?}", setup.files());
}

#[test]
fn a_broken_download_goes_on_where_it_stopped() {
    let server = Server::new(|request, n| {
        let response = Response::ranged(request, &weights()).header("etag", "\"v1\"");
        if n < 2 {
            response.cut(700_000)
        } else {
            response
        }
    });
    let setup = setup(&server);
    let path = setup.pull(&format!("{}/model.pt", server.url)).unwrap();
    assert_eq!(std::fs::read(path).unwrap(), weights());
    let requests = server.requests();
    let starts: Vec<_> = requests.iter().map(Request::start).collect();
    assert_eq!(starts, [None, Some(700_000), Some(1_400_000)]);
    assert_eq!(requests[2].header("if-range"), Some("\"v1\""));
}

#[test]
fn a_later_run_goes_on_where_the_last_gave_up() {
    let server = Server::new(|request, n| match n {
        0 => Response::ok(weights()).header("etag", "\"v1\"").cut(1000),
        1..=5 => Response::new(503),
        _ => Response::ranged(request, &weights()).header("etag", "\"v1\""),
    });
    let setup = setup(&server);
    let url = format!("{}/model.pt", server.url);
    assert!(matches!(
        setup.pull(&url),
        Err(HubError::Status { status: 503, .. })
    ));
    assert!(setup.hub.cached(&parse(&url)).is_none());
    let path = setup.pull(&url).unwrap();
    assert_eq!(std::fs::read(path).unwrap(), weights());
    assert_eq!(server.requests()[6].start(), Some(1000));
}

#[test]
fn a_server_without_ranges_starts_again() {
    let server = Server::new(|_, n| {
        let response = Response::ok(weights()).header("etag", "\"v1\"");
        if n == 0 { response.cut(1000) } else { response }
    });
    let setup = setup(&server);
    let path = setup.pull(&format!("{}/model.pt", server.url)).unwrap();
    assert_eq!(std::fs::read(path).unwrap(), weights());
    assert_eq!(server.requests()[1].start(), Some(1000));
}

#[test]
fn a_changed_file_starts_again() {
    let new: Vec<u8> = weights().into_iter().rev().collect();
    let body = new.clone();
    // It ignores `If-Range` and would mix the two.
    let server = Server::new(move |request, n| match n {
        0 => Response::ok(weights()).header("etag", "\"v1\"").cut(1000),
        _ => Response::ranged(request, &body).header("etag", "\"v2\""),
    });
    let setup = setup(&server);
    let path = setup.pull(&format!("{}/model.pt", server.url)).unwrap();
    assert_eq!(std::fs::read(path).unwrap(), new);
}

#[test]
fn a_shrunken_file_starts_again() {
    let server = Server::new(|request, n| match n {
        0 => Response::ok(weights()).header("etag", "\"v1\"").cut(1000),
        _ => Response::ranged(request, b"short"),
    });
    let setup = setup(&server);
    let path = setup.pull(&format!("{}/model.pt", server.url)).unwrap();
    assert_eq!(std::fs::read(path).unwrap(), b"short");
    assert_eq!(server.log().len(), 3);
}

#[test]
fn a_wrong_digest_leaves_nothing() {
    let server = Server::new(|_, _| Response::ok("evil"));
    let setup = setup(&server);
    let url = format!("{}/model.pt", server.url);
    let expected = sha256(b"good");
    let error = setup.pull_with_digest(&url, &expected).unwrap_err();
    assert!(
        matches!(&error, HubError::WrongDigest { file, found, .. } if file == "model.pt" && *found == sha256(b"evil")),
        "{error:?}"
    );
    assert_eq!(setup.files(), [""; 0]);
    let error = setup.pull_with_digest(&url, "abc").unwrap_err();
    assert!(matches!(error, HubError::BadDigest { .. }));
}

#[test]
fn more_bytes_than_announced_are_not_read() {
    let server = Server::new(|_, _| Response::ok("0123456789").header("content-length", "4"));
    let setup = setup(&server);
    let path = setup.pull(&format!("{}/model.pt", server.url)).unwrap();
    assert_eq!(std::fs::read(path).unwrap(), b"0123");
}

#[test]
fn failures_say_what_to_do() {
    let server = Server::new(|request, _| match request.path.as_str() {
        "/gone.pt" => Response::new(404),
        "/private.pt" => Response::new(401),
        "/gated.pt" => Response::new(403),
        "/teapot.pt" => Response::new(418),
        "/nowhere.pt" => Response::new(302),
        _ => Response::new(302).header("location", &request.path),
    });
    let setup = setup(&server);
    let error = |name: &str| setup.pull(&format!("{}/{name}", server.url)).unwrap_err();
    assert!(matches!(error("gone.pt"), HubError::NotFound { file, .. } if file == "gone.pt"));
    assert!(error("private.pt").to_string().contains("set HF_TOKEN"));
    assert!(matches!(
        error("gated.pt"),
        HubError::Denied { status: 403, .. }
    ));
    assert!(matches!(
        error("teapot.pt"),
        HubError::Status { status: 418, .. }
    ));
    assert!(matches!(error("nowhere.pt"), HubError::BadAnswer { .. }));
    assert!(matches!(
        error("circle.pt"),
        HubError::TooManyRedirects { .. }
    ));
    assert_eq!(setup.files(), [""; 0]);
}

#[test]
fn busy_servers_are_asked_again() {
    let server = Server::new(|_, n| match n {
        0 => Response::new(429).header("retry-after", "0"),
        1 => Response::new(502),
        _ => Response::ok("ok"),
    });
    let setup = setup(&server);
    setup.pull(&format!("{}/model.pt", server.url)).unwrap();
    assert_eq!(server.log().len(), 3);
}

#[test]
fn a_server_that_always_hangs_up_is_given_up() {
    let server = Server::new(|_, _| Response::ok(weights()).cut(0));
    let setup = setup(&server);
    let error = setup.pull(&format!("{}/model.pt", server.url)).unwrap_err();
    assert!(
        matches!(error, HubError::BrokenOff { received: 0, .. }),
        "{error:?}"
    );
    assert_eq!(server.log().len(), 5);
}

#[test]
fn a_connection_that_is_not_tls_is_an_error() {
    let server = Server::new(|_, _| Response::ok("plain"));
    let setup = setup(&server);
    let url = server.url.replace("http:", "https:");
    let error = setup.pull(&format!("{url}/model.pt")).unwrap_err();
    assert!(matches!(error, HubError::Network { .. }), "{error:?}");
    assert_eq!(setup.files(), [""; 0]);
}

#[test]
fn the_token_stays_with_its_host() {
    let other = Server::new(|_, _| Response::ok("body"));
    let target = format!("{}/elsewhere.pt", other.url);
    let server = Server::new(move |request, _| match request.path.as_str() {
        "/model.pt" => Response::new(302).header("location", "/moved.pt"),
        _ => Response::new(302).header("location", &target),
    });
    let mut setup = setup(&server);
    setup.hub = setup.hub.token("secret");
    setup.pull(&format!("{}/model.pt", server.url)).unwrap();
    for request in server.requests() {
        assert_eq!(request.header("authorization"), Some("Bearer secret"));
    }
    assert_eq!(server.log().len(), 2);
    assert_eq!(other.requests()[0].header("authorization"), None);
    // Nor is it sent to an address that only happens to be pulled.
    setup.pull(&format!("{}/direct.pt", other.url)).unwrap();
    assert_eq!(other.requests()[1].header("authorization"), None);
}

#[test]
fn offline_never_connects() {
    let server = Server::new(|_, _| Response::ok("body"));
    let mut setup = setup(&server);
    let url = format!("{}/model.pt", server.url);
    setup.hub = setup.hub.offline();
    for reference in [url.as_str(), "hf:org/name", "clippy", "dino-vitb16"] {
        let error = setup.pull(reference).unwrap_err();
        assert!(matches!(error, HubError::Offline { .. }));
        let message = error.to_string();
        assert!(
            message.contains(&format!("percept pull {reference}")),
            "{message}"
        );
    }
    assert_eq!(server.log(), [""; 0]);
}

#[derive(Default)]
struct Log(Mutex<Vec<String>>);

impl Progress for Log {
    fn start(&self, file: &str, total: Option<u64>) {
        self.0
            .lock()
            .unwrap()
            .push(format!("start {file} {total:?}"));
    }
    fn advance(&self, bytes: u64) {
        let mut log = self.0.lock().unwrap();
        let sum = match log.last().and_then(|l| l.parse::<u64>().ok()) {
            Some(before) => {
                log.pop();
                before + bytes
            }
            None => bytes,
        };
        log.push(sum.to_string());
    }
    fn finish(&self) {
        self.0.lock().unwrap().push("finish".to_owned());
    }
}

#[test]
fn progress_is_told() {
    let server = Server::new(|request, n| {
        let response = Response::ranged(request, &weights()).header("etag", "\"v1\"");
        if n == 0 { response.cut(1000) } else { response }
    });
    let setup = setup(&server);
    let log = Log::default();
    let options = PullOptions {
        progress: &log,
        ..PullOptions::default()
    };
    let url = format!("{}/model.pt", server.url);
    setup.hub.pull(&parse(&url), &options).unwrap();
    let start = "start model.pt Some(2000000)";
    assert_eq!(
        *log.0.lock().unwrap(),
        [start, "1000", start, "2000000", "finish"]
    );
}

// Repositories.

/// A hub with one repository: small files served by it, weights redirected to `storage`.
fn hub_server(names: &'static [&'static str], storage: String) -> Server {
    Server::new(move |request, _| {
        let path = request.path.as_str();
        if path.starts_with("/api/models/org/name/revision/") {
            let siblings: Vec<_> = names
                .iter()
                .map(|name| serde_json::json!({ "rfilename": name }))
                .collect();
            let listing = serde_json::json!({ "sha": COMMIT, "siblings": siblings });
            return Response::ok(listing.to_string());
        }
        let file = path.strip_prefix(&format!("/org/name/resolve/{COMMIT}/"));
        match file {
            Some(name) if name.ends_with(".safetensors") => Response::new(302)
                .header("location", &format!("{storage}/{name}"))
                .header("x-linked-etag", &format!("\"{}\"", sha256(&weights())))
                .header("x-linked-size", &weights().len().to_string())
                .header("x-repo-commit", COMMIT),
            Some(name) => Response::ok(format!("contents of {name}"))
                .header("etag", &format!("\"{GIT_HASH}\""))
                .header("x-repo-commit", COMMIT),
            None => Response::new(404),
        }
    })
}

const FILES: &[&str] = &[
    ".gitattributes",
    "1_Pooling/config.json",
    "README.md",
    "config.json",
    "model.safetensors",
    "onnx/model.onnx",
    "pytorch_model.bin",
];

#[test]
fn a_repository_lands_in_the_layout_of_huggingface_hub() {
    let storage = Server::new(|request, n| {
        let response = Response::ranged(request, &weights());
        if n == 0 { response.cut(1000) } else { response }
    });
    let server = hub_server(FILES, storage.url.clone());
    let setup = setup(&server);
    let folder = setup.pull("hf:org/name").unwrap();
    let root = "hub/models--org--name";
    let digest = sha256(&weights());
    assert_eq!(
        folder,
        setup.home.path().join(format!("{root}/snapshots/{COMMIT}"))
    );
    let mut expected = vec![
        format!("{root}/blobs/{GIT_HASH}"),
        format!("{root}/blobs/{digest}"),
        format!("{root}/refs/main"),
        format!("{root}/snapshots/{COMMIT}/1_Pooling/config.json"),
        format!("{root}/snapshots/{COMMIT}/config.json"),
        format!("{root}/snapshots/{COMMIT}/model.safetensors"),
        format!("percept/pulled/models--org--name/{COMMIT}"),
    ];
    expected.sort();
    assert_eq!(setup.files(), expected);
    let reference = setup.home.path().join(root).join("refs/main");
    assert_eq!(std::fs::read_to_string(reference).unwrap(), COMMIT);
    #[cfg(unix)]
    {
        let link = |name: &str| std::fs::read_link(folder.join(name)).unwrap();
        let target = format!("../../blobs/{digest}");
        assert_eq!(link("model.safetensors"), Path::new(&target));
        let target = format!("../../../blobs/{GIT_HASH}");
        assert_eq!(link("1_Pooling/config.json"), Path::new(&target));
    }
    assert_eq!(
        std::fs::read(folder.join("model.safetensors")).unwrap(),
        weights()
    );

    // The download went on where it broke off, and a second pull asks nobody.
    assert_eq!(storage.requests()[1].start(), Some(1000));
    let asked = server.log().len();
    assert_eq!(setup.pull("hf:org/name").unwrap(), folder);
    assert_eq!(
        setup.pull(&format!("hf:org/name@{COMMIT}")).unwrap(),
        folder
    );
    assert_eq!(
        setup.pull_with_digest("hf:org/name", &digest).unwrap(),
        folder
    );
    let error = setup
        .pull_with_digest("hf:org/name", &sha256(b"x"))
        .unwrap_err();
    assert!(matches!(error, HubError::WrongDigest { .. }));
    assert_eq!(server.log().len(), asked);
}

#[test]
fn a_snapshot_without_its_weights_is_not_taken_for_complete() {
    let storage = Server::new(|request, _| Response::ranged(request, &weights()));
    let server = hub_server(FILES, storage.url.clone());
    let setup = setup(&server);
    let folder = setup.pull("hf:org/name").unwrap();
    std::fs::remove_file(folder.join("model.safetensors")).unwrap();
    assert_eq!(setup.hub.cached(&parse("hf:org/name")), None);
    // Its blob is still there, so only the link is made again.
    setup.pull("hf:org/name").unwrap();
    assert_eq!(storage.log().len(), 1);

    // Any file that was pulled once belongs to it.
    std::fs::remove_file(folder.join("1_Pooling/config.json")).unwrap();
    let partly = Cached::Partly {
        folder: folder.clone(),
        missing: vec!["1_Pooling/config.json".to_owned()],
    };
    assert_eq!(setup.hub.look(&parse("hf:org/name")), partly);
    setup.pull("hf:org/name").unwrap();
    let whole = Cached::Whole(folder);
    assert_eq!(setup.hub.look(&parse("hf:org/name")), whole);
}

// Caches that other programs filled.

impl Setup {
    /// Puts files into the snapshot of `commit`, as plain files.
    fn snapshot(&self, commit: &str, files: &[(&str, &[u8])]) -> PathBuf {
        let folder = (self.home.path().join("hub/models--org--name/snapshots")).join(commit);
        for (name, bytes) in files {
            let path = folder.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        folder
    }

    fn refer(&self, revision: &str, commit: &str) {
        let refs = self.home.path().join("hub/models--org--name/refs");
        std::fs::create_dir_all(&refs).unwrap();
        std::fs::write(refs.join(revision), commit).unwrap();
    }

    /// What is missing of `hf:org/name`, by the error that a command gives.
    fn missing(&self) -> Vec<String> {
        match self.hub.find(&parse("hf:org/name")) {
            Err(error @ HubError::PartlyCached { .. }) => {
                let message = error.to_string();
                assert!(message.contains("percept pull hf:org/name"), "{message}");
                let HubError::PartlyCached { missing, .. } = error else {
                    unreachable!()
                };
                assert!(message.contains(&missing[0]), "{message}");
                missing
            }
            Ok(_) => Vec::new(),
            Err(other) => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_a_partly_filled_cache_lacks_is_named_and_fetched() {
    let storage = Server::new(|request, _| Response::ranged(request, &weights()));
    let server = hub_server(FILES, storage.url.clone());
    let setup = setup(&server);
    // As AutoConfig and AutoTokenizer leave it.
    let settings: &[(&str, &[u8])] = &[("config.json", b"{}"), ("tokenizer.json", b"{}")];
    let folder = setup.snapshot(COMMIT, settings);
    setup.refer("main", COMMIT);
    assert_eq!(setup.missing(), ["the weights"]);
    let offline = Hub::new(setup.home.path()).offline();
    let error = offline.pull(&parse("hf:org/name"), &PullOptions::default());
    let message = error.unwrap_err().to_string();
    assert!(message.contains("the weights missing"), "{message}");

    assert_eq!(setup.pull("hf:org/name").unwrap(), folder);
    let fetched = std::fs::read(folder.join("model.safetensors")).unwrap();
    assert_eq!(fetched, weights());
    assert!(setup.missing().is_empty());
}

#[cfg(unix)]
#[test]
fn links_that_lead_nowhere_are_missing() {
    let server = Server::new(|_, _| Response::new(404));
    let setup = setup(&server);
    let folder = setup.snapshot(COMMIT, &[("config.json", b"{}")]);
    setup.refer("main", COMMIT);
    for name in ["model.safetensors", "tokenizer.json", "README.md"] {
        std::os::unix::fs::symlink("../../blobs/gone", folder.join(name)).unwrap();
    }
    assert_eq!(setup.missing(), ["model.safetensors", "tokenizer.json"]);
}

#[test]
fn files_that_were_cut_are_fetched_again() {
    let storage = Server::new(|request, _| Response::ranged(request, &weights()));
    let server = hub_server(FILES, storage.url.clone());
    let setup = setup(&server);
    let folder = setup.pull("hf:org/name").unwrap();
    // As an interrupted copy leaves them: nothing of one file, and half of the weights.
    let blobs = setup.home.path().join("hub/models--org--name/blobs");
    std::fs::write(blobs.join(GIT_HASH), "").unwrap();
    assert_eq!(setup.missing(), ["1_Pooling/config.json", "config.json"]);
    std::fs::write(blobs.join(sha256(&weights())), "half").unwrap();
    setup.pull("hf:org/name").unwrap();
    let fetched = std::fs::read(folder.join("model.safetensors")).unwrap();
    assert_eq!(fetched, weights());
    assert!(setup.missing().is_empty());
}

#[test]
fn parts_that_other_files_name_are_missing() {
    let server = Server::new(|_, _| Response::new(404));
    let setup = setup(&server);
    setup.refer("main", COMMIT);
    // Shards of an index, in both forms.
    for (index, shards) in [
        (
            "model.safetensors.index.json",
            ["model-1-of-2.safetensors", "model-2-of-2.safetensors"],
        ),
        (
            "pytorch_model.bin.index.json",
            ["pytorch_model-1-of-2.bin", "pytorch_model-2-of-2.bin"],
        ),
    ] {
        let map = format!(
            r#"{{"weight_map":{{"a":"{}","b":"{}"}}}}"#,
            shards[0], shards[1]
        );
        let files = [
            ("config.json", &b"{}"[..]),
            (index, map.as_bytes()),
            (shards[0], b"w"),
        ];
        let folder = setup.snapshot(COMMIT, &files);
        assert_eq!(setup.missing(), [shards[1]]);
        std::fs::remove_dir_all(folder).unwrap();
    }
    // Weights without the settings that their library saves with them.
    setup.snapshot(COMMIT, &[("model.safetensors", b"w")]);
    assert_eq!(setup.missing(), ["config.json"]);
    // The modules of Sentence Transformers, of any name.
    let modules = br#"[
        {"idx":0,"path":"","type":"sentence_transformers.models.Transformer"},
        {"idx":1,"path":"1_Pooling","type":"sentence_transformers.models.Pooling"},
        {"idx":2,"path":"head","type":"sentence_transformers.models.Dense"},
        {"idx":3,"path":"3_Normalize","type":"sentence_transformers.models.Normalize"}]"#;
    setup.snapshot(COMMIT, &[("config.json", b"{}"), ("modules.json", modules)]);
    let missing = [
        "1_Pooling/config.json",
        "head/config.json",
        "head/model.safetensors",
    ];
    assert_eq!(setup.missing(), missing);
    let rest: &[(&str, &[u8])] = &[
        ("1_Pooling/config.json", b"{}"),
        ("head/config.json", b"{}"),
        ("head/pytorch_model.bin", b"w"),
    ];
    setup.snapshot(COMMIT, rest);
    assert!(setup.missing().is_empty());
}

#[test]
fn what_no_file_of_the_cache_tells_is_asked_of_the_server() {
    let storage = Server::new(|request, _| Response::ranged(request, &weights()));
    let server = hub_server(FILES, storage.url.clone());
    let setup = setup(&server);
    // Weights and settings, and no word of the pooling.
    let files: &[(&str, &[u8])] = &[("config.json", b"{}"), ("model.safetensors", b"w")];
    let folder = setup.snapshot(COMMIT, files);
    setup.refer("main", COMMIT);
    assert!(setup.missing().is_empty());
    assert_eq!(setup.pull("hf:org/name").unwrap(), folder);
    assert!(folder.join("1_Pooling/config.json").is_file());
    // What was there is left as it was, and nobody is asked again.
    assert_eq!(
        std::fs::read(folder.join("model.safetensors")).unwrap(),
        b"w"
    );
    let asked = server.log().len();
    setup.pull("hf:org/name").unwrap();
    assert_eq!(server.log().len(), asked);
    assert_eq!(storage.log(), [""; 0]);

    // Without an answer, what is there is all that can be had.
    let silent = Server::new(|_, _| Response::new(404));
    let other = self::setup(&silent);
    let folder = other.snapshot(COMMIT, files);
    other.refer("main", COMMIT);
    assert_eq!(other.pull("hf:org/name").unwrap(), folder);
}

#[test]
fn versions_that_nobody_named_are_offered_and_not_taken() {
    let server = Server::new(|_, _| Response::new(404));
    let setup = setup(&server);
    let files: &[(&str, &[u8])] = &[("config.json", b"{}"), ("model.safetensors", b"w")];
    let folder = setup.snapshot(COMMIT, files);
    let offered = || {
        let error = setup.hub.find(&parse("hf:org/name")).unwrap_err();
        assert!(error.to_string().contains("percept pull hf:org/name"));
        match error {
            HubError::NotCached { others, .. } => others,
            other => panic!("{other:?}"),
        }
    };
    // Neither without a reference, as mirrors copy it, nor with one that names another snapshot.
    let other = format!("hf:org/name@{COMMIT}");
    assert_eq!(offered(), [other.as_str()]);
    setup.refer("main", &"b".repeat(40));
    assert_eq!(offered(), [other.as_str()]);
    assert_eq!(setup.hub.find(&parse(&other)).unwrap(), folder);
}

#[test]
fn weights_that_are_not_what_the_hub_says_are_not_kept() {
    // As long as they should be, but other bytes.
    let storage = Server::new(|request, _| {
        let body: Vec<u8> = weights().into_iter().rev().collect();
        Response::ranged(request, &body)
    });
    let server = hub_server(FILES, storage.url.clone());
    let setup = setup(&server);
    let error = setup.pull("hf:org/name").unwrap_err();
    assert!(matches!(error, HubError::WrongDigest { file, .. } if file == "model.safetensors"));
    let digest = sha256(&weights());
    assert!(setup.files().iter().all(|name| !name.contains(&digest)));
    assert_eq!(setup.hub.cached(&parse("hf:org/name")), None);
}

#[test]
fn weights_of_another_length_are_not_even_read() {
    let storage = Server::new(|_, _| Response::ok("short"));
    let server = hub_server(FILES, storage.url.clone());
    let setup = setup(&server);
    let error = setup.pull("hf:org/name").unwrap_err();
    assert!(
        matches!(
            error,
            HubError::WrongSize {
                expected: 2_000_000,
                found: 5,
                ..
            }
        ),
        "{error:?}"
    );
}

#[test]
fn a_digest_that_the_hub_contradicts_is_refused_before_the_download() {
    let storage = Server::new(|_, _| Response::ok(weights()));
    let server = hub_server(FILES, storage.url.clone());
    let setup = setup(&server);
    let error = setup
        .pull_with_digest("hf:org/name", &sha256(b"x"))
        .unwrap_err();
    assert!(matches!(error, HubError::WrongDigest { .. }));
    assert_eq!(storage.log(), [""; 0]);
}

#[test]
fn repositories_cannot_write_elsewhere() {
    const NAMES: &[&str] = &["config.json", "../../../evil.safetensors"];
    let server = hub_server(NAMES, String::new());
    let setup = setup(&server);
    let error = setup.pull("hf:org/name").unwrap_err();
    assert!(
        matches!(&error, HubError::UnsafePath { path, .. } if path == NAMES[1]),
        "{error:?}"
    );
    assert_eq!(server.log().len(), 1);

    // The tag becomes a file name too.
    let server = Server::new(|request, _| match request.method.as_str() {
        "HEAD" => Response::new(200).header("etag", "\"../../evil\""),
        _ => Response::ok(format!(
            r#"{{"sha":"{COMMIT}","siblings":[{{"rfilename":"model.safetensors"}}]}}"#
        )),
    });
    let error = setup.hub.endpoint(&server.url);
    let error = error.pull(&parse("hf:org/name"), &PullOptions::default());
    assert!(matches!(error, Err(HubError::BadAnswer { .. })));
}

#[test]
fn repositories_without_weights_or_at_all() {
    let server = hub_server(&["README.md", "config.json"], String::new());
    let setup = setup(&server);
    let error = setup.pull("hf:org/name").unwrap_err();
    assert!(matches!(error, HubError::NoWeights { repo } if repo == "org/name"));
    let error = setup.pull("hf:org/other").unwrap_err();
    assert!(matches!(error, HubError::NotFound { file, .. } if file == "org/other"));
}
