"""Glow's mathematics in NumPy, float64, written to be read, and the means to prove it.

One slide, one file. A layer is a bijection: `forward(x) -> (y, logdet)`, `inverse(y) -> x`, on
arrays (N, H, W, C). `check(layer, x)` compares its log-determinant with a numeric Jacobian.
"""

from reference.actnorm import ActNorm
from reference.adapters import from_torch
from reference.check import check
from reference.conv1x1 import Conv1x1, Conv1x1LU, random_rotation
from reference.coupling import AdditiveCoupling, AffineCoupling
from reference.flow import Flow, Layer
from reference.glow import Glow, MultiScale, Step
from reference.jacobian import Jacobian, jacobian, witnesses
from reference.likelihood import bits_per_dim, dequantize, gaussian_log_prob, quantize, to_images
from reference.network import CouplingNet, conv2d
from reference.nice import NICE
from reference.permutation import Permutation
from reference.realnvp import Logit, MaskedCoupling, RealNVP, channel_mask, checkerboard_mask
from reference.report import Report
from reference.split import ConvPrior, Split, TopPrior
from reference.squeeze import Squeeze
