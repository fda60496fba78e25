// What the admin API answers: the parts that the console shows.

export type Role = "read" | "write";
export interface Me { name: string | null; role: Role }

export interface Problem { file: string; line: number; column: number; path: string; message: string }
export interface Percentiles { p50: number | null; p95: number | null; p99: number | null }
export type Statuses = Record<"1xx" | "2xx" | "3xx" | "4xx" | "5xx", number>;

export interface Endpoint {
  url: string; state: "up" | "ejected" | "failing" | "down"; ejected_for_seconds: number; weight: number;
  backup: boolean; in_flight: number; failures: number; ejections?: number;
}
export interface Upstream {
  name: string; in_flight: number; max_requests: number | null; waiting: number; endpoints: Endpoint[];
}

export interface Reload { at: string; successful: boolean; changes?: string[]; warnings?: Problem[]; errors?: Problem[] }
export interface Certificate { file: string; names: string[]; expires_at: string; days_left: number }
export interface Instance {
  id: string; host: string; pid: number; version: string; started_at: string; seen_at: string; draining: boolean; calls: number;
}
export interface Store {
  kind: "redis" | "memory"; topology?: string; addresses?: string[]; on_failure?: string; connected?: boolean;
  since?: string; trouble?: string | null; latency_ms?: Percentiles; unmerged_admissions?: number;
  clock_skew_seconds?: number; token_file?: string; token_file_good?: boolean; limited_tokens?: number;
}
export interface Warning { code: string; text: string; since: string | null }

// An older gateway answers with the first block alone.
export interface Status {
  version: string; started_at: string; draining: boolean;
  configuration: { file: string; in_force_since: string; last_reload: Reload | null };

  instance?: string; host?: string; pid?: number; time?: string; uptime_seconds?: number;
  well?: boolean; warnings?: Warning[];
  drain?: { connections: number; requests: number; calls: number } | null;
  certificates?: Certificate[]; store?: Store; instances?: Instance[]; upstreams?: Upstream[];
  connections?: { open: number; max: number; https: number; http: number };
  requests?: { in_flight: number }; calls?: { open: number };
  traffic?: {
    window_seconds: number; requests_per_second: number; statuses: Statuses; latency_ms: Percentiles;
    decisions: { outcome: string; source: string; per_second: number }[]; decision_latency_ms: Percentiles;
  };
  process?: { memory_bytes: number; open_files: number | null; max_files: number; threads: number };
  log?: { dropped_lines: number };
}

export interface Point {
  at: string; statuses: Statuses; p50_ms: number | null; p95_ms: number | null; p99_ms: number | null;
  admitted: number; denied: number; calls: number; connections: number;
}

export type TokenState = "active" | "expired" | "disabled" | "revoked";
export interface Token {
  id: string; name: string; account: string; permissions: string[]; plan: string | null;
  limits: Record<string, string>; concurrent_calls: number | null; in_flight: number | null;
  created_at: string; expires_at: string | null; enabled: boolean; revoked_at: string | null;
  state: TokenState; old_secrets_until: string[]; version: number;
  usage?: { last_used_at: string | null; requests: number };
  effective?: { plan: string; limits: Record<string, string>; concurrent_calls: number | null; in_flight: number | null };
}
export interface TokenPage { tokens: Token[]; next: string | null }
export interface IssuedToken extends Token { token: string | null; warnings: string[] }
export interface RotatedToken extends Token { token: string; old_secret_until: string | null }

export interface LimitWindow {
  name: string; used: number; limit: number; window_seconds: number; next_slot_at: number; next_slot_in_seconds: number;
}
export interface Limits {
  id: string; plan: string; shadow: boolean; open_calls: number | null; concurrent_calls: number | null; windows: LimitWindow[];
}
export interface Usage { by: "hour" | "day"; since: string; until: string; buckets: { at: string; admitted: number; refused: number }[] }

export interface AuditEntry {
  at: string; by: string; action: string; tokens: string[]; account?: string; changes?: Record<string, [unknown, unknown]>;
}
export interface AuditPage { entries: AuditEntry[]; next: number | null }

export interface Call {
  id: string; kind: "websocket" | "events" | "grpc"; instance: string; token: string | null; token_name: string | null;
  account: string | null; client: string; route: string; upstream: string; endpoint: string | null; since: string;
  seconds: number; bytes_in: number; bytes_out: number; messages_in: number | null; messages_out: number | null; request_id: string;
}
export interface CallPage { calls: Call[]; next: string | null; silent_instances: string[] }

export interface Route {
  name: string; hosts: string[]; path: string; methods: string[]; upstreams: { upstream: string; weight: number }[];
  access: "token" | "public"; permissions: string[]; open_calls: number; requests_per_second: number; statuses: Statuses;
  latency_ms: Percentiles;
}
export interface MostLimited { window_seconds: number; tokens: { id: string; refused: number }[] }
export interface Configuration { file: string; in_force_since: string; text: string; warnings: Problem[] }
