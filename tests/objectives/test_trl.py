"""The same losses as TRL's on the same tensors; skipped where trl is not installed (it is no
dependency)."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from logpi.algorithms import algorithm
from logpi.types import Batch, PolicyOutput
from tests.objectives.cases import loss, pairs

pytest.importorskip("trl", reason="a comparison for developers: pip install trl==1.16")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def case() -> tuple[Batch, PolicyOutput, PolicyOutput]:
    """Five pairs of ragged rows; in a group the first is chosen."""
    g = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 7, (10,), generator=g).tolist()
    rows = [[(-3 * torch.rand(n, generator=g) - 0.01).tolist() for n in lengths] for _ in range(2)]
    return pairs(*rows)


def trainer(**settings) -> SimpleNamespace:
    """What TRL's loss methods read of their trainer."""
    same = lambda x: x  # noqa: E731
    accelerator = SimpleNamespace(device=torch.device("cpu"), gather=same, gather_for_metrics=same)
    return SimpleNamespace(
        model=SimpleNamespace(training=False),
        accelerator=accelerator,
        aux_loss_enabled=False,
        ld_alpha=None,
        precompute_ref_logps=True,
        f_divergence_type="reverse_kl",
        loss_weights=[1.0],
        use_weighting=False,
        args=None,
        _metrics=defaultdict(lambda: defaultdict(list)),
        label_smoothing=0.0,
        alpha=0.0,
        _total_train_tokens=0,
        _tp_size=1,
        **settings,
    )


def split(x: Tensor) -> Tensor:
    """TRL's order: all chosen rows, then all rejected ones."""
    return torch.cat([x[0::2], x[1::2]])


def outputs(logp: Tensor):
    """A model that says these log-probabilities."""
    blank = torch.zeros_like(logp)
    return lambda **_: SimpleNamespace(
        log_probs=logp, entropy=blank, mean_logits=blank, is_top1=blank.bool()
    )


def inputs(batch: Batch) -> dict[str, Tensor]:
    mask = torch.nn.functional.pad(split(batch.mask).long(), (1, 0))
    return {
        "input_ids": torch.zeros_like(mask),
        "attention_mask": torch.ones_like(mask),
        "completion_mask": mask,
    }


@pytest.mark.parametrize(
    ("name", "ours", "theirs"),
    [
        ("dpo", {}, {"loss_types": ["sigmoid"]}),
        ("dpo", {"length_normalised": True}, {"loss_types": ["sigmoid_norm"]}),
        ("slic", {}, {"loss_types": ["hinge"]}),
        ("ipo", {}, {"loss_types": ["ipo"]}),
        ("robust_dpo", {"smoothing": 0.2}, {"loss_types": ["robust"], "label_smoothing": 0.2}),
    ],
)
def test_dpo_and_its_forms(case, name, ours, theirs):
    from trl.trainer.dpo_trainer import DPOTrainer

    batch, now, ref = case
    fake = trainer(beta=0.3, **{k: v for k, v in theirs.items() if k != "label_smoothing"})
    fake.label_smoothing = theirs.get("label_smoothing", 0.0)
    reference = split(ref.logp.sum(1)).chunk(2)
    given = inputs(batch) | {"ref_chosen_logps": reference[0], "ref_rejected_logps": reference[1]}
    expected = DPOTrainer._compute_loss(fake, outputs(split(now.logp)), given, False)
    found, metrics = loss(algorithm(name, beta=0.3, **ours).objective, batch, now, ref)
    torch.testing.assert_close(found, expected)
    # TRL logs summed ratios there too
    if not ours.get("length_normalised") and name != "ipo":
        for key in ("rewards/chosen", "rewards/margins", "rewards/accuracies", "logps/rejected"):
            assert float(metrics[f"+{key}"]) == pytest.approx(fake._metrics["eval"][key][0]), key


def test_kto(case):
    from trl.trainer.kto_trainer import KTOTrainer

    batch, now, ref = case
    last = (batch.mask.sum(1) - 1)[:, None]
    label = torch.tensor([True, False, True, True, False])
    reward = torch.stack([torch.where(label, 1.0, -1.0), torch.zeros(5)], 1).flatten().double()
    batch = Batch(
        **{
            **batch.__dict__,
            "reward": torch.zeros_like(batch.reward).scatter(1, last, reward[:, None]),
        }
    )
    fake = trainer(
        beta=0.3, loss_type="kto", calculate_KL=True, desirable_weight=1.5, undesirable_weight=0.7
    )
    strangers, strangers_ref = now.logp[1::2].sum(1), ref.logp[1::2].sum(1)
    fake._compute_kl_logps = lambda *_: strangers
    mask = torch.nn.functional.pad(batch.mask[0::2].long(), (1, 0))
    given = {
        "input_ids": torch.zeros_like(mask),
        "attention_mask": torch.ones_like(mask),
        "completion_mask": mask,
        "label": label,
        "ref_logps": ref.logp[0::2].sum(1),
        "ref_KL_logps": strangers_ref,
    }
    expected = KTOTrainer._compute_loss(fake, outputs(now.logp[0::2]), given, False)
    objective = algorithm("kto", beta=0.3, desirable_weight=1.5, undesirable_weight=0.7).objective
    torch.testing.assert_close(loss(objective, batch, now, ref)[0], expected)


def means(x: Tensor, mask: Tensor) -> Tensor:
    return (x.sum(1) / mask.sum(1)).float()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_simpo(case, smoothing):
    from trl.experimental.cpo.cpo_trainer import CPOTrainer

    batch, now, ref = case
    fake = trainer(beta=2.0, loss_type="simpo", simpo_gamma=0.7)
    fake.label_smoothing = smoothing
    mean = means(now.logp, batch.mask)
    expected = CPOTrainer.cpo_loss(fake, mean[0::2], mean[1::2])[0].mean()
    found = loss(
        algorithm("simpo", beta=2.0, simpo_gamma=0.7, smoothing=smoothing).objective,
        batch,
        now,
        ref,
    )[0]
    assert float(found) == pytest.approx(float(expected), abs=1e-6)


def test_orpos_odds_ratio(case):
    """Only the odds ratio: TRL's likelihood is over the prompt too."""
    from trl.experimental.orpo.orpo_trainer import ORPOTrainer

    batch, now, ref = case
    mean = means(now.logp, batch.mask)
    expected = -ORPOTrainer.odds_ratio_loss(trainer(beta=0.2), mean[0::2], mean[1::2])[0].mean()
    found = loss(algorithm("orpo", beta=0.2).objective, batch, now, ref)[0] + mean[0::2].mean()
    assert float(found) == pytest.approx(float(expected), abs=1e-5)


def test_reward_modelling(case):
    from trl.trainer.reward_trainer import RewardTrainer

    batch, now, _ = case
    g = torch.Generator().manual_seed(1)
    value = torch.randn(10, batch.mask.shape[1] + 1, generator=g, dtype=torch.float64)
    score = value.gather(1, batch.mask.sum(1, keepdim=True)).squeeze(1)
    fake = trainer()
    fake.args = SimpleNamespace()
    fake.args.center_rewards_coefficient = 0.05
    fake.compute_metrics = None
    expected = RewardTrainer.compute_loss(
        fake,
        lambda **_: SimpleNamespace(logits=split(score)[:, None]),
        {"attention_mask": torch.ones(10, 3)},
    )
    here = PolicyOutput(now.logp, now.entropy, value)
    found = loss(
        algorithm("reward_model", center_rewards_coefficient=0.05).objective, batch, here, None
    )[0]
    torch.testing.assert_close(found, expected)
