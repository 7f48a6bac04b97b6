// All responses of a run that a filter leaves, best or newest first. The server reads the files little
// by little; the list says how far it is. Left out: one response (`page_response.js`), the form
// (`filters.js`).

import { runCrumbs, tabs } from "./crumbs.js";
import { announce, fill, h } from "./dom.js";
import { filterForm, readFilters } from "./filters.js";
import { badge, number, plural, signed, special } from "./format.js";
import { go, here, link } from "./route.js";
import { virtual } from "./virtual.js";

const PAGE = 50;

// The list that j and k walk through, of the run that was listed last.
export const walk = { id: null, kind: null, rows: () => [], more: null };

export async function responsesPage(place, { source, id }) {
  const run = await source.run(id);
  runCrumbs(run, ["Responses", null]);
  const state = { source, run, turn: 0, complete: false, answer: null, open: true };
  state.count = h("p", { class: "quiet count" });
  state.progress = h("progress", { max: 100, value: 0, hidden: true, "aria-label": "Scanned" });
  state.empty = h("div", null);
  if (run.command === "gym") {
    fill(place, h("div", { class: "bar" }, h("h1", null, run.path), badge(run.state)), tabs(run, "responses"),
      h("section", { class: "empty" }, h("p", null, "No responses: a run of `logpi gym` writes no text.")));
    return { keys: { u: () => go(["run", id]) } };
  }
  const kinds = Object.keys(run.sample_kinds).filter((kind) => run.sample_kinds[kind].length);
  state.list = virtual({
    height: () => (innerWidth < 700 ? 92 : 56), page: PAGE,
    fetch: async (offset) => (await ask(state, offset)).rows,
    row: (row, i) => item(state, row, i),
  });
  state.form = filterForm(kinds.length ? kinds : ["step"], () => load(state, false));
  state.form.names([], []);
  fill(place, h("div", { class: "bar" }, h("h1", null, run.path), badge(run.state)),
    tabs(run, "responses"), state.form.element,
    h("div", { class: "bar" }, state.count, state.progress), state.list.element, state.empty);
  Object.assign(walk, { id, rows: () => walked(state) });
  await load(state, false);
  return {
    tick: () => (state.complete ? renew(state) : null),
    close: () => { state.open = false; state.list.close(); },
    keys: {
      u: () => go(["run", id]),
      j: () => step(state, 1),
      k: () => step(state, -1),
    },
  };
}

function walked(state) {
  const rows = [];
  for (let i = 0; i < state.list.total() && state.list.known(i); i++) rows.push(state.list.known(i));
  return rows;
}

function ask(state, offset) {
  const filters = readFilters(here().query);
  filters.kind ||= Object.keys(state.run.sample_kinds)[0] || "step";
  return state.source.samples(state.run.id, { ...filters, offset, limit: PAGE });
}

// The first answer; the others come while the page is there already.
async function load(state, keep) {
  const turn = ++state.turn;
  if (await round(state, turn, keep)) goOn(state, turn);
}

// Asks again until all is scanned; a newer filter ends it.
async function goOn(state, turn) {
  try {
    while (await round(state, turn, true));
  } catch {
    state.complete = true; // the next look at the server says what is wrong
  }
}

// Whether there is more to scan.
async function round(state, turn, keep) {
  const answer = await ask(state, 0);
  if (!state.open || turn !== state.turn) return false;
  show(state, answer, keep);
  if (answer.complete) announce(`${plural(answer.matched, "response")} found`);
  return !answer.complete;
}

// A run that goes on: the list follows as long as the reader is at its top.
async function renew(state) {
  if (state.list.top() > 0) return;
  const answer = await ask(state, 0);
  if (JSON.stringify(answer) !== JSON.stringify(state.answer)) show(state, answer, true);
}

function show(state, answer, keep) {
  Object.assign(state, { answer, complete: answer.complete });
  state.form.names(answer.parts, answer.stops);
  const share = answer.of ? Math.floor((100 * answer.scanned) / answer.of) : 100;
  const found = `${plural(answer.matched, "response")}`;
  state.count.textContent = answer.complete
    ? `${found} of ${number(answer.of)}`
    : `scanning… ${share} % — ${found} so far`;
  state.progress.hidden = answer.complete;
  state.progress.value = share;
  state.list.element.hidden = !answer.matched;
  fill(state.empty, answer.matched || !answer.complete ? null : nothing(state, answer));
  state.list.reset(answer.matched, answer.rows, keep);
}

function nothing(state, answer) {
  return h("section", { class: "empty" }, answer.of
    ? h("p", null, `None of ${plural(answer.of, "response")} passes the filters.`)
    : h("p", null, "No responses yet: a run of a language model keeps those of every update."));
}

function step(state, by) {
  const links = [...state.list.element.querySelectorAll(".item a")];
  const at = links.indexOf(document.activeElement);
  links[Math.max(0, Math.min(links.length - 1, at < 0 ? 0 : at + by))]?.focus();
}

function item(state, row) {
  const target = link(["run", state.run.id, "response"], { kind: row.kind, step: row.step, row: row.row });
  return h("a", { class: "response", href: target },
    h("span", { class: "meta" }, rewardMark(row.reward),
      h("span", null, `step ${row.step} · row ${row.row}`),
      typeof row.advantage === "number"
        ? h("span", { class: row.advantage < 0 ? "neg" : row.advantage > 0 ? "pos" : "" },
            `advantage ${signed(row.advantage)}`) : null,
      row.tokens === null ? null : h("span", null, plural(row.tokens, "token")),
      special(row) ? h("span", { class: "warn" }, special(row)) : null,
      row.turns > 1 ? h("span", null, plural(row.turns, "turn")) : null,
      row.greedy ? h("span", { class: "quiet" }, "greedy") : null,
      h("span", { class: `stop ${row.stop === "length" ? "warn" : ""}` }, row.stop),
      Object.entries(row.rewards || {}).length > 1
        ? Object.entries(row.rewards).map(([name, value]) => h("span", { class: "quiet" }, `${name} ${number(value)}`))
        : null),
    h("span", { class: "preview" }, row.too_long ? "too long to show: a line of more than 16 MB " : null, h("span", { class: "quiet" }, row.prompt_preview, " "), row.preview));
}

export function rewardMark(reward) {
  if (reward === null || reward === undefined) {
    return h("b", { class: "mark none", title: "no verdict" }, "no reward");
  }
  return h("b", { class: "mark n", title: `reward ${number(reward)}` }, number(reward));
}
