// The frame of all pages: navigation, the state of the connection, and the page that the address names.
import type { FunctionComponent } from "preact";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { Icon, Logo, type IconName } from "./icons";
import { retryNow, useLive } from "./live";
import { Login } from "./login";
import { News } from "./news";
import { PageHead, type PageProps } from "./page";
import { AuditPage } from "./pages/audit";
import { CallsPage } from "./pages/calls";
import { ConfigurationPage } from "./pages/configuration";
import { OverviewPage } from "./pages/overview";
import { TokenPage } from "./pages/token";
import { TokensPage } from "./pages/tokens";
import { TrafficPage } from "./pages/traffic";
import { useNow } from "./resource";
import { href, useLocation } from "./router";
import { SessionContext, useMe, useSession } from "./session";
import { ThemeSwitch } from "./theme";
import { Badge, Button, Empty, Failure } from "./ui";

const pages: { path: string; name: string; short?: string; icon: IconName; page: FunctionComponent<PageProps> }[] = [
  { path: "overview", name: "Overview", icon: "overview", page: OverviewPage },
  { path: "tokens", name: "Tokens", icon: "tokens", page: TokensPage },
  { path: "calls", name: "Calls", icon: "calls", page: CallsPage },
  { path: "traffic", name: "Traffic", icon: "traffic", page: TrafficPage },
  { path: "configuration", name: "Configuration", short: "Config", icon: "configuration", page: ConfigurationPage },
  { path: "audit", name: "Audit", icon: "audit", page: AuditPage },
];

export function App() {
  const { session, check, logIn, logOut } = useSession();
  switch (session.kind) {
    case "checking":
      return <main class="login" aria-busy="true"><Logo /></main>;
    case "failed":
      return (
        <main class="login">
          <div class="panel">
            <h1 class="visually-hidden">Callgate</h1>
            <Failure error={session.error} onRetry={check} />
          </div>
        </main>
      );
    case "login":
      return <Login reason={session.reason} logIn={logIn} />;
    case "ready":
      return (
        <SessionContext.Provider value={session.me}>
          <Shell logOut={() => logOut()} />
        </SessionContext.Provider>
      );
  }
}

function Shell({ logOut }: { logOut: () => void }) {
  const location = useLocation();
  const main = useRef<HTMLElement>(null);
  const name = location.path[0] ?? "overview";
  const found = pages.find((page) => page.path === name);
  const isToken = name === "tokens" && location.path.length > 1;
  const Page = isToken ? TokenPage : found?.page;
  const address = location.path.join("/");
  const first = useRef(true);

  useEffect(() => {
    document.title = `${isToken ? `Token ${location.path[1]}` : found?.name ?? "Not found"} · Callgate`;
  }, [address]);
  // After a change of the page the focus is where its reading begins; the first page leaves it to the browser.
  useLayoutEffect(() => {
    if (!first.current) {
      main.current?.querySelector("h1")?.focus({ preventScroll: true });
      window.scrollTo(0, 0);
    }
    first.current = false;
  }, [address]);

  return (
    <div class="shell">
      <a class="skip" href="#main" onClick={(event) => {
        event.preventDefault();
        main.current?.querySelector("h1")?.focus();
      }}>Skip to the content</a>
      <header class="side">
        <a class="brand" href={href(["overview"])}><Logo /><span>Callgate</span></a>
        <nav aria-label="Pages">
          <ul>
            {pages.map((page) => (
              <li key={page.path}>
                <a href={href([page.path])} aria-current={page.path === name ? "page" : undefined}>
                  <Icon name={page.icon} /><span class={page.short && "on-desktop"}>{page.name}</span>
                  {page.short && <span class="on-phone">{page.short}</span>}
                </a>
              </li>
            ))}
          </ul>
        </nav>
        <Account logOut={logOut} />
      </header>
      <main ref={main} id="main">
        <Away />
        {Page ? <Page location={location} key={address} /> : (
          <>
            <PageHead title="Not found" />
            <Empty title="Nothing has this address"><a href={href(["overview"])}>Go to the overview</a></Empty>
          </>
        )}
      </main>
      <News />
    </div>
  );
}

function Account({ logOut }: { logOut: () => void }) {
  const me = useMe();
  const { status } = useLive();
  return (
    <div class="account">
      <p class="who">
        <b class="cut">{me.name ?? "No login needed"}</b>
        {me.role === "read" && <Badge tone="neutral">read only</Badge>}
      </p>
      {status && <p class="note cut">{status.host ? `${status.host} · ` : ""}Callgate {status.version}</p>}
      <div class="account-tools">
        <ThemeSwitch />
        {me.name && <Button kind="quiet" icon="leave" onClick={logOut}>Log out</Button>}
      </div>
    </div>
  );
}

/** A visible sign while the gateway does not report. */
function Away() {
  const { connection, retryAt } = useLive();
  const now = useNow();
  const isAway = connection === "away";
  const seconds = retryAt ? Math.max(0, Math.ceil((retryAt - now) / 1000)) : 0;
  return (
    <div role="status" class={isAway ? "away" : undefined}>
      {isAway && (
        <>
          <Icon name="warning" />
          <p>The gateway does not report; what you see may be out of date.
            <span aria-hidden="true"> {seconds > 0 ? `Next attempt in ${seconds} s.` : "Trying…"}</span></p>
          <Button onClick={retryNow}>Try now</Button>
        </>
      )}
    </div>
  );
}
