//! The known name that is nearest to a misspelt one, and hints with it.

/// Longer names are not compared: they are no typing mistakes, and the comparison is quadratic.
const MAX_CHARS: usize = 64;
/// Known names that a hint compares: files with thousands of names and mistakes must be checked quickly, too.
const MAX_COMPARED: usize = 200;
/// Known names that a hint lists.
const MAX_LISTED: usize = 16;

/// The known name that `name` was most likely meant to be: at most one typing mistake (a letter too many, too few, wrong, or
/// two exchanged) for every three letters; of several equally near ones, the first.
pub(super) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let length = name.chars().count();
    if !(1..=MAX_CHARS).contains(&length) {
        return None;
    }
    let allowed = (length / 3).max(1);
    // A name as short as the mistakes allowed is near to everything.
    let shortest = length.saturating_sub(allowed).max(allowed + 1);
    let lengths = shortest..=(length + allowed).min(MAX_CHARS);
    let name = folded(name);
    let alike = known.into_iter().filter(|other| lengths.contains(&other.chars().count()));
    let distances = alike.map(|other| (strsim::osa_distance(&name, &folded(other)), other));
    let near = distances.filter(|(distance, _)| *distance <= allowed);
    near.min_by_key(|(distance, _)| *distance).map(|(_, other)| other)
}

/// ` (did you mean "…"?)` with the known name that comes nearest, or nothing.
pub(crate) fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(name, known).map(|near| format!(" (did you mean \"{near}\"?)")).unwrap_or_default()
}

/// ` (did you mean "calls"?)`, or else the known names.
pub(crate) fn hint<'k>(name: &str, known: impl Iterator<Item = &'k str> + Clone) -> String {
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

/// In lower case, with underscores for hyphens.
fn folded(name: &str) -> String {
    name.to_ascii_lowercase().replace('-', "_")
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
        assert_eq!(nearest("cs", ["cc", "sc"]), Some("cc"), "of equally near ones the first");
        assert_eq!(nearest("max-head-byte", known), Some("max_head_bytes"));
        assert_eq!(nearest("billing", known), None);
        assert_eq!(nearest("", known), None);
        assert_eq!(nearest("x", ["a", "b"]), None);
        assert_eq!(nearest(&"a".repeat(10_000), known), None);
    }
}
