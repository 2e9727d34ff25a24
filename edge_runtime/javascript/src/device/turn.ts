/** Wait for this device's turn: the server keeps the question until it has come, or says when to ask again. */

import type { ServerClient } from "../connection/server-client.js";
import type { Task } from "../wire/messages.js";

/** Ask what to do next, of a device that was told to wait. */
export async function nextTask(
  server: ServerClient,
  clientId: string,
  sleep: (seconds: number) => Promise<void>,
): Promise<Task> {
  const began = performance.now();
  const task = await server.task(clientId, true);
  if (task.action === "wait") {
    // Devices that were told the same must not all ask at the same moment.
    const rest = task.retry_after_seconds * (0.8 + 0.4 * Math.random()) - (performance.now() - began) / 1000;
    if (rest > 0) await sleep(rest);
  }
  return task;
}
