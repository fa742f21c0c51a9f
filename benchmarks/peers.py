"""Glow from three other libraries, each as near to the same architecture as its own parts allow.

normflows 1.7.3, nflows 0.14 (its last release, 2020) and FrEIA 0.2 (2022), all under the MIT
licence: `pip install -c constraints.txt -e ".[peers]"`. Nothing of theirs is changed or patched.
"""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.programs import Program, Setting, coupling_net

# Functions that torch still has and calls deprecated: normflows and nflows use one each.
warnings.filterwarnings("ignore", message="torch.(lu|triangular_solve) is deprecated")


class Normflows(Program):
    """GlowBlocks in a MultiscaleFlow, its own documented Glow example without classes."""

    family = "peer"

    def __init__(self, setting: Setting) -> None:
        import normflows as nf

        q0, flows, merges = [], [], []
        for i, (c, h, w) in enumerate(reversed(setting.level_shapes())):  # the top level first
            steps = [
                nf.flows.GlowBlock(c, setting.width, scale_map="sigmoid", leaky=0.0, use_lu=True)
                for _ in range(setting.depth)
            ]
            flows.append([*steps, nf.flows.Squeeze()])
            top = i == 0
            q0.append(nf.distributions.GlowBase((c if top else c // 2, h, w)))
            if not top:
                merges.append(nf.flows.Merge())
        about = (
            "priors: a mean and a scale a channel, none learned from the other half; "
            "no output scale in the nets; log-dets in float32"
        )
        model = nf.MultiscaleFlow(q0, flows, merges, class_cond=False)
        super().__init__("normflows", about, model, setting)

    def encode(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        return self.model.inverse_and_log_det(x)

    def decode(self, latents: list[Tensor]) -> Tensor:
        return self.model.forward_and_log_det(latents)[0]

    def log_prob(self, x: Tensor) -> Tensor:
        return self.model.log_prob(x, None)

    def sample(self, n: int) -> Tensor:
        return self.model.sample(n)[0]


class _TakesContext(nn.Module):
    """A net as nflows calls it: with a context, which is None here."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, _context: None = None) -> Tensor:
        return self.net(x)


class Nflows(Program):
    """ActNorm, OneByOneConvolution and AffineCouplingTransform in a MultiscaleCompositeTransform.

    nflows has no convolutional net of this shape; it gets the floor's. Its 1×1 starts as the
    identity, its own default: from its random start, samples are not finite at K = 32.
    """

    family = "peer"

    def __init__(self, setting: Setting) -> None:
        from nflows import transforms
        from nflows.distributions import StandardNormal
        from nflows.flows import Flow
        from nflows.utils import create_mid_split_binary_mask

        def net(_c_in: int, c_out: int) -> nn.Module:
            return _TakesContext(coupling_net(c_out, setting.width))

        multiscale = transforms.MultiscaleCompositeTransform(setting.levels)
        for shape in setting.level_shapes():
            c = shape[0]
            layers: list[nn.Module] = [transforms.SqueezeTransform()]
            for _ in range(setting.depth):
                layers += [
                    transforms.ActNorm(c),
                    transforms.OneByOneConvolution(c),
                    transforms.AffineCouplingTransform(create_mid_split_binary_mask(c), net),
                ]
            multiscale.add_transform(transforms.CompositeTransform(layers), shape)
        about = (
            "no learned priors; 1×1 as two matrix products with a bias, the identity at first; "
            "scale sigmoid + 0.001; no output scale in the nets; log-dets in float32"
        )
        model = Flow(multiscale, StandardNormal([setting.dims]))
        super().__init__("nflows", about, model, setting)

    def encode(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        z, logdet = self.model._transform(x)
        return [z], logdet

    def decode(self, latents: list[Tensor]) -> Tensor:
        return self.model._transform.inverse(latents[0])[0]

    def log_prob(self, x: Tensor) -> Tensor:
        return self.model.log_prob(x)

    def sample(self, n: int) -> Tensor:
        return self.model.sample(n)


class Freia(Program):
    """AllInOneBlock, FrEIA's Glow step, in a GraphINN with Splits; the nets are the floor's."""

    family = "peer"

    def __init__(self, setting: Setting) -> None:
        import FrEIA.framework as ff
        import FrEIA.modules as fm

        def net(_c_in: int, c_out: int) -> nn.Module:
            return coupling_net(c_out, setting.width)

        def at(previous: object, module: type, **options: object) -> object:
            nodes.append(ff.Node(previous, module, options))
            return nodes[-1]

        nodes: list[object] = [ff.InputNode(*setting.shape)]
        outputs: list[object] = []
        h: object = nodes[0]
        for i in range(setting.levels):
            h = at(h, fm.IRevNetDownsampling)
            for _ in range(setting.depth):
                options = {"permute_soft": True, "global_affine_type": "EXP"}
                h = at(h, fm.AllInOneBlock, subnet_constructor=net, **options)
            if i < setting.levels - 1:
                split = at(h, fm.Split)
                outputs.append(ff.OutputNode(split.out1))
                h = split.out0
        outputs.append(ff.OutputNode(h))
        about = (
            "1×1 a fixed random rotation, not learned; scale exp(2 tanh) of a tenth of the net's "
            "output; the scale and shift for actnorm not set from data; no learned priors; "
            "log-dets in float32"
        )
        super().__init__("FrEIA", about, ff.GraphINN([*nodes, *outputs]), setting)
        self.latent_shapes = self.model.global_out_shapes

    def encode(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        latents, logdet = self.model(x)
        return list(latents) if isinstance(latents, tuple) else [latents], logdet

    def decode(self, latents: list[Tensor]) -> Tensor:
        return self.model(latents, rev=True)[0]

    def log_prob(self, x: Tensor) -> Tensor:
        latents, logdet = self.encode(x)
        terms = [0.5 * z.square().flatten(1).sum(1) for z in latents]
        return logdet - sum(terms) - 0.5 * self.setting.dims * math.log(2 * math.pi)

    @torch.no_grad()
    def sample(self, n: int) -> Tensor:
        return self.decode([torch.randn(n, *shape) for shape in self.latent_shapes])


_KNOWN = {"normflows": Normflows, "nflows": Nflows, "FrEIA": Freia}

PEERS: dict[str, Callable[[Setting], Program]] = {
    name: program for name, program in _KNOWN.items() if importlib.util.find_spec(name)
}

MISSING = [name for name in _KNOWN if name not in PEERS]
