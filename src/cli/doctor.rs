//! `sidedraft doctor`: what a server supports, what would be slow, and how to mend it.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use clap::Args;

use super::print;
use crate::config::{DrafterChoice, TargetSettings};
use crate::model::{DraftModel, Fallback};
use crate::setup::{Examined, compare_with_draft, examine, load_draft_model};
use crate::text::Tokenizer;
use crate::upstream::{Capabilities, GenerateRoute, Runner, Upstream};
use crate::verify::Strategy;

/// Settings of `sidedraft doctor`.
#[derive(Debug, Args)]
pub(super) struct DoctorSettings {
    #[command(flatten)]
    target: TargetSettings,
}

/// How a finding bears on speculation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Good,
    Slow,
    Bad,
}

/// What was found, line by line.
#[derive(Debug, Default)]
struct Report {
    text: String,
    works: bool,
}

impl Report {
    fn line(&mut self, mark: Mark, name: &str, finding: &str) {
        let sign = match mark {
            Mark::Good => "ok  ",
            Mark::Slow => "slow",
            Mark::Bad => "bad ",
        };
        // Writing into a string does not fail.
        let _ = writeln!(self.text, "{sign}  {name:<22}{finding}");
    }

    fn hint(&mut self, text: &str) {
        let _ = writeln!(self.text, "      {:<22}-> {text}", "");
    }
}

pub(super) fn run(settings: DoctorSettings) -> anyhow::Result<ExitCode> {
    settings.target.check().map_err(|error| anyhow!(error))?;
    let upstream = Upstream::new(&settings.target.upstream_options())?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")?;
    let report = runtime.block_on(examine_all(&upstream, &settings.target));
    print(&report.text);
    Ok(if report.works { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn examine_all(upstream: &Upstream, settings: &TargetSettings) -> Report {
    let mut report = Report::default();
    if upstream.check_health().await.is_err() {
        report.line(Mark::Bad, "server", &format!("{} does not answer GET /health", upstream.url()));
        return report;
    }
    let (tokenizer, capabilities) = match examine(upstream, settings).await {
        Ok(Examined::Known { tokenizer, capabilities }) => (tokenizer, capabilities),
        Ok(Examined::NoTokenizer(reason)) => {
            report.line(Mark::Bad, "tokenizer", &reason);
            return report;
        }
        Err(error) => {
            report.line(Mark::Bad, "server", &error.to_string());
            return report;
        }
    };
    server(&mut report, upstream, &capabilities);
    let size = tokenizer.vocabulary_size();
    report.line(Mark::Good, "tokenizer", &format!("{size} ids, each with the same text as on the server"));
    strategies(&mut report, &capabilities);
    shared_history(&mut report, settings).await;
    report.works = drafter(&mut report, settings, &tokenizer).await && !capabilities.tells_more_than_tokens;
    report
}

fn server(report: &mut Report, upstream: &Upstream, found: &Capabilities) {
    let version = found.version.as_deref().unwrap_or("of unknown version");
    let frontend = if found.rust_frontend { ", Rust frontend" } else { "" };
    report.line(Mark::Good, "server", &format!("vLLM {version}{frontend} at {}", upstream.url()));
    report.line(Mark::Good, "model", &found.model);
    report.line(Mark::Good, "max_model_len", &found.max_model_len.to_string());
    let runner = match found.generate.runner {
        Runner::V1 => "V1",
        Runner::V2 => "V2",
        Runner::Unknown => "could not be told",
    };
    report.line(Mark::Good, "runner", runner);
    if found.max_logprobs >= 20 {
        report.line(Mark::Good, "max_logprobs", &found.max_logprobs.to_string());
    } else {
        report.line(Mark::Slow, "max_logprobs", &found.max_logprobs.to_string());
        report.hint("start vLLM with --max-logprobs 20 or more: short rows leave more to be sampled again");
    }
    if found.defaults.is_some() {
        report.line(Mark::Good, "sampling defaults", "known");
    } else {
        report.line(Mark::Slow, "sampling defaults", "unknown: requests that leave one out are verified by fan-out");
        report.hint(
            "start vLLM with --enable-scale-out, or sidedraft with --assume-neutral-defaults if they are neutral",
        );
    }
    let (mark, chat) = match &found.chat {
        chat if !chat.available => (Mark::Slow, "not answered, or in a shape that is not known here: forwarded"),
        chat if chat.parsed => (Mark::Slow, "a tool or reasoning parser works on the replies: forwarded"),
        chat if chat.renders => (Mark::Good, "speculated, prompts by the render route"),
        _ => (Mark::Good, "speculated, prompts by the tokenize route"),
    };
    report.line(mark, "chat", chat);
    if found.tells_more_than_tokens {
        report.line(Mark::Bad, "routed experts", "replies tell them, so everything is forwarded");
    }
    let ends: Vec<String> = found.end_tokens.keys().map(u32::to_string).collect();
    report.line(Mark::Good, "end tokens", &ends.join(", "));
}

fn strategies(report: &mut Report, found: &Capabilities) {
    if !found.raw_logprobs {
        report.line(Mark::Slow, "log-probabilities", "not raw: only fan-out can verify");
        report.hint("start vLLM with --logprobs-mode raw_logprobs");
    }
    let name = "A cached suffix";
    if Strategy::CachedSuffix.is_available(found) && found.generate.prints_badly {
        report.line(Mark::Slow, name, "available, but calls fail over rows that the server did not compute");
        report.hint("start vLLM with MALLOC_PERTURB_=255 in its environment: it fills such memory with zeros");
    } else if Strategy::CachedSuffix.is_available(found) {
        report.line(Mark::Good, name, "available, lost rows can be told");
    } else {
        let why = match &found.generate.route {
            GenerateRoute::Available if !found.raw_logprobs => "available, but its rows are not raw".to_owned(),
            GenerateRoute::Available => "available, but its rows cannot be trusted".to_owned(),
            GenerateRoute::Disabled { message } => format!("switched off: {message}"),
            GenerateRoute::Missing => "the server has no /inference/v1/generate".to_owned(),
            GenerateRoute::Failing { message } => format!("does not answer as expected: {message}"),
        };
        report.line(Mark::Slow, name, &why);
        match &found.generate.route {
            GenerateRoute::Available if found.raw_logprobs => {
                report.hint("start vLLM with --enable-prompt-tokens-details");
            }
            GenerateRoute::Disabled { .. } => report.hint("start vLLM with --enable-scale-out"),
            GenerateRoute::Missing => report.hint("vLLM 0.11.1 and later have it"),
            _ => {}
        }
    }
    if Strategy::CachedSuffix.is_available(found) {
        let finding = if found.generate.scores_given_ids {
            "scored: old rollouts are judged by all that their rows list"
        } else {
            "not scored (vLLM 0.31 and later do, on the V2 runner): old rollouts are judged by what both rows list"
        };
        report.line(Mark::Good, "given ids", finding);
    }
    let full = Strategy::PromptLogprobs.is_available(found);
    let finding = if full { "available, for short contexts" } else { "not available" };
    report.line(if full { Mark::Good } else { Mark::Slow }, "B prompt logprobs", finding);
    report.line(
        Mark::Good,
        "C fan-out",
        if found.rust_frontend { "available, a request for each draft" } else { "available" },
    );
}

/// Whether the Redis server answers through which history is to be shared.
async fn shared_history(report: &mut Report, settings: &TargetSettings) {
    let Some(shared) = settings.history.shared() else { return };
    match shared.ask().await {
        Ok(found) => report.line(Mark::Good, "shared history", &found),
        Err(error) => {
            report.line(Mark::Slow, "shared history", &error.to_string());
            report.hint("without it each sidecar drafts from its own rollouts alone");
        }
    }
}

/// Whether somebody can draft.
async fn drafter(report: &mut Report, settings: &TargetSettings, tokenizer: &Tokenizer) -> bool {
    if settings.drafter == DrafterChoice::Off {
        report.line(Mark::Bad, "drafter", "switched off");
        return false;
    }
    let Some(path) = settings.drafting_model() else {
        report.line(Mark::Slow, "drafter", "n-grams of the context only");
        report.hint("a small model with the same vocabulary, given by --draft-model, drafts far better");
        return true;
    };
    let shown = path.display();
    let all = tokenizer.vocabulary_size();
    match compare_with_draft(tokenizer, path) {
        Ok(shared) if shared == all => {
            report.line(Mark::Good, "draft vocabulary", "each id means the same as on the server");
        }
        Ok(shared) => {
            let finding = format!("the first {shared} of {all} ids, each as on the server; others are not drafted");
            report.line(Mark::Good, "draft vocabulary", &finding);
        }
        Err(difference) => {
            report.line(Mark::Bad, "draft vocabulary", &difference);
            return false;
        }
    }
    match load_draft_model(path, settings).await {
        Ok(model) => {
            let (vocabulary, positions) = (model.vocabulary_size(), model.max_positions());
            report.line(Mark::Good, "draft model", &format!("{shown}: {vocabulary} ids, {positions} positions"));
            draft_device(report, &model);
            true
        }
        Err(error) => {
            report.line(Mark::Bad, "draft model", &error.to_string());
            false
        }
    }
}

/// What runs the draft model, and whether that is for want of something better.
fn draft_device(report: &mut Report, model: &DraftModel) {
    let name = "draft device";
    let Some(Fallback { reason, explanation }) = model.fallback() else {
        return report.line(Mark::Good, name, &model.device().to_string());
    };
    report.line(Mark::Slow, name, &format!("{}, since the GPU cannot be used: {explanation}", model.device()));
    match *reason {
        "compiler" => report.hint("name the folder of NVRTC's libraries with --cuda-libraries"),
        "memory" => {
            report.hint("leave more of the GPU's memory free: start vLLM with a lower --gpu-memory-utilization")
        }
        _ => {}
    }
}
