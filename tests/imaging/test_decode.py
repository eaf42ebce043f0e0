"""A picture is whole or broken, and broken ones say why."""

import io

import numpy as np
import pytest
from PIL import Image

from smpo.imaging import BrokenImage, content_id, decode


def saved(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def noise(width: int = 40, height: int = 30) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_a_lossless_picture_comes_back_exactly() -> None:
    picture = noise()
    assert (np.asarray(decode(saved(picture))) == np.asarray(picture)).all()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_what_is_cut_off_is_broken(kind: str) -> None:
    data = saved(noise(), kind)
    assert decode(data).size == (40, 30)
    with pytest.raises(BrokenImage):
        decode(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no bytes"),
        (b"<html>404</html>", "not a picture"),
        (saved(noise(), "JPEG")[:700], "truncated"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
    ],
)
def test_reasons_can_be_counted(data: bytes, reason: str) -> None:
    with pytest.raises(BrokenImage) as caught:
        decode(data)
    assert caught.value.reason == reason


def test_bombs_are_refused_before_they_unfold() -> None:
    bomb = saved(Image.new("1", (9_000, 9_000)))
    assert len(bomb) < 100_000
    with pytest.raises(BrokenImage, match="more than 64,000,000 pixels"):
        decode(bomb)


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    assert decode(saved(noise(40, 30), "JPEG", exif=exif)).size == (30, 40)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_laid_on_white(mode: str) -> None:
    picture = Image.new("RGBA", (4, 4), (0, 0, 0, 0)).convert(mode)
    options = {"transparency": 0} if mode == "P" else {}
    assert decode(saved(picture, **options)).getpixel((1, 1)) == (255, 255, 255)


def test_sixteen_bits_are_scaled_and_not_cut() -> None:
    grey = Image.fromarray(np.full((4, 4), 65535 // 2, dtype=np.uint16))
    assert decode(saved(grey)).getpixel((0, 0)) == (127, 127, 127)


def test_grey_and_cmyk_become_rgb() -> None:
    assert decode(saved(Image.new("L", (4, 4), 9))).getpixel((0, 0)) == (9, 9, 9)
    assert decode(saved(Image.new("CMYK", (4, 4)), "JPEG")).mode == "RGB"


def test_ids_follow_from_content() -> None:
    point = np.array([1.0, 2.0], dtype=np.float32)
    assert content_id(b"a") == content_id(b"a") != content_id(b"b")
    assert content_id(point) == content_id(np.array([[1.0, 9], [2, 9]], dtype=np.float32)[:, 0])
    assert content_id(point) != content_id(point.astype(np.float64))
    assert len(content_id(point)) == 32


@pytest.mark.parametrize("size", [(1, 20_000), (20_000, 1), (1_000, 15)])
def test_a_strip_is_no_picture(size: tuple[int, int]) -> None:
    """Of 157 bytes; scaled until its short side is 512 pixels it would have 5 thousand million pixels."""
    with pytest.raises(BrokenImage, match="64 times"):
        decode(saved(Image.new("RGB", size)))
    assert decode(saved(Image.new("RGB", (640, 10)))).size == (640, 10)
