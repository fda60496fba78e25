// Plots of the last minutes, as SVG. The legend shows the values below the pointer, or else the newest.
import { useEffect, useId, useRef, useState } from "preact/hooks";
import { timeOfDay } from "./format";

export interface Series { name: string; color: string; values: (number | null)[] }

export interface ChartProps {
  title: string;
  times: string[];
  series: Series[];
  format: (value: number | null) => string;
  stacked?: boolean;
  /** The length of the time axis; it ends at the newest point. */
  seconds: number;
  height?: number;
}

const LEFT = 52;
const BOTTOM = 20;
const TOP = 8;
const RIGHT = 8;

export function Chart(props: ChartProps) {
  const { times, series, stacked = false, height = 176 } = props;
  const [width, box] = useWidth();
  const [hovered, setHovered] = useState<number | null>(null);
  const clip = useId();
  const newest = times.length - 1;
  const shown = hovered != null && hovered <= newest ? hovered : newest;

  const moments = times.map((text) => new Date(text).getTime());
  const end = moments[newest] ?? 0;
  const start = end - props.seconds * 1000;
  const x = (moment: number) => LEFT + ((moment - start) / (end - start)) * (width - LEFT - RIGHT);
  const layers = stacked ? stack(series) : series.map((one) => one.values.map((value) => ({ from: 0, to: value })));
  const peak = Math.max(0, ...layers.flatMap((layer) => layer.map((span) => span.to ?? 0)));
  const ticks = niceTicks(peak);
  const top = ticks.at(-1)!;
  const y = (value: number) => TOP + (1 - value / top) * (height - TOP - BOTTOM);

  const hover = (event: PointerEvent) => {
    const left = (event.currentTarget as Element).getBoundingClientRect().left;
    const moment = start + ((event.clientX - left - LEFT) / (width - LEFT - RIGHT)) * (end - start);
    setHovered(nearest(moments, moment));
  };

  return (
    <div class="chart">
      <ul class="legend">
        {series.map((one) => (
          <li key={one.name}>
            <svg width="10" height="10" aria-hidden="true"><rect width="10" height="10" rx="3" class={`fill-${one.color}`} /></svg>
            <span>{one.name}</span>
            <b>{props.format(one.values[shown] ?? null)}</b>
          </li>
        ))}
        <li class="legend-time" aria-hidden="true">{hovered != null && times[shown] ? timeOfDay(times[shown]) : ""}</li>
      </ul>
      <div ref={box} class="plot">
        <svg
          role="img"
          aria-label={summary(props, newest)}
          width={width}
          height={height}
          onPointerMove={hover}
          onPointerLeave={() => setHovered(null)}
        >
          <clipPath id={clip}><rect x={LEFT} y={0} width={Math.max(0, width - LEFT - RIGHT)} height={height} /></clipPath>
          {ticks.map((tick) => (
            <g key={tick}>
              <line class="grid" x1={LEFT} x2={width - RIGHT} y1={y(tick)} y2={y(tick)} />
              <text class="tick" x={LEFT - 8} y={y(tick) + 4} text-anchor="end">{props.format(tick)}</text>
            </g>
          ))}
          {newest >= 0 && <TimeAxis start={start} end={end} x={x} height={height} />}
          <g clip-path={`url(#${clip})`}>
            {layers.map((layer, index) =>
              stacked
                ? <path key={index} class={`area fill-${series[index].color}`} d={area(layer, moments, x, y)} />
                : <path key={index} class={`line stroke-${series[index].color}`} d={line(layer, moments, x, y)} />)}
            {hovered != null && newest >= 0 && <line class="cursor" x1={x(moments[shown])} x2={x(moments[shown])} y1={TOP} y2={height - BOTTOM} />}
          </g>
        </svg>
        {newest < 0 && <p class="plot-empty">Nothing was measured yet.</p>}
      </div>
    </div>
  );
}

function TimeAxis({ start, end, x, height }: { start: number; end: number; x: (moment: number) => number; height: number }) {
  const label = (moment: number) => timeOfDay(new Date(moment).toISOString());
  const middle = (start + end) / 2;
  return (
    <g class="tick">
      <text x={x(start)} y={height - 4} text-anchor="start">{label(start)}</text>
      <text x={x(middle)} y={height - 4} text-anchor="middle">{label(middle)}</text>
      <text x={x(end)} y={height - 4} text-anchor="end">{label(end)}</text>
    </g>
  );
}

interface Span { from: number; to: number | null }

function stack(series: Series[]): Span[][] {
  const sums: number[] = [];
  return series.map((one) =>
    one.values.map((value, index) => {
      const from = sums[index] ?? 0;
      sums[index] = from + (value ?? 0);
      return { from, to: sums[index] };
    }));
}

/** Lines, with gaps where nothing was measured; a lone point becomes a dot. */
function line(layer: Span[], moments: number[], x: (moment: number) => number, y: (value: number) => number): string {
  let path = "";
  let pen = "M";
  layer.forEach(({ to }, index) => {
    if (to == null) {
      pen = "M";
      return;
    }
    const at = `${x(moments[index]).toFixed(1)} ${y(to).toFixed(1)}`;
    const isLone = pen === "M" && layer[index + 1]?.to == null;
    path += isLone ? `M${at}h.1` : `${pen}${at}`;
    pen = "L";
  });
  return path;
}

function area(layer: Span[], moments: number[], x: (moment: number) => number, y: (value: number) => number): string {
  if (layer.length < 2) return "";
  const upper = layer.map((span, index) => `${x(moments[index]).toFixed(1)} ${y(span.to ?? 0).toFixed(1)}`);
  const lower = layer.map((span, index) => `${x(moments[index]).toFixed(1)} ${y(span.from).toFixed(1)}`).reverse();
  return `M${upper.join("L")}L${lower.join("L")}Z`;
}

/** Zero, and up to three round numbers, the last of which is above the peak. */
function niceTicks(peak: number): number[] {
  if (peak <= 0) return [0, 1];
  const rough = peak / 3;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((step) => step * 3 >= peak) ?? 10 * power;
  const ticks = [0];
  while (ticks.at(-1)! < peak) ticks.push(ticks.length * step);
  return ticks;
}

function nearest(moments: number[], moment: number): number | null {
  if (moments.length === 0) return null;
  let best = 0;
  moments.forEach((at, index) => {
    if (Math.abs(at - moment) < Math.abs(moments[best] - moment)) best = index;
  });
  return best;
}

function summary(props: ChartProps, newest: number): string {
  if (newest < 0) return `${props.title}: nothing was measured yet.`;
  const parts = props.series.map((one) => {
    const measured = one.values.filter((value): value is number => value != null);
    const peak = measured.length ? Math.max(...measured) : null;
    return `${one.name}: now ${props.format(one.values[newest] ?? null)}, highest ${props.format(peak)}`;
  });
  return `${props.title}, the last ${Math.round(props.seconds / 60)} minutes. ${parts.join(". ")}.`;
}

function useWidth() {
  const box = useRef<HTMLDivElement>(null);
  const [width, setWidth] = useState(600);
  useEffect(() => {
    const observer = new ResizeObserver(([entry]) => setWidth(Math.max(200, Math.floor(entry.contentRect.width))));
    observer.observe(box.current!);
    return () => observer.disconnect();
  }, []);
  return [width, box] as const;
}

/** A line without axes, for tiles; the number beside it says what matters. */
export function Sparkline({ values, color = "accent" }: { values: (number | null)[]; color?: string }) {
  const peak = Math.max(1e-9, ...values.map((value) => value ?? 0));
  const count = Math.max(2, values.length);
  const d = line(
    values.map((value) => ({ from: 0, to: value })), values.map((_, index) => index),
    (index) => (index / (count - 1)) * 100, (value) => 26 - (value / peak) * 24,
  );
  return (
    <svg class="sparkline" viewBox="0 0 100 28" preserveAspectRatio="none" aria-hidden="true" focusable="false">
      <path class={`line stroke-${color}`} d={d} vector-effect="non-scaling-stroke" />
    </svg>
  );
}
