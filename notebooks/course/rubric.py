"""A mirror for open answers, in English and Russian: what was said, left out, contradicted.

It looks for concepts, not for reasoning, and never gives a mark: `reflect` says which concepts a
text states and then shows a model answer, against which the reader judges their own.

A concept is found in one sentence that holds all of its word groups and something that makes the
sentence a statement (a verb, an "="); a list of keywords states nothing.

>>> answer = reflect("3", "W is factorised as P L (U + diag(s)); P is fixed and not trained.")
>>> answer.found
['LU factorisation', 'P is fixed']
>>> reflect("3", "U is lower triangular.").contradictory
['triangular factors']
"""

# ruff: noqa: E501  (a pattern is read best in one line)
from __future__ import annotations

import html
import re
from dataclasses import dataclass

from ._formula_words import UNWRAP, unescape

__all__ = ["Reflection", "reflect", "QUESTIONS", "CONCEPTS"]

MAX_CHARS = 10_000

QUESTIONS = {
    "1": "What is the log-determinant? Write the formula.",
    "2": "Which three main layers do the authors propose? Describe them briefly.",
    "3": "How did the authors optimise the computation of the invertible 1×1 convolution?",
}

MODEL_ANSWERS = {
    "1": (
        "The log-determinant is the logarithm of the absolute value of the determinant of the "
        "map's Jacobian, log|det dz/dx|. It says by how much the map stretches volume, counted "
        "as a logarithm, and so corrects the density: log p(x) = log p(z) + log|det dz/dx|. For "
        "composed maps it is the sum over the steps; for a triangular Jacobian it is the sum of "
        "log|diagonal|.",
        "Log-determinant — это логарифм модуля определителя матрицы Якоби отображения, "
        "log|det dz/dx|. Он показывает, во сколько раз отображение меняет объём (в "
        "логарифмической шкале), и входит поправкой в логарифм плотности: log p(x) = log p(z) + "
        "log|det dz/dx|. Для композиции он равен сумме по шагам, для треугольной матрицы Якоби — "
        "сумме логарифмов модулей диагональных элементов.",
    ),
    "2": (
        "Actnorm scales and shifts every channel, y = s ⊙ x + b; its s and b start from the first "
        "batch, so that each channel has mean 0 and variance 1. The invertible 1×1 convolution "
        "multiplies the channels at every pixel by a learned matrix W and generalises a "
        "permutation. Affine coupling passes one half unchanged; a network computes log s and t "
        "from it for the other half; it is inverted without inverting the network.",
        "Actnorm масштабирует и сдвигает каждый канал, y = s ⊙ x + b; s и b инициализируются по "
        "первому батчу так, чтобы у каждого канала было среднее 0 и дисперсия 1. Обратимая свёртка "
        "1×1 умножает каналы в каждом пикселе на обучаемую матрицу W и обобщает перестановку. Affine coupling "
        "оставляет одну половину без изменений; сеть вычисляет по ней log s и t для другой; "
        "слой обращается без обращения сети.",
    ),
    "3": (
        "They write W = P L (U + diag(s)), an LU factorisation: P is a fixed permutation, L is "
        "lower triangular with ones on the diagonal, U is strictly upper triangular. Then "
        "log|det W| is the sum of log|s|, which costs O(c) where the determinant of W costs O(c³). "
        "(What the paper does not speak of: the inverse, too, is cheap, two triangular solves.)",
        "Матрица записывается через LU-разложение W = P L (U + diag(s)): P — фиксированная "
        "перестановка, L — нижнетреугольная с единицами на диагонали, U — строго "
        "верхнетреугольная. Тогда log|det W| равен сумме log|s|: это O(c) вместо O(c³). "
        "(О чём в статье не сказано: обращение тоже дешёво, достаточно решить две треугольные системы.)",
    ),
}


@dataclass(frozen=True)
class Concept:
    """``needs``: every pattern in one sentence; ``against``: patterns that contradict it.

    ``benign`` are negations that belong to the concept, such as "P is not trained".
    ``core`` is what is denied with it when it "is not needed".
    """

    name: str
    needs: tuple[str, ...]
    against: tuple[str, ...] = ()
    benign: str = r"$^"
    core: str = r"$^"


#: What question 3 gains besides: the authors speak of the determinant only.
BEYOND = "inverse by triangular solves"

# Word groups, English | Russian stems.
ACTNORM = r"act-?norm|актнорм|activation normali|активационн\w+ нормализ|нормализаци\w+ активац"
CONV = r"1\s*[x×х*]\s*1|один на один|convolution|св[её]ртк"
COUPLING = r"coupling|каплинг|связыва|сцеплен|half|halves|половин|\b(?:one|first|second) part\b|(?:одн|перв|втор)\w+ часть"
CHANGED = r"transform|chang|scal|меня|преобраз|масштаб"
KEPT = r"y_?(?P<half>[ab12])\s*=\s*x_?(?P=half)(?!\s*[*+⊙·\w])"
NETWORK = r"\bnet\b|network|\bnn\b|\bсет[ьи]\b|нейросет"
DETERMINANT = (
    r"determin(?:an|en|a)t|\bdet\b|log-?det|опред[еи]лител|детермина|якобиан"  # якобиан: det J
)
TRIANGULAR = r"triangular|треугольн"
DIAGONAL = r"(?<!off-)(?<!off )(?<!off the )diag|(?<!вне)(?<!вне )диагонал"
LOWER, UPPER = r"lower|нижн", r"upper|верхн"
TRACE = r"не (?:равен )?след[^,.]*|not (?:equal )?(?:to )?(?:the )?trace[^,.]*"
# Of these it is true that they keep volume; of a map in general it is not.
KEEPS = r"additive|nice|permut|shift|orthogonal|rotation|\b0 means|\bif\b"
KEEPS += r"|аддитив|перестанов|сдвиг|ортогональ|вращен|поворот|если"
CUBIC = r"o\s*\(\s*[cnс]\s*(?:\^|\*\*)?\s*[3³]\s*\)"
SQUARE = CUBIC.replace("[3³]", "[2²]")
LINEAR = r"o\s*\(\s*[cnс]\s*\)"
# "the determinant is the sum of the diagonal": without a logarithm it is the trace.
IS = r"(?:is|are|equals?|=|это|рав\w+|—)(?: just| the| to)*"
DIAGONAL_SUM = rf"(?:{DETERMINANT})[^.,;]{{0,60}}{IS} (?:sum of (?:the )?diag|сумм\w+ (?:элементов )?диагонал)(?![^.;]{{0,60}}(?:log|лог))"
TRAINED = r"train|learn|optimi|chang|updat|обуча|меня|обновля"
NOT_P = r"(?:trained|learned|обуча)[^.;]{0,40}(?:,|\bbut|\band|\bно|\bа) (?:not p|p is not|p isn['’]t|не p|p нет)\b"
# "all of P, L, U and s"
P_TOO = r"\bp(?:,? (?:and |и )?[lus]\b)+"
NO_NEED = r"(?:no need|(?:not|n['’]t) (?:need|have)|need not|не (?:нужно|надо|требуется|приходится))(?: to\b)?"
NOT = r"(?:not|n't|never|не)\s+(?:\w+\s+){0,2}"

CONCEPTS: dict[str, tuple[Concept, ...]] = {
    "1": (
        Concept(
            "log of the Jacobian determinant",
            (r"\blog|\bln\b|логарифм", DETERMINANT, r"jacob|якоби|d[zhyf]\w*\s*/\s*d[xhz]|∂\w+(?:\(x\))?\s*/\s*∂|deriv|производн|\bdet\s*\(?\s*j(?![a-zа-я])"),
            (r"(?:is|equals|это|равен) (?:the )?(?:log\w* of (?:the )?|логарифм\w* )?(?:trace|след)",),
            benign=TRACE,
        ),
        Concept(
            "absolute value",
            (r"absolut|modul|модул|абсолютн|\|\s*det|\babs\b", DETERMINANT),
            (r"(?:sign|знак) (?:of the determinant |определителя )?(?:matters|is kept|важен|сохраня)",
             r"(?:absolute value|modulus) of (?:the |its )?(?:natural )?log|модул\w+ логарифм",),
            core=r"absolut|modul|модул|абсолютн",
            benign=TRACE + r"|(?:\bnot|\bне)(?: the| сам\w*)? (?:determinant|определител\w*)(?: itself)?"
            r"|(?:not|n['’]t|не) (?:care|matter|depend|важ|завис)\w*(?: (?:about|on|от))?(?: (?:the )?(?:sign|знак)\w*)?",
        ),
        Concept(
            "change of volume",
            (r"volum|объ[её]м|densit|плотност|\bspace\b|пространств|log p\w*\s*\(x\)", r"chang|stretch|scal|expand|contract|shrink|correct|compress|preserv|keeps|меня|измен|сохраня|растя|сжи|сжат|поправ|log p\w*\s*\((?:z\)|f)"),
            # A layer that keeps volume is no contradiction; to say so of every map is one.
            (rf"^(?!.*(?:{KEEPS})).*(?:preserv\w+|keeps|сохраня\w+) (?:the )?(?:volume|объ[её]м)",
             rf"^(?!.*(?:{KEEPS})).*(?:volume|объ[её]м)(?: is| are| всегда| always)* (?:preserved|kept|сохраня)",
             r"log p\w*\s*\((?:z|f[^=]{0,20})\)\s*=\s*log p\w*\s*\(x\)\s*\+[^=]*\bd[zf]\w*(?:\(x\))?\s*/\s*dx",
             r"log p\w*\s*\((?:z|f[^=]{0,20})\)\s*[-−–]\s*[^=+]*\bdz\s*/\s*dx"),
            benign=rf"(?:{KEEPS})[^.]*(?:not|n['’]t|не) (?:chang|меня|измен)\w*"
            r"|(?:not|n['’]t|не) (?:invariant|constant|(?:be )?(?:preserv|kept)|the same|инвариант|сохраня|постоян)\w*",
        ),
        Concept(
            "sum over steps",
            (r"\bsum|\badd|Σ|∑|сумм|склад", r"step|layer|compos|each map|maps|chain|transformations|шаг|сло[йеяёю]|композиц|отображени|последовательн|цепочк|преобразований|h_?i"),
            (r"(?:product|произведени\w+) (?:of|over|по)?\s*(?:the )?(?:log-?det|логарифм)",
             r"(?:log-?det|логарифм|ло[гк]-?дет)\w*(?: (?!\badd|\bsum|склад|сумм)\w+){0,4} (?:multipl(?:y|ied)(?! by)|перемножа[ею]тся)"),
        ),
        Concept(
            "triangular Jacobian",
            (TRIANGULAR, DIAGONAL),
            (DIAGONAL_SUM, r"(?:not|n['’]t|не) (?:just|only|только) (?:the |on the )?(?:diag|диагонал)", r"(?:whole|full|entire|all of the|вс[яей]+|полн\w+) (?:triangular )?(?:matrix|матриц\w+) (?:is )?(?:needed|нужн)",),
            core=DIAGONAL,
        ),
    ),
    "2": (
        Concept(
            "actnorm: scale and shift per channel",
            (ACTNORM, r"scal|multipl|s\s*[*⊙·]?\s*x|масштаб|умнож|растя", r"shift|bias|transl|\badd|\+\s*b|сдвиг|смещ|прибав", r"chann?el|канал|s\s*[*⊙·]?\s*x"),
            (
                rf"^(?!.*(?:differ|отлич|instead|вместо|while|which|котор)).*(?:{ACTNORM})[^.;]*(?:statistic|mean|variance|статистик|средн|дисперси)\w* (?:of |over |по )?(?:every|each|кажд\w+) (?:mini-?|мини-?)?(?:batch|батч)",
                rf"(?:{ACTNORM})\w* (?:(?:does|do) )?(?:not|n['’]t|не) (?:scal|shift|масштаб|сдвиг)",
                rf"(?:{ACTNORM})[^.;]{{0,80}}(?:\bone|single|same|один|общ\w+|одинаков\w+)(?: common| общий)? (?:scale|масштаб)(?:(?!\bper|each|every|кажд)[^.;]){{0,40}}(?:\ball|whole|все\w*) (?:the )?(?:chann|image|канал)",
            ),
        ),
        Concept(
            "actnorm: data-dependent start",
            (rf"{ACTNORM}|normali|нормал|chann?el|канал|paramet|парамет|\bs (?:and|и) b\b", r"first (?:mini-?)?batch|initial|data-depend|инициализ|начальн|перв\w+ (?:мини-?)?батч", r"mean|variance|среднее|средним|дисперс|data-depend|\bдисп"),
            (r"act-?norm[^.]*(?:initiali[sz]ed|starts?)[^.]*(?:random|identity|independently of (?:the )?data)", r"(?:act-?norm|актнорм)[^.]*инициализ[^.]*случайн"),
        ),
        Concept(
            "1×1 convolution: generalises a permutation",
            (CONV, r"permu|shuffl|reorder|перестанов|перемеш"),
            # Of the ancestors it is true: "in RealNVP it is a fixed permutation, here W is learned".
            (r"^(?!.*(?:realnvp|nice|learn|train|обуча)).*(?:is|just|это) (?:a |an )?(?:fixed|фиксированн\w+) (?:permut|shuffl|перестан)", r"shuffle is learn"),
        ),
        Concept(
            "1×1 convolution: learned matrix at every pixel",
            (CONV, r"learn|train|paramet|обуча|матриц|matrix|weight|\bw\s*[·*]?\s*x", r"pixel|position|chann?el|пиксел|позици|канал|_\s*i,?\s*j\b"),
            (rf"(?:{CONV})[^.]*(?:{NOT})(?:learn|train|обуча)",),
        ),
        Concept(
            "coupling: one half passes unchanged",
            (rf"{COUPLING}|{KEPT}", rf"unchanged|the same|остаётся (?:той|так|прежн)|identity|(?:not|n['’]t) (?:be )?(?:chang|touch|modif)|as (?:it )?is|copied|untouched|{KEPT}|без измен|неизмен|не (?:меня|изменя|трога)|тождествен|копиру"),
            # Two layers one after the other do change both.
            (rf"^(?!.*(?:two|several|after|altern|дв[ау]х?\b|нескольк|после|черед)).*(?:(?:both halves|обе половины)[^.]*(?:{CHANGED})|(?:{CHANGED})\w* (?:both halves|обе половины))",),
            benign=r"(?:not|n['’]t) (?:be )?(?:chang|touch|modif)\w*|не (?:меня|изменя|трога)\w*|без измен\w*",
        ),
        Concept(
            "coupling: a network gives scale and shift",
            (NETWORK, r"scal|log s|\bs\b|масштаб", r"shift|transl|\bt\b|сдвиг|смещ"),
        ),
        Concept(
            "coupling: inverse without inverting the network",
            (r"without|no need|need(?:s)? not|never|do(?:es)?(?:n['’]t| not)|(?:not|n['’]t) (?:be|have|need|requir)|can(?:not|['’]t| not) be inver|без|нет необходимости|не (?:нуж|требу|надо|приход|обращ)|не ?обяза|arbitrar[^.;]*non-?invert|(?:may|can) be non-?invert|мо(?:жет|гут) быть необрат", r"invert|inver|обра[тщ]", NETWORK),
            (
                rf"(?:{NETWORK})[^.]*(?:must|(?<!not )(?<!n['’]t )(?<!never )(?<!would )ha(?:s|ve) to|(?<!not )(?<!n['’]t )needs? to|should) be (?:inver|biject)",
                r"сеть[^.]*(?<!не )(?<!не обязательно )(?:должна|обязана) быть обратим",
                r"(?:requires?|needs?(?: to)?) (?:the )?inver\w+ (?:of )?the (?:neural |coupling )?net",
                r"(?:нужно|надо|требуется|приходится|необходимо) (?:обратить|обращать|инвертировать) (?:саму )?(?:нейро)?сеть",
            ),
            benign=r"without|no need|needs? not|never|do(?:es)?(?:n['’]t| not)|need not|(?:(?:is|are) ?)?(?:not|n['’]t) (?:be|have|need|requir)\w*|can(?:not|['’]t| not) be inver\w*|без|нет необходимости|не (?:нуж|требу|приход)\w*|не надо|не обяза\w*|(?:никогда )?не обращ\w*",
        ),
    ),
    "3": (
        Concept(
            "LU factorisation",
            (r"\bplu?\b|\blu\b|LU-|p\s*[*·]?\s*l\s*[*·]?\s*\(?\s*u|\bp,\s*l,?\s*(?:and|и)\s*u\b|\bп?лу\b|(?:permutation|перестанов)[^.;]{1,60}(?:lower|нижн)[^.;]{1,60}(?:upper|верхн)", r"factor|decompos|product of|произведение|=|paramet|written|write|stor|\bke(?:ep|eps|pt)\b|\bform\b|хран|разлож|запис|представ|факториз|разлага|расклад"),
            (
                r"(?:qr|svd|cholesky|singular value|сингулярн\w+)[- ](?:decompos|factor|разлож)",
                r"^(?!.*\blu\b).*(?:factor|decompos|разлож|расклад)\w*[^.,;]*\b(?:qr|svd|cholesky)\b",
            ),
            core=r"\bp?lu\b",
        ),
        Concept(
            "P is fixed",
            (r"\bp\b|permutation|перестанов", rf"fix|(?:not|n['’]t|never|не) (?:{TRAINED})|{NOT_P}|constant|frozen|фиксир|постоян|заморож"),
            (
                r"\bp\b(?:(?!fix|const|froz|while|but)[^.,;])*\b(?:is|are) (?:also )?(?:learn|train|optimi)",
                rf"{P_TOO}(?: are| all| also| все| тоже)* (?:learn|train|optimi|обуча)",
                r"permutation (?:matrix )?(?:p )?is (?:also )?(?:learn|train|optimi)",
                r"(?:shuffle|permutation) is (?:learn|train)",
                r"\bp\b[^.,;]{0,20}(?:not|n['’]t|не) (?:fix|constant|frozen|фиксир|постоян|заморож)\w*(?! at| by)",
                r"(?:\bp\b|перестанов\w+(?: p\b)?)(?: тоже| также| —)? обуча",
            ),
            benign=rf"(?:not|n['’]t|never|не) (?:\w+ )?(?:{TRAINED})\w*|{NOT_P}|not fixed at random",
        ),
        Concept(
            "triangular factors",
            (TRIANGULAR, rf"\bl\b|\bu\b|{LOWER}|{UPPER}"),
            (
                rf"\bu\b(?:\s+(?:is|—|-|это|является|also|тоже|matrix|матрица|a|an|strictly|строго))*\s+(?:{LOWER})",
                rf"\bl\b(?:\s+(?:is|—|-|это|является|also|тоже|matrix|матрица|a|an|strictly|строго))*\s+(?:{UPPER})",
                rf"^(?!.*(?:{UPPER})).*\b(?:both|обе)\b[^.]*(?:{LOWER})",
            ),
            benign=rf"\bu (?:is not|isn['’]t|не) (?:{LOWER})[^.]*(?:{UPPER})|\bl (?:is not|isn['’]t|не) (?:{UPPER})[^.]*(?:{LOWER})",
        ),
        Concept(
            "log-determinant from s",
            (DETERMINANT, r"\bs(?:_\s?\w{1,3}|[ᵢⱼₖ])?\b|diag|диагон", r"\bsum|prod|=|Σ|∑|сумм|произвед|equal|read off|равен"),
            (
                DIAGONAL_SUM,
                rf"(?:{DETERMINANT})[^.,;]{{0,60}}{IS} (?:sum\s*\(\s*s\s*\)|sum of s\b|сумм\w+ s\b)",
                rf"(?:{DETERMINANT})[^.,;]{{0,60}}{IS} [^.,;]{{0,60}}(?:diag\w*(?: entries| elements)? of w\b|диагонал\w+(?: элементов)? (?:матрицы )?w\b)(?!['’])",
                rf"(?:{DETERMINANT})\w* (?:of )?w {IS} [^.,;]{{0,60}}(?:\bits|\bе[её]) (?:own )?(?:diag|диагонал)",
            ),
            benign=NO_NEED + r"(?: (?:comput|счита|вычисл)\w*)?"
            r"|(?:determinant|определител)\w*(?: of w| w)? (?:is not|isn['’]t|не) (?:need|нуж|треб)\w*"
            r"|(?:without|no|never|без)(?: comput\w*| вычислени\w*)?(?: the| any| a)? (?:determinant|определител)\w*"
            r"|(?:not|n['’]t|never|не)(?: necessary| required| to| even| directly)* (?:comput|calculat|evaluat|take|счита|вычисля)\w*"
            r"(?: the| any| a| full)* (?:determinant|det\b|определител)\w*(?! (?:of w )?(?:from|by|through|as|из|по|как)\b)",
        ),
        Concept(
            "cost falls from O(c³) to O(c)",
            (rf"{CUBIC}|cubic|кубическ", rf"{LINEAR}|linear|линейн"),
            (
                rf"{LINEAR} (?:to|до|к) {CUBIC}",
                rf"{CUBIC},? (?:instead of|rather than|вместо) {LINEAR}",
                rf"(?:instead of|rather than|вместо) {LINEAR}[^.;]*{CUBIC}",
                # A triangular solve does cost O(c²): of the inverse this is true.
                rf"^(?!.*(?:inver|solv|обра[тщ]|реш)).*(?:{CUBIC} (?:down )?(?:to|до|к) {SQUARE}|{SQUARE} (?:down )?(?:to|до|к) {LINEAR})",
                rf"^(?!.*(?:{LINEAR}|without|\bбез\b)).*(?:stays?|remains?|оста[её]тся)[^.,;]*{CUBIC}",
                rf"(?:without (?:the )?|без )lu[^.,]*{LINEAR}",
                rf"{CUBIC} (?:with|by|с) (?:the |an )?lu",
                rf"{LINEAR}\s*(?:without (?:the )?|без )lu",
            ),
            benign=rf"(?:\bnot|n['’]t|\bне) (?:(?!(?:from|с|от) )\w+ ){{0,3}}{CUBIC}",
        ),
        Concept(
            BEYOND,
            (TRIANGULAR + r"|substitution|подстанов", r"solv|substitution|реш|подстанов", r"inver|solv|обра[тщ]|систем"),
            benign=rf"(?:{NO_NEED}|never|not|without|no|не)(?: be)?(?: matrix)? (?:inver|обращ)\w*|без обращен\w*",
        ),
    ),
}  # fmt: skip

# "The logarithm of …" says by itself what a thing is.
DEFINITION = re.compile(
    r"\blog\w* of\b|логарифм\w* (?:модул[яей]|определител[яей]|детерминант[аов]|абсолютн)",
    re.IGNORECASE,
)
# What makes words a statement. Stems, English and Russian; "=", a colon, a dash with spaces and a
# definition count.
RELATION = re.compile(
    r"=|≈|→|->|\binstead of\b|\bвместо\b|\babs\s*\(|\s[—–-]\s|\w:\s[^,:;]*\w\s+\w|\w+n['’]t\b|\|\s*det"
    rf"|{DEFINITION.pattern}|\b(?:we|they|you|it|is|are|was|were|be|has|have|does|do|can|needs?|costs?|falls?|drops?"
    r"|gives?|uses?|takes?|makes?|passes|stays?|remains?|becomes?|equals?|says?|measures?|tells?|goes"
    r"|(?:re)?writ\w+|solv(?:e|es|ing)|computes?|predicts?|(?:re)?scal(?:es|ed)|shifts|translates|multipl(?:y|ies)"
    r"|adds?|appl(?:y|ies|ied)|performs?|sums|mix(?:es)?|learns?|chang(?:es|ed)|correct(?:s|ed)|leaves|keeps?|generali[sz]es"
    r"|preserves?|replac(?:es?|ed)|factori[sz]e[sd]?|decompos(?:es?|ed)|stretch(?:es)?|outputs?|copies"
    r"|produces?|normali[sz]es|acts?|reduces?|contains?|requires?|inverts?|permutes?|initiali[sz]e[sd]?)\b"
    r"|\bобучаем(?:ая|ые|а|ы)(?=\W*$)"  # behind its noun
    r"|\bэто\b|\bне\b|\b(?:ниж|верх)?н?е?треугольн(?:ая|ые)\b|\b\w{2,30}(?:[её]т|ют|ит|ат|ят|ется|ются|ится|атся|ятся)\b|\bрав[енн]\w*"
    r"|\b(?:нужн\w+|нужен|надо|нельзя|можно|достаточно|должн\w+|был\w*|стоил\w*|нет|не ?обязательно|есть|остаётся|остается)\b"
    r"|\b\w{1,30}(?:аны|ана|ано|ены|ена|ено|ован|лась|лись|ался|ила|или|(?<!дет)али|яли)\b"
    r"|\b(?!объ[её]м|систем|этим|всем|другим|своим|таким|одним)\w{2,30}(?:ем|им)\b",  # "решаем", no noun
    re.IGNORECASE,
)
# The small words of prose; a row of keywords has next to none.
SMALL = re.compile(
    r"\b(?:an?|the|of|is|are|it|its|that|which|and|or|to|by|in|on|with|for|as|at|so|we|they|this|than"
    r"|from|into|per|each|every|only|not|instead|и|или|в|во|на|по|с|со|это|не|что|а|для|к|от|до|как|то"
    r"|из|за|у|при|его|её|их|так|чтобы|тогда|поэтому|где|только|вместо|каждый|каждого|каждом)\b"
)
NEGATION = re.compile(
    r"\b(?:not|no|never|without|cannot|nor|neither|не|нет|без|никогда|ни)\b|n['’]t\b", re.IGNORECASE
)
# Negations that deny nothing about the layers.
HARMLESS = re.compile(
    r"\b(?:sign|знак)\b[^,.;]{0,40}?(?:not|n['’]t|не) (?:matter|need|нуж|важ)\w*"
    r"|\bwithout (?:the )?lu|\bбез lu|\bnot only|\bне только|\bno longer|\bnot just|\bno matter|\bне просто|\bnot expensive"
    r"|(?:\bcan ?not|\b(?:must|should|do) not|n['’]t|\bnever|\bнельзя|\bне(?: надо| нужно| стоит| следует)?)"
    r" (?:omit|drop|forget|lose|leave out|опуст|опуска|забы|забудьт|пропус|теря)\w*"
    r"|\bnot square|\bwithout loss|\bnot zero|\bне ноль|\bno other\b|\bnot all\b|\bне все\b",
    re.IGNORECASE,
)
# "Without the absolute value it would be (or is) undefined" praises what is absent; "even without" does not.
WOULD = re.compile(
    r"(?<!even )\bwithout\b[^.;]*(?:\bwould\b|undefined|(?:not|n['’]t) (?:be )?(?:defined|exist))"
    r"|(?<!даже )\bбез\b[^.;]*(?:\bбы\b|\bне (?:определ[её]н|существу))"
)
# What is set aside in "not X but Y", "not X, it is Y", "Y, not X", "не X, а Y", "Y, а не X": only Y
# is claimed, and of X nothing is denied that was asked for.
CONTRAST = re.compile(
    r"(?:\bnot|n['’]t|\bне)\s[^.;:]{1,80}?(?=,? but\b|, (?:it|this|only|а|это|он[аои]?|только|лишь)\b)"
    r"|(?:,|\bbut|\bа|\bно)\s+(?:not|не)\s[^,.;:(]{1,80}"
)
# A denial behind its subject: "the modulus is not needed", "модуль брать не нужно".
REFUSED = re.compile(
    r"(?:(?:\b(?:is|are|was|were) (?:not|never)|\b(?:is|are|was|were)n['’]t) (?:used|needed|required|taken|necessary)|\bunnecessary"
    r"|\b(?:do|does)(?: not|n['’]t) matter|\bне (?:использу|применя|нуж[енн]|треб|важ|бер[уё])\w*)"
    r"(?!,? (?:only|but|только|а)\b)"
)
# What the slide says is not what the writer says ("the slide calls U lower triangular, but …").
QUOTED = re.compile(r"[^,.;]*\b(?:slides?|deck|слайд\w*)\b.*?(?=,|\.|;|\b(?:but|yet|но|хотя)\b|$)")
# A formula in LaTeX as in the deck: \frac{dh_i}{dh_{i-1}}, p_\theta(x), \lvert\det J\rvert.
BRACED = r"\{((?:[^{}]|\{[^{}]*\})*)\}"
REWRITES = tuple(
    (pattern if isinstance(pattern, re.Pattern) else re.compile(pattern, re.IGNORECASE), instead)
    for pattern, instead in (
        (r"\\partial", "∂"),
        ("(?-i:Σ)", "∑"),  # small, Σ is σ
        (UNWRAP, r"\1"),
        (rf"\\[dt]?frac\s*{BRACED}\s*{BRACED}", r" \1/\2 "),
        (r"\\(?:[lr]?vert|mid)\b", "|"),
        (r"\\(?:left|right|bigg?[lr]?|math(?:bf|rm)|boldsymbol|bm)\b|\\(?=[a-z])|[${}]", " "),
        (r"(?<=[pf])(?:_\s*(?:theta|θ|[xz](?=\s*\())|θ)\s*", ""),  # p_θ: p
        (r"(?<=[(∂])\s{1,9}|\s{1,9}(?=\))|(?<=\bd)\s{1,9}(?=[xyzfh]\b)", ""),  # "d z"
    )
)
SENTENCE = re.compile(r"(?<=[.!?;])\s+|\n+|;")
# What turns an opposite round: "instead of a QR decomposition", "не равен следу".
REVERSED = re.compile(
    r"(?:\bnot?|n['’]t|\bnever|\bwithout|\bexcept|\ball but|\binstead of|\brather than|\bunlike|\bне|\bнет|\bбез|\bкроме|\bвместо|\bв отличие от)\s+(?:\w+\s+){0,2}$"
)
NEAR = 30  # characters before a matched word in which a negation denies it


@dataclass(frozen=True)
class Reflection:
    """Concepts ``found``, ``missing`` and ``contradictory``, words for the reader, no mark."""

    question: str
    found: list[str]
    missing: list[str]
    contradictory: list[str]
    message: str
    model_answer: str

    def __str__(self) -> str:
        return self.message

    def _repr_html_(self) -> str:
        head, _, model = self.message.partition("\n\n")
        lines = "<br>".join(html.escape(line) for line in head.splitlines())
        model = "<br>".join(html.escape(line) for line in model.splitlines())
        return (
            '<div style="border-left:4px solid #4a6fa5;padding:.4em .8em">'
            f"<p>{lines}</p><details><summary>Compare with a model answer</summary>"
            f"<p>{model}</p></details></div>"
        )


def _contradicts(pattern: str, sentence: str) -> bool:
    """Whether the opposite is said, and not itself denied ("does not use every batch's mean")."""
    found = re.search(pattern, sentence)
    if not found or NEGATION.search(pattern):  # a pattern with a "not" has seen to that itself
        return found is not None
    return not (REVERSED.search(sentence[: found.start()]) or NEGATION.search(found[0]))


def _blank(pattern: str | re.Pattern, sentence: str) -> str:
    return re.sub(pattern, lambda m: " " * len(m[0]), sentence)


def _matches(concept: Concept, sentence: str) -> str:
    """ "said", "denied" or "" for one concept in one lower-case sentence."""
    if any(_contradicts(pattern, sentence) for pattern in concept.against):
        rest = _blank(QUOTED, sentence)
        return "denied" if rest == sentence else _matches(concept, rest)
    if not all(re.search(need, sentence) for need in concept.needs):
        return ""
    bare = _blank(concept.benign, _blank(HARMLESS, sentence))
    if WOULD.search(sentence):
        bare = _blank(NEGATION, bare)
    for denial in REFUSED.finditer(bare):
        before = sentence[max(0, denial.start() - 2 * NEAR) : denial.start()]
        subject = re.split(r"[,:;(]", before)[-1]
        if re.search(rf"(?:{concept.core})\w*(?:\W+\w+){{0,4}}\W*$", subject):
            return "denied"
    for aside in CONTRAST.finditer(bare):
        start, end = aside.span()
        sentence = sentence[:start] + " " * (end - start) + sentence[end:]
    bare = _blank(CONTRAST, bare)
    spots = [[m.start() for m in re.finditer(need, sentence)] for need in concept.needs]
    if not all(spots):
        return ""
    for denial in NEGATION.finditer(bare):
        after = re.split(r"[,:(]", bare[denial.end() :])[0]
        reach = denial.end() + min(NEAR, len(after))
        if any(denial.end() <= spot <= reach for group in spots for spot in group):
            return "denied"
    return "said"


def reflect(question: str, text: str) -> Reflection:
    """Say which concepts of ``question`` a ``text`` states, misses or contradicts.

    ``question`` is "1", "2" or "3"; ``text`` is English or Russian, up to 10,000 characters
    (more is not read, and said).  Raises TypeError for a text that is not a string, ValueError
    for an unknown question.
    """
    if not isinstance(question, str) or question not in QUESTIONS:
        raise ValueError(f"question: got {question!r}; accepted are '1', '2', '3'")
    if not isinstance(text, str):
        raise TypeError(f"text: got {type(text).__name__}; accepted is a str")
    concepts: dict[str, set[str]] = {"said": set(), "denied": set(), "listed": set()}
    plain = unescape(text[:MAX_CHARS])
    for pattern, instead in REWRITES:
        plain = pattern.sub(instead, plain)
    # One long line is cut as well, so that no pattern runs over more than a paragraph.
    parts = dict.fromkeys(SENTENCE.split(plain.lower()))  # each sentence once
    sentences = [part[:1000] for part in parts if re.search(r"\w", part)]
    for sentence in sentences:
        verdicts = {c.name: _matches(c, sentence) for c in CONCEPTS[question]}
        soup = [*verdicts.values()].count("said") >= 3 and _is_soup(sentence)
        stated = RELATION.search(sentence) and not soup and not _is_list(sentence)
        for name, verdict in verdicts.items():
            if verdict:
                concepts[verdict if stated else "listed"].add(name)
    said, denied, listed = concepts.values()
    names = [c.name for c in CONCEPTS[question]]
    found = [n for n in names if n in said - denied]
    missing = [n for n in names if n not in said | denied]
    contradictory = [n for n in names if n in denied]
    model = "\n".join(MODEL_ANSWERS[question])
    salad = len(listed - said) > len(said) or (
        bool(sentences) and not found and not contradictory and all(map(_is_list, sentences))
    )
    message = _message(text, found, missing, contradictory, salad, model)
    return Reflection(question, found, missing, contradictory, message, model)


def _is_list(sentence: str) -> bool:
    """Keywords in a row: hardly one part between the commas is joined by a verb or an "="."""
    if len(re.findall(r"[^\W\d_]+", sentence)) < 3:
        return False
    parts = sentence.split(",")
    joined = sum(RELATION.search(part) is not None for part in parts)
    return joined == 0 or (len(parts) >= 4 and joined <= len(parts) / 3)


def _is_soup(sentence: str) -> bool:
    """Keywords without commas: many different words, hardly a small one, a verb or an "="."""
    words = re.findall(r"[^\W\d_]{2,}", sentence)
    joints = re.findall("=", sentence) + list({m[0] for m in RELATION.finditer(sentence)} - {"="})
    joints += [small for small in SMALL.findall(sentence) if small not in joints]
    many = len({word for word in words if len(word) >= 3}) >= 5
    return many and len(joints) <= max(2, len(words) / 6) and not DEFINITION.search(sentence)


def _message(text, found, missing, contradictory, salad, model) -> str:
    lines = []
    if not text.strip():
        lines.append("There is nothing here yet. Write two or three sentences of your own.")
    if len(text) > MAX_CHARS:
        lines.append(f"Only the first {MAX_CHARS:,} characters were read.")
    if salad:
        lines.append(
            "This looks like a list of keywords rather than sentences; say how they belong together."
        )
    if found:
        lines.append("You speak of: " + "; ".join(found) + ".")
    if contradictory:
        lines.append(
            "This seems to say the opposite, look again: " + "; ".join(contradictory) + "."
        )
    if needed := [name for name in missing if name != BEYOND]:
        lines.append("Not found in your text: " + "; ".join(needed) + ".")
    if BEYOND in missing:
        lines.append(f"Not in the paper, and worth a word: {BEYOND}.")
    lines.append(
        "I look for words that belong together and cannot judge your reasoning, so there is no "
        "mark. Compare with the model answer and judge for yourself."
    )
    return "\n".join(lines) + "\n\n" + model
