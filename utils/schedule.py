"""How a learning rate falls."""

import math


def cosine_decay(fraction: float) -> float:
    """½ (1 + cos(π · fraction)): 1 at the start of training (0), 0 at its end (1) and after it.

    Loshchilov & Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2017, equation 5, without restarts.
    """
    return 0.5 * (1 + math.cos(math.pi * min(1.0, fraction)))
