"""What the client tests share: the server that run.sh started, and the questions."""

import os

import pytest

HARD = (
    "Olga lost 9 keys. Jack has 16 fewer than Ida. Ida has 18 cups. Tina has 13 old cats. "
    "How many cups do Jack and Ida have together?"
)
EASY = "Tell me half of 98."


@pytest.fixture(scope="session")
def url() -> str:
    """Base address of the server, without a path."""
    return os.environ["EDGETHINK_URL"]


@pytest.fixture(scope="session")
def model(url: str) -> str:
    """The base's name: the first of the list."""
    from openai import OpenAI

    return OpenAI(base_url=f"{url}/v1", api_key="none").models.list().data[0].id


@pytest.fixture
def hard() -> list[dict]:
    """A question that needs a thought; the answer is 20."""
    return [{"role": "user", "content": HARD}]


@pytest.fixture
def easy() -> list[dict]:
    """A question that needs none; the answer is 49."""
    return [{"role": "user", "content": EASY}]
