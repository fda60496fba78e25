// What the stand-in for a gateway answers: numbers that move, names short and long.

const NAMES = ["Dialler", "Billing export", "Call recorder", "Voice bot", "Supervisor desk", "Softphone", "CRM bridge", "Night shift"];
const ACCOUNTS = ["acme", "globex", "initech", "umbrella", "a-customer-with-a-very-long-account-name-that-does-not-fit-anywhere.example"];
const PERMISSIONS = ["calls:read", "calls:write", "calls:stream", "recordings:read", "admin:*"];
export const began = Date.now() - 3 * 3_600_000;
export const iso = (moment) => new Date(moment).toISOString().replace(/\.\d+Z$/, "Z");

let seed = 7;
const random = () => (seed = (seed * 48271) % 2147483647) / 2147483647;
const id = (length = 12) =>
  Array.from({ length }, () => "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789"[Math.floor(random() * 57)]).join("");

export function newToken(values) {
  return {
    id: id(), name: values.name, account: values.account, permissions: values.permissions ?? [], plan: values.plan ?? null,
    limits: values.limits ?? {}, concurrent_calls: values.concurrent_calls ?? null, in_flight: values.in_flight ?? null,
    created_at: iso(Date.now()), expires_at: values.expires_at ?? null, enabled: true, revoked_at: null, state: "active",
    old_secrets_until: [], version: Date.now() * 1000, usage: { last_used_at: null, requests: 0 },
  };
}

export const tokens = Array.from({ length: 130 }, (_, index) => {
  const name = index === 4 ? "A name that somebody wrote without thinking of those who read it in a table, " + "on".repeat(60) : `${NAMES[index % 8]} ${index + 1}`;
  const token = newToken({ name, account: ACCOUNTS[index % 5], permissions: PERMISSIONS.slice(0, index % 6), plan: [null, "standard", "gold"][index % 3] });
  token.created_at = iso(began - index * 86_400_000);
  token.usage = { last_used_at: index % 7 ? iso(Date.now() - index * 400_000) : null, requests: index % 7 ? Math.floor(random() * 90_000) : 0 };
  token.state = ["active", "active", "active", "active", "disabled", "expired", "active", "revoked"][index % 8];
  token.enabled = token.state !== "disabled";
  if (token.state === "revoked") token.revoked_at = iso(Date.now() - 86_400_000);
  if (token.state === "expired") token.expires_at = iso(Date.now() - 3_600_000);
  if (index === 0) Object.assign(token, { limits: { minute: "120/1m" }, old_secrets_until: [iso(Date.now() + 3_600_000)], expires_at: iso(Date.now() + 40 * 86_400_000) });
  return token;
});

export const audit = tokens.slice(0, 70).map((token, index) => ({
  at: iso(Date.now() - index * 1_234_000), by: ["admin:ops", "admin", "cli:root@gw-1"][index % 3],
  action: ["update", "rotate", "create", "disable", "enable", "reset", "revoke", "end_call"][index % 8], tokens: [token.id], account: token.account,
  ...(index % 8 === 0 && { changes: { name: ["Dialler", token.name], permissions: [["calls:read"], token.permissions], plan: [null, "gold"] } }),
}));

export const calls = tokens.slice(0, 7).map((token, index) => ({
  id: `0193a5c2-7c1e-7a4b-9d57-0a2b6f0c8e1${index}`, kind: ["websocket", "events", "grpc"][index % 3], instance: index === 6 ? "Zx81QpAb" : "k3Jx9QpA",
  token: index === 5 ? null : token.id, token_name: index === 5 ? null : token.name, account: index === 5 ? null : token.account,
  client: index === 3 ? "2001:db8:1234:5678:9abc:def0:1234:5678" : `192.0.2.${index + 7}`, route: "stream", upstream: "media",
  endpoint: index === 2 ? null : "http://10.0.0.11:3000", since: iso(Date.now() - index * 95_000 - 4000), seconds: index * 95 + 4,
  bytes_in: index % 3 === 1 ? 0 : 1024 * (index + 1) ** 4, bytes_out: 4096 * (index + 1) ** 5,
  messages_in: index % 3 ? null : 3 * index, messages_out: index % 3 ? null : 912 * index, request_id: "0193a5c2-7c1e-7a4b-9d57-0a2b6f0c8e12",
}));

const wave = (at, period, from, to) => from + ((Math.sin(at / period) + 1) / 2) * (to - from);
const jitter = (at, salt) => Math.abs(Math.sin(at * 12.9898 + salt) * 43758.5453) % 1;
const digits = (value) => Math.round(value * 100) / 100;

export function point(moment) {
  const at = moment / 1000;
  const good = wave(at, 40, 180, 420) + jitter(at, 1) * 40;
  const spike = at % 140 < 12 ? 25 : 0;
  const p50 = wave(at, 60, 2.5, 4) + jitter(at, 2);
  return {
    at: iso(moment),
    statuses: { "1xx": 0, "2xx": digits(good), "3xx": digits(4 + jitter(at, 3) * 3), "4xx": digits(wave(at, 25, 8, 40)), "5xx": digits(spike * jitter(at, 4)) },
    p50_ms: digits(p50), p95_ms: digits(p50 * 3 + jitter(at, 5) * 4), p99_ms: digits(p50 * 7 + jitter(at, 6) * 14 + spike),
    admitted: digits(good), denied: digits(wave(at, 25, 5, 30)), calls: calls.length, connections: Math.round(wave(at, 80, 35, 60)),
  };
}

const upstreams = (trouble) => [
  { name: "calls", in_flight: 12, max_requests: 1000, waiting: 0, endpoints: [
    { url: "http://10.0.0.11:3000", state: "up", ejected_for_seconds: 0, weight: 1, backup: false, in_flight: 7, failures: 0, ejections: 0 },
    { url: "http://10.0.0.12:3000", state: trouble ? "ejected" : "up", ejected_for_seconds: trouble ? 24 : 0, weight: 2, backup: false, in_flight: 5, failures: trouble ? 6 : 0, ejections: trouble ? 3 : 0 },
    { url: "http://10.0.0.19:3000", state: "up", ejected_for_seconds: 0, weight: 1, backup: true, in_flight: 0, failures: 0, ejections: 0 },
  ] },
  { name: "media", in_flight: 7, max_requests: null, waiting: 2, endpoints: [
    { url: "https://media-backend-with-a-long-name.internal.region-eu-central-1.example.com:8443", state: "up", ejected_for_seconds: 0, weight: 1, backup: false, in_flight: 7, failures: 0, ejections: 0 },
  ] },
];

export function status(trouble) {
  const now = Date.now();
  const { statuses, p50_ms: p50, p95_ms: p95, p99_ms: p99, admitted, denied, connections } = point(now);
  const warnings = trouble ? [
    { code: "store_unreachable", text: "Redis does not answer: connection refused", since: iso(now - 110_000) },
    { code: "endpoint_out", text: "http://10.0.0.12:3000 of calls is ejected", since: iso(now - 40_000) },
    { code: "certificate_expiring", text: "tls/fullchain.pem expires in 9 days", since: null },
  ] : [];
  return {
    version: "0.9.0", instance: "k3Jx9QpA", host: "gw-1", pid: 4711, time: iso(now), started_at: iso(began), uptime_seconds: (now - began) / 1000,
    well: warnings.length === 0, warnings, draining: false, drain: null, takeover: { path: null, taken_over: false },
    configuration: { file: "/etc/callgate/callgate.yaml", in_force_since: iso(began), last_reload: { at: iso(began + 3_600_000), successful: true, changes: ["plan enterprise changed", "route stream added", "upstream calls: an endpoint added"], warnings: [] } },
    certificates: [
      { file: "tls/fullchain.pem", names: ["api.example.com", "*.voice.example.com"], expires_at: iso(now + (trouble ? 9 : 61) * 86_400_000), days_left: trouble ? 9 : 61 },
      { file: "tls/old.pem", names: ["old.example.com"], expires_at: iso(now + 200 * 86_400_000), days_left: 200 },
    ],
    store: { kind: "redis", topology: "single", addresses: ["127.0.0.1:6379"], on_failure: "local", connected: !trouble, since: iso(now - 110_000), trouble: trouble ? "connection refused" : null, latency_ms: { p50: 0.21, p95: 0.4, p99: 1.2 }, unmerged_admissions: trouble ? 1204 : 0, clock_skew_seconds: 0 },
    instances: ["k3Jx9QpA", "Zx81QpAb", "m7Tr2VwC"].map((id, index) => ({ id, host: `gw-${index + 1}`, pid: 4711 + index, version: "0.9.0", started_at: iso(began - index * 5_000_000), seen_at: iso(now - 2000), draining: index === 2, calls: [6, 1, 0][index] })),
    upstreams: upstreams(trouble),
    connections: { open: connections, max: 10000, https: connections, http: 0 }, requests: { in_flight: 5 }, calls: { open: calls.length },
    traffic: {
      window_seconds: 60, requests_per_second: digits(Object.values(statuses).reduce((sum, value) => sum + value)), statuses, latency_ms: { p50, p95, p99 },
      decisions: [{ outcome: "admitted", source: "redis", per_second: digits(admitted * 0.3) }, { outcome: "admitted", source: "lease", per_second: digits(admitted * 0.7) }, { outcome: "denied", source: "deny_cache", per_second: digits(denied * 0.8) }, { outcome: "denied", source: "redis", per_second: digits(denied * 0.2) }],
      decision_latency_ms: { p50: 0.2, p95: 0.5, p99: 1 },
    },
    process: { memory_bytes: 41943040, open_files: 120, max_files: 1048576, threads: 5 }, log: { dropped_lines: 0 },
  };
}

export const routes = ["calls", "call", "stream", "recordings", "health"].map((name, index) => ({
  name, hosts: index === 3 ? ["api.example.com"] : [], path: ["/api/v1/calls", "/api/v1/calls/{id}", "/api/v1/calls/{id}/stream", "/api/v1/recordings/{id}/download/{*rest}", "/health"][index],
  methods: index === 4 ? [] : index ? ["GET"] : ["GET", "POST"], upstreams: index === 1 ? [{ upstream: "calls", weight: 9 }, { upstream: "calls-next", weight: 1 }] : [{ upstream: index === 2 ? "media" : "calls", weight: 1 }],
  access: index === 4 ? "public" : "token", permissions: index === 4 ? [] : [PERMISSIONS[index]], open_calls: index === 2 ? 7 : 0,
  requests_per_second: [120.2, 88.1, 1.2, 12, 0][index], statuses: { "1xx": 0, "2xx": 80, "3xx": 0, "4xx": [4, 0.5, 0, 1, 0][index], "5xx": index === 3 ? 0.2 : 0 },
  latency_ms: index === 4 ? { p50: null, p95: null, p99: null } : { p50: 3.1 * (index + 1), p95: 12 * (index + 1), p99: 40 * (index + 1) },
}));

export const usage = (by) => {
  const size = by === "hour" ? 3_600_000 : 86_400_000;
  const last = Math.floor(Date.now() / size) * size;
  const buckets = Array.from({ length: by === "hour" ? 720 : 30 }, (_, index) => ({ at: iso(last - index * size), admitted: Math.round(wave(index, 3, 200, 4000)), refused: index % 5 === 0 ? 300 : Math.round(jitter(index, 9) * 60) }));
  return { by, since: buckets.at(-1).at, until: iso(Date.now()), buckets: buckets.filter((_, index) => index % 9 !== 4).reverse() };
};

export const configuration = { file: "/etc/callgate/callgate.yaml", in_force_since: iso(began), warnings: [{ file: "callgate.yaml", line: 7, column: 3, path: "plans.gold", message: "No token and no default uses this plan." }], text: `# The gateway of the calls API.
listen:
  https: "0.0.0.0:443"
  admin: "127.0.0.1:9901" # the console, too
tls:
  certificates:
    - cert: tls/fullchain.pem
      key: tls/privkey.pem
store:
  redis:
    url: "redis://:[redacted]@127.0.0.1:6379"
    on_failure: local
plans:
  standard: { limits: { minute: 60/1m, day: 5000/1d } }
  gold: { limits: { minute: 600/1m } } # a line so long that it does not fit into the window of a phone, nor into that of a small laptop, and that has to scroll
routes:
  - { path: "/api/v1/calls/{id}/stream", upstream: media, permissions: ["calls:stream"] }
upstreams:
  media: { endpoints: ["http://10.0.0.11:3000"] }
` };
