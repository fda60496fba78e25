// Who uses the console: somebody with an admin token, or, where the gateway allows it, anybody.
import { createContext } from "preact";
import { useCallback, useContext, useEffect, useState } from "preact/hooks";
import { ApiError, get, isNotBuilt, setAdminToken, whenUnauthenticated } from "./api";
import { startLive, stopLive } from "./live";
import type { Me } from "./types";

export type Session =
  | { kind: "checking" }
  | { kind: "login"; reason: string | null }
  | { kind: "failed"; error: unknown }
  | { kind: "ready"; me: Me };

export const SessionContext = createContext<Me>({ name: null, role: "read" });

export const useMe = () => useContext(SessionContext);
export const useMayWrite = () => useMe().role === "write";

/** In the place of what changes something, for those who may not. */
export function ReadOnlyNote({ what }: { what: string }) {
  return <p class="note read-only">Your role is <b>read</b>: you may look here. To {what}, log in with a token of the role write.</p>;
}

async function whoAmI(): Promise<Me> {
  try {
    return await get<Me>("/api/me");
  } catch (error) {
    if (!isNotBuilt(error)) throw error;
    // An older gateway does not say what the role is; it refuses what is not allowed.
    await get("/status");
    return { name: null, role: "write" };
  }
}

export function useSession() {
  const [session, setSession] = useState<Session>({ kind: "checking" });

  const check = useCallback(async () => {
    setSession({ kind: "checking" });
    try {
      const me = await whoAmI();
      startLive();
      setSession({ kind: "ready", me });
    } catch (error) {
      const needsToken = error instanceof ApiError && error.status === 401;
      setSession(needsToken ? { kind: "login", reason: null } : { kind: "failed", error });
    }
  }, []);

  /** Throws when the token is refused. */
  const logIn = useCallback(async (token: string) => {
    setAdminToken(token);
    try {
      const me = await whoAmI();
      startLive();
      setSession({ kind: "ready", me });
    } catch (error) {
      setAdminToken(null);
      throw error;
    }
  }, []);

  const logOut = useCallback((reason: string | null = null) => {
    setAdminToken(null);
    stopLive();
    setSession({ kind: "login", reason });
  }, []);

  useEffect(() => {
    void check();
  }, [check]);
  useEffect(() => {
    const isReady = session.kind === "ready";
    whenUnauthenticated((error) => {
      if (isReady) logOut(`${error.message} Log in again.`);
    });
  }, [session, logOut]);

  return { session, check, logIn, logOut };
}
