// The use of a token over 30 days, or the last three days by the hour.
import { useState } from "preact/hooks";
import { get, idPath } from "../api";
import { count, date, minute, short } from "../format";
import { useResource } from "../resource";
import { Table } from "../table";
import type { Usage } from "../types";
import { Loaded, Panel } from "../ui";

type Bucket = Usage["buckets"][number];
const spans = { day: { size: 86_400_000, bars: 30 }, hour: { size: 3_600_000, bars: 72 } };

export function UsagePanel({ id }: { id: string }) {
  const [by, setBy] = useState<"day" | "hour">("day");
  const usage = useResource(`usage ${id} ${by}`, (signal) => get<Usage>(`${idPath("/api/tokens", id)}/usage`, { by }, signal), 60);
  return (
    <Panel
      title="Use over time"
      note={by === "day" ? "30 days" : "three days, by the hour"}
      actions={
        <fieldset class="choice">
          <legend class="visually-hidden">Bars by</legend>
          {(["day", "hour"] as const).map((value) => (
            <label key={value}>
              <input type="radio" class="visually-hidden" name="usage-by" checked={by === value} onChange={() => setBy(value)} />
              <span>{value === "day" ? "Days" : "Hours"}</span>
            </label>
          ))}
        </fieldset>
      }
    >
      <Loaded resource={usage} what="The use of a token over time" lines={6}>
        {(usage) => <UsageChart usage={usage} by={by} />}
      </Loaded>
    </Panel>
  );
}

/** One bucket for each bar; those without requests are not in the response. */
function filled(usage: Usage, by: "day" | "hour"): Bucket[] {
  const { size, bars } = spans[by];
  const known = new Map(usage.buckets.map((bucket) => [Date.parse(bucket.at), bucket]));
  const last = Math.floor(Date.parse(usage.until) / size) * size;
  return Array.from({ length: bars }, (_, index) => {
    const at = last - (bars - 1 - index) * size;
    return known.get(at) ?? { at: new Date(at).toISOString(), admitted: 0, refused: 0 };
  });
}

function UsageChart({ usage, by }: { usage: Usage; by: "day" | "hour" }) {
  const buckets = filled(usage, by);
  const name = by === "day" ? date : minute;
  const peak = Math.max(1, ...buckets.map((bucket) => bucket.admitted + bucket.refused));
  const sum = (field: "admitted" | "refused") => buckets.reduce((sum, bucket) => sum + bucket[field], 0);
  const busy = buckets.filter((bucket) => bucket.admitted + bucket.refused > 0);
  const share = (value: number) => (value / peak) * 100;
  return (
    <div class="usage">
      <ul class="legend">
        <li><Swatch color="2xx" /><span>Admitted</span><b>{count(sum("admitted"))}</b></li>
        <li><Swatch color="4xx" /><span>Refused</span><b>{count(sum("refused"))}</b></li>
        <li class="legend-time">highest bar: {short(busy.length ? peak : 0)}</li>
      </ul>
      <svg
        class="bars" role="img" viewBox={`0 0 ${buckets.length * 10} 100`} preserveAspectRatio="none"
        aria-label={`Requests of this token by ${by}: ${count(sum("admitted"))} admitted, ${count(sum("refused"))} refused. The table below has the numbers.`}
      >
        <line class="grid" x1="0" x2={buckets.length * 10} y1="100" y2="100" vector-effect="non-scaling-stroke" />
        {buckets.map((bucket, index) => (
          <g key={bucket.at}>
            <title>{`${name(bucket.at)}: ${count(bucket.admitted)} admitted, ${count(bucket.refused)} refused`}</title>
            <rect class="hit" x={index * 10} y="0" width="10" height="100" />
            <rect class="fill-2xx" x={index * 10 + 1} width="8" y={100 - share(bucket.admitted)} height={share(bucket.admitted)} />
            <rect
              class="fill-4xx" x={index * 10 + 1} width="8"
              y={100 - share(bucket.admitted + bucket.refused)} height={share(bucket.refused)}
            />
          </g>
        ))}
      </svg>
      <p class="bars-axis"><span>{name(buckets[0].at)}</span><span>{name(buckets.at(-1)!.at)}</span></p>
      <details>
        <summary>As a table</summary>
        <Table
          caption={`Requests by ${by}`}
          rows={[...busy].reverse()}
          rowKey={(bucket) => bucket.at}
          empty={<p class="note">No requests in this time.</p>}
          columns={[
            { head: by === "day" ? "Day" : "Hour", cell: (bucket) => <time dateTime={bucket.at}>{name(bucket.at)}</time> },
            { head: "Admitted", numeric: true, cell: (bucket) => count(bucket.admitted) },
            { head: "Refused", numeric: true, cell: (bucket) => count(bucket.refused) },
          ]}
        />
      </details>
    </div>
  );
}

function Swatch({ color }: { color: string }) {
  return <svg width="10" height="10" aria-hidden="true"><rect width="10" height="10" rx="3" class={`fill-${color}`} /></svg>;
}
