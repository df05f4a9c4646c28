//! What all calls made for one rollout have in common: on whose behalf, for which model, in which cache.

use http::header::{self, HeaderMap, HeaderName};

/// Headers that belong to one hop or one body, or that name a request which must be unique on the server.
const NOT_INHERITED: [HeaderName; 8] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::ACCEPT,
    header::ACCEPT_ENCODING,
    header::EXPECT,
    HeaderName::from_static("x-request-id"),
];

/// Headers that hold keys: debug output does not show them, and two clients that differ in one of them are two.
pub const KEYS: [HeaderName; 5] = [
    header::AUTHORIZATION,
    header::PROXY_AUTHORIZATION,
    header::COOKIE,
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("api-key"),
];

/// Headers that concern a single connection (RFC 9110, section 7.6.1).
pub const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Removes the hop-by-hop headers, those that `Connection` names included.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// The part of a client's request that every call made for it repeats.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    /// The client's headers, authorisation among them, less those that do not carry over to another request.
    pub headers: HeaderMap,
    /// The model or adapter that the client named; absent if it named none.
    pub model: Option<String>,
    /// The client's prefix-cache salt.
    pub cache_salt: Option<String>,
    /// The client's priority; 0 is the usual one.
    pub priority: i64,
    /// The client's session.
    pub session_id: Option<String>,
}

impl Origin {
    /// The origin of a client's request with these headers.
    #[must_use]
    pub fn new(client: &HeaderMap, model: Option<String>) -> Self {
        let mut headers = client.clone();
        strip_hop_by_hop(&mut headers);
        for name in &NOT_INHERITED {
            headers.remove(name);
        }
        for name in &KEYS {
            if let Some(value) = headers.get_mut(name) {
                value.set_sensitive(true);
            }
        }
        Self { headers, model, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn authorisation_is_inherited_and_what_describes_the_body_is_not() {
        let client = headers(&[
            ("authorization", "Bearer k"),
            ("content-length", "12"),
            ("x-request-id", "abc"),
            ("connection", "x-mine, keep-alive"),
            ("x-mine", "1"),
            ("x-tenant", "t"),
        ]);
        let origin = Origin::new(&client, None);
        assert_eq!(origin.headers, headers(&[("authorization", "Bearer k"), ("x-tenant", "t")]));
        assert!(!format!("{origin:?}").contains("Bearer k"));
    }
}
