// Where the reader is: the path of links in the header, the title of the tab, and the tabs of a run.
// Left out: routes (`route.js`).

import { fill, h, visible } from "./dom.js";
import { link } from "./route.js";

// crumbs([["Runs", "#/"], ["seed-1", null]]): the last one is the page itself.
export function crumbs(steps) {
  const place = document.getElementById("crumbs");
  const items = steps.map(([name, target]) =>
    h("li", null, target ? h("a", { href: target }, name) : h("span", { "aria-current": "page" }, name)));
  fill(place, h("ol", null, items));
  document.title = visible(`${steps.map(([name]) => name).reverse().join(" · ")} · logpi`);
}

export function runCrumbs(run, ...rest) {
  crumbs([["Runs", "#/"], [run.path, rest.length ? link(["run", run.id]) : null], ...rest]);
}

export const TABS = { curves: "Curves", responses: "Responses", results: "Results", about: "About" };

export function tabs(run, at) {
  const shown = Object.keys(TABS).filter((name) => {
    // What a gym run keeps of its evaluations are returns, without text.
    if (name === "responses") return run.samples && run.command !== "gym";
    if (name === "results") return run.pictures.length + run.tables.length + run.seeds.length > 0;
    return true;
  });
  return h("nav", { class: "tabs", "aria-label": "Parts of this run" }, shown.map((name) => {
    return h("a", { href: link(["run", run.id, name]), "aria-current": name === at ? "page" : null }, TABS[name]);
  }));
}
