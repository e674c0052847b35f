from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from lib_nplora.maths.cache import ByteLru


@dataclass
class Thing:
    nbytes: int


def put(cache: ByteLru, *keys: str, nbytes: int = 10) -> list[str]:
    """Ask for `keys`; returns those that had to be made."""
    made: list[str] = []

    def make(key: str) -> Thing:
        made.append(key)
        return Thing(nbytes)

    for key in keys:
        cache.get(key, lambda key=key: make(key))
    return made


def test_makes_a_value_once():
    cache = ByteLru(100)
    assert put(cache, "a", "b", "a") == ["a", "b"]
    assert cache.get("a", lambda: Thing(1)).nbytes == 10
    assert (len(cache), cache.nbytes) == (2, 20)


def test_keeps_what_the_round_uses_whatever_its_size():
    cache = ByteLru(15)
    put(cache, "a", "b", "c")
    assert put(cache, "a", "b", "c") == []
    assert cache.nbytes == 30


def test_a_strict_one_keeps_what_fits_and_makes_the_rest_anew():
    cache = ByteLru(25, strict=True)
    assert put(cache, "a", "b", "c", "d") == ["a", "b", "c", "d"]
    assert put(cache, "a", "b", "c", "d") == ["c", "d"]
    assert (len(cache), cache.nbytes) == (2, 20)
    cache.begin_round()
    assert put(cache, "e") == ["e"]
    assert (len(cache), cache.nbytes) == (2, 20)


def test_what_may_go_goes_before_the_next_value_is_made():
    cache = ByteLru(10)
    put(cache, "a", "b")
    cache.begin_round()
    cache.get("c", lambda: Thing(10 if cache.nbytes <= 10 else 1 / 0))
    assert len(cache) == 1


def test_drops_the_least_recently_used_of_earlier_rounds():
    cache = ByteLru(30)
    put(cache, "a", "b", "c")
    cache.begin_round()
    put(cache, "a", "d")
    cache.begin_round()
    assert put(cache, "a", "c", "d") == []
    assert put(cache, "b") == ["b"]


def test_a_new_round_alone_drops_nothing():
    cache = ByteLru(10)
    put(cache, "a", "b", "c")
    cache.begin_round()
    assert (len(cache), cache.nbytes) == (3, 30)
    assert put(cache, "c") == []
    assert (len(cache), cache.nbytes) == (1, 10)


def test_use_in_this_round_saves_an_old_value():
    cache = ByteLru(20)
    put(cache, "a", "b")
    cache.begin_round()
    assert put(cache, "a", "c", "d", "a") == ["c", "d"]
    assert put(cache, "b") == ["b"]


def test_a_value_that_cannot_be_made_leaves_no_trace():
    cache = ByteLru(20)
    try:
        cache.get("a", lambda: 1 / 0)
    except ZeroDivisionError:
        assert (len(cache), cache.nbytes) == (0, 0)
    assert put(cache, "a") == ["a"]


def test_clear():
    cache = ByteLru(20)
    put(cache, "a", "b")
    cache.clear()
    assert (len(cache), cache.nbytes) == (0, 0)
    assert put(cache, "a") == ["a"]


@given(
    st.lists(st.one_of(st.none(), st.tuples(st.integers(0, 8), st.integers(0, 40))), max_size=60), st.integers(0, 100)
)
def test_counts_its_bytes_and_keeps_to_its_bound(steps, bound):
    """None begins a round; anything else asks for a key of a size that only counts if it has to be made."""
    cache = ByteLru(bound)
    this_round: dict[int, int] = {}
    for step in steps:
        if step is None:
            cache.begin_round()
            this_round.clear()
            continue
        key, size = step
        this_round[key] = cache.get(key, lambda size=size: Thing(size)).nbytes
        assert cache.nbytes == sum(value.nbytes for _, value in cache._entries.values())
        assert cache.nbytes <= max(bound, sum(this_round.values()))
        assert set(this_round) <= set(cache._entries)
