//! The commands in the pages.

use std::fs;
use std::process::Command;

use tempfile::TempDir;

use super::blocks;
use crate::support::gateway::PROGRAM;

/// Programs whose lines are left to other tests or to the reader, with the reason.
const LEFT_TO_OTHERS: [(&str, &str); 13] = [
    ("RENEWED_LINEAGE=/etc/letsencrypt/live/gate.example.com", "needs a domain"),
    ("cargo", "builds this"),
    ("certbot", "needs a domain"),
    ("curl", "needs a running gateway; the samples for clients are run"),
    ("docker", "needs Docker"),
    ("helm", "needs Kubernetes"),
    ("kubectl", "needs Kubernetes"),
    ("openssl", "tests/it/certificates/commands.rs runs such commands"),
    ("{", "the same"),
    ("ssh", "needs another machine"),
    ("sudo", "changes the machine"),
    ("systemctl", "needs systemd; tests/it/deploy.rs checks the units"),
    ("tests/run", "runs this"),
];

/// Commands of Callgate that serve, or talk to something that runs.
const SERVING: [&str; 4] = ["serve", "demo", "selftest", "token import"];

/// Every command line of a `sh` block outside deploy/ and benches/: `callgate …` is understood, the others are known.
#[test]
fn every_command_is_one() {
    let (mut tried, mut unknown) = (0, Vec::new());
    for block in blocks("sh")
        .into_iter()
        .filter(|block| !block.text.starts_with("#!"))
        .filter(|block| !block.file.starts_with("deploy") && !block.file.starts_with("benches"))
    {
        let joined = block.text.replace("\\\n", " ");
        for line in joined.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let place = format!("{}:{}: {line}", block.file.display(), block.line);
            // TOKEN=$(callgate …)
            let inner = line
                .split_once("$(")
                .filter(|(before, _)| before.ends_with('='))
                .map(|(_, rest)| rest.trim_end_matches(')'));
            let command = inner.unwrap_or(line);
            let words = words(command);
            match words.first().map(String::as_str) {
                Some("callgate") => {
                    tried += 1;
                    // With --help a command line is parsed up to there and nothing is done.
                    let output = Command::new(PROGRAM).args(&words[1..]).arg("--help").output().unwrap();
                    if !output.status.success() {
                        unknown.push(format!("{place}\n{}", String::from_utf8_lossy(&output.stderr)));
                    }
                }
                Some(word) if LEFT_TO_OTHERS.iter().any(|(known, _)| *known == word) => {}
                // A comment.
                None => {}
                Some(_) => unknown.push(place),
            }
        }
    }
    assert!(tried > 5, "{tried} commands");
    assert!(unknown.is_empty(), "{}", unknown.join("\n"));
}

/// The words up to a comment, a pipe, a redirection or an ampersand.
fn words(command: &str) -> Vec<String> {
    let words = command.split_whitespace().map(|word| word.trim_matches(['\'', '"']).to_owned());
    words.take_while(|word| !["#", "|", ">", "&", "&&", "…"].contains(&word.as_str())).collect()
}

/// The commands of docs/getting-started.md work in their order, but for those that serve.
#[test]
fn the_first_minutes_work_word_for_word() {
    let folder = TempDir::new().unwrap();
    let run = |line: &str| {
        let program = std::path::Path::new(PROGRAM).parent().unwrap().display().to_string();
        let path = format!("{program}:{}", std::env::var("PATH").unwrap());
        let output =
            Command::new("sh").args(["-ec", line]).current_dir(folder.path()).env("PATH", path).output().unwrap();
        assert!(output.status.success(), "{line}\n{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let lines: Vec<String> = blocks("sh")
        .iter()
        .filter(|block| block.file.ends_with("docs/getting-started.md"))
        .flat_map(|block| {
            block.text.replace("\\\n", " ").lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>()
        })
        .filter(|line| !SERVING.iter().any(|command| line.starts_with(&format!("callgate {command}"))))
        .collect();
    let begin = lines[0].replace("TOKEN=$(", "").trim_end_matches(')').to_owned();
    assert!(begin.starts_with("callgate init "), "{begin}");
    assert!(run(&begin).starts_with("kal_live_"));
    assert!(lines.len() >= 4, "{lines:?}");
    for line in &lines[1..] {
        run(line);
    }
    assert!(fs::read_to_string(folder.path().join("tokens.yaml")).unwrap().contains("dialler"));
}
