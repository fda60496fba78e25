//! A writer of whole lines through which nothing passes that controls a terminal or hides what it says.

use std::io::{self, Write};

use super::text::{push_visible, visible_line};

/// What the diagnostics of a terminal are coloured with. It changes how a text looks, and hides nothing.
const COLOURS: [&str; 9] =
    ["\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[3m", "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[34m", "\x1b[35m"];

/// Escapes what libraries write of errors as they got it from clients and services.
pub(super) struct VisibleWriter<W> {
    inner: W,
    has_colours: bool,
}

impl<W> VisibleWriter<W> {
    pub(super) fn new(inner: W, has_colours: bool) -> Self {
        Self { inner, has_colours }
    }
}

impl<W: Write> Write for VisibleWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let line = String::from_utf8_lossy(bytes);
        if self.has_colours {
            self.inner.write_all(coloured(&line).as_bytes())?;
        } else {
            self.inner.write_all(visible_line(&line).as_bytes())?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn coloured(line: &str) -> String {
    let text = line.strip_suffix('\n').unwrap_or(line);
    let mut visible = String::with_capacity(line.len());
    let mut left = text;
    while let Some(at) = left.find('\x1b') {
        push_visible(&mut visible, &left[..at]);
        left = &left[at..];
        let colour = COLOURS.iter().find(|colour| left.starts_with(**colour));
        let length = match colour {
            Some(colour) => {
                visible.push_str(colour);
                colour.len()
            }
            None => {
                push_visible(&mut visible, "\x1b");
                1
            }
        };
        left = &left[length..];
    }
    push_visible(&mut visible, left);
    visible.push_str(&line[text.len()..]);
    visible
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(line: &str, has_colours: bool) -> String {
        let mut written = Vec::new();
        VisibleWriter::new(&mut written, has_colours).write_all(line.as_bytes()).unwrap();
        String::from_utf8(written).unwrap()
    }

    #[test]
    fn an_error_text_controls_no_terminal() {
        let line = "WARN failed error=a\x1b[2J\u{9b}1m\u{202e}\nforged\n";
        let visible = "WARN failed error=a\\u001b[2J\\u009b1m\\u202e\\u000aforged\n";
        assert_eq!(written(line, false), visible);
        assert_eq!(written(&format!("\x1b[33m{line}"), true), format!("\x1b[33m{visible}"));
        assert_eq!(written("\x1b[33m WARN\x1b[0m\x1b[8m\n", true), "\x1b[33m WARN\x1b[0m\\u001b[8m\n");
        assert_eq!(written("\x1b[33m\n", false), "\\u001b[33m\n");
    }
}
