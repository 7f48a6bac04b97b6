"""The head of a reward model among a checkpoint's weights, whoever saved it.

    score.weight [labels, d]                  transformers' sequence classifiers
    score.weight, score.bias                  its token classifiers (verl)
    classifier.weight, .bias                  those of some families
    value_head.weight, reward_head.weight     OpenRLHF; config.json may have a mean and deviation
    v_head.summary.weight, .bias              TRL's AutoModelForCausalLMWithValueHead

Left out: heads of several layers, whose activations are in nobody's files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from logpi.policies import files
from logpi.policies.hub import check_model

NAMES = ("score", "value_head", "v_head", "reward_head", "regression_head", "classifier")
PLACE = re.compile(
    rf"(?:(?:model|module|base_model|pretrained_model)\.)*({'|'.join(NAMES)})(?:\.(.+))?\.(weight|bias)"
)
ONE_LAYER = (None, "summary", "linear", "out_proj", "dense")


@dataclass(frozen=True)
class RewardHead:
    """r = W h + b.

    Attributes:
        weight: W [labels, d]. bias: b [labels], or None.
        pools: the checkpoint is a sequence classifier, which scores a row in its last token that is
            not padding; others score it in its last token.
    """

    weight: Tensor
    bias: Tensor | None
    pools: bool

    @property
    def labels(self) -> int:
        return self.weight.shape[0]

    def put_on(self, model: Any) -> None:
        """Put it on a sequence classifier with as many labels, as its `score`. Raises ValueError:
        it has another width, or NaN."""
        like = model.score.weight
        if self.weight.shape != like.shape:
            raise ValueError(
                f"its head has shape {tuple(self.weight.shape)}, the model's states want"
                f" {tuple(like.shape)}"
            )
        with torch.device("meta"):
            score = nn.Linear(like.shape[1], like.shape[0], bias=self.bias is not None)
        state = {"weight": self.weight} | ({} if self.bias is None else {"bias": self.bias})
        if not all(bool(x.isfinite().all()) for x in state.values()):
            raise ValueError("its head holds NaN or infinite numbers")
        score.load_state_dict({name: x.to(like) for name, x in state.items()}, assign=True)
        model.score = score


def head_of(path: str | Path) -> RewardHead | None:
    """The head in the weights at `path`, a directory or a name on the hub; None if there is none.

    Raises:
        ValueError: one line: no weights there, or a head that is no linear layer.
    """
    from safetensors import safe_open

    directory = _directory(path)
    if directory is None:
        return None
    # by name and inner layer
    tensors: dict[tuple[str, str | None], dict[str, Tensor]] = {}
    for shard in files.shards(directory):
        with safe_open(directory / shard, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                if place := PLACE.fullmatch(name):
                    tensors.setdefault((place[1], place[2]), {})[place[3]] = file.get_tensor(name)
    heads = [k for k in tensors if "weight" in tensors[k]]
    if not heads:
        return None
    name = min((head for head, _ in heads), key=NAMES.index)
    (_, layer), *others = (k for k in heads if k[0] == name)
    if others or layer not in ONE_LAYER or tensors[name, layer]["weight"].dim() > 2:
        raise ValueError(f"its head {name!r} is no single linear layer, so it cannot be read")
    return _normalised(tensors[name, layer], files.config(directory))


def _normalised(tensors: dict[str, Tensor], config: dict[str, Any]) -> RewardHead:
    """The head (W h + b − mean) / deviation."""
    weight, bias = tensors["weight"].float(), tensors.get("bias")
    weight = weight[None] if weight.dim() == 1 else weight
    bias = None if bias is None else bias.float().reshape(-1)
    if config.get("normalize_reward"):
        mean, deviation = float(config.get("mean", 0.0)), float(config.get("std", 1.0))
        bias = ((0.0 if bias is None else bias) - mean) / deviation * torch.ones(len(weight))
        weight = weight / deviation
    pools = any("SequenceClassification" in str(a) for a in config.get("architectures") or ())
    return RewardHead(weight, bias, pools)


def _directory(path: str | Path) -> Path | None:
    """The directory of the files; of a name on the hub, the one they were downloaded to."""
    local = Path(path).expanduser()
    if local.is_dir():
        # refuse broken files before reading them
        files.weights(local)
        return local
    if local.exists():
        return None
    check_model(str(path))
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(path), allow_patterns=["*.json", "model*.safetensors"]))
    # `loading.read` will raise an error with the reason
    except Exception:
        return None
