// Elements from values: `h("p", { class: "quiet" }, "text")`. Everything that is shown becomes a text
// node, and characters that a reader cannot see, or that turn text around, become symbols: what a
// model wrote is never markup. Left out: any way to set markup or a style from text.

const PICTURED = /[\u0000-\u0008\u000b-\u001f\u007f]/; // they have a picture in Unicode
const HIDDEN = new RegExp(
  "[\\u0000-\\u0008\\u000b-\\u001f\\u007f-\\u009f\\u00ad\\u061c\\u180e\\u200b-\\u200f\\u2028-\\u202f" +
    "\\u2060-\\u206f\\ufeff\\ufff9-\\ufffb\\u{e0000}-\\u{e01ef}]|[\\ud800-\\udfff]",
  "gu",
);
const ATTRIBUTES_OF_TEXT = new Set(["title", "aria-label", "placeholder", "alt"]);
const SVG = "http://www.w3.org/2000/svg";

function symbol(character) {
  const code = character.codePointAt(0);
  if (PICTURED.test(character)) return String.fromCodePoint(code === 0x7f ? 0x2421 : 0x2400 + code);
  return `⟨U+${code.toString(16).toUpperCase().padStart(4, "0")}⟩`;
}

// visible("a\x1b[31m\u202e") is "a␛[31m⟨U+202E⟩"; new lines and tabs stay.
export function visible(text) {
  return String(text).replace(HIDDEN, symbol);
}

function add(element, child) {
  if (child === null || child === undefined || child === false) return;
  if (Array.isArray(child)) child.forEach((c) => add(element, c));
  else element.append(child instanceof Node ? child : document.createTextNode(visible(child)));
}

function set(element, name, value) {
  if (value === null || value === undefined || value === false) return;
  if (name === "on") {
    for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
  } else if (name === "data") {
    for (const [key, text] of Object.entries(value)) element.dataset[key] = text;
  } else if (name === "value" || name === "checked" || name === "disabled" || name === "open") {
    element[name] = value;
  } else if (name === "style" || name.startsWith("on")) {
    throw new Error(`${name} is not for h()`);
  } else {
    const text = value === true ? "" : String(value);
    element.setAttribute(name, ATTRIBUTES_OF_TEXT.has(name) ? visible(text) : text);
  }
}

function build(element, props, children) {
  for (const [name, value] of Object.entries(props || {})) {
    if (name !== "value") set(element, name, value);
  }
  add(element, children);
  if (props && "value" in props) set(element, "value", props.value); // a select needs its options
  return element;
}

export function h(tag, props, ...children) {
  return build(document.createElement(tag), props, children);
}

export function svg(tag, props, ...children) {
  return build(document.createElementNS(SVG, tag), props, children);
}

// New children in place of the old ones.
export function fill(element, ...children) {
  element.replaceChildren();
  add(element, children);
  return element;
}

export function announce(text) {
  const place = document.getElementById("announce");
  if (place && place.textContent !== text) place.textContent = visible(text);
}

// A button that copies, and says that it did.
export function copyButton(text, label) {
  const button = h("button", { type: "button", class: "small", title: label }, "copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "copied";
    } catch {
      button.textContent = "not allowed";
    }
    setTimeout(() => (button.textContent = "copy"), 1500);
  });
  return button;
}

export function debounced(milliseconds, call) {
  let timer = 0;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => call(...values), milliseconds);
  };
}
