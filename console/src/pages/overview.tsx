import { LineChart } from "../chart";
import { count, duration, bytes, millis, rate, time, words } from "../format";
import { useLive } from "../live";
import { at } from "../router";
import type { Point, Status, Store } from "../types";
import { Badge, Card, Empty, Figure, Page, Table, When } from "../ui";

const perSecond = (value: number) => `${rate(value)}/s`;

export function Overview() {
  const { status, points } = useLive();
  return (
    <Page title="Overview">
      {status ? <Well status={status} points={points} /> : <p class="loading" role="status">Loading…</p>}
    </Page>
  );
}

function Well({ status, points }: { status: Status; points: Point[] }) {
  const { traffic } = status;
  const times = points.map((point) => point.at);
  const clock = (at: string) => time(at);
  const shares = traffic?.statuses;
  return (
    <>
      <Warnings status={status} />
      <dl class="figures">
        <Figure label="Requests" value={traffic ? perSecond(traffic.requests_per_second) : "–"} note={`${count(status.requests?.in_flight ?? 0)} in flight`} />
        <Figure
          label="Server errors"
          value={shares ? perSecond(shares["5xx"]) : "–"}
          tone={shares && shares["5xx"] > 0 ? "bad" : undefined}
          note={shares ? `${perSecond(shares["4xx"])} refused or wrong (4xx)` : undefined}
        />
        <Figure label="Latency, median" value={millis(traffic?.latency_ms.p50)} note={`p99 ${millis(traffic?.latency_ms.p99)}`} />
        <Figure label="Open calls" value={<a href={at(["calls"])}>{count(status.calls?.open ?? 0)}</a>} note={`${count(status.connections?.open ?? 0)} connections`} />
      </dl>
      <div class="grid">
        <Card title="Requests by status" note="per second, last 5 minutes">
          <LineChart
            label="Requests a second by status"
            times={times}
            time={clock}
            format={rate}
            lines={(["2xx", "3xx", "4xx", "5xx"] as const).map((name) => ({ name, tone: `s${name[0]}`, values: points.map((point) => point.statuses[name]) }))}
          />
        </Card>
        <Card title="Latency" note="of requests, last 5 minutes">
          <LineChart
            label="Latency of requests"
            times={times}
            time={clock}
            format={millis}
            lines={[
              { name: "p50", tone: "a", values: points.map((point) => point.p50_ms) },
              { name: "p95", tone: "b", values: points.map((point) => point.p95_ms) },
              { name: "p99", tone: "c", values: points.map((point) => point.p99_ms) },
            ]}
          />
        </Card>
        <Card title="Decisions" note="of the limiter, per second">
          <LineChart
            label="Decisions a second"
            times={times}
            time={clock}
            format={rate}
            lines={[
              { name: "admitted", tone: "a", values: points.map((point) => point.admitted) },
              { name: "denied", tone: "s5", values: points.map((point) => point.denied) },
            ]}
          />
          <Decisions status={status} />
        </Card>
        <Card title="Live calls" note="last 5 minutes">
          <LineChart
            label="Open calls and connections"
            times={times}
            time={clock}
            format={count}
            lines={[
              { name: "calls", tone: "a", values: points.map((point) => point.calls) },
              { name: "connections", tone: "b", values: points.map((point) => point.connections) },
            ]}
          />
        </Card>
        <Card title="Store">
          <StoreFacts store={status.store} />
        </Card>
        <Card title="This instance">
          <dl class="facts">
            <dt>Version</dt>
            <dd>{status.version}</dd>
            <dt>Host</dt>
            <dd>{status.host} · process {status.pid}</dd>
            <dt>Running</dt>
            <dd>{duration(status.uptime_seconds ?? (Date.now() - new Date(status.started_at).getTime()) / 1000)}</dd>
            {status.process && (
              <>
                <dt>Memory</dt>
                <dd>{bytes(status.process.memory_bytes)}</dd>
                <dt>Open files</dt>
                <dd>{count(status.process.open_files)} of {count(status.process.max_files)}</dd>
              </>
            )}
            <dt>Configuration</dt>
            <dd><a href={at(["configuration"])}>in force <When at={status.configuration.in_force_since} /></a></dd>
          </dl>
        </Card>
        <Card title="Instances" note="that share the store" wide>
          <Table
            caption="Instances that share the store"
            rows={status.instances ?? []}
            id={(instance) => instance.id}
            columns={[
              { name: "Host", cell: (instance) => instance.host },
              { name: "State", cell: (instance) => (instance.draining ? <Badge tone="warn">going down</Badge> : <Badge tone="good">serving</Badge>) },
              { name: "Calls", numeric: true, cell: (instance) => count(instance.calls) },
              { name: "Version", minor: true, cell: (instance) => instance.version },
              { name: "Started", minor: true, cell: (instance) => <When at={instance.started_at} /> },
              { name: "Seen", cell: (instance) => <When at={instance.seen_at} /> },
            ]}
          />
        </Card>
      </div>
    </>
  );
}

/** What is wrong now; or that nothing is. */
function Warnings({ status }: { status: Status }) {
  const warnings = status.warnings ?? [];
  if (warnings.length === 0) {
    return (
      <p class="well good" role="status">
        <span aria-hidden="true">✓</span> All is well.
      </p>
    );
  }
  return (
    <section class="well bad" aria-label="What is wrong">
      <h2>{warnings.length === 1 ? "One thing is wrong" : `${warnings.length} things are wrong`}</h2>
      <ul>
        {warnings.map((warning) => (
          <li>
            {warning.text} {warning.since && <span class="note">since <When at={warning.since} /></span>}
          </li>
        ))}
      </ul>
    </section>
  );
}

function Decisions({ status }: { status: Status }) {
  const decisions = (status.traffic?.decisions ?? []).filter((decision) => decision.per_second > 0);
  if (decisions.length === 0) return null;
  return (
    <ul class="chips" aria-label="Decisions by outcome and source">
      {decisions.map((decision) => (
        <li>
          {words(decision.outcome)} by {words(decision.source)} <b>{perSecond(decision.per_second)}</b>
        </li>
      ))}
    </ul>
  );
}

function StoreFacts({ store }: { store: Store | undefined }) {
  if (!store) return <Empty title="Not known" />;
  if (store.kind === "memory") {
    return (
      <dl class="facts">
        <dt>Kind</dt>
        <dd>in memory: limits are this instance's own</dd>
        {store.token_file && (
          <>
            <dt>Token file</dt>
            <dd>
              <code>{store.token_file}</code> {store.token_file_good === false && <Badge tone="bad">can't be read</Badge>}
            </dd>
          </>
        )}
        {store.limited_tokens !== undefined && (
          <>
            <dt>Tokens with a log</dt>
            <dd>{count(store.limited_tokens)}</dd>
          </>
        )}
      </dl>
    );
  }
  return (
    <dl class="facts">
      <dt>Redis</dt>
      <dd>
        {store.connected ? <Badge tone="good">answers</Badge> : <Badge tone="bad">does not answer</Badge>}{" "}
        {store.since && <span class="note">since <When at={store.since} /></span>}
      </dd>
      <dt>Topology</dt>
      <dd>{store.topology} · {(store.addresses ?? []).join(", ")}</dd>
      {store.trouble && (
        <>
          <dt>Trouble</dt>
          <dd>{store.trouble}</dd>
        </>
      )}
      <dt>Latency</dt>
      <dd>{millis(store.latency_ms?.p50)} · p99 {millis(store.latency_ms?.p99)}</dd>
      <dt>Waits to be merged</dt>
      <dd>{count(store.unmerged_admissions ?? 0)} admissions</dd>
      <dt>While it is away</dt>
      <dd>{store.on_failure === "deny" ? "requests are refused" : store.on_failure === "allow" ? "requests are admitted" : "this instance decides by what it knows"}</dd>
    </dl>
  );
}
