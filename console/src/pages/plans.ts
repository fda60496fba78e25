// The names of the plans: the gateway's own description of its API lists them.
import { useEffect, useState } from "preact/hooks";
import { get } from "../api";

export function usePlans(): string[] {
  const [plans, setPlans] = useState<string[]>([]);
  useEffect(() => {
    const abort = new AbortController();
    get<any>("/api/openapi.json", {}, abort.signal).then(
      (description) => {
        const names: unknown = description?.components?.schemas?.Plan?.enum;
        if (Array.isArray(names)) setPlans(names.filter((name) => typeof name === "string"));
      },
      () => {},
    );
    return () => abort.abort();
  }, []);
  return plans;
}
