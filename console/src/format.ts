// Numbers and times as the browser's language writes them.

const decimals = (digits: number) => new Intl.NumberFormat(undefined, { maximumFractionDigits: digits });
const whole = decimals(0);
const one = decimals(1);
const two = decimals(2);
const compact = new Intl.NumberFormat(undefined, { notation: "compact", maximumFractionDigits: 1 });
const day = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });
const dayAndTime = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const dayAndMinute = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const relative = new Intl.RelativeTimeFormat(undefined, { numeric: "always", style: "short" });

export const NOTHING = "–";

export const count = (value: number | null | undefined) => (value == null ? NOTHING : whole.format(value));
export const short = (value: number) => (value < 10_000 ? whole.format(value) : compact.format(value));

export function rate(value: number | null | undefined): string {
  if (value == null) return NOTHING;
  if (value === 0) return "0";
  return (value < 10 ? two : value < 1000 ? one : whole).format(value);
}

export function milliseconds(value: number | null | undefined): string {
  if (value == null) return NOTHING;
  if (value >= 1000) return `${one.format(value / 1000)} s`;
  return `${(value < 10 ? two : value < 100 ? one : whole).format(value)} ms`;
}

export function bytes(value: number | null | undefined): string {
  if (value == null) return NOTHING;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let step = 0;
  while (value >= 1024 && step < units.length - 1) {
    value /= 1024;
    step += 1;
  }
  return `${(step === 0 || value >= 100 ? whole : one).format(value)} ${units[step]}`;
}

/** A length of time in its two largest units: 3 h 12 min. */
export function duration(seconds: number | null | undefined): string {
  if (seconds == null) return NOTHING;
  const total = Math.max(0, Math.round(seconds));
  const units: [number, string][] = [[86_400, "d"], [3_600, "h"], [60, "min"], [1, "s"]];
  const first = units.findIndex(([size]) => total >= size);
  if (first < 0) return "0 s";
  const [size, name] = units[first];
  const rest = units[first + 1];
  const more = rest ? Math.floor((total % size) / rest[0]) : 0;
  return `${Math.floor(total / size)} ${name}${more > 0 ? ` ${more} ${rest[1]}` : ""}`;
}

export const time = (text: string) => dayAndTime.format(new Date(text));
export const minute = (text: string) => dayAndMinute.format(new Date(text));
export const date = (text: string) => day.format(new Date(text));
export const timeOfDay = (text: string) => clock.format(new Date(text));

/** How long ago, or in how long: 3 minutes ago. */
export function fromNow(text: string, now: number = Date.now()): string {
  const seconds = (new Date(text).getTime() - now) / 1000;
  const units: [Intl.RelativeTimeFormatUnit, number][] = [
    ["year", 31_557_600], ["month", 2_629_800], ["day", 86_400], ["hour", 3_600], ["minute", 60],
  ];
  for (const [unit, size] of units) {
    if (Math.abs(seconds) >= size) return relative.format(Math.trunc(seconds / size), unit);
  }
  return relative.format(Math.trunc(seconds), "second");
}

/** The value of an <input type="datetime-local"> for a moment, in the browser's time zone. */
export function localInput(text: string | null): string {
  if (!text) return "";
  const moment = new Date(text);
  return new Date(moment.getTime() - moment.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}

/** The moment that such an input means, as the API takes it; null: it is empty. */
export function fromLocalInput(value: string): string | null {
  return value ? new Date(value).toISOString().replace(/\.\d+Z$/, "Z") : null;
}
