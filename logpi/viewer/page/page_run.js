// One run: its head, and the tabs Curves, Results and About. Left out: its responses
// (`page_responses.js`), the curves themselves (`curves.js`).

import { runCrumbs, tabs } from "./crumbs.js";
import { curves } from "./curves.js";
import { copyButton, fill, h } from "./dom.js";
import { ago, badge, clock, duration, holds, number, plural, table } from "./format.js";
import { mathematics } from "./mathml.js";
import { go, here, link, setQuery } from "./route.js";
import { steps } from "./page_runs.js";

export async function runPage(place, { source, parts, query, id }) {
  const run = await source.run(id);
  const inside = run.seeds.length + run.tables.length;
  const first = run.metrics.length || !inside || parts[2] === "curves" ? "curves" : "results";
  const tab = ["results", "about"].includes(parts[2]) ? parts[2] : first;
  runCrumbs(run);
  const head = h("div", null);
  const body = h("div", null);
  fill(place, head, tabs(run, tab), body);
  fillHead(head, run);
  const follow = async () => {
    const newest = await source.run(id);
    fillHead(head, newest);
    return newest;
  };
  const keys = { u: () => go([]) };
  if (tab === "results") {
    const close = await results(body, source, run);
    return { tick: follow, close, keys };
  }
  if (tab === "about") {
    about(body, source, run, query);
    return { tick: follow, keys };
  }
  const view = await growing(body, source, run, query);
  return { tick: async () => view.tick(await follow()), close: view.close, keys };
}

// Curves that are built anew when a metric comes that was not there before.
async function growing(place, source, run, query) {
  let [view, count] = [await curves(place, source, run, query), run.metrics.length];
  const tick = async (newest) => {
    if (newest.metrics.length === count) return view.tick();
    view.close();
    count = newest.metrics.length;
    view = await curves(place, source, newest, here().query);
  };
  return { tick, close: () => view.close() };
}

function fillHead(place, run) {
  const facts = [
    [run.metric || "reward", number(run.reward)],
    ["steps", steps(run)],
    run.state === "running" ? ["left", duration(run.eta_s)] : ["written", ago(run.updated)],
    ["algorithm", run.algorithm],
    ["model", run.model],
    ["task", run.task],
    ["seed", run.seed === null ? null : String(run.seed)],
    ["started", clock(run.started)],
  ].filter(([, value]) => value);
  const written = JSON.stringify([run.state, run.step, run.reward, ago(run.updated), run.eta_s]);
  if (place.dataset.written === written) return;
  place.dataset.written = written;
  fill(place,
    h("div", { class: "bar" }, h("h1", null, run.path), badge(run.state)),
    run.why ? h("p", { class: "note" }, run.why) : null,
    h("dl", { class: "facts" }, facts.map(([name, value]) =>
      h("div", null, h("dt", null, name), h("dd", null, value)))));
}

// ---------------------------------------------------------------------------------- results

async function results(place, source, run) {
  const pictures = await Promise.all(run.pictures.map((name) => picture(source, run, name)));
  const all = run.seeds.length ? (await source.runs()).runs : [];
  const path = (id) => all.find((r) => r.id === id)?.path ?? id;
  fill(place,
    run.seeds.length
      ? h("section", null, h("h2", null, plural(run.seeds.length, "run"), " in it"), h("p", null,
          h("a", { href: link(["compare"], { ids: run.seeds.join(",") }) }, "Compare them"), " or open: ",
          run.seeds.map((child) => [h("a", { href: link(["run", child]) }, path(child)), " "])))
      : null,
    run.tables.map((t) => h("section", null,
      h("h2", null, t.title),
      table(t.columns, t.rows, t.title),
      t.note ? h("p", { class: "quiet" }, t.note) : null)),
    pictures.length ? h("section", null, h("h2", null, "Pictures"),
      h("div", { class: "pictures" }, pictures.map((p) => p.element))) : null);
  return () => pictures.forEach((p) => p.url && URL.revokeObjectURL(p.url));
}

async function picture(source, run, name) {
  const caption = h("figcaption", null, name);
  try {
    const url = await source.picture(run.id, name);
    const film = name.endsWith(".mp4");
    const image = film
      ? h("video", { src: url, controls: true, loop: true, "aria-label": `film ${name}` })
      : h("img", { src: url, alt: `${name} of ${run.path}` });
    return { element: h("figure", null, image, caption), url };
  } catch (error) {
    return { element: h("figure", null, h("p", { class: "note" }, error.message), caption), url: null };
  }
}

// ---------------------------------------------------------------------------------- about

function about(place, source, run, query) {
  const objective = h("div", null, h("p", { class: "quiet" }, "Composing…"));
  source.objective(run.id).catch((error) => ({ why: error.message }))
    .then((answer) => fill(objective, formula(answer)));
  fill(place,
    h("section", null, h("h2", null, "What it maximises"), objective),
    h("section", null, h("h2", null, "The command"),
      h("div", { class: "bar" }, h("pre", { class: "command" }, run.line), copyButton(run.line, "Copy the command"))),
    argumentList(run, query),
    h("section", null, h("h2", null, "Versions"), pairs(Object.entries(run.versions || {}), "Versions")),
    h("section", null, h("h2", null, "Log"), log(run)));
}

function formula(objective) {
  if (objective.why) return h("p", { class: "quiet" }, objective.why);
  const written = mathematics(objective.mathml);
  return [
    h("p", null, h("b", null, objective.title), objective.source ? ` — ${objective.source}` : ""),
    h("div", { class: "formula", tabindex: "0", role: "region", "aria-label": "the objective" },
      written || h("pre", null, objective.text)),
    written ? h("details", null, h("summary", null, "as text"), h("pre", null, objective.text)) : null,
    objective.parts?.length ? table(["axis", "choice"], objective.parts, "Parts of the objective") : null,
    objective.sources?.length
      ? [h("h3", null, "Sources"), h("ul", null, objective.sources.map((s) => h("li", null, s)))]
      : null,
    objective.differs?.length
      ? [h("h3", null, "Differences"), h("ul", null, objective.differs.map((d) => h("li", null, d)))]
      : null,
  ];
}

function argumentList(run, query) {
  const list = h("div", null);
  const all = Object.entries(run.arguments);
  const showArguments = (words) => {
    const some = all.filter(([name, value]) => holds(`${name} ${written(value)}`, words));
    fill(list, some.length
      ? pairs(some, "Arguments")
      : h("p", { class: "quiet" }, `None of ${all.length} arguments holds “${words}”.`));
  };
  const filter = h("input", {
    type: "search", "data-filter": true, "aria-label": "Search arguments", placeholder: "search: lr  ( / )",
    value: query.get("argument") || "",
    on: { input: (e) => { setQuery({ argument: e.target.value }); showArguments(e.target.value); } },
  });
  showArguments(filter.value);
  return h("section", null, h("div", { class: "bar" }, h("h2", null, "Arguments"), filter), list);
}

function written(value) {
  return typeof value === "string" ? value : JSON.stringify(value);
}

function pairs(entries, caption) {
  return table(["name", "value"], entries.map(([name, value]) => [name, written(value)]), caption);
}

function log(run) {
  const lines = Array.isArray(run.log) ? run.log.join("\n") : run.log;
  if (!lines) return h("p", { class: "quiet" }, "This run kept no log: its lines went to the terminal.");
  return h("pre", { class: "log", tabindex: "0", "aria-label": "Log" }, lines);
}
