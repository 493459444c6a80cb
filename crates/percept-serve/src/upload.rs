//! Bodies of requests: read within limits, then understood.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Multipart, Request};
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, request};
use http_body_util::BodyExt;
use percept::image::message;
use serde::de::{DeserializeOwned, Visitor};
use serde::{Deserialize, Deserializer};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::{BODIES_AT_ONCE, MAX_LABELS};
use crate::fields::{Field, from_fields};
use crate::problem::{Kind, Problem};
use crate::values::{BYTE_ORDER_MARK, from_base64, place};

/// Bytes that one permit of the budget stands for.
const PERMIT: usize = 1024;

/// Bytes of a field of a form that is no photo.
pub(crate) const MAX_FIELD_BYTES: usize = 64 << 10;

/// An encoded photo as a client sent it.
#[derive(Debug, Clone)]
pub(crate) struct Photo {
    /// The file's content.
    pub(crate) bytes: Bytes,
    /// Its name without folders; `photo` where none was given.
    pub(crate) name: String,
}

impl<'de> Deserialize<'de> for Photo {
    /// Base64, also as a `data:` URL.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Base64;
        impl Visitor<'_> for Base64 {
            type Value = Photo;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a photo in base64")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Photo, E> {
                let bytes = from_base64(text).map_err(E::custom)?;
                Ok(Photo {
                    bytes: bytes.into(),
                    name: "photo".into(),
                })
            }
        }
        deserializer.deserialize_str(Base64)
    }
}

/// Parameters of a request that may come with a photo.
pub(crate) trait Params: DeserializeOwned {
    /// Where the photo goes.
    fn photo(&mut self) -> &mut Option<Photo>;
}

/// The memory that bodies may take together. A client that sends slowly holds what it has sent, no more.
#[derive(Debug, Clone)]
pub(crate) struct Uploads {
    budget: Arc<Semaphore>,
    max_bytes: usize,
    timeout: Duration,
}

/// What a request asks for. Its memory counts until this is dropped.
pub(crate) struct Received<P> {
    pub(crate) params: P,
    pub(crate) headers: HeaderMap,
    _budget: OwnedSemaphorePermit,
}

impl Uploads {
    pub(crate) fn new(max_bytes: usize, timeout: Duration) -> Self {
        let permits = (max_bytes / PERMIT + 1)
            .saturating_mul(BODIES_AT_ONCE)
            .min(Semaphore::MAX_PERMITS);
        Self {
            budget: Arc::new(Semaphore::new(permits)),
            max_bytes,
            timeout,
        }
    }

    /// Reads a body to its end and understands it.
    ///
    /// # Errors
    /// 400 or 422 for what cannot be understood, 408 for a slow one, 413 for a large one, 415 for another
    /// kind, 429 where the bodies of others fill the memory.
    pub(crate) async fn receive<P: Params>(
        &self,
        request: Request,
    ) -> Result<Received<P>, Problem> {
        let (parts, body) = request.into_parts();
        let form = Form::of(&parts.headers)?;
        check_encoding(&parts.headers)?;
        let too_large = || {
            let limit = self.max_bytes;
            Problem::new(Kind::TooLarge, format!("the body is over {limit} bytes"))
        };
        let stated = parts.headers.get(CONTENT_LENGTH);
        let stated = stated.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        if stated.is_some_and(|stated| stated > self.max_bytes) {
            return Err(too_large());
        }
        let reading = self.read(body, too_large);
        let Ok(read) = tokio::time::timeout(self.timeout, reading).await else {
            let seconds = self.timeout.as_secs_f32();
            let detail = format!("the body did not arrive within {seconds} s");
            return Err(Problem::new(Kind::SlowUpload, detail));
        };
        let (bytes, budget) = read?;
        let headers = parts.headers.clone();
        let params = match form {
            Form::Json => from_json(&bytes)?,
            Form::Multipart => from_multipart(parts, bytes).await?,
        };
        Ok(Received {
            params,
            headers,
            _budget: budget,
        })
    }

    async fn read(
        &self,
        mut body: Body,
        too_large: impl Fn() -> Problem,
    ) -> Result<(Bytes, OwnedSemaphorePermit), Problem> {
        let mut bytes = Vec::new();
        let mut budget = self.permits(1)?;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                let reason = message(&error);
                Problem::new(Kind::Malformed, format!("the body broke off: {reason}"))
            })?;
            let Ok(data) = frame.into_data() else {
                continue; // Trailers.
            };
            if bytes.len() + data.len() > self.max_bytes {
                return Err(too_large());
            }
            let needed = (bytes.len() + data.len()) / PERMIT + 1;
            if needed > budget.num_permits() {
                budget.merge(self.permits(needed - budget.num_permits())?);
            }
            bytes.extend_from_slice(&data);
        }
        Ok((bytes.into(), budget))
    }

    fn permits(&self, count: usize) -> Result<OwnedSemaphorePermit, Problem> {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        Arc::clone(&self.budget)
            .try_acquire_many_owned(count)
            .map_err(|_| Problem::busy("the uploads of other clients fill the memory"))
    }
}

/// The two forms of a body.
#[derive(Debug, Clone, Copy)]
enum Form {
    Json,
    Multipart,
}

impl Form {
    fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let value = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
        let mut parts = value.unwrap_or("").split(';').map(str::trim);
        let essence = parts.next().unwrap_or("");
        if essence.eq_ignore_ascii_case("application/json") {
            let charset = parts.find_map(|part| {
                let (name, value) = part.split_once('=')?;
                name.eq_ignore_ascii_case("charset").then_some(value)
            });
            let charset = charset.unwrap_or("utf-8").trim_matches('"');
            if charset.eq_ignore_ascii_case("utf-8") || charset.eq_ignore_ascii_case("us-ascii") {
                return Ok(Form::Json);
            }
            let detail = format!("JSON is UTF-8, not {charset:.40}");
            return Err(Problem::new(Kind::UnsupportedMediaType, detail));
        }
        if essence.eq_ignore_ascii_case("multipart/form-data") {
            return Ok(Form::Multipart);
        }
        Err(Problem::new(
            Kind::UnsupportedMediaType,
            "send multipart/form-data with the photo as the file `image`, or application/json with it in base64",
        ))
    }
}

/// A body is taken as it is: what is compressed would look like damage.
fn check_encoding(headers: &HeaderMap) -> Result<(), Problem> {
    let encodings = headers.get_all(CONTENT_ENCODING).iter();
    let mut encodings = encodings.map(|encoding| encoding.to_str().unwrap_or("unknown"));
    match encodings.find(|encoding| !encoding.trim().eq_ignore_ascii_case("identity")) {
        None => Ok(()),
        Some(encoding) => Err(Problem::new(
            Kind::UnsupportedMediaType,
            format!("the body is encoded as {encoding:.40}: send it plain"),
        )),
    }
}

fn from_json<P: Params>(bytes: &[u8]) -> Result<P, Problem> {
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let problem = |error: serde_json::Error, place: String| {
        let kind = match error.classify() {
            serde_json::error::Category::Data => Kind::Invalid,
            _ => Kind::Malformed,
        };
        Problem::new(kind, place + &error.to_string())
    };
    let params = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let place = place(error.path());
        problem(error.into_inner(), place)
    })?;
    json.end().map_err(|error| problem(error, String::new()))?;
    Ok(params)
}

async fn from_multipart<P: Params>(parts: request::Parts, bytes: Bytes) -> Result<P, Problem> {
    let malformed =
        |error: &dyn std::fmt::Display| Problem::new(Kind::Malformed, error.to_string());
    let request = Request::from_parts(parts, Body::from(bytes));
    let mut form = Multipart::from_request(request, &())
        .await
        .map_err(|e| malformed(&e.body_text()))?;
    let mut photo = None;
    let mut fields: Vec<(String, Field)> = Vec::new();
    loop {
        let field = form.next_field().await;
        let Some(field) = field.map_err(|e| malformed(&e.body_text()))? else {
            break;
        };
        let Some(name) = field.name().map(str::to_owned) else {
            return Err(malformed(&"a part of the form has no name"));
        };
        let file_name = field.file_name().map(str::to_owned);
        let content = field.bytes().await.map_err(|e| malformed(&e.body_text()))?;
        if name == "image" {
            let new = Photo {
                bytes: content,
                name: base_name(file_name.as_deref()),
            };
            if photo.replace(new).is_some() {
                return Err(Problem::invalid("there are two photos"));
            }
            continue;
        }
        if let Some(file) = file_name {
            let file = base_name(Some(&file));
            let detail = format!("the file {file:.40} is the field `{name:.40}`: call it `image`");
            return Err(Problem::invalid(detail));
        }
        if content.len() > MAX_FIELD_BYTES {
            let detail = format!("the field {name:.40} is over {MAX_FIELD_BYTES} bytes");
            return Err(Problem::new(Kind::TooLarge, detail));
        }
        let Ok(text) = String::from_utf8(content.to_vec()) else {
            return Err(malformed(&format!("the field {name:.40} is not UTF-8")));
        };
        if fields.len() > MAX_LABELS + 32 {
            return Err(Problem::invalid("the form has too many fields"));
        }
        let text = text.trim_start_matches(BYTE_ORDER_MARK);
        fields.push((name, Field::One(text.to_owned())));
    }
    let mut params: P = from_fields(fields).map_err(Problem::invalid)?;
    *params.photo() = photo;
    Ok(params)
}

/// The last part of a file's name: what comes before is the client's own business.
fn base_name(name: Option<&str>) -> String {
    let last = name.unwrap_or("").rsplit(['/', '\\']).next().unwrap_or("");
    let printable: String = last.chars().filter(|c| !c.is_control()).take(200).collect();
    if printable.is_empty() || printable == "." || printable == ".." {
        return "photo".into();
    }
    printable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_their_folders() {
        assert_eq!(base_name(Some("../../etc/passwd")), "passwd");
        assert_eq!(base_name(Some("C:\\a\\cat.jpg")), "cat.jpg");
        assert_eq!(base_name(Some("cat\r\n.jpg")), "cat.jpg");
        for none in [None, Some(""), Some("a/"), Some(".."), Some("\u{1}")] {
            assert_eq!(base_name(none), "photo");
        }
        assert_eq!(base_name(Some(&"x".repeat(9999))).len(), 200);
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_told_with_its_cause() {
        #[derive(Debug, thiserror::Error)]
        #[error("the connection was lost")]
        struct Lost(#[source] Box<dyn std::error::Error + Send + Sync>);
        let whole = http_body_util::Full::new(Bytes::from_static(b"12"));
        let broken = http_body_util::Limited::new(whole, 1).map_err(Lost);
        let uploads = Uploads::new(1 << 20, Duration::from_secs(9));
        let read = uploads.read(Body::new(broken), || Problem::invalid("large"));
        let problem = format!("{:?}", read.await.err());
        let told = "the body broke off: the connection was lost: length limit exceeded";
        assert!(problem.contains(told), "{problem}");
    }

    #[test]
    fn photos_are_base64_or_data_urls() {
        let read = |json: &str| serde_json::from_str::<Photo>(json).map(|photo| photo.bytes);
        assert_eq!(read("\"AQID\"").unwrap(), Bytes::from_static(&[1, 2, 3]));
        let url = read("\"data:image/png;base64,AQID\"").unwrap();
        assert_eq!(url, Bytes::from_static(&[1, 2, 3]));
        let bytes = Bytes::from_static(&[0xFB, 0xFF, 0xFE, 0xFB]);
        for as_it_comes in [
            "+//++w==",
            "-__--w",
            "\u{FEFF}+//+\\r\\n+w=",
            " data:;base64,+//+ +w",
        ] {
            assert_eq!(read(&format!("\"{as_it_comes}\"")).unwrap(), bytes);
        }
        for wrong in [
            "\"A\"",
            "\"A%QID\"",
            "5",
            "\"é\"",
            "\"data:,a\"",
            "\"https://a.b/c\"",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
