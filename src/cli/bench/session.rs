//! A run from its settings to its results: reads, refuses, measures, and writes what was measured.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;

use super::client::Client;
use super::comparison::Comparison;
use super::record::{Cell, Epochs, Load, Report, Server};
use super::run::{Point, Run};
use super::settings::Ends;
use super::workload::Workload;
use super::{page, servers, table};
use crate::cli::print;

/// What every run begins with.
pub(super) struct Session<'a> {
    ends: &'a Ends,
    client: Client,
    pub workloads: Vec<Workload>,
}

impl<'a> Session<'a> {
    pub(super) fn open(ends: &'a Ends) -> anyhow::Result<Self> {
        let workloads = ends.workload.iter().map(|path| Workload::read(path)).collect::<anyhow::Result<Vec<_>>>()?;
        let client = Client::new(ends.api_key.as_deref(), Duration::from_secs(ends.patience))?;
        Ok(Self { ends, client, workloads })
    }

    /// The load by what every run is told.
    pub(super) fn load(&self) -> Load {
        Load {
            rounds: 0,
            together: false,
            stream: self.ends.stream,
            logprobs: self.ends.logprobs,
            cache_salt: true,
            warmup: self.ends.warmup,
            max_tokens: self.ends.max_tokens,
        }
    }

    /// Measures all cells, calling `before` ahead of each, and prints the table.
    ///
    /// Fails where no ratio could be told although both URLs were given.
    pub(super) fn measure<'p>(
        &self,
        load: Load,
        epochs: Option<Epochs>,
        points: &'p [Point<'p>],
        before: impl AsyncFnMut(&'p Point<'p>) -> anyhow::Result<()>,
    ) -> anyhow::Result<ExitCode> {
        // One thread: the servers need the others.
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
        let report = runtime.block_on(self.report(load, epochs, points, before))?;
        print(&table::render(&report));
        let both = report.direct.is_some() && report.proxied.is_some();
        let void = |cell: &Cell| matches!(cell.summary.comparison, Comparison::Unpaired { .. });
        let failed = both && report.cells.iter().any(void);
        Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    async fn report<'p>(
        &self,
        load: Load,
        epochs: Option<Epochs>,
        points: &'p [Point<'p>],
        mut before: impl AsyncFnMut(&'p Point<'p>) -> anyhow::Result<()>,
    ) -> anyhow::Result<Report> {
        let direct = self.examine(self.ends.direct.as_deref()).await?;
        let proxied = self.examine(self.ends.proxy.as_deref()).await?;
        let mut notes = servers::judge(direct.as_ref(), proxied.as_ref())?;
        notes.extend(ignored(&self.workloads));
        let mut report = Report {
            sidedraft: env!("CARGO_PKG_VERSION").to_owned(),
            started: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            finished: false,
            direct,
            proxied,
            load,
            epochs,
            notes,
            cells: Vec::new(),
        };
        // Before the first round, so that a file that cannot be written costs no hour.
        self.keep(&report)?;
        let rollouts = points.iter().map(|point| point.rollouts(report.load.warmup)).sum();
        let run = Run::new(&self.client, &report, rollouts);
        for (number, point) in points.iter().enumerate() {
            before(point).await?;
            let cell = run.cell(number, point, &report.load).await;
            report.cells.push(cell);
            self.keep(&report)?;
        }
        report.finished = true;
        self.keep(&report)?;
        Ok(report)
    }

    async fn examine(&self, url: Option<&str>) -> anyhow::Result<Option<Server>> {
        let Some(url) = url else { return Ok(None) };
        servers::examine(&self.client, url, self.ends.model.as_deref()).await.map(Some)
    }

    /// Writes the files that were asked for, with what there is so far.
    fn keep(&self, report: &Report) -> anyhow::Result<()> {
        if let Some(path) = &self.ends.json {
            write(path, &serde_json::to_string(report).context("cannot write the report as JSON")?)?;
        }
        if let Some(path) = &self.ends.html {
            write(path, &page::render(report))?;
        }
        Ok(())
    }
}

/// Names the keys of workloads that were not made use of.
fn ignored(workloads: &[Workload]) -> Option<String> {
    let mut keys: Vec<&str> = workloads.iter().flat_map(|workload| &workload.ignored).map(String::as_str).collect();
    keys.sort_unstable();
    keys.dedup();
    (!keys.is_empty()).then(|| format!("Keys of the workload that were not used: {}.", keys.join(", ")))
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
