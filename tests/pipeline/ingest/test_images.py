import numpy as np
import pytest
from PIL import Image

from pipeline.errors import QuarantineError
from pipeline.ingest import images
from pipeline.ingest.images import read_image, read_images

GRAY = np.random.default_rng(0).integers(0, 256, (20, 30)).astype(np.uint8)


@pytest.mark.parametrize("ending", ["png", "bmp", "tif"])
def test_gray_pixels_are_read_as_stored(tmp_path, ending):
    Image.fromarray(GRAY).save(tmp_path / f"a.{ending}")
    np.testing.assert_array_equal(read_image(tmp_path / f"a.{ending}"), GRAY)


def test_a_color_image_of_equal_channels_is_gray_and_others_stay_color(tmp_path):
    equal = np.repeat(GRAY[..., None], 3, axis=2)
    Image.fromarray(equal).save(tmp_path / "equal.png")
    color = equal.copy()
    color[0, 0, 2] ^= 1
    Image.fromarray(color).save(tmp_path / "color.png")
    np.testing.assert_array_equal(read_image(tmp_path / "equal.png"), GRAY)
    np.testing.assert_array_equal(read_image(tmp_path / "color.png"), color)


def test_sixteen_bits_palettes_one_bit_and_opaque_alpha_are_understood(tmp_path):
    deep = GRAY.astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(read_image(tmp_path / "deep.png"), deep)
    Image.fromarray(GRAY).convert("P").save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_image(tmp_path / "palette.png"), GRAY)
    Image.fromarray(GRAY > 99).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(read_image(tmp_path / "bits.png"), np.where(GRAY > 99, 255, 0))
    Image.fromarray(np.dstack([GRAY, np.full_like(GRAY, 255)])).save(tmp_path / "alpha.png")
    np.testing.assert_array_equal(read_image(tmp_path / "alpha.png"), GRAY)


@pytest.mark.parametrize("pixels", [GRAY, np.dstack([GRAY] * 3)], ids=["gray", "color"])
def test_a_color_that_stands_for_transparent_is_refused_where_it_occurs(tmp_path, pixels):
    image = Image.fromarray(pixels)
    own = image.getpixel((0, 0))
    image.save(tmp_path / "holes.png", transparency=own)
    with pytest.raises(QuarantineError, match="transparent pixels"):
        read_image(tmp_path / "holes.png")


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 270 degrees to view
    Image.fromarray(GRAY).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "turned.png"), np.rot90(GRAY, 3))


def _cut(path):
    Image.fromarray(GRAY).save(path)
    path.write_bytes(path.read_bytes()[:-200])


def _transparent(path):
    Image.fromarray(np.dstack([GRAY, GRAY])).save(path)


def _frames(path):
    Image.fromarray(GRAY).save(path, format="TIFF", save_all=True, append_images=[Image.fromarray(GRAY)])


FAULTS = {
    "TRUNCATED": _cut,
    "UNREADABLE": lambda path: path.write_bytes(b"this is no image"),
    "MULTI_FRAME": _frames,
    "UNSUPPORTED_PIXELS": _transparent,
    "TOO_SMALL": lambda path: Image.fromarray(GRAY[:4]).save(path),
}


@pytest.mark.parametrize("reason", FAULTS)
def test_what_cannot_be_trusted_is_refused_by_reason(tmp_path, reason):
    FAULTS[reason](tmp_path / "x.png")
    with pytest.raises(QuarantineError) as caught:
        read_image(tmp_path / "x.png")
    assert caught.value.reason == reason


def test_a_large_image_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    Image.fromarray(GRAY).save(tmp_path / "x.png")
    monkeypatch.setattr(images, "MAX_PIXELS", 599)
    monkeypatch.setattr(images, "_pixels", lambda image: pytest.fail("decoded"))
    with pytest.raises(QuarantineError, match="30 x 20"):
        read_image(tmp_path / "x.png")


def test_formats_outside_the_list_are_not_tried(tmp_path):
    (tmp_path / "x.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n")
    (refusal,) = read_images((tmp_path / "x.png",))
    assert refusal.reason == "UNREADABLE"
