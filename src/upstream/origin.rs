//! What all calls made for one rollout have in common: on whose behalf, for which model, in which cache.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

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
const KEYS: [HeaderName; 4] =
    [header::AUTHORIZATION, header::COOKIE, HeaderName::from_static("x-api-key"), HeaderName::from_static("api-key")];

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
            if let header::Entry::Occupied(mut values) = headers.entry(name) {
                values.iter_mut().for_each(|value| value.set_sensitive(true));
            }
        }
        Self { headers, model, ..Self::default() }
    }

    /// Everything by which this request is authorised, and its salt: two of different values act on behalf of two.
    /// `None` where a key is no text.
    #[must_use]
    pub fn identity(&self) -> Option<Vec<Option<&str>>> {
        let mut parts = vec![self.cache_salt.as_deref()];
        for name in &KEYS {
            let values: Result<Vec<&str>, _> = self.headers.get_all(name).iter().map(HeaderValue::to_str).collect();
            parts.extend(values.ok()?.into_iter().map(Some));
            // Where the next header's values begin.
            parts.push(None);
        }
        Some(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &[u8])]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &[u8])| {
            (HeaderName::from_static(name), HeaderValue::from_bytes(value).unwrap())
        };
        pairs.iter().map(pair).collect()
    }

    fn of(pairs: &[(&'static str, &[u8])], salt: Option<&str>) -> Origin {
        Origin { cache_salt: salt.map(str::to_owned), ..Origin::new(&headers(pairs), None) }
    }

    #[test]
    fn authorisation_is_inherited_and_what_describes_the_body_is_not() {
        let client = headers(&[
            ("authorization", b"Bearer k"),
            ("content-length", b"12"),
            ("x-request-id", b"abc"),
            ("connection", b"x-mine, keep-alive"),
            ("x-mine", b"1"),
            ("x-tenant", b"t"),
        ]);
        let origin = Origin::new(&client, None);
        assert_eq!(origin.headers, headers(&[("authorization", b"Bearer k"), ("x-tenant", b"t")]));
    }

    #[test]
    fn no_key_is_shown() {
        let origin = of(&[("authorization", b"Bearer k"), ("authorization", b"second k"), ("api-key", b"k too")], None);
        let shown = format!("{origin:?}");
        assert!(shown.contains("authorization") && !shown.contains(" k"), "{shown}");
    }

    #[test]
    fn keys_and_salts_tell_clients_apart_and_other_headers_do_not() {
        let one = of(&[("authorization", b"Bearer a")], Some("s"));
        let same = of(&[("authorization", b"Bearer a"), ("user-agent", b"x")], Some("s"));
        assert!(one.identity().is_some() && one.identity() == same.identity());
        let others = [
            of(&[("authorization", b"Bearer b")], Some("s")),
            of(&[("authorization", b"Bearer a")], None),
            of(&[("x-api-key", b"Bearer a")], Some("s")),
            of(&[("authorization", b"Bearer a"), ("cookie", b"session=b")], Some("s")),
            of(&[("authorization", b"Bearer a"), ("x-api-key", b"b")], Some("s")),
            of(&[("authorization", b"Bearer a"), ("api-key", b"b")], Some("s")),
            of(&[("authorization", b"Bearer a"), ("authorization", b"b"), ("cookie", b"c")], Some("s")),
            of(&[("authorization", b"Bearer a"), ("cookie", b"b"), ("cookie", b"c")], Some("s")),
            of(&[], Some("Bearer a")),
        ];
        for (index, other) in others.iter().enumerate() {
            assert_ne!(one.identity(), other.identity());
            assert!(others[index + 1..].iter().all(|another| another.identity() != other.identity()));
        }
    }

    #[test]
    fn a_key_that_is_no_text_is_nobodys() {
        assert_eq!(of(&[("authorization", b"Bearer \xff")], None).identity(), None);
    }
}
