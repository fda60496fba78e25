//! Open calls and streams end when their token no longer allows them, and both sides get the reason.

mod calls;
mod closing;
mod outage;
mod redis;
mod stage;

use stage::{Caller, Stage};

use crate::support::gateway::Site;

/// The Close frame for both sides when the token is no longer valid.
const NO_LONGER: (u16, &str) = (1008, "the token no longer allows this call");

fn run(site: &Site, arguments: &[&str]) {
    let output = site.run(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
