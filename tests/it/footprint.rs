//! The memory that idle calls and stored tokens take, by the resident memory of a whole instance. benches/ has the numbers of an
//! optimised build; here it is more, and what matters is that nothing of what opened a call is kept for its length, and of a token only
//! what its requests need.

use std::fmt::Write;

use callgate::tokens::TokenHash;

use crate::support::calls::{call, switchboard};
use crate::support::gateway::{Gateway, Site};
use crate::support::upstream::Upstream;

/// Calls that come first, for all that an instance makes room for once.
const FIRST: usize = 50;
const CALLS: usize = 500;
/// KiB of memory for each: 12 or 13. With the buffer that the request was read into it is 19, with a way to send more requests to the
/// upstream 18.
const MOST: u64 = 16;

/// Tokens of a file.
const TOKENS: usize = 50_000;
/// Bytes of memory for each: some 320. With whole records and the principals of all it is 1,660.
const MOST_OF_TOKEN: u64 = 500;
/// The same while the file is read: with its text and values in memory it is 2,300.
const MOST_OF_TOKEN_READ: u64 = 600;

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

#[tokio::test]
async fn a_token_takes_the_memory_of_what_its_requests_need() {
    let upstream = Upstream::start().await;
    let serve = |tokens: usize| -> Gateway {
        let site = Site::in_memory(upstream.address, "  - { path: /echo, upstream: up }");
        let mut text = "tokens:\n".to_owned();
        for number in 0..tokens {
            let hash = TokenHash::of(&number.to_string()).to_hex();
            let account = number % 1_000;
            writeln!(text, "  - id: \"token{number:07}\"\n    hash: \"{hash}\"\n    name: \"Dialler {number}\"")
                .unwrap();
            writeln!(text, "    account: \"account-{account}\"\n    permissions: [\"calls:read\", \"calls:write\"]")
                .unwrap();
            writeln!(text, "    created_at: 2026-11-24T10:00:00Z\n    expires_at: 2099-11-24T10:00:00Z").unwrap();
        }
        site.write_secret("tokens.yaml", &text);
        site.serve()
    };
    let (none, many) = (serve(1), serve(TOKENS));
    let each = |many: u64, none: u64| many.saturating_sub(none) / TOKENS as u64;
    let (kept, read) = (each(many.resident(), none.resident()), each(many.peak(), none.peak()));
    assert!(kept <= MOST_OF_TOKEN, "{kept} bytes");
    assert!(read <= MOST_OF_TOKEN_READ, "{read} bytes at most");
}
