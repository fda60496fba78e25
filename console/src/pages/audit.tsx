// The audit trail: what was changed, by whom, and from what to what.
import { useEffect, useState } from "preact/hooks";
import { get } from "../api";
import { count, fromLocalInput } from "../format";
import { PageHead, type PageProps } from "../page";
import { useResource, useSettled } from "../resource";
import { replace } from "../router";
import { Table } from "../table";
import type { AuditEntry, AuditPage as Page } from "../types";
import { Badge, Button, Empty, Loaded, Panel, Time, TokenLink, type Tone } from "../ui";

const tones: Record<string, Tone> = {
  create: "good", import: "good", enable: "good", rotate: "accent", update: "neutral", reset: "neutral", disable: "warning",
  revoke: "bad", end_call: "warning",
};
const filters = ["token", "account", "by", "action", "since"] as const;
type Filters = Record<(typeof filters)[number], string>;

export function AuditPage({ location }: PageProps) {
  const [wanted, setWanted] = useState(() =>
    Object.fromEntries(filters.map((name) => [name, location.query.get(name) ?? ""])) as Filters);
  const settled = useSettled(wanted);
  useEffect(() => replace(["audit"], settled), [settled]);
  const change = (name: keyof Filters) => (event: Event) =>
    setWanted({ ...wanted, [name]: (event.currentTarget as HTMLInputElement).value });
  return (
    <>
      <PageHead title="Audit" />
      <form class="filters" role="search" aria-label="Audit trail" onSubmit={(event) => event.preventDefault()}>
        <label>Token id<input type="search" value={wanted.token} onInput={change("token")} placeholder="Exactly" /></label>
        <label>Account<input type="search" value={wanted.account} onInput={change("account")} placeholder="Exactly" /></label>
        <label>By<input type="search" value={wanted.by} onInput={change("by")} placeholder="A part of the name" /></label>
        <label>Action
          <select value={wanted.action} onChange={change("action")}>
            <option value="">Any</option>
            {Object.keys(tones).map((action) => <option value={action} key={action}>{action.replace("_", " ")}</option>)}
          </select>
        </label>
        <label>Since<input type="datetime-local" value={wanted.since} onInput={change("since")} /></label>
      </form>
      <Pages filters={settled} key={JSON.stringify(settled)} />
    </>
  );
}

function Pages({ filters }: { filters: Filters }) {
  const [cursors, setCursors] = useState<(number | null)[]>([null]);
  const before = cursors.at(-1) ?? null;
  const query = { ...filters, since: fromLocalInput(filters.since), before };
  const page = useResource(`audit ${before}`, (signal) => get<Page>("/api/audit", query, signal));
  return (
    <Panel title="Actions" note={cursors.length === 1 ? "the newest first" : `page ${count(cursors.length)}`}>
      <Loaded resource={page} lines={10}>
        {({ entries, next }) => (
          <>
            <AuditTable entries={entries} isFiltered={Object.values(filters).some(Boolean)} />
            {(cursors.length > 1 || next != null) && (
              <nav class="pager" aria-label="Pages of the audit trail">
                <Button disabled={cursors.length === 1} onClick={() => setCursors(cursors.slice(0, -1))}>Newer</Button>
                <Button disabled={next == null} onClick={() => setCursors([...cursors, next])}>Older</Button>
              </nav>
            )}
          </>
        )}
      </Loaded>
    </Panel>
  );
}

export function AuditTable({ entries, withoutToken, isFiltered }: { entries: AuditEntry[]; withoutToken?: boolean; isFiltered?: boolean }) {
  const keys = new Map<AuditEntry, number>(entries.map((entry, index) => [entry, index]));
  return (
    <Table
      caption="Audit trail"
      rows={entries}
      rowKey={(entry) => `${entry.at} ${keys.get(entry)}`}
      empty={isFiltered
        ? <Empty title="No action fits" icon="search">Change the search, or clear it.</Empty>
        : <Empty title="Nothing was changed yet" icon="audit" />}
      columns={[
        { head: "When", cell: (entry) => <><span class="nowrap on-desktop"><Time at={entry.at} /></span><span class="on-phone"><Time at={entry.at} relative /></span></> },
        { head: "Action", cell: (entry) => <Badge tone={tones[entry.action] ?? "neutral"}>{entry.action.replaceAll("_", " ")}</Badge> },
        { head: "By", cell: (entry) => <span class="cut" title={entry.by}>{entry.by}</span> },
        ...(withoutToken ? [] : [{ head: "Token", class: "main-cell", cell: (entry: AuditEntry) => <Tokens entry={entry} /> }]),
        { head: "Changes", from: "tablet", class: "changes-cell", cell: (entry) => <Changes changes={entry.changes} /> },
      ]}
    />
  );
}

function Tokens({ entry }: { entry: AuditEntry }) {
  const [first] = entry.tokens;
  return (
    <>
      {first ? <TokenLink id={first} /> : <span class="muted">none</span>}
      {entry.tokens.length > 1 && <span class="muted"> and {count(entry.tokens.length - 1)} more</span>}
      {entry.account && <span class="muted cut" title={entry.account}>{entry.account}</span>}
    </>
  );
}

function Changes({ changes }: { changes: AuditEntry["changes"] }) {
  if (!changes || Object.keys(changes).length === 0) return <span class="muted">–</span>;
  return (
    <ul class="diff">
      {Object.entries(changes).map(([field, [from, to]]) => (
        <li key={field}>
          <span class="muted">{field.replaceAll("_", " ")}</span>{" "}
          {isThere(from) && <><del>{shown(from)}</del> </>}
          {isThere(to) ? <ins>{shown(to)}</ins> : <span class="muted">none</span>}
        </li>
      ))}
    </ul>
  );
}

const isThere = (value: unknown) => value != null && !(Array.isArray(value) && value.length === 0);

function shown(value: unknown): string {
  if (Array.isArray(value)) return value.map(shown).join(" ");
  if (typeof value === "object" && value) return Object.entries(value).map(([name, one]) => `${name}=${shown(one)}`).join(" ");
  return String(value);
}
