//! The layout of the log as the comment of `decide.lua` draws it, against the constants of all scripts.

use super::super::log::JUMP_MS;
use super::super::merge::MERGE;
use super::{CALLS, DECIDE, PAIR};

/// A field of the layout: its group, its bytes, and whether there is one for each window.
type LayoutField = (&'static str, usize, bool);

/// The fields in the comment's table.
fn fields() -> Vec<LayoutField> {
    let rows = DECIDE.lines().skip_while(|line| !line.starts_with("--   shape "));
    let mut group = "";
    rows.take_while(|line| !line.starts_with("--   ring "))
        .map(|line| {
            let row = line.trim_start_matches("--").trim_start();
            let (first, rest) = row.split_once(' ').unwrap();
            let row = first.parse::<usize>().map_or_else(
                |_| {
                    group = first;
                    rest.trim_start()
                },
                |_| row,
            );
            let (bytes, text) = row.split_once(' ').unwrap();
            (group, bytes.parse().unwrap(), text.contains("each window") || text.contains('}'))
        })
        .collect()
}

fn bytes(fields: &[LayoutField], group: &str, per_window: bool) -> usize {
    fields.iter().filter(|field| field.0 == group && field.2 == per_window).map(|field| field.1).sum()
}

/// The number that a script calls `name`, in a line `local A, B = 1, 2`.
fn constant(script: &str, name: &str) -> usize {
    let lines = script.lines().filter_map(|line| line.trim_start().strip_prefix("local ")?.split_once(" = "));
    let named = lines.flat_map(|(names, values)| names.split(", ").zip(values.split(", ")));
    let mut values = named.filter(|(known, _)| *known == name).map(|(_, value)| value);
    let value = values.next().unwrap_or_else(|| panic!("no {name}")).parse().unwrap();
    assert!(values.next().is_none(), "{name} is a constant");
    value
}

/// The format of `struct.unpack` for the fields of a group in a log of two windows.
fn format(fields: &[LayoutField], group: &str) -> String {
    let letter = |field: &LayoutField| match field.1 {
        1 => "B".to_owned(),
        4 => "I".to_owned(),
        bytes => format!("I{bytes}"),
    };
    let of =
        |per_window| -> String { fields.iter().filter(|it| it.0 == group && it.2 == per_window).map(letter).collect() };
    of(false) + &of(true).repeat(2)
}

#[test]
fn the_scripts_constants_are_the_layout_of_the_comment() {
    let fields = fields();
    let [shape, front] = ["shape", "front"].map(|group| bytes(&fields, group, false));
    let [length, counted] = ["shape", "front"].map(|group| bytes(&fields, group, true));
    let staged = bytes(&fields, "staging", false);
    assert!(DECIDE.contains(&format!("--   staging  {staged} stamps of 4 bytes")));
    for script in [DECIDE, MERGE] {
        let constants = ["LENGTHS", "HEADER", "WINDOW", "STAGING", "STAGING_BYTES"].map(|name| constant(script, name));
        assert_eq!(constants, [shape, shape + front, length + counted, staged, 4 * staged]);
    }
    // What the script has precomputed for two windows: how to read shape, front and newest stamp, and what to read,
    // which is 4 bytes more.
    let (shape_format, front_format) = (format(&fields, "shape"), format(&fields, "front"));
    let front_at = shape + 2 * length;
    let upto = front_at + front + 2 * counted + 4 * staged + 4 - 1;
    let precomputed = format!("'<{shape_format}{front_format}I', '<{front_format}I', '{front_at}', '{upto}'");
    assert!(DECIDE.contains(&precomputed), "{precomputed}");
}

#[test]
fn the_scripts_and_the_log_in_memory_agree_on_what_they_share() {
    assert_eq!([DECIDE, MERGE].map(|script| constant(script, "JUMP")), [JUMP_MS as usize; 2]);
    assert_eq!(constant(include_str!("../decide.lua"), "TRIED"), constant(include_str!("../pair.lua"), "TRIED"));
    for name in ["LEASE", "MAX_LEASE", "KEPT"] {
        assert_eq!(constant(DECIDE, name), constant(CALLS, name));
    }
    assert!(PAIR.contains(DECIDE));
}
