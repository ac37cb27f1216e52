"""An agent framework from PyPI: pydantic-ai, which speaks chat completions and responses."""

import asyncio

import pytest
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

from conftest import EASY, HARD


class Count(BaseModel):
    """How many there are."""

    answer: int


@pytest.fixture(params=[OpenAIChatModel, OpenAIResponsesModel], ids=["chat", "responses"])
def mind(request, url, model):
    return request.param(model, provider=OpenAIProvider(base_url=f"{url}/v1", api_key="none"))


def test_run(mind):
    result = Agent(mind, model_settings={"temperature": 0.0}).run_sync(EASY)
    assert "49" in result.output
    assert result.usage.output_tokens > 0


def test_stream(mind):
    async def text():
        async with Agent(mind, model_settings={"temperature": 0.0}).run_stream(HARD) as result:
            return await result.get_output()

    assert "20" in asyncio.run(text())


def test_output_by_schema(mind):
    agent = Agent(mind, output_type=NativeOutput(Count), model_settings={"temperature": 0.0})
    assert isinstance(agent.run_sync(HARD).output, Count)


def test_a_conversation(mind):
    agent = Agent(mind, model_settings={"temperature": 0.0})
    first = agent.run_sync(EASY)
    second = agent.run_sync(EASY, message_history=first.all_messages())
    assert second.output
