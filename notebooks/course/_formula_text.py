"""What a hand or a word processor writes as a formula, rewritten as plain text for the parser.

Unicode signs become their plain names, LaTeX's wrappers go, and habits of code, of LaTeX and of
English and Russian words are put in one spelling, each by a line of `REWRITES`.
"""

from __future__ import annotations

import re
import unicodedata

from ._formula_words import LABEL, REMARK, UNWRAP, Unreadable

SIGNS = str.maketrans({
    "·": "*", "⋅": "*", "×": "*", "∗": "*", "•": "*", "⊙": "*", "∙": "*", "−": "-", "–": "-",
    "—": "-", "⁄": "/", "∕": "/", "÷": "/", "½": "(1/2)", "¼": "(1/4)", "∣": "|", "│": "|",
    "｜": "|", "ǀ": "|", "Σ": " sum ", "∑": " sum ", "∏": " prod ", "Π": " prod ", "∂": " d ",
    "√": " sqrt ", "‖": " norm ", "∥": " norm ", "∇": " grad ", "≡": "=", "′": "'",
    "’": "'", "$": " ", "`": " ", "…": " dots ", "⊤": "T", "@": "*", "≔": "=",
    "\n": " ", "\r": " ", "\t": " ",
    "\u2061": " ", "\u2062": "*",  # Word's "apply the function" and "invisible times"
})  # fmt: skip
RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ᵀᴷᶜʰʷ⁽⁾", "0123456789+-TKchw()")
LOWERED = str.maketrans("₀₁₂₃₄₅₆₇₈₉₊₋₌ᵢⱼₖₙₓₐₑ₍₎", "0123456789+-=ijknxae()")


def _run(table: dict[int, int]) -> str:
    return f"[{''.join(map(chr, table))}]+"


def _side(match: re.Match) -> str:
    """x.shape[2] and x.size(3) of (N, C, H, W); what the other places are, libraries differ."""
    sides = {"2": " h ", "-2": " h ", "3": " w ", "-1": " w "}
    if match[1] not in sides:
        raise Unreadable(
            f"What x.shape[{match[1]}] is depends on the layout: write h, w or c in its place."
        )
    return sides[match[1]]


ALONE, END = r"(?<![^\W\d_])", r"(?![^\W\d_])"  # no letter before it, none behind it
TIMES = r"\s*(?:\*|\\cdot|\\times|\\,)?\s*"
AXES = r"(?:[\[(]\s*-?\d[-\d, ]*[\])]|-?\d(?:\s*,\s*-?\d)*)"
REWRITES = tuple(
    (pattern if isinstance(pattern, re.Pattern) else re.compile(pattern), instead)
    for pattern, instead in (
        # -- LaTeX's wrappers, spaces and brackets ------------------------------------------
        (UNWRAP, r" \1 "),
        # A row of an aligned block goes on where the last one ended.
        (r"\\\\\s*(?=&?\s*[=+-])|(?<!\\)&(?=\s*[=+-])|(?<==)\s*&", " "),
        (r"\\\|", " norm "),
        (r"\\[,;:! ()\[\]]", " "),  # thin spaces and $-like brackets
        (r"\\\{", "("),
        (r"\\\}", ")"),
        (r"frac\s*(\d)\s*(\d)", r"frac{\1}{\2}"),  # \frac12
        # -- code ---------------------------------------------------------------------------
        (r"\b(?:np|numpy|torch|math|linalg|jnp|jax|tf|scipy|F|self)\s*\.\s*(?=[A-Za-z])", ""),
        (r"\.(?:flatten|view|reshape)\([^()]*\)(\.(?:sum|mean|prod)\()[^()]*", r"\1"),  # all axes
        (r"\.(?:flatten|view|reshape)\([^()]*\)|\bflatten\s*(?=\()", ""),
        (r",\s*keepdims?\s*=\s*\w+", ""),
        # axis=(1, 2, 3) becomes @3, how many axes there are: which ones is not ours to know.
        (rf"(?:,\s*|(?<=\.sum\()\s*|(?<=\.mean\()\s*|(?<=\.prod\()\s*)(?:(?:axis|dim)\s*=\s*)?{AXES}\s*\)",
         lambda m: f" @{len(re.findall('[0-9]+', m[0]))} )"),
        # -- words around it ----------------------------------------------------------------
        (REMARK, ""),
        (LABEL, ""),
        # -- habits -------------------------------------------------------------------------
        (r"\.{2,3}", " dots "),
        (r"\|\s*s([1-9cCnN])\s*\|", r"|s_\1|"),  # log|s1| + … + log|sc|
        (r"(?i)\b([hw])\s*\.\s*([hw])\s*\.(?=\s*[^\W\d])", r"\1 * \2 * "),  # h.w.log|det W|
        (rf"{ALONE}D(?:_?x)?\s*f\b(?!\s*(?:\([^()]*\))?\s*/)", " J "),  # Df(x)
        (rf"_([ijk]{{2,3}}){END}", r"_{\1}"),  # s_ijk has three indices
        (rf"(?<=[xyst])_(?:\{{\s*a\s*\}}|a{END})", ""),  # the half that is changed
        (r"\{\s*D\s*/\s*2\s*\}", "{h w c/2}"),  # half of all entries
        (r"\\(?:begin|end)\s*\{(?:equation|align|aligned|split|gather|gathered|displaymath|math)\*?\}",
         " "),
        # log|s_1| + … + log|s_c| where it ends there: one term for all.
        (r"(\\?l(?:og|n)\b[^+=_]*)_\{?1\}?([^+=_]*?)\s*\+(?:\s*\1_\{?\d\}?\2\s*\+)*"
         r"\s*(?:\\[cl]?)?dots\s*\+\s*\1_\{?[cCnNK]\}?\2(?=\s*(?:$|[)+=]))", r"(sum_i \1_i\2)"),
        (r"\bzeros(?:_like)?\s*\((?:[^()]|\([^()]*\))*\)", " 0 "),
        (r"\bfor\s+([ijk])\s+in\s+range\s*\(\s*[cC]\s*\)", " "),
        (r"\breduce_(?=sum|mean|prod)", ""),
        (r"(?i)\babsolute(?: value)?(?: of)?(?: the)?\b", "absolute"),
        (r"(?i)\b(?:матриц\w+ якоби|jacobian matrix)\b", " J "),
        (r"\blog_?p_?([xz])\b", r"log p(\1)"),
        (r"(?i)\b(sum|сумма)\s+(?:over|по)\s+(?:all |the |всем )*(?:channels|каналам)\b", r"\1 "),
        (r"(?i)\b(sum|сумма)\s+(?:over|по)\s+(?:all\s+|всем\s+)?([ijkcn])\b", r"\1_\2 "),
        (r"(?i)(?<=_[ijkcn]) +(?:of|от)\b", " "),
        (r"(?i)\b(sum|log|logarithm|abs|det|determinant|product|mean)\s+of\s+(?:the\s+)?", r"\1 "),
        # Beside a capital H a capital W is the width, even where W is a matrix as well.
        (rf"{ALONE}(?:H{TIMES}W|W{TIMES}H){END}", " h w "),
        (r"(?i)(?<=\b[hw]) +x +(?=[hwlsΣ∑\\(])", " * "),  # h x w x log|det W|
        (r"(?i)\bconv(?:2d|1x1)?\s*\([^()]*\)", " y "),  # the paper's conv2D(h; W)
        # f⁻¹ is g, but J_f⁻¹ is the inverse of J_f.
        (r"(?<![_\w\\])(d?)f(?:_\{?\s*(?:θ|\\theta)\s*\}?)?\s*\^\s*(?:\{\s*-\s*1\s*\}|-1)",
         r" \1 g "),
        (rf"{ALONE}N\s*\(\s*z\s*[;|,][^()]*\)", " p(z) "),  # the standard normal N(z; 0, I)
        (r"\b[xyz]\s*\.\s*(?:shape\s*\[|size\s*\()\s*(-?\d|2:)\s*[\])]", _side),
        # log_s, log_det, log_p, log_prob are one name in code; "_" is a subscript elsewhere.
        (r"\blog_?abs_?s\b", "(log abs s)"),
        (r"\blog_?(?:s|scale)\b", "(log s)"),
        (r"(?<![A-Za-z])(log|abs)_(?=(?:abs|det|p|prob)(?![A-Za-z]))", r"\1 "),
        (r"\blog ?_?prob\b", "log p"),
        (r"\blog_\{? ?e\b ?\}?", "ln "),
    )
)  # fmt: skip


def plain(text: str) -> str:
    """The text in plain spelling; Unreadable for what cannot be meant."""
    for place, char in enumerate(text, start=1):
        invisible = unicodedata.category(char) in ("Cf", "Cc", "Co", "Cs", "Cn")
        if invisible and ord(char) not in SIGNS:
            raise Unreadable(
                f"There is an invisible character (U+{ord(char):04X}) at place {place}. "
                "Please type the formula again without it."
            )
    for mark, table in (("^", RAISED), ("_", LOWERED)):
        text = re.sub(_run(table), lambda m, t=table, k=mark: f"{k}{{{m[0].translate(t)}}}", text)
    # 𝑧 is z, and 𝜕 is ∂; but ½ is one half, and no 1⁄2 of the two digits' own.
    text = unicodedata.normalize("NFKC", text.translate(SIGNS)).translate(SIGNS)
    for pattern, instead in REWRITES:
        text = pattern.sub(instead, text)
    return text.strip().rstrip(".;,!").strip()
