// Ask for the run every few seconds while somebody looks, show it, and do what an operator wants.

import { change, look, secret } from "./asking.js";
import { showDevices } from "./devices.js";
import { byId, setText } from "./elements.js";
import { showRun } from "./panels.js";

const EVERY_MS = 3000;
const LATER_MS = 10000;
const PATIENCE_MS = 30000;
const NEVER = -1;
const NEEDS_SECRET = new Set([401, 403]);

const CHANGES = {
  pause: ["Pause the run?", "Devices and trainer wait until it is resumed. Nothing is lost.", true],
  resume: ["Resume the run?", "It goes on exactly where it was.", false],
  stop: ["Stop the run?", "Devices end, and nobody joins. It can be resumed, and each device is then started again.", true],
  release: ["Release NAME?", "Its uploads are trained on again, and checked again.", false],
  revoke: ["Revoke NAME?", "Its secret ends, and it takes part no more. This cannot be undone.", false],
};

let timer = 0;
let view = null;
let asking = null;
let failedAt = 0;

async function refresh() {
  clearTimeout(timer);
  if (asking) return;
  asking = new AbortController();
  const patience = setTimeout(() => asking?.abort(), PATIENCE_MS);
  const withSecret = secret.known();
  let wait = EVERY_MS;
  try {
    view = await look(asking.signal);
    failedAt = 0;
    show(withSecret);
  } catch (error) {
    wait = failed(error, withSecret);
  } finally {
    clearTimeout(patience);
    asking = null;
  }
  if (!document.hidden && wait !== NEVER) timer = setTimeout(refresh, wait);
}

function show(operates) {
  document.body.classList.toggle("operates", operates);
  byId("shown").hidden = false;
  byId("signed-in").hidden = !operates;
  byId("sign-in").hidden = operates;
  say("");
  setText(byId("freshness"), `As of ${new Date(1000 * view.overview.at).toLocaleTimeString()}.`);
  showRun(view);
  showDevices(view.overview.devices, view.overview.num_clients, (name, action) => ask(action, name));
  byId("pause").hidden = view.overview.halt !== "";
  byId("stop").hidden = view.overview.halt === "stopped";
  byId("resume").hidden = view.overview.halt === "";
}

function failed(error, withSecret) {
  if (NEEDS_SECRET.has(error.status)) {
    secret.forget();
    document.body.classList.remove("operates");
    byId("shown").hidden = true;
    byId("signed-in").hidden = true;
    byId("sign-in").hidden = false;
    setText(byId("freshness"), "The run is shown to who has the operator's secret.");
    if (withSecret) tellSigner(`This secret does not hold: ${error.message}`);
    // Without one, perhaps this machine is shown the run; where it was refused, nothing changes by asking again.
    return withSecret ? 0 : NEVER;
  }
  failedAt ||= Date.now();
  const since = Math.round((Date.now() - failedAt) / 1000);
  say(`The server does not answer${since ? ` since ${since} s` : ""}: ${error.message}. What is shown is old; it is asked again.`);
  return LATER_MS;
}

function say(text) {
  setText(byId("trouble"), text);
  byId("trouble").hidden = !text;
}

function tellSigner(text) {
  setText(byId("sign-in-trouble"), text);
}

// Ask once, and do it.
function ask(action, name = "") {
  const [title, text, takesReason] = CHANGES[action];
  const dialog = byId("confirm");
  setText(byId("confirm-title"), title.replace("NAME", name));
  setText(byId("confirm-text"), text);
  byId("confirm-reason").hidden = !takesReason;
  byId("reason").value = "";
  const yes = byId("confirm-yes");
  setText(yes, action.charAt(0).toUpperCase() + action.slice(1));
  yes.classList.toggle("dangerous", action === "stop" || action === "revoke");
  yes.onclick = () => {
    const reason = byId("reason").value;
    dialog.close();
    perform(action, name, reason);
  };
  dialog.showModal();
  byId("confirm-no").focus();
}

async function perform(action, name, reason) {
  const root = `v1/runs/${encodeURIComponent(view.overview.run_id)}/operator`;
  try {
    if (name) await change(`${root}/clients/${encodeURIComponent(name)}/${action}`);
    else await change(`${root}/run/${action}`, { reason });
    setText(byId("announcer"), `Done: ${action} ${name}`);
  } catch (error) {
    say(`${action} ${name} was refused: ${error.message}`);
    return;
  }
  await refresh();
}

for (const action of ["pause", "resume", "stop"]) byId(action).addEventListener("click", () => ask(action));
byId("confirm-no").addEventListener("click", () => byId("confirm").close());
byId("forget").addEventListener("click", () => {
  secret.forget();
  location.reload();
});
byId("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  const given = byId("secret").value;
  byId("secret").value = "";
  tellSigner("");
  if (secret.use(given)) refresh();
  else tellSigner("This is no operator's secret: it is the line in operator_secret of the run's folder.");
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden) clearTimeout(timer);
  else refresh();
});
refresh();
