// Where requests go: routes, upstreams with the health of their endpoints, and which tokens are limited most.
import { useState } from "preact/hooks";
import { get } from "../api";
import { count, duration, milliseconds, rate } from "../format";
import { PageHead, type PageProps } from "../page";
import { useResource } from "../resource";
import { Table } from "../table";
import type { Endpoint, MostLimited, Route, Upstream } from "../types";
import { Badge, Bar, Empty, Loaded, Panel, TokenLink, type Tone } from "../ui";

interface Routes { window_seconds: number; routes: Route[] }
type Order = "configuration" | "slowest" | "busiest";

export function TrafficPage(_: PageProps) {
  const routes = useResource("routes", (signal) => get<Routes>("/api/routes", {}, signal), 5);
  const upstreams = useResource("upstreams", (signal) => get<{ upstreams: Upstream[] }>("/api/upstreams", {}, signal), 5);
  const limited = useResource("most limited", (signal) => get<MostLimited>("/api/most-limited", { limit: 10 }, signal), 60);
  const [order, setOrder] = useState<Order>("configuration");
  return (
    <>
      <PageHead title="Traffic" />
      <Panel title="Routes" note="the last minute" actions={<OrderChoice order={order} setOrder={setOrder} />}>
        <Loaded resource={routes} what="The list of routes" lines={6}>
          {({ routes }) => <RouteTable routes={sorted(routes, order)} />}
        </Loaded>
      </Panel>
      <Panel title="Upstreams and their endpoints">
        <Loaded resource={upstreams} lines={6}>{({ upstreams }) => <UpstreamTable upstreams={upstreams} />}</Loaded>
      </Panel>
      <Panel title="Most limited tokens" note="refused requests of the last hour">
        <Loaded resource={limited} what="The list of the most limited tokens">
          {(limited) => <LimitedTable limited={limited} />}
        </Loaded>
      </Panel>
    </>
  );
}

function OrderChoice({ order, setOrder }: { order: Order; setOrder: (order: Order) => void }) {
  const names: Record<Order, string> = { configuration: "As configured", slowest: "Slowest first", busiest: "Busiest first" };
  return (
    <fieldset class="choice">
      <legend class="visually-hidden">Order of the routes</legend>
      {(Object.keys(names) as Order[]).map((value) => (
        <label key={value}>
          <input type="radio" class="visually-hidden" name="order" checked={order === value} onChange={() => setOrder(value)} />
          <span>{names[value]}</span>
        </label>
      ))}
    </fieldset>
  );
}

function sorted(routes: Route[], order: Order): Route[] {
  if (order === "configuration") return routes;
  const weight = (route: Route) => (order === "slowest" ? route.latency_ms.p99 ?? -1 : route.requests_per_second);
  return [...routes].sort((one, other) => weight(other) - weight(one));
}

function RouteTable({ routes }: { routes: Route[] }) {
  return (
    <Table
      caption="Routes and their last minute"
      rows={routes}
      rowKey={(route) => `${route.name} ${route.hosts} ${route.path} ${route.methods}`}
      empty={<Empty title="There are no routes" />}
      columns={[
        {
          head: "Route", class: "main-cell", cell: (route) => (
            <>
              <span class="cut">{route.name}</span>
              <span class="code muted cut" title={route.path}>
                {route.methods.length > 0 && `${route.methods.join(" ")} `}{route.hosts.join(" ")}{route.path}
              </span>
            </>
          ),
        },
        { head: "Upstream", from: "tablet", cell: (route) => <Targets route={route} /> },
        { head: "Access", from: "wide", cell: (route) => <AccessOf route={route} /> },
        { head: "A second", numeric: true, cell: (route) => rate(route.requests_per_second) },
        { head: "4xx", numeric: true, from: "tablet", cell: (route) => <Faults value={route.statuses["4xx"]} tone="warning" /> },
        { head: "5xx", numeric: true, cell: (route) => <Faults value={route.statuses["5xx"]} tone="bad" /> },
        { head: "50 %", numeric: true, from: "wide", cell: (route) => milliseconds(route.latency_ms.p50) },
        { head: "95 %", numeric: true, from: "tablet", cell: (route) => milliseconds(route.latency_ms.p95) },
        { head: "99 %", numeric: true, cell: (route) => milliseconds(route.latency_ms.p99) },
        { head: "Calls", numeric: true, from: "tablet", cell: (route) => count(route.open_calls) },
      ]}
    />
  );
}

function Targets({ route }: { route: Route }) {
  const all = route.upstreams.reduce((sum, target) => sum + target.weight, 0);
  return (
    <>
      {route.upstreams.map(({ upstream, weight }) => (
        <span class="cut" key={upstream}>
          {upstream}{route.upstreams.length > 1 && <span class="muted"> {Math.round((weight / Math.max(1, all)) * 100)} %</span>}
        </span>
      ))}
    </>
  );
}

function AccessOf({ route }: { route: Route }) {
  if (route.access === "public") return <Badge tone="neutral">public</Badge>;
  return <span class="code break">{route.permissions.join(" ") || <span class="muted">any token</span>}</span>;
}

function Faults({ value, tone }: { value: number; tone: Tone }) {
  return value > 0 ? <span class={`text-${tone}`}>{rate(value)}</span> : <span class="muted">0</span>;
}

const health: Record<Endpoint["state"], [Tone, string]> = {
  up: ["good", "up"], ejected: ["bad", "ejected"], failing: ["warning", "failing"], down: ["bad", "down"],
};

function UpstreamTable({ upstreams }: { upstreams: Upstream[] }) {
  const rows = upstreams.flatMap((upstream) => upstream.endpoints.map((endpoint, index) => ({ upstream, endpoint, isFirst: index === 0 })));
  return (
    <Table
      caption="Endpoints of the upstreams"
      rows={rows}
      rowKey={({ upstream, endpoint }) => `${upstream.name} ${endpoint.url}`}
      empty={<Empty title="There are no upstreams" />}
      columns={[
        { head: "Endpoint", class: "main-cell", cell: ({ endpoint }) => <span class="code cut" title={endpoint.url}>{endpoint.url}</span> },
        { head: "Upstream", cell: ({ upstream, isFirst }) => <span class={isFirst ? "cut" : "cut muted"}>{upstream.name}</span> },
        {
          head: "Health", cell: ({ endpoint }) => {
            const [tone, name] = health[endpoint.state] ?? ["neutral", endpoint.state];
            return (
              <>
                <Badge tone={tone}>{name}</Badge>
                {endpoint.backup && <> <Badge tone="neutral">backup</Badge></>}
                {endpoint.ejected_for_seconds > 0 && <span class="muted cut">for {duration(endpoint.ejected_for_seconds)} more</span>}
              </>
            );
          },
        },
        { head: "In flight", numeric: true, cell: ({ endpoint }) => count(endpoint.in_flight) },
        { head: "Failures", numeric: true, from: "tablet", cell: ({ endpoint }) => count(endpoint.failures) },
        { head: "Ejections", numeric: true, from: "wide", cell: ({ endpoint }) => count(endpoint.ejections) },
        { head: "Weight", numeric: true, from: "wide", cell: ({ endpoint }) => count(endpoint.weight) },
        {
          head: "Of the upstream", from: "tablet", cell: ({ upstream, isFirst }) => isFirst && (
            <span class="muted">
              {count(upstream.in_flight)} in flight{upstream.max_requests != null && ` of ${count(upstream.max_requests)}`}
              {upstream.waiting > 0 && `, ${count(upstream.waiting)} wait`}
            </span>
          ),
        },
      ]}
    />
  );
}

function LimitedTable({ limited }: { limited: MostLimited }) {
  const most = Math.max(1, ...limited.tokens.map((token) => token.refused));
  return (
    <Table
      caption="Tokens with the most refused requests"
      rows={limited.tokens}
      rowKey={(token) => token.id}
      empty={<Empty title="No token was limited in the last hour" icon="good" />}
      columns={[
        { head: "Token", cell: (token) => <TokenLink id={token.id} /> },
        { head: "Share", class: "bar-cell", cell: (token) => <Bar share={token.refused / most} tone="warning" /> },
        { head: "Refused", numeric: true, cell: (token) => count(token.refused) },
      ]}
    />
  );
}
