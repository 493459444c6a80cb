//! A Hugging Face repository: which of its files percept reads, and getting them.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::cache::{RepoCache, io_error, is_commit, is_safe_path, is_sha256, lock};
use crate::download::{Download, MAX_FILE, Resume};
use crate::error::HubError;
use crate::http::{Follow, Http, Method, Request};
use crate::progress::Progress;

/// The answer on a repository lists its files; the largest known take about 2 MB.
const MAX_LISTING: u64 = 16 << 20;

/// Files in a repository, of which percept wants about ten.
const MAX_FILES: usize = 100_000;

/// Everything small that percept reads at the top of a repository.
const SETTINGS: [&str; 8] = [
    "config.json",
    "modules.json",
    "open_clip_config.json",
    "preprocessor_config.json",
    "sentence_bert_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
];

/// A repository at a revision.
pub(crate) struct Repository<'a> {
    pub(crate) http: &'a Http,
    pub(crate) cache: RepoCache,
    pub(crate) repo: &'a str,
    pub(crate) revision: &'a str,
}

#[derive(Deserialize)]
struct Listing {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

/// What the hub says about a file before sending it.
struct FileInfo {
    etag: String,
    size: Option<u64>,
    commit: Option<String>,
}

impl Repository<'_> {
    /// Downloads all that percept reads and returns the snapshot's folder. `sha256` is for the
    /// weights.
    pub(crate) fn pull(
        &self,
        sha256: Option<&str>,
        progress: &dyn Progress,
    ) -> Result<PathBuf, HubError> {
        let listing = self.list()?;
        let names: Vec<&str> = (listing.siblings.iter())
            .map(|s| s.rfilename.as_str())
            .collect();
        if let Some(path) = names.iter().find(|name| !is_safe_path(name)) {
            return Err(HubError::UnsafePath {
                repo: self.repo.to_owned(),
                path: (*path).to_owned(),
            });
        }
        let Selection { others, weights } = select(&names).ok_or_else(|| HubError::NoWeights {
            repo: self.repo.to_owned(),
        })?;
        if sha256.is_some() && weights.len() > 1 {
            return Err(HubError::AmbiguousDigest {
                reference: format!("hf:{}", self.repo),
                files: weights.len(),
            });
        }
        // Weights last, so that a snapshot with weights is a complete one.
        for path in others {
            self.pull_file(path, Some(&listing.sha), None, None, progress)?;
        }
        for path in weights {
            self.pull_file(path, Some(&listing.sha), None, sha256, progress)?;
        }
        self.cache.set_reference(self.revision, &listing.sha)?;
        Ok(self.cache.snapshot(&listing.sha))
    }

    /// Downloads one file, unless its blob is there, and returns its place in the snapshot. Without
    /// a commit the hub is asked what the revision means, and the reference is updated.
    pub(crate) fn pull_file(
        &self,
        path: &str,
        commit: Option<&str>,
        size: Option<u64>,
        sha256: Option<&str>,
        progress: &dyn Progress,
    ) -> Result<PathBuf, HubError> {
        let url = format!(
            "{}/{}/resolve/{}/{}",
            self.http.endpoint(),
            self.repo,
            encode(commit.unwrap_or(self.revision), ""),
            encode(path, "/")
        );
        let info = self.ask(path, &url)?;
        let bad_answer = |reason: &str| HubError::BadAnswer {
            url: url.clone(),
            reason: reason.to_owned(),
        };
        let resolved = match (commit, &info.commit) {
            (Some(commit), _) => commit,
            (None, Some(commit)) if is_commit(commit) => commit,
            _ => return Err(bad_answer("it names no commit")),
        };
        let etag = &info.etag;
        // Large files are stored under their SHA-256. A digest that we were given has to agree.
        let published = is_sha256(etag).then_some(etag.as_str());
        if let (Some(expected), Some(found)) = (sha256, published)
            && !expected.eq_ignore_ascii_case(found)
        {
            return Err(HubError::WrongDigest {
                file: path.to_owned(),
                expected: expected.to_ascii_lowercase(),
                found: found.to_owned(),
            });
        }
        if let (Some(expected), Some(found)) = (size, info.size)
            && expected != found
        {
            return Err(HubError::WrongSize {
                file: path.to_owned(),
                expected,
                found,
            });
        }
        if info.size.is_some_and(|size| size > MAX_FILE) {
            return Err(HubError::TooLarge {
                file: path.to_owned(),
                limit: MAX_FILE,
            });
        }

        let blob = self.cache.blob(etag);
        let held = lock(&self.cache.lock(etag))?;
        // Only now: another process may have finished it while we waited.
        if !blob.is_file() {
            let incomplete = blob.with_file_name(format!("{etag}.incomplete"));
            Download {
                url: &url,
                file: path,
                incomplete: &incomplete,
                size: size.or(info.size),
                sha256: published.or(sha256),
                resume: match published {
                    Some(_) => Resume::ByName,
                    None => Resume::Never,
                },
            }
            .run(self.http, progress)?;
            std::fs::rename(&incomplete, &blob).map_err(io_error(&blob))?;
        }
        drop(held);
        let entry = self.cache.link(resolved, path, etag)?;
        if commit.is_none() {
            self.cache.set_reference(self.revision, resolved)?;
        }
        Ok(entry)
    }

    fn list(&self) -> Result<Listing, HubError> {
        let url = format!(
            "{}/api/models/{}/revision/{}",
            self.http.endpoint(),
            self.repo,
            encode(self.revision, "")
        );
        let mut answer = self.http.send_patiently(&Request {
            method: Method::Get,
            url: &url,
            file: self.repo,
            range: None,
            follow: Follow::Everywhere,
        })?;
        let bad_answer = |reason: String| HubError::BadAnswer {
            url: url.clone(),
            reason,
        };
        let text = (answer.body.with_config().limit(MAX_LISTING))
            .read_to_vec()
            .map_err(|source| HubError::Network {
                file: self.repo.to_owned(),
                url: url.clone(),
                source: Box::new(source),
            })?;
        let listing: Listing =
            serde_json::from_slice(&text).map_err(|e| bad_answer(e.to_string()))?;
        if !is_commit(&listing.sha) {
            return Err(bad_answer("it names no commit".to_owned()));
        }
        if listing.siblings.len() > MAX_FILES {
            return Err(bad_answer(format!("more than {MAX_FILES} files")));
        }
        Ok(listing)
    }

    /// Asks about a file without fetching it. Redirects to storage elsewhere are not followed: what
    /// the hub says about the file is in the redirect.
    fn ask(&self, path: &str, url: &str) -> Result<FileInfo, HubError> {
        let answer = self.http.send_patiently(&Request {
            method: Method::Head,
            url,
            file: path,
            range: None,
            follow: Follow::SameOrigin,
        })?;
        let etag = (answer.header("x-linked-etag").or(answer.header("etag")))
            .map(|tag| tag.trim_start_matches("W/").trim_matches('"'))
            .unwrap_or_default();
        // It becomes a file name.
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if etag.is_empty() || etag.len() > 128 || !etag.chars().all(plain) {
            return Err(HubError::BadAnswer {
                url: url.to_owned(),
                reason: "it has no usable ETag".to_owned(),
            });
        }
        let linked_size = answer.header("x-linked-size").and_then(|n| n.parse().ok());
        // The length of a redirect is not that of the file.
        let length = answer.header("content-length").and_then(|n| n.parse().ok());
        Ok(FileInfo {
            etag: etag.to_owned(),
            size: linked_size.or(length.filter(|_| answer.status == 200)),
            commit: answer.header("x-repo-commit").map(str::to_owned),
        })
    }
}

/// What to take of a repository.
struct Selection<'a> {
    others: Vec<&'a str>,
    weights: Vec<&'a str>,
}

/// Chooses the files that percept reads: settings, the tokeniser, the layers that Sentence
/// Transformers keep in folders, and one form of the weights, safetensors if there are any.
fn select<'a>(names: &[&'a str]) -> Option<Selection<'a>> {
    let weights = weights(names)?;
    let mut others: Vec<&str> = (names.iter().copied())
        .filter(|name| match name.split_once('/') {
            None => SETTINGS.contains(name) || name.ends_with(".safetensors.index.json"),
            Some((folder, "config.json")) => is_module(folder, &["Pooling", "Dense"]),
            Some((folder, "model.safetensors")) => is_module(folder, &["Dense"]),
            Some((folder, "pytorch_model.bin")) => {
                is_module(folder, &["Dense"])
                    && !names.contains(&format!("{folder}/model.safetensors").as_str())
            }
            Some(_) => false,
        })
        .collect();
    others.sort_unstable();
    Some(Selection { others, weights })
}

/// `1_Pooling`, `2_Dense`: a number and a kind.
fn is_module(folder: &str, kinds: &[&str]) -> bool {
    folder.split_once('_').is_some_and(|(number, kind)| {
        !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) && kinds.contains(&kind)
    })
}

fn weights<'a>(names: &[&'a str]) -> Option<Vec<&'a str>> {
    let ending = |suffixes: &[&str]| -> Vec<&'a str> {
        (names.iter().copied())
            .filter(|n| !n.contains('/') && suffixes.iter().any(|s| n.ends_with(s)))
            .collect()
    };
    let whole = |name: &str| names.iter().copied().find(|n| *n == name);
    if let Some(name) = whole("model.safetensors") {
        return Some(vec![name]);
    }
    let safetensors = ending(&[".safetensors"]);
    let sharded = !ending(&[".safetensors.index.json"]).is_empty();
    if safetensors.len() == 1 || (sharded && !safetensors.is_empty()) {
        return Some(safetensors);
    }
    if let Some(name) = whole("pytorch_model.bin") {
        return Some(vec![name]);
    }
    let torch = ending(&[".pt", ".pth", ".bin"]);
    (torch.len() == 1).then_some(torch)
}

/// Whether a snapshot has all that [`Repository::pull`] would have brought, as far as its own files
/// tell. It may have been made by another program, which downloads in any order.
pub(crate) fn is_complete(snapshot: &Path) -> bool {
    let names: Vec<String> = std::fs::read_dir(snapshot)
        .into_iter()
        .flatten()
        .flatten()
        // Follows the link: a dangling one is no file.
        .filter(|entry| entry.path().is_file())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    weights(&names).is_some() && shards_are_there(snapshot, &names) && modules_are_there(snapshot)
}

/// Every shard that an index names.
fn shards_are_there(snapshot: &Path, names: &[&str]) -> bool {
    #[derive(Deserialize)]
    struct Index {
        weight_map: std::collections::BTreeMap<String, String>,
    }
    if names.contains(&"model.safetensors") {
        return true;
    }
    (names.iter())
        .filter(|n| n.ends_with(".safetensors.index.json"))
        .all(|name| {
            read_json::<Index>(&snapshot.join(name))
                .is_some_and(|i| i.weight_map.values().all(|s| names.contains(&s.as_str())))
        })
}

/// The dense layers that `modules.json` names.
fn modules_are_there(snapshot: &Path) -> bool {
    #[derive(Deserialize)]
    struct Module {
        path: String,
    }
    let path = snapshot.join("modules.json");
    if !path.exists() {
        return true;
    }
    let Some(modules) = read_json::<Vec<Module>>(&path) else {
        return false;
    };
    (modules.iter())
        .filter(|m| is_module(&m.path, &["Dense"]))
        .all(|m| {
            let folder = snapshot.join(&m.path);
            ["model.safetensors", "pytorch_model.bin"]
                .iter()
                .any(|name| folder.join(name).is_file())
        })
}

/// A small JSON file of the cache, or nothing if it is not what it should be.
fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Option<T> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// The weight files of a snapshot or folder.
pub(crate) fn weights_in(snapshot: &Path) -> Vec<PathBuf> {
    let names: Vec<String> = std::fs::read_dir(snapshot)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    (weights(&names).unwrap_or_default().iter())
        .map(|name| snapshot.join(name))
        .collect()
}

/// Percent-encodes all but letters, digits, `-._~` and what `keep` has.
fn encode(text: &str, keep: &str) -> String {
    use std::fmt::Write;
    text.bytes().fold(String::new(), |mut out, b| {
        let c = char::from(b);
        if c.is_ascii_alphanumeric() || "-._~".contains(c) || keep.contains(c) {
            out.push(c);
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{b:02X}");
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selected(names: &[&str]) -> Option<Vec<String>> {
        let selection = select(names)?;
        let all = [selection.others, selection.weights].concat();
        Some(all.into_iter().map(str::to_owned).collect())
    }

    #[test]
    fn takes_what_percept_reads() {
        let names = [
            ".gitattributes",
            "1_Pooling/config.json",
            "2_Dense/config.json",
            "2_Dense/model.safetensors",
            "2_Dense/pytorch_model.bin",
            "README.md",
            "config.json",
            "model.safetensors",
            "modules.json",
            "onnx/model.onnx",
            "pytorch_model.bin",
            "spiece.model",
            "tokenizer.json",
        ];
        assert_eq!(
            selected(&names).unwrap(),
            [
                "1_Pooling/config.json",
                "2_Dense/config.json",
                "2_Dense/model.safetensors",
                "config.json",
                "modules.json",
                "tokenizer.json",
                "model.safetensors",
            ]
        );
    }

    #[test]
    fn takes_one_form_of_the_weights() {
        let weights = |names: &[&str]| weights(names).map(|w| w.join(" "));
        assert_eq!(
            weights(&["pytorch_model.bin"]).unwrap(),
            "pytorch_model.bin"
        );
        assert_eq!(weights(&["clip.pt", "x.json"]).unwrap(), "clip.pt");
        assert_eq!(
            weights(&["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]).unwrap(),
            "open_clip_model.safetensors"
        );
        let sharded = [
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
        ];
        assert_eq!(weights(&sharded).unwrap(), sharded[..2].join(" "));
        assert_eq!(weights(&["a.pt", "b.pt"]), None);
        assert_eq!(weights(&["onnx/model.safetensors"]), None);
    }

    #[test]
    fn addresses_are_encoded() {
        assert_eq!(encode("refs/pr/1", ""), "refs%2Fpr%2F1");
        assert_eq!(
            encode("1_Pooling/a b#c.json", "/"),
            "1_Pooling/a%20b%23c.json"
        );
    }
}
