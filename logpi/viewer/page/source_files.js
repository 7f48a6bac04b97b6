// The data of a page that was written to a folder (`logpi view --static DIR`) and is opened from
// there: a browser lets such a page load scripts only, so the data are scripts.
//
//     data/index.js          window.__logpi = { note, runs, files: { ID: { parts: […], pictures: {…} } } }
//     data/ID/run.js         __logpi.put("ID/run", run);  …("ID/objective", …)
//     data/ID/metrics.js     __logpi.put("ID/metrics", { step, columns })
//     data/ID/samples.js     __logpi.put("ID/samples", [{ row, turns, tokens, text } …])
//
// The page holds some of the responses and says so. Left out: a live run.

import { meanOverRuns } from "./series.js";

const EMPTY = { step: [], columns: {} };

export function filesSource(store, Failure) {
  store.parts ||= {};
  store.put = (name, value) => (store.parts[name] = value);
  const waiting = new Map();

  function script(path) {
    if (!waiting.has(path)) {
      waiting.set(path, new Promise((resolve, reject) => {
        const element = document.createElement("script");
        element.src = path;
        element.onload = resolve;
        element.onerror = () => reject(new Failure(`${path} is missing beside this page`, 404));
        document.head.append(element);
      }));
    }
    return waiting.get(path);
  }

  async function part(id, name, otherwise) {
    if (!store.files[id]) throw new Failure("this page holds no such run", 404);
    if (store.files[id].parts.includes(name)) await script(`data/${id}/${name}.js`);
    return store.parts[`${id}/${name}`] ?? otherwise;
  }

  async function entries(id, kind) {
    return (await part(id, "samples", [])).filter((e) => e.row.kind === kind);
  }

  async function one(id, { kind = "step", step, row }) {
    const all = await entries(id, kind);
    const at = all.findIndex((e) => e.row.step === Number(step) && e.row.row === Number(row));
    if (at < 0) throw new Failure("this page does not hold that response: see its note", 404);
    const place = (e) => (e ? { step: e.row.step, row: e.row.row } : null);
    return { ...all[at], previous: place(all[at - 1]), next: place(all[at + 1]) };
  }

  return {
    live: false,
    note: store.note,
    runs: async () => store.runs,
    run: (id) => part(id, "run"),
    objective: async (id) => {
      await part(id, "run");
      return store.parts[`${id}/objective`] || { why: "this page holds no objective" };
    },
    metrics: async (id, names, after) => {
      const all = await part(id, "metrics", EMPTY);
      const columns = Object.fromEntries(names.map((name) => [name, all.columns[name] || []]));
      return after ? { step: [], columns: {}, end: after, rewound: false }
        : { step: all.step, columns, end: 1, rewound: false };
    },
    samples: async (id, query) => filtered(await entries(id, query.kind || "step"), query),
    sample: one,
    group: async (id, { step, group }) => {
      const some = (await entries(id, "step")).filter(
        (e) => e.row.step === Number(step) && e.row.group === Number(group));
      if (!some.length) throw new Failure("this page does not hold that group: see its note", 404);
      const rows = some.map((e) => ({ ...e.row, text: e.text }));
      return { rows, prompt: some[0].row.prompt, common_prefix: commonPrefix(rows.map((r) => r.text)) };
    },
    prompt: async (id, query) => {
      const { row } = await one(id, query);
      const same = JSON.stringify(row.prompt);
      const rows = (await entries(id, "step")).map((e) => e.row)
        .filter((r) => JSON.stringify(r.prompt) === same);
      const steps = [...new Set(rows.map((r) => r.step))].sort((a, b) => a - b);
      return { prompt: row.prompt, complete: true,
        steps: steps.map((step) => ({ step, rows: rows.filter((r) => r.step === step) })) };
    },
    compare: async (ids) => compare(await Promise.all(ids.map((id) => part(id, "run")))),
    picture: async (id, name) => store.files[id].pictures[name],
  };
}

function commonPrefix(texts) {
  let n = 0;
  while (n < texts[0].length && texts.every((t) => t[n] === texts[0][n])) n++;
  return texts.length > 1 ? n : 0;
}

const SORTS = {
  newest: (a, b) => b.step - a.step || a.row - b.row,
  best: (a, b) => (b.reward ?? -Infinity) - (a.reward ?? -Infinity),
  worst: (a, b) => (a.reward ?? Infinity) - (b.reward ?? Infinity),
  longest: (a, b) => b.tokens - a.tokens,
  shortest: (a, b) => a.tokens - b.tokens,
};

function within(value, low, high) {
  if (low === "" && high === "") return true;
  if (value === null || value === undefined) return false;
  return (low === "" || value >= Number(low)) && (high === "" || value <= Number(high));
}

function filtered(all, query) {
  const q = { from: "", to: "", reward_min: "", reward_max: "", part: "", part_min: "", part_max: "",
    stop: "", length_min: "", length_max: "", text: "", sort: "newest", ...query };
  const words = q.text.toLowerCase();
  const rows = all.filter(({ row, text }) =>
    within(row.step, q.from, q.to) && within(row.reward, q.reward_min, q.reward_max) &&
    within(row.tokens, q.length_min, q.length_max) && (!q.stop || row.stop === q.stop) &&
    (!q.part || (q.part in (row.rewards || {}) && within(row.rewards[q.part], q.part_min, q.part_max))) &&
    (!words || `${JSON.stringify(row.prompt)} ${text}`.toLowerCase().includes(words)),
  ).map((e) => e.row).sort(SORTS[q.sort] || SORTS.newest);
  const from = Number(q.offset) || 0;
  const names = (values) => [...new Set(values)].sort();
  return {
    rows: rows.slice(from, from + (Number(q.limit) || 50)), matched: rows.length,
    scanned: all.length, of: all.length, complete: true,
    parts: names(all.flatMap((e) => Object.keys(e.row.rewards || {}))), stops: names(all.map((e) => e.row.stop)),
  };
}

// ------------------------------------------------------------------------------- comparison

// What `/api/compare` answers, from what this page holds: last rewards, no evaluation.
function compare(runs) {
  const said = (run, name) => run.arguments[name] ?? null;
  const names = [...new Set(runs.flatMap((run) => Object.keys(run.arguments)))].filter((n) => n !== "out");
  const differing = names.map((name) => [name, runs.map((run) => said(run, name))])
    .filter(([, values]) => new Set(values.map((v) => JSON.stringify(v))).size > 1);
  const groups = new Map();
  for (const run of runs) {
    const rest = Object.entries(run.arguments).filter(([name]) => !["out", "seed"].includes(name));
    const key = JSON.stringify([run.command, rest.sort()]);
    groups.set(key, [...(groups.get(key) || []), run]);
  }
  const all = [...groups.values()];
  return {
    runs, differing,
    groups: all.map((some) => ({
      label: some.length > 1 ? `${some[0].algorithm || some[0].command}` : some[0].path,
      ids: some.map((run) => run.id),
      seeds: bySeed(some).map((same) => same.map((run) => run.id)) })),
    table: { columns: ["runs", "n", "last reward", "± 95 %"], rows: all.map(ended),
      note: all.flatMap(bySeed).filter((same) => same.length > 1).map((same) =>
        `${same.length} runs have the same seed and count as one, by their mean: ` +
        same.map((run) => run.path).join(", ")).join("; ") },
  };
}

// Runs of one seed are not independent: they count as one.
function bySeed(runs) {
  const seeds = new Map();
  for (const run of runs) {
    const seed = run.arguments.seed ?? null;
    seeds.set(seed, [...(seeds.get(seed) || []), run]);
  }
  return [...seeds.values()];
}

function ended(runs) {
  const seeds = bySeed(runs);
  const rewards = seeds.map((same) => same.map((run) => run.reward).filter((r) => r !== null))
    .filter((some) => some.length).map((some) => some.reduce((a, b) => a + b, 0) / some.length);
  const name = runs.map((run) => run.path).join(", ");
  if (rewards.length < 2) return [name, seeds.length, rewards[0] ?? null, null];
  const { mean, high } = meanOverRuns(rewards.map((y) => ({ x: [0], y: [y] })));
  return [name, seeds.length, mean[0], high[0] - mean[0]];
}
