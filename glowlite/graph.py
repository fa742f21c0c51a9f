"""Training steps on a GPU: compiled, replayed as one CUDA graph, and never waited for."""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from glowlite import fused

Step = Callable[..., Tensor]


class Graphed:
    """`step`, recorded at its fourth call and replayed from then on: one launch for thousands.

    step: tensors (or None) of shapes that never change -> a tensor, and whatever it writes in
    place.  Nothing in it may wait for the host, and no number that changes may come from Python:
    the learning rate has to be a tensor (`schedule.make_optimizer(graph=True)`).

    The first three calls run as they are, on the stream of the recording, so that libraries and
    the optimiser allocate outside the graph.  Where recording fails `say` tells why (stderr has
    the line), and every call runs as it is.  PyTorch's allocator takes a failed recording for one
    that goes on, and refuses once it has to free memory: a new process without the graph is safer.
    """

    plain_calls = 3

    def __init__(self, step: Step, say: Callable[[str], object]) -> None:
        self.step, self.say = step, say
        self.calls = 0
        self.side: torch.cuda.Stream | None = None
        self.replay: Callable[[], object] | None = None
        self.inputs: list[Tensor | None] = []
        self.result: Tensor | None = None

    def __call__(self, *inputs: Tensor | None) -> Tensor:
        """What `step` returns, in a tensor of its own."""
        self.calls += 1
        if self.calls <= self.plain_calls:
            return self.run_plain(*inputs)
        if self.calls == self.plain_calls + 1:
            self.inputs = [None if x is None else x.clone() for x in inputs]
            try:
                self.replay = self.record()
            except RuntimeError as error:
                traceback.print_exc()
                while error.__context__ is not None:  # the last only says that there was a first
                    error = error.__context__
                what = f"{type(error).__name__}: {error}"
                self.say(f"cuda graph: not possible here ({what}); training without it")
        if self.replay is None:
            return self.step(*inputs)
        for ours, new in zip(self.inputs, inputs, strict=True):
            if ours is not None:
                ours.copy_(new)
        self.replay()
        return self.result.clone()

    def run_plain(self, *inputs: Tensor | None) -> Tensor:
        """One ordinary call on a side stream, in order with everything else."""
        here, self.side = torch.cuda.current_stream(), self.side or torch.cuda.Stream()
        self.side.wait_stream(here)
        with torch.cuda.stream(self.side):
            result = self.step(*inputs)
        here.wait_stream(self.side)
        return result

    def record(self) -> Callable[[], object]:
        """Record `step` of `inputs` into `result` -> what replays it.  Recording runs nothing."""
        graph, here = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        try:
            with torch.cuda.graph(graph, stream=self.side):
                self.result = self.step(*self.inputs)
        finally:
            torch.cuda.set_stream(here)  # `graph` does not come back from a recording that failed
        return graph.replay


class Leash:
    """The host may be `ahead` steps ahead of the GPU, not more: a run by the clock ends in time.

    Waiting for a step long past does not empty the queue, as waiting for the last one would.
    """

    def __init__(self, device: torch.device, ahead: int = 4) -> None:
        self.ahead = ahead if device.type == "cuda" else None
        self.events: deque[torch.cuda.Event] = deque()

    def __call__(self) -> None:
        """To be called once a step."""
        if self.ahead is None:
            return
        self.events.append(torch.cuda.Event())
        self.events[-1].record()
        if len(self.events) > self.ahead:
            self.events.popleft().synchronize()


class CompiledSteps:
    """Within `with`, the functions of `fused` that make a level's weights ready, run a step, and
    go back through it are compiled: once for each level, as all its steps are alike.

    An evaluation, of batches of other sizes, stays outside and is not compiled for.  The compiler
    gives a function up, and says so in a log only, that needs more than eight variants; those that
    other models have left behind count, so they are thrown away here.
    """

    names = ("ready", "forward", "hidden", "backward", "ready_backward")

    def __init__(self, **options: Any) -> None:
        torch.compiler.reset()
        self.plain = {name: getattr(fused, name) for name in self.names}
        self.compiled = {
            name: _alike(torch.compile(f, **options)) for name, f in self.plain.items()
        }

    def __enter__(self) -> None:
        for name, function in self.compiled.items():
            setattr(fused, name, function)

    def __exit__(self, *_: object) -> None:
        for name, function in self.plain.items():
            setattr(fused, name, function)


def _alike(compiled: Callable[..., Any]) -> Callable[..., Any]:
    """A level's first and last step differ from the others in what would be compiled for anew and
    changes no number: whether the images want a gradient, and how the gradient lies in memory."""

    def function(*args: Any) -> Any:
        return compiled(*(a.detach().contiguous() if type(a) is Tensor else a for a in args))

    return function
