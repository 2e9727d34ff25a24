/** Requests over Node's own sockets: one kept connection, a server's own authority trusted alone. */

import http from "node:http";
import https from "node:https";
import { TransportError, type Request, type Response, type Transport, type Trust } from "../connection/transport.js";

// A head comes at once when it comes: twice the time in which nothing may move is for the slowest link.
const STALLS = 2;
const CONNECT_SECONDS = 10;

/** Sends requests to one server. */
export class NodeTransport implements Transport {
  private readonly agent: http.Agent;

  /**
   * @param stallSeconds How long nothing may move.
   */
  constructor(
    private readonly isSecure: boolean,
    trust: Trust,
    private readonly stallSeconds: number,
  ) {
    const kept = { keepAlive: true, maxSockets: 1 };
    this.agent = isSecure ? new https.Agent({ ...kept, ...tlsOptions(trust) }) : new http.Agent(kept);
  }

  async send(request: Request): Promise<Response> {
    return new Promise((resolve, reject) => {
      const open = this.isSecure ? https.request : http.request;
      const headers = { ...request.headers, ...(request.body && { "Content-Length": String(request.body.length) }) };
      const sent = open(request.url, { method: request.method, headers, agent: this.agent });
      const stall = 1000 * this.stallSeconds;
      let head: NodeJS.Timeout | undefined;
      const fail = (words: string): void => {
        sent.destroy(new TransportError(words));
      };
      sent.on("socket", (socket) => {
        if (!socket.connecting) return;
        const connecting = setTimeout(() => fail(`no connection in ${CONNECT_SECONDS} s`), 1000 * CONNECT_SECONDS);
        socket.once(this.isSecure ? "secureConnect" : "connect", () => clearTimeout(connecting));
        socket.once("close", () => clearTimeout(connecting));
      });
      sent.setTimeout(stall, () => fail(`nothing moved for ${this.stallSeconds.toFixed(0)} s`));
      sent.on("finish", () => {
        const seconds = STALLS * this.stallSeconds;
        head = setTimeout(() => fail(`the head of an answer took longer than ${seconds.toFixed(0)} s`), 1000 * seconds);
      });
      sent.on("error", (error) => {
        clearTimeout(head);
        reject(asTransportError(error));
      });
      sent.on("close", () => clearTimeout(head));
      sent.on("response", (answer) => {
        clearTimeout(head);
        resolve({
          status: answer.statusCode ?? 0,
          header: (name) => one(answer.headers[name.toLowerCase()]),
          body: bodyOf(answer),
          // A body that nobody wants is not read to its end: the connection is not used again.
          discard: () => void (answer.complete || answer.destroy()),
        });
      });
      sent.end(request.body);
    });
  }

  close(): void {
    this.agent.destroy();
  }
}

function tlsOptions(trust: Trust): https.AgentOptions {
  if (trust.kind === "unverified") return { rejectUnauthorized: false };
  // The authority signs for one server alone: the name under which it is reached says nothing more.
  if (trust.kind === "pinned") return { ca: trust.authority, checkServerIdentity: () => undefined };
  return {};
}

async function* bodyOf(answer: http.IncomingMessage): AsyncGenerator<Uint8Array> {
  try {
    for await (const piece of answer) yield piece as Uint8Array;
  } catch (error) {
    throw asTransportError(error);
  }
}

function one(value: string | string[] | undefined): string | undefined {
  return Array.isArray(value) ? value.join(", ") : value;
}

const UNKNOWN_AUTHORITY = [
  "SELF_SIGNED_CERT_IN_CHAIN",
  "DEPTH_ZERO_SELF_SIGNED_CERT",
  "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
  "UNABLE_TO_GET_ISSUER_CERT",
  "UNABLE_TO_GET_ISSUER_CERT_LOCALLY",
  "CERT_SIGNATURE_FAILURE",
];

function asTransportError(error: unknown): TransportError {
  if (error instanceof TransportError) return error;
  const { code = "", message = String(error) } = error as NodeJS.ErrnoException;
  const clock = `this device's clock says ${new Date().toISOString().slice(0, 16)} UTC`;
  let hint = "";
  if (UNKNOWN_AUTHORITY.includes(code)) {
    hint = ": no authority that this device knows signed it: join with the link that the server prints";
  } else if (code === "CERT_NOT_YET_VALID") {
    hint = `: the certificate is not valid yet, and ${clock}: one of both is wrong`;
  } else if (code === "CERT_HAS_EXPIRED") {
    hint = `: the certificate has expired, and ${clock}: renew it at the server, or set the clock`;
  } else if (code === "ERR_TLS_CERT_ALTNAME_INVALID") {
    hint = ": the certificate is for another name: a captive portal shows its own, too";
  } else if (code === "EPROTO" || code.startsWith("ERR_SSL")) {
    hint = ": does the server speak https at this address, or only http?";
  }
  return new TransportError(`${code || "an error"}: ${message.split("\n")[0].slice(0, 200)}${hint}`, { cause: error });
}
