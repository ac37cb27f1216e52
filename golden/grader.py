"""Pairs of answers, whether they are the same, and what Math-Verify says: writes golden/grader.tsv.

Whether a pair is the same is known from how it is made (exact fractions, sympy's expand, the form that was changed); no grader
is asked for it. Columns: class, got, want, same (1 or 0), Math-Verify (1, 0, or - where it has nothing to read).

Needs: math-verify 0.9.0, latex2sympy2_extended 1.11.0, sympy 1.14.0.   python golden/grader.py
"""

import logging
import random
from fractions import Fraction
from pathlib import Path

import sympy
from math_verify import parse, verify

draw = random.Random(7)
rows: list[tuple[str, str, str, bool]] = []


def pair(kind: str, got: str, want: str, same: bool) -> None:
    rows.append((kind, got, want, same))


def grouped(n: int, comma: str = ",") -> str:
    return f"{n:,}".replace(",", comma)


def frac(q: Fraction, name: str = "frac") -> str:
    sign = "-" if q < 0 else ""
    return f"{sign}\\{name}{{{abs(q.numerator)}}}{{{q.denominator}}}"


def integers() -> None:
    for _ in range(60):
        n = draw.choice([draw.randint(0, 99), draw.randint(1000, 10**6), draw.randint(10**6, 10**12)])
        forms = [f"{n}.0", f"{n}.", grouped(n), grouped(n, "{,}"), grouped(n, ",\\!"), f"\\text{{{n}}}", f"\\frac{{{2 * n}}}{{2}}",
                 f"x = {n}", f"{n} + 0", f"\\left({n}\\right)", f"\\boxed{{{n}}}"]
        for form in draw.sample(forms, 3):
            pair("integer", form, str(n), True)
        near = [n + 1, n * 10, n + 10**6, -n - 1]
        for other in draw.sample(near, 2):
            pair("integer", draw.choice([str(other), f"x = {other}", f"{other}.0"]), str(n), False)
    for n in (10**9, 10**12, 10**15, 10**18, 10**30):
        for other in (n + 1, n - 1):
            pair("integer", str(other), str(n), False)
            pair("integer", f"10^{{{len(str(n)) - 1}}}", str(n), True)


def fractions() -> None:
    for _ in range(80):
        q = Fraction(draw.randint(-40, 40) or 7, draw.randint(2, 30))
        k = draw.randint(2, 9)
        forms = [frac(q), frac(q, "dfrac"), frac(q, "tfrac"), f"{q.numerator * k}/{q.denominator * k}",
                 f"\\frac{{{q.numerator * k}}}{{{q.denominator * k}}}", f"\\left({frac(q)}\\right)",
                 f"\\frac{{{-q.numerator}}}{{{-q.denominator}}}"]
        want = f"{q.numerator}/{q.denominator}"
        for form in draw.sample(forms, 3):
            pair("fraction", form, want, True)
        other = q + draw.choice([Fraction(1, q.denominator), Fraction(1, 7), 1])
        pair("fraction", frac(other), want, other == q)
        pair("fraction", frac(1 / q), want, 1 / q == q)
        rounded = Fraction(round(q * 100), 100)
        decimal = f"{float(rounded):.2f}"
        pair("rounding", decimal, want, rounded == q)
        rounded = Fraction(round(q * 10**6), 10**6)
        pair("rounding", f"{float(rounded):.6f}", frac(q), rounded == q)


def mixed_numbers() -> None:
    for _ in range(40):
        whole, bottom = draw.randint(1, 20), draw.randint(2, 12)
        top = draw.randint(1, bottom - 1)
        value = whole + Fraction(top, bottom)
        want = frac(value)
        pair("mixed", f"{whole}\\frac{{{top}}}{{{bottom}}}", want, True)
        pair("mixed", f"{whole} {top}/{bottom}", want, True)
        pair("mixed", frac(whole * Fraction(top, bottom)), f"{whole}\\frac{{{top}}}{{{bottom}}}",
             whole * Fraction(top, bottom) == value)
        pair("mixed", f"{whole}\\frac{{{top}}}{{{bottom}}}", frac(value + 1), False)


def percentages_and_units() -> None:
    units = [("cm", "centimeters"), ("km", "kilometers"), ("kg", "kilograms"), ("hours", "hour"), ("dollars", "dollar"),
             ("apples", "apple"), ("degrees", "degrees")]
    for _ in range(40):
        n = draw.randint(1, 400)
        pair("percent", f"{n}\\%", str(n), True)
        pair("percent", f"{n}%", f"{n}\\%", True)
        pair("percent", f"{n}\\%", f"\\frac{{{n}}}{{100}}", True)
        pair("percent", f"{n}\\%", str(n + 1), False)
        pair("percent", str(n), str(Fraction(n, 100)), False)
        (short, long), (other, _) = draw.sample(units, 2)
        pair("unit", f"{n}\\text{{ {short}}}", str(n), True)
        pair("unit", f"{n} {long}", f"{n}\\text{{ {short}}}", True)
        pair("unit", f"{n}\\text{{ {short}}}", str(n + 1), False)
        pair("unit", f"{n}\\text{{ {short}}}", f"{n}\\text{{ {other}}}", False)
        pair("unit", f"\\${n}", str(n), True)
        pair("unit", f"{n}^\\circ", str(n), True)
        pair("unit", f"{n}\\text{{ cm}}^2", f"{n}\\text{{ cm}}^3", False)


def radicals() -> None:
    for _ in range(60):
        a, b = draw.randint(2, 12), draw.choice([2, 3, 5, 6, 7, 10, 11, 13])
        pair("radical", f"\\sqrt{{{a * a * b}}}", f"{a}\\sqrt{{{b}}}", True)
        pair("radical", f"\\frac{{{a}}}{{\\sqrt{{{b}}}}}", f"\\frac{{{a}\\sqrt{{{b}}}}}{{{b}}}", True)
        pair("radical", f"{a}\\sqrt{{{b}}}", f"{b}\\sqrt{{{a}}}", a == b)
        pair("radical", f"{a}\\sqrt{{{b}}}", f"{a + 1}\\sqrt{{{b}}}", False)
        pair("radical", f"{a}+\\sqrt{{{b}}}", f"{a}-\\sqrt{{{b}}}", False)
        pair("radical", f"{float(sympy.sqrt(b)):.4f}", f"\\sqrt{{{b}}}", False)
        pair("radical", f"\\frac{{1}}{{{a}-\\sqrt{{{b}}}}}", f"\\frac{{{a}+\\sqrt{{{b}}}}}{{{a * a - b}}}" if a * a != b else "1", a * a != b)


def large_numbers() -> None:
    for _ in range(40):
        n, k = draw.randint(50, 2000), draw.randint(2, 9)
        pair("large", f"\\frac{{1}}{{{n}!}}", f"\\frac{{1}}{{{n + 2}!}}", False)
        pair("large", f"\\frac{{{n + 1}!}}{{{n}!}}", str(n + 1), True)
        pair("large", f"\\frac{{1}}{{{k}^{{{n}}}}}", f"\\frac{{1}}{{{k}^{{{n + 1}}}}}", False)
        pair("large", f"\\frac{{{k}^{{{n}}}+1}}{{{k}^{{{n}}}}}", "1", False)
        pair("large", f"{k}^{{{n}}} \\cdot {k}", f"{k}^{{{n + 1}}}", True)


def polynomials() -> None:
    x = sympy.symbols("x")
    for _ in range(80):
        a, b, c, d = (draw.randint(-9, 9) or 1 for _ in range(4))
        product = (a * x + b) * (c * x + d)
        factored = f"({a}x{b:+d})({c}x{d:+d})"
        expanded = sympy.latex(sympy.expand(product))
        pair("polynomial", factored, expanded, True)
        pair("polynomial", factored, sympy.latex(sympy.expand(product + 1)), False)
        pair("polynomial", f"f(x) = {factored}", expanded, True)
        pair("polynomial", expanded.replace("x", "t"), expanded, False)
        swapped = sympy.expand((a * x + d) * (c * x + b))
        pair("polynomial", factored, sympy.latex(swapped), sympy.expand(product - swapped) == 0)


def equations() -> None:
    for _ in range(60):
        a, b, c = draw.randint(1, 9), draw.randint(1, 9), draw.randint(-9, 9)
        k = draw.randint(2, 5)
        line = f"{a}x + {b}y = {c}"
        pair("equation", f"{k * a}x + {k * b}y = {k * c}", line, True)
        pair("equation", f"{a}x + {b}y - {c} = 0" if c >= 0 else f"{a}x + {b}y + {-c} = 0", line, True)
        pair("equation", f"{a}x + {b}y = {c + 1}", line, False)
        pair("equation", f"{a}x - {b}y = {c}", line, False)
        pair("equation", f"x = {c}", str(c), True)
        pair("equation", f"x = {c}", f"x = {c + 1}", False)
        pair("equation", f"x = {c}", f"y = {c}", False)
        pair("equation", f"{a}x + {b} = 0", "0", False)
        pair("inequality", f"x > {c}", f"({c}, \\infty)", True)
        pair("inequality", f"x \\ge {c}", f"({c}, \\infty)", False)
        pair("inequality", f"{c} < x \\le {c + a}", f"({c}, {c + a}]", True)


def collections() -> None:
    for _ in range(60):
        a, b, c = draw.sample(range(-20, 21), 3)
        a, b, c = str(a), str(b), str(c)
        pair("tuple", f"({a}, {b})", f"\\left({a},{b}\\right)", True)
        pair("tuple", f"({b}, {a})", f"({a}, {b})", False)
        pair("tuple", f"[{a}, {b}]", f"({a}, {b})", False)
        pair("tuple", f"({a}, {b}, {c})", f"({a}, {b})", False)
        pair("tuple", f"{a}, {b}", f"({a}, {b})", True)
        pair("set", f"\\{{{c}, {a}, {b}\\}}", f"\\{{{a}, {b}, {c}\\}}", True)
        pair("set", f"\\{{{a}, {b}\\}}", f"\\{{{a}, {c}\\}}", False)
        pair("set", f"\\{{{a}\\}} \\cup \\{{{b}\\}}", f"\\{{{b}, {a}\\}}", True)
        pair("list", f"{b}, {a}", f"{a}, {b}", True)
        pair("list", f"{a} \\text{{ and }} {b}", f"{a}, {b}", True)
        pair("list", f"{a}, {b}", f"{a}, {c}", False)
        pair("list", f"n = {a}, {b}, {c}", f"n = {a}, {b}, {b}", False)
        pair("list", f"x = {a} \\text{{ or }} x = {b}", f"{b}, {a}", True)
        pair("matrix", f"\\begin{{pmatrix}} {a} & {b} \\\\ {c} & {a} \\end{{pmatrix}}",
             f"\\begin{{bmatrix}}{a}&{b}\\\\{c}&{a}\\end{{bmatrix}}", True)
        pair("matrix", f"\\begin{{pmatrix}} {a} & {b} \\\\ {c} & {a} \\end{{pmatrix}}",
             f"\\begin{{pmatrix}} {a} & {c} \\\\ {b} & {a} \\end{{pmatrix}}", False)
    for n in range(1, 30):
        pair("interval", f"(-\\infty, {n}) \\cup ({n + 1}, \\infty)", f"({n + 1}, \\infty) \\cup (-\\infty, {n})", True)
        pair("interval", f"(-\\infty, {n}]", f"(-\\infty, {n})", False)
        pair("sign", f"\\pm {n}", f"{n}, -{n}", True)
        pair("sign", f"\\pm {n}", str(n), False)


def functions() -> None:
    for n in range(1, 40):
        pair("function", f"\\sin^2 {n}x + \\cos^2 {n}x + x", "x + 1", True)
        pair("function", f"\\sin {2 * n}x", f"2\\sin {n}x \\cos {n}x", True)
        pair("function", f"\\sin {n}x", f"\\cos {n}x", False)
        pair("function", f"\\ln {n + 1}", f"\\ln {n + 2}", False)
        pair("function", f"\\log_2 {2**n}", str(n), True)
        pair("function", f"1 - \\frac{{{n}}}{{e}}", f"1 + \\frac{{{n}}}{{e}}", False)
        pair("function", f"\\frac{{{n}\\pi}}{{2}}", f"{n} \\cdot \\frac{{\\pi}}{{2}}", True)
        pair("function", f"\\sqrt{{{n}/n}}", f"\\frac{{\\sqrt{{{n}}}}}{{\\sqrt{{n}}}}", True)


def words() -> None:
    names = ["Paris", "London", "east", "west", "even", "odd", "Alice", "ellipse", "parabola", "red", "blue", "Tuesday"]
    for name in names:
        other = draw.choice([n for n in names if n != name])
        pair("text", name.lower(), name, True)
        pair("text", f"\\text{{{name}}}", name, True)
        pair("text", f"the {name}.", name, True)
        pair("text", other, name, False)
        pair("text", f"not {name}", name, False)
        pair("text", name[::-1], name, False)
    for index, letter in enumerate("ABCDE"):
        other = "BCDEA"[index]
        for form in (f"({letter})", f"{letter}.", f"\\text{{({letter})}}", f"{letter}) the first", f"\\textbf{{({letter})}}\\ 12"):
            pair("choice", form, letter, True)
            pair("choice", form, other, False)
    for n in range(10, 60):
        pair("base", f"{n}_7", f"{n}_{{7}}", True)
        pair("base", f"{n}_7", f"{n}7", False)
        pair("base", f"{n}_7", f"{n}_8", False)


def math_verify(got: str, want: str) -> str:
    def read(text: str):
        return parse(f"${text}$", parsing_timeout=None)

    try:
        return "1" if verify(read(want), read(got), timeout_seconds=None) else "0"
    except Exception:  # it has no answer
        return "0"


def main() -> None:
    logging.disable(logging.CRITICAL)
    for make in (integers, fractions, mixed_numbers, percentages_and_units, radicals, large_numbers, polynomials, equations,
                 collections, functions, words):
        make()
    unique = list(dict.fromkeys(rows))
    lines = ["class\tgot\twant\tsame\tmath_verify"]
    for kind, got, want, same in unique:
        theirs = "-" if kind in ("text", "choice") else math_verify(got, want)
        lines.append(f"{kind}\t{got}\t{want}\t{int(same)}\t{theirs}")
    path = Path(__file__).parent / "grader.tsv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(len(unique), "pairs")


main()
