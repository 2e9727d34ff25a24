/** Waits between two steps as long as the owner, the battery or the network wants it. */

/** A pause that begins when a step has ended, with everything saved. */
export class Pausing {
  private isPaused = false;
  private wantsSave = false;
  private goOn: (() => void) | undefined;

  /** Pause after the step that is under way. */
  pause(): void {
    this.isPaused = true;
  }

  /** Go on. */
  resume(): void {
    this.isPaused = false;
    this.goOn?.();
    this.goOn = undefined;
  }

  /** Save after the step that is under way. */
  saveSoon(): void {
    this.wantsSave = true;
  }

  /**
   * Wait between two steps, if anybody wants it.
   *
   * @param save Saves the place in the round.
   * @param told Called once when a pause begins.
   */
  async between(save: () => Promise<void>, told: () => void): Promise<void> {
    // Messages of the page are heard in between: a worker that only computes hears nothing.
    await new Promise((resolve) => setTimeout(resolve));
    if (this.wantsSave || this.isPaused) {
      this.wantsSave = false;
      await save();
    }
    if (!this.isPaused) return;
    told();
    while (this.isPaused) await new Promise<void>((resolve) => (this.goOn = resolve));
  }
}
