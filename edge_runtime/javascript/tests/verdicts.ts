/** Judges files for the test that compares its verdicts with Python's: node verdicts.js CASES.json; a verdict a line. */

import { readFileSync } from "node:fs";
import { GKTError } from "../src/errors.js";
import { checkComputed, checkModel } from "../src/onnx/judging.js";
import { readSoftLabels } from "../src/wire/shards.js";

interface Case {
  readonly kind: "model" | "soft labels";
  readonly data: string;
}

const JUDGES = {
  model: (data: Uint8Array): void => checkComputed(checkModel(data, "it").graph, "it", "features", "images"),
  "soft labels": (data: Uint8Array): void => void readSoftLabels(data, "client-a", 3, 3),
};

for (const { kind, data } of JSON.parse(readFileSync(process.argv[2], "utf8")) as Case[]) {
  let verdict = "taken";
  try {
    JUDGES[kind](Uint8Array.from(Buffer.from(data, "base64")));
  } catch (error) {
    // Anything else than an error with a name is a fault.
    if (!(error instanceof GKTError)) throw error;
    verdict = `${error.name}: ${error.message}`;
  }
  process.stdout.write(`${JSON.stringify(verdict)}\n`);
}
