//! The fast way to the records of a large token file: one token at a time, and without the values, positions and paths that complaints
//! need. It takes only a file in which everything is simple and good. Any other is for `parse.rs`, which says what is wrong with it.

use std::collections::HashSet;
use std::hash::BuildHasher;
use std::io::BufRead;
use std::ops::RangeInclusive;

use foldhash::fast::RandomState;

use super::parse::{check_id, is_no, is_yes};
use crate::config::{CONCURRENT_CALLS, IN_FLIGHT, Limit, SimpleEntry, SimpleList, SimpleValue};
use crate::tokens::date::Date;
use crate::tokens::limit_text::parse_limit;
use crate::tokens::operation::MAX_OLD_SECRETS;
use crate::tokens::permission::is_permission;
use crate::tokens::plans::{self, Plans};
use crate::tokens::record::{MAX_PERMISSIONS, Others, Record, StoredHash, check_account, check_name};
use crate::tokens::token::TokenHash;

/// Adds the records of a file to `all`, in its order. `None`: this is not for the fast way, and `all` may be incomplete.
pub(super) fn fold_good<T>(
    source: impl BufRead,
    plans: &Plans,
    mut all: T,
    mut add: impl FnMut(&mut T, Record),
) -> Option<T> {
    let mut list = SimpleList::find(source, "tokens")?;
    let mut seen = Seen::default();
    loop {
        let mut token = GoodToken::default();
        let mut is_good = true;
        let item = list.next_item(|entry| is_good = is_good && token.set(&entry).is_some()).ok()?;
        if item.is_none() {
            return Some(all);
        }
        let record = Some(token).filter(|_| is_good)?.into_record(plans)?;
        if !seen.is_new(&record) {
            return None;
        }
        add(&mut all, record);
    }
}

/// Ids and hashes that were seen, by 64 bits of each: in a small part of the memory that they take themselves. Two that differ may
/// look alike, once in many millions of files of 100,000 tokens.
#[derive(Default)]
struct Seen {
    hasher: RandomState,
    ids: HashSet<u64, RandomState>,
    hashes: HashSet<u64, RandomState>,
}

impl Seen {
    fn is_new(&mut self, record: &Record) -> bool {
        self.ids.insert(self.hasher.hash_one(&record.id))
            && record.hashes.iter().all(|hash| self.hashes.insert(hash.sha256.first_64_bits()))
    }
}

/// What a token has said so far.
#[derive(Default)]
struct GoodToken {
    id: Option<String>,
    hash: Option<TokenHash>,
    name: Option<String>,
    account: Option<String>,
    permissions: Option<Vec<String>>,
    plan: Option<String>,
    limits: Option<Vec<Limit>>,
    concurrent_calls: Option<u32>,
    in_flight: Option<u32>,
    created_at: Option<Date>,
    expires_at: Option<Date>,
    enabled: Option<bool>,
    revoked_at: Option<Date>,
    old_hashes: Option<Vec<StoredHash>>,
    request: Option<String>,
}

impl GoodToken {
    /// Takes the value of a key; `None` if it is not certainly good.
    fn set(&mut self, entry: &SimpleEntry<'_>) -> Option<()> {
        let value = &entry.node.value;
        match entry.key {
            "id" => fill(&mut self.id, text(value, check_id)),
            "hash" => fill(&mut self.hash, TokenHash::from_hex(word(value)?)),
            "name" => fill(&mut self.name, text(value, check_name)),
            "account" => fill(&mut self.account, text(value, check_account)),
            "permissions" => fill(&mut self.permissions, permissions(value)),
            "plan" => fill(&mut self.plan, word(value).map(str::to_owned)),
            "limits" => fill(&mut self.limits, limits(value)),
            "concurrent_calls" => fill(&mut self.concurrent_calls, number(value, CONCURRENT_CALLS)),
            "in_flight" => fill(&mut self.in_flight, number(value, IN_FLIGHT)),
            "created_at" => fill(&mut self.created_at, Date::parse(word(value)?)),
            "expires_at" => fill(&mut self.expires_at, Date::parse(word(value)?)),
            "enabled" => fill(&mut self.enabled, flag(value)),
            "revoked_at" => fill(&mut self.revoked_at, Date::parse(word(value)?)),
            "old_hashes" => fill(&mut self.old_hashes, old_hashes(value)),
            "request" => fill(&mut self.request, word(value).map(str::to_owned)),
            _ => None,
        }
    }

    fn into_record(self, plans: &Plans) -> Option<Record> {
        let plan = plans.get(self.plan.as_deref())?;
        let limits = self.limits.unwrap_or_default();
        if !limits.is_empty() {
            plans::check_overrides(plan, &limits).ok()?;
        }
        let mut hashes = vec![StoredHash { sha256: self.hash?, expires_at: None }];
        hashes.extend(self.old_hashes.into_iter().flatten());
        Some(Record {
            id: self.id?,
            name: self.name?,
            account: self.account?,
            permissions: self.permissions.unwrap_or_default(),
            plan: self.plan,
            limits,
            concurrent_calls: self.concurrent_calls,
            in_flight: self.in_flight,
            hashes,
            created_at: self.created_at,
            expires_at: self.expires_at,
            enabled: self.enabled.unwrap_or(true),
            revoked_at: self.revoked_at,
            request: self.request,
            others: Others::default(),
        })
    }
}

/// A key may be given once.
fn fill<T>(field: &mut Option<T>, value: Option<T>) -> Option<()> {
    if field.is_some() {
        return None;
    }
    *field = Some(value?);
    Some(())
}

/// A text, or a number as it is written.
fn word<'a>(value: &'a SimpleValue<'_>) -> Option<&'a str> {
    match value {
        SimpleValue::Quoted(text) => Some(text),
        // Nothing, or a truth value.
        SimpleValue::Plain(text) if ["null", "true", "false"].iter().any(|word| text.eq_ignore_ascii_case(word)) => {
            None
        }
        SimpleValue::Plain(text) => Some(text),
        SimpleValue::List(_) | SimpleValue::Map(_) => None,
    }
}

fn text(value: &SimpleValue<'_>, check: fn(&str) -> Result<(), &'static str>) -> Option<String> {
    let text = word(value)?;
    check(text).ok().map(|()| text.to_owned())
}

fn permissions(value: &SimpleValue<'_>) -> Option<Vec<String>> {
    let SimpleValue::List(items) = value else { return None };
    let permission = |text: &str| Some(text.to_owned()).filter(|text| is_permission(text));
    let all: Option<Vec<String>> = items.iter().map(|item| permission(word(&item.value)?)).collect();
    all.filter(|all| all.len() <= MAX_PERMISSIONS)
}

fn limits(value: &SimpleValue<'_>) -> Option<Vec<Limit>> {
    let SimpleValue::Map(entries) = value else { return None };
    entries.iter().map(|entry| parse_limit(entry.key, word(&entry.node.value)?).ok()).collect()
}

fn old_hashes(value: &SimpleValue<'_>) -> Option<Vec<StoredHash>> {
    let SimpleValue::Map(entries) = value else { return None };
    let hash = |entry: &SimpleEntry<'_>| {
        let expires_at = Some(Date::parse(word(&entry.node.value)?)?);
        Some(StoredHash { sha256: TokenHash::from_hex(entry.key)?, expires_at })
    };
    let all: Option<Vec<StoredHash>> = entries.iter().map(hash).collect();
    all.filter(|all| all.len() <= MAX_OLD_SECRETS)
}

fn number(value: &SimpleValue<'_>, range: RangeInclusive<u32>) -> Option<u32> {
    word(value)?.parse().ok().filter(|number| range.contains(number))
}

fn flag(value: &SimpleValue<'_>) -> Option<bool> {
    let text = match value {
        SimpleValue::Plain("true") => return Some(true),
        SimpleValue::Plain("false") => return Some(false),
        value => word(value)?,
    };
    if is_yes(text) { Some(true) } else { Some(false).filter(|_| is_no(text)) }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::super::parse::{KEYS, parse};
    use super::super::text::rendered;
    use super::*;
    use crate::tokens::plans::tests::plans;
    use crate::tokens::record::tests::record_of;

    fn fast(text: &str) -> Option<Vec<Record>> {
        fold_good(text.as_bytes(), &plans(), Vec::new(), |all, record| all.push(record))
    }

    fn exact(text: &str) -> Option<Vec<Record>> {
        let placed = parse(Path::new("tokens.yaml"), text, &plans()).ok()?;
        Some(placed.into_iter().map(|placed| placed.record).collect())
    }

    #[test]
    fn every_record_that_callgate_writes_takes_the_fast_way() {
        let mut full = record_of("secret-token");
        full.name = "He said \"no\" \\ Café # 7: [x]".into();
        full.plan = Some("enterprise".into());
        full.limits = vec![parse_limit("minute", "7/1m").unwrap(), parse_limit("day", "9/1d").unwrap()];
        (full.concurrent_calls, full.in_flight) = (Some(3), Some(9));
        (full.enabled, full.expires_at) = (false, Date::parse("2027-01-31"));
        full.revoked_at = full.created_at;
        full.request = Some(TokenHash::of("request").to_hex());
        full.hashes.push(StoredHash { sha256: TokenHash::of("old"), expires_at: full.expires_at });
        let mut plain = record_of("other-token");
        (plain.id, plain.permissions, plain.created_at) = ("017".into(), Vec::new(), None);
        let records = [full, plain];
        assert_eq!(fast(&rendered("", records.iter())).unwrap(), records);
    }

    #[test]
    fn layouts_of_people_take_the_fast_way_too() {
        let hash = TokenHash::of("a").to_hex();
        for token in [
            format!(
                "- {{ id: a, hash: {hash}, name: 'A b', account: acme, permissions: [\"calls:*\"], enabled: yes }}"
            ),
            format!("- name: A b # the first\n  id: 7\n  # why\n  account: acme corp\n  hash: {hash}"),
        ] {
            let text = format!("# ours\n\ntokens:\n{token}\n");
            assert_eq!(fast(&text).unwrap(), exact(&text).unwrap(), "{text}");
        }
    }

    #[test]
    fn what_may_be_wrong_does_not() {
        let entry = |id: &str, token: &str, more: &str| {
            format!("  - {{ id: {id}, hash: {}, name: n, account: acme{more} }}\n", TokenHash::of(token).to_hex())
        };
        let good = entry("a", "a", "");
        assert!(fast(&format!("tokens:\n{good}{}", entry("b", "b", ""))).is_some());
        for second in [
            entry("a", "b", ""),
            entry("b", "a", ""),
            entry("b c", "b", ""),
            entry("b", "b", ", name: m"),
            entry("b", "b", ", colour: red"),
            entry("b", "b", ", plan: gold"),
            entry("b", "b", ", plan: null"),
            entry("b", "b", ", limits: { own: 5/1m }"),
            entry("b", "b", ", limits: { day: 5/1d, day: 6/1d }"),
            entry("b", "b", ", permissions: calls"),
            entry("b", "b", ", in_flight: 0"),
            entry("b", "b", ", enabled: 1"),
            "  - {}\n".to_owned(),
            "  - &b id: b\n".to_owned(),
        ] {
            assert!(fast(&format!("tokens:\n{good}{second}")).is_none(), "{second}");
        }
    }

    /// Tokens of good and bad values, in good and bad layout.
    fn token() -> impl Strategy<Value = String> {
        let values = prop::sample::select(vec![
            "a",
            "017",
            "\"x\"",
            "'y z'",
            "b c",
            "null",
            "Null",
            "nULL",
            "~",
            "true",
            "True",
            "yes",
            "\"no\"",
            "off",
            "''",
            "[]",
            "{}",
            "[a, \"b:c\"]",
            "[null]",
            "[true]",
            "[\"*\", x:*]",
            "{ day: 5/1d }",
            "{ minute: 7/1m, minute: 8/1m }",
            "{ own: 5/1m }",
            "{ a: null }",
            "standard",
            "gold",
            "2027-01-31",
            "\"2027-01-31T12:00:00Z\"",
            "3",
            "\"3\"",
            "0x3",
            "3.0",
            "{ \"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\": 2027-01-31 }",
            "{ x: 2027-01-31 }",
            "\"\\\"q\\\"\"",
            "\"\\n\"",
            "# c",
            "a # c",
            "&a b",
            "*a",
            "!t x",
            "|",
            "-",
        ]);
        let keys = prop::sample::select([&KEYS[4..], &["name", "colour", "<<"]].concat());
        let more = prop::collection::vec((keys, values), 0..4);
        (more, 0..3_u32, any::<bool>(), any::<bool>()).prop_map(|(more, number, in_braces, has_all)| {
            let hash = TokenHash::of(&number.to_string()).to_hex();
            let mut pairs = vec![("id", format!("t{number}")), ("hash", hash), ("account", "acme".to_owned())];
            pairs.extend(has_all.then(|| ("name", "N".to_owned())));
            pairs.extend(more.into_iter().map(|(key, value)| (key, value.to_owned())));
            let pairs: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}: {value}")).collect();
            if in_braces {
                format!("  - {{ {} }}\n", pairs.join(", "))
            } else {
                format!("  - {}\n", pairs.join("\n    "))
            }
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5_000))]

        #[test]
        fn both_ways_lead_to_the_same_records(tokens in prop::collection::vec(token(), 1..3)) {
            let text = format!("tokens:\n{}", tokens.concat());
            if let Some(records) = fast(&text) {
                prop_assert_eq!(Some(records), exact(&text), "{}", text);
            }
        }
    }
}
