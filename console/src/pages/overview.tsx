// What the gateway does now, and what is wrong.
import type { ComponentChildren } from "preact";
import { Chart, Sparkline } from "../charts";
import { bytes, count, duration, milliseconds, rate } from "../format";
import { Icon } from "../icons";
import { useLive } from "../live";
import { PageHead, type PageProps } from "../page";
import { href } from "../router";
import { Facts, Table } from "../table";
import type { Instance, Point, Status, Upstream, Warning } from "../types";
import { Badge, Bar, Empty, Loading, NotAvailable, Panel, Time, type Tone } from "../ui";
import { StorePanel } from "./store";

export function OverviewPage(_: PageProps) {
  const { status, points, intervalSeconds, connection } = useLive();
  if (!status) {
    return (
      <>
        <PageHead title="Overview" />
        <Panel title="State"><Loading lines={8} /></Panel>
      </>
    );
  }
  const seconds = Math.max(60, intervalSeconds * 150);
  return (
    <>
      <PageHead title="Overview" />
      <Wellbeing status={status} />
      <Tiles status={status} points={points} />
      <div class="grid two">
        <Panel title="Requests a second" note="by status">
          {connection === "polling"
            ? <NotAvailable what="The course of requests" />
            : <StatusChart points={points} seconds={seconds} />}
        </Panel>
        <Panel title="Latency" note="until the end of the response">
          {connection === "polling" ? <NotAvailable what="The course of latencies" /> : <LatencyChart points={points} seconds={seconds} />}
        </Panel>
      </div>
      <div class="grid three">
        <Decisions traffic={status.traffic} />
        <StorePanel store={status.store} />
        <Process status={status} />
      </div>
      <div class="grid two">
        <Instances instances={status.instances} own={status.instance} />
        <Upstreams upstreams={status.upstreams} />
      </div>
    </>
  );
}

/** Where the reader can do something about a warning. */
const remedies: Record<string, [string, string[]]> = {
  endpoint_out: ["See the upstreams", ["traffic"]],
  certificate_expiring: ["See the certificates", ["configuration"]],
  certificate_expired: ["See the certificates", ["configuration"]],
  certificate_not_yet_valid: ["See the certificates", ["configuration"]],
  reload_failed: ["See what was wrong", ["configuration"]],
  token_file_bad: ["See the configuration", ["configuration"]],
};

function Wellbeing({ status }: { status: Status }) {
  const warnings = status.warnings;
  if (!warnings) return status.draining ? <p class="well bad"><Icon name="warning" />This process is draining.</p> : null;
  if (warnings.length === 0) {
    return (
      <p class="well good">
        <Icon name="good" />
        <b>All is well.</b> <span class="muted">Up for {duration(status.uptime_seconds)}, since <Time at={status.started_at} />.</span>
      </p>
    );
  }
  return (
    <section class="well bad" aria-label="What is wrong now">
      <h2><Icon name="warning" />{warnings.length === 1 ? "One thing is wrong" : `${count(warnings.length)} things are wrong`}</h2>
      <ul>
        {warnings.map((warning) => <WarningLine warning={warning} drain={status.drain} key={warning.code + warning.text} />)}
      </ul>
    </section>
  );
}

function WarningLine({ warning, drain }: { warning: Warning; drain: Status["drain"] }) {
  const remedy = remedies[warning.code];
  return (
    <li>
      <span>{warning.text}
        {warning.code === "draining" && drain && ` (${count(drain.requests)} requests and ${count(drain.calls)} calls are left)`}</span>
      {warning.since && <span class="muted"> since <Time at={warning.since} relative /></span>}
      {remedy && <> <a href={href(remedy[1])}>{remedy[0]}</a></>}
    </li>
  );
}

function Tiles({ status, points }: { status: Status; points: Point[] }) {
  const { traffic, connections } = status;
  const newest = points.at(-1);
  const total = (point: Point) => Object.values(point.statuses).reduce((sum, value) => sum + value, 0);
  const failed = traffic ? traffic.statuses["5xx"] : null;
  return (
    <ul class="tiles">
      <Tile name="Requests a second" value={rate(newest ? total(newest) : traffic?.requests_per_second)} values={points.map(total)} />
      <Tile name="Refused a second" value={rate(newest?.denied)} values={points.map((point) => point.denied)} color="4xx" />
      <Tile name="Latency, 99 %" value={milliseconds(traffic?.latency_ms.p99)} values={points.map((point) => point.p99_ms)} color="p99" />
      <Tile name="5xx a second" value={rate(failed)} values={points.map((point) => point.statuses["5xx"])} color="5xx" />
      <Tile name="Open calls" value={count(status.calls?.open)} values={points.map((point) => point.calls)} link={href(["calls"])} />
      <Tile
        name="Connections" value={count(connections?.open)} values={points.map((point) => point.connections)}
        more={connections && `of ${count(connections.max)}`}
      />
    </ul>
  );
}

function Tile(props: { name: string; value: string; values: (number | null)[]; color?: string; more?: ComponentChildren; link?: string }) {
  return (
    <li class="tile panel">
      <span class="tile-name">{props.link ? <a href={props.link}>{props.name}</a> : props.name}</span>
      <span class="tile-value">{props.value}{props.more && <small> {props.more}</small>}</span>
      <Sparkline values={props.values} color={props.color} />
    </li>
  );
}

export function StatusChart({ points, seconds }: { points: Point[]; seconds: number }) {
  const kinds = ["2xx", "3xx", "4xx", "5xx", "1xx"] as const;
  const series = kinds
    .filter((kind) => kind !== "1xx" || points.some((point) => point.statuses["1xx"] > 0))
    .map((kind) => ({ name: kind, color: kind, values: points.map((point) => point.statuses[kind]) }));
  return <Chart title="Requests a second by status" times={points.map((point) => point.at)} series={series} stacked seconds={seconds} format={rate} />;
}

function LatencyChart({ points, seconds }: { points: Point[]; seconds: number }) {
  const series = [
    { name: "50 %", color: "p50", values: points.map((point) => point.p50_ms) },
    { name: "95 %", color: "p95", values: points.map((point) => point.p95_ms) },
    { name: "99 %", color: "p99", values: points.map((point) => point.p99_ms) },
  ];
  return <Chart title="Latency" times={points.map((point) => point.at)} series={series} seconds={seconds} format={milliseconds} />;
}

function Decisions({ traffic }: { traffic: Status["traffic"] }) {
  if (!traffic) return <Panel title="Decisions of the limiter"><NotAvailable what="This panel" /></Panel>;
  const { decision_latency_ms: latency, window_seconds } = traffic;
  const decisions = traffic.decisions.filter((decision) => decision.per_second > 0);
  const most = Math.max(1e-9, ...decisions.map((decision) => decision.per_second));
  const tone = (outcome: string): Tone => (outcome === "admitted" ? "good" : outcome === "denied" ? "warning" : "bad");
  return (
    <Panel title="Decisions of the limiter" note={`a second, over ${duration(window_seconds)}`}>
      <Table
        caption="Decisions of the limiter by outcome and source"
        rows={decisions}
        rowKey={(row) => `${row.outcome} ${row.source}`}
        columns={[
          { head: "Outcome", cell: (row) => <Badge tone={tone(row.outcome)}>{row.outcome.replaceAll("_", " ")}</Badge> },
          { head: "Source", cell: (row) => row.source.replaceAll("_", " ") },
          { head: "Share", class: "bar-cell", cell: (row) => <Bar share={row.per_second / most} tone={tone(row.outcome)} /> },
          { head: "A second", numeric: true, cell: (row) => rate(row.per_second) },
        ]}
        empty={<Empty title="No decisions in the last minute">Requests of routes with tokens appear here.</Empty>}
      />
      {decisions.length > 0 && latency.p50 != null && (
        <p class="foot">A decision took {milliseconds(latency.p50)} (50 %), {milliseconds(latency.p95)} (95 %), {milliseconds(latency.p99)} (99 %).</p>
      )}
    </Panel>
  );
}

function Process({ status }: { status: Status }) {
  const { process } = status;
  return (
    <Panel title="This process">
      <Facts facts={[
        ["Version", status.version],
        ["Up for", duration(status.uptime_seconds ?? (Date.now() - Date.parse(status.started_at)) / 1000)],
        ["Host", status.host ? <span class="break">{status.host}, process {status.pid}</span> : "–"],
        ["Configuration since", <Time at={status.configuration.in_force_since} />],
        ["Requests in flight", count(status.requests?.in_flight)],
        ["Memory", bytes(process?.memory_bytes)],
        ["Open files", process ? `${count(process.open_files)} of ${count(process.max_files)}` : "–"],
        ["Log lines dropped", count(status.log?.dropped_lines)],
      ]} />
    </Panel>
  );
}

function Instances({ instances, own }: { instances?: Instance[]; own?: string }) {
  if (!instances) return <Panel title="Instances"><NotAvailable what="The list of instances" /></Panel>;
  return (
    <Panel title="Instances" note={count(instances.length)}>
      <Table
        caption="Instances that share the store"
        rows={instances}
        rowKey={(row) => row.id}
        columns={[
          { head: "Host", cell: (row) => <span class="cut">{row.host}</span> },
          { head: "Instance", from: "tablet", cell: (row) => <span class="code">{row.id}</span> },
          { head: "State", cell: (row) => row.id === own ? <Badge tone="accent">this one</Badge> : row.draining ? <Badge tone="warning">draining</Badge> : <Badge tone="good">up</Badge> },
          { head: "Version", from: "tablet", cell: (row) => row.version },
          { head: "Started", cell: (row) => <Time at={row.started_at} relative /> },
          { head: "Calls", numeric: true, cell: (row) => count(row.calls) },
        ]}
      />
    </Panel>
  );
}

function Upstreams({ upstreams }: { upstreams?: Upstream[] }) {
  if (!upstreams) return null;
  return (
    <Panel title="Upstreams" actions={<a href={href(["traffic"])}>All of the traffic</a>}>
      <Table
        caption="Upstreams"
        rows={upstreams}
        rowKey={(row) => row.name}
        columns={[
          { head: "Upstream", cell: (row) => <span class="cut">{row.name}</span> },
          { head: "Endpoints up", cell: (row) => <EndpointsUp upstream={row} /> },
          { head: "In flight", numeric: true, cell: (row) => count(row.in_flight) },
          { head: "Waiting", numeric: true, cell: (row) => count(row.waiting) },
        ]}
      />
    </Panel>
  );
}

function EndpointsUp({ upstream }: { upstream: Upstream }) {
  const all = upstream.endpoints.length;
  const up = upstream.endpoints.filter((endpoint) => endpoint.state === "up").length;
  return <Badge tone={up === all ? "good" : up === 0 ? "bad" : "warning"}>{count(up)} of {count(all)}</Badge>;
}
