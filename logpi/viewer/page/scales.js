// What a token's colour says: for each mode its numbers, and in which of the 11 steps of a scale a
// number falls. The colours stand in style.css: blue against orange, which every kind of colour
// vision tells apart, and one hue from pale to strong. Left out: drawing (`tokens.js`).

import { h } from "./dom.js";
import { number, signed } from "./format.js";

export const MODES = {
  advantage: { label: "advantage", diverging: true, text: signed,
    meaning: "blue: made more likely, orange: less" },
  logp: { label: "log-probability", diverging: false, text: number, flip: true,
    meaning: "the stronger, the less likely it was to the sampler" },
  entropy: { label: "entropy", diverging: false, text: number,
    meaning: "nats: the stronger, the less sure the policy was" },
  ratio: { label: "ratio", diverging: true, text: number, centre: 1,
    meaning: "new over old probability; plain: 1, blue: it rose, orange: it fell" },
  mask: { label: "mask", diverging: false, text: (v) => (v ? "trained" : "not trained"),
    meaning: "coloured: the policy's own, trained tokens; hatched: what it was given" },
  none: { label: "plain", diverging: false, text: () => "", meaning: "no colour" },
};

const STEPS = 5;

// The largest distance from the centre, which is the strongest colour.
export function extent(mode, values) {
  const centre = MODES[mode].centre || 0;
  let most = 0;
  for (const value of values || []) {
    if (value !== null && Number.isFinite(value)) most = Math.max(most, Math.abs(value - centre));
  }
  return most;
}

// The class of a token: with an extent of 2, advantage 2 is "p5", 0.1 "p1", 0 "z", −1 "m3".
export function shade(mode, value, most) {
  if (mode === "none" || value === null || value === undefined) return "";
  if (mode === "mask") return value ? "own" : "foreign";
  const distance = value - (MODES[mode].centre || 0);
  if (!distance || !most) return "z";
  const step = Math.min(STEPS, Math.ceil((STEPS * Math.abs(distance)) / most));
  if (!MODES[mode].diverging) return `s${step}`;
  return `${distance > 0 ? "p" : "m"}${step}`;
}

// The scale with its numbers at both ends.
export function legendOf(mode, most) {
  const { diverging, centre = 0, text, meaning, flip } = MODES[mode];
  const box = (name) => h("i", { class: `tok ${name}` });
  const steps = Array.from({ length: STEPS }, (_, i) => i + 1);
  let scale = null;
  if (mode === "mask") {
    scale = [box("own"), h("span", { class: "n" }, "trained"), box("foreign"), h("span", { class: "n" }, "not trained")];
  } else if (mode !== "none" && !most) {
    scale = [box("z"), ` all ${text(centre)}`];
  } else if (mode !== "none" && diverging) {
    scale = [h("span", { class: "n" }, text(centre - most)), steps.toReversed().map((s) => box(`m${s}`)), box("z"),
      steps.map((s) => box(`p${s}`)), h("span", { class: "n" }, text(centre + most))];
  } else if (mode !== "none") {
    scale = [h("span", { class: "n" }, text(0)), box("z"), steps.map((s) => box(`s${s}`)),
      h("span", { class: "n" }, text(flip ? -most : most))];
  }
  return h("p", { class: "scale" }, scale, " ", h("span", { class: "quiet" }, meaning));
}
