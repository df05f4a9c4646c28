//! JSON whose keys stay in the order they were written in: vLLM's replies have one, and a proxy must keep it.
//! (`serde_json::Value` sorts its keys in this build.)

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;

/// A JSON value whose objects are lists of pairs.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    /// Anything whose order is not in doubt.
    Plain(Value),
    /// A list.
    List(Vec<Json>),
    /// An object, its keys as written.
    Object(Vec<(String, Json)>),
}

/// `null`.
pub const NULL: Json = Json::Plain(Value::Null);

impl Json {
    /// An object of these pairs; of two with the same key the later value wins, at the first one's place.
    pub fn object(pairs: impl IntoIterator<Item = (String, Json)>) -> Self {
        let mut object = Self::Object(Vec::new());
        pairs.into_iter().for_each(|(key, value)| object.set(&key, value));
        object
    }

    /// Sets `key` of an object: in place where it exists, else at the end.
    ///
    /// # Panics
    /// If this is no object.
    pub fn set(&mut self, key: &str, value: impl Into<Json>) {
        let Self::Object(pairs) = self else { panic!("{key} of something that is no object") };
        let value = value.into();
        match pairs.iter_mut().find(|(name, _)| name == key) {
            Some((_, old)) => *old = value,
            None => pairs.push((key.to_owned(), value)),
        }
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Plain(value) => value.serialize(serializer),
            Self::List(items) => items.serialize(serializer),
            Self::Object(pairs) => {
                let mut map = serializer.serialize_map(Some(pairs.len()))?;
                for (key, value) in pairs {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}

impl std::fmt::Display for Json {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&serde_json::to_string(self).unwrap())
    }
}

macro_rules! plain {
    ($($kind:ty),*) => {$(
        impl From<$kind> for Json {
            fn from(value: $kind) -> Self {
                Self::Plain(Value::from(value))
            }
        }
    )*};
}
plain!(Value, bool, &str, String, u32, u64, usize, i64, f64, &[u32], Vec<u8>);

impl<T: Into<Json>> From<Option<T>> for Json {
    fn from(value: Option<T>) -> Self {
        value.map_or(NULL, Into::into)
    }
}

impl From<Vec<Json>> for Json {
    fn from(items: Vec<Json>) -> Self {
        Self::List(items)
    }
}

impl FromIterator<Json> for Json {
    fn from_iter<I: IntoIterator<Item = Json>>(items: I) -> Self {
        Self::List(items.into_iter().collect())
    }
}

/// An object: `obj! {"id": id, "choices": choices}`.
macro_rules! obj {
    ($($key:literal: $value:expr),* $(,)?) => {
        $crate::support::fake_vllm::ordered::Json::Object(vec![
            $(($key.to_owned(), $crate::support::fake_vllm::ordered::Json::from($value))),*
        ])
    };
}
pub(crate) use obj;
