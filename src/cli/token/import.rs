//! `callgate token import`: reads an export and reports what became of each of its rows.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::args::ImportArgs;
use super::session::Session;
use crate::color::label;
use crate::progress::Progress;
use crate::tokens::{Defaults, Export, Imported, LONGEST_EXPORT};

impl Session<'_> {
    pub(super) async fn import(&mut self, args: ImportArgs) -> anyhow::Result<()> {
        let ImportArgs { export, account, permissions, plan, dry_run } = args;
        let path = export.as_deref().filter(|path| *path != Path::new("-"));
        let name = path.map_or_else(|| "standard input".to_owned(), |path| path.display().to_string());
        let text = read(path).with_context(|| format!("reading {name}"))?;
        let export = Export::read(&text).with_context(|| name.clone())?;
        let defaults = Defaults { account, permissions, plan };
        for column in &export.ignored {
            self.remark(format_args!("note: the column {column:?} is ignored"));
        }
        let progress = Progress::on_terminal();
        progress.step("Importing");
        let count = |done, all| progress.count("Importing", done, all);
        let imported = self.registry.import(self.config, &export, &defaults, dry_run, &self.by, count).await;
        drop(progress);
        let wrong = imported.refused.iter().map(|refused| refused.line).collect::<BTreeSet<u64>>().len();
        self.report_import(&name, &imported, wrong, dry_run);
        if let Some(error) = imported.broken {
            return Err(error).context("the rest was not imported: run the same import again when this is repaired");
        }
        if wrong > 0 {
            bail!("{wrong} of {} rows were not imported", export.len());
        }
        Ok(())
    }

    fn report_import(&mut self, name: &str, imported: &Imported, wrong: usize, dry_run: bool) {
        let Imported { tokens, present, ended, refused, warnings, broken, rewritten } = imported;
        self.remark_on_rewrite(*rewritten);
        for warning in warnings {
            self.remark_for_people(format_args!("{} {warning}", label("warning")));
        }
        for row in refused {
            self.remark_for_people(format_args!("{name}:{}: {}", row.line, row.message));
        }
        for line in ended {
            self.remark_for_people(format_args!("{name}:{line}: left out: the token has expired"));
        }
        let rows = |tokens: &[(u64, String)]| -> Vec<Value> {
            tokens.iter().map(|(line, id)| json!({ "line": line, "id": id })).collect()
        };
        let errors = refused.iter().map(|row| json!({ "line": row.line, "field": row.field, "message": row.message }));
        let json = json!({
            "dry_run": dry_run, "imported": rows(tokens), "present": rows(present), "ended": ended,
            "errors": errors.collect::<Vec<_>>(), "warnings": warnings, "complete": broken.is_none(),
        });
        let done = if dry_run { "to be imported" } else { "imported" };
        let (tokens, present, ended) = (tokens.len(), present.len(), ended.len());
        let text = format!(
            "Tokens {done}: {tokens}. Registered before: {present}. Left out because they have expired: {ended}. Wrong: {wrong}."
        );
        self.print(json, text);
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
        bail!("the export is larger than {} MiB: import it in parts", LONGEST_EXPORT >> 20);
    }
    String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        anyhow::anyhow!("line {line} is not UTF-8")
    })
}
