//! Decodes with the draft model as often as it is told to.
//!
//! usage: draft_speed MODEL [whole]
//!
//! With `whole`, drafts are drawn from the whole vocabulary. Each line on stdin, `CONTEXT LENGTH BATCH`, is answered by a
//! line of JSON: tokens/s of drafting LENGTH tokens greedily after CONTEXT tokens, on one thread, in BATCH sequences at
//! once. Prefills are not counted.

use std::io::BufRead;
use std::time::Instant;

use anyhow::Context as _;
use futures_util::future::try_join_all;
use sidedraft::model::{DraftModel, DraftSampling, ModelOptions, ModelSource, Sequence};

/// Not a context that another sequence has.
fn context(sequence: usize, length: usize) -> Vec<u32> {
    (0..length).map(|i| ((i * i * 7 + 13 * i + 1009 * sequence) % 8000) as u32).collect()
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let source = ModelSource::from_path(arguments.next().context("which model?")?);
    let mut options = ModelOptions { threads: 1, ..ModelOptions::default() };
    if arguments.next().is_some() {
        options.shortlist = None;
    }
    let model = DraftModel::load(&source, &options)?.spawn()?;
    for line in std::io::stdin().lock().lines() {
        let numbers: Vec<usize> = line?.split(' ').map(str::parse).collect::<Result<_, _>>()?;
        let [length, count, batch] = numbers[..] else { anyhow::bail!("three numbers, not {}", numbers.len()) };
        let contexts: Vec<Vec<u32>> = (0..batch).map(|sequence| context(sequence, length)).collect();
        let mut sequences: Vec<Sequence> = (0..batch).map(|_| model.sequence()).collect();
        let pairs = sequences.iter_mut().zip(&contexts);
        try_join_all(pairs.map(|(sequence, context)| sequence.logits(context))).await?;
        let clock = Instant::now();
        let pairs = sequences.iter_mut().zip(&contexts);
        let drafts = pairs.map(|(sequence, context)| sequence.draft(context, DraftSampling::new(count, 0.0)));
        let drafted: usize = try_join_all(drafts).await?.iter().map(Vec::len).sum();
        let speed = drafted as f64 / clock.elapsed().as_secs_f64();
        #[expect(clippy::print_stdout, reason = "what it is for")]
        {
            println!("{{\"clock\": {speed}}}");
        }
    }
    Ok(())
}
