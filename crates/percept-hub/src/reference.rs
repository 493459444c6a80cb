//! What a user can ask for.

use std::fmt;
use std::str::FromStr;

use crate::error::HubError;
use crate::known::{KnownModel, known_models};

/// Names further from any known one than this share of their length get no suggestion.
const NEAR: f64 = 0.6;

/// A model by name, by repository, or by address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// An entry of [`known_models`].
    Known(&'static KnownModel),
    /// A Hugging Face repository.
    Repo {
        /// `ORG/NAME` (or the bare `NAME` of a few old repositories).
        repo: String,
        /// A branch, tag or commit; `main` if not given.
        revision: Option<String>,
    },
    /// A single file at an address.
    Url(String),
}

impl FromStr for Reference {
    type Err = HubError;

    /// Parses `NAME`, `hf:ORG/NAME[@REV]` or `https://…`.
    fn from_str(text: &str) -> Result<Self, HubError> {
        if text.starts_with("https://") || text.starts_with("http://") {
            return Ok(Self::Url(text.to_owned()));
        }
        if let Some(rest) = text.strip_prefix("hf:") {
            return repo(text, rest);
        }
        let known = known_models();
        if let Some(model) = known.iter().find(|m| m.name == text) {
            return Ok(Self::Known(model));
        }
        let lower = text.to_lowercase();
        let score = |m: &KnownModel| strsim::normalized_levenshtein(&lower, &m.name.to_lowercase());
        let nearest = known
            .iter()
            .max_by(|a, b| score(a).total_cmp(&score(b)))
            .filter(|m| score(m) >= NEAR);
        Err(HubError::UnknownModel {
            name: text.to_owned(),
            suggestion: nearest.map(|m| m.name),
            known: known.iter().map(|m| m.name).collect(),
        })
    }
}

fn repo(text: &str, rest: &str) -> Result<Reference, HubError> {
    let bad = |reason| HubError::BadReference {
        text: text.to_owned(),
        reason,
    };
    let (repo, revision) = match rest.split_once('@') {
        Some((repo, revision)) => (repo, Some(revision)),
        None => (rest, None),
    };
    // These become folder names, so the hub's own rules are enforced here.
    let plain = |part: &str| {
        !part.is_empty()
            && part.len() <= 96
            && !part.starts_with(['.', '-'])
            && !part.contains("..")
            && !part.contains("--")
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    if repo.split('/').count() > 2 || !repo.split('/').all(plain) {
        return Err(bad(
            "a repository is ORG/NAME, of letters, digits, `.`, `_` and `-`",
        ));
    }
    if revision.is_some_and(|r| r.len() > 200 || !r.split('/').all(plain)) {
        return Err(bad("a revision is a branch, a tag or a commit"));
    }
    Ok(Reference::Repo {
        repo: repo.to_owned(),
        revision: revision.map(str::to_owned),
    })
}

impl fmt::Display for Reference {
    /// As it would be typed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(model) => f.write_str(model.name),
            Self::Repo {
                repo,
                revision: None,
            } => write!(f, "hf:{repo}"),
            Self::Repo {
                repo,
                revision: Some(revision),
            } => write!(f, "hf:{repo}@{revision}"),
            Self::Url(url) => f.write_str(url),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_what_users_type() {
        let parse = |text: &str| text.parse::<Reference>();
        assert!(matches!(parse("clippy"), Ok(Reference::Known(m)) if m.name == "clippy"));
        for text in [
            "hf:facebook/dino-vitb16",
            "hf:gpt2@main",
            "hf:a/b.c_d@refs/pr/1",
            "https://example.org/model.pt",
        ] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
        for text in [
            "hf:",
            "hf:/",
            "hf:a/b/c",
            "hf:../x",
            "hf:a/..",
            "hf:a/b@",
            "hf:a/b@../x",
            "hf:a/b c",
            "hf:a--b/c",
            "hf:a\\b",
        ] {
            assert!(
                matches!(parse(text), Err(HubError::BadReference { .. })),
                "{text}"
            );
        }
    }

    #[test]
    fn suggests_the_nearest_name() {
        let suggestion = |text: &str| match text.parse::<Reference>() {
            Err(HubError::UnknownModel { suggestion, .. }) => suggestion,
            other => panic!("{other:?}"),
        };
        assert_eq!(suggestion("clipy"), Some("clippy"));
        assert_eq!(suggestion("DINO-VITB16"), Some("dino-vitb16"));
        assert_eq!(suggestion("dinov2_small"), Some("dinov2-small"));
        assert_eq!(suggestion("something else"), None);
    }
}
