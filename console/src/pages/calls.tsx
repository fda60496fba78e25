// Open calls: WebSockets, event streams and gRPC streams, with a button to end one.
import { useEffect, useState } from "preact/hooks";
import { get, idPath, remove } from "../api";
import { Field, FormDialog } from "../dialog";
import { bytes, count, duration } from "../format";
import { announce } from "../news";
import { PageHead, type PageProps } from "../page";
import { useNow, useResource, useSettled } from "../resource";
import { replace } from "../router";
import { ReadOnlyNote, useMayWrite } from "../session";
import { Table } from "../table";
import type { Call, CallPage as Page } from "../types";
import { Badge, Button, Empty, Loaded, Panel, TokenLink } from "../ui";

const kinds: Record<Call["kind"], string> = { websocket: "WebSocket", events: "Events", grpc: "gRPC" };
const filters = ["token", "account", "route", "upstream"] as const;
const labels = { token: "Token id", account: "Account", route: "Route", upstream: "Upstream" };
type Filters = Record<(typeof filters)[number], string>;

export function CallsPage({ location }: PageProps) {
  const [wanted, setWanted] = useState(() =>
    Object.fromEntries(filters.map((name) => [name, location.query.get(name) ?? ""])) as Filters);
  const [everywhere, setEverywhere] = useState(location.query.get("here") !== "1");
  const [limit, setLimit] = useState(50);
  const settled = useSettled(wanted);
  const mayWrite = useMayWrite();
  useEffect(() => replace(["calls"], { ...settled, here: everywhere ? "" : "1" }), [settled, everywhere]);

  const calls = useResource(
    `calls ${JSON.stringify(settled)} ${everywhere} ${limit}`,
    (signal) => get<Page>("/api/calls", { ...settled, all: everywhere ? true : null, limit }, signal),
    2,
  );
  return (
    <>
      <PageHead title="Calls" />
      {!mayWrite && <ReadOnlyNote what="end calls" />}
      <form class="filters" role="search" aria-label="Calls" onSubmit={(event) => event.preventDefault()}>
        {filters.map((name) => (
          <label key={name}>{labels[name]}
            <input
              type="search" value={wanted[name]} placeholder="Exactly"
              onInput={(event) => setWanted({ ...wanted, [name]: event.currentTarget.value })}
            />
          </label>
        ))}
        <label class="check">
          <input type="checkbox" checked={everywhere} onChange={(event) => setEverywhere(event.currentTarget.checked)} />
          All instances
        </label>
      </form>
      <Panel title="Open calls" note={calls.data ? `${count(calls.data.calls.length)}${calls.data.next ? " and more" : ""}, the oldest first` : undefined}>
        <Loaded resource={calls} what="The list of open calls" lines={8}>
          {(page) => (
            <>
              <CallTable page={page} onEnded={calls.reload} isFiltered={Object.values(settled).some(Boolean)} />
              {page.next && limit < 200 && (
                <nav class="pager" aria-label="More calls"><Button onClick={() => setLimit(200)}>Show up to 200</Button></nav>
              )}
              {page.next && limit >= 200 && <p class="foot">Only 200 are shown: narrow them with the fields above.</p>}
            </>
          )}
        </Loaded>
      </Panel>
    </>
  );
}

export function CallTable(props: { page: Page; onEnded: () => void; withoutToken?: boolean; isFiltered?: boolean }) {
  const [ending, setEnding] = useState<Call | null>(null);
  const mayWrite = useMayWrite();
  const now = useNow();
  const { calls, silent_instances } = props.page;
  const open = (call: Call) => duration(Math.max(call.seconds, (now - Date.parse(call.since)) / 1000));
  return (
    <>
      {silent_instances.length > 0 && (
        <p class="stale" role="status">
          {silent_instances.length === 1 ? "An instance does" : `${count(silent_instances.length)} instances do`} not answer; calls are missing:{" "}
          <span class="code">{silent_instances.join(" ")}</span>
        </p>
      )}
      <Table
        caption="Open calls"
        rows={calls}
        rowKey={(call) => call.id}
        empty={props.isFiltered
          ? <Empty title="No open call fits" icon="search">Change the fields above, or clear them.</Empty>
          : <Empty title="No call is open" icon="calls">WebSockets, event streams and gRPC streams appear here.</Empty>}
        columns={[
          ...(props.withoutToken ? [] : [{
            head: "Token", class: "main-cell", cell: (call: Call) => call.token
              ? <><TokenLink id={call.token}><span class="cut narrow">{call.token_name ?? call.token}</span></TokenLink><span class="muted cut narrow">{call.account}</span></>
              : <span class="muted">public route</span>,
          }]),
          { head: "Kind", from: "tablet", cell: (call) => <Badge tone="neutral">{kinds[call.kind] ?? call.kind}</Badge> },
          { head: "Route", class: "main-cell", cell: (call) => <><span class="cut">{call.route}</span><span class="muted cut on-phone">{kinds[call.kind] ?? call.kind}</span><span class="muted cut on-desktop" title={call.endpoint ?? undefined}>{call.endpoint ?? `${call.upstream}: not yet connected`}</span></> },
          { head: "Client", from: "tablet", cell: (call) => <span class="code cut client" title={call.client}>{call.client}</span> },
          { head: "Instance", from: "wide", cell: (call) => <span class="code">{call.instance}</span> },
          { head: "Open for", numeric: true, cell: open },
          { head: "In", numeric: true, from: "tablet", cell: (call) => <Amount bytes={call.bytes_in} messages={call.messages_in} /> },
          { head: "Out", numeric: true, from: "tablet", cell: (call) => <Amount bytes={call.bytes_out} messages={call.messages_out} /> },
          ...(mayWrite ? [{ head: "End", quietHead: true, class: "end-cell", cell: (call: Call) => (
            <button type="button" class="button quiet small" onClick={() => setEnding(call)} aria-label={`End the call of ${call.token_name ?? call.client}`}>End</button>
          ) }] : []),
        ]}
      />
      {ending && <EndDialog call={ending} onClose={() => setEnding(null)} onDone={props.onEnded} />}
    </>
  );
}

function Amount({ bytes: size, messages }: { bytes: number; messages: number | null }) {
  return <>{bytes(size)}{messages != null && <span class="muted cut">{count(messages)} messages</span>}</>;
}

function EndDialog({ call, onClose, onDone }: { call: Call; onClose: () => void; onDone: () => void }) {
  const [reason, setReason] = useState("");
  const send = async () => {
    await remove(idPath("/api/calls", call.id), { reason: reason.trim() });
    announce("The call is ended.");
    onDone();
    onClose();
  };
  return (
    <FormDialog title="End this call" submit="End the call" danger onClose={onClose} send={send}>
      {(errors) => (
        <>
          <p>
            The {kinds[call.kind] ?? call.kind} call of <b class="break">{call.token_name ?? call.client}</b> on
            route <b class="break">{call.route}</b> is closed at once.
          </p>
          <Field name="reason" label="Reason" errors={errors} hint="For the audit trail; a WebSocket's client sees it. Empty: closed by the operator.">
            {(field) => <input {...field} value={reason} onInput={(event) => setReason(event.currentTarget.value)} maxLength={100} autoFocus autocomplete="off" />}
          </Field>
        </>
      )}
    </FormDialog>
  );
}
