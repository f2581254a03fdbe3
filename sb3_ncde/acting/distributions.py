"""Actions and their log-probabilities in NumPy, for distributions of Stable-Baselines3.

Random numbers are handed in, so that a seed is that of PyTorch's generator, as everywhere in Stable-Baselines3.
"""

import math

import numpy as np

from sb3_ncde.history.window_rule import Array

HALF_LOG_2_PI = 0.5 * math.log(2 * math.pi)


def gaussian(mean: Array, log_std: Array, noise: Array | None) -> tuple[Array, Array]:
    """Return actions, (N, A), and their log-probabilities, (N,), of a Gaussian with independent dimensions.

    :param mean: (N, A)
    :param log_std: (A,)
    :param noise: standard normal numbers, (N, A); None: the most likely action
    """
    deviation = np.exp(log_std)
    actions = mean if noise is None else mean + deviation * noise
    # Of the actions as they have been rounded: learning knows nothing else of them.
    log_prob: Array = np.square((actions - mean) / deviation).sum(axis=1)
    log_prob *= -0.5
    log_prob -= log_std.sum() + HALF_LOG_2_PI * mean.shape[1]
    return actions, log_prob


def state_dependent(
    mean: Array, latent: Array, log_std: Array, noise: Array | None, epsilon: float
) -> tuple[Array, Array]:
    """Return actions, (N, A), and their log-probabilities, (N,), of gSDE (Raffin et al. 2021, arXiv:2005.05719).

    :param mean: (N, A)
    :param latent: what the noise depends on, (N, units)
    :param log_std: (units, A)
    :param noise: what the exploration matrix makes of ``latent``, (N, A); None: the most likely action
    :param epsilon: that is added to the variance
    """
    actions = mean if noise is None else mean + noise
    variance = np.square(latent) @ np.exp(2 * log_std)
    variance += epsilon
    log_prob: Array = (np.square(actions - mean) / variance + np.log(variance)).sum(axis=1)
    log_prob *= -0.5
    log_prob -= HALF_LOG_2_PI * mean.shape[1]
    return actions, log_prob


def categorical(logits: Array, noise: Array | None) -> tuple[Array, Array]:
    """Return options, (N,), and their log-probabilities, (N,).

    Of exponential numbers, each divided by a probability, the least is that of an option with this probability.

    :param logits: (N, options)
    :param noise: exponential numbers with a mean of 1, (N, options); None: the most likely option
    """
    shifted = logits - np.maximum.reduce(logits, axis=1, keepdims=True)  # exp() cannot overflow
    odds = np.exp(shifted)
    total = np.add.reduce(odds, axis=1)
    options: Array = (odds if noise is None else odds / noise).argmax(axis=1)
    return options, shifted[np.arange(len(options)), options] - np.log(total)
