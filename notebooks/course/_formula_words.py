"""The words around a typed formula: what stands before it, behind it, and is given for it.

It also mends what Python's quotes make of LaTeX: in "\\frac" without an r before the quotes, the
first two characters are one, a form feed.
"""

from __future__ import annotations

import re

# A backslash and its letter that ordinary quotes made one character; a tab or a line break is taken
# for one only where a command's name goes on behind it.
ESCAPED = re.compile(
    r"[\a\b\f\v](?=[A-Za-z])"
    r"|\t(?=ext\w*\s*\{|(?:imes|heta|frac|op|ilde|o|au|r)(?![A-Za-z]))"
    r"|\r(?=(?:ight|vert|Vert|brace|brack|angle|m|ho)(?![A-Za-z]))"
    r"|\n(?=(?:abla|olimits|eq?|u)(?![A-Za-z]))"
)


def unescape(text: str) -> str:
    r"""LaTeX as it was typed: "\x0crac" is \frac, "\times" in ordinary quotes is \times.

    >>> unescape("\x0crac{dz}{dx}, h \times w, \right|")
    '\\frac{dz}{dx}, h \\times w, \\right|'
    """
    letters = dict(zip("\a\b\f\v\t\r\n", "abfvtrn", strict=True))
    return ESCAPED.sub(lambda match: "\\" + letters[match[0]], text)


class Unreadable(ValueError):
    """The text is not a formula of this little language; the message says where and why."""


UNWRAP = re.compile(
    r"\\(?:operatorname\*?|text|textrm|textit|mathrm|mathbf|mathit|mathsf|mathcal|boldsymbol|bm"
    r"|vec|hat|mbox|texttt|mathtt|boxed)\s*\{([^{}]*)\}"
)
# "log-det:", "Ответ =", "The log-determinant is": what stands before the formula.
LABEL = re.compile(
    r"^\s*(?:the |it is |this is |это )*"
    r"(?:(?:log[-_ ]?(?:abs[-_ ]?)?det(?:erminant)?(?:\s*J)?|answer|ответ|ldj"
    r"|(?:логарифм (?:модуля )?|лог-?)(?:определителя|определитель|детерминанта?))"
    r"\s*(?::=|:|={1,2}|\bis\b|\bравен\b|(?:-\s*)?\bэто\b)"
    r"|={1,2}|(?:равен|равно|равна)\b"
    r"|(?:[^\W\d_]+[ -]+){0,7}[^\W\d_]{4,}\s*:(?!=))?\s*",  # "The change of volume:"
    re.IGNORECASE,
)
# Where the formula ends and what is given for it begins, or the other way round.
BREAK = re.compile(
    r"(?P<open>[(\[{])|(?P<close>[)\]}])"
    r"|(?P<reason>#|\b(?:where|because|since|as|где|поскольку|так как|т\.\s*к\.|потому что)(?!\w))"
    r"|(?P<so>=>|⇒|\\Rightarrow\b|\\implies\b|\b(?:so|thus|hence|therefore|значит|поэтому)(?!\w))"
    r"|(?P<comma>(?<!\\)[,;](?=\s))",
    re.IGNORECASE,
)
DEFINES = re.compile(r"\s*[A-Za-z](?:_\w|_\{[^{}]*\})?\s*=(?!=)")  # J = …, y_a = …
REMARK = re.compile(  # behind the formula, and no part of it
    r"\s*[(\[]?(?<![A-Za-z])"
    r"(?:volume[- ]preserving|сохраняет объ[её]м|nats?|per (?:example|image|sample))[)\]]?$",
    re.IGNORECASE,
)
# What is said of the formula behind it, in words: "… — the log of the volume's change",
# "… (логарифм модуля якобиана)", "…, J - матрица Якоби".
WORDS = r"[^|()\[\]{}\\/*^=+·∑Σ\d]*"
COMMENT = re.compile(
    rf"(?:\s[—–-]\s|[,;]\s+(?!so\b|thus\b|hence\b|therefore\b|then\b|значит|поэтому)"
    rf"|(?<=[|)}}\]])\s+\((?=[^()]*\)$))(?P<words>{WORDS})\)?$",
    re.IGNORECASE,
)
PROSE = re.compile(
    r"\b(?:the|is|are|for|all|every|each|this|that|it|its|in|by|per|with|to)\b[^а-яё]*\b[a-z]{3}"
    r"|[а-яё]{4}[^а-яё]+[а-яё]{4}",
    re.IGNORECASE,
)
# "sum(log|s|) over all pixels and channels": where the sum runs is in the formula itself.
RANGE = re.compile(r"(?<!sum)(?<!mean)(?<!сумма)\s+(?<!\\)\b(?:over|по)\b" + WORDS + "$")


def without_comment(text: str) -> tuple[str, str]:
    """The text without the words that end it, and these words.

    >>> without_comment("log|det J| — логарифм модуля якобиана")
    ('log|det J|', ' — логарифм модуля якобиана')
    """
    text = text.rstrip(" .!\n")
    found = RANGE.search(text)
    if not found:
        found = COMMENT.search(text)
        if not found or not PROSE.search(found["words"]):
            return text, ""
    return text[: found.start()], found[0]


def premises_and_formula(text: str) -> tuple[list[str], str]:
    """`s = 1, so log-det = 0` or `log|det J|, where J = dz/dx`: what is given, and the formula.

    Only an equation is given before the formula or behind a comma; words may follow a "because".
    """
    plain = re.sub(r"\\q?quad\b|(?<!\\)\\[,;:! ]", " ", UNWRAP.sub(r" \1 ", text))
    plain = re.sub(r"\s\(([^()]*=[^()]*)\)\s*$", r", \1", plain)  # 0 (s = 1)
    given: list[str] = []
    stated: list[str] = []
    formulas: list[str] = []
    depth = start = 0
    reason = False  # behind a "because", to the end; or to the comma where it came first
    for match in [*BREAK.finditer(plain), None]:
        kind = match.lastgroup if match else "end"
        depth += {"open": 1, "close": -1}.get(kind, 0)
        if kind in ("open", "close") or match and depth > 0:
            continue
        piece = plain[start : match.start() if match else None].strip(" ,;\t\r\n")
        start = match.end() if match else 0
        if piece:
            (given if reason else stated if DEFINES.match(piece) else formulas).append(piece)
        ended = kind == "so" or kind == "comma" and not formulas
        reason = kind == "reason" or reason and not ended
    if not formulas:  # "D = h w log|det W|, where …"
        formulas, stated = stated[-1:], stated[:-1]
    if not formulas or not all("=" in piece for piece in formulas[:-1]):
        return [], text  # a list of formulas is none
    return given + stated + formulas[:-1], formulas[-1]
