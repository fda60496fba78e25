// The page that asks for an admin token.
import { useEffect, useRef, useState } from "preact/hooks";
import { Icon, Logo } from "./icons";
import { Button } from "./ui";

export function Login(props: { reason: string | null; logIn: (token: string) => Promise<void> }) {
  const [token, setToken] = useState("");
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<string | null>(props.reason);
  const input = useRef<HTMLInputElement>(null);

  useEffect(() => {
    document.title = "Log in · Callgate";
    input.current?.focus();
  }, []);

  const submit = async (event: Event) => {
    event.preventDefault();
    if (!token.trim()) return setError("Paste an admin token first.");
    setBusy(true);
    setError(null);
    try {
      await props.logIn(token.trim());
    } catch (error) {
      setBusy(false);
      setError(error instanceof Error ? error.message : "That did not work.");
      input.current?.select();
    }
  };

  return (
    <main class="login">
      <form onSubmit={submit} class="panel">
        <div class="brand"><Logo /><h1>Callgate</h1></div>
        <p>This gateway asks for an admin token.</p>
        {error && <p class="form-error" role="alert"><Icon name="warning" />{error}</p>}
        <div class="field">
          <label for="token">Admin token</label>
          <input
            ref={input} id="token" type="password" autocomplete="off" spellcheck={false} value={token}
            aria-invalid={error ? true : undefined}
            onInput={(event) => setToken(event.currentTarget.value)}
          />
        </div>
        <Button type="submit" kind="primary" busy={busy}>Log in</Button>
        <p class="hint">
          The token stays in the memory of this tab, and is gone when you reload or close it.
          Make one with <code>callgate admin-token create</code>.
        </p>
      </form>
    </main>
  );
}
