/** Whether now is a time to train: battery, network, and a screen that stays on. */

/** What speaks against training now. */
export type Obstacle = "battery" | "metered";

const LEAST_CHARGE = 0.2;

/** What of the Battery Status API is used; not every browser has it. */
interface Battery extends EventTarget {
  readonly charging: boolean;
  readonly level: number;
}

/** What of the Network Information API is used; not every browser has it. */
interface Connection extends EventTarget {
  readonly saveData?: boolean;
  readonly type?: string;
}

type Wider = Navigator & { getBattery?: () => Promise<Battery>; connection?: Connection };

/**
 * Watch battery and network.
 *
 * @param changed Called with what speaks against training, now and whenever that changes.
 */
export async function watchConditions(changed: (obstacle: Obstacle | undefined) => void): Promise<void> {
  const wider = navigator as Wider;
  const battery = await wider.getBattery?.().catch(() => undefined);
  const { connection } = wider;
  const look = (): void => {
    if (battery && !battery.charging && battery.level < LEAST_CHARGE) changed("battery");
    else if (connection?.saveData || connection?.type === "cellular") changed("metered");
    else changed(undefined);
  };
  for (const name of ["chargingchange", "levelchange"]) battery?.addEventListener(name, look);
  connection?.addEventListener("change", look);
  look();
}

/** Keeps the screen on: a phone that sleeps does not train. */
export class WakeLock {
  private sentinel: WakeLockSentinel | undefined;
  private isWanted = false;

  constructor() {
    // The browser lets go of it when the tab is hidden.
    document.addEventListener("visibilitychange", () => {
      if (document.visibilityState === "visible" && this.isWanted) void this.hold();
    });
  }

  /** Keep the screen on, where the browser lets a page do it. */
  async hold(): Promise<void> {
    this.isWanted = true;
    // Refused when the battery is low, which is no trouble of ours.
    this.sentinel = await navigator.wakeLock?.request("screen").catch(() => undefined);
  }

  /** Let the screen go off. */
  async letGo(): Promise<void> {
    this.isWanted = false;
    await this.sentinel?.release().catch(() => undefined);
    this.sentinel = undefined;
  }
}
