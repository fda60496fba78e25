// Requests to the admin API. The admin token lives in this module's memory, and nowhere else.

let adminToken: string | null = null;
let onUnauthenticated: (error: ApiError) => void = () => {};

export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    /** All errors of each field of the request. */
    readonly fields: Record<string, string[]> = {},
    readonly requestId: string | null = null,
  ) {
    super(message);
  }
}

/** The gateway did not answer at all. */
export class Unreachable extends Error {
  constructor() {
    super("The gateway does not answer.");
  }
}

export function setAdminToken(token: string | null) {
  adminToken = token;
}

export function whenUnauthenticated(listener: (error: ApiError) => void) {
  onUnauthenticated = listener;
}

export type Query = Record<string, string | number | boolean | null | undefined>;

export interface RequestOptions {
  query?: Query;
  body?: unknown;
  headers?: Record<string, string>;
  signal?: AbortSignal;
}

function withQuery(path: string, query: Query = {}): string {
  const words = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== null && value !== undefined && value !== "") words.set(name, String(value));
  }
  const text = words.toString();
  return text ? `${path}?${text}` : path;
}

/** Sends a request and returns the response, whatever its body is. Throws `ApiError` unless its status is 2xx. */
export async function send(method: string, path: string, options: RequestOptions = {}): Promise<Response> {
  const headers: Record<string, string> = { ...options.headers };
  if (adminToken) headers["Authorization"] = `Bearer ${adminToken}`;
  if (method !== "GET") headers["X-Callgate-Admin"] = "1";
  if (options.body !== undefined) headers["Content-Type"] = "application/json";
  const sentWith = adminToken;
  let response: Response;
  try {
    response = await fetch(withQuery(path, options.query), {
      method,
      headers,
      body: options.body === undefined ? undefined : JSON.stringify(options.body),
      signal: options.signal,
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
    });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new Unreachable();
  }
  if (response.ok) return response;
  const error = await asError(response);
  if (response.status === 401 && sentWith === adminToken) onUnauthenticated(error);
  throw error;
}

async function asError(response: Response): Promise<ApiError> {
  const body = await response.json().catch(() => ({}));
  const message = typeof body.message === "string" ? body.message : `The gateway answered ${response.status}.`;
  const code = typeof body.code === "string" ? body.code : "unknown";
  return new ApiError(response.status, code, message, body.errors ?? {}, body.request_id ?? null);
}

async function json<T>(method: string, path: string, options?: RequestOptions): Promise<T> {
  return (await send(method, path, options)).json() as Promise<T>;
}

export const get = <T>(path: string, query?: Query, signal?: AbortSignal) => json<T>("GET", path, { query, signal });
export const post = <T>(path: string, body?: unknown, headers?: Record<string, string>) =>
  json<T>("POST", path, { body, headers });
export const patch = <T>(path: string, body: unknown, version: number) =>
  json<T>("PATCH", path, { body, headers: { "If-Match": `"${version}"` } });
export const remove = <T>(path: string, query?: Query) => json<T>("DELETE", path, { query });

export const idPath = (prefix: string, id: string) => `${prefix}/${encodeURIComponent(id)}`;

/** Whether this gateway is too old for what was asked. */
export function isNotBuilt(error: unknown): boolean {
  return error instanceof ApiError && (error.status === 404 || error.status === 405);
}
