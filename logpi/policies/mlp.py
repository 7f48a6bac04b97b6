"""Actor–critic policies for states that are vectors: a network to action parameters, a network to a
value.

    policy = mlp(features=4, kind=Categorical(2))           # separate 64×64 tanh networks
    act = policy.actor()                                    # NumPy mirror of the actor, to sample
    params = act(observations)                              # [N, D] -> [N, K]
    policy.evaluate(batch), policy.distributions(batch)     # torch, with gradients

Observations are rows of D features, then (where the environment has them) M bits of allowed
actions. The running normalisation of the features is a buffer of the policy, so every checkpoint
and every saved model holds it. Left out: pixels (`cnn.py` gives `ActorCritic` a trunk),
environments, and how actions are drawn (`distributions.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from logpi.ops.moments import merge
from logpi.policies.distributions import Distribution, Distributions
from logpi.policies.fast.dense import Stack, dense, orthogonal, outputs, plain_stacks
from logpi.policies.fast.dense_step import ForwardPass, ScoredActions, Scratch, scored
from logpi.types import Batch, PolicyOutput

# logit of an action that the mask forbids: its probability is exactly 0, and 0 · log 0 stays finite
FORBIDDEN = -1e8
Forward = Callable[[np.ndarray], np.ndarray]


class Normalizer(nn.Module):
    """x ↦ clip((x − mean) / std, ±10), with the mean and variance of all that `observe` was given.

    They change between updates only, never inside one: sampler and learner compute the same
    function (other libraries change them at every step).
    """

    mean: Tensor
    var: Tensor
    count: Tensor

    def __init__(self, features: int, clip: float = 10.0) -> None:
        super().__init__()
        self.clip = clip
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("var", torch.ones(features))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return ((x - self.mean) / (self.var + 1e-8).sqrt()).clamp(-self.clip, self.clip)

    @torch.no_grad()
    def observe(self, mean: np.ndarray, var: np.ndarray, count: int) -> None:
        """Merge the moments [D] of `count` more observations."""
        new_mean, new_var = (torch.as_tensor(x, dtype=torch.float64) for x in (mean, var))
        old = self.mean.double(), self.var.double(), float(self.count)
        merged, spread, total = merge(*old, new_mean, new_var, count)
        self.mean.copy_(merged)
        self.var.copy_(spread)
        self.count.fill_(total)

    def mirror(self) -> Forward:
        """`forward` in NumPy; reads the buffers' own memory."""
        mean, var, clip = self.mean.numpy(), self.var.numpy(), self.clip
        return lambda x: np.clip((x - mean) / np.sqrt(var + np.float32(1e-8)), -clip, clip)


class ActorCritic(nn.Module):
    """π(a|s) and V(s) from up to three networks. A `logpi.types.Policy` that also has whole
    distributions.

    Args:
        kind: the family of action distributions.
        actor: features (or the trunk's) -> `kind.outputs`. critic: the same -> 1, or None for no
            critic.
        trunk: what both share, or None. normalizer: of the features, or None.
        masks: how many of the observation's last columns are bits of allowed actions.
        log_std: initial log standard deviation, of families that have one.
        axes: of one observation: 1 for a row of features, 3 for a frame.
    Attributes:
        encode: the environment's observations to what the networks read, for `act`.
    """

    encode: Callable[[Any], np.ndarray] = staticmethod(np.asarray)

    def __init__(
        self,
        kind: Distribution,
        actor: nn.Module,
        critic: nn.Module | None = None,
        *,
        trunk: nn.Module | None = None,
        normalizer: Normalizer | None = None,
        masks: int = 0,
        log_std: float = 0.0,
        axes: int = 1,
    ) -> None:
        super().__init__()
        self.kind, self.masks, self.axes = kind, masks, axes
        self.normalizer, self.trunk, self._scratch = normalizer, trunk, Scratch()
        self.actor_net, self.critic_net = actor, critic
        self.free = nn.Parameter(torch.full((kind.free,), log_std)) if kind.free else None
        # the parameters become views of one piece of memory, in their order
        vector_to_parameters(parameters_to_vector(self.parameters()).detach(), self.parameters())

    def evaluate(self, batch: Batch) -> PolicyOutput:
        """logp, entropy [B, T] nats and value [B, T+1] in units of return, 0 where they are not
        read. Carries gradients.

        It computes own actions only, and values only where they are read: padding costs nothing.
        """
        mask = batch.mask
        # minibatches of single actions: nothing to gather
        single = mask.shape[1] == 1 and bool(mask.all())
        features, allowed = self._features(batch.obs[:, 0] if single else batch.obs[:, :-1][mask])
        networks = [n for n in (self.actor_net, self.critic_net) if n is not None]
        params, *value = outputs(networks, features)
        action = batch.action[:, 0] if single else batch.action[mask]
        logp, entropy = self.kind.score(self._complete(params, allowed), action)
        value = self._values(batch, value[0], single) if value else None
        if single:
            return PolicyOutput(logp[:, None], entropy[:, None], value)
        return PolicyOutput(_place(logp, mask), _place(entropy, mask), value)

    @torch.no_grad()
    def recorded(self, batch: Batch) -> ScoredActions | None:
        """`evaluate` with its derivatives written out, which spares a small network autograd's
        calls. What it says is valid until the next call.

        None where `evaluate` and autograd have to do it: rows of several actions, rows that go on,
        networks other than plain stacks on a CPU, a subclass that evaluates in its own way.
        """
        own_way = type(self).evaluate is not ActorCritic.evaluate
        if own_way or self.trunk is not None or batch.mask.shape[1] != 1:
            return None
        features, allowed = self._features(batch.obs[:, 0])
        networks = [n for n in (self.actor_net, self.critic_net) if n is not None]
        stacks = plain_stacks(networks, features)
        if stacks is None or not bool((batch.mask[:, 0] & batch.terminated).all()):
            return None
        forward = ForwardPass.of(stacks, features, self._scratch)
        params, *value = forward.outputs
        logp, entropy, pull = scored(self.kind, self._complete(params, allowed), batch.action[:, 0])
        # nobody reads what follows a terminated row
        output = PolicyOutput(
            logp[:, None], entropy[:, None], value[0].expand(-1, 2) if value else None
        )
        return ScoredActions(output, forward, pull, self.free, allowed)

    def distributions(self, batch: Batch) -> Distributions:
        """The whole distribution in each state where the policy acted. Carries gradients."""
        return Distributions(self.kind, self._params(batch.obs[:, :-1][batch.mask]))

    def value(self, obs: Tensor) -> Tensor:
        """[N] expected return of observations [N, *].

        Raises:
            ValueError: the policy has no critic.
        """
        if self.critic_net is None:
            raise ValueError("this policy has no critic")
        return self.critic_net(self._features(obs)[0]).squeeze(-1)

    def observe(self, mean: np.ndarray, var: np.ndarray, count: int) -> None:
        """Moments [D] of `count` more feature vectors, for the normalisation (if there is one)."""
        if self.normalizer is not None:
            self.normalizer.observe(mean, var, count)

    def actor(self) -> Forward:
        """obs [N, *] -> action parameters [N, K], in NumPy; follows the parameters as they are
        trained.

        A plain stack of dense layers on the CPU is mirrored by views of its weights; anything else
        runs in torch.
        """
        layers = _dense_layers(self)
        return self._torch_actor() if layers is None else self._numpy_actor(layers)

    def act(
        self,
        observation: Any,
        *,
        greedy: bool = True,
        rng: np.random.Generator | int | None = None,
    ) -> Any:
        """The action that the environment takes for one observation, or for N of them.

        Args:
            observation: as the environment gives it: an array, a number, a dict or a tuple; for N,
                every array has one more axis in front. Also as the networks read it: [D] features
                with the mask's bits behind them, or [H, W, C] bytes. Bits that the environment
                gives in `info` go behind `policy.encode(observation)`.
            greedy: the likeliest action; else one is sampled.
            rng: NumPy's random numbers, or a seed.
        Returns:
            One action, as the environment's `step` takes it (a number, or an array of the action
            space's shape), or an array of N.
        Raises:
            ValueError: an observation with other axes.

        >>> from logpi.policies.distributions import Categorical
        >>> policy = mlp(4, Categorical(2))
        >>> int(policy.act([0.0, 0.1, 0.0, 0.1])) in (0, 1), policy.act(np.zeros((8, 4))).shape
        (True, (8,))
        """
        x = self.encode(observation)
        if x.ndim not in (self.axes, self.axes + 1):
            raise ValueError(
                f"an observation has {self.axes} axes here, several have {self.axes + 1}, not"
                f" {x.ndim}: shape {x.shape}"
            )
        rows = x if x.ndim > self.axes else x[None]
        try:
            params = self.actor()(rows if x.dtype == np.uint8 else rows.astype(np.float32))
        except (ValueError, RuntimeError):
            raise ValueError(
                f"observations of shape {x.shape} are not those that this policy learned from"
            ) from None
        kind, random = self.kind, np.random.default_rng(rng)
        actions = kind.to_env(kind.mode(params) if greedy else kind.sample(params, random))
        return actions if x.ndim > self.axes else actions[0]

    def _features(self, obs: Tensor) -> tuple[Tensor, Tensor | None]:
        allowed = None
        if self.masks:
            obs, allowed = obs[..., : -self.masks], obs[..., -self.masks :] > 0.5
        if self.normalizer is not None:
            obs = self.normalizer(obs)
        return (obs if self.trunk is None else self.trunk(obs)), allowed

    def _params(self, obs: Tensor) -> Tensor:
        features, allowed = self._features(obs)
        return self._complete(self.actor_net(features), allowed)

    def _complete(self, params: Tensor, allowed: Tensor | None) -> Tensor:
        """The actor's outputs with forbidden actions masked, and the free parameters, which do not
        depend on the state."""
        if allowed is not None:
            params = params.masked_fill(~allowed, FORBIDDEN)
        return params if self.free is None else torch.cat([params, self.free.expand_as(params)], -1)

    def _values(self, batch: Batch, own: Tensor, single: bool) -> Tensor:
        """[B, T+1]: `own` [M, 1] at own actions, and the state after the last of a row that was cut
        off."""
        mask = batch.mask
        if single and bool(batch.terminated.all()):
            # nobody reads what follows a terminated row
            return own.expand(-1, 2)
        value = pad(own if single else _place(own, mask), (0, 1))
        cut = (~batch.terminated & mask.any(1)).nonzero().squeeze(1)
        if not len(cut):
            return value
        after = (mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)).amax(1)[cut]
        return value.index_put((cut, after), self.value(batch.obs[cut, after]))

    def _torch_actor(self) -> Forward:
        @torch.inference_mode()
        def act(obs: np.ndarray) -> np.ndarray:
            return self._params(torch.from_numpy(obs).to(self.device)).cpu().numpy()

        return act

    def _numpy_actor(self, layers: Sequence[Forward]) -> Forward:
        layers = layers if self.normalizer is None else [self.normalizer.mirror(), *layers]
        masks, free = self.masks, self.free
        log_std = None if free is None else free.detach().numpy()

        def act(obs: np.ndarray) -> np.ndarray:
            x = obs[:, :-masks] if masks else obs
            for layer in layers:
                x = layer(x)
            if masks:
                x = np.where(obs[:, -masks:] > 0.5, x, np.float32(FORBIDDEN))
            if log_std is None:
                return x
            return np.concatenate([x, np.broadcast_to(log_std, x.shape)], -1)

        return act

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device


def _place(x: Tensor, mask: Tensor) -> Tensor:
    return x.new_zeros(mask.shape).masked_scatter(mask, x)


def _dense_layers(policy: ActorCritic) -> list[Forward] | None:
    """The actor as NumPy functions that read the parameters' own memory; None if it is not a stack
    of dense layers on the CPU."""
    functions: list[Forward] = []
    networks = [n for n in (policy.trunk, policy.actor_net) if n is not None]
    for module in [m for n in networks for m in (n if isinstance(n, nn.Sequential) else [None])]:
        match module:
            case nn.Linear() if (
                module.weight.device.type == "cpu" and module.weight.dtype == torch.float32
            ):
                weight = module.weight.detach().numpy().T
                bias = 0.0 if module.bias is None else module.bias.detach().numpy()
                functions.append(lambda x, w=weight, b=bias: x @ w + b)
            case nn.Tanh():
                functions.append(np.tanh)
            case nn.ReLU():
                functions.append(lambda x: np.maximum(x, 0))
            case _:
                return None
    return functions


def mlp(  # noqa: PLR0913 (settings, all keywords)
    features: int,
    kind: Distribution,
    *,
    hidden: Sequence[int] = (64, 64),
    critic: bool = True,
    shared: bool = False,
    normalize: bool = False,
    masks: int = 0,
    log_std: float = 0.0,
    activation: type[nn.Module] = nn.Tanh,
    plain: bool = False,
) -> ActorCritic:
    """Separate (the better default: arXiv:2006.05990, C47) or shared dense networks.

    Args:
        features: D, without the mask's columns. hidden: widths. shared: one trunk for policy and
            value.
        normalize: running normalisation of the features. masks: number of the mask's columns.
        plain: torch's own initial weights, with which some published settings were tuned, instead
            of orthogonal ones.

    >>> from logpi.policies.distributions import Categorical
    >>> mlp(4, Categorical(2)).actor()(np.zeros((8, 4), np.float32)).shape
    (8, 2)
    """
    width = hidden[-1] if hidden else features
    inner = [] if shared else dense(features, hidden, activation)
    actor = Stack(*inner, orthogonal(nn.Linear(width, kind.outputs), 0.01))
    inner = [] if shared else dense(features, hidden, activation)
    value = Stack(*inner, orthogonal(nn.Linear(width, 1), 1.0)) if critic else None
    trunk = Stack(*dense(features, hidden, activation)) if shared else None
    norm = Normalizer(features) if normalize else None
    if plain:
        for layer in [*actor, *(value or ()), *(trunk or ())]:
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()
    return ActorCritic(
        kind, actor, value, trunk=trunk, normalizer=norm, masks=masks, log_std=log_std
    )
