// A run's metrics as columns that grow: only what was written since the last look is read. And the
// arithmetic of curves: smoothing, points that a chart needs, summaries. Left out: drawing.

// One request's columns; `poll` reads on from where it ended.
export class Feed {
  constructor(source, id, names) {
    Object.assign(this, { source, id, names });
    this.reset();
  }

  reset() {
    this.step = [];
    this.columns = Object.fromEntries(this.names.map((name) => [name, []]));
    this.end = 0;
  }

  // Whether anything is new. A long file comes in several answers.
  async poll() {
    let [news, more] = [false, this.names.length > 0];
    while (more) {
      const answer = await this.source.metrics(this.id, this.names, this.end);
      if (answer.rewound) this.reset();
      this.add(answer);
      news ||= answer.step.length > 0 || Boolean(answer.rewound);
      more = Boolean(answer.more);
    }
    return news;
  }

  add(answer) {
    this.end = answer.end;
    for (const step of answer.step) this.step.push(step);
    for (const name of this.names) {
      const column = this.columns[name];
      const added = answer.columns[name] || [];
      for (let i = 0; i < answer.step.length; i++) column.push(added[i] ?? null);
    }
  }
}

// Rows in which one of the columns has a number, those of one step as one.
//     steps 1 1 2   a 5 – –   b – 7 –     is   x [1]   [[5], [7]]
export function aligned(feed, names) {
  const x = [];
  const columns = names.map(() => []);
  for (let i = 0; i < feed.step.length; i++) {
    const values = names.map((name) => feed.columns[name]?.[i] ?? null);
    if (values.every((value) => value === null)) continue;
    const again = x.length && x[x.length - 1] === feed.step[i];
    if (!again) x.push(feed.step[i]);
    values.forEach((value, k) => {
      if (!again) columns[k].push(value);
      else if (value !== null) columns[k][x.length - 1] = value;
    });
  }
  return { x, columns };
}

// Hours of training up to each step: the sum of `step_time`. A step without one takes the last's.
export function hours(feed) {
  const at = new Map();
  let sum = 0;
  for (let i = 0; i < feed.step.length; i++) {
    sum += (feed.columns.step_time?.[i] ?? 0) / 3600;
    at.set(feed.step[i], sum);
  }
  return at;
}

// An exponential mean without the bias of its beginning; gaps stay gaps.
//     weight 0.5: 4 2 – 2   →   4 2.67 – 2.29
export function smoothed(values, weight) {
  if (!weight) return values;
  let sum = 0;
  let share = 0;
  return values.map((value) => {
    if (value === null) return null;
    sum = weight * sum + (1 - weight) * value;
    share = weight * share + (1 - weight);
    return sum / share;
  });
}

// Evaluations are few, and each stands for itself: they are not smoothed.
export function weightOf(name, weight) {
  return name.startsWith("eval/") ? 0 : weight;
}

export function summary(x, values) {
  let [low, high, last, at] = [Infinity, -Infinity, null, null];
  values.forEach((value, i) => {
    if (value === null) return;
    low = Math.min(low, value);
    high = Math.max(high, value);
    [last, at] = [value, x[i]];
  });
  return last === null ? null : { low, high, last, at };
}

// Two-sided 95 % quantiles of Student's t with 1, 2, … degrees of freedom.
const T95 = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228];

// The mean over runs at the steps that all of them have, with its 95 % t-interval.
export function meanOverRuns(curves) {
  const maps = curves.map(({ x, y }) => new Map(x.map((step, i) => [step, y[i]])));
  const known = (step) => maps.every((m) => (m.get(step) ?? null) !== null);
  const x = curves[0].x.filter(known);
  const n = curves.length;
  const result = { x, mean: [], low: [], high: [] };
  for (const step of x) {
    const values = maps.map((m) => m.get(step));
    const mean = values.reduce((a, b) => a + b, 0) / n;
    const spread = Math.sqrt(values.reduce((a, b) => a + (b - mean) ** 2, 0) / (n - 1));
    const half = ((T95[n - 2] || 1.96 + 2.4 / (n - 1)) * spread) / Math.sqrt(n);
    result.mean.push(mean);
    result.low.push(mean - half);
    result.high.push(mean + half);
  }
  return result;
}
