// What whoever looks may do.

import { createContext, type ComponentChildren } from "preact";
import { useContext } from "preact/hooks";
import type { Role } from "./types";

export const RoleContext = createContext<Role>("read");

export const useMayChange = () => useContext(RoleContext) === "write";

/** Shown to those who may change something; others are told why there is nothing. */
export function Changes({ children }: { children: ComponentChildren }) {
  return useMayChange() ? <>{children}</> : <p class="quiet">Your admin token may only look (role read).</p>;
}
