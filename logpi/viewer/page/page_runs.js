// The list of runs: what each is, how far, how good, and which to compare. It follows the server.
// Left out: one run (`page_run.js`), several (`page_compare.js`).

import { crumbs } from "./crumbs.js";
import { announce, fill, h } from "./dom.js";
import { ago, badge, clock, duration, holds, number, plural } from "./format.js";
import { go, link, setQuery } from "./route.js";
import { spark } from "./spark.js";

const ORDERS = {
  newest: ["newest first", (a, b) => (b.updated || 0) - (a.updated || 0)],
  path: ["by path", (a, b) => a.path.localeCompare(b.path, "en", { numeric: true })],
  best: ["best reward first", (a, b) => (b.reward ?? -Infinity) - (a.reward ?? -Infinity)],
};

export async function runsPage(place, { source, query }) {
  crumbs([["Runs", null]]);
  const state = {
    source, place, rows: new Map(), answer: null,
    words: query.get("q") || "",
    order: query.get("order") in ORDERS ? query.get("order") : "newest",
    picked: new Set((query.get("pick") || "").split(",").filter(Boolean)),
  };
  build(state);
  await refresh(state);
  return { tick: () => refresh(state) };
}

function build(state) {
  const filter = h("input", {
    type: "search", "data-filter": true, "aria-label": "Filter runs", value: state.words,
    placeholder: "filter: grpo running …  ( / )",
    on: { input: (e) => { state.words = e.target.value; remember(state); list(state); } },
  });
  const order = h("select", {
    "aria-label": "Order", value: state.order,
    on: { change: (e) => { state.order = e.target.value; remember(state); list(state); } },
  }, Object.entries(ORDERS).map(([name, [text]]) => h("option", { value: name }, text)));
  state.count = h("span", { class: "quiet" });
  state.compare = h("button", {
    type: "button", class: "primary", disabled: true,
    on: { click: () => go(["compare"], { ids: [...state.picked].join(",") }) },
  }, "Compare");
  state.notes = h("div", null);
  state.body = h("tbody", null);
  state.empty = h("div", null);
  const heads = ["", "run", "state", "what", "reward", "", "steps", "left", "written"];
  state.table = h("table", { class: "runs" },
    h("caption", { class: "hidden" }, "Runs"),
    h("thead", null, h("tr", null, heads.map((name, i) =>
      h("th", { scope: "col" }, name || h("span", { class: "hidden" }, i ? "curve" : "compare"))))),
    state.body);
  fill(state.place,
    h("div", { class: "bar" }, h("h1", null, "Runs"), state.count, h("span", { class: "push" }),
      filter, order, state.compare),
    state.notes, state.table, state.empty);
}

function remember(state) {
  setQuery({
    q: state.words, order: state.order === "newest" ? "" : state.order, pick: [...state.picked].join(","),
  });
}

async function refresh(state) {
  const before = new Map((state.answer?.runs || []).map((run) => [run.id, run.state]));
  state.answer = await state.source.runs();
  for (const run of state.answer.runs) {
    const was = before.get(run.id);
    if (was && was !== run.state) announce(`${run.path} is ${run.state}`);
  }
  list(state);
}

function shown(state) {
  const text = (r) =>
    [r.path, r.command, r.algorithm, r.model, r.task, r.state, `seed ${r.seed}`].join(" ");
  return state.answer.runs
    .filter((run) => holds(text(run), state.words))
    .sort(ORDERS[state.order][1]);
}

function list(state) {
  if (!state.answer) return;
  const runs = shown(state);
  const all = state.answer.runs.length;
  state.count.textContent = runs.length === all ? plural(all, "run") : `${runs.length} of ${all}`;
  fill(state.notes, (state.answer.notes || []).map((n) => h("p", { class: "note" }, n)));
  state.table.hidden = !runs.length;
  fill(state.empty, runs.length ? null : nothing(state));
  sameOrder(state.body, runs.map((run) => rowOf(state, run)));
  picks(state);
}

// Elements that stay keep their focus: only what is new or moved is touched.
function sameOrder(parent, elements) {
  const wanted = new Set(elements);
  for (const old of [...parent.children]) if (!wanted.has(old)) old.remove();
  elements.forEach((element, i) => {
    if (parent.children[i] !== element) parent.insertBefore(element, parent.children[i] || null);
  });
}

function nothing(state) {
  if (state.answer.runs.length) {
    return h("section", { class: "empty" }, h("p", null, `No run holds “${state.words}”.`));
  }
  return h("section", { class: "empty" },
    h("h2", null, "No runs here yet"),
    h("p", null, "Start one, and it appears here by itself:"),
    h("pre", { class: "command" }, "logpi demo\nlogpi rl --model MODEL --task addition\nlogpi gym --env CartPole-v1"),
    h("p", { class: "quiet" }, `Looked in: ${state.answer.roots.join(", ")}`));
}

function rowOf(state, run) {
  const written = JSON.stringify([run, ago(run.updated)]);
  const known = state.rows.get(run.id);
  if (known?.written === written) return known.element;
  const element = known?.element || h("tr", null);
  const focus = element.contains(document.activeElement) && document.activeElement.dataset.keep;
  fill(element, cells(state, run));
  if (focus) element.querySelector(`[data-keep="${focus}"]`)?.focus();
  state.rows.set(run.id, { element, written });
  return element;
}

function cells(state, run) {
  const tick = h("input", {
    type: "checkbox", "aria-label": `Compare ${run.path}`, checked: state.picked.has(run.id),
    data: { keep: "tick" }, disabled: run.state === "unreadable",
    on: { change: (e) => pick(state, run.id, e.target.checked) },
  });
  const name = run.state === "unreadable"
    ? h("span", null, run.path)
    : h("a", { href: link(["run", run.id]), data: { keep: "name" } }, run.path);
  const what = [run.command, run.algorithm].filter(Boolean).join(" · ");
  const about = [run.model, run.task, run.seed === null ? null : `seed ${run.seed}`];
  return [
    h("td", { class: "tick" }, tick),
    h("th", { scope: "row", class: "name" }, name),
    h("td", { class: "state" }, badge(run.state)),
    h("td", { class: "what" }, what,
      h("div", { class: "quiet cut" }, run.why || about.filter(Boolean).join(" · "))),
    h("td", { class: "reward n", title: run.metric || null }, number(run.reward),
      run.metric && run.metric !== "reward" ? h("div", { class: "quiet cut" }, run.metric) : null),
    h("td", { class: "curve" }, spark(run.spark || [])),
    h("td", { class: "steps n" }, steps(run)),
    h("td", { class: "left n" }, run.state === "running" ? duration(run.eta_s) : ""),
    h("td", { class: "when n quiet", title: clock(run.updated) }, ago(run.updated)),
  ];
}

export function steps(run) {
  if (run.step === null || run.step === undefined) return "";
  const text = run.steps ? `${number(run.step)} / ${number(run.steps)}` : number(run.step);
  if (!run.steps) return text;
  return [text, h("progress", { max: run.steps, value: run.step, "aria-label": `${text} steps` })];
}

function pick(state, id, on) {
  if (on) state.picked.add(id);
  else state.picked.delete(id);
  remember(state);
  picks(state);
}

function picks(state) {
  const count = state.picked.size;
  state.compare.disabled = count < 2;
  state.compare.textContent = count < 2 ? "Compare" : `Compare ${count} runs`;
  state.compare.title = count < 2 ? "Tick two runs or more" : "";
}
