//! The results of the test, as text and as JSON.

use serde::Serialize;

use super::contention::DECIDERS;
use super::disconnection::CutResult;
use super::exactness::PlanResult;
use super::instance::INSTANCES;
use super::speed::{LatencyQuantiles, SpeedResult};
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

impl SelftestReport {
    /// For people.
    pub(super) fn as_text(&self) -> String {
        let Self { callgate, address, instances, deciders_per_instance, took_seconds, .. } = self;
        let RedisFacts { version, mode, maxmemory_policy, clock_ahead_ms } = &self.redis;
        let [version, policy] = [version, maxmemory_policy].map(|fact| fact.as_deref().unwrap_or("unknown"));
        let mode = mode.as_deref().unwrap_or("mode unknown");
        let (apart_ms, side) = (clock_ahead_ms.abs(), if *clock_ahead_ms < 0 { "behind" } else { "ahead of" });
        let head = format!(
            "Callgate {callgate} self-test of {address}\n  \
             Redis {version}, {mode}, maxmemory-policy {policy}, clock {apart_ms} ms {side} this machine's\n  \
             {instances} instances with {deciders_per_instance} deciders each, {took_seconds} s, {} keys under {} made and \
             deleted\n",
            self.keys_deleted, self.namespace
        );
        let result = format!("\nResult: {}\n", if self.good { "good" } else { "NOT GOOD" });
        let problems = self.problems.iter().map(|problem| format!("  problem: {problem}\n"));
        let remarks = self.remarks.iter().map(|remark| format!("  remark: {remark}\n"));
        let sections = [head, self.exact_text(), self.speed_text(), self.bytes_text(), self.cut_text(), result];
        sections.into_iter().chain(problems).chain(remarks).collect()
    }

    fn exact_text(&self) -> String {
        let rows = self.exact.iter().map(|result| {
            let PlanResult { plan, tokens, decisions, admitted, expected, over, wrongly_refused, .. } = result;
            format!(
                "  {plan:16}  {tokens:6}  {decisions:9}  {admitted:8}  {expected:10}  {over:9}  {wrongly_refused:15}\n"
            )
        });
        "\nExactness           tokens  decisions  admitted  of exactly  most over  wrongly refused\n".to_owned()
            + &rows.collect::<String>()
    }

    fn speed_text(&self) -> String {
        let rows = self.speed.iter().map(|SpeedResult { at_a_time, per_second, latency_us, over_50_ms, .. }| {
            let name = if *at_a_time == 1 { "one at a time".to_owned() } else { format!("{at_a_time} at a time") };
            let LatencyQuantiles { p50, p90, p99, max } = latency_us;
            let [p50, p90, p99, max] = [p50, p90, p99, max].map(|latency_us| f64::from(*latency_us) / 1e3);
            format!("  {name:16}  {per_second:11}  {p50:7.2}  {p90:7.2}  {p99:7.2}  {max:7.2}  {over_50_ms:10}\n")
        });
        "\nSpeed               decisions/s   p50 ms   p90 ms   p99 ms   max ms  over 50 ms\n".to_owned()
            + &rows.collect::<String>()
    }

    fn bytes_text(&self) -> String {
        let logs = match &self.bytes_per_token {
            OptionalResult::Done(logs) => logs,
            OptionalResult::Failed(why) => return format!("\nBytes per token: not measured: {why}\n"),
        };
        let rows = logs.iter().map(|LogSize { admissions, bytes }| {
            let plural = if *admissions == 1 { "" } else { "s" };
            format!("  {bytes:5} after {admissions} admission{plural}\n")
        });
        "\nBytes per token\n".to_owned() + &rows.collect::<String>()
    }

    fn cut_text(&self) -> String {
        let result = match &self.cut {
            OptionalResult::Done(result) => result,
            OptionalResult::Failed(why) => return format!("\nConnections cut under load: not tested: {why}\n"),
        };
        let CutResult { instances, cut, back, decisions, local, failed, back_after_ms, slowest_ms } = result;
        format!(
            "\nConnections cut under load (CLIENT KILL)\n  \
             {cut} connections of {instances} instances cut; Redis decides again for {back} of them, for the last after \
             {back_after_ms:.1} ms\n  \
             {decisions} decisions since: {local} by the instances alone, {failed} by nobody; the slowest took \
             {slowest_ms:.1} ms\n"
        )
    }
}
