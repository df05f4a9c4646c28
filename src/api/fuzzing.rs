//! A way in for the fuzzers: what reads a client's request, without a client.

use bytes::Bytes;
use http::Request;

use super::route::Route;
use crate::rollout::Engine;

/// How many rollouts the body of a request to `path` asks for, or under which name the reason is counted to forward it.
///
/// # Errors
/// The reason.
pub async fn prepare(engine: &Engine, path: &str, body: &[u8]) -> Result<usize, &'static str> {
    let request = Request::post(path).body(()).map_err(|_| "no path")?;
    let (head, ()) = request.into_parts();
    let Some(Route::Speculated(endpoint)) = Route::of(&head.method, &head.uri) else { return Err("route") };
    let job = endpoint.prepare(engine, &head, &Bytes::copy_from_slice(body), false).await;
    job.map(|job| job.rollouts.len().saturating_mul(job.n)).map_err(|reason| reason.name())
}
