import numpy as np
import pytest
from traces import HEIGHT, WIDTH, screen

from retrospect.screens import Box, compare, identify, place, places


def noisy(base, sigma=3.0, seed=0):
    noise = np.random.default_rng(seed).normal(0, sigma, base.shape)
    return np.clip(base + noise, 0, 255).astype(np.uint8)


def test_noise_is_no_change_and_a_region_in_noise_is_found_where_it_is() -> None:
    plain = screen((10, 10, 50, 26))
    assert not compare(plain, noisy(plain))
    change = compare(plain, noisy(screen((10, 10, 50, 26), (100, 150, 130, 180))))
    assert [(b.left, b.top, b.right, b.bottom) for b in change.boxes] == [(100, 150, 130, 180)]
    assert change.share == pytest.approx(30 * 30 / (WIDTH * HEIGHT), rel=0.02)
    assert places(change, WIDTH, HEIGHT) == ("bottom right",)


def test_a_blinking_cursor_and_specks_are_no_change_but_one_typed_letter_is() -> None:
    field = screen((10, 40, 120, 41), (10, 60, 120, 61))
    cursor, letter, specks = field.copy(), field.copy(), field.copy()
    cursor[44:58, 20:21] = 0
    letter[46:56, 20:22], letter[46:48, 20:27] = 0, 0
    specks[5, 5], specks[100, 90] = 0, 0
    assert not compare(field, cursor)
    assert not compare(field, specks)
    assert compare(field, letter).boxes == (Box(20, 46, 27, 56),)


def test_separate_regions_are_told_apart_largest_first() -> None:
    change = compare(screen(), screen((5, 5, 25, 15), (100, 150, 150, 200)))
    assert change.boxes == (Box(100, 150, 150, 200), Box(5, 5, 25, 15))
    assert places(change, WIDTH, HEIGHT) == ("bottom right", "top left")


def test_a_screen_of_another_size_differs_everywhere() -> None:
    change = compare(screen(), screen()[:100])
    assert change.share == 1.0
    assert places(change, WIDTH, 100) == ("most of the screen",)


def test_a_border_that_is_no_multiple_of_the_block_is_looked_at() -> None:
    assert compare(screen(), screen((WIDTH - 6, HEIGHT - 6, WIDTH, HEIGHT))).boxes == (Box(154, 204, 160, 210),)


def test_equal_looking_screens_get_equal_numbers() -> None:
    home, menu = screen((10, 10, 50, 26)), screen((10, 10, 50, 26), (100, 100, 106, 106))
    assert identify([home, menu, noisy(home), noisy(menu, seed=1), screen()]) == [0, 1, 0, 1, 2]


def test_low_contrast_text_is_a_change_although_bright_channels_agree() -> None:
    red = screen()
    red[50:60, 50:80, 1:] = 180
    assert compare(screen(), red)


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (0, 0, "top left"),
        (159, 209, "bottom right"),
        (80, 105, "middle"),
        (80, 0, "top"),
        (159, 105, "right"),
        (160, 210, "bottom right"),
    ],
)
def test_places_are_words(x: float, y: float, words: str) -> None:
    assert place(x, y, WIDTH, HEIGHT) == words
