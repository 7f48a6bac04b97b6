// A group side by side: the answers to one prompt in one step, with rewards and advantages. What all
// of them begin with is dimmed, so that what differs stands out. Left out: tokens.

import { runCrumbs } from "./crumbs.js";
import { fill, h } from "./dom.js";
import { number, plural, signed, special } from "./format.js";
import { rewardMark } from "./page_responses.js";
import { messages } from "./prompts.js";
import { go, link, setQuery } from "./route.js";

const ORDERS = {
  row: ["as sampled", (a, b) => a.row - b.row],
  best: ["best first", (a, b) => (b.reward ?? -Infinity) - (a.reward ?? -Infinity)],
  length: ["shortest first", (a, b) => a.tokens - b.tokens],
};

const DIMS = { all: "dim what all begin with", best: "dim what the best begins with", none: "dim nothing" };

export async function groupPage(place, { source, query, id }) {
  const run = await source.run(id);
  const [step, group] = [query.get("step"), query.get("group")];
  const kind = query.get("kind") || "step";
  const answer = await source.group(id, { kind, step, group });
  runCrumbs(run, ["Responses", link(["run", id, "responses"])], [`step ${step} · group ${group}`, null]);
  const cards = h("div", { class: "cards" });
  const order = h("select", { "aria-label": "Order", value: query.get("order") || "row", on: {
    change: (e) => { setQuery({ order: e.target.value }); show(); } } },
    Object.entries(ORDERS).map(([name, [text]]) => h("option", { value: name }, text)));
  const most = Math.max(...answer.rows.map((r) => Math.abs(r.advantage || 0)), 0);
  const like = h("select", { "aria-label": "Dim", value: query.get("dim") || "all", on: {
    change: (e) => { setQuery({ dim: e.target.value === "all" ? "" : e.target.value }); show(); } } },
    Object.entries(DIMS).map(([name, text]) => h("option", { value: name }, text)));
  const best = [...answer.rows].sort(ORDERS.best[1])[0];
  const show = () => fill(cards, [...answer.rows].sort((ORDERS[order.value] || ORDERS.row)[1])
    .map((row) => card(id, row, dimmed(like.value, row, best, answer.common_prefix), most)));
  const first = answer.rows[0];
  fill(place,
    h("div", { class: "bar" }, h("h1", null, `Group ${group} of step ${step}`),
      h("span", { class: "quiet" }, summary(answer.rows)), h("span", { class: "push" }), like, order,
      first ? h("a", { class: "button", href: link(["run", id, "prompt"], { step, row: first.row }) }, "over training") : null),
    h("details", { class: "prompt", open: true }, h("summary", null, "prompt"), messages(answer.prompt)),
    cards);
  show();
  return {
    keys: {
      u: () => go(["run", id, "responses"]),
      p: () => first && go(["run", id, "prompt"], { step, row: first.row }),
    },
  };
}

function summary(rows) {
  const rewards = rows.map((r) => r.reward).filter((r) => r !== null);
  if (!rewards.length) return plural(rows.length, "answer");
  const mean = rewards.reduce((a, b) => a + b, 0) / rewards.length;
  const equal = rewards.every((r) => r === rewards[0]);
  return `${plural(rows.length, "answer")}, mean reward ${number(mean)}` +
    (equal && rows.length > 1 ? "; all equal, so it teaches nothing" : "");
}

// How many characters at the beginning of an answer are not its own.
function dimmed(choice, row, best, common) {
  if (choice === "none" || (choice === "best" && row === best)) return 0;
  if (choice === "all") return common;
  const [own, other] = [[...row.text], [...best.text]];
  let n = 0;
  while (n < own.length && own[n] === other[n]) n++;
  return n;
}

function card(id, row, common, most) {
  const text = [...(row.text ?? row.preview ?? "")]; // code points, as the server counts them
  return h("article", { class: "card", "aria-label": `row ${row.row}` },
    h("header", null, rewardMark(row.reward), bar(row.advantage, most),
      h("span", { class: "push" }),
      h("a", { href: link(["run", id, "response"], { kind: row.kind, step: row.step, row: row.row }) }, `row ${row.row}`)),
    h("p", { class: "quiet" }, plural(row.tokens, "token"), " · ",
      special(row) ? h("span", { class: "warn" }, special(row), " · ") : null,
      row.stop === "length" ? "cut off" : row.stop,
      Object.keys(row.rewards || {}).length > 1
        ? Object.entries(row.rewards).map(([name, value]) => ` · ${name} ${number(value)}`) : ""),
    h("div", { class: "text", tabindex: "0", role: "group", "aria-label": `answer of row ${row.row}` },
      h("span", { class: "dim" }, text.slice(0, common).join("")), text.slice(common).join(""),
      row.cut ? h("span", { class: "quiet" }, " … (longer)") : null));
}

// The advantage as a bar from the middle: to the right and blue, or to the left and orange.
function bar(advantage, most) {
  if (typeof advantage !== "number") return h("span", { class: "quiet" }, "advantage not recorded");
  const half = most ? (50 * Math.abs(advantage)) / most : 0;
  const fillBar = h("i", { class: advantage < 0 ? "neg" : "pos" });
  fillBar.style.width = `${half}%`;
  fillBar.style.left = `${advantage < 0 ? 50 - half : 50}%`;
  return h("span", { class: "advantage", title: "advantage" },
    h("span", { class: "track-bar" }, fillBar), h("b", { class: "n" }, signed(advantage)));
}
