// Several runs beside each other: curves laid over one another, what they were told that differs, and
// how they ended. Runs that differ by their seed alone are one curve with its interval. Left out: the
// comparison itself, which the server makes (and `logpi compare`).

import { chart } from "./chart.js";
import { crumbs } from "./crumbs.js";
import { fill, h } from "./dom.js";
import { badge, holds, plural, table } from "./format.js";
import { link, setQuery } from "./route.js";
import { aligned, Feed, meanOverRuns, smoothed, weightOf } from "./series.js";

const MOST = 12; // charts at first

export async function comparePage(place, { source, query }) {
  crumbs([["Runs", "#/"], ["Compare", null]]);
  const ids = (query.get("ids") || "").split(",").filter(Boolean);
  if (ids.length < 2) {
    fill(place, h("section", { class: "empty" }, h("h1", null, "Compare"),
      h("p", null, "Tick two or more runs in ", h("a", { href: "#/" }, "the list"), ".")));
    return {};
  }
  const answer = await source.compare(ids);
  const details = await Promise.all(answer.runs.map((run) => source.run(run.id)));
  const state = {
    answer, details, charts: [],
    smooth: Number(query.get("smooth")) || 0, words: query.get("metric") || "",
    seeds: query.get("seeds") !== "apart",
  };
  state.panels = panels(details);
  state.feeds = await Promise.all(details.map(async (run) => {
    const feed = new Feed(source, run.id, state.panels.filter((p) => run.metrics.includes(p)));
    await feed.poll();
    return feed;
  }));
  build(state, place);
  return { tick: () => tick(state), close: () => closeCharts(state), keys: {} };
}

// The metrics of all runs: first those of panels, then the others that all runs have.
function panels(details) {
  const first = details.flatMap((run) => run.panels.flatMap((panel) => panel.metrics));
  const shared = details[0].metrics.filter((m) => details.every((run) => run.metrics.includes(m)));
  return [...new Set([...first, ...shared])];
}

async function tick(state) {
  const news = await Promise.all(state.feeds.map((feed) => feed.poll()));
  if (news.some(Boolean)) state.charts.forEach((one) => drawOne(state, one));
}

function closeCharts(state) {
  state.charts.forEach((one) => one.view.close());
  state.charts = [];
}

function build(state, place) {
  const { answer } = state;
  state.place = h("div", { class: "panels" });
  state.more = h("p", { class: "quiet" });
  fill(place,
    h("div", { class: "bar" }, h("h1", null, `Compare ${plural(answer.runs.length, "run")}`)),
    h("ul", { class: "runs-key" }, groups(state).map((group, i) => h("li", null,
      h("i", { class: `swatch line-${i % 8}` }), h("b", null, group.label),
      group.indices.map((k) => h("span", null,
        h("a", { href: link(["run", answer.runs[k].id]) }, answer.runs[k].path), " ",
        badge(answer.runs[k].state)))))),
    controls(state), state.place, state.more,
    h("div", { class: "two" },
      h("section", null, h("h2", null, "How they ended"),
        table(answer.table.columns, answer.table.rows, "How they ended"),
        answer.table.note ? h("p", { class: "quiet" }, answer.table.note) : null),
      h("section", null, h("h2", null, "What differs"), differing(answer))));
  fillCharts(state);
}

function differing(answer) {
  if (!answer.differing.length) {
    return h("p", { class: "quiet" }, "Nothing: the arguments of these runs are the same.");
  }
  const rows = answer.differing.map(([name, values]) => [
    name, ...values.map((v) => (v === null ? "–" : typeof v === "string" ? v : JSON.stringify(v)))]);
  return table(["argument", ...answer.runs.map((run) => run.path)], rows, "Arguments that differ");
}

// What is one curve: runs of a group together, or each run for itself.
function groups(state) {
  const { runs } = state.answer;
  const index = new Map(runs.map((run, i) => [run.id, i]));
  if (state.seeds && state.answer.groups.length) {
    return state.answer.groups.map((g) => ({
      label: g.label, indices: g.ids.map((id) => index.get(id)).filter((i) => i !== undefined),
      seeds: g.seeds.map((ids) => ids.map((id) => index.get(id)).filter((i) => i !== undefined)),
    }));
  }
  return runs.map((run, i) => ({ label: run.path, indices: [i], seeds: [[i]] }));
}

function controls(state) {
  const again = (changes) => { setQuery(changes); fillCharts(state); };
  const seeds = h("input", { type: "checkbox", checked: state.seeds, on: { change: (e) => {
    state.seeds = e.target.checked;
    again({ seeds: state.seeds ? "" : "apart" });
  } } });
  const said = h("output", null, state.smooth ? state.smooth.toFixed(2) : "off");
  const slider = h("input", {
    type: "range", min: "0", max: "0.98", step: "0.02", value: state.smooth, "aria-label": "Smoothing",
    on: { input: (e) => {
      state.smooth = Number(e.target.value);
      said.textContent = state.smooth ? state.smooth.toFixed(2) : "off";
      setQuery({ smooth: state.smooth || "" });
      state.charts.forEach((one) => drawOne(state, one));
    } },
  });
  const filter = h("input", {
    type: "search", "data-filter": true, "aria-label": "Find a metric", placeholder: "metric: reward  ( / )",
    value: state.words,
    on: { input: (e) => { state.words = e.target.value; again({ metric: state.words }); } },
  });
  const bands = state.answer.groups.some((g) => g.ids.length > 1);
  return h("div", { class: "bar controls" },
    bands ? h("label", { title: "mean and 95 % t-interval over runs that differ by their seed alone" },
      seeds, " seeds as mean and 95 % interval") : null,
    h("label", null, "smoothing ", slider, said), h("span", { class: "push" }), filter);
}

function fillCharts(state) {
  closeCharts(state);
  const names = state.panels.filter((name) => holds(name, state.words));
  const some = state.words ? names : names.slice(0, MOST);
  state.charts = some.map((name) => ({ name, view: chart({ title: name, sync: "compare", height: 180 }) }));
  fill(state.place, state.charts.map((one) => one.view.element));
  state.charts.forEach((one) => drawOne(state, one));
  const hidden = names.length - some.length;
  state.more.textContent = hidden ? `${plural(hidden, "more metric")}: find them by the filter above.` : "";
}

// One x axis for all lines: every step that any of them has.
function drawOne(state, one) {
  const lines = groups(state).map((group, i) => curve(state, group, one.name, i)).filter(Boolean);
  const x = [...new Set(lines.flatMap((line) => line.x))].sort((a, b) => a - b);
  const place = new Map(x.map((step, i) => [step, i]));
  const spread = (line, values) => {
    const column = new Array(x.length).fill(null);
    line.x.forEach((step, i) => (column[place.get(step)] = values[i]));
    return column;
  };
  const weight = weightOf(one.name, state.smooth);
  one.view.show({ x, axis: "step", lines: lines.map((line) => ({
    name: line.name, colour: line.colour,
    values: spread(line, smoothed(line.y, weight)),
    raw: weight && !line.band ? spread(line, line.y) : null,
    band: line.band && !weight ? line.band.map((edge) => spread(line, edge)) : null,
  })) });
}

function curve(state, group, name, colour) {
  const all = group.seeds.map((same) => {
    // runs of one seed are not independent: their mean is one curve
    const some = same.map((i) => {
      const { x, columns } = aligned(state.feeds[i], [name]);
      return { x, y: columns[0] };
    }).filter((c) => c.x.length);
    if (some.length < 2) return some[0];
    const { x, mean } = meanOverRuns(some);
    return { x, y: mean };
  }).filter(Boolean);
  if (!all.length) return null;
  if (all.length === 1) return { name: group.label, colour, ...all[0] };
  const { x, mean, low, high } = meanOverRuns(all);
  return { name: `${group.label} (${all.length} seeds)`, colour, x, y: mean, band: [low, high] };
}
