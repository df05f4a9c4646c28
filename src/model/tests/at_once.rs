//! A backend that reads more rows at once than the settings say gets them.

use std::sync::mpsc::{Sender, channel};

use rand::rngs::StdRng;

use super::*;
use crate::model::LoadedModel;
use crate::model::backend::{Backend, Feed, Outcome};
use crate::model::config::ModelConfig;

/// Tells how many rows each step had.
struct Told {
    inner: Box<dyn Backend>,
    at_once: usize,
    rows: Sender<usize>,
}

impl Backend for Told {
    fn config(&self) -> &ModelConfig {
        self.inner.config()
    }

    fn pages(&self) -> usize {
        self.inner.pages()
    }

    fn rows_at_once(&self) -> usize {
        self.at_once
    }

    fn learn(&mut self, ids: &[TokenId]) {
        self.inner.learn(ids);
    }

    fn step(&mut self, feeds: &[Feed<'_>], rng: &mut StdRng) -> Result<Vec<Outcome>, ModelError> {
        self.rows.send(feeds.iter().map(|feed| feed.tokens.len()).sum()).unwrap();
        self.inner.step(feeds, rng)
    }
}

#[tokio::test]
async fn passes_are_as_long_as_the_settings_or_the_backend_say() {
    let text = context(100);
    let wanted = tiny().sequence().draft(&text, DraftSampling::new(1, 0.0)).await.unwrap();
    for (at_once, steps) in [(1, vec![30, 30, 30, 10]), (64, vec![64, 36])] {
        let LoadedModel { backend: inner, options, device, fallback } =
            TinyLlama::random(1).load(&ModelOptions { rows_per_pass: 30, ..options() });
        let (rows, told) = channel();
        let model = LoadedModel { backend: Box::new(Told { inner, at_once, rows }), options, device, fallback }
            .spawn()
            .unwrap();
        assert_eq!(model.sequence().draft(&text, DraftSampling::new(1, 0.0)).await.unwrap(), wanted);
        drop(model);
        assert_eq!(told.iter().collect::<Vec<_>>(), steps);
    }
}
