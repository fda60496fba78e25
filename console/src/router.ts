// Which page is shown: the part of the address behind `#`.

import { useEffect, useState } from "preact/hooks";

export interface Place {
  /** Such as `["tokens", "4fK2mPqZ81bT"]`. */
  path: string[];
  query: URLSearchParams;
}

function place(): Place {
  const [path = "", query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  return { path: path.split("/").filter(Boolean).map(decodeURIComponent), query: new URLSearchParams(query) };
}

export function usePlace(): Place {
  const [here, go] = useState(place);
  useEffect(() => {
    const moved = () => go(place());
    addEventListener("hashchange", moved);
    return () => removeEventListener("hashchange", moved);
  }, []);
  return here;
}

/** The address of a page. */
export function at(path: string[], query: Record<string, string | null | undefined> = {}): string {
  const pairs = Object.entries(query).filter((pair): pair is [string, string] => Boolean(pair[1]));
  const text = new URLSearchParams(pairs).toString();
  return `#/${path.map(encodeURIComponent).join("/")}${text ? `?${text}` : ""}`;
}

/** Replaces the query of the present page, so that its address can be shared. */
export function keepQuery(path: string[], query: Record<string, string | null | undefined>) {
  history.replaceState(null, "", at(path, query));
}
