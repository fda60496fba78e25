// The small parts that all pages are made of.
import type { ComponentChildren } from "preact";
import { useEffect, useId, useState } from "preact/hooks";
import { ApiError, isNotBuilt, Unreachable } from "./api";
import { fromNow, time } from "./format";
import { Icon, type IconName } from "./icons";
import { useNow } from "./resource";
import { href } from "./router";

export type Tone = "good" | "warning" | "bad" | "neutral" | "accent";

export function Panel(props: { title: string; note?: ComponentChildren; actions?: ComponentChildren; children: ComponentChildren; class?: string }) {
  const id = useId();
  return (
    <section class={`panel ${props.class ?? ""}`} aria-labelledby={id}>
      <header class="panel-head">
        <h2 id={id}>{props.title}</h2>
        {props.note && <p class="note">{props.note}</p>}
        {props.actions && <div class="actions">{props.actions}</div>}
      </header>
      {props.children}
    </section>
  );
}

export function Badge({ tone, children }: { tone: Tone; children: ComponentChildren }) {
  return <span class={`badge ${tone}`}>{children}</span>;
}

export interface ButtonProps {
  children: ComponentChildren;
  onClick?: () => void;
  kind?: "primary" | "danger" | "quiet";
  icon?: IconName;
  type?: "button" | "submit";
  disabled?: boolean;
  busy?: boolean;
}

export function Button(props: ButtonProps) {
  return (
    <button
      type={props.type ?? "button"}
      class={`button ${props.kind ?? ""}`}
      disabled={props.disabled || props.busy}
      aria-busy={props.busy || undefined}
      onClick={props.onClick}
    >
      {props.icon && <Icon name={props.icon} />}
      {props.children}
    </button>
  );
}

export function CopyButton({ text, label = "Copy" }: { text: string; label?: string }) {
  const [copied, setCopied] = useState<"" | "copied" | "failed">("");
  useEffect(() => {
    if (!copied) return;
    const timer = setTimeout(() => setCopied(""), 4000);
    return () => clearTimeout(timer);
  }, [copied]);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      setCopied("copied");
    } catch {
      setCopied(copyBySelection(text) ? "copied" : "failed");
    }
  };
  return (
    <button type="button" class="button quiet copy" onClick={copy}>
      <Icon name={copied === "copied" ? "good" : "copy"} />
      <span aria-live="polite">{copied === "copied" ? "Copied" : copied === "failed" ? "Copy it by hand" : label}</span>
    </button>
  );
}

/** Where the clipboard can't be written: on addresses that are neither loopback nor HTTPS. */
function copyBySelection(text: string): boolean {
  const field = document.createElement("textarea");
  field.value = text;
  (document.querySelector("dialog[open]") ?? document.body).append(field);
  field.select();
  const copied = document.execCommand("copy");
  field.remove();
  return copied;
}

export function Time({ at, relative = false }: { at: string | null | undefined; relative?: boolean }) {
  if (!at) return <>–</>;
  return (
    <time dateTime={at} title={relative ? time(at) : at} class={relative ? "nowrap" : undefined}>
      {relative ? <Ago at={at} /> : time(at)}
    </time>
  );
}

function Ago({ at }: { at: string }) {
  return <>{fromNow(at, useNow(10))}</>;
}

export function TokenLink({ id, children }: { id: string; children?: ComponentChildren }) {
  return <a href={href(["tokens", id])} class={children ? undefined : "code"}>{children ?? id}</a>;
}

/** A share of a whole, as a bar; its text stands beside it, so that it is hidden from screen readers. */
export function Bar({ share, tone = "accent" }: { share: number; tone?: Tone }) {
  const width = `${Math.min(100, Math.max(0, share * 100)).toFixed(2)}%`;
  return (
    <svg class={`bar ${tone}`} width="100%" height="6" aria-hidden="true" focusable="false">
      <rect class="bar-rest" width="100%" height="6" rx="3" />
      <rect class="bar-part" width={width} height="6" rx="3" />
    </svg>
  );
}

export function Empty({ title, children, icon = "empty" }: { title: string; children?: ComponentChildren; icon?: IconName }) {
  return (
    <div class="state">
      <Icon name={icon} />
      <p class="state-title">{title}</p>
      {children && <div class="state-text">{children}</div>}
    </div>
  );
}

/** Lines in the place of what is being loaded, of about its height. */
export function Loading({ lines = 4 }: { lines?: number }) {
  return (
    <div class="loading" role="status">
      <span class="visually-hidden">Loading…</span>
      {Array.from({ length: lines }, (_, line) => <span class="loading-line" key={line} />)}
    </div>
  );
}

export function NotAvailable({ what }: { what: string }) {
  return <Empty title="Not available on this version">{what} needs a newer Callgate than the one that answers here.</Empty>;
}

export function Failure({ error, what, onRetry }: { error: unknown; what?: string; onRetry?: () => void }) {
  if (what && isNotBuilt(error)) return <NotAvailable what={what} />;
  const title = error instanceof Unreachable ? "The gateway does not answer"
    : error instanceof ApiError && error.status === 503 ? "The store can't be reached"
    : error instanceof ApiError && error.code === "insufficient_role" ? "Your role does not allow this"
    : error instanceof ApiError && error.status === 403 ? "The gateway refuses this"
    : error instanceof ApiError && error.status === 404 ? "There is nothing here"
    : "This could not be loaded";
  return (
    <div role="alert">
      <Empty title={title} icon="warning">
        <ErrorText error={error} />
        {onRetry && <p><Button icon="reload" onClick={onRetry}>Try again</Button></p>}
      </Empty>
    </div>
  );
}

export function ErrorText({ error }: { error: unknown }) {
  const message = error instanceof Error ? error.message : String(error);
  const id = error instanceof ApiError ? error.requestId : null;
  return (
    <>
      <p>{message}</p>
      {id && <p class="note">Request <span class="code">{id}</span></p>}
    </>
  );
}

/** What a request showed: the data, or the state of it that there is. */
export function Loaded<T>(props: {
  resource: { data: T | null; error: unknown; reload: () => void };
  what?: string;
  lines?: number;
  children: (data: T) => ComponentChildren;
}) {
  const { data, error, reload } = props.resource;
  if (data === null) {
    return error ? <Failure error={error} what={props.what} onRetry={reload} /> : <Loading lines={props.lines} />;
  }
  return (
    <>
      {Boolean(error) && <p class="stale" role="alert">Not up to date: {error instanceof Error ? error.message : "unknown"}</p>}
      {props.children(data)}
    </>
  );
}
