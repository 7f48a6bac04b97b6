// The list of keys, as a dialog. Left out: what the keys do (`main.js` and the pages).

import { h } from "./dom.js";

const KEYS = [
  ["j  k", "next and previous response"],
  ["[  ]", "what colours the tokens"],
  ["←  →", "the token before and after, once the text has the focus"],
  ["g", "the group: all answers to this prompt in this step"],
  ["p", "this prompt's answers over training"],
  ["u", "up: from a response to the list, from the list to the run"],
  ["/", "to the filter"],
  ["Esc", "out of a field, or close this list"],
  ["?", "this list"],
];

let dialog = null;

export function showHelp() {
  if (closeHelp()) return;
  const close = h("button", { type: "button", on: { click: closeHelp } }, "Close");
  dialog = h("dialog", { "aria-label": "Keys" },
    h("h2", null, "Keys"),
    h("table", null, h("tbody", null, KEYS.map(([keys, what]) =>
      h("tr", null,
        h("th", { scope: "row" }, keys.split("  ").map((key) => [h("kbd", null, key), " "])),
        h("td", null, what))))),
    close);
  dialog.addEventListener("close", () => closeHelp());
  document.body.append(dialog);
  dialog.showModal();
}

// Whether there was one.
export function closeHelp() {
  if (!dialog) return false;
  const old = dialog;
  dialog = null;
  old.remove();
  return true;
}
