"""A canary, growing batches, and never all mail servers of an email config at once."""

import random

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.order import in_batches, one_by_one

TEN = [f"m{number}" for number in range(10)]


@pytest.mark.parametrize(
    ("batches", "sizes"),
    [
        ([1, "25%", "100%"], (1, 2, 7)), ([1], (1,) * 10), (["100%"], (10,)), ([3], (3, 3, 3, 1)), (["3", " 4 "], (3, 4, 3)),
        (["1%"], (1,) * 10), ([1, 500], (1, 9)), (["25%"], (2, 2, 2, 2, 2)), ([1.0], None), (["1000%"], (10,)),
    ],
)  # fmt: skip
def test_sizes(batches, sizes):
    if sizes is None:
        with pytest.raises(EngineError, match="starttls_batches"):
            in_batches(TEN, batches, [])
    else:
        planned = in_batches(TEN, batches, [])
        assert (planned.hosts, planned.batches) == (tuple(TEN), sizes)


@pytest.mark.parametrize("bad", [0, -1, "", "x", "5 hosts", "%", "0%", None, True, False, [1], {}, "-5%", "1e3", "٣"])
def test_what_is_no_size_names_the_variable(bad):
    with pytest.raises(EngineError, match="starttls_batches") as error:
        in_batches(TEN, [1, bad], [])
    assert repr(bad) in str(error.value)


def test_an_empty_list_names_the_variable():
    with pytest.raises(EngineError, match="starttls_batches is empty"):
        in_batches(TEN, [], [])


def test_no_host_needs_no_batch():
    assert in_batches([], [1], []).batches == one_by_one([]).batches == ()


def test_gateways_change_one_at_a_time():
    assert one_by_one(["gw1", "gw2"]).batches == (1, 1)


def test_a_pair_is_split():
    planned = in_batches(["a1", "a2", "b1", "b2"], ["100%"], [["a1", "a2"], ["b1", "b2"]])
    assert (planned.hosts, planned.batches) == (("a1", "b1", "a2", "b2"), (2, 2))


def test_a_pair_of_which_one_does_not_change_need_not_be():
    planned = in_batches(["a1", "b1", "b2"], ["100%"], [["a1", "a2"], ["b1", "b2"]])
    assert (planned.hosts, planned.batches) == (("a1", "b1", "b2"), (2, 1))
    assert in_batches(["a1", "b1"], ["100%"], [["a1", "a2"], ["b1", "b2"]]).batches == (2,)


def test_one_mail_server_alone_cannot_be_spared():
    assert in_batches(["a1"], ["100%"], [["a1"]]).batches == (1,)


@pytest.mark.parametrize("seed", range(200))
def test_random_estates(seed):
    chance = random.Random(seed)
    hosts = [f"m{number}" for number in range(chance.randint(1, 60))]
    configs = [chance.sample(hosts, chance.randint(1, min(len(hosts), 5))) for _ in range(chance.randint(0, 30))]
    changing = [host for host in hosts if chance.random() < 0.7]
    batches = [chance.choice([1, 2, 7, "10%", "50%", "100%"]) for _ in range(chance.randint(1, 4))]
    planned = in_batches(changing, batches, configs)
    assert sorted(planned.hosts) == sorted(changing)
    assert sum(planned.batches) == len(changing) and all(size >= 1 for size in planned.batches)
    start = 0
    for size in planned.batches:
        batch = set(planned.hosts[start : start + size])
        start += size
        for config in configs:
            assert len(config) == 1 or not set(config) <= batch
    if not configs:
        assert list(planned.hosts) == changing
