// A stand-in for a gateway: the admin API as far as the console uses it, and the built console.
// node server.mjs [--port 9901] [--token TEXT] [--role read|write] [--old] [--trouble] [--empty]
import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { extname, join, normalize } from "node:path";
import { parseArgs } from "node:util";
import * as data from "./data.mjs";

const { values: options } = parseArgs({
  options: {
    port: { type: "string", default: "9901" }, token: { type: "string" }, role: { type: "string", default: "write" },
    old: { type: "boolean" }, trouble: { type: "boolean" }, empty: { type: "boolean" },
  },
});
if (options.empty) for (const list of [data.tokens, data.audit, data.calls]) list.length = 0;
const dist = new URL("../../dist/", import.meta.url).pathname;
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const types = { ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8" };

class Refusal extends Error {
  constructor(status, code, message, errors) {
    super(message);
    Object.assign(this, { status, code, errors });
  }
}

function page(list, query, cursor) {
  const from = Number(query.get(cursor) ?? 0);
  const limit = Number(query.get("limit") ?? 50);
  return [list.slice(from, from + limit), from + limit < list.length ? from + limit : null];
}

const one = (id) => data.tokens.find((token) => token.id === id) ?? refuse(404, "not_found", "There is no such token.");
const refuse = (...parts) => { throw new Refusal(...parts); };
const record = (action, token, changes) => data.audit.unshift({ at: data.iso(Date.now()), by: "admin:ops", action, tokens: [token.id], account: token.account, changes });
const secret = (token) => `cg_${token.id}_${"s3cret".repeat(6)}`;

function change(token, action, changes, values) {
  Object.assign(token, values, { version: token.version + 1 });
  record(action, token, changes);
  return token;
}

const matches = (token, query) =>
  (!query.get("name") || token.name.toLowerCase().includes(query.get("name").toLowerCase())) &&
  ["account", "state", "plan"].every((name) => !query.get(name) || token[name] === query.get(name)) &&
  (!query.get("permission") || token.permissions.includes(query.get("permission")));

// The second list is what an older gateway lacks.
const routes = [
  ["GET", "/api/tokens", (_, query) => {
    const [tokens, next] = page(data.tokens.filter((token) => matches(token, query)), query, "after");
    return { tokens, next: next && String(next) };
  }],
  ["POST", "/api/tokens", (_, __, body) => {
    const errors = {};
    if (!body.name) errors.name = ["The name field is required."];
    if (!body.account) errors.account = ["The account field is required."];
    if (Object.keys(errors).length) refuse(422, "invalid", "The given data was invalid.", errors);
    const token = data.newToken(body);
    data.tokens.unshift(token);
    record("create", token, { name: [null, token.name] });
    return { ...token, token: secret(token), warnings: [] };
  }],
  ["GET", "/api/tokens/:id", (id) => ({ ...one(id), effective: { plan: "standard", limits: {}, concurrent_calls: 10, in_flight: 100 } })],
  ["PATCH", "/api/tokens/:id", (id, _, body) => change(one(id), "update", Object.fromEntries(Object.entries(body).map(([name, value]) => [name, [one(id)[name], value]])), body)],
  ["POST", "/api/tokens/:id/rotate", (id, _, body) => {
    const until = body.grace_seconds ? data.iso(Date.now() + body.grace_seconds * 1000) : null;
    const token = change(one(id), "rotate", undefined, { old_secrets_until: until ? [until] : [] });
    return { ...token, token: secret(token), old_secret_until: until };
  }],
  ["POST", "/api/tokens/:id/revoke", (id) => change(one(id), "revoke", undefined, { state: "revoked", revoked_at: data.iso(Date.now()) })],
  ["POST", "/api/tokens/:id/enable", (id) => change(one(id), "enable", undefined, { enabled: true, state: "active" })],
  ["POST", "/api/tokens/:id/disable", (id) => change(one(id), "disable", undefined, { enabled: false, state: "disabled" })],
  ["GET", "/api/limits/:id", (id) => ({
    id, plan: "standard", shadow: false, open_calls: 3, concurrent_calls: 10, windows: [
      { name: "minute", used: 96, limit: 120, window_seconds: 60, next_slot_at: 0, next_slot_in_seconds: 0 },
      { name: "day", used: 5000, limit: 5000, window_seconds: 86400, next_slot_at: 0, next_slot_in_seconds: 752 },
    ],
  })],
  ["DELETE", "/api/limits/:id", (id) => (record("reset", one(id)), { id, reset: true })],
  ["GET", "/api/audit", (_, query) => {
    const fits = (entry) => (!query.get("token") || entry.tokens.includes(query.get("token"))) && (!query.get("action") || entry.action === query.get("action")) && entry.by.includes(query.get("by") ?? "") && (!query.get("account") || entry.account === query.get("account"));
    const [entries, next] = page(data.audit.filter(fits), query, "before");
    return { entries, next };
  }],
  ["GET", "/api/upstreams", () => ({ upstreams: data.status(options.trouble).upstreams })],
  ["GET", "/status", () => {
    const { version, started_at, draining, configuration } = data.status(options.trouble);
    return options.old ? { version, started_at, draining, configuration } : data.status(options.trouble);
  }],
  ["POST", "/api/reload", () => ({ changes: ["plan gold changed"], warnings: [] })],
  ["GET", "/api/openapi.json", () => ({ components: { schemas: { Plan: { enum: ["standard", "gold", null] } } } })],
];
const newer = [
  ["GET", "/api/me", () => ({ name: options.token ? "ops" : null, role: options.role })],
  ["GET", "/api/calls", (_, query) => {
    const fits = (call) => ["token", "account", "route", "upstream"].every((name) => !query.get(name) || call[name] === query.get(name));
    return { calls: data.calls.filter(fits), next: null, silent_instances: options.trouble ? ["m7Tr2VwC"] : [] };
  }],
  ["DELETE", "/api/calls/:id", (id, query) => {
    const index = data.calls.findIndex((call) => call.id === id);
    if (index < 0) refuse(404, "not_found", "There is no such call.");
    const [call] = data.calls.splice(index, 1);
    record("end_call", { id: call.token ?? "", account: call.account }, { call: [id, null], reason: [null, query.get("reason") ?? "closed by the operator"] });
    return { id, ended: true };
  }],
  ["GET", "/api/tokens/:id/usage", (id, query) => ({ id, ...data.usage(query.get("by") ?? "day") })],
  ["GET", "/api/most-limited", () => ({ window_seconds: 3600, tokens: data.tokens.slice(0, 6).map(({ id }, index) => ({ id, refused: Math.round(1200 / (index + 1)) })) })],
  ["GET", "/api/routes", () => ({ window_seconds: 60, routes: data.routes })],
  ["GET", "/api/configuration", () => data.configuration],
];

function answer(request, url, body) {
  if (options.token && request.headers.authorization !== `Bearer ${options.token}`) {
    refuse(401, request.headers.authorization ? "invalid_token" : "unauthenticated", request.headers.authorization ? "The admin token is not valid." : "This request needs an admin token.");
  }
  if (request.method !== "GET" && options.role === "read") refuse(403, "insufficient_role", "This needs the role write.");
  if (request.method !== "GET" && !request.headers["x-callgate-admin"]) refuse(403, "forbidden", "The header is missing.");
  for (const [method, path, handler] of [...(options.old ? [] : newer), ...routes]) {
    const found = new RegExp(`^${path.replace(":id", "([^/]+)")}$`).exec(url.pathname);
    if (found && method === request.method) return handler(decodeURIComponent(found[1] ?? ""), url.searchParams, body);
  }
  return refuse(404, "not_found", "Nothing has this path.");
}

function events(response) {
  const write = (name, body) => response.write(`event: ${name}\ndata: ${JSON.stringify(body)}\n\n`);
  const status = () => write("status", { ...data.status(options.trouble), point: data.point(Date.now()) });
  response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
  write("history", { interval_seconds: 2, points: Array.from({ length: 149 }, (_, index) => data.point(Date.now() - (149 - index) * 2000)) });
  status();
  const timer = setInterval(status, 2000);
  response.on("close", () => clearInterval(timer));
}

async function file(path, response) {
  const name = join(dist, normalize(path === "/" ? "/index.html" : path));
  const body = await readFile(`${name}.gz`).catch(() => refuse(404, "not_found", "Nothing has this path."));
  response.writeHead(200, { "content-type": types[extname(name)] ?? "application/octet-stream", "content-encoding": "gzip", "content-security-policy": policy }).end(body);
}

createServer(async (request, response) => {
  const url = new URL(request.url, "http://mock");
  try {
    if (url.pathname === "/" || url.pathname.startsWith("/assets/")) return await file(url.pathname, response);
    let text = "";
    for await (const chunk of request) text += chunk;
    if (url.pathname === "/api/events" && !options.old) {
      answer({ method: "GET", headers: request.headers }, new URL("/api/me", url), {});
      return events(response);
    }
    const body = answer(request, url, text ? JSON.parse(text) : {});
    response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(body));
  } catch (error) {
    const { status = 500, code = "internal", message, errors } = error;
    response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify({ message, code, request_id: "0193a5c2", errors }));
  }
}).listen(Number(options.port), "127.0.0.1", () => console.log(`http://127.0.0.1:${options.port}/`));
