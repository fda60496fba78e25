//! The committed figures: what each kind of request cost when somebody last looked, in `instructions.txt`.

use std::fmt::Write;
use std::process::Command;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/gateway/instructions.txt");
/// How much dearer a request may become, as a part of its figure. Counts repeat to one or two percent.
pub(crate) const TOLERANCE: f64 = 0.03;

/// Instructions per request, by the names of scenarios.
pub(crate) struct Committed(Vec<(String, f64)>);

impl Committed {
    /// Reads the file: lines `NAME: FIGURE`, and comments.
    pub(crate) fn read() -> Self {
        let text = std::fs::read_to_string(FILE).unwrap_or_default();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let figures = lines.map(|line| {
            let figure =
                line.rsplit_once(": ").and_then(|(name, figure)| Some((name.to_owned(), figure.parse().ok()?)));
            figure.unwrap_or_else(|| panic!("{FILE}: {line:?}: NAME: FIGURE is needed"))
        });
        Self(figures.collect())
    }

    pub(crate) fn figure(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, figure)| *figure)
    }

    /// Whether a request may cost so much. One without a figure may not: it would never be compared.
    pub(crate) fn allows(&self, name: &str, counted: f64) -> bool {
        self.figure(name).is_some_and(|figure| counted <= figure * (1.0 + TOLERANCE))
    }

    pub(crate) fn set(&mut self, name: &str, counted: f64) {
        match self.0.iter_mut().find(|(other, _)| other == name) {
            Some((_, figure)) => *figure = counted,
            None => self.0.push((name.to_owned(), counted)),
        }
    }

    pub(crate) fn write(&self) {
        let mut text = String::from(
            "# Instructions per request in user space. `.ci/instructions` compares with them, and\n\
             # `.ci/instructions write` writes them anew.\n",
        );
        for (program, order) in [("rustc", "-V"), ("valgrind", "--version")] {
            let _ = writeln!(text, "# {}", version(program, order));
        }
        for (name, figure) in &self.0 {
            let _ = writeln!(text, "{name}: {figure:.0}");
        }
        std::fs::write(FILE, text).expect("a written file");
    }
}

/// What a program says of its version.
fn version(program: &str, order: &str) -> String {
    let output = Command::new(program).arg(order).output().expect("an installed program");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
