// Data that is loaded when a page needs it.

import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { ApiError, get } from "./api";

export interface Loaded<T> {
  data: T | null;
  error: ApiError | null;
  loading: boolean;
  reload: () => void;
}

/** Loads a path of the API, again whenever it changes, and every `every` milliseconds while the page is looked at. */
export function useLoad<T>(path: string | null, every = 0): Loaded<T> {
  const [state, setState] = useState<{ path: string | null; data: T | null; error: ApiError | null; loading: boolean }>({
    path: null,
    data: null,
    error: null,
    loading: path !== null,
  });
  const newest = useRef(0);
  const load = useCallback(() => {
    if (path === null) return;
    const own = (newest.current += 1);
    setState((before) => ({ ...before, data: before.path === path ? before.data : null, path, loading: true }));
    get<T>(path).then(
      (data) => own === newest.current && setState({ path, data, error: null, loading: false }),
      (error) => own === newest.current && setState((before) => ({ ...before, error: error as ApiError, loading: false })),
    );
  }, [path]);
  useEffect(() => {
    load();
    if (!every) return;
    const timer = setInterval(() => document.visibilityState === "visible" && load(), every);
    return () => clearInterval(timer);
  }, [load, every]);
  return { data: state.path === path ? state.data : null, error: state.error, loading: state.loading, reload: load };
}
