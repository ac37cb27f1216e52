"""Makes golden/template.json: chat templates and what transformers renders with them.

Run:    python golden/template.py
Needs:  pip install transformers==5.23.0 jinja2 tokenizers

The templates are ours. Each uses what the templates of a known family use: whitespace rules, slices, namespaces, string methods, `tojson`,
`raise_exception`, loop controls, macros. Read by crates/model/tests/template.rs.
"""

import json
import pathlib

from jinja2.exceptions import TemplateError
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

CHATML = """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0]['role'] == 'system' %}
        {{- messages[0]['content'] }}
    {%- else %}
        {{- 'You are a helpful assistant.' }}
    {%- endif %}
    {{- "\\n\\n# Tools\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "tool" %}
        {{- '<|im_start|>user\\n<tool_response>\\n' ~ message.content ~ '\\n</tool_response><|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

THINKING = """{%- set ns = namespace(multi_step=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step = false %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if message.role == "assistant" %}
        {%- set reasoning = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last and (loop.last or reasoning) %}
            {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""

HEADERS = """{{- bos_token }}
{%- if not date_string is defined %}
    {%- set date_string = "26 Jul 2024" %}
{%- endif %}
{#- the system message first #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- eos_token }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + eos_token }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

INSTRUCT = """{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{% generation %}{{ ' ' + message['content'] + eos_token}}{% endgeneration %}{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"""

# Line breaks after blocks and indentation before them go (trim_blocks, lstrip_blocks); the rest stays.
WHITESPACE = """{% for message in messages %}
    {% if message.role == 'system' %}
        {% continue %}
    {% endif %}
  [{{ message.role }}]
{{ message.content | replace('a', 'A') | upper if loop.last else message.content.capitalize() }}
    {% if loop.index == 3 %}{% break %}{% endif %}
{% endfor %}
{% macro tag(x, y='d') %}<{{ x }} {{ y }}>{% endmacro %}
{{ tag('t') }}{{ tag('u', y=1) }}
{{ messages | map(attribute='role') | join(', ') }}
{{ messages | selectattr('role', 'equalto', 'user') | list | length }}
{{ {'b': [1, 2.5, none, true], 'a': {'x': 'é "q" \\\\ \\n <&>'}} | tojson }}
{{ [1, {'k': []}, {}] | tojson(indent=2) }}
{{ 'a,b,,c'.split(',') | tojson }} {{ 7 // 2 }} {{ 7 % 4 }} {{ 2 ** 5 }} {{ 'x' * 3 }} {{ 'ab'[::-1] }} {{ 'abc'[-2:] }}
{{ undefined_name }}|{{ messages[0].nothing }}|{{ messages[0].get('nothing', 'default') }}|{{ none }}|{{ true }}
{% set d = dict(a=1) %}{% for k, v in d.items() %}{{ k }}={{ v }}{% endfor %}
{{ "end" }}
"""

CHAT = [
    {"role": "system", "content": " You are terse. "},
    {"role": "user", "content": "What is 2+2?"},
    {"role": "assistant", "content": "<think>\nEasy: 4.\n</think>\n\n4"},
    {"role": "user", "content": "And 3+3? "},
]
THOUGHT = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello", "reasoning_content": "\nA greeting.\n"},
]
ODD = [{"role": "assistant", "content": "I begin"}]
TOOL = {
    "type": "function",
    "function": {"name": "get", "description": "Gets <it>", "parameters": {"type": "object", "properties": {"z": {"type": "string"}, "a": {"type": "integer"}}}},
}

CASES = [
    ("chatml", CHATML, CHAT, dict(add_generation_prompt=True)),
    ("chatml without system", CHATML, CHAT[1:], dict(add_generation_prompt=False)),
    ("chatml with tools", CHATML, CHAT, dict(add_generation_prompt=True, tools=[TOOL])),
    ("thinking", THINKING, CHAT, dict(add_generation_prompt=True)),
    ("thinking off", THINKING, CHAT, dict(add_generation_prompt=True, enable_thinking=False)),
    ("thinking on", THINKING, CHAT, dict(add_generation_prompt=True, enable_thinking=True)),
    ("thought kept in the last turn", THINKING, THOUGHT, dict(add_generation_prompt=False)),
    ("headers", HEADERS, CHAT, dict(add_generation_prompt=True)),
    ("headers with a date", HEADERS, CHAT[1:], dict(add_generation_prompt=True, date_string="1 May 2030")),
    ("instruct", INSTRUCT, CHAT[1:], dict(add_generation_prompt=True)),
    ("instruct refuses a system message", INSTRUCT, CHAT, dict(add_generation_prompt=True)),
    ("instruct refuses an assistant's first word", INSTRUCT, ODD, dict(add_generation_prompt=False)),
    ("whitespace and filters", WHITESPACE, CHAT, dict(add_generation_prompt=False)),
]

if __name__ == "__main__":
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel({"<s>": 0, "</s>": 1}, unk_token="<s>")), bos_token="<s>", eos_token="</s>"
    )
    out = []
    for name, template, messages, options in CASES:
        case = dict(name=name, template=template, messages=messages, options=options)
        try:
            case["text"] = tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False, **options)
        except TemplateError as e:
            case["refused"] = e.message
        out.append(case)
    path = pathlib.Path(__file__).parent / "template.json"
    path.write_text(json.dumps(out, indent=1, ensure_ascii=False) + "\n")
    print(*(f"--- {c['name']}\n{c.get('text', c.get('refused'))}" for c in out), sep="\n")
