//! From the text of a token file to records: everything that is wrong is found at once, each with its place and a remedy.

use std::collections::HashMap;
use std::iter;
use std::path::Path;

use super::tree::{self, Kind, Node, Place};
use crate::config::did_you_mean;
use crate::config::{CONCURRENT_CALLS, Limit, Problem, Severity};
use crate::tokens::date::Date;
use crate::tokens::limit_text::parse_limit;
use crate::tokens::operation::MAX_OLD_SECRETS;
use crate::tokens::permission::is_permission;
use crate::tokens::plans::{self, Plans};
use crate::tokens::record::{self, MAX_PERMISSIONS, Others, Record, StoredHash};
use crate::tokens::token::{TokenHash, is_id};

/// The keys of one token.
const KEYS: [&str; 14] = [
    "id",
    "hash",
    "name",
    "account",
    "permissions",
    "plan",
    "limits",
    "concurrent_calls",
    "created_at",
    "expires_at",
    "enabled",
    "revoked_at",
    "old_hashes",
    "request",
];

/// A record and the place of its first key.
pub(super) struct Placed {
    pub(super) record: Record,
    pub(super) place: Place,
    /// Its keys and their places, in the order of the file.
    pub(super) keys: Vec<(String, Place)>,
}

/// Reads all records of a file.
pub(super) fn parse(file: &Path, source: &str, plans: &Plans) -> Result<Vec<Placed>, Vec<Problem>> {
    let mut reader = Reader { file, source, plans, problems: Vec::new() };
    let records = match tree::parse(source) {
        Ok(root) => reader.root(&root),
        Err((place, message)) => {
            reader.problem(place, "", message);
            Vec::new()
        }
    };
    // Stable: of two at one place, the one found first comes first.
    reader.problems.sort_by_key(|problem| (problem.line, problem.column));
    if reader.problems.is_empty() { Ok(records) } else { Err(reader.problems) }
}

struct Reader<'a> {
    file: &'a Path,
    source: &'a str,
    plans: &'a Plans,
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    fn problem(&mut self, place: Place, path: impl Into<String>, message: impl Into<String>) {
        let (file, (line, column), severity) = (self.file.into(), place, Severity::Error);
        self.problems.push(Problem { file, line, column, path: path.into(), message: message.into(), severity });
    }

    fn root(&mut self, root: &Node) -> Vec<Placed> {
        let entries = match &root.kind {
            Kind::Null => return Vec::new(),
            Kind::Map(entries) => entries,
            Kind::Bool(_) | Kind::Number | Kind::Text(_) | Kind::List(_) => {
                self.problem(root.place, "", "must be a map with the key \"tokens\"");
                return Vec::new();
            }
        };
        let mut records = Vec::new();
        for (key, place, value) in entries {
            match (key.as_str(), &value.kind) {
                ("tokens", Kind::List(nodes)) => records = self.tokens(nodes),
                ("tokens", Kind::Null) => {}
                ("tokens", _) => self.problem(value.place, "tokens", "must be a list of tokens"),
                _ => self.problem(*place, key, format!("unknown key{}", did_you_mean(key, ["tokens"]))),
            }
        }
        records
    }

    fn tokens(&mut self, nodes: &[Node]) -> Vec<Placed> {
        let mut ids: HashMap<String, usize> = HashMap::new();
        let mut hashes: HashMap<TokenHash, usize> = HashMap::new();
        let mut records = Vec::new();
        for (index, node) in nodes.iter().enumerate() {
            let Some(entry) = Entry::new(self, index, node) else { continue };
            let Some(placed) = entry.record(self) else { continue };
            let path = &entry.path;
            if let Some(line) = ids.insert(placed.record.id.clone(), placed.place.0) {
                self.problem(
                    entry.place_of("id"),
                    format!("{path}.id"),
                    format!("is the id of the token at line {line} already"),
                );
            }
            for (hash, key) in placed.record.hashes.iter().zip(["hash"].into_iter().chain(iter::repeat("old_hashes"))) {
                if let Some(line) = hashes.insert(hash.sha256, placed.place.0) {
                    self.problem(
                        entry.place_of(key),
                        format!("{path}.{key}"),
                        format!("is the hash of the token at line {line} already"),
                    );
                }
            }
            records.push(placed);
        }
        records
    }
}

/// One token of the file.
struct Entry<'n> {
    path: String,
    place: Place,
    keys: &'n [(String, Place, Node)],
}

impl<'n> Entry<'n> {
    fn new(reader: &mut Reader<'_>, index: usize, node: &'n Node) -> Option<Self> {
        let path = format!("tokens[{index}]");
        let Kind::Map(keys) = &node.kind else {
            reader.problem(node.place, path, "must be a map with the keys id, hash, name, account and more");
            return None;
        };
        for (key, place, _) in keys {
            if !KEYS.contains(&key.as_str()) {
                let hint = did_you_mean(key, KEYS);
                reader.problem(*place, format!("{path}.{key}"), format!("unknown key{hint}"));
            }
        }
        Some(Self { path, place: node.place, keys })
    }

    /// The record, if all that it can't do without is good. Everything that is wrong is reported.
    fn record(&self, reader: &mut Reader<'_>) -> Option<Placed> {
        let before = reader.problems.len();
        let is_known = |id: &str| {
            let message = "must be 1 to 64 letters, digits, \".\", \"_\" and \"-\"";
            if is_id(id) { Ok(id.to_owned()) } else { Err(message.to_owned()) }
        };
        let id = self.required(reader, "id", is_known);
        let hash = self.required(reader, "hash", |text| {
            TokenHash::from_hex(text).ok_or("must be 64 hexadecimal digits (SHA-256 of the token)".to_owned())
        });
        let name = self
            .required(reader, "name", |text| record::check_name(text).map(|()| text.to_owned()).map_err(str::to_owned));
        let account = self.required(reader, "account", |text| {
            record::check_account(text).map(|()| text.to_owned()).map_err(str::to_owned)
        });
        let plan_names = reader.plans;
        let plan = self.optional(reader, "plan", |text| match plan_names.get(Some(text)) {
            Some(_) => Ok(text.to_owned()),
            None => Err(format!("no plan is called \"{text}\"{}", did_you_mean(text, plan_names.names()))),
        });
        let permissions = self.permissions(reader);
        let limits = self.limits(reader, plan.as_deref());
        let concurrent_calls = self.optional(reader, "concurrent_calls", concurrent_calls);
        let created_at = self.optional(reader, "created_at", date);
        let expires_at = self.optional(reader, "expires_at", date);
        let revoked_at = self.optional(reader, "revoked_at", date);
        let enabled = self.enabled(reader);
        let old_hashes = self.old_hashes(reader);
        let request = self.optional(reader, "request", |text| Ok(text.to_owned()));
        if reader.problems.len() > before {
            return None;
        }
        let record = Record {
            id: id?,
            name: name?,
            account: account?,
            permissions,
            plan,
            limits,
            concurrent_calls,
            hashes: iter::once(StoredHash { sha256: hash?, expires_at: None }).chain(old_hashes).collect(),
            created_at,
            expires_at,
            enabled,
            revoked_at,
            request,
            others: Others::default(),
        };
        let keys = self.keys.iter().map(|(key, place, _)| (key.clone(), *place)).collect();
        Some(Placed { record, place: self.place, keys })
    }

    /// The node of a key, unless it is absent or null.
    fn get(&self, key: &str) -> Option<&'n Node> {
        let node = self.keys.iter().find(|(name, _, _)| name == key).map(|(_, _, node)| node)?;
        (!matches!(node.kind, Kind::Null)).then_some(node)
    }

    fn place_of(&self, key: &str) -> Place {
        self.get(key).map_or(self.place, |node| node.place)
    }

    fn required<T>(&self, reader: &mut Reader<'_>, key: &str, read: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        if self.get(key).is_none() {
            reader.problem(self.place, &self.path, format!("the key \"{key}\" is missing"));
        }
        self.optional(reader, key, read)
    }

    fn optional<T>(&self, reader: &mut Reader<'_>, key: &str, read: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let node = self.get(key)?;
        let value = node.text(reader.source).ok_or("must be a text".to_owned()).and_then(read);
        value.map_err(|message| reader.problem(node.place, format!("{}.{key}", self.path), message)).ok()
    }

    fn permissions(&self, reader: &mut Reader<'_>) -> Vec<String> {
        let Some(node) = self.get("permissions") else { return Vec::new() };
        let path = format!("{}.permissions", self.path);
        let Kind::List(nodes) = &node.kind else {
            reader.problem(node.place, path, "must be a list, for example [\"calls:read\", \"calls:write\"]");
            return Vec::new();
        };
        if nodes.len() > MAX_PERMISSIONS {
            reader.problem(node.place, &path, format!("at most {MAX_PERMISSIONS} permissions can be held"));
        }
        let mut permissions = Vec::new();
        for (index, node) in nodes.iter().enumerate() {
            match node.text(reader.source).filter(|text| is_permission(text)) {
                Some(text) => permissions.push(text.to_owned()),
                None => reader.problem(
                    node.place,
                    format!("{path}[{index}]"),
                    "must be a permission such as calls:read or calls:*",
                ),
            }
        }
        permissions
    }

    fn limits(&self, reader: &mut Reader<'_>, plan: Option<&str>) -> Vec<Limit> {
        let Some(node) = self.get("limits") else { return Vec::new() };
        let path = format!("{}.limits", self.path);
        let Kind::Map(entries) = &node.kind else {
            reader.problem(node.place, path, "must be a map, for example { minute: 120/1m }");
            return Vec::new();
        };
        let mut limits = Vec::new();
        for (name, _, node) in entries {
            let text = node.text(reader.source).unwrap_or_default();
            match parse_limit(name, text) {
                Ok(limit) => limits.push(limit),
                Err(message) => reader.problem(node.place, format!("{path}.{name}"), message),
            }
        }
        let checked = reader.plans.get(plan).map(|plan| plans::check_overrides(plan, &limits));
        if let Some(Err(message)) = checked {
            reader.problem(node.place, path, message);
        }
        limits
    }

    /// Secrets that were replaced, and until when they work.
    fn old_hashes(&self, reader: &mut Reader<'_>) -> Vec<StoredHash> {
        let Some(node) = self.get("old_hashes") else { return Vec::new() };
        let path = format!("{}.old_hashes", self.path);
        let Kind::Map(entries) = &node.kind else {
            reader.problem(node.place, path, "must be a map of SHA-256 to the date until which it works");
            return Vec::new();
        };
        if entries.len() > MAX_OLD_SECRETS {
            reader.problem(node.place, &path, format!("at most {MAX_OLD_SECRETS} old secrets can work"));
        }
        let mut hashes = Vec::new();
        for (key, place, node) in entries {
            // The key is not repeated: it could be a token.
            let Some(sha256) = TokenHash::from_hex(key) else {
                reader.problem(*place, &path, "must have keys of 64 hexadecimal digits (SHA-256 of a token)");
                continue;
            };
            let end = node.text(reader.source).ok_or("must be a text".to_owned()).and_then(date);
            match end {
                Ok(end) => hashes.push(StoredHash { sha256, expires_at: Some(end) }),
                Err(message) => reader.problem(node.place, &path, message),
            }
        }
        hashes
    }

    fn enabled(&self, reader: &mut Reader<'_>) -> bool {
        match self.get("enabled") {
            None => true,
            Some(Node { kind: Kind::Bool(enabled), .. }) => *enabled,
            Some(node) => {
                reader.problem(node.place, format!("{}.enabled", self.path), "must be true or false");
                false
            }
        }
    }
}

fn concurrent_calls(text: &str) -> Result<u32, String> {
    let (least, most) = (CONCURRENT_CALLS.start(), CONCURRENT_CALLS.end());
    let number = text.parse().ok().filter(|number| CONCURRENT_CALLS.contains(number));
    number.ok_or(format!("must be a whole number from {least} to {most}"))
}

fn date(text: &str) -> Result<Date, String> {
    Date::parse(text).ok_or("must be a date in UTC, for example 2027-01-31 or 2027-01-31T12:00:00Z".to_owned())
}
