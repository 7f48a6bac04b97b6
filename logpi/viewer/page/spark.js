// A curve of a few pixels, without axes. Left out: everything that needs a scale (`chart.js`).

import { svg } from "./dom.js";
import { number } from "./format.js";

export function spark(values, width = 96, height = 22) {
  const known = values.filter((v) => v !== null);
  if (known.length < 2) return null;
  const [low, high] = [Math.min(...known), Math.max(...known)];
  const x = (i) => 2 + (i / (values.length - 1)) * (width - 6);
  const y = (v) => (high === low ? height / 2 : 3 + (1 - (v - low) / (high - low)) * (height - 6));
  const points = values.map((v, i) => (v === null ? null : [x(i), y(v)])).filter(Boolean);
  const [endX, endY] = points[points.length - 1];
  return svg(
    "svg",
    {
      class: "spark", viewBox: `0 0 ${width} ${height}`, width, height, role: "img",
      "aria-label": `from ${number(known[0])} to ${number(known.at(-1))}`,
    },
    svg("polyline", { points: points.map((p) => p.map((c) => c.toFixed(1)).join()).join(" ") }),
    svg("circle", { cx: endX.toFixed(1), cy: endY.toFixed(1), r: 2 }),
  );
}
