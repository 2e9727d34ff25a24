/** What an answer means for a call: it is done, it is refused, or it is tried again. */

import { ChecksumError, GKTError } from "../errors.js";
import { LONGEST_WAIT_SECONDS } from "../wire/messages.js";
import { OddAnswerError, refusalOf } from "./answers.js";
import type { Response } from "./transport.js";

// Of the server itself; what something between answers is always asked again.
const RETRIED_STATUS = [408, 429, 500, 503];

/** What another try may mend. */
export class TroubleError extends Error {
  override name = "TroubleError";

  /**
   * @param about.isOdd Whether something between answered, and not the server.
   * @param about.askedSeconds How long the answer asks to wait.
   * @param about.hasMoved Whether there is more of a file than before: patience begins anew.
   * @param about.refusal What the call ends with when patience does; undefined for that the server is unavailable.
   */
  constructor(
    message: string,
    readonly about: {
      readonly isOdd?: boolean;
      readonly askedSeconds?: number;
      readonly hasMoved?: boolean;
      readonly refusal?: GKTError;
    } = {},
  ) {
    super(message);
  }
}

/**
 * Read an answer, or say whether another try may mend it.
 *
 * @throws TroubleError It may.
 * @throws GKTError It may not: the server refused.
 */
export async function judge<T>(
  response: Response,
  read: (response: Response) => Promise<T>,
  stallSeconds: number,
): Promise<T> {
  const askedSeconds = retryAfter(response);
  let refusal: GKTError;
  try {
    if (response.status < 300) return await read(response);
    refusal = await refusalOf(response, stallSeconds);
  } catch (error) {
    if (error instanceof OddAnswerError) throw new TroubleError(error.message, { isOdd: true, askedSeconds });
    throw error;
  }
  const trouble = `status ${response.status}: ${refusal.message}`;
  if (refusal instanceof ChecksumError) throw new TroubleError(trouble, { askedSeconds, refusal });
  if (RETRIED_STATUS.includes(response.status)) throw new TroubleError(trouble, { askedSeconds });
  throw refusal;
}

function retryAfter(response: Response): number {
  const asked = Number(response.header("retry-after") ?? "0");
  return Number.isFinite(asked) ? Math.min(Math.max(0, asked), LONGEST_WAIT_SECONDS) : 0;
}
