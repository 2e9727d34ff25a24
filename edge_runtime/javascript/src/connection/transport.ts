/** How requests reach a server: an interface, for Node's sockets, a page's `fetch`, and tests. */

/** Whom to trust for https. */
export type Trust =
  | { readonly kind: "public" }
  /** For the question who the authority is, and nothing else. */
  | { readonly kind: "unverified" }
  /** A server whose certificate this authority (PEM) has signed, under whatever name. */
  | { readonly kind: "pinned"; readonly authority: string };

export interface Request {
  readonly method: "GET" | "PUT";
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: Uint8Array;
}

/** The head of an answer, and its body as it comes: nothing is decompressed, nobody asked for that. */
export interface Response {
  readonly status: number;
  header(name: string): string | undefined;
  readonly body: AsyncIterable<Uint8Array>;
  /** Let go of the rest of the body. */
  discard(): void;
}

/** Sends requests, one at a time. */
export interface Transport {
  /**
   * Send a request, and give the head of its answer.
   *
   * @throws TransportError No answer came.
   */
  send(request: Request): Promise<Response>;
  close(): void;
}

/** A connection failed; another try may not. The message says what happened, and what to do where that is known. */
export class TransportError extends Error {
  override name = "TransportError";
}
