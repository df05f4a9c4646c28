//! A comparison from settings to results: reads, refuses, measures, and writes what was measured.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;

use super::client::Client;
use super::comparison::Comparison;
use super::record::{Cell, Load, Report, Server};
use super::run::Run;
use super::settings::CompareSettings;
use super::workload::Workload;
use super::{page, servers, table};

/// Fails where no ratio could be told although both URLs were given.
pub(super) fn compare(settings: &CompareSettings) -> anyhow::Result<ExitCode> {
    let workloads = settings.workload.iter().map(|path| Workload::read(path)).collect::<anyhow::Result<Vec<_>>>()?;
    let client = Client::new(settings.api_key.as_deref(), Duration::from_secs(settings.patience))?;
    // One thread: the servers need the others.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    let report = runtime.block_on(measure(settings, &workloads, &client))?;
    print(&table::render(&report));
    let both = report.direct.is_some() && report.proxied.is_some();
    let void = |cell: &Cell| matches!(cell.summary.comparison, Comparison::Unpaired { .. });
    let failed = both && report.cells.iter().any(void);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn measure(settings: &CompareSettings, workloads: &[Workload], client: &Client) -> anyhow::Result<Report> {
    let direct = examine(client, settings.direct.as_deref(), settings).await?;
    let proxied = examine(client, settings.proxy.as_deref(), settings).await?;
    let mut notes = servers::judge(direct.as_ref(), proxied.as_ref())?;
    notes.extend(ignored(workloads));
    let load = Load {
        rounds: settings.rounds.get(),
        together: settings.together,
        stream: settings.stream,
        logprobs: settings.logprobs,
        cache_salt: !settings.no_cache_salt,
        warmup: settings.warmup,
        max_tokens: settings.max_tokens,
    };
    let mut report = Report {
        sidedraft: env!("CARGO_PKG_VERSION").to_owned(),
        started: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        finished: false,
        direct,
        proxied,
        load,
        notes,
        cells: Vec::new(),
    };
    // Before the first round, so that a file that cannot be written costs no hour.
    keep(settings, &report)?;
    let name = uuid::Uuid::new_v4().simple().to_string();
    let run = Run { client, settings, workloads, name, began: Instant::now() };
    run.measure(&mut report, |report| keep(settings, report)).await?;
    Ok(report)
}

async fn examine(client: &Client, url: Option<&str>, settings: &CompareSettings) -> anyhow::Result<Option<Server>> {
    let Some(url) = url else { return Ok(None) };
    servers::examine(client, url, settings.model.as_deref()).await.map(Some)
}

/// Names the keys of workloads that were not made use of.
fn ignored(workloads: &[Workload]) -> Option<String> {
    let mut keys: Vec<&str> = workloads.iter().flat_map(|workload| &workload.ignored).map(String::as_str).collect();
    keys.sort_unstable();
    keys.dedup();
    (!keys.is_empty()).then(|| format!("Keys of the workload that were not used: {}.", keys.join(", ")))
}

/// Writes the files that were asked for, with what there is so far.
fn keep(settings: &CompareSettings, report: &Report) -> anyhow::Result<()> {
    if let Some(path) = &settings.json {
        write(path, &serde_json::to_string(report).context("cannot write the report as JSON")?)?;
    }
    if let Some(path) = &settings.html {
        write(path, &page::render(report))?;
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[allow(clippy::print_stdout)]
fn print(text: &str) {
    print!("{text}");
}
