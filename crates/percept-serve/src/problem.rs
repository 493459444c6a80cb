//! Errors as clients see them: RFC 9457 problem details.

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use percept::image::{ImageError, message};
use percept::model::ModelError;
use serde_json::json;

/// Media type of RFC 9457.
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";

/// Characters of a detail: enough to say what is wrong, too few to send a body back.
const MAX_DETAIL: usize = 400;

/// Why a request was not answered with a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    kind: Kind,
    detail: String,
}

/// The problem types. Each is explained on the page `/docs`, under the anchor of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Malformed,
    Unauthorized,
    ForeignOrigin,
    NotFound,
    NoSession,
    MethodNotAllowed,
    NotAcceptable,
    SlowUpload,
    TooLarge,
    UnsupportedMediaType,
    Image,
    Invalid,
    Busy,
    Internal,
    Timeout,
}

impl Kind {
    /// Status, anchor in `/docs`, and title.
    fn about(self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as S;
        match self {
            Kind::Malformed => (S::BAD_REQUEST, "malformed", "The body cannot be read"),
            Kind::Unauthorized => (S::UNAUTHORIZED, "unauthorized", "An API key is needed"),
            Kind::ForeignOrigin => (
                S::FORBIDDEN,
                "foreign-origin",
                "Pages of this origin may not call the service",
            ),
            Kind::NotFound => (S::NOT_FOUND, "not-found", "There is nothing here"),
            Kind::NoSession => (S::NOT_FOUND, "no-session", "No such session"),
            Kind::MethodNotAllowed => (
                S::METHOD_NOT_ALLOWED,
                "method-not-allowed",
                "This address does not take that method",
            ),
            Kind::NotAcceptable => (
                S::NOT_ACCEPTABLE,
                "not-acceptable",
                "No such form of the result",
            ),
            Kind::SlowUpload => (
                S::REQUEST_TIMEOUT,
                "slow-upload",
                "The upload took too long",
            ),
            Kind::TooLarge => (S::PAYLOAD_TOO_LARGE, "too-large", "Too large"),
            Kind::UnsupportedMediaType => (
                S::UNSUPPORTED_MEDIA_TYPE,
                "unsupported-media-type",
                "Neither multipart/form-data nor application/json",
            ),
            Kind::Image => (S::UNPROCESSABLE_ENTITY, "image", "The photo cannot be read"),
            Kind::Invalid => (S::UNPROCESSABLE_ENTITY, "invalid", "A value cannot be used"),
            Kind::Busy => (
                S::TOO_MANY_REQUESTS,
                "busy",
                "The service is busy; try again",
            ),
            Kind::Internal => (
                S::INTERNAL_SERVER_ERROR,
                "internal",
                "Something broke inside",
            ),
            Kind::Timeout => (
                S::SERVICE_UNAVAILABLE,
                "timeout",
                "The answer took too long",
            ),
        }
    }

    /// What stands for an answer of the router that has no problem details yet.
    fn of_status(status: StatusCode) -> Self {
        match status {
            StatusCode::NOT_FOUND => Kind::NotFound,
            StatusCode::METHOD_NOT_ALLOWED => Kind::MethodNotAllowed,
            StatusCode::UNAUTHORIZED => Kind::Unauthorized,
            StatusCode::PAYLOAD_TOO_LARGE => Kind::TooLarge,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => Kind::UnsupportedMediaType,
            status if status.is_client_error() => Kind::Malformed,
            _ => Kind::Internal,
        }
    }
}

impl Problem {
    /// A problem of a kind, with what is known about this case.
    pub(crate) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let mut detail = detail.into();
        if let Some((end, _)) = detail.char_indices().nth(MAX_DETAIL) {
            detail.truncate(end);
            detail.push('…');
        }
        Self { kind, detail }
    }

    /// A value that cannot be used.
    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, detail)
    }

    /// The queue is full.
    pub(crate) fn busy(detail: impl Into<String>) -> Self {
        Self::new(Kind::Busy, detail)
    }

    /// A fault of ours.
    pub(crate) fn internal(detail: impl Into<String>) -> Self {
        Self::new(Kind::Internal, detail)
    }
}

impl From<ImageError> for Problem {
    fn from(error: ImageError) -> Self {
        let kind = match error {
            ImageError::TooLarge { .. } => Kind::TooLarge,
            // Photos come in requests: a file of ours is at fault.
            ImageError::Io(_) | ImageError::File { .. } => Kind::Internal,
            _ => Kind::Image,
        };
        Self::new(kind, message(&error))
    }
}

impl From<percept::Error> for Problem {
    fn from(error: percept::Error) -> Self {
        match error {
            percept::Error::Image(error) => error.into(),
            percept::Error::Labels(_)
            | percept::Error::Templates(_)
            | percept::Error::Setting(_) => Self::invalid(message(&error)),
            // A model without the tower that was asked for, or an image of a size that it cannot take, is a
            // matter of the request.
            percept::Error::Model(
                ModelError::NoTower { .. }
                | ModelError::NoTokenizer { .. }
                | ModelError::ImageSize { .. },
            ) => Self::invalid(message(&error)),
            other => Self::internal(message(&other)),
        }
    }
}

impl From<percept::image::render::RenderError> for Problem {
    fn from(error: percept::image::render::RenderError) -> Self {
        Self::internal(message(&error))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, anchor, title) = self.kind.about();
        let body = json!({
            "type": format!("/docs#{anchor}"),
            "title": title,
            "status": status.as_u16(),
            "detail": self.detail,
        });
        let mut response = (status, body.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        match self.kind {
            Kind::Busy | Kind::Timeout => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            Kind::Unauthorized => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            _ => {}
        }
        response
    }
}

/// Gives problem details to the router's own errors (no such address, wrong method).
pub(crate) async fn uniform(response: Response) -> Response {
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let is_ours =
        response.headers().get(CONTENT_TYPE) == Some(&HeaderValue::from_static(PROBLEM_JSON));
    if is_ours {
        return response;
    }
    let reason = status.canonical_reason().unwrap_or("Refused");
    let (parts, body) = Problem::new(Kind::of_status(status), reason)
        .into_response()
        .into_parts();
    let mut uniform = Response::from_parts(parts, Body::new(body));
    *uniform.status_mut() = status;
    // Such as Allow, which names the methods that are taken.
    for (name, value) in response.headers() {
        if name != CONTENT_TYPE && name != axum::http::header::CONTENT_LENGTH {
            uniform.headers_mut().insert(name.clone(), value.clone());
        }
    }
    uniform
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(problem: &Problem) -> u16 {
        problem.kind.about().0.as_u16()
    }

    #[test]
    fn faults_of_the_service_are_not_the_clients() {
        let gone = || std::io::Error::from(std::io::ErrorKind::NotFound);
        let model = ModelError::Io {
            path: "model.safetensors".into(),
            source: gone(),
        };
        assert_eq!(status(&percept::Error::from(model).into()), 500);
        assert_eq!(status(&ImageError::Io(gone()).into()), 500);
        assert_eq!(status(&ImageError::Truncated.into()), 422);
    }

    #[test]
    fn details_are_short() {
        let problem = Problem::invalid("é".repeat(100_000));
        assert_eq!(problem.detail.chars().count(), MAX_DETAIL + 1);
        assert_eq!(Problem::invalid("short").detail, "short");
    }
}
