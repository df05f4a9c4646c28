//! Whose rollouts of what: the key under which history is kept.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use ring::digest::{Context, SHA256};

use crate::speculation::TokenId;

/// What a prompt is called outside of this process: it can only be compared.
pub(super) type Digest = [u8; 32];

/// On whose behalf, as a value that can only be compared: two requests may share history only if all that sets their senders
/// apart (API key, cache salt) is the same.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Tenant(Arc<[u8]>);

impl Tenant {
    /// The tenant of these values, in this order; an absent one differs from an empty one, and none runs into the next.
    #[must_use]
    pub fn new(parts: &[Option<&str>]) -> Self {
        let mut bytes = Vec::new();
        for part in parts {
            bytes.extend(part.map_or(u64::MAX, |part| part.len() as u64).to_le_bytes());
            bytes.extend(part.unwrap_or_default().as_bytes());
        }
        Self(bytes.into())
    }
}

/// Tells nothing, since it holds secrets.
impl fmt::Debug for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tenant")
    }
}

/// A prompt of one tenant to one model. Cheap to clone; equal only if everything in it is.
#[derive(Debug, Clone)]
pub struct PromptKey {
    parts: Arc<Parts>,
    /// Of the parts.
    hash: u64,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Parts {
    tenant: Tenant,
    model: Box<str>,
    prompt: Box<[TokenId]>,
}

impl PromptKey {
    /// The key of `prompt` as `tenant` sends it to `model`, which may be the name of an adapter.
    #[must_use]
    pub fn new(tenant: Tenant, model: &str, prompt: &[TokenId]) -> Self {
        let parts = Parts { tenant, model: model.into(), prompt: prompt.into() };
        let mut hasher = DefaultHasher::new();
        parts.hash(&mut hasher);
        Self { hash: hasher.finish(), parts: Arc::new(parts) }
    }

    /// The prompt's tokens.
    #[must_use]
    pub fn prompt(&self) -> &[TokenId] {
        &self.parts.prompt
    }

    /// SHA-256 of everything in it: who sees it learns neither keys nor prompt, and two that differ in anything have two.
    pub(super) fn digest(&self) -> Digest {
        let Parts { tenant, model, prompt } = &*self.parts;
        let mut context = Context::new(&SHA256);
        for length in [tenant.0.len(), model.len(), prompt.len()] {
            context.update(&(length as u64).to_le_bytes());
        }
        context.update(&tenant.0);
        context.update(model.as_bytes());
        let prompt: Vec<u8> = prompt.iter().flat_map(|token| token.to_le_bytes()).collect();
        context.update(&prompt);
        let mut digest = Digest::default();
        digest.copy_from_slice(context.finish().as_ref());
        digest
    }

    /// The bytes it takes, once for all its clones.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let Parts { tenant, model, prompt } = &*self.parts;
        size_of::<Parts>() + tenant.0.len() + model.len() + size_of_val::<[TokenId]>(prompt)
    }
}

impl PartialEq for PromptKey {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && (Arc::ptr_eq(&self.parts, &other.parts) || self.parts == other.parts)
    }
}

impl Eq for PromptKey {}

impl Hash for PromptKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn key(api_key: Option<&str>, salt: Option<&str>, model: &str, prompt: &[TokenId]) -> PromptKey {
        PromptKey::new(Tenant::new(&[api_key, salt]), model, prompt)
    }

    #[test]
    fn keys_are_equal_if_everything_is() {
        let one = key(Some("a"), Some("b"), "m", &[1, 2]);
        assert_eq!(one, key(Some("a"), Some("b"), "m", &[1, 2]));
        let others = [
            key(Some("ab"), Some(""), "m", &[1, 2]),
            key(Some("a"), None, "m", &[1, 2]),
            key(Some("a"), Some(""), "m", &[1, 2]),
            key(None, Some("b"), "m", &[1, 2]),
            key(Some("b"), Some("a"), "m", &[1, 2]),
            key(Some("a"), Some("b"), "n", &[1, 2]),
            key(Some("a"), Some("b"), "m", &[2, 1]),
        ];
        for (index, other) in others.iter().enumerate() {
            assert_ne!(one, *other);
            assert!(others[index + 1..].iter().all(|another| another != other));
        }
        let digests: HashSet<Digest> = others.iter().chain([&one]).map(PromptKey::digest).collect();
        assert_eq!(digests.len(), others.len() + 1);
        assert_eq!(one.digest(), key(Some("a"), Some("b"), "m", &[1, 2]).digest());
    }

    #[test]
    fn keys_whose_hashes_collide_are_told_apart() {
        let (one, two) = (key(Some("a"), None, "m", &[1]), key(Some("b"), None, "m", &[1]));
        assert_ne!(one, PromptKey { hash: one.hash, ..two });
    }

    #[test]
    fn a_tenant_does_not_show_its_secrets() {
        assert_eq!(format!("{:?}", Tenant::new(&[Some("sk-123"), Some("pepper")])), "Tenant");
    }
}
