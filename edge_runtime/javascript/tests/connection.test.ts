/** The wire over scripted answers: what is asked again, how long it waits, what ends a call, what a download goes on with. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import http from "node:http";
import type { AddressInfo } from "node:net";
import test from "node:test";
import { fileURLToPath } from "node:url";
import { ServerClient } from "../src/connection/server-client.js";
import { FetchTransport } from "../src/connection/fetch-transport.js";
import { TransportError, type Request, type Response, type Transport } from "../src/connection/transport.js";
import { readPrivateData, writePrivateData } from "../src/data/private-data.js";
import { sha256Hex } from "../src/hashing.js";
import { relativeChange } from "../src/rounds/drift.js";
import { MemoryStore } from "../src/state/store.js";

interface Scripted {
  readonly status?: number;
  readonly headers?: Record<string, string>;
  readonly body?: Uint8Array | string;
  /** The connection breaks after so many bytes. */
  readonly breaksAfter?: number;
}

const JSON_HEADERS: Record<string, string> = { "content-type": "application/json" };
const WAIT = { action: "wait", round_num: 1, soft_labels_round: 0, retry_after_seconds: 0, reason: "" };

/** Gives the answers of a list, one after the other, and remembers the requests. */
class ScriptedTransport implements Transport {
  readonly requests: Request[] = [];
  constructor(private readonly answers: Scripted[]) {}

  async send(request: Request): Promise<Response> {
    this.requests.push(request);
    const answer = this.answers.shift();
    if (!answer) throw new TransportError("nobody there");
    const body =
      typeof answer.body === "string" ? new TextEncoder().encode(answer.body) : (answer.body ?? new Uint8Array());
    const headers = answer.headers ?? JSON_HEADERS;
    async function* pieces(): AsyncGenerator<Uint8Array> {
      if (answer?.breaksAfter === undefined) return void (yield body);
      yield body.subarray(0, answer.breaksAfter);
      throw new TransportError("it broke");
    }
    return {
      status: answer.status ?? 200,
      header: (name) => headers[name.toLowerCase()],
      body: pieces(),
      discard: () => undefined,
    };
  }
  close(): void {}
}

function client(answers: Scripted[], patienceSeconds = 60) {
  const transport = new ScriptedTransport(answers);
  const waits: number[] = [];
  const notes: string[] = [];
  const server = new ServerClient({
    url: "http://127.0.0.1:1",
    token: "a~b~c",
    transport,
    patienceSeconds,
    note: (line) => notes.push(line),
    sleep: async (seconds) => void waits.push(seconds),
  });
  return { server, transport, waits, notes };
}

test("each request says which process asks, the same one each time", async () => {
  const { server, transport } = client([{ body: JSON.stringify(WAIT) }, { body: JSON.stringify(WAIT) }]);
  await server.task("a");
  await server.task("a");
  const said = transport.requests.map((each) => each.headers["X-GKT-Process"]);
  assert.match(said[0], /^[0-9a-f]{16}$/);
  assert.deepEqual(said, [said[0], said[0]]);
});

const refusal = (error: string, message = "why"): string => JSON.stringify({ error, message });

test("what the server asks for is waited for, and then asked again", async () => {
  const { server, waits, notes } = client([
    { status: 503, headers: { ...JSON_HEADERS, "retry-after": "7" }, body: refusal("NoRoomError", "no room") },
    { status: 429, headers: { ...JSON_HEADERS, "retry-after": "NaN" }, body: refusal("GKTError") },
    { body: JSON.stringify(WAIT) },
  ]);
  assert.equal((await server.task("a")).action, "wait");
  assert.ok(waits[0] > 7 && waits[0] < 7.3 && waits[1] < 1, String(waits));
  assert.match(notes[0], /status 503: no room; next try in/);
});

test("what something between says ends nothing, and is told once", async () => {
  const page = { headers: { "content-type": "text/html" }, body: "<html>log in</html>" };
  for (const odd of [
    page,
    { ...page, status: 403 },
    { ...page, status: 522 },
    { ...page, status: 302 },
    { body: "{}" },
    { body: '{"action"' },
    { headers: { ...JSON_HEADERS, "content-encoding": "gzip" }, body: "x" },
  ]) {
    const { server, waits, notes } = client([odd, odd, { body: JSON.stringify(WAIT) }]);
    assert.equal((await server.task("a")).action, "wait");
    assert.equal(waits.length, 2);
    assert.equal(notes.length, 1);
    assert.match(notes[0], /asked again until the server answers/);
  }
});

test("JSON that is deep, doubled or cut is no message, and overflows nothing", async () => {
  for (const body of [
    "[".repeat(500_000),
    `{"a":${'{"a":'.repeat(65)}1${"}".repeat(66)}`,
    '{"action":"a","action":"b"}',
  ]) {
    const { server } = client([{ body }], 0);
    await assert.rejects(server.task("a"), { name: "ServerUnavailableError" });
  }
  const text = JSON.stringify({ ...WAIT, reason: "[".repeat(900) + '"\\' });
  const { server } = client([{ body: text }]);
  assert.equal((await server.task("a")).action, "wait");
});

test("what the server refuses ends a call, by the class that it names", async () => {
  for (const [name, status, code] of [
    ["RoundClosedError", 409, 3],
    ["AuthenticationError", 401, 5],
    ["ConfigError", 400, 2],
    ["Unheard", 400, 3],
  ] as const) {
    const { server, waits } = client([{ status, body: refusal(name, "no\u001b[2J") }]);
    await assert.rejects(server.task("a"), (error: { exitCode: number; message: string }) => {
      assert.equal(error.exitCode, code, name);
      assert.ok(error.message.includes("no\\x1b[2J"));
      return true;
    });
    assert.equal(waits.length, 0);
  }
});

test("patience ends, and says what was met", async () => {
  const { server } = client([], 3);
  await assert.rejects(server.task("a"), {
    name: "ServerUnavailableError",
    message: /did not answer for 3 s \(nobody there\)/,
  });
  const damaged = client([{ status: 400, body: refusal("ChecksumError", "changed on its way") }], 0);
  await assert.rejects(damaged.server.task("a"), { name: "ChecksumError" });
});

test("a download goes on where the link broke, also in another process", async () => {
  const file = Uint8Array.from({ length: 9000 }, (_, index) => index % 251);
  const headers = { "content-type": "application/octet-stream", "x-content-sha256": await sha256Hex(file) };
  const store = new MemoryStore();
  const broken = client([{ headers, body: file, breaksAfter: 4000 }], 0);
  broken.server.partStore = store;
  await assert.rejects(broken.server.modelTemplate(9000), { name: "ServerUnavailableError" });
  assert.deepEqual((await store.names()).sort(), ["download.json", "download.part"]);

  const range = (begin: number) => ({ ...headers, "content-range": `bytes ${begin}-8999/9000` });
  const other = client([
    { status: 206, headers: range(3999), body: file.subarray(3999), breaksAfter: 2001 },
    { status: 206, headers: range(6000), body: file.subarray(6000) },
  ]);
  other.server.partStore = store;
  assert.deepEqual(await other.server.modelTemplate(9000), file);
  assert.deepEqual(
    other.transport.requests.map((request) => request.headers["Range"]),
    ["bytes=3999-", "bytes=6000-"],
  );
  assert.equal(other.transport.requests[0].headers["If-Range"], `"${headers["x-content-sha256"]}"`);
  assert.deepEqual(await store.names(), []);
});

test("a download that is broken off again and again, from its beginning each time, ends", async () => {
  const file = Uint8Array.from({ length: 300_000 }, (_, index) => index % 251);
  const headers = { "content-type": "application/octet-stream", "x-content-sha256": await sha256Hex(file) };
  const again = (breaksAfter: (place: number) => number): Scripted[] =>
    Array.from({ length: 500 }, (_, place) => ({ headers, body: file, breaksAfter: breaksAfter(place) }));
  const same = client(again(() => 299_995));
  await assert.rejects(same.server.modelTemplate(300_000), { name: "ServerUnavailableError" });
  assert.ok(same.transport.requests.length < 20);
  // A little further each time: it is a step, and yet all of it together is bounded.
  const further = client(again((place) => 2000 * (place + 1)));
  await assert.rejects(further.server.modelTemplate(300_000), {
    name: "ServerUnavailableError",
    message: /bytes came of a file that has 300,000 at most/,
  });
  assert.ok(further.transport.requests.length < 100);
});

test("another part than was asked for, and bytes that are not the server's, are asked for again", async () => {
  const file = new Uint8Array(3000).fill(7);
  const headers = { "content-type": "application/octet-stream", "x-content-sha256": await sha256Hex(file) };
  const { server, notes } = client([
    { headers, body: file.map((byte, index) => (index === 9 ? byte + 1 : byte)) },
    { headers, body: file, breaksAfter: 2000 },
    { status: 206, headers: { ...headers, "content-range": "bytes 0-1999/3000" }, body: file },
    { headers, body: file },
  ]);
  assert.deepEqual(await server.modelTemplate(3000), file);
  assert.match(notes.join("\n"), /not the server's.*\n.*it broke.*\n.*another part of the file/);
});

test("a device draws another secret when its operator asks for it, and never in the middle of that", async () => {
  const rotate = { ...JSON_HEADERS, "x-gkt-rotate": "1" };
  const { server } = client([
    { headers: rotate, body: JSON.stringify(WAIT) },
    { headers: rotate, body: JSON.stringify({ client_id: "a" }) },
    { body: JSON.stringify(WAIT) },
  ]);
  let drawn = 0;
  server.onRotate = async () => {
    drawn += 1;
    await server.enrol("a", { secret_sha256: "0".repeat(64), client_key: "" });
  };
  await server.task("a");
  await server.task("a");
  assert.equal(drawn, 1);
});

test("a question that waits says for how long, and URLs that cannot be are refused", async () => {
  const { server, transport } = client([{ body: JSON.stringify(WAIT) }]);
  await server.task("a", true);
  assert.equal(transport.requests[0].headers["Prefer"], "wait=50");
  assert.equal(transport.requests[0].headers["Authorization"], "Bearer a~b~c");
  for (const url of ["nonsense", "ftp://h", "https://name:word@h"]) {
    assert.throws(() => new ServerClient({ url, transport }), { name: "ConfigError" });
  }
});

test("a page's fetch carries the same calls, and gives up on what does not move", async () => {
  const file = new Uint8Array(5000).fill(3);
  const listening = http.createServer((request, answer) => {
    if (request.url?.endsWith("/task")) answer.writeHead(200, JSON_HEADERS).end(JSON.stringify(WAIT));
    else if (request.url?.endsWith("/template"))
      answer.writeHead(200, { "content-type": "application/octet-stream" }).end(file);
    else if (request.url?.endsWith("/credential")) answer.writeHead(302, { location: "http://elsewhere/" }).end();
    else answer.writeHead(200, JSON_HEADERS).write("{");
  });
  await new Promise<void>((resolve) => listening.listen(0, "127.0.0.1", resolve));
  const { port } = listening.address() as AddressInfo;
  const transport = new FetchTransport(0.2);
  const server = new ServerClient({
    url: `http://127.0.0.1:${port}`,
    transport,
    patienceSeconds: 0,
    stallSeconds: 0.2,
  });
  try {
    assert.equal((await server.task("a")).action, "wait");
    assert.deepEqual(await server.modelTemplate(5000), file);
    await assert.rejects(server.enrol("a", { secret_sha256: "", client_key: "" }), { message: /status 302/ });
    await assert.rejects(server.findRun(), { message: /nothing moved for 0 s/ });
  } finally {
    server.close();
    listening.closeAllConnections();
    listening.close();
  }
});

test("a device's file of Python is read, and written so that it is read again", () => {
  const file = new URL("../../../../tests/gkt_core/data/golden_device_file.npz", import.meta.url);
  const data = readPrivateData(new Uint8Array(readFileSync(fileURLToPath(file))), "golden");
  assert.ok(data.train.labels.length >= 2 && data.validation.labels.length >= 1 && data.classNames.length >= 2);
  assert.deepEqual(readPrivateData(writePrivateData(data, new Uint8Array(32)), "ours"), data);
  const whole = writePrivateData(data, new Uint8Array());
  for (let length = 0; length < whole.length; length += 37) {
    assert.throws(() => readPrivateData(whole.subarray(0, length), "cut"), { name: "DatasetError" });
  }
});

test("drift is relative to what was", () => {
  assert.equal(relativeChange(Float32Array.of(3, 4), Float32Array.of(3, 9)), 1);
  assert.equal(relativeChange(Float32Array.of(0), Float32Array.of(0)), 0);
  assert.equal(relativeChange(Float32Array.of(0), Float32Array.of(1)), Infinity);
});
