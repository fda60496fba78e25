//! `/api/tokens`: list, make, show and change them.

use std::collections::BTreeMap;

use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;

use super::answer::{Answer, etag, json};
use super::condition::Condition;
use super::intake::Fields;
use super::problem::Problem;
use super::{Admin, AdminBackend, Call};
use crate::config::{Limit, Plan, Secret};
use crate::tokens::{
    Change, Date, Draft, Filter, Origin, Record, State, TokenHash, Usage, limit_text, strange_permissions,
};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Bytes of an idempotency key.
const LONGEST_KEY: usize = 255;

/// A token as the API tells it. No secret, no hash.
#[derive(Serialize)]
pub(super) struct Shown<'a> {
    id: &'a str,
    name: &'a str,
    account: &'a str,
    permissions: &'a [String],
    plan: Option<&'a str>,
    limits: BTreeMap<&'a str, String>,
    concurrent_calls: Option<u32>,
    created_at: Option<Date>,
    expires_at: Option<Date>,
    enabled: bool,
    revoked_at: Option<Date>,
    state: &'static str,
    /// The ends of old secrets that work still.
    old_secrets_until: Vec<Date>,
    version: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Use>,
    #[serde(skip_serializing_if = "Option::is_none")]
    effective: Option<Effective<'a>>,
}

/// What holds for a token by its plan and its own limits.
#[derive(Serialize)]
struct Effective<'a> {
    plan: &'a str,
    limits: BTreeMap<&'a str, String>,
    concurrent_calls: Option<u32>,
}

/// How a token is used, some minute late.
#[derive(Serialize)]
struct Use {
    last_used_at: Option<Date>,
    requests: u64,
}

/// A token that was changed, with what only this answer tells.
#[derive(Serialize)]
pub(super) struct Deed<'a> {
    #[serde(flatten)]
    pub(super) token: Shown<'a>,
    /// Its text.
    #[serde(rename = "token", skip_serializing_if = "Option::is_none")]
    pub(super) secret: Option<Option<&'a str>>,
    /// Until when the secret works that it had until now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) old_secret_until: Option<Option<Date>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) warnings: Option<Vec<String>>,
}

#[derive(Serialize)]
struct Page<'a> {
    tokens: Vec<Shown<'a>>,
    next: Option<String>,
}

impl<'a> Shown<'a> {
    pub(super) fn new(call: &Call<'_>, record: &'a Record, version: u64, usage: Option<Usage>) -> Self {
        let ends = record.hashes.iter().filter_map(|hash| hash.expires_at);
        Self {
            id: &record.id,
            name: &record.name,
            account: &record.account,
            permissions: &record.permissions,
            plan: record.plan.as_deref(),
            limits: texts(&record.limits),
            concurrent_calls: record.concurrent_calls,
            created_at: record.created_at,
            expires_at: record.expires_at,
            enabled: record.enabled,
            revoked_at: record.revoked_at,
            state: record.state(call.now).as_str(),
            old_secrets_until: ends.filter(|end| end.time() > call.now).collect(),
            version,
            effective: None,
            usage: usage.map(|usage| Use { last_used_at: usage.last_used, requests: usage.requests }),
        }
    }
}

impl<'a> Deed<'a> {
    pub(super) fn new(call: &Call<'_>, record: &'a Record, version: u64) -> Self {
        Self { token: Shown::new(call, record, version, None), secret: None, old_secret_until: None, warnings: None }
    }

    /// As an answer, with the `ETag` of the version.
    pub(super) fn into_answer(self, status: StatusCode) -> Answer {
        with_etag(json(status, &self), self.token.version)
    }
}

/// `GET /api/tokens`: a page of those that fit.
pub(super) async fn list(mut call: Call<'_>) -> Result<Answer, Problem> {
    let query = &mut call.query;
    let state = |text: &str| State::ALL.into_iter().find(|state| state.as_str() == text);
    let filter = Filter {
        account: query.text("account"),
        name: query.text("name"),
        plan: query.text("plan"),
        state: query.read("state", "active, expired, disabled or revoked", state),
        permission: query.text("permission"),
    };
    let (after, limit) = (query.text("after"), query.limit());
    std::mem::take(query).done()?;
    let Admin { config, desk: AdminBackend { registry, .. }, .. } = call.admin;
    let listing = registry.list(config, &filter, after.as_deref(), limit, call.now).await?;
    let tokens = listing.tokens.iter().map(|it| Shown::new(&call, &it.record, it.version, Some(it.usage))).collect();
    Ok(json(StatusCode::OK, &Page { tokens, next: listing.next }))
}

/// `POST /api/tokens`: makes one, or registers one by its hash.
pub(super) async fn create(mut call: Call<'_>) -> Result<Answer, Problem> {
    let key = idempotency_key(&call)?;
    let body = &mut call.body;
    let draft = Draft {
        name: body.needed_text("name"),
        account: body.needed_text("account"),
        permissions: body.texts("permissions").flatten().unwrap_or_default(),
        plan: body.text("plan").flatten(),
        limits: body.limits("limits").flatten().unwrap_or_default(),
        concurrent_calls: body.number("concurrent_calls").flatten(),
        expires_at: body.date("expires_at").flatten(),
    };
    let origin = origin(body);
    std::mem::take(body).done()?;
    let Admin { config, desk: AdminBackend { registry, .. }, .. } = call.admin;
    let issued = registry.issue(config, draft, origin, key.as_deref(), &call.by, call.now).await?;
    call.admin.refresh().await;
    let record = &issued.edited.record;
    let mut deed = Deed::new(&call, record, issued.edited.version);
    deed.secret = Some(issued.secret.as_ref().map(Secret::expose));
    deed.warnings = Some(strange_permissions(config, &record.permissions));
    // A repetition is answered with what there is, without the secret, which nobody knows any more.
    let status = if issued.edited.changed { StatusCode::CREATED } else { StatusCode::OK };
    let mut answer = deed.into_answer(status);
    // Ids are letters, digits, `.`, `_` and `-`.
    if let Ok(place) = HeaderValue::try_from(format!("/api/tokens/{}", record.id)) {
        answer.headers_mut().insert(header::LOCATION, place);
    }
    Ok(answer)
}

/// `GET /api/tokens/{id}`.
pub(super) async fn show(call: Call<'_>) -> Result<Answer, Problem> {
    let Admin { config, desk: AdminBackend { registry, .. }, .. } = call.admin;
    let found = registry.find(config, call.id).await?;
    let mut shown = Shown::new(&call, &found.record, found.version, Some(found.usage));
    let Plan { name, limits, concurrent_calls, .. } = &*found.plan;
    shown.effective = Some(Effective { plan: name, limits: texts(limits), concurrent_calls: *concurrent_calls });
    Ok(with_etag(json(StatusCode::OK, &shown), found.version))
}

/// `PATCH /api/tokens/{id}`: changes the fields that are given, if nobody else was faster.
pub(super) async fn change(mut call: Call<'_>) -> Result<Answer, Problem> {
    if Condition::read(call.headers)? == Condition::Absent {
        return Err(Problem::Unconditional);
    }
    let body = &mut call.body;
    let named = body.text("name");
    if named == Some(None) {
        body.fault("name", "must be a text");
    }
    let permissions = body.texts("permissions").map(Option::unwrap_or_default);
    let limits = body.limits("limits").map(Option::unwrap_or_default);
    let (plan, concurrent_calls) = (body.text("plan"), body.number("concurrent_calls"));
    let expires_at = body.date("expires_at");
    for fixed in ["id", "account"] {
        if body.take(fixed).is_some() {
            body.fault(fixed, "can't be changed: make another token");
        }
    }
    std::mem::take(body).done()?;
    let change = Change { name: named.flatten(), permissions, plan, limits, concurrent_calls, expires_at };
    let expected = expected_version(&call).await?;
    let Admin { config, desk: AdminBackend { registry, .. }, .. } = call.admin;
    let edited = registry.update(config, call.id, change, expected, &call.by, call.now).await?;
    call.admin.refresh().await;
    let mut deed = Deed::new(&call, &edited.record, edited.version);
    deed.warnings = Some(strange_permissions(config, &edited.record.permissions));
    Ok(deed.into_answer(StatusCode::OK))
}

fn texts(limits: &[Limit]) -> BTreeMap<&str, String> {
    limits.iter().map(|limit| (&*limit.name, limit_text(limit))).collect()
}

/// Where the secret of a new token comes from: it is made, unless the SHA-256 of one is given that exists already.
fn origin(body: &mut Fields) -> Origin {
    let (sha256, id) = (body.text("sha256").flatten(), body.text("id").flatten());
    let Some(hex) = sha256 else {
        if id.is_some() {
            body.fault("id", "goes with sha256 only");
        }
        return Origin::New;
    };
    match TokenHash::from_hex(&hex) {
        Some(hash) => Origin::Registered { id, hash },
        None => {
            // It is not repeated: it could be the token.
            body.fault("sha256", "must be 64 hexadecimal digits (SHA-256 of the token), not the token itself");
            Origin::New
        }
    }
}

/// The version that `If-Match` demands; `None`: any.
pub(super) async fn expected_version(call: &Call<'_>) -> Result<Option<u64>, Problem> {
    let versions = match Condition::read(call.headers)? {
        Condition::Absent | Condition::Any => return Ok(None),
        Condition::OneOf(versions) => versions,
    };
    match versions[..] {
        [version] => Ok(Some(version)),
        [] => Err(Problem::Stale(None)),
        _ => {
            let current = call.admin.desk.registry.find(&call.admin.config, call.id).await?.version;
            if versions.contains(&current) { Ok(Some(current)) } else { Err(Problem::Stale(Some(current))) }
        }
    }
}

/// What tells a repeated request from another one.
fn idempotency_key(call: &Call<'_>) -> Result<Option<String>, Problem> {
    let mut lines = call.headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(line) = lines.next() else { return Ok(None) };
    let key = line.to_str().ok().filter(|key| (1..=LONGEST_KEY).contains(&key.len()) && lines.next().is_none());
    let broken =
        || Problem::Malformed(format!("Idempotency-Key must be 1 to {LONGEST_KEY} printable ASCII characters."));
    key.map(|key| Some(key.to_owned())).ok_or_else(broken)
}

fn with_etag(mut answer: Answer, version: u64) -> Answer {
    // A number in quotes.
    if let Ok(tag) = HeaderValue::try_from(etag(version)) {
        answer.headers_mut().insert(header::ETAG, tag);
    }
    answer
}
