//! Token ids as JSON writes them, written once: a rollout's context goes out with every request, and only grows.

use bytes::Bytes;

use super::body::Pieces;

/// The JSON of some ids, without brackets. What was written is shared by all requests that name it; only the newest
/// few kilobytes are still being written, and are copied into each request. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct IdsText {
    /// Whole chunks. Each but the first begins with a comma.
    done: Vec<Bytes>,
    /// The chunk that is being written.
    open: Vec<u8>,
    count: usize,
}

/// Bytes of a chunk that is shared from then on. A request then has some 25 pieces for 16k ids.
const CHUNK: usize = 4096;

impl IdsText {
    /// The text of `ids`.
    #[must_use]
    pub fn of(ids: &[u32]) -> Self {
        let mut open = Vec::with_capacity(ids.len() * 6);
        write(&mut open, true, ids);
        let mut text = Self { done: Vec::new(), open, count: ids.len() };
        text.close();
        text
    }

    /// Adds an id.
    pub fn push(&mut self, id: u32) {
        write(&mut self.open, self.count == 0, &[id]);
        self.count += 1;
        self.close();
    }

    /// How many ids it has.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    fn close(&mut self) {
        if self.open.len() >= CHUNK {
            self.done.push(Bytes::from(std::mem::take(&mut self.open)));
        }
    }
}

fn write(out: &mut Vec<u8>, mut is_first: bool, ids: &[u32]) {
    let mut digits = itoa::Buffer::new();
    for id in ids {
        if !std::mem::take(&mut is_first) {
            out.push(b',');
        }
        out.extend_from_slice(digits.format(*id).as_bytes());
    }
}

/// The token ids of a prompt: some that are written already, then others.
#[derive(Debug, Clone, Copy)]
pub struct Prompt<'a> {
    written: Option<&'a IdsText>,
    rest: &'a [u32],
}

impl<'a> Prompt<'a> {
    /// What is written, followed by `rest`.
    #[must_use]
    pub fn new(written: &'a IdsText, rest: &'a [u32]) -> Self {
        Self { written: Some(written), rest }
    }

    /// How many ids it has.
    #[must_use]
    pub fn count(&self) -> usize {
        self.written.map_or(0, IdsText::count) + self.rest.len()
    }

    /// Adds the list to a body.
    pub(super) fn put(&self, body: &mut Pieces) {
        body.text().push(b'[');
        if let Some(IdsText { done, open, .. }) = self.written {
            done.iter().for_each(|chunk| body.share(chunk));
            body.text().extend_from_slice(open);
        }
        write(body.text(), self.written.is_none_or(|written| written.count == 0), self.rest);
        body.text().push(b']');
    }
}

impl<'a, T: AsRef<[u32]> + ?Sized> From<&'a T> for Prompt<'a> {
    fn from(ids: &'a T) -> Self {
        Self { written: None, rest: ids.as_ref() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ids() -> impl Strategy<Value = Vec<u32>> {
        prop_oneof![proptest::collection::vec(any::<u32>(), 0..3), proptest::collection::vec(any::<u32>(), 0..3000)]
    }

    proptest! {
        #[test]
        fn however_ids_were_written_the_list_is_that_of_all(prompt in ids(), committed in ids(), drafts in ids()) {
            let mut text = IdsText::of(&prompt);
            committed.iter().for_each(|id| text.push(*id));
            let mut body = Pieces::default();
            let listed = Prompt::new(&text, &drafts);
            listed.put(&mut body);
            let all = [prompt, committed, drafts.clone()].concat();
            prop_assert_eq!(listed.count(), all.len());
            prop_assert_eq!(serde_json::from_slice::<Vec<u32>>(&body.finish().concat()).unwrap(), all);
        }
    }

    /// Prints what putting a request together takes. Run it with `--release --ignored --nocapture`.
    #[test]
    #[ignore = "a measurement"]
    #[allow(clippy::print_stdout)]
    fn time_of_a_request_after_16k_ids() {
        const TIMES: u32 = 2000;
        let context: Vec<u32> = (0..16_384).map(|at| at * 7919 % 128_000).collect();
        let time = |what: &str, make: &dyn Fn() -> usize| {
            let started = std::time::Instant::now();
            let bytes: usize = (0..TIMES).map(|_| std::hint::black_box(make())).sum();
            println!("{what}: {:?} for {} bytes", started.elapsed() / TIMES, bytes / TIMES as usize);
        };
        let mut text = IdsText::of(&context[..1024]);
        context[1024..].iter().for_each(|id| text.push(*id));
        let drafts = [5; 8];
        let put = |prompt: Prompt<'_>| {
            let mut body = Pieces::object(&serde_json::json!({"max_tokens": 1})).unwrap();
            prompt.put(&mut body);
            body.finish().length()
        };
        let all = [&context[..], &drafts].concat();
        time("all ids by serde", &|| {
            serde_json::to_vec(&serde_json::json!({"max_tokens": 1})).unwrap().len()
                + serde_json::to_vec(&all).unwrap().len()
        });
        time("all ids", &|| put(Prompt::from(&all)));
        time("the drafts alone", &|| put(Prompt::new(&text, &drafts)));
    }

    #[test]
    fn a_request_shares_what_was_written_and_copies_less_than_a_chunk() {
        let mut text = IdsText::of(&[100_000; 2000]);
        (0..2000).for_each(|id| text.push(100_000 + id));
        let mut body = Pieces::default();
        Prompt::new(&text, &[1, 2]).put(&mut body);
        let body = body.finish();
        let shared =
            body.pieces().iter().filter(|piece| text.done.iter().any(|chunk| chunk.as_ptr() == piece.as_ptr()));
        let shared: usize = shared.map(Bytes::len).sum();
        assert!(body.length() - shared < CHUNK + 64, "{shared} of {}", body.length());
    }
}
