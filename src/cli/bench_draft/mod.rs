//! `sidedraft bench draft`: what a draft model costs on this machine, against what its memory gives, and whether it
//! computes what it should.

mod report;
mod settings;

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::json;

use crate::cli::{print, say};
use crate::model::{Agreement, Cell, Device, DraftBench, Fallback};
use report::Finding;
pub(super) use settings::Settings;

/// How long a cell may be measured.
const PATIENCE: Duration = Duration::from_secs(10);

/// Compares, measures, prints the table and writes the file.
pub(super) fn run(settings: &Settings) -> anyhow::Result<ExitCode> {
    let (source, name) = settings.source();
    say(&format!("reading {name}"));
    // Which lists are the default's is known when the device is; the larger lists make room for the smaller.
    let room = settings.cells(&Device::Cuda { name: String::new() });
    let options = settings.model_options();
    let cache = settings.cache_mib.map(|mib| mib.get().saturating_mul(1 << 20));
    let mut bench = DraftBench::open(&source, &options, cache, &room, settings.check)?;
    if let Some(Fallback { explanation, .. }) = bench.fallback() {
        say(&format!("on the CPU, since the GPU cannot be used: {explanation}"));
    }
    let agreement = match settings.check {
        0 => None,
        positions => {
            let told = |compared| say(&format!("compared {compared} of {positions} positions"));
            Some(bench.check(&source, positions, options.threads, told).context("comparing with float32")?)
        }
    };
    let cells = measure(&mut bench, settings)?;

    let held = settings.held(bench.device());
    let mut text = describe(&bench, &name, held, settings.threads.get());
    if let Some(agreement) = &agreement {
        text += &report::agreement(agreement);
    }
    // The table comes last.
    text = text + "\n" + &report::table(&cells);
    print(&text);
    if let Some(path) = &settings.json {
        let all = json!({
            "model": name, "device": bench.device().kind(), "name": bench.device().name(), "weights": held,
            "threads": settings.threads, "weight_bytes": bench.weight_bytes(),
            "copy_bytes_per_second": bench.copy_bandwidth(),
            "fallback": bench.fallback().map(|fallback| &fallback.explanation),
            "agreement": agreement.as_ref().map(report::agreement_json),
            "cells": cells.iter().map(report::cell_json).collect::<Vec<_>>(),
        });
        std::fs::write(path, format!("{all:#}\n")).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let fault = |agreement: &Agreement| report::fault(agreement, settings.most_error, settings.least_agreement);
    match agreement.as_ref().and_then(fault) {
        Some(fault) => Err(anyhow::anyhow!("{fault}")),
        None => Ok(ExitCode::SUCCESS),
    }
}

fn measure(bench: &mut DraftBench, settings: &Settings) -> anyhow::Result<Vec<(Cell, Finding)>> {
    let (begin, cells) = (Instant::now(), settings.cells(bench.device()));
    let count = cells.len();
    let find = |(index, cell): (usize, Cell)| {
        let Cell { batch, context, length } = cell;
        if let Some(misfit) = bench.misfit(cell) {
            return Ok((cell, Finding::Misfit(misfit)));
        }
        if begin.elapsed() >= settings.seconds {
            return Ok((cell, Finding::OutOfTime));
        }
        say(&format!("cell {} of {count}: batch {batch}, context {context}, k {length}", index + 1));
        let measured = bench.measure(cell, settings.rounds.get(), PATIENCE)?;
        Ok((cell, Finding::Measured(measured)))
    };
    cells.into_iter().enumerate().map(find).collect()
}

fn describe(bench: &DraftBench, name: &str, held: &str, threads: usize) -> String {
    let mut text = format!("{name}, in {held} on {}", bench.device());
    // Writing into a string does not fail.
    _ = match bench.device() {
        Device::Cpu if threads > 1 => write!(text, ", {threads} threads"),
        Device::Cpu => write!(text, ", one thread"),
        Device::Cuda { .. } => Ok(()),
    };
    let (weights, copy) = (bench.weight_bytes() / 1e6, bench.copy_bandwidth() / 1e9);
    _ = writeln!(text, ". A step reads {weights:.0} MB of weights; a copy reads and writes {copy:.1} GB/s.");
    if let Some(Fallback { explanation, .. }) = bench.fallback() {
        _ = writeln!(text, "The GPU cannot be used: {explanation}.");
    }
    text
}
