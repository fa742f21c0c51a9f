"""Exercise modules in the student's copy: `check` can use them, a reader stumbles over no answer.

Compressed, not encrypted: whoever is determined can open them (and could read `reference/` as
well). `tools/handout.py` seals; the teacher's copy is open.
"""

from __future__ import annotations

import base64
import textwrap
import zlib
from types import CodeType

_MODULE = '''"""Exercises, sealed for students; the teacher's copy is open."""

from course.sealed import unseal

SEALED = True
exec(unseal("""
{text}
"""))
'''


def seal(source: str) -> str:
    """The source of a module that does what `source` does, and is not readable."""
    text = base64.b64encode(zlib.compress(source.encode(), 9)).decode()
    return _MODULE.format(text="\n".join(textwrap.wrap(text, 96)))


def unseal(text: str) -> CodeType:
    """The code that was sealed."""
    return compile(zlib.decompress(base64.b64decode(text)), "<sealed exercises>", "exec")
