//! What systemd is told of a service (`Type=notify-reload`): that it serves, reloads, stops and lives; sd_notify(3).

use std::io;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Says that requests are served.
pub(super) fn ready() {
    notify("READY=1");
}

/// Says that a reload has begun; [`ready`] says that it is over.
pub(super) fn reloading() {
    let now = clock_gettime(ClockId::Monotonic);
    notify(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.tv_sec * 1_000_000 + now.tv_nsec / 1_000));
}

/// Says that the drain has begun.
pub(super) fn stopping() {
    notify("STOPPING=1");
}

/// Says twice in each interval of the watchdog that this event loop turns, if there is a watchdog.
pub(super) async fn feed_watchdog() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let is_meant = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    let Some(interval) = number("WATCHDOG_USEC").filter(|usec| is_meant && *usec > 1) else { return };
    let mut tick = tokio::time::interval(Duration::from_micros(interval / 2));
    loop {
        tick.tick().await;
        notify("WATCHDOG=1");
    }
}

/// Without a service manager nobody is told, and one that can't be told is no reason to fail.
fn notify(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let sent = (|| {
        let address = match path.as_encoded_bytes().strip_prefix(b"@") {
            Some(name) => abstract_address(name)?,
            None => SocketAddr::from_pathname(&path)?,
        };
        UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)
    })();
    if let Err(error) = sent {
        tracing::warn!(%error, "can't tell the service manager {state:?}");
    }
}

#[cfg(target_os = "linux")]
fn abstract_address(name: &[u8]) -> io::Result<SocketAddr> {
    <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name)
}

#[cfg(not(target_os = "linux"))]
fn abstract_address(_: &[u8]) -> io::Result<SocketAddr> {
    Err(io::ErrorKind::Unsupported.into())
}
