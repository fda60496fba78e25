//! The keys of an upstream.

use super::form::Form::{self, Duration, Either, Flag, List, Name, Named, Number, OneOrList, Percent, Section, Words};
use super::form::key;
use super::texts::{
    AUTHORITY, ENDPOINT, FILE, HEADER_NAME, NONE, PROBED_PATH, SERVER_NAME, STATUS, TLS_VERSION, UPSTREAM_NAME,
};

pub(super) static UPSTREAMS: Form = Named(&UPSTREAM_NAME, &UPSTREAM, 1);

static UPSTREAM: Form = Section(&[
    key("endpoints", &List(&Either(&[&ENDPOINT, &WEIGHTED_ENDPOINT]), 1)).required(),
    key("protocol", &Words(&["http1", "http2", "auto"])),
    key("host", &Words(&["preserve", "endpoint"])),
    key("header_case", &Words(&["lower", "title", "preserve"])),
    key("connect_timeout", &Duration("10ms", "1m")),
    key("first_byte_timeout", &Duration("10ms", "1h")),
    key("idle_timeout", &Duration("100ms", "1d")),
    key("keep_alive", &Duration("1s", "1h")),
    key("max_idle", &Number(0, 10_000)),
    key("max_connections", &Number(1, 100_000)),
    key("max_calls", &Number(1, 100_000)),
    key("ping", &Duration("1s", "1h")),
    key("max_lifetime", &Either(&[&Duration("1s", "7d"), &NONE])),
    key("resolve_interval", &Duration("1s", "1h")),
    key("ca", &FILE),
    key("cert", &FILE),
    key("key", &FILE),
    key("server_name", &SERVER_NAME),
    key("min_version", &TLS_VERSION),
    key("balance", &Either(&[&Words(&["least_requests", "round_robin"]), &BALANCE])),
    key("slow_start", &Either(&[&Duration("1s", "1h"), &NONE])),
    key("health", &Either(&[&HEALTH, &NONE])),
    key("ejection", &Either(&[&EJECTION, &NONE])),
    key("retry", &RETRY),
    key("max_requests", &Either(&[&Number(1, 1_000_000), &NONE])),
    key("max_waiting", &Number(0, 100_000)),
    key("max_wait", &Duration("10ms", "1m")),
]);

static WEIGHTED_ENDPOINT: Form = Section(&[
    key("url", &ENDPOINT).required().says("The address."),
    key("weight", &Number(1, 100)).says("So many times the share of an endpoint with the weight 1. Off: 1."),
    key("backup", &Flag).says("Whether it gets requests only while no other endpoint can. Off: false."),
]);

static BALANCE: Form = Section(&[key("hash", &Either(&[&Words(&["token"]), &HASH_KEY]))
    .required()
    .says("What chooses the endpoint: `token`, a header or a cookie.")]);

static HASH_KEY: Form = Section(&[
    key("header", &HEADER_NAME).says("The name of the header. Either this or `cookie`."),
    key("cookie", &Name(256, "A-Z a-z 0-9 ! # $ % & ' * + - . ^ _ ` | ~"))
        .says("The name of the cookie. Either this or `header`."),
]);

static HEALTH: Form = Section(&[
    key("path", &PROBED_PATH).example(),
    key("grpc", &Either(&[&Words(&["true"]), &Name(256, "A-Z a-z 0-9 _ . - /")])),
    key("host", &AUTHORITY),
    key("status", &OneOrList(&STATUS, 1)),
    key("interval", &Duration("100ms", "1h")),
    key("jitter", &Percent),
    key("timeout", &Duration("10ms", "1m")),
    key("healthy", &Number(1, 100)),
    key("unhealthy", &Number(1, 100)),
]);

static EJECTION: Form = Section(&[
    key("failures", &Number(1, 1_000)),
    key("time", &Duration("100ms", "1h")),
    key("max_time", &Duration("100ms", "1d")),
    key("max_share", &Percent),
]);

static RETRY: Form = Section(&[
    key("on", &OneOrList(&Words(&["connect", "refused", "broken", "unavailable"]), 0)),
    key("attempts", &Number(1, 10)),
    key("budget", &Percent),
    key("min_per_second", &Number(0, 10_000)),
]);
