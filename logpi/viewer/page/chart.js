// One chart: a figure with a legend that follows the crosshair, a sentence for those who do not see
// it, and its numbers as a table. uPlot draws. Left out: which metrics belong together.
//
//     const view = chart({ title, meaning, worry, log, height })
//     view.show({ x, lines: [{ name, values, raw, band: [low, high], mean }], axis: "step" })
//
// `raw` is drawn faint below a smoothed line.

import { fill, h } from "./dom.js";
import { number, table } from "./format.js";
import { summary } from "./series.js";
import { colour, lineColour, onTheme } from "./theme.js";

const MOST_ROWS = 200; // of the table

export function chart(about) {
  const plot = h("div", { class: "plot" });
  const legend = h("ul", { class: "legend" });
  const said = h("p", { class: "hidden" });
  const numbers = h("div", { class: "numbers", hidden: true });
  const toggle = h("button", { type: "button", class: "small", "aria-pressed": "false" }, "data");
  const figure = h("figure", { class: "panel", "aria-label": about.title },
    h("figcaption", null, h("h3", null, about.title), toggle),
    legend, plot, numbers, said,
    about.meaning ? h("p", { class: "meaning" }, about.meaning) : null,
    about.worry ? h("p", { class: "worry" }, h("b", null, "Worry: "), worryText(about.worry)) : null);
  const state = { about, plot, legend, said, numbers, toggle, figure, uplot: null, data: null };
  toggle.addEventListener("click", () => showNumbers(state));
  const sizes = new ResizeObserver(() => resize(state));
  sizes.observe(plot);
  const endTheme = onTheme(() => draw(state, true));
  return {
    element: figure,
    show: (data) => update(state, data),
    close: () => {
      sizes.disconnect();
      endTheme();
      state.uplot?.destroy();
    },
  };
}

function worryText(text) {
  return text.replace(/^worry:?\s*/i, "");
}

function update(state, data) {
  state.data = data;
  const lines = data.lines.map((line) => ({
    line, of: summary(data.x, line.raw || line.values), drawn: summary(data.x, line.values) }));
  const sentences = lines.map(({ line, of }) =>
    of
      ? `${line.name}: last ${number(of.last)} at ${data.axis} ${number(of.at)}, ` +
        `lowest ${number(of.low)}, highest ${number(of.high)}.`
      : `${line.name}: no numbers yet.`);
  state.said.textContent = sentences.join(" ");
  state.items = lines.map((all, i) => item(all, i, data.lines.length));
  fill(state.legend, state.items.map((x) => x.element));
  draw(state, false);
  if (!state.numbers.hidden) fillNumbers(state);
}

// The value is that of the drawn line, smoothed or not; the range is that of the numbers themselves.
function item({ line, of, drawn }, i, count) {
  const last = number(drawn?.last);
  const value = h("b", { class: "n" }, last);
  const mark = h("i", { class: `swatch line-${(line.colour ?? i) % 8}` });
  const range = of ? `${number(of.low)} … ${number(of.high)}` : "";
  const element = h("li", { title: range },
    mark, h("span", { class: "name" }, line.name), value,
    count <= 2 && range ? h("span", { class: "quiet n" }, range) : null);
  return { element, value, last };
}

// The data of uPlot: x, then for each line raw, values, low, high as far as they are there.
function layout(data) {
  const columns = [data.x];
  const series = [{}];
  const bands = [];
  data.lines.forEach((line, i) => {
    const stroke = lineColour(line.colour ?? i);
    const push = (values, options) => {
      columns.push(values);
      series.push({ spanGaps: true, points: { size: 4 }, ...options });
      return columns.length - 1;
    };
    if (line.band) {
      const edge = { stroke: "transparent", points: { show: false } };
      const high = push(line.band[1], edge);
      bands.push({ series: [high, push(line.band[0], edge)], fill: faint(stroke, 0.18) });
    }
    if (line.raw) {
      push(line.raw, { stroke: faint(stroke, 0.4), width: 1, points: { show: false } });
    }
    push(line.values, { stroke, width: line.strong === false ? 1 : 1.6, line: i });
  });
  return { columns, series, bands };
}

// Chart colours are #rrggbb.
function faint(hex, share) {
  return hex + Math.round(share * 255).toString(16).padStart(2, "0");
}

function draw(state, anew) {
  if (!state.data) return;
  const { columns, series, bands } = layout(state.data);
  const shape = JSON.stringify([series, state.data.axis]);
  if (!anew && state.uplot && state.shape === shape) {
    state.uplot.setData(columns);
    return;
  }
  state.shape = shape;
  state.uplot?.destroy();
  fill(state.plot);
  state.uplot = new window.uPlot(options(state, series, bands), columns, state.plot);
}

function options(state, series, bands) {
  const axis = {
    stroke: colour("muted"),
    grid: { stroke: colour("line"), width: 1 },
    ticks: { show: false },
    font: `11px ${getComputedStyle(document.body).fontFamily}`,
    values: (_, splits, __, ___, step) => splits.map((v) => (v === null ? "" : tick(v, step))),
  };
  return {
    width: width(state),
    height: state.about.height || 150,
    padding: [8, 10, 0, 0],
    legend: { show: false },
    scales: { x: { time: false }, y: { distr: logarithmic(state) ? 3 : 1, range: yRange(state) } },
    axes: [{ ...axis, size: 24, gap: 4 }, { ...axis, size: 52, gap: 4 }],
    cursor: {
      sync: { key: state.about.sync || "logpi", setSeries: false },
      y: false,
      drag: { x: true, y: false },
      points: { size: 6 },
    },
    series,
    bands,
    hooks: { setCursor: [(u) => follow(state, u)] },
  };
}

// As many digits as neighbours need to differ: with a step of 0.0002, 1.0002 is "1.0002"; of 0.25, 0.5 is "0.50".
// A logarithmic axis has numbers below its step: with a step of 0.01, 0.001 is "0.001".
export function tick(value, step) {
  const size = Math.abs(value);
  if (size < step / 1e6) return "0";
  if (size < 1e-3 || size >= 1e6) return value.toExponential(step < size ? 1 : 0);
  if (!(step < 1)) return number(value);
  let digits = 0;
  while (digits < 6 && Math.abs(step * 10 ** digits - Math.round(step * 10 ** digits)) > 1e-6) digits++;
  return size < step ? number(value) : value.toFixed(digits);
}

// A logarithmic axis cannot show what is not above 0.
function logarithmic(state) {
  const some = (values) => values.some((v) => v !== null);
  const positive = (values) => values.every((v) => v === null || v > 0);
  const all = state.data.lines.flatMap((l) => [l.values, ...(l.raw ? [l.raw] : [])]);
  return Boolean(state.about.log) && all.some(some) && all.every(positive);
}

// uPlot's own range, except that a constant gets some room.
function yRange(state) {
  if (logarithmic(state)) return undefined;
  return (_, low, high) => {
    if (low === null) return [0, 1];
    if (low === high && low === 0) return [0, 1];
    if (low === high) return [low - (Math.abs(low) * 0.1 || 1), high + (Math.abs(high) * 0.1 || 1)];
    const room = (high - low) * 0.06;
    return [low >= 0 && low - room < 0 ? 0 : low - room, high + room];
  };
}

function width(state) {
  return Math.max(120, Math.floor(state.plot.clientWidth || 320));
}

function resize(state) {
  if (!state.uplot || width(state) === state.uplot.width) return;
  state.uplot.setSize({ width: width(state), height: state.uplot.height });
}

// The legend shows the values below the crosshair, else the last ones.
function follow(state, uplot) {
  const at = uplot.cursor.idx;
  state.items.forEach((entry, i) => {
    const values = state.data.lines[i].values;
    entry.value.textContent =
      at === null || at === undefined ? entry.last : number(nearest(values, at));
  });
}

function nearest(values, at) {
  for (let i = Math.min(at, values.length - 1); i >= 0; i--) if (values[i] !== null) return values[i];
  return null;
}

function showNumbers(state) {
  const open = state.numbers.hidden;
  state.numbers.hidden = !open;
  state.plot.hidden = open;
  state.toggle.setAttribute("aria-pressed", String(open));
  if (open) fillNumbers(state);
  else resize(state);
}

function fillNumbers(state) {
  const { x, lines, axis } = state.data;
  const first = Math.max(0, x.length - MOST_ROWS);
  const rows = x.slice(first).map((step, i) => [
    number(step), ...lines.map((l) => (l.raw || l.values)[first + i])]);
  rows.reverse();
  const note = first ? `the last ${MOST_ROWS} of ${number(x.length)}` : "all, newest first";
  fill(state.numbers, h("p", { class: "quiet" }, note),
    table([axis, ...lines.map((l) => l.name)], rows, state.about.title));
}
