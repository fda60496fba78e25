// What all pages have in common.
import type { ComponentChildren } from "preact";
import { useLive } from "./live";
import type { Location } from "./router";

export interface PageProps { location: Location }

export function PageHead(props: { title: string; children?: ComponentChildren; above?: ComponentChildren }) {
  const { connection } = useLive();
  return (
    <header class="page-head">
      <div class="page-title">
        {props.above}
        <h1 tabIndex={-1}>{props.title}</h1>
        {connection === "live" && <span class="live">Live</span>}
      </div>
      <div class="actions">{props.children}</div>
    </header>
  );
}
