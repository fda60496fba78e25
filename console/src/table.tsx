// Tables with a caption and scoped headers; on narrow screens the less important columns go, and the rest scrolls.
import type { ComponentChildren } from "preact";

export interface Column<T> {
  head: string;
  cell: (row: T) => ComponentChildren;
  numeric?: boolean;
  /** Hidden on screens narrower than: a tablet, or a wide desktop. */
  from?: "tablet" | "wide";
  class?: string;
  /** The head is for screen readers alone. */
  quietHead?: boolean;
}

export function Table<T>(props: {
  /** For screen readers: the heading above says the same to everybody else. */
  caption: string;
  columns: Column<T>[];
  rows: T[];
  rowKey: (row: T) => string;
  /** Shown in the place of the rows. */
  empty?: ComponentChildren;
}) {
  const classes = (column: Column<T>) =>
    [column.numeric && "numeric", column.from && `from-${column.from}`, column.class].filter(Boolean).join(" ") || undefined;
  if (props.rows.length === 0 && props.empty) return <>{props.empty}</>;
  return (
    <div class="table" role="region" aria-label={`Table: ${props.caption}`} tabIndex={0}>
      <table>
        <caption class="visually-hidden">{props.caption}</caption>
        <thead>
          <tr>
            {props.columns.map((column) => <th scope="col" class={classes(column)} key={column.head}>{column.quietHead ? <span class="visually-hidden">{column.head}</span> : column.head}</th>)}
          </tr>
        </thead>
        <tbody>
          {props.rows.map((row) => (
            <tr key={props.rowKey(row)}>
              {props.columns.map((column, index) =>
                index === 0
                  ? <th scope="row" class={classes(column)} key={column.head}>{column.cell(row)}</th>
                  : <td class={classes(column)} key={column.head}>{column.cell(row)}</td>)}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** Names and values, as one column or several. */
export function Facts({ facts }: { facts: [string, ComponentChildren][] }) {
  return (
    <dl class="facts">
      {facts.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}
