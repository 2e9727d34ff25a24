/** Requests by `fetch`, for a page and its workers: whom to trust is the browser's affair. */

import { TransportError, type Request, type Response, type Transport } from "./transport.js";

/** What of `fetch` is used. */
export type Fetch = typeof fetch;

/** Sends requests to one server, by default the one that the page is of. */
export class FetchTransport implements Transport {
  private readonly running = new Set<AbortController>();

  /**
   * @param stallSeconds How long the head of an answer, and after it each piece of its body, may take.
   */
  constructor(
    private readonly stallSeconds: number,
    private readonly fetched: Fetch = globalThis.fetch.bind(globalThis),
  ) {}

  async send(request: Request): Promise<Response> {
    const aborting = new AbortController();
    this.running.add(aborting);
    // A browser sets these itself and refuses them otherwise.
    const { "Accept-Encoding": _, ...headers } = request.headers;
    const timer = new Deadline(this.stallSeconds, aborting);
    try {
      const body = request.body as Uint8Array<ArrayBuffer> | undefined;
      // Never answered from a cache, nor followed where it leads elsewhere; a browser knows more than Node's types.
      const how = { cache: "no-store", redirect: "manual", credentials: "omit" } as RequestInit;
      const answer = await this.fetched(request.url, {
        ...how,
        method: request.method,
        headers,
        signal: aborting.signal,
        ...(body && { body }),
      });
      return {
        // What is hidden from a page is an answer of something else than the server.
        status: answer.type === "opaqueredirect" ? 302 : answer.status,
        // The browser has decompressed what came compressed.
        header: (name) =>
          name.toLowerCase() === "content-encoding" ? undefined : (answer.headers.get(name) ?? undefined),
        body: this.bodyOf(answer, timer, aborting),
        discard: () => this.end(timer, aborting),
      };
    } catch (error) {
      this.end(timer, aborting);
      throw asTransportError(error, timer);
    }
  }

  close(): void {
    for (const each of this.running) each.abort();
    this.running.clear();
  }

  private async *bodyOf(
    answer: globalThis.Response,
    timer: Deadline,
    aborting: AbortController,
  ): AsyncGenerator<Uint8Array> {
    const reader = answer.body?.getReader();
    try {
      for (;;) {
        timer.begin();
        const piece = await reader?.read();
        if (!piece || piece.done) return;
        yield piece.value;
      }
    } catch (error) {
      throw asTransportError(error, timer);
    } finally {
      this.end(timer, aborting);
    }
  }

  private end(timer: Deadline, aborting: AbortController): void {
    timer.end();
    // Nothing more of a body is wanted, and one that was read to its end does not mind.
    aborting.abort();
    this.running.delete(aborting);
  }
}

/** Aborts what takes too long. */
class Deadline {
  hasPassed = false;
  private timer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    readonly seconds: number,
    private readonly aborting: AbortController,
  ) {
    this.begin();
  }

  begin(): void {
    this.end();
    this.timer = setTimeout(() => {
      this.hasPassed = true;
      this.aborting.abort();
    }, 1000 * this.seconds);
  }

  end(): void {
    clearTimeout(this.timer);
  }
}

function asTransportError(error: unknown, timer: Deadline): TransportError {
  if (error instanceof TransportError) return error;
  if (timer.hasPassed) return new TransportError(`nothing moved for ${timer.seconds.toFixed(0)} s`, { cause: error });
  return new TransportError(`no connection: ${error instanceof Error ? error.message : String(error)}`, {
    cause: error,
  });
}
