// Ask the server, with the operator's secret where this tab knows it.

const KEPT = "gkt-operator-secret";
const WHOLE = /^operator~~[A-Za-z0-9_-]{20,128}$/;

let etag = "";
let looked = null;

export const secret = {
  known: () => sessionStorage.getItem(KEPT) !== null,
  // Takes the secret, or what programs show; says whether it can be one.
  use(text) {
    const whole = text.trim().startsWith("operator~~") ? text.trim() : `operator~~${text.trim()}`;
    if (!WHOLE.test(whole)) return false;
    sessionStorage.setItem(KEPT, whole);
    etag = "";
    return true;
  },
  forget() {
    sessionStorage.removeItem(KEPT);
    etag = "";
  },
};

function headers(more = {}) {
  const known = sessionStorage.getItem(KEPT);
  return known === null ? more : { ...more, Authorization: `Bearer ${known}` };
}

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function answered(response) {
  if (response.ok) return response.json();
  let message = `the server answers ${response.status}`;
  try {
    message = (await response.json()).message || message;
  } catch {
    // Of a proxy, perhaps.
  }
  throw new Refused(response.status, message);
}

// What the run is now; the same object again where nothing has changed.
export async function look(signal) {
  const more = etag ? { "If-None-Match": etag } : {};
  const response = await fetch("v1/page", { headers: headers(more), cache: "no-store", signal });
  if (response.status === 304 && looked) return looked;
  looked = await answered(response);
  etag = response.headers.get("ETag") ?? "";
  return looked;
}

export async function change(path, body) {
  const response = await fetch(path, {
    method: "POST",
    headers: headers({ "Content-Type": "application/json" }),
    body: body === undefined ? "" : JSON.stringify(body),
    cache: "no-store",
  });
  etag = "";
  return answered(response);
}
