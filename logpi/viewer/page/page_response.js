// One response, token by token: what the policy was given, what it wrote, what each token was taught.
// Left out: drawing tokens (`tokens.js`), their colours (`scales.js`), the list (`page_responses.js`).

import { runCrumbs } from "./crumbs.js";
import { announce, fill, h } from "./dom.js";
import { number, plural, signed } from "./format.js";
import { rewardMark, walk } from "./page_responses.js";
import { messages } from "./prompts.js";
import { go, link, setQuery } from "./route.js";
import { extent, legendOf, MODES } from "./scales.js";
import { tokenView } from "./tokens.js";

const COUNT = 2000;

export async function responsePage(place, { source, query, id }) {
  const run = await source.run(id);
  const at = { kind: query.get("kind") || "step", step: query.get("step"), row: query.get("row") };
  const answer = await source.sample(id, { ...at, from: 0, count: COUNT });
  runCrumbs(run, ["Responses", link(["run", id, "responses"], { kind: at.kind === "step" ? "" : at.kind })],
    [`step ${answer.row.step} · row ${answer.row.row}`, null]);
  const state = { source, place, run, id, answer, row: answer.row, tokens: answer.tokens, kind: at.kind };
  state.modes = modes(state);
  state.mode = state.modes.includes(query.get("colour")) ? query.get("colour") : state.modes[0];
  state.strip = h("p", { class: "strip", "aria-live": "polite" }, hint(state));
  state.legend = h("div", null);
  build(state, place);
  paint(state);
  return { close: () => state.view?.close(), keys: keys(state) };
}

// What there are numbers for; "plain" always.
function modes(state) {
  const numbers = Object.keys(MODES).filter((mode) => mode === "none" || state.tokens?.[mode]);
  if (numbers.includes("advantage") || typeof state.row.advantage !== "number") return numbers;
  return ["advantage", ...numbers];
}

function neighbours(state) {
  const rows = walk.id === state.id ? walk.rows() : [];
  const i = rows.findIndex((r) =>
    r.kind === state.kind && r.step === state.row.step && r.row === state.row.row);
  if (i < 0) return { previous: state.answer.previous, next: state.answer.next, of: "" };
  return { previous: rows[i - 1] || null, next: rows[i + 1] || null, of: "in the filtered list" };
}

function open(state, target) {
  if (!target) return announce("There is no further response.");
  const { step, row } = target;
  go(["run", state.id, "response"], { kind: target.kind || state.kind, step, row, colour: state.mode });
}

function keys(state) {
  const turnMode = (by) => {
    const i = state.modes.indexOf(state.mode);
    choose(state, state.modes[(i + by + state.modes.length) % state.modes.length]);
  };
  const { step, row, group } = state.row;
  return {
    j: () => open(state, neighbours(state).next),
    k: () => open(state, neighbours(state).previous),
    "[": () => turnMode(-1),
    "]": () => turnMode(1),
    g: () => state.kind === "step" && go(["run", state.id, "group"], { step, group }),
    p: () => state.kind === "step" && go(["run", state.id, "prompt"], { step, row }),
    u: () => go(["run", state.id, "responses"]),
  };
}

function build(state, place) {
  const { row } = state;
  fill(place,
    h("div", { class: "bar" },
      h("h1", null, `Step ${row.step}, row ${row.row}`), rewardMark(row.reward), h("span", { class: "push" }),
      pager(state)),
    facts(row),
    h("details", { class: "prompt", open: true }, h("summary", null, "prompt ", h("span", { class: "quiet" }, "not trained")),
      messages(row.prompt)),
    colourBar(state),
    h("div", { class: "answer" }, body(state)),
    extras(row));
}

function pager(state) {
  const { previous, next, of } = neighbours(state);
  const { step, row, group } = state.row;
  const button = (text, label, target) => h("button", {
    type: "button", "aria-label": label, title: `${label} ${of}`, disabled: !target,
    on: { click: () => open(state, target) } }, text);
  return h("div", { class: "pager" },
    state.kind === "step" && [
      h("a", { class: "button", href: link(["run", state.id, "group"], { step, group }) }, "group"),
      h("a", { class: "button", href: link(["run", state.id, "prompt"], { step, row }) }, "over training")],
    button("‹ k", "Previous response", previous), button("j ›", "Next response", next));
}

function facts(row) {
  const parts = Object.entries(row.rewards || {});
  const entries = [
    ["reward", number(row.reward)],
    ...(parts.length > 1 ? parts.map(([name, value]) => [`· ${name}`, value === null ? "no verdict" : number(value)]) : []),
    ["advantage", typeof row.advantage === "number" ? signed(row.advantage) : "not recorded"],
    ["stop", row.stop === "length" ? "length: cut off" : row.stop],
    ["tokens", number(row.tokens)],
    ["turns", row.turns > 1 ? number(row.turns) : null],
    ["group", row.group === null || row.group === undefined ? null : number(row.group)],
    ["answer", row.answer === null || row.answer === undefined ? null : written(row.answer)],
    ["weights of step", row.version ?? null],
    ...Object.entries(row.counts || {}),
  ].filter(([, value]) => value !== null && value !== "");
  return [
    h("dl", { class: "facts" }, entries.map(([name, value]) =>
      h("div", null, h("dt", null, name), h("dd", null, typeof value === "number" ? number(value) : value)))),
    Object.entries(row.errors || {}).map(([name, text]) =>
      h("p", { class: "note" }, h("b", null, `${name}: `), text)),
  ];
}

function written(value) {
  return typeof value === "string" ? value : JSON.stringify(value);
}

function colourBar(state) {
  const radio = (mode) => h("label", null, h("input", {
    type: "radio", name: "colour", value: mode, checked: mode === state.mode,
    on: { change: () => choose(state, mode) } }), MODES[mode].label);
  state.radios = h("fieldset", { class: "modes" }, h("legend", null, "colour"), state.modes.map(radio));
  return h("div", { class: "colours" }, state.radios, state.legend, state.strip);
}

function choose(state, mode) {
  state.mode = mode;
  setQuery({ colour: mode });
  for (const input of state.radios.querySelectorAll("input")) input.checked = input.value === mode;
  paint(state);
  announce(`colour: ${MODES[mode].label}`);
}

function hint(state) {
  if (!state.tokens?.pieces) return state.tokens?.why || "The text as a whole: its tokens are not known.";
  return "Point at a token, or use the arrow keys.";
}

// The text as tokens, turn by turn; without a tokenizer whole.
function body(state) {
  const { tokens, answer } = state;
  const turns = answer.turns?.length ? answer.turns
    : [{ text: answer.text, shown: "", reward: 0, observed: 0, tokens: tokens?.of ?? state.row.tokens }];
  if (tokens?.pieces) {
    state.view = tokenView({
      first: tokens, of: tokens.of,
      page: async (from, count) => {
        const { kind, row } = state;
        const more = await state.source.sample(state.id, { kind, step: row.step, row: row.row, from, count });
        return more.tokens;
      },
      inspect: (token) => inspect(state, token),
    });
  }
  let from = 0;
  const blocks = turns.map((turn, i) => {
    const own = state.view ? state.view.turn(from, turn.tokens) : whole(state, turn.text);
    from += turn.tokens;
    return h("section", { class: "turn", "aria-label": `turn ${i + 1}` },
      turns.length > 1 ? h("h3", null, `turn ${i + 1} `, h("span", { class: "quiet" },
        plural(turn.tokens, "token"), turn.reward ? ` · reward ${signed(turn.reward)}` : "")) : null,
      own,
      turn.shown ? h("details", { class: "tool", open: turn.shown.length < 600 },
        h("summary", null, "the environment answered ",
          h("span", { class: "quiet" }, `${plural(turn.observed, "token")}, not trained`)),
        h("pre", { class: "text given" }, turn.shown)) : null);
  });
  return [blocks, answer.cut ? h("p", { class: "note" }, "The text is longer than what is shown here.") : null];
}

function whole(state, text) {
  state.whole ||= [];
  const element = h("div", { class: "tokens text" }, h("span", { class: "tok" }, text));
  state.whole.push(element.firstChild);
  return element;
}

function paint(state) {
  const { mode, row, tokens } = state;
  const values = mode === "none" ? [] : tokens?.[mode] || [row.advantage];
  const most = extent(mode, values);
  fill(state.legend, legendOf(mode, most));
  state.place.classList.toggle("masked", mode === "mask");
  state.view?.paint(mode, most);
  for (const element of state.whole || []) {
    const sign = row.advantage > 0 ? "p3" : row.advantage < 0 ? "m3" : "z";
    element.className = `tok ${mode === "advantage" && typeof row.advantage === "number" ? sign : ""}`;
  }
}

function inspect(state, token) {
  if (!token) return;
  const { entries } = Object;
  const numbers = entries(MODES)
    .filter(([mode]) => mode !== "none" && token[mode] !== null && token[mode] !== undefined)
    .map(([mode, { label, text }]) => [label, text(token[mode])]);
  if (token.logp !== null) numbers.push(["probability", number(Math.exp(token.logp))]);
  fill(state.strip,
    h("b", { class: "text" }, JSON.stringify(token.piece)), ` token ${token.i} · id ${token.ids.join(" ") || "–"}`,
    numbers.map(([name, value]) => h("span", null, `${name} `, h("b", { class: "n" }, value))));
}

function extras(row) {
  const entries = Object.entries(row.extras || {});
  if (!entries.length) return null;
  return h("details", { class: "extras" }, h("summary", null, "what else was recorded"),
    h("dl", { class: "facts" }, entries.map(([name, value]) =>
      h("div", null, h("dt", null, name), h("dd", null, written(value))))));
}
