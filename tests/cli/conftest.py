"""The museum of all states, made once for each worker process: it takes a dozen runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.register_assert_rewrite("cli.kit")

from cli.museum import Museum  # noqa: E402
from cli.museum import museum as opened  # noqa: E402


@pytest.fixture(scope="session")
def museum(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Museum]:
    with opened(tmp_path_factory.mktemp("museum")) as made:
        yield made
