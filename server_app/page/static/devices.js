// The table of devices: a row each, by name.

import { asAgo, asBytes, asShare } from "./amounts.js";
import { byId, element, keep, setClass, setText } from "./elements.js";

const COLUMNS = ["seen", "round", "accuracy", "samples", "sent", "taken"];
const NUMBERS = new Set(["accuracy", "samples", "sent", "taken"]);

// `change` is called with a device and what an operator wants of it.
export function showDevices(devices, numClients, change) {
  keep(byId("rows"), devices, (device) => device.client_id, (device) => row(device, change), update);
  const states = new Map();
  for (const { state } of devices) states.set(state, (states.get(state) ?? 0) + 1);
  const counted = [...states].sort().map(([state, number]) => `${number} ${state}`).join(", ");
  setText(byId("devices-summary"), `${devices.length} known, the run is for ${numClients}${counted ? `: ${counted}` : ""}.`);
}

function row(device, change) {
  const cells = COLUMNS.map((name) => element("td", { class: `${name}${NUMBERS.has(name) ? " number" : ""}` }));
  const state = element("td", {}, element("span", { class: "state" }), element("span", { class: "reason" }));
  const buttons = ["release", "revoke"].map((action) => {
    const words = action === "release" ? "Release" : "Revoke";
    const made = element("button", { type: "button", "data-action": action }, words);
    made.setAttribute("aria-label", `${words} ${device.client_id}`);
    made.addEventListener("click", () => change(device.client_id, action));
    return made;
  });
  const made = element("tr", {}, element("th", { scope: "row" }, device.client_id), state, ...cells);
  made.append(element("td", { class: "operators" }, ...buttons));
  return made;
}

function update(made, device) {
  const state = made.querySelector(".state, [class*='state-']");
  setText(state, device.is_awaited ? `${device.state}, awaited` : device.state);
  setClass(state, `state-${device.state}`);
  const refused = device.state !== "revoked" && device.refused ? `last request refused: ${device.refused}` : "";
  setText(made.querySelector(".reason"), [device.reason, refused].filter(Boolean).join("; "));
  const texts = {
    seen: asAgo(device.seen_seconds),
    round: device.last_round ? String(device.last_round) : "–",
    accuracy: asShare(device.accuracy),
    samples: String(device.num_examples),
    sent: asBytes(device.upload_bytes),
    taken: asBytes(device.download_bytes),
  };
  for (const name of COLUMNS) setText(made.querySelector(`.${name}`), texts[name]);
  made.querySelector("[data-action=release]").hidden = device.state !== "quarantined";
  made.querySelector("[data-action=revoke]").hidden = device.state === "revoked";
}
