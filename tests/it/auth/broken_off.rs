//! A Redis that breaks off in the middle of a deed: what was promised holds, nothing is half done, and no secret is lost unseen.

use callgate::config::Store;
use callgate::store::{Redis, StoreHealth};
use callgate::tokens::{Action, Draft, Origin, TrailFilter};
use prometheus::IntGauge;

use super::*;
use crate::support::proxy::{Passing, Proxy};
use crate::support::redis::RedisServer;

/// For so long nothing is heard of Redis: less than a command's patience.
const OUTAGE: Duration = Duration::from_millis(1_500);
const HOUR: Duration = Duration::from_secs(3_600);

/// A registry behind a network that fails, and a gateway with a direct connection.
struct Stage {
    _server: RedisServer,
    proxy: Proxy,
    config: Config,
    registry: Registry,
    direct: Redis,
}

async fn connect(config: &Config) -> Redis {
    let Store::Redis(store) = &config.store else { panic!("it is Redis") };
    Redis::open(store, Arc::new(StoreHealth::new(IntGauge::new("up", "up").unwrap()))).await.unwrap()
}

impl Stage {
    async fn new() -> Self {
        let server = RedisServer::start();
        let proxy = Proxy::start(([127, 0, 0, 1], server.port()).into()).await;
        let on = |address: &str, deadline: &str| {
            config_with(&format!("{{ redis: {{ url: \"{address}\", deadline: {deadline} }} }}"), "{}")
        };
        let config = on(&format!("redis://{}", proxy.address), "500ms");
        let registry = Registry::with_redis(&config, connect(&config).await);
        let direct = connect(&on(&server.url(), "5s")).await;
        Self { _server: server, proxy, config, registry, direct }
    }

    /// Does a deed in whose writing the network fails in this way, for a while; `None`: until the deed is over.
    async fn amid<T>(
        &self,
        action: Action,
        passing: Passing,
        outage: Option<Duration>,
        deed: impl Future<Output = T>,
    ) -> T {
        self.proxy.when_asked(&format!("\"action\":\"{}\"", action.as_str()), passing);
        let healed = async {
            until("the deed is being written", async || self.proxy.was_asked()).await;
            match outage {
                Some(outage) => tokio::time::sleep(outage).await,
                None => std::future::pending().await,
            }
            self.proxy.let_pass(Passing::Both);
        };
        tokio::pin!(deed);
        tokio::select! {
            done = &mut deed => {
                assert!(self.proxy.was_asked(), "nothing was in the way");
                self.proxy.let_pass(Passing::Both);
                done
            }
            () = healed => deed.await,
        }
    }

    async fn issue(&self) -> Result<(String, String), RegistryError> {
        let draft = Draft { name: "Dialler".into(), account: "acme".into(), ..Draft::default() };
        let issued = self.registry.issue(draft, Origin::New, None, &by()).await?;
        Ok((issued.edited.record.id, issued.secret.unwrap().expose().to_owned()))
    }

    async fn rotate(&self, id: &str, grace: Duration) -> Result<String, RegistryError> {
        let rotated = self.registry.rotate(id, grace, None, &by()).await?;
        Ok(rotated.secret.expose().to_owned())
    }

    /// Whether a gateway that knows nothing yet lets the token in.
    async fn works(&self, token: &str) -> bool {
        ask(&on_redis(&self.config, self.direct.clone()), token).await.is_ok()
    }

    async fn times(&self, action: Action, id: &str) -> usize {
        let filter = TrailFilter { token: Some(id.to_owned()), action: Some(action), ..TrailFilter::default() };
        let registry = Registry::with_redis(&self.config, self.direct.clone());
        registry.trail(&filter, None, 100, SystemTime::now()).await.unwrap().entries.len()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_action_interrupted_by_an_outage_is_done_once_and_reported() {
    let stage = Stage::new().await;
    for passing in [Passing::Nothing, Passing::Questions] {
        let (id, first) = stage.amid(Action::Create, passing, Some(OUTAGE), stage.issue()).await.unwrap();
        assert!(stage.works(&first).await, "{passing:?}");
        let rotation = stage.rotate(&id, HOUR);
        let second = stage.amid(Action::Rotate, passing, Some(OUTAGE), rotation).await.unwrap();
        assert!(stage.works(&first).await && stage.works(&second).await, "{passing:?}");
        let rotation = stage.rotate(&id, Duration::ZERO);
        let third = stage.amid(Action::Rotate, passing, Some(OUTAGE), rotation).await.unwrap();
        assert!(!stage.works(&first).await && !stage.works(&second).await && stage.works(&third).await, "{passing:?}");
        let (registry, by) = (&stage.registry, by());
        let disabled = registry.operate(&id, Operation::Disable, None, &by);
        assert!(stage.amid(Action::Disable, passing, Some(OUTAGE), disabled).await.is_ok());
        assert!(!stage.works(&third).await, "{passing:?}");
        let revoked = registry.operate(&id, Operation::Revoke, None, &by);
        assert!(stage.amid(Action::Revoke, passing, Some(OUTAGE), revoked).await.is_ok());
        for (action, times) in [(Action::Create, 1), (Action::Rotate, 2), (Action::Disable, 1), (Action::Revoke, 1)] {
            assert_eq!(stage.times(action, &id).await, times, "{passing:?} {action:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_without_an_answer_keeps_the_old_secret_and_reports_an_unknown_outcome() {
    let stage = Stage::new().await;
    for passing in [Passing::Nothing, Passing::Questions] {
        let (id, first) = stage.issue().await.unwrap();
        let lost = stage.amid(Action::Rotate, passing, None, stage.rotate(&id, HOUR)).await;
        assert!(matches!(&lost, Err(RegistryError::Uncertain { id: reported, .. }) if *reported == id), "{lost:?}");
        assert!(stage.works(&first).await, "{passing:?}");
        // The way is open again: what was held up arrives late, and does no harm.
        let mut second = None;
        until("the next try comes through", async || {
            second = stage.rotate(&id, HOUR).await.ok();
            second.is_some()
        })
        .await;
        assert!(stage.works(&first).await && stage.works(&second.unwrap()).await, "{passing:?}");

        let lost = stage.amid(Action::Create, passing, None, stage.issue()).await;
        assert!(matches!(lost, Err(RegistryError::Uncertain { .. })), "{lost:?}");
        until("Redis is heard again", async || stage.registry.find(&id).await.is_ok()).await;
    }
    // Whatever is on the list works as a whole, or is not there at all.
    let listed = all(&Registry::with_redis(&stage.config, stage.direct.clone())).await.unwrap();
    assert!(listed.iter().all(|record| !record.hashes.is_empty()));
}
