//! The commands. Exit codes: 0 good, 1 failed, 2 wrong usage.

mod admin_token;
pub mod check;
mod healthcheck;
mod limits;
mod serve;
pub mod token;

use std::path::PathBuf;
use std::process::ExitCode;

#[cfg(feature = "demo")]
use crate::demo;
use crate::selftest;
use clap::{CommandFactory, Parser, Subcommand};
use rustls::crypto::aws_lc_rs;

/// A gateway for voice-call APIs: TLS, Bearer tokens, and exact rate limits that all instances share.
#[derive(Parser)]
#[command(name = "callgate", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Try it: a whole gateway with a sample voice-call API behind it, a fresh token, and lines to paste
    #[cfg(feature = "demo")]
    Demo(demo::DemoArgs),
    /// Absent from this build
    #[cfg(not(feature = "demo"))]
    #[command(hide = true, disable_help_flag = true)]
    Demo {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        _arguments: Vec<std::ffi::OsString>,
    },
    /// Serve as a configuration file says
    Serve {
        /// The configuration
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Check a configuration file
    Check {
        /// The configuration
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make, list, show, change, rotate, revoke and import tokens
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Make tokens for the admin listener
    #[command(subcommand)]
    AdminToken(admin_token::AdminTokenCommand),
    /// Look at a token's limits, or clear its log
    #[command(subcommand)]
    Limits(limits::LimitsCommand),
    /// Ask a running instance whether it is ready; for container probes
    Healthcheck(healthcheck::HealthcheckArgs),
    /// Try a Redis: are limits exact on it, how fast is it, what happens when its connections are cut
    Selftest(selftest::SelftestArgs),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Carries out what the command line asks for.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // The first provider stays; nothing else in the process installs one.
    let _ = aws_lc_rs::default_provider().install_default();
    let done = match arguments.command {
        #[cfg(feature = "demo")]
        Command::Demo(args) => on_runtime(demo::run(args)),
        #[cfg(not(feature = "demo"))]
        Command::Demo { .. } => Err(anyhow::anyhow!(
            "this build has no demo: it was built without the default feature `demo`, as images and packages are. \
             From a checkout, `cargo run --release -- demo` runs it"
        )),
        Command::Serve { config } => on_runtime(serve::run(config)),
        Command::Check { file, json } => return check::check(&file, json),
        Command::Token(command) => on_runtime(token::run(command)),
        Command::AdminToken(command) => admin_token::run(command),
        Command::Limits(command) => on_runtime(limits::run(command)),
        Command::Healthcheck(args) => healthcheck::run(&args),
        Command::Selftest(args) => match on_runtime(async { Ok(selftest::run(args).await) }) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Arguments::command(), "callgate", &mut std::io::stdout());
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("callgate: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a command on the main thread's event loop; workers have their own.
fn on_runtime<T>(command: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(command);
    runtime.shutdown_background();
    done
}
