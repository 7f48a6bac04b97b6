"""What one has decides the method: data, or a limit, to a row of THE TABLE.

    SITUATIONS["pairs"].row        'dpo'
    SITUATIONS["pairs"].command    'logpi prefer --model MODEL --data pairs.jsonl --objective dpo'

`logpi algorithms --for pairs` prints an entry, docs/choosing.md all of them. Left out: numbers,
which depend on the task (docs/results.md).
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SITUATIONS", "Situation"]


@dataclass(frozen=True)
class Situation:
    """What somebody has, and what follows.

    Attributes:
        have: in a sentence. row: what we would begin with. why: the reason. command: its use.
        others: other rows, each with when it is the better one.
    """

    have: str
    row: str
    why: str
    command: str
    others: tuple[tuple[str, str], ...] = ()

    def text(self) -> str:
        """The entry as it is printed."""
        width = max((len(name) for name, _ in self.others), default=0)
        others = [f"  {name:<{width}}  {when}" for name, when in self.others]
        head = [f"You have {self.have}.", f"Take {self.row}: {self.why}.", "", f"  {self.command}"]
        return "\n".join([*head, "", "Or", *others] if others else head)


_RL = "logpi rl --model MODEL --task rows.jsonl --rewards math --algorithm"

SITUATIONS: dict[str, Situation] = {
    "verifier": Situation(
        "prompts whose answers can be checked, and can sample each several times",
        "dr_grpo",
        "the other samples of a prompt are the baseline, so no critic and no reference is in"
        " memory, and its expected step is the policy gradient but for its length",
        f"{_RL} dr_grpo --num-generations 8",
        (
            (
                "grpo",
                "to repeat published runs: prompts that are nearly always or never solved"
                " weigh more, and a KL penalty keeps near the reference",
            ),
            ("dapo", "many prompts are always or never solved: it samples others in their place"),
            ("rloo", "one step a batch, and the policy gradient's own length too"),
            ("gspo", "several steps a batch, long responses, mixtures of experts"),
            (
                "pkpo",
                "one right answer of k is enough: its expected step is the gradient of pass@k",
            ),
            ("maxrl", "hard prompts must not be lost: it climbs log p, as far as M samples reach"),
        ),
    ),
    "one-sample": Situation(
        "prompts that can be sampled only once (a user answers, a tool is dear)",
        "reinforce_plus_plus",
        "its baseline is the mean over the batch, so it needs no group and no critic",
        f"{_RL} reinforce_plus_plus --num-generations 1",
        (
            ("remax", "one greedy response more for each prompt is cheap"),
            ("ppo", "a critic fits into memory, or rewards come on the way"),
        ),
    ),
    "reward-model": Situation(
        "a reward model's score, which is right only near the model it was trained on",
        "ppo",
        "a penalty in each token's reward keeps near the reference, and the critic says which"
        " token a score of the whole response is due to",
        "logpi rl --model MODEL --task prompts.jsonl --rewards model:DIRECTORY --algorithm ppo"
        " --beta 0.05",
        (
            ("rloo", "no memory for a critic; the same penalty in the reward"),
            ("grpo", "no memory for a critic; a penalty in the loss"),
        ),
    ),
    "teacher": Situation(
        "a better model of the same family, and prompts",
        "distill",
        "the teacher judges each token of the student's own samples, so the student learns in the"
        " states that it gets into itself, and no verifier is needed",
        "logpi rl --model STUDENT --teacher TEACHER --task rows.jsonl --algorithm distill",
        (
            ("sft", "a teacher of another family, or behind a server: `logpi harvest`, then `sft`"),
            ("grpo", "a verifier too: `--teacher TEACHER --beta 0.5 --kl-place action` has both"),
        ),
    ),
    "pairs": Situation(
        "pairs of a better and a worse response",
        "dpo",
        "RLHF's optimum is fitted to the pairs, without a reward model and without samples",
        "logpi prefer --model MODEL --data pairs.jsonl --objective dpo",
        (
            ("ipo", "the pairs are few or agree with each other: its margin has a goal"),
            ("robust_dpo", "a known share of the pairs is the wrong way round"),
            ("simpo", "no memory for a reference"),
            ("orpo", "the model was not fine-tuned yet: it learns both at once"),
            ("reward_model", "to score and sample on: then see reward-model"),
        ),
    ),
    "labels": Situation(
        "single responses that are called good or bad",
        "kto",
        "it needs no pairs, and good and bad may be of different number",
        "logpi prefer --model MODEL --data labels.jsonl --objective kto",
    ),
    "demonstrations": Situation(
        "demonstrations: prompts with responses to imitate",
        "sft",
        "it is the policy gradient with an advantage of 1 on somebody else's responses",
        "logpi sft --model MODEL --task demonstrations.jsonl",
    ),
    "environment": Situation(
        "an environment with short or long episodes and rewards on the way",
        "ppo",
        "the critic bootstraps where a fragment is cut, and clipped ratios let a batch be used"
        " several times",
        "logpi gym --env CartPole-v1 --algorithm ppo",
        (
            ("a2c", "the simplest with a critic: one step a batch"),
            ("trpo", "a bound on every step's KL matters more than time"),
            ("reinforce_baseline", "short episodes: the return is cheap and unbiased"),
            ("grpo", "episodes that can begin again from the same state, and no critic"),
        ),
    ),
    "long-horizon": Situation(
        "long episodes or conversations, where much happens after an action",
        "ppo",
        "a critic with λ < 1 takes out the noise of what comes later, for a bias as large as its"
        " own error",
        "logpi gym --env CartPole-v1 --algorithm ppo --gamma 0.99 --lam 0.95",
        (
            ("orz", "text with one reward at the end: γ = λ = 1, no bias"),
            ("dr_grpo", "the critic learns too slowly: groups need none"),
        ),
    ),
    "memory": Situation(
        "memory for one model and its optimiser, not for a critic or a reference",
        "dr_grpo",
        "no critic and no reference; --lora 16 makes the optimiser small too",
        f"{_RL} dr_grpo --lora 16",
        (
            ("rloo", "with beta=0, the same for one step a batch"),
            ("simpo", "pairs instead of a verifier"),
        ),
    ),
    "reuse": Situation(
        "samples that are dear, so that each batch should be used for several steps",
        "gspo",
        "one clipped ratio for a response holds for long ones too, whose product ratio would be"
        " cut",
        f"{_RL} gspo --epochs 2 --minibatches 2",
        (
            ("ppo", "with a critic, or in an environment"),
            ("dapo", "a ratio for each token, with more room upwards"),
            ("cispo", "every token keeps a gradient, also where its ratio is cut"),
            ("sapo", "no edge at all: a token's gradient fades as its ratio moves away from 1"),
            ("dppo", "rare tokens may move far, likely ones not: the bound is on probabilities"),
            ("trpo", "a small policy: the bound on KL is exact"),
        ),
    ),
}
