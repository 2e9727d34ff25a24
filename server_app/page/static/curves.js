// Draw the rounds as curves: SVG without a library.

import { asBytes, asLoss, asShare } from "./amounts.js";
import { drawn, element } from "./elements.js";

const WIDTH = 360;
const HEIGHT = 180;
const LEFT = 56;
const RIGHT = 10;
const TOP = 10;
const BOTTOM = 24;

const CHARTS = [
  {
    title: "Accuracy",
    series: [["validation_accuracy", "server's network"], ["edge_accuracy", "devices' own"]],
    written: asShare,
    top: 1,
  },
  {
    title: "Loss",
    series: [["train_loss", "server, training"], ["validation_loss", "server, validation"], ["edge_loss", "devices"]],
    written: asLoss,
  },
  {
    title: "Bytes a round",
    series: [["upload_bytes", "sent by devices"], ["download_bytes", "taken by devices"]],
    written: asBytes,
  },
];

export function drawCurves(place, curves) {
  place.replaceChildren(...CHARTS.map((chart) => figure(chart, curves)));
}

function figure({ title, series, written, top }, curves) {
  const rounds = curves.round_num;
  // A value below zero stands for none, such as the validation accuracy of a run without validation samples.
  const shown = series
    .map(([name, label], index) => ({ label, values: curves[name], number: index + 1 }))
    .filter(({ values }) => values.some((value) => value >= 0));
  const most = top ?? niceTop(Math.max(...shown.flatMap(({ values }) => values), 0));
  const x = scale(rounds[0], rounds[rounds.length - 1], LEFT, WIDTH - RIGHT);
  const y = scale(0, most, HEIGHT - BOTTOM, TOP);
  const last = shown.map(({ label, values }) => `${label} ${written(values[values.length - 1])}`).join(", ");
  const picture = drawn("svg", {
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
    role: "img",
    "aria-label": `${title}, rounds ${rounds[0]} to ${rounds[rounds.length - 1]}; now ${last}`,
  });
  for (const share of [0, 0.5, 1]) {
    const at = y(share * most);
    picture.append(
      drawn("line", { class: "axis", x1: LEFT, x2: WIDTH - RIGHT, y1: at, y2: at }),
      drawn("text", { x: LEFT - 6, y: at + 4, "text-anchor": "end" }, written(share * most)),
    );
  }
  for (const [round, anchor] of ticks(rounds)) {
    picture.append(drawn("text", { x: x(round), y: HEIGHT - 6, "text-anchor": anchor }, String(round)));
  }
  for (const { values, number } of shown) picture.append(...line(rounds, values, number, x, y));
  const legend = element("ul", { class: "legend" }, ...shown.map((each) => legendOf(each, written)));
  return element("figure", {}, element("figcaption", {}, title), picture, legend);
}

function line(rounds, values, number, x, y) {
  const points = rounds.map((round, at) => [x(round), y(values[at]), values[at]]).filter(([, , value]) => value >= 0);
  const name = `series series-${number}`;
  const drawnLine = drawn("polyline", {
    class: name,
    points: points.map(([a, b]) => `${a.toFixed(1)},${b.toFixed(1)}`).join(" "),
  });
  const dots = points.length > 30 ? [] : points;
  return [drawnLine, ...dots.map(([a, b]) => drawn("circle", { class: `${name} dot`, cx: a, cy: b, r: 2.5 }))];
}

function legendOf({ label, values, number }, written) {
  const sample = drawn("svg", { viewBox: "0 0 32 14", "aria-hidden": "true" });
  sample.append(drawn("line", { class: `series series-${number}`, x1: 0, x2: 32, y1: 7, y2: 7 }));
  return element("li", {}, sample, ` ${label} ${written(values[values.length - 1])}`);
}

function ticks(rounds) {
  const first = rounds[0];
  const last = rounds[rounds.length - 1];
  const middle = rounds[Math.floor(rounds.length / 2)];
  const made = [[first, first === last ? "middle" : "start"]];
  if (middle !== first && middle !== last) made.push([middle, "middle"]);
  if (last !== first) made.push([last, "end"]);
  return made;
}

function scale(low, high, from, to) {
  return (value) => (high === low ? (from + to) / 2 : from + ((value - low) / (high - low)) * (to - from));
}

function niceTop(value) {
  if (value <= 0) return 1;
  const unit = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 5, 8, 10].map((times) => times * unit).find((each) => each >= value);
}
