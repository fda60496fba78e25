//! Every key of the configuration but those of routes and upstreams, with the form of its value.

use super::form::Form::{
    self, Duration, Either, Flag, Fraction, List, Name, Named, Number, OneOrList, Section, Share, Size, Words,
};
use super::form::key;
use super::routes::ROUTES;
use super::texts::{
    ADDRESS, ADMIN_ADDRESS, COLLECTOR, FILE, GROUP, HEADER_NAME, LEVEL, LIMIT, LIMIT_NAME, MODE, NETWORKS, NONE,
    PREFIX, REALM, REDIS_URL, SECRET, SHA256, SOME_NETWORKS, TLS_VERSION,
};
use super::upstreams::UPSTREAMS;

/// The whole file.
pub(super) static FILE_FORM: Form = Section(&[
    key("listen", &LISTEN).says("The sockets, and what clients may do there."),
    key("admin", &ADMIN),
    key("tls", &TLS).required().says("The certificates of the HTTPS listener."),
    key("store", &STORE),
    key("tokens", &TOKENS).says("How tokens look, where they live, and how long they are remembered."),
    key("limits", &LIMITS).says("How limits are reported and remembered."),
    key("plans", &PLANS),
    key("default_plan", &LIMIT_NAME),
    key("routes", &ROUTES).required(),
    key("upstreams", &UPSTREAMS).required().says("The services behind Callgate, by name."),
    key("trusted_proxies", &NETWORKS),
    key("log", &LOG).says("What is logged, and how."),
    key("telemetry", &Section(&[key("otlp", &OTLP).says("The collector, and what is sent to it.")])),
    key("drain", &DRAIN),
    key("runtime", &RUNTIME).says("The process."),
]);

static TIMEOUT: Form = Duration("100ms", "5m");

static LISTEN: Form = Section(&[
    key("https", &ADDRESS),
    key("http", &Either(&[&ADDRESS, &HTTP])),
    key("redirect", &Flag),
    key("admin", &Either(&[&ADMIN_ADDRESS, &ADMIN_SOCKET])),
    key("health", &ADDRESS),
    key("proxy_protocol", &Section(&[key("from", &SOME_NETWORKS).required()])),
    key("max_connections", &Number(1, 1_000_000)),
    key("max_connections_per_client", &Number(1, 1_000_000)),
    key("handshake_timeout", &TIMEOUT),
    key("header_timeout", &TIMEOUT),
    key("idle_timeout", &Duration("1s", "1h")),
    key("body_idle_timeout", &Duration("100ms", "1h")),
    key("max_head_bytes", &Size("8KiB", "1MiB")),
    key("max_headers", &Number(1, 100)),
    key("max_target_bytes", &Size("256", "64KiB")),
    key("max_concurrent_streams", &Number(1, 10_000)),
]);

static HTTP: Form = Section(&[
    key("address", &ADDRESS).required().says("The address and port of the plain HTTP listener."),
    key("https_from", &SOME_NETWORKS)
        .says("Networks of load balancers that end TLS. Their requests may count as requests over HTTPS."),
]);

static ADMIN_SOCKET: Form = Section(&[
    key("address", &ADMIN_ADDRESS).required().says("An address and a port, or \"unix:PATH\"."),
    key("mode", &MODE).says("The mode of the Unix socket's file, \"0600\" to \"0777\". Off: 0660."),
    key("group", &GROUP).says("The group of the Unix socket's file. Off: the group of the process."),
]);

static ROLE: Form = Words(&["read", "write"]);

static ADMIN: Form = Section(&[
    key("tokens", &List(&ADMIN_TOKEN, 0)),
    key("anonymous", &Words(&["none", "read", "write"])),
    key("public_metrics", &Flag),
    key("max_failures", &Number(1, 1_000)),
    key("tls", &ADMIN_TLS),
]);

static ADMIN_TOKEN: Form = Section(&[
    key("name", &Name(64, "A-Z a-z 0-9 _ . -")).required(),
    key("role", &ROLE).required(),
    key("sha256", &SHA256).required(),
]);

static ADMIN_TLS: Form = Section(&[
    key("cert", &FILE).required(),
    key("key", &FILE).required(),
    key("client_ca", &FILE),
    key("clients", &List(&ADMIN_CLIENT, 0)).example(),
]);

static ADMIN_CLIENT: Form = Section(&[
    key("name", &Name(255, "A-Z a-z 0-9 _ . -"))
        .required()
        .says("A DNS name of the client's certificate, or its common name."),
    key("role", &ROLE).required().says("`read` or `write`."),
]);

static TLS: Form = Section(&[
    key("certificates", &List(&CERTIFICATE, 1)).required(),
    key("min_version", &TLS_VERSION),
    key("ticket_keys", &FILE),
]);

static CERTIFICATE: Form = Section(&[
    key("cert", &FILE).required().says("A PEM file of the certificate chain, leaf first."),
    key("key", &FILE).required().says("A PEM file of the private key."),
]);

static STORE: Form = Either(&[&Words(&["memory"]), &REDIS_STORE]);

static REDIS_STORE: Form =
    Section(&[key("redis", &REDIS).required().says("A store in Redis, which all instances share.")]);

static REDIS: Form = Section(&[
    key("url", &REDIS_URL).example(),
    key("cluster", &OneOrList(&REDIS_URL, 1)),
    key("sentinel", &SENTINEL),
    key("username", &SECRET),
    key("password", &SECRET),
    key("database", &Number(0, 9_999)),
    key("ca", &FILE),
    key("cert", &FILE),
    key("key", &FILE),
    key("namespace", &Name(64, "A-Z a-z 0-9 _ . : -")),
    key("deadline", &Duration("1ms", "10s")),
    key("connect_timeout", &Duration("10ms", "1m")),
    key("on_failure", &Words(&["local", "deny", "allow"])),
]);

static SENTINEL: Form = Section(&[
    key("service", &Name(128, "A-Z a-z 0-9 _ . -"))
        .required()
        .says("The name of the primary in the sentinels' configuration."),
    key("nodes", &OneOrList(&REDIS_URL, 1)).required().says("The sentinels. Their default port is 26379."),
]);

static TOKENS: Form = Section(&[
    key("prefix", &PREFIX),
    key("file", &FILE),
    key("realm", &REALM),
    key("cache_ttl", &Duration("1s", "1h")),
    key("cache_size", &Number(100, 10_000_000)),
    key("failures", &FAILURES),
]);

static FAILURES: Form = Section(&[
    key("limit", &Either(&[&LIMIT, &NONE])),
    key("ipv4_prefix", &Number(8, 32)),
    key("ipv6_prefix", &Number(16, 128)),
    key("lookups", &Number(10, 100_000)),
]);

static LIMITS: Form = Section(&[
    key("headers", &OneOrList(&Words(&["x-ratelimit", "ietf"]), 0)),
    key("max_tokens", &Number(1_000, 100_000_000)),
]);

static PLANS: Form = Named(&LIMIT_NAME, &PLAN, 1);

static PLAN: Form = Section(&[
    key("limits", &Named(&LIMIT_NAME, &LIMIT, 0)).required(),
    key("concurrent_calls", &Number(1, 100_000)),
    key("in_flight", &Number(1, 100_000)),
    key("shadow", &Flag),
]);

static LOG_FILE: Form = Section(&[
    key("path", &FILE).required().says("The file of log lines."),
    key("max_size", &Either(&[&Size("64KiB", "1TiB"), &NONE])).says(
        "The size at which the file becomes an older one, with `.1` after its name. Off: another program rotates it.",
    ),
    key("keep", &Number(0, 1_000)).says("Older files that are kept, with `max_size`. Off: 5."),
]);

static LOG: Form = Section(&[
    key("format", &Words(&["auto", "human", "json"])),
    key("file", &Either(&[&FILE, &LOG_FILE])),
    key("level", &LEVEL),
    key("access", &Flag),
    key("max_text", &Size("64", "16KiB")),
    key("sample", &Section(&[key("success", &Fraction)])).says("Which requests have a line in the access log."),
]);

static OTLP: Form = Section(&[
    key("endpoint", &COLLECTOR).required(),
    key("protocol", &Words(&["grpc", "http"])),
    key("sample", &Share),
    key("service_name", &Name(64, "A-Z a-z 0-9 _ . -")),
    key("headers", &Named(&HEADER_NAME, &SECRET, 0)),
    key("ca", &FILE),
    key("timeout", &Duration("100ms", "1m")),
]);

static DRAIN: Form = Section(&[
    key("delay", &Duration("0s", "5m")),
    key("timeout", &Duration("1s", "1d")),
    key("calls", &Duration("0s", "1d")),
    key("spread", &Duration("0s", "1h")),
]);

static RUNTIME: Form = Section(&[key("workers", &Number(1, 1_024))]);
