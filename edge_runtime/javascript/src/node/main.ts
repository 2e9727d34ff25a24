#!/usr/bin/env node
/** The command `gkt-edge`: results to stdout, progress to stderr, the exit codes of `gkt`. */

import { readFileSync } from "node:fs";
import { isOutOfMemory } from "../engine/runtime.js";
import { ConfigError, GKTError, MemoryLimitError } from "../errors.js";
import { HELP, readOptions } from "./options.js";
import { run } from "./run.js";

const INTERRUPTED = 130;

async function main(args: readonly string[]): Promise<string> {
  const [command, ...rest] = args;
  if (command === "--version") return `gkt-edge ${version()}`;
  if (args.length === 0 || args.includes("--help") || args.includes("-h")) return HELP.trimEnd();
  if (command !== "run")
    throw new ConfigError(`there is no command '${command.slice(0, 40)}', expected run: gkt-edge --help`);
  return run(readOptions(rest, process.env));
}

function version(): string {
  const text = readFileSync(new URL("../../../package.json", import.meta.url), "utf8");
  return (JSON.parse(text) as { version: string }).version;
}

process.on("SIGINT", () => {
  process.stderr.write("Aborted: the same command goes on\n");
  process.exit(INTERRUPTED);
});

try {
  process.stdout.write(`${await main(process.argv.slice(2))}\n`);
} catch (error) {
  const named = isOutOfMemory(error) ? new MemoryLimitError("memory does not suffice", { cause: error }) : error;
  if (named instanceof GKTError) {
    process.stderr.write(`error: ${named.message}\n`);
    process.exitCode = named.exitCode;
  } else {
    // A fault of this program's own: with all that is known of it.
    process.stderr.write(`${named instanceof Error ? named.stack : String(named)}\n`);
    process.exitCode = 1;
  }
}
