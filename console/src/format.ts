// Numbers, times and sizes as the browser's language writes them.

const number = new Intl.NumberFormat(undefined, { maximumFractionDigits: 0 });
const tenths = new Intl.NumberFormat(undefined, { maximumFractionDigits: 1 });
const precise = new Intl.NumberFormat(undefined, { maximumSignificantDigits: 3 });
const moment = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const day = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });
const relative = new Intl.RelativeTimeFormat(undefined, { numeric: "auto" });

export const count = (value: number) => number.format(value);
export const rate = (value: number) => (value < 10 ? tenths : number).format(value);
export const dateTime = (at: string) => moment.format(new Date(at));
export const time = (at: string) => clock.format(new Date(at));
export const date = (at: string) => day.format(new Date(at));

/** Milliseconds, with as many digits as say something. */
export function millis(value: number | null | undefined): string {
  if (value === null || value === undefined) return "–";
  return value >= 10_000 ? `${precise.format(value / 1000)} s` : `${precise.format(value)} ms`;
}

export function bytes(value: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? number.format(value) : tenths.format(value)} ${units[unit]}`;
}

/** A length of time in its two largest units. */
export function duration(seconds: number): string {
  seconds = Math.max(0, Math.round(seconds));
  const [days, hours, minutes] = [Math.floor(seconds / 86_400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60];
  const two = (one: string, other: number, unit: string) => (other ? `${one} ${other} ${unit}` : one);
  if (days > 0) return two(`${days} d`, hours, "h");
  if (hours > 0) return two(`${hours} h`, minutes, "min");
  return minutes > 0 ? two(`${minutes} min`, seconds % 60, "s") : `${seconds} s`;
}

/** How long ago, or in how long. */
export function ago(at: string, now = Date.now()): string {
  const seconds = (new Date(at).getTime() - now) / 1000;
  const size = Math.abs(seconds);
  if (size < 60) return relative.format(Math.round(seconds), "second");
  if (size < 3600) return relative.format(Math.round(seconds / 60), "minute");
  if (size < 86_400) return relative.format(Math.round(seconds / 3600), "hour");
  return relative.format(Math.round(seconds / 86_400), "day");
}

/** What the API's words for actions and states mean to a reader. */
export const words = (name: string) => name.replaceAll("_", " ");
