// Parts that all pages are made of.

import type { ComponentChildren, JSX } from "preact";
import { useEffect, useId, useRef, useState } from "preact/hooks";
import { ApiError } from "./api";
import { ago, count, dateTime } from "./format";
import type { Loaded } from "./load";

export function Page({ title, actions, children }: { title: string; actions?: ComponentChildren; children: ComponentChildren }) {
  useEffect(() => {
    document.title = `${title} · Callgate`;
  }, [title]);
  return (
    <>
      <header class="page-head">
        <h1 tabIndex={-1}>{title}</h1>
        {actions && <div class="actions">{actions}</div>}
      </header>
      {children}
    </>
  );
}

export function Card({ title, note, wide, children }: { title: string; note?: ComponentChildren; wide?: boolean; children: ComponentChildren }) {
  const id = useId();
  return (
    <section class={wide ? "card wide" : "card"} aria-labelledby={id}>
      <div class="card-head">
        <h2 id={id}>{title}</h2>
        {note && <span class="note">{note}</span>}
      </div>
      {children}
    </section>
  );
}

/** A number that matters, with what it is. */
export function Figure({ label, value, note, tone }: { label: string; value: ComponentChildren; note?: ComponentChildren; tone?: Tone }) {
  return (
    <div class={`figure ${tone ?? ""}`}>
      <dt>{label}</dt>
      <dd>
        <span class="value">{value}</span>
        {note && <span class="note">{note}</span>}
      </dd>
    </div>
  );
}

export type Tone = "good" | "bad" | "warn" | "calm";

export const Badge = ({ tone, children }: { tone: Tone; children: ComponentChildren }) => <span class={`badge ${tone}`}>{children}</span>;

/** A moment: how long ago, and when exactly. */
export function When({ at, none = "never" }: { at: string | null | undefined; none?: string }) {
  return at ? (
    <time dateTime={at} title={dateTime(at)}>
      {ago(at)}
    </time>
  ) : (
    <span class="quiet">{none}</span>
  );
}

/** Two states in words: there is nothing, or it can't be had. */
export function Empty({ title, children }: { title: string; children?: ComponentChildren }) {
  return (
    <div class="empty">
      <p class="empty-title">{title}</p>
      {children && <p>{children}</p>}
    </div>
  );
}

export function Trouble({ error, retry }: { error: ApiError; retry?: () => void }) {
  if (error.status === 404 && error.code === "not_found") {
    return <Empty title="Not there">{error.message}</Empty>;
  }
  return (
    <div class="trouble" role="alert">
      <p>{error.message}</p>
      {error.requestId && <p class="quiet">Request {error.requestId}</p>}
      {retry && <button onClick={retry}>Try again</button>}
    </div>
  );
}

/** What was loaded; until then that it loads, or why it can't be. */
export function Show<T>({ of, children }: { of: Loaded<T>; children: (data: T) => ComponentChildren }) {
  if (of.data !== null) {
    return (
      <>
        {of.error && of.error.status !== 404 && <p class="stale" role="status">Not up to date: {of.error.message}</p>}
        {children(of.data)}
      </>
    );
  }
  if (of.error) return <Trouble error={of.error} retry={of.reload} />;
  return <p class="loading" role="status">Loading…</p>;
}

export interface Column<T> {
  name: string;
  /** Right, in figures of one width. */
  numeric?: boolean;
  /** Left out on narrow screens. */
  minor?: boolean;
  cell: (row: T) => ComponentChildren;
}

/** A table with a caption for those who can't see where it stands. The first column names the row. */
export function Table<T>({ caption, columns, rows, id }: { caption: string; columns: Column<T>[]; rows: T[]; id: (row: T) => string }) {
  const kind = (column: Column<T>) => [column.numeric && "numeric", column.minor && "minor"].filter(Boolean).join(" ");
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label={caption}>
      <table role="table">
        <caption class="hidden">{caption}</caption>
        <thead role="rowgroup">
          <tr role="row">
            {columns.map((column) => (
              <th scope="col" role="columnheader" class={kind(column)}>
                {column.name || <span class="hidden">Actions</span>}
              </th>
            ))}
          </tr>
        </thead>
        <tbody role="rowgroup">
          {rows.map((row) => (
            <tr key={id(row)} role="row">
              {columns.map((column, index) =>
                index === 0 ? (
                  <th scope="row" role="rowheader" class={kind(column)}>{column.cell(row)}</th>
                ) : (
                  <td role="cell" class={kind(column)} data-label={column.name}>{column.cell(row)}</td>
                ),
              )}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** How much of a limit is used. */
export function Meter({ label, used, limit, note }: { label: string; used: number; limit: number; note?: string }) {
  const share = limit > 0 ? Math.min(1, used / limit) : 1;
  const tone = share >= 1 ? "bad" : share >= 0.8 ? "warn" : "good";
  return (
    <div class="meter">
      <div class="meter-head">
        <span>{label}</span>
        <span class="numeric">
          {count(used)} of {count(limit)}
        </span>
      </div>
      <div class={`bar ${tone}`} role="meter" aria-label={label} aria-valuemin={0} aria-valuemax={limit} aria-valuenow={Math.min(used, limit)}>
        <div style={{ width: `${share * 100}%` }} />
      </div>
      {note && <p class="note">{note}</p>}
    </div>
  );
}

/** A field of a form, with its faults. */
export function Field({ label, hint, faults, children }: { label: string; hint?: string; faults?: string[] | undefined; children: (id: string, described: string) => JSX.Element }) {
  const id = useId();
  return (
    <div class={faults ? "field faulty" : "field"}>
      <label for={id}>{label}</label>
      {children(id, `${id}-more`)}
      <div id={`${id}-more`}>
        {hint && <p class="hint">{hint}</p>}
        {faults?.map((fault) => <p class="fault">{fault}</p>)}
      </div>
    </div>
  );
}

/** A dialog of the browser's own: it keeps the focus, gives it back, and closes with Escape. */
export function Dialog({ title, onClose, children }: { title: string; onClose: () => void; children: ComponentChildren }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const id = useId();
  useEffect(() => {
    dialog.current?.showModal();
  }, []);
  return (
    <dialog ref={dialog} aria-labelledby={id} onClose={onClose}>
      <div class="dialog-head">
        <h2 id={id}>{title}</h2>
        <button class="plain" aria-label="Close" onClick={() => dialog.current?.close()}>✕</button>
      </div>
      {children}
    </dialog>
  );
}

/** Copies a text, and says so. */
export function Copy({ text, label }: { text: string; label: string }) {
  const [said, say] = useState("");
  async function copy() {
    try {
      await navigator.clipboard.writeText(text);
      say("Copied");
    } catch {
      say("Select and copy it by hand");
    }
    setTimeout(() => say(""), 3000);
  }
  return (
    <button onClick={copy}>
      <span aria-hidden={said ? "true" : undefined}>{said || label}</span>
      <span class="hidden" role="status">{said}</span>
    </button>
  );
}
