"""Which screens are the same, which clicks, and what counts as tried."""

import dataclasses
import itertools

import numpy as np
import pytest

from envs.actions import VOCABULARY, Click, Drag, Scroll, Type
from policies.tried import TriedActions, alike, look_at


def screen(width=320, height=240):
    return np.random.default_rng(1).integers(0, 255, (height, width, 3), dtype=np.uint8)


def changed(base, x, y, width, height):
    other = base.copy()
    other[y : y + height, x : x + width] = 255 - other[y : y + height, x : x + width]
    return other


def test_a_clock_that_moved_between_two_first_screens_does_not_make_another_screen():
    base = screen()
    tried = TriedActions(0.02)
    tried.first(look_at(base))
    tried.begin(again=False)
    tried.add(look_at(base), (Click(5, 5),))
    clock = changed(base, 280, 4, 30, 10)
    assert tried.on(look_at(clock)) == ()  # not known to be restless yet
    tried.begin(again=False)
    tried.first(look_at(clock))
    later = changed(base, 285, 4, 30, 10)  # another minute
    assert tried.on(look_at(later)) == ((Click(5, 5),),)
    ticked = changed(later, 40, 100, 12, 12)  # and a box that was ticked
    assert tried.on(look_at(ticked)) == ()


def test_another_page_at_the_beginning_teaches_nothing():
    base, tried = screen(), TriedActions(0.02)
    tried.first(look_at(base))
    tried.first(look_at(255 - base))
    tried.add(look_at(base), (Click(5, 5),))
    assert tried.on(look_at(255 - base)) == () and len(tried.on(look_at(base))) == 1


def test_a_text_cursor_is_known_by_its_shape():
    base, tried = screen(), TriedActions(0.02)
    base[40:120, 90:200] = 250  # a field
    tried.add(look_at(base), (Type("a"),))
    assert len(tried.on(look_at(changed(base, 100, 50, 2, 14)))) == 1
    assert len(tried.on(look_at(changed(base, 127, 60, 2, 14)))) == 1  # across cells
    for width, height in ((6, 14), (2, 60), (12, 12)):
        assert tried.on(look_at(changed(base, 100, 50, width, height))) == ()
    letter = changed(base, 100, 50, 2, 14)
    letter[50:64, 101] = 128  # drawn with a grey edge, as letters are
    tall = changed(base, 100, 50, 1, 14)
    tall[52:60, 101] = 0  # not a rectangle
    for other in (letter, tall, changed(base, 100, 50, 1, 1), changed(base, 20, 50, 2, 14)):  # the last one over a picture
        assert tried.on(look_at(other)) == ()
    assert tried.on(look_at(screen(336))) == ()  # another size


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ((Click(10, 10),), True),
        ((Click(12, 12),), True),
        ((Click(10, 14),), False),
        ((Click(10, 10), Type("a")), False),
        ((Drag(10, 10, 10, 10),), False),
    ],
)
def test_a_click_within_the_radius_is_the_same_click(other, same):
    assert alike((Click(10, 10),), other, 3.2) is same


def every_kind():
    """One action of every kind in the vocabulary, with what it must have, and with everything it may have."""
    values = {
        **dict.fromkeys(("x", "y", "end_x", "end_y"), 10.0), "seconds": 1.0, "text": "a", "submit": True, "keys": ("ctrl", "c"),
        "direction": "down", "clicks": 3, "name": "Clock", "reason": "no action",
    }  # fmt: skip
    for cls in VOCABULARY.values():
        fields = dataclasses.fields(cls)
        needed = [f for f in fields if f.default is dataclasses.MISSING]
        yield from dict.fromkeys(cls(**{f.name: values[f.name] for f in some}) for some in (needed, fields))


def test_every_kind_of_action_is_like_itself_and_like_no_other():
    kinds = list(every_kind())
    assert {type(action) for action in kinds} == set(VOCABULARY.values())
    for action in kinds:
        assert alike((action,), (dataclasses.replace(action),), 0.0), action
    for one, other in itertools.permutations(kinds, 2):
        assert not alike((one,), (other,), 3.2), (one, other)


def test_the_end_of_a_scroll_is_a_place_like_its_beginning():
    drawn = Scroll(10, 10, "down", 10, 90)
    assert alike((drawn,), (Scroll(11, 10, "down", 10, 92),), 3.2)
    assert not alike((drawn,), (Scroll(10, 10, "down", 10, 60),), 3.2)
    assert not alike((drawn,), (Scroll(10, 10, "down"),), 3.2)


def test_only_what_was_blamed_counts_as_tried():
    base, tried = screen(), TriedActions(0.02)
    tried.begin(again=False)
    looks = [look_at(changed(base, 0, 20 * i, 10, 10)) for i in range(3)]
    for i, look in enumerate(looks):
        tried.add(look, (Click(i, i),))
    tried.blame([0.3, -1.0, -0.2])
    tried.begin(again=False)
    assert [len(tried.on(look)) for look in looks] == [0, 1, 1]
    tried.add(looks[0], (Click(9, 9),))
    tried.begin(again=True)  # it was void
    assert tried.on(looks[0]) == ()
