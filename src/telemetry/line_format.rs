//! The form of this process's log lines: `log.format`, once it is known where the lines go.

use crate::color::has_colors;
use crate::config::LogFormat;

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LineFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Human { has_colours: bool },
}

impl LineFormat {
    /// For lines that go to a terminal or not.
    pub(super) fn new(format: LogFormat, is_terminal: bool) -> Self {
        match (format, is_terminal) {
            (LogFormat::Json, _) | (LogFormat::Auto, false) => Self::Json,
            (LogFormat::Human, _) | (LogFormat::Auto, true) => {
                Self::Human { has_colours: is_terminal && has_colors(&std::io::stdout()) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_for_people_on_a_terminal_unless_the_settings_say_otherwise() {
        let is_human = |format, is_terminal| LineFormat::new(format, is_terminal) != LineFormat::Json;
        assert!(is_human(LogFormat::Auto, true) && is_human(LogFormat::Human, false));
        assert!(!is_human(LogFormat::Auto, false) && !is_human(LogFormat::Json, true));
        assert_eq!(LineFormat::new(LogFormat::Human, false), LineFormat::Human { has_colours: false });
    }
}
