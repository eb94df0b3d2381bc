"""Mixed precision in Gluon: networks that compute in bfloat16."""

import numpy as onp
from mxnet.gluon import nn

# NumPy has no bfloat16; this is MXNet's name for it.
BFLOAT16 = onp.dtype([("bfloat16", onp.uint16)])


def in_bfloat16(net):
    """Compute convolutions and products in bfloat16, from float32 weights.

    The layers in between stay bfloat16, because each cast copies the batch out
    of oneDNN's layout. BatchNorm's weights and statistics stay float32, and
    the logits are float32. MXNet's own `amp.init` has no effect with the NumPy
    interface.
    """
    in_float32(net)
    net.apply(_cast_weights)
    forward = net.hybrid_forward

    def hybrid_forward(F, x, **weights):
        y = forward(F, _cast(F, x, BFLOAT16), **weights)
        return _cast(F, y, "float32")

    net.hybrid_forward = hybrid_forward


def _cast_weights(module):
    if not isinstance(module, nn.Dense | nn.Conv2D):
        return
    forward = module.hybrid_forward

    def hybrid_forward(F, x, **weights):
        weights = {name: _cast(F, w, BFLOAT16) for name, w in weights.items()}
        return forward(F, x, **weights)

    module.hybrid_forward = hybrid_forward


def in_float32(net):
    """Undo `in_bfloat16`: compute a network in float32 again."""
    net.apply(_as_made)


def _as_made(module):
    vars(module).pop("hybrid_forward", None)


def _cast(F, x, dtype):
    # Only the operator of the old interface supports bfloat16.
    return F.amp_cast(x.as_nd_ndarray(), dtype=dtype).as_np_ndarray()
