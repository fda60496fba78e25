// All tokens: search, and make one.
import { useEffect, useState } from "preact/hooks";
import { get } from "../api";
import { count, date, time } from "../format";
import { PageHead, type PageProps } from "../page";
import { useResource, useSettled } from "../resource";
import { href, replace } from "../router";
import { ReadOnlyNote, useMayWrite } from "../session";
import { Table } from "../table";
import type { Token, TokenPage as Page } from "../types";
import { Badge, Button, Empty, Loaded, Panel, Time, type Tone } from "../ui";
import { CreateDialog } from "./token-forms";
import { usePlans } from "./plans";

export const stateTones: Record<Token["state"], Tone> = { active: "good", expired: "warning", disabled: "neutral", revoked: "bad" };

const filters = ["name", "account", "state", "plan", "permission"] as const;
type Filters = Record<(typeof filters)[number], string>;

export function TokensPage({ location }: PageProps) {
  const [wanted, setWanted] = useState(() =>
    Object.fromEntries(filters.map((name) => [name, location.query.get(name) ?? ""])) as Filters);
  const settled = useSettled(wanted);
  const [creating, setCreating] = useState(false);
  const mayWrite = useMayWrite();
  const plans = usePlans();

  useEffect(() => replace(["tokens"], settled), [settled]);

  const change = (name: keyof Filters) => (event: Event) =>
    setWanted({ ...wanted, [name]: (event.currentTarget as HTMLInputElement).value });
  const isFiltered = Object.values(settled).some(Boolean);

  return (
    <>
      <PageHead title="Tokens">
        {mayWrite && <Button kind="primary" icon="plus" onClick={() => setCreating(true)}>New token</Button>}
      </PageHead>
      {!mayWrite && <ReadOnlyNote what="make or change tokens" />}
      <form class="filters" role="search" aria-label="Tokens" onSubmit={(event) => event.preventDefault()}>
        <label>Name<input type="search" value={wanted.name} onInput={change("name")} placeholder="A part of it" /></label>
        <label>Account<input type="search" value={wanted.account} onInput={change("account")} placeholder="Exactly" /></label>
        <label>State
          <select value={wanted.state} onChange={change("state")}>
            <option value="">Any</option>
            {Object.keys(stateTones).map((state) => <option value={state} key={state}>{state}</option>)}
          </select>
        </label>
        <label>Plan
          <select value={wanted.plan} onChange={change("plan")}>
            <option value="">Any</option>
            {[...new Set([...plans, wanted.plan].filter(Boolean))].map((plan) => <option value={plan} key={plan}>{plan}</option>)}
          </select>
        </label>
        <label>Permission<input type="search" value={wanted.permission} onInput={change("permission")} placeholder="Exactly" /></label>
      </form>
      <Pages filters={settled} key={JSON.stringify(settled)} isFiltered={isFiltered} onCreate={mayWrite ? () => setCreating(true) : undefined} />
      {creating && <CreateDialog onClose={() => setCreating(false)} />}
    </>
  );
}

function Pages(props: { filters: Filters; isFiltered: boolean; onCreate?: () => void }) {
  // The cursors of the pages up to this one.
  const [cursors, setCursors] = useState<(string | null)[]>([null]);
  const after = cursors.at(-1) ?? null;
  const page = useResource(`tokens ${after}`, (signal) => get<Page>("/api/tokens", { ...props.filters, after }, signal));
  const empty = props.isFiltered
    ? <Empty title="No token fits" icon="search">Change the search, or clear it.</Empty>
    : (
      <Empty title="There are no tokens yet" icon="tokens">
        A client of the gateway needs one for every route that is not public.
        {props.onCreate && <p><Button kind="primary" icon="plus" onClick={props.onCreate}>New token</Button></p>}
      </Empty>
    );
  return (
    <Panel title={props.isFiltered ? "Found" : "All tokens"} note={page.data ? `page ${count(cursors.length)}` : undefined}>
      <Loaded resource={page} lines={10}>
        {({ tokens, next }) => (
          <>
            <TokenTable tokens={tokens} empty={empty} />
            {(cursors.length > 1 || next) && (
              <nav class="pager" aria-label="Pages of tokens">
                <Button disabled={cursors.length === 1} onClick={() => setCursors(cursors.slice(0, -1))}>Previous</Button>
                <Button disabled={!next} onClick={() => setCursors([...cursors, next])}>Next</Button>
              </nav>
            )}
          </>
        )}
      </Loaded>
    </Panel>
  );
}

function TokenTable({ tokens, empty }: { tokens: Token[]; empty: preact.ComponentChildren }) {
  return (
    <Table
      caption="Tokens"
      rows={tokens}
      rowKey={(token) => token.id}
      empty={empty}
      columns={[
        {
          head: "Name",
          class: "main-cell",
          cell: (token) => (
            <>
              <a class="cut" href={href(["tokens", token.id])} title={token.name}>{token.name}</a>
              <span class="code muted cut">{token.id}</span>
              <span class="muted cut on-phone">{token.account}</span>
            </>
          ),
        },
        { head: "Account", from: "tablet", class: "main-cell", cell: (token) => <a class="cut quiet" href={href(["tokens"], { account: token.account })} title={token.account}>{token.account}</a> },
        { head: "State", cell: (token) => <Badge tone={stateTones[token.state]}>{token.state}</Badge> },
        { head: "Plan", from: "tablet", cell: (token) => token.plan ?? <span class="muted">default</span> },
        { head: "Permissions", from: "wide", cell: (token) => <Permissions all={token.permissions} max={3} /> },
        { head: "Requests", numeric: true, from: "tablet", cell: (token) => count(token.usage?.requests) },
        { head: "Last used", from: "tablet", cell: (token) => token.usage?.last_used_at ? <Time at={token.usage.last_used_at} relative /> : <span class="muted">never</span> },
        { head: "Expires", from: "wide", cell: (token) => token.expires_at ? <time class="nowrap" dateTime={token.expires_at} title={time(token.expires_at)}>{date(token.expires_at)}</time> : <span class="muted">never</span> },
      ]}
    />
  );
}

export function Permissions({ all, max = Infinity }: { all: string[]; max?: number }) {
  if (all.length === 0) return <span class="muted">none</span>;
  return (
    <span class="chips">
      {all.slice(0, max).map((permission) => <span class="chip code" key={permission}>{permission}</span>)}
      {all.length > max && <span class="muted">and {count(all.length - max)} more</span>}
    </span>
  );
}
