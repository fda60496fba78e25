//! Texts with units: durations, sizes and limits; and the durations that settings are bounded by.

use std::num::NonZeroU32;
use std::time::Duration;

use super::{MAX_COUNT, WINDOW_MS};

pub(super) const MILLISECOND: Duration = Duration::from_millis(1);
pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MINUTE: Duration = Duration::from_secs(60);
pub(super) const HOUR: Duration = Duration::from_secs(3_600);
pub(super) const DAY: Duration = Duration::from_secs(86_400);

/// A duration such as `50ms`, `10s`, `4h` or `1h30m`.
///
/// # Errors
/// What is wrong, to be put after the name of the setting.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| {
        let digits = text.trim();
        if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
            format!("a duration needs a unit (write {digits}s, {digits}ms, {digits}m or {digits}h)")
        } else {
            "must be a duration (a number with its unit, for example 50ms, 10s, 4h or 1h30m)".to_owned()
        }
    })
}

/// A size in bytes: a bare number, or one with its unit (`64KiB`, `1GiB`, `1MB`; decimal units count in thousands).
///
/// # Errors
/// What is wrong, to be put after the name of the setting.
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    let wrong =
        || "must be a size (a number of bytes, or one with its unit, for example 64KiB, 1GiB or 1MB)".to_owned();
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let factor = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(factor).ok_or_else(wrong)
}

/// A limit such as `60/1m`: the count, at most [`MAX_COUNT`], and the window in milliseconds, within [`WINDOW_MS`].
///
/// # Errors
/// What is wrong, to be put after the name of the setting.
pub(crate) fn parse_limit(text: &str) -> Result<(u32, NonZeroU32), String> {
    let Some((count, window)) = text.split_once('/') else {
        return Err("must be a limit (a count, a slash and a window, for example 60/1m)".to_owned());
    };
    let digits = Some(count.trim()).filter(|count| count.bytes().all(|b| b.is_ascii_digit()));
    let Some(count) = digits.and_then(|count| count.parse().ok()).filter(|count| *count <= MAX_COUNT) else {
        return Err(format!("a limit's count must be a whole number from 0 to {MAX_COUNT}"));
    };
    let window = parse_duration(window).map_err(|_| {
        let unit = window.trim();
        let remedy =
            if matches!(unit, "s" | "m" | "h" | "d") { format!("{count}/1{unit}") } else { "60/1m".to_owned() };
        format!("a limit's window must be a duration with its unit (write for example {remedy})")
    })?;
    if !window.subsec_nanos().is_multiple_of(1_000_000) {
        return Err("a limit's window must be whole milliseconds".to_owned());
    }
    let window = u32::try_from(window.as_millis()).ok().filter(|window| WINDOW_MS.contains(window));
    let window = window.and_then(NonZeroU32::new).ok_or_else(|| {
        let shown = |ms: &u32| format_duration(Duration::from_millis((*ms).into()));
        format!("a limit's window must be from {} to {}", shown(WINDOW_MS.start()), shown(WINDOW_MS.end()))
    })?;
    Ok((count, window))
}

/// A duration as people write it, in the largest unit that divides it.
pub(super) fn format_duration(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    if milliseconds == 0 {
        return "0s".to_owned();
    }
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
    let whole = units.into_iter().find(|(_, length)| milliseconds.is_multiple_of(*length));
    whole.map_or_else(String::new, |(unit, length)| format!("{}{unit}", milliseconds / length))
}

/// A size as people write it.
pub(super) fn format_size(bytes: u64) -> String {
    let units = [("TiB", 1u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let whole = units.into_iter().find(|(_, length)| bytes > 0 && bytes.is_multiple_of(*length));
    whole.map_or_else(|| format!("{bytes} bytes"), |(unit, length)| format!("{}{unit}", bytes / length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_limits() {
        let limit = |text| parse_limit(text).map(|(count, window)| (count, window.get()));
        assert_eq!(limit("60/1m"), Ok((60, 60_000)));
        assert_eq!(limit("1000 / 1h"), Ok((1_000, 3_600_000)));
        assert_eq!(limit("0/1s"), Ok((0, 1_000)));
        assert_eq!(limit("1000000/30d"), Ok((1_000_000, 2_592_000_000)));
        assert_eq!(limit("5/1h30m"), Ok((5, 5_400_000)));
        assert_eq!(limit("5/1.5s"), Ok((5, 1_500)));
    }

    #[test]
    fn rejects_what_is_no_limit() {
        for text in [
            "",
            "/",
            "60",
            "60/",
            "/1m",
            "60/m",
            "60/1",
            "-1/1m",
            "+1/1m",
            "1.5/1m",
            "1000001/1m",
            "99999999999/1m",
            "1/999ms",
            "1/31d",
            "1/1m/2",
            "1/1000.5ms",
            "1/999999999999999y",
        ] {
            assert!(parse_limit(text).is_err(), "{text:?} was read as a limit");
        }
        assert_eq!(
            parse_limit("60/h").unwrap_err(),
            "a limit's window must be a duration with its unit (write for example 60/1h)"
        );
    }

    #[test]
    fn reads_sizes() {
        assert_eq!(parse_size("65536"), Ok(65_536));
        assert_eq!(parse_size("64KiB"), Ok(65_536));
        assert_eq!(parse_size("1 MB"), Ok(1_000_000));
        assert_eq!(parse_size("2tib"), Ok(2 << 40));
        for text in ["", "KiB", "-1", "1.5GiB", "1K", "1GiBs", "99999999999999999999", "99999999TiB"] {
            assert!(parse_size(text).is_err(), "{text:?} was read as a size");
        }
    }

    #[test]
    fn formats_what_it_reads() {
        for text in ["50ms", "10s", "90s", "4h", "30d", "75s", "0s"] {
            assert_eq!(format_duration(parse_duration(text).unwrap()), text);
        }
        for (bytes, text) in [(0, "0 bytes"), (100, "100 bytes"), (32 << 10, "32KiB"), (1 << 30, "1GiB")] {
            assert_eq!(format_size(bytes), text);
        }
        assert_eq!(parse_duration("10").unwrap_err(), "a duration needs a unit (write 10s, 10ms, 10m or 10h)");
    }
}
