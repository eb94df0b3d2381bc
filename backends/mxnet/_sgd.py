"""SGD with the update of PyTorch, for MXNet."""

import mxnet as mx


class SGD(mx.optimizer.Optimizer):
    """SGD with the update of PyTorch.

    Differs: MXNet's own bakes the learning rate into the momentum, so that a
    new one takes hold slowly. Its settings are rounded to float32.
    """

    def __init__(self, momentum, **settings):
        super().__init__(**settings)
        self.momentum = momentum

    def create_state(self, index, weight):  # noqa: ARG002
        return weight.zeros_like() if self.momentum else None

    def update(self, index, weight, grad, state):
        self._update_count(index)
        decay, lr = self._get_wd(index), self._get_lr(index)
        w, g = weight.as_nd_ndarray(), grad.as_nd_ndarray()
        if state is None:
            mx.nd.sgd_update(
                w, g, out=w, lr=lr, wd=decay, rescale_grad=self.rescale_grad
            )
            return
        # The kernel computes w - lr * (rescale_grad * g + wd * w) in one pass.
        # Three of them here, v = mu * v + rescale * g, v += decay * w and
        # w -= lr * v: as operators of `np` they take 100 ms longer a step.
        v = state.as_nd_ndarray()
        mu, rescale = self.momentum, self.rescale_grad
        mx.nd.sgd_update(v, g, out=v, lr=-1, wd=mu - 1, rescale_grad=rescale)
        mx.nd.sgd_update(v, w, out=v, lr=-1, wd=0, rescale_grad=decay)
        mx.nd.sgd_update(w, v, out=w, lr=lr, wd=0)
