import { useEffect, useState } from "preact/hooks";
import { api, ApiError, withQuery } from "../api";
import { bytes, count, duration } from "../format";
import { useLoad } from "../load";
import { useMayChange } from "../role";
import { at, keepQuery } from "../router";
import type { Call, CallPage } from "../types";
import { Dialog, Empty, Field, Page, Show, Table } from "../ui";
import { Pages } from "./tokens";

export function Calls({ query }: { query: URLSearchParams }) {
  const [filter, setFilter] = useState({
    token: query.get("token") ?? "",
    account: query.get("account") ?? "",
    route: query.get("route") ?? "",
    upstream: query.get("upstream") ?? "",
  });
  const [all, setAll] = useState(query.get("all") !== "no");
  const [after, setAfter] = useState<string | null>(null);
  const [before, setBefore] = useState<(string | null)[]>([]);
  useEffect(() => {
    keepQuery(["calls"], { ...filter, all: all ? null : "no" });
    setAfter(null);
    setBefore([]);
  }, [filter, all]);
  const page = useLoad<CallPage>(withQuery("/api/calls", { ...filter, all, after, limit: 50 }), 2_000);
  const input = (name: keyof typeof filter, label: string) => (
    <label>
      {label} <input type="search" value={filter[name]} onChange={(event) => setFilter({ ...filter, [name]: event.currentTarget.value.trim() })} />
    </label>
  );
  return (
    <Page title="Calls">
      <form class="filters" role="search" aria-label="Calls" onSubmit={(event) => event.preventDefault()}>
        {input("token", "Token id")}
        {input("account", "Account")}
        {input("route", "Route")}
        {input("upstream", "Upstream")}
        <label class="check">
          <input type="checkbox" checked={all} onChange={(event) => setAll(event.currentTarget.checked)} /> of all instances
        </label>
      </form>
      <Show of={page}>
        {(data) => (
          <>
            {data.silent_instances.length > 0 && (
              <p class="stale" role="status">Some instances did not answer, and their calls are missing: {data.silent_instances.join(", ")}</p>
            )}
            {data.calls.length ? (
              <>
                <CallTable calls={data.calls} ended={page.reload} />
                <Pages
                  back={before.length ? () => { setAfter(before.at(-1) ?? null); setBefore(before.slice(0, -1)); } : null}
                  on={data.next ? () => { setBefore([...before, after]); setAfter(data.next); } : null}
                />
              </>
            ) : (
              <Empty title="No open calls">WebSockets, event streams and gRPC calls are listed here while they last.</Empty>
            )}
          </>
        )}
      </Show>
    </Page>
  );
}

const KINDS = { websocket: "WebSocket", events: "events", grpc: "gRPC" };

export function CallTable({ calls, ended }: { calls: Call[]; ended: () => void }) {
  const mayChange = useMayChange();
  const [ending, end] = useState<Call | null>(null);
  const name = (call: Call) => call.token_name ?? call.token ?? "public";
  return (
    <>
      <Table
        caption="Open calls"
        rows={calls}
        id={(call) => call.id}
        columns={[
          { name: "Token", cell: (call) => (call.token ? <a href={at(["tokens", call.token])}>{name(call)}</a> : <span class="quiet">public</span>) },
          { name: "Kind", cell: (call) => KINDS[call.kind] ?? call.kind },
          { name: "Route", cell: (call) => call.route },
          { name: "Since", numeric: true, cell: (call) => duration(call.seconds) },
          { name: "From the client", numeric: true, cell: (call) => traffic(call.bytes_in, call.messages_in) },
          { name: "To the client", numeric: true, cell: (call) => traffic(call.bytes_out, call.messages_out) },
          { name: "Client", minor: true, cell: (call) => <code>{call.client}</code> },
          { name: "Endpoint", minor: true, cell: (call) => call.endpoint ?? "–" },
          { name: "", cell: (call) => (mayChange ? <button aria-label={`End the call of ${name(call)}`} onClick={() => end(call)}>End</button> : null) },
        ]}
      />
      {ending && <EndCall call={ending} onClose={() => { end(null); ended(); }} />}
    </>
  );
}

const traffic = (size: number, messages: number | null) => (
  <>
    {bytes(size)}
    {messages !== null && <span class="note"> {count(messages)} messages</span>}
  </>
);

function EndCall({ call, onClose }: { call: Call; onClose: () => void }) {
  const [reason, setReason] = useState("");
  const [error, setError] = useState<ApiError | null>(null);
  return (
    <Dialog title="End the call" onClose={onClose}>
      <form
        class="form"
        onSubmit={async (event) => {
          event.preventDefault();
          try {
            await api("DELETE", withQuery(`/api/calls/${encodeURIComponent(call.id)}`, { reason: reason.trim() }));
            onClose();
          } catch (problem) {
            setError(problem as ApiError);
          }
        }}
      >
        <p>
          The {KINDS[call.kind]} call of <b>{call.token_name ?? call.token ?? call.client}</b>, open for {duration(call.seconds)}, ends at once.
        </p>
        <Field label="Reason" hint="The client is told, in the closing frame of a WebSocket." faults={error ? [error.message] : undefined}>
          {(id, more) => <input id={id} aria-describedby={more} maxLength={100} value={reason} placeholder="closed by the operator" onInput={(event) => setReason(event.currentTarget.value)} />}
        </Field>
        <div class="buttons"><button class="danger">End the call</button></div>
      </form>
    </Dialog>
  );
}
