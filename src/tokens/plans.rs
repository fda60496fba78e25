//! From a record's plan and overrides to the limits that hold for its token.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::limit_text::MAX_OVERRIDES;
use super::record::Record;
use crate::config::{Config, Limit, Plan};

/// The plans of one configuration.
pub struct Plans {
    /// Not that of any other plans of this process.
    id: u64,
    by_name: BTreeMap<Arc<str>, Arc<Plan>>,
    pub(super) default: Arc<Plan>,
    /// What was complained of already.
    complaints: Mutex<BTreeSet<String>>,
}

impl Plans {
    /// The plans of this configuration.
    pub fn new(config: &Config) -> Self {
        Self::of(config.plans.clone(), config.default_plan.clone())
    }

    fn of(by_name: BTreeMap<Arc<str>, Arc<Plan>>, default: Arc<Plan>) -> Self {
        static LAST_ID: AtomicU64 = AtomicU64::new(0);
        let id = LAST_ID.fetch_add(1, Ordering::Relaxed) + 1;
        Self { id, by_name, default, complaints: Mutex::default() }
    }

    /// Tells these plans from all others of this process, by a number that grows.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.by_name.keys().map(|name| &**name)
    }

    /// The plan with that name; `None` is the default plan.
    pub(crate) fn get(&self, name: Option<&str>) -> Option<&Arc<Plan>> {
        name.map_or(Some(&self.default), |name| self.by_name.get(name))
    }

    /// The plan of a record with its overrides. A plan that isn't there any more is replaced by the default one, with a warning.
    pub(crate) fn resolve(&self, record: &Record) -> Arc<Plan> {
        self.resolve_choice(&record.id, &PlanChoice::of(record))
    }

    /// The same for what is kept of the record of a `token`.
    pub(crate) fn resolve_choice(&self, token: &str, choice: &PlanChoice) -> Arc<Plan> {
        let plan = self.named(token, choice);
        if choice.limits.is_empty() && choice.concurrent_calls.is_none() && choice.in_flight.is_none() {
            return plan.clone();
        }
        let concurrent_calls = choice.concurrent_calls.or(plan.concurrent_calls);
        let in_flight = choice.in_flight.or(plan.in_flight);
        Arc::new(Plan { concurrent_calls, in_flight, ..with_overrides(plan, &choice.limits) })
    }

    /// The plan without overrides.
    pub(crate) fn named(&self, token: &str, choice: &PlanChoice) -> &Arc<Plan> {
        self.get(choice.plan.as_deref()).unwrap_or_else(|| {
            let (name, default) = (choice.plan.as_deref().unwrap_or_default(), &self.default.name);
            self.complain_once(&format!("plan {name}"), || {
                tracing::warn!(
                    token,
                    plan = name,
                    "no plan is called so; its tokens get the default plan \"{default}\""
                );
            });
            &self.default
        })
    }

    /// Runs `complain` unless it ran for this subject before. After a hundred subjects it stays silent: a log is no list.
    pub(crate) fn complain_once(&self, subject: &str, complain: impl FnOnce()) {
        const MANY: usize = 100;
        let mut complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        if complaints.len() < MANY && complaints.insert(subject.to_owned()) {
            complain();
        }
    }
}

/// What a record says of its token's plan: the name, and what replaces limits of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct PlanChoice {
    plan: Option<Box<str>>,
    limits: Box<[Limit]>,
    concurrent_calls: Option<u32>,
    in_flight: Option<u32>,
}

impl PlanChoice {
    pub(crate) fn of(record: &Record) -> Self {
        Self {
            plan: record.plan.as_deref().map(Into::into),
            limits: record.limits.as_slice().into(),
            concurrent_calls: record.concurrent_calls,
            in_flight: record.in_flight,
        }
    }
}

/// A plan with limits replaced (same name) or added. A limit of the plan with the window of an override gives way to it.
fn with_overrides(plan: &Plan, overrides: &[Limit]) -> Plan {
    let replaced = |limit: &&Limit| overrides.iter().any(|o| o.name == limit.name || o.window_ms == limit.window_ms);
    let mut limits: Vec<Limit> =
        plan.limits.iter().filter(|limit| !replaced(limit)).chain(overrides).cloned().collect();
    limits.sort_by_key(|limit| limit.window_ms);
    limits.dedup_by_key(|limit| limit.window_ms);
    Plan { limits: limits.into(), ..plan.clone() }
}

/// Why overrides don't fit a plan, if they don't: two limits with one window are one too many.
pub(super) fn check_overrides(plan: &Plan, overrides: &[Limit]) -> Result<(), String> {
    if overrides.len() > MAX_OVERRIDES {
        return Err(format!("at most {MAX_OVERRIDES} limits can be overridden"));
    }
    for (at, limit) in overrides.iter().enumerate() {
        let same_name = overrides[..at].iter().any(|other| other.name == limit.name);
        if same_name {
            return Err(format!("\"{}\" is given twice", limit.name));
        }
        let kept = plan.limits.iter().filter(|other| !overrides.iter().any(|o| o.name == other.name));
        if let Some(other) = kept.chain(&overrides[..at]).find(|other| other.window_ms == limit.window_ms) {
            let (name, other, window) = (&limit.name, &other.name, humantime::format_duration(limit.window()));
            return Err(format!("\"{name}\" has the window of \"{other}\" ({window}); override \"{other}\" instead"));
        }
    }
    if with_overrides(plan, overrides).limits.len() > MAX_OVERRIDES {
        return Err(format!("with those of its plan, a token has at most {MAX_OVERRIDES} limits"));
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::limit_text::{limit_text, parse_limit};
    use super::*;
    use crate::tokens::record::tests::record_of;

    /// The plans `standard` (the default one) and `enterprise`.
    pub(crate) fn plans() -> Plans {
        let enterprise =
            Plan { name: "enterprise".into(), limits: limits(&[("minute", "6000/1m")]).into(), ..Plan::default() };
        let all = [standard(), enterprise].map(|plan| (plan.name.clone(), Arc::new(plan)));
        Plans::of(BTreeMap::from(all), Arc::new(standard()))
    }

    fn limits(texts: &[(&str, &str)]) -> Vec<Limit> {
        texts.iter().map(|(name, text)| parse_limit(name, text).unwrap()).collect()
    }

    fn standard() -> Plan {
        Plan {
            name: "standard".into(),
            limits: limits(&[("minute", "60/1m"), ("hour", "1000/1h")]).into(),
            ..Plan::default()
        }
    }

    fn texts(plan: &Plan) -> Vec<String> {
        plan.limits.iter().map(|limit| format!("{} {}", limit.name, limit_text(limit))).collect()
    }

    #[test]
    fn limits_are_read_and_written() {
        for (text, written) in
            [("120/1m", "120/1m"), ("1/90s", "1/1m30s"), ("5 / 1h", "5/1h"), ("0/1s", "0/1s"), ("9/1day", "9/1day")]
        {
            let limit = parse_limit("x", text).unwrap();
            assert_eq!(limit_text(&limit), written);
            assert_eq!(parse_limit("x", written).unwrap(), limit);
        }
        for bad in [
            "",
            "60",
            "/1m",
            "60/",
            "-1/1m",
            "1.5/1m",
            "60/1",
            "60/31d",
            "60/999ms",
            "1000001/1m",
            "60/1s1us",
            "1/1m/2",
        ] {
            assert!(parse_limit("x", bad).is_err(), "{bad}");
        }
        assert!(parse_limit("", "1/1m").is_err());
        assert!(parse_limit("a b", "1/1m").is_err());
    }

    #[test]
    fn overrides_replace_by_name_or_are_added_in_order() {
        let plan = with_overrides(&standard(), &limits(&[("minute", "120/1m")]));
        assert_eq!(texts(&plan), ["minute 120/1m", "hour 1000/1h"]);
        let plan = with_overrides(&standard(), &limits(&[("day", "9/1d"), ("second", "5/1s")]));
        assert_eq!(texts(&plan), ["second 5/1s", "minute 60/1m", "hour 1000/1h", "day 9/1day"]);
        // The window may change with the limit.
        let plan = with_overrides(&standard(), &limits(&[("minute", "5/2h")]));
        assert_eq!(texts(&plan), ["hour 1000/1h", "minute 5/2h"]);
        // Never two limits with one window, even when a plan was changed after the token was made.
        let plan = with_overrides(&standard(), &limits(&[("own", "5/1m")]));
        assert_eq!(texts(&plan), ["own 5/1m", "hour 1000/1h"]);
    }

    #[test]
    fn clashing_overrides_are_named() {
        let check = |texts: &[(&str, &str)]| check_overrides(&standard(), &limits(texts));
        assert_eq!(check(&[("minute", "1/1m"), ("day", "1/1d")]), Ok(()));
        assert_eq!(check(&[("minute", "1/1h"), ("hour", "1/1m")]), Ok(()));
        let clash = check(&[("own", "5/1m")]).unwrap_err();
        assert_eq!(clash, "\"own\" has the window of \"minute\" (1m); override \"minute\" instead");
        assert!(check(&[("a", "5/2m"), ("b", "5/2m")]).unwrap_err().contains("\"b\" has the window of \"a\""));
        assert!(check(&[("a", "5/2m"), ("a", "5/3m")]).unwrap_err().contains("twice"));
    }
    #[test]
    fn a_record_gets_its_plan_or_the_default_one() {
        let plans = plans();
        let mut record = record_of("secret-token");
        assert_eq!(&*plans.resolve(&record).name, "standard");
        record.plan = Some("enterprise".into());
        assert!(
            Arc::ptr_eq(&plans.resolve(&record), &plans.resolve(&record)),
            "nothing is built for a plan without overrides"
        );
        record.limits = limits(&[("minute", "7/1m")]);
        assert_eq!(texts(&plans.resolve(&record)), ["minute 7/1m"]);
        assert_eq!(plans.resolve(&record).concurrent_calls, None);
        record.concurrent_calls = Some(3);
        assert_eq!(plans.resolve(&record).concurrent_calls, Some(3));
        assert_eq!(plans.resolve(&record).in_flight, None);
        let record_in_flight =
            Record { limits: Vec::new(), concurrent_calls: None, in_flight: Some(9), ..record.clone() };
        assert_eq!(plans.resolve(&record_in_flight).in_flight, Some(9));
        record.plan = Some("gone".into());
        assert_eq!(texts(&plans.resolve(&record)), ["minute 7/1m", "hour 1000/1h"]);
        assert_eq!(&*plans.resolve(&record).name, "standard");
    }

    #[test]
    fn complaints_are_made_once_and_bounded() {
        let plans = plans();
        let mut made = 0;
        (0..1_000).for_each(|subject| plans.complain_once(&(subject % 500).to_string(), || made += 1));
        assert_eq!(made, 100);
    }
}
