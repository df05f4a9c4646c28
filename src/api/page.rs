//! A page that shows the most important metrics, by itself anew. It holds no figures: it asks for them.

use http::{HeaderValue, Response, header};

use super::body::{Body, full};

/// One file, so that whoever has it has all of it.
const PAGE: &str = concat!(
    include_str!("page/top.html"),
    include_str!("page/style.css"),
    include_str!("page/body.html"),
    include_str!("page/figures.js"),
    include_str!("page/end.html"),
);

/// Nothing from outside, and nothing but itself may show it.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; \
                      form-action 'none'; frame-ancestors 'none'";

pub(super) fn page() -> Response<Body> {
    let mut response = Response::new(full(PAGE));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}
