"""Our grader beside Math-Verify on the pairs of golden/grader.tsv: counts by class, and every pair on which the two differ, judged.

Run:    python benchmarks/grader/compare.py [--ask]
Writes: benchmarks/record/grader.md and benchmarks/record/grader-differences.tsv
Needs:  cargo; with --ask also math-verify 0.9.0, which is then asked again (otherwise its recorded answers count).

Which of the two is right is known from how a pair was made (golden/grader.py), so each difference is judged without asking a third.
"""

import argparse
import collections
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]


def ours(pairs: list[list[str]]) -> list[bool]:
    command = ["cargo", "run", "--quiet", "--release", "-p", "edgethink-grader", "--example", "judge"]
    text = "".join(f"{got}\t{want}\n" for _, got, want, _, _ in pairs)
    said = subprocess.run(command, cwd=ROOT, input=text, capture_output=True, text=True, check=True).stdout.split()
    assert len(said) == len(pairs), "a verdict for each pair"
    return [word == "1" for word in said]


def theirs(pairs: list[list[str]], ask: bool) -> list[bool | None]:
    if not ask:
        return [None if said == "-" else said == "1" for *_, said in pairs]
    from math_verify import parse, verify

    def read(text: str) -> list:
        return parse(f"${text}$", parsing_timeout=None)

    def one(kind: str, got: str, want: str) -> bool | None:
        return None if kind in ("text", "choice") else bool(verify(read(want), read(got), timeout_seconds=None))

    return [one(kind, got, want) for kind, got, want, _, _ in pairs]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--ask", action="store_true", help="ask Math-Verify again")
    args = options.parse_args()
    lines = (ROOT / "golden/grader.tsv").read_text().splitlines()[1:]
    pairs = [line.split("\t") for line in lines]
    verdicts = list(zip(pairs, ours(pairs), theirs(pairs, args.ask)))
    classes: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    differences = []
    for (kind, got, want, same, _), we, they in verdicts:
        right = same == "1"
        count = classes[kind]
        count["pairs"] += 1
        count["our false positives"] += we and not right
        count["our misses"] += right and not we
        if they is None:
            count["not asked"] += 1
            continue
        count["its false positives"] += they and not right
        count["its misses"] += right and not they
        if we != they:
            who = "ours" if we == right else "Math-Verify"
            differences.append([kind, got, want, "same" if right else "different", who])
    record = ROOT / "benchmarks/record"
    header = ["class", "pairs", "our false positives", "our misses", "its false positives", "its misses", "not asked"]
    total = sum(classes.values(), collections.Counter())
    rows = [[kind, *(count[name] for name in header[1:])] for kind, count in sorted(classes.items())]
    rows.append(["**all**", *(total[name] for name in header[1:])])
    told = collections.Counter(who for *_, who in differences)
    text = "# The grader beside Math-Verify 0.9.0\n\n`python benchmarks/grader/compare.py`: pairs of `golden/grader.tsv`, of which it is known by construction whether they are the same.\n\n"
    text += "| " + " | ".join(header) + " |\n|" + "---|" * len(header) + "\n"
    text += "".join("| " + " | ".join(map(str, row)) + " |\n" for row in rows)
    text += f"\nThe two differ on {len(differences)} pairs: ours is right on {told['ours']}, Math-Verify on {told['Math-Verify']}. Each stands in `grader-differences.tsv`. Letters of choices and plain text are no mathematics, so Math-Verify is not asked for them.\n"
    (record / "grader.md").write_text(text)
    table = [["class", "got", "want", "they are", "right"], *differences]
    (record / "grader-differences.tsv").write_text("".join("\t".join(row) + "\n" for row in table))
    print(text)


if __name__ == "__main__":
    main()
