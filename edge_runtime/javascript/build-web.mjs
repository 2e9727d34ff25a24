/**
 * Build the page at `/join`: `node build-web.mjs FOLDER`. What it writes is committed, so that a server needs no Node.
 *
 * Every file but the page itself has a hash of its content in its name, and may be kept for ever by whoever loads it.
 */

import { createHash } from "node:crypto";
import { promises as fs } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { constants, gzipSync } from "node:zlib";
import * as esbuild from "esbuild";

const here = path.dirname(fileURLToPath(import.meta.url));
const source = (...parts) => path.join(here, "src", "browser", ...parts);
const runtime = (name) => path.join(here, "node_modules", "onnxruntime-web", "dist", name);
const out = path.resolve(process.argv[2] ?? path.join(here, "..", "..", "server_app", "web", "static", "join"));
const files = new Map();

/** Keep a file under a name with its hash, and give that name. */
function hashed(name, content) {
  const data = Buffer.from(content);
  const { name: stem, ext } = path.parse(name);
  const full = `${stem}-${createHash("sha256").update(data).digest("hex").slice(0, 12)}${ext}`;
  files.set(full, data);
  return full;
}

async function bundled(entry, define) {
  const result = await esbuild.build({
    entryPoints: [source(entry)],
    bundle: true,
    minify: true,
    write: false,
    format: "esm",
    target: ["es2022", "chrome111", "firefox115", "safari16.4"],
    // The runtime's glue lies beside the bundle: its threads load it again, and would load all of a bundle.
    conditions: ["onnxruntime-web-use-extern-wasm", "browser"],
    define: Object.fromEntries(Object.entries(define).map(([name, value]) => [name, JSON.stringify(value)])),
    legalComments: "none",
    charset: "utf8",
    logLevel: "warning",
  });
  return result.outputFiles[0].contents;
}

/** Join the licences of what is in the page. */
async function licences() {
  const texts = [["onnxruntime-web", await read(path.join(here, "licences", "onnxruntime.txt"))]];
  for (const [name, file] of [
    ["@noble/hashes", "LICENSE"],
    ["fflate", "LICENSE"],
    ["lossless-json", "LICENSE.md"],
  ]) {
    texts.push([name, await read(path.join(here, "node_modules", name, file))]);
  }
  const rest = "What ONNX Runtime itself contains: onnxruntime-third-party.txt, beside this file.\n";
  return texts.map(([name, text]) => `${name}\n\n${text.trim()}\n\n`).join("") + rest;
}

const read = (file) => fs.readFile(file, "utf8");
const ORT_MJS = hashed("ort-wasm-simd-threaded.mjs", await read(runtime("ort-wasm-simd-threaded.mjs")));
const ORT_WASM = hashed("ort-wasm-simd-threaded.wasm", await fs.readFile(runtime("ort-wasm-simd-threaded.wasm")));
const worker = hashed("worker.js", await bundled("worker.ts", { ORT_MJS, ORT_WASM }));
const ICON = hashed("icon.svg", await read(source("page", "icon.svg")));
const MANIFEST = hashed("manifest.webmanifest", (await read(source("page", "manifest.json"))).replace("{ICON}", ICON));
const STYLE = hashed("page.css", await read(source("page", "page.css")));
// The service worker has one name: browsers ask for it again, and compare.
const SERVICE_WORKER = "service-worker.js";
const PAGE = hashed(
  "page.js",
  await bundled("page/main.ts", { WORKER: `join/${worker}`, SERVICE_WORKER: `join/${SERVICE_WORKER}` }),
);
const ASSETS = [...files.keys()].sort();
const VERSION = createHash("sha256").update(ASSETS.join()).digest("hex").slice(0, 12);
files.set(SERVICE_WORKER, await bundled("service-worker.ts", { ASSETS, VERSION }));
const html = await read(source("page", "index.html"));
const names = { PAGE, STYLE, ICON, MANIFEST };
files.set(
  "index.html",
  html.replace(/{(\w+)}/g, (_, name) => names[name]),
);
files.set("licences.txt", await licences());

const notices = "onnxruntime-third-party.txt.gz";

await fs.rm(out, { recursive: true, force: true });
await fs.mkdir(out, { recursive: true });
for (const [name, content] of files) {
  const isLarge = content.length > 1_000_000;
  const data = isLarge ? gzipSync(content, { level: constants.Z_BEST_COMPRESSION }) : content;
  await fs.writeFile(path.join(out, isLarge ? `${name}.gz` : name), data);
}
await fs.copyFile(path.join(here, "licences", notices), path.join(out, notices));
