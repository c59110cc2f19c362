"""Annotations are not checked: a symbolic size is no int."""

import jaxtyping
import pytest


@pytest.fixture(scope="module", autouse=True)
def symbolic_sizes():
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
