"""Text to tree: what a student types as a formula, read without `eval`.

LaTeX, Unicode and Python-like text become one list of tokens, and a recursive descent turns the
tokens into a small tree of nested tuples.  Only the shapes below can come out, so that nothing a
student types can run; length, token count and depth are bounded, so that nothing can take long.

    ("num", 2.0)   ("sym", "s", index)   ("neg", a)   ("call", name, a)   ("bars", a)
    ("+" | "-" | "*" | "/" | "^", a, b)   ("T", a)   ("p", "x" | "z")
    ("deriv", (variable, index), (variable, index))
    ("over", "sum" | "prod", index names, lower, upper, body)       Σ or ∏ with its range

An index is a tuple of token values such as ("i", "-", 1.0), or () when there is none.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

from ._formula_words import LABEL, MAX_CHARS, REMARK, UNWRAP, Unreadable

MAX_TOKENS = 300
MAX_DEPTH = 30


class Empty(Unreadable):
    """There is no text at all."""


Token = tuple[str, object]  # ("num", 2.0) | ("name", "h") | ("fn", "log") | ("op", "*")

SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ᵀᵢⱼᴷᶜʰʷ⁽⁾", "0123456789+-TijKchw()", strict=True))
del SUPERSCRIPTS["ᵢ"], SUPERSCRIPTS["ⱼ"]  # these two are subscripts
SUBSCRIPTS = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋₌ᵢⱼₖₙₓₐₑ₍₎", "0123456789+-=ijknxae()", strict=True))
SINGLE = {
    "·": "*", "⋅": "*", "×": "*", "∗": "*", "•": "*", "⊙": "*", "∙": "*", "−": "-", "–": "-",
    "—": "-", "⁄": "/", "∕": "/", "÷": "/", "½": "(1/2)", "¼": "(1/4)", "∣": "|", "│": "|",
    "｜": "|", "ǀ": "|", "Σ": " sum ", "∑": " sum ", "∏": " prod ", "Π": " prod ", "∂": " d ",
    "√": " sqrt ", "‖": " norm ", "∥": " norm ", "∇": " grad ", "≡": "=", "′": "'",
    "’": "'", "$": " ", "`": " ", "\u00a0": " ", "\u2009": " ", "\u202f": " ", "…": " dots ",
    "⊤": "T",
    "@": "*", "≔": "=",
    "\u2061": " ", "\u2062": "*",  # Word's "apply the function" and "invisible times"
}  # fmt: skip
CYRILLIC_TWINS = str.maketrans("схрСКТНІ", "cxpCKTHI")  # look the same, typed by accident

LATEX = {
    "log": "log", "ln": "ln", "lg": "lg", "det": "det", "exp": "exp", "sum": "sum",
    "prod": "prod", "sqrt": "sqrt", "tr": "tr", "diag": "diag", "cdot": "*", "times": "*",
    "ast": "*", "odot": "*", "partial": "d", "lvert": "|", "rvert": "|", "vert": "|", "mid": "|",
    "lVert": "norm", "rVert": "norm", "Vert": "norm", "frac": "frac", "dfrac": "frac",
    "tfrac": "frac", "theta": "θ", "phi": "θ", "lambda": "λ", "sigma": "σ", "pi": "π",
    "top": "T", "intercal": "T", "nabla": "grad", "prime": "'", "equiv": "=", "star": "*",
    "dots": "dots", "ldots": "dots", "cdots": "dots", "abs": "abs", "over": "/",
    "lbrace": "(", "rbrace": ")", "lbrack": "(", "rbrack": ")",
}  # fmt: skip
SILENT = set(
    "left right big Big bigl bigr Bigl Bigr bigg Bigg biggl biggr Biggl Biggr quad qquad limits "
    "nolimits displaystyle textstyle mathrm mathbf mathit bf rm boldsymbol bm operatorname "
    "mathcal boxed space".split()
)

# Words a student may use, and the one name each of them has in the tree.
FUNCTIONS = {
    name: name
    for name in "log ln lg det abs sum prod mean exp sqrt tr diag inv sign slogdet norm".split()
} | {
    "trace": "tr", "avg": "mean", "average": "mean", "inverse": "inv", "determinant": "det",
    "logdet": "logdet", "logabsdet": "logabsdet", "logabs": "logabs", "lndet": "logdet",
    "diagonal": "diag", "product": "prod", "fabs": "abs", "absolute": "abs", "square": "square",
    "eigvals": "eigvals", "transpose": "transpose", "reciprocal": "inv", "flatten": "flat",
    "сумма": "sum", "логарифм": "log", "лог": "log", "модуль": "abs", "определитель": "det",
    "сумму": "sum", "логарифма": "log", "логарифмов": "log", "модуля": "abs", "модулей": "abs",
    "определителя": "det", "детерминант": "det", "детерминанта": "det",
    "след": "tr", "среднее": "mean", "дет": "det", "logarithm": "log", "modulus": "abs",
}  # fmt: skip
NAMES = {
    name: name for name in "h w c s b t T W P L U J I x y z K N M i j k n f g p θ λ σ π".split()
}
NAMES |= {
    "H": "h", "C": "c", "height": "h", "width": "w", "channels": "c", "scale": "s", "weight": "W",
    "bias": "b", "zero": "0", "ноль": "0", "нуль": "0", "нулю": "0", "pi": "π", "Jacobian": "J",
    "jacobian": "J", "якобиан": "J", "якобиана": "J", "Id": "I", "X": "x", "Z": "z",
    "высота": "h", "ширина": "w",
}  # fmt: skip
OTHER = {"d": "d", "D": "d", "partial": "d", "frac": "frac", "dots": "dots", "grad": "grad"}
VOCABULARY = {
    **{word: ("fn", name) for word, name in FUNCTIONS.items()},
    **{word: ("name", name) for word, name in NAMES.items()},
    **{word: ("op", name) for word, name in OTHER.items()},
}
MATRICES = set("WPLUJI")
VARIABLES = set("xyzhfg")  # what may stand behind a differential d
MODULES = re.compile(
    r"\b(?:np|numpy|torch|math|linalg|jnp|jax|tf|scipy|F|self)\s*\.\s*(?=[A-Za-z])"
)
AXES = re.compile(  # , dim=1) or , (1, 2, 3)) or (-1) behind a method's name
    r"(?:,\s*|(?<=\.sum\()\s*|(?<=\.mean\()\s*|(?<=\.prod\()\s*)(?:(?:axis|dim)\s*=\s*)?"
    r"(?:[\[(]\s*-?\d[-\d, ]*[\])]|-?\d(?:\s*,\s*-?\d)*)\s*\)"
)
TIMES = r"(?:\*|\\cdot|\\times|\\,)?"
HABITS = tuple(
    (re.compile(pattern, re.IGNORECASE if words else 0), instead)
    for pattern, instead, words in (
        (r"\.{2,3}", " dots ", False),
        (r"\|\s*s([1-9cCnN])\s*\|", r"|s_\1|", False),  # log|s1| + … + log|sc|
        (r"\b([hw])\s*\.\s*([hw])\s*\.(?=\s*[^\W\d])", r"\1 * \2 * ", True),  # h.w.log|det W|
        (r"(?<![^\W\d_])D(?:_?x)?\s*f\b(?!\s*(?:\([^()]*\))?\s*/)", " J ", False),  # Df(x)
        (r"_([ijk]{2,3})(?![^\W\d_])", r"_{\1}", False),  # s_ijk has three indices
        (r"(?<=[xyst])_(?:\{\s*a\s*\}|a(?![^\W\d_]))", "", False),  # the half that is changed
        (r"\{\s*D\s*/\s*2\s*\}", "{h w c/2}", False),  # half of all entries
        (
            r"\\(?:begin|end)\s*\{(?:equation|align|aligned|split|gather|gathered|displaymath|math)\*?\}",
            " ",
            False,
        ),
        # log|s_1| + … + log|s_c| where it ends there: one term for all.
        (
            r"(\\?l(?:og|n)\b[^+=_]*)_\{?1\}?([^+=_]*?)\s*\+(?:\s*\1_\{?\d\}?\2\s*\+)*"
            r"\s*(?:\\[cl]?)?dots\s*\+\s*\1_\{?[cCnNK]\}?\2(?=\s*(?:$|[)+=]))",
            r"(sum_i \1_i\2)",
            False,
        ),
        (r"\bzeros(?:_like)?\s*\((?:[^()]|\([^()]*\))*\)", " 0 ", False),
        (r"\bfor\s+([ijk])\s+in\s+range\s*\(\s*[cC]\s*\)", " ", False),
        (r"\breduce_(?=sum|mean|prod)", "", False),
        (r"\.(?:flatten|view|reshape)\([^()]*\)", ".flatten()", False),
        (r"\babsolute value\b", "absolute", True),
        (r"\babsolute of (?:the )?", "absolute ", True),
        (r"\b(?:матриц\w+ якоби|jacobian matrix)\b", " J ", True),
        (r"\blog_?p_?([xz])\b", r"log p(\1)", False),
        (
            r"\b(sum|сумма)\s+(?:over|по)\s+(?:all |the |всем )*(?:channels|каналам)\b",
            r"\1 ",
            True,
        ),
        (r"\b(sum|сумма)\s+(?:over|по)\s+(?:all\s+|всем\s+)?([ijkcn])\b", r"\1_\2 ", True),
        (
            r"\b(sum|log|logarithm|abs|det|determinant|product|mean)\s+of\s+(?:the\s+)?",
            r"\1 ",
            True,
        ),
        (r"(?<=_[ijkcn]) +(?:of|от)\b", " ", True),
        # Beside a capital H a capital W is the width, even where W is a matrix as well.
        (rf"(?<![^\W\d_])H\s*{TIMES}\s*W(?![^\W\d_])", " h w ", False),
        (rf"(?<![^\W\d_])W\s*{TIMES}\s*H(?![^\W\d_])", " w h ", False),
        (r"(?<=\b[hw]) +x +(?=[hwlsΣ∑\\(])", " * ", True),  # h x w x log|det W|
        (r"\bconv(?:2d|1x1)?\s*\([^()]*\)", " y ", True),  # the paper's conv2D(h; W)
        # f⁻¹ is g, but J_f⁻¹ is the inverse of J_f.
        (
            r"(?<![_\w\\])(d?)f(?:_\{?\s*(?:θ|\\theta)\s*\}?)?\s*\^\s*(?:\{\s*-\s*1\s*\}|-1)",
            r" \1 g ",
            False,
        ),
        # The standard normal N(z; 0, I) is p(z).
        (r"(?<![^\W\d_])N\s*\(\s*z\s*[;|,][^()]*\)", " p(z) ", False),
    )
)
SHAPE = re.compile(r"\b[xyz]\s*\.\s*(?:shape\s*\[|size\s*\()\s*(-?\d|2:)\s*[\])]")
NUMBER = re.compile(r"\d+(?:[.,]\d+)?(?:[eE][+-]?\d{1,3}(?![A-Za-z\d]))?|\.\d+")
WORD = re.compile(r"[^\W\d_]+")


def _side(match: re.Match) -> str:
    """x.shape[2] and x.size(3) of (N, C, H, W); what the other places are, libraries differ."""
    sides = {"2": " h ", "-2": " h ", "3": " w ", "-1": " w "}
    if match[1] not in sides:
        raise Unreadable(
            f"What x.shape[{match[1]}] is depends on the layout: write h, w or c in its place."
        )
    return sides[match[1]]


def _plain(text: str) -> str:
    """Replace Unicode signs and LaTeX wrappers by plain ones; refuse what cannot be meant."""
    out: list[str] = []
    run = ""  # "^" or "_" while inside a run of raised or lowered characters
    for place, char in enumerate(text, start=1):
        kind, table = next(
            ((k, t) for k, t in (("^", SUPERSCRIPTS), ("_", SUBSCRIPTS)) if char in t), ("", {})
        )
        if run and kind != run:
            out.append("}")
        if kind and kind != run:
            out.append(kind + "{")
        run = kind
        if kind:
            out.append(table[char])
        elif char in SINGLE:
            out.append(SINGLE[char])
        elif char in "\n\r\t":
            out.append(" ")
        elif unicodedata.category(char) in ("Cf", "Cc", "Co", "Cs", "Cn"):
            raise Unreadable(
                f"There is an invisible character (U+{ord(char):04X}) at place {place}. "
                "Please type the formula again without it."
            )
        else:
            upright = unicodedata.normalize("NFKC", char)  # 𝑧 is z, and 𝜕 is ∂
            out.append(SINGLE.get(upright, upright))
    if run:
        out.append("}")
    plain = "".join(out)
    for _ in range(3):  # wrappers may be nested, as in \mathbf{\mathrm{W}}
        plain = UNWRAP.sub(r" \1 ", plain)
    # A row of an aligned block goes on where the last one ended.
    plain = re.sub(r"\\\\\s*(?=&?\s*[=+-])|(?<!\\)&(?=\s*[=+-])|(?<==)\s*&", " ", plain)
    plain = MODULES.sub("", plain)
    plain = re.sub(r"\\\|", " norm ", plain)
    plain = re.sub(r"\\[,;:! ()\[\]]", " ", plain)  # thin spaces and $-like brackets
    plain = re.sub(r"\\[{}]", lambda m: "(" if m[0] == r"\{" else ")", plain)
    # Code's axis=(1, 2, 3) becomes @3, how many axes there are: which ones is not ours to know.
    plain = re.sub(r",\s*keepdims?\s*=\s*\w+", "", plain)
    plain = AXES.sub(lambda m: f" @{len(re.findall(r'[0-9]+', m[0]))} )", plain)
    plain = re.sub(r"frac\s*(\d)\s*(\d)", r"frac{\1}{\2}", plain)  # \frac12
    plain = LABEL.sub("", REMARK.sub("", plain))
    for pattern, instead in HABITS:
        plain = pattern.sub(instead, plain)
    plain = SHAPE.sub(_side, plain)
    # log_s, log_det, log_p, log_prob are one name in code; "_" is a subscript elsewhere.
    plain = re.sub(r"\blog_abs_det\b", "logabsdet", plain)
    plain = re.sub(r"\blog_?abs_?s\b", "(log abs s)", plain)
    plain = re.sub(r"\b(?:log_(?:s|scale)|logs)\b", "(log s)", plain)
    plain = re.sub(r"\blog_(?=(?:det|p|prob|abs)\b)", "log ", plain)
    plain = re.sub(r"\blog ?_?prob\b", "log p", plain)
    plain = re.sub(r"\blog_\{? ?e\b ?\}?", "ln ", plain)
    return plain.strip().rstrip(".;,!").strip()


@lru_cache(maxsize=4096)
def _split_word(word: str) -> tuple[Token, ...] | None:
    """`hwlog` → h, w, log: the fewest known names that spell the word, or None."""
    best: list[tuple[Token, ...] | None] = [()] + [None] * len(word)
    for end in range(1, len(word) + 1):
        for start in range(max(0, end - 12), end):
            head, piece = best[start], VOCABULARY.get(word[start:end])
            if head is None or piece is None:
                continue
            if best[end] is None or len(head) + 1 < len(best[end]):
                best[end] = (*head, piece)
    tokens = best[-1]
    # Four letters and more that are only letters are a word we do not know, not a product.
    if tokens and len(tokens) > 3 and not any(kind == "fn" for kind, _ in tokens):
        return None
    return tokens


def _word(word: str) -> Sequence[Token]:
    for spelling in (word, word.lower() if len(word) > 1 else word):
        if spelling in VOCABULARY:
            return [VOCABULARY[spelling]]
    tokens = _split_word(word.translate(CYRILLIC_TWINS)) if len(word) <= 40 else None
    if tokens is None:
        shown = word if len(word) <= 20 else word[:20] + "…"
        raise Unreadable(
            f"I do not know the name “{shown}”. A formula may use the symbols of the slides "
            "(h, w, c, s, W, P, L, U, x, z, J, dz/dx, p(z)) and log, det, |·|, sum, diag. "
            "Words may only follow it, behind “where”, “because” or #."
        )
    return tokens


def tokenize(text: str) -> list[Token]:
    """Split ``text`` into tokens; refuse with :class:`Unreadable`."""
    if len(text) > MAX_CHARS:
        raise Unreadable(
            f"The text has {len(text):,} characters; a formula here has at most {MAX_CHARS}."
        )
    plain = _plain(text)
    if not plain:
        raise Empty("The answer is empty.")
    tokens: list[Token] = []
    place = 0
    while place < len(plain):
        char = plain[place]
        if char.isspace():
            place += 1
        elif match := NUMBER.match(plain, place):
            if len(match[0]) > 20:
                raise Unreadable("There is a number with more than 20 digits in the formula.")
            try:
                tokens.append(("num", float(match[0].replace(",", "."))))
            except ValueError:  # a digit that Python's float does not take
                raise Unreadable(f"I cannot read the number “{match[0]}”.") from None
            place = match.end()
        elif char == "\\":
            match = re.compile(r"\\([A-Za-z]+)").match(plain, place)
            if not match:
                raise Unreadable("There is a lone backslash, or a line break, in the formula.")
            place = match.end()
            if match[1] in SILENT:
                continue
            if match[1] not in LATEX:
                raise Unreadable(f"I do not know the LaTeX command “\\{match[1][:20]}”.")
            word = LATEX[match[1]]
            tokens.append(VOCABULARY.get(word, ("op", word)))
        elif match := WORD.match(plain, place):
            tokens.extend(_word(match[0]))
            place = match.end()
        elif plain.startswith("**", place):
            tokens.append(("op", "^"))
            place += 2
        elif plain.startswith((":=", "=="), place):
            tokens.append(("op", "="))
            place += 2
        elif char in "+-*/^_()[]{}|=,.':@":
            tokens.append(("op", char))
            place += 1
        else:
            raise Unreadable(f"I cannot read the sign “{char}”.")
        if len(tokens) > MAX_TOKENS:
            raise Unreadable(f"The formula is too long: more than {MAX_TOKENS} signs.")
    return tokens


def split_equation(tokens: list[Token]) -> list[list[Token]]:
    """Cut at every “=” outside brackets: [left side, right side, …]."""
    parts: list[list[Token]] = [[]]
    depth = 0
    for place, token in enumerate(tokens):
        kind, value = token
        if kind == "op" and value in ("(", "[", "{"):
            depth += 1
        elif kind == "op" and value in (")", "]", "}"):
            depth -= 1
        # Σ_i=1^K without braces: this "=" belongs to the range.
        of_range = (
            place >= 3
            and tokens[place - 2] == ("op", "_")
            and tokens[place - 3] in (("fn", "sum"), ("fn", "prod"))
        )
        if token == ("op", "=") and depth == 0 and not of_range:
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def parse(tokens: list[Token], power_inside: bool = True) -> tuple:
    """Build the tree; ``power_inside`` reads `log (a)^2` as log(a²), else as (log a)²."""
    parser = _Parser(tokens, power_inside)
    tree = parser.sum_of_terms()
    parser.expect_end()
    return tree


PARTIAL = {"sum over 1": 1, "sum over 2": 2}  # sums of code over some of the axes
CLOSING = {"(": ")", "[": "]", "{": "}"}
STARTS = {"(", "[", "{", "|", "d", "frac", "grad"}


class _Parser:
    def __init__(self, tokens: list[Token], power_inside: bool) -> None:
        self.tokens = tokens
        self.place = 0
        self.power_inside = power_inside
        self.open: list[str] = []  # which brackets we are inside, so that | can close
        self.depth = 0

    # -- small helpers ---------------------------------------------------------------------
    def peek(self, ahead: int = 0) -> Token:
        place = self.place + ahead
        return self.tokens[place] if place < len(self.tokens) else ("end", "")

    def take(self) -> Token:
        token = self.peek()
        self.place += 1
        return token

    def accept(self, *signs: str) -> str | None:
        kind, value = self.peek()
        if kind == "op" and value in signs:
            self.place += 1
            return str(value)
        return None

    def expect(self, sign: str) -> None:
        if not self.accept(sign):
            raise Unreadable(f"A “{sign}” is missing{self._where()}.")

    def expect_end(self) -> None:
        kind, value = self.peek()
        if kind != "end":
            what = "is never opened" if value in (")", "]", "}", "|") else "does not fit here"
            raise Unreadable(f"The “{value}” {what}{self._where()}.")

    def _where(self) -> str:
        before = self.tokens[max(0, self.place - 3) : self.place]
        shown = " ".join(f"{v:g}" if isinstance(v, float) else str(v) for _, v in before)
        return f" (after “{shown}”)" if shown else ""

    def _down(self) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unreadable(f"The formula is nested more than {MAX_DEPTH} deep.")

    # -- grammar: sum → term → factor → power → primary --------------------------------------
    def sum_of_terms(self) -> tuple:
        self._down()
        left = self.term()
        while sign := self.accept("+", "-"):
            left = (sign, left, self.term())
        self.depth -= 1
        return left

    def term(self) -> tuple:
        negative = False
        while sign := self.accept("+", "-"):
            negative ^= sign == "-"
        left = self.factor()
        while True:
            if sign := self.accept("*", "/"):
                minus = False
                while inner := self.accept("+", "-"):
                    minus ^= inner == "-"
                right = self.factor()
                left = (sign, left, ("neg", right) if minus else right)
            elif self.starts_factor():
                left = ("*", left, self.factor())
            else:
                break
        return ("neg", left) if negative else left

    def starts_factor(self) -> bool:
        kind, value = self.peek()
        if kind == "op" and value == "|":
            return not (self.open and self.open[-1] == "|")
        return kind in ("num", "name", "fn") or (kind == "op" and value in STARTS)

    def factor(self) -> tuple:
        self._down()
        result = self.powers(self.primary())
        self.depth -= 1
        return result

    def powers(self, base: tuple) -> tuple:
        base = self.methods(base)
        if not self.accept("^"):
            return base
        if (
            self.peek()[0] == "op"
            and self.peek()[1] in ("{", "(")
            and (self.peek(1) == ("name", "T") and self.peek(2)[1] in ("}", ")"))
        ):
            self.place += 3
            return self.powers(("T", base))
        if self.peek() == ("name", "T"):
            self.place += 1
            return self.powers(("T", base))
        return ("^", base, self.exponent())

    def exponent(self) -> tuple:
        self._down()
        minus = False
        while sign := self.accept("+", "-"):
            minus ^= sign == "-"
        result = self.powers(self.primary())
        self.depth -= 1
        return ("neg", result) if minus else result

    def methods(self, base: tuple) -> tuple:
        """`s.abs().log().sum()`, `W.T`: code read from the left."""
        while self.peek() == ("op", ".") and self.peek(1)[0] in ("fn", "name"):
            if self.peek(1) == ("fn", "logabsdet"):
                break  # belongs to slogdet(W)
            self.place += 1
            kind, name = self.take()
            if name == "T":
                base = ("T", base)
                continue
            if kind != "fn" or not self.accept("("):
                raise Unreadable(f"I cannot read “.{name}”{self._where()}.")
            base = self.axes(base)
            self.expect(")")
            base = self.call(str(name), base)
        return base

    def axes(self, inner: tuple) -> tuple:
        """What code sums over: one or two axes, or all there are in a picture."""
        if not self.accept("@"):
            return inner
        count = int(self.take()[1])
        if inner[0] == "call" and inner[1] in PARTIAL:  # log_s.sum(3).sum(2).sum(1)
            count, inner = count + PARTIAL[inner[1]], inner[2]
        return ("axes", count, inner)

    def group(self, axes: bool = False) -> tuple:
        """An expression in any brackets; code's axes may follow it."""
        sign = self.accept("(", "[", "{", "|")
        if sign is None:
            raise Unreadable(f"A bracket is missing{self._where()}.")
        self.open.append(sign)
        inner = self.sum_of_terms()
        inner = self.axes(inner) if axes else inner
        if not self.accept(CLOSING.get(sign, "|")):
            what = "bar | is" if sign == "|" else f"bracket {sign} is"
            raise Unreadable(f"A {what} opened and not closed{self._where()}.")
        self.open.pop()
        return ("bars", inner) if sign == "|" else inner

    def primary(self) -> tuple:
        kind, value = self.peek()
        if kind == "num":
            self.place += 1
            return ("num", value)
        if kind == "fn":
            self.place += 1
            return self.function(str(value))
        if kind == "name":
            self.place += 1
            return self.name(str(value))
        if kind == "op" and value in ("(", "[", "{", "|"):
            return self.group()
        if kind == "op" and value == "frac":
            self.place += 1
            top, bottom = self.fraction_part(), self.fraction_part()
            if top[0] == "d" and bottom[0] == "d":
                return ("deriv", top[1:], bottom[1:])
            return ("/", top, bottom)
        if kind == "op" and value == "d":
            top = self.differential()
            self.expect("/")
            closing = self.accept("(", "{")
            if self.peek() != ("op", "d"):
                raise Unreadable(f"A derivative needs a d below the line{self._where()}.")
            bottom = self.differential()
            if closing:
                self.expect(CLOSING[closing])
            return ("deriv", top[1:], bottom[1:])
        if kind == "op" and value == "grad":
            self.place += 1
            self.index()
            if self.peek()[1] in ("f", "z"):
                self.place += 1
                self.index()
                self.arguments()
            return ("sym", "J", ())
        if kind == "op" and value == "dots":
            raise Unreadable("I cannot read dots. Write the sum with Σ or sum(…).")
        if kind == "end":
            raise Unreadable(f"The formula stops too early{self._where()}: something is missing.")
        raise Unreadable(f"The “{value}” does not fit here{self._where()}.")

    def fraction_part(self) -> tuple:
        """One half of a fraction; it may be a differential, as in frac{dz}{dx}."""
        if self.peek()[0] == "num":
            return ("num", self.take()[1])
        if self.peek() == ("op", "{") and self.peek(1) == ("op", "d"):
            back = self.place
            self.place += 1
            try:
                part = self.differential()
            except Unreadable:
                part = None
            if part and self.accept("}"):
                return part
            self.place = back
        return self.group()

    def differential(self) -> tuple:
        """d z, ∂h_i, d f(x), ∂(z): returns ("d", variable, index)."""
        self.expect("d")
        closing = self.accept("(", "{")
        kind, value = self.peek()
        if kind != "name" or value not in VARIABLES:
            raise Unreadable(f"After d or ∂ I expect z, x, y or h_i{self._where()}.")
        self.place += 1
        index = self.index()
        self.arguments()
        if self.peek() == ("op", "^"):  # ∂xᵀ below the line
            self.place += 1
            closing_power = self.accept("{")
            if self.take() != ("name", "T"):
                raise Unreadable(f"I cannot read this power of a differential{self._where()}.")
            if closing_power:
                self.expect("}")
        if closing:
            self.expect(CLOSING[closing])
        return ("d", value, index)

    def index(self) -> tuple:
        """An optional subscript: _i, _{i-1}, [i], _θ."""
        if self.accept("_"):
            closing = self.accept("{", "(")
            if not closing:
                kind, value = self.take()
                if kind not in ("num", "name"):
                    raise Unreadable(f"I cannot read this subscript{self._where()}.")
                return (value,)
        elif self.peek() == ("op", "[") and self.peek(1)[0] in ("num", "name"):
            closing = self.accept("[")
        else:
            return ()
        values = []
        while not self.accept(CLOSING[closing]):
            if self.peek() == ("op", "_"):  # J_{f_i}
                values += self.index()
                continue
            kind, value = self.take()
            if kind == "end" or kind == "fn" or (kind == "op" and value not in "+-,:"):
                raise Unreadable(f"I cannot read this subscript{self._where()}.")
            if value not in (",", ":"):
                values.append(value)
        return tuple(values)

    def arguments(self) -> list[object]:
        """The names and indices in (x), (f(x)), (h_K) behind f, p or J; no arithmetic."""
        if not self.accept("("):
            return []
        names: list[object] = []
        depth = 1
        while depth:
            kind, value = self.take()
            if kind == "end":
                raise Unreadable("A bracket ( is opened and not closed.")
            depth += {"(": 1, ")": -1}.get(str(value), 0) if kind == "op" else 0
            if kind == "name":
                names.append(value)
            elif value == "_":  # a subscript is not an argument
                self.place -= 1
                names.append(self.index())
        return names

    def name(self, name: str) -> tuple:
        if name == "0":
            return ("num", 0.0)
        if name == "p":
            if self.peek() == ("name", "θ"):  # pθ(x)
                self.place += 1
            if self.peek() == ("op", "^"):  # p^*(x), or p^{\star}
                self.place += 1
                closing = self.accept("{")
                self.expect("*")
                if closing:
                    self.expect("}")
            index = self.index()
            inside = self.arguments() or list(index)
            if {"x", "z"} <= {*inside} and not {"f", "g"} & {*inside}:
                raise Unreadable("The density p has one argument here: p(x) or p(z).")
            if "z" in inside or "f" in inside:
                return ("p", "x" if "g" in inside else "z")
            if "x" in inside:
                return ("p", "x")
            if inside[:1] == ["h"] and inside[1:] in ([("K",)], [(0.0,)]):
                return ("p", "z" if inside[1] == ("K",) else "x")  # the flow's ends
            raise Unreadable("The density p needs its argument: p(x) or p(z).")
        if name in ("f", "g") and self.accept("'"):
            self.arguments()
            return ("sym", "J", ()) if name == "f" else ("call", "inv", ("sym", "J", ()))
        index = self.index()
        if name in ("s", "t") and self.peek() == ("op", "(") and self.peek(1)[1] in VARIABLES:
            self.arguments()  # s(x_b): the net's output, by name
            index = index or self.index()
        if name == "J":
            of, index = (index[0], index[1:]) if index and index[0] in (*"fgxz",) else ("", index)
            index = () if "θ" in index else index  # J_{f_θ} is the whole flow's, J_{f_i} a step's
            if self.peek() == ("op", "(") and self.peek(1)[1] in VARIABLES:
                self.arguments()
            if of == "g":
                return ("call", "inv", ("sym", name, index))
        return ("sym", name, index)

    def function(self, name: str) -> tuple:
        if name == "norm":
            raise Unreadable("‖·‖ is a norm, one number of another kind. Write |det W| or |s|.")
        if name in ("sum", "prod") and self.peek()[1] in ("_", "^"):
            return self.ranged(name)
        if name == "log" and self.accept("_"):
            closing = self.accept("{")
            kind, value = self.take()
            if closing:
                self.expect("}")
            bases = {2.0: "log2", 10.0: "lg", "e": "log"}
            if value not in bases:
                raise Unreadable("A logarithm here has base e, 2 or 10.")
            name = bases[value]
        elif (
            name == "log"
            and self.peek() in (("num", 2.0), ("num", 10.0))
            and (self.peek(1) == ("op", "(") or self.peek(1) == ("op", "|"))
        ):
            name = "log2" if self.take()[1] == 2.0 else "lg"
        power = None
        if self.peek() == ("op", "^"):  # det² W
            self.place += 1
            power = self.exponent()
        result = self.call(name, self.argument(name))
        return ("^", result, power) if power else result

    def argument(self, name: str) -> tuple:
        self._down()
        if self.peek()[0] == "end":
            raise Unreadable(f"“{name}” has nothing to work on.")
        if name in ("sum", "prod") and self.peek() not in (("op", "("), ("op", "{"), ("op", "[")):
            inner = self.term()  # sum log|s| h w: everything up to the next + or −
        elif self.peek()[0] == "op" and self.peek()[1] in ("(", "|", "[", "{"):
            inner = self.group(axes=name in ("sum", "prod", "mean"))
            raised = self.peek() == ("op", "^")  # the .sum() of log(s).sum() is of log(s)
            if raised and self.power_inside and name not in ("sum", "prod", "mean"):
                inner = self.powers(inner)
        else:
            inner = self.factor()
        if name == "det":
            # det P L (U + diag(s)): a determinant takes the whole product of matrices.
            while (
                self.peek()[0] == "name"
                and self.peek()[1] in MATRICES
                or (self.peek() == ("op", "(") and inner[0] in ("*", "sym"))
                or (self.peek() == ("fn", "diag"))
            ):
                inner = ("*", inner, self.factor())
        self.depth -= 1
        return inner

    def call(self, name: str, inner: tuple) -> tuple:
        if inner[0] == "axes":
            _, count, inner = inner
            if name not in ("sum", "prod", "mean"):
                raise Unreadable(f"“{name}” takes no axis here.")
            if name == "sum" and inner[:2] != ("call", "flat"):
                name = {1: "sum over 1", 2: "sum over 2"}.get(count, name)
        if name == "flat" or inner[:2] == ("call", "flat"):
            return ("call", name, inner) if name == "flat" else self.call(name, inner[2])
        if name == "slogdet":
            if self.accept("["):
                self.accept("-")  # the last of two is the second
                which = self.take()[1]
                self.expect("]")
            elif self.accept(".") and self.peek() == ("fn", "logabsdet"):
                self.place += 1
                which = 1.0
            else:
                which = None
            if which != 1.0:
                raise Unreadable("slogdet gives a pair (sign, log|det|): take its second, [1].")
            return ("call", "log", ("bars", ("call", "det", inner)))
        if name == "logabsdet":
            return ("call", "log", ("bars", ("call", "det", inner)))
        if name == "logabs":
            return ("call", "log", ("call", "abs", inner))
        if name == "logdet":
            return ("call", "log", ("call", "det", inner))
        if name == "square":
            return ("^", inner, ("num", 2.0))
        if name == "transpose":
            return ("T", inner)
        return ("call", name, inner)

    def ranged(self, name: str) -> tuple:
        """Σ_{i=1}^{K} body, Σ_i body, Σ_{i,j} body."""
        indices: list[str] = []
        lower = upper = None
        for _ in range(2):
            if self.accept("_"):
                closing = self.accept("{", "(")
                # Without braces one letter, or Σ_ij: in Σ_i h w log|s_i| the h is a factor.
                while self.peek()[0] == "name" and (
                    closing or not indices or {indices[-1], self.peek()[1]} <= set("ijk")
                ):
                    indices.append(str(self.take()[1]))
                    self.accept(",")
                if self.accept("="):
                    lower = self.sum_of_terms() if closing else self.factor_no_power()
                    back = self.place
                    self.accept(",")
                    if self.accept("dots"):  # i = 1, …, K
                        self.accept(",")
                        upper = self.sum_of_terms()
                    else:
                        self.place = back
                if closing:
                    self.expect(CLOSING[closing])
            elif self.accept("^"):
                grouped = self.peek() in (("op", "{"), ("op", "("))
                upper = self.group() if grouped else self.factor_no_power()
        return ("over", name, tuple(indices), lower, upper, self.term())

    def factor_no_power(self) -> tuple:
        kind, value = self.take()
        if kind not in ("num", "name"):
            raise Unreadable(f"I cannot read this range{self._where()}.")
        return ("num", value) if kind == "num" else ("sym", str(value), ())


def symbols(tree: object) -> set[str]:
    """Every symbol a tree uses, "deriv" and "p" among them."""
    if not isinstance(tree, tuple) or not tree:
        return set()
    if tree[0] == "sym":
        return {tree[1]}
    if tree[0] in ("deriv", "p"):
        return {"deriv" if tree[0] == "deriv" else f"p({tree[1]})"}
    if tree[0] == "over":  # its indices are names, not trees
        return set().union(*(symbols(part) for part in tree[3:]))
    return set().union(*(symbols(part) for part in tree[1:]))
