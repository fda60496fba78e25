//! `callgate demo`: a whole gateway with everything it needs, made on the spot and gone afterwards.

mod scene;
pub mod voice;

use std::net::SocketAddr;
use std::time::SystemTime;

use anyhow::{Context, anyhow};
use clap::Args;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::{self, Config};
use crate::tokens::{Actor, Draft, Origin, Registry};

use crate::server::{ExitSignals, Server};
use scene::Scene;

/// What a demo may be told.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Where to serve HTTPS; with a port that is taken, another one is used
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8443")]
    listen: SocketAddr,
    /// Where to serve metrics and health
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9901")]
    admin: SocketAddr,
}

/// Serves until a signal.
///
/// # Errors
/// What could not be set up.
pub async fn run(args: DemoArgs) -> anyhow::Result<()> {
    let signals = ExitSignals::listen()?;
    let upstream = TcpListener::bind(("127.0.0.1", 0)).await.context("starting the sample upstream")?;
    let scene = Scene::set(free(args.listen)?, free(args.admin)?, upstream.local_addr()?)?;
    let loaded = config::load(&scene.config).map_err(|problems| anyhow!("the demo's own configuration\n{problems}"))?;
    let full = make_token(&loaded.config, "demo", &["calls:*"]).await?;
    let reader = make_token(&loaded.config, "demo, read only", &["calls:read"]).await?;

    let stop = CancellationToken::new();
    let upstream_at = upstream.local_addr()?;
    let sample = tokio::spawn(voice::serve(upstream, stop.clone()));
    let server = Server::launch(loaded.config).await?;
    print!("{}", scene.tour(server.https, server.admin, upstream_at, &full, &reader));
    signals.wait().await;
    server.stop().await;
    stop.cancel();
    sample.await.context("the sample upstream panicked")?.context("the sample upstream")
}

/// The address, or the same with a free port when somebody listens there already.
fn free(address: SocketAddr) -> anyhow::Result<SocketAddr> {
    let taken = std::net::TcpListener::bind(address).err();
    match taken {
        None => Ok(address),
        Some(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            eprintln!("callgate: {address} is taken, using a free port instead");
            Ok(SocketAddr::new(address.ip(), 0))
        }
        Some(error) => Err(error).with_context(|| format!("can't listen on {address}")),
    }
}

/// Makes a token as `callgate token create` does; returns its secret.
async fn make_token(config: &Config, name: &str, permissions: &[&str]) -> anyhow::Result<String> {
    let file = config.tokens.file.as_ref().context("the demo's configuration names a token file")?;
    let draft = Draft {
        name: name.to_owned(),
        account: "acme".to_owned(),
        permissions: permissions.iter().map(|permission| (*permission).to_owned()).collect(),
        ..Draft::default()
    };
    let (registry, by) = (Registry::with_file(config, file), Actor::of_this_process());
    let issued = registry.issue(config, draft, Origin::New, None, &by, SystemTime::now()).await?;
    Ok(issued.secret.map_or_else(String::new, |secret| secret.expose().to_owned()))
}
