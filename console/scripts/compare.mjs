// Compares two builds by what is in them, for zlib may compress differently: node scripts/compare.mjs COMMITTED FRESH
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";

function contents(folder) {
  const names = readdirSync(folder, { recursive: true }).map(String).filter((name) => statSync(join(folder, name)).isFile());
  return new Map(names.map((name) => {
    const content = readFileSync(join(folder, name));
    return [name, name.endsWith(".gz") ? gunzipSync(content) : content];
  }));
}

const [committed, fresh] = process.argv.slice(2).map(contents);
const names = [...new Set([...committed.keys(), ...fresh.keys()])].sort();
const different = names.filter((name) => !committed.has(name) || !fresh.has(name) || !committed.get(name).equals(fresh.get(name)));
if (different.length > 0) {
  console.error(`console/dist is not what its sources build: ${different.join(", ")}. Run console/build and commit.`);
  process.exit(1);
}
