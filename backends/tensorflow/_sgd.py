"""SGD with the update of PyTorch, for Keras."""

import keras
import tensorflow as tf


class SGD(keras.optimizers.SGD):
    """Keras' SGD with the update of PyTorch.

    Differs: Keras' own SGD includes the learning rate in the momentum, so a
    new rate takes effect slowly. Its weight decay does not go through the
    gradient.
    """

    def __init__(self, lr, momentum, weight_decay):
        super().__init__(lr, momentum, name="sgd")
        self.l2 = weight_decay

    def update_step(self, gradient, variable, learning_rate):
        dtype, lr = variable.dtype, tf.cast(learning_rate, variable.dtype)
        gradient = gradient + tf.constant(self.l2, dtype) * variable
        if not self.momentum:
            variable.assign_sub(lr * gradient)
            return
        # As Keras' own optimizers do: there is no public access to the buffer.
        buffer = self.momentums[self._get_variable_index(variable)].value
        # TensorFlow's own operator keeps the rate out of the momentum.
        tf.raw_ops.ResourceApplyMomentum(
            var=variable.handle,
            accum=buffer.handle,
            lr=lr,
            grad=gradient,
            momentum=tf.constant(self.momentum, dtype),
        )


def slots_of(trainer):
    """Return an optimizer's variables by the slots of common.reference.

    Keras has no public names for Adam's slots and for their order.
    """
    if isinstance(trainer, keras.optimizers.SGD):
        return {"momentum": trainer.momentums} if trainer.momentum else {}
    return {"first": trainer._momentums, "second": trainer._velocities}
