//! `callgate selftest`: whether limits are exact on a Redis, how fast it is, and how cut connections are survived.
//!
//! Several instances, each with its own connections and memory, decide on temporary tokens in a random namespace, which is
//! deleted in the end.

mod contention;
mod disconnection;
mod exactness;
mod instance;
mod report;
mod setup;
mod speed;
mod tested_redis;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;
use futures_util::future;

use crate::color::label;
use crate::config::PlansByName;
use crate::progress::Progress;
use crate::server::ExitSignals;
use contention::{DECIDERS, TokenGroup, contend};
use instance::{INSTANCES, TestInstance};
use report::{LogSize, OptionalResult, SelftestReport};
use setup::TestSetup;
use tested_redis::TestedRedis;

/// Tokens per plan for which all instances contend.
const CONTENDED: usize = 8;
/// Tokens for measuring the speed.
const BUSY: usize = 256;
/// Admissions after which the size of a token's log is measured.
const LOG_ADMISSIONS: [usize; 4] = [1, 5, 60, 1_000];
/// The approximate duration of everything but the measurement of speed.
const OTHER_SECONDS: u64 = 5;

#[derive(Debug, Args)]
pub(crate) struct SelftestArgs {
    /// The Redis to test: redis://…, rediss://…, or file:PATH of a file with such a URL. Passwords are never printed
    #[arg(
        long,
        value_name = "URL",
        env = "CALLGATE_REDIS_URL",
        hide_env_values = true,
        required_unless_present = "config"
    )]
    redis: Option<String>,
    /// Test the Redis of this configuration: a server, a cluster or a Sentinel service. All keys begin with its namespace, so that
    /// its user may write them
    #[arg(short, long, value_name = "FILE", conflicts_with = "redis")]
    config: Option<PathBuf>,
    /// Seconds for measuring the speed
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Tests a Redis and prints the results. The exit code is 1 if a result is bad or Redis can't be used, and 2 if the
/// arguments are wrong.
pub(crate) async fn run(args: SelftestArgs) -> ExitCode {
    let setup = match (&args.config, &args.redis) {
        (Some(file), _) => TestSetup::by_file(file),
        // clap demands one of them.
        (None, url) => TestSetup::by_url(url.as_deref().unwrap_or_default())
            .map_err(|error| UsageError(format!("--redis: {error}")).into()),
    };
    let tested = async {
        let report = test(&args, setup?).await?;
        let text = if args.json { report.as_json() } else { report.as_text() };
        io::stdout().lock().write_all(text.as_bytes())?;
        anyhow::Ok(report.good)
    };
    match tested.await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            if args.json {
                println!("{}", serde_json::json!({ "good": false, "problems": [format!("{error:#}")] }));
            }
            eprintln!("{} {error:#}", label("error"));
            if error.is::<UsageError>() { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct UsageError(String);

async fn test(args: &SelftestArgs, TestSetup { address, store, plans }: TestSetup) -> anyhow::Result<SelftestReport> {
    let began = Instant::now();
    let stop = Arc::new(AtomicBool::new(false));
    let (mut signals, stopped) = (ExitSignals::listen()?, stop.clone());
    tokio::spawn(async move {
        signals.next().await;
        stopped.store(true, Ordering::Relaxed);
        signals.exit_at_next().await;
    });
    let target = TestedRedis::open(address, store).await?;
    let progress = Progress::on_terminal();
    progress.step(&format!("Testing {} for about {} seconds", target.address, args.seconds + OTHER_SECONDS));
    let groups = TestTokens::new(&plans);
    let time = Duration::from_secs(args.seconds);
    let tested = groups.test(&target, time, &stop, &progress).await;
    progress.step("Deleting the keys of the test");
    let deleted = target.delete(&groups.tokens()).await;
    drop(progress);
    if stop.load(Ordering::Relaxed) {
        let keys = deleted?;
        bail!("interrupted before the end; the {keys} keys of the test were deleted");
    }
    let mut report = tested?;
    match deleted {
        Ok(keys) => report.keys_deleted = keys,
        Err(error) => report
            .remarks
            .push(format!("the keys of the test could not be deleted ({error:#}); they expire within 75 minutes")),
    }
    report.took_seconds = (began.elapsed().as_secs_f64() * 10.0).round() / 10.0;
    Ok(report)
}

struct TestTokens {
    contended: [TokenGroup; 2],
    busy: TokenGroup,
    logs: TokenGroup,
}

impl TestTokens {
    fn new(plans: &PlansByName) -> Self {
        let group = |name: &str, plan: &str, count| {
            let tokens = (0..count).map(|i| format!("{name}{i}")).collect();
            TokenGroup { plan: plans[plan].clone(), tokens }
        };
        Self {
            contended: [group("usual", "usual", CONTENDED), group("sliding", "sliding", CONTENDED)],
            busy: group("busy", "wide", BUSY),
            logs: group("l", "wide", LOG_ADMISSIONS.len()),
        }
    }

    fn tokens(&self) -> Vec<String> {
        let groups = self.contended.iter().chain([&self.busy, &self.logs]);
        groups.flat_map(|group| group.tokens.iter().cloned()).collect()
    }

    async fn test(
        &self,
        target: &TestedRedis,
        time: Duration,
        stop: &Arc<AtomicBool>,
        progress: &Progress,
    ) -> anyhow::Result<SelftestReport> {
        let facts = target.facts().await?;
        target.create(&self.tokens()).await?;
        progress.step("1 of 4: whether limits are exact");
        let exact = contend(&target.store, &self.contended, stop.clone()).await?;
        progress.step("2 of 4: how fast decisions are");
        let measure = |crowd, time| speed::measure(&target.store, self.busy.clone(), crowd, time, stop.clone());
        let speed = [measure((1, 1), time / 4).await?, measure((INSTANCES, DECIDERS), time * 3 / 4).await?];
        progress.step("3 of 4: how much memory logs take");
        let bytes = self.measure_logs(target).await;
        progress.step("4 of 4: what happens when connections break");
        let cut = disconnection::cut_connections(target, self.busy.clone(), stop.clone()).await;
        Ok(SelftestReport::new(target, facts, exact, speed, OptionalResult::of(bytes), OptionalResult::of(cut)))
    }

    async fn measure_logs(&self, target: &TestedRedis) -> anyhow::Result<Vec<LogSize>> {
        let instance = TestInstance::open(&target.store, 0).await?;
        let mut logs = Vec::new();
        for (token, admissions) in self.logs.tokens.iter().zip(LOG_ADMISSIONS) {
            future::join_all((0..admissions).map(|_| instance.decide(token, &self.logs.plan))).await;
            logs.push(LogSize { admissions, bytes: target.log_bytes(token).await? });
        }
        Ok(logs)
    }
}
