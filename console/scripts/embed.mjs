// Gzips what Vite has built, and writes the list of the files as Rust: node scripts/embed.mjs FOLDER
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";

const MAX_BYTES = 150_000;
const folder = process.argv[2];
const types = { html: "text/html; charset=utf-8", js: "text/javascript; charset=utf-8", css: "text/css; charset=utf-8" };
const names = ["index.html", ...readdirSync(join(folder, "assets")).sort().map((name) => `assets/${name}`)];

let size = 0;
const entries = names.map((name) => {
  const content = readFileSync(join(folder, name));
  size += content.length;
  writeFileSync(join(folder, `${name}.gz`), gzipSync(content, { level: 9 }));
  rmSync(join(folder, name));
  const type = types[name.split(".").at(-1)];
  if (!type) throw new Error(`${name} has a type that scripts/embed.mjs does not know`);
  const path = name === "index.html" ? "/" : `/${name}`;
  const etag = createHash("sha256").update(content).digest("hex").slice(0, 16);
  return `    ConsoleFile {
        path: "${path}",
        content_type: "${type}",
        etag: "\\"${etag}\\"",
        gzipped: include_bytes!("${name}.gz"),
    },\n`;
});
if (size > MAX_BYTES) throw new Error(`the console has ${size} bytes; more than ${MAX_BYTES}`);

writeFileSync(
  join(folder, "files.rs"),
  `//! The files of the console, written by console/build.

use super::ConsoleFile;

pub(super) static FILES: [ConsoleFile; ${names.length}] = [
${entries.join("")}];
`,
);
console.log(`console: ${names.length} files, ${size} bytes`);
