//! The commands. Exit codes: 0 success, 1 failure, 2 wrong usage.

mod admin_client;
mod admin_token;
mod calls;
pub mod check;
mod config_file;
mod confirm;
mod examples;
mod healthcheck;
mod init;
mod limits;
mod quantities;
mod reload;
mod serve;
mod status;
mod table;
pub mod token;

use std::path::PathBuf;
use std::process::ExitCode;

use crate::color::{self, label};
use crate::config;
#[cfg(feature = "demo")]
use crate::demo;
use crate::selftest;
use clap::{ColorChoice, CommandFactory, FromArgMatches, Parser, Subcommand};
use config_file::ConfigFile;
use confirm::Unconfirmed;
use rustls::crypto::aws_lc_rs;

/// As clap's.
const WRONG_USAGE: u8 = 2;

/// A gateway for voice-call APIs: TLS, Bearer tokens, and exact rate limits that all instances share.
#[derive(Parser)]
#[command(name = "callgate", version, arg_required_else_help = true)]
struct Arguments {
    /// When texts have colours. `auto`: on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t = ColorChoice::Auto, hide_possible_values = true)]
    color: ColorChoice,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Try Callgate: starts a gateway with a sample voice-call API and a new token, and prints commands to paste
    #[cfg(feature = "demo")]
    Demo(demo::DemoArgs),
    /// Absent from this build
    #[cfg(not(feature = "demo"))]
    #[command(hide = true, disable_help_flag = true)]
    Demo {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        _arguments: Vec<std::ffi::OsString>,
    },
    /// Write a configuration, a certificate for trial and a first token, by a few questions or flags
    Init(init::InitArgs),
    /// Run the gateway
    Serve {
        #[command(flatten)]
        config: ConfigFile,
        /// Take over from the process that answers at this Unix socket, if there is one, and answer there from then on
        #[arg(long, value_name = "SOCKET")]
        takeover: Option<PathBuf>,
        /// The form of log lines, in place of log.format
        #[arg(long, value_name = "FORMAT")]
        log_format: Option<crate::config::LogFormat>,
    },
    /// Check a configuration file
    Check {
        /// The configuration file, as --config names it
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
        #[command(flatten)]
        config: ConfigFile,
        #[command(flatten)]
        options: check::CheckOptions,
    },
    /// Print the JSON Schema of the configuration file, by which editors complete and check its keys
    Schema {
        /// Print the reference in Markdown
        #[arg(long, hide = true)]
        markdown: bool,
    },
    /// Make, list, show, change, rotate, revoke and import tokens
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Make tokens for the admin listener
    #[command(subcommand)]
    AdminToken(admin_token::AdminTokenCommand),
    /// Show how far a token's limits are used up, or clear its log
    #[command(subcommand)]
    Limits(limits::LimitsCommand),
    /// Show whether a running instance is well: traffic, store, upstreams, certificates. Exit code 1: something is wrong
    Status(status::StatusArgs),
    /// List the open calls of a running instance or of all, or close one
    #[command(subcommand)]
    Calls(calls::CallsCommand),
    /// Let a running instance read its configuration again, without a restart
    Reload(reload::ReloadArgs),
    /// Ask a running instance whether it is ready, for container probes
    Healthcheck(healthcheck::HealthcheckArgs),
    /// Test a Redis: whether limits are exact, how fast it is, and what happens when its connections break
    Selftest(selftest::SelftestArgs),
    /// Print the manual page, in roff
    Man,
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Runs the command line.
pub fn main() -> ExitCode {
    let arguments = Arguments::from_arg_matches(&program().get_matches()).unwrap_or_else(|error| error.exit());
    color::choose(arguments.color);
    // This can only fail if a provider is installed already; nothing else installs one.
    let _ = aws_lc_rs::default_provider().install_default();
    let done = match arguments.command {
        #[cfg(feature = "demo")]
        Command::Demo(args) => on_runtime(demo::run(args)),
        #[cfg(not(feature = "demo"))]
        Command::Demo { .. } => Err(anyhow::anyhow!(
            "this build has no demo: it was built without the default feature `demo`, as images and packages are. \
             From a checkout, `cargo run --release -- demo` runs it"
        )),
        Command::Init(args) => on_runtime(init::run(args)),
        Command::Serve { config, takeover, log_format } => {
            let served = config
                .path()
                .and_then(|config| on_runtime(async { Ok(serve::run(&config, takeover, log_format).await) }));
            match served {
                Ok(code) => return code,
                Err(error) => Err(error),
            }
        }
        Command::Check { file, config, options } => {
            let checked =
                config.path_or(file).and_then(|file| on_runtime(async { Ok(check::check(&file, options).await) }));
            match checked {
                Ok(code) => return code,
                Err(error) => Err(error),
            }
        }
        Command::Schema { markdown } => {
            print!("{}", if markdown { config::reference() } else { config::schema() });
            Ok(())
        }
        Command::Token(command) => on_runtime(token::run(command)),
        Command::AdminToken(command) => admin_token::run(command),
        Command::Limits(command) => on_runtime(limits::run(command)),
        Command::Status(args) => match status::run(&args) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        Command::Calls(command) => calls::run(command),
        Command::Reload(args) => reload::run(&args),
        Command::Healthcheck(args) => healthcheck::run(&args),
        Command::Selftest(args) => match on_runtime(async { Ok(selftest::run(args).await) }) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        Command::Man => manual(&mut std::io::stdout()),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut program(), "callgate", &mut std::io::stdout());
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{} {error:#}", label("error"));
            if error.is::<Unconfirmed>() { ExitCode::from(WRONG_USAGE) } else { ExitCode::FAILURE }
        }
    }
}

/// The command line, with examples.
fn program() -> clap::Command {
    examples::with_examples(Arguments::command())
}

/// One page of all commands.
fn manual(out: &mut dyn std::io::Write) -> anyhow::Result<()> {
    let mut program = program();
    program.build();
    let page = clap_mangen::Man::new(program.clone());
    page.render_title(out)?;
    page.render_name_section(out)?;
    page.render_synopsis_section(out)?;
    page.render_description_section(out)?;
    write_commands(&program, "callgate", out)?;
    writeln!(
        out,
        ".SH ENVIRONMENT\n.TP\nCALLGATE_CONFIG\nThe configuration file, where --config is not given.\n\
         .TP\nCALLGATE_ADMIN\nThe admin listener, where --admin is not given.\n\
         .TP\nCALLGATE_ADMIN_TOKEN\nAn admin token for commands that ask a running instance.\n\
         .SH EXIT STATUS\n0: success, 1: failure, 2: wrong usage.\n\
         .SH FILES\n./callgate.yaml, /etc/callgate/callgate.yaml"
    )?;
    Ok(())
}

/// A section for each command that can be run, with its options.
fn write_commands(command: &clap::Command, path: &str, out: &mut dyn std::io::Write) -> anyhow::Result<()> {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set() && below.get_name() != "help") {
        let path = format!("{path} {}", below.get_name());
        if below.has_subcommands() {
            write_commands(below, &path, out)?;
            continue;
        }
        let page = clap_mangen::Man::new(below.clone());
        writeln!(out, ".SH {}", path.to_uppercase())?;
        writeln!(out, "{}", below.get_about().map(ToString::to_string).unwrap_or_default())?;
        let mut options = Vec::new();
        page.render_options_section(&mut options)?;
        // They belong to the command's own section.
        out.write_all(String::from_utf8_lossy(&options).replacen(".SH OPTIONS\n", "", 1).as_bytes())?;
    }
    Ok(())
}

/// Runs a command on the main thread's event loop; workers have their own.
fn on_runtime<T>(command: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(command);
    runtime.shutdown_background();
    done
}
