//! The known name that is nearest to a misspelt one, and hints with it.

/// Longer names are not compared: they are no typing mistakes, and the comparison is quadratic.
const MAX_CHARS: usize = 64;
/// Known names that a hint compares: files with thousands of names and mistakes must be checked quickly, too.
const MAX_COMPARED: usize = 200;
/// Known names that a hint lists.
const MAX_LISTED: usize = 16;

/// The known name that `name` was most likely meant to be: at most one typing mistake (a letter too many, too few, wrong, or
/// two exchanged) for every three letters; of several equally near ones, the first.
#[must_use]
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name: Vec<char> = letters(name);
    if name.is_empty() || name.len() > MAX_CHARS {
        return None;
    }
    let allowed = (name.len() / 3).max(1);
    let mut best: Option<(usize, &str)> = None;
    for candidate in known {
        let other = letters(candidate);
        // A name as short as the mistakes allowed is near to everything.
        if other.len() <= allowed || other.len() > MAX_CHARS || other.len().abs_diff(name.len()) > allowed {
            continue;
        }
        let distance = distance(&name, &other);
        if distance <= allowed && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// ` (did you mean "…"?)` with the known name that comes nearest, or nothing.
pub(crate) fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(name, known).map(|near| format!(" (did you mean \"{near}\"?)")).unwrap_or_default()
}

/// ` (did you mean "calls"?)`, or else the known names.
pub(super) fn hint<'k>(name: &str, known: impl Iterator<Item = &'k str> + Clone) -> String {
    let near = did_you_mean(name, known.clone().take(MAX_COMPARED));
    if !near.is_empty() {
        return near;
    }
    let mut names: Vec<&str> = known.take(MAX_LISTED + 1).collect();
    if names.is_empty() {
        return String::new();
    }
    if names.len() > MAX_LISTED {
        names[MAX_LISTED] = "…";
    }
    format!(" (known here: {})", names.join(", "))
}

/// Ignores case, and takes hyphens for underscores.
fn letters(name: &str) -> Vec<char> {
    name.chars().map(|c| if c == '-' { '_' } else { c.to_ascii_lowercase() }).collect()
}

/// Typing mistakes between two names: Damerau and Levenshtein's distance in its "optimal string alignment" form.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = Vec::with_capacity(b.len() + 1);
        row.push(i);
        for j in 1..=b.len() {
            let changed = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = changed.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(before[j - 2] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant() {
        let known = ["calls", "media", "api", "max_head_bytes"];
        assert_eq!(nearest("cals", known), Some("calls"));
        assert_eq!(nearest("mdeia", known), Some("media"));
        assert_eq!(nearest("Media", known), Some("media"));
        assert_eq!(nearest("max-head-byte", known), Some("max_head_bytes"));
        assert_eq!(nearest("billing", known), None);
        assert_eq!(nearest("", known), None);
        assert_eq!(nearest("x", ["a", "b"]), None);
        assert_eq!(nearest(&"a".repeat(10_000), known), None);
    }

    #[test]
    fn counts_mistakes() {
        let count = |a: &str, b: &str| distance(&letters(a), &letters(b));
        assert_eq!(count("", "abc"), 3);
        assert_eq!(count("abc", "abc"), 0);
        assert_eq!(count("abc", "acb"), 1);
        assert_eq!(count("abc", "abcd"), 1);
        assert_eq!(count("kitten", "sitting"), 3);
    }
}
