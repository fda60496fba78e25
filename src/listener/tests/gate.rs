//! The gate by itself, with time that stands still.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::gate::{Gate, Timeouts};
use super::super::signals::Signals;
use super::LIMITS;

#[tokio::test(start_paused = true)]
async fn a_client_refused_as_too_slow_receives_the_reason() {
    let (mut client, server) = tokio::io::duplex(1 << 16);
    let patience = Timeouts { head: Duration::from_secs(10), write: Duration::from_secs(10) };
    let mut gate = Gate::http1(server, LIMITS, patience, Arc::new(Signals::default()));
    client.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let mut given = [0; 16];
    gate.read_exact(&mut given).await.unwrap();
    assert_eq!(&given, b"CALLGATE-REFUSED");
    client.write_all(b"host: too late").await.unwrap();
    // Closed with something unread, the socket would take the answer back.
    assert!(tokio::time::timeout(Duration::from_millis(500), gate.shutdown()).await.is_err());
    drop(client);
    tokio::time::timeout(Duration::from_millis(100), gate.shutdown()).await.unwrap().unwrap();
}
