import { useState } from "preact/hooks";
import { api, ApiError, withQuery } from "../api";
import { BarChart } from "../chart";
import { count, date, dateTime, duration, words } from "../format";
import { useLoad } from "../load";
import { Changes } from "../role";
import { at } from "../router";
import type { AuditPage, CallPage, IssuedToken, Limits, Token, Usage } from "../types";
import { Card, Dialog, Empty, Field, Meter, Page, Show, When } from "../ui";
import { AuditTable } from "./audit";
import { CallTable } from "./calls";
import { list, Secret, StateBadge, toDate } from "./tokens";

type Doing = "change" | "rotate" | "revoke" | "reset" | null;

export function TokenPage({ id }: { id: string }) {
  const path = `/api/tokens/${encodeURIComponent(id)}`;
  const loaded = useLoad<Token>(path, 10_000);
  const [doing, setDoing] = useState<Doing>(null);
  const [issued, setIssued] = useState<IssuedToken | null>(null);
  const [error, setError] = useState<ApiError | null>(null);
  const token = loaded.data;

  /** Changes the token as it is shown: if somebody else has changed it since, nothing happens. */
  async function act(method: string, action: string, body?: unknown): Promise<IssuedToken | null> {
    try {
      setError(null);
      return await api<IssuedToken>(method, `${path}${action}`, body, { "if-match": `"${token?.version}"` });
    } catch (problem) {
      setError(problem as ApiError);
      return null;
    } finally {
      loaded.reload();
    }
  }
  const close = () => {
    setDoing(null);
    setError(null);
  };
  return (
    <Page
      title={token?.name || "Token"}
      actions={
        token && (
          <Changes>
            {token.state !== "revoked" && (
              <>
                <button onClick={() => setDoing("change")}>Change</button>
                <button onClick={() => setDoing("rotate")}>Rotate</button>
                <button onClick={() => void act("POST", token.enabled ? "/disable" : "/enable")}>{token.enabled ? "Disable" : "Enable"}</button>
                <button class="danger" onClick={() => setDoing("revoke")}>Revoke</button>
              </>
            )}
          </Changes>
        )
      }
    >
      <p class="crumb"><a href={at(["tokens"])}>Tokens</a> / <code>{id}</code></p>
      {error && !doing && <p class="fault" role="alert">{error.message}</p>}
      <Show of={loaded}>
        {(token) => (
          <div class="grid">
            <Card title="Token" note={<StateBadge state={token.state} />}>
              <Facts token={token} />
            </Card>
            <Windows id={id} revoked={token.state === "revoked"} reset={() => setDoing("reset")} />
            <UsageOverTime id={id} />
            <OpenCalls id={id} />
            <TokenAudit id={id} version={token.version} />
          </div>
        )}
      </Show>
      {token && doing === "change" && <Change token={token} error={error} act={act} close={close} />}
      {token && doing === "rotate" && (
        <Rotate error={error} close={close} act={async (body) => {
          const rotated = await act("POST", "/rotate", body);
          if (rotated) {
            close();
            setIssued(rotated);
          }
        }} />
      )}
      {token && doing === "revoke" && <Revoke token={token} error={error} close={close} act={async () => (await act("POST", "/revoke")) && close()} />}
      {doing === "reset" && <Reset id={id} close={() => { close(); loaded.reload(); }} />}
      {issued && (
        <Dialog title="The new secret" onClose={() => setIssued(null)}>
          <Secret token={issued} />
        </Dialog>
      )}
    </Page>
  );
}

function Facts({ token }: { token: Token }) {
  return (
    <dl class="facts">
      <dt>Account</dt>
      <dd><a href={at(["tokens"], { account: token.account })}>{token.account}</a></dd>
      <dt>Permissions</dt>
      <dd>{token.permissions.length ? token.permissions.map((permission) => <code class="chip">{permission}</code>) : <span class="quiet">none</span>}</dd>
      <dt>Plan</dt>
      <dd>{token.plan ?? "the default one"}{Object.keys(token.limits).length > 0 && ", with limits of its own"}</dd>
      <dt>Created</dt>
      <dd>{dateTime(token.created_at)}</dd>
      <dt>Expires</dt>
      <dd>{token.expires_at ? <>{dateTime(token.expires_at)} (<When at={token.expires_at} />)</> : "never"}</dd>
      {token.revoked_at && (
        <>
          <dt>Revoked</dt>
          <dd>{dateTime(token.revoked_at)}</dd>
        </>
      )}
      {token.old_secrets_until.length > 0 && (
        <>
          <dt>Old secrets</dt>
          <dd>{token.old_secrets_until.map((until) => <span>good until {dateTime(until)} </span>)}</dd>
        </>
      )}
      <dt>Used</dt>
      <dd>{count(token.usage.requests)} requests, last <When at={token.usage.last_used_at} /></dd>
    </dl>
  );
}

function Windows({ id, revoked, reset }: { id: string; revoked: boolean; reset: () => void }) {
  const limits = useLoad<Limits>(revoked ? null : `/api/limits/${encodeURIComponent(id)}`, 3_000);
  return (
    <Card title="Limits" note={limits.data && `plan ${limits.data.plan}${limits.data.shadow ? ", in shadow mode" : ""}`}>
      {revoked ? (
        <Empty title="A revoked token has no limits" />
      ) : (
        <Show of={limits}>
          {(limits) => (
            <>
              {limits.windows.map((window) => (
                <Meter
                  label={`${words(window.name)}: in any ${duration(window.window_seconds)}`}
                  used={window.used}
                  limit={window.limit}
                  note={window.used >= window.limit ? `The next request is admitted in ${duration(window.next_slot_in_seconds)}.` : ""}
                />
              ))}
              {limits.concurrent_calls !== null && <Meter label="open calls" used={limits.open_calls ?? 0} limit={limits.concurrent_calls} />}
              <Changes>
                <button onClick={reset}>Forget what was counted</button>
              </Changes>
            </>
          )}
        </Show>
      )}
    </Card>
  );
}

function UsageOverTime({ id }: { id: string }) {
  const [by, setBy] = useState<"hour" | "day">("day");
  const usage = useLoad<Usage>(withQuery(`/api/tokens/${encodeURIComponent(id)}/usage`, { by }), 60_000);
  return (
    <Card
      title="Use over time"
      wide
      note={
        <label>
          <span class="hidden">By</span>
          <select value={by} onChange={(event) => setBy(event.currentTarget.value as "hour" | "day")}>
            <option value="day">30 days</option>
            <option value="hour">48 hours</option>
          </select>
        </label>
      }
    >
      <Show of={usage}>
        {(usage) => {
          const bars = filled(usage);
          return (
            <BarChart
              label={`Requests by ${by}`}
              bars={bars}
              format={count}
              time={(at) => (by === "day" ? date(at) : dateTime(at))}
            />
          );
        }}
      </Show>
    </Card>
  );
}

/** Every hour or day, also those without a request. */
function filled(usage: Usage) {
  const step = usage.by === "hour" ? 3_600_000 : 86_400_000;
  const known = new Map(usage.buckets.map((bucket) => [new Date(bucket.at).getTime(), bucket]));
  const last = Math.floor(new Date(usage.until).getTime() / step) * step;
  return Array.from({ length: usage.by === "hour" ? 48 : 30 }, (_, index) => {
    const at = last - step * ((usage.by === "hour" ? 47 : 29) - index);
    const bucket = known.get(at);
    return {
      at: new Date(at).toISOString(),
      parts: [
        { tone: "a", name: "admitted", value: bucket?.admitted ?? 0 },
        { tone: "s5", name: "refused", value: bucket?.refused ?? 0 },
      ],
    };
  });
}

function OpenCalls({ id }: { id: string }) {
  const calls = useLoad<CallPage>(withQuery("/api/calls", { token: id, all: true }), 3_000);
  return (
    <Card title="Open calls" wide>
      <Show of={calls}>{(page) => (page.calls.length ? <CallTable calls={page.calls} ended={calls.reload} /> : <Empty title="No open calls" />)}</Show>
    </Card>
  );
}

function TokenAudit({ id, version }: { id: string; version: number }) {
  const audit = useLoad<AuditPage>(withQuery("/api/audit", { token: id, limit: 10, version: "" }));
  const [seen, see] = useState(version);
  if (seen !== version) {
    see(version);
    audit.reload();
  }
  return (
    <Card title="Audit" note={<a href={at(["audit"], { token: id })}>all</a>} wide>
      <Show of={audit}>{(page) => (page.entries.length ? <AuditTable entries={page.entries} /> : <Empty title="Nothing is recorded" />)}</Show>
    </Card>
  );
}

interface Step {
  error: ApiError | null;
  close: () => void;
}

function Change({ token, error, act, close }: Step & { token: Token; act: (method: string, action: string, body: unknown) => Promise<unknown> }) {
  const faults = error?.fields ?? {};
  async function submit(event: Event) {
    event.preventDefault();
    const form = new FormData(event.currentTarget as HTMLFormElement);
    const text = (name: string) => String(form.get(name) ?? "").trim();
    const body = { name: text("name"), permissions: list(text("permissions")), plan: text("plan") || null, expires_at: toDate(text("expires")) };
    if (await act("PATCH", "", body)) close();
  }
  return (
    <Dialog title={`Change ${token.name}`} onClose={close}>
      <form class="form" onSubmit={submit}>
        <Field label="Name" faults={faults.name}>{(id, more) => <input id={id} aria-describedby={more} name="name" required defaultValue={token.name} />}</Field>
        <Field label="Permissions" faults={faults.permissions} hint="Separated by blanks.">
          {(id, more) => <input id={id} aria-describedby={more} name="permissions" defaultValue={token.permissions.join(" ")} />}
        </Field>
        <Field label="Plan" faults={faults.plan} hint="Empty: the default one.">
          {(id, more) => <input id={id} aria-describedby={more} name="plan" defaultValue={token.plan ?? ""} />}
        </Field>
        <Field label="Expires" faults={faults.expires_at} hint="Empty: never. In this browser's time zone.">
          {(id, more) => <input id={id} aria-describedby={more} name="expires" type="datetime-local" step="1" defaultValue={token.expires_at ? local(token.expires_at) : ""} />}
        </Field>
        {error && Object.keys(faults).length === 0 && <p class="fault" role="alert">{error.message}</p>}
        <div class="buttons"><button class="main">Save</button></div>
      </form>
    </Dialog>
  );
}

/** A moment as a field for dates has it: in this time zone. */
function local(at: string): string {
  const moment = new Date(at);
  return new Date(moment.getTime() - moment.getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
}

function Rotate({ error, close, act }: Step & { act: (body: unknown) => Promise<void> }) {
  return (
    <Dialog title="Rotate the secret" onClose={close}>
      <form
        class="form"
        onSubmit={(event) => {
          event.preventDefault();
          void act({ grace_seconds: Number(new FormData(event.currentTarget).get("grace")) });
        }}
      >
        <p>The token gets a new secret. Its old one goes on for a while, so that nobody is interrupted.</p>
        <Field label="The old secret is good for" faults={error ? [error.message] : undefined}>
          {(id, more) => (
            <select id={id} aria-describedby={more} name="grace">
              <option value="86400">one day</option>
              <option value="3600">one hour</option>
              <option value="604800">one week</option>
              <option value="0">no longer</option>
            </select>
          )}
        </Field>
        <div class="buttons"><button class="main">Rotate</button></div>
      </form>
    </Dialog>
  );
}

function Revoke({ token, error, close, act }: Step & { token: Token; act: () => Promise<unknown> }) {
  const [typed, type] = useState("");
  return (
    <Dialog title={`Revoke ${token.name}`} onClose={close}>
      <form
        class="form"
        onSubmit={(event) => {
          event.preventDefault();
          void act();
        }}
      >
        <p>
          Its requests are refused from now on, on every instance, and its open calls are closed. <b>This can't be undone.</b>
        </p>
        <Field label={`Type ${token.id} to confirm`} faults={error ? [error.message] : undefined}>
          {(id, more) => <input id={id} aria-describedby={more} autocomplete="off" spellcheck={false} value={typed} onInput={(event) => type(event.currentTarget.value)} />}
        </Field>
        <div class="buttons"><button class="danger" disabled={typed.trim() !== token.id}>Revoke for good</button></div>
      </form>
    </Dialog>
  );
}

function Reset({ id, close }: { id: string; close: () => void }) {
  const [error, setError] = useState<ApiError | null>(null);
  return (
    <Dialog title="Forget what was counted" onClose={close}>
      <form
        class="form"
        onSubmit={async (event) => {
          event.preventDefault();
          try {
            await api("DELETE", `/api/limits/${encodeURIComponent(id)}`);
            close();
          } catch (problem) {
            setError(problem as ApiError);
          }
        }}
      >
        <p>The token has its full limits again at once. The audit trail tells who did this.</p>
        {error && <p class="fault" role="alert">{error.message}</p>}
        <div class="buttons"><button class="main">Forget</button></div>
      </form>
    </Dialog>
  );
}
