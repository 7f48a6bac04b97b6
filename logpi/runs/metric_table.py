"""THE TABLE of metrics: what each says, and when to worry. The guide's table and the viewer's
panels are made from it.

A row is a panel: metrics that are read together. `*` in a name stands for any text. Left out: how a
metric is computed (where it is logged), and curves (`plots.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True)
class MetricGroup:
    """Metrics that are read together.

    Attributes:
        title: of the panel. names: with `*` for any text, in the order of drawing.
        meaning: one sentence. worry: one sentence, when to worry.
        band: the ends of the names of an interval's lower and upper bound, e.g. `_low`, `_high`.
        log: drawn on a logarithmic axis.
    """

    title: str
    names: tuple[str, ...]
    meaning: str
    worry: str
    band: tuple[str, str] | None = None
    log: bool = False


METRICS = (
    MetricGroup(
        "reward",
        ("reward", "reward_100"),
        "Mean reward of the step's responses or episodes; `reward_100` is that of the last 100"
        " episodes.",
        "It falls far below its best for several steps: the policy collapses, mostly because the"
        " learning rate is too high.",
    ),
    MetricGroup(
        "parts of the reward",
        ("rewards/*/mean",),
        "Mean of each reward function, without its weight.",
        "A part that is easy to please rises while the one that you care for falls: the reward is"
        " being hacked.",
    ),
    MetricGroup(
        "evaluation",
        ("eval/pass@*", "eval/reward", "eval/accuracy", "eval/maj@*", "eval/rewards/accuracies"),
        "The policy on held-out items, with the 95 % interval of the first measure; the best one's"
        " checkpoint is kept.",
        "It stays or falls while the training reward rises: the policy learns the training items,"
        " or the reward and not the task.",
        band=("_low", "_high"),
    ),
    MetricGroup(
        "loss",
        ("loss", "eval/loss"),
        "With one step a batch a policy gradient's loss is 0 or meaningless, and only its gradient"
        " counts; for SFT, preferences and reward models it is what is made small.",
        "`eval/loss` rises while `loss` falls: the data are learned by heart.",
    ),
    MetricGroup(
        "preferences",
        ("rewards/accuracies", "rewards/margins", "rewards/chosen", "rewards/rejected"),
        "Share of pairs whose better answer scores higher, the mean difference, and the mean score"
        " of each side.",
        "`rewards/chosen` falls far below 0: the better answers become less likely too.",
    ),
    MetricGroup(
        "length",
        ("completions/mean_length", "completions/max_length", "eval/mean_length", "episode_length"),
        "Tokens of a response, or steps of an episode.",
        "Responses grow towards the limit without more reward, or shrink to nothing.",
    ),
    MetricGroup(
        "cut-off responses",
        ("completions/clipped_ratio", "eval/clipped_ratio"),
        "Share of responses that the length limit cut off.",
        "It rises: the limit is too short, or the policy no longer ends its answers.",
    ),
    MetricGroup(
        "entropy",
        ("entropy",),
        "How undecided the policy is, in nats a token; at 0 exploration is over.",
        "It falls to almost 0 while the reward is still low, or it rises without end.",
    ),
    MetricGroup(
        "distance to the reference",
        ("kl", "kl_sequence", "kl_coef", "trust/kl"),
        "KL divergence from the reference, k3 a token and k1 a response, and the coefficient of its"
        " penalty.",
        "It grows faster and faster: the policy leaves the reference, and often its language too.",
    ),
    MetricGroup(
        "ratio",
        ("ratio/max", "ratio/min", "ratio/ess"),
        "Importance ratios of the new policy to the old one within the batch; `ratio/ess` is the"
        " effective share of the samples.",
        "`ratio/ess` falls below a half: the update went too far for its samples.",
    ),
    MetricGroup(
        "clipping",
        ("clip_ratio", "kl_old"),
        "Share of tokens whose ratio is clipped, and the KL divergence from the old policy.",
        "`clip_ratio` stays above a fifth: fewer passes, or a lower learning rate.",
    ),
    MetricGroup(
        "groups that teach nothing",
        ("frac_reward_zero_std", "reward_std", "idle_rows"),
        "Share of rows in groups with equal rewards, whose advantage is 0; and the spread of the"
        " rewards within groups.",
        "It nears 1: the task is too easy or too hard for the policy.",
    ),
    MetricGroup(
        "gradient norm",
        ("grad_norm",),
        "Norm of the gradient before it is clipped.",
        "Spikes of ten times and more, or a slow steady rise: lower the learning rate.",
        log=True,
    ),
    MetricGroup(
        "learning rate",
        ("lr",),
        "The learning rate of the step, by its schedule.",
        "It is not what you meant to give.",
        log=True,
    ),
    MetricGroup(
        "critic",
        ("value/explained_variance", "value/loss"),
        "How well the critic predicts returns: 1 is perfect, 0 is a constant.",
        "The explained variance stays below 0: the critic is worse than a constant.",
    ),
    MetricGroup(
        "sampler against learner",
        ("gap_old/*", "gap_sampler/*", "correction/*", "version/*"),
        "Log-probabilities of the learner against themselves and against the sampler's before the"
        " first step, in nats: about 0, else an error.",
        "They grow from step to step: the sampler is stale, or computes otherwise.",
    ),
    MetricGroup(
        "conversations",
        ("turns/*", "tools/*"),
        "Turns of a conversation; calls of tools that were answered, and their errors;"
        " `tools/timeouts` are turns whose reply did not come in time, and whose calls are not"
        " among `tools/calls`.",
        "`tools/errors` or `tools/timeouts` rises, or `tools/calls` falls to 0: the policy gives up"
        " on its tools.",
    ),
    MetricGroup(
        "what responses look like",
        ("responses/*",),
        "Share of responses with thoughts in tags, with reflective words, with mixed scripts.",
        "`responses/mixed` rises: the policy mixes languages.",
    ),
    MetricGroup(
        "levels",
        ("level/*",),
        "Mean of the first reward over the items of each level.",
        "Only the easy levels rise.",
    ),
    MetricGroup(
        "missing verdicts",
        ("rewards/missing", "rewards/failed/*", "skipped"),
        "Share of responses without a reward, because its function failed; and steps that changed"
        " nothing, because no gradient was finite.",
        "Anything but 0.",
    ),
    MetricGroup(
        "throughput",
        ("num_tokens", "episodes"),
        "Tokens of the step's responses, or steps and episodes of its environments.",
        "It falls while the lengths do not.",
    ),
    MetricGroup(
        "where time goes",
        ("time/generate", "time/reward", "time/rollout", "time/update", "step_time", "time/*"),
        "Seconds of sampling, judging, the rollout as a whole, the update, and the step.",
        "`time/reward` is a large part: judge in more processes, or by a quicker function.",
    ),
)


@dataclass(frozen=True)
class Panel:
    """A group with those of its metrics that a run has.

    Attributes:
        band: names of the metrics of the first one's interval, or None.
    """

    group: MetricGroup
    metrics: tuple[str, ...]
    band: tuple[str, str] | None


def panels(names: Iterable[str]) -> list[Panel]:
    """The groups that a run has metrics of. Each metric stands in the first that names it.

    >>> [(p.group.title, p.metrics, p.band) for p in panels(["eval/pass@1_high", "eval/pass@1",
    ...     "eval/pass@1_low", "entropy"])]
    [('evaluation', ('eval/pass@1',), ('eval/pass@1_low', 'eval/pass@1_high')),
     ('entropy', ('entropy',), None)]
    """
    left = dict.fromkeys(names)
    every = set(left)
    found = []
    for group in METRICS:
        bounds = {name + end for name in every for end in group.band or ()}
        metrics = [n for pattern in group.names for n in left if fnmatchcase(n, pattern)]
        metrics = [n for n in dict.fromkeys(metrics) if n not in bounds]
        for name in [*metrics, *(bounds & every)]:
            left.pop(name, None)
        if metrics:
            found.append(Panel(group, tuple(metrics), _band(group, metrics, every)))
    return found


def _band(group: MetricGroup, metrics: Sequence[str], every: set[str]) -> tuple[str, str] | None:
    low, high = group.band or ("", "")
    pairs = [(name + low, name + high) for name in metrics] if group.band else []
    return next((pair for pair in pairs if every.issuperset(pair)), None)


def markdown() -> str:
    """The table as Markdown, for the guide."""
    lines = ["| metrics | meaning | worry when |", "|---|---|---|"]
    for group in METRICS:
        names = ", ".join(f"`{name.replace('*', '…')}`" for name in group.names)
        lines.append(f"| {names} | {group.meaning} | {group.worry} |")
    return "\n".join(lines)
