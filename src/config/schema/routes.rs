//! The keys of a route.

use super::form::Form::{
    self, Duration, Either, Flag, Fraction, List, Name, Named, Number, OneOrList, Section, Share, Size, Words,
};
use super::form::key;
use super::texts::{
    FIXED_PATH, HEADER_NAME, HEADER_VALUE, HOST, LIMIT, LIMIT_NAME, METHOD, NONE, ORIGIN, PATH, UPSTREAM_NAME,
};

pub(super) static ROUTES: Form = List(&ROUTE, 1);

static ROUTE: Form = Section(&[
    key("path", &PATH).required(),
    key("name", &Name(64, "A-Z a-z 0-9 _ . : -")),
    key("host", &OneOrList(&HOST, 1)),
    key("methods", &OneOrList(&METHOD, 1)),
    key("headers", &Named(&HEADER_NAME, &HEADER_VALUE, 0)),
    key("strip_prefix", &FIXED_PATH).example(),
    key("rewrite", &PATH),
    key("permission", &OneOrList(&Name(64, "a-z 0-9 : _ . * -"), 1)),
    key("auth", &Words(&["token", "none"])),
    key("cost", &Number(1, 1_000)),
    key("limits", &Named(&LIMIT_NAME, &LIMIT, 1)),
    key("upstream", &Either(&[&UPSTREAM_NAME, &Named(&UPSTREAM_NAME, &Number(0, 1_000_000), 1)])).required(),
    key("split_by", &Words(&["token", "request"])),
    key("mirror", &MIRROR),
    key("forward_credentials", &Flag),
    key("allow_path_forms", &OneOrList(&PATH_FORMS, 0)),
    key("max_body", &Size("0", "1TiB")),
    key("min_upload_rate", &Either(&[&Size("1", "1GiB"), &NONE])),
    key("body_timeout", &Either(&[&Duration("1s", "7d"), &NONE])),
    key("first_byte_timeout", &Duration("10ms", "1h")),
    key("idle_timeout", &Duration("100ms", "1d")),
    key("timeout", &Either(&[&Duration("10ms", "1d"), &NONE])),
    key("request_headers", &REQUEST_EDITS),
    key("response_headers", &RESPONSE_EDITS),
    key("cors", &CORS),
    key("call", &CALL),
    key("log", &Section(&[key("sample", &LOG_SAMPLE).says("Which requests have a line in the access log.")])),
]);

static LOG_SAMPLE: Form = Section(&[key("success", &Fraction)
    .says("The share of requests that went well which have a line, 0 to 1. Off: that of `log.sample.success`.")
    .example()]);

static PATH_FORMS: Form =
    Words(&["dot-segments", "empty-segments", "encoded-slash", "backslash", "semicolon", "encoded-whitespace"]);

static MIRROR: Form = Section(&[
    key("upstream", &UPSTREAM_NAME).required(),
    key("share", &Share),
    key("max_body", &Size("0", "16MiB")),
    key("max_copies", &Number(1, 10_000)),
    key("timeout", &Duration("10ms", "5m")),
]);

static HEADER_NAMES: Form = OneOrList(&HEADER_NAME, 0);

static REQUEST_EDITS: Form = Section(&[
    key("set", &Named(&HEADER_NAME, &HEADER_VALUE, 0)).says("Headers and their values. A value may be \"file:PATH\"."),
    key("remove", &HEADER_NAMES).says("Headers that the upstream does not get."),
]);

static RESPONSE_EDITS: Form = Section(&[
    key("set", &Named(&HEADER_NAME, &HEADER_VALUE, 0)).says("Headers and their values."),
    key("remove", &HEADER_NAMES).says("Headers that the client does not get."),
]);

static CORS: Form = Section(&[
    key("origins", &OneOrList(&ORIGIN, 1)).required(),
    key("headers", &HEADER_NAMES),
    key("expose", &HEADER_NAMES),
    key("credentials", &Flag),
    key("max_age", &Duration("1s", "1d")),
]);

static CALL: Form = Section(&[
    key("counted", &Flag),
    key("max_duration", &Either(&[&Duration("1s", "30d"), &NONE])),
    key("idle_timeout", &Either(&[&Duration("1s", "1d"), &NONE])),
    key("ping", &Either(&[&Duration("1s", "1h"), &NONE])),
    key("ping_timeout", &Duration("1s", "1h")),
]);
