"""The language-model policy against the model's own plain forward: values, gradients, files,
errors."""

from __future__ import annotations

import pytest
import torch

from logpi.policies.causal_lm import CausalLM
from logpi.policies.heads import Head, score
from logpi.types import Batch
from tests.tiny import KINDS, VOCABULARY, tiny_model, tiny_tokenizer


def make_batch(seed: int = 0, rows: int = 7) -> Batch:
    """Two prompts shared by several rows, one lone prompt, tool gaps, cut-off rows, one row without
    own actions."""
    g = torch.Generator().manual_seed(seed)
    width = 24
    prompts = {0: 9, 1: 4, 2: 12}
    opening = {k: torch.randint(4, VOCABULARY, (n,), generator=g) for k, n in prompts.items()}
    group = torch.tensor([0, 1, 0, 2, 1, 0, 1])[:rows]
    lengths = [20, 12, 24, 17, 9, 13, 24][:rows]  # tokens, prompt included
    obs = torch.full((rows, width + 1), 10**6)  # padding is garbage: no model has such a token
    mask = torch.zeros(rows, width, dtype=torch.bool)
    for i, (k, n) in enumerate(zip(group.tolist(), lengths, strict=True)):
        obs[i, :n] = torch.cat(
            [opening[k], torch.randint(4, VOCABULARY, (n - prompts[k],), generator=g)]
        )
        mask[i, prompts[k] - 1 : n - 1] = True
    mask[2, 12:16] = False  # a tool reply
    mask[2, 20:] = False  # ends in a tool reply
    mask[4] = False  # nothing of its own
    return Batch(
        obs=obs,
        action=obs[:, 1:],
        mask=mask,
        reward=torch.zeros(mask.shape),
        terminated=torch.tensor([True, False, False, True, True, True, False])[:rows],
        group=group,
        logp=torch.zeros(mask.shape),
    )


def plain(policy: CausalLM, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """logp, entropy, value the simple way: each row alone, its real tokens, the whole vocabulary,
    no packing."""
    rows = []
    policy.model.eval()
    with policy.plain_attention():
        for i in range(len(batch)):
            real = batch.obs[i][batch.obs[i] < VOCABULARY]
            out = policy.model(real[None], output_hidden_states=True, use_cache=False)
            log_pi = (out.logits[0, :-1].float() / policy.temperature).log_softmax(-1)
            n, m = len(real) - 1, batch.mask[i, : len(real) - 1]
            taken = log_pi.gather(1, real[1:, None])[:, 0] * m
            spread = -(log_pi.exp() * log_pi).sum(-1) * m
            seen = torch.nn.functional.pad(m, (0, 1))
            if m.any() and not batch.terminated[i]:
                seen[int(m.nonzero()[-1]) + 1] = True
            v = (
                policy.value_head(out.hidden_states[-1][0])[:, 0] * seen
                if policy.value_head is not None
                else None
            )
            rows.append(
                (
                    torch.nn.functional.pad(taken, (0, batch.mask.shape[1] - n)),
                    torch.nn.functional.pad(spread, (0, batch.mask.shape[1] - n)),
                    None
                    if v is None
                    else torch.nn.functional.pad(v, (0, batch.obs.shape[1] - len(v))),
                )
            )
    logp, entropy = torch.stack([r[0] for r in rows]), torch.stack([r[1] for r in rows])
    return logp, entropy, None if policy.value_head is None else torch.stack([r[2] for r in rows])


def scalar(logp, entropy, value) -> torch.Tensor:
    """A loss that weighs every entry differently."""
    w = torch.linspace(-1, 1, logp.numel()).view_as(logp)
    u = torch.linspace(1, 2, value.numel()).view_as(value) if value is not None else None
    return (
        (w * logp).sum()
        + (w.flip(0) * entropy).sum()
        + ((u * value).sum() if value is not None else 0)
    )


def gradients(policy: CausalLM, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    policy.zero_grad()
    loss.backward()
    return {n: p.grad.clone() for n, p in policy.named_parameters() if p.grad is not None}


def with_critic(kind: str, **options) -> CausalLM:
    policy = CausalLM(tiny_model(kind), tiny_tokenizer(), critic=True, **options)
    torch.nn.init.normal_(policy.value_head.weight, generator=torch.Generator().manual_seed(5))
    return policy


def assert_same(policy, got, want, atol=2e-5):
    for name, a, b in zip(("logp", "entropy", "value"), got, want, strict=True):
        if b is not None:
            torch.testing.assert_close(
                a, b, atol=atol, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
            )
    ours, theirs = gradients(policy, scalar(*got)), gradients(policy, scalar(*want))
    assert ours.keys() == theirs.keys()
    for name in theirs:
        scale = float(theirs[name].abs().max()) + 1e-3
        torch.testing.assert_close(
            ours[name] / scale, theirs[name] / scale, atol=3e-5, rtol=0, msg=name
        )


@pytest.mark.parametrize("kind", KINDS)
def test_evaluate_is_the_plain_forward(kind):
    policy, batch = with_critic(kind, temperature=0.7), make_batch()
    assert policy.packed
    now = policy.evaluate(batch)
    assert_same(policy, (now.logp, now.entropy, now.value), plain(policy, batch))
    assert not now.logp[~batch.mask].any() and not now.entropy[~batch.mask].any()


def test_without_critic_the_last_token_is_not_needed_and_nothing_is_forwarded_twice(monkeypatch):
    policy, batch, seen = CausalLM(tiny_model(), tiny_tokenizer()), make_batch(), []
    original = policy.hidden
    monkeypatch.setattr(
        policy,
        "hidden",
        lambda packing, ids, pos: (seen.append(ids), original(packing, ids, pos))[1],
    )
    now = policy.evaluate(batch)
    want = plain(policy, batch)
    torch.testing.assert_close(now.logp, want[0], atol=2e-5, rtol=1e-5)
    # prompts 9, 4, 12 once; then responses without their last token (row 2 ends in a tool reply,
    # row 4 has none)
    responses = [20 - 9 - 1, 12 - 4 - 1, 20 - 9, 17 - 12 - 1, 13 - 9 - 1, 24 - 4 - 1]
    assert len(seen[0]) == 9 + 4 + 12 + sum(responses)


def test_order_padding_and_neighbours_change_nothing():
    policy, batch = with_critic("llama"), make_batch()
    now = policy.evaluate(batch)
    order = torch.tensor([5, 3, 0, 6, 2, 4, 1])
    other = policy.evaluate(batch.rows(order))  # also cuts off the last, unused column
    width = other.logp.shape[1]
    torch.testing.assert_close(other.logp, now.logp[order][:, :width], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(other.value, now.value[order][:, : width + 1], atol=1e-5, rtol=1e-5)
    for i in (0, 2, 6):
        alone = policy.evaluate(batch.rows(torch.tensor([i])))
        torch.testing.assert_close(
            alone.logp[0], now.logp[i, : alone.logp.shape[1]], atol=1e-5, rtol=1e-5
        )


def test_a_batch_in_which_the_policy_chose_nothing():
    batch = make_batch()
    batch.mask[:] = False
    now = with_critic("llama").evaluate(batch)
    assert not now.logp.any() and not now.entropy.any() and not now.value.any()


def test_many_rows_of_very_different_lengths_are_bucketed_right():
    g = torch.Generator().manual_seed(1)
    rows = 60
    length = torch.randint(3, 120, (rows,), generator=g)
    obs = torch.randint(4, VOCABULARY, (rows, 121), generator=g)
    obs[:, :2] = obs[0, :2]  # all share two tokens
    column = torch.arange(120)
    mask = (column >= 1) & (column < length[:, None] - 1)
    obs = obs.masked_fill(torch.arange(121) >= length[:, None], 10**6)
    zero = torch.zeros(rows, 120)
    batch = Batch(
        obs,
        obs[:, 1:],
        mask,
        zero,
        torch.ones(rows, dtype=torch.bool),
        torch.zeros(rows).long(),
        zero,
    )
    for kind in ("llama", "gemma2"):
        policy = CausalLM(tiny_model(kind), tiny_tokenizer())
        with torch.no_grad():
            torch.testing.assert_close(
                policy.evaluate(batch).logp, plain(policy, batch)[0], atol=5e-5, rtol=1e-5
            )


def test_chunked_head_is_the_head():
    g = torch.Generator().manual_seed(0)
    weight, action = (
        torch.randn(50, 8, generator=g, dtype=torch.double),
        torch.randint(50, (11, 1), generator=g),
    )
    hidden, w, u = (
        torch.randn(*n, generator=g, dtype=torch.double) for n in ((11, 8), (11,), (11,))
    )

    def run(chunk):
        linear = torch.nn.Linear(8, 50, bias=False, dtype=torch.double)
        linear.weight.data.copy_(weight)
        h = hidden.clone().requires_grad_()
        logp, entropy = score(Head(linear, softcap=3.0, temperature=0.5), h, action, 50, chunk)
        return (
            logp,
            entropy,
            *torch.autograd.grad((w * logp[:, 0] + u * entropy).sum(), (h, linear.weight)),
        )

    for one, many in zip(run(10**6), run(3 * 50), strict=True):
        torch.testing.assert_close(one, many, atol=1e-12, rtol=1e-12)
    for one, each in zip(run(10**6), run(1), strict=True):
        torch.testing.assert_close(one, each, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("options", [{"chunk": 3 * VOCABULARY}, {"gradient_checkpointing": True}])
@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_saving_memory_changes_nothing(kind, options):
    batch, policy = make_batch(), with_critic(kind, **options)
    now = policy.evaluate(batch)
    assert_same(policy, (now.logp, now.entropy, now.value), plain(policy, batch))


def test_chunks_are_no_larger_than_asked(monkeypatch):
    policy, seen = CausalLM(tiny_model(), tiny_tokenizer(), chunk=5 * VOCABULARY), []
    original = Head.logits
    monkeypatch.setattr(
        Head, "logits", lambda self, hidden: (seen.append(len(hidden)), original(self, hidden))[1]
    )
    batch = make_batch()
    policy.evaluate(batch)
    assert max(seen) == 5 and sum(seen) == int(batch.mask.sum())  # responses only, never the prompt


def test_value_stands_at_own_actions_and_after_the_last_of_a_cut_off_row():
    policy, batch = with_critic("llama"), make_batch()
    filled = policy.evaluate(batch).value != 0
    want = torch.nn.functional.pad(batch.mask, (0, 1))
    want[1, 11] = want[2, 20] = want[6, 23] = True  # rows that did not terminate
    assert torch.equal(filled, want)
    fresh = CausalLM(tiny_model(), tiny_tokenizer(), critic=True)
    assert not fresh.evaluate(batch).value.any()  # zero at first


def test_temperature_is_part_of_the_policy():
    batch, hot = make_batch(), CausalLM(tiny_model(), tiny_tokenizer(), temperature=2.0)
    cold = CausalLM(tiny_model(), tiny_tokenizer())
    assert (
        hot.evaluate(batch).entropy[batch.mask].mean()
        > cold.evaluate(batch).entropy[batch.mask].mean()
    )
    with pytest.raises(ValueError, match="positive"):
        CausalLM(tiny_model(), tiny_tokenizer(), temperature=0.0)


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_save_is_loaded_by_transformers_and_by_us(tmp_path, kind):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    policy, batch = with_critic(kind), make_batch()
    policy.save(tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    row = batch.obs[3][:17][None]
    with torch.no_grad(), policy.plain_attention():
        assert torch.equal(model(row).logits, policy.model(row).logits)
    assert AutoTokenizer.from_pretrained(tmp_path / "model")("ab")["input_ids"] == policy.render(
        "ab"
    )
    again = CausalLM.load(tmp_path / "model", critic=True)
    now, then = again.evaluate(batch), policy.evaluate(batch)
    assert torch.equal(now.logp, then.logp) and torch.equal(now.value, then.value)


def test_render_and_end_tokens():
    policy = CausalLM(tiny_model(), tiny_tokenizer())
    assert (
        policy.tokenizer.decode(policy.render([{"role": "user", "content": "1+1"}]))
        == "user: 1+1\nassistant: "
    )
    assert policy.tokenizer.decode(policy.render("1+1=")) == "1+1="
    assert policy.eos_ids == (2,)
    policy.model.generation_config.eos_token_id = [5, 2]
    assert policy.eos_ids == (5, 2)
    with pytest.raises(ValueError, match="chat template"):
        CausalLM(tiny_model(), tiny_tokenizer(None)).render([{"role": "user", "content": "hi"}])


def test_loading_errors_are_one_line_and_say_what_to_do(tmp_path):
    from transformers import T5Config

    cases = {}
    cases["no such file or directory"] = tmp_path / "nothing"
    tiny_model().save_pretrained(tmp_path / "bare")
    cases["save the model's tokenizer"] = tmp_path / "bare"
    T5Config().save_pretrained(tmp_path / "t5")
    cases["not a causal language model"] = tmp_path / "t5"
    (tmp_path / "empty").mkdir()
    cases["cannot load a model"] = tmp_path / "empty"
    for words, path in cases.items():
        with pytest.raises(ValueError, match=words) as error:
            CausalLM.load(path)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="bfloat16"):
        CausalLM.load(tmp_path / "bare", dtype="float8")


def bert(**config):
    from transformers import BertConfig, BertLMHeadModel

    sizes = dict(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
    return BertLMHeadModel(
        BertConfig(**sizes, intermediate_size=32, initializer_range=0.5, **config)
    ).eval()


def test_a_model_that_looks_ahead_is_refused():
    with pytest.raises(ValueError, match="looks at what follows"):
        CausalLM(bert(), tiny_tokenizer())


def test_a_model_that_keeps_its_attention_runs_plainly_after_a_notice():
    model = tiny_model()
    model._supports_attention_backend = False
    with pytest.warns(UserWarning, match="padded"):
        policy = CausalLM(model, tiny_tokenizer(), critic=True)
    torch.nn.init.normal_(policy.value_head.weight)
    assert not policy.packed
    batch = make_batch()
    now = policy.evaluate(batch)
    assert_same(policy, (now.logp, now.entropy, now.value), plain(policy, batch))
