"""Text to tree: what a student types as a formula, read without `eval`.

LaTeX, Unicode and Python-like text become one list of tokens, and a recursive descent turns the
tokens into a small tree of nested tuples.  Only the shapes below can come out, so that nothing a
student types can run; length, token count and depth are bounded, so that nothing can take long.

    ("num", 2.0)   ("sym", "s", index)   ("neg", a)   ("call", name, a)   ("bars", a)
    ("+" | "-" | "*" | "/" | "^", a, b)   ("T", a)   ("p", "x" | "z")
    ("deriv", (variable, index), (variable, index))   ("d", variable, index), one half of it
    ("over", "sum" | "prod", index names, lower, upper, body)       Σ or ∏ with its range

An index is a tuple of token values such as ("i", "-", 1.0), or () when there is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

from ._formula_text import plain
from ._formula_words import Unreadable

MAX_TOKENS = 300
MAX_DEPTH = 30


Token = tuple[str, object]  # ("num", 2.0) | ("name", "h") | ("fn", "log") | ("op", "*")

CYRILLIC_TWINS = str.maketrans("схрСКТНІ", "cxpCKTHI")  # look the same, typed by accident
# LaTeX's commands that are not called as the word or the sign that they mean.
LATEX = {
    "cdot": "*", "times": "*", "ast": "*", "odot": "*", "star": "*", "lvert": "|", "rvert": "|",
    "vert": "|", "mid": "|", "lVert": "norm", "rVert": "norm", "Vert": "norm", "dfrac": "frac",
    "tfrac": "frac", "theta": "θ", "phi": "θ", "lambda": "λ", "sigma": "σ", "top": "T",
    "intercal": "T", "nabla": "grad", "prime": "'", "equiv": "=", "ldots": "dots",
    "cdots": "dots", "over": "/", "lbrace": "(", "rbrace": ")", "lbrack": "(", "rbrack": ")",
}  # fmt: skip
SILENT = set(
    "left right big Big bigl bigr Bigl Bigr bigg Bigg biggl biggr Biggl Biggr quad qquad limits "
    "nolimits displaystyle textstyle mathrm mathbf mathit bf rm boldsymbol bm operatorname "
    "mathcal boxed space".split()
)

# Words a student may use, and the one name each of them has in the tree.
FUNCTIONS = {
    name: name
    for name in "log ln lg det abs sum prod mean exp sqrt tr diag inv sign slogdet norm logdet "
    "logabsdet logabs square eigvals transpose".split()
} | {
    "trace": "tr", "avg": "mean", "average": "mean", "inverse": "inv", "determinant": "det",
    "lndet": "logdet", "diagonal": "diag", "product": "prod", "fabs": "abs", "absolute": "abs",
    "reciprocal": "inv", "сумма": "sum", "логарифм": "log", "лог": "log", "модуль": "abs",
    "определитель": "det", "сумму": "sum", "логарифма": "log", "логарифмов": "log",
    "модуля": "abs", "модулей": "abs", "определителя": "det", "детерминант": "det",
    "детерминанта": "det", "след": "tr", "среднее": "mean", "дет": "det", "logarithm": "log",
    "modulus": "abs",
}  # fmt: skip
NAMES = {
    name: name for name in "h w c s b t T W P L U J I x y z K N M i j k n f g p θ λ σ π".split()
} | {
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
TOKEN = re.compile(
    r"(?P<num>\d+(?:[.,]\d+)?(?:[eE][+-]?\d{1,3}(?![A-Za-z\d]))?|\.\d+)"
    r"|\\(?P<latex>[A-Za-z]+)|(?P<word>[^\W\d_]+)|(?P<op>\*\*|:=|==|[-+*/^_()\[\]{}|=,.':@])"
)
LONG_SIGNS = {"**": "^", ":=": "=", "==": "="}


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


def _command(name: str) -> Sequence[Token]:
    """A LaTeX command without its backslash."""
    if name in SILENT:
        return []
    word = LATEX.get(name, name)
    if word not in VOCABULARY and word == name:
        raise Unreadable(f"I do not know the LaTeX command “\\{name[:20]}”.")
    return [VOCABULARY.get(word, ("op", word))]


def tokenize(text: str) -> list[Token]:
    """Split ``text`` into tokens; refuse with :class:`Unreadable`."""
    text = plain(text)
    tokens: list[Token] = []
    place = 0
    while place < len(text):
        if text[place].isspace():
            place += 1
            continue
        match = TOKEN.match(text, place)
        if not match and text[place] == "\\":
            raise Unreadable("There is a lone backslash, or a line break, in the formula.")
        if not match:
            raise Unreadable(f"I cannot read the sign “{text[place]}”.")
        place = match.end()
        kind, found = match.lastgroup, match[match.lastgroup]
        if kind == "word":
            tokens += _word(found)
        elif kind == "latex":
            tokens += _command(found)
        elif kind == "op":
            tokens.append(("op", LONG_SIGNS.get(found, found)))
        elif len(found) > 20:
            raise Unreadable("There is a number with more than 20 digits in the formula.")
        else:
            tokens.append(("num", float(found.replace(",", "."))))
        if len(tokens) > MAX_TOKENS:
            raise Unreadable(f"The formula is too long: more than {MAX_TOKENS} signs.")
    return tokens


def split_equation(tokens: list[Token]) -> list[list[Token]]:
    """Cut at every “=” outside brackets: [left side, right side, …]."""
    parts: list[list[Token]] = [[]]
    depth = 0
    for place, (kind, value) in enumerate(tokens):
        if kind == "op":
            depth += (value in CLOSING) - (value in CLOSING.values())
        # Σ_i=1^K without braces: this "=" belongs to the range.
        of_range = (
            place >= 3
            and tokens[place - 2] == ("op", "_")
            and tokens[place - 3] in (("fn", "sum"), ("fn", "prod"))
        )
        if (kind, value) == ("op", "=") and depth == 0 and not of_range:
            parts.append([])
        else:
            parts[-1].append((kind, value))
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
REDUCTIONS = ("sum", "prod", "mean")
COMPOSED = {  # functions of functions, the innermost first
    "logabsdet": ("det", "abs", "log"),
    "slogdet": ("det", "abs", "log"),
    "logabs": ("abs", "log"),
    "logdet": ("det", "log"),
}
BASES = {2.0: "log2", 10.0: "lg", "e": "log"}


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

    def sees(self, *signs: str, ahead: int = 0) -> bool:
        kind, value = self.peek(ahead)
        return kind == "op" and value in signs

    def accept(self, *signs: str) -> str | None:
        return str(self.take()[1]) if self.sees(*signs) else None

    def expect(self, sign: str) -> None:
        if not self.accept(sign):
            raise Unreadable(f"A “{sign}” is missing{self._where()}.")

    def expect_end(self) -> None:
        kind, value = self.peek()
        if kind != "end":
            what = "is never opened" if value in (")", "]", "}", "|") else "does not fit here"
            raise Unreadable(f"The “{value}” {what}{self._where()}.")

    @contextmanager
    def braces(self) -> Iterator[str | None]:
        """What stands between braces or round brackets, where these may be left out."""
        sign = self.accept("{", "(")
        yield sign
        if sign:
            self.expect(CLOSING[sign])

    def minus(self) -> bool:
        """Whether the signs before a factor make it negative."""
        negative = False
        while sign := self.accept("+", "-"):
            negative ^= sign == "-"
        return negative

    def _where(self) -> str:
        before = self.tokens[max(0, self.place - 3) : self.place]
        shown = " ".join(f"{v:g}" if isinstance(v, float) else str(v) for _, v in before)
        return f" (after “{shown}”)" if shown else ""

    # -- grammar: sum → term → factor → power → primary --------------------------------------
    def sum_of_terms(self) -> tuple:
        left = self.term()
        while sign := self.accept("+", "-"):
            left = (sign, left, self.term())
        return left

    def term(self) -> tuple:
        negative = self.minus()
        left = self.factor()
        while True:
            if sign := self.accept("*", "/"):
                minus, right = self.minus(), self.factor()
                left = (sign, left, right)
                negative ^= minus
            elif self.starts_factor():
                left = ("*", left, self.factor())
            else:
                return ("neg", left) if negative else left

    def starts_factor(self) -> bool:
        if self.sees("|"):
            return self.open[-1:] != ["|"]
        return self.peek()[0] in ("num", "name", "fn") or self.sees(*STARTS)

    def factor(self) -> tuple:
        self.depth += 1  # whatever is nested has a factor on each level
        if self.depth > MAX_DEPTH:
            raise Unreadable(f"The formula is nested more than {MAX_DEPTH} deep.")
        result = self.powers(self.primary())
        self.depth -= 1
        return result

    def powers(self, base: tuple) -> tuple:
        base = self.methods(base)
        while self.accept("^"):
            if not self.transposes():
                return ("^", base, self.exponent())
            base = self.methods(("T", base))
        return base

    def transposes(self) -> bool:
        """Whether the exponent is a T or {T}, which is then taken."""
        start = 1 if self.sees("{", "(") else 0
        if self.peek(start) != ("name", "T") or start and not self.sees("}", ")", ahead=2):
            return False
        self.place += 1 + 2 * start
        return True

    def exponent(self) -> tuple:
        negative, inner = self.minus(), self.factor()
        return ("neg", inner) if negative else inner

    def methods(self, base: tuple) -> tuple:
        """`s.abs().log().sum()`, `W.T`: code read from the left."""
        while self.sees(".") and self.peek(1)[0] in ("fn", "name"):
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
        return ("bars", inner) if sign == "|" else self.derivative(inner)

    def primary(self) -> tuple:
        kind, value = self.peek()
        if kind == "end":
            raise Unreadable(f"The formula stops too early{self._where()}: something is missing.")
        if self.sees("(", "[", "{", "|"):
            return self.group()
        if self.sees("d"):
            return self.derivative(self.differential())
        self.place += 1
        if kind == "num":
            return ("num", value)
        if kind == "fn":
            return self.function(str(value))
        if kind == "name":
            return self.name(str(value))
        if value == "frac":
            top, bottom = self.fraction_part(), self.fraction_part()
            halves = top[0] == bottom[0] == "d"
            return ("deriv", top[1:], bottom[1:]) if halves else ("/", top, bottom)
        if value == "grad":
            return self.gradient()
        if value == "dots":
            raise Unreadable("I cannot read dots. Write the sum with Σ or sum(…).")
        self.place -= 1
        raise Unreadable(f"The “{value}” does not fit here{self._where()}.")

    def fraction_part(self) -> tuple:
        return ("num", self.take()[1]) if self.peek()[0] == "num" else self.group()

    def derivative(self, top: tuple) -> tuple:
        """A differential with the one below the line: dz/dx is one factor, as is (dz)/(dx)."""
        if top[0] != "d" or not self.accept("/"):
            return top
        with self.braces():
            if not self.sees("d"):
                raise Unreadable(f"A derivative needs a d below the line{self._where()}.")
            return ("deriv", top[1:], self.differential()[1:])

    def differential(self) -> tuple:
        """d z, ∂h_i, d f(x), ∂(z), ∂xᵀ: returns ("d", variable, index)."""
        self.expect("d")
        with self.braces():
            kind, value = self.take()
            if kind != "name" or value not in VARIABLES:
                self.place -= 1
                raise Unreadable(f"After d or ∂ I expect z, x, y or h_i{self._where()}.")
            index = self.index()
            self.arguments()
            if self.accept("^") and not self.transposes():
                raise Unreadable(f"I cannot read this power of a differential{self._where()}.")
        return ("d", value, index)

    def gradient(self) -> tuple:
        """∇f or ∇_x f(x), which is read as the Jacobian."""
        self.index()
        if self.peek()[1] in ("f", "z"):
            self.place += 1
            self.index()
            self.arguments()
        return ("sym", "J", ())

    def index(self) -> tuple:
        """An optional subscript: _i, _{i-1}, [i], _θ."""
        closing = None
        if self.accept("_"):
            closing = self.accept("{", "(")
            if not closing:
                kind, value = self.take()
                if kind not in ("num", "name"):
                    raise Unreadable(f"I cannot read this subscript{self._where()}.")
                return (value,)
        elif self.sees("[") and self.peek(1)[0] in ("num", "name"):
            closing = self.accept("[")
        if not closing:
            return ()
        values = []
        while not self.accept(CLOSING[closing]):
            if self.sees("_"):  # J_{f_i}
                values += self.index()
                continue
            kind, value = self.take()
            if kind in ("end", "fn") or (kind == "op" and value not in "+-,:"):
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
            if self.sees("_"):  # a subscript is not an argument
                names.append(self.index())
                continue
            kind, value = self.take()
            if kind == "end":
                raise Unreadable("A bracket ( is opened and not closed.")
            depth += {"(": 1, ")": -1}.get(str(value), 0) if kind == "op" else 0
            if kind == "name":
                names.append(value)
        return names

    def name(self, name: str) -> tuple:
        if name == "0":
            return ("num", 0.0)
        if name == "p":
            return self.density()
        if name in ("f", "g") and self.accept("'"):
            self.arguments()
            return ("sym", "J", ()) if name == "f" else ("call", "inv", ("sym", "J", ()))
        index = self.index()
        if name == "J":
            return self.jacobian(index)
        if name in ("s", "t"):
            self.arguments_of_a_map()  # s(x_b): the net's output, by name
            index = index or self.index()
        return ("sym", name, index)

    def arguments_of_a_map(self) -> None:
        if self.sees("(") and self.peek(1)[1] in VARIABLES:
            self.arguments()

    def jacobian(self, index: tuple) -> tuple:
        """J, J_f(x), J_{f_i}; J_g is the inverse map's."""
        of, index = (index[0], index[1:]) if index and index[0] in (*"fgxz",) else ("", index)
        index = () if "θ" in index else index  # J_{f_θ} is the whole flow's, J_{f_i} a step's
        self.arguments_of_a_map()
        jacobian = ("sym", "J", index)
        return ("call", "inv", jacobian) if of == "g" else jacobian

    def density(self) -> tuple:
        """p(x), p_θ(z), p_X(x), p^*(x), p(f(x)), p(h_K)."""
        if self.peek() == ("name", "θ"):  # pθ(x)
            self.place += 1
        if self.accept("^"):  # p^*(x), or p^{\star}
            with self.braces():
                self.expect("*")
        index = self.index()
        inside = self.arguments() or list(index)
        if {"x", "z"} <= {*inside} and not {"f", "g"} & {*inside}:
            raise Unreadable("The density p has one argument here: p(x) or p(z).")
        if "z" in inside or "f" in inside:
            return ("p", "x" if "g" in inside else "z")
        if "x" in inside:
            return ("p", "x")
        ends = {("h", ("K",)): "z", ("h", (0.0,)): "x"}  # the flow's
        if tuple(inside) not in ends:
            raise Unreadable("The density p needs its argument: p(x) or p(z).")
        return ("p", ends[tuple(inside)])

    def function(self, name: str) -> tuple:
        if name == "norm":
            raise Unreadable("‖·‖ is a norm, one number of another kind. Write |det W| or |s|.")
        if name in ("sum", "prod") and self.sees("_", "^"):
            return self.ranged(name)
        if name == "log":
            name = self.logarithm()
        power = self.exponent() if self.accept("^") else None  # det² W
        result = self.call(name, self.argument(name))
        return ("^", result, power) if power else result

    def logarithm(self) -> str:
        """Its name by its base: log, log_2, log_{10}, log2(…)."""
        base: object = "e"
        if self.accept("_"):
            with self.braces():
                base = self.take()[1]
        elif self.sees("(", "|", ahead=1) and self.peek()[1] in (2.0, 10.0):
            base = self.take()[1]
        if base not in BASES:
            raise Unreadable("A logarithm here has base e, 2 or 10.")
        return BASES[base]

    def argument(self, name: str) -> tuple:
        if self.peek()[0] == "end":
            raise Unreadable(f"“{name}” has nothing to work on.")
        if name in ("sum", "prod") and not self.sees("(", "{", "["):
            inner = self.term()  # sum log|s| h w: everything up to the next + or −
        elif self.sees("(", "|", "[", "{"):
            inner = self.group(axes=name in REDUCTIONS)
            # The .sum() of log(s).sum() is of log(s); a power may be of s.
            if self.sees("^") and self.power_inside and name not in REDUCTIONS:
                inner = self.powers(inner)
        else:
            inner = self.factor()
        if name == "det":
            # det P L (U + diag(s)): a determinant takes the whole product of matrices.
            while (
                self.peek() == ("fn", "diag")
                or (self.peek()[0] == "name" and self.peek()[1] in MATRICES)
                or (self.sees("(") and inner[0] in ("*", "sym"))
            ):
                inner = ("*", inner, self.factor())
        return inner

    def call(self, name: str, inner: tuple) -> tuple:
        if inner[0] == "axes":
            _, count, inner = inner
            if name not in REDUCTIONS:
                raise Unreadable(f"“{name}” takes no axis here.")
            if name == "sum":
                name = {1: "sum over 1", 2: "sum over 2"}.get(count, name)
        if name == "slogdet":
            self.second_of_the_pair()
        if name == "square":
            return ("^", inner, ("num", 2.0))
        if name == "transpose":
            return ("T", inner)
        for step in COMPOSED.get(name, (name,)):
            inner = ("call", step, inner)
        return inner

    def second_of_the_pair(self) -> None:
        """slogdet(W)[1], [-1] or .logabsdet; its first is the sign."""
        rest = [value for _, value in self.tokens[self.place : self.place + 4]]
        for taken in (["[", 1.0, "]"], ["[", "-", 1.0, "]"], [".", "logabsdet"]):
            if rest[: len(taken)] == taken:
                self.place += len(taken)
                return
        raise Unreadable("slogdet gives a pair (sign, log|det|): take its second, [1].")

    def ranged(self, name: str) -> tuple:
        """Σ_{i=1}^{K} body, Σ_i body, Σ_{i,j} body."""
        indices: list[str] = []
        lower = upper = None
        for _ in range(2):
            if self.accept("_"):
                with self.braces() as braced:
                    # Without braces one letter, or Σ_ij: in Σ_i h w log|s_i| the h is a factor.
                    while self.peek()[0] == "name" and (
                        braced or not indices or {indices[-1], self.peek()[1]} <= set("ijk")
                    ):
                        indices.append(str(self.take()[1]))
                        self.accept(",")
                    if self.accept("="):
                        lower = self.sum_of_terms() if braced else self.bound()
                    if self.sees("dots", ahead=self.sees(",")):  # i = 1, …, K
                        self.place += 1 + self.sees(",")
                        self.accept(",")
                        upper = self.sum_of_terms()
            elif self.accept("^"):
                upper = self.group() if self.sees("{", "(") else self.bound()
        return ("over", name, tuple(indices), lower, upper, self.term())

    def bound(self) -> tuple:
        """A bound of a range without braces."""
        kind, value = self.take()
        if kind not in ("num", "name"):
            raise Unreadable(f"I cannot read this range{self._where()}.")
        return ("num", value) if kind == "num" else ("sym", str(value), ())


def nodes(tree: tuple) -> Iterator[tuple]:
    """A tree's nodes, itself first."""
    yield tree
    start = {"num": 2, "sym": 3, "p": 2, "deriv": 3, "d": 3, "call": 2, "over": 3}.get(tree[0], 1)
    for part in filter(None, tree[start:]):
        yield from nodes(part)


def symbols(tree: tuple) -> set[str]:
    """Every symbol a tree uses, "deriv" and "p(x)" among them."""
    found = {"sym": "{1}", "p": "p({1})", "deriv": "deriv"}
    return {found[node[0]].format(*node) for node in nodes(tree) if node[0] in found}


def index_names(tree: tuple) -> set[str]:
    """Index letters used anywhere below."""
    found: set[object] = set()
    for node in nodes(tree):
        if node[0] == "sym":
            found.update(node[2])
        elif node[0] == "deriv":
            found.update({*node[1][1], *node[2][1]} - {"θ", "K"})
    return {name for name in found if isinstance(name, str)} - {"+", "-"}
