// Show everything of a run but its devices.

import { asAgo, asBytes, asDuration } from "./amounts.js";
import { drawCurves } from "./curves.js";
import { byId, element, keep, setClass, setText } from "./elements.js";

const SEVERITIES = { error: "Error", warning: "Warning", info: "Note" };
let drawnRounds = "";
let announced = "";

export function showRun(view) {
  const run = view.overview;
  setText(byId("run"), run.run_id);
  const halted = run.halt ? `, ${run.halt}` : "";
  const title = `Round ${run.round_num} of ${run.rounds}: ${run.phase}${halted}`;
  setText(byId("headline"), title);
  document.title = `${run.findings.some(isWrong) ? "! " : ""}${run.round_num}/${run.rounds} ${run.phase} – gkt`;
  const done = view.curves.round_num.at(-1) ?? 0;
  byId("progress").max = run.rounds;
  byId("progress").value = Math.min(done, run.rounds);
  const left = run.seconds_left > 0 ? ` About ${asDuration(run.seconds_left)} are left.` : "";
  setText(byId("waiting"), `${sentence(view.waiting_for)}${left}`);
  setText(byId("next"), `Next step: ${view.next_step}`);
  showFindings(run.findings);
  showCurves(view.curves);
  showFacts(run);
  showLog(view.lines);
  announce(title, run.findings);
}

const isWrong = ({ severity }) => severity !== "info";
const sentence = (text) => `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;

function showFindings(findings) {
  byId("findings-section").hidden = !findings.length;
  setText(byId("findings-title"), findings.some(isWrong) ? "What is wrong" : "To know");
  const keyOf = (finding) => `${finding.kind} ${finding.client_id}`;
  const make = () =>
    element("li", {}, element("span", { class: "severity" }), " ", element("span", { class: "text" }), element("span", { class: "remedy" }));
  keep(byId("findings"), findings, keyOf, make, (made, finding) => {
    setClass(made, finding.severity);
    setText(made.querySelector(".severity"), `${SEVERITIES[finding.severity] ?? finding.severity}:`);
    setText(made.querySelector(".text"), finding.text);
    setText(made.querySelector(".remedy"), finding.remedy ? `What helps: ${finding.remedy}` : "");
  });
}

// A person who listens hears what has changed, and not how the seconds go by.
function announce(title, findings) {
  const wrong = findings.filter(isWrong);
  const state = JSON.stringify([title, wrong.map(({ kind, client_id: name }) => [kind, name])]);
  if (state === announced) return;
  announced = state;
  setText(byId("announcer"), [title, ...wrong.map(({ text }) => text)].join(". "));
}

function showCurves(curves) {
  byId("no-rounds").hidden = curves.round_num.length > 0;
  const state = JSON.stringify(curves);
  if (state === drawnRounds) return;
  drawnRounds = state;
  if (curves.round_num.length) drawCurves(byId("curves"), curves);
  else byId("curves").replaceChildren();
}

function showFacts(run) {
  const { trainer, disk, traffic } = run;
  const facts = [["Trainer", trainerWords(trainer)]];
  if (trainer.progress) {
    const { epoch, epochs, samples_per_second: speed, loss } = trainer.progress;
    facts.push(["Progress", `epoch ${epoch} of ${epochs}, ${speed.toFixed(0)} samples/s, loss ${loss.toFixed(3)}`]);
  }
  facts.push(["Disk", `${asBytes(disk.free_bytes)} of ${asBytes(disk.total_bytes)} free; uploads leave ${asBytes(disk.reserve_bytes)}`]);
  const sum = (way) => Object.entries(traffic).reduce((all, [kind, bytes]) => all + (kind.startsWith(way) ? bytes : 0), 0);
  facts.push(["Traffic", `${asBytes(sum("upload/"))} sent by devices, ${asBytes(sum("download/"))} taken by them`]);
  const pairs = facts.flatMap(([name, text]) => [{ key: `${name} name`, tag: "dt", text: name }, { key: name, tag: "dd", text }]);
  keep(byId("facts"), pairs, ({ key }) => key, ({ tag }) => element(tag), (made, { text }) => setText(made, text));
}

function trainerWords({ what, silent_seconds: silent, trouble }) {
  if (trouble) return trouble;
  if (silent < 0) return "it has given no sign of life yet";
  return `${what || "at work"}, last sign of life ${asAgo(silent)}`;
}

function showLog(lines) {
  const log = byId("log");
  const text = lines.length ? lines.join("\n") : "Nothing was logged since the server began.";
  if (log.textContent === text) return;
  const follows = log.scrollTop + log.clientHeight >= log.scrollHeight - 4;
  log.textContent = text;
  if (follows) log.scrollTop = log.scrollHeight;
}
