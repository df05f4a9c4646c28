//! Any request that is not speculated: sent on byte for byte, both ways.

use http::{Request, Response};

use super::body::Body;
use super::error::upstream_error;
use crate::upstream::Upstream;
use crate::upstream::origin::strip_hop_by_hop;

/// Sends `request` to the server and its reply back, streaming both bodies. Only hop-by-hop headers and `Host`, which
/// belong to the connection, are replaced.
pub(super) async fn forward(upstream: &Upstream, mut request: Request<Body>) -> Response<Body> {
    strip_hop_by_hop(request.headers_mut());
    *request.version_mut() = http::Version::HTTP_11;
    let request_id = request.headers().get("x-request-id").cloned();
    match upstream.forward(request).await {
        Ok(mut response) => {
            strip_hop_by_hop(response.headers_mut());
            response
        }
        Err(error) => {
            let request_id = request_id.as_ref().and_then(|id| id.to_str().ok());
            tracing::warn!(request_id, %error, "forwarding failed");
            upstream_error(&error)
        }
    }
}
