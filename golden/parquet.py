"""Small parquet files for crates/train: TRL's kinds of rows, rows in the fields and types of published data sets, and files that must
be refused. The texts are our own.

Run: python golden/parquet.py     (pyarrow)
Writes golden/parquet/*.parquet and the same rows as golden/parquet/*.jsonl.
"""
import json
import os

import pyarrow as pa
import pyarrow.parquet as pq

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "parquet")
MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])


def chat(*turns):
    return [{"role": role, "content": content} for role, content in turns]


def write(name, columns, schema=None, **options):
    table = pa.table(columns, schema=schema)
    pq.write_table(table, os.path.join(HERE, f"{name}.parquet"), **options)
    return table


def rows(name, table, known):
    with open(os.path.join(HERE, f"{name}.jsonl"), "w") as f:
        for row in table.to_pylist():
            f.write(json.dumps({k: row[k] for k in known}, ensure_ascii=False) + "\n")


os.makedirs(HERE, exist_ok=True)
texts = ["add 1 2 is 3", "añadir ünï 多", "", "the same again", "the same again"]
# Columns that are not ours: numbers, lists, bytes, and a nested struct.
other = {"id": [1, 2, 3, 4, 5], "scores": [[0.5], [], None, [1.0, 2.0], [3.0]], "raw": [b"\xff"] * 5, "meta": [{"a": {"b": 1}}] * 5}
rows("text", write("text", {"id": other["id"], "text": texts, **other}), ["text"])
# Two row groups, so that the reader has to go on to the next.
rows("text_groups", write("text_groups", {"text": pa.array(texts, pa.large_string())}, row_group_size=2), ["text"])
rows("text_plain", write("text_plain", {"text": texts}, compression="NONE", use_dictionary=False), ["text"])
rows("text_v2", write("text_v2", {"text": texts}, data_page_version="2.0"), ["text"])

chats = [
    chat(("user", "add 1 2"), ("assistant", "is 3")),
    chat(("system", "be short"), ("user", "add 2 2"), ("assistant", "is 4"), ("user", "add 4 4"), ("assistant", "is 8")),
]
# A message may hold more than role and content.
wide = [[{**m, "weight": 1, "tool_calls": None} for m in c] for c in chats]
more = pa.list_(pa.struct([*MESSAGE, ("weight", pa.int64()), ("tool_calls", pa.list_(pa.string()))]))
rows("messages", write("messages", {"messages": pa.array(chats, pa.list_(MESSAGE)), "source": ["a", "b"]}), ["messages"])
write("messages_wide", {"messages": pa.array(wide, more)})
rows("completion", write("completion", {"completion": ["3", "4"], "prompt": ["1 + 2 =", "2 + 2 ="]}), ["prompt", "completion"])
ask = [c[:-1] for c in chats]
answer = [c[-1:] for c in chats]
columns = {"prompt": pa.array(ask, pa.list_(MESSAGE)), "completion": pa.array(answer, pa.list_(MESSAGE))}
rows("completion_messages", write("completion_messages", columns), ["prompt", "completion"])

# Published data sets: all their columns, in their types.
ids = lambda n: [f"row-{i}" for i in range(n)]
think = "<think>\nWe add.\n</think>\n\nIt is \\boxed{%d}."
FROM_VALUE = pa.list_(pa.struct([("from", pa.string()), ("value", pa.string())]))
published = {
    "openthoughts3": (
        {
            "difficulty": pa.array([7, None], pa.int64()),
            "source": ["made up"] * 2,
            "domain": ["math", "code"],
            "conversations": pa.array([[{"from": "human", "value": f"What is 1 + {i}?"}, {"from": "gpt", "value": think % (1 + i)}] for i in (1, 2)], FROM_VALUE),
        },
        ["conversations"],
    ),
    "mixture_of_thoughts": (
        {
            "messages": pa.array([chat(("user", f"What is 2 + {i}?"), ("assistant", think % (2 + i))) for i in (1, 2)], pa.list_(MESSAGE)),
            "num_tokens": pa.array([20, 21], pa.int64()),
            "source": ["made up"] * 2,
        },
        ["messages"],
    ),
    "deepscaler": (
        {"problem": ["What is half of 1?", "What is 3 + 4?"], "answer": ["\\frac{1}{2}", "7"], "solution": ["Half of 1 is $\\boxed{\\frac{1}{2}}$.", "Add: $\\boxed{7}$."]},
        ["problem", "answer", "solution"],
    ),
    "math": (
        {"problem": ["What is half of 1?", "What is 3 + 4?"], "level": ["Level 1"] * 2, "type": ["Algebra"] * 2, "solution": ["Half of 1 is $\\boxed{\\frac{1}{2}}$.", "Add: $\\boxed{7}$."]},
        ["problem", "solution"],
    ),
    "s1k": (
        {
            "solution": ["7", "A proof."],
            "question": ["What is 3 + 4?", "Why is 2 even?"],
            "cot_type": ["math"] * 2,
            "source_type": ["made up"] * 2,
            "metadata": ["{}"] * 2,
            "cot": pa.nulls(2, pa.int64()),
            "thinking_trajectories": pa.array([["We add.\n"], ["Halve it."]], pa.list_(pa.string())),
            "attempt": ["It is 7.", "It is twice 1."],
        },
        ["solution", "question", "thinking_trajectories", "attempt"],
    ),
    "s1k_1_1": (
        {
            "solution": ["7", "A proof."],
            "question": ["What is 3 + 4?", "Why is 2 even?"],
            "gemini_thinking_trajectory": ["Add.", "Halve."],
            "gemini_attempt": ["7", "Twice 1."],
            "deepseek_thinking_trajectory": pa.array(["We add.", None], pa.string()),
            "deepseek_attempt": pa.array(["It is 7.", None], pa.string()),
            "deepseek_grade": ["Yes", "Yes"],
        },
        ["solution", "question", "gemini_thinking_trajectory", "gemini_attempt", "deepseek_thinking_trajectory", "deepseek_attempt"],
    ),
    "squad2": (
        {
            "id": ids(2),
            "title": ["Made up"] * 2,
            "context": ["The cat sat on the mat."] * 2,
            "question": ["Where did the cat sit?", "What is its name?"],
            "answers": pa.array([{"text": ["on the mat", "the mat"], "answer_start": [12, 15]}, {"text": [], "answer_start": []}], pa.struct([("text", pa.list_(pa.string())), ("answer_start", pa.list_(pa.int32()))])),
        },
        ["context", "question", "answers"],
    ),
    "mmlu": (
        {
            "question": ["What is 3 + 4?", "What is 2 * 2?"],
            "subject": ["elementary_mathematics"] * 2,
            "choices": pa.array([["6", "7", "8", "9"], ["4", "5", "6", "8"]], pa.list_(pa.string())),
            "answer": pa.array([1, 0], pa.int64()),
        },
        ["question", "choices", "answer"],
    ),
    "strategyqa": (
        {"qid": ids(2), "term": ["cat"] * 2, "description": ["an animal"] * 2, "question": ["Do cats sit?", "Do cats drive?"], "answer": [True, False], "facts": ["Cats sit."] * 2},
        ["question", "answer"],
    ),
}
for name, (columns, known) in published.items():
    rows(name, write(name, columns), known)

write("bad_no_column", {"id": ["a"], "score": ["b"]})
write("bad_unknown", {"question": ["a"], "answer": ["b"]})
write("bad_number", {"text": [1, 2]})
write("bad_bytes", {"text": [b"a"]})
write("bad_null", {"text": ["a", None]})
write("bad_content", {"messages": pa.array([[{"role": "user", "content": 3}]])})
write("bad_list", {"messages": pa.array([["user", "assistant"]])})
write("bad_zstd", {"text": texts * 20}, compression="ZSTD")
