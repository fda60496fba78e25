//! What `callgate init` writes.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::questions::Answers;
use crate::certificates::TrialCertificate;

pub(super) const CONFIGURATION: &str = "callgate.yaml";
const TOKENS: &str = "tokens.yaml";
const REDIS_URL: &str = "redis-url";

/// The files, none of them written yet.
pub(super) struct InitFiles {
    files: Vec<NewFile>,
    /// Whether the first token is kept in a file.
    has_token_file: bool,
}

struct NewFile {
    name: &'static str,
    text: String,
    mode: u32,
}

impl InitFiles {
    pub(super) fn new(answers: &Answers) -> anyhow::Result<Self> {
        let names = answers.domains.iter().cloned().chain(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
        let mut names: Vec<String> = names.collect();
        names.dedup();
        let trial = TrialCertificate::new(names).context("can't make a certificate (--domain)")?;
        let is_secret = answers.redis.as_ref().is_some_and(|url| url.contains('@'));
        let store = match &answers.redis {
            None => "# Tokens and limits of this process alone. With several instances, name a Redis instead:\n\
                     # store: { redis: { url: \"redis://127.0.0.1:6379\" } }\n\
                     store: memory\ntokens: { file: tokens.yaml }\n"
                .to_owned(),
            Some(_) if is_secret => store_of(&format!("file:{REDIS_URL}")),
            Some(url) => store_of(url),
        };
        let file = |name, text: String, mode: u32| NewFile { name, text, mode };
        let mut files = vec![
            file(CONFIGURATION, configuration(answers, &store), 0o644),
            file("cert.pem", trial.cert, 0o644),
            file("key.pem", trial.key, 0o600),
        ];
        files
            .extend(answers.redis.as_ref().filter(|_| is_secret).map(|url| file(REDIS_URL, format!("{url}\n"), 0o600)));
        Ok(Self { files, has_token_file: answers.redis.is_none() })
    }

    /// Writes all of them or none; returns those that were there.
    pub(super) fn write(&self, folder: &Path, force: bool) -> anyhow::Result<Vec<PathBuf>> {
        let is_there = |name: &&str| folder.join(name).exists();
        let mut there: Vec<&str> = self.files.iter().map(|file| file.name).filter(is_there).collect();
        if !force {
            // Tokens that somebody uses are never replaced: with --force the first one is added to them.
            there.extend(Some(TOKENS).filter(|name| self.has_token_file && is_there(name)));
            if !there.is_empty() {
                let (folder, list) = (folder.display(), there.join(", "));
                bail!("nothing was written, because {folder} has already: {list} (--force replaces all but tokens)");
            }
        }
        fs::create_dir_all(folder).with_context(|| format!("can't make the folder {}", folder.display()))?;
        for file in &self.files {
            let path = folder.join(file.name);
            file.write(&path).with_context(|| format!("can't write {}", path.display()))?;
        }
        Ok(there.into_iter().map(|name| folder.join(name)).collect())
    }
}

impl NewFile {
    /// In the place of what may be there, and with this mode from its first byte on.
    fn write(&self, path: &Path) -> std::io::Result<()> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{:x}", fastrand::u32(..)));
        let temporary = path.with_file_name(name);
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(self.mode).open(&temporary)?;
        let written = file.write_all(self.text.as_bytes()).and_then(|()| fs::rename(&temporary, path));
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written
    }
}

fn store_of(url: &str) -> String {
    format!(
        "# Tokens and limits, shared by all instances. While Redis does not answer, each instance decides by\n# what it knows.\n\
         store: {{ redis: {{ url: {}, on_failure: local }} }}\n",
        quoted(url)
    )
}

fn configuration(answers: &Answers, store: &str) -> String {
    let Answers { upstream, path, listen, .. } = answers;
    let (listen, upstream) = (quoted(listen), quoted(upstream));
    let rest = quoted(&format!("{}/{{*rest}}", path.trim_end_matches('/')));
    format!(
        r#"# The configuration of Callgate. `callgate check` reports what is wrong with it. A running instance
# notices changes, and puts them into force.

listen:
  https: {listen}
  # The console, the admin API and metrics, for this machine only.
  admin: "127.0.0.1:9901"

# A certificate for trial, which clients trust only if they are told to (curl --cacert). Replace both
# files by your own.
tls:
  certificates: [{{ cert: cert.pem, key: key.pem }}]

{store}
# Limits of each token: exact over every window of this length. Tokens that name no plan have the
# default one.
plans:
  standard: {{ limits: {{ minute: 60/1m, hour: 1000/1h }} }}
default_plan: standard

# Requests need a good token, and its permission where one is named:
#   - {{ path: /api/v1/calls, methods: [POST], permission: "calls:write", upstream: api }}
routes:
  - {{ path: {rest}, upstream: api }}

upstreams:
  api: {{ endpoints: [{upstream}] }}
"#
    )
}

/// A text as YAML takes it whatever is in it.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            // `${VAR}` is replaced.
            '$' => quoted.push_str("$$"),
            c if c.is_control() => {}
            c => quoted.push(c),
        }
    }
    quoted + "\""
}
