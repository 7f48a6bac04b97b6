// The form above a list of responses: its fields stand in the address, under the names that the
// server knows. Left out: the list (`page_responses.js`).

import { debounced, fill, h } from "./dom.js";
import { here, setQuery } from "./route.js";

export const NAMES = [
  ...["kind", "from", "to", "reward_min", "reward_max", "part", "part_min", "part_max", "stop"],
  ...["length_min", "length_max", "text", "sort"],
];
const NARROW = NAMES.filter((name) => !["kind", "text", "sort"].includes(name));
const SORTS = { newest: "newest", best: "best reward", worst: "worst reward", longest: "longest", shortest: "shortest" };

export function readFilters(query) {
  return Object.fromEntries(NAMES.map((name) => [name, query.get(name) || ""]));
}

// changed(): after each change, a moment later while someone types.
export function filterForm(kinds, changed) {
  const later = debounced(250, changed);
  const set = (name, value) => setQuery({ [name]: value });
  const { query } = here();
  const value = (name) => query.get(name) || "";
  const number = (name, label) => h("input", {
    type: "number", step: "any", class: "short", "aria-label": label, placeholder: label.split(" ").at(-1),
    value: value(name), on: { input: (e) => { set(name, e.target.value); later(); } },
  });
  const choice = (name, label, words) => h("select", {
    "aria-label": label, value: value(name) || words[0][0],
    on: { change: (e) => { set(name, e.target.value); changed(); } },
  }, words.map(([word, text]) => h("option", { value: word }, text)));
  const between = (name, low, high, what) => h("fieldset", null, h("legend", null, what),
    number(low, `${name} from`), "–", number(high, `${name} to`));
  const text = h("input", {
    type: "search", "data-filter": true, "aria-label": "Text of prompt or response",
    placeholder: "text  ( / )", value: value("text"),
    on: { input: (e) => { set("text", e.target.value); later(); } },
  });
  const part = h("select", { "aria-label": "Reward part", on: {
    change: (e) => { set("part", e.target.value); changed(); } } });
  const stop = h("select", { "aria-label": "How it stopped", on: {
    change: (e) => { set("stop", e.target.value); changed(); } } });
  const form = h("form", { class: "filters", "aria-label": "Filters", on: { submit: (e) => e.preventDefault() } },
    kinds.length > 1 ? choice("kind", "Kind", kinds.map((k) => [k, k === "eval" ? "evaluation" : "training"])) : null,
    choice("sort", "Order", Object.entries(SORTS)), text,
    h("details", { open: innerWidth > 700 || NARROW.some(value) },
      h("summary", null, "narrow down"),
      h("div", { class: "fields" },
        between("step", "from", "to", "step"), between("reward", "reward_min", "reward_max", "reward"),
        between("length", "length_min", "length_max", "tokens"), stop,
        h("fieldset", { class: "part" }, h("legend", null, "part"), part,
          number("part_min", "part from"), "–", number("part_max", "part to")),
        h("button", { type: "button", class: "small", on: { click: () => clear(form, changed) } }, "clear"))));
  return { element: form, names: (parts, stops) => names(form, { part, stop }, parts, stops) };
}

function clear(form, changed) {
  setQuery(Object.fromEntries(NAMES.filter((n) => n !== "kind").map((name) => [name, ""])));
  for (const field of form.querySelectorAll("input")) field.value = "";
  for (const field of form.querySelectorAll("select")) if (field.ariaLabel !== "Kind") field.selectedIndex = 0;
  changed();
}

// The choices of parts and stop reasons are known once something was read.
function names(form, { part, stop }, parts, stops) {
  const { query } = here();
  choices(part, [["", "any part"], ...parts.map((p) => [p, p])], query.get("part") || "");
  choices(stop, [["", "any end"], ...stops.map((s) => [s, s])], query.get("stop") || "");
  form.querySelector(".part").hidden = parts.length < 1;
}

function choices(select, words, value) {
  const all = words.some(([word]) => word === value) ? words : [...words, [value, value]];
  const written = JSON.stringify([all, value]);
  if (select.dataset.written === written) return;
  select.dataset.written = written;
  fill(select, all.map(([word, text]) => h("option", { value: word }, text)));
  select.value = value;
}
