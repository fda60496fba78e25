//! Whether texts for people have colours: what the command line says, else what the terminal and its environment say.

use std::fmt::Display;
use std::io::{self, IsTerminal};
use std::sync::OnceLock;

use clap::ColorChoice;

static CHOICE: OnceLock<ColorChoice> = OnceLock::new();

/// The colour of a text.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Color {
    Bold,
    Green,
    Yellow,
    Red,
    BoldRed,
    BoldYellow,
}

impl Color {
    fn code(self) -> &'static str {
        match self {
            Self::Bold => "1",
            Self::Green => "32",
            Self::Yellow => "33",
            Self::Red => "31",
            Self::BoldRed => "1;31",
            Self::BoldYellow => "1;33",
        }
    }

    /// The text in this colour, if it `has_colors`.
    pub(crate) fn paint(self, has_colors: bool, text: impl Display) -> String {
        if has_colors { format!("\u{1b}[{}m{text}\u{1b}[0m", self.code()) } else { text.to_string() }
    }
}

/// What `--color` says. Only the first call counts.
pub(crate) fn choose(choice: ColorChoice) {
    // It can't be set twice but by tests.
    let _ = CHOICE.set(choice);
}

/// Whether texts to `output` have colours. `NO_COLOR` and `TERM=dumb` count unless the command line says otherwise.
pub(crate) fn has_colors(output: &impl IsTerminal) -> bool {
    match CHOICE.get() {
        Some(ColorChoice::Always) => true,
        Some(ColorChoice::Never) => false,
        Some(ColorChoice::Auto) | None => {
            let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
                || std::env::var_os("TERM").is_some_and(|value| value == "dumb");
            output.is_terminal() && !is_plain
        }
    }
}

/// `error: ` or `warning: `, as it appears on standard error before a text.
pub(crate) fn label(level: &str) -> String {
    let color = if level == "error" { Color::BoldRed } else { Color::BoldYellow };
    color.paint(has_colors(&io::stderr()), format_args!("{level}:"))
}
