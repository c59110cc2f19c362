"""Code of the documentation runs as users run it."""

import jax
import jaxtyping
import pytest


@pytest.fixture(autouse=True)
def _as_users_have_it():
    """Annotations are not checked, and NumPy's promotion of ranks is allowed."""
    jaxtyping.config.update("jaxtyping_disable", True)
    with jax.numpy_rank_promotion("allow"):
        yield
    jaxtyping.config.update("jaxtyping_disable", False)
