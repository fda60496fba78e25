//! The documentation: links lead somewhere, configurations load, commands and code samples do what the pages say.

mod commands;
mod samples;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use callgate::config;
use tempfile::TempDir;

use crate::support::gateway::write_pair;

/// Text between ``` lines.
struct Block {
    file: PathBuf,
    line: usize,
    /// What is behind the opening marks, such as `yaml`.
    info: String,
    text: String,
}

/// Every page, its path relative to the repository.
fn pages() -> Vec<PathBuf> {
    let mut folders = vec![PathBuf::from("docs"), PathBuf::from("deploy"), PathBuf::from("benches")];
    let mut pages: Vec<PathBuf> = Vec::new();
    let root = fs::read_dir(".").unwrap().map(|entry| entry.unwrap().path());
    pages.extend(
        root.filter(|path| path.extension().is_some_and(|it| it == "md"))
            .map(|path| path.strip_prefix(".").unwrap().to_owned()),
    );
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    pages.sort();
    assert!(pages.len() > 20, "{pages:?}");
    pages
}

/// The blocks of a page, and the page without them.
fn split(file: &Path) -> (Vec<Block>, String) {
    let (mut blocks, mut prose, mut open) = (Vec::new(), String::new(), None::<Block>);
    let text = fs::read_to_string(file).unwrap();
    for (index, line) in text.lines().enumerate() {
        match (&mut open, line.trim_start().strip_prefix("```")) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(block), None) => block.text += &format!("{line}\n"),
            (None, Some(info)) => {
                let info = info.trim().to_owned();
                open = Some(Block { file: file.to_owned(), line: index + 1, info, text: String::new() });
            }
            (None, None) => prose += line,
        }
        prose.push('\n');
    }
    assert!(open.is_none(), "{}: a block without an end", file.display());
    (blocks, prose)
}

fn blocks(info: &str) -> Vec<Block> {
    pages().iter().flat_map(|page| split(page).0).filter(|block| block.info == info).collect()
}

/// The anchors of a page, as forges make them of its headings.
fn anchors(prose: &str) -> Vec<String> {
    let headings = prose.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let slug = |heading: &str| {
        let kept = heading
            .to_lowercase()
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
            .collect::<String>();
        kept.replace(' ', "-")
    };
    headings.map(slug).collect()
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let prose: HashMap<PathBuf, String> = pages().into_iter().map(|page| (page.clone(), split(&page).1)).collect();
    let (mut count, mut broken) = (0, Vec::new());
    for (page, text) in &prose {
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains(':') {
                continue;
            }
            count += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let folder = page.parent().unwrap_or(Path::new(""));
            let target = if file.is_empty() { page.clone() } else { normal(&folder.join(file)) };
            let is_there = Path::new(".").join(&target).exists();
            let has_anchor =
                anchor.is_empty() || prose.get(&target).is_some_and(|text| anchors(text).iter().any(|it| it == anchor));
            if !is_there || !has_anchor {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(count > 80, "{count} links");
    assert!(broken.is_empty(), "broken links:\n{}", broken.join("\n"));
}

#[test]
fn every_alert_leads_to_a_heading_and_uses_metrics_that_are_listed() {
    let alerts: serde_json::Value =
        serde_yaml::from_str(&fs::read_to_string("deploy/prometheus/alerts.yml").unwrap()).unwrap();
    let listed = fs::read_to_string("docs/reference/metrics.md").unwrap();
    let rules = alerts["groups"][0]["rules"].as_array().unwrap();
    assert!(rules.len() > 10, "{} alerts", rules.len());
    for rule in rules {
        let link = rule["annotations"]["runbook"].as_str().unwrap_or_else(|| panic!("no runbook: {rule}"));
        let (file, anchor) = link.split_once('#').unwrap_or_else(|| panic!("no heading: {link}"));
        let headings = anchors(&split(Path::new(file)).1);
        assert!(headings.iter().any(|heading| heading == anchor), "{link} leads nowhere");
        let words = rule["expr"].as_str().unwrap().split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        for metric in words.filter(|word| word.starts_with("callgate_") || word.starts_with("process_")) {
            assert!(listed.contains(&format!("| `{metric}` |")), "{metric} of {} is not listed", rule["alert"]);
        }
    }
}

/// The path without `..`.
fn normal(path: &Path) -> PathBuf {
    path.iter().fold(PathBuf::new(), |mut normal, part| {
        if part == ".." {
            normal.pop();
        } else {
            normal.push(part);
        }
        normal
    })
}

#[test]
fn the_readme_is_short() {
    let lines = fs::read_to_string("README.md").unwrap().lines().count();
    assert!(lines <= 120, "{lines} lines");
}

/// A `yaml` block is a configuration, or sections of one that miss what every one needs.
#[test]
fn every_configuration_in_a_page_loads() {
    let (mut count, mut wrong) = (0, Vec::new());
    for block in blocks("yaml").into_iter().filter(|block| !block.file.starts_with("deploy")) {
        count += 1;
        let folder = TempDir::new().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("tls")).unwrap();
        write_pair(&path("cert.pem"));
        for name in ["key.pem", "tls/fullchain.pem", "tls/privkey.pem", "tls/tls.crt", "tls/tls.key"] {
            fs::copy(path("cert.pem"), path(name)).unwrap();
        }
        fs::write(path("tls/tickets.keys"), format!("{}\n", "abcdefgh".repeat(8))).unwrap();
        let text = completed(&block.text);
        fs::write(path("callgate.yaml"), &text).unwrap();
        if let Err(problems) = config::load(&path("callgate.yaml")) {
            wrong.push(format!("{}:{}:\n{problems}in\n{text}", block.file.display(), block.line));
        }
    }
    assert!(count > 8, "{count} blocks");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The same with the sections that it lacks.
fn completed(text: &str) -> String {
    // Blocks in lists are indented.
    let indent = text.lines().next().map_or(0, |line| line.len() - line.trim_start().len());
    let mut text: String = text.lines().map(|line| format!("{}\n", line.get(indent..).unwrap_or(""))).collect();
    let has = |text: &str, section: &str| text.lines().any(|line| line.starts_with(section));
    for (section, content) in [
        ("tls:", "tls: { certificates: [{ cert: cert.pem, key: key.pem }] }"),
        (
            "upstreams:",
            "upstreams: { api: { endpoints: [\"http://127.0.0.1:3000\"] }, media: { endpoints: [\"http://127.0.0.1:3001\"] } }",
        ),
        ("routes:", "routes: [{ path: \"/{*rest}\", upstream: api }]"),
    ] {
        if !has(&text, section) {
            text += &format!("{content}\n");
        }
    }
    if !has(&text, "store:") && !has(&text, "tokens:") {
        text += "tokens: { file: tokens.yaml }\n";
    }
    text
}
