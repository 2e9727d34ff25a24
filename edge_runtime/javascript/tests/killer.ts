/** Kills its own process right after it has saved its place so many times: node --import killer.js, GKT_KILL_AFTER=3. */

import { promises as fs } from "node:fs";

const rename = fs.rename;
let left = Number(process.env.GKT_KILL_AFTER);
fs.rename = async (from, to) => {
  await rename(from, to);
  if (String(to).endsWith("state.json") && --left === 0) process.kill(process.pid, "SIGKILL");
};
