# Runs `code` on the tests of a LiveCodeBench problem: `public`, `private` and `function` stand before it. See code.rs.
import base64
import contextlib
import io
import json
import pickle
import sys
import zlib

PRELUDE = "from typing import *\nfrom collections import *\nfrom itertools import *\nfrom functools import *\nfrom heapq import *\nfrom bisect import *\nimport math, re, string, sys\n"


def cases(text):
    # Private cases are JSON, pickled as one text, compressed.
    try:
        return json.loads(text)
    except ValueError:
        return json.loads(pickle.loads(zlib.decompress(base64.b64decode(text))))


def called(program, test):
    space = {"__name__": "answer"}
    exec(program, space)
    owner = space["Solution"]() if "Solution" in space else None
    run = getattr(owner, function) if owner else space[function]
    given = [json.loads(line) for line in test["input"].split("\n") if line.strip()]
    assert json.loads(json.dumps(run(*given))) == json.loads(test["output"])


def piped(program, test):
    said = io.StringIO()
    sys.stdin = io.TextIOWrapper(io.BytesIO(test["input"].encode()))
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        exec(program, {"__name__": "__main__"})
    want, got = (text.strip().split("\n") for text in (test["output"], said.getvalue()))
    assert [line.split() for line in got] == [line.split() for line in want]


program = compile(PRELUDE + code, "answer", "exec")
for test in cases(public) + cases(private):
    (called if test["testtype"] == "functional" else piped)(program, test)
