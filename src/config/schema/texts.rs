//! Forms that several keys have, and texts with a form of their own: addresses, limits, hosts and others, as regular expressions.

use super::form::Form::{self, Either, Name, Number, OneOrList, Pattern, Text, Words};

/// What humantime reads.
pub(super) const DURATION: &str = concat!(
    "^\\s*([0-9]+(\\.[0-9]+)?\\s*(nanos|nsec|ns|usec|us|µs|millis|msec|ms|seconds|second|secs|sec|s|",
    "minutes|minute|mins|min|m|hours|hour|hrs|hr|h|days|day|d|weeks|week|wks|wk|w|months|month|M|",
    "years|year|yrs|yr|y)\\s*)+$"
);
pub(super) const SIZE: &str = "^\\s*[0-9]+\\s*([KMGTkmgt][Ii]?[Bb]|[Bb])?\\s*$";
pub(super) const PERCENT: &str = "^(100|[0-9]{1,2})%$";
pub(super) const SHARE: &str = "^(100(\\.0*)?|[0-9]{1,2}(\\.[0-9]*)?|\\.[0-9]+)%$";

pub(super) static NONE: Form = Words(&["none"]);
pub(super) static TLS_VERSION: Form = Words(&["1.2", "1.3"]);
pub(super) static FILE: Form = Text("path of a file");
pub(super) static ADDRESS: Form =
    Pattern("IP address and port", "^([0-9]{1,3}(\\.[0-9]{1,3}){3}|\\[[0-9A-Fa-f:.]+\\]):[0-9]{1,5}$");
pub(super) static ADMIN_ADDRESS: Form = Pattern(
    "IP address and port, or unix:PATH",
    "^(([0-9]{1,3}(\\.[0-9]{1,3}){3}|\\[[0-9A-Fa-f:.]+\\]):[0-9]{1,5}|unix:.+)$",
);
pub(super) static MODE: Form = Either(&[&Pattern("octal mode of a file", "^0?[67][0-7]{2}$"), &Number(600, 777)]);
pub(super) static GROUP: Form = Either(&[&Text("name or number of a group"), &Number(0, u32::MAX as u64)]);
pub(super) static NETWORK: Form =
    Pattern("IP address or network", "^([0-9]{1,3}(\\.[0-9]{1,3}){3}|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*)(/[0-9]{1,3})?$");
pub(super) static SOME_NETWORKS: Form = OneOrList(&NETWORK, 1);
pub(super) static NETWORKS: Form = OneOrList(&NETWORK, 0);
pub(super) static SHA256: Form = Pattern("SHA-256 in hexadecimal digits, or file:PATH", "^([0-9A-Fa-f]{64}|file:.+)$");
pub(super) static REDIS_URL: Form = Pattern("URL of a Redis, or file:PATH", "^(rediss?://.+|file:.+)$");
pub(super) static SECRET: Form = Text("text, or file:PATH");
pub(super) static REALM: Form = Pattern("1 to 64 visible ASCII characters", "^[ !#-\\[\\]-~]{1,64}$");
pub(super) static PREFIX: Form =
    Pattern("1 to 32 characters out of A-Z a-z 0-9 _", "^[A-Za-z0-9]([A-Za-z0-9_]{0,30}[A-Za-z0-9])?$");
pub(super) static LIMIT: Form = Pattern(
    "COUNT/WINDOW",
    concat!(
        "^\\s*([0-9]{1,6}|1000000)\\s*/\\s*([0-9]+(\\.[0-9]+)?\\s*(millis|msec|ms|seconds|second|secs|sec|s|minutes|",
        "minute|mins|min|m|hours|hour|hrs|hr|h|days|day|d|weeks|week|wks|wk|w)\\s*)+$"
    ),
);
pub(super) static LIMIT_NAME: Form = Name(32, "A-Z a-z 0-9 _ -");
pub(super) static UPSTREAM_NAME: Form = Name(64, "A-Z a-z 0-9 _ . -");
pub(super) static PATH: Form =
    Pattern("path, with {name} for a segment and {*name} for the rest", "^/[A-Za-z0-9._~!$&'()*+,;=:@/%{}\\\\-]*$");
pub(super) static FIXED_PATH: Form = Pattern("beginning of a path", "^/[^{}]*$");
pub(super) static HOST: Form = Pattern(
    "host without a port, or *.HOST",
    "^((\\*\\.)?[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?\\.?|\\[[0-9A-Fa-f:.]+\\])$",
);
pub(super) static AUTHORITY: Form =
    Pattern("host with an optional port", "^([A-Za-z0-9_.-]+|\\[[0-9A-Fa-f:.]+\\])(:[0-9]{1,5})?$");
pub(super) static SERVER_NAME: Form =
    Pattern("host name or IP address", "^([A-Za-z0-9_.-]*[A-Za-z0-9_]|[0-9A-Fa-f:.]+)$");
pub(super) static METHOD: Form = Pattern("name of a method", "^(?!(CONNECT|TRACE)$)[A-Z-]{1,32}$");
pub(super) static HEADER_NAME: Form = Pattern("name of a header", "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$");
pub(super) static HEADER_VALUE: Form = Pattern("text without line breaks", "^[^\\r\\n]*$");
pub(super) static ORIGIN: Form =
    Pattern("origin", "^(\\*|[Hh][Tt][Tt][Pp][Ss]?://(\\*\\.)?([A-Za-z0-9_.-]+|\\[[0-9A-Fa-f:.]+\\])(:[0-9]{1,5})?)$");
pub(super) static ENDPOINT: Form = Pattern(
    "http://HOST:PORT, https://HOST:PORT or unix:/PATH",
    "^(https?://([A-Za-z0-9_.-]+|\\[[0-9A-Fa-f:.]+\\])(:[0-9]{1,5})?|unix:/(.*[^/])?)$",
);
pub(super) static COLLECTOR: Form = Pattern("URL of a collector", "^[Hh][Tt][Tt][Pp][Ss]?://[^/?#@]+(/[^?#]*)?$");
pub(super) static PROBED_PATH: Form = Pattern("path with an optional query", "^/[^#\\s]*$");
pub(super) static STATUS: Form =
    Either(&[&Number(100, 599), &Pattern("range of statuses", "^\\s*[1-5][0-9]{2}\\s*(-\\s*[1-5][0-9]{2}\\s*)?$")]);
pub(super) static LEVEL: Form = Pattern(
    "level, or a filter such as info,callgate=debug",
    concat!(
        "^\\s*([Oo][Ff][Ff]|[Ee][Rr][Rr][Oo][Rr]|[Ww][Aa][Rr][Nn]|[Ii][Nn][Ff][Oo]|[Dd][Ee][Bb][Uu][Gg]|",
        "[Tt][Rr][Aa][Cc][Ee]|[^,=\\[]*=[A-Za-z0-5]+)\\s*(,\\s*([Oo][Ff][Ff]|[Ee][Rr][Rr][Oo][Rr]|",
        "[Ww][Aa][Rr][Nn]|[Ii][Nn][Ff][Oo]|[Dd][Ee][Bb][Uu][Gg]|[Tt][Rr][Aa][Cc][Ee]|",
        "[^,=\\[]*=[A-Za-z0-5]+)\\s*)*$"
    ),
);
