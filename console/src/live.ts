// What happens now: the events of the admin API, read with fetch so that an admin token can go along.

import { useEffect, useState } from "preact/hooks";
import { ApiError, get, headers } from "./api";
import type { Point, Status } from "./types";

/** How the connection to the events is. */
export type Connection = "connecting" | "live" | "away" | "missing";

export interface Live {
  connection: Connection;
  status: Status | null;
  points: Point[];
  /** Why it is away. */
  trouble: string | null;
}

/** Five minutes. */
const MAX_POINTS = 150;
const POLL_MS = 5_000;

let live: Live = { connection: "connecting", status: null, points: [], trouble: null };
const watchers = new Set<(live: Live) => void>();
let stop: AbortController | null = null;

function set(change: Partial<Live>) {
  live = { ...live, ...change };
  watchers.forEach((watcher) => watcher(live));
}

/** The newest state, and a new rendering with each newer one. */
export function useLive(): Live {
  const [seen, see] = useState(live);
  useEffect(() => {
    watchers.add(see);
    see(live);
    return () => void watchers.delete(see);
  }, []);
  return seen;
}

/** Begins to listen, anew if it has listened before. */
export function listen() {
  leave();
  const own = (stop = new AbortController());
  void (async () => {
    for (let failures = 0; !own.signal.aborted; ) {
      const began = Date.now();
      try {
        await read(own.signal);
        failures = 0;
      } catch (error) {
        if (own.signal.aborted) return;
        if (error instanceof ApiError && (error.status === 401 || error.status === 403)) return;
        if (error instanceof ApiError && error.status === 404) {
          set({ connection: "missing", trouble: null });
          return void poll(own.signal);
        }
        set({ connection: "away", trouble: error instanceof Error ? error.message : String(error) });
      }
      if (Date.now() - began > 30_000) failures = 0;
      failures += 1;
      // At least 0.5 s and at most 15 s, not all pages at one time.
      await pause(Math.min(15_000, 500 * 2 ** failures) * (0.5 + Math.random() / 2), own.signal);
    }
  })();
}

export function leave() {
  stop?.abort();
  set({ connection: "connecting", status: null, points: [], trouble: null });
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}

/** Reads events until they end. */
async function read(signal: AbortSignal) {
  let response: Response;
  try {
    response = await fetch("/api/events", { headers: { ...headers(), accept: "text/event-stream" }, signal, cache: "no-store" });
  } catch {
    throw new ApiError(0, "unreachable", "The gateway does not answer.");
  }
  if (!response.ok || !response.body) {
    throw new ApiError(response.status, "events", response.status === 503 ? "Too many pages listen already." : `The gateway answered with ${response.status}.`);
  }
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new ApiError(0, "ended", "The gateway has ended the connection.");
    held += value;
    const events = held.split("\n\n");
    held = events.pop() ?? "";
    for (const event of events) {
      if (!take(event)) return;
    }
  }
}

/** Takes in one event; false at the last one. */
function take(text: string): boolean {
  let name = "message";
  let data = "";
  for (const line of text.split("\n")) {
    if (line.startsWith("event:")) name = line.slice(6).trim();
    if (line.startsWith("data:")) data += line.slice(5);
  }
  if (name === "history") set({ points: (JSON.parse(data) as { points: Point[] }).points });
  if (name === "status") {
    const status = JSON.parse(data) as Status & { point?: Point };
    const points = status.point ? [...live.points, status.point].slice(-MAX_POINTS) : live.points;
    set({ connection: "live", status, points, trouble: null });
  }
  return name !== "end";
}

/** An instance without events is asked again and again. */
async function poll(signal: AbortSignal) {
  while (!signal.aborted) {
    try {
      set({ status: await get<Status>("/status"), connection: "missing", trouble: null });
    } catch (error) {
      set({ connection: "away", trouble: error instanceof Error ? error.message : String(error) });
    }
    await pause(POLL_MS, signal);
  }
}
