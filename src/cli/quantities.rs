//! Lengths of time and numbers of bytes as people read them.

/// Two units at most: `12s`, `1m 13s`, `3h 4m`, `5d 2h`.
pub(super) fn duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    let two = |(large, of), (small, per)| match seconds % of / per {
        0 => format!("{}{large}", seconds / of),
        rest => format!("{}{large} {rest}{small}", seconds / of),
    };
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => two(("m", 60), ("s", 1)),
        3_600..86_400 => two(("h", 3_600), ("m", 60)),
        _ => two(("d", 86_400), ("h", 3_600)),
    }
}

/// Powers of 1,000: `17 B`, `1.2 kB`, `34 MB`.
pub(super) fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 999.5 {
            return number(value, unit == "B") + " " + unit;
        }
        value /= 1e3;
    }
    number(value, false) + " TB"
}

/// Two digits where there would be one.
fn number(value: f64, is_whole: bool) -> String {
    if is_whole || value >= 9.95 { format!("{value:.0}") } else { format!("{value:.1}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_short() {
        let durations = [0.4, 59.9, 60.0, 73.0, 3_600.0, 11_100.0, 86_400.0, 446_400.0].map(duration);
        assert_eq!(durations, ["0s", "59s", "1m", "1m 13s", "1h", "3h 5m", "1d", "5d 4h"]);
        let sizes = [0, 17, 999, 1_000, 1_234, 34_000_000, 999_999_999, 5_000_000_000_000].map(bytes);
        assert_eq!(sizes, ["0 B", "17 B", "999 B", "1.0 kB", "1.2 kB", "34 MB", "1.0 GB", "5.0 TB"]);
    }
}
