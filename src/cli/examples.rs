//! Examples at the end of every help text.

use clap::Command;

/// By the words of the command.
const EXAMPLES: &[(&str, &[&str])] = &[
    ("", &["callgate demo", "callgate init --upstream http://127.0.0.1:3000", "callgate serve"]),
    ("demo", &["callgate demo", "callgate demo --listen 127.0.0.1:9443"]),
    (
        "init",
        &[
            "callgate init --upstream http://127.0.0.1:3000 --account acme",
            "callgate init /etc/callgate --domain api.example.com --redis redis://127.0.0.1:6379 --yes",
        ],
    ),
    (
        "serve",
        &["callgate serve", "callgate serve -c /etc/callgate/callgate.yaml --takeover /run/callgate/takeover.sock"],
    ),
    ("check", &["callgate check", "callgate check new.yaml --online", "callgate check --strict --json"]),
    ("schema", &["callgate schema > callgate.schema.json"]),
    ("token", &["callgate token create --name dialler --account acme --permission 'calls:*'", "callgate token list"]),
    (
        "token create",
        &[
            "callgate token create --name dialler --account acme --permission 'calls:*' --expires 90d",
            "callgate token create --name big --account acme --permission calls:read --limit minute=600/1m",
        ],
    ),
    (
        "token import",
        &[
            "callgate token import personal_access_tokens.csv --dry-run",
            "callgate token import tokens.json --plan standard",
        ],
    ),
    ("token list", &["callgate token list --account acme", "callgate token list --state active --json"]),
    ("token show", &["callgate token show AnqsnuNNv42R"]),
    (
        "token update",
        &["callgate token update AnqsnuNNv42R --plan enterprise", "callgate token update AnqsnuNNv42R --no-limits"],
    ),
    (
        "token rotate",
        &["callgate token rotate AnqsnuNNv42R --grace 24h", "callgate token rotate AnqsnuNNv42R --grace 0 --yes"],
    ),
    ("token revoke", &["callgate token revoke AnqsnuNNv42R", "callgate token revoke --account acme --dry-run"]),
    ("token enable", &["callgate token enable AnqsnuNNv42R"]),
    ("token disable", &["callgate token disable AnqsnuNNv42R"]),
    ("token audit", &["callgate token audit --since 7d", "callgate token audit --token AnqsnuNNv42R --json"]),
    ("admin-token", &["callgate admin-token create --name ops --role write"]),
    ("admin-token create", &["callgate admin-token create --name prometheus --role read"]),
    ("limits", &["callgate limits peek AnqsnuNNv42R"]),
    ("limits peek", &["callgate limits peek AnqsnuNNv42R", "callgate limits peek AnqsnuNNv42R --json"]),
    ("limits reset", &["callgate limits reset AnqsnuNNv42R", "callgate limits reset AnqsnuNNv42R --yes"]),
    ("status", &["callgate status", "callgate status --admin unix:/run/callgate/admin.sock --json"]),
    ("calls", &["callgate calls list --all", "callgate calls end CALL-ID --reason maintenance"]),
    ("calls list", &["callgate calls list --all", "callgate calls list --account acme --json"]),
    ("calls end", &["callgate calls end CALL-ID --reason maintenance"]),
    ("reload", &["callgate reload", "CALLGATE_ADMIN_TOKEN=… callgate reload --admin https://gate.internal:9901"]),
    ("healthcheck", &["callgate healthcheck", "callgate healthcheck --admin 127.0.0.1:9902 --path /livez"]),
    ("selftest", &["callgate selftest --redis redis://127.0.0.1:6379", "callgate selftest -c callgate.yaml --json"]),
    ("completions", &["callgate completions bash > /etc/bash_completion.d/callgate"]),
    ("man", &["callgate man | man -l -", "callgate man > /usr/share/man/man1/callgate.1"]),
];

/// Adds them to a program and to all its commands.
pub(super) fn with_examples(program: Command) -> Command {
    add(program, "")
}

fn add(command: Command, path: &str) -> Command {
    let examples = EXAMPLES.iter().find(|(name, _)| *name == path).map(|(_, lines)| *lines);
    let mut command = match examples {
        None => command,
        Some(lines) => command.after_help(format!("Examples:\n  {}", lines.join("\n  "))),
    };
    let names: Vec<String> = command.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    for name in names {
        let path = if path.is_empty() { name.clone() } else { format!("{path} {name}") };
        command = command.mut_subcommand(name, |command| add(command, &path));
    }
    command
}

#[cfg(test)]
mod tests {
    use super::super::program;
    use super::*;

    fn paths(command: &Command, path: &str, found: &mut Vec<String>) {
        found.push(path.to_owned());
        for below in command.get_subcommands().filter(|command| !command.is_hide_set()) {
            let name = below.get_name();
            paths(below, &if path.is_empty() { name.to_owned() } else { format!("{path} {name}") }, found);
        }
    }

    #[test]
    fn every_command_has_examples_that_are_understood() {
        let mut found = Vec::new();
        paths(&program(), "", &mut found);
        for path in &found {
            assert!(EXAMPLES.iter().any(|(name, _)| name == path), "`callgate {path}` has no example");
        }
        for (path, lines) in EXAMPLES {
            // Builds without the demo have no such command.
            assert!(*path == "demo" || found.iter().any(|known| known == path), "there is no `callgate {path}`");
            for line in lines.iter().filter(|line| *path != "demo" && !line.contains("callgate demo")) {
                let words = line.split_whitespace().skip_while(|word| *word != "callgate");
                let words = words.take_while(|word| !["|", ">"].contains(word)).map(|word| word.trim_matches('\''));
                let parsed = program().try_get_matches_from(words);
                assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
            }
        }
    }
}
