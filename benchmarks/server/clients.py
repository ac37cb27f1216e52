"""The official clients of OpenAI and Anthropic against a running server: chat, stream, n, tools, JSON, responses, messages.

    edgethink serve --port 8123 &
    python benchmarks/server/clients.py --url http://127.0.0.1:8123

Needs `pip install openai anthropic`. Ends with an error where a reply is not what the client's types promise.
"""

import argparse
import json

import anthropic
import openai

HARD = (
    "Leo has 3 shells. Mia has 11 more shells than Leo. Olga has 5 fewer shells than Mia. "
    "How many shells does Olga own?"
)
SCHEMA = {
    "type": "object",
    "properties": {"shells": {"type": "integer"}},
    "required": ["shells"],
    "additionalProperties": False,
}


def chat(client):
    messages = [{"role": "user", "content": HARD}]
    whole = client.chat.completions.create(model="pocket", messages=messages, seed=1, reasoning_effort="high")
    assert "9" in whole.choices[0].message.content, whole
    assert whole.choices[0].message.reasoning_content
    assert whole.usage.completion_tokens_details.reasoning_tokens > 0
    stream = client.chat.completions.create(
        model="pocket", messages=messages, seed=1, reasoning_effort="high", stream=True,
        stream_options={"include_usage": True},
    )
    text, usage = "", None
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
    assert text == whole.choices[0].message.content
    assert usage.completion_tokens == whole.usage.completion_tokens
    four = client.chat.completions.create(
        model="adapter", messages=messages, n=4, temperature=0.8, seed=2, extra_body={"edgethink": {"vote": "majority"}}
    )
    assert [choice.index for choice in four.choices] == [0, 1, 2, 3]
    assert four.edgethink["vote"]["winner"] is not None


def forms(client):
    messages = [{"role": "user", "content": HARD}]
    answer = client.chat.completions.create(
        model="pocket", messages=messages, max_tokens=400,
        response_format={"type": "json_schema", "json_schema": {"name": "shells", "schema": SCHEMA, "strict": True}},
    )
    assert isinstance(json.loads(answer.choices[0].message.content)["shells"], int)
    tool = {"type": "function", "function": {"name": "count", "parameters": SCHEMA}}
    answer = client.chat.completions.create(
        model="pocket", messages=messages, tools=[tool], tool_choice="required", max_tokens=200, reasoning_effort="none"
    )
    call = answer.choices[0].message.tool_calls[0]
    assert answer.choices[0].finish_reason == "tool_calls"
    again = client.chat.completions.create(
        model="pocket", tools=[tool], max_tokens=40, reasoning_effort="none",
        messages=[*messages, answer.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "9"}],
    )
    assert again.choices[0].message.role == "assistant"


def responses(client):
    whole = client.responses.create(model="pocket", input=HARD, reasoning={"effort": "high"})
    assert "9" in whole.output_text, whole
    text, last = "", None
    for event in client.responses.create(model="pocket", input=HARD, reasoning={"effort": "high"}, stream=True):
        last = event
        if event.type == "response.output_text.delta":
            text += event.delta
    assert last.type == "response.completed" and text == whole.output_text == last.response.output_text


def refused(client):
    try:
        client.chat.completions.create(model="none", messages=[{"role": "user", "content": "x"}])
    except openai.NotFoundError as error:
        assert error.code == "model_not_found" and error.param == "model", error
    else:
        raise AssertionError("an unknown model was served")
    try:
        client.embeddings.create(model="pocket", input="x")
    except openai.NotFoundError as error:
        assert error.code == "unsupported_endpoint"


def messages(client):
    ask = {"model": "pocket", "max_tokens": 600, "messages": [{"role": "user", "content": HARD}]}
    thinking = {"type": "enabled", "budget_tokens": 256}
    whole = client.messages.create(**ask, thinking=thinking)
    assert [block.type for block in whole.content] == ["thinking", "text"], whole
    with client.messages.stream(**ask, thinking=thinking) as stream:
        assert "".join(stream.text_stream) == whole.content[1].text
        assert stream.get_final_message().stop_reason == "end_turn"
    tool = {"name": "count", "description": "Counts.", "input_schema": SCHEMA}
    used = client.messages.create(**ask, tools=[tool], tool_choice={"type": "any"}, thinking={"type": "disabled"})
    assert used.stop_reason == "tool_use" and isinstance(used.content[0].input["shells"], int), used
    assert client.messages.count_tokens(model="pocket", messages=ask["messages"]).input_tokens > 20


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--key", default="none-asked")
    args = parser.parse_args()
    client = openai.OpenAI(base_url=f"{args.url}/v1", api_key=args.key, max_retries=0)
    assert "pocket" in [model.id for model in client.models.list()]
    for test in (chat, forms, responses, refused):
        test(client)
        print(f"openai {openai.__version__}: {test.__name__} ok")
    messages(anthropic.Anthropic(base_url=args.url, api_key=args.key, max_retries=0))
    print(f"anthropic {anthropic.__version__}: messages ok")


if __name__ == "__main__":
    main()
