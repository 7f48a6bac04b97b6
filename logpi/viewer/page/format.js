// Numbers, times and states in few characters. Left out: units of single metrics.

import { h } from "./dom.js";

// number(0.123456) is "0.1235", number(12345.6) "12,346", number(null) "–".
export function number(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (typeof value !== "number") return String(value);
  const size = Math.abs(value);
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  if (Number.isInteger(value) && size < 1e7) return minus(value.toLocaleString("en"));
  if (size !== 0 && (size < 1e-3 || size >= 1e7)) {
    return minus(value.toExponential(2).replace("e+", "e"));
  }
  if (size >= 1000) return minus(Math.round(value).toLocaleString("en"));
  return minus(String(Number(value.toPrecision(4))));
}

function minus(text) {
  return text.replaceAll("-", "−");
}

export function signed(value) {
  return typeof value === "number" && value > 0 ? `+${number(value)}` : number(value);
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "–";
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min${s < 600 && s % 60 ? ` ${s % 60} s` : ""}`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

export function ago(unix) {
  if (!unix) return "–";
  const seconds = Date.now() / 1000 - unix;
  return seconds < 5 ? "now" : `${duration(seconds).split(" ").slice(0, 2).join(" ")} ago`;
}

export function clock(unix) {
  return unix ? new Date(unix * 1000).toLocaleString() : "–";
}

export function plural(count, noun) {
  return `${number(count)} ${noun}${count === 1 ? "" : "s"}`;
}

// Special tokens that count but that the text does not show, but for the one that ends it.
export function special(row) {
  return row.special?.length ? `+${row.special.length} special: ${row.special.join(" ")}` : null;
}

const STATES = {
  running: "a process is writing it now",
  done: "it reached its last step",
  stopped: "it ended before its last step; --resume goes on",
  collapsed: "the reward was there and went away",
  unreadable: "its files cannot be read",
};

export function badge(state) {
  return h("span", { class: `badge ${state in STATES ? state : ""}`, title: STATES[state] }, state);
}

// The share of a list of words that a row must hold: every one of them, in any order.
export function holds(text, words) {
  const low = text.toLowerCase();
  return words
    .toLowerCase()
    .split(/\s+/)
    .every((word) => low.includes(word));
}

export function table(columns, rows, caption) {
  const cell = (value, i) =>
    h(i === 0 ? "th" : "td", { class: typeof value === "number" ? "n" : null, scope: i === 0 ? "row" : null },
      typeof value === "number" ? number(value) : value === null ? "–" : value);
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h("table", { class: "data" },
      h("caption", { class: "hidden" }, caption),
      h("thead", null, h("tr", null, columns.map((c) => h("th", { scope: "col" }, c)))),
      h("tbody", null, rows.map((row) => h("tr", null, row.map(cell))))));
}
