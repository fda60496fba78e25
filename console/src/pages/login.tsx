import { useEffect, useRef, useState } from "preact/hooks";
import { Field } from "../ui";

/** Asks for an admin token, which is kept in the page's memory alone. */
export function Login({ why, enter }: { why: string | null; enter: (secret: string) => Promise<void> }) {
  const [secret, setSecret] = useState("");
  const [busy, setBusy] = useState(false);
  const input = useRef<HTMLInputElement>(null);
  useEffect(() => {
    document.title = "Log in · Callgate";
    input.current?.focus();
  }, []);
  return (
    <main class="lone">
      <img src={new URL("../icon.svg", import.meta.url).href} alt="" width="44" height="44" />
      <h1>Callgate</h1>
      <form
        class="card"
        onSubmit={async (event) => {
          event.preventDefault();
          setBusy(true);
          await enter(secret.trim());
          setBusy(false);
          setSecret("");
        }}
      >
        <Field label="Admin token" hint="It stays in this page's memory: a reload asks for it again." faults={why ? [why] : undefined}>
          {(id, described) => (
            <input
              id={id}
              ref={input}
              aria-describedby={described}
              type="password"
              autocomplete="current-password"
              required
              value={secret}
              onInput={(event) => setSecret(event.currentTarget.value)}
            />
          )}
        </Field>
        <button class="main" disabled={busy || !secret.trim()}>
          {busy ? "Logging in…" : "Log in"}
        </button>
      </form>
      <p class="quiet">
        <code>callgate admin-token create</code> makes one.
      </p>
    </main>
  );
}
