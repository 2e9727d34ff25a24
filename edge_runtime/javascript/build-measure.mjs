/** Build what `gkt profile browser` runs: `node build-measure.mjs FOLDER` writes node.mjs and a page with its worker. */

import { promises as fs } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import * as esbuild from "esbuild";

const here = path.dirname(fileURLToPath(import.meta.url));
const out = path.resolve(process.argv[2]);
const common = { bundle: true, format: "esm", target: "es2022", legalComments: "none", logLevel: "warning" };

await esbuild.build({
  ...common,
  entryPoints: [path.join(here, "src", "node", "measure.ts")],
  outfile: path.join(out, "node.mjs"),
  platform: "node",
  // It lies within the package, and finds them there.
  packages: "external",
});
await esbuild.build({
  ...common,
  entryPoints: [path.join(here, "src", "browser", "measure-worker.ts")],
  outfile: path.join(out, "worker.js"),
  minify: true,
  conditions: ["onnxruntime-web-use-extern-wasm", "browser"],
});
for (const name of ["ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"]) {
  await fs.copyFile(path.join(here, "node_modules", "onnxruntime-web", "dist", name), path.join(out, name));
}
await fs.writeFile(path.join(out, "index.html"), "<!doctype html><title>gkt profile browser</title>");
