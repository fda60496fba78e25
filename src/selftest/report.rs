//! The results of the test, as text and as JSON.

use std::fmt;

use serde::Serialize;

use super::contention::DECIDERS;
use super::disconnection::CutResult;
use super::exactness::PlanResult;
use super::instance::INSTANCES;
use super::speed::SpeedResult;
use super::tested_redis::{RedisFacts, TestedRedis};

#[derive(Serialize)]
pub(super) struct SelftestReport {
    /// The exit code says the same.
    pub(super) good: bool,
    callgate: &'static str,
    address: String,
    redis: RedisFacts,
    namespace: String,
    instances: usize,
    deciders_per_instance: usize,
    pub(super) took_seconds: f64,
    exact: Vec<PlanResult>,
    speed: [SpeedResult; 2],
    bytes_per_token: OptionalResult<Vec<LogSize>>,
    cut: OptionalResult<CutResult>,
    pub(super) keys_deleted: u64,
    problems: Vec<String>,
    pub(super) remarks: Vec<String>,
}

/// A result that needs permissions which the user of Redis may lack.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum OptionalResult<T> {
    Done(T),
    Failed(String),
}

impl<T> OptionalResult<T> {
    pub(super) fn of(result: anyhow::Result<T>) -> Self {
        result.map_or_else(|error| Self::Failed(format!("{error:#}")), Self::Done)
    }
}

#[derive(Serialize)]
pub(super) struct LogSize {
    pub(super) admissions: usize,
    pub(super) bytes: u64,
}

impl SelftestReport {
    pub(super) fn new(
        target: &TestedRedis,
        redis: RedisFacts,
        exact: Vec<PlanResult>,
        speed: [SpeedResult; 2],
        bytes_per_token: OptionalResult<Vec<LogSize>>,
        cut: OptionalResult<CutResult>,
    ) -> Self {
        let mut problems: Vec<String> = exact.iter().flat_map(PlanResult::problems).collect();
        problems.extend(speed.iter().filter(|speed| speed.unanswered > 0).map(|speed| {
            format!("with {} decisions at a time, Redis did not answer {} in time", speed.at_a_time, speed.unanswered)
        }));
        if let OptionalResult::Done(cut) = &cut {
            problems.extend(cut.problems());
        }
        let remarks = redis.remarks();
        Self {
            good: problems.is_empty(),
            callgate: env!("CARGO_PKG_VERSION"),
            address: target.address.clone(),
            redis,
            namespace: target.store.namespace.to_string(),
            instances: INSTANCES,
            deciders_per_instance: DECIDERS,
            took_seconds: 0.0,
            exact,
            speed,
            bytes_per_token,
            cut,
            keys_deleted: 0,
            problems,
            remarks,
        }
    }

    /// One line of JSON.
    pub(super) fn as_json(&self) -> String {
        serde_json::to_string(self).expect("a report has text keys") + "\n"
    }
}

impl fmt::Display for SelftestReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unknown = || "unknown".to_owned();
        let RedisFacts { version, mode, maxmemory_policy, clock_ahead_ms } = &self.redis;
        writeln!(f, "Callgate {} self-test of {}", self.callgate, self.address)?;
        writeln!(
            f,
            "  Redis {}, {}, maxmemory-policy {}, clock {} ms {} this machine's",
            version.clone().unwrap_or_else(unknown),
            mode.as_deref().unwrap_or("mode unknown"),
            maxmemory_policy.clone().unwrap_or_else(unknown),
            clock_ahead_ms.abs(),
            if *clock_ahead_ms < 0 { "behind" } else { "ahead of" },
        )?;
        writeln!(
            f,
            "  {} instances with {} deciders each, {} s, {} keys under {} made and deleted",
            self.instances, self.deciders_per_instance, self.took_seconds, self.keys_deleted, self.namespace
        )?;
        self.write_exact(f)?;
        self.write_speed(f)?;
        self.write_bytes(f)?;
        self.write_cut(f)?;
        writeln!(f, "\nResult: {}", if self.good { "good" } else { "NOT GOOD" })?;
        self.problems.iter().try_for_each(|problem| writeln!(f, "  problem: {problem}"))?;
        self.remarks.iter().try_for_each(|remark| writeln!(f, "  remark: {remark}"))
    }
}

impl SelftestReport {
    fn write_exact(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nExactness           tokens  decisions  admitted  of exactly  most over  wrongly refused")?;
        for result in &self.exact {
            let PlanResult { plan, tokens, decisions, admitted, expected, over, wrongly_refused, .. } = result;
            writeln!(
                f,
                "  {plan:16}  {tokens:6}  {decisions:9}  {admitted:8}  {expected:10}  {over:9}  {wrongly_refused:15}"
            )?;
        }
        Ok(())
    }

    fn write_speed(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nSpeed               decisions/s   p50 ms   p90 ms   p99 ms   max ms  over 50 ms")?;
        for SpeedResult { at_a_time, per_second, latency_us, over_50_ms, .. } in &self.speed {
            let name = if *at_a_time == 1 { "one at a time".to_owned() } else { format!("{at_a_time} at a time") };
            write!(f, "  {name:16}  {per_second:11}")?;
            for latency_us in [latency_us.p50, latency_us.p90, latency_us.p99, latency_us.max] {
                write!(f, "  {:7.2}", f64::from(latency_us) / 1e3)?;
            }
            writeln!(f, "  {over_50_ms:10}")?;
        }
        Ok(())
    }

    fn write_bytes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.bytes_per_token {
            OptionalResult::Done(logs) => {
                writeln!(f, "\nBytes per token")?;
                logs.iter().try_for_each(|LogSize { admissions, bytes }| {
                    let plural = if *admissions == 1 { "" } else { "s" };
                    writeln!(f, "  {bytes:5} after {admissions} admission{plural}")
                })
            }
            OptionalResult::Failed(why) => writeln!(f, "\nBytes per token: not measured: {why}"),
        }
    }

    fn write_cut(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cut {
            OptionalResult::Done(CutResult {
                instances,
                cut,
                back,
                decisions,
                local,
                failed,
                back_after_ms,
                slowest_ms,
            }) => {
                writeln!(f, "\nConnections cut under load (CLIENT KILL)")?;
                writeln!(
                    f,
                    "  {cut} connections of {instances} instances cut; Redis decides again for {back} of them, for the last after {back_after_ms:.1} ms"
                )?;
                writeln!(
                    f,
                    "  {decisions} decisions since: {local} by the instances alone, {failed} by nobody; the slowest took {slowest_ms:.1} ms"
                )
            }
            OptionalResult::Failed(why) => writeln!(f, "\nConnections cut under load: not tested: {why}"),
        }
    }
}
