// Where the page's data come from: one interface, whether a server answers or files were written
// beside the page (`source_files.js`).
//
//     runs()  run(id)  objective(id)  metrics(id, names, after)  samples(id, query)
//     sample(id, query)  group(id, query)  prompt(id, query)  compare(ids)  picture(id, name)
//
// Every method gives a promise of what the server's route of that name answers, and fails with a
// Failure. Left out: when to ask, and how answers are shown.

import { filesSource } from "./source_files.js";

export class Failure extends Error {
  // status: of the answer; 0: there was none.
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

// The token comes with the first address; a tab keeps it when the address loses it.
function token() {
  const given = new URLSearchParams(location.search).get("token");
  try {
    if (given) sessionStorage.setItem("token", given);
    return given || sessionStorage.getItem("token") || "";
  } catch {
    return given || "";
  }
}

async function ask(path, query) {
  const words = new URLSearchParams();
  for (const [name, value] of Object.entries(query || {})) {
    if (value !== null && value !== undefined && value !== "") words.set(name, value);
  }
  const tail = words.toString();
  let answer;
  try {
    answer = await fetch(`api/${path}${tail ? `?${tail}` : ""}`, {
      headers: { "X-Token": token() },
      cache: "no-store",
    });
  } catch {
    throw new Failure("the server does not answer", 0);
  }
  if (answer.ok) return answer;
  const said = await answer.json().catch(() => ({}));
  throw new Failure(said.error || `the server answered ${answer.status}`, answer.status);
}

async function json(path, query) {
  return (await ask(path, query)).json();
}

function httpSource() {
  const of = (id, rest) => `run/${encodeURIComponent(id)}${rest}`;
  return {
    live: true,
    runs: () => json("runs"),
    run: (id) => json(of(id, "")),
    objective: (id) => json(of(id, "/objective")),
    metrics: (id, names, after) => json(of(id, "/metrics"), { names: names.join(","), after }),
    samples: (id, query) => json(of(id, "/samples"), query),
    sample: (id, query) => json(of(id, "/sample"), query),
    group: (id, query) => json(of(id, "/group"), query),
    prompt: (id, query) => json(of(id, "/prompt"), query),
    compare: (ids) => json("compare", { ids: ids.join(",") }),
    picture: async (id, name) =>
      URL.createObjectURL(await (await ask(of(id, "/file"), { name })).blob()),
  };
}

export function makeSource() {
  return window.__logpi ? filesSource(window.__logpi, Failure) : httpSource();
}
