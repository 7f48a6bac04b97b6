// The frame: which page the hash names, what it is told when time passes and keys are pressed, and
// what is said when the server is gone. Left out: the pages themselves (`page_*.js`).
//
// A page is a function `(place, context) → Promise<{ tick?, close?, keys? }>`: it fills `place`.

import { crumbs, TABS } from "./crumbs.js";
import { announce, fill, h } from "./dom.js";
import { closeHelp, showHelp } from "./help.js";
import { comparePage } from "./page_compare.js";
import { groupPage } from "./page_group.js";
import { promptPage } from "./page_prompt.js";
import { responsePage } from "./page_response.js";
import { responsesPage } from "./page_responses.js";
import { runPage } from "./page_run.js";
import { runsPage } from "./page_runs.js";
import { here } from "./route.js";
import { makeSource } from "./source.js";
import { startTheme, themeControl } from "./theme.js";

const EVERY = 3000; // milliseconds between looks at the server
const IN_A_RUN = {
  responses: responsesPage,
  response: responsePage,
  group: groupPage,
  prompt: promptPage,
};

const app = { source: null, page: null, turn: 0, lost: false };

function pageOf(parts) {
  if (!parts.length) return runsPage;
  if (parts[0] === "compare") return comparePage;
  if (parts[0] !== "run" || parts.length < 2) return unknownPage;
  return IN_A_RUN[parts[2]] || (!parts[2] || parts[2] in TABS ? runPage : unknownPage);
}

function unknownPage(place, { parts }) {
  crumbs([["Runs", "#/"], ["no such page", null]]);
  fill(place, h("section", { class: "empty" }, h("h1", null, "There is no such page"),
    h("p", null, `This address names no page: #/${parts.join("/")}`),
    h("p", null, h("a", { href: "#/" }, "All runs"))));
  return {};
}

// Pages are built one at a time; who comes too late is closed at once.
async function show() {
  const turn = ++app.turn;
  const { parts, query } = here();
  app.page?.close?.();
  app.page = null;
  const main = document.getElementById("main");
  const context = { source: app.source, parts, query, id: parts[1], current: () => turn === app.turn };
  try {
    const place = h("div", null);
    const page = await pageOf(parts)(place, context);
    if (turn !== app.turn) return page?.close?.();
    app.page = page;
    fill(main, place);
    found();
  } catch (error) {
    if (turn === app.turn) fill(main, trouble(error));
  }
  scrollTo(0, 0);
}

function trouble(error) {
  if (error.status === undefined) console.error(error);
  if (error.status === 0) lose();
  if (error.status === 404) crumbs([["Runs", "#/"], ["not there", null]]);
  const again = h("button", { type: "button", on: { click: show } }, "Try again");
  const advice = {
    0: "The server does not answer. Is `logpi view` still running? The page goes on when it is back.",
    403: "Open the address that `logpi view` printed: it holds the token of this server.",
    404: "It may have been deleted or renamed while this page was open.",
  };
  return h("section", { class: "empty" },
    h("h1", null, "This cannot be shown"), h("p", { role: "alert" }, error.message),
    h("p", { class: "quiet" }, advice[error.status] || ""),
    h("p", null, again, " ", h("a", { href: "#/" }, "All runs")));
}

function lose() {
  if (app.lost) return;
  app.lost = true;
  document.getElementById("lost").hidden = false;
  announce("The server does not answer. Reconnecting.");
}

function found() {
  if (!app.lost) return;
  app.lost = false;
  document.getElementById("lost").hidden = true;
  announce("The server answers again.");
}

async function tick() {
  if (!document.hidden) {
    const page = app.page;
    try {
      if (page?.tick) await page.tick();
      else if (app.lost) await show();
      if (page?.tick) found();
    } catch (error) {
      if (error.status === 0) lose();
      else if (page === app.page && error.status === 404) {
        app.page?.close?.();
        app.page = null;
        fill(document.getElementById("main"), trouble(error));
      } else if (error.status === undefined) console.error(error);
    }
  }
  setTimeout(tick, EVERY);
}

function typing(target) {
  return target instanceof HTMLElement && /^(INPUT|SELECT|TEXTAREA)$/.test(target.tagName);
}

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") {
    if (!closeHelp() && typing(event.target)) event.target.blur();
    return;
  }
  if (typing(event.target)) return;
  if (event.key === "?") showHelp();
  else if (event.key === "/") focusFilter();
  else if (app.page?.keys?.[event.key]) app.page.keys[event.key]();
  else return;
  event.preventDefault();
}

function focusFilter() {
  document.querySelector("[data-filter]")?.focus();
}

function frame() {
  const lost = h("span", { id: "lost", class: "lost", hidden: true }, "server gone, reconnecting…");
  fill(document.getElementById("top"),
    h("a", { class: "brand", href: "#/", "aria-label": "logpi: all runs" }, h("b", null, "∇"), "logpi"),
    h("nav", { id: "crumbs", "aria-label": "Where you are" }), lost,
    h("span", { class: "push" }), themeControl(),
    h("button", { type: "button", class: "small", "aria-label": "Keys", on: { click: showHelp } }, "?"));
  const note = app.source.note;
  if (note) fill(document.getElementById("foot"), h("p", { class: "quiet" }, note));
}

function start() {
  startTheme();
  app.source = makeSource();
  frame();
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault(); // the hash is the page's address
    document.getElementById("main").focus();
  });
  addEventListener("hashchange", show);
  document.addEventListener("keydown", pressed);
  show();
  if (app.source.live) setTimeout(tick, EVERY);
}

start();
