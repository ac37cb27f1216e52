"""The official anthropic client for Python, on `/v1/messages`."""

import pytest
from anthropic import Anthropic, BadRequestError


@pytest.fixture(scope="module")
def client(url):
    return Anthropic(base_url=url, api_key="none", max_retries=0)


def test_message_with_a_thought(client, model, hard):
    reply = client.messages.create(
        model=model,
        max_tokens=600,
        messages=hard,
        thinking={"type": "enabled", "budget_tokens": 500},
    )
    kinds = [block.type for block in reply.content]
    assert kinds == ["thinking", "text"]
    assert "20" in reply.content[1].text
    assert reply.stop_reason == "end_turn"
    assert reply.usage.output_tokens > 0


def test_message_without_a_thought(client, model, easy):
    reply = client.messages.create(model=model, max_tokens=64, messages=easy, thinking={"type": "disabled"})
    assert [block.type for block in reply.content] == ["text"]
    assert "49" in reply.content[0].text


def test_stream(client, model, hard):
    with client.messages.stream(
        model=model, max_tokens=600, messages=hard, thinking={"type": "enabled", "budget_tokens": 500}
    ) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert "20" in text
    assert final.content[-1].text == text
    assert final.content[0].type == "thinking" and final.content[0].thinking


def test_system_and_stop(client, model, easy):
    reply = client.messages.create(
        model=model, max_tokens=64, system="Be short.", messages=easy, stop_sequences=["9"], thinking={"type": "disabled"}
    )
    assert "9" not in reply.content[0].text
    assert reply.stop_reason == "stop_sequence" and reply.stop_sequence == "9"


def test_a_mistake_has_their_shape(client, model):
    with pytest.raises(BadRequestError) as wrong:
        client.messages.create(model=model, max_tokens=64, messages=[])
    assert wrong.value.body["error"]["type"] == "invalid_request_error"
