"""Returns, as pure tensor functions."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["control_variate", "lambda_return"]


def lambda_return(
    reward: Tensor,
    next_value: Tensor,
    done: Tensor,
    terminated: Tensor,
    *,
    gamma: float,
    lmbda: float,
    time_dim: int = -2,
) -> Tensor:
    r"""The λ-return.

    .. math::
        G_t = r_t + \gamma\,(1 - d_t)\,[(1 - \lambda_t)\,V_{t+1} + \lambda_t\,G_{t+1}]

    with :math:`d_t = 1` where the episode terminated, :math:`\lambda_t = 0` at the end of a
    trajectory (``done``, or the last step given) and λ elsewhere. (Sutton and Barto,
    "Reinforcement Learning", 2nd edition, equation 12.18.)

    The recursion is linear, so it is evaluated by doubling: after k rounds, every step has absorbed the
    :math:`2^k - 1` steps that follow it. Unlike TorchRL's vectorized return, it keeps small terms, supports γλ = 0,
    and can be traced.

    Args:
        reward: ``[..., T, ...]``, time at ``time_dim``; the others have the same shape.
        next_value: bootstrap value of the state that follows each step.
        done: whether the trajectory ends with the step, for whatever reason.
        terminated: whether the episode terminated with it, so that nothing follows.
        gamma: discount.
        lmbda: trace decay λ.
        time_dim: dimension of time.

    Returns:
        ``G``, of the shape of ``reward``.

    Example:
        >>> import torch
        >>> from torchrl_ob.functional import lambda_return
        >>> end = torch.tensor([False, False, True])
        >>> args = torch.ones(3), torch.zeros(3), end, end
        >>> lambda_return(*args, gamma=0.5, lmbda=1.0, time_dim=0)
        tensor([1.7500, 1.5000, 1.0000])
    """
    reward, next_value, done, terminated = (
        x.movedim(time_dim, 0) for x in (reward, next_value, done, terminated)
    )
    steps = reward.shape[0]
    # first, or a float would round λ to float32; nor do rewards that are integers
    dtype = torch.promote_types(reward.dtype, next_value.dtype)
    goes_on = (~(done | terminated)).to(dtype)
    trace = lmbda * goes_on
    trace = torch.cat([trace[:-1], torch.zeros_like(trace[-1:])])
    value = reward + gamma * (~terminated).to(dtype) * (1 - trace) * next_value
    decay, reach = gamma * trace, 1
    while reach < steps:
        value = torch.cat([value[:-reach] + decay[:-reach] * value[reach:], value[-reach:]])
        decay = torch.cat([decay[:-reach] * decay[reach:], torch.zeros_like(decay[-reach:])])
        reach *= 2
    return value.movedim(0, time_dim)


def control_variate(
    next_value: Tensor,
    value: Tensor,
    done: Tensor,
    terminated: Tensor,
    *,
    gamma: float,
    lmbda: float,
    time_dim: int = -2,
) -> Tensor:
    r"""Addition to the rewards that frees a λ-return of what Q explains of later actions.

    .. math::
        c_t = \gamma\,\lambda_t\,[V(s_{t+1}) - Q(s_{t+1}, a_{t+1})]

    with :math:`V(s) = E_{a \sim \pi}[Q(s, a)]`, so that its mean is zero for any Q. With it, :func:`lambda_return` is
    :math:`G_t = r_t + \gamma\,[V(s_{t+1}) + \lambda_t\,(G_{t+1} - Q(s_{t+1}, a_{t+1}))]`. (De Asis and Sutton,
    "Per-decision Multi-step Temporal Difference Learning with Control Variates", UAI 2018, equation 9.)

    Args:
        next_value: V of the state that follows each step, time at ``time_dim``; the others have the same
            shape.
        value: Q of each step's state and the action that was taken in it.
        done: whether the trajectory ends with the step, for whatever reason.
        terminated: whether the episode terminated with it.
        gamma: discount.
        lmbda: trace decay λ.
        time_dim: dimension of time.

    Returns:
        ``c``, of the shape of ``value``; 0 at the end of a trajectory, where :math:`\lambda_t = 0`.

    Example:
        >>> import torch
        >>> from torchrl_ob.functional import control_variate
        >>> end = torch.tensor([False, True])
        >>> args = torch.tensor([2.0, 2.0]), torch.tensor([5.0, 3.0]), end, end
        >>> control_variate(*args, gamma=0.5, lmbda=1.0, time_dim=0)
        tensor([-0.5000,  0.0000])
    """
    next_value, value, done, terminated = (
        x.movedim(time_dim, 0) for x in (next_value, value, done, terminated)
    )
    goes_on = (~(done | terminated))[:-1].to(value.dtype)
    correction = gamma * lmbda * goes_on * (next_value[:-1] - value[1:])
    return torch.cat([correction, torch.zeros_like(value[-1:])]).movedim(0, time_dim)
