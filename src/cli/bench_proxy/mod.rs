//! `sidedraft bench proxy`: what forwarding costs, beside no proxy at all and beside nginx.

mod cores;
mod lanes;
mod load;
mod nginx;
mod process;
mod reply;
mod report;
mod rounds;
mod settings;
mod sidecar;
mod stats;
mod traffic;
mod upstream;

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use serde_json::json;

use crate::cli::{print, say};
use cores::{Cores, confine};
use lanes::Lanes;
use rounds::{Measured, Way, measure};
pub(super) use settings::Settings;
use sidecar::Sidecar;
use traffic::Kind;

/// Measures, prints the table and writes what else was asked for.
pub(super) fn run(settings: &Settings) -> anyhow::Result<ExitCode> {
    let cores = Cores::divide(settings.cores.map(std::num::NonZero::get))?;
    let program = match &settings.sidecar {
        Some(path) => path.clone(),
        None => std::env::current_exe().context("cannot tell where this program lies")?,
    };
    // Before anything is measured: a page without a place for the table is not to cost minutes.
    let page = settings.write.as_ref().map(|path| {
        let page = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        ensure!(report::insert(&page, "").is_some(), "{} has no place for the table", path.display());
        Ok(page)
    });
    let page = page.transpose()?;

    // Threads and processes run where the thread does that starts them.
    confine(&cores.load)?;
    let lanes = Lanes::start(cores.load.len())?;
    confine(&cores.proxy)?;
    let nginx = nginx::start(&settings.nginx, lanes.upstream, cores.proxy.len())?;
    let sidecar = Sidecar::start(&program, lanes.upstream)?;
    confine(&cores.load)?;

    let mut ways = vec![Way { name: "direct", address: lanes.upstream, process: None }];
    if let Some(nginx) = &nginx {
        ways.push(Way { name: "nginx", address: nginx.address, process: Some(&nginx.process) });
    }
    ways.push(Way { name: "sidecar", address: sidecar.address, process: Some(&sidecar.process) });
    let rounds = settings.rounds.get();
    let measured = measure(&lanes, &ways, settings, |round| say(&format!("round {round} of {rounds}")))?;

    let names: Vec<&str> = ways.iter().map(|way| way.name).collect();
    let forwarded = forwarded(&sidecar)?;
    check(&measured, &forwarded)?;
    let version = nginx.as_ref().map(|nginx| nginx.version.as_str());
    let text = describe(&cores, version, rounds) + "\n" + &report::table(&measured.lines, &names);
    print(&text);
    if let Some(path) = &settings.json {
        let all = json!({
            "cores": {"proxy": cores.proxy, "load": cores.load}, "nginx": version, "ways": names,
            "kinds": Kind::ALL.map(Kind::name), "lines": measured.lines, "requests": measured.requests,
            "forwarded": forwarded,
        });
        std::fs::write(path, format!("{all:#}\n")).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if let (Some(path), Some(page)) = (&settings.write, page) {
        let page = report::insert(&page, &text).unwrap_or(page);
        std::fs::write(path, page).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What the sidecar counted, by kind.
fn forwarded(sidecar: &Sidecar) -> anyhow::Result<[u64; 3]> {
    let mut counts = [0; 3];
    for kind in Kind::ALL {
        counts[kind as usize] = sidecar.forwarded(kind)?;
    }
    Ok(counts)
}

/// The last way is the sidecar's: it must have forwarded all that it was sent, and nothing else.
fn check(measured: &Measured, forwarded: &[u64; 3]) -> anyhow::Result<()> {
    for way in &measured.requests {
        ensure!(way.iter().all(|[sent, answered]| sent == answered), "requests were lost: {way:?}");
    }
    let sent = measured.requests.last().map(|kinds| kinds.map(|[sent, _]| sent));
    ensure!(sent.as_ref() == Some(forwarded), "{sent:?} requests were sent, and the sidecar forwarded {forwarded:?}");
    Ok(())
}

fn describe(cores: &Cores, nginx: Option<&str>, rounds: usize) -> String {
    let (proxy, load) = (cores.proxy.len(), cores.load.len());
    let total = proxy + load;
    let mut text = format!("{total} cores: {proxy} for each proxy in turn, {load} for upstream and clients. ");
    // Writing into a string does not fail.
    _ = match nginx {
        Some(version) => write!(text, "{version}, {proxy} workers. "),
        None => write!(text, "No nginx was found, so there is nothing to compare with. "),
    };
    _ = writeln!(text, "Medians of {rounds} rounds (least–most).");
    text
}
