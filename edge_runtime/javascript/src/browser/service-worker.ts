/** Keeps the page's files, so that it opens without a network once it was loaded; answers of the server are never kept. */

/** Names of the page's files, and a hash of them all, put in by the build. */
declare const ASSETS: readonly string[];
declare const VERSION: string;

/** What of a service worker's scope is used; its types and a page's exclude each other. */
interface Scope {
  readonly caches: CacheStorage;
  readonly location: Location;
  readonly clients: { claim(): Promise<void> };
  skipWaiting(): Promise<void>;
  addEventListener(name: string, listener: (event: LifeEvent & FetchEvent) => void): void;
}
interface LifeEvent {
  waitUntil(done: Promise<unknown>): void;
}
interface FetchEvent {
  readonly request: Request;
  respondWith(answer: Promise<Response>): void;
}

const scope = globalThis as unknown as Scope;
const CACHE = `gkt-join-${VERSION}`;
const PAGE = new URL("../join", scope.location.href).href;

scope.addEventListener("install", (event) => {
  const urls = [PAGE, ...ASSETS.map((name) => new URL(name, scope.location.href).href)];
  event.waitUntil(scope.caches.open(CACHE).then((cache) => cache.addAll(urls)));
  void scope.skipWaiting();
});

scope.addEventListener("activate", (event) => {
  const drop = async (): Promise<void> => {
    for (const name of await scope.caches.keys()) {
      if (name.startsWith("gkt-join-") && name !== CACHE) await scope.caches.delete(name);
    }
    await scope.clients.claim();
  };
  event.waitUntil(drop());
});

scope.addEventListener("fetch", (event) => {
  const { request } = event;
  const url = request.url.split(/[?#]/)[0];
  if (request.method !== "GET") return;
  // The page may be a newer one; files have their hash in their names.
  if (url === PAGE) event.respondWith(fetch(request).catch(() => kept(PAGE)));
  else if (ASSETS.some((name) => url.endsWith(`/join/${name}`))) {
    event.respondWith(kept(url).catch(() => fetch(request)));
  }
});

async function kept(url: string): Promise<Response> {
  const answer = await (await scope.caches.open(CACHE)).match(url);
  if (!answer) throw new Error("it is not kept");
  return answer;
}
