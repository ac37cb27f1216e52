# Runs the program `code` on `tests`, a list of {input, output, testtype}; `function` names what functional tests call. See livecodebench.rs.
# As the data set's own harness: every test has six seconds, what is printed is compared line by line, numbers as numbers.
import contextlib
import decimal
import io
import json
import os
import signal
import sys
import tempfile

SECONDS = 6
PRELUDE = "from typing import *\nfrom collections import *\nfrom itertools import *\nfrom functools import *\nfrom heapq import *\nfrom bisect import *\nimport math, re, string, sys\n"


class Printed(io.BytesIO):
    """What a program prints, kept though the program closes it."""

    def close(self):
        pass


@contextlib.contextmanager
def printing():
    printed = Printed()
    sys.stdout = io.TextIOWrapper(printed, encoding="utf-8", write_through=True)
    try:
        yield printed
    finally:
        sys.stdout = sys.__stdout__


def called(program, test):
    with printing():
        space = {"__name__": "answer"}
        exec(program, space)
        owner = space["Solution"]() if "Solution" in space else None
        run = getattr(owner, function) if owner else space[function]
        given = [json.loads(line) for line in test["input"].split("\n") if line.strip()]
        answer = run(*given)
    # By JSON a tuple is a list.
    assert json.loads(json.dumps(answer)) == json.loads(test["output"])


def piped(program, test):
    # A file in the place of the standard input: programs read it in many ways, and some close it.
    null = os.open(os.devnull, os.O_RDONLY)
    if null != 0:
        os.dup2(null, 0)
        os.close(null)
    with tempfile.TemporaryFile() as file:
        file.write(test["input"].encode())
        file.seek(0)
        os.dup2(file.fileno(), 0)
    sys.stdin = open(0, encoding="utf-8", closefd=False)
    with printing() as printed, contextlib.suppress(SystemExit):
        exec(program, {"__name__": "__main__"})
    got = printed.getvalue().decode("utf-8", "replace")
    got, want = ([line.strip() for line in text.strip().split("\n")] for text in (got, test["output"]))
    assert len(got) == len(want)
    assert all(same(*pair) for pair in zip(got, want))


def same(got, want):
    if got == want or got.split() == want.split():
        return True
    try:
        return [decimal.Decimal(word) for word in got.split()] == [decimal.Decimal(word) for word in want.split()]
    except decimal.InvalidOperation:
        return False


def late(*_):
    raise TimeoutError


signal.signal(signal.SIGALRM, late)
program = compile(PRELUDE + code, "answer", "exec")
for test in tests:
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    (called if test["testtype"] == "functional" else piped)(program, test)
    signal.setitimer(signal.ITIMER_REAL, 0)
