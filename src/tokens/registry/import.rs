//! An export taken over: what is right with it is registered, and of everything else it is said why not.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::time::SystemTime;

use super::{Registry, TokenStore, blocking};
use crate::config::Config;
use crate::tokens::audit::ActionContext;
use crate::tokens::date::Date;
use crate::tokens::error::RegistryError;
use crate::tokens::import::{Defaults, Export, ImportRow, Row};
use crate::tokens::outcome::ImportOutcome;
use crate::tokens::permission::strange_permissions;
use crate::tokens::record::Record;
use crate::tokens::token::TokenHash;

/// Records written at one time.
const CHUNK: usize = 256;

/// What became of an export. Places are those of [`Refused::line`].
#[derive(Debug, Default)]
pub struct Imported {
    /// The tokens that are registered now, or would be: places and ids.
    pub tokens: Vec<(u64, String)>,
    /// Those that were registered before, which stay as they are.
    pub present: Vec<(u64, String)>,
    /// Those whose time is over, which are left out.
    pub ended: Vec<u64>,
    /// What is wrong, in the order of the export.
    pub refused: Vec<Refused>,
    /// Permissions that no route asks for: they may be mistyped.
    pub warnings: Vec<String>,
    /// Whether a token file was written anew, so that comments between its tokens are gone.
    pub rewritten: bool,
    /// Why the rest was not looked at, if that is so: `tokens` tells what was done before.
    pub broken: Option<RegistryError>,
}

/// One thing that is wrong with a row.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused {
    /// Where: of CSV and of JSON lines the line, of a JSON list the place in it, from 1.
    pub line: u64,
    /// The column, if it is one.
    pub field: Option<&'static str>,
    /// What is wrong and what would be right.
    pub message: String,
}

impl Registry {
    /// Registers all tokens of an export that can be; with `dry_run` it only says what it would do. Done again, it does what is left.
    /// `progress` is told how many of how many are done.
    pub async fn import(
        &self,
        config: &Config,
        export: &Export,
        defaults: &Defaults,
        dry_run: bool,
        by: &ActionContext,
        progress: impl Fn(usize, usize),
    ) -> Imported {
        let mut imported = Imported::default();
        let records = self.check(export, defaults, by.now, &mut imported);
        let held: BTreeSet<&String> = records.iter().flat_map(|(_, record)| &record.permissions).collect();
        imported.warnings = strange_permissions(config, &held.into_iter().cloned().collect::<Vec<_>>());
        match &self.store {
            TokenStore::File(file) => {
                let (lines, records): (Vec<u64>, Vec<Record>) = records.into_iter().unzip();
                let by = by.clone();
                match blocking(file, move |file| file.import(records, dry_run, &by)).await {
                    Ok((outcomes, rewritten)) => {
                        imported.rewritten = rewritten;
                        lines.into_iter().zip(outcomes).for_each(|(line, outcome)| imported.note(line, outcome));
                    }
                    Err(error) => imported.broken = Some(error),
                }
            }
            TokenStore::Redis(tokens) => {
                for (index, chunk) in records.chunks(CHUNK).enumerate() {
                    progress(index * CHUNK, records.len());
                    let records: Vec<&Record> = chunk.iter().map(|(_, record)| record).collect();
                    match tokens.import(&records, dry_run, by).await {
                        Ok(outcomes) => {
                            chunk.iter().zip(outcomes).for_each(|((line, _), outcome)| imported.note(*line, outcome));
                        }
                        Err(error) => {
                            imported.broken = Some(error);
                            break;
                        }
                    }
                }
            }
        }
        imported.refused.sort_by_key(|refused| refused.line);
        imported
    }

    /// The records that can be registered, with their places.
    fn check(
        &self,
        export: &Export,
        defaults: &Defaults,
        now: SystemTime,
        imported: &mut Imported,
    ) -> Vec<(u64, Record)> {
        let (mut records, mut seen) = (Vec::new(), HashMap::<TokenHash, u64>::new());
        for Row { line, fields } in &export.rows {
            let mut refuse = |field, message| imported.refused.push(Refused { line: *line, field, message });
            let fields = match fields {
                Ok(fields) => fields,
                Err(why) => {
                    refuse(None, why.clone());
                    continue;
                }
            };
            let record = ImportRow::read(fields, defaults).and_then(|wanted| {
                let ImportRow { draft, hash, id, created_at, enabled } = wanted;
                if draft.expires_at.is_some_and(|end| Date::new(end).time() <= now) {
                    return Ok(None);
                }
                let mut record = draft.into_record(&self.plans, id, hash, now)?;
                record.enabled = enabled;
                record.created_at = created_at.filter(|date| date.time() <= now).or(record.created_at);
                Ok(Some((record, hash)))
            });
            match record {
                Ok(None) => imported.ended.push(*line),
                Ok(Some((record, hash))) => match seen.entry(hash) {
                    Entry::Vacant(first) => {
                        first.insert(*line);
                        records.push((*line, record));
                    }
                    Entry::Occupied(first) => {
                        refuse(Some("sha256"), format!("is the token of line {} once more", first.get()));
                    }
                },
                Err(faults) => faults.into_iter().for_each(|fault| refuse(Some(fault.field), fault.message)),
            }
        }
        records
    }
}

impl Imported {
    fn note(&mut self, line: u64, outcome: ImportOutcome) {
        match outcome {
            ImportOutcome::Written(id) => self.tokens.push((line, id)),
            ImportOutcome::Present(id) => self.present.push((line, id)),
            ImportOutcome::Taken(id) => {
                let message = format!("another token has the id {id} already");
                self.refused.push(Refused { line, field: Some("callgate_id"), message });
            }
        }
    }
}
