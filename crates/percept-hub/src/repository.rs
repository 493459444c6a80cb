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
const SETTINGS: [&str; 9] = [
    "config.json",
    "config_sentence_transformers.json",
    MODULES,
    "open_clip_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
];

/// Where Sentence Transformers list the parts of a model, each in a folder.
const MODULES: &str = "modules.json";

/// Names that training runs leave beside a model, which are not models.
const NOT_MODELS: [&str; 4] = [
    "training_args.bin",
    "optimizer.bin",
    "optimizer.pt",
    "scheduler.pt",
];

/// Forms of weights, best first: the whole and the end of the name of the index of its shards.
const FORMS: [(&str, &str); 2] = [
    ("model.safetensors", ".safetensors.index.json"),
    ("pytorch_model.bin", ".bin.index.json"),
];

/// A repository at a revision.
pub(crate) struct Repository<'a> {
    pub(crate) http: &'a Http,
    pub(crate) cache: RepoCache,
    pub(crate) repo: &'a str,
    pub(crate) revision: &'a str,
}

/// The files of a repository at a commit.
#[derive(Deserialize)]
pub(crate) struct Listing {
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
        self.pull_listed(&self.list()?, sha256, false, progress)
    }

    /// As [`Repository::pull`], of a repository whose files are known. What the snapshot has already
    /// is not asked for again if `trusted`.
    pub(crate) fn pull_listed(
        &self,
        listing: &Listing,
        sha256: Option<&str>,
        trusted: bool,
        progress: &dyn Progress,
    ) -> Result<PathBuf, HubError> {
        let names: Vec<&str> = (listing.siblings.iter())
            .map(|s| s.rfilename.as_str())
            .collect();
        if let Some(path) = names.iter().find(|name| !is_safe_path(name)) {
            return Err(HubError::UnsafePath {
                repo: self.repo.to_owned(),
                path: (*path).to_owned(),
            });
        }
        let commit = listing.sha.as_str();
        let snapshot = self.cache.snapshot(commit);
        let fetch = |path: &str, sha256| {
            if trusted && is_there(&snapshot, path) {
                return Ok(());
            }
            self.pull_file(path, Some(commit), None, sha256, progress)
                .map(drop)
        };
        if names.contains(&MODULES) {
            fetch(MODULES, None)?;
        }
        // Before anything else is downloaded in vain.
        let known_weights =
            weights_of_model(&names, &snapshot).ok_or_else(|| HubError::NoWeights {
                repo: self.repo.to_owned(),
            })?;
        if sha256.is_some() && known_weights.len() > 1 {
            return Err(HubError::AmbiguousDigest {
                reference: format!("hf:{}", self.repo),
                files: known_weights.len(),
            });
        }
        let mut others = others(&names, &module_folders(&snapshot));
        others.retain(|path| !known_weights.contains(path));
        // Weights last, so that a snapshot with weights is a complete one.
        for path in &others {
            fetch(path, None)?;
        }
        for path in &known_weights {
            fetch(path, sha256)?;
        }
        self.cache.set_reference(self.revision, commit)?;
        // A file that is empty on the hub too is not missed later.
        let pulled: Vec<&str> = (others.into_iter().chain(known_weights))
            .filter(|path| is_there(&snapshot, path))
            .collect();
        // Without the note the hub is only asked once more.
        let _ = self.cache.note_pulled(commit, &pulled);
        Ok(snapshot)
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
        // Only now: another process may have finished it while we waited. One of another length was cut
        // by whoever copied the cache.
        let there = std::fs::metadata(&blob)
            .ok()
            .filter(std::fs::Metadata::is_file);
        if there.is_none_or(|blob| info.size.is_some_and(|size| size != blob.len())) {
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

    /// Asks the hub what files there are.
    pub(crate) fn list(&self) -> Result<Listing, HubError> {
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

/// Chooses the small files that percept reads: settings, the tokeniser, and what Sentence Transformers
/// keep in folders, those of `modules` and any that are numbered as theirs are.
fn others<'a>(names: &[&'a str], modules: &[String]) -> Vec<&'a str> {
    let is_module = |folder: &str| modules.iter().any(|m| m == folder) || is_numbered(folder);
    let mut others: Vec<&str> = (names.iter().copied())
        .filter(|name| match name.rsplit_once('/') {
            None => is_setting(name),
            Some((folder, _)) if !is_module(folder) => false,
            // A transformer in a folder of its own has its settings and tokeniser there.
            Some((_, name)) if name == "model.safetensors" || is_setting(name) => true,
            Some((folder, "pytorch_model.bin")) => {
                !names.contains(&format!("{folder}/model.safetensors").as_str())
            }
            Some(_) => false,
        })
        .collect();
    others.sort_unstable();
    others
}

/// Whether a name is that of a small file that percept reads.
fn is_setting(name: &str) -> bool {
    SETTINGS.contains(&name)
        // `sentence_bert_config.json`, and the same for other kinds of model.
        || (name.starts_with("sentence_") && name.ends_with("_config.json"))
        || FORMS.iter().any(|(_, index)| name.ends_with(index))
}

/// `1_Pooling`, `2_Dense`: a number and a kind.
fn is_numbered(folder: &str) -> bool {
    folder.split_once('_').is_some_and(|(number, kind)| {
        !number.is_empty()
            && number.bytes().all(|b| b.is_ascii_digit())
            && ["Pooling", "Dense"].contains(&kind)
    })
}

/// One part of a model of Sentence Transformers.
#[derive(Deserialize)]
struct Module {
    #[serde(default)]
    path: String,
    #[serde(default, rename = "type")]
    kind: String,
}

impl Module {
    /// Whether it is a layer with weights of its own.
    fn has_weights(&self) -> bool {
        self.kind.ends_with("Dense") || (is_numbered(&self.path) && self.path.ends_with("Dense"))
    }

    /// Whether it is nothing without its settings.
    fn has_settings(&self) -> bool {
        self.has_weights() || self.kind.ends_with("Pooling") || is_numbered(&self.path)
    }
}

fn modules(snapshot: &Path) -> Vec<Module> {
    read_json(&snapshot.join(MODULES)).unwrap_or_default()
}

/// The folders that `modules.json` names.
fn module_folders(snapshot: &Path) -> Vec<String> {
    let paths = modules(snapshot).into_iter().map(|module| module.path);
    let paths = paths.map(|path| path.trim_end_matches('/').to_owned());
    paths.filter(|path| is_safe_path(path)).collect()
}

/// Where the model's weights are: the folder of its transformer, such as `0_Transformer/`, where `modules.json`
/// names one of its own; else the top.
fn weights_folder(snapshot: &Path) -> String {
    let first = modules(snapshot).into_iter().next();
    let own = first.filter(|module| module.kind.ends_with("Transformer"));
    let path = own.map(|module| module.path).unwrap_or_default();
    match path.trim_end_matches('/') {
        path if is_safe_path(path) => format!("{path}/"),
        _ => String::new(),
    }
}

/// The weights in the model's [folder](weights_folder), or at the top where that has none.
fn weights_of_model<'a>(names: &[&'a str], snapshot: &Path) -> Option<Vec<&'a str>> {
    let folder = weights_folder(snapshot);
    weights_under(names, &folder).or_else(|| weights(names))
}

/// One form of the weights at the top.
fn weights<'a>(names: &[&'a str]) -> Option<Vec<&'a str>> {
    weights_under(names, "")
}

/// One form of the weights in a folder: safetensors if there are any, whole before split.
fn weights_under<'a>(names: &[&'a str], folder: &str) -> Option<Vec<&'a str>> {
    let all: Vec<(&'a str, &'a str)> = (names.iter())
        .filter_map(|name| Some((*name, name.strip_prefix(folder)?)))
        .filter(|(_, own)| !own.contains('/'))
        .collect();
    let ending = |suffixes: &[&str]| -> Vec<&'a str> {
        (all.iter())
            .filter(|(_, own)| suffixes.iter().any(|s| own.ends_with(s)))
            .filter(|(_, own)| !NOT_MODELS.contains(own))
            .map(|(name, _)| *name)
            .collect()
    };
    let form = |(whole, index): (&str, &str), ends: &str| {
        if let Some((name, _)) = all.iter().copied().find(|(_, own)| *own == whole) {
            return Some(vec![name]);
        }
        let mut shards = ending(&[ends]);
        if ending(&[index]).is_empty() || shards.is_empty() {
            return None;
        }
        // Beside its parts there may be the same model in one, under another name.
        if shards.iter().any(|name| name.contains("-of-")) {
            shards.retain(|name| name.contains("-of-"));
        }
        Some(shards)
    };
    if let Some(found) = form(FORMS[0], ".safetensors") {
        return Some(found);
    }
    let safetensors = ending(&[".safetensors"]);
    if safetensors.len() == 1 {
        return Some(safetensors);
    }
    if let Some(found) = form(FORMS[1], ".bin") {
        return Some(found);
    }
    let torch = ending(&[".pt", ".pth", ".bin"]);
    (torch.len() == 1).then_some(torch)
}

/// What a snapshot lacks of what [`Repository::pull`] would have brought: by the note of an earlier
/// pull, else as far as its own files tell. It may have been made by another program, which downloads
/// in any order, or what it likes.
pub(crate) fn missing(snapshot: &Path, pulled: Option<&[String]>) -> Vec<String> {
    let is_there = |name: &str| is_there(snapshot, name);
    if let Some(pulled) = pulled {
        return (pulled.iter().filter(|name| !is_there(name)).cloned()).collect();
    }
    let names = entries(snapshot);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut missing: Vec<String> = others(&names, &module_folders(snapshot))
        .into_iter()
        .map(str::to_owned)
        .collect();
    match weights_of_model(&names, snapshot) {
        None => missing.push("the weights".to_owned()),
        Some(weights) => {
            missing.extend(weights.iter().map(|name| (*name).to_owned()));
            // Their libraries never save the one without the other.
            for (whole, _) in FORMS {
                let folders = weights.iter().filter_map(|name| name.strip_suffix(whole));
                missing.extend(folders.map(|folder| format!("{folder}config.json")));
            }
            missing.extend(shards(snapshot, &names, &weights));
        }
    }
    for module in modules(snapshot) {
        let file = |name: &str| format!("{}/{name}", module.path.trim_end_matches('/'));
        if module.has_settings() {
            missing.push(file("config.json"));
        }
        let weights = FORMS.map(|(whole, _)| file(whole));
        if module.has_weights() && !weights.iter().any(|name| is_there(name)) {
            missing.push(file("model.safetensors"));
        }
    }
    missing.retain(|name| !is_there(name));
    missing.sort_unstable();
    missing.dedup();
    missing
}

/// Whether a file is there with something in it; its link may lead nowhere.
fn is_there(snapshot: &Path, name: &str) -> bool {
    std::fs::metadata(snapshot.join(name)).is_ok_and(|file| file.is_file() && file.len() > 0)
}

/// The shards that the index of these weights names.
fn shards(snapshot: &Path, names: &[&str], weights: &[&str]) -> Vec<String> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: std::collections::BTreeMap<String, String>,
    }
    let index = FORMS.iter().find_map(|(whole, index)| {
        let ends = whole.rsplit_once('.').map_or("", |(_, ends)| ends);
        let is_whole = weights
            .iter()
            .any(|name| name.rsplit('/').next() == Some(whole));
        let of_this_form = !is_whole && weights.iter().all(|w| w.ends_with(ends));
        let index = (names.iter()).find(|name| {
            let is_beside = |other: &&str| folder_of(other) == folder_of(name);
            name.ends_with(index) && weights.iter().all(is_beside)
        });
        index.filter(|_| of_this_form)
    });
    let index = index.and_then(|name| read_json::<Index>(&snapshot.join(name)));
    let folder = weights.first().map_or("", |name| folder_of(name));
    let shards = (index.into_iter())
        .flat_map(|index| index.weight_map.into_values())
        .map(|name| format!("{folder}{name}"));
    shards.filter(|name| is_safe_path(name)).collect()
}

/// The folder that a name is in, with its slash; nothing at the top.
fn folder_of(name: &str) -> &str {
    name.rfind('/').map_or("", |slash| &name[..=slash])
}

/// The names in a snapshot and in the folders in it, links that lead nowhere too.
fn entries(snapshot: &Path) -> Vec<String> {
    let list = |folder: &Path| -> Vec<(String, bool)> {
        (std::fs::read_dir(folder).into_iter().flatten().flatten())
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                Some((name, entry.path().is_dir()))
            })
            .collect()
    };
    let mut names = Vec::new();
    for (name, is_folder) in list(snapshot) {
        if is_folder {
            let inside = list(&snapshot.join(&name)).into_iter();
            names.extend(inside.map(|(file, _)| format!("{name}/{file}")));
        } else {
            names.push(name);
        }
    }
    names
}

/// A small JSON file of the cache, or nothing if it is not what it should be.
fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Option<T> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// The weight files of a snapshot or folder.
pub(crate) fn weights_in(snapshot: &Path) -> Vec<PathBuf> {
    let names = entries(snapshot);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    (weights_of_model(&names, snapshot)
        .unwrap_or_default()
        .iter())
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
        let weights = weights(names)?;
        let all = [others(names, &["head".to_owned()]), weights].concat();
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
            "head/config.json",
            "head/pytorch_model.bin",
            "model.safetensors",
            "modules.json",
            "onnx/model.onnx",
            "pytorch_model.bin",
            "sentence_roberta_config.json",
            "spiece.model",
            "tokenizer.json",
            "training_args.bin",
        ];
        assert_eq!(
            selected(&names).unwrap(),
            [
                "1_Pooling/config.json",
                "2_Dense/config.json",
                "2_Dense/model.safetensors",
                "config.json",
                "head/config.json",
                "head/pytorch_model.bin",
                "modules.json",
                "sentence_roberta_config.json",
                "tokenizer.json",
                "model.safetensors",
            ]
        );
    }

    #[test]
    fn takes_a_transformer_out_of_its_own_folder() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let modules = r#"[{"type": "sentence_transformers.models.Transformer", "path": "0_Transformer"},
            {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"},
            {"type": "sentence_transformers.models.Dense", "path": "2_Dense_1024/"}]"#;
        write(MODULES, modules);
        let names = [
            MODULES,
            "0_Transformer/config.json",
            "0_Transformer/model.safetensors",
            "0_Transformer/pytorch_model.bin",
            "0_Transformer/sentence_bert_config.json",
            "0_Transformer/tokenizer.json",
            "0_Transformer/tokenizer_config.json",
            "0_Transformer/vocab.txt",
            "1_Pooling/config.json",
            "2_Dense_1024/config.json",
            "2_Dense_1024/model.safetensors",
            "2_Dense_256/config.json",
            "2_Dense_256/model.safetensors",
        ];
        let found = weights_of_model(&names, folder.path()).unwrap();
        assert_eq!(found, ["0_Transformer/model.safetensors"]);
        let mut wanted = others(&names, &module_folders(folder.path()));
        wanted.retain(|name| !found.contains(name));
        assert_eq!(
            wanted,
            [
                "0_Transformer/config.json",
                "0_Transformer/sentence_bert_config.json",
                "0_Transformer/tokenizer.json",
                "0_Transformer/tokenizer_config.json",
                "1_Pooling/config.json",
                "2_Dense_1024/config.json",
                "2_Dense_1024/model.safetensors",
                MODULES,
            ]
        );
        // A cache that another program filled: what is missing is named, and weights at the top are not asked for.
        write("0_Transformer/model.safetensors", "x");
        write("2_Dense_1024/model.safetensors", "x");
        write("1_Pooling/config.json", "{}");
        assert_eq!(
            missing(folder.path(), None),
            ["0_Transformer/config.json", "2_Dense_1024/config.json"]
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
        let both = [&sharded[..], &["consolidated.safetensors"]].concat();
        assert_eq!(weights(&both).unwrap(), sharded[..2].join(" "));
        let torch = [
            "pytorch_model-00001-of-00002.bin",
            "pytorch_model-00002-of-00002.bin",
            "pytorch_model.bin.index.json",
            "training_args.bin",
        ];
        assert_eq!(weights(&torch).unwrap(), torch[..2].join(" "));
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
