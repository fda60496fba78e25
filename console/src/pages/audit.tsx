import { useEffect, useState } from "preact/hooks";
import { withQuery } from "../api";
import { dateTime, words } from "../format";
import { useLoad } from "../load";
import { at, keepQuery } from "../router";
import type { AuditEntry, AuditPage } from "../types";
import { Empty, Page, Show, Table } from "../ui";
import { Pages } from "./tokens";

const ACTIONS = ["create", "change", "rotate", "revoke", "enable", "disable", "import", "reset_limits", "end_call"];

export function Audit({ query }: { query: URLSearchParams }) {
  const [filter, setFilter] = useState({
    token: query.get("token") ?? "",
    account: query.get("account") ?? "",
    by: query.get("by") ?? "",
    action: query.get("action") ?? "",
  });
  const [start, setStart] = useState<number | null>(null);
  const [earlier, setEarlier] = useState<(number | null)[]>([]);
  useEffect(() => {
    keepQuery(["audit"], filter);
    setStart(null);
    setEarlier([]);
  }, [filter]);
  const page = useLoad<AuditPage>(withQuery("/api/audit", { ...filter, before: start, limit: 50 }));
  const input = (name: "token" | "account" | "by", label: string) => (
    <label>
      {label} <input type="search" value={filter[name]} onChange={(event) => setFilter({ ...filter, [name]: event.currentTarget.value.trim() })} />
    </label>
  );
  return (
    <Page title="Audit">
      <form class="filters" role="search" aria-label="Audit" onSubmit={(event) => event.preventDefault()}>
        {input("token", "Token id")}
        {input("account", "Account")}
        {input("by", "By")}
        <label>
          Action{" "}
          <select value={filter.action} onChange={(event) => setFilter({ ...filter, action: event.currentTarget.value })}>
            <option value="">any</option>
            {ACTIONS.map((action) => <option value={action}>{words(action)}</option>)}
          </select>
        </label>
      </form>
      <Show of={page}>
        {(data) =>
          data.entries.length ? (
            <>
              <AuditTable entries={data.entries} />
              <Pages
                back={earlier.length ? () => { setStart(earlier.at(-1) ?? null); setEarlier(earlier.slice(0, -1)); } : null}
                on={data.next !== null ? () => { setEarlier([...earlier, start]); setStart(data.next); } : null}
              />
            </>
          ) : (
            <Empty title="Nothing is recorded">Whatever is changed by commands, the API or this page is recorded here.</Empty>
          )
        }
      </Show>
    </Page>
  );
}

export function AuditTable({ entries }: { entries: AuditEntry[] }) {
  return (
    <Table
      caption="Audit"
      rows={entries.map((entry, index) => ({ ...entry, index }))}
      id={(entry) => `${entry.at} ${entry.index}`}
      columns={[
        { name: "When", cell: (entry) => <time dateTime={entry.at}>{dateTime(entry.at)}</time> },
        { name: "What", cell: (entry) => words(entry.action) },
        { name: "By", cell: (entry) => entry.by },
        {
          name: "Tokens",
          cell: (entry) => (
            <>
              {entry.tokens.slice(0, 3).map((id) => <a href={at(["tokens", id])}><code>{id}</code></a>)}
              {entry.tokens.length > 3 && ` and ${entry.tokens.length - 3} more`}
            </>
          ),
        },
        { name: "Account", minor: true, cell: (entry) => entry.account ?? "–" },
        { name: "Changes", minor: true, cell: (entry) => <Changed changes={entry.changes} /> },
      ]}
    />
  );
}

function Changed({ changes }: { changes: AuditEntry["changes"] }) {
  const pairs = Object.entries(changes ?? {});
  if (pairs.length === 0) return <span class="quiet">–</span>;
  const text = (value: unknown) => (value === null || value === undefined ? "none" : typeof value === "string" ? value : JSON.stringify(value));
  return (
    <ul class="plain">
      {pairs.map(([name, change]) => (
        <li>
          {words(name)}: {Array.isArray(change) && change.length === 2 ? <>{text(change[0])} → {text(change[1])}</> : text(change)}
        </li>
      ))}
    </ul>
  );
}
