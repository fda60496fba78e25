//! From the text of a token file to records: everything that is wrong is found at once, each with its position and a remedy.

use std::collections::HashMap;
use std::iter;
use std::ops::RangeInclusive;
use std::path::Path;

use foldhash::fast::RandomState;

use crate::config::hint;
use crate::config::{
    CONCURRENT_CALLS, Field, FileKind, IN_FLIGHT, Limit, OtherLayout, Position, Problem, SimpleList, YamlReader,
};
use crate::tokens::date::Date;
use crate::tokens::limit_text::parse_limit;
use crate::tokens::operation::MAX_OLD_SECRETS;
use crate::tokens::permission::is_permission;
use crate::tokens::plans::{self, Plans};
use crate::tokens::record::{self, MAX_PERMISSIONS, Others, Record, StoredHash};
use crate::tokens::token::{TokenHash, is_id};

/// A record and its place in the file.
pub(super) struct Placed {
    pub(super) record: Record,
    /// The position of its first key.
    pub(super) position: Position,
    /// Its keys and their positions, in the order of the file.
    pub(super) keys: Box<[(&'static str, Position)]>,
}

/// The keys of a token.
pub(super) const KEYS: [&str; 15] = [
    "id",
    "hash",
    "name",
    "account",
    "permissions",
    "plan",
    "limits",
    "concurrent_calls",
    "in_flight",
    "created_at",
    "expires_at",
    "enabled",
    "revoked_at",
    "old_hashes",
    // Of tokens that were made with a key against repetition.
    "request",
];

/// Reads all records of a file, and their places.
pub(super) fn parse(file: &Path, source: &str, plans: &Plans) -> Result<Vec<Placed>, Vec<Problem>> {
    parse_with(file, source, plans, |record, token| {
        let name = |key: &str| KEYS.into_iter().find(|name| *name == key);
        let keys = token.map().iter().filter_map(|entry| Some((name(&entry.key)?, entry.key_position)));
        Placed { record, position: token.position, keys: keys.collect() }
    })
}

/// Reads all records of a file, and keeps of each what `keep` makes of it and of the value that it came from.
pub(super) fn parse_with<T>(
    file: &Path,
    source: &str,
    plans: &Plans,
    mut keep: impl FnMut(Record, &Field<'_>) -> T,
) -> Result<Vec<T>, Vec<Problem>> {
    let list = SimpleList::find(source.as_bytes(), "tokens");
    if let Some(Ok(done)) = list.map(|list| simple_list(file, list, plans, &mut keep)) {
        return done;
    }
    let reader = YamlReader::new(file, FileKind::Tokens);
    let mut kept = Vec::new();
    if let Some(node) = reader.parse(source) {
        let mut parser = TokenParser::new(plans);
        let list = reader.root(&node).section().field_of("tokens");
        kept.extend(list.items().iter().filter_map(|token| Some(keep(parser.token(token)?, token))));
    }
    let problems = reader.into_problems();
    if problems.is_empty() { Ok(kept) } else { Err(problems) }
}

/// The same for a list of simple layout: one token after the other, so that the values of all don't fill memory.
fn simple_list<T>(
    file: &Path,
    list: SimpleList<&[u8]>,
    plans: &Plans,
    keep: &mut impl FnMut(Record, &Field<'_>) -> T,
) -> Result<Result<Vec<T>, Vec<Problem>>, OtherLayout> {
    let reader = YamlReader::new(file, FileKind::Tokens);
    let (mut parser, mut kept) = (TokenParser::new(plans), Vec::new());
    for (index, node) in list.enumerate() {
        let node = node?;
        let token = reader.item("tokens", index, &node);
        kept.extend(parser.token(&token).map(|record| keep(record, &token)));
    }
    let problems = reader.into_problems();
    Ok(if problems.is_empty() { Ok(kept) } else { Err(problems) })
}

struct TokenParser<'a> {
    plans: &'a Plans,
    lines_of_ids: HashMap<String, usize, RandomState>,
    lines_of_hashes: HashMap<TokenHash, usize, RandomState>,
}

impl<'a> TokenParser<'a> {
    fn new(plans: &'a Plans) -> Self {
        Self { plans, lines_of_ids: HashMap::default(), lines_of_hashes: HashMap::default() }
    }

    /// The record, if it has all that is required. Everything that is wrong is reported.
    fn token(&mut self, token: &Field<'_>) -> Option<Record> {
        let s = token.section();
        let id = s.require("id", "the name that logs and `callgate token` show").and_then(|f| text(&f, check_id));
        let hash = s.require("hash", "the SHA-256 of the token").and_then(|f| hash(&f));
        let name = s.require("name", "what the token is for").and_then(|f| text(&f, record::check_name));
        let account =
            s.require("account", "the account that the token belongs to").and_then(|f| text(&f, record::check_account));
        let plan = s.optional("plan", |f| self.plan(f));
        let old_hashes = s.optional("old_hashes", |f| Some(old_hashes(f))).unwrap_or_default();
        let record = Record {
            limits: s.optional("limits", |f| Some(self.limits(f, plan.as_deref()))).unwrap_or_default(),
            permissions: s.optional("permissions", |f| Some(permissions(f))).unwrap_or_default(),
            plan,
            concurrent_calls: s.optional("concurrent_calls", |f| number(f, CONCURRENT_CALLS)),
            in_flight: s.optional("in_flight", |f| number(f, IN_FLIGHT)),
            created_at: s.optional("created_at", date),
            expires_at: s.optional("expires_at", date),
            enabled: s.or("enabled", true, enabled),
            revoked_at: s.optional("revoked_at", date),
            request: s.optional("request", Field::word),
            id: id?,
            name: name?,
            account: account?,
            hashes: iter::once(StoredHash { sha256: hash?, expires_at: None }).chain(old_hashes).collect(),
            others: Others::default(),
        };
        let position = token.position;
        if let Some(line) = self.lines_of_ids.insert(record.id.clone(), position.line) {
            s.field_of("id").error(format!("the token at line {line} has this id, too"));
        }
        for (hash, key) in record.hashes.iter().zip(iter::once("hash").chain(iter::repeat("old_hashes"))) {
            if let Some(line) = self.lines_of_hashes.insert(hash.sha256, position.line) {
                s.field_of(key).error(format!("the token at line {line} has this hash, too"));
            }
        }
        Some(record)
    }

    fn plan(&self, field: &Field<'_>) -> Option<String> {
        let name = field.word()?;
        let is_known = self.plans.get(Some(&name)).is_some();
        let unknown = || format!("no plan is called \"{name}\"{}", hint(&name, self.plans.names()));
        field.accept(if is_known { Ok(()) } else { Err(unknown()) })?;
        Some(name)
    }

    fn limits(&self, field: &Field<'_>, plan: Option<&str>) -> Vec<Limit> {
        let limit = |(name, field): &(&str, Field<'_>)| field.accept(parse_limit(name, &field.word()?));
        let limits: Vec<Limit> = field.names().iter().filter_map(limit).collect();
        if let Some(plan) = self.plans.get(plan) {
            field.accept(plans::check_overrides(plan, &limits));
        }
        limits
    }
}

/// Numbers are texts, too, letter by letter: an id may be `017`.
fn text(field: &Field<'_>, check: fn(&str) -> Result<(), &'static str>) -> Option<String> {
    let text = field.word()?;
    field.accept(check(&text).map(|()| text))
}

pub(super) fn check_id(id: &str) -> Result<(), &'static str> {
    if is_id(id) { Ok(()) } else { Err("must be 1 to 64 letters, digits, \".\", \"_\" and \"-\"") }
}

fn hash(field: &Field<'_>) -> Option<TokenHash> {
    let hash = TokenHash::from_hex(&field.word()?);
    field.accept(hash.ok_or("must be 64 hexadecimal digits (SHA-256 of the token)"))
}

fn permissions(field: &Field<'_>) -> Vec<String> {
    let items = field.items();
    if items.len() > MAX_PERMISSIONS {
        field.error(format!("must not have more than {MAX_PERMISSIONS} permissions"));
    }
    let permission = |item: &Field<'_>| {
        let text = item.word().filter(|text| is_permission(text));
        item.accept(text.ok_or("must be a permission such as calls:read or calls:*"))
    };
    items.iter().filter_map(permission).collect()
}

/// Secrets that were replaced, and the date until which they work.
fn old_hashes(field: &Field<'_>) -> Vec<StoredHash> {
    let entries = field.map();
    if entries.len() > MAX_OLD_SECRETS {
        field.error(format!("must not have more than {MAX_OLD_SECRETS} old secrets"));
    }
    let hashes = entries.iter().filter_map(|entry| {
        // The key is not repeated: it could be a token.
        let wrong = "must have keys of 64 hexadecimal digits (SHA-256 of a token)";
        let sha256 = field.at(entry.key_position).accept(TokenHash::from_hex(&entry.key).ok_or(wrong));
        let expires_at = date(&field.value(entry));
        Some(StoredHash { sha256: sha256?, expires_at: Some(expires_at?) })
    });
    hashes.collect()
}

fn number(field: &Field<'_>, range: RangeInclusive<u32>) -> Option<u32> {
    let number = field.word()?.parse().ok().filter(|number| range.contains(number));
    let (least, most) = range.into_inner();
    field.accept(number.ok_or_else(|| format!("must be a whole number from {least} to {most}")))
}

fn date(field: &Field<'_>) -> Option<Date> {
    let date = Date::parse(&field.word()?);
    field.accept(date.ok_or("must be a date in UTC, for example 2027-01-31 or 2027-01-31T12:00:00Z"))
}

/// `true` or `false`, or a word that YAML 1.1 has for them.
fn enabled(field: &Field<'_>) -> Option<bool> {
    match field.scalar()?.as_text() {
        Some(text) if is_yes(text) => Some(true),
        Some(text) if is_no(text) => Some(false),
        _ => field.flag(),
    }
}

pub(super) fn is_yes(text: &str) -> bool {
    ["y", "yes", "on"].iter().any(|word| text.eq_ignore_ascii_case(word))
}

pub(super) fn is_no(text: &str) -> bool {
    ["n", "no", "off"].iter().any(|word| text.eq_ignore_ascii_case(word))
}
