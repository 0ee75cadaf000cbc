from reconciler._core.lru import LRU


def test_the_least_recently_used_entry_is_dropped() -> None:
    kept: LRU[str, int] = LRU(2)
    kept["a"], kept["b"] = 1, 2
    kept["a"] = 3  # used again
    kept["c"] = 4
    assert kept == {"a": 3, "c": 4}
    kept.move_to_end("a")
    kept["d"] = 5
    assert kept == {"a": 3, "d": 5}


def test_a_default_is_an_entry_as_any_other() -> None:
    kept: LRU[str, int] = LRU(1)
    assert (kept.setdefault("a", 1), kept.setdefault("a", 2), kept.setdefault("b", 3)) == (1, 1, 3)
    assert kept == {"b": 3}
