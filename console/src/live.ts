// What the gateway reports every two seconds, by server-sent events read with fetch: EventSource can't send a token.
import { useEffect, useState } from "preact/hooks";
import { ApiError, get, isNotBuilt, send } from "./api";
import type { Point, Status } from "./types";

/** Polling: the gateway has no events, so that /status is asked instead. */
export type Connection = "connecting" | "live" | "polling" | "away";

export interface Live {
  connection: Connection;
  status: Status | null;
  points: Point[];
  intervalSeconds: number;
  /** When the next attempt begins, while the gateway is away. */
  retryAt: number | null;
}

const MAX_POINTS = 150;
/** Events come every two seconds; after so long without one the connection counts as lost. */
const SILENCE_MS = 10_000;
const POLL_MS = 5_000;
const MAX_BACKOFF_MS = 30_000;

const empty: Live = { connection: "connecting", status: null, points: [], intervalSeconds: 2, retryAt: null };
let live = empty;
let session: AbortController | null = null;
const listeners = new Set<(live: Live) => void>();

function update(change: Partial<Live>) {
  live = { ...live, ...change };
  listeners.forEach((listener) => listener(live));
}

export function useLive(): Live {
  const [current, setCurrent] = useState(live);
  useEffect(() => {
    setCurrent(live);
    listeners.add(setCurrent);
    return () => void listeners.delete(setCurrent);
  }, []);
  return current;
}

export function startLive() {
  stopLive();
  session = new AbortController();
  void run(session.signal);
}

export function stopLive() {
  session?.abort();
  session = null;
  update(empty);
}

/** Connects at once instead of waiting for the next attempt. */
export function retryNow() {
  const { status, points } = live;
  startLive();
  update({ status, points });
}

async function run(signal: AbortSignal) {
  let failures = 0;
  while (!signal.aborted) {
    try {
      await listen(signal, () => (failures = 0));
      // It asked for a new connection: perhaps a process that drains, whose successor takes a moment.
      await sleep(500, signal);
      continue;
    } catch (error) {
      if (signal.aborted) return;
      if (isNotBuilt(error)) return poll(signal);
      // The page asks for another token.
      if (error instanceof ApiError && (error.status === 401 || error.status === 403)) return;
    }
    await wait(backoff(failures++), signal);
  }
}

function backoff(failures: number): number {
  const base = Math.min(1000 * 2 ** failures, MAX_BACKOFF_MS);
  return base / 2 + Math.random() * (base / 2);
}

async function wait(ms: number, signal: AbortSignal) {
  update({ connection: "away", retryAt: Date.now() + ms });
  await sleep(ms, signal);
}

function sleep(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}

/** Reads events until the stream ends; throws when it breaks. */
async function listen(session: AbortSignal, onEvent: () => void) {
  const stream = new AbortController();
  const abort = () => stream.abort();
  session.addEventListener("abort", abort, { once: true });
  let timer = setTimeout(abort, SILENCE_MS);
  try {
    const response = await send("GET", "/api/events", {
      headers: { Accept: "text/event-stream" },
      signal: stream.signal,
    });
    const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) throw new Error("the stream ended without an end event");
      clearTimeout(timer);
      timer = setTimeout(abort, SILENCE_MS);
      const events = (text + value).split("\n\n");
      text = events.pop() ?? "";
      for (const event of events) {
        onEvent();
        if (receive(event)) return;
      }
    }
  } finally {
    clearTimeout(timer);
    session.removeEventListener("abort", abort);
    stream.abort();
  }
}

/** Takes one event in; true: it was the last one. */
function receive(event: string): boolean {
  let name = "message";
  let data = "";
  for (const line of event.split("\n")) {
    if (line.startsWith("event:")) name = line.slice(6).trim();
    if (line.startsWith("data:")) data += line.slice(5).trim();
  }
  if (name === "end") return true;
  if (name === "history") {
    const history = JSON.parse(data);
    update({ points: history.points, intervalSeconds: history.interval_seconds });
  }
  if (name === "status") {
    const { point, ...status } = JSON.parse(data);
    const last = live.points.at(-1);
    const isNew = point && point.at !== last?.at;
    const points = isNew ? [...live.points, point].slice(-MAX_POINTS) : live.points;
    update({ connection: "live", status, points, retryAt: null });
  }
  return false;
}

async function poll(signal: AbortSignal) {
  let failures = 0;
  while (!signal.aborted) {
    try {
      const status = await get<Status>("/status", {}, signal);
      failures = 0;
      update({ connection: "polling", status, retryAt: null });
      await sleep(POLL_MS, signal);
    } catch (error) {
      if (signal.aborted || (error instanceof ApiError && error.status === 401)) return;
      await wait(backoff(failures++), signal);
    }
  }
}
