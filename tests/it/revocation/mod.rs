//! Open calls and streams end when their token no longer entitles to them, and everybody at them is told.

mod calls;
mod outage;
mod redis;
mod stage;

use stage::{Caller, Stage};

use crate::support::gateway::Site;

/// What both sides are told of a token that is no good any more.
const NO_LONGER: (u16, &str) = (1008, "the token no longer allows this call");

fn run(site: &Site, arguments: &[&str]) {
    let output = site.run(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
