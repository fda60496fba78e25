//! Reading the configuration again: all of it or nothing, and without touching a connection, a request or a call.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;

use crate::admin::{Admin, LastReload, ReloadFailure, ReloadReport, ReloadResult};
use crate::config::{self, Problem, Severity};
use crate::forward::{HealthChecks, Upstreams};
use crate::gateway::Snapshot;
use crate::listener::ValidityWatch;
use crate::telemetry::LogControl;

use super::admin_stores::AdminStores;
use super::state::{ProcessState, TokenSource};
use super::systemd;
use super::watched_files::WatchedFiles;
use super::worker::WorkerHandle;

/// How often the files are looked at.
const POLL: Duration = Duration::from_millis(500);

/// Reads the configuration again when it is asked to, or when a file has changed.
pub(super) struct Reloader {
    pub(super) state: Arc<ProcessState>,
    pub(super) workers: Vec<WorkerHandle>,
    pub(super) admin: Arc<Admin>,
    pub(super) stores: AdminStores,
    pub(super) log: LogControl,
    pub(super) validity: Arc<ValidityWatch>,
    pub(super) last: LastReload,
    pub(super) tasks: UpstreamTasks,
    pub(super) files: WatchedFiles,
}

/// What the background does for the upstreams of one configuration. Dropped, it ends.
pub(super) struct UpstreamTasks {
    checks: HealthChecks,
    _watch: AbortOnDropHandle<()>,
}

impl UpstreamTasks {
    pub(super) fn start(state: &ProcessState, upstreams: &Arc<Upstreams>, before: Option<&Self>) -> Self {
        let watched = upstreams.clone();
        let watch: JoinHandle<()> = tokio::spawn(async move { watched.watch().await });
        let checks = HealthChecks::start(
            upstreams,
            &state.shutdown,
            before.map_or(&HealthChecks::default(), |before| &before.checks),
        );
        Self { checks, _watch: AbortOnDropHandle::new(watch) }
    }
}

impl Reloader {
    /// Reloads at each hang-up, each request, and when the files have changed; until the drain begins.
    pub(super) async fn run(
        mut self,
        mut hangups: Signal,
        mut requests: mpsc::Receiver<oneshot::Sender<ReloadResult>>,
    ) {
        let shutdown = self.state.shutdown.clone();
        let mut tick = tokio::time::interval(POLL);
        loop {
            let answer = tokio::select! {
                Some(()) = hangups.recv() => None,
                Some(answer) = requests.recv() => Some(answer),
                _ = tick.tick() => {
                    let files = self.files.clone();
                    // A file system may hang.
                    let Ok(now) = tokio::task::spawn_blocking(move || files.look()).await else { continue };
                    if !self.files.have_settled(now) {
                        continue;
                    }
                    None
                }
                () = shutdown.draining() => {
                    requests.close();
                    while requests.try_recv().is_ok() {}
                    // Until then upstreams are watched.
                    return shutdown.ended().await;
                }
            };
            systemd::reloading();
            let result = self.reload().await;
            systemd::ready();
            if let Some(answer) = answer {
                // The caller may have gone.
                let _ = answer.send(result);
            }
        }
    }

    async fn reload(&mut self) -> ReloadResult {
        // At SIGHUP after a rotation, even if the configuration is bad.
        self.log.reopen();
        let result = self.exchange().await;
        let now = SystemTime::now();
        let metrics = &self.state.metrics;
        metrics.reload_successful.set(result.is_ok().into());
        match &result {
            Ok(report) => {
                metrics.reload_success_time.set(unix_seconds(now));
                report.warnings.iter().for_each(|warning| tracing::warn!("{}", warning.line()));
                let changes = match &report.changes[..] {
                    [] => "nothing has changed".to_owned(),
                    changes => changes.join(", "),
                };
                tracing::info!("the configuration was read again: {changes}");
            }
            Err(failure) => {
                for problem in &failure.problems {
                    match problem.severity {
                        Severity::Error => tracing::error!("{}", problem.line()),
                        Severity::Warning => tracing::warn!("{}", problem.line()),
                    }
                }
                tracing::error!("the configuration was refused; the one before stays in force");
            }
        }
        self.last.store(Some(Arc::new((now, result.clone()))));
        result
    }

    /// Builds another snapshot and puts it into force everywhere; on any error nothing is changed.
    async fn exchange(&mut self) -> ReloadResult {
        let state = self.state.clone();
        let before = state.snapshot.load_full();
        let file = before.config.source.clone();
        self.files = self.files.look_again();
        // Files take a while to read. Tasks that begin in there belong to this runtime.
        let built = {
            let (state, before, files) = (state.clone(), before.clone(), self.files.clone());
            tokio::task::spawn_blocking(move || build(&state, &before, files)).await
        };
        let failed = |message: String| ReloadFailure { problems: vec![whole_file(&file, message)] };
        let (files, built) = built.map_err(|panic| failed(format!("reading it failed unexpectedly: {panic}")))?;
        self.files = files;
        let (snapshot, report) = built?;
        self.log.follow(&snapshot.config.log).map_err(|error| failed(error.to_string()))?;
        let snapshot = Arc::new(snapshot);
        state.plans.store(snapshot.plans.clone());
        state.snapshot.store(snapshot.clone());
        join_all(self.workers.iter().map(|worker| worker.exchange(&snapshot))).await;
        self.follow(&before, &snapshot).await;
        Ok(report)
    }

    /// Lets all that outlives a configuration follow the new one.
    async fn follow(&mut self, before: &Snapshot, now: &Arc<Snapshot>) {
        let (state, config) = (&self.state, &now.config);
        state.limiter.resize(config.limits.max_tokens);
        state.open_calls.follow_routes(&config.routes);
        match &state.tokens {
            TokenSource::File { records, .. } if !Arc::ptr_eq(&before.plans, &now.plans) => {
                let (records, plans) = (records.clone(), now.plans.clone());
                // Until it has them, each request finds its plan itself.
                let _ = tokio::task::spawn_blocking(move || records.follow_plans(plans)).await;
            }
            TokenSource::File { .. } => {}
            TokenSource::Redis { cache, .. } => cache.resize(config.tokens.cache_size),
        }
        self.tasks = UpstreamTasks::start(state, &now.upstreams, Some(&self.tasks));
        self.admin.exchange(self.stores.backend(state, now));
        self.validity.report(&now.certificates(), SystemTime::now());
    }
}

type Built = Result<(Snapshot, ReloadReport), ReloadFailure>;

/// Reads the configuration and what it names, and makes of it what is to be put into force.
fn build(state: &ProcessState, before: &Snapshot, mut files: WatchedFiles) -> (WatchedFiles, Built) {
    let path = &before.config.source;
    let (mut loaded, named) = config::load_with_files(path);
    if !files.are_all(&named) {
        // They are looked at first, and then read.
        files = WatchedFiles::new(named);
        loaded = config::load(path);
    }
    let built = (|| {
        let loaded = loaded.map_err(|problems| problems.iter().cloned().collect::<Vec<_>>())?;
        let refused = config::restart_needed(&before.config, &loaded.config);
        if !refused.is_empty() {
            return Err(refused);
        }
        let changes = config::changes(&before.config, &loaded.config);
        let snapshot = Snapshot::new(loaded.config, &state.metrics, &state.tickets, Some(before))
            .map_err(|error| vec![whole_file(path, error.to_string())])?;
        let changes = changes.into_iter().chain(snapshot.changed_files(before)).collect();
        Ok((snapshot, ReloadReport { changes, warnings: loaded.warnings }))
    })();
    (files, built.map_err(|problems| ReloadFailure { problems }))
}

fn whole_file(path: &Path, message: String) -> Problem {
    let file = path.into();
    Problem { file, line: 0, column: 0, path: String::new(), message, severity: Severity::Error }
}

pub(super) fn unix_seconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).ok().and_then(|since| i64::try_from(since.as_secs()).ok()).unwrap_or(0)
}
