/** Going back with a server that came back from a backup: to the round that it is in, instead of stopping. */

import { ProtocolError } from "../errors.js";
import type { DeviceState, StateKeeper } from "../state/device-state.js";
import type { Task } from "../wire/messages.js";

/**
 * Say whether the server stands where this device was before: it has come back from a backup.
 *
 * @param mode Of the run; without rounds a run may end before a device's last one was trained on.
 */
export function isAhead(state: DeviceState, task: Task, mode: string): boolean {
  if (task.action === "train") return task.round_num < state.trained_round;
  const isOver = task.action === "finish" && !task.view_round;
  return isOver && task.round_num + (mode === "async" ? 1 : 0) < state.trained_round;
}

/** Go back to before the task's round, which is then done once more; weights are to be read anew. */
export async function goBack(
  keeper: StateKeeper,
  state: DeviceState,
  task: Task,
  note: (line: string) => void,
): Promise<DeviceState> {
  const lastRound = task.round_num - (task.action === "train" ? 1 : 0);
  const [back, isExact] = await keeper.backTo(state, lastRound, task.soft_labels_round);
  const how = isExact
    ? "the weights of then"
    : "the weights of now: those of then are no longer kept, and the run ends with other numbers than it would have";
  note(
    `${state.client_id} was in round ${state.trained_round}, and its server has come back to round ${task.round_num}, from ` +
      `a backup: going back after round ${back.trained_round}, with ${how}`,
  );
  return back;
}

/**
 * Refuse a task that does not follow from where this device stands: its weights never lag behind its answers.
 *
 * @throws ProtocolError It was given for another folder.
 */
export function checkPlace(state: DeviceState, task: Task): void {
  if (!(task.soft_labels_round <= state.trained_round && state.trained_round <= task.round_num))
    throw otherFolder(task.round_num, state);
}

export function otherFolder(roundNum: number, state: DeviceState): ProtocolError {
  return new ProtocolError(
    `the server is in round ${roundNum}, this device's state folder after round ${state.trained_round}: the folder is not ` +
      "this run's",
  );
}
