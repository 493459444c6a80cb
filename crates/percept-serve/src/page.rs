//! The web page and the description of the service, both inside the program.

use axum::Router;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

/// The page asks nobody but this service for anything.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
                      img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The description of the service in OpenAPI 3.1.
pub(crate) const OPENAPI: &str = include_str!("../openapi.json");

/// A photo to try things on: `examples/photos/chelsea.jpg`, which anyone may use for anything.
const SAMPLE: &[u8] = include_bytes!("../../../examples/photos/chelsea.jpg");

/// Address, media type and content.
const FILES: [(&str, &str, &[u8]); 11] = [
    ("/", HTML, include_bytes!("../page/index.html")),
    ("/app.js", SCRIPT, include_bytes!("../page/app.js")),
    ("/canvas.js", SCRIPT, include_bytes!("../page/canvas.js")),
    ("/service.js", SCRIPT, include_bytes!("../page/service.js")),
    ("/view.js", SCRIPT, include_bytes!("../page/view.js")),
    (
        "/style.css",
        "text/css; charset=utf-8",
        include_bytes!("../page/style.css"),
    ),
    ("/docs", HTML, include_bytes!("../page/docs.html")),
    ("/docs.js", SCRIPT, include_bytes!("../page/docs.js")),
    (
        "/icon.svg",
        "image/svg+xml",
        include_bytes!("../page/icon.svg"),
    ),
    ("/sample.jpg", "image/jpeg", SAMPLE),
    ("/openapi.json", "application/json", OPENAPI.as_bytes()),
];

/// Routes of all files. Nothing is read from disk, so that no address leads anywhere else.
pub(crate) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    FILES
        .into_iter()
        .fold(Router::new(), |router, (path, media_type, content)| {
            router.route(path, get(move || async move { file(media_type, content) }))
        })
}

fn file(media_type: &'static str, content: &'static [u8]) -> Response {
    let headers = [
        (CONTENT_TYPE, media_type),
        (CONTENT_SECURITY_POLICY, POLICY),
        (REFERRER_POLICY, "no-referrer"),
        // A new version of the program is a new page.
        (CACHE_CONTROL, "no-cache"),
    ]
    .map(|(name, value)| (name, HeaderValue::from_static(value)));
    (headers, content).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{
        DEFAULT_SIZE, MAX_GROUPS, MAX_LABEL_CHARS, MAX_LABELS, MAX_PROMPTS, SIZES,
    };

    #[test]
    fn the_description_states_the_limits_that_hold() {
        let description: serde_json::Value = serde_json::from_str(OPENAPI).unwrap();
        let schemas = &description["components"]["schemas"];
        for name in ["SegmentRequest", "SegmentRequestForm"] {
            let fields = &schemas[name]["properties"];
            assert_eq!(fields["size"]["minimum"], *SIZES.start());
            assert_eq!(fields["size"]["maximum"], *SIZES.end());
            assert_eq!(fields["size"]["default"], DEFAULT_SIZE);
            let templates = fields["templates"]["description"].as_str().unwrap();
            assert!(templates.contains(&format!("at most {MAX_PROMPTS}")));
        }
        let labels = &schemas["SegmentRequest"]["properties"]["labels"]["oneOf"][0];
        assert_eq!(labels["maxItems"], MAX_LABELS);
        assert_eq!(labels["items"]["maxLength"], MAX_LABEL_CHARS);
        assert_eq!(
            schemas["GroupRequest"]["properties"]["groups"]["maximum"],
            MAX_GROUPS
        );
        assert_eq!(description["info"]["version"], env!("CARGO_PKG_VERSION"));
    }
}
