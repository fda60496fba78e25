// One token: what it may, how far its limits are used up, its use over time, its open calls and its history.
import { useState } from "preact/hooks";
import { get, idPath, post, remove } from "../api";
import { FormDialog } from "../dialog";
import { count, duration } from "../format";
import { Icon } from "../icons";
import { announce } from "../news";
import { PageHead, type PageProps } from "../page";
import { useResource } from "../resource";
import { href } from "../router";
import { ReadOnlyNote, useMayWrite } from "../session";
import { Facts } from "../table";
import type { AuditPage, CallPage, Limits, Token } from "../types";
import { Badge, Bar, Button, Empty, Failure, Loaded, Loading, Panel, Time } from "../ui";
import { AuditTable } from "./audit";
import { CallTable } from "./calls";
import { EditDialog, RevokeDialog, RotateDialog } from "./token-forms";
import { Permissions, stateTones } from "./tokens";
import { UsagePanel } from "./usage";

type Action = "edit" | "rotate" | "revoke" | "disable" | "reset";

export function TokenPage({ location }: PageProps) {
  const id = location.path[1];
  const token = useResource(`token ${id}`, (signal) => get<Token>(idPath("/api/tokens", id), {}, signal));
  const [round, setRound] = useState(0);
  const [action, setAction] = useState<Action | null>(null);
  const back = <a class="back" href={href(["tokens"])}><Icon name="back" />Tokens</a>;

  if (!token.data) {
    return (
      <>
        <PageHead title="Token" above={back} />
        <Panel title={id}>{token.error ? <Failure error={token.error} onRetry={token.reload} /> : <Loading lines={8} />}</Panel>
      </>
    );
  }
  const changed = () => {
    token.reload();
    setRound((round) => round + 1);
  };
  const close = () => setAction(null);
  const data = token.data;
  return (
    <>
      <PageHead title={data.name} above={back}>
        <TokenActions token={data} act={setAction} onDone={changed} />
      </PageHead>
      <div class="grid two">
        <Panel title="Token" actions={<Badge tone={stateTones[data.state]}>{data.state}</Badge>}><TokenFacts token={data} /></Panel>
        <LimitsPanel token={data} round={round} onReset={() => setAction("reset")} />
      </div>
      <UsagePanel id={data.id} />
      <OpenCalls id={data.id} />
      <History id={data.id} round={round} />
      {action === "edit" && <EditDialog token={data} onClose={close} onDone={changed} />}
      {action === "rotate" && <RotateDialog token={data} onClose={close} onDone={changed} />}
      {action === "revoke" && <RevokeDialog token={data} onClose={close} onDone={changed} />}
      {action === "disable" && <DisableDialog token={data} onClose={close} onDone={changed} />}
      {action === "reset" && <ResetDialog token={data} onClose={close} onDone={changed} />}
    </>
  );
}

function TokenActions({ token, act, onDone }: { token: Token; act: (action: Action) => void; onDone: () => void }) {
  const [busy, setBusy] = useState(false);
  const mayWrite = useMayWrite();
  if (!mayWrite) return <ReadOnlyNote what="change this token" />;
  if (token.state === "revoked") return <p class="note">A revoked token can't be changed.</p>;
  const enable = async () => {
    setBusy(true);
    try {
      await post(`${idPath("/api/tokens", token.id)}/enable`);
      announce("The token is enabled.");
    } catch (error) {
      announce(`Not enabled: ${error instanceof Error ? error.message : "unknown"}`);
    }
    setBusy(false);
    onDone();
  };
  return (
    <>
      <Button onClick={() => act("edit")}>Change</Button>
      <Button onClick={() => act("rotate")}>Rotate</Button>
      {token.enabled ? <Button onClick={() => act("disable")}>Disable</Button> : <Button onClick={enable} busy={busy}>Enable</Button>}
      <Button kind="danger" onClick={() => act("revoke")}>Revoke</Button>
    </>
  );
}

function TokenFacts({ token }: { token: Token }) {
  const { effective } = token;
  return (
    <Facts facts={[
      ["Id", <span class="code break">{token.id}</span>],
      ["Account", <a class="break" href={href(["tokens"], { account: token.account })}>{token.account}</a>],
      ["Permissions", <Permissions all={token.permissions} />],
      ["Plan", token.plan ?? <>{effective?.plan ?? "–"} <span class="muted">(the default)</span></>],
      ["Own limits", Object.keys(token.limits).length
        ? <span class="code">{Object.entries(token.limits).map(([name, limit]) => `${name}=${limit}`).join(" ")}</span>
        : <span class="muted">none</span>],
      ["Calls at one time", count(effective?.concurrent_calls ?? token.concurrent_calls)],
      ["Requests in flight", count(effective?.in_flight ?? token.in_flight)],
      ["Made", <Time at={token.created_at} />],
      ["Expires", token.expires_at ? <Time at={token.expires_at} /> : <span class="muted">never</span>],
      ["Last used", token.usage?.last_used_at ? <Time at={token.usage.last_used_at} /> : <span class="muted">never</span>],
      ["Requests", count(token.usage?.requests)],
      ...(token.revoked_at ? [["Revoked", <Time at={token.revoked_at} />] as [string, preact.ComponentChildren]] : []),
      ...(token.old_secrets_until.length
        ? [["Old secrets until", token.old_secrets_until.map((at) => <div key={at}><Time at={at} /></div>)] as [string, preact.ComponentChildren]]
        : []),
    ]} />
  );
}

function LimitsPanel({ token, round, onReset }: { token: Token; round: number; onReset: () => void }) {
  const limits = useResource(`limits ${token.id} ${round}`, (signal) => get<Limits>(idPath("/api/limits", token.id), {}, signal), 5);
  const mayWrite = useMayWrite();
  return (
    <Panel
      title="Limits"
      note={limits.data?.shadow ? "shadow mode: nothing is refused" : limits.data ? `plan ${limits.data.plan}` : undefined}
      actions={mayWrite && token.state !== "revoked" && <Button onClick={onReset}>Clear the log</Button>}
    >
      <Loaded resource={limits} lines={4}>
        {(limits) => limits.windows.length === 0 && limits.concurrent_calls == null
          ? <Empty title="This token has no limits" />
          : (
            <ul class="windows">
              {limits.windows.map((window) => (
                <LimitBar
                  key={window.name} name={window.name} used={window.used} limit={window.limit}
                  note={window.used >= window.limit
                    ? `full, the next slot in ${duration(window.next_slot_in_seconds)}`
                    : `in any ${duration(window.window_seconds)}`}
                />
              ))}
              {limits.concurrent_calls != null && (
                <LimitBar name="Calls at one time" used={limits.open_calls ?? 0} limit={limits.concurrent_calls} note="open now" />
              )}
            </ul>
          )}
      </Loaded>
    </Panel>
  );
}

function LimitBar(props: { name: string; used: number; limit: number; note: string }) {
  const share = props.limit > 0 ? props.used / props.limit : 1;
  return (
    <li>
      <div class="window-head">
        <span class="window-name cut">{props.name}</span>
        <span><b>{count(props.used)}</b> of {count(props.limit)}</span>
      </div>
      <Bar share={share} tone={share >= 1 ? "bad" : share >= 0.8 ? "warning" : "accent"} />
      <p class="note">{props.note}</p>
    </li>
  );
}

function OpenCalls({ id }: { id: string }) {
  const calls = useResource(`calls ${id}`, (signal) => get<CallPage>("/api/calls", { token: id, all: true, limit: 50 }, signal), 5);
  return (
    <Panel title="Open calls" note={calls.data ? count(calls.data.calls.length) : undefined} actions={<a href={href(["calls"], { token: id })}>All of them</a>}>
      <Loaded resource={calls} what="The list of open calls">
        {(page) => <CallTable page={page} onEnded={calls.reload} withoutToken />}
      </Loaded>
    </Panel>
  );
}

function History({ id, round }: { id: string; round: number }) {
  const audit = useResource(`audit ${id} ${round}`, (signal) => get<AuditPage>("/api/audit", { token: id, limit: 20 }, signal));
  return (
    <Panel title="Changes of this token" actions={<a href={href(["audit"], { token: id })}>All of them</a>}>
      <Loaded resource={audit}>{(page) => <AuditTable entries={page.entries} withoutToken />}</Loaded>
    </Panel>
  );
}

function DisableDialog({ token, onClose, onDone }: { token: Token; onClose: () => void; onDone: () => void }) {
  const send = async () => {
    await post(`${idPath("/api/tokens", token.id)}/disable`);
    announce("The token is disabled.");
    onDone();
    onClose();
  };
  return (
    <FormDialog title="Disable the token" submit="Disable" danger onClose={onClose} send={send}>
      {() => <p>Requests with {token.name} are refused and its open calls are closed, until you enable it again.</p>}
    </FormDialog>
  );
}

function ResetDialog({ token, onClose, onDone }: { token: Token; onClose: () => void; onDone: () => void }) {
  const send = async () => {
    await remove(idPath("/api/limits", token.id));
    announce("The log is cleared.");
    onDone();
    onClose();
  };
  return (
    <FormDialog title="Clear the log of requests" submit="Clear the log" onClose={onClose} send={send}>
      {() => <p>All windows of {token.name} begin at zero, as if it had never been used.</p>}
    </FormDialog>
  );
}
