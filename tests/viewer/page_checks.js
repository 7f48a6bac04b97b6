// Checks of a page in a browser, each giving a list of complaints. Left out: whether what stands
// there is right.

(() => {
  const shown = (e) => e.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true });
  const where = (e) => `<${e.tagName.toLowerCase()} class="${e.className}"> ${e.textContent.slice(0, 40)}`;

  // What a screen reader would say of a control.
  const nameOf = (e) =>
    (e.getAttribute("aria-label") || [...(e.labels || [])].map((l) => l.textContent).join(" ") ||
      e.textContent || e.getAttribute("alt") || "").trim();

  function structure() {
    const complaints = [];
    const is = (selector, count) => {
      const found = [...document.querySelectorAll(selector)].filter(shown).length;
      if (found !== count) complaints.push(`${found} × ${selector}`);
    };
    is("main", 1);
    is("h1", 1);
    is("header#top", 1);
    if (!document.title || document.documentElement.lang !== "en") complaints.push("title or language");
    for (const e of document.querySelectorAll("button, a[href], input, select, textarea, summary, [role=region], [role=group], figure.panel")) {
      if (shown(e) && !nameOf(e)) complaints.push(`no name: ${where(e)}`);
    }
    for (const e of document.querySelectorAll("img")) if (!e.alt) complaints.push(`no alt: ${where(e)}`);
    for (const e of document.querySelectorAll("th")) if (!e.scope && !e.closest("dialog")) complaints.push(`no scope: ${where(e)}`);
    for (const e of document.querySelectorAll("[id]")) {
      if (document.querySelectorAll(`#${CSS.escape(e.id)}`).length > 1) complaints.push(`twice: #${e.id}`);
    }
    for (const e of document.querySelectorAll("[style]")) if (e.getAttribute("onclick")) complaints.push(where(e));
    return complaints;
  }

  // Any colour of CSS as [r, g, b, a], by drawing it.
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  function rgba(css) {
    canvas.canvas.width = canvas.canvas.height = 1;
    canvas.fillStyle = css;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  }

  function background(element) {
    const layers = [];
    for (let e = element; e; e = e.parentElement) {
      const colour = rgba(getComputedStyle(e).backgroundColor);
      if (colour[3] > 0) layers.push(colour);
      if (colour[3] >= 0.999) break;
    }
    return layers.reduceRight((below, [r, g, b, a]) =>
      [r, g, b].map((v, i) => a * v + (1 - a) * below[i]), [255, 255, 255]);
  }

  function luminance(rgb) {
    const [r, g, b] = rgb.map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  }

  // WCAG AA: 4.5, for all text that is not of a disabled control.
  function contrast() {
    const complaints = new Set();
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
      const e = node.parentElement;
      if (!node.data.trim() || !shown(e) || e.closest(":disabled, option, .hidden, .skip, noscript")) continue;
      const back = background(e);
      const [r, g, b, a] = rgba(getComputedStyle(e).color);
      const front = [r, g, b].map((v, i) => a * v + (1 - a) * back[i]);
      const [x, y] = [luminance(front), luminance(back)].sort((p, q) => q - p);
      const ratio = (x + 0.05) / (y + 0.05);
      if (ratio < 4.5) complaints.add(`${ratio.toFixed(2)}: ${where(e)}`);
    }
    return [...complaints];
  }

  function narrow() {
    const wide = document.documentElement.scrollWidth - innerWidth;
    return wide > 0 ? [`${wide} pixels too wide`] : [];
  }

  window.checks = { structure, contrast, narrow };
})();
