//! The cache and the way to it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cache::{
    RepoCache, io_error, is_safe_path, is_sha256, link, lock, make_parent, remove, sha256_of,
    sha256_of_file, write_whole,
};
use crate::download::{Download, Resume};
use crate::error::HubError;
use crate::http::Http;
use crate::known::{KnownFile, KnownModel, Origin, Source};
use crate::progress::{Progress, Silent};
use crate::reference::Reference;
use crate::repository::{Repository, missing, weights_in};

/// Before the second attempt; doubled for each further one.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// The cache of models on this machine, and the hub that fills it.
#[derive(Debug)]
pub struct Hub {
    home: PathBuf,
    cache: PathBuf,
    endpoint: String,
    token: Option<String>,
    offline: bool,
    retry_delay: Duration,
}

/// How to pull.
#[derive(Clone)]
pub struct PullOptions<'a> {
    /// The SHA-256 that the file (of an address) or the weights (of a model) must have, in
    /// hexadecimal.
    pub sha256: Option<String>,
    /// Who is told how it goes.
    pub progress: &'a dyn Progress,
}

impl Default for PullOptions<'_> {
    fn default() -> Self {
        Self {
            sha256: None,
            progress: &Silent,
        }
    }
}

/// How much of a model the cache has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cached {
    /// All of it: its folder, or its file.
    Whole(PathBuf),
    /// Some of it.
    Partly {
        /// Its folder.
        folder: PathBuf,
        /// What is not there, as paths in that folder.
        missing: Vec<String>,
    },
    /// Nothing.
    Absent {
        /// References to other versions of the same repository that the cache has.
        others: Vec<String>,
    },
}

impl fmt::Debug for PullOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PullOptions")
            .field("sha256", &self.sha256)
            .finish_non_exhaustive()
    }
}

impl Hub {
    /// A hub with its cache under `home` and nothing taken from the environment: online, at
    /// huggingface.co, without a token.
    #[must_use]
    pub fn new(home: impl Into<PathBuf>) -> Self {
        let home = home.into();
        Self {
            cache: home.join("hub"),
            home,
            endpoint: "https://huggingface.co".to_owned(),
            token: None,
            offline: false,
            retry_delay: RETRY_DELAY,
        }
    }

    /// The hub that the environment describes, by the same variables as Python's
    /// `huggingface_hub`: `HF_HOME` (else `XDG_CACHE_HOME/huggingface`, else
    /// `~/.cache/huggingface`), `HF_HUB_CACHE`, `HF_ENDPOINT`, `HF_HUB_OFFLINE`, and the token from
    /// `HF_TOKEN`, the file `HF_TOKEN_PATH`, or the file `HF_HOME/token`; and by the older names that it
    /// still reads, `HUGGINGFACE_HUB_CACHE`, `TRANSFORMERS_OFFLINE` and `HUGGING_FACE_HUB_TOKEN`.
    ///
    /// # Errors
    /// [`HubError::NoHome`] if there is no `HF_HOME` and no home directory.
    pub fn from_env() -> Result<Self, HubError> {
        Self::from_variables(|name| std::env::var(name).ok(), std::env::home_dir())
    }

    /// As [`Hub::from_env`], with the variables from elsewhere.
    ///
    /// # Errors
    /// As [`Hub::from_env`].
    pub fn from_variables(
        variable: impl Fn(&str) -> Option<String>,
        user_home: Option<PathBuf>,
    ) -> Result<Self, HubError> {
        let variable = |name: &str| {
            variable(name)
                .map(|value| value.trim().to_owned())
                .filter(|value| !value.is_empty())
        };
        let expand = |path: String| match (path.strip_prefix("~/"), &user_home) {
            (Some(rest), Some(home)) => home.join(rest),
            _ => PathBuf::from(path),
        };
        let home = (variable("HF_HOME").map(expand))
            .or_else(|| variable("XDG_CACHE_HOME").map(|p| expand(p).join("huggingface")))
            .or_else(|| Some(user_home.as_ref()?.join(".cache").join("huggingface")))
            .ok_or(HubError::NoHome)?;
        let mut hub = Self::new(home);
        if let Some(cache) = variable("HF_HUB_CACHE").or_else(|| variable("HUGGINGFACE_HUB_CACHE"))
        {
            hub.cache = expand(cache);
        }
        if let Some(endpoint) = variable("HF_ENDPOINT") {
            hub = hub.endpoint(&endpoint);
        }
        let offline = variable("HF_HUB_OFFLINE").or_else(|| variable("TRANSFORMERS_OFFLINE"));
        hub.offline = offline.is_some_and(|value| {
            ["1", "true", "yes", "on"].contains(&value.to_ascii_lowercase().as_str())
        });
        let token_file = variable("HF_TOKEN_PATH").map_or_else(|| hub.home.join("token"), expand);
        hub.token = variable("HF_TOKEN")
            .or_else(|| variable("HUGGING_FACE_HUB_TOKEN"))
            .or_else(|| std::fs::read_to_string(token_file).ok())
            .map(|token| token.trim().to_owned())
            .filter(|token| !token.is_empty());
        Ok(hub)
    }

    /// Puts repositories into this folder instead of `HOME/hub`.
    #[must_use]
    pub fn cache(mut self, cache: impl Into<PathBuf>) -> Self {
        self.cache = cache.into();
        self
    }

    /// Asks this server instead of huggingface.co.
    #[must_use]
    pub fn endpoint(mut self, endpoint: &str) -> Self {
        endpoint
            .trim_end_matches('/')
            .clone_into(&mut self.endpoint);
        self
    }

    /// Identifies itself with this token, to the endpoint and nobody else.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Never opens a connection.
    #[must_use]
    pub fn offline(mut self) -> Self {
        self.offline = true;
        self
    }

    /// Waits this long before the second attempt at a request, twice as long before the third, and
    /// so on.
    #[must_use]
    pub fn retry_delay(mut self, delay: Duration) -> Self {
        self.retry_delay = delay;
        self
    }

    /// Finds a model in the cache, or downloads it. Of a repository or a known model the folder is
    /// returned, of an address the file.
    ///
    /// What the cache has whole is taken as it is, without asking the server whether there is something
    /// newer. To get a newer version of a repository, name its revision. Of a snapshot that another
    /// program made, the server is asked what belongs to that commit, and what is missing is fetched.
    ///
    /// # Errors
    /// [`HubError::Offline`] when it is not in the cache and must not be downloaded; otherwise what
    /// went wrong with the download. A file whose size or digest is wrong never reaches its final
    /// place.
    pub fn pull(
        &self,
        reference: &Reference,
        options: &PullOptions<'_>,
    ) -> Result<PathBuf, HubError> {
        if let Some(digest) = &options.sha256
            && !is_sha256(digest)
        {
            return Err(HubError::BadDigest {
                digest: digest.clone(),
            });
        }
        let sha256 = options.sha256.as_deref();
        let cached = self.look(reference);
        if let Cached::Whole(path) = &cached {
            match self.check_cached(reference, path, sha256) {
                // A file at an address may have been replaced since; ask again.
                Err(HubError::WrongDigest { .. })
                    if !self.offline && matches!(reference, Reference::Url(_)) => {}
                Err(error) => return Err(error),
                Ok(()) => return self.complete(reference, path, options),
            }
        }
        if self.offline {
            return Err(HubError::Offline {
                reference: reference.to_string(),
                cache: self.cache.clone(),
                missing: match cached {
                    Cached::Partly { missing, .. } => missing,
                    _ => Vec::new(),
                },
            });
        }
        let http = self.http();
        match reference {
            Reference::Repo { repo, revision } => {
                let repository = self.repository(&http, repo, revision.as_deref());
                repository.pull(sha256, options.progress)
            }
            Reference::Url(url) => self.pull_url(&http, url, None, sha256, options.progress),
            Reference::Known(model) => match &model.source {
                Source::Repository(repo) => {
                    (self.repository(&http, repo, None)).pull(sha256, options.progress)
                }
                Source::Files(files) => {
                    self.pull_files(&http, model, files, sha256, options.progress)
                }
            },
        }
    }

    /// Brings what a snapshot of another program lacks though its own files do not tell, such as a
    /// tokeniser; one of percept's own is whole. Where the server cannot be asked it is left as it is.
    fn complete(
        &self,
        reference: &Reference,
        snapshot: &Path,
        options: &PullOptions<'_>,
    ) -> Result<PathBuf, HubError> {
        let repo = match reference {
            Reference::Repo { repo, .. } => repo.as_str(),
            Reference::Known(model) => match &model.source {
                Source::Repository(repo) => repo,
                Source::Files(_) => return Ok(snapshot.to_owned()),
            },
            Reference::Url(_) => return Ok(snapshot.to_owned()),
        };
        let commit = snapshot.file_name().and_then(|name| name.to_str());
        let noted = self.repo_cache(repo).pulled(snapshot).is_some();
        let (Some(commit), false) = (commit, noted || self.offline) else {
            return Ok(snapshot.to_owned());
        };
        let http = self.http();
        let repository = self.repository(&http, repo, Some(commit));
        match repository.list() {
            Ok(listing) => repository.pull_listed(&listing, None, true, options.progress),
            Err(_) => Ok(snapshot.to_owned()),
        }
    }

    /// Where a model is in the cache, if all of it is there. Never connects.
    #[must_use]
    pub fn cached(&self, reference: &Reference) -> Option<PathBuf> {
        match self.look(reference) {
            Cached::Whole(path) => Some(path),
            Cached::Partly { .. } | Cached::Absent { .. } => None,
        }
    }

    /// As [`Hub::cached`], with a reason that says what to do.
    ///
    /// # Errors
    /// [`HubError::PartlyCached`] names what is missing, [`HubError::NotCached`] what else there is.
    pub fn find(&self, reference: &Reference) -> Result<PathBuf, HubError> {
        match self.look(reference) {
            Cached::Whole(path) => Ok(path),
            Cached::Partly { folder, missing } => Err(HubError::PartlyCached {
                reference: reference.to_string(),
                folder,
                missing,
            }),
            Cached::Absent { others } => Err(HubError::NotCached {
                reference: reference.to_string(),
                others,
            }),
        }
    }

    /// How much of a model the cache has. Never connects.
    ///
    /// A snapshot that percept pulled is whole if all files are there that it pulled; one of another
    /// program if nothing that its own files name is missing.
    #[must_use]
    pub fn look(&self, reference: &Reference) -> Cached {
        match reference {
            Reference::Repo { repo, revision } => self.look_for(repo, revision.as_deref()),
            Reference::Url(url) => match self.find_url(url) {
                Some(path) => Cached::Whole(path),
                None => Cached::Absent { others: Vec::new() },
            },
            Reference::Known(model) => match &model.source {
                Source::Repository(repo) => self.look_for(repo, None),
                Source::Files(files) => {
                    let folder = self.model_folder(model);
                    let (there, missing): (Vec<_>, Vec<_>) = (files.iter().map(|file| file.path))
                        .partition(|path| folder.join(path).is_file());
                    match (&there[..], &missing[..]) {
                        (_, []) => Cached::Whole(folder),
                        ([], _) => Cached::Absent { others: Vec::new() },
                        _ => Cached::Partly {
                            folder,
                            missing: missing.into_iter().map(str::to_owned).collect(),
                        },
                    }
                }
            },
        }
    }

    fn look_for(&self, repo: &str, revision: Option<&str>) -> Cached {
        let cache = self.repo_cache(repo);
        let Some(folder) = cache.find(revision.unwrap_or("main")) else {
            let commits = cache.commits().into_iter();
            return Cached::Absent {
                others: commits.map(|c| format!("hf:{repo}@{c}")).collect(),
            };
        };
        let missing = missing(&folder, cache.pulled(&folder).as_deref());
        match missing[..] {
            [] => Cached::Whole(folder),
            _ => Cached::Partly { folder, missing },
        }
    }

    fn http(&self) -> Http {
        Http::new(self.endpoint.clone(), self.token.clone(), self.retry_delay)
    }

    fn repo_cache(&self, repo: &str) -> RepoCache {
        let notes = self.home.join("percept").join("pulled");
        RepoCache::new(&self.cache, &notes, repo)
    }

    fn repository<'a>(
        &self,
        http: &'a Http,
        repo: &'a str,
        revision: Option<&'a str>,
    ) -> Repository<'a> {
        Repository {
            http,
            cache: self.repo_cache(repo),
            repo,
            revision: revision.unwrap_or("main"),
        }
    }

    /// Checks a digest that the caller gave against what the cache has.
    fn check_cached(
        &self,
        reference: &Reference,
        path: &Path,
        sha256: Option<&str>,
    ) -> Result<(), HubError> {
        let Some(expected) = sha256 else {
            return Ok(());
        };
        let weights = if path.is_dir() {
            weights_in(path)
        } else {
            vec![path.to_owned()]
        };
        let [file] = &weights[..] else {
            return Err(HubError::AmbiguousDigest {
                reference: reference.to_string(),
                files: weights.len(),
            });
        };
        let found = sha256_of_file(file)?;
        if found.eq_ignore_ascii_case(expected) {
            return Ok(());
        }
        Err(HubError::WrongDigest {
            file: file.display().to_string(),
            expected: expected.to_ascii_lowercase(),
            found,
        })
    }

    /// Gathers the files of a known model in one folder, as links into the cache.
    fn pull_files(
        &self,
        http: &Http,
        model: &KnownModel,
        files: &[KnownFile],
        sha256: Option<&str>,
        progress: &dyn Progress,
    ) -> Result<PathBuf, HubError> {
        let folder = self.model_folder(model);
        for file in files {
            // The caller's digest is for the weights, which the table has at a plain address.
            let found =
                match file.origin {
                    Origin::Url(url) => {
                        self.pull_url(http, url, file.size, sha256.or(file.sha256), progress)?
                    }
                    Origin::Repository { repo, path } => self
                        .repository(http, repo, None)
                        .pull_file(path, None, file.size, file.sha256, progress)?,
                };
            let target = std::path::absolute(&found).map_err(io_error(&found))?;
            link(&found, &target, &folder.join(file.path))?;
        }
        Ok(folder)
    }

    fn model_folder(&self, model: &KnownModel) -> PathBuf {
        self.home.join("percept").join("models").join(model.name)
    }

    /// Downloads an address to `HOME/percept/blobs/SHA256/NAME`, and notes under the address's own
    /// digest which that was.
    fn pull_url(
        &self,
        http: &Http,
        url: &str,
        size: Option<u64>,
        sha256: Option<&str>,
        progress: &dyn Progress,
    ) -> Result<PathBuf, HubError> {
        if let Some(path) = self.find_url(url)
            && sha256.is_none_or(|expected| lies_under(&path, expected))
        {
            return Ok(path);
        }
        let name = file_name(url);
        let key = sha256_of(url.as_bytes());
        let incomplete_folder = self.home.join("percept").join("incomplete");
        let incomplete = incomplete_folder.join(format!("{key}.incomplete"));
        let tag = incomplete_folder.join(format!("{key}.etag"));
        let held = lock(&incomplete_folder.join(format!("{key}.lock")))?;
        Download {
            url,
            file: &name,
            incomplete: &incomplete,
            size,
            sha256,
            resume: Resume::ByTag(tag.clone()),
        }
        .run(http, progress)?;
        let digest = match sha256 {
            Some(digest) => digest.to_ascii_lowercase(),
            None => sha256_of_file(&incomplete)?,
        };
        let path = self.url_blob(&digest, &name);
        make_parent(&path)?;
        std::fs::rename(&incomplete, &path).map_err(io_error(&path))?;
        remove(&tag)?;
        write_whole(
            &self.url_note(url),
            format!("{digest}\n{name}\n{url}\n").as_bytes(),
        )?;
        drop(held);
        Ok(path)
    }

    fn find_url(&self, url: &str) -> Option<PathBuf> {
        let note = std::fs::read_to_string(self.url_note(url)).ok()?;
        let mut lines = note.lines();
        let (digest, name) = (lines.next()?, lines.next()?);
        if !is_sha256(digest) || !is_safe_path(name) {
            return None;
        }
        Some(self.url_blob(digest, name)).filter(|path| path.is_file())
    }

    fn url_blob(&self, digest: &str, name: &str) -> PathBuf {
        (self.home.join("percept").join("blobs").join(digest)).join(name)
    }

    fn url_note(&self, url: &str) -> PathBuf {
        (self.home.join("percept").join("urls")).join(sha256_of(url.as_bytes()))
    }
}

/// Whether a content-addressed file is under this digest.
fn lies_under(path: &Path, digest: &str) -> bool {
    path.parent()
        .and_then(Path::file_name)
        .and_then(|name| name.to_str())
        .is_some_and(|name| name.eq_ignore_ascii_case(digest))
}

/// The last part of an address's path, if it can be a file name.
fn file_name(url: &str) -> String {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let path = path.split_once("://").map_or(path, |(_, rest)| rest);
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-+".contains(c);
    match path.rsplit_once('/') {
        Some((_, name))
            if name.chars().all(plain) && is_safe_path(name) && !name.starts_with('.') =>
        {
            name.to_owned()
        }
        _ => "download".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_server as common;
    use std::collections::HashMap;

    fn from(variables: &[(&str, &str)]) -> Hub {
        let variables: HashMap<_, _> = variables.iter().copied().collect();
        Hub::from_variables(
            |name| variables.get(name).map(|v| (*v).to_owned()),
            Some(PathBuf::from("/home/u")),
        )
        .unwrap()
    }

    #[test]
    fn the_environment_is_read_as_python_reads_it() {
        let hub = from(&[]);
        assert_eq!(hub.home, Path::new("/home/u/.cache/huggingface"));
        assert_eq!(hub.cache, Path::new("/home/u/.cache/huggingface/hub"));
        assert_eq!(hub.endpoint, "https://huggingface.co");
        assert!(!hub.offline && hub.token.is_none());

        let hub = from(&[("XDG_CACHE_HOME", "/x"), ("HF_HUB_OFFLINE", "0")]);
        assert_eq!(hub.cache, Path::new("/x/huggingface/hub"));
        assert!(!hub.offline);

        let hub = from(&[
            ("HF_HOME", "~/hf"),
            ("HF_HUB_CACHE", "/c"),
            ("HF_ENDPOINT", "https://mirror/"),
            ("HF_HUB_OFFLINE", "YES"),
            ("HF_TOKEN", " t\n"),
        ]);
        assert_eq!(hub.home, Path::new("/home/u/hf"));
        assert_eq!(hub.cache, Path::new("/c"));
        assert_eq!(hub.endpoint, "https://mirror");
        assert!(hub.offline);
        assert_eq!(hub.token.as_deref(), Some("t"));
        // The older names count where the newer are not set.
        let older = [
            ("HUGGINGFACE_HUB_CACHE", "/old"),
            ("TRANSFORMERS_OFFLINE", "1"),
            ("HUGGING_FACE_HUB_TOKEN", "t"),
        ];
        let hub = from(&older);
        assert_eq!(hub.cache, Path::new("/old"));
        assert!(hub.offline);
        assert_eq!(hub.token.as_deref(), Some("t"));
        let newer = [
            older[0],
            older[1],
            ("HF_HUB_CACHE", "/new"),
            ("HF_HUB_OFFLINE", "0"),
        ];
        let hub = from(&newer);
        assert_eq!(hub.cache, Path::new("/new"));
        assert!(!hub.offline);
        assert!(matches!(
            Hub::from_variables(|_| None, None),
            Err(HubError::NoHome)
        ));
    }

    #[test]
    fn the_token_file_is_read() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("token"), "secret\n").unwrap();
        let path = home.path().to_str().unwrap();
        assert_eq!(from(&[("HF_HOME", path)]).token.as_deref(), Some("secret"));
    }

    #[test]
    fn known_files_from_several_places_are_gathered() {
        const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
        let server = common::Server::new(|request, _| match request.path.as_str() {
            "/v1/model.pt" => common::Response::ok("weights"),
            "/org/name/resolve/main/tokenizer.json" => common::Response::ok("{}")
                .header("etag", "\"abc\"")
                .header("x-repo-commit", COMMIT),
            _ => common::Response::new(404),
        });
        let leak = |text: String| -> &'static str { Box::leak(text.into_boxed_str()) };
        let file = |path, origin| KnownFile {
            path,
            origin,
            size: None,
            sha256: None,
        };
        let model: &'static KnownModel = Box::leak(Box::new(KnownModel {
            name: "test",
            summary: "",
            part: crate::known::Part::Both,
            licence: "MIT",
            source: Source::Files(Box::leak(Box::new([
                file(
                    "tokenizer.json",
                    Origin::Repository {
                        repo: "org/name",
                        path: "tokenizer.json",
                    },
                ),
                file(
                    "renamed.pt",
                    Origin::Url(leak(format!("{}/v1/model.pt", server.url))),
                ),
            ]))),
        }));
        let home = tempfile::tempdir().unwrap();
        let hub = Hub::new(home.path()).endpoint(&server.url);
        let reference = Reference::Known(model);
        assert_eq!(hub.cached(&reference), None);
        let folder = hub.pull(&reference, &PullOptions::default()).unwrap();
        assert_eq!(folder, home.path().join("percept/models/test"));
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
        assert_eq!(read("renamed.pt"), "weights");
        assert_eq!(read("tokenizer.json"), "{}");
        let asked = server.log().len();
        let again = hub.offline().pull(&reference, &PullOptions::default());
        assert_eq!(again.unwrap(), folder);
        assert_eq!(server.log().len(), asked);
    }

    #[test]
    fn file_names_come_from_addresses() {
        assert_eq!(
            file_name("https://a.org/x/clippy_5k.pt?raw=1"),
            "clippy_5k.pt"
        );
        assert_eq!(file_name("https://a.org/"), "download");
        assert_eq!(file_name("https://a.org"), "download");
        assert_eq!(file_name("https://a.org/.."), "download");
        assert_eq!(file_name("https://a.org/a%2Fb"), "download");
    }
}
