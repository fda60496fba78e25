import { count, duration, millis, rate } from "../format";
import { useLoad } from "../load";
import { useLive } from "../live";
import { at } from "../router";
import type { Endpoint, MostLimited, Routes, RouteTraffic, Upstream } from "../types";
import { Badge, Card, Empty, Page, Show, Table } from "../ui";

export function Traffic() {
  const routes = useLoad<Routes>("/api/routes", 3_000);
  const limited = useLoad<MostLimited>("/api/most-limited?limit=10", 30_000);
  const upstreams = useLoad<{ upstreams: Upstream[] }>("/api/upstreams", 3_000);
  return (
    <Page title="Traffic">
      <div class="grid">
        <Card title="Routes" note="the last minute" wide>
          <Show of={routes}>{(data) => <RouteTable routes={data.routes} caption="Routes" />}</Show>
        </Card>
        <Card title="Slowest routes" note="by p99 of the last minute">
          <Show of={routes}>
            {(data) => {
              const slowest = data.routes.filter((route) => route.latency_ms.p99 !== null);
              slowest.sort((one, other) => (other.latency_ms.p99 ?? 0) - (one.latency_ms.p99 ?? 0));
              return slowest.length ? <Slowest routes={slowest.slice(0, 5)} /> : <Empty title="No request ended in the last minute" />;
            }}
          </Show>
        </Card>
        <Card title="Most limited tokens" note="the last hour">
          <Show of={limited}>
            {(data) =>
              data.tokens.length ? (
                <Table
                  caption="Tokens with the most refused requests"
                  rows={data.tokens}
                  id={(token) => token.id}
                  columns={[
                    { name: "Token", cell: (token) => <a href={at(["tokens", token.id])}><code>{token.id}</code></a> },
                    { name: "Refused", numeric: true, cell: (token) => count(token.refused) },
                  ]}
                />
              ) : (
                <Empty title="Nobody was refused" />
              )
            }
          </Show>
        </Card>
        <Show of={upstreams}>{(data) => data.upstreams.map((upstream) => <UpstreamCard upstream={upstream} />)}</Show>
      </div>
    </Page>
  );
}

function RouteTable({ routes, caption }: { routes: RouteTraffic[]; caption: string }) {
  return (
    <Table
      caption={caption}
      rows={routes}
      id={(route) => route.name}
      columns={[
        { name: "Route", cell: (route) => route.name },
        { name: "Path", minor: true, cell: (route) => <code>{route.methods.join(" ")} {route.host ?? ""}{route.path}</code> },
        { name: "Requests", numeric: true, cell: (route) => `${rate(route.requests_per_second)}/s` },
        { name: "4xx", numeric: true, cell: (route) => `${rate(route.statuses["4xx"])}/s` },
        { name: "5xx", numeric: true, cell: (route) => <span class={route.statuses["5xx"] > 0 ? "bad" : ""}>{rate(route.statuses["5xx"])}/s</span> },
        { name: "p50", numeric: true, minor: true, cell: (route) => millis(route.latency_ms.p50) },
        { name: "p99", numeric: true, cell: (route) => millis(route.latency_ms.p99) },
        { name: "Calls", numeric: true, cell: (route) => (route.open_calls ? <a href={at(["calls"], { route: route.name })}>{count(route.open_calls)}</a> : "0") },
        { name: "Access", minor: true, cell: (route) => (route.access === "public" ? <Badge tone="warn">public</Badge> : route.permissions.join(", ") || "any token") },
        { name: "Upstream", minor: true, cell: (route) => route.upstream ?? route.split?.map((part) => `${part.upstream} ${part.weight}`).join(", ") },
      ]}
    />
  );
}

function Slowest({ routes }: { routes: RouteTraffic[] }) {
  return (
    <Table
      caption="Slowest routes"
      rows={routes}
      id={(route) => route.name}
      columns={[
        { name: "Route", cell: (route) => route.name },
        { name: "p50", numeric: true, cell: (route) => millis(route.latency_ms.p50) },
        { name: "p95", numeric: true, minor: true, cell: (route) => millis(route.latency_ms.p95) },
        { name: "p99", numeric: true, cell: (route) => millis(route.latency_ms.p99) },
      ]}
    />
  );
}

function UpstreamCard({ upstream }: { upstream: Upstream }) {
  useLive();
  const limit = upstream.max_requests === null ? "" : ` of ${count(upstream.max_requests)}`;
  return (
    <Card title={`Upstream ${upstream.name}`} note={`${count(upstream.in_flight)}${limit} in flight${upstream.waiting ? `, ${count(upstream.waiting)} wait` : ""}`} wide>
      <Table
        caption={`Endpoints of ${upstream.name}`}
        rows={upstream.endpoints}
        id={(endpoint) => endpoint.url}
        columns={[
          { name: "Endpoint", cell: (endpoint) => <code>{endpoint.url}</code> },
          { name: "State", cell: (endpoint) => <EndpointState endpoint={endpoint} /> },
          { name: "In flight", numeric: true, cell: (endpoint) => count(endpoint.in_flight) },
          { name: "Failures in a row", numeric: true, cell: (endpoint) => count(endpoint.failures) },
          { name: "Weight", numeric: true, minor: true, cell: (endpoint) => `${endpoint.weight}${endpoint.backup ? ", backup" : ""}` },
        ]}
      />
    </Card>
  );
}

function EndpointState({ endpoint }: { endpoint: Endpoint }) {
  if (endpoint.state === "up") return <Badge tone="good">up</Badge>;
  return (
    <>
      <Badge tone="bad">{endpoint.state}</Badge>
      {endpoint.ejected_for_seconds > 0 && <span class="note"> for {duration(endpoint.ejected_for_seconds)}</span>}
    </>
  );
}
