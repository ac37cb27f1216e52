"""The official openai client for Python."""

import json

import openai
import pytest
from openai import OpenAI

SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "integer"}},
    "required": ["answer"],
    "additionalProperties": False,
}
TOOL = {
    "type": "function",
    "function": {
        "name": "count",
        "description": "Counts the things of a person",
        "parameters": {
            "type": "object",
            "properties": {"person": {"type": "string", "enum": ["Ida", "Jack"]}},
            "required": ["person"],
            "additionalProperties": False,
        },
    },
}


@pytest.fixture(scope="module")
def client(url):
    return OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


def test_models(client, model):
    listed = client.models.list().data
    assert [one.id for one in listed][0] == model
    assert client.models.retrieve(model).id == model


def test_chat_thinks_and_says_so(client, model, hard):
    reply = client.chat.completions.create(
        model=model, messages=hard, temperature=0, extra_body={"edgethink": {"think": "auto"}}
    )
    message = reply.choices[0].message
    assert "20" in message.content
    assert "Jack" in message.reasoning_content
    assert message.reasoning == message.reasoning_content
    assert reply.choices[0].finish_reason == "stop"
    assert 0 < reply.usage.completion_tokens_details.reasoning_tokens < reply.usage.completion_tokens
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
    assert reply.edgethink["decision"]["thinks"] is True
    assert reply.edgethink["choices"][0]["answer"] == "20"


def test_an_easy_question_gets_no_thought(client, model, easy):
    reply = client.chat.completions.create(
        model=model, messages=easy, temperature=0, extra_body={"edgethink": {"think": "auto"}}
    )
    assert "49" in reply.choices[0].message.content
    assert reply.usage.completion_tokens_details.reasoning_tokens == 0
    assert reply.edgethink["decision"]["thinks"] is False


def test_reasoning_effort_none_and_high(client, model, hard):
    def thought(effort):
        reply = client.chat.completions.create(model=model, messages=hard, temperature=0, reasoning_effort=effort)
        return reply.usage.completion_tokens_details.reasoning_tokens

    assert thought("none") == 0
    assert thought("high") > 0


def test_stream(client, model, hard):
    chunks = list(
        client.chat.completions.create(
            model=model, messages=hard, temperature=0, stream=True, stream_options={"include_usage": True}
        )
    )
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    whole = client.chat.completions.create(model=model, messages=hard, temperature=0).choices[0].message
    assert "".join(delta.content or "" for delta in deltas) == whole.content
    thought = "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas)
    assert thought == (getattr(whole, "reasoning_content", None) or "")
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens > 0
    ends = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices and chunk.choices[0].finish_reason]
    assert ends == ["stop"]


def test_n_4_votes(client, model, hard):
    reply = client.chat.completions.create(
        model=model,
        messages=hard,
        n=4,
        temperature=0.8,
        seed=7,
        extra_body={"edgethink": {"think": "on", "scoring": "verifier", "vote": "weighted", "early_stop": "off"}},
    )
    assert [choice.index for choice in reply.choices] == [0, 1, 2, 3]
    vote = reply.edgethink["vote"]
    assert sum(group["votes"] for group in vote["groups"]) <= 4
    assert vote["winner"] in vote["groups"][0]["choices"]
    assert all(0 <= choice["score"] <= 1 for choice in reply.edgethink["choices"] if choice["answer"])


def test_seed_gives_the_same_again(client, model, hard):
    def once():
        reply = client.chat.completions.create(
            model=model, messages=hard, n=2, temperature=0.8, seed=11, extra_body={"edgethink": {"think": "on"}}
        )
        return [choice.message.content for choice in reply.choices]

    assert once() == once()


def test_budget(client, model, hard):
    reply = client.chat.completions.create(
        model=model, messages=hard, temperature=0, extra_body={"edgethink": {"think": "on", "budget": 24, "min_think": 100}}
    )
    assert reply.usage.completion_tokens <= 24 + 16
    assert reply.edgethink["budget"]["hard"] == 24


def test_json_schema(client, model, hard):
    reply = client.chat.completions.create(
        model=model,
        messages=hard,
        temperature=0,
        response_format={"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": SCHEMA}},
    )
    found = json.loads(reply.choices[0].message.content)
    assert isinstance(found["answer"], int) and list(found) == ["answer"]


def test_json_object(client, model, easy):
    reply = client.chat.completions.create(
        model=model, messages=easy, temperature=0, max_completion_tokens=200, response_format={"type": "json_object"}
    )
    if reply.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(reply.choices[0].message.content), dict)


def test_tools_are_taken(client, model, easy):
    reply = client.chat.completions.create(model=model, messages=easy, temperature=0, tools=[TOOL])
    choice = reply.choices[0]
    assert choice.finish_reason in ("stop", "tool_calls", "length")
    assert choice.message.content or choice.message.tool_calls


def test_a_tool_that_is_required_is_called(client, model, hard):
    reply = client.chat.completions.create(
        model=model, messages=hard, temperature=0, tools=[TOOL], tool_choice="required"
    )
    (call,) = reply.choices[0].message.tool_calls
    assert call.function.name == "count"
    assert json.loads(call.function.arguments)["person"] in ("Ida", "Jack")
    assert reply.choices[0].finish_reason == "tool_calls"


def test_logprobs(client, model, easy):
    reply = client.chat.completions.create(model=model, messages=easy, temperature=0, logprobs=True, top_logprobs=2)
    tokens = reply.choices[0].logprobs.content
    assert tokens and all(token.logprob <= 0 and len(token.top_logprobs) == 2 for token in tokens)
    chunks = client.chat.completions.create(
        model=model, messages=easy, temperature=0, logprobs=True, top_logprobs=2, stream=True
    )
    streamed = [chunk.choices[0].logprobs for chunk in chunks if chunk.choices and chunk.choices[0].logprobs]
    assert len(streamed) > 1
    assert [token for part in streamed for token in part.content] == tokens


def test_stop(client, model, easy):
    reply = client.chat.completions.create(model=model, messages=easy, temperature=0, stop=["9"])
    assert "9" not in reply.choices[0].message.content
    assert reply.choices[0].finish_reason == "stop"


def test_completions(client, model):
    reply = client.completions.create(model=model, prompt="Ida has 18", max_tokens=8, temperature=0)
    assert reply.choices[0].text
    assert reply.usage.completion_tokens <= 8


def test_responses(client, model, hard):
    reply = client.responses.create(model=model, input=hard, temperature=0, reasoning={"effort": "high"})
    assert "20" in reply.output_text
    assert reply.usage.output_tokens_details.reasoning_tokens > 0


def test_responses_stream(client, model, hard):
    kinds, text = [], ""
    for event in client.responses.create(model=model, input=hard, temperature=0, stream=True):
        kinds.append(event.type)
        if event.type == "response.output_text.delta":
            text += event.delta
    assert kinds[0] == "response.created" and kinds[-1] == "response.completed"
    assert "20" in text


def test_mistakes_name_the_field(client, model, easy):
    with pytest.raises(openai.BadRequestError) as wrong:
        client.chat.completions.create(model=model, messages=easy, temperature=9)
    assert wrong.value.param == "temperature"
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="no such model", messages=easy)
    with pytest.raises(openai.BadRequestError) as wrong:
        client.chat.completions.create(model=model, messages=easy, extra_body={"edgethink": {"thinks": 1}})
    assert "thinks" in str(wrong.value)
