//! Exports in which a backslash escapes, as MySQL's `INTO OUTFILE` and PostgreSQL's `COPY` write them.

/// A line of an export: its number, and its values, of which NULL is none.
pub(super) type BackslashRow = (u64, Vec<Option<String>>);

/// Whether backslashes in this text escape, and don't stand for themselves: each is followed by what databases escape, and no quote is
/// written twice, as it is where backslashes don't escape.
pub(super) fn is_escaped(text: &str, separator: char) -> bool {
    let mut escapes = 0;
    let mut before = separator;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match (character, characters.peek()) {
            ('\\', Some('"' | '\\')) => escapes += 1,
            ('\\', Some('N' | '0' | 'b' | 'n' | 'r' | 't' | 'v' | 'f' | 'Z' | '\n' | '\'')) => {}
            ('\\', Some(escaped)) if *escaped == separator => {}
            ('\\', _) => return false,
            ('"', Some('"')) if before != separator && before != '\n' => return false,
            _ => {}
        }
        before = character;
        if character == '\\' {
            before = characters.next().unwrap_or(separator);
        }
    }
    escapes > 0
}

/// All rows of such a text. Empty lines are none.
pub(super) fn rows(text: &str, separator: char) -> Vec<BackslashRow> {
    let mut reader = Reader { separator, line: 1, rest: text.chars().peekable() };
    let mut rows = Vec::new();
    while reader.rest.peek().is_some() {
        let line = reader.line;
        let row = reader.row();
        if row != [Some(String::new())] {
            rows.push((line, row));
        }
    }
    rows
}

struct Reader<'a> {
    separator: char,
    line: u64,
    rest: std::iter::Peekable<std::str::Chars<'a>>,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let next = self.rest.next();
        self.line += u64::from(next == Some('\n'));
        next
    }

    /// The values up to the end of the line.
    fn row(&mut self) -> Vec<Option<String>> {
        let mut row = Vec::new();
        loop {
            let (value, is_last) = self.value();
            row.push(value);
            if is_last {
                return row;
            }
        }
    }

    /// One value, and whether the line ends behind it.
    fn value(&mut self) -> (Option<String>, bool) {
        let mut value = String::new();
        let (mut is_null, mut is_quoted) = (false, self.rest.next_if_eq(&'"').is_some());
        loop {
            match self.next() {
                None => return (Some(value).filter(|_| !is_null), true),
                Some('"') if is_quoted => is_quoted = false,
                Some('\\') => match self.next() {
                    Some('N') => is_null = true,
                    escaped => value.extend(escaped.map(unescaped)),
                },
                Some('\r') if !is_quoted && self.rest.peek() == Some(&'\n') => {}
                Some('\n') if !is_quoted => return (Some(value).filter(|_| !is_null), true),
                Some(separator) if separator == self.separator && !is_quoted => {
                    return (Some(value).filter(|_| !is_null), false);
                }
                Some(other) => value.push(other),
            }
        }
    }
}

fn unescaped(character: char) -> char {
    match character {
        '0' => '\0',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\u{b}',
        'Z' => '\u{1a}',
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaping_backslashes_are_distinguished_from_plain_ones() {
        for (text, separator, escapes) in [
            ("token,name\n\"ab\",\"App\\\\Models\\\\User\"\n", ',', true),
            ("token,name\n\"ab\",\"[\\\"*\\\"]\"\n", ',', true),
            ("token\tname\nab\tApp\\\\Models\\\\User\n", '\t', true),
            ("token,name\n\"ab\",\"\",\\N,\"\\\\\"\n", ',', true),
            ("token,name\nab,App\\Models\\User\n", ',', false),
            ("token,name\nab,\"[\"\"a\\\\b\"\"]\"\n", ',', false),
            ("token,name\nab,\\N\n", ',', false),
            ("token,name\nab,c\n", ',', false),
        ] {
            assert_eq!(is_escaped(text, separator), escapes, "{text}");
        }
    }

    #[test]
    fn values_are_unescaped_and_null_is_none() {
        let text = "a,b\r\n\"x \\\"y\\\", z\",\\N\n\n\"two\nlines\",c\\,d\n\"\\tA\\\\B\",\"\"";
        let some = |texts: [&str; 2]| texts.map(|text| Some(text.to_owned())).to_vec();
        assert_eq!(
            rows(text, ','),
            [
                (1, some(["a", "b"])),
                (2, vec![Some("x \"y\", z".to_owned()), None]),
                (4, some(["two\nlines", "c,d"])),
                (6, some(["\tA\\B", ""])),
            ]
        );
    }
}
