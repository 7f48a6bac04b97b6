// One prompt over training: its answers in every step that asked it, with their rewards. Left out:
// the answers' tokens.

import { chart } from "./chart.js";
import { runCrumbs } from "./crumbs.js";
import { fill, h } from "./dom.js";
import { number, plural } from "./format.js";
import { rewardMark } from "./page_responses.js";
import { messages } from "./prompts.js";
import { go, link } from "./route.js";

export async function promptPage(place, { source, query, id, current }) {
  const run = await source.run(id);
  const at = { step: query.get("step"), row: query.get("row") };
  const state = { source, id, at, current };
  state.answer = await source.prompt(id, at);
  runCrumbs(run, ["Responses", link(["run", id, "responses"])], ["one prompt over training", null]);
  state.count = h("p", { class: "quiet" });
  state.view = chart({ title: "Reward of its answers", height: 140 });
  state.steps = h("div", { class: "timeline" });
  fill(place, h("h1", null, "One prompt over training"),
    h("details", { class: "prompt", open: true }, h("summary", null, "prompt"), messages(state.answer.prompt)),
    state.count, state.view.element, state.steps);
  show(state);
  goOn(state);
  return { close: () => state.view.close(), keys: { u: () => go(["run", id, "responses"]) } };
}

// The server scans little by little.
async function goOn(state) {
  while (!state.answer.complete && state.current()) {
    try {
      state.answer = await state.source.prompt(state.id, state.at);
    } catch {
      return; // what was found so far stays
    }
    if (state.current()) show(state);
  }
}

function mean(rows) {
  const rewards = rows.map((r) => r.reward).filter((r) => r !== null);
  return rewards.length ? rewards.reduce((a, b) => a + b, 0) / rewards.length : null;
}

function show(state) {
  const { steps, complete } = state.answer;
  const answers = steps.reduce((sum, s) => sum + s.rows.length, 0);
  state.count.textContent =
    `${plural(answers, "answer")} in ${plural(steps.length, "step")}${complete ? "" : ", scanning…"}`;
  const bounds = (pick) => steps.map((s) => {
    const known = s.rows.map((r) => r.reward).filter((r) => r !== null);
    return known.length ? pick(...known) : null;
  });
  state.view.element.hidden = steps.length < 2;
  state.view.show({ x: steps.map((s) => s.step), axis: "step", lines: [
    { name: "mean reward (band: worst to best)", values: steps.map((s) => mean(s.rows)),
      band: [bounds(Math.min), bounds(Math.max)] }] });
  fill(state.steps, steps.map((s) => stepOf(state, s)));
}

function stepOf(state, { step, rows }) {
  const group = rows[0]?.group;
  return h("section", { class: "moment" },
    h("h2", null, h("a", { href: link(["run", state.id, "group"], { step, group }) }, `step ${step}`),
      h("span", { class: "quiet" }, ` mean ${number(mean(rows))}`)),
    h("ul", null, rows.map((row) => h("li", null,
      h("a", { class: "answer-line", href: link(["run", state.id, "response"], { kind: row.kind, step: row.step, row: row.row }) },
        rewardMark(row.reward), h("span", { class: "preview" }, row.preview))))));
}
