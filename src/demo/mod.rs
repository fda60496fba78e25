//! `callgate demo`: a complete gateway with a sample API behind it, created on start and removed at the end.

mod files;
pub mod voice;

use std::net::SocketAddr;
use std::time::SystemTime;

use anyhow::{Context, anyhow};
use clap::Args;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::{self, Config};
use crate::server::{End, ExitSignals, LaunchOptions, Server};
use crate::tokens::{ActionContext, Actor, Draft, Origin, Registry};

use files::DemoFiles;

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Address for HTTPS; if its port is in use, a free one is chosen
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8443")]
    listen: SocketAddr,
    /// Address for metrics and health; if its port is in use, a free one is chosen
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9901")]
    admin: SocketAddr,
}

/// Serves until a signal.
pub(crate) async fn run(args: DemoArgs) -> anyhow::Result<()> {
    let mut signals = ExitSignals::listen()?;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("can't start the sample upstream")?;
    let upstream = listener.local_addr()?;
    let files = DemoFiles::create(free_address(args.listen)?, free_address(args.admin)?, upstream)?;
    let (loaded, watched) = config::load_with_files(&files.config);
    let loaded = loaded.map_err(|problems| anyhow!("the demo's own configuration\n{problems}"))?;
    let full = create_token(&loaded.config, "demo", "calls:*").await?;
    let read_only = create_token(&loaded.config, "demo, read only", "calls:read").await?;

    let stop = CancellationToken::new();
    let voice = tokio::spawn(voice::serve(listener, stop.clone()));
    let server = Server::launch(loaded.config, watched, LaunchOptions::default()).await?;
    print!("{}", files.instructions(server.https, &server.admin, upstream, [&full, &read_only]));
    signals.next().await;
    server.stop(End::Signal, signals).await;
    stop.cancel();
    voice.await.context("the sample upstream panicked")
}

/// The address itself, or with port 0 if its port is in use.
fn free_address(address: SocketAddr) -> anyhow::Result<SocketAddr> {
    match std::net::TcpListener::bind(address) {
        Ok(_) => Ok(address),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            eprintln!("callgate: {address} is in use; a free port is used instead");
            Ok(SocketAddr::new(address.ip(), 0))
        }
        Err(error) => Err(error).with_context(|| format!("can't listen on {address}")),
    }
}

/// Creates a token as `callgate token create` does, and returns its secret.
async fn create_token(config: &Config, name: &str, permission: &str) -> anyhow::Result<String> {
    let file = config.tokens.file.as_ref().context("the demo's configuration names a token file")?;
    let (name, account, permissions) = (name.to_owned(), "acme".to_owned(), vec![permission.to_owned()]);
    let draft = Draft { name, account, permissions, ..Draft::default() };
    let by = ActionContext { actor: Actor::of_this_process(), now: SystemTime::now() };
    let issued = Registry::with_file(config, file).issue(draft, Origin::New, None, &by).await?;
    Ok(issued.secret.map_or_else(String::new, |secret| secret.expose().to_owned()))
}
