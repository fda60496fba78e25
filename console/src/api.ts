// The admin API: the same as everybody's. An admin token lives in this module alone, and is gone with the page.

let token: string | null = null;
let onLost: () => void = () => {};

/** Uses this admin token from now on; `null`: none. */
export function useToken(secret: string | null) {
  token = secret;
}

/** Calls this when the admin token is no longer good. */
export function whenLost(lost: () => void) {
  onLost = lost;
}

/** An answer that is none of success. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly fields: Record<string, string[]> = {},
    readonly requestId: string | null = null,
  ) {
    super(message);
  }
}

export function headers(): Record<string, string> {
  // The second says that no other site's page has made the request.
  return token ? { authorization: `Bearer ${token}` } : { "x-callgate-admin": "1" };
}

/** Asks the API; throws an `ApiError` if it does not succeed, or can't be reached. */
export async function api<T>(method: string, path: string, body?: unknown, more: Record<string, string> = {}): Promise<T> {
  const init: RequestInit = { method, headers: { ...headers(), ...more }, cache: "no-store" };
  if (body !== undefined) {
    init.body = JSON.stringify(body);
    init.headers = { ...init.headers, "content-type": "application/json" };
  }
  let response: Response;
  try {
    response = await fetch(path, init);
  } catch {
    throw new ApiError(0, "unreachable", "The gateway does not answer.");
  }
  const text = await response.text();
  let json: unknown = null;
  try {
    json = text ? JSON.parse(text) : null;
  } catch {
    // A proxy's page, perhaps.
  }
  if (response.ok) return json as T;
  const problem = (json ?? {}) as { message?: string; code?: string; errors?: Record<string, string[]>; request_id?: string };
  if (response.status === 401) onLost();
  throw new ApiError(
    response.status,
    problem.code ?? "unknown",
    problem.message ?? `The gateway answered with ${response.status}.`,
    problem.errors,
    problem.request_id ?? null,
  );
}

export const get = <T>(path: string) => api<T>("GET", path);

/** A path with a query; empty values are left out. */
export function withQuery(path: string, query: Record<string, string | number | boolean | null | undefined>): string {
  const pairs = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "" && value !== false);
  const text = new URLSearchParams(pairs.map(([name, value]) => [name, String(value)])).toString();
  return text ? `${path}?${text}` : path;
}
