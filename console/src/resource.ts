// Data of one request: loaded when a component appears, loaded again when its key changes.
import { useCallback, useEffect, useRef, useState } from "preact/hooks";

export interface Resource<T> {
  data: T | null;
  error: unknown;
  loading: boolean;
  reload: () => void;
  set: (data: T) => void;
}

/** `key` names what is loaded; `everySeconds` loads it again and again while the page is visible. */
export function useResource<T>(key: string, load: (signal: AbortSignal) => Promise<T>, everySeconds = 0): Resource<T> {
  const [state, setState] = useState<{ key: string; data: T | null; error: unknown }>({ key, data: null, error: null });
  const [round, setRound] = useState(0);
  const [loading, setLoading] = useState(true);
  const latest = useRef(load);
  latest.current = load;

  useEffect(() => {
    const abort = new AbortController();
    setLoading(true);
    latest.current(abort.signal).then(
      (data) => {
        if (!abort.signal.aborted) setState({ key, data, error: null });
      },
      (error) => {
        // What was loaded before stays visible below the error.
        if (!abort.signal.aborted) setState((old) => ({ key, data: old.key === key ? old.data : null, error }));
      },
    ).finally(() => !abort.signal.aborted && setLoading(false));
    return () => abort.abort();
  }, [key, round]);

  useEffect(() => {
    if (!everySeconds) return;
    const timer = setInterval(() => {
      if (!document.hidden) setRound((round) => round + 1);
    }, everySeconds * 1000);
    return () => clearInterval(timer);
  }, [everySeconds]);

  const reload = useCallback(() => setRound((round) => round + 1), []);
  const set = useCallback((data: T) => setState({ key, data, error: null }), [key]);
  const isCurrent = state.key === key;
  return { data: isCurrent ? state.data : null, error: isCurrent ? state.error : null, loading, reload, set };
}

/** A value that follows another one after it has been still for a moment. */
export function useSettled<T>(value: T, ms = 250): T {
  const [settled, setSettled] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => setSettled(value), ms);
    return () => clearTimeout(timer);
  }, [value, ms]);
  return settled;
}

/** The time, anew every so many seconds. */
export function useNow(everySeconds = 1): number {
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), everySeconds * 1000);
    return () => clearInterval(timer);
  }, [everySeconds]);
  return now;
}
