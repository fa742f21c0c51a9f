"""All latents take part: exact reconstruction, straight lines, attribute directions, grading."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from glowlite import latent, verify
from glowlite.data.faces import ATTRIBUTES, draw, make_faces, sample_factors, with_attribute
from glowlite.evaluate import seeded, to_tensor
from glowlite.grading import Score, score_edits, train_reader
from glowlite.realnvp import MaskedCoupling
from glowlite.registry import build
from glowlite.telemetry import telemetry

SMILING = ATTRIBUTES.index("smiling")


def moved(**options):
    """A model away from its initialisation, h ≠ w, float64."""
    description = {"model": "glow", "shape": [3, 8, 16], "levels": 2, "depth": 2, "width": 6}
    model = build({**description, "n_bits": 5, **options}).double()
    generator = seeded(4)
    model.initialize(some(model, 32), generator=generator)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.05 * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    return model.eval()


def some(model, n, seed=0):
    """Smooth pictures, cut from drawn faces."""
    images, _ = make_faces(n, 16, seed=seed)
    _, h, w = model.shape
    return to_tensor(images[:, :h, :w])


@pytest.fixture(scope="module")
def model():
    return moved()


def in_bits(images, n_bits=5):
    return images >> (8 - n_bits) << (8 - n_bits)


def test_reconstruction_is_exact(model):
    images = some(model, 20)
    back, error = latent.reconstruct(model, images)
    assert torch.equal(back, in_bits(images)) and error < 1e-12


def test_interpolation_starts_and_ends_with_the_images(model):
    a, b = some(model, 5), some(model, 5, seed=1)
    frames, exploded = latent.interpolate(model, a, b, steps=5)
    assert exploded.shape == (5, 5) and not exploded.any()
    assert frames.shape == (5, 5, *model.shape)
    assert torch.equal(frames[:, 0], in_bits(a)) and torch.equal(frames[:, -1], in_bits(b))
    # The middle is the middle at *every* level, not of the top latents alone.
    za, zb = latent.encode(model, a), latent.encode(model, b)
    middle, _ = latent.decode(model, [(p + q) / 2 for p, q in zip(za, zb, strict=True)])
    assert torch.equal(frames[:, 2], middle)
    for keep in range(2):
        z = [(p + q) / 2 if i == keep else p for i, (p, q) in enumerate(zip(za, zb, strict=True))]
        assert not torch.equal(frames[:, 2], latent.decode(model, z)[0])
    with pytest.raises(ValueError, match="steps >= 2"):
        latent.interpolate(model, a, b, steps=1)
    with pytest.raises(ValueError, match="equal batches"):
        latent.interpolate(model, a, b[:2])


def test_an_attribute_vector_is_the_difference_of_means(model):
    images = some(model, 41)
    has = np.random.default_rng(0).random((41, 3)) < 0.4
    array = images.permute(0, 2, 3, 1).numpy()
    vectors = latent.attribute_vectors(model, array, has, batch=16)
    encoded = latent.encode(model, images)
    for column, vector in enumerate(vectors):
        with_it = torch.from_numpy(has[:, column])
        for z, v in zip(encoded, vector, strict=True):
            assert torch.allclose(v, z[with_it].mean(0) - z[~with_it].mean(0), atol=1e-12)
    one = latent.attribute_vectors(model, array, has[:, 0], batch=7)[0]
    for a, b in zip(one, vectors[0], strict=True):
        assert torch.allclose(a, b, atol=1e-12)


def test_an_attribute_of_all_or_none_has_no_direction(model):
    array = some(model, 4).permute(0, 2, 3, 1).numpy()
    with pytest.raises(ValueError, match="attribute 1 is on 4 of 4"):
        latent.attribute_vectors(model, array, np.array([[0, 1], [1, 1], [0, 1], [1, 1]]))
    with pytest.raises(ValueError, match="attribute smiling is on 4 of 4"):
        latent.attribute_vectors(model, array, np.ones(4), names=["smiling"])
    with pytest.raises(ValueError, match=r"has has shape \(2, 4\); accepted: .* N = 4"):
        latent.attribute_vectors(model, array, np.eye(2, 4))


def test_edits_move_along_the_vector_at_every_level(model):
    images = some(model, 6)
    z = latent.encode(model, images)
    vector = [0.3 * torch.randn(p.shape[1:], generator=seeded(1), dtype=p.dtype) for p in z]
    frames, _ = latent.edit(model, images, vector, [-1.0, 0.0, 0.5])
    assert torch.equal(frames[:, 1], in_bits(images))
    half, _ = latent.decode(model, [p + 0.5 * v for p, v in zip(z, vector, strict=True)])
    assert torch.equal(frames[:, 2], half) and not torch.equal(frames[:, 0], frames[:, 2])


def test_an_exploded_picture_is_counted_and_does_not_hide_the_others(model):
    images = some(model, 3)
    x = model.dequantize(images, noise=torch.full(images.shape, 0.5, dtype=torch.float64))
    x[1, 0, 0, 0] = torch.nan
    x[2, 0, 0, 0] = -11.0
    pictures, exploded = latent.to_pictures(model, x)
    assert exploded.tolist() == [False, True, True]
    assert torch.equal(pictures[0], in_bits(images)[0]) and pictures[1, 0, 0, 0] == 128


@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0])
def test_temperature_reaches_every_level(model, temperature):
    x = model.sample(400, temperature=temperature, generator=seeded(2))
    latents, _ = model.encode(x)
    for z in latents:
        assert float(z.detach().std()) == pytest.approx(temperature, rel=0.02, abs=1e-9)


@pytest.mark.parametrize("coupling", ["affine", "additive"])
@pytest.mark.parametrize("permutation", ["lu", "plain", "shuffle"])
def test_every_layer_and_the_map_are_verified(coupling, permutation):
    model = moved(coupling=coupling, permutation=permutation).float()
    one = some(model, 1)
    lines = list(verify.verify_layers(model, one))
    assert len(lines) == 2 * (1 + 2 * 3) + 1 + 1
    lines += [verify.verify_map(model, one), verify.verify_map(model, one, full=True)]
    assert all(line.ok for line in lines), "\n".join(map(str, lines))
    assert lines[-1].dims == 3 * 8 * 16 and lines[-2].dims == 3 * 4 * 8
    assert all(line.tolerance < 1e-6 for line in lines)
    assert verify.float32_gap(model, some(model, 4))["logdet"] < 1e-3


def test_nets_in_half_precision_are_exact_where_they_are_verified():
    model = moved().float()
    exact, x = verify.exact_copy(model), torch.rand(1, *model.shape).double() - 0.5
    model.set_net_dtype(torch.bfloat16)
    assert torch.equal(verify.exact_copy(model)(x)[1], exact(x)[1])


def break_actnorm(model):
    layer = model.levels[1].steps[0].actnorm
    forward = layer.forward
    layer.forward = lambda x: (forward(x)[0], layer.log_s.double().sum().expand(len(x)))


def break_coupling(model):
    layer = model.levels[0].steps[1].coupling
    forward = layer.forward
    layer.forward = lambda x: (forward(x)[0], -forward(x)[1])


def break_inverse(model):
    layer = model.levels[0].steps[0].permutation
    inverse = layer.inverse
    layer.inverse = lambda y: inverse(y) * 1.00001


@pytest.mark.parametrize("broken", [break_actnorm, break_coupling, break_inverse])
def test_verification_names_the_broken_layer(monkeypatch, broken):
    model = moved()
    # exact_copy works on a copy of the weights: break the copy it hands out.
    copy_of = verify.exact_copy

    def copied(*args):
        exact = copy_of(*args)
        broken(exact)
        return exact

    monkeypatch.setattr(verify, "exact_copy", copied)
    one = some(model, 1)
    wrong = [line.name for line in verify.verify_layers(model, one) if not line.ok]
    assert len(wrong) == 1 and broken.__name__.split("_")[1] in (
        wrong[0].replace("permutation", "inverse")
    )
    assert not verify.verify_map(model, one).ok


@pytest.mark.parametrize(
    "description",
    [
        {"model": "realnvp", "levels": 2, "width": 4, "blocks": 1},
        {"model": "nice", "width": 8, "hidden": 1, "couplings": 2},
        {"model": "glow", "levels": 1, "depth": 1, "width": 4, "n_classes": 3},
    ],
    ids=["realnvp", "nice", "classes"],
)
def test_the_ancestors_are_verified_too(description):
    model = build({"shape": [3, 4, 8], "n_bits": 5, **description})
    images = some(model, 16)
    classes = torch.arange(16) % 3 if model.n_classes else None
    model.initialize(images, classes, generator=seeded(0))
    with torch.no_grad():
        for p in model.parameters():
            p += 0.03 * torch.randn(p.shape, generator=seeded(1))
    few = None if classes is None else classes[:1]
    lines = [*verify.verify_layers(model, images[:1], few)]
    lines.append(verify.verify_map(model, images[:1], few))
    assert len(lines) >= 4 and all(line.ok for line in lines), "\n".join(map(str, lines))


def test_a_comparison_that_could_not_fail_is_not_ok():
    """κ = 10⁹ at D = 3072 allows 0.01 nats: agreement within that proves nothing."""
    line = verify.Line("x", 3072, 5.0, 5.0, 1e-2, 1e-12)
    assert line.verdict == "UNCERTAIN" and not line.ok and str(line).endswith("UNCERTAIN")
    assert replace(line, tolerance=1e-5).ok
    assert replace(line, is_=5.1).verdict == "WRONG"
    assert replace(line, is_=np.nan).verdict == "WRONG"
    assert replace(line, round_trip=1e-5).verdict == "WRONG"
    assert replace(line, tolerance=np.inf).verdict == "UNCERTAIN"


def test_many_channels_are_checked_at_one_pixel_and_deep_crops_are_square():
    deep = build({"model": "glow", "shape": [3, 64, 64], "levels": 5, "depth": 1, "width": 2})
    assert verify.crop_shape(deep) == (3, 32, 32)
    many = build({"model": "glow", "shape": [180, 4, 8], "levels": 1, "depth": 1, "width": 2})
    images = torch.randint(256, (8, 180, 4, 8), dtype=torch.uint8, generator=seeded(0))
    many.double().initialize(images)
    lines = list(verify.verify_layers(many, images[:1]))
    assert [line.dims for line in lines] == [8 * 180, 720, 720, 720, 720]
    assert all(line.ok for line in lines)


def test_telemetry_sees_a_vanishing_scale_and_a_bent_matrix(model):
    before = telemetry(model, some(model, 4))
    assert before["round_trip"] < 1e-12 and 1 < before["condition"] < 100
    ill = moved()
    with torch.no_grad():
        ill.levels[0].steps[0].actnorm.logs[0] = -4.0
        ill.levels[0].steps[1].permutation.lu[0, 0] -= 12.0
    after = telemetry(ill, some(ill, 4))
    assert after["smallest_scale"] == pytest.approx(np.exp(-12), rel=1e-6)
    assert after["condition"] > 1e4
    with torch.no_grad():
        ill.levels[0].steps[1].coupling.net.conv3.conv.bias[0] = torch.nan
    assert np.isnan(telemetry(ill, some(ill, 4))["smallest_scale"])


def test_telemetry_watches_what_is_inverted(model):
    """A net is evaluated; of a RealNVP the couplings are all there is."""
    before = telemetry(model, some(model, 4))["smallest_scale"]
    other = moved()
    with torch.no_grad():
        other.levels[0].steps[0].coupling.net.norm1.logs[0] = -4.0
    assert 0.5 * before < telemetry(other, some(other, 4))["smallest_scale"]
    nvp = build({"model": "realnvp", "shape": [3, 8, 8], "levels": 2, "width": 4, "blocks": 1})
    nvp.double().initialize(some(nvp, 4))
    assert telemetry(nvp, some(nvp, 4))["smallest_scale"] == 1, "it starts as the identity"
    by_channel = [m for m in nvp.modules() if isinstance(m, MaskedCoupling) and len(m.mask) == 12]
    bias = by_channel[0].net.conv_out.conv.bias
    for keeps, value, expected in ((1, -3.0, 1.0), (0, -0.25, np.exp(np.tanh(-0.25)))):
        with torch.no_grad():
            bias[int((by_channel[0].mask.flatten() == keeps).nonzero()[0])] = value
        assert telemetry(nvp, some(nvp, 4))["smallest_scale"] == pytest.approx(expected, rel=1e-6)


@pytest.fixture(scope="module")
def reader():
    return train_reader(16, 8, faces=2000, epochs=6)


def test_the_reader_reads_drawn_faces(reader):
    assert reader.accuracy[SMILING] > 0.85 and reader.accuracy.mean() > 0.85
    people = sample_factors(200, seed=77)
    said = [
        reader.read(to_tensor(draw(with_attribute(people, "smiling", smile), 16)))[:, SMILING]
        for smile in (False, True)
    ]
    assert (said[1] > said[0]).mean() > 0.95, "the same faces, with nothing but the smile changed"


def test_a_score_tells_a_good_edit_from_none(reader):
    """A model that hands the image through: an edit adds a picture, and we know which."""

    class Pixels(torch.nn.Module):
        latent_shapes = [(3, 16, 16)]

        def __init__(self):
            super().__init__()
            self.p = torch.nn.Parameter(torch.zeros(()))

        def middle(self, images):
            return images.float() + 0.5

        def encode(self, x, classes=None):
            return [x], None

        def decode(self, latents, classes=None):
            return latents[0]

        def to_images(self, x):
            return x.floor().clamp(0, 255).to(torch.uint8)

    people = sample_factors(400, seed=5)
    images, truth = draw(people, 16), people.attributes
    without = draw(with_attribute(people, "wearing_hat", False), 16).astype(np.float32)
    with_it = draw(with_attribute(people, "wearing_hat", True), 16).astype(np.float32)
    hat = torch.from_numpy((with_it - without).mean(0).transpose(2, 0, 1))
    column = ATTRIBUTES.index("wearing_hat")
    nothing = torch.zeros_like(hat)
    vectors = [[2 * hat if k == column else nothing] for k in range(len(ATTRIBUTES))]
    score = score_edits(Pixels(), reader, vectors, images, truth, faces=50)
    assert score.change[column, column] > 0.5
    others = np.delete(np.arange(len(ATTRIBUTES)), column)
    assert np.array_equal(score.before[others], score.after[others])
    assert f"{'wearing_hat':<13}" in str(score) and len(str(score).splitlines()) == 15


def test_a_perfect_score_is_the_identity():
    zeros, one = np.zeros((13, 13)), np.eye(13)
    text = str(Score(ATTRIBUTES, zeros, one, np.ones(13)))
    assert "wanted +100%, unwanted |change| 0%" in text


def test_a_score_is_read_as_it_was_counted():
    before = np.array([[0.1, 0.5, 0.5], [0, 0, 0.2], [0, 0, 0]])
    after = np.array([[0.9, 0.2, 0.7], [0, 1, 0.3], [0.05, 0, 1]])
    score = Score(("hat", "beard", "smile"), before, after, np.array([0.9, 1, 0.95]))
    head, hat, beard, smile, mean = (line.split() for line in str(score).splitlines())
    assert hat == ["hat", "10%", "90%", "beard", "-30%,", "smile", "+20%"], "the largest first"
    assert beard == ["beard", "0%", "100%", "nothing"] and smile[-1] == "nothing"
    assert " ".join(mean).startswith("mean: wanted +93%, unwanted |change| 11%;")
    assert mean[-1] == "95.0%"
