"""The table: which names there are, what each is made of, what its description says, and what a
mistake is answered."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError, fields, replace

import pytest

from logpi import SGD, PolicyGradient, TruncatedIS, algorithm, describe
from logpi.algorithms import NAMES, TABLE, Algorithm, names, options
from logpi.algorithms.description import divergences
from logpi.ops.advantages import (
    GAE,
    GreedyBaseline,
    GroupCenter,
    GroupNorm,
    LeaveOneOut,
    QValue,
    RewardToGo,
    TotalReward,
)
from logpi.ops.constant_advantages import NoReward, Uniform
from logpi.ops.gates import BinaryTV, SoftGate
from logpi.ops.group_advantages import BatchScale, LengthBaseline, MaxAtK, MeanScale, PassAtK
from logpi.ops.kl import AdaptiveKL, k1, k2, k3
from logpi.ops.ratios import GeometricMeanRatio, SequenceRatio, TokenRatio
from logpi.ops.selection import DropUniform, KeepAll, MaskOut, MixedOutcomes
from logpi.ops.surrogates import (
    Clip,
    ClippedScore,
    DecayingClip,
    DualClip,
    ScoreFunction,
    Unclipped,
)
from logpi.ops.weights import FixedLength, GroupTokenMean, SequenceMean, SequenceSum, TokenMean

# name -> (advantage, ratio if it matters, surrogate, KL (coefficient, estimator, place), weight),
# as the sources have them
ROWS = {
    "policy_gradient": (TotalReward(), None, ScoreFunction(), None, SequenceSum()),
    "reinforce": (RewardToGo(), None, ScoreFunction(), None, SequenceSum()),
    "reinforce_baseline": (GAE(1, 1), None, ScoreFunction(), None, SequenceSum()),
    "a2c": (GAE(1, 0.95), None, ScoreFunction(), None, TokenMean()),
    "actor_critic_q": (QValue(), None, ScoreFunction(), None, SequenceSum()),
    "trpo": (GAE(1, 0.95), TokenRatio(), Unclipped(), None, TokenMean()),
    "ppo": (GAE(1, 0.95), TokenRatio(), Clip(0.2), None, TokenMean()),
    "orz": (GAE(1, 1), TokenRatio(), Clip(0.2), None, TokenMean()),
    "reinforce_plus_plus": (
        RewardToGo(),
        TokenRatio(),
        Clip(0.2),
        (0.01, k1, "reward"),
        TokenMean(),
    ),
    "reinforce_plus_plus_baseline": (GroupCenter(), TokenRatio(), Clip(0.2), None, TokenMean()),
    "rloo": (LeaveOneOut(), None, ScoreFunction(), (0.05, k1, "reward"), SequenceSum()),
    "remax": (GreedyBaseline(), None, ScoreFunction(), (0.05, k1, "reward"), SequenceSum()),
    "grpo": (GroupNorm(), TokenRatio(), Clip(0.2), (0.04, k3, "loss"), SequenceMean()),
    "grpo_r1": (GroupNorm(), TokenRatio(), Clip(0.2), (0.001, k3, "loss"), SequenceSum()),
    "grpo_sequence": (
        GroupNorm(),
        SequenceRatio(mean=False),
        Clip(0.2),
        (0.04, k3, "loss"),
        SequenceMean(),
    ),
    "dr_grpo": (GroupCenter(), TokenRatio(), Clip(0.2), None, FixedLength(512)),
    "dapo": (GroupNorm(), TokenRatio(), Clip(0.2, 0.28), None, GroupTokenMean()),
    "gspo": (GroupNorm(), SequenceRatio(mean=True), Clip(3e-4, 4e-4), None, SequenceMean()),
    "cispo": (GroupNorm(), TokenRatio(), ClippedScore(float("inf"), 4.0), None, TokenMean()),
    "sapo": (GroupNorm(), TokenRatio(), SoftGate(1.0, 1.05), None, SequenceMean()),
    "gmpo": (GroupNorm(), GeometricMeanRatio(0.4), Unclipped(), None, SequenceMean()),
    "dppo": (GroupCenter(), TokenRatio(), BinaryTV(0.15), None, FixedLength(512)),
    "dapo_forking": (GroupNorm(), TokenRatio(), Clip(0.2, 0.28), None, GroupTokenMean()),
    "lite_ppo": (BatchScale(), TokenRatio(), Clip(0.2), None, TokenMean()),
    "opo": (LengthBaseline(), None, ScoreFunction(), None, SequenceSum()),
    "reinforce_rej": (TotalReward(), TokenRatio(), Clip(0.2), None, SequenceMean()),
    "maxrl": (MeanScale(), None, ScoreFunction(), None, SequenceSum()),
    "pkpo": (MaxAtK(2), None, ScoreFunction(), None, SequenceSum()),
    "pass_at_k": (PassAtK(2), TokenRatio(), Clip(0.2, 0.28), None, TokenMean()),
    "distill": (NoReward(), TokenRatio(), Clip(0.2), (1.0, k1, "action"), TokenMean()),
    "sft": (Uniform(), None, ScoreFunction(), None, TokenMean()),
}
ARXIV = {
    "a2c": "1602.01783",
    "trpo": "1502.05477",
    "ppo": "1707.06347",
    "orz": "2503.24290",
    "reinforce_plus_plus": "2501.03262",
    "reinforce_plus_plus_baseline": "2501.03262",
    "rloo": "2402.14740",
    "remax": "2310.10505",
    "grpo": "2402.03300",
    "grpo_r1": "2501.12948",
    "dr_grpo": "2503.20783",
    "dapo": "2503.14476",
    "gspo": "2507.18071",
    "cispo": "2506.13585",
    "sapo": "2511.20347",
    "gmpo": "2507.20673",
    "dppo": "2602.04879",
    "dapo_forking": "2506.01939",
    "lite_ppo": "2508.08221",
    "opo": "2505.23585",
    "reinforce_rej": "2504.11343",
    "maxrl": "2602.02710",
    "pkpo": "2505.15201",
    "pass_at_k": "2508.10751",
    "distill": "2306.13649",
}
WHITENED = {"trpo", "ppo", "orz", "reinforce_plus_plus", "reinforce_plus_plus_baseline"}
CRITICS = {"reinforce_baseline", "a2c", "actor_critic_q", "trpo", "ppo", "orz"}


def objective(name: str, **options: object) -> PolicyGradient:
    made = algorithm(name, **options).objective
    assert isinstance(made, PolicyGradient)
    return made


# --- the rows ---


def test_the_table_is_complete() -> None:
    assert set(ROWS) == {n for n in NAMES if isinstance(algorithm(n).objective, PolicyGradient)}
    assert len(NAMES) == len(set(NAMES))


@pytest.mark.parametrize("name", ROWS)
def test_composition(name: str) -> None:
    advantage, ratio, surrogate, kl, weight = ROWS[name]
    o = objective(name)
    assert (o.advantage, o.surrogate, o.weight) == (advantage, surrogate, weight)
    assert ratio is None or o.ratio == ratio
    assert (None if o.kl is None else (o.kl.coef, o.kl.estimator, o.kl.place)) == kl
    assert o.whiten == (name in WHITENED) and o.entropy_coef == 0
    assert o.needs_critic == (name in CRITICS) == (o.value_coef > 0)
    assert o.needs_greedy == (name == "remax") and o.on_policy == (name != "sft")
    assert o.needs_reference == (kl is not None) and o.needs_teacher == (name == "distill")
    alone = (TotalReward, RewardToGo, GAE, QValue, GreedyBaseline, NoReward, Uniform)
    assert o.min_group == (3 if name == "pass_at_k" else 1 if isinstance(advantage, alone) else 2)
    assert o.top_entropy == (0.2 if name == "dapo_forking" else 1)
    assert o.needs_policy == (name == "dapo_forking")


def test_selection_and_updates() -> None:
    chosen = {n: type(algorithm(n).keep) for n in ROWS}
    assert {n: k for n, k in chosen.items() if k is not KeepAll} == {
        "dapo": MixedOutcomes,
        "dapo_forking": MixedOutcomes,
        "reinforce_rej": DropUniform,
    }
    assert algorithm("ppo").update == SGD(epochs=4) and algorithm("grpo").update == SGD(epochs=1)
    assert type(algorithm("trpo").update).__name__ == "TrustRegion"


@pytest.mark.parametrize(
    "name", ["policy_gradient", "reinforce", "reinforce_baseline", "a2c", "actor_critic_q", "ppo"]
)
def test_the_kl_trick_is_an_option(name: str) -> None:
    kl = objective(name, beta=0.1).kl
    assert kl is not None and (kl.coef, kl.estimator, kl.place) == (0.1, k1, "reward")


@pytest.mark.parametrize("name", ["grpo", "rloo", "remax", "grpo_r1", "reinforce_plus_plus"])
def test_no_beta_is_no_reference(name: str) -> None:
    assert objective(name, beta=0.0).kl is None and not objective(name, beta=0.0).needs_reference


# --- descriptions ---


@pytest.mark.parametrize("name", ROWS)
def test_description_has_its_equations_and_sources(name: str) -> None:
    text, a = describe(name), algorithm(name)
    o = a.objective
    assert isinstance(o, PolicyGradient)
    parts = [o.advantage, o.surrogate, o.weight, *([o.ratio] if o.surrogate.uses_ratio else [])]
    for part in parts:
        assert part.equation in text and part.source in text and str(part) in text
    assert text.startswith(f"{name}: ") and "maximise" in text
    if o.kl is not None:
        assert o.kl.estimator.equation in text and f"{o.kl.coef:g}" in text
    for line in divergences(a):
        assert line in text


@pytest.mark.parametrize("name", ARXIV)
def test_description_names_the_paper(name: str) -> None:
    assert f"arXiv:{ARXIV[name]}" in describe(name)


def test_a_description_follows_the_composition() -> None:
    text = describe("grpo", low=0.1, high=0.3, beta=0.5, entropy_coef=0.01)
    assert "clip(ρₜ, 1−0.1, 1+0.3)" in text and "0.5 (π_ref/π" in text and "+ 0.01 H" in text
    assert "whiten" not in text and "std over all own actions" in describe("grpo", whiten=True)
    assert "6 nats" in describe("rloo", kl_target=6.0)
    assert "min(π_old/π_sampler, 2)" in describe("grpo", correction=TruncatedIS())
    assert "clipped to ±0.2" in describe("ppo", value_clip=0.2)
    assert "KL         –" in describe(
        replace(algorithm("grpo"), objective=replace(objective("grpo"), kl=None))
    )


def test_a_custom_composition_can_be_described() -> None:
    text = describe(
        Algorithm(PolicyGradient(GroupCenter(), surrogate=DualClip(), weight=GroupTokenMean()))
    )
    assert text.startswith("custom") and "≥ 3 Âₜ" in text


# --- options ---


EVERY = sorted({o.name for name in TABLE for o in options(name)})


@pytest.mark.parametrize("name", TABLE)
def test_exactly_the_listed_options_are_accepted(name: str) -> None:
    """Each with its default, which changes nothing; all at once too; and nothing else."""
    listed = {o.name: o.default for o in options(name)}
    assert algorithm(name, **listed) == algorithm(name)
    for option, default in listed.items():
        assert algorithm(name, **{option: default}) == algorithm(name)
    for option in {*EVERY, "name", "source"} - set(listed):
        with pytest.raises(ValueError, match=f"{name} has no option '{option}'"):
            algorithm(name, **{option: 1})


@pytest.mark.parametrize("name", TABLE)
def test_every_option_has_a_line_of_help(name: str) -> None:
    for option in options(name):
        assert option.help and "\n" not in option.help and len(option.help) < 100, option


def test_words_and_objects_are_told_apart() -> None:
    words = {o.name: o.is_word for o in options("ppo")}
    assert words["low"] and words["clip_decay"] and words["kl_estimator"] and words["value_clip"]
    assert all(words[k] for k in ("update", "keep", "weight", "advantage", "shuffle"))


def test_a_field_is_set_on_the_part_that_is_given_beside_it() -> None:
    """It was lost: the part as it was given won."""
    update = algorithm("ppo", update=SGD(minibatches=3), epochs=2).update
    assert update == SGD(epochs=2, minibatches=3)
    with pytest.raises(ValueError, match="TrustRegion has no epochs"):
        algorithm("ppo", update=algorithm("trpo").update, epochs=2)


@pytest.mark.parametrize("name", ROWS)
def test_what_every_row_takes(name: str) -> None:
    o = objective(
        name,
        entropy_coef=0.1,
        value_clip=0.2,
        whiten=True,
        correction=TruncatedIS(),
        weight=SequenceSum(),
    )
    assert (o.entropy_coef, o.value_clip, o.whiten, o.correction, o.weight) == (
        0.1,
        0.2,
        True,
        TruncatedIS(),
        SequenceSum(),
    )
    assert algorithm(name, truncation=MaskOut(), keep=MixedOutcomes()).truncation == MaskOut()
    assert algorithm(name, micro_tokens=7).update.micro_tokens == 7


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("gae", "ppo"),
        ("vpg", "policy_gradient"),
        ("group_norm", "grpo"),
        ("reinforce++", "reinforce_plus_plus"),
        ("GRPO", "grpo"),
        ("dr-grpo", "dr_grpo"),
        ("Dr.GRPO", "dr_grpo"),
        ("reinforce-plus-plus", "reinforce_plus_plus"),
        ("geo_mean", "gmpo"),
        ("dppo_tv", "dppo"),
        ("Reinforce-Rej", "reinforce_rej"),
    ],
)
def test_names_by_which_others_know_them(theirs: str, ours: str) -> None:
    assert algorithm(theirs) == algorithm(ours) and algorithm(theirs).name == ours


def test_aliases_lead_somewhere() -> None:
    assert all(target in NAMES for target in names.ROWS.values())


@pytest.mark.parametrize(
    ("name", "theirs", "ours"),
    [
        ("grpo", {"epsilon": 0.1}, {"low": 0.1}),
        ("dapo", {"epsilon_high": 0.3}, {"high": 0.3}),
        ("ppo", {"clip_range": 0.1}, {"low": 0.1}),
        ("ppo", {"gae_lambda": 0.9}, {"lam": 0.9}),
        ("ppo", {"num_iterations": 3}, {"epochs": 3}),
        ("ppo", {"n_epochs": 3}, {"epochs": 3}),
        ("ppo", {"ent_coef": 0.1}, {"entropy_coef": 0.1}),
        ("ppo", {"vf_coef": 0.1}, {"value_coef": 0.1}),
        ("ppo", {"clip_range_vf": 0.1}, {"value_clip": 0.1}),
        ("grpo", {"kl_coef": 0.1}, {"beta": 0.1}),
        ("rloo", {"init_kl_coef": 0.1}, {"beta": 0.1}),
    ],
)
def test_options_by_which_others_know_them(name: str, theirs: dict, ours: dict) -> None:
    assert algorithm(name, **theirs) == algorithm(name, **ours) != algorithm(name)
    assert set(theirs) <= set(names.OPTIONS)


def test_shorthand_of_the_penalty() -> None:
    kl = objective("grpo", kl_estimator="k2", kl_target=3.0).kl
    assert (
        kl is not None and kl.estimator == k2 and kl.adapt == AdaptiveKL(3.0) and kl.place == "loss"
    )
    assert objective("ppo", beta=0.1, kl_place="loss").kl.place == "loss"  # type: ignore[union-attr]
    assert objective("grpo", dual_clip=4.0, high=0.3).surrogate == DualClip(0.2, 0.3, 4.0)
    assert (
        objective("ppo", clip_decay=True).surrogate
        == DecayingClip(0.2)
        != Clip(0.2)
        == objective("ppo", clip_decay=False).surrogate
    )
    for both in (dict(dual_clip=3.0, clip_decay=True), dict(clip_decay=True, dual_clip=3.0)):
        with pytest.raises(ValueError, match="needs a clipped surrogate \\(without"):
            algorithm("ppo", **both)


# --- mistakes ---


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("grpoo", "grpo"),
        ("gpro", "grpo"),
        ("gsop", "gspo"),
        ("dapoo", "dapo"),
        ("reinforce_pluss_plus", "reinforce_plus_plus"),
        ("PP0", "ppo"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name: str, near: str) -> None:
    with pytest.raises(
        ValueError, match=rf"unknown algorithm '{name}'; did you mean {near}\?"
    ) as error:
        algorithm(name)
    assert "\n" not in str(error.value)


def test_a_name_like_nothing_lists_them_all() -> None:
    with pytest.raises(ValueError, match=r"known: policy_gradient.*sft"):
        describe("qqq")


@pytest.mark.parametrize(
    ("wrong", "near"), [("hihg", "high"), ("epoch", "epochs"), ("entropy", "entropy_coef")]
)
def test_an_unknown_option_is_answered_with_the_nearest(wrong: str, near: str) -> None:
    with pytest.raises(
        ValueError, match=rf"dapo has no option '{wrong}'; did you mean {near}\?"
    ) as error:
        algorithm("dapo", **{wrong: 1})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"kl_target": 1.0, "beta": 0.0}, "beta above 0"),
        ({"beta": -1.0}, "must not be negative"),
        ({"kl_estimator": "k4"}, "k1, k2, k3"),
        ({"kl_place": "lost"}, '"reward", "action" or "loss"'),
        ({"dual_clip": 0.5}, "c > 1"),
    ],
    ids=str,
)
def test_settings_without_a_sense_are_refused(given: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        algorithm("grpo", **given)


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("grpo", {"weight": 3}, "weight must be a word or a Weight, not 3"),
        ("grpo", {"low": "x"}, "low must be a number"),
        ("grpo", {"low": -0.1}, "low is a distance"),
        ("cispo", {"high": -1}, "high is a distance"),
        ("grpo", {"dual_clip": "x"}, "dual_clip must be a number"),
        ("grpo", {"epochs": 1.5}, "epochs must be a whole number"),
        ("ppo", {"gamma": 1.01}, "gamma is between 0 and 1"),
        ("ppo", {"lam": float("nan")}, "lam must be a number"),
        ("reinforce", {"gamma": -1}, "between 0 and 1"),
        ("actor_critic_q", {"gamma": 2}, "between 0 and 1"),
        ("grpo", {"keep": "resample"}, "no keep is called 'resample'; there are: DropUniform"),
        ("dpo", {"beta": "0,1"}, "beta must be a number"),
        ("grpo", {"micro_tokens": "all"}, "a whole number, or null for none"),
        ("ppo", {"value_clip": [1]}, "value_clip must be a number"),
        ("grpo", {"top_entropy": 0}, "top_entropy is a share, above 0 up to 1, not 0"),
        ("grpo", {"top_entropy": 1.5}, "not 1.5"),
        ("sapo", {"tau_neg": 0}, "temperatures above 0"),
        ("gmpo", {"low": -1}, "nats of a log-ratio, at least 0"),
        ("dppo", {"high": -1}, "divergences of a token, at least 0"),
        ("dppo", {"ratio": "SequenceRatio"}, "needs the ratio of tokens, not SequenceRatio"),
        ("gspo", {"top_entropy": 0.2}, "top_entropy needs the ratio of tokens: SequenceRatio"),
        ("pkpo", {"k": 1}, "MaxAtK needs k of at least 2, not 1"),
        ("pass_at_k", {"k": 0}, "PassAtK needs k of at least 2, not 0"),
    ],
    ids=str,
)
def test_values_of_the_wrong_kind_are_refused(name: str, given: dict, says: str) -> None:
    """They came to light in the first update, as a traceback, or never."""
    with pytest.raises(ValueError, match=says):
        algorithm(name, **given)


def test_a_length_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        algorithm("dr_grpo", max_completion_length=0)


# --- values ---


@pytest.mark.parametrize("name", NAMES)
def test_an_algorithm_is_a_value(name: str) -> None:
    a = algorithm(name)
    assert a == algorithm(name) and hash(a) == hash(algorithm(name))
    assert pickle.loads(pickle.dumps(a)) == a == copy.deepcopy(a)
    assert name in repr(a)
    with pytest.raises(FrozenInstanceError):
        a.name = "other"  # type: ignore[misc]


def test_algorithms_differ() -> None:
    objectives = {algorithm(n).objective for n in ROWS}
    assert len(objectives) == len(ROWS)


def test_replace_works_on_both_levels() -> None:
    a = algorithm("grpo")
    o = objective("grpo")
    free = replace(a, objective=replace(o, kl=None))
    assert free.objective == objective("grpo", beta=0.0) != a.objective
    assert replace(o, weight=FixedLength(7)).weight == FixedLength(7) and o.weight == SequenceMean()
    assert replace(a, update=SGD(epochs=2)) == replace(algorithm("grpo", epochs=2))
    assert replace(a, name="mine").name == "mine"


@pytest.mark.parametrize("name", ROWS)
def test_a_description_of_parts_rebuilds_them(name: str) -> None:
    """The printed form of a part is Python that makes it."""
    import logpi.ops.advantages as advantages
    import logpi.ops.constant_advantages as constant_advantages
    import logpi.ops.gates as gates
    import logpi.ops.group_advantages as group_advantages
    import logpi.ops.surrogates as surrogates
    import logpi.ops.weights as weights

    modules = (advantages, group_advantages, constant_advantages, surrogates, gates, weights)
    names = {"inf": float("inf"), **{k: v for m in modules for k, v in vars(m).items()}}
    o = objective(name)
    for part in (o.advantage, o.surrogate, o.weight):
        assert eval(repr(part), names) == part


def test_controls_come_back() -> None:
    o = objective("rloo", beta=0.05, kl_target=1.0)
    moved = o.control({"kl_sequence": 2.0}, 1000)
    assert moved.controls()["kl_coef"] == pytest.approx(0.05 * 1.02)
    assert o.restore(moved.controls()) == moved and o.control({}, 0) == o
    assert objective("dapo").controls() == {} and objective("dapo").restore(
        {"kl_coef": 1.0}
    ) == objective("dapo")


def test_every_field_of_an_objective_can_be_set_through_algorithm() -> None:
    """A field that is added to `PolicyGradient` is reachable by name."""
    assert {f.name for f in fields(PolicyGradient)} <= {o.name for o in options("grpo")}
