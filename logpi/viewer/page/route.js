// The place in the page is the hash: `#/run/ID/responses?sort=best`. A link holds every filter.
// Left out: what is shown there (`main.js`).

// "#/run/a%2Fb?x=1" is { parts: ["run", "a/b"], query: URLSearchParams("x=1") }.
export function here() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  const parts = path.split("/").filter(Boolean).map(decoded);
  return { parts, query: new URLSearchParams(query || "") };
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

// link(["run", "a"], { step: 3, row: null }) is "#/run/a?step=3".
export function link(parts, query) {
  const words = new URLSearchParams();
  for (const [name, value] of Object.entries(query || {})) {
    if (value !== null && value !== undefined && value !== "") words.set(name, value);
  }
  const tail = words.toString();
  return `#/${parts.map(encodeURIComponent).join("/")}${tail ? `?${tail}` : ""}`;
}

export function go(parts, query) {
  location.hash = link(parts, query);
}

// The filters change and the page stays.
export function setQuery(changes) {
  const { parts, query } = here();
  const all = { ...Object.fromEntries(query), ...changes };
  history.replaceState(null, "", location.pathname + location.search + link(parts, all));
}
