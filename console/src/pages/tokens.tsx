import { useEffect, useState } from "preact/hooks";
import { api, ApiError, withQuery } from "../api";
import { useLoad } from "../load";
import { count } from "../format";
import { useMayChange } from "../role";
import { at, keepQuery } from "../router";
import type { IssuedToken, Token, TokenPage, TokenState } from "../types";
import { Badge, Card, Copy, Dialog, Empty, Field, Page, Show, Table, type Tone, When } from "../ui";

const TONES: Record<TokenState, Tone> = { active: "good", disabled: "warn", expired: "calm", revoked: "bad" };

export const StateBadge = ({ state }: { state: TokenState }) => <Badge tone={TONES[state]}>{state}</Badge>;

export function Tokens({ query }: { query: URLSearchParams }) {
  const mayChange = useMayChange();
  const [name, setName] = useState(query.get("name") ?? "");
  const [account, setAccount] = useState(query.get("account") ?? "");
  const [state, setState] = useState(query.get("state") ?? "");
  const [before, setBefore] = useState<(string | null)[]>([]);
  const [after, setAfter] = useState<string | null>(null);
  const [creating, create] = useState(false);
  const search = { name, account, state };
  const settled = useSettled(search);
  useEffect(() => {
    keepQuery(["tokens"], settled);
    setAfter(null);
    setBefore([]);
  }, [settled]);
  const page = useLoad<TokenPage>(withQuery("/api/tokens", { ...settled, after, limit: 50 }));
  return (
    <Page title="Tokens" actions={mayChange && <button class="main" onClick={() => create(true)}>Create a token</button>}>
      <form class="filters" role="search" aria-label="Tokens" onSubmit={(event) => event.preventDefault()}>
        <label>
          Name <input type="search" value={name} onInput={(event) => setName(event.currentTarget.value)} />
        </label>
        <label>
          Account <input type="search" value={account} onInput={(event) => setAccount(event.currentTarget.value)} />
        </label>
        <label>
          State{" "}
          <select value={state} onChange={(event) => setState(event.currentTarget.value)}>
            <option value="">any</option>
            {Object.keys(TONES).map((state) => (
              <option>{state}</option>
            ))}
          </select>
        </label>
        <FindById />
      </form>
      <Show of={page}>
        {(data) =>
          data.tokens.length === 0 ? (
            name || account || state ? (
              <Empty title="No token fits">Other words may find it; names and accounts are compared whole.</Empty>
            ) : (
              <Empty title="No tokens yet">{mayChange ? "Create the first one: its secret is shown once." : "An admin who may change things can create one."}</Empty>
            )
          ) : (
            <>
              <TokenTable tokens={data.tokens} />
              <Pages
                back={before.length ? () => { setAfter(before.at(-1) ?? null); setBefore(before.slice(0, -1)); } : null}
                on={data.next ? () => { setBefore([...before, after]); setAfter(data.next); } : null}
              />
            </>
          )
        }
      </Show>
      {creating && <CreateToken onClose={() => { create(false); page.reload(); }} />}
    </Page>
  );
}

/** What was typed, once nothing more is typed for a moment. */
function useSettled<T extends Record<string, string>>(typed: T): T {
  const [settled, settle] = useState(typed);
  useEffect(() => {
    const timer = setTimeout(() => settle(typed), 250);
    return () => clearTimeout(timer);
  }, Object.values(typed));
  return settled;
}

function FindById() {
  const [id, setId] = useState("");
  return (
    <label>
      Id{" "}
      <input
        value={id}
        placeholder="Enter to open"
        onInput={(event) => setId(event.currentTarget.value)}
        onKeyDown={(event) => event.key === "Enter" && id.trim() && (location.hash = at(["tokens", id.trim()]))}
      />
    </label>
  );
}

export function Pages({ back, on }: { back: (() => void) | null; on: (() => void) | null }) {
  if (!back && !on) return null;
  return (
    <nav class="pages" aria-label="Further pages">
      <button disabled={!back} onClick={back ?? undefined}>Back</button>
      <button disabled={!on} onClick={on ?? undefined}>More</button>
    </nav>
  );
}

function TokenTable({ tokens }: { tokens: Token[] }) {
  return (
    <Table
      caption="Tokens"
      rows={tokens}
      id={(token) => token.id}
      columns={[
        { name: "Name", cell: (token) => <a href={at(["tokens", token.id])}>{token.name || token.id}</a> },
        { name: "State", cell: (token) => <StateBadge state={token.state} /> },
        { name: "Account", cell: (token) => token.account },
        { name: "Plan", minor: true, cell: (token) => token.plan ?? <span class="quiet">default</span> },
        { name: "Requests", numeric: true, cell: (token) => count(token.usage.requests) },
        { name: "Last used", cell: (token) => <When at={token.usage.last_used_at} /> },
        { name: "Expires", minor: true, cell: (token) => <When at={token.expires_at} /> },
        { name: "Id", minor: true, cell: (token) => <code>{token.id}</code> },
      ]}
    />
  );
}

const list = (text: string) => text.split(/[\s,]+/).filter(Boolean);

/** A date of the form as the API wants it. */
const toDate = (value: string) => (value ? new Date(value).toISOString().replace(/\.\d+Z$/, "Z") : null);

function CreateToken({ onClose }: { onClose: () => void }) {
  const [issued, setIssued] = useState<IssuedToken | null>(null);
  const [error, setError] = useState<ApiError | null>(null);
  const [busy, setBusy] = useState(false);
  // The same request sent again, after its answer was lost, makes no second token.
  const [key] = useState(() => crypto.randomUUID?.() ?? String(Math.random()));
  async function submit(event: Event) {
    event.preventDefault();
    const form = new FormData(event.currentTarget as HTMLFormElement);
    const text = (name: string) => String(form.get(name) ?? "").trim();
    setBusy(true);
    try {
      const body = {
        name: text("name"),
        account: text("account"),
        permissions: list(text("permissions")),
        plan: text("plan") || null,
        expires_at: toDate(text("expires")),
      };
      setIssued(await api<IssuedToken>("POST", "/api/tokens", body, { "idempotency-key": `"${key}"` }));
      setError(null);
    } catch (problem) {
      setError(problem as ApiError);
    }
    setBusy(false);
  }
  if (issued) {
    return (
      <Dialog title="The token is made" onClose={onClose}>
        <Secret token={issued} />
      </Dialog>
    );
  }
  const faults = error?.fields ?? {};
  return (
    <Dialog title="Create a token" onClose={onClose}>
      <form class="form" onSubmit={submit}>
        <Field label="Name" faults={faults.name} hint="For people: what uses it.">
          {(id, more) => <input id={id} aria-describedby={more} name="name" required maxLength={200} />}
        </Field>
        <Field label="Account" faults={faults.account} hint="Whom it belongs to.">
          {(id, more) => <input id={id} aria-describedby={more} name="account" required />}
        </Field>
        <Field label="Permissions" faults={faults.permissions} hint="Separated by blanks, such as calls:read calls:*">
          {(id, more) => <input id={id} aria-describedby={more} name="permissions" />}
        </Field>
        <Field label="Plan" faults={faults.plan} hint="Empty: the default one.">
          {(id, more) => <input id={id} aria-describedby={more} name="plan" />}
        </Field>
        <Field label="Expires" faults={faults.expires_at} hint="Empty: never. In this browser's time zone.">
          {(id, more) => <input id={id} aria-describedby={more} name="expires" type="datetime-local" />}
        </Field>
        {error && Object.keys(faults).length === 0 && <p class="fault" role="alert">{error.message}</p>}
        <div class="buttons">
          <button class="main" disabled={busy}>{busy ? "Creating…" : "Create"}</button>
        </div>
      </form>
    </Dialog>
  );
}

/** A new secret, which nobody can show again. */
export function Secret({ token }: { token: IssuedToken }) {
  return (
    <div class="secret">
      <p>
        Copy the secret of <b>{token.name}</b> now. It is shown only this once.
      </p>
      <output aria-label="Secret">{token.token}</output>
      <div class="buttons">
        <Copy text={token.token} label="Copy the secret" />
        <a class="button" href={at(["tokens", token.id])}>Show the token</a>
      </div>
      {token.warnings?.map((warning) => <p class="stale">{warning}</p>)}
    </div>
  );
}

export { Card, list, toDate };
