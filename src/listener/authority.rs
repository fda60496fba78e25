//! A host with or without a port, as targets and `Host` have it.

/// `host`, `host:port` or `host:`, as RFC 3986 spells them; no userinfo, no path.
#[must_use]
pub(crate) fn is_authority(value: &[u8]) -> bool {
    let (host, port) = match (value.first(), value.iter().rposition(|byte| *byte == b':')) {
        (Some(b'['), _) => match value.iter().position(|byte| *byte == b']') {
            Some(close) => match &value[close + 1..] {
                [] => (&value[..=close], None),
                [b':', port @ ..] => (&value[..=close], Some(port)),
                _ => return false,
            },
            None => return false,
        },
        (_, Some(colon)) => (&value[..colon], Some(&value[colon + 1..])),
        (_, None) => (value, None),
    };
    let host_is_good = match host {
        [] => false,
        [b'[', inside @ .., b']'] => {
            std::str::from_utf8(inside).is_ok_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok())
        }
        name => name.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')),
    };
    let port_is_good = port.is_none_or(|port| {
        port.len() <= 5
            && port.iter().all(u8::is_ascii_digit)
            && port.iter().fold(0u32, |number, digit| number * 10 + u32::from(digit - b'0')) <= 65_535
    });
    host_is_good && port_is_good
}
