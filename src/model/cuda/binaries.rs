//! Compiled kernels on disk, so that a restart need not compile. A file holds all that its content depends on, and a
//! checksum: what does not fit, for whatever reason, is compiled again.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::model::error::ModelError;

/// A folder of compiled kernels, if there is one that can be used.
pub(super) struct Binaries {
    folder: Option<PathBuf>,
}

impl Binaries {
    /// In `folder`, or in the user's cache folder.
    pub(super) fn new(folder: Option<&Path>) -> Self {
        let from_environment = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let cache = from_environment("XDG_CACHE_HOME").or_else(|| Some(from_environment("HOME")?.join(".cache")));
        Self { folder: folder.map(Path::to_owned).or_else(|| Some(cache?.join("sidedraft/kernels"))) }
    }

    /// The binary that belongs to a key, from the folder or else from `compile`. The key names all that the binary
    /// depends on.
    ///
    /// # Errors
    /// Those of `compile`; a folder that cannot be read or written costs a compilation.
    pub(super) fn get(
        &self,
        key: &str,
        compile: impl FnOnce() -> Result<Vec<u8>, ModelError>,
    ) -> Result<Vec<u8>, ModelError> {
        let path = self.folder.as_ref().map(|folder| folder.join(format!("{:016x}.bin", checksum(key.as_bytes()))));
        let kept = path.as_ref().and_then(|path| std::fs::read(path).ok());
        if let Some(binary) = kept.as_deref().and_then(|content| unseal(content, key)) {
            return Ok(binary.to_vec());
        }
        let binary = compile()?;
        if let Some(path) = path
            && let Err(error) = keep(&path, &seal(key, &binary))
        {
            tracing::debug!(path = %path.display(), %error, "compiled kernels are not kept");
        }
        Ok(binary)
    }
}

/// Writes under another name first: a reader never sees half a file.
fn keep(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(content)?;
    file.persist(path)?;
    Ok(())
}

fn checksum(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// Checksum of the rest; the key's length; the key; the binary.
fn seal(key: &str, binary: &[u8]) -> Vec<u8> {
    let rest = [&(key.len() as u64).to_le_bytes(), key.as_bytes(), binary].concat();
    [checksum(&rest).to_le_bytes().as_slice(), &rest].concat()
}

fn unseal<'a>(content: &'a [u8], key: &str) -> Option<&'a [u8]> {
    let (sum, rest) = content.split_first_chunk()?;
    let (length, body) = rest.split_first_chunk()?;
    let (named, binary) = body.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    (u64::from_le_bytes(*sum) == checksum(rest) && named == key.as_bytes()).then_some(binary)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiled(binaries: &Binaries, key: &str) -> bool {
        let mut compiled = false;
        let binary = binaries.get(key, || {
            compiled = true;
            Ok(key.bytes().rev().collect())
        });
        assert_eq!(binary.unwrap(), key.bytes().rev().collect::<Vec<_>>());
        compiled
    }

    #[test]
    fn what_was_compiled_once_is_not_compiled_again() {
        let folder = tempfile::tempdir().unwrap();
        let binaries = Binaries::new(Some(&folder.path().join("new/one")));
        assert!(compiled(&binaries, "source, sm_90"));
        assert!(!compiled(&binaries, "source, sm_90"));
        assert!(compiled(&binaries, "source, sm_100"));
    }

    #[test]
    fn a_damaged_file_costs_a_compilation() {
        let folder = tempfile::tempdir().unwrap();
        let binaries = Binaries::new(Some(folder.path()));
        assert!(compiled(&binaries, "key"));
        let path = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert!(compiled(&binaries, "key"));
            let mut wrong = whole.clone();
            wrong[cut] ^= 1;
            std::fs::write(&path, wrong).unwrap();
            assert!(compiled(&binaries, "key"));
        }
        assert!(!compiled(&binaries, "key"));
    }

    #[test]
    fn a_folder_that_cannot_be_written_costs_compilations() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let binaries = Binaries::new(Some(&file.path().join("below a file")));
        assert!(compiled(&binaries, "key") && compiled(&binaries, "key"));
    }

    #[test]
    fn a_binary_of_another_key_is_not_taken() {
        let sealed = seal("one key", b"binary");
        assert_eq!(unseal(&sealed, "one key"), Some(&b"binary"[..]));
        assert_eq!(unseal(&sealed, "two key"), None);
    }
}
