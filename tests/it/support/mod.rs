//! The test harness: the real program, real upstreams and real Redis servers, each on a free port.

pub mod calls;
pub mod client;
pub mod frames;
pub mod gateway;
pub mod proxy;
pub mod recorder;
pub mod redis;
pub mod topology;
pub mod upstream;

use std::time::{Duration, Instant};

/// How long a condition may take to come true; generous, because machines are slow at times.
pub const WAIT_TIMEOUT: Duration = Duration::from_secs(30);

/// Waits for a condition, looking often.
pub async fn eventually<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + WAIT_TIMEOUT;
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The same, without an event loop.
pub fn eventually_blocking<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + WAIT_TIMEOUT;
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
