// A response as coloured tokens, also when it has ten thousand: the text stands in blocks of some
// hundred tokens; a block far from the window is an empty box of its height, and its tokens come from
// the server when it is near. Left out: which colours (`scales.js`), the page around it.
//
//     const view = tokenView({ of, page: (from, count) → tokens, inspect: (token) → … })
//     view.turn(from, count) → element of these tokens;  view.paint("entropy")

import { h, visible } from "./dom.js";
import { shade } from "./scales.js";

const BLOCK = 400;
const FETCHED = 2000; // tokens asked for at once
const COLUMNS = ["advantage", "logp", "entropy", "ratio", "mask"];

// A character of several tokens stands at the last of them: the others have no text, hence no place.
//     ids 40 229 7   pieces "a" "" "é"     →   "a" of 40, none, "é" of 229 7
export function tokensOf(answer) {
  let begun = [];
  return answer.pieces.map((piece, k) => {
    begun.push(answer.ids?.[k]);
    if (piece === "") return false;
    const token = { i: (answer.from || 0) + k, piece, ids: begun.filter((id) => id !== undefined) };
    for (const name of COLUMNS) token[name] = answer[name]?.[k] ?? null;
    begun = [];
    return token;
  });
}

export function tokenView({ first, of, page, inspect }) {
  const state = { tokens: new Array(of).fill(null), blocks: [], asked: new Map(), mode: "none", most: 0, at: null };
  const near = new IntersectionObserver((entries) => entries.forEach((entry) => {
    const block = state.blocks.find((b) => b.element === entry.target);
    if (!block) return;
    block.near = entry.isIntersecting;
    if (block.near) show(block);
    else empty(block);
  }), { rootMargin: "1200px" });
  store(state, first);

  function show(block) {
    const missing = firstMissing(state, block);
    if (missing !== null) return ask(missing);
    if (block.full) return;
    block.full = true;
    block.element.style.minHeight = "";
    const spans = [];
    for (let i = block.from; i < block.end; i++) if (state.tokens[i]) spans.push(span(i));
    block.element.replaceChildren(...spans);
  }

  function empty(block) {
    if (!block.full || block.element.contains(document.activeElement)) return;
    block.element.style.minHeight = `${block.element.offsetHeight}px`;
    block.element.replaceChildren();
    block.full = false;
  }

  async function ask(from) {
    const start = Math.floor(from / FETCHED) * FETCHED;
    if (state.asked.has(start)) return;
    state.asked.set(start, true);
    try {
      store(state, await page(start, FETCHED));
    } catch {
      state.asked.delete(start); // the next look tries again
      return;
    }
    for (const block of state.blocks) if (block.near) show(block);
  }

  function span(i) {
    const token = state.tokens[i];
    const text = h("span", { class: `tok ${shade(state.mode, token[state.mode], state.most)}`, data: { i } });
    text.textContent = pieceText(token.piece);
    if (text.textContent !== token.piece) text.classList.add("odd");
    return text;
  }

  function repaint() {
    for (const block of state.blocks) {
      if (!block.full) continue;
      for (const element of block.element.children) {
        const token = state.tokens[element.dataset.i];
        const kept = ["odd", "at"].filter((name) => element.classList.contains(name));
        element.className = ["tok", shade(state.mode, token[state.mode], state.most), ...kept].join(" ");
      }
    }
  }

  function select(i) {
    document.querySelector(".tok.at")?.classList.remove("at");
    state.at = i;
    const element = document.querySelector(`.tokens .tok[data-i="${i}"]`);
    element?.classList.add("at");
    element?.scrollIntoView({ block: "nearest" });
    inspect(state.tokens[i]);
  }

  function hover(event) {
    const i = event.target.dataset?.i;
    if (i !== undefined && state.tokens[i]) inspect(state.tokens[i]);
  }

  function key(event) {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    const own = event.currentTarget.querySelector(".tok");
    let i = state.at ?? (own ? Number(own.dataset.i) - by : -by);
    do i += by; while (i >= 0 && i < of && !state.tokens[i]);
    if (i >= 0 && i < of) select(i);
  }

  // The element of some tokens, as blocks.
  function turn(from, count) {
    const element = h("div", {
      class: "tokens text", tabindex: "0", role: "group",
      "aria-label": `${count} tokens; arrow keys read their numbers`,
      on: { mouseover: hover, keydown: key, click: (e) => e.target.dataset?.i && select(Number(e.target.dataset.i)) },
    });
    for (let at = from; at < from + count; at += BLOCK) {
      const block = { from: at, end: Math.min(at + BLOCK, from + count), element: h("span", { class: "block" }) };
      const lines = Math.ceil((block.end - block.from) / 16);
      block.element.style.minHeight = `${lines * 1.6}em`;
      state.blocks.push(block);
      element.append(block.element);
      near.observe(block.element);
    }
    return element;
  }

  return {
    turn,
    paint: (mode, most) => { Object.assign(state, { mode, most }); repaint(); },
    known: () => state.tokens.filter(Boolean),
    close: () => near.disconnect(),
  };
}

function store(state, answer) {
  if (!answer?.pieces) return;
  const from = answer.from || 0;
  tokensOf(answer).forEach((token, k) => (state.tokens[from + k] = token));
}

function firstMissing(state, block) {
  for (let i = block.from; i < block.end; i++) if (state.tokens[i] === null) return i;
  return null;
}

// A token that is only white space would not be seen: a new line shows its sign and breaks.
function pieceText(piece) {
  return visible(piece).replaceAll("\n", "↵\n");
}
