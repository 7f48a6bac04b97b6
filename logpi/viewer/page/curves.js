// A run's curves: the panels that matter, each with what it means, and all other metrics. All share a
// crosshair, the smoothing and the x axis. Left out: one chart (`chart.js`), the arithmetic
// (`series.js`).

import { chart } from "./chart.js";
import { fill, h } from "./dom.js";
import { holds, plural } from "./format.js";
import { setQuery } from "./route.js";
import { aligned, Feed, hours, smoothed, weightOf } from "./series.js";

export async function curves(place, source, run, query) {
  const state = {
    source, run, charts: [],
    smooth: Number(query.get("smooth")) || 0,
    axis: query.get("x") === "time" ? "time" : "step",
    words: query.get("metric") || "",
  };
  const grouped = run.panels.flatMap((p) => [...p.metrics, ...(p.band || [])]);
  state.others = run.metrics.filter((name) => !grouped.includes(name));
  const clock = run.metrics.includes("step_time") ? ["step_time"] : [];
  state.feed = new Feed(source, run.id, [...new Set([...grouped, ...clock])]);
  state.more = null;
  await state.feed.poll();
  build(state, place);
  redraw(state);
  if (state.words) await openOthers(state);
  return { tick: () => tick(state), close: () => state.charts.forEach((c) => c.view.close()) };
}

async function tick(state) {
  const news = await Promise.all([state.feed.poll(), state.more?.poll()]);
  if (news.some(Boolean)) redraw(state);
}

function build(state, place) {
  if (!state.run.metrics.length) {
    fill(place, h("section", { class: "empty" }, h("h2", null, "No numbers yet"),
      h("p", null, "The first step has not been logged. They appear here by themselves.")));
    return;
  }
  state.panels = h("div", { class: "panels" });
  state.rest = h("div", { class: "panels small" });
  state.restCount = h("span", { class: "quiet" });
  state.details = h("details", { class: "others", open: Boolean(state.words), on: {
    toggle: () => state.details.open && openOthers(state) } },
    h("summary", null, "All other metrics ", state.restCount), state.rest);
  fill(place, controls(state), state.panels, state.others.length ? state.details : null);
  for (const panel of state.run.panels) {
    const view = chart({ ...panel, sync: "run" });
    state.charts.push({ view, feed: () => state.feed, metrics: panel.metrics, band: panel.band });
    state.panels.append(view.element);
  }
  state.restCount.textContent = `(${state.others.length})`;
}

function controls(state) {
  const said = h("output", null, state.smooth ? state.smooth.toFixed(2) : "off");
  const slider = h("input", {
    type: "range", min: "0", max: "0.98", step: "0.02", value: state.smooth, "aria-label": "Smoothing",
    on: { input: (e) => {
      state.smooth = Number(e.target.value);
      said.textContent = state.smooth ? state.smooth.toFixed(2) : "off";
      setQuery({ smooth: state.smooth || "" });
      redraw(state);
    } },
  });
  const axis = h("select", { "aria-label": "Horizontal axis", value: state.axis, on: { change: (e) => {
    state.axis = e.target.value;
    setQuery({ x: state.axis === "time" ? "time" : "" });
    redraw(state);
  } } }, h("option", { value: "step" }, "step"),
    state.feed.names.includes("step_time") ? h("option", { value: "time" }, "hours of training") : null);
  const filter = h("input", {
    type: "search", "data-filter": true, "aria-label": "Find a metric", placeholder: "metric: kl  ( / )",
    value: state.words, on: { input: (e) => {
      state.words = e.target.value;
      setQuery({ metric: state.words });
      state.details.open = Boolean(state.words);
      hide(state);
    } },
  });
  return h("div", { class: "bar controls" }, h("label", null, "x ", axis),
    h("label", null, "smoothing ", slider, said), h("span", { class: "push" }), filter);
}

// Charts of single metrics are made when they are asked for, and drawn when they come into sight.
async function openOthers(state) {
  if (state.more || !state.others.length) return hide(state);
  const clock = state.feed.names.includes("step_time") ? ["step_time"] : [];
  state.more = new Feed(state.source, state.run.id, [...state.others, ...clock]);
  await state.more.poll();
  const sight = new IntersectionObserver((entries) => entries.forEach((entry) => {
    const one = state.charts.find((c) => c.view.element === entry.target);
    if (one) one.seen = entry.isIntersecting;
    if (one?.seen) drawOne(state, one);
  }), { rootMargin: "200px" });
  for (const name of state.others) {
    const view = chart({ title: name, sync: "run", height: 110 });
    const one = { view, feed: () => state.more, metrics: [name], band: null, seen: false };
    state.charts.push(one);
    state.rest.append(view.element);
    sight.observe(view.element);
  }
  hide(state);
}

function hide(state) {
  let count = 0;
  for (const one of state.charts) {
    one.view.element.hidden = !holds(one.metrics.join(" "), state.words);
    if (!one.view.element.hidden && state.others.includes(one.metrics[0])) count++;
  }
  state.restCount.textContent = state.words
    ? `(${plural(count, "match").replace("matchs", "matches")})` : `(${state.others.length})`;
}

function redraw(state) {
  for (const one of state.charts) if (one.seen !== false) drawOne(state, one);
}

function drawOne(state, one) {
  const feed = one.feed();
  const { x, columns } = aligned(feed, [...one.metrics, ...(one.band || [])]);
  const band = one.band ? columns.slice(-2) : null;
  const at = state.axis === "time" ? hours(feed) : null;
  const lines = one.metrics.map((name, i) => {
    const weight = weightOf(name, state.smooth);
    return {
      name,
      values: smoothed(columns[i], weight),
      raw: weight ? columns[i] : null,
      band: i === 0 ? band : null,
    };
  });
  const axis = at ? "hours" : "step";
  one.view.show({ x: at ? x.map((step) => at.get(step)) : x, lines, axis });
}
