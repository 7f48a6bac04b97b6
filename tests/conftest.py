"""What every test starts from: two threads (one where several processes run tests; or
OMP_NUM_THREADS), a fixed seed, float32. `double` switches a test to float64 where exactness
matters."""

from __future__ import annotations

import os

os.environ.setdefault(
    "OMP_WAIT_POLICY", "PASSIVE"
)  # spinning threads starve a busy machine; read when torch is imported
# child processes too: what `logpi` chooses by the load would not be the same twice
os.environ.setdefault("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if (
    "LOGPI_DEVICE" not in os.environ
):  # `auto` is the CPU in tests, GPU or not; elsewhere_cases.py says how to test one
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

import random
import signal
from collections.abc import Iterator

import pytest
import torch

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
# a shell's background job ignores Ctrl-C, and so would what the tests interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _key_of_ones_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What signs runs is not the user's key, in child processes either."""
    os.environ["XDG_DATA_HOME"] = str(tmp_path_factory.mktemp("home"))


@pytest.fixture(autouse=True)
def _same_start() -> Iterator[None]:
    random.seed(0)
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float32)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def double(_same_start: None) -> Iterator[None]:
    """Everything made in this test is float64, aggregation weights too."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
