//! `callgate selftest`: whether limits are exact on the operator's own Redis, how fast it is, and what a cut does.
//!
//! Several instances, each with connections and memory of its own, decide on throw-away tokens under a random namespace,
//! which is deleted in the end.

mod contest;
mod cut;
mod instance;
mod judge;
mod report;
mod speed;
mod target;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;
use futures_util::future;

use crate::server::ExitSignals;
use contest::{DECIDERS, Group, contend};
use instance::{INSTANCES, Instance};
use report::{Attempt, Bytes, Report};
use target::{Configured, Plans, Target};

/// Tokens that are contended for, per plan.
const CONTENDED: usize = 8;
/// Tokens over which the speed is measured.
const BUSY: usize = 256;
/// Admissions after which a token's log is measured.
const LOGS: [usize; 4] = [1, 5, 60, 1_000];
/// Roughly what the test takes besides measuring the speed, in seconds.
const OTHER_SECONDS: u64 = 5;

#[derive(Debug, Args)]
pub(crate) struct SelftestArgs {
    /// The Redis: redis://…, rediss://… or file:PATH of a file with such a URL; its password is never printed
    #[arg(
        long,
        value_name = "URL",
        env = "CALLGATE_REDIS_URL",
        hide_env_values = true,
        required_unless_present = "config"
    )]
    redis: Option<String>,
    /// Test the Redis of this configuration: one server, a cluster or one behind Sentinel, with its login. All keys begin with its
    /// namespace, so that its user may write them
    #[arg(long, value_name = "FILE", conflicts_with = "redis")]
    config: Option<PathBuf>,
    /// How long to measure the speed
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Tests a Redis and prints what came of it. The exit code is 1 if anything was inexact or Redis can't be used, 2 if the
/// URL is none.
pub(crate) async fn run(args: SelftestArgs) -> ExitCode {
    let configured = match (&args.config, &args.redis) {
        (Some(file), _) => Configured::by_file(file),
        (None, Some(url)) => Configured::by_url(url).map_err(|why| Misuse(format!("--redis: {why}")).into()),
        (None, None) => Err(Misuse("--redis URL or --config FILE is needed".to_owned()).into()),
    };
    let mut good = false;
    let done = async {
        match test(&args, configured?).await {
            Ok(report) => {
                good = report.is_good();
                let text = if args.json { report.as_json() } else { report.to_string() };
                Ok(io::stdout().lock().write_all(text.as_bytes())?)
            }
            Err(error) => {
                if args.json {
                    println!("{}", serde_json::json!({ "good": false, "problems": [format!("{error:#}")] }));
                }
                Err(error)
            }
        }
    };
    match done.await {
        Ok(()) if good => ExitCode::SUCCESS,
        Ok(()) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("callgate: {error:#}");
            if error.is::<Misuse>() { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

/// What is wrong with the arguments.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Misuse(String);

async fn test(args: &SelftestArgs, Configured { address, store, plans }: Configured) -> anyhow::Result<Report> {
    let began = Instant::now();
    let stop = Arc::new(AtomicBool::new(false));
    let (signals, told) = (ExitSignals::listen()?, stop.clone());
    tokio::spawn(async move {
        signals.wait().await;
        told.store(true, Ordering::Relaxed);
    });
    let target = Target::open(address, store).await?;
    if io::stderr().is_terminal() {
        eprintln!("Testing {} for about {} seconds …", target.address, args.seconds + OTHER_SECONDS);
    }
    let groups = Groups::new(plans);
    let time = Duration::from_secs(args.seconds);
    let tested = groups.test(&target, time, &stop).await;
    let deleted = target.delete(&groups.tokens()).await;
    if stop.load(Ordering::Relaxed) {
        let keys = deleted?;
        bail!("interrupted before the end; the {keys} keys of the test are deleted");
    }
    let mut report = tested?;
    match deleted {
        Ok(keys) => report.keys_deleted = keys,
        Err(error) => report.remarks.push(format!(
            "the test's keys could not be deleted ({error:#}); they expire by themselves within 75 minutes"
        )),
    }
    report.took_seconds = (began.elapsed().as_secs_f64() * 10.0).round() / 10.0;
    Ok(report)
}

/// The tokens of each part of the test.
struct Groups {
    contended: [Group; 2],
    busy: Group,
    logs: Group,
}

impl Groups {
    fn new(plans: Plans) -> Self {
        let group =
            |name: &str, plan, count| Group { plan, tokens: (0..count).map(|i| format!("{name}{i}")).collect() };
        let contended = [group("usual", plans.usual, CONTENDED), group("sliding", plans.sliding, CONTENDED)];
        let logs = group("l", plans.wide.clone(), LOGS.len());
        Self { contended, busy: group("busy", plans.wide, BUSY), logs }
    }

    fn tokens(&self) -> Vec<String> {
        let groups = self.contended.iter().chain([&self.busy, &self.logs]);
        groups.flat_map(|group| group.tokens.iter().cloned()).collect()
    }

    async fn test(&self, target: &Target, time: Duration, stop: &Arc<AtomicBool>) -> anyhow::Result<Report> {
        let facts = target.facts().await?;
        target.issue(&self.tokens()).await?;
        let exact = contend(target.store.clone(), &self.contended, stop.clone()).await?;
        let measure = |crowd, time| speed::measure(target.store.clone(), self.busy.clone(), crowd, time, stop.clone());
        let speed = [measure((1, 1), time / 4).await?, measure((INSTANCES, DECIDERS), time * 3 / 4).await?];
        let bytes = self.weigh(target).await;
        let cut = cut::survive(target, self.busy.clone(), stop.clone()).await;
        Ok(Report::new(target, facts, exact, speed, Attempt::of(bytes), Attempt::of(cut)))
    }

    /// Bytes of a token's log after so many admissions.
    async fn weigh(&self, target: &Target) -> anyhow::Result<Vec<Bytes>> {
        let instance = Instance::open(&target.store).await?;
        let mut logs = Vec::new();
        for (token, admissions) in self.logs.tokens.iter().zip(LOGS) {
            future::join_all((0..admissions).map(|_| instance.decide(token, &self.logs.plan))).await;
            logs.push(Bytes { admissions, bytes: target.bytes(token).await? });
        }
        Ok(logs)
    }
}
