//! What nobody's request brings about: endpoints come back, and metrics tell how things are. A line for each change.

use std::time::Duration;

use super::{UpstreamState, Upstreams};

/// How often to look.
const PAUSE: Duration = Duration::from_millis(250);

impl Upstreams {
    /// Looks for as long as the process lives.
    pub async fn watch(&self) {
        let mut seen: Vec<Seen> = self.rosters.iter().map(|roster| Seen::new(roster)).collect();
        let mut tick = tokio::time::interval(PAUSE);
        loop {
            tick.tick().await;
            for (roster, seen) in self.rosters.iter().zip(&mut seen) {
                seen.look(roster);
            }
        }
    }
}

/// What was seen of an upstream the last time.
struct Seen {
    ejected: Vec<bool>,
    deserted: bool,
}

impl Seen {
    fn new(roster: &UpstreamState) -> Self {
        Self { ejected: vec![false; roster.endpoints.len()], deserted: false }
    }

    fn look(&mut self, roster: &UpstreamState) {
        let (now, upstream) = (roster.now(), &*roster.name);
        for (index, (standing, was)) in roster.endpoints.iter().zip(&mut self.ejected).enumerate() {
            let is = standing.is_ejected(now);
            if *was && !is {
                tracing::info!(upstream, endpoint = &*standing.label, "the endpoint's time is over: it is tried again");
            }
            *was = is;
            roster.metrics.up[index].set(i64::from(standing.is_available(now)));
        }
        let deserted = !roster.endpoints.iter().any(|standing| standing.is_available(now));
        if deserted && !self.deserted {
            tracing::error!(upstream, "no endpoint is well: requests go to all of them all the same");
        }
        self.deserted = deserted;
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        roster.metrics.in_flight.set(number(roster.in_flight()));
        roster.metrics.waiting.set(number(roster.places.waiting()));
    }
}

impl UpstreamState {
    /// What an endpoint's health checks say now; tells if that is new.
    pub(in crate::forward) fn judged(&self, index: usize, down: bool, why: &str) {
        let (standing, now) = (&self.endpoints[index], self.now());
        if standing.is_down() == down {
            return;
        }
        standing.set_down(down, now);
        self.metrics.up[index].set(i64::from(standing.is_available(now)));
        let (upstream, endpoint) = (&*self.name, &*standing.label);
        if down {
            tracing::warn!(upstream, endpoint, why, "an endpoint fails its health checks: it is left out");
        } else {
            tracing::info!(upstream, endpoint, "an endpoint passes its health checks: it serves again");
        }
    }
}
