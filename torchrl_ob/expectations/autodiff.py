"""Candidates of any other distribution, by automatic differentiation of its log-probability."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torch import distributions as D

from torchrl_ob.expectations.quadrature import Candidates
from torchrl_ob.expectations.rules import sample_size
from torchrl_ob.functional import optimal_weights

__all__ = ["log_prob_scores", "score_candidates"]


def score_candidates(
    dist: D.Distribution,
    params: TensorDictBase,
    build: Callable[[TensorDictBase], D.Distribution],
    param_keys: Iterable[object],
    *,
    num_points: int | None = None,
) -> Candidates:
    r"""Candidate own actions of any other distribution, by automatic differentiation.

    ψ are the parameters that the network outputs for the distribution: the weights
    :math:`\|\nabla_\psi \log\pi(a_k)\|^2` are the squared norms of the gradients with respect to all its
    floating-point parameters. The support is enumerated if the distribution can do so; otherwise the candidates are
    samples of it. This is slow, but it supports a new distribution without changes.

    Args:
        dist: the agents' policies, of batch shape ``[*B, n]``.
        params: the parameters of ``dist``, as the network outputs them.
        build: builds the distribution from a tensordict of parameters.
        param_keys: keys of the parameters in ``params``.
        num_points: number of samples, 1,000 by default.

    Returns:
        The candidates.

    Example:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> from torchrl_ob.expectations.autodiff import score_candidates
        >>> params = TensorDict({"probs": torch.tensor([[.8], [.5]])}, batch_size=[2])
        >>> def build(params):
        ...     bernoulli = torch.distributions.Bernoulli(params["probs"])
        ...     return torch.distributions.Independent(bernoulli, 1)
        >>> score_candidates(build(params), params, build, ["probs"]).actions.shape
        torch.Size([2, 1000, 1])
    """
    if dist.has_enumerate_support:
        actions = dist.enumerate_support()
    else:
        actions = dist.sample(torch.Size([sample_size(num_points)]))
    log_prob, scores = log_prob_scores(params.select(*param_keys), actions, build)
    if dist.has_enumerate_support:
        probabilities = log_prob.exp()
    else:
        probabilities = torch.full_like(log_prob, 1 / len(actions))
    probabilities, weights = (x.movedim(0, -1) for x in (probabilities, scores.square().sum(-1)))
    actions = actions.movedim(0, weights.ndim - 1)
    return Candidates(actions, probabilities, optimal_weights(probabilities, weights))


def log_prob_scores(
    params: TensorDictBase, actions: Tensor, build: Callable[[TensorDictBase], D.Distribution]
) -> tuple[Tensor, Tensor]:
    """Log-probabilities ``[K, *B, n]`` of actions ``[K, *B, n, *event]``, and their gradients ``[K, *B, n, P]``.

    Args:
        params: what the network hands to the distribution; the gradients are those in all its floating-point entries.
        actions: K of every agent.
        build: builds the distribution from a tensordict of parameters.
    """
    with torch.enable_grad():
        psi = params.detach().unsqueeze(0).expand(len(actions), *params.batch_size).clone()
        leaves = [x.requires_grad_() for x in psi.values(True, True) if x.is_floating_point()]
        log_prob = build(psi).log_prob(actions)
        gradients = torch.autograd.grad(log_prob.sum(), leaves, materialize_grads=True)
    scores = [x.reshape(*log_prob.shape, -1) for x in gradients]
    return log_prob.detach(), torch.cat(scores, -1)
