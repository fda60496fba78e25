// Addresses are in the hash, #/tokens/ID?by=hour, so that one static page serves all of them.
import { useEffect, useState } from "preact/hooks";

export interface Location { path: string[]; query: URLSearchParams }

function read(): Location {
  const [path, query] = window.location.hash.replace(/^#\/?/, "").split("?", 2);
  return { path: path.split("/").filter(Boolean).map(decoded), query: new URLSearchParams(query ?? "") };
}

function decoded(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
}

export function href(path: string[], query: Record<string, string | null | undefined> = {}): string {
  const words = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) if (value) words.set(name, value);
  const text = words.toString();
  return `#/${path.map(encodeURIComponent).join("/")}${text ? `?${text}` : ""}`;
}

export function go(path: string[], query: Record<string, string | null | undefined> = {}) {
  window.location.hash = href(path, query);
}

/** Changes the address without a new entry in the history: for filters while they are typed. */
export function replace(path: string[], query: Record<string, string | null | undefined> = {}) {
  window.history.replaceState(null, "", href(path, query));
  window.dispatchEvent(new HashChangeEvent("hashchange"));
}

export function useLocation(): Location {
  const [location, setLocation] = useState(read);
  useEffect(() => {
    const onChange = () => setLocation(read());
    window.addEventListener("hashchange", onChange);
    return () => window.removeEventListener("hashchange", onChange);
  }, []);
  return location;
}
