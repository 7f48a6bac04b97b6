"""Attention of ragged rows by a kernel that knows about rows: the kernel's place is taken by what
it is documented to do.

No GPU: which rows, keys and windows it is given is shown here, not that PyTorch's kernel does what
its documentation says.
"""

from __future__ import annotations

from inspect import signature
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
import torch.utils.checkpoint
from torch.nn.attention import SDPBackend, sdpa_kernel

from logpi.engine.engine import Engine
from logpi.engine.sampling import Request, Sampling
from logpi.policies.causal_lm import CausalLM
from logpi.policies.fast import varlen as ragged
from logpi.policies.fast.varlen import Ragged, plainly
from logpi.policies.packing import Packed, Rule, attention, pack
from tests.policies.test_causal_lm import gradients, make_batch, scalar
from tests.tiny import tiny_model, tiny_tokenizer


@pytest.fixture
def calls(monkeypatch) -> list[tuple[int, ...]]:
    """Puts `plainly` in the kernel's place, where there is none on a CPU; the shapes of the keys it
    was given."""
    seen: list[tuple[int, ...]] = []

    def attend(q, k, v, *args, **options):
        assert (
            args[0].dtype == args[1].dtype == torch.int32
            and max(args[0].diff()) == args[2]
            and min(args[0].diff()) > 0
        )
        assert (
            max(args[1].diff()) == args[3]
            and args[0][-1] == len(q)
            and args[1][-1] == len(k) == len(v)
        )
        assert options["enable_gqa"] == (q.shape[1] != k.shape[1])
        seen.append(tuple(k.shape))
        return plainly(q, k, v, *args, **options)

    monkeypatch.setattr(ragged, "kernel", lambda q, k, v: attend)
    return seen


def laid(alike: bool) -> Packed:
    """Rows of 9, 6, 0, 14, 5, 9 and 4 tokens; if `alike`, five share openings, one of which
    forwards nothing of its own."""
    length = torch.tensor([9, 6, 0, 14, 5, 9, 4])
    tokens = torch.arange(7 * 16).view(7, 16)
    if alike:
        tokens[1, :4] = tokens[4, :4] = tokens[6, :4] = tokens[0, :4]
        tokens[5, :7] = tokens[3, :7]
    return pack(tokens, length, torch.tensor([4, 4, 0, 7, 4, 7, 4]))


def attended(packed: Packed, rule: Rule, heads: int, kv: int) -> list[torch.Tensor]:
    """Outputs, and gradients by queries, keys and values."""
    g = torch.Generator().manual_seed(3)
    q, k, v, slope = (
        torch.randn(len(packed.ids), n, 8, generator=g, dtype=torch.float64, requires_grad=True)
        for n in (heads, kv, kv, heads)
    )
    out = packed.attend(0, q, k, v, rule)
    return [out, *torch.autograd.grad(out, (q, k, v), slope.detach())]


@pytest.mark.parametrize("window", [None, 1, 3, 14])
@pytest.mark.parametrize("heads", [(4, 4), (4, 2)])
@pytest.mark.parametrize("alike", [True, False])
def test_rows_attend_as_in_blocks(monkeypatch, calls, window, heads, alike):
    rule = Rule(0.3, window)
    ours = attended(laid(alike), rule, *heads)
    assert calls == [
        (43 if alike else 47, heads[1], 8)
    ]  # alike: the last row forwards nothing, so it asks nothing
    monkeypatch.undo()
    for a, b in zip(ours, attended(laid(alike), rule, *heads), strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-9)


def test_the_layout_by_hand():
    rows = laid(alike=True).rows.ragged
    assert rows.queries.tolist() == [0, 9, 11, 25, 26, 28] and rows.keys.tolist() == [
        0,
        9,
        15,
        29,
        34,
        43,
    ]
    assert (rows.most_queries, rows.most_keys) == (14, 14)
    assert rows.key is not None and rows.key[9:15].tolist() == [
        0,
        1,
        2,
        3,
        9,
        10,
    ]  # the second row: the first's opening, its own
    assert laid(alike=False).rows.ragged.key is None


def test_a_window_is_one_more_than_what_is_left_of_it():
    found = {}
    begin = torch.tensor([0, 5], dtype=torch.int32)
    rows = Ragged(None, begin, begin, 5, 5)
    x = torch.zeros(5, 1, 8)
    for window in (None, 1, 4, 5):
        rows.attend(
            lambda *a, w=window, **k: found.__setitem__(w, k["window_size"]) or a[0],
            x,
            x,
            x,
            1.0,
            window,
        )
    assert found == {None: (-1, 0), 1: (0, 0), 4: (3, 0), 5: (-1, 0)}


@pytest.mark.parametrize("kind", ["llama", "mistral", "gemma2", "gemma3"])
def test_evaluation_and_its_gradients_are_those_of_blocks(kind, request):
    policy, batch = CausalLM(tiny_model(kind).double(), tiny_tokenizer(), critic=True), make_batch()
    assert policy.value_head is not None
    torch.nn.init.normal_(policy.value_head.weight, generator=torch.Generator().manual_seed(5))
    sides = []
    for taken in (False, True):
        calls = request.getfixturevalue("calls") if taken else []
        now = policy.evaluate(batch)
        numbers = (now.logp, now.entropy, now.value)
        sides.append((numbers, gradients(policy, scalar(*numbers))))
        if taken:
            assert len(calls) == (
                0 if kind == "gemma2" else 2
            )  # soft caps it cannot do; else one call a layer
    (numbers, slopes), (theirs, other) = sides
    torch.testing.assert_close(theirs, numbers, atol=1e-6, rtol=0)  # values are float32
    for name, slope in slopes.items():
        torch.testing.assert_close(
            other[name], slope, atol=1e-6 * (1 + float(slope.abs().max())), rtol=0, msg=name
        )


@pytest.mark.parametrize("kind", ["llama", "mistral", "gemma3"])
def test_prompts_are_read_as_in_blocks(kind, request):
    """Prefill: prompts with a common opening, then steps on what was kept of them."""
    policy = CausalLM(tiny_model(kind).double(), tiny_tokenizer())
    common = list(range(5, 19))
    asked = [Request([*common, 20 + i, 30], n=2) for i in range(3)] + [Request([7, 8])]
    sides = []
    for taken in (False, True):
        calls = request.getfixturevalue("calls") if taken else []
        rows = Engine(policy).generate(
            asked, Sampling(max_tokens=6), torch.Generator().manual_seed(2)
        )
        assert bool(calls) == taken
        sides.append([row for answers in rows for row in answers])
    for one, other in zip(*sides, strict=True):
        assert one.tokens.equal(other.tokens)
        torch.testing.assert_close(one.logp, other.logp, atol=1e-9, rtol=0)


def test_blocks_on_a_gpu_ask_nothing_that_its_fused_kernels_cannot_do(monkeypatch):
    """Heads that share keys with a mask, or in float32, would fall to the kernel that holds all
    scores."""
    asked = []

    def kernel(q, k, v, **options):
        asked.append((q.device.type, k.shape[1], v.shape[1], options["enable_gqa"]))
        return q

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", kernel)
    for device in ("meta", "cpu"):
        q, k = (torch.zeros(2, heads, 5, 8, device=device) for heads in (6, 2))
        attention(q, k, k, torch.zeros(2, 1, 5, 5, device=device), Rule(0.3))
    assert asked == [("meta", 6, 6, False), ("cpu", 2, 2, True)]


def queries(
    dtype=torch.bfloat16, size: int = 64, values: int | None = None, cuda: bool = True
) -> list:
    """Just what `kernel` looks at."""
    widths = (size, size, values or size)
    return [
        SimpleNamespace(is_cuda=cuda, dtype=dtype, device="cuda", shape=(3, 4, n)) for n in widths
    ]


def test_where_the_kernel_is_used(monkeypatch):
    sound: list[bool] = []
    monkeypatch.setattr(ragged, "_flash", lambda device: plainly)
    monkeypatch.setattr(ragged, "_sound", lambda *a: not sound)
    assert ragged.kernel(*queries()) is plainly
    assert ragged.kernel(*queries(torch.float16, size=256)) is plainly
    refused = (
        queries(cuda=False),
        queries(torch.float32),
        queries(size=36),
        queries(size=264),
        queries(size=64, values=32),
    )
    assert all(ragged.kernel(*x) is None for x in refused)
    with sdpa_kernel(SDPBackend.MATH):  # second derivatives are taken here
        assert ragged.kernel(*queries()) is None
    sound.append(False)
    assert ragged.kernel(*queries()) is None


def top_left(q, k, v, cu_q, cu_k, *args, **options):
    """Causality from the first key on, as before FlashAttention 2.1."""
    out = torch.zeros_like(q)
    for (i, j), m in zip(pairwise(cu_q.tolist()), cu_k.tolist(), strict=False):
        ends, first = torch.tensor([0, j - i]), slice(m, m + j - i)
        out[i:j] = plainly(q[i:j], k[first], v[first], ends, ends, j - i, j - i, **options)
    return out


def narrow(*args, window_size, **options):
    return plainly(
        *args, window_size=(window_size[0] - 1 if window_size[0] > 0 else -1, 0), **options
    )


def no_gradient(q, k, v, *args, **options):
    return plainly(q, k.detach() + 0 * k, v, *args, **options)


def absent(*args, **options):
    raise RuntimeError("CUDA error: no kernel image is available")


@pytest.mark.parametrize(
    "wrong", [top_left, narrow, no_gradient, absent, lambda *a, **k: plainly(*a, **k) * torch.nan]
)
def test_a_kernel_that_does_otherwise_is_found_out(wrong):
    with pytest.warns(UserWarning, match="padded blocks"):
        assert not ragged._sound(wrong, torch.device("cpu"), torch.bfloat16, 4, 2, 16)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_kernel_in_half_precision_that_does_it_is_believed(dtype):
    with torch.inference_mode():  # the first to ask may be the sampler
        assert ragged._sound(plainly, torch.device("cpu"), dtype, 4, 2, 64)


def test_the_probe_may_come_in_the_middle_of_a_checkpointed_layer():
    ragged._sound.cache_clear()
    x = torch.ones(3, requires_grad=True)

    def layer(x: torch.Tensor) -> torch.Tensor:
        assert ragged._sound(plainly, torch.device("cpu"), torch.bfloat16, 2, 1, 8)
        return x.sin().exp()

    torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=False).sum().backward()
    assert x.grad is not None


def test_gradients_of_a_shared_token_are_summed_before_they_are_rounded():
    x = torch.ones(2, 1, 8, dtype=torch.bfloat16, requires_grad=True)
    index = torch.zeros(1000, dtype=torch.long)
    ragged._Taken.apply(x, index).sum().backward()
    assert x.grad is not None and x.grad[0].eq(1000).all() and x.grad[1].eq(0).all()


def test_pytorchs_own_takes_what_it_is_given():
    """Arguments, shapes and types, by its own shape rules; nothing is computed."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    varlen = pytest.importorskip("torch.nn.attention.varlen")
    if not signature(varlen.varlen_attn).parameters.keys() >= ragged.OPTIONS:
        pytest.skip("this PyTorch's has not all the options")
    packed, wide = laid(alike=True), {"dtype": torch.bfloat16, "requires_grad": True}
    rows = packed.rows.ragged
    with FakeTensorMode(allow_non_fake_inputs=True):
        q, k, v = (torch.empty(len(packed.ids), n, 16, **wide) for n in (4, 2, 2))
        out = rows.attend(varlen.varlen_attn, q, k, v, 0.3, 5)
        assert out.shape == q.shape and out.dtype == q.dtype
        slopes = torch.autograd.grad(out.sum(), (q, k, v))
    assert [s.shape for s in slopes] == [q.shape, k.shape, v.shape]
