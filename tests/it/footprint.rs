//! The memory that idle calls take, by the resident memory of a whole instance. benches/ has the numbers of an optimised
//! build; here it is more, and what matters is that nothing of what opened a call is kept for its length.

use crate::support::calls::{call, switchboard};
use crate::support::gateway::Site;

/// Calls that come first, for all that an instance makes room for once.
const FIRST: usize = 50;
const CALLS: usize = 500;
/// KiB of memory for each: 12 or 13. With the buffer that the request was read into it is 19, with a way to send more requests to the
/// upstream 18.
const MOST: u64 = 16;

#[tokio::test]
async fn an_idle_call_frees_the_memory_of_its_handshake() {
    let site = Site::in_memory(switchboard().await, "  - { path: /call, upstream: up }");
    let token = site.token_with(&[], &["--limit", "minute=10000/1m"]);
    let gateway = site.serve();
    let mut calls = Vec::new();
    let mut before = 0;
    for number in 0..FIRST + CALLS {
        if number == FIRST {
            before = gateway.resident();
        }
        calls.push(call(&gateway, &token, "/call").await.unwrap());
    }
    let each = gateway.resident().saturating_sub(before) / CALLS as u64 / 1024;
    assert!(each <= MOST, "{each} KiB");
}
