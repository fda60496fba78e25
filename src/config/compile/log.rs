//! `log`: what is logged, and in which form.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing_subscriber::filter::Targets;

use crate::config::{Field, LogFile, LogFormat, LogSettings, LogShare, Section, hint};

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
/// Longer than paths and user agents are, unless somebody wants to fill the log.
const MAX_TEXT: usize = 1_024;
const KEPT_FILES: u32 = 5;

pub(super) fn log(field: &Field<'_>) -> LogSettings {
    let s = field.section();
    let formats = [("auto", LogFormat::Auto), ("human", LogFormat::Human), ("json", LogFormat::Json)];
    LogSettings {
        format: s.or("format", LogFormat::Auto, |f| f.choice(&formats)),
        file: s.optional("file", file),
        level: Arc::from(s.or("level", "info".to_owned(), level)),
        access: s.or("access", true, Field::flag),
        max_text: s.or("max_text", MAX_TEXT, |f| f.buffer(64..=16 << 10)),
        success: success(&s).unwrap_or(LogShare::ALL),
    }
}

/// A path, or a path and how the file is rotated.
fn file(field: &Field<'_>) -> Option<LogFile> {
    if !field.is_map() {
        return path(field).map(|path| LogFile { path, max_size: None, keep: KEPT_FILES });
    }
    let s = field.section();
    let place = s.require("path", "for example /var/log/callgate/callgate.log");
    let max_size = s.or("max_size", None, |f| f.or_none(|f| f.size(64 << 10..=1 << 40)));
    let keep = s.or("keep", KEPT_FILES, |f| f.number(0..=1_000));
    if max_size.is_none() && s.get("keep").is_some() {
        s.field_of("keep").error("has no meaning without `max_size` (add `max_size: 100MB`, or remove it)");
    }
    Some(LogFile { path: path(&place?)?, max_size, keep })
}

fn path(field: &Field<'_>) -> Option<PathBuf> {
    let path = field.path_of_file()?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let wrong = if path.is_dir() {
        Some(format!("{} is a folder (name a file in it)", path.display()))
    } else {
        (!folder.is_dir()).then(|| format!("the folder of {} does not exist (make it)", path.display()))
    };
    field.accept(wrong.map_or(Ok(path), Err))
}

/// `sample.success` of `log`, or of the `log` of a route.
pub(super) fn success(s: &Section<'_>) -> Option<LogShare> {
    let sample = s.get("sample")?.section();
    Some(LogShare::new(sample.optional("success", Field::fraction)?))
}

fn level(field: &Field<'_>) -> Option<String> {
    let text = field.text()?;
    field.accept(log_level(&text).map_err(|what| what.replace("TEXT", &field.shown())))
}

/// A filter as `log.level` has it; else what it must be, with `TEXT` in the place of the text. A lone word must be a level: `Targets`
/// would take a misspelt one for the name of a module, and log all of it.
pub(crate) fn log_level(text: &str) -> Result<String, String> {
    let text = text.split(',').map(str::trim).collect::<Vec<_>>().join(",");
    let unknown = text.split(',').find(|part| {
        let is_word = !part.contains('=');
        is_word && !LEVELS.iter().any(|level| level.eq_ignore_ascii_case(part))
    });
    let levels = unknown.map_or_else(String::new, |word| hint(word, LEVELS.into_iter()));
    let is_filter = unknown.is_none() && !text.contains('[') && text.parse::<Targets>().is_ok();
    let what = "must be a level or a filter such as \"info,callgate=debug\"";
    is_filter.then_some(text).ok_or_else(|| format!("{what}, not TEXT{levels}"))
}
