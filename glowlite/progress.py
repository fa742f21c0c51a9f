"""What a run tells while it goes, and how it is asked to stop."""

from __future__ import annotations

import json
import math
import signal
import sys
from typing import Any

from tqdm import tqdm

from glowlite.parallel import World
from glowlite.runs import Run


class Log:
    """Appends rows to metrics.jsonl, and to TensorBoard where it is wanted and installed."""

    def __init__(self, run: Run, world: World) -> None:
        self.run, self.first, self.board = run, world.first, None
        if run.config.tensorboard and world.first:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                tqdm.write("tensorboard: not installed; metrics.jsonl has all of it")
            else:
                # What a run wrote after the state it goes on from is not shown twice.
                after = run.images + 1 if run.step else None
                self.board = SummaryWriter(run.folder / "tensorboard", purge_step=after)

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        if self.board is not None:
            self.board.close()

    def write(self, **values: Any) -> None:
        """One row: where the run is, and `values`."""
        if not self.first:
            return
        run = self.run
        values = {k: v if _in_json(v) else None for k, v in values.items()}
        row = {"step": run.step, "images": run.images, "seconds": round(run.seconds, 2), **values}
        with open(run.folder / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        if self.board is not None:
            for key, value in values.items():
                value = value["mean"] if isinstance(value, dict) else value
                if isinstance(value, int | float):
                    self.board.add_scalar(key, value, run.images)


def _in_json(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


class Bar:
    """Progress with bits/dim, images/s and the time left, in steps or, with a limit, in seconds."""

    def __init__(self, run: Run, n: int, quiet: bool) -> None:
        total = run.steps(n)
        self.by_step = total is not None
        total = total or 60 * run.config.minutes
        self.bar = tqdm(
            total=total,
            initial=min(total, run.step if self.by_step else run.seconds),
            disable=quiet,
            mininterval=0.5 if sys.stderr.isatty() else 15.0,
            bar_format="{percentage:3.0f}% |{bar}| {elapsed} < {remaining} left{postfix}",
        )

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def show(self, run: Run, seconds: float, bits: float, speed: float) -> None:
        """Move the bar to where the run is."""
        self.bar.set_postfix_str(f"{bits:.3f} bits/dim, {speed:.0f} images/s", refresh=False)
        if not self.bar.disable:
            place = run.step if self.by_step else min(seconds, self.bar.total)
            self.bar.update(place - self.bar.n)

    def finish(self) -> None:
        """Fill it and leave it: the last evaluation has its own."""
        if not self.bar.disable:
            self.bar.update(self.bar.total - self.bar.n)
        self.bar.close()


class Interrupt:
    """Ctrl-C and SIGTERM ask the loop to stop after its step; a second Ctrl-C does not wait.

    After `all_is_saved`, when the loop no longer looks, the first does not wait either.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._before[number] = signal.signal(number, self._ask)
            except ValueError:  # not the main thread: Ctrl-C is somebody else's there
                break
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def all_is_saved(self) -> None:
        """Nothing is lost from now on: stop at once where it is asked for, or has been."""
        self._ask()

    def _ask(self, *_: object) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
