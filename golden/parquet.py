"""Small parquet files for crates/train: TRL's kinds of rows, and files that must be refused.

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

write("bad_no_column", {"question": ["a"], "answer": ["b"]})
write("bad_number", {"text": [1, 2]})
write("bad_bytes", {"text": [b"a"]})
write("bad_null", {"text": ["a", None]})
write("bad_content", {"messages": pa.array([[{"role": "user", "content": 3}]])})
write("bad_list", {"messages": pa.array([["user", "assistant"]])})
write("bad_zstd", {"text": texts * 20}, compression="ZSTD")
