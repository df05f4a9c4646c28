//! Log-probabilities of ids that a call names, at positions of its prompt: one number each, whether they are likely or not.
//!
//! vLLM has had them since 0.31, on the V2 runner: `prompt_logprob_token_ids` and `prompt_logprob_start` among the sampling
//! parameters of `/inference/v1/generate`, and in its reply `prompt_token_id_logprobs`, NumPy's `.npy` in base64. Row i of
//! it is of the prompt token at start + i + 1. Where the prefix cache has served the hidden state that the first row needs,
//! the server gives none at all.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// What `.npy` files begin with, version 1.0.
const MAGIC: &[u8] = b"\x93NUMPY\x01\x00";

/// Rows of single-precision log-probabilities, in the order of the ids that were given.
#[derive(Debug, Clone, PartialEq)]
pub struct GivenIds {
    columns: usize,
    values: Vec<f32>,
}

impl GivenIds {
    /// The log-probabilities at a row, as many as the longest list of ids had; what is past the row's own list is padding.
    #[must_use]
    pub fn row(&self, index: usize) -> Option<&[f32]> {
        self.values.chunks_exact(self.columns.max(1)).nth(index)
    }

    /// Reads the reply's field, which was asked for with these `ids`.
    pub(super) fn read(text: &str, ids: &[Vec<u32>]) -> Result<Self, String> {
        let bytes = STANDARD.decode(text).map_err(|error| error.to_string())?;
        let columns = ids.iter().map(Vec::len).max().unwrap_or(0);
        let values = array(&bytes, (ids.len(), columns))?;
        Ok(Self { columns, values })
    }
}

/// The values of an array of this shape.
fn array(bytes: &[u8], shape: (usize, usize)) -> Result<Vec<f32>, String> {
    let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| "no array".to_owned())?;
    let (length, rest) = rest.split_first_chunk::<2>().ok_or_else(|| "an array without a header".to_owned())?;
    let length = usize::from(u16::from_le_bytes(*length));
    let (header, values) = rest.split_at_checked(length).ok_or_else(|| "an array that was cut short".to_owned())?;
    let header: String = String::from_utf8_lossy(header).split_whitespace().collect();
    let wanted = format!("{{'descr':'<f4','fortran_order':False,'shape':({},{}),}}", shape.0, shape.1);
    if header != wanted || values.len() != 4 * shape.0 * shape.1 {
        return Err(format!("an array {header} of {} bytes where {wanted} was expected", values.len()));
    }
    let four = |bytes: &[u8]| bytes.try_into().map_or(f32::NAN, f32::from_le_bytes);
    Ok(values.chunks_exact(4).map(four).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `numpy.save` makes of `[[-0.5, -2.25], [-1.0, -inf]]` in float32.
    const WRITTEN: &str = concat!(
        "k05VTVBZAQB2AHsnZGVzY3InOiAnPGY0JywgJ2ZvcnRyYW5fb3JkZXInOiBGYWxzZSwgJ3NoYXBlJzogKDIsIDIpLCB9ICAg",
        "ICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIAoAAAC/AAAQwAAAgL8AAID/"
    );

    #[test]
    fn an_array_of_numpys_is_read() {
        let given = GivenIds::read(WRITTEN, &[vec![7, 9], vec![8]]).unwrap();
        assert_eq!(given.row(0), Some(&[-0.5, -2.25][..]));
        assert_eq!(given.row(1), Some(&[-1.0, f32::NEG_INFINITY][..]));
        assert_eq!(given.row(2), None);
    }

    #[test]
    fn another_array_is_refused() {
        for (text, ids) in [
            (WRITTEN, vec![vec![7, 9]]),
            (WRITTEN, vec![vec![7], vec![8]]),
            (&WRITTEN[..WRITTEN.len() - 4], vec![vec![7, 9], vec![8]]),
            ("k05VTVBZAQB2AHsn", vec![vec![7, 9], vec![8]]),
            ("AAAA", vec![vec![7]]),
            ("not base64!", vec![vec![7]]),
        ] {
            assert!(GivenIds::read(text, &ids).is_err(), "{text} for {ids:?}");
        }
    }
}
