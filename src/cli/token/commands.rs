//! What each command of `callgate token` does.

use anyhow::Context;
use serde_json::json;

use super::args::{
    AuditArgs, CreateArgs, ListArgs, RevokeArgs, RotateArgs, SelectedToken, ShowArgs, TokenSettings, UpdateArgs,
};
use super::session::Session;
use super::view::{CreatedToken, audit_table, token_json, token_sheet, token_table};
use crate::config::Secret;
use crate::tokens::{Change, Draft, Edited, Filter, Operation, Origin, RevokedAccount, TokenView, TrailFilter};

impl Session<'_> {
    pub(super) async fn create(&mut self, args: CreateArgs) -> anyhow::Result<()> {
        let expires_at = args.settings.expires.map(|end| end.after(self.by.now)).transpose()?;
        let (name, account) = (args.name, args.account);
        let TokenSettings { permissions, plan, limits, concurrent_calls, in_flight, .. } = args.settings;
        let draft = Draft { name, account, permissions, plan, limits, concurrent_calls, in_flight, expires_at };
        let origin = args.sha256.map_or(Origin::New, |hash| Origin::Registered { id: args.id, hash });
        let issued = self.registry.issue(draft, origin, None, &self.by).await?;
        let (record, secret) = (&issued.edited.record, issued.secret.as_ref().map(Secret::expose));
        self.warn_of_permissions(&record.permissions);
        if record.permissions.is_empty() {
            self.warn(
                "the token has no permission, so it can use only routes that ask for none \
                 (`callgate token update ID --permission …` gives it one)",
            );
        }
        self.remark_on_rewrite(issued.edited.rewritten);
        let json = serde_json::to_string(&CreatedToken::new(record, secret, self.default_plan()))?;
        let (id, account) = (&record.id, &record.account);
        match secret {
            Some(secret) => {
                self.print(json, secret);
                self.remark_for_people(format_args!(
                    "Token {id} was created for account {account}. Save it now: it is not shown again."
                ));
            }
            None => self.print(json, format_args!("Token {id} is registered for account {account}.")),
        }
        Ok(())
    }

    /// Lists what `revoke --account` would revoke.
    async fn would_revoke(&mut self, account: &str) -> anyhow::Result<()> {
        let filter = Filter { account: Some(account.to_owned()), ..Filter::default() };
        let page = self.registry.list(&filter, None, usize::MAX, self.by.now).await?;
        let tokens: Vec<_> = page.tokens.iter().filter(|token| token.record.revoked_at.is_none()).collect();
        let ids: Vec<&str> = tokens.iter().map(|token| token.record.id.as_str()).collect();
        let json = json!({ "account": account, "would_revoke": ids });
        let lines =
            tokens.iter().map(|token| format!("Token {} ({}) would be revoked.", token.record.id, token.record.name));
        let text = match &lines.collect::<Vec<_>>()[..] {
            [] => format!("The account {account:?} has no token that is not revoked."),
            lines => lines.join("\n"),
        };
        self.print(json, text);
        Ok(())
    }

    pub(super) async fn list(&mut self, args: ListArgs) -> anyhow::Result<()> {
        let ListArgs { account, name, plan, state, permission, limit, mut after } = args;
        let filter = Filter { account, name, plan, state, permission };
        let max = limit.map_or(usize::MAX, |limit| limit as usize);
        let mut listed = Vec::new();
        while listed.len() < max {
            let page = self.registry.list(&filter, after.as_deref(), max - listed.len(), self.by.now).await?;
            listed.extend(page.tokens);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let plan = self.default_plan();
        let tokens: Vec<_> = listed.iter().map(|listed| TokenView::of_listed(listed, self.by.now)).collect();
        let json: Vec<_> = tokens.iter().map(|token| token_json(token, plan)).collect();
        self.print(json!({ "tokens": json, "next": after }), token_table(&tokens, plan).trim_end());
        if let Some(after) = after {
            self.remark_for_people(format_args!("For more, add: --after {after}"));
        }
        Ok(())
    }

    pub(super) async fn show(&mut self, args: ShowArgs) -> anyhow::Result<()> {
        let found = self.registry.find(&args.id).await?;
        let (token, plan) = (TokenView::of_found(&found, self.by.now), self.default_plan());
        self.print(token_json(&token, plan), token_sheet(&token, plan, self.by.now).trim_end());
        Ok(())
    }

    pub(super) async fn update(&mut self, args: UpdateArgs) -> anyhow::Result<()> {
        let TokenSettings { permissions, plan, limits, concurrent_calls, in_flight, expires } = args.settings;
        let expires_at = expires.map(|end| end.after(self.by.now)).transpose()?;
        let change = Change {
            name: args.name,
            permissions: (args.no_permissions || !permissions.is_empty()).then_some(permissions),
            plan: (args.default_plan || plan.is_some()).then_some(plan),
            limits: (args.no_limits || !limits.is_empty()).then_some(limits),
            concurrent_calls: (args.no_concurrent_calls || concurrent_calls.is_some()).then_some(concurrent_calls),
            in_flight: (args.no_in_flight || in_flight.is_some()).then_some(in_flight),
            expires_at: (args.never_expires || expires_at.is_some()).then_some(expires_at),
        };
        if let Some(permissions) = &change.permissions {
            self.warn_of_permissions(permissions);
        }
        let SelectedToken { id, if_version } = &args.token;
        let edited = self.registry.update(id, change, *if_version, &self.by).await?;
        self.report(&edited, if edited.changed { "is changed" } else { "is like that already" }).await;
        Ok(())
    }

    pub(super) async fn rotate(&mut self, args: RotateArgs) -> anyhow::Result<()> {
        let SelectedToken { id, if_version } = &args.token;
        let rotated = self.registry.rotate(id, args.grace, *if_version, &self.by).await?;
        self.remark_on_rewrite(rotated.edited.rewritten);
        self.remark_on_replicas([&**id]).await;
        let (secret, version, until) = (rotated.secret.expose(), rotated.edited.version, rotated.old_until);
        let json = json!({ "id": id, "token": secret, "version": version, "old_secret_until": until });
        self.print(json, secret);
        let old = match until {
            Some(until) => format!("The old one works until {until}."),
            None => "Old ones no longer work.".to_owned(),
        };
        self.remark_for_people(format_args!("Token {id} has a new secret. Save it now: it is not shown again. {old}"));
        Ok(())
    }

    pub(super) async fn revoke(&mut self, args: RevokeArgs) -> anyhow::Result<()> {
        let Some(account) = &args.account else {
            let id = args.id.as_deref().context("ID or --account is needed")?;
            let edited = self.registry.operate(id, Operation::Revoke, args.if_version, &self.by).await?;
            let before = edited.record.revoked_at.filter(|_| !edited.changed);
            let text = before.map_or("is revoked".to_owned(), |date| format!("was revoked already on {date}"));
            self.report(&edited, &text).await;
            return Ok(());
        };
        if args.dry_run {
            return self.would_revoke(account).await;
        }
        let RevokedAccount { tokens: revoked, lost } = self.registry.revoke_account(account, &self.by).await?;
        self.remark_on_rewrite(revoked.first().is_some_and(|first| first.rewritten));
        self.remark_on_replicas(revoked.iter().map(|edited| &*edited.record.id)).await;
        let ids: Vec<&str> = revoked.iter().map(|edited| edited.record.id.as_str()).collect();
        let lines =
            revoked.iter().map(|Edited { record, .. }| format!("Token {} ({}) is revoked.", record.id, record.name));
        let text = match &lines.collect::<Vec<_>>()[..] {
            [] if lost > 0 => format!("No record that Redis still has is of the account {account:?} and not revoked."),
            [] => format!("The account {account:?} has no token that is not revoked."),
            lines => lines.join("\n"),
        };
        let mut json = json!({ "account": account, "revoked": ids });
        if lost > 0 {
            json["lost"] = lost.into();
            self.warn(format_args!(
                "Redis has lost the records of {lost} listed tokens, of this or other accounts; they do not work"
            ));
        }
        self.print(json, text);
        Ok(())
    }

    pub(super) async fn switch(&mut self, token: SelectedToken, on: bool) -> anyhow::Result<()> {
        let operation = if on { Operation::Enable } else { Operation::Disable };
        let edited = self.registry.operate(&token.id, operation, token.if_version, &self.by).await?;
        let state = if on { "enabled" } else { "disabled" };
        self.report(&edited, &if edited.changed { format!("is {state}") } else { format!("was {state} already") })
            .await;
        Ok(())
    }

    pub(super) async fn audit(&mut self, args: AuditArgs) -> anyhow::Result<()> {
        let AuditArgs { token, account, by, action, since, limit, before } = args;
        let filter = TrailFilter { token, account, by, action, since: since.map(|since| since.before(self.by.now)) };
        let page = self.registry.trail(&filter, before, limit as usize, self.by.now).await?;
        self.print(json!({ "entries": page.entries, "next": page.before }), audit_table(&page.entries).trim_end());
        if let Some(before) = page.before {
            self.remark_for_people(format_args!("For more, add: --before {before}"));
        }
        Ok(())
    }

    /// Prints what became of a token.
    async fn report(&mut self, edited: &Edited, what: &str) {
        self.remark_on_rewrite(edited.rewritten);
        self.remark_on_replicas([&*edited.record.id]).await;
        let Edited { record, version, changed, .. } = edited;
        let mut json = token_json(&TokenView::new(record, *version, self.by.now), self.default_plan());
        json["changed"] = (*changed).into();
        self.print(json, format_args!("Token {} ({}) {what}.", record.id, record.name));
    }
}
