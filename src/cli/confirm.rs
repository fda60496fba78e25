//! What can't be undone is confirmed: at a terminal by an answer, elsewhere by `--yes`.

use std::io::{self, BufRead, IsTerminal, Write};

use anyhow::bail;

/// There is nobody to ask.
#[derive(Debug, thiserror::Error)]
#[error("{0} can't be undone, and there is no terminal to ask at: add --yes")]
pub(super) struct Unconfirmed(&'static str);

/// Asks unless `yes`.
///
/// # Errors
/// [`Unconfirmed`]; or the answer was no.
pub(super) fn confirm(deed: &'static str, yes: bool) -> anyhow::Result<()> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Unconfirmed(deed).into());
    }
    write!(io::stderr(), "{deed} can't be undone. Go on? [y/N] ")?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => bail!("nothing was changed"),
    }
}
