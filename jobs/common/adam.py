"""Adam by TensorFlow's fused kernel."""

import tensorflow as tf


def apply_adam(
    variable: tf.Variable,
    first: tf.Variable,
    second: tf.Variable,
    gradient: tf.Tensor,
    *,
    rate: tf.Tensor,
    count: tf.Tensor,
    betas: tuple[float, float],
    epsilon: float,
) -> None:
    """Change `variable` and its moments `first` and `second`, all of one shape, by step number `count` (float, from 1).

    Kingma & Ba, "Adam: a method for stochastic optimization", ICLR 2015, https://arxiv.org/abs/1412.6980.
    """
    tf.raw_ops.ResourceApplyAdam(
        var=variable.handle,
        m=first.handle,
        v=second.handle,
        beta1_power=tf.pow(betas[0], count),
        beta2_power=tf.pow(betas[1], count),
        lr=rate,
        beta1=betas[0],
        beta2=betas[1],
        epsilon=epsilon,
        grad=gradient,
    )
