//! Requests: where they may go, what they carry, and when they are tried again.
//!
//! Redirects are followed here and not by the HTTP library, because the hub's own answers (the file's
//! digest) are in the redirect, and because the token must not follow to another host.

use std::time::Duration;

use ureq::http::{HeaderMap, Uri, header};

use crate::error::HubError;

/// A download from the hub takes two redirects.
const MAX_REDIRECTS: u32 = 10;

/// Attempts after the first that gained nothing.
pub(crate) const MAX_RETRIES: u32 = 4;

/// The longest wait between attempts, also when a server asks for more.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// To connect, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// Without a single byte, while waiting for an answer or inside one.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(60);

/// The client.
#[derive(Debug)]
pub(crate) struct Http {
    agent: ureq::Agent,
    endpoint: String,
    token: Option<String>,
    retry_delay: Duration,
}

/// How far a request follows redirects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Follow {
    Everywhere,
    /// Only on the same host; a redirect elsewhere is the answer.
    SameOrigin,
}

/// What to ask.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) method: Method,
    pub(crate) url: &'a str,
    /// The file or repository, for messages.
    pub(crate) file: &'a str,
    /// Begin at this byte, provided the file still has this tag.
    pub(crate) range: Option<(u64, Option<&'a str>)>,
    pub(crate) follow: Follow,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Method {
    Get,
    Head,
}

/// A successful answer, or with [`Follow::SameOrigin`] a redirect.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: ureq::Body,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// A failed attempt.
pub(crate) struct Failure {
    pub(crate) error: HubError,
    /// Whether another attempt might succeed.
    pub(crate) transient: bool,
    /// How long the server asks to wait.
    pub(crate) wait: Option<Duration>,
}

impl Failure {
    pub(crate) fn transient(error: HubError) -> Self {
        Self {
            error,
            transient: true,
            wait: None,
        }
    }
}

impl From<HubError> for Failure {
    fn from(error: HubError) -> Self {
        Self {
            error,
            transient: false,
            wait: None,
        }
    }
}

impl Http {
    pub(crate) fn new(endpoint: String, token: Option<String>, retry_delay: Duration) -> Self {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(SILENCE_TIMEOUT))
            .timeout_per_read(Some(SILENCE_TIMEOUT))
            .user_agent(concat!("percept/", env!("CARGO_PKG_VERSION")))
            // Compression would hide the length and defeat ranges.
            .accept_encoding("identity")
            .build()
            .new_agent();
        Self {
            agent,
            endpoint,
            token,
            retry_delay,
        }
    }

    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Sends a request, again if need be.
    pub(crate) fn send_patiently(&self, request: &Request<'_>) -> Result<Answer, HubError> {
        let mut attempt = 0;
        loop {
            match self.send(request) {
                Ok(answer) => return Ok(answer),
                Err(failure) if failure.transient && attempt < MAX_RETRIES => {
                    self.pause(attempt, failure.wait);
                    attempt += 1;
                }
                Err(failure) => return Err(failure.error),
            }
        }
    }

    /// Waits before attempt number `attempt` + 1: twice as long each time, or as the server asked.
    pub(crate) fn pause(&self, attempt: u32, wait: Option<Duration>) {
        let backoff = self.retry_delay.saturating_mul(1 << attempt.min(10));
        std::thread::sleep(wait.unwrap_or(backoff).min(MAX_PAUSE));
    }

    /// Sends a request once, following redirects.
    pub(crate) fn send(&self, request: &Request<'_>) -> Result<Answer, Failure> {
        let mut url = self.check(request.url)?;
        for _ in 0..=MAX_REDIRECTS {
            let answer = self.send_to(&url, request)?;
            let location = match answer.status {
                301 | 302 | 303 | 307 | 308 => answer.header("location"),
                _ => return answered(request, &url, answer, self.token.is_some()),
            };
            let Some(location) = location else {
                return Err(HubError::BadAnswer {
                    url: url.to_string(),
                    reason: "a redirect to nowhere".to_owned(),
                }
                .into());
            };
            let next = self.check(&join(&url, location))?;
            if url.scheme_str() == Some("https") && next.scheme_str() != Some("https") {
                return Err(HubError::BadUrl {
                    url: next.to_string(),
                    reason: "a redirect from https to http is not followed",
                }
                .into());
            }
            if request.follow == Follow::SameOrigin && origin(&next) != origin(&url) {
                return Ok(answer);
            }
            url = next;
        }
        Err(HubError::TooManyRedirects {
            url: request.url.to_owned(),
            limit: MAX_REDIRECTS,
        }
        .into())
    }

    /// One hop.
    fn send_to(&self, url: &Uri, request: &Request<'_>) -> Result<Answer, Failure> {
        let mut builder = match request.method {
            Method::Get => self.agent.get(url),
            Method::Head => self.agent.head(url),
        };
        if let Some(token) = &self.token
            && self.endpoint_origin() == Some(origin(url))
        {
            builder = builder.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some((start, tag)) = request.range {
            builder = builder.header(header::RANGE, format!("bytes={start}-"));
            if let Some(tag) = tag {
                builder = builder.header(header::IF_RANGE, tag);
            }
        }
        if is_loopback(url) {
            // A proxy has another idea of what this machine is.
            builder = builder.config().proxy(None).build();
        }
        match builder.call() {
            Ok(response) => {
                let (parts, body) = response.into_parts();
                Ok(Answer {
                    status: parts.status.as_u16(),
                    headers: parts.headers,
                    body,
                })
            }
            Err(source) => Err(Failure {
                transient: matches!(
                    source,
                    ureq::Error::Io(_)
                        | ureq::Error::Timeout(_)
                        | ureq::Error::ConnectionFailed
                        | ureq::Error::Protocol(_)
                ),
                error: HubError::Network {
                    file: request.file.to_owned(),
                    url: url.to_string(),
                    source: Box::new(source),
                },
                wait: None,
            }),
        }
    }

    /// Parses an address and refuses those that are not safe to use: `http` is for this machine and
    /// for an `HF_ENDPOINT` that the user has set so.
    fn check(&self, url: &str) -> Result<Uri, HubError> {
        let bad = |reason| HubError::BadUrl {
            url: without_userinfo(url),
            reason,
        };
        let uri: Uri = url.parse().map_err(|_| bad("not a valid address"))?;
        match uri.authority() {
            None => return Err(bad("not a valid address")),
            // It would end up in messages and logs.
            Some(authority) if authority.as_str().contains('@') => {
                return Err(bad("a user name or password in an address is not accepted"));
            }
            Some(_) => {}
        }
        match uri.scheme_str() {
            Some("https") => Ok(uri),
            Some("http") if is_loopback(&uri) => Ok(uri),
            Some("http") if self.endpoint_origin() == Some(origin(&uri)) => Ok(uri),
            Some("http") => Err(bad("http is not safe for models; use https")),
            _ => Err(bad("only https addresses can be downloaded")),
        }
    }

    fn endpoint_origin(&self) -> Option<Origin> {
        self.endpoint.parse::<Uri>().ok().map(|uri| origin(&uri))
    }
}

/// Turns a final status into an answer or an error.
fn answered(
    request: &Request<'_>,
    url: &Uri,
    answer: Answer,
    has_token: bool,
) -> Result<Answer, Failure> {
    let file = request.file.to_owned();
    let url = url.to_string();
    let status = answer.status;
    match status {
        200 | 206 => Ok(answer),
        404 | 410 => Err(HubError::NotFound { file, url }.into()),
        401 | 403 => Err(HubError::Denied {
            file,
            url,
            status,
            hint: if has_token {
                "your HF_TOKEN has no access to it: accept the model's terms on its page, or use \
                 another token"
            } else {
                "it is private, gated or misspelt: check the name, or set HF_TOKEN"
            },
        }
        .into()),
        _ => Err(Failure {
            transient: matches!(status, 408 | 429 | 500 | 502 | 503 | 504),
            wait: answer
                .header("retry-after")
                .and_then(|seconds| seconds.trim().parse().ok())
                .map(Duration::from_secs),
            error: HubError::Status { file, url, status },
        }),
    }
}

/// Scheme, host and port: what a token is bound to.
type Origin = (String, String, u16);

fn origin(uri: &Uri) -> Origin {
    let scheme = uri.scheme_str().unwrap_or_default().to_owned();
    let default = if scheme == "https" { 443 } else { 80 };
    (
        scheme,
        uri.host().unwrap_or_default().to_ascii_lowercase(),
        uri.port_u16().unwrap_or(default),
    )
}

fn is_loopback(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// Resolves a redirect's target against the address that gave it.
fn join(base: &Uri, location: &str) -> String {
    let scheme = base.scheme_str().unwrap_or_default();
    let authority = base.authority().map_or("", |a| a.as_str());
    let lower = location.to_ascii_lowercase();
    if lower.starts_with("http://") || lower.starts_with("https://") {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else {
        let folder = base
            .path()
            .rsplit_once('/')
            .map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{location}")
    }
}

fn without_userinfo(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            let start = rest[..end].rfind('@').map_or(0, |at| at + 1);
            format!("{scheme}://{}", &rest[start..])
        }
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http() -> Http {
        Http::new("https://huggingface.co".to_owned(), None, Duration::ZERO)
    }

    #[test]
    fn only_safe_addresses_pass() {
        let check = |url: &str| http().check(url).map(drop);
        for url in [
            "https://example.org/a",
            "http://127.0.0.1:8000/a",
            "http://[::1]/a",
            "http://localhost/a",
        ] {
            assert!(check(url).is_ok(), "{url}");
        }
        for url in [
            "http://example.org/a",
            "http://127.0.0.1.example.org/a",
            "ftp://example.org/a",
            "file:///etc/passwd",
            "/etc/passwd",
            "https://user:secret@example.org/a",
        ] {
            let error = check(url).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
        let own = Http::new("http://mirror.lan:8080".to_owned(), None, Duration::ZERO);
        assert!(own.check("http://mirror.lan:8080/a").is_ok());
        assert!(own.check("http://mirror.lan/a").is_err());
    }

    #[test]
    fn redirects_are_resolved() {
        let base: Uri = "https://a.org:1/x/y?z".parse().unwrap();
        assert_eq!(join(&base, "https://b.org/q"), "https://b.org/q");
        assert_eq!(join(&base, "//b.org/q"), "https://b.org/q");
        assert_eq!(join(&base, "/q"), "https://a.org:1/q");
        assert_eq!(join(&base, "q"), "https://a.org:1/x/q");
    }
}
