// Light, dark, or as the system has it; and the colours that a canvas needs, which cannot read CSS.
// Left out: the colours themselves (style.css).

import { h } from "./dom.js";

const CHOICES = ["auto", "light", "dark"];
const listeners = new Set();

function stored() {
  try {
    return localStorage.getItem("logpi-theme") || "auto";
  } catch {
    return "auto";
  }
}

function apply(choice) {
  document.documentElement.dataset.theme = choice;
  for (const listener of listeners) listener();
}

export function startTheme() {
  apply(stored());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => apply(stored()));
}

// A select: it says what is chosen, which a button with an icon does not.
export function themeControl() {
  const choose = (event) => {
    try {
      localStorage.setItem("logpi-theme", event.target.value);
    } catch {
      // A page from a file may not store anything: the choice lasts until it is closed.
    }
    apply(event.target.value);
  };
  return h("select", { "aria-label": "Theme", class: "small", value: stored(), on: { change: choose } },
    CHOICES.map((c) => h("option", { value: c }, c)));
}

// Calls back when colours change; gives the function that ends it.
export function onTheme(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

// The i-th colour of a chart; after eight they begin anew.
export function lineColour(i) {
  return colour(`line-${i % 8}`);
}
