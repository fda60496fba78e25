//! The actions on tokens have the same results in both stores.

use callgate::auth::FileStore;
use callgate::config::Store;
use callgate::store::{Redis, StoreHealth};
use callgate::tokens::{Action, Change, Draft, Issued, MAX_GRACE, Origin, State, TokenHash, TrailFilter};
use prometheus::IntGauge;

use super::*;
use crate::support::redis::RedisServer;

/// A store, and a gateway's view of it that is told of every change.
struct AdminBackend {
    config: Config,
    registry: Registry,
    source: Source,
}

enum Source {
    File(Arc<FileStore>, #[expect(dead_code, reason = "it is there until it is dropped")] tempfile::TempDir),
    Redis(Redis, #[expect(dead_code, reason = "it serves until it is dropped")] RedisServer),
}

impl AdminBackend {
    fn on_a_file() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.yaml");
        let config = config_with("memory", &format!("{{ file: \"{}\" }}", path.display()));
        let store = open_file(&config, &path);
        let registry = Registry::with_file(&config, &path);
        Self { config, registry, source: Source::File(store, folder) }
    }

    async fn on_redis() -> Self {
        let server = RedisServer::start();
        let config = config_with(&format!("{{ redis: {{ url: \"{}\", deadline: 5s }} }}", server.url()), "{}");
        let Store::Redis(store) = &config.store else { panic!("it is Redis") };
        let health = Arc::new(StoreHealth::new(IntGauge::new("up", "up").unwrap()));
        let redis = Redis::open(store, health).await.unwrap();
        let registry = Registry::with_redis(&config, redis.clone());
        Self { config, registry, source: Source::Redis(redis, server) }
    }

    async fn both() -> [Self; 2] {
        [Self::on_a_file(), Self::on_redis().await]
    }

    /// The answer of a gateway with an empty cache to a token at `now`.
    async fn ask_at(&self, token: &str, now: SystemTime) -> Option<Refusal> {
        let authenticator = match &self.source {
            Source::File(store, _) => {
                store.refresh();
                on_file(&self.config, store.clone())
            }
            Source::Redis(redis, _) => on_redis(&self.config, redis.clone()),
        };
        refusal(authenticator.authenticate(&bearer(token), CLIENT, now).await)
    }

    async fn ask(&self, token: &str) -> Option<Refusal> {
        self.ask_at(token, SystemTime::now()).await
    }

    async fn issue(&self, draft: Draft, key: Option<&str>) -> Result<Issued, RegistryError> {
        self.registry.issue(draft, Origin::New, key, &by()).await
    }

    /// Makes a token; returns its id and text.
    async fn make(&self) -> (String, String) {
        let issued = self.issue(draft(), None).await.unwrap();
        (issued.edited.record.id, issued.secret.unwrap().expose().to_owned())
    }

    async fn version(&self, id: &str) -> u64 {
        self.registry.find(id).await.unwrap().version
    }

    async fn update(&self, id: &str, change: Change, expected: Option<u64>) -> Result<u64, RegistryError> {
        let edited = self.registry.update(id, change, expected, &by()).await?;
        Ok(edited.version)
    }

    async fn rotate(&self, id: &str, grace: Duration) -> Result<String, RegistryError> {
        let rotated = self.registry.rotate(id, grace, None, &by()).await?;
        Ok(rotated.secret.expose().to_owned())
    }

    async fn actions(&self) -> Vec<Action> {
        let page = self.registry.trail(&TrailFilter::default(), None, 100, SystemTime::now()).await.unwrap();
        page.entries.iter().map(|entry| entry.action).rev().collect()
    }
}

fn draft() -> Draft {
    Draft { name: "Dialler".into(), account: "acme".into(), permissions: vec!["calls:read".into()], ..Draft::default() }
}

const INVALID: Option<Refusal> = Some(Refusal::Invalid(Reason::Unknown));
const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn a_change_affects_only_the_fields_it_names() {
    for desk in AdminBackend::both().await {
        let (id, _) = desk.make().await;
        let before = desk.registry.find(&id).await.unwrap();
        let end = SystemTime::now() + HOUR;
        let change = Change {
            name: Some("Renamed".into()),
            plan: Some(Some("enterprise".into())),
            limits: Some(vec![("minute".into(), "7/1m".into())]),
            expires_at: Some(Some(end)),
            ..Change::default()
        };
        let version = desk.update(&id, change, Some(before.version)).await.unwrap();
        assert_ne!(version, before.version);
        let after = desk.registry.find(&id).await.unwrap();
        assert_eq!((after.version, &*after.record.name), (version, "Renamed"));
        assert_eq!((&*after.plan.name, after.plan.limits[0].count), ("enterprise", 7));
        assert_eq!(after.record.permissions, before.record.permissions);

        let clear = Change {
            plan: Some(None),
            limits: Some(Vec::new()),
            expires_at: Some(None),
            name: Some("Dialler".into()),
            ..Change::default()
        };
        desk.update(&id, clear, None).await.unwrap();
        assert_eq!(desk.registry.find(&id).await.unwrap().record, before.record);
        let nothing = Change { name: Some("Dialler".into()), ..Change::default() };
        let version = desk.version(&id).await;
        assert_eq!(desk.update(&id, nothing, None).await.unwrap(), version, "nothing changed, nothing is written");
        assert_eq!(desk.actions().await, [Action::Create, Action::Update, Action::Update]);
    }
}

#[tokio::test]
async fn a_change_of_an_outdated_version_is_refused() {
    for desk in AdminBackend::both().await {
        let (id, _) = desk.make().await;
        let version = desk.version(&id).await;
        let rename = |name: &str| Change { name: Some(name.into()), ..Change::default() };
        desk.update(&id, rename("first"), Some(version)).await.unwrap();
        let late = desk.update(&id, rename("second"), Some(version)).await.unwrap_err();
        let current = desk.version(&id).await;
        assert!(matches!(&late, RegistryError::Stale { version, .. } if *version == current), "{late}");
        assert_eq!(desk.registry.find(&id).await.unwrap().record.name, "first");
    }
}

#[tokio::test]
async fn every_error_of_a_change_names_its_field() {
    for desk in AdminBackend::both().await {
        let (id, _) = desk.make().await;
        let version = desk.version(&id).await;
        let change = Change {
            name: Some("x".repeat(10_000)),
            permissions: Some(vec!["a b".into()]),
            plan: Some(Some("entreprise".into())),
            concurrent_calls: Some(Some(0)),
            in_flight: Some(Some(0)),
            expires_at: Some(Some(SystemTime::UNIX_EPOCH)),
            ..Change::default()
        };
        let Err(RegistryError::Invalid(faults)) = desk.update(&id, change, None).await else { panic!("it is wrong") };
        let fields: Vec<&str> = faults.iter().map(|fault| fault.field).collect();
        assert_eq!(fields, ["name", "permissions", "plan", "concurrent_calls", "in_flight", "expires_at"]);
        assert!(faults.iter().all(|fault| fault.message.len() < 300), "nothing endless is repeated");
        assert_eq!(desk.version(&id).await, version);
    }
}

#[tokio::test]
async fn a_rotation_keeps_the_id_and_the_old_secret_works_for_its_grace() {
    for desk in AdminBackend::both().await {
        let (id, first) = desk.make().await;
        let second = desk.rotate(&id, HOUR).await.unwrap();
        assert_eq!(&second["kal_live_".len()..][..12], id);
        assert_eq!((desk.ask(&first).await, desk.ask(&second).await), (None, None));
        let later = SystemTime::now() + HOUR + Duration::from_secs(2);
        assert_eq!(desk.ask_at(&first, later).await, Some(Refusal::Invalid(Reason::Expired)));
        assert_eq!(desk.ask_at(&second, later).await, None);

        // Again within the grace: each old secret has its own end. Without a grace period all of them end.
        let third = desk.rotate(&id, HOUR * 2).await.unwrap();
        assert_eq!((desk.ask(&first).await, desk.ask(&second).await, desk.ask(&third).await), (None, None, None));
        assert_eq!(desk.ask_at(&first, later).await, Some(Refusal::Invalid(Reason::Expired)));
        assert_eq!(desk.ask_at(&second, later).await, None);
        let fourth = desk.rotate(&id, Duration::ZERO).await.unwrap();
        for old in [&first, &second, &third] {
            assert_eq!(desk.ask(old).await, INVALID);
        }
        assert_eq!(desk.ask(&fourth).await, None);
        let long = desk.rotate(&id, MAX_GRACE + HOUR).await;
        assert!(matches!(long, Err(RegistryError::Invalid(faults)) if faults[0].field == "grace"));
    }
}

#[tokio::test]
async fn the_number_of_old_secrets_is_bounded() {
    for desk in AdminBackend::both().await {
        let (id, first) = desk.make().await;
        let mut secrets = vec![first];
        for _ in 0..5 {
            secrets.push(desk.rotate(&id, HOUR).await.unwrap());
        }
        for (at, secret) in secrets.iter().enumerate() {
            assert_eq!(desk.ask(secret).await.is_none(), at >= 2, "secret {at} of {}", secrets.len());
        }
    }
}

#[tokio::test]
async fn rotating_a_foreign_token_makes_a_callgate_token_with_the_same_id() {
    for desk in AdminBackend::both().await {
        let hash = TokenHash::of("secret-of-sanctum");
        let origin = Origin::Registered { id: None, hash };
        let issued = desk.registry.issue(draft(), origin, None, &by()).await.unwrap();
        assert!(issued.secret.is_none());
        let id = issued.edited.record.id;
        let new = desk.rotate(&id, HOUR).await.unwrap();
        assert_eq!((desk.ask(&new).await, desk.ask("17|secret-of-sanctum").await), (None, None));
        desk.registry.operate(&id, Operation::Revoke, None, &by()).await.unwrap();
        for token in [new.as_str(), "17|secret-of-sanctum"] {
            assert_eq!(desk.ask(token).await, Some(Refusal::Invalid(Reason::Revoked)));
        }
    }
}

#[tokio::test]
async fn a_disabled_token_can_be_enabled_and_a_revoked_one_cannot() {
    for desk in AdminBackend::both().await {
        let (id, secret) = desk.make().await;
        let switch = async |on| {
            let operation = if on { Operation::Enable } else { Operation::Disable };
            desk.registry.operate(&id, operation, None, &by()).await
        };
        assert!(switch(false).await.unwrap().changed && !switch(false).await.unwrap().changed);
        assert_eq!(desk.ask(&secret).await, Some(Refusal::Invalid(Reason::Disabled)));
        switch(true).await.unwrap();
        assert_eq!(desk.ask(&secret).await, None);
        desk.registry.operate(&id, Operation::Revoke, None, &by()).await.unwrap();
        assert!(matches!(switch(true).await, Err(RegistryError::Revoked(_))));
        assert!(matches!(desk.rotate(&id, HOUR).await, Err(RegistryError::Revoked(_))));
        assert_eq!(desk.ask(&secret).await, Some(Refusal::Invalid(Reason::Revoked)));
    }
}

#[tokio::test]
async fn revoking_an_account_revokes_all_its_tokens() {
    for desk in AdminBackend::both().await {
        let mut secrets = Vec::new();
        for _ in 0..5 {
            secrets.push(desk.make().await.1);
        }
        let other = desk.issue(Draft { account: "other".into(), ..draft() }, None).await.unwrap();
        assert_eq!(desk.registry.revoke_account("acme", &by()).await.unwrap().tokens.len(), 5);
        assert!(desk.registry.revoke_account("acme", &by()).await.unwrap().tokens.is_empty());
        for secret in &secrets {
            assert_eq!(desk.ask(secret).await, Some(Refusal::Invalid(Reason::Revoked)));
        }
        assert_eq!(desk.ask(other.secret.unwrap().expose()).await, None);
    }
}

#[tokio::test]
async fn a_repeated_request_makes_one_token() {
    for desk in AdminBackend::both().await {
        let first = desk.issue(draft(), Some("order-17")).await.unwrap();
        let again = desk.issue(draft(), Some("order-17")).await.unwrap();
        assert!(first.edited.changed && !again.edited.changed && again.secret.is_none());
        assert_eq!(again.edited.record, first.edited.record);
        assert_eq!(desk.ask(first.secret.unwrap().expose()).await, None);
        let other = Draft { name: "Another".into(), ..draft() };
        let refused = desk.issue(other, Some("order-17")).await;
        assert!(matches!(refused, Err(RegistryError::KeyUsed(id)) if id == first.edited.record.id));
        // Also when it was changed since.
        let rename = Change { name: Some("Renamed".into()), ..Change::default() };
        desk.update(&first.edited.record.id, rename, None).await.unwrap();
        assert_eq!(desk.issue(draft(), Some("order-17")).await.unwrap().edited.record.name, "Renamed");
        assert_eq!(all(&desk.registry).await.unwrap().len(), 1);
        let refused = desk.issue(draft(), Some("")).await;
        assert!(matches!(refused, Err(RegistryError::Invalid(faults)) if faults[0].field == "key"));
    }
}

#[tokio::test]
async fn a_listing_is_filtered_and_paged() {
    for desk in AdminBackend::both().await {
        let mut made = Vec::new();
        for n in 0..25 {
            let account = if n % 2 == 0 { "even" } else { "odd" };
            let plan = (n == 7).then(|| "enterprise".to_owned());
            let draft = Draft { name: format!("Token {n}"), account: account.into(), plan, ..draft() };
            made.push(desk.issue(draft, None).await.unwrap().edited.record.id);
        }
        let list = async |filter: Filter, after: Option<String>, count| {
            let now = SystemTime::now();
            let listing = desk.registry.list(&filter, after.as_deref(), count, now).await.unwrap();
            let ids: Vec<String> = listing.tokens.into_iter().map(|token| token.record.id).collect();
            (ids, listing.next)
        };
        let even = || Filter { account: Some("even".into()), ..Filter::default() };
        let (mut ids, mut after) = (Vec::new(), None);
        let mut pages = 0;
        loop {
            let (page, next) = list(even(), after, 4).await;
            ids.extend(page);
            pages += 1;
            after = next;
            if after.is_none() {
                break;
            }
            // A token that is made meanwhile moves nothing.
            desk.make().await;
        }
        assert!(pages >= 4 && ids.len() == 13, "{pages} {ids:?}");
        let unique: std::collections::BTreeSet<_> = ids.iter().collect();
        assert_eq!(unique.len(), 13);
        let one = |filter: Filter| list(filter, None, 100);
        assert_eq!(one(Filter { plan: Some("enterprise".into()), ..Filter::default() }).await.0, [made[7].clone()]);
        assert_eq!(one(Filter { name: Some("tOKEN 24".into()), ..Filter::default() }).await.0, [made[24].clone()]);
        let revoked = || Filter { state: Some(State::Revoked), ..Filter::default() };
        assert!(one(revoked()).await.0.is_empty());
        desk.registry.operate(&made[3], Operation::Revoke, None, &by()).await.unwrap();
        assert_eq!(one(revoked()).await.0, [made[3].clone()]);
        let lacking = Filter { permission: Some("calls:write".into()), ..Filter::default() };
        assert!(one(lacking).await.0.is_empty());
        let now = SystemTime::now();
        let wrong = desk.registry.list(&Filter::default(), Some("nonsense"), 10, now).await;
        assert!(matches!(wrong, Err(RegistryError::Invalid(faults)) if faults[0].field == "after"));
    }
}

#[tokio::test]
async fn the_audit_trail_records_actor_and_action_and_no_secret() {
    for desk in AdminBackend::both().await {
        let (id, secret) = desk.make().await;
        let (other, _) = desk.make().await;
        let change = Change { plan: Some(Some("enterprise".into())), ..Change::default() };
        desk.update(&id, change, None).await.unwrap();
        let new = desk.rotate(&id, HOUR).await.unwrap();
        let trail = async |filter: TrailFilter| {
            desk.registry.trail(&filter, None, 100, SystemTime::now()).await.unwrap().entries
        };
        let entries = trail(TrailFilter { token: Some(id.clone()), ..TrailFilter::default() }).await;
        let actions: Vec<Action> = entries.iter().map(|entry| entry.action).collect();
        assert_eq!(actions, [Action::Rotate, Action::Update, Action::Create]);
        assert_eq!((&*entries[0].by, entries[0].account.as_deref()), ("cli:tester@here", Some("acme")));
        assert_eq!(entries[1].changes["plan"], serde_json::json!([null, "enterprise"]));
        assert_eq!(entries[1].changes.len(), 1);
        let rotations = trail(TrailFilter { action: Some(Action::Rotate), ..TrailFilter::default() }).await;
        assert_eq!(rotations.len(), 1);
        assert!(trail(TrailFilter { by: Some("nobody".into()), ..TrailFilter::default() }).await.is_empty());

        let (mut paged, mut before) = (Vec::new(), None);
        loop {
            let page = desk.registry.trail(&TrailFilter::default(), before, 1, SystemTime::now()).await.unwrap();
            paged.extend(page.entries);
            before = page.before;
            if before.is_none() {
                break;
            }
        }
        assert_eq!(paged.len(), 4);
        assert_eq!(paged[2].tokens, [other]);
        let reported = serde_json::to_string(&paged).unwrap();
        for secret in [&secret, &new] {
            assert!(!reported.contains(secret.as_str()) && !reported.contains(&TokenHash::of(secret).to_hex()));
        }
    }
}
