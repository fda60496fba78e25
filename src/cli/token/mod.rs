//! `callgate token …`: the whole life of tokens, in whichever store the configuration names.

mod args;
mod import;
mod table;
mod view;

use std::io::{self, Write};
use std::path::Path;
use std::time::SystemTime;

use anyhow::Context;
use serde_json::json;

use crate::config::{self, Config, Secret, Store};
use crate::store::Redis;
use crate::tokens::{
    Actor, Change, Draft, Edited, Filter, Origin, Registry, TrailFilter, TrailPage, strange_permissions,
};

pub use args::TokenCommand;
use args::{AuditArgs, Basics, CreateArgs, ListArgs, RevokeArgs, RotateArgs, ShowArgs, SwitchArgs, UpdateArgs};
use view::View;

/// Tokens that are asked for at one time.
const PAGE: usize = 256;

/// Carries out a command, with results on stdout and remarks on stderr.
///
/// # Errors
/// What went wrong and what to do about it, for `exit 1`.
pub async fn run(command: TokenCommand) -> anyhow::Result<()> {
    let config = load(&command.basics().config)?;
    let mut out = Vec::new();
    let mut remarks = Vec::new();
    let result = run_with(&config, command, SystemTime::now(), &mut out, &mut remarks).await;
    // A token that was made must be seen even if a remark can't be.
    io::stdout().write_all(&out).context("writing to stdout")?;
    let _ = io::stderr().write_all(&remarks);
    result
}

/// As [`run`], with a configuration that is loaded already, to any two writers.
///
/// # Errors
/// As [`run`].
pub async fn run_with(
    config: &Config,
    command: TokenCommand,
    now: SystemTime,
    out: &mut dyn Write,
    remarks: &mut dyn Write,
) -> anyhow::Result<()> {
    let json = command.basics().json;
    let mut session =
        Session { config, registry: open(config).await?, now, by: Actor::of_this_process(), json, out, remarks };
    match command {
        TokenCommand::Create(args) => session.create(args).await,
        TokenCommand::Import(args) => session.import(args).await,
        TokenCommand::List(args) => session.list(args).await,
        TokenCommand::Show(args) => session.show(args).await,
        TokenCommand::Update(args) => session.update(args).await,
        TokenCommand::Rotate(args) => session.rotate(args).await,
        TokenCommand::Revoke(args) => session.revoke(args).await,
        TokenCommand::Enable(args) => session.switch(args, true).await,
        TokenCommand::Disable(args) => session.switch(args, false).await,
        TokenCommand::Audit(args) => session.audit(args).await,
    }
}

impl TokenCommand {
    fn basics(&self) -> &Basics {
        match self {
            Self::Create(args) => &args.basics,
            Self::Import(args) => &args.basics,
            Self::List(args) => &args.basics,
            Self::Show(args) => &args.basics,
            Self::Update(args) => &args.basics,
            Self::Rotate(args) => &args.basics,
            Self::Revoke(args) => &args.basics,
            Self::Enable(args) | Self::Disable(args) => &args.basics,
            Self::Audit(args) => &args.basics,
        }
    }
}

/// One command at work.
struct Session<'a> {
    config: &'a Config,
    registry: Registry,
    now: SystemTime,
    by: Actor,
    json: bool,
    out: &'a mut dyn Write,
    remarks: &'a mut dyn Write,
}

impl Session<'_> {
    async fn create(&mut self, args: CreateArgs) -> anyhow::Result<()> {
        let expires_at = args.expires.map(|end| end.from(self.now)).transpose()?;
        let (name, account, permissions) = (args.name, args.account, args.permissions);
        let (plan, limits, concurrent_calls) = (args.plan, args.limits, args.concurrent_calls);
        let draft = Draft { name, account, permissions, plan, limits, concurrent_calls, expires_at };
        let origin = args.sha256.map_or(Origin::New, |hash| Origin::Registered { id: args.id, hash });
        let issued = self.registry.issue(self.config, draft, origin, None, &self.by, self.now).await?;
        let record = &issued.edited.record;
        self.warn_of_permissions(&record.permissions)?;
        self.remark_on_rewrite(&issued.edited)?;
        let view = View::new(self.config, record, issued.edited.version, self.now);
        if self.json {
            writeln!(self.out, "{}", view.as_created(issued.secret.as_ref().map(Secret::expose)))?;
        } else if let Some(secret) = &issued.secret {
            writeln!(self.out, "{}", secret.expose())?;
            writeln!(
                self.remarks,
                "Token {} was made for account {}. Keep it now: it is not shown again.",
                record.id, record.account
            )?;
        } else {
            writeln!(self.out, "Token {} is registered for account {}.", record.id, record.account)?;
        }
        Ok(())
    }

    async fn list(&mut self, args: ListArgs) -> anyhow::Result<()> {
        let (account, name, plan, state) = (args.account, args.name, args.plan, args.state);
        let filter = Filter { account, name, plan, state, permission: args.permission };
        let most = args.limit.map_or(usize::MAX, |limit| limit as usize);
        let (mut tokens, mut after) = (Vec::new(), args.after);
        while tokens.len() < most {
            let count = PAGE.min(most - tokens.len());
            let listing = self.registry.list(self.config, &filter, after.as_deref(), count, self.now).await?;
            tokens.extend(listing.tokens);
            after = listing.next;
            if after.is_none() {
                break;
            }
        }
        let view = |token| View::of_listed(self.config, token, self.now);
        let views: Vec<View<'_>> = tokens.iter().map(view).collect();
        if self.json {
            let tokens: Vec<_> = views.iter().map(View::as_json).collect();
            writeln!(self.out, "{}", json!({ "tokens": tokens, "next": after }))?;
            return Ok(());
        }
        view::write_list(&views, self.out)?;
        if let Some(after) = after {
            writeln!(self.remarks, "More may follow: --after {after}")?;
        }
        Ok(())
    }

    async fn show(&mut self, args: ShowArgs) -> anyhow::Result<()> {
        let found = self.registry.find(self.config, &args.id).await?;
        let view = View::of_found(self.config, &found, self.now);
        if self.json {
            writeln!(self.out, "{}", view.as_json())?;
        } else {
            view.write_sheet(self.out)?;
        }
        Ok(())
    }

    async fn update(&mut self, args: UpdateArgs) -> anyhow::Result<()> {
        let expires_at = args.expires.map(|end| end.from(self.now)).transpose()?;
        let change = Change {
            name: args.name,
            permissions: (args.no_permissions || !args.permissions.is_empty()).then_some(args.permissions),
            plan: (args.default_plan || args.plan.is_some()).then_some(args.plan),
            limits: (args.no_limits || !args.limits.is_empty()).then_some(args.limits),
            concurrent_calls: (args.no_concurrent_calls || args.concurrent_calls.is_some())
                .then_some(args.concurrent_calls),
            expires_at: (args.never_expires || expires_at.is_some()).then_some(expires_at),
        };
        if let Some(permissions) = &change.permissions {
            self.warn_of_permissions(permissions)?;
        }
        let (id, version) = (&args.target.id, args.target.if_version);
        let edited = self.registry.update(self.config, id, change, version, &self.by, self.now).await?;
        let told = if edited.changed { "is changed" } else { "is like that already" };
        self.tell(&edited, told)
    }

    async fn rotate(&mut self, args: RotateArgs) -> anyhow::Result<()> {
        let (id, version) = (&args.target.id, args.target.if_version);
        let rotated = self.registry.rotate(self.config, id, args.grace, version, &self.by, self.now).await?;
        self.remark_on_rewrite(&rotated.edited)?;
        let (id, secret) = (&rotated.edited.record.id, rotated.secret.expose());
        if self.json {
            let (version, until) = (rotated.edited.version, rotated.old_until);
            let answer = json!({ "id": id, "token": secret, "version": version, "old_secret_until": until });
            writeln!(self.out, "{answer}")?;
            return Ok(());
        }
        writeln!(self.out, "{secret}")?;
        let old = match rotated.old_until {
            Some(until) => format!("The old one works until {until}."),
            None => "Old ones have ended.".to_owned(),
        };
        writeln!(self.remarks, "Token {id} has a new secret. Keep it now: it is not shown again. {old}")?;
        Ok(())
    }

    async fn revoke(&mut self, args: RevokeArgs) -> anyhow::Result<()> {
        let Some(account) = &args.account else {
            let id = args.id.as_deref().context("ID or --account is needed")?;
            let edited = self.registry.revoke(id, args.if_version, &self.by, self.now).await?;
            let since = edited.record.revoked_at.map(|date| format!("was revoked already since {date}"));
            let told = if edited.changed { None } else { since };
            return self.tell(&edited, told.as_deref().unwrap_or("is revoked"));
        };
        let revoked = self.registry.revoke_account(account, &self.by, self.now).await?;
        if let Some(first) = revoked.first() {
            self.remark_on_rewrite(first)?;
        }
        if self.json {
            let ids: Vec<&str> = revoked.iter().map(|edited| edited.record.id.as_str()).collect();
            writeln!(self.out, "{}", json!({ "account": account, "revoked": ids }))?;
            return Ok(());
        }
        for Edited { record, .. } in &revoked {
            writeln!(self.out, "Token {} ({}) is revoked.", record.id, record.name)?;
        }
        if revoked.is_empty() {
            writeln!(self.out, "The account {account:?} has no token that is not revoked.")?;
        }
        Ok(())
    }

    async fn switch(&mut self, args: SwitchArgs, on: bool) -> anyhow::Result<()> {
        let (id, version) = (&args.target.id, args.target.if_version);
        let edited = self.registry.switch(id, on, version, &self.by, self.now).await?;
        let state = if on { "enabled" } else { "disabled" };
        let told = if edited.changed { format!("is {state}") } else { format!("was {state} already") };
        self.tell(&edited, &told)
    }

    async fn audit(&mut self, args: AuditArgs) -> anyhow::Result<()> {
        let since = args.since.map(|since| since.before(self.now));
        let (token, account, by, action) = (args.token, args.account, args.by, args.action);
        let filter = TrailFilter { token, account, by, action, since };
        let page = self.registry.trail(&filter, args.before, args.limit as usize, self.now).await?;
        let TrailPage { entries, before } = &page;
        if self.json {
            writeln!(self.out, "{}", json!({ "entries": entries, "next": before }))?;
            return Ok(());
        }
        view::write_trail(entries, self.out)?;
        if let Some(before) = before {
            writeln!(self.remarks, "More may follow: --before {before}")?;
        }
        Ok(())
    }

    /// Tells what became of a token.
    fn tell(&mut self, edited: &Edited, told: &str) -> anyhow::Result<()> {
        self.remark_on_rewrite(edited)?;
        if self.json {
            let mut answer = View::new(self.config, &edited.record, edited.version, self.now).as_json();
            answer["changed"] = edited.changed.into();
            writeln!(self.out, "{answer}")?;
        } else {
            writeln!(self.out, "Token {} ({}) {told}.", edited.record.id, edited.record.name)?;
        }
        Ok(())
    }

    fn warn_of_permissions(&mut self, permissions: &[String]) -> io::Result<()> {
        let remarks = strange_permissions(self.config, permissions);
        remarks.iter().try_for_each(|remark| writeln!(self.remarks, "warning: {remark}"))
    }

    fn remark_on_rewrite(&mut self, edited: &Edited) -> io::Result<()> {
        if edited.rewritten { self.tell_of_rewrite() } else { Ok(()) }
    }

    fn tell_of_rewrite(&mut self) -> io::Result<()> {
        writeln!(
            self.remarks,
            "note: the token file had an unusual layout and was written anew; only the comment at its head was kept"
        )
    }
}

fn load(path: &Path) -> anyhow::Result<Config> {
    // Warnings about the configuration are `callgate check`'s.
    Ok(config::load(path)?.config)
}

async fn open(config: &Config) -> anyhow::Result<Registry> {
    match &config.store {
        Store::Memory => {
            let path =
                config.tokens.file.as_ref().context("tokens.file is not set: name the file that keeps the tokens")?;
            Ok(Registry::with_file(config, path))
        }
        Store::Redis(store) => Ok(Registry::with_redis(Redis::open_for_command(store).await?)),
    }
}
