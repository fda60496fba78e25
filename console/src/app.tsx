// The frame around all pages: who looks, where things are, and how the gateway is.

import { useEffect, useRef, useState } from "preact/hooks";
import { ApiError, get, useToken, whenLost } from "./api";
import { leave, listen, useLive } from "./live";
import { Login } from "./pages/login";
import { Overview } from "./pages/overview";
import { Tokens } from "./pages/tokens";
import { TokenPage } from "./pages/token";
import { Calls } from "./pages/calls";
import { Traffic } from "./pages/traffic";
import { ConfigurationPage } from "./pages/configuration";
import { Audit } from "./pages/audit";
import { RoleContext } from "./role";
import { at, usePlace } from "./router";
import { Empty, Page, Trouble } from "./ui";
import type { Me } from "./types";

const PAGES = [
  ["overview", "Overview", "M3 12h4l3-8 4 16 3-8h4"],
  ["tokens", "Tokens", "M14 10a4 4 0 1 1-4-4 4 4 0 0 1 4 4Zm-1 3 8 8m-3-3 2-2m-5-1 2-2"],
  ["calls", "Calls", "M5 4h4l2 5-2.5 1.5a11 11 0 0 0 5 5L15 13l5 2v4a2 2 0 0 1-2 2A15 15 0 0 1 3 6a2 2 0 0 1 2-2Z"],
  ["traffic", "Traffic", "M4 20V10m5 10V4m5 16v-7m5 7V8"],
  ["configuration", "Configuration", "M4 6h10m4 0h2M4 12h4m4 0h8M4 18h10m4 0h2M16 4v4M10 10v4m6 2v4"],
  ["audit", "Audit", "M6 3h9l4 4v14H6ZM9 12h7M9 16h7M9 8h3"],
] as const;

type Session = { state: "asking" } | { state: "login"; why: string | null } | { state: "in"; me: Me } | { state: "failed"; error: ApiError };

export function App() {
  const [session, setSession] = useState<Session>({ state: "asking" });
  const canLogOut = useRef(false);

  async function enter(secret: string | null) {
    useToken(secret);
    canLogOut.current = secret !== null;
    try {
      const me = await get<Me>("/api/me");
      setSession({ state: "in", me });
      listen();
    } catch (error) {
      const problem = error as ApiError;
      useToken(null);
      if (problem.status === 401 || problem.status === 429) {
        setSession({ state: "login", why: secret === null ? null : problem.message });
      } else {
        setSession({ state: "failed", error: problem });
      }
    }
  }
  useEffect(() => {
    whenLost(() => {
      leave();
      setSession((before) => (before.state === "in" ? { state: "login", why: "The admin token is no longer good." } : before));
    });
    void enter(null);
  }, []);

  switch (session.state) {
    case "asking":
      return <p class="loading" role="status">Loading…</p>;
    case "login":
      return <Login why={session.why} enter={enter} />;
    case "failed":
      return (
        <main class="lone">
          <h1>Callgate</h1>
          <Trouble error={session.error} retry={() => void enter(null)} />
        </main>
      );
    case "in":
      return (
        <RoleContext.Provider value={session.me.role}>
          <Frame
            me={session.me}
            logOut={
              canLogOut.current
                ? () => {
                    useToken(null);
                    leave();
                    setSession({ state: "login", why: null });
                  }
                : null
            }
          />
        </RoleContext.Provider>
      );
  }
}

function Frame({ me, logOut }: { me: Me; logOut: (() => void) | null }) {
  const place = usePlace();
  const [page = "overview", id] = place.path;
  const main = useRef<HTMLElement>(null);
  const first = useRef(true);
  const where = place.path.join("/");
  useEffect(() => {
    // The first page is read from its top, a later one from its heading.
    if (!first.current) main.current?.querySelector("h1")?.focus();
    first.current = false;
    scrollTo(0, 0);
  }, [where]);
  return (
    <div class="frame">
      <a class="skip" href="#main" onClick={(event) => (event.preventDefault(), main.current?.querySelector("h1")?.focus())}>
        To the content
      </a>
      <nav class="side" aria-label="Pages">
        <a class="brand" href={at(["overview"])}>
          <img src={new URL("./icon.svg", import.meta.url).href} alt="" width="28" height="28" />
          <span>Callgate</span>
        </a>
        <ul>
          {PAGES.map(([name, title, icon]) => (
            <li>
              <a href={at([name])} aria-current={page === name ? "page" : undefined}>
                <svg viewBox="0 0 24 24" aria-hidden="true"><path d={icon} /></svg>
                <span>{title}</span>
              </a>
            </li>
          ))}
        </ul>
        <div class="foot">
          <p class="who">
            {me.name ?? "No admin token"} · {me.role === "write" ? "may change" : "may look"}
          </p>
          <Scheme />
          {logOut && <button onClick={logOut}>Log out</button>}
        </div>
      </nav>
      <div class="content">
        <Connection />
        <main id="main" ref={main}>
          <Shown page={page} id={id} query={place.query} />
        </main>
      </div>
    </div>
  );
}

function Shown({ page, id, query }: { page: string; id: string | undefined; query: URLSearchParams }) {
  switch (page) {
    case "overview":
      return <Overview />;
    case "tokens":
      return id ? <TokenPage id={id} key={id} /> : <Tokens query={query} />;
    case "calls":
      return <Calls query={query} />;
    case "traffic":
      return <Traffic />;
    case "configuration":
      return <ConfigurationPage />;
    case "audit":
      return <Audit query={query} />;
    default:
      return (
        <Page title="Not found">
          <Empty title="There is no such page">
            <a href={at(["overview"])}>To the overview</a>
          </Empty>
        </Page>
      );
  }
}

/** Says when what is shown is not what is. */
function Connection() {
  const { connection, trouble, status } = useLive();
  const away = connection === "away";
  return (
    <div class="connection" role="status">
      {away && <p class="away">Not connected: {trouble} What is shown may be old; trying again.</p>}
      {!away && status?.draining && (
        <p class="away">
          This instance is going down{status.drain ? `: ${status.drain.calls} calls and ${status.drain.requests} requests are left` : ""}.
        </p>
      )}
    </div>
  );
}

/** Dark, light, or as the system has it. */
function Scheme() {
  const [scheme, setScheme] = useState("system");
  useEffect(() => {
    const root = document.documentElement;
    if (scheme === "system") root.removeAttribute("data-scheme");
    else root.setAttribute("data-scheme", scheme);
  }, [scheme]);
  return (
    <label class="scheme">
      <span class="hidden">Colours</span>
      <select value={scheme} onChange={(event) => setScheme(event.currentTarget.value)}>
        <option value="system">System colours</option>
        <option value="light">Light</option>
        <option value="dark">Dark</option>
      </select>
    </label>
  );
}
