"""What a model is built from: options that are checked when given, and plain JSON on disk."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Self

from glowlite.likelihood import check_bits


@dataclass(frozen=True, kw_only=True)
class FlowConfig:
    """What every model needs to know; frozen, checked when made, and plain JSON on disk.

    shape: image shape (C, H, W). n_bits: 1 … 8, see `dequantize`. seed: of the initial weights.
    """

    model: ClassVar[str]

    shape: tuple[int, int, int]
    n_bits: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        try:
            shape = tuple(operator.index(n) for n in self.shape)
        except TypeError:
            shape = ()
        if len(shape) != 3 or min(shape) < 1:
            raise ValueError(f"shape is {self.shape!r}; accepted: three numbers ≥ 1, (C, H, W)")
        object.__setattr__(self, "shape", shape)
        check_bits(self.n_bits)
        object.__setattr__(self, "n_bits", int(self.n_bits))
        self._check_at_least("seed", -(2**63))
        if self.seed >= 2**63:
            raise ValueError(f"seed is {self.seed}; accepted: integers below 2^63")

    def _check_choice(self, name: str, accepted: Sequence[Any]) -> None:
        if getattr(self, name) not in accepted:
            choices = ", ".join(map(repr, accepted))
            raise ValueError(f"{name} is {getattr(self, name)!r}; accepted: {choices}")

    def _check_bool(self, name: str) -> None:
        self._check_choice(name, (True, False))
        object.__setattr__(self, name, bool(getattr(self, name)))  # NumPy's too

    def _check_at_least(self, name: str, least: int) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not hasattr(value, "__index__") or value < least:
            raise ValueError(f"{name} is {value!r}; accepted: an integer, at least {least}")
        object.__setattr__(self, name, operator.index(value))  # NumPy's too: JSON takes Python's

    def _check_divisible(self, levels: int) -> None:
        _, h, w = self.shape
        unit = 2 ** min(levels, 64)  # a file may ask for a billion levels
        if h % unit or w % unit:
            value = f" = {unit}" if levels < 64 else ""
            raise ValueError(
                f"shape is {self.shape}: {h}×{w} pixels; each of the {levels} levels halves the "
                f"size, so height and width must be multiples of 2^{levels}{value}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and lists, with the model's name under "model"."""
        values = asdict(self)
        values["shape"] = list(self.shape)
        return {"model": self.model, **values}

    @classmethod
    def from_arguments(cls, config: Self | None, options: dict[str, Any]) -> Self:
        """What a model's constructor is given: a config, or the options of one.

        Raises:
            TypeError: both, something else than a config, or an unknown option.
            ValueError: an option out of range.
        """
        if config is None:
            return cls(**options)
        if not isinstance(config, cls):
            raise TypeError(f"config is a {type(config).__name__}; accepted: a {cls.__name__}")
        if options:
            raise TypeError(f"give a config or options, not both; got {sorted(options)} too")
        return config

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_dict`.

        Raises:
            ValueError: an unknown name, another model's config, or a value out of range.
        """
        values = dict(values)
        model = values.pop("model", cls.model)
        if model != cls.model:
            raise ValueError(f"model is {model!r}; accepted: {cls.model!r}")
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f"unknown options {unknown}; accepted: {', '.join(sorted(known))}")
        return cls(**values)
