"""The head is found, whatever is around it."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from jobs.mri.crop import border_brightness, crop_to_head, find_head
from jobs.mri.slices import Unusable
from jobs.phantoms.drawing import draw_head


@pytest.fixture(scope="module")
def head() -> np.ndarray:
    """Return a drawn head that fills its picture, uint8 [height, width], higher than wide."""
    return find_head(draw_head("healthy", np.random.default_rng(3)))[0]


def on_page(head: np.ndarray, page: int, margins=(60, 25, 10, 90)) -> Image.Image:
    """Return `head` on a page of one gray value, with margins left, top, right and bottom."""
    left, top, right, bottom = margins
    image = Image.new("L", (head.shape[1] + left + right, head.shape[0] + top + bottom), page)
    image.paste(Image.fromarray(head), (left, top))
    return image


def assert_same_crop(image: Image.Image, head: np.ndarray, tolerance: float = 6) -> None:
    found, expected = crop_to_head(np.asarray(image), 64), crop_to_head(head, 64)
    assert np.abs(found.astype(int) - expected).mean() < tolerance


def test_margins_of_any_width_are_cropped(head):
    assert_same_crop(on_page(head, 0), head)
    assert_same_crop(on_page(head, 0, (300, 200, 5, 0)), head)


def test_white_pillars_are_cropped(head):
    image = on_page(np.asarray(on_page(head, 0, (8, 8, 8, 8))), 255, (150, 0, 150, 0))
    assert_same_crop(image, head)


def test_a_frame_is_cropped(head):
    image = on_page(head, 0)
    ImageDraw.Draw(image).rectangle((3, 3, image.width - 4, image.height - 4), outline=255, width=2)
    assert_same_crop(image, head)


def test_letters_in_the_margin_are_cropped(head):
    image = on_page(head, 0, (60, 60, 60, 60))
    draw = ImageDraw.Draw(image)
    draw.text((4, 4), "A B C 12:30", 255)
    draw.text((4, image.height - 14), "R", 255)
    assert_same_crop(image, head)


def test_a_white_page_becomes_black(head):
    rows, columns = np.mgrid[-1 : 1 : head.shape[0] * 1j, -1 : 1 : head.shape[1] * 1j]
    inside = np.hypot(rows, columns) < 0.93
    image = on_page(np.where(inside, head, 255).astype(np.uint8), 255, (30, 30, 30, 30))
    shown = crop_to_head(np.asarray(image), 64)
    assert max(shown[0, 0], shown[0, -1], shown[-1, 0], shown[-1, -1]) < 30


def test_the_aspect_is_kept():
    rows, columns = np.mgrid[-100:100, -100:100]
    ellipse = np.where(np.hypot(rows / 80, columns / 40) < 1, 200, 0).astype(np.uint8)
    shown = crop_to_head(ellipse, 128) > 100
    height, width = shown.any(1).sum(), shown.any(0).sum()
    assert height > 115
    assert width / height == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("size", [32, 100, 256])
def test_the_size_is_the_one_asked_for(head, size):
    shown = crop_to_head(head, size)
    assert shown.shape == (size, size)
    assert shown.dtype == np.uint8


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (np.zeros((20, 300), np.uint8), "too-small"),
        (np.full((64, 64), 130, np.uint8), "blank"),
        (np.random.default_rng(0).integers(100, 105, (64, 64)).astype(np.uint8), "blank"),
        (np.pad(np.full((12, 12), 255, np.uint8), 150), "blank"),
    ],
)
def test_nothing_to_crop(image, reason):
    with pytest.raises(Unusable) as caught:
        crop_to_head(image, 64)
    assert caught.value.reason == reason


def test_border_brightness_is_the_mean_of_the_rim():
    image = np.full((100, 150), 10, np.uint8)
    image[2:-2, 2:-2] = 200
    assert border_brightness(image) == 10
    assert border_brightness(np.pad(np.zeros((38, 38), np.uint8), 1, constant_values=80)) == 80
