"""The reward model: the same number as transformers', packed or not; saved and read back; trained;
used as a reward."""

from __future__ import annotations

import pytest
import torch

from logpi.algorithms import algorithm
from logpi.errors import UserError
from logpi.learner import Learner
from logpi.policies.causal_lm import CausalLM
from logpi.policies.reward_model import RewardModel, WithCritic
from logpi.rewards import rewards
from logpi.rollouts.chat import Chat
from logpi.rollouts.collate import collate
from logpi.rollouts.preference_pairs import Preferences, read_pairs
from logpi.updates.adamw import AdamW
from tests.tiny import KINDS, tiny_model, tiny_tokenizer

ROWS = [
    {"prompt": f"{i}+1=", "chosen": f"{i + 1}", "rejected": f"{i + 2}, or so"} for i in range(6)
]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A causal language model's directory."""
    path = tmp_path_factory.mktemp("base")
    CausalLM(tiny_model("llama"), tiny_tokenizer()).save(path)
    return path


@pytest.fixture
def model(base):
    made = RewardModel.load(base)
    torch.manual_seed(0)
    torch.nn.init.normal_(made.model.score.weight)
    return made


def transformers_score(path, ids: list[int]) -> float:
    from transformers import AutoModelForSequenceClassification

    there = AutoModelForSequenceClassification.from_pretrained(path)
    with torch.no_grad():
        return float(there(input_ids=torch.tensor([ids])).logits)


def test_a_new_head_scores_zero(base):
    assert RewardModel.load(base).scores([[5, 6, 7]]).tolist() == [0.0]


def test_score_is_that_of_transformers_after_saving(model, tmp_path):
    model.save(tmp_path / "saved")
    rows = [[1, 5, 9, 2], [1, 7, 2], [1, 5, 9, 11, 13, 2]]
    here = model.scores(rows, tokens=8)
    for row, score in zip(rows, here.tolist(), strict=True):
        assert transformers_score(tmp_path / "saved", row) == pytest.approx(score, abs=1e-5)
    torch.testing.assert_close(RewardModel.load(tmp_path / "saved").scores(rows), here)


def test_scores_of_16_bit_models_have_32_bits(model, tmp_path):
    rows = [[1, 5, 9, 2], [1, 7, 2], [1, 5, 9, 11, 13, 2], [1, 6, 2]]
    model.save(tmp_path / "saved")
    half = RewardModel.load(tmp_path / "saved", dtype="bfloat16")
    assert half.model.score.weight.dtype == torch.float32
    found = half.scores(rows)
    torch.testing.assert_close(found, model.scores(rows), atol=0.05, rtol=0.05)
    assert (found != found.bfloat16().float()).any()
    half.save(tmp_path / "half")
    torch.testing.assert_close(
        RewardModel.load(tmp_path / "half", dtype="bfloat16").scores(rows),
        found,
        atol=0.02,
        rtol=0.02,
    )


def test_packed_and_plain_agree_on_pairs(model):
    batch = collate([t for g in read_pairs(model, ROWS).groups for t in g])
    assert model.packed
    packed = model.evaluate(batch).value
    model.packed = False
    torch.testing.assert_close(model.evaluate(batch).value, packed, atol=1e-5, rtol=1e-5)
    ends = [int(m.nonzero()[-1]) + 1 for m in batch.mask]
    rows = [batch.obs[i, : n + 1].tolist() for i, n in enumerate(ends)]
    at_end = torch.stack([packed[i, n] for i, n in enumerate(ends)])
    torch.testing.assert_close(model.scores(rows), at_end, atol=1e-5, rtol=1e-5)


def test_it_learns_the_pairs_by_the_ordinary_learner(base):
    model = RewardModel.load(base)
    rollout = Preferences(read_pairs(model, ROWS).groups, size=3)
    learner = Learner(model, algorithm("reward_model", micro_tokens=40), AdamW(3e-3))
    first = learner.update(rollout().batch)
    assert first["loss"] == pytest.approx(0.6931, abs=1e-3)
    for _ in range(15):
        last = learner.update(rollout().batch)
    assert last["accuracy"] == 1.0 and last["loss"] < 0.2


def test_usable_wherever_a_reward_is_named(model, tmp_path):
    model.remember(wrap=False, system="", options={})
    model.save(tmp_path / "rm-1" / "model")
    path = tmp_path / "rm-1" / "model"
    judged = rewards([f"model:{path}:0.5", "number"])
    assert judged.names[0] == "rm-1"
    prompts, completions = ["1+1=", "2+2="], ["2", "five"]
    scores = judged.score(prompts, completions, columns={"answer": ["2", "4"]})
    ids = [
        model.tokenizer(p + c)["input_ids"] + [2] for p, c in zip(prompts, completions, strict=True)
    ]
    alone = [transformers_score(path, row) for row in ids]
    assert [s.total for s in scores] == pytest.approx(
        [0.5 * alone[0] + 1, 0.5 * alone[1]], abs=1e-5
    )


def test_a_loaded_reward_model_is_a_reward(model, tmp_path):
    model.save(tmp_path / "m")
    path, loaded = f"model:{tmp_path / 'm'}", RewardModel.load(tmp_path / "m", trained=True)
    judge = rewards([(loaded, 0.5), lambda completions: [0.0] * len(completions)])
    assert judge.names[0] == "m" and judge.parts[0].weight == 0.5
    judge.check(["prompt"], [{"prompt": "Hi"}])
    totals = [s.total for s in judge.score(["Hi"] * 2, ["Yo", "No"])]
    words = [s.total for s in rewards(f"{path}:0.5").score(["Hi"] * 2, ["Yo", "No"])]
    assert totals == words and totals[0] != totals[1]
    assert next(loaded.parameters()).requires_grad


def test_prompts_are_rendered_as_in_training(model, tmp_path):
    model.remember(wrap=True, system="Be brief.", options={})
    model.save(tmp_path / "m")
    found = rewards([f"model:{tmp_path / 'm'}"]).parts[0].function.ids("Hi", "Yo")
    whole = [
        {"role": r, "content": c}
        for r, c in (("system", "Be brief."), ("user", "Hi"), ("assistant", "Yo"))
    ]
    assert found == model.tokenizer.apply_chat_template(whole, return_dict=False)


def test_a_critic_with_its_own_trunk_begins_as_the_reward_model(base, model):
    policy = CausalLM(tiny_model("llama", seed=3), tiny_tokenizer())
    both = WithCritic(policy, model)
    batch = collate([t for g in read_pairs(model, ROWS).groups for t in g])
    now = both.evaluate(batch)
    torch.testing.assert_close(now.logp, policy.evaluate(batch).logp)
    torch.testing.assert_close(now.value, model.evaluate(batch).value)
    now.value.sum().backward()
    assert all(p.grad is None for p in policy.parameters())


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": " "}, "row 0: 'rejected' is empty"),
        ({"prompt": "a", "chosen": "b"}, "row 0: no column 'rejected'"),
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "nothing can be learned"),
    ],
)
def test_bad_rows_are_named(model, row, words):
    with pytest.raises(UserError, match=words):
        read_pairs(model, [row])


def test_a_missing_reward_model_is_one_line(tmp_path):
    with pytest.raises(ValueError, match="nothing"):
        RewardModel.load(tmp_path / "nothing")


# --- others' reward models ---


def published(path, *, labels: int = 1, pad: int | None = 0, **config):
    """A sequence classifier that somebody trained, saved by transformers; in memory."""
    import transformers as hf

    torch.manual_seed(1)
    shape = (
        tiny_model("qwen2").config.to_dict() | dict(num_labels=labels, pad_token_id=pad) | config
    )
    made = hf.Qwen2ForSequenceClassification(hf.Qwen2Config(**shape)).eval()
    torch.nn.init.normal_(made.score.weight)
    made.save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return made


def renamed(
    path, names: dict[str, str | None], extra: dict[str, torch.Tensor] | None = None, **config
):
    """The weights under other names, beside others; config.json with other values."""
    import json

    from safetensors.torch import load_file, save_file

    held = {
        names.get(k, k): v
        for k, v in load_file(path / "model.safetensors").items()
        if names.get(k, k)
    }
    save_file(held | (extra or {}), path / "model.safetensors", metadata={"format": "pt"})
    said = (
        json.loads((path / "config.json").read_text())
        | {"architectures": ["Qwen2ForCausalLM"]}
        | config
    )
    (path / "config.json").write_text(
        json.dumps({k: v for k, v in said.items() if "label" not in k})
    )


CONVERSATION = [
    {"role": "user", "content": "2+2?"},
    {"role": "assistant", "content": "4"},
    {"role": "user", "content": "and 3+3?"},
    {"role": "assistant", "content": "6"},
]


def by_its_card(made, conversation=CONVERSATION) -> torch.Tensor:
    """[labels] what model cards say: `model(**tokenizer.apply_chat_template(conversation,
    …)).logits[0]`."""
    inputs = tiny_tokenizer().apply_chat_template(
        conversation, return_tensors="pt", return_dict=True
    )
    with torch.no_grad():
        return made(**inputs).logits[0]


def scored(spec: str) -> float:
    return rewards([spec]).score([CONVERSATION[:3]], [CONVERSATION[3:]])[0].total


@pytest.mark.parametrize("pad", [0, None, 2, 98])
def test_a_published_model_scores_as_its_card_says(pad, tmp_path):
    """Also where the padding token is one of the conversation's last: transformers then scores the
    token before."""
    made = published(
        tmp_path, pad=tiny_tokenizer().convert_tokens_to_ids("\n") if pad == 98 else pad
    )
    assert scored(f"model:{tmp_path}") == pytest.approx(float(by_its_card(made)[0]), abs=1e-5)
    text = rewards([f"model:{tmp_path}"]).score(["Hi"], ["Yo"])[0].total
    whole = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]
    assert text == pytest.approx(float(by_its_card(made, whole)[0]), abs=1e-5)


def test_of_several_labels_one_is_chosen(tmp_path):
    made = published(tmp_path, labels=3, id2label={0: "helpful", 1: "honest", 2: "short"})
    card = by_its_card(made).tolist()
    assert scored(f"model:{tmp_path}#honest") == pytest.approx(card[1], abs=1e-5)
    assert scored(f"model:{tmp_path}#2:0.5") == pytest.approx(0.5 * card[2], abs=1e-5)
    with pytest.raises(
        ValueError,
        match="has 3 labels: say which is the score .*; there are: helpful, honest, short",
    ):
        RewardModel.load(tmp_path, trained=True)
    with pytest.raises(ValueError, match="has no label 'kind'; there are: helpful, honest, short"):
        RewardModel.load(tmp_path, trained=True, label="kind")


@pytest.mark.parametrize(
    "name",
    [
        "score.weight",
        "classifier.weight",
        "value_head.weight",
        "reward_head.weight",
        "v_head.weight",
        "v_head.summary.weight",
    ],
)
def test_heads_go_by_many_names(name, tmp_path):
    made = published(tmp_path)
    card = float(by_its_card(made)[0])
    bias = {name.replace("weight", "bias"): torch.tensor([0.5])}
    renamed(
        tmp_path,
        {"score.weight": name},
        bias | {"lm_head.weight": torch.ones(made.model.embed_tokens.weight.shape)},
    )
    assert scored(f"model:{tmp_path}") == pytest.approx(card + 0.5, abs=1e-5)


def test_a_normalised_head_says_what_it_was_trained_to(tmp_path):
    card = float(by_its_card(published(tmp_path))[0])
    renamed(
        tmp_path, {"score.weight": "value_head.weight"}, normalize_reward=True, mean=0.3, std=2.0
    )
    assert scored(f"model:{tmp_path}") == pytest.approx((card - 0.3) / 2, abs=1e-5)


def test_without_a_trained_head_nothing_is_scored(base, tmp_path):
    with pytest.raises(ValueError, match="no trained head for scores, so it is no reward model"):
        RewardModel.load(base, trained=True)
    made = published(tmp_path)
    layers = {"score.0.weight": torch.ones(8, 32), "score.2.weight": torch.ones(1, 8)}
    renamed(tmp_path, {"score.weight": None}, layers)
    with pytest.raises(ValueError, match="'score' is no single linear layer"):
        RewardModel.load(tmp_path, trained=True)
    made.model.norm.weight.data[3] = float("nan")
    made.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="norm.weight holds NaN"):
        RewardModel.load(tmp_path, trained=True)


def test_what_is_trained_on_is_what_is_scored(model, tmp_path):
    """The score that a pair is trained by is the reward that its response gets, in text and in
    conversations."""
    row = {"prompt": CONVERSATION[:3], "chosen": CONVERSATION[3:], "rejected": "no"}
    model.remember(wrap=True, system="Be brief.", options={})
    model.save(tmp_path / "m")
    read = read_pairs(model, [row], chat=Chat(wrap=True, system="Be brief."), whole=True)
    batch = collate(list(read.groups[0]))
    trained = model.evaluate(batch).value[
        torch.arange(2), batch.mask.sum(1) + batch.mask.long().argmax(1)
    ]
    found = rewards([f"model:{tmp_path / 'm'}"]).score(
        [CONVERSATION[:3]] * 2, [CONVERSATION[3:], "no"]
    )
    assert [s.total for s in found] == pytest.approx(trained.tolist(), abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_every_family_packed_and_with_checkpointing(kind, tmp_path):
    """The same scores plain, packed and recomputed in backward, and the same gradient."""
    CausalLM(tiny_model(kind), tiny_tokenizer()).save(tmp_path)
    found = []
    for checkpointing in (False, True):
        model = RewardModel.load(tmp_path, gradient_checkpointing=checkpointing)
        torch.nn.init.ones_(model.model.score.weight)
        batch = collate([t for g in read_pairs(model, ROWS).groups for t in g])
        value = model.evaluate(batch).value
        value.square().sum().backward()
        found.append((value.detach(), model.model.get_input_embeddings().weight.grad))
    assert model.packed
    model.packed = False
    plain = model.evaluate(batch).value.detach()
    torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found[0][0], plain, atol=1e-4, rtol=1e-4)


def test_an_encoder_is_refused_in_one_line(tmp_path):
    """Its head reads one token of a whole text: no score of a beginning."""
    from transformers import DebertaV2Config, DebertaV2ForSequenceClassification

    shape = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "num_labels": 1,
    }
    DebertaV2ForSequenceClassification(DebertaV2Config(vocab_size=300, **shape)).save_pretrained(
        tmp_path
    )
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match="DebertaV2ForSequenceClassification is no reward model here: .* causal"
    ):
        RewardModel.load(tmp_path, trained=True)
