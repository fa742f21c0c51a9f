"""Every exercise: its solution is accepted, and each wrong answer gets the message it deserves.

Below that: whatever a student hands over, `check` answers with a sentence, in bounded time.
"""

import re
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from course import attempt as attempt_module
from course import check, hint, predict, progress, solution
from course.attempt import PATIENCE, Budget, attempt
from course.exercise import Case, Exercise, Mutant, identity, judge, register, registry
from course.judge import judge_layer

NOTEBOOKS = {
    "00_start_here",
    "01_change_of_variables",
    "02_flows_as_models",
    "03_squeeze_and_split",
    "04_actnorm",
    "05_invertible_1x1_conv",
    "06_lu_decomposition",
    "07_coupling",
    "08_glow",
    "09_training",
    "10_experiments",
    "11_questions",
}
EXERCISES = list(registry().values())
MUTANTS = [pytest.param(e, m, id=f"{e.id}-{m.name}") for e in EXERCISES for m in e.mutants]
each = pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.id)


@pytest.fixture(autouse=True)
def _no_file(monkeypatch):
    monkeypatch.setenv("GLOW_COURSE_PROGRESS", "memory")


# Every exercise of the course


@each
def test_the_solution_is_accepted(exercise):
    verdict = judge(exercise, exercise.solution)
    assert verdict.status == "right", verdict.message


@each
def test_the_printed_solution_runs_on_its_own(exercise):
    verdict = judge(exercise, exercise.define(exercise.source()))
    assert verdict.status == "right", verdict.message


@each
def test_the_stub_is_not_done(exercise):
    verdict = judge(exercise, exercise.stub_function())
    if exercise.stub_deserves:
        assert verdict.status == "wrong"
        assert exercise.stub_deserves in verdict.message
    else:
        assert verdict.status == "not done"


@each
def test_the_identity_is_rejected(exercise):
    verdict = judge(exercise, identity)
    assert verdict.status == "wrong"
    assert verdict.message


@pytest.mark.parametrize("exercise, mutant", MUTANTS)
def test_each_mutant_gets_the_message_it_deserves(exercise, mutant):
    verdict = judge(exercise, mutant.fn)
    assert verdict.status == "wrong"
    assert mutant.says or mutant.deserves, "a mutant must say what it deserves"
    assert (mutant.says or mutant.deserves) in verdict.message


@each
def test_an_exercise_is_complete(exercise):
    assert exercise.notebook in NOTEBOOKS
    assert len(exercise.mutants) >= 5
    assert len({m.name for m in exercise.mutants}) == len(exercise.mutants)
    assert len(exercise.hints) >= 2
    assert exercise.cases
    assert exercise.minutes > 0
    assert exercise.difficulty in (1, 2, 3)
    assert exercise.explanation
    assert f"{exercise.name}(" in exercise.stub or f"class {exercise.name}" in exercise.stub


# What `check` says to anything else

FORWARD = "actnorm.forward"


def _raises(error):
    def fn(x, s, b):
        raise error

    return fn


class _Rude(Exception):
    def __str__(self):
        raise RuntimeError("even my message raises")


def _recursion(x, s, b):
    return _recursion(x, s, b)


def _float32(x, s, b):
    return (s * x + b).astype(np.float32)


def _torch(x, s, b):
    return torch.tensor(s * x + b)


def _prints(x, s, b):
    for _ in range(100_000):
        print("noise")


def _nothing_later(x, s, b):
    return s * x + b if len(s) == 3 else None


def _raises_later(x, s, b):
    return s * x + (b if len(s) == 3 else undefined)  # noqa: F821


@pytest.mark.parametrize(
    "fn, sentence",
    [
        (_raises(ValueError("no good")), "raised ValueError: no good (line "),
        (_raises(ValueError("x" * 10_000)), "x…"),
        (_raises(SystemExit(3)), "SystemExit"),
        (_raises(_Rude()), "_Rude"),
        (_raises(KeyboardInterrupt()), "interrupted"),
        (_recursion, "RecursionError"),
        (lambda x: x, "TypeError"),
        (lambda x, s, b: (s * x + b).tolist(), "is a list"),
        (lambda x, s, b: {"y": x}, "is a dict"),
        (lambda x, s, b: "text", "should be made of numbers; it is a str"),
        (lambda x, s, b: object(), "should be made of numbers; it is an object"),
        (lambda x, s, b: (s * x + b, 0), "A comma makes a tuple: return one thing alone."),
        (lambda x, s, b: 1.0, "should have shape (2, 5, 7, 3); it has shape ()"),
        (lambda x, s, b: (s * x + b)[0], "should have shape (2, 5, 7, 3)"),
        (lambda x, s, b: (s * x + b) + 0j, "is complex"),
        (lambda x, s, b: np.full(x.shape, np.nan), "it is nan"),
        (lambda x, s, b: -(s * x + b), "wrong sign"),
        (lambda x, s, b: 35 * (s * x + b), "35 times"),
        (lambda x, s, b: s * x + b + 1e-6, "entries differ"),
        (lambda x, s, b: (s * x + b) * (1 + 1e-8), "should be -1.0859447; it is -1.08594471."),
        (lambda x, s, b: (s * x + b) / np.log(2), "logarithm to base 2?"),
        (lambda x, s, b: (s * x + b) / np.log(10), "logarithm to base 10?"),
        (_float32, "float32"),
        (_torch, "torch tensor"),
        (_nothing_later, "is a `return` missing"),
        (_raises_later, ": it raised NameError"),
        (None, "of type NoneType"),
        (np.zeros(3), "without brackets"),
    ],
    ids=str,
)
def test_check_answers_anything_with_a_sentence(fn, sentence):
    result = check(FORWARD, fn)
    assert result.status == "wrong"
    assert sentence in str(result)
    assert not result and f'Stuck? hint("{FORWARD}")' in str(result)
    assert "Traceback" not in str(result) + result._repr_html_()


@pytest.mark.parametrize("value", [None, ..., NotImplemented, (None, None), (..., ...)], ids=str)
def test_a_place_holder_is_not_done(value):
    assert check(FORWARD, lambda x, s, b: value).status == "not done"


def test_who_is_right_needs_no_hint():
    assert "hint" not in str(check(FORWARD, registry()[FORWARD].solution))


def test_not_implemented_is_not_done():
    assert check(FORWARD, _raises(NotImplementedError())).status == "not done"


def test_the_line_named_is_the_students():
    def fn(x, s, b):
        return np.concatenate([x, s])

    line = fn.__code__.co_firstlineno + 1
    assert f"(line {line}: `return np.concatenate([x, s])`)" in str(check(FORWARD, fn))


def test_the_line_named_is_the_students_in_a_class_too():
    class Mine(registry()["actnorm.broken"].solution):
        def inverse(self, y):
            return y @ self.s[:, None, None]

    line = Mine.inverse.__code__.co_firstlineno + 1
    assert f"(line {line}: `return y @ self.s" in str(check("actnorm.broken", Mine))


def test_prints_are_shown_shortened_and_leave_the_console_alone(capsys):
    result = check(FORWARD, _prints)
    assert "Your function printed:" in str(result)
    assert "more was printed" in str(result)
    assert len(str(result)) < 8_000
    assert capsys.readouterr().out == ""


def _plain_loop(x):
    while True:
        pass


def _swallows_exceptions(x):
    while True:
        try:
            time.sleep(0.001)
        except Exception:
            pass


def _swallows_everything(x):
    while True:
        try:
            pass
        except:  # noqa: E722
            pass


@pytest.mark.parametrize("loop", [_plain_loop, _swallows_exceptions, _swallows_everything])
def test_an_endless_loop_is_stopped(loop):
    assert "had not finished after 0.2 seconds" in attempt(loop, (1,), budget=Budget(0.2)).trouble


def test_an_endless_loop_in_another_thread_is_left_behind():
    stop, outcomes = threading.Event(), []
    worker = threading.Thread(
        target=lambda: outcomes.append(attempt(lambda x: stop.wait(), (1,), budget=Budget(0.2)))
    )
    worker.start()
    worker.join()
    stop.set()
    assert "restart the kernel" in outcomes[0].trouble


def test_in_another_thread_answers_and_errors_are_the_same():
    outcomes = []
    for fn in (lambda x: x + 1, lambda x: x / 0):
        worker = threading.Thread(target=lambda fn=fn: outcomes.append(attempt(fn, (1,))))
        worker.start()
        worker.join()
    assert outcomes[0].value == 2 and "ZeroDivisionError" in outcomes[1].trouble


def test_one_check_has_one_budget_of_time(monkeypatch):
    monkeypatch.setattr(attempt_module, "SECONDS", 5.0)
    monkeypatch.setattr("course.judge.SECONDS", 0.4)

    def slow(x, s, b):
        _compute(0.3)
        return s * x + b

    assert "had not finished after 0.4 seconds" in str(check(FORWARD, slow))


def _compute(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_waiting_for_the_machine_does_not_count_as_computing():
    outcome = attempt(lambda: time.sleep(0.5) or 7, (), budget=Budget(0.2))
    assert outcome.value == 7, outcome.trouble


def test_waiting_for_ever_is_stopped_too():
    start = time.monotonic()
    outcome = attempt(threading.Event().wait, (), budget=Budget(0.1))
    assert "had not finished" in outcome.trouble
    assert time.monotonic() - start >= PATIENCE * 0.1


@pytest.mark.parametrize("place", ["x", "s", "b"])
def test_a_changed_argument_is_named(place):
    def fn(x, s, b):
        y = s * x + b
        {"x": x, "s": s, "b": b}[place][..., 0] += 1
        return y

    assert f"changed its argument {place} in place" in str(check(FORWARD, fn))


def test_a_list_changed_is_a_changed_argument():
    outcome = attempt(lambda fs: fs.reverse(), ([identity, _raises],), ("layers",))
    assert "changed its argument layers in place" in outcome.trouble
    assert "list(layers)" in outcome.trouble
    outcome = attempt(lambda sizes: sizes.append(sizes.pop() + 1), ([3, 4],), ("sizes",))
    assert "changed its argument sizes in place" in outcome.trouble


@pytest.mark.parametrize(
    "id, place, fn",
    [
        ("glow.log_prob", "logdets", lambda z, logdets: logdets["top"].__iadd__(1)),
        ("glow.rewind", "layers", lambda z, layers: layers.reverse() or z),
    ],
)
def test_a_change_inside_a_dict_or_a_list_is_noticed(id, place, fn):
    assert f"changed its argument {place} in place" in str(check(id, fn))


def test_an_array_of_objects_that_are_numbers_is_read_as_numbers():
    item = registry()[FORWARD]
    assert check(FORWARD, lambda *a: item.solution(*a).astype(object))
    strange = check(FORWARD, lambda *a: np.full(a[0].shape, None))
    assert "should be made of numbers" in str(strange)


def test_no_constant_factor_is_named_where_there_is_none():
    def skips(batches):
        return np.concatenate([b for b in batches if not np.isnan(b).any()]).mean()

    assert "the mean should be nan; it is 4." in str(check("training.average", skips))


def test_booleans_are_called_so():
    said = str(check("experiments.strange", lambda known, new, share: new > -9))
    assert "strange[0] should be False; it is True" in said


def test_the_callers_arrays_survive():
    x = np.ones(3)
    attempt(lambda a: a.fill(7), (x,))
    assert (x == 1).all()


def test_a_stub_prints_the_same_whatever_was_done_before():
    stub = registry()[FORWARD].stub_function()
    before = check(FORWARD, stub)
    check(FORWARD, lambda x, s, b: x)
    check(FORWARD, registry()[FORWARD].solution)
    hint(FORWARD)
    after = check(FORWARD, stub)
    assert (str(before), before._repr_html_()) == (str(after), after._repr_html_())


def test_unknown_and_impossible_ids():
    assert "Did you mean actnorm.forward" in str(check("actnorm.forwrd", identity))
    assert "progress() lists them all" in str(hint("zzzz"))
    assert "of type int" in str(solution(3))
    assert "of type function" in str(check(identity, identity))
    assert "of type NoneType" in str(check(FORWARD))
    for id in (None, 3, ["change.humps"]):
        assert f"of type {type(id).__name__}" in str(predict(id))


def test_hints_come_one_by_one_and_by_number(monkeypatch, tmp_path):
    monkeypatch.setenv("GLOW_COURSE_PROGRESS", str(tmp_path / "p.json"))
    item = registry()[FORWARD]
    assert item.hints[0] in str(hint(FORWARD))
    assert item.hints[1] in str(hint(FORWARD))
    assert item.hints[-1] in str(hint(FORWARD))  # the last is repeated
    assert item.hints[0] in str(hint(FORWARD, 1))
    for number in (0, 99, -1, 1.0, True, "1"):
        assert "has hints 1 to" in str(hint(FORWARD, number)), number


def test_solution_shows_the_source():
    assert "return s * x + b" in str(solution(FORWARD))
    assert "<pre>" in solution(FORWARD)._repr_html_()


def test_html_is_escaped():
    def fn(x, s, b):
        raise ValueError("<script>alert(1)</script>")

    assert "<script>" not in check(FORWARD, fn)._repr_html_()


def test_right_is_true_and_recorded(monkeypatch, tmp_path):
    monkeypatch.setenv("GLOW_COURSE_PROGRESS", str(tmp_path / "p.json"))
    assert not check(FORWARD, registry()[FORWARD].stub_function())
    assert "open" in {row[3] for row in progress().rows if row[1] == FORWARD}
    check(FORWARD, identity)
    assert "tried" in {row[3] for row in progress().rows if row[1] == FORWARD}
    assert check(FORWARD, registry()[FORWARD].solution)
    check(FORWARD, identity)
    assert [row[3:] for row in progress().rows if row[1] == FORWARD] == [("solved", 3)]


def test_an_untouched_broken_layer_is_no_attempt(monkeypatch, tmp_path):
    monkeypatch.setenv("GLOW_COURSE_PROGRESS", str(tmp_path / "p.json"))
    broken = registry()["actnorm.broken"]
    assert not check(broken.id, broken.stub_function())
    assert [row[3:] for row in progress().rows if row[1] == broken.id] == [("open", 0)]
    assert not check(broken.id, identity)
    assert [row[3:] for row in progress().rows if row[1] == broken.id] == [("tried", 1)]


def test_a_mended_class_is_recorded(monkeypatch, tmp_path):
    monkeypatch.setenv("GLOW_COURSE_PROGRESS", str(tmp_path / "p.json"))
    broken = registry()["actnorm.broken"]
    assert check(broken.id, broken.solution)
    assert [row[3:] for row in progress().rows if row[1] == broken.id] == [("solved", 1)]


class HoldsItself:
    def __getattr__(self, name):
        raise RuntimeError(name)

    def __call__(self, *_):
        return None


HoldsItself.me = HoldsItself


@pytest.mark.parametrize("odd", [HoldsItself, HoldsItself()], ids=["class", "object"])
def test_odd_answers_are_judged_too(odd):
    """`check` never raises, whatever stands in a class or an object answers to."""
    assert check("actnorm.broken", odd).status == "wrong"


@pytest.mark.parametrize("item", [e for e in EXERCISES if e.stub_deserves], ids=lambda e: e.id)
def test_the_faults_of_a_broken_layer_are_named_once_a_line_was_changed(item):
    told = judge(item, item.stub_function()).message
    found = re.match("Two|Three", told)
    head = f"{found[0]} faults as it stands. Find them" if found else "It fails as it stands. Find"
    # As in a notebook, where it stands on other lines of another file.
    untouched = str(check(item.id, item.define("\n\n\n" + item.stub)))
    assert head in untouched and told not in untouched
    touched = re.sub(r"(?m)^( +)return ", r"\1print(end=''); return ", item.stub)
    assert told in str(check(item.id, item.define(touched)))


def test_an_id_is_used_once():
    item = registry()[FORWARD]

    def other(x, s, b):
        return x

    with pytest.raises(ValueError, match="actnorm.forward.*twice"):
        register(Exercise(**{**vars(item), "solution": other}))


# The judge of whole layers


def _layer_exercise():
    from reference import ActNorm

    rng = np.random.default_rng(5)
    x, s = rng.normal(size=(2, 3, 2, 3)), np.array([-0.5, 2.0, 1.7])

    def layer(x, s):
        n, h, w, c = x.shape
        return s * x, np.full(n, h * w * np.log(np.abs(s)).sum())

    return Exercise(
        id="test.layer",
        notebook="04_actnorm",
        title="",
        minutes=1,
        difficulty=1,
        stub="",
        solution=layer,
        truth=lambda x, s: ActNorm(s, 0 * s).forward(x),
        returns=("y", "logdet"),
        cases=(Case("a small batch", (x, s)),),
        hints=("", ""),
        judge=judge_layer,
        mutants=(Mutant("zero", lambda x, s: (s * x, np.zeros(len(x))), "It is not zero."),),
    )


def test_a_wrong_number_beside_a_function_as_first_argument_gets_a_sentence():
    verdict = judge(registry()["change.logdet"], lambda f, x, h: 7.0)
    assert verdict.status == "wrong"
    assert "log|det J| should be" in verdict.message


def test_the_factor_of_the_one_wrong_part_is_named():
    item = registry()["change.composition"]

    def minus(x, layers):
        z, logdet = item.solution(x, layers)
        return z, -logdet

    def half(x, layers):
        z, logdet = item.solution(x, layers)
        return z, logdet / 2

    assert judge(item, minus).message == "logdet: every value has the wrong sign."
    assert "logdet: every value is 0.5 times" in judge(item, half).message
    three = judge(item, lambda x, layers: (*item.solution(x, layers), 0.0))
    assert "should return a tuple (z, logdet); it returned a tuple of 3." in three.message


@pytest.mark.parametrize("answer", ["yes", True])
def test_words_and_truth_values_must_be_the_same(answer):
    item = replace(registry()[FORWARD], cases=(Case("one", (2.0,)),), truth=lambda x: answer)
    assert judge(item, lambda x: answer).status == "right"
    for wrong in ("no", 1):
        assert (
            f"should be {answer!r}; it is {wrong!r}." in judge(item, lambda x, w=wrong: w).message
        )


@pytest.mark.parametrize("missing", [None, ...])
def test_judge_layer_says_that_a_part_is_missing(missing):
    verdict = judge(_layer_exercise(), lambda x, s: (s * x, missing))
    assert f"logdet is {missing}: that part is still missing" in verdict.message


def test_judge_layer_does_not_speak_of_batches_only_it_makes():
    def fits_three_only(x, s):  # s has 3 numbers, and by chance there are 3 examples
        return s * x, np.log(np.abs(s)) * x[:, 0, 0, 0]

    item = _layer_exercise()
    x, s = item.cases[0].args
    item = replace(item, cases=(Case("three images", (np.concatenate([x, x[:1]]), s)),))
    message = judge(item, fits_three_only).message
    assert message.startswith("For three images: logdet[0] should be "), message


def test_judge_layer_lets_the_reference_name_the_mistake():
    item = _layer_exercise()
    assert judge(item, item.solution).status == "right"
    assert judge(item, item.mutants[0].fn).message == "It is not zero."

    def forgot(x, s):
        return s * x, np.full(len(x), np.log(np.abs(s)).sum())

    verdict = judge(item, forgot)
    assert verdict.status == "wrong"
    assert "h" in verdict.message and "w" in verdict.message and "6" in verdict.message
    assert "should be" not in verdict.message  # not the bare comparison of numbers
    wrong_y = judge(item, lambda x, s: (x, np.zeros(len(x))))
    assert "y[0, 0, 0, 0] should be" in wrong_y.message
    assert "a tuple (y, logdet)" in judge(item, lambda x, s: s * x).message
