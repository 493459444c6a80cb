//! Bodies of requests: read within limits, then understood.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Multipart, Request};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, request};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::BodyExt;
use serde::de::{DeserializeOwned, Error as _, Visitor};
use serde::{Deserialize, Deserializer};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::{BODIES_AT_ONCE, MAX_LABELS};
use crate::fields::{Field, from_fields};
use crate::problem::{Kind, Problem};

/// Bytes that one permit of the budget stands for.
const PERMIT: usize = 1024;

/// Bytes of a field of a form that is no photo.
const MAX_FIELD_BYTES: usize = 64 << 10;

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
                let data = match text.strip_prefix("data:") {
                    Some(url) => url.split_once(";base64,").map_or("", |(_, data)| data),
                    None => text,
                };
                match STANDARD.decode(data) {
                    Ok(bytes) => Ok(Photo {
                        bytes: bytes.into(),
                        name: "photo".into(),
                    }),
                    Err(error) => Err(E::custom(format!("image: not base64: {error}"))),
                }
            }
        }
        deserializer.deserialize_str(Base64)
    }
}

/// Labels, words or texts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names(pub(crate) Vec<String>);

impl<'de> Deserialize<'de> for Names {
    /// A list of strings, or one string of names with commas between them.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Names;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of strings, or one with commas")
            }

            fn visit_str<E>(self, text: &str) -> Result<Names, E> {
                // One more than is allowed is enough to tell.
                let names = text.split(',').take(MAX_LABELS + 2);
                let mut names: Vec<_> = names.map(|name| name.trim().to_owned()).collect();
                // A trailing comma is a slip, not a label.
                if names.len() > 1 && names.last().is_some_and(String::is_empty) {
                    names.pop();
                }
                Ok(Names(names))
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(
                self,
                mut list: A,
            ) -> Result<Names, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = list.next_element()? {
                    if names.len() >= MAX_LABELS {
                        return Err(A::Error::custom(format!(
                            "more than {MAX_LABELS} in a list"
                        )));
                    }
                    names.push(name);
                }
                Ok(Names(names))
            }
        }
        deserializer.deserialize_any(List)
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
                Problem::new(Kind::Malformed, format!("the body broke off: {error}"))
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
        let essence = value.unwrap_or("").split(';').next().unwrap_or("").trim();
        if essence.eq_ignore_ascii_case("application/json") {
            return Ok(Form::Json);
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

fn from_json<P: Params>(bytes: &[u8]) -> Result<P, Problem> {
    serde_json::from_slice(bytes).map_err(|error| {
        let kind = match error.classify() {
            serde_json::error::Category::Data => Kind::Invalid,
            _ => Kind::Malformed,
        };
        Problem::new(kind, error.to_string())
    })
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
        fields.push((name, Field::One(text)));
    }
    let mut params: P = from_fields(fields).map_err(|e| Problem::invalid(e.to_string()))?;
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

    #[test]
    fn photos_are_base64_or_data_urls() {
        let read = |json: &str| serde_json::from_str::<Photo>(json).map(|photo| photo.bytes);
        assert_eq!(read("\"AQID\"").unwrap(), Bytes::from_static(&[1, 2, 3]));
        let url = read("\"data:image/png;base64,AQID\"").unwrap();
        assert_eq!(url, Bytes::from_static(&[1, 2, 3]));
        for wrong in ["\"AQI\"", "\"A QID\"", "5", "\"é\""] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn lists_of_names_are_bounded() {
        let many = serde_json::to_string(&vec!["a"; 10_000]).unwrap();
        assert!(serde_json::from_str::<Names>(&many).is_err());
        let names = serde_json::from_str::<Names>("\"dog, grass,\"").unwrap();
        assert_eq!(names.0, ["dog", "grass"]);
    }
}
