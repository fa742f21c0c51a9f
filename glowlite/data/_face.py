"""How one face is painted, back to front, on a `Canvas`.

Face coordinates: the head's centre is near (0, 0.1), its half-width near 0.5; eyes at y ≈ 0.04,
mouth at y ≈ 0.47, chin at y ≈ 0.74. Every array named after a factor has shape (N,).
"""

from __future__ import annotations

import numpy as np

from ._draw import Array, Canvas, box, oval, pick, ramp, stroke, wave


def _rgb(*hexes: str) -> Array:
    return np.array([[int(h[i : i + 2], 16) / 255 for i in (0, 2, 4)] for h in hexes], np.float32)


PALE = _rgb("ffe9dc", "fbdcc8", "f8d3ba")
TANNED = _rgb("dfa57c", "c68a5e", "a86c45", "8a5534", "6b4129")
BLOND = _rgb("f6dd92", "eac567", "dcae55")
DARK_HAIR = _rgb("1d191c", "35231b", "54311f", "6d3a22", "87401f")
GREY = _rgb("8d8f96", "b9b8ba", "e4e1dd")
IRIS = _rgb("3c2415", "6a4020", "3f6b52", "3b6fa0", "56788c")
BACKGROUND = _rgb(
    "8fb8c9",
    "a9c7a1",
    "d9b48f",
    "c7a3b5",
    "8f9fc4",
    "6f8f94",
    "d8cbb4",
    "9a86a8",
    "5f7390",
    "e0a08a",
)
CLOTHES = _rgb("2f4b6e", "8a3440", "3f6650", "e6e1d6", "3a3a42", "c98a3c", "6b5a86", "4f8a94")
HAT = _rgb("b8323a", "27466e", "2f6b4f", "d99a2b", "6b3f6f", "3a3d45", "1f7f8c", "d8674a")
FRAMES = _rgb("17171c", "4a2416", "7d1f2b", "1d2f55")
WHITE = _rgb("fdfbf8").T
TEETH = _rgb("fbf7f0").T
DARK = _rgb("1b1416").T


def paint_faces(size: int, has: dict[str, Array], u: dict[str, Array]) -> Array:
    """Paint N faces: attributes `has[name]` (N,) of 0/1 and chances `u[name]` (N,) in [0, 1).

    Returns float32 (size, size, 3, N) in about [0, 1], not yet clipped.
    """
    n = len(u["roll"])
    page = Canvas.blank(n, size)
    _background(page, u)
    head = page.posed(
        dx=0.10 * u["shift_x"] - 0.05,
        dy=0.07 * u["shift_y"] - 0.01,
        half_turn=0.12 * u["roll"] - 0.06,
        zoom=1.01 + 0.09 * u["zoom"],
    )
    shape = _proportions(has, u)
    tint = _colours(has, u)
    hair = _hair_outline(head, has, u, shape)
    _hair_behind(head, hair, tint)
    _body(head, has, u, tint)
    _skin(head, has, u, shape, tint)
    _age_lines(head, has, shape, tint)
    _eyes(head, has, u, shape, tint)
    _nose(head, has, u, shape, tint)
    _mouth(head, has, u, shape, tint)
    _moustache(head, has, u, shape, tint)
    _hair_in_front(head, has, u, shape, hair, tint)
    _brows(head, has, u, shape, tint)
    _hat(head, has, u, shape)
    _glasses(head, has, u, shape)
    # One light for the whole picture: brighter on one side, a little warm or cool.
    side = 0.16 * (u["light_side"] - 0.5)
    head.shade(0.93 + 0.14 * u["light"] + side * page.x - 0.04 * page.y)
    warm = 0.06 * (u["warmth"] - 0.5)
    page.rgb *= np.stack([1 + warm, np.ones_like(warm), 1 - warm])
    return page.rgb


def _proportions(has: dict, u: dict) -> dict[str, Array]:
    """The lengths that several parts share."""
    oval_face, male, young = has["oval_face"], has["male"], has["young"]
    turn = 0.10 * u["turn"] - 0.05
    half_w = 0.565 - 0.10 * oval_face + 0.03 * (u["face_width"] - 0.5)
    return {
        "turn": turn,
        "half_w": half_w,
        "half_h": 0.615 + 0.05 * oval_face + 0.02 * male + 0.03 * (u["face_length"] - 0.5),
        # How much narrower the jaw is than the cheekbones, and how square.
        "taper": 0.10 + 0.14 * oval_face - 0.08 * male,
        "square": 0.12 + 0.30 * male + 0.25 * (1 - oval_face),
        "eye_x": 0.225 + 0.02 * (u["eye_spacing"] - 0.5) - 0.02 * oval_face,
        "eye_y": 0.02 + 0.04 * young,
        "mouth_y": 0.475 + 0.015 * male,
    }


def _colours(has: dict, u: dict) -> dict[str, Array]:
    pale, blond, young = has["pale_skin"], has["blond_hair"], has["young"]
    skin = np.where(pale > 0.5, ramp(PALE, u["skin"]), ramp(TANNED, u["skin"]))
    # Darker skins get the darker of the dark hairs, or hair and skin would merge. The chance
    # decides, not the attribute: changing pale_skin leaves a person's hair alone.
    dark = ramp(DARK_HAIR, u["hair"] * (1 - 0.75 * u["skin"]))
    hair = np.where(blond > 0.5, ramp(BLOND, u["hair"]), dark)
    grey = (1 - young) * (0.78 - 0.38 * blond)
    hair = hair + grey * (ramp(GREY, u["hair"]) - hair)
    # Shadows on skin are redder, not only darker.
    shadow = skin * np.array([[0.80], [0.66], [0.60]], np.float32)
    # A moustache must stand out: fair on skin much darker than the hair, else a deep shade.
    fairer = hair.mean(0) > skin.mean(0) + 0.22
    deep_hair = hair * np.array([[0.50], [0.40], [0.34]], np.float32)
    return {
        "skin": skin,
        "shadow": shadow,
        "deep": skin * np.array([[0.55], [0.40], [0.36]], np.float32),
        "glow": skin + 0.42 * (1 - skin),
        "hair": hair,
        # Shaded hair turns warmer: a grey-green shadow would spoil blond.
        "shade": hair * np.array([[0.70], [0.60], [0.54]], np.float32),
        "moustache": np.where(fairer, 0.95 * hair, deep_hair),
        "brow": hair * np.array([[0.66], [0.56], [0.50]], np.float32) + 0.10 * skin,
    }


def _background(page: Canvas, u: dict) -> None:
    """Two quiet colours that run into one another, lighter behind the head."""
    first, second = pick(BACKGROUND, u["backdrop"]), pick(BACKGROUND, u["backdrop_2"])
    tone = 0.70 + 0.32 * u["backdrop_tone"]
    x, y = page.x, page.y
    t = 0.5 + 0.30 * y + (0.6 * u["backdrop_slant"] - 0.3) * x
    page.rgb += (tone * first)[None, None]
    page.rgb += t[:, :, None, :] * (tone * (0.6 * second - 0.6 * first))
    page.shade(1.08 - 0.14 * (x * x + y * y))


def _hair_outline(head: Canvas, has: dict, u: dict, shape: dict) -> dict[str, Array]:
    """Distance to the whole mass of hair: a dome, straight sides, an end at `length`."""
    wavy, male = has["wavy_hair"], has["male"]
    x, y = head.x, head.y
    volume = 0.02 + 0.04 * u["hair_volume"] + 0.045 * wavy
    half_w = shape["half_w"] + 0.045 + volume + 0.02 * (1 - male)
    length = np.where(male > 0.5, 0.16 + 0.12 * u["hair_length"], 0.62 + 0.42 * u["hair_length"])
    up = np.minimum(y - 0.02, 0)
    d = oval(x, up, half_w, 0.60 + volume)
    # Walk round the outline with a cheap angle (|y|/(|x| + |y|)), then down the sides.
    walk = (y - 0.02) / (np.abs(x) + np.abs(up) + 0.05)
    bumps = wave(2.1 * walk + u["hair_phase"] + 0.15 * x)
    d = d + (0.055 * wavy) * bumps
    d_long = d - 0.10 * (1 - male) * np.clip(y - 0.1, 0, 0.6)
    end = y - length
    corner = np.maximum(0.10 - np.maximum(-d_long, -end), 0)
    d_all = np.maximum(d_long, end) + 2.0 * corner * corner
    lock = x * 4.2 + wavy * 0.42 * wave(1.5 * y + u["hair_phase"]) + u["hair_phase"]
    return {"outline": d_all, "dome": d, "lock": wave(lock)}


def _hair_behind(head: Canvas, hair: dict, tint: dict) -> None:
    head.paint(hair["outline"], tint["shade"])


def _body(head: Canvas, has: dict, u: dict, tint: dict) -> None:
    """Neck, shoulders and a collar."""
    male = has["male"]
    low = head.window(-1, 1, 0.35, 1)
    x, y = low.x, low.y
    low.paint(box(x, y - 0.8, 0.19 + 0.06 * male, 0.5), tint["shadow"])
    cloth = pick(CLOTHES, u["clothes"])
    shoulders = oval(x, y - 1.16, 0.66 + 0.16 * male, 0.34 + 0.03 * male)
    collar = oval(x, y - 0.80, 0.23 + 0.03 * male, 0.10 + 0.12 * u["neckline"])
    low.paint(np.maximum(shoulders, -collar), cloth)
    low.paint(np.maximum(np.abs(collar - 0.02) - 0.018, shoulders), 0.75 * cloth)


def _skin(head: Canvas, has: dict, u: dict, shape: dict, tint: dict) -> None:
    """Ears and the face, with a soft edge, a lit side, cheeks and (for men) a beard's shadow."""
    young, male, pale = has["young"], has["male"], has["pale_skin"]
    w = head.window(-0.8, 0.8, -0.65, 0.92)
    x, y = w.x, w.y
    turn = shape["turn"]
    ear = oval(np.abs(x + 0.5 * turn) - shape["half_w"] - 0.005, y - 0.10, 0.075, 0.125)
    w.paint(ear, 0.5 * (tint["skin"] + tint["shadow"]))

    v = y - 0.10
    down = np.clip(v / shape["half_h"], 0, 1.2)
    d = oval(
        x / (1 - shape["taper"] * down * down), v, shape["half_w"], shape["half_h"], shape["square"]
    )
    # A face is lit from one side; its rim turns away from the viewer.
    lit = (0.5 - u["light_side"]) * -0.22 * x - 0.07 * y
    rim = np.clip(d * 4.5 + 0.95, 0, 1)
    face = tint["skin"] * (1.01 + lit)[:, :, None, :]
    face += (0.42 * rim * rim)[:, :, None, :] * (tint["shadow"] - tint["skin"])
    w.paint(d, face)

    low = head.window(-0.62, 0.62, 0.12, 0.92)
    x, y = low.x - turn, low.y
    part = d[-low.x.shape[0] :]
    trim = (part.shape[1] - low.x.shape[1]) // 2
    part = part[:, trim : trim + low.x.shape[1]]
    rosy = tint["skin"] * np.array([[1.02], [0.72], [0.68]], np.float32)
    cheeks = oval(np.abs(x) - 0.30, y - 0.30, 0.13, 0.10)
    low.paint(cheeks, rosy, 0.22 + 0.22 * young * (1 - 0.5 * male) + 0.06 * pale, soft=0.18)
    # A man's shaved beard: a cool shadow over jaw and upper lip.
    jaw = np.maximum(-oval(x, y - 0.10, 0.46, 0.33), part + 0.02)
    stubble = tint["skin"] * np.array([[0.70], [0.66], [0.68]], np.float32)
    low.paint(jaw, stubble, male * (0.26 + 0.06 * pale), soft=0.20)


def _age_lines(head: Canvas, has: dict, shape: dict, tint: dict) -> None:
    """What years draw: lines on the brow, under the eyes, from nose to mouth."""
    old = 1 - has["young"]
    w = head.window(-0.55, 0.55, -0.45, 0.68)
    x, y = w.x - shape["turn"], w.y
    side = np.abs(x)
    fold = stroke(y - 0.41, side - 0.20 - 0.28 * (y - 0.36), 0.09, 0.021)
    bag = stroke(
        side - shape["eye_x"], y - shape["eye_y"] - 0.155 + 1.6 * (side - 0.21) ** 2, 0.085, 0.017
    )
    brow_1 = stroke(x, y + 0.215 - 0.25 * x * x, 0.24, 0.014)
    brow_2 = stroke(x, y + 0.300 - 0.25 * x * x, 0.19, 0.013)
    lines = np.minimum(np.minimum(fold, bag), np.minimum(brow_1, brow_2))
    w.paint(lines, tint["deep"], 0.68 * old)


def _eyes(head: Canvas, has: dict, u: dict, shape: dict, tint: dict) -> None:
    """Almond, iris, pupil, glint, and the upper lid's line."""
    narrow, male, young = has["narrow_eyes"], has["male"], has["young"]
    w = head.window(-0.55, 0.55, -0.22, 0.30)
    x, y = w.x - shape["turn"], w.y - shape["eye_y"]
    side = np.abs(x) - shape["eye_x"]
    tall = (0.098 + 0.012 * young + 0.01 * (u["eye_size"] - 0.5)) * (1 - 0.64 * narrow)
    wide = 0.125 + 0.008 * young - 0.008 * male
    w.paint(oval(side, y - 0.01, wide + 0.045, tall + 0.05), tint["shadow"], 0.55, soft=0.08)
    almond = oval(side, y, wide, tall)
    w.paint(almond, WHITE)
    gaze = x - np.copysign(shape["eye_x"], x) - 0.03 * (u["gaze"] - 0.5)
    # The upper lid covers the top of the iris: an eye at rest, not a startled one.
    iris = oval(gaze, y + 0.022 * (1 - narrow), 0.080, 0.086)
    seen = np.maximum(iris, almond + 0.004)
    w.paint(seen, pick(IRIS, u["iris"]))
    w.paint(np.maximum(iris + 0.042, almond), DARK)
    # The lid: the almond's upper edge, drawn thicker; women's lashes reach further out.
    bend = side / wide
    lid = stroke(
        side - 0.012, y + tall * (1 - 0.75 * bend * bend), wide * 0.95, 0.022 + 0.012 * (1 - male)
    )
    w.paint(lid, DARK, 0.80)
    crease = stroke(side, y + tall + 0.045 - 2.0 * side * side, wide * 0.8, 0.010)
    w.paint(crease, tint["deep"], 0.65 * narrow)
    glint = oval(gaze + 0.028, y + 0.042 * (1 - 0.8 * narrow), 0.027, 0.027)
    w.paint(np.maximum(glint, almond), WHITE, 0.9 - 0.3 * narrow)


def _brows(head: Canvas, has: dict, u: dict, shape: dict, tint: dict) -> None:
    male = has["male"]
    w = head.window(-0.55, 0.55, -0.35, 0.08)
    x, y = w.x - shape["turn"], w.y - shape["eye_y"]
    side = np.abs(x) - shape["eye_x"]
    arch = 0.8 + 1.2 * (1 - male)
    tilt = 0.16 * (u["brow"] - 0.5)
    brow = stroke(
        side - 0.01, y + 0.175 - arch * side * side + tilt * side, 0.115, 0.020 + 0.018 * male
    )
    w.paint(brow, tint["brow"], 0.75 + 0.2 * male)


def _nose(head: Canvas, has: dict, u: dict, shape: dict, tint: dict) -> None:
    """Pointy: a long wedge with a lit and a dark side and a sharp tip. Else a round button."""
    pointy = has["pointy_nose"]
    w = head.window(-0.32, 0.32, -0.08, 0.48)
    turn = shape["turn"]
    x, y = w.x - 1.7 * turn, w.y
    dark_side = np.where(u["light_side"] > 0.5, 1.0, -1.0).astype(np.float32)
    xs = x * dark_side * -1
    # Wedge: from the bridge (y = 0.02) down to the tip, widening as it goes.
    tip = 0.345 + 0.03 * u["nose"]
    reach = (y - 0.02) / (tip - 0.02)
    wedge = np.maximum(np.abs(x) - (0.020 + 0.122 * reach), np.maximum(y - tip, 0.02 - y))
    w.paint(np.maximum(wedge, -xs), tint["deep"], 0.66 * pointy)
    w.paint(np.maximum(wedge + 0.01, xs), tint["glow"], 0.85 * pointy)
    under = stroke(x, y - tip + 0.50 * np.abs(x), 0.12, 0.020)
    w.paint(under, tint["deep"], 0.90 * pointy)
    # Button: a ball with a shadow under it and two nostrils.
    button = 1 - pointy
    y = y - 0.245 - 0.03 * u["nose"]
    w.paint(oval(x, y - 0.016, 0.150, 0.105), tint["shadow"], 0.95 * button, soft=0.04)
    rosy = tint["skin"] * np.array([[1.02], [0.82], [0.78]], np.float32)
    w.paint(oval(x, y + 0.014, 0.112, 0.082), rosy, button, soft=0.05)
    w.paint(oval(x, y + 0.030, 0.05, 0.035), tint["glow"], 0.9 * button, soft=0.06)
    w.paint(oval(np.abs(x) - 0.052, y - 0.058, 0.028, 0.020), tint["deep"], 0.85 * button)


def _mouth(head: Canvas, has: dict, u: dict, shape: dict, tint: dict) -> None:
    """Smiling: a crescent with teeth. Else closed lips, level or a little down."""
    smiling, male = has["smiling"], has["male"]
    w = head.window(-0.42, 0.42, 0.30, 0.72)
    x, y = w.x - 1.2 * shape["turn"], w.y - shape["mouth_y"]
    red = np.array([[0.80], [0.25], [0.30]], np.float32)
    lip = np.where(male > 0.5, 0.55 * tint["skin"] + 0.28 * red, 0.20 * tint["skin"] + 0.72 * red)
    half = 0.185 + 0.03 * (u["mouth"] - 0.5)
    # Closed.
    frown = 0.1 + 0.9 * u["mouth_bend"]
    level = y - 0.01 - frown * x * x
    taper = np.clip(1 - (x / half) ** 2, 0, 1)
    closed = np.maximum(
        np.abs(level) - (0.030 + 0.018 * (1 - male)) * taper - 0.004, np.abs(x) - half
    )
    still = 1 - smiling
    w.paint(closed, lip, still)
    w.paint(stroke(x, level, half - 0.02, 0.011), 0.4 * lip, still)
    # Smiling: between a shallow and a deep parabola that meet at the corners.
    wide = half + 0.065
    bow = 1 - (x / wide) ** 2
    upper, lower = y + 0.055 - 0.045 * bow, y + 0.055 - 0.195 * bow
    crescent = np.maximum(lower, -upper) * 0.8
    w.paint(crescent - 0.026, lip, smiling)
    w.paint(crescent + 0.002, 0.35 * lip, smiling)
    teeth = np.maximum(crescent + 0.006, y + 0.055 - 0.130 * bow)
    w.paint(teeth, TEETH, smiling)
    corner = oval(np.abs(x) - wide - 0.01, y + 0.06, 0.03, 0.03)
    w.paint(corner, tint["deep"], 0.5 * smiling)


def _moustache(head: Canvas, has: dict, u: dict, shape: dict, tint: dict) -> None:
    mustache = has["mustache"]
    w = head.window(-0.45, 0.45, 0.24, 0.62)
    x, y = w.x - 1.2 * shape["turn"], w.y - shape["mouth_y"] + 0.085
    side = np.abs(x)
    reach = 0.225 + 0.03 * u["moustache_width"]
    t = np.clip(side / reach, 0, 1)
    droop = 0.075 * t * t
    lobe = np.abs(y - droop) - 0.062 * (1 - t * t) - 0.006
    shape_d = np.maximum(lobe, side - reach)
    dip = oval(x, y + 0.075, 0.035, 0.04)
    w.paint(np.maximum(shape_d, -dip) * 0.9, tint["moustache"], 0.97 * mustache)


def _hair_in_front(head: Canvas, has: dict, u: dict, shape: dict, hair: dict, tint: dict) -> None:
    """The cap and the sides; what they leave open is the face. Bangs lower the opening's edge."""
    bangs, male, young, wavy = has["bangs"], has["male"], has["young"], has["wavy_hair"]
    x, y = head.x, head.y
    edge = shape["half_w"] - 0.035 + 0.03 * male
    opening = oval(x, np.minimum(y - 0.16, 0), edge, 0.56)
    part = 0.5 * (u["parting"] - 0.5)
    bare = -0.33 - 0.06 * (1 - young) * male + 0.30 * (x - part) ** 2
    teeth = 0.022 * (wave(3.4 * x + u["hair_phase"]) + wave(5.3 * x))
    fringe = -0.145 + 0.03 * u["fringe"] + 0.22 * x * x + teeth
    brink = bare + bangs * (fringe - bare)
    opening = np.maximum(opening, brink - y)
    d = np.maximum(hair["outline"], -opening)
    # Locks, and a gloss that follows the dome.
    gloss = np.clip(1 - np.abs(hair["dome"] + 0.13) * 9, 0, 1)
    light = 1 + (0.07 + 0.15 * wavy) * hair["lock"] + 0.16 * gloss
    # A shadow under the fringe sets the hair off the forehead.
    head.paint(np.maximum(d - 0.02, y - 0.2), tint["deep"], 0.30, soft=0.09)
    head.paint(d, tint["hair"] * light[:, :, None, :] + (0.05 * gloss)[:, :, None, :])


def _hat(head: Canvas, has: dict, u: dict, shape: dict) -> None:
    """A knitted cap, a bowler or a wide-brimmed hat, by chance."""
    wearing = has["wearing_hat"]
    w = head.window(-1, 1, -1, 0.02)
    x, y = w.x, w.y
    kind = (3 * u["hat_kind"]).astype(int)
    knit, wide = (kind == 0).astype(np.float32), (kind == 2).astype(np.float32)
    colour = pick(HAT, u["hat"])
    base = -0.36
    half_w = shape["half_w"] + 0.085
    tall = 0.50 + 0.05 * wide - 0.03 * knit
    dome = np.maximum(
        oval(x, np.minimum(y - base, 0), half_w - 0.05 * wide, tall, 0.55), y - base - 0.02
    )
    ribs = 1 + 0.09 * knit * wave(5.0 * x) - 0.20 * x * (u["light_side"] - 0.5) * -2
    ribs = ribs + 0.12 * (-0.4 - y)
    w.paint(dome, colour * ribs[:, :, None, :], wearing)
    # Knitted: a pompom and a turned-up band. Else a ribbon and a brim that bends down.
    w.paint(oval(x, y - base + tall + 0.03, 0.11, 0.09), 0.35 + 0.65 * colour, wearing * knit)
    ribbon = box(x, y - base + 0.10, half_w - 0.05 * wide - 0.005, 0.055)
    w.paint(np.maximum(ribbon, dome), 0.45 * colour, wearing * (1 - knit))
    brim_w = half_w + 0.03 * knit + 0.12 * (1 - knit) + 0.12 * wide
    brim = box(
        x,
        y - base - 0.02 + 0.03 * knit - 0.05 * (1 - knit) * x * x,
        brim_w,
        0.045 + 0.045 * knit,
        0.04,
    )
    w.paint(brim - 0.03, 0.25 * colour, 0.28 * wearing, soft=0.08)
    w.paint(brim, colour * (0.86 + 0.42 * knit), wearing)


def _glasses(head: Canvas, has: dict, u: dict, shape: dict) -> None:
    """Round or square frames, a bridge, arms to the ears, and a glint on each glass."""
    wears = has["eyeglasses"]
    w = head.window(-0.72, 0.72, -0.26, 0.36)
    x, y = w.x - 1.1 * shape["turn"], w.y - shape["eye_y"] - 0.01
    side = np.abs(x) - shape["eye_x"] - 0.012
    lens = oval(side, y, 0.192, 0.165, u["glasses_shape"])
    w.paint(lens, WHITE, 0.13 * wears)
    glint = np.maximum(np.abs(side + 0.9 * y + 0.02) - 0.03, lens + 0.05)
    w.paint(glint, WHITE, 0.30 * wears)
    rim = np.abs(lens) - 0.026
    gap = shape["eye_x"] - 0.18
    bridge = stroke(x, y + 0.035, np.maximum(gap, 0.01), 0.022)
    arm = stroke(np.abs(x) - 0.50, y + 0.04, 0.075, 0.020)
    frame = np.minimum(rim, np.minimum(bridge, arm))
    w.paint(frame, pick(FRAMES, u["frames"]), 0.95 * wears)
