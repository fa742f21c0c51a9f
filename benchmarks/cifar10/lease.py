"""The CIFAR-10 runs on a machine that starts bare, takes short commands and is soon given back.

Here, where the data are:

    python benchmarks/cifar10/lease.py pack --from PACKED     two halves in .lease/, and the limits
    python benchmarks/cifar10/lease.py plan --lease 15        the rows of commands, with minutes

There, in a copy of this repository (each command is one call, and needs no second one to end):

    lease.py unpack .lease/1            originals and decoded pixels, checked; again with .lease/2
    lease.py start NAME "a10" "sampling"    runs of run.py one after the other, detached
    lease.py start NAME "a10 || a10 --name second -- --lr 3e-4"    the second if the first fails
    lease.py wait NAME --seconds 540 --out FOLDER    until they end, or the seconds are over;
                                        meanwhile, once a minute, and at the end:
    lease.py collect --out FOLDER       results, logs and pictures, small enough to travel

Everything there lies in one folder outside the repository (--work).  A run that is stopped by the
clock has saved itself and goes on with the same `start`.  Only the standard library is needed
here, and there what glowlite needs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORK = Path(tempfile.gettempdir()) / "glow-lease"
CARRY = ROOT / ".lease"
MIB = 2**20
#: Of one call: the working tree with what is carried; one file that comes back.
CALL, BACK = 64 * MIB, 16 * MIB
COLLECT_SECONDS = 60
HALVES = (
    ("data_batch_1", "data_batch_2", "data_batch_3"),
    ("data_batch_4", "data_batch_5", "test_batch"),
)
SUFFIX, UNPACKER = ".cfx", "cfx.py"
MANIFEST = "manifest.json"
OR_ELSE = " || "
MISSING, FAILED = "not all there yet", "FAILED: "


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree_bytes(root: Path) -> int:
    """What a copy of the repository weighs: tracked files, and untracked ones not ignored."""
    asked = ["git", "-C", str(root), "ls-files", "-z", "-co", "--exclude-standard"]
    names = subprocess.run(asked, capture_output=True, check=True).stdout.split(b"\0")
    paths = [root / os.fsdecode(name) for name in names if name]
    return sum(path.stat().st_size for path in paths if path.is_file())


def pack(source: Path, carry: Path, root: Path = ROOT, limit: int = CALL) -> list[Path]:
    """Copy the packed files into carry/1 and carry/2, with what unpacks them and the commit.

    The folder ignores itself, so that nothing in it is ever committed.

    Raises FileNotFoundError for a missing file, ValueError if a half and the tree exceed `limit`.
    """
    asked = ["git", "-C", str(root), "rev-parse", "HEAD"]
    commit = subprocess.run(asked, capture_output=True, text=True).stdout.strip()
    changed = ["git", "-C", str(root), "status", "--porcelain", "--", "glowlite", "benchmarks"]
    if subprocess.run(changed, capture_output=True, text=True).stdout.strip():
        commit += " with changes"
    carry.mkdir(parents=True, exist_ok=True)
    (carry / ".gitignore").write_text("*\n")
    made, tree = [], tree_bytes(root)
    for number, names in enumerate(HALVES, 1):
        half = carry / str(number)
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir()
        for name in (UNPACKER, *(name + SUFFIX for name in names)):
            shutil.copyfile(source / name, half / name)
        sums = {path.name: sha256(path) for path in sorted(half.iterdir())}
        content = {"commit": commit, "files": sums, "batches": names}
        (half / MANIFEST).write_text(json.dumps(content, indent=1) + "\n")
        size = tree + sum(path.stat().st_size for path in half.iterdir())
        if size > limit:
            raise ValueError(
                f"{half.name}: {size / MIB:.1f} MiB with the repository's {tree / MIB:.1f}; "
                f"a call takes {limit / MIB:.0f}"
            )
        print(f"{half}: {size / MIB:.1f} MiB with the repository, of {limit / MIB:.0f}")
        made.append(half)
    return made


def unpack(half: Path, work: Path) -> list[str]:
    """Check a half, and write its original batches to work/data; -> their names.

    Once both halves are there the loader decodes all of them, which checks the published sums.

    Raises ValueError for a file that is damaged or missing.
    """
    content = json.loads((half / MANIFEST).read_text())
    for name, known in content["files"].items():
        path = half / name
        if not path.is_file() or sha256(path) != known:
            raise ValueError(f"{path} is missing or damaged; carry it again")
    data = work / "data" / "cifar-10-batches-py"
    data.mkdir(parents=True, exist_ok=True)
    (work / "commit").write_text(content["commit"])
    command = [sys.executable, str(half / UNPACKER), "unpack", str(half), str(data)]

    def one(name: str) -> str:
        done = subprocess.run([*command, name], capture_output=True, text=True)
        if done.returncode:
            raise ValueError(f"{name} could not be unpacked: {done.stderr.strip()[-300:]}")
        return name

    with ThreadPoolExecutor() as pool:
        return list(pool.map(one, content["batches"]))


def decode(work: Path) -> str:
    """Decode what is complete into work/cache, checking the published sums -> what there is."""
    from glowlite.data import DataError, load

    try:
        sets = [
            load("cifar10", split, data_dir=work / "data", cache_dir=work / "cache")
            for split in ("fit", "valid", "test")
        ]
    except DataError as error:
        return f"{MISSING}: {error}"
    return ", ".join(f"{s.split} {len(s):,}" for s in sets)


def start(name: str, runs: list[str], work: Path, seconds: int) -> int:
    """Launch the runs one after the other, detached, from a copy of the code -> the process.

    They end with their work or when the seconds are over: a training run then saves itself.
    "one || other": the other where the one failed.

    Raises RuntimeError if a job of that name is running.
    """
    job = work / "jobs" / name
    if runs_still(job):
        raise RuntimeError(f"{name} is running; wait for it")
    job.mkdir(parents=True, exist_ok=True)
    (job / "exit").unlink(missing_ok=True)
    code = job / "code"  # the copy a call brought may change under a run, this one does not
    shutil.rmtree(code, ignore_errors=True)
    for folder in ("glowlite", "benchmarks"):
        skip = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, code / folder, ignore=skip)
    where = ["--data-dir", "data", "--cache-dir", "cache", "--runs", "runs", "--results", "results"]
    where = [word if word.startswith("--") else str(work / word) for word in where]

    def line(run: str) -> str:
        before, dashes, after = run.partition(" -- ")
        words = [sys.executable, "-u", "-m", "benchmarks.cifar10.run", *shlex.split(before)]
        return shlex.join(words + where) + (f" -- {after}" if dashes else "")

    # A failed run does not stop the next, and is told by name; the time limit stops them all.
    lines = ["trap 'exit 143' TERM"]
    for run in runs:
        either = " || ".join(map(line, run.split(OR_ELSE)))
        lines.append(f"{{ {either}; }} || {{ echo {shlex.quote(FAILED + run)}; failed=1; }}")
    lines.append("exit ${failed:-0}")
    script = job / "run.sh"
    script.write_text("\n".join(lines) + "\n")
    limited = shlex.join(["timeout", "--kill-after=45", str(seconds), "sh", str(script)])
    commit = work / "commit"
    # Packages carried as wheels, the peers' say, are in the PYTHONPATH there is.
    path = os.pathsep.join(filter(None, [str(code), os.environ.get("PYTHONPATH")]))
    environment = dict(os.environ, PYTHONPATH=path, PYTHONUNBUFFERED="1", MPLBACKEND="Agg")
    if commit.exists():
        environment["GLOWLITE_COMMIT"] = commit.read_text()
    ended = shlex.quote(str(job / "exit"))
    with open(job / "log", "ab") as log:
        process = subprocess.Popen(
            ["sh", "-c", f"{limited}; echo $? > {ended}.part && mv {ended}.part {ended}"],
            cwd=work, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
    (job / "pid").write_text(str(process.pid))
    return process.pid


def runs_still(job: Path) -> bool:
    """Whether a job is at work: one that was killed has left no code, and is no longer there."""
    if (job / "exit").exists() or not (job / "pid").exists():
        return False
    pid = int((job / "pid").read_text())
    try:
        os.kill(pid, 0)
        # A process 1 that is no init leaves the dead in the list, as zombies.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait(
    name: str, work: Path, seconds: float, lines: int = 40, out: Path | None = None
) -> int | None:
    """Wait for a job's end, or so many seconds; print the end of its log -> its code, or None.

    What there is by then lies in `out`, and once a minute before: a call may be cut short.

    Raises RuntimeError at once where there is no such job: minutes of a lease are dear.
    """
    job = work / "jobs" / name
    if not (job / "log").exists():
        raise RuntimeError(f"no job {name} in {work}: another machine, or it was not started")
    began = collected = time.monotonic()
    while runs_still(job) and time.monotonic() < began + seconds:
        time.sleep(0.5)
        if out and time.monotonic() > collected + COLLECT_SECONDS:
            collect(out, work)
            collected = time.monotonic()
    text = (job / "log").read_text(errors="replace").replace("\r", "\n")
    shown = [line for line in text.splitlines() if line.strip()]
    earlier = [line for line in shown[:-lines] if line.startswith(FAILED)]
    print("\n".join(earlier + shown[-lines:]))
    code = (job / "exit").read_text().strip() if (job / "exit").exists() else ""
    told = "still running" if runs_still(job) else "was killed; the same start goes on with it"
    print(f"{name}: " + (f"ended with {code}" if code else told), flush=True)
    if out:
        collect(out, work)
    return int(code) if code else None


def collect(out: Path, work: Path, limit: int = BACK) -> list[Path]:
    """Results, logs, and each run's curves, settings and last samples in one archive; and averaged
    weights where they are small enough to travel.

    Raises ValueError if the archive is larger than `limit`.
    """
    out.mkdir(parents=True, exist_ok=True)
    archive, unfinished = out / "results.tar.gz", out / "results.part"
    with tarfile.open(unfinished, "w:gz") as file:
        for path in sorted((work / "results").glob("*")):
            file.add(path, path.name)
        for path in sorted((work / "jobs").glob("*/log")):
            file.add(path, f"{path.parent.name}.log")
        for run in sorted((work / "runs").glob("*")):
            last = sorted((run / "samples").glob("*.png"))[-1:]
            for path in [run / "config.json", run / "metrics.jsonl", run / "curve.png", *last]:
                if path.exists():
                    file.add(path, f"runs/{run.name}/{path.name}")
    if unfinished.stat().st_size > limit:
        raise ValueError(f"{archive.name} is {unfinished.stat().st_size / MIB:.1f} MiB, too large")
    os.replace(unfinished, archive)
    made = [archive]
    for weights in sorted((work / "runs").glob("*/ema.safetensors"))[:6]:
        if weights.stat().st_size <= limit:
            made.append(out / f"{weights.parent.name}.safetensors")
            shutil.copyfile(weights, made[-1])
        else:
            print(f"{weights.parent.name}: weights of {weights.stat().st_size / MIB:.0f} MiB stay")
    return made


# -- the plan ----------------------------------------------------------------------------------

Call = tuple[float, str, str]


THERE = "python3 benchmarks/cifar10/lease.py"
BRING = '--out "$OUT"'
#: Minutes: one call at most, a machine's start with the first half, and how long a lease is.
LONGEST, BEGIN, LEASE = 9.75, 2.5, 15.0
#: Minutes of a run that are not training: compiling, the test images, the files.
BESIDE = 1.5
#: A run with its evaluations and files, on drawn faces, then a step in every way of running it, all
#: of it small: what breaks on a GPU is seen while most of the lease is left.
REHEARSE = "; ".join(
    f"timeout {seconds} python3 -u -m benchmarks.cifar10.run {run} --name rehearsal-{n} --rehearse"
    f' --runs /tmp/try --results "$OUT" --cache-dir /tmp/try || echo "REHEARSAL {n} FAILED: $?"'
    for n, (seconds, run) in enumerate(((130, "a10"), (45, "throughput --batches 16")), 1)
)


def _calls(
    name: str, *runs: str, minutes: float, first: str = "", begin: float = BEGIN
) -> list[Call]:
    """The calls of one lease of so many minutes: (minutes, the half that is carried, the command).

    The first has the machine's start in it, and what is to be done `first`, and takes `begin`
    minutes; the second begins the runs, and the others wait for them.
    """
    left = minutes - begin
    seconds = 60 * (left - 1)  # the runs end a minute before, and are brought
    start = f"{THERE} start {name} {shlex.join(runs)} --seconds {seconds:.0f}"
    calls = [(begin, "1", f"{THERE} unpack .lease/1" + (f" && {{ {first}; }}" if first else ""))]
    count = math.ceil(left / LONGEST)
    each = left / count
    wait = f"{THERE} wait {name} {BRING} --seconds {60 * each - 30:.0f}"
    calls.append((each, "2", f"{THERE} unpack .lease/2 && {start} && {wait}"))
    return calls + [(each, "", wait)] * (count - 1)


def _training(minutes: float, runs: int = 1, beside: float = BESIDE, most: float = 99) -> str:
    """The option of each of several equal runs in so many minutes: whole minutes or halves."""
    return f"--minutes {min(most, math.floor(2 * (minutes / runs - beside)) / 2):g}"


def plans(lease: float = LEASE) -> dict[str, list[Call]]:
    """What to do with each lease, the most useful first.  Minutes are estimates.

    What is left of a lease after its rehearsal is too short for another: then the first alone.

    Raises ValueError for a lease too short for a start, the data and a run.
    """
    if not 9 <= lease <= 60:
        raise ValueError(f"a lease of {lease:g} minutes; a plan is made for 9 to 60")
    minutes, again = 0.95 * lease, lease < 12
    begin = BEGIN if again else BEGIN + 2.5
    whole = minutes - BEGIN - 1.5
    first = _training(minutes - begin, beside=BESIDE + 3, most=10)
    # Without what may have made a run fail: a step too large, a graph or compiled code that this
    # machine does not like, an optimiser that no GPU has run yet.  Short, for time was lost.
    plain = "--save-minutes 1 --optimizer adam --lr 3e-4 --no-cuda-graph --no-compile"
    careful = f"a10 --name careful --minutes 2 -- {plain}"
    long = "a25" if whole > 15 else "a10"

    def tune(name: str, *more: str) -> str:
        return f"a10 --name {name} {_training(whole, 4)} -- --no-test " + " ".join(more)

    def equal(name: str, *runs: str, most: float) -> list[Call]:
        """Runs of the same minutes."""
        each = _training(whole, len(runs), most=most)
        return _calls(name, *(f"{run} {each}" for run in runs), minutes=minutes)

    def figure3(coupling: str) -> list[Call]:
        runs = (f"figure3-{coupling}-{order}" for order in ("reverse", "shuffle", "lu"))
        return equal(coupling, *(f"{run} --name lease-{run}" for run in runs), most=4)

    one = [
        f"a10 --name first {first} -- --save-minutes 1{OR_ELSE}{careful}",
        "throughput --name throughput-first --batches 512",
        "verify --of runs/careful-seed0 || verify --of runs/first-seed0", "sampling",
        "memory --name memory-first",
    ]  # fmt: skip
    if lease >= 20:
        one.append("small --name small-first --minutes 3")
    title = "what is left of the first" if again else "if there is one only: a rehearsal"
    found = {
        f"1 {title}, track A, speed, Jacobian, memory": _calls(
            "one", *one, minutes=minutes, first="" if again else REHEARSE, begin=begin
        )
    }
    return found if again else found | {
        "2 which settings learn, and what fits": _calls(
            "tune", tune("lr2e-3", "--lr", "2e-3"), tune("lr8e-3", "--lr", "8e-3"),
            tune("adam", "--optimizer", "adam", "--lr", "2e-3"), "throughput", "memory",
            minutes=minutes,
        ),
        "3 track A, as long as a lease is": equal("a", f"{long} --name a-long", most=25),
        "4 track B, as long as a lease is": equal("b", "b25 --name b-long", most=25),
        "5 figure 3, affine": figure3("affine"),
        "6 figure 3, additive": figure3("additive"),
        "7 RealNVP beside Glow": equal(
            "r", "a10 --name beside-realnvp", "realnvp-10 --name realnvp", most=10
        ),
    }  # fmt: skip


def plan(lease: float = LEASE) -> str:
    """Every lease as a row of calls: minutes, what to carry, the command."""
    lines = ["Here, first: python benchmarks/cifar10/lease.py pack --from PACKED", ""]
    for name, calls in plans(lease).items():
        lines.append(f"{name} ({sum(minutes for minutes, _, _ in calls):.4g} minutes)")
        for minutes, half, command in calls:
            carried = f"carry .lease/{half}" if half else "carry nothing"
            lines += [f"  {minutes:.3g} min, {carried}:", f"    {command}"]
        lines.append("")
    lines.append("Each call follows the last within seconds. What comes back is what lies in the")
    lines.append("folder that $OUT names there; it is unpacked here with")
    lines.append("  tar -xzf results.tar.gz -C results/cifar10")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    made = {name: verbs.add_parser(name) for name in ("pack", "unpack", "start", "wait", "collect")}
    planned = verbs.add_parser("plan")
    planned.add_argument("--lease", type=float, default=LEASE, help="minutes of a lease: 9 to 60")
    made["pack"].add_argument("--from", dest="source", type=Path, required=True)
    made["pack"].add_argument("--into", dest="carry", type=Path, default=CARRY)
    made["unpack"].add_argument("half", type=Path)
    made["start"].add_argument("name")
    made["start"].add_argument("runs", nargs="+", help="arguments of run.py, each in quotes")
    made["start"].add_argument("--seconds", type=int, default=1500)
    made["wait"].add_argument("name")
    made["wait"].add_argument("--seconds", type=float, default=540)
    made["wait"].add_argument("--out", type=Path)
    made["collect"].add_argument("--out", type=Path, required=True)
    for name in ("unpack", "start", "wait", "collect"):
        made[name].add_argument("--work", type=Path, default=WORK)
    options = parser.parse_args(arguments)
    if options.verb == "pack":
        pack(options.source, options.carry)
    elif options.verb == "unpack":
        print("unpacked", ", ".join(unpack(options.half, options.work)))
        sys.path.insert(0, str(ROOT))
        there = decode(options.work)
        print(there, flush=True)
        last = (options.half / (HALVES[1][-1] + SUFFIX)).exists()
        return int(last and there.startswith(MISSING))  # the first half went to another machine
    elif options.verb == "start":
        print("started, process", start(options.name, options.runs, options.work, options.seconds))
    elif options.verb == "wait":
        return wait(options.name, options.work, options.seconds, out=options.out) or 0
    elif options.verb == "collect":
        for path in collect(options.out, options.work):
            print(f"{path.name}: {path.stat().st_size / MIB:.2f} MiB")
    else:
        print(plan(options.lease))
    return 0


if __name__ == "__main__":
    sys.exit(main())
