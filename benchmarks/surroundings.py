"""What else a reader needs to judge or repeat a number: command, commit, device, software."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]


def surroundings(command: str) -> dict[str, Any]:
    """To be stored beside a result."""

    def git(*words: str) -> str:
        asked = ["git", "-C", str(ROOT), *words]
        try:
            return subprocess.run(asked, capture_output=True, text=True).stdout.strip()
        except OSError:  # a machine without git
            return ""

    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [row for row in info.read_text().splitlines() if row.startswith("model name")]
        cpu = names[0].partition(":")[2].strip() if names else cpu
    return {
        "command": command,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": git("rev-parse", "HEAD") or None,
        # Files the result depends on; the classroom or the documents do not change a number.
        "uncommitted": bool(git("status", "--porcelain", "--", "glowlite", "benchmarks")),
        "device": {
            "cpu": cpu, "cores": os.cpu_count(), "threads": torch.get_num_threads(),
            "instructions": torch.backends.cpu.get_cpu_capability(),
        },
        "software": {
            "python": platform.python_version(), "torch": torch.__version__,
            "numpy": np.__version__,
        },
    }  # fmt: skip
