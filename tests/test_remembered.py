"""What a server's series showed last: as long as it may be needed, and bounded."""

from joulemeter.remembered import MOST_DROPPED, MOST_REMEMBERED, Remembered


def test_what_is_on_pages_stays_and_what_is_long_absent_goes():
    kept: Remembered[str, int] = Remembered(forget_seconds=120.0)
    for at in range(2000):
        kept.turn(float(at), [("always", at), (f"of minute {at // 60}", at)])
    assert kept.get("always") == 1999
    assert kept.get("of minute 31") == 1919
    assert (kept.get("of minute 30"), kept.dropped("of minute 30")) == (None, True)
    assert (kept.get("of minute 2"), kept.dropped("of minute 2")) == (None, True)
    assert (kept.get("never"), kept.dropped("never")) == (None, False)
    assert len(kept) == 4


def test_labels_that_change_on_every_page_fill_no_memory():
    kept: Remembered[str, int] = Remembered()
    for at in range(40):
        kept.turn(float(at), [("always", at), *((f"{at}/{i}", i) for i in range(999))])
    assert len(kept) == MOST_REMEMBERED
    assert kept.get("always") == 39
    assert sum(kept.dropped(f"{at}/{i}") for at in range(40) for i in range(999)) == MOST_DROPPED


def test_a_page_of_many_series_is_remembered_whole():
    kept: Remembered[int, int] = Remembered()
    for at in range(3):
        kept.turn(float(at), ((i, at) for i in range(MOST_REMEMBERED + 10)))
    assert len(kept) == MOST_REMEMBERED + 10


def test_what_comes_back_is_dropped_no_more():
    kept: Remembered[str, int] = Remembered(forget_seconds=1.0)
    for at, page in enumerate(([("a", 1)], [], [], [("a", 2)])):
        kept.turn(float(at), page)
    assert kept.get("a") == 2
