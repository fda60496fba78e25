// Where the limits are kept, and how it is with it.
import { count, milliseconds } from "../format";
import { Facts } from "../table";
import type { Store } from "../types";
import { Badge, NotAvailable, Panel, Time } from "../ui";

const onFailure: Record<string, string> = {
  local: "each instance limits by itself",
  deny: "requests are refused",
  allow: "requests pass unlimited",
};

export function StorePanel({ store }: { store?: Store }) {
  if (!store) return <Panel title="Store"><NotAvailable what="The state of the store" /></Panel>;
  return store.kind === "redis" ? <RedisPanel store={store} /> : <MemoryPanel store={store} />;
}

function RedisPanel({ store }: { store: Store }) {
  const latency = store.latency_ms;
  const name = { single: "Redis", cluster: "Redis Cluster", sentinel: "Redis with Sentinel" }[store.topology ?? "single"] ?? "Redis";
  return (
    <Panel title="Store" note={name}>
      <Facts facts={[
        ["State", store.connected ? <Badge tone="good">connected</Badge> : <Badge tone="bad">unreachable</Badge>],
        ["Since", <Time at={store.since} relative />],
        ...(store.trouble && !store.connected ? [["Trouble", <span class="break">{store.trouble}</span>] as [string, preact.ComponentChildren]] : []),
        ["Addresses", <span class="break code">{store.addresses?.join(" ") || "–"}</span>],
        ["Latency", latency ? `${milliseconds(latency.p50)} · ${milliseconds(latency.p95)} · ${milliseconds(latency.p99)}` : "–"],
        ["Not merged yet", <>{count(store.unmerged_admissions)} <span class="muted">admissions</span></>],
        ["Clock skew", `${store.clock_skew_seconds ?? 0} s`],
        ["When unreachable", onFailure[store.on_failure ?? ""] ?? store.on_failure ?? "–"],
      ]} />
    </Panel>
  );
}

function MemoryPanel({ store }: { store: Store }) {
  return (
    <Panel title="Store" note="memory of this process">
      <Facts facts={[
        ["Token file", <span class="break code">{store.token_file ?? "–"}</span>],
        ["State of the file", store.token_file_good === false ? <Badge tone="bad">not readable</Badge> : <Badge tone="good">good</Badge>],
        ["Tokens with a log", count(store.limited_tokens)],
      ]} />
    </Panel>
  );
}
