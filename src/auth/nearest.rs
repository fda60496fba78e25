//! "Did you mean …?": the known name that is closest to a mistyped one.

/// The name with the fewest changes from `wanted`, if they are few enough for a slip of the fingers.
pub(crate) fn nearest<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (wanted.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|name| (distance(wanted, name), name))
        .filter(|(changes, _)| *changes <= allowed)
        .min_by_key(|(changes, _)| *changes)
        .map(|(_, name)| name)
}

/// ` (did you mean "…"?)`, or nothing.
pub(crate) fn did_you_mean<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(wanted, known).map(|name| format!(" (did you mean \"{name}\"?)")).unwrap_or_default()
}

/// Insertions, deletions and replacements of one character that turn `a` into `b` (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found_and_strangers_are_not() {
        let plans = ["standard", "enterprise"];
        assert_eq!(nearest("standart", plans), Some("standard"));
        assert_eq!(nearest("stndard", plans), Some("standard"));
        assert_eq!(nearest("gold", plans), None);
        assert_eq!(did_you_mean("enterprize", plans), " (did you mean \"enterprise\"?)");
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
