//! Hostile, random and mutated files: the parser never panics and always ends.

use super::*;

#[test]
fn parsing_of_hostile_files_is_bounded() {
    let billion_laughs: String =
        (1..30).map(|i| format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 10].join(", "))).collect();
    let merges: String =
        (1..30).map(|i| format!("a{i}: &a{i} {{ <<: [*a{p}, *a{p}], k{i}: 1 }}\n", p = i - 1)).collect();
    let keys: String = (0..20_000).map(|i| format!("k{i}: 1\n")).collect();
    let routes: String = (0..20_000).map(|i| format!("  - {{ path: \"/r{i}/{{id}}\", upstream: a }}\n")).collect();
    let names: String = (0..20_000).map(|i| format!("  u{i}: {{ endpoints: [\"http://a\"] }}\n")).collect();
    for (what, text) in [
        ("billion laughs", format!("a0: &a0 [x, x]\n{billion_laughs}")),
        ("merges", format!("a0: &a0 {{ x: 1 }}\n{merges}")),
        ("keys", keys),
        ("lists", "[".repeat(100_000)),
        ("maps", "{a: ".repeat(100_000)),
        ("blocks", (0..2_000).map(|i| format!("{}a:\n", " ".repeat(i))).collect()),
        ("dashes", "- ".repeat(100_000)),
        ("routes", format!("routes:\n{routes}upstreams:\n  a: {{ endpoints: [\"http://a\"] }}\n")),
        ("dangling names", format!("routes:\n{}upstreams:\n{names}", routes.replace("upstream: a", "upstream: b"))),
        ("parameters", format!("routes: [{{ path: \"/{}\" }}]", "{a}/".repeat(50_000))),
        ("dollars", format!("log: {{ level: \"{}\" }}", "${".repeat(500_000))),
        ("level", format!("log: {{ level: \"{}\" }}", "a=info,".repeat(50_000))),
    ] {
        let start = Instant::now();
        assert!(parse(&text).is_err(), "{what}");
        println!("{what}: {:?}", start.elapsed());
        assert!(start.elapsed() < Duration::from_secs(60), "{what} took {:?}", start.elapsed());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_text_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        messages(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn yaml_like_text_never_panics(parts in prop::collection::vec(0usize..24, 0..60)) {
        let parts: String = parts.into_iter().map(|part| [
            "routes", "upstreams", "store", "redis", ": ", ":\n", "\n", "  ", "- ", "{ ", " }", "[", "]", ", ", "&a ", "*a", "<<", "\"",
            "'", "${A}", "|\n", "#", "\u{feff}", "? ",
        ][part]).collect();
        messages(&parts);
    }

    #[test]
    fn mutated_files_never_panic(edits in prop::collection::vec((0usize..20_000, any::<char>(), 0usize..4), 1..8)) {
        let mut text: Vec<char> = SHIPPED.chars().collect();
        for (at, c, kind) in edits {
            let at = at % text.len();
            match kind {
                0 => text[at] = c,
                1 => text.insert(at, c),
                2 if text.len() > 1 => { text.remove(at); }
                _ => text.truncate(at.max(1)),
            }
        }
        let text: String = text.into_iter().collect();
        for line in messages(&text).lines() {
            prop_assert!(line.starts_with("callgate.yaml:"), "{line}");
        }
    }
}
