// What the tests of the console need: Redis, an upstream that echoes, gateways, and clients with calls.
import { execFileSync, spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { request } from "node:https";
import { createServer as createTcpServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

const running = new Set();

/** Waits until the condition holds; its last error, or `what`, is the failure. */
export async function eventually(what, condition, seconds = 10) {
  const deadline = Date.now() + seconds * 1000;
  let failure = new Error(`${what}: it did not come about in ${seconds} s`);
  while (Date.now() < deadline) {
    try {
      const result = await condition();
      if (result) return result;
    } catch (error) {
      failure = error;
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw failure;
}

export function freePort() {
  return new Promise((resolve) => {
    const server = createTcpServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

function start(program, words, options = {}) {
  const child = spawn(program, words, { stdio: ["ignore", "pipe", "pipe"], ...options });
  child.output = "";
  child.stdout.on("data", (text) => (child.output += text));
  child.stderr.on("data", (text) => (child.output += text));
  running.add(child);
  child.ended = new Promise((resolve) => child.on("exit", () => (running.delete(child), resolve())));
  return child;
}

export async function stop(child, signal = "SIGKILL") {
  child.kill(signal);
  await child.ended;
}

export async function stopAll() {
  await Promise.all([...running].map((child) => stop(child)));
}

export async function startRedis(port) {
  const child = start("redis-server", ["--port", String(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"], { cwd: tmpdir() });
  await eventually("Redis answers", () => child.output.includes("Ready to accept connections"));
  return child;
}

/** Answers every request; keeps event streams and WebSockets open. */
export function startUpstream() {
  const server = createServer((incoming, response) => {
    if (incoming.url.includes("/stream")) {
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.write("data: hello\n\n");
      return;
    }
    response.writeHead(incoming.url.includes("/broken") ? 500 : 200, { "content-type": "text/plain" }).end("echo\n");
  });
  server.on("upgrade", (incoming, socket) => {
    const key = incoming.headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    const accept = createHash("sha1").update(key).digest("base64");
    socket.write(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`);
    socket.on("error", () => {});
  });
  return new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(server)));
}

/** A folder with a certificate and a configuration, and the gateway that runs by it. */
export class Gateway {
  constructor(program, text) {
    this.program = program;
    this.folder = mkdtempSync(join(tmpdir(), "callgate-console-"));
    this.file = join(this.folder, "callgate.yaml");
    execFileSync("openssl", [
      "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "90", "-subj", "/CN=localhost",
      "-addext", "subjectAltName=DNS:localhost", "-keyout", join(this.folder, "key.pem"), "-out", join(this.folder, "cert.pem"),
    ], { stdio: "ignore" });
    this.text = text;
  }

  async start() {
    this.https ??= await freePort();
    this.admin ??= await freePort();
    const head = `listen: { https: "127.0.0.1:${this.https}", admin: "127.0.0.1:${this.admin}" }
tls: { certificates: [{ cert: cert.pem, key: key.pem }] }
runtime: { workers: 1 }
`;
    writeFileSync(this.file, head + this.text);
    this.child = start(this.program, ["serve", "--config", this.file], { cwd: this.folder });
    this.child.ended.then(() => (this.hasEnded = true));
    this.hasEnded = false;
    await eventually("the gateway is ready", async () => {
      if (this.hasEnded) throw new Error(this.child.output);
      return (await fetch(`${this.url}readyz`)).ok;
    });
    return this;
  }

  get url() {
    return `http://127.0.0.1:${this.admin}/`;
  }

  /** Changes the text of the configuration file. */
  edit(old, replacement) {
    const text = readFileSync(this.file, "utf8");
    if (!text.includes(old)) throw new Error(`not in the configuration: ${old}`);
    writeFileSync(this.file, text.replace(old, replacement));
  }

  remove() {
    rmSync(this.folder, { recursive: true, force: true });
  }

  /** Sends a request with a token; the status. */
  send(path, token) {
    return new Promise((resolve, reject) => {
      this.#request(path, token, {}, reject).on("response", (response) => {
        response.resume().on("end", () => resolve(response.statusCode));
      }).end();
    });
  }

  /** Opens an event stream; what resolves when it has begun has `closed`, which resolves when it ends. */
  listen(path, token) {
    return this.#open(path, token, { accept: "text/event-stream" }, "response");
  }

  webSocket(path, token) {
    const key = randomBytes(16).toString("base64");
    const headers = { connection: "Upgrade", upgrade: "websocket", "sec-websocket-version": "13", "sec-websocket-key": key };
    return this.#open(path, token, headers, "upgrade");
  }

  #open(path, token, headers, event) {
    return new Promise((resolve, reject) => {
      const sent = this.#request(path, token, headers, reject);
      sent.on(event, (response) => {
        const { socket } = response;
        socket.resume();
        response.resume?.();
        resolve({ status: response.statusCode, closed: new Promise((done) => socket.on("close", done)), close: () => socket.destroy() });
      });
      if (event === "upgrade") sent.on("response", (response) => reject(new Error(`no upgrade: ${response.statusCode}`)));
      sent.end();
    });
  }

  #request(path, token, headers, onError) {
    const sent = request({
      host: "127.0.0.1", port: this.https, path, servername: "localhost", agent: false, rejectUnauthorized: false,
      headers: { authorization: `Bearer ${token}`, ...headers },
    });
    sent.on("error", onError);
    return sent;
  }
}

/** An admin token and its line for the configuration. */
export function adminToken(program, name, role) {
  const made = JSON.parse(execFileSync(program, ["admin-token", "create", "--name", name, "--role", role, "--json"], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }));
  return { text: made.token, line: `{ name: ${name}, role: ${role}, sha256: "${made.sha256}" }` };
}
