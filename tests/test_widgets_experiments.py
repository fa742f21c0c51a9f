"""The sliders of notebook 10, driven from Python as a reader would by mouse."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

import glowlite
from course.sliders import EditPanel, TemperaturePanel, WalkPanel
from glowlite import latent
from glowlite.data import make_faces
from glowlite.evaluate import to_tensor


@pytest.fixture(scope="module")
def model():
    """A small flow that does something: its couplings are not the identity."""
    found = glowlite.Glow(shape=(3, 16, 16), levels=2, depth=2, width=8, n_bits=5).double()
    found.initialize(to_tensor(make_faces(64, 16)[0]))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in found.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter += 0.05 * noise
    return found.eval()


@pytest.fixture(scope="module")
def images():
    return to_tensor(make_faces(3, 16, split="test")[0])


def pixels(panel):
    return np.asarray(Image.open(io.BytesIO(panel.picture.value)).convert("RGB"))


def faces(panel, n, rows=1):
    """The pictures on the panel at their own size, row by row, uint8 (rows · n, 16, 16, 3)."""
    sheet = pixels(panel)
    assert sheet.shape == (66 * rows - 2, 66 * n - 2, 3)
    return np.stack(
        [
            sheet[66 * i + 2 : 66 * i + 66 : 4, 66 * k + 2 : 66 * k + 66 : 4]
            for i in range(rows)
            for k in range(n)
        ]
    )


def test_the_temperature_slider_shows_the_model_at_that_temperature(model):
    panel = TemperaturePanel(model, n=5, seed=3)
    for t in (0.7, 0.0, 1.05):
        panel.temperature.value = t
        noise = torch.Generator().manual_seed(3)
        x = model.sample(5, temperature=t, generator=noise)
        expected = model.to_images(x).permute(0, 2, 3, 1).numpy()
        np.testing.assert_array_equal(faces(panel, 5), expected)
        np.testing.assert_array_equal(panel.at(t).permute(0, 2, 3, 1), expected)


def test_the_same_noise_at_every_temperature_and_one_image_at_0(model):
    panel = TemperaturePanel(model, n=4)
    before = panel.picture.value
    panel.temperature.value = 0.0
    assert (faces(panel, 4) == faces(panel, 4)[:1]).all()
    panel.temperature.value = 0.7
    assert panel.picture.value == before


def test_the_walk_slider_shows_what_latent_interpolate_gives(model, images):
    a, b = images[:2], images[1:]
    panel = WalkPanel(model, a, b)
    expected = latent.interpolate(model, a, b, 5)[0].permute(0, 1, 3, 4, 2).numpy()
    for t in (0.75, 0.0, 0.25, 1.0, 0.5):  # the slider starts at 0.5
        panel.t.value = t
        shown = faces(panel, 3, rows=2).reshape(2, 3, 16, 16, 3)
        np.testing.assert_array_equal(shown[:, 1], expected[:, round(4 * t)])
        np.testing.assert_array_equal(shown[:, [0, 2]], expected[:, [0, 4]])  # the ends stand


def test_the_walk_starts_half_way_and_its_ends_are_the_images(model, images):
    panel = WalkPanel(model, images[:1], images[2:])
    first = panel.picture.value
    assert panel.t.value == 0.5
    panel.t.value = 0.0
    ends = (images[[0, 0, 2]] >> 3 << 3).permute(0, 2, 3, 1).numpy()  # in 5 bits
    np.testing.assert_array_equal(faces(panel, 3), ends)
    panel.t.value = 0.5
    assert panel.picture.value == first


def test_the_edit_slider_shows_what_latent_edit_gives(model, images):
    faces_, has = make_faces(40, 16, seed=2)
    found = latent.attribute_vectors(model, faces_, has[:, :2])
    vectors = dict(zip(("eyeglasses", "wearing_hat"), found, strict=True))
    panel = EditPanel(model, images, vectors)
    np.testing.assert_array_equal(  # strength 0: the images themselves, in 5 bits
        faces(panel, 3), (images >> 3 << 3).permute(0, 2, 3, 1).numpy()
    )
    for name, s in (("wearing_hat", 1.0), ("eyeglasses", 1.0), ("eyeglasses", -0.75)):
        panel.attribute.value = name
        panel.strength.value = s
        expected = latent.edit(model, images, vectors[name], [s])[0][:, 0]
        np.testing.assert_array_equal(faces(panel, 3), expected.permute(0, 2, 3, 1).numpy())


def test_the_attributes_differ_and_the_slider_stays_when_one_changes(model, images):
    faces_, has = make_faces(40, 16, seed=2)
    found = latent.attribute_vectors(model, faces_, has[:, :2])
    panel = EditPanel(model, images, dict(zip(("a", "b"), found, strict=True)))
    panel.strength.value = 1.5
    first = panel.picture.value
    panel.attribute.value = "b"
    assert panel.strength.value == 1.5
    assert panel.picture.value != first


def test_a_pictures_words_move_with_the_slider(model, images):
    vector = [torch.zeros(shape, dtype=torch.float64) for shape in model.latent_shapes]
    for panel, slider, words in (
        (TemperaturePanel(model, n=2), "temperature", "2 samples at temperature 0.25"),
        (WalkPanel(model, images[:1], images[1:2]), "t", "a, the image 25% of the way to b, and b"),
        (
            EditPanel(model, images[:2], {"pale_skin": vector}),
            "strength",
            "2 images with pale skin added at strength 0.25",
        ),
    ):
        assert panel.words in panel.children and panel.words.value != words
        getattr(panel, slider).value = 0.25
        assert panel.words.value == words


def test_a_panel_has_words_where_there_is_no_browser(model, images):
    assert "temperature" in repr(TemperaturePanel(model, n=1))
    assert "walk" in repr(WalkPanel(model, images[:1], images[1:2]))
    vector = [torch.zeros(shape, dtype=torch.float64) for shape in model.latent_shapes]
    assert "strength" in repr(EditPanel(model, images, {"none": vector}))
