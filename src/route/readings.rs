//! What a path may mean to an upstream that reads it less exactly than Callgate does.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use memchr::{memchr, memchr_iter};
use smallvec::{SmallVec, smallvec};

use super::pattern::{Pattern, Segment, folded, without_loose_end};

/// All patterns of one host, as a tree of segments. Letter case, loose ends, escapes of visible characters, empty segments and a slash at
/// the end tell no two patterns apart here.
pub(super) struct Readings {
    nodes: Vec<Node>,
    /// Matches the [plain](is_plain) paths that may mean something else than they say.
    doubtful: matchit::Router<()>,
    /// There are patterns that `doubtful` can't hold.
    all_are_doubtful: bool,
}

#[derive(Default)]
struct Node {
    texts: HashMap<Box<str>, usize, RandomState>,
    /// Those with more text around their names first.
    parameters: Vec<Parameter>,
    /// The patterns that end here without a slash.
    bare: Vec<usize>,
    /// The patterns that end here with a slash.
    slashed: Vec<usize>,
    /// The patterns that have their `{*rest}` here.
    rest: Vec<usize>,
}

impl Node {
    /// The node behind a parameter with this text around its name: `new`, if there was none.
    fn parameter(&mut self, before: &str, behind: &str, new: usize) -> usize {
        let is_it = |known: &&Parameter| *known.before == *before && *known.behind == *behind;
        if let Some(known) = self.parameters.iter().find(is_it) {
            return known.node;
        }
        self.parameters.push(Parameter { before: before.into(), behind: behind.into(), node: new });
        self.parameters.sort_by_key(|parameter| std::cmp::Reverse(parameter.before.len() + parameter.behind.len()));
        new
    }
}

struct Parameter {
    before: Box<str>,
    behind: Box<str>,
    node: usize,
}

impl Parameter {
    fn takes(&self, text: &str) -> bool {
        text.len() > self.before.len() + self.behind.len()
            && text.starts_with(&*self.before)
            && text.ends_with(&*self.behind)
    }
}

/// The most specific patterns that a path can have with a slash at its end and without one.
#[derive(Default)]
pub(super) struct Reading<'a> {
    bare: &'a [usize],
    slashed: &'a [usize],
    /// Of these the more specific ones; both if they differ in the slash alone.
    first: [&'a [usize]; 2],
}

impl<'a> Reading<'a> {
    fn add(&mut self, bare: &'a [usize], slashed: &'a [usize]) {
        if self.first.iter().all(|patterns| patterns.is_empty()) {
            self.first = [bare, slashed];
        }
        if self.bare.is_empty() {
            self.bare = bare;
        }
        if self.slashed.is_empty() {
            self.slashed = slashed;
        }
    }

    fn is_complete(&self) -> bool {
        !self.bare.is_empty() && !self.slashed.is_empty()
    }

    /// No pattern that the path may mean is more specific than this one, which matches it.
    pub(super) fn allows(&self, pattern: usize) -> bool {
        self.first.iter().all(|patterns| patterns.is_empty())
            || self.first.iter().any(|patterns| patterns.contains(&pattern))
    }

    pub(super) fn patterns(&self) -> impl Iterator<Item = usize> {
        self.bare.iter().chain(self.slashed).copied()
    }
}

impl Readings {
    pub(super) fn new() -> Self {
        Self { nodes: vec![Node::default()], doubtful: matchit::Router::new(), all_are_doubtful: false }
    }

    /// Adds a pattern under a number.
    pub(super) fn insert(&mut self, pattern: &Pattern, number: usize) {
        if !pattern.is_plain || pattern.ends_with_slash {
            self.doubt(&pattern.segments);
        }
        if let [segments @ .., Segment::Rest] = &*pattern.segments {
            self.doubt(segments);
        }
        self.all_are_doubtful |= pattern.hides_others();
        let mut at = 0;
        for segment in &pattern.segments {
            let new = self.nodes.len();
            let node = &mut self.nodes[at];
            at = match segment {
                Segment::Text(text) => *node.texts.entry(text.as_str().into()).or_insert(new),
                Segment::Parameter(before, behind) => node.parameter(before, behind, new),
                Segment::Rest => return node.rest.push(number),
            };
            if at == new {
                self.nodes.push(Node::default());
            }
        }
        let node = &mut self.nodes[at];
        if pattern.ends_with_slash { node.slashed.push(number) } else { node.bare.push(number) }
    }

    /// Plain paths may mean a pattern with these segments that is spelled otherwise or goes on with a slash.
    fn doubt(&mut self, segments: &[Segment]) {
        // No plain path is as short as that.
        if segments.is_empty() {
            return;
        }
        let pattern: String = segments.iter().flat_map(|segment| ["/".to_owned(), segment.pattern()]).collect();
        match self.doubtful.insert(&*pattern, ()) {
            Err(matchit::InsertError::Conflict { with }) if with == pattern => {}
            outcome => self.all_are_doubtful |= outcome.is_err(),
        }
    }

    /// Nobody takes the path for another one that some pattern matches. Of ordinary paths this is known without a search.
    pub(super) fn is_certain(&self, path: &str) -> bool {
        !self.all_are_doubtful && is_plain(path) && self.doubtful.at(path).is_err()
    }

    /// What a path may mean: to an upstream that keeps segments of blanks and full stops alone, and to one that leaves them out.
    pub(super) fn of(&self, path: &str) -> SmallVec<[Reading<'_>; 2]> {
        let mut readings = smallvec![self.read(path, false)];
        if memchr_iter(b'/', path.as_bytes()).any(|slash| is_blank(segment_of(&path[slash + 1..]).0)) {
            readings.push(self.read(path, true));
        }
        readings
    }

    fn read(&self, path: &str, skips_blanks: bool) -> Reading<'_> {
        let mut reading = Reading::default();
        // Where the search goes on, the most specific one last: at a node with what is left of the path, or else with its `{*rest}`.
        let mut steps: SmallVec<[(usize, Option<&str>); 8]> = smallvec![(0, Some(path))];
        while let Some((at, left)) = steps.pop()
            && !reading.is_complete()
        {
            let node = &self.nodes[at];
            let Some(left) = left else {
                reading.add(&node.rest, &node.rest);
                continue;
            };
            let Some((segment, left)) = next_segment(left, skips_blanks) else {
                reading.add(&node.bare, &node.slashed);
                reading.add(&[], &node.rest);
                continue;
            };
            if !node.rest.is_empty() {
                steps.push((at, None));
            }
            let folded = folded(segment);
            let name = without_loose_end(&folded);
            for parameter in node.parameters.iter().rev() {
                if parameter.takes(&folded) || parameter.takes(name) {
                    steps.push((parameter.node, Some(left)));
                }
            }
            if let Some(node) = node.texts.get(name) {
                steps.push((*node, Some(left)));
            }
        }
        reading
    }
}

/// The next segment that is not empty, and what follows it.
fn next_segment(path: &str, skips_blanks: bool) -> Option<(&str, &str)> {
    let mut left = path;
    while !left.is_empty() {
        let (segment, behind) = segment_of(left);
        let is_left_out = segment.is_empty() || (skips_blanks && is_blank(segment));
        if !is_left_out {
            return Some((segment, behind));
        }
        left = behind;
    }
    None
}

/// The text up to the next slash, and what follows that.
fn segment_of(text: &str) -> (&str, &str) {
    match memchr(b'/', text.as_bytes()) {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, ""),
    }
}

/// In lower case, without escapes, without loose ends, without empty segments, without a slash at its end.
fn is_plain(path: &str) -> bool {
    let bytes = path.as_bytes();
    let behind = bytes.get(1..).unwrap_or_default();
    // Without branches, so that many bytes are looked at together.
    let is_other = bytes.iter().fold(false, |found, byte| found | byte.is_ascii_uppercase() | (*byte == b'%'));
    let ends_loosely = |byte: u8| (byte == b'.') | (byte == b'/');
    let is_loose =
        bytes.iter().zip(behind).fold(false, |found, (byte, next)| found | ((*next == b'/') & ends_loosely(*byte)));
    !is_other && !is_loose && !bytes.last().is_some_and(|byte| ends_loosely(*byte))
}

/// It is a loose end and nothing else. `.` and `..` mean something.
fn is_blank(segment: &str) -> bool {
    segment.starts_with(['.', '%']) && !matches!(segment, "." | "..") && without_loose_end(segment).is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_read_as(pattern: &str, path: &str) -> bool {
        let mut readings = Readings::new();
        readings.insert(&Pattern::new(pattern), 0);
        readings.of(path).iter().any(|reading| reading.patterns().next().is_some())
    }

    #[test]
    fn braces_that_are_doubled_are_text() {
        for (pattern, path) in [
            ("/{{A}}/x", "/{a}/X"),
            ("/{{*}}", "/%7b*%7D/"),
            ("/{a}}b}.png/x", "/1.png/x"),
            ("/v{n}{{/x", "/v2{/x"),
            ("/{{{name}", "/{1"),
        ] {
            assert!(is_read_as(pattern, path), "{pattern} {path}");
            let mut router = matchit::Router::new();
            assert_eq!(router.insert(pattern, ()), Ok(()), "{pattern}");
        }
        assert!(!is_read_as("/{{A}}/x", "/b/x") && !is_read_as("/v{n}{{/x", "/v2/x"));
        assert!(Pattern::new("/{{A}}/{{*}}").is_literal() && !Pattern::new("/{{{a}").is_literal());
        assert!(Pattern::new("/{{a/{*rest}").has_rest() && !Pattern::new("/{{*}}").has_rest());
    }

    #[test]
    fn spellings_of_one_path_are_read_alike() {
        for path in ["/a@b/c", "/A%40b/c/", "/a@b./C%20.", "//a@b/%20/...//c", "/a%40B/c"] {
            assert!(is_read_as("/A@b/c.", path), "{path}");
        }
        for path in ["/a@b", "/a@b/./c", "/a@b/../c", "/a%2540b/c", "/a@b%2fc", "/a@b/c/d"] {
            assert!(!is_read_as("/A@b/c.", path), "{path}");
        }
        assert!(is_read_as("/a/{*rest}", "/a") && is_read_as("/a/{id}", "/a/...") && !is_read_as("/a/{id}", "/a/"));
    }
}
