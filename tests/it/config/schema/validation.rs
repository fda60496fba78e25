//! Another validator finds the form of good files good, and that of bad files bad.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::*;

/// Files in `tests/config/bad` that have the right form, and what only the compiler can see.
const COMPILER_ONLY: &str = include_str!("compiler_only.txt");

/// What Python's jsonschema says: for each of the documents on standard input, whether it has the form.
const VALIDATE: &str = "\
import json, sys
from jsonschema import Draft7Validator
given = json.load(sys.stdin)
Draft7Validator.check_schema(given['schema'])
# In ECMAScript `$` is the end of the text, in Python also the place before a last line break.
def exact(schema):
    if isinstance(schema, list):
        return [exact(item) for item in schema]
    if isinstance(schema, dict):
        return {key: exact(value) for key, value in schema.items()}
    return schema[:-1] + r'\\Z' if isinstance(schema, str) and schema.endswith('$') else schema
validator = Draft7Validator(exact(given['schema']))
def said(document):
    return [f'{list(error.absolute_path)}: {error.message[:300]}' for error in validator.iter_errors(document)]
json.dump([said(document) for document in given['documents']], sys.stdout)
";

/// The faults of form of each document; an empty list for a good one.
fn faults(documents: &[Value]) -> Vec<Vec<String>> {
    let mut python = Command::new("/usr/bin/python3")
        .args(["-c", VALIDATE])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let given = json!({ "schema": schema(), "documents": documents });
    python.stdin.take().unwrap().write_all(given.to_string().as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success(), "python3-jsonschema is needed; `tests/run` installs it");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn good_files_have_the_form() {
    let mut files: Vec<(String, String)> = ["config/minimal.yaml", "deploy/compose/callgate.yaml"]
        .map(|path| (path.to_owned(), fs::read_to_string(path).unwrap()))
        .into();
    files.push(("config/callgate.yaml".to_owned(), SHIPPED.to_owned()));
    files.push(("config/callgate.yaml, all keys switched on".to_owned(), switched_on()));
    files.push(("other forms".to_owned(), OTHER_FORMS.to_owned()));
    let documents: Vec<Value> =
        files.iter().map(|(name, text)| document(text).unwrap_or_else(|| panic!("{name}"))).collect();
    for ((name, _), faults) in files.iter().zip(faults(&documents)) {
        assert!(faults.is_empty(), "{name}: {faults:#?}");
    }
    good(OTHER_FORMS);
}

/// Forms that the shipped file only mentions.
const OTHER_FORMS: &str = r##"
listen:
  http: { address: "0.0.0.0:8080", https_from: 10.0.0.0/8 }
  admin: { address: "unix:/run/admin.sock", mode: 0660 }
  max_connections: ${MAX_CONNECTIONS:-100}
  max_head_bytes: 65536
tls: { certificates: [{ cert: a.pem, key: a.key }], min_version: 1.3 }
store:
  redis:
    sentinel: { service: mymaster, nodes: ["redis://10.0.0.5", "redis://10.0.0.6"] }
    username: callgate
    password: secret
limits: { headers: [] }
plans: { standard: { limits: {} } }
trusted_proxies: ["10.0.0.0/8", "::1"]
log: { level: "info,callgate=debug" }
drain: { delay: 0 }
runtime:
routes:
  - path: /a/{id}
    host: [api.example.com, "*.example.com", "[::1]"]
    methods: GET
    rewrite: "/b/{id}"
    permission: [a, "b:c"]
    upstream: { a: 95, b: 5 }
    timeout: 5s
    max_body: 10 MB
    min_upload_rate: none
    cors: { origins: "*" }
  - { path: "/{*rest}", auth: none, upstream: c }
upstreams:
  a:
    endpoints: [{ url: "http://10.0.0.1", weight: 3 }, { url: "unix:/run/a.sock", backup: true }]
    balance: { hash: { header: x-call-id } }
    health: none
    ejection: none
    max_requests: none
  b:
    endpoints: ["http://[::1]:80"]
    protocol: http2
    balance: { hash: token }
    health: { grpc: true, interval: 1m30s }
  c:
    endpoints: ["https://api.internal"]
    health: { path: "/a?b", status: [204, 300-399] }
    retry: { on: [] }
"##;

#[test]
fn bad_files_lack_the_form_except_where_only_the_compiler_can_see() {
    let mut listed: BTreeSet<&str> =
        COMPILER_ONLY.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let mut files: Vec<(String, PathBuf)> = fs::read_dir(bad_files())
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), path))
        .collect();
    files.sort();
    let texts = files.iter().map(|(name, path)| (name, path, fs::read_to_string(path).unwrap_or_default()));
    let readable: Vec<_> = texts.filter_map(|(name, path, text)| Some((name, path, document(&text)?))).collect();
    let documents: Vec<Value> = readable.iter().map(|(_, _, document)| document.clone()).collect();
    let mut wrong = Vec::new();
    for ((name, path, _), faults) in readable.iter().zip(faults(&documents)) {
        let is_listed = listed.remove(name.as_str());
        let is_bad = config::load(path).is_err();
        match (is_bad, faults.is_empty(), is_listed) {
            (true, true, false) => wrong.push(format!(
                "{name} has a fault that the schema does not see: give the key a narrower form in src/config/schema/, or \
                 list it in tests/it/config/schema/compiler_only.txt under the reason"
            )),
            (false, false, _) => wrong.push(format!("{name} only causes warnings, but the schema refuses it: {faults:?}")),
            (_, false, true) | (false, true, true) => {
                wrong.push(format!("{name} need not be in tests/it/config/schema/compiler_only.txt (remove it)"));
            }
            (true, false, false) | (true, true, true) | (false, true, false) => {}
        }
    }
    wrong.extend(listed.iter().map(|name| format!("{name} in compiler_only.txt is no YAML or no file (remove it)")));
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert!(readable.len() > 200, "{} files", readable.len());
}
