import pytest

from tests.peers import losses, metrics
from tests.peers.scenes import scenes
from tests.peers.table import compare

pytestmark = pytest.mark.parity
PAIRS = [
    pytest.param(pair, id=f"{name}-{pair.peer}")
    for name, pairs in {**losses.TABLE, **metrics.TABLE}.items()
    for pair in pairs
]


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.filterwarnings("ignore")
def test_definitions_differ_where_the_table_says_so(pair, untyped):
    everywhere = "" in pair.differs
    found = {name: compare(pair, scene)[2] for name, scene in scenes().items()}
    differ = {name for name, same in found.items() if not same}
    if everywhere:
        assert "plain" in differ
    else:
        assert differ == set(pair.differs)
