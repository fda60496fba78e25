// Dialogs that make and change tokens.
import { useMemo, useState } from "preact/hooks";
import { idPath, patch, post } from "../api";
import { Dialog, Field, FormDialog } from "../dialog";
import { fromLocalInput, localInput, minute } from "../format";
import { announce } from "../news";
import { go } from "../router";
import type { IssuedToken, RotatedToken, Token } from "../types";
import { Button, CopyButton } from "../ui";
import { usePlans } from "./plans";

interface Values {
  name: string; account: string; permissions: string; plan: string; limits: string; concurrent_calls: string;
  in_flight: string; expires_at: string;
}

function valuesOf(token: Token | null): Values {
  return {
    name: token?.name ?? "",
    account: token?.account ?? "",
    permissions: token?.permissions.join(" ") ?? "",
    plan: token?.plan ?? "",
    limits: Object.entries(token?.limits ?? {}).map(([name, limit]) => `${name}=${limit}`).join(" "),
    concurrent_calls: token?.concurrent_calls?.toString() ?? "",
    in_flight: token?.in_flight?.toString() ?? "",
    expires_at: localInput(token?.expires_at ?? null),
  };
}

const words = (text: string) => text.split(/[\s,]+/).filter(Boolean);
const numberOrNull = (text: string) => (text.trim() ? Number(text) : null);

function bodyOf(values: Values): Record<string, unknown> {
  const limits = Object.fromEntries(words(values.limits).map((word) => {
    const at = word.indexOf("=");
    return at < 0 ? [word, ""] : [word.slice(0, at), word.slice(at + 1)];
  }));
  return {
    name: values.name.trim(),
    account: values.account.trim(),
    permissions: words(values.permissions),
    plan: values.plan || null,
    limits: Object.keys(limits).length ? limits : null,
    concurrent_calls: numberOrNull(values.concurrent_calls),
    in_flight: numberOrNull(values.in_flight),
    expires_at: fromLocalInput(values.expires_at),
  };
}

function Fields(props: { values: Values; set: (values: Values) => void; errors: Record<string, string[]>; isNew: boolean }) {
  const { values, set, errors } = props;
  const plans = usePlans();
  const on = (name: keyof Values) => (event: Event) => set({ ...values, [name]: (event.currentTarget as HTMLInputElement).value });
  return (
    <div class="form-grid">
      <Field name="name" label="Name" errors={errors} hint="For people: what the token is for.">
        {(field) => <input {...field} value={values.name} onInput={on("name")} maxLength={255} required autoFocus autocomplete="off" />}
      </Field>
      {props.isNew && (
        <Field name="account" label="Account" errors={errors} hint="The owner; upstreams see it.">
          {(field) => <input {...field} value={values.account} onInput={on("account")} maxLength={128} required autocomplete="off" />}
        </Field>
      )}
      <Field name="permissions" label="Permissions" errors={errors} hint={<>With spaces between: <code>calls:read calls:*</code>. None: only routes that need none.</>}>
        {(field) => <input {...field} value={values.permissions} onInput={on("permissions")} autocomplete="off" spellcheck={false} />}
      </Field>
      <Field name="plan" label="Plan" errors={errors}>
        {(field) => (
          <select {...field} value={values.plan} onChange={on("plan")}>
            <option value="">The default plan</option>
            {[...new Set([...plans, values.plan].filter(Boolean))].map((plan) => <option value={plan} key={plan}>{plan}</option>)}
          </select>
        )}
      </Field>
      <Field name="expires_at" label="Expires" errors={errors} hint="In your time zone. Empty: never.">
        {(field) => <input {...field} type="datetime-local" value={values.expires_at} onInput={on("expires_at")} />}
      </Field>
      <Field name="limits" label="Own limits" errors={errors} hint={<>In place of those of the plan: <code>minute=120/1m</code>.</>}>
        {(field) => <input {...field} value={values.limits} onInput={on("limits")} autocomplete="off" spellcheck={false} />}
      </Field>
      <Field name="concurrent_calls" label="Calls at one time" errors={errors} hint="Empty: as the plan says.">
        {(field) => <input {...field} type="number" min="1" max="100000" value={values.concurrent_calls} onInput={on("concurrent_calls")} />}
      </Field>
      <Field name="in_flight" label="Requests in flight" errors={errors} hint="On each instance. Empty: as the plan says.">
        {(field) => <input {...field} type="number" min="1" max="100000" value={values.in_flight} onInput={on("in_flight")} />}
      </Field>
    </div>
  );
}

export function CreateDialog({ onClose }: { onClose: () => void }) {
  const [values, setValues] = useState(() => valuesOf(null));
  const [issued, setIssued] = useState<IssuedToken | null>(null);
  // A second attempt after a lost response makes no second token.
  const key = useMemo(() => randomKey(), []);
  const send = async () => {
    setIssued(await post<IssuedToken>("/api/tokens", bodyOf(values), { "Idempotency-Key": `"${key}-${checksum(values)}"` }));
  };
  if (issued) {
    return (
      <SecretDialog
        title="The token is made" token={issued} text={issued.token} warnings={issued.warnings}
        onClose={() => {
          onClose();
          announce(`${issued.name} is made.`);
          go(["tokens", issued.id]);
        }}
      />
    );
  }
  return (
    <FormDialog title="New token" submit="Make the token" onClose={onClose} send={send} wide>
      {(errors) => <Fields values={values} set={setValues} errors={errors} isNew />}
    </FormDialog>
  );
}

function randomKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Other values are another request, which needs another key. */
function checksum(values: Values): string {
  let sum = 5381;
  for (const character of JSON.stringify(values)) sum = (Math.imul(sum, 33) + character.codePointAt(0)!) >>> 0;
  return sum.toString(16);
}

export function EditDialog({ token, onClose, onDone }: { token: Token; onClose: () => void; onDone: () => void }) {
  const [values, setValues] = useState(() => valuesOf(token));
  const send = async () => {
    const before = bodyOf(valuesOf(token));
    // Only what was changed, so that the audit trail names nothing else.
    const { account: _, ...changes } = Object.fromEntries(
      Object.entries(bodyOf(values)).filter(([name, value]) => JSON.stringify(value) !== JSON.stringify(before[name])),
    );
    if (Object.keys(changes).length) {
      await patch<Token>(idPath("/api/tokens", token.id), changes, token.version);
      announce("The token is changed.");
    }
    onDone();
    onClose();
  };
  return (
    <FormDialog title="Change the token" submit="Change" onClose={onClose} send={send} wide>
      {(errors) => <Fields values={values} set={setValues} errors={errors} isNew={false} />}
    </FormDialog>
  );
}

const graces: [number, string][] = [
  [0, "None: it has leaked, and ends now"], [3600, "An hour"], [86_400, "A day"], [604_800, "A week"], [2_592_000, "30 days"],
];

export function RotateDialog({ token, onClose, onDone }: { token: Token; onClose: () => void; onDone: () => void }) {
  const [grace, setGrace] = useState(86_400);
  const [rotated, setRotated] = useState<RotatedToken | null>(null);
  const send = async () => {
    setRotated(await post<RotatedToken>(`${idPath("/api/tokens", token.id)}/rotate`, { grace_seconds: grace }));
    onDone();
  };
  if (rotated) {
    const until = rotated.old_secret_until;
    return (
      <SecretDialog
        title="The token has a new secret" token={rotated} text={rotated.token} warnings={[]} onClose={onClose}
        note={until ? `The old secret works until ${minute(until)}.` : "The old secrets work no more."}
      />
    );
  }
  return (
    <FormDialog title="Rotate the secret" submit="Make a new secret" danger={grace === 0} onClose={onClose} send={send}>
      {(errors) => (
        <>
          <p>{token.name} gets a new secret; its id, limits and use stay. The old secret keeps working for the grace period.</p>
          <Field name="grace_seconds" label="Grace period" errors={errors}>
            {(field) => (
              <select {...field} value={grace} onChange={(event) => setGrace(Number(event.currentTarget.value))}>
                {graces.map(([seconds, name]) => <option value={seconds} key={seconds}>{name}</option>)}
              </select>
            )}
          </Field>
        </>
      )}
    </FormDialog>
  );
}

export function RevokeDialog({ token, onClose, onDone }: { token: Token; onClose: () => void; onDone: () => void }) {
  const [typed, setTyped] = useState("");
  const send = async () => {
    await post<Token>(`${idPath("/api/tokens", token.id)}/revoke`);
    announce(`${token.name} is revoked.`);
    onDone();
    onClose();
  };
  return (
    <FormDialog title="Revoke the token, for good" submit="Revoke" danger disabled={typed.trim() !== token.id} onClose={onClose} send={send}>
      {() => (
        <>
          <p>Its requests are refused from now on, and its open calls are closed. A revoked token never works again.</p>
          <Field name="confirmation" label="Type the token's id to confirm" hint={<span class="code">{token.id}</span>}>
            {(field) => <input {...field} value={typed} onInput={(event) => setTyped(event.currentTarget.value)} autoFocus autocomplete="off" spellcheck={false} />}
          </Field>
        </>
      )}
    </FormDialog>
  );
}

/** The secret, this once: the gateway keeps only its hash. */
function SecretDialog(props: { title: string; token: Token; text: string | null; warnings: string[]; note?: string; onClose: () => void }) {
  return (
    <Dialog title={props.title} onClose={props.onClose} locked>
      <div class="dialog-body">
        {props.text ? (
          <>
            <p><b>Copy it now.</b> It is shown this once, and can't be found out later.</p>
            <div class="secret">
              <output class="code" aria-label="The token">{props.text}</output>
              <CopyButton text={props.text} />
            </div>
          </>
        ) : <p>An earlier attempt made this token, and its secret is gone. Rotate it to get a new one.</p>}
        {props.note && <p>{props.note}</p>}
        {props.warnings.map((warning) => <p class="form-error" key={warning}>{warning}</p>)}
      </div>
      <footer class="dialog-foot"><Button kind="primary" onClick={props.onClose}>I have it</Button></footer>
    </Dialog>
  );
}
