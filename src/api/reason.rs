//! Why a request is forwarded instead of speculated.

/// Why a request is forwarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reason {
    /// Not the JSON that this route takes.
    Malformed,
    /// A value that the server will find fault with.
    Invalid,
    /// The server found fault with the first call.
    Refused,
    /// A field that is not known here.
    UnknownField(String),
    /// A feature that is not speculated.
    Feature(&'static str),
}

impl Reason {
    /// The name under which it is counted.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Invalid => "invalid",
            Self::Refused => "refused",
            Self::UnknownField(_) => "unknown_field",
            Self::Feature(name) => name,
        }
    }

    /// The first feature of a list that is present.
    pub(super) fn first(features: &[(bool, &'static str)]) -> Result<(), Self> {
        match features.iter().find(|(present, _)| *present) {
            Some((_, name)) => Err(Self::Feature(name)),
            None => Ok(()),
        }
    }
}
