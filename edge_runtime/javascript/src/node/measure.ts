/** `node measure.js BUNDLE SPEC`: times training steps in Node, for `gkt profile browser`. */

import { promises as fs } from "node:fs";
import path from "node:path";
import { timedSteps, type StepsSpec } from "../measure/steps.js";
import { onnxRuntime } from "./packages.js";

const [bundle, spec] = process.argv.slice(2);
const read = async (name: string): Promise<Uint8Array> => new Uint8Array(await fs.readFile(path.join(bundle, name)));
const samples = await timedSteps(await onnxRuntime(), read, JSON.parse(spec) as StepsSpec);
const peak_bytes = 1024 * process.resourceUsage().maxRSS;
process.stdout.write(`${JSON.stringify({ samples_ms: samples, peak_bytes })}\n`);
