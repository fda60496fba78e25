//! Calls in a run: opened at random, held for a while, and judged: a token never has more open than it may.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::fleet::{By, Entry, Fleet};
use super::judge::Span;
use super::law::Facts;
use crate::support::calls::try_call;

/// A lease that nobody could give back ends by itself, as seen by the last who renewed it.
const LEASE: Duration = Duration::from_secs(40);
/// One that is given back is free this soon, on a busy machine.
const GIVEN_BACK: Duration = Duration::from_secs(3);

/// A call that was opened.
#[derive(Debug, Clone, Copy)]
pub struct Held {
    /// The span of its request, by which the request is found.
    opened: Span,
    token: usize,
    life: usize,
    /// When its end began; until then it was open for certain, if its instance lived.
    until: Duration,
}

/// All calls of a run.
#[derive(Default)]
pub struct Switchboard {
    held: Mutex<Vec<Held>>,
}

impl Switchboard {
    /// Keeps opening calls until the run is over: `next` says where, for whom, and for how long.
    pub fn lane(
        self: &Arc<Self>,
        fleet: &Arc<Fleet>,
        mut next: impl FnMut() -> (usize, usize, Duration) + Send + 'static,
    ) -> tokio::task::JoinHandle<()> {
        let (switchboard, fleet) = (self.clone(), fleet.clone());
        tokio::spawn(async move {
            while !fleet.is_over() {
                let (place, token, lasts) = next();
                switchboard.call(&fleet, place, token, lasts).await;
            }
        })
    }

    async fn call(&self, fleet: &Fleet, place: usize, token: usize, lasts: Duration) {
        let Some(life) = fleet.at(place) else { return tokio::time::sleep(lasts).await };
        let mut entry = Entry { is_call: true, ..fleet.entry(token, life.number) };
        let id = format!("x-request-id: {}\r\n", entry.id);
        let answer = try_call(&life.gateway, &fleet.tokens[token], "/call", &id).await;
        entry.span.to = fleet.now();
        let stream = match answer {
            Ok(Ok(stream)) => {
                entry.status = Some(101);
                Some(stream)
            }
            Ok(Err(head)) => {
                entry.status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
                entry.has_limit_headers = head.contains("x-ratelimit-limit");
                None
            }
            Err(_) => None,
        };
        let opened = entry.span;
        fleet.enter(entry);
        tokio::time::sleep(lasts).await;
        let Some(stream) = stream else { return };
        let until = fleet.now();
        drop(stream);
        self.held.lock().unwrap().push(Held { opened, token, life: life.number, until });
    }

    /// All breaches of the caps, in words. `caps`: how many calls each token may have open, if not any number.
    pub fn breaches(&self, fleet: &Fleet, record: &[Entry], caps: &[Option<usize>], facts: &Facts) -> Vec<String> {
        let mut held = self.held.lock().unwrap().clone();
        for life in fleet.lives() {
            if let Some(ended) = *life.ended.lock().unwrap() {
                held.iter_mut()
                    .filter(|call| call.life == life.number)
                    .for_each(|call| call.until = call.until.min(ended));
            }
        }
        let of_token = |(token, cap): (usize, &Option<usize>)| {
            let cap = (*cap)?;
            let entries: Vec<&Entry> = record.iter().filter(|entry| entry.token == token && entry.is_call).collect();
            let held: Vec<Held> = held.iter().copied().filter(|call| call.token == token).collect();
            let too_many = too_many(&entries, &held, cap, facts);
            Some(too_many.into_iter().chain(refused_for_nothing(fleet, &entries, &held, cap, facts)))
        };
        let found = caps.iter().enumerate().filter_map(of_token).flatten();
        found.map(|breach| format!("calls: {breach}")).collect()
    }
}

/// Redis grants no call beyond those that it has granted since it lost anything; a process by itself, none beyond its own.
fn too_many(entries: &[&Entry], held: &[Held], cap: usize, facts: &Facts) -> Vec<String> {
    let granted = |call: &Held| entries.iter().find(|entry| entry.span == call.opened).and_then(|entry| entry.by);
    let is_over = |one: &&Entry| {
        let since = facts.losses.iter().filter(|loss| loss.span.from <= one.span.to).map(|loss| loss.span.to).max();
        let known = |call: &&Held| match one.by {
            Some(By::Redis) => granted(call) == Some(By::Redis) && call.opened.from > since.unwrap_or(Duration::ZERO),
            Some(By::Local) => call.life == one.life,
            Some(By::DenyCache) | None => false,
        };
        let open = |call: &&Held| call.opened.to < one.span.from && call.until > one.span.to;
        held.iter().filter(known).filter(open).count() >= cap
    };
    let admitted = entries.iter().copied().filter(|entry| entry.status == Some(101));
    admitted.filter(is_over).map(|one| format!("{:?} was one more than {cap}", one.span)).collect()
}

/// No call is refused while fewer are open than may be, even if each counts for as long as its lease may live.
fn refused_for_nothing(fleet: &Fleet, entries: &[&Entry], held: &[Held], cap: usize, facts: &Facts) -> Vec<String> {
    let lives = fleet.lives();
    let may_hold_until = |entry: &&Entry| {
        let call = held.iter().find(|call| call.opened == entry.span);
        let until = call.map_or(entry.span.to, |call| call.until);
        let disturbed =
            facts.outages.iter().any(|outage| outage.from <= until + GIVEN_BACK && outage.to >= entry.span.from);
        let orphaned = lives[entry.life].ended.lock().unwrap().is_some();
        until + if disturbed || orphaned { LEASE } else { GIVEN_BACK }
    };
    // Redis may have granted a lease that the instance refused, if the answer was late.
    let may_hold = |entry: &&&Entry| entry.status != Some(429) || !matches!(entry.by, Some(By::Redis | By::DenyCache));
    let leases: Vec<Span> = entries
        .iter()
        .filter(may_hold)
        .map(|entry| Span { from: entry.span.from, to: may_hold_until(entry) })
        .collect();
    let for_nothing = |one: &&&Entry| {
        let others = leases.iter().filter(|lease| lease.from <= one.span.to && lease.to >= one.span.from);
        others.filter(|lease| lease.from != one.span.from).count() < cap
    };
    let refused = entries.iter().filter(|entry| entry.code.as_deref() == Some("too_many_calls"));
    refused.filter(for_nothing).map(|one| format!("{:?} was refused, and {cap} may be open", one.span)).collect()
}
