"""A second device, "elsewhere", simulated on the CPU: what crashes on a GPU for standing on two
devices crashes here too.

`import tests.elsewhere` makes `torch.device("elsewhere")` known. A tensor there wraps one of the
CPU; every operation unwraps, computes on the CPU and wraps again, below autograd, so numbers are
the CPU's and the paths those of any device that is not "cpu". As on CUDA:

- an operation that mixes a tensor from elsewhere with a CPU tensor of one or more dimensions is an
  error; single numbers (0 dimensions) are fine, except in lists (`cat`, `stack`);
- `x[index]` and `x[index] = y` may have their index, and only that, on the CPU; `index_select`,
  `gather`, … may not;
- random numbers may not be drawn there from a generator of the CPU; `.numpy()` is refused;
- `copy_`, `to`, `cpu`, `item`, `tolist` go across; modules keep their tied weights when they move.

Left out: asynchrony, memory, kernels and their rounding (all of them the GPU's own), `.resize_` and
other changes of shape in place. It is process-wide and must come before the first `backward`
(autograd starts a thread for each device then), so tests that use it run in a process of their own:
`test_elsewhere.py` starts them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, library
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _setup_privateuseone_for_python_backend,
)

from logpi.policies import loading

NAME = "elsewhere"
aten: Any = torch.ops.aten
Library = library.Library
ACROSS = {
    aten.copy_.default,
    aten._copy_from.default,
    aten._to_copy.default,
}  # may mix devices: that is what they are for
INDEXING = {
    aten.index.Tensor,
    aten.index_put_.default,
    aten.index_put.default,
    aten._index_put_impl_.default,
}
# Made on a device from numbers alone, by kernels of its own: the general ones resize, or ask C++
# for memory.
MADE = (
    "empty.memory_format",
    "empty_strided",
    "_to_copy",
    "arange",
    "arange.start",
    "arange.start_step",
    "randperm",
    "randperm.generator",
    "eye",
    "eye.m",
    "linspace",
)


class Elsewhere(Tensor):
    """A tensor on the device: `inner`, of the CPU, holds its numbers."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> Elsewhere:
        layout = dict(
            strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype
        )
        made = Tensor._make_wrapper_subclass(cls, inner.shape, device=f"{NAME}:0", **layout)  # type: ignore[arg-type]
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        return _run(func, args, kwargs or {})

    # What torch does for its own tensors but not for subclasses.
    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"{NAME}: {self.inner!r}"

    def __format__(self, form: str) -> str:
        return format(self.inner, form)

    def __deepcopy__(self, memo: dict) -> Tensor:
        if id(self) not in memo:
            copied = self.detach().clone().requires_grad_(self.requires_grad)
            memo[id(self)] = (
                torch.nn.Parameter(copied, self.requires_grad)
                if getattr(self, "_is_param", False)
                else copied
            )
        return memo[id(self)]

    def tolist(self) -> Any:
        return self.inner.tolist()

    def data_ptr(self) -> int:
        return self.inner.data_ptr()

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.inner.untyped_storage()


def _each(f: Callable[[Any], Any], x: Any) -> Any:
    """`f` of every item; torch's own tree_map takes longer than the operations."""
    return type(x)(f(y) for y in x) if isinstance(x, list | tuple) else f(x)


def _run(func: Any, args: tuple, kwargs: dict) -> Any:
    """The operation, on the CPU tensors inside; what it changes or returns as it is comes back as
    the very same tensor."""
    there: dict[int, Elsewhere] = {}

    def inside(x: Any) -> Any:
        if isinstance(x, Elsewhere):
            there[id(x.inner)] = x
            return x.inner
        return torch.device("cpu") if isinstance(x, torch.device) else x

    plain, named = (
        [_each(inside, x) for x in args],
        {k: _each(inside, x) for k, x in kwargs.items()},
    )
    asked = kwargs.get("device")
    here = bool(there) if asked is None else torch.device(asked).type == NAME
    if (here or there) and func not in ACROSS:
        _refuse_as_cuda(func, args, kwargs)
    out = func(*plain, **named)
    changed = next((x for x in there.values() if x.shape != x.inner.shape), None)
    assert changed is None, f"{func} changes a shape in place, which this device cannot follow"

    def outside(x: Any) -> Any:
        return (there[id(x)] if id(x) in there else Elsewhere(x)) if isinstance(x, Tensor) else x

    return _each(outside, out) if here else out


def _refuse_as_cuda(func: Any, args: tuple, kwargs: dict) -> None:
    """Two devices in one operation, or a generator of the CPU."""
    given = (args[0], *args[2:]) if func in INDEXING else args
    if any(map(_of_the_cpu, (*given, *kwargs.values()))):
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices,"
            f" {NAME}:0 and cpu! ({func})"
        )
    if isinstance(kwargs.get("generator"), torch.Generator):
        raise RuntimeError(
            f"Expected a '{NAME}' device type for generator but found 'cpu' ({func})"
        )


def _of_the_cpu(x: Any) -> bool:
    """A tensor of the CPU, or a list with one; a single number may stand anywhere but in a list."""
    if isinstance(x, list | tuple):
        return any(isinstance(y, Tensor) and not isinstance(y, Elsewhere) for y in x)
    return isinstance(x, Tensor) and not isinstance(x, Elsewhere) and x.ndim > 0


def _copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    source, into = (x.inner if isinstance(x, Elsewhere) else x for x in (source, target))
    into.copy_(source)
    return target


def _kernel(name: str) -> Callable[..., Any]:
    packet, _, overload = name.partition(".")
    func = getattr(getattr(aten, packet), overload or "default")
    return lambda *args, **kwargs: _run(func, args, kwargs)


class _Module(_DummyBackendModule):
    """`torch.elsewhere`: numbers drawn there are drawn by the CPU's own generator."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    def get_rng_state(self, device: Any = None) -> Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: Tensor, device: Any = None) -> None:
        torch.set_rng_state(state)


_apply = torch.nn.Module._apply


def _moved(self: torch.nn.Module, *args: Any, **kwargs: Any) -> torch.nn.Module:
    """`Module.to`: parameters that move stay the same objects, so tied ones stay tied. Loading a
    state is not changed by it."""
    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        return _apply(self, *args, **kwargs)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(before)


def _install() -> list[Library]:
    """Make the device known to torch; what is returned must be kept for as long as it is used."""
    _setup_privateuseone_for_python_backend(NAME, _Module())
    torch.nn.Module._apply = _moved
    general, kernels = Library("_", "IMPL"), Library("aten", "IMPL")
    general.fallback(lambda func, *args, **kwargs: _run(func, args, kwargs), "PrivateUse1")
    for name in MADE:
        kernels.impl(name, _kernel(name), "PrivateUse1")
    kernels.impl("_copy_from", _copy_from, "PrivateUse1")
    return [general, kernels]


loading.PLACES.add(NAME)
_KEPT = _install() if "LOGPI_DEVICE" not in os.environ else []  # which names a real one
