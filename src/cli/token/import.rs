//! `callgate token import`: an export is read, and what became of each of its lines is told.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, bail};
use serde_json::json;

use super::Session;
use super::args::ImportArgs;
use crate::tokens::{Defaults, Export, Imported, LONGEST_EXPORT};

impl Session<'_> {
    pub(super) async fn import(&mut self, args: ImportArgs) -> anyhow::Result<()> {
        let named = args.export.as_deref().filter(|path| *path != Path::new("-"));
        let name = named.map_or_else(|| "standard input".to_owned(), |path| path.display().to_string());
        let text = read(named).with_context(|| format!("reading {name}"))?;
        let export = Export::read(&text).with_context(|| name.clone())?;
        let defaults = Defaults { account: args.account, permissions: args.permissions, plan: args.plan };
        for column in &export.ignored {
            writeln!(self.remarks, "note: the column {column:?} is ignored")?;
        }
        let imported = self.registry.import(self.config, &export, &defaults, args.dry_run, &self.by, self.now).await;
        self.tell_of_import(&name, &imported, args.dry_run)?;
        if let Some(error) = imported.broken {
            return Err(error).context("the rest was not imported: do the same again when this is mended");
        }
        let wrong: BTreeSet<u64> = imported.refused.iter().map(|refused| refused.line).collect();
        if !wrong.is_empty() {
            bail!("{} of {} lines were not imported", wrong.len(), export.len());
        }
        Ok(())
    }

    fn tell_of_import(&mut self, name: &str, imported: &Imported, dry_run: bool) -> anyhow::Result<()> {
        let Imported { tokens, present, ended, refused, .. } = imported;
        if imported.rewritten {
            self.tell_of_rewrite()?;
        }
        if self.json {
            let pairs = |tokens: &[(u64, String)]| -> Vec<_> {
                tokens.iter().map(|(line, id)| json!({ "line": line, "id": id })).collect()
            };
            let errors: Vec<_> = refused
                .iter()
                .map(|one| json!({ "line": one.line, "field": one.field, "message": one.message }))
                .collect();
            let answer = json!({
                "dry_run": dry_run, "imported": pairs(tokens), "present": pairs(present), "ended": ended, "errors": errors,
                "warnings": imported.warnings, "complete": imported.broken.is_none(),
            });
            writeln!(self.out, "{answer}")?;
            return Ok(());
        }
        for warning in &imported.warnings {
            writeln!(self.remarks, "warning: {warning}")?;
        }
        for one in refused {
            writeln!(self.remarks, "{name}:{}: {}", one.line, one.message)?;
        }
        for line in ended {
            writeln!(self.remarks, "{name}:{line}: its time is over: left out")?;
        }
        let done = if dry_run { "to be imported" } else { "imported" };
        let wrong: BTreeSet<u64> = refused.iter().map(|refused| refused.line).collect();
        let (tokens, present, ended, wrong) = (tokens.len(), present.len(), ended.len(), wrong.len());
        writeln!(
            self.out,
            "Tokens {done}: {tokens}. There already: {present}. Left out because they have ended: {ended}. Wrong: {wrong}."
        )?;
        Ok(())
    }
}

/// The whole export.
fn read(path: Option<&Path>) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    match path {
        None => io::stdin().lock().take(LONGEST_EXPORT + 1).read_to_end(&mut bytes)?,
        Some(path) => File::open(path)?.take(LONGEST_EXPORT + 1).read_to_end(&mut bytes)?,
    };
    if bytes.len() as u64 > LONGEST_EXPORT {
        bail!("it is larger than {} MiB: import it in parts", LONGEST_EXPORT >> 20);
    }
    String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        anyhow::anyhow!("line {line} is not UTF-8")
    })
}
