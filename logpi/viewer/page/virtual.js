// A long list of rows of one height, of which only those in sight exist. Rows come in pages, when
// they are scrolled to. Left out: what a row shows, and where it comes from.
//
//     const list = virtual({ height: 64, page: 50, fetch: (offset) → rows, row: (row, i) → element })
//     list.reset(total, rows)      // after a new filter: the first page is there already

import { fill, h } from "./dom.js";

const SPARE = 8; // rows above and below those in sight

export function virtual({ height, page, fetch, row }) {
  const track = h("div", { class: "track" });
  const element = h("div", { class: "virtual", tabindex: "0", role: "region", "aria-label": "Responses" }, track);
  const state = { total: 0, pages: new Map(), waiting: new Set(), drawn: "", turn: 0 };
  const rowHeight = () => (typeof height === "function" ? height() : height);

  function known(i) {
    return state.pages.get(Math.floor(i / page))?.[i % page];
  }

  async function want(number) {
    if (state.pages.has(number) || state.waiting.has(number)) return;
    state.waiting.add(number);
    const turn = state.turn;
    try {
      const rows = await fetch(number * page);
      if (turn === state.turn) state.pages.set(number, rows);
    } catch {
      // The next look at the server says what is wrong.
    } finally {
      if (turn === state.turn) {
        state.waiting.delete(number);
        draw(true);
      }
    }
  }

  function draw(anew) {
    const size = rowHeight();
    const first = Math.max(0, Math.floor(element.scrollTop / size) - SPARE);
    const end = Math.min(state.total, Math.ceil((element.scrollTop + element.clientHeight) / size) + SPARE);
    const drawn = `${first}-${end}-${size}`;
    if (!anew && drawn === state.drawn) return;
    state.drawn = drawn;
    track.style.height = `${state.total * size}px`;
    for (let p = Math.floor(first / page); p * page < end; p++) want(p);
    const focus = track.contains(document.activeElement) ? document.activeElement.closest("[data-i]")?.dataset.i : null;
    fill(track, Array.from({ length: Math.max(0, end - first) }, (_, k) => placed(first + k, size)));
    if (focus) track.querySelector(`[data-i="${focus}"] a`)?.focus({ preventScroll: true });
  }

  function placed(i, size) {
    const item = h("div", { class: "item", data: { i } }, known(i) ? row(known(i), i) : h("p", { class: "quiet" }, "…"));
    item.style.transform = `translateY(${i * size}px)`;
    item.style.height = `${size}px`;
    return item;
  }

  element.addEventListener("scroll", () => draw(false), { passive: true });
  const sizes = new ResizeObserver(() => draw(true));
  sizes.observe(element);
  return {
    element,
    known,
    total: () => state.total,
    top: () => element.scrollTop,
    // keep: the same filter with newer rows, so the reader stays where he is.
    reset: (total, rows, keep) => {
      state.turn++;
      Object.assign(state, { total, pages: new Map([[0, rows]]), waiting: new Set() });
      if (!keep) element.scrollTop = 0;
      draw(true);
    },
    close: () => sizes.disconnect(),
  };
}
