// Plots: lines over the last minutes, and bars by hour or day. Each says in words what it shows.

import { useState } from "preact/hooks";

export interface Line {
  name: string;
  /** A class of the stylesheet, which knows the colour. */
  tone: string;
  values: (number | null)[];
}

const [WIDTH, HEIGHT, LEFT, BOTTOM, TOP] = [600, 160, 44, 20, 8];

/** A round number at or above the largest value. */
function roundUp(value: number): number {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  const step = [1, 2, 2.5, 5, 10].find((step) => step * power >= value) ?? 10;
  return step * power;
}

interface Frame {
  label: string;
  times: string[];
  format: (value: number) => string;
  /** What a time is called under the plot. */
  time: (at: string) => string;
}

export function LineChart({ label, times, lines, format, time }: Frame & { lines: Line[] }) {
  const [at, pointTo] = useState<number | null>(null);
  const known = lines.flatMap((line) => line.values).filter((value): value is number => value !== null);
  const top = roundUp(Math.max(0, ...known));
  const last = Math.max(1, times.length - 1);
  const x = (index: number) => LEFT + (index / last) * (WIDTH - LEFT - 8);
  const y = (value: number) => TOP + (1 - value / top) * (HEIGHT - TOP - BOTTOM);
  const path = (values: (number | null)[]) => {
    let text = "";
    values.forEach((value, index) => {
      if (value === null) return;
      const joins = index > 0 && values[index - 1] !== null && values[index - 1] !== undefined;
      text += `${joins ? "L" : "M"}${x(index).toFixed(1)} ${y(value).toFixed(1)}`;
    });
    return text;
  };
  const newest = lines.map((line) => `${line.name} ${said(line.values.at(-1), format)}`).join(", ");
  const shown = at ?? times.length - 1;
  return (
    <figure class="chart">
      <svg
        viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
        role="img"
        aria-label={times.length ? `${label}. Now: ${newest}. Scale up to ${format(top)}.` : `${label}: nothing yet.`}
        preserveAspectRatio="none"
        onPointerMove={(event) => {
          const box = (event.currentTarget as SVGSVGElement).getBoundingClientRect();
          const share = (((event.clientX - box.left) / box.width) * WIDTH - LEFT) / (WIDTH - LEFT - 8);
          pointTo(times.length ? Math.max(0, Math.min(last, Math.round(share * last))) : null);
        }}
        onPointerLeave={() => pointTo(null)}
      >
        {[0, 0.5, 1].map((share) => (
          <line class="rule" x1={LEFT} x2={WIDTH - 8} y1={y(top * share)} y2={y(top * share)} />
        ))}
        {lines.map((line) => (
          <path class={`line ${line.tone}`} d={path(line.values)} />
        ))}
        {at !== null && <line class="cursor" x1={x(at)} x2={x(at)} y1={TOP} y2={HEIGHT - BOTTOM} />}
      </svg>
      <div class="axis" aria-hidden="true">
        <span>{format(top)}</span>
        <span>{format(top / 2)}</span>
        <span>0</span>
      </div>
      <figcaption class="legend" aria-hidden="true">
        {lines.map((line) => (
          <span class={`key ${line.tone}`}>
            {line.name} <b>{said(line.values[shown], format)}</b>
          </span>
        ))}
        <span class="note">{times[shown] ? time(times[shown]) : "nothing yet"}</span>
      </figcaption>
    </figure>
  );
}

function said(value: number | null | undefined, format: (value: number) => string): string {
  return value === null || value === undefined ? "–" : format(value);
}

export interface Stack { at: string; parts: { tone: string; name: string; value: number }[] }

/** Stacked bars, one for each time. */
export function BarChart({ label, bars, format, time }: Omit<Frame, "times"> & { bars: Stack[] }) {
  const [at, pointTo] = useState<number | null>(null);
  const total = (bar: Stack) => bar.parts.reduce((sum, part) => sum + part.value, 0);
  const top = roundUp(Math.max(0, ...bars.map(total)));
  const room = (WIDTH - LEFT - 8) / Math.max(1, bars.length);
  const y = (value: number) => TOP + (1 - value / top) * (HEIGHT - TOP - BOTTOM);
  const sums = (bars[0]?.parts ?? []).map((part, index) => `${part.name} ${format(bars.reduce((sum, bar) => sum + (bar.parts[index]?.value ?? 0), 0))}`);
  const shown = at === null ? null : bars[at];
  return (
    <figure class="chart">
      <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label={`${label}. In all: ${sums.join(", ") || "nothing"}.`} preserveAspectRatio="none" onPointerLeave={() => pointTo(null)}>
        {[0, 0.5, 1].map((share) => (
          <line class="rule" x1={LEFT} x2={WIDTH - 8} y1={y(top * share)} y2={y(top * share)} />
        ))}
        {bars.map((bar, index) => {
          let below = 0;
          return (
            <g onPointerMove={() => pointTo(index)}>
              <rect class="catch" x={LEFT + index * room} width={room} y={TOP} height={HEIGHT - TOP - BOTTOM} />
              {bar.parts.map((part) => {
                const [from, to] = [below, (below += part.value)];
                return <rect class={`fill ${part.tone}`} x={LEFT + index * room + room * 0.1} width={room * 0.8} y={y(to)} height={Math.max(0, y(from) - y(to))} />;
              })}
            </g>
          );
        })}
      </svg>
      <div class="axis" aria-hidden="true">
        <span>{format(top)}</span>
        <span>{format(top / 2)}</span>
        <span>0</span>
      </div>
      <figcaption class="legend" aria-hidden="true">
        {(shown ?? bars[0])?.parts.map((part, index) => (
          <span class={`key ${part.tone}`}>
            {part.name} <b>{shown ? format(part.value) : sums[index]?.split(" ").at(-1)}</b>
          </span>
        ))}
        <span class="note">{shown ? time(shown.at) : "in all"}</span>
      </figcaption>
    </figure>
  );
}
