//! Ways in for the fuzzers: what reads a server's words, without a server.

use super::call::{Call, Reply};
use super::error::UpstreamError;
use super::gauges::Gauges;
use super::stream::{DecodedChunk, Route};
use super::{completions, gauges, generate, stream};

/// Reads the body of a successful reply to `call`.
///
/// # Errors
/// As for the call itself.
pub fn reply(route: Route, body: &[u8], call: &Call<'_>) -> Result<Reply, UpstreamError> {
    match route {
        Route::Completions => completions::read(body, call),
        Route::Generate => generate::read(body, call),
    }
}

/// Reads a stream that comes in these pieces, up to its end or its first error.
#[must_use]
pub fn events(route: Route, pieces: &[&[u8]]) -> Vec<Result<DecodedChunk, UpstreamError>> {
    stream::read(route, pieces)
}

/// Reads a metrics page.
#[must_use]
pub fn metrics(page: &str) -> Option<Gauges> {
    gauges::parse(page)
}
