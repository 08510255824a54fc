"""images.py: each kind of file is decoded in the documented way, or rejected with its reason."""

from __future__ import annotations

import contextlib
import io
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from stages.data import images
from stages.data.images import ImageRejected, PixelSpec, decode, decode_all
from tests.conftest import Pipeline
from tests.support.pictures import encoded, photograph, png_header

pillow_heif.register_heif_opener()  # to write HEIC

FULL = PixelSpec(32, 32, decode="full")


def expected(image: Image.Image, size: int = 32) -> np.ndarray:
    return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))


def halves(left: Any, right: Any, mode: str, size: tuple[int, int] = (8, 8)) -> Image.Image:
    image = Image.new(mode, size, left)
    image.paste(Image.new(mode, (size[0] // 2, size[1]), right), (size[0] // 2, 0))
    return image


def test_rgb_png_is_pillow_s_antialiased_bilinear() -> None:
    pixels = decode(encoded(photograph(), "PNG"), FULL)
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, expected(photograph()))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "HEIF"])
def test_every_format(kind: str) -> None:
    data = encoded(photograph(), kind)
    reference = expected(Image.open(io.BytesIO(data)))
    assert np.abs(decode(data, FULL).astype(int) - reference).max() == 0


def test_heic_is_decoded_upright_and_known_to_pillow_once_a_file_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for mode in ("RGB", "L", "RGBA"):
        data = encoded(photograph(mode), "HEIF", exif=exif.tobytes(), quality=95)
        monkeypatch.delitem(Image.OPEN, "HEIF")
        upright = expected(photograph().convert(mode).rotate(-90, expand=True))
        assert np.abs(decode(data, FULL).astype(int) - upright).mean() < 3


def test_heic_by_its_lesser_brands_and_without_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(photograph(), "HEIF")
    assert (data[4:12], data[16:24]) == (b"ftypheic", b"mif1heic")
    pixels = decode(data, FULL)
    data = data[:8] + b"mif1" + data[12:]
    assert np.array_equal(decode(data, FULL), pixels)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageRejected, match=r"^HEIC image: pip install pillow-heif$"):
        decode(data, FULL)
    assert decode(encoded(photograph(), "AVIF"), FULL).shape == (32, 32, 3)


def test_the_content_decides_not_the_name() -> None:
    """decode() never sees a name: a GIF called .jpg is a GIF."""
    assert decode(encoded(photograph("P"), "GIF"), FULL).shape == (32, 32, 3)


def test_grayscale_is_repeated() -> None:
    pixels = decode(encoded(photograph("L"), "PNG"), FULL)
    assert np.array_equal(pixels, expected(photograph("L")))


def test_palette() -> None:
    data = encoded(photograph("P"), "PNG")
    assert np.array_equal(decode(data, FULL), expected(Image.open(io.BytesIO(data))))


def test_one_bit() -> None:
    pixels = decode(encoded(halves(0, 1, "1"), "PNG"), PixelSpec(8, 8))
    assert pixels[0, 0].tolist() == [0, 0, 0]
    assert pixels[0, -1].tolist() == [255, 255, 255]


def test_cmyk_jpeg() -> None:
    data = encoded(photograph("CMYK"), "JPEG", quality=95)
    assert np.abs(decode(data, FULL).astype(int) - expected(photograph())).mean() < 3


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_clipped(kind: str) -> None:
    ramp = np.linspace(0, 65535, 32 * 32).reshape(32, 32).astype(np.uint16)
    pixels = decode(encoded(Image.fromarray(ramp), kind), FULL)
    assert np.array_equal(pixels[..., 0], np.rint(ramp / 257).astype(np.uint8))
    assert len(np.unique(pixels)) == 256


def test_sixteen_bits_of_either_byte_order_and_turned() -> None:
    ramp = np.linspace(0, 65535, 32 * 32).reshape(32, 32)
    exif = Image.Exif()
    exif[0x0112] = 6
    for mode, order, begins in (("I;16", "<u2", b"II*"), ("I;16B", ">u2", b"MM\0")):
        data = encoded(Image.frombytes(mode, (32, 32), ramp.astype(order).tobytes()), "TIFF", exif=exif)
        assert data.startswith(begins)
        assert np.array_equal(decode(data, FULL)[..., 0], np.rot90(np.rint(ramp.astype(int) / 257), -1))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_composited_over_white(mode: str) -> None:
    clear, solid = ((10, 20, 30, 0), (10, 20, 30, 255)) if mode == "RGBA" else ((10, 0), (10, 255))
    pixels = decode(encoded(halves(clear, solid, mode), "PNG"), PixelSpec(8, 8))
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[0, -1].tolist() == ([10, 20, 30] if mode == "RGBA" else [10, 10, 10])


def test_transparency_of_a_palette_and_of_a_grey() -> None:
    palette = halves(0, 1, "P")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    pixels = decode(encoded(palette, "PNG", transparency=0), PixelSpec(8, 8))
    assert (pixels[0, 0].tolist(), pixels[0, -1].tolist()) == ([255, 255, 255], [40, 50, 60])
    pixels = decode(encoded(halves(5, 9, "L"), "PNG", transparency=5), PixelSpec(8, 8))
    assert (pixels[0, 0].tolist(), pixels[0, -1].tolist()) == ([255, 255, 255], [9, 9, 9])


def test_the_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    for kind in ("GIF", "WEBP", "PNG", "TIFF", "AVIF", "HEIF"):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], quality=95)
        assert np.abs(decode(data, PixelSpec(8, 8)).astype(int) - (255, 0, 0)).max() < 5, kind


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    upright = np.zeros((16, 24), np.uint8)
    upright[:8, :12], upright[8:, 12:] = 80, 240
    undo = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: np.transpose,
        6: np.rot90,
        7: lambda a: np.rot90(np.transpose(a), 2),
        8: lambda a: np.rot90(a, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(undo[orientation](upright)))  # type: ignore[operator]
    for kind in ("PNG", "JPEG", "TIFF"):
        pixels = decode(encoded(stored, kind, exif=exif), PixelSpec(16, 24))
        assert np.abs(pixels[..., 0].astype(int) - upright).max() < 12, kind


def test_a_damaged_exif_block_is_no_reason_to_refuse() -> None:
    sound = expected(Image.open(io.BytesIO(encoded(photograph(), "JPEG"))))
    for damage in (b"MM\x00*\xff\xff\xff\xff", b"XX not a TIFF header", b"II*\x00\x08\x00\x00\x00\xff\xff"):
        data = encoded(photograph(), "JPEG", exif=b"Exif\x00\x00" + damage, dpi=(72, 72))
        for how in ("full", "scaled"):
            assert np.array_equal(decode(data, PixelSpec(32, 32, decode=how)), sound)


JPEG = encoded(photograph(), "JPEG")
PNG = encoded(photograph(), "PNG")
HEIC = encoded(photograph(), "HEIF")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "^empty file$"),
        (b"hello, I am a text", "^not an image of a known format$"),
        (b"%PDF-1.4 not for us", "^not an image of a known format$"),
        (JPEG[: len(JPEG) // 2], "^cannot be decoded: image file is truncated"),
        (PNG[: len(PNG) // 2], "^cannot be decoded: "),
        (HEIC[: len(HEIC) // 2], "^(cannot be decoded|not an image)"),
        (JPEG[:20], "^(cannot be decoded|not an image)"),
        (PNG[:60] + bytes(40) + PNG[100:], "^cannot be decoded: "),
        (png_header(60_000, 60_000), r"^60000x60000 is more than 250 Mpx \(data.max_pixels\)$"),
        (png_header(16_000, 16_000), r"^16000x16000 is more than 250 Mpx \(data.max_pixels\)$"),
        (encoded(Image.new("F", (8, 8), 0.5), "TIFF"), "^float pixels have no known range$"),
        (encoded(Image.new("I", (8, 8), 70_000), "TIFF"), "^signed 32-bit integer pixels have no known range$"),
        (encoded(photograph(), "PPM"), "^not an image of a known format$"),
    ],
)
def test_what_cannot_be_decoded_is_rejected_with_its_reason(data: bytes, reason: str) -> None:
    with pytest.raises(ImageRejected, match=reason):
        decode(data, FULL)


def test_any_truncation_or_flipped_byte_is_a_row_or_a_reject_never_another_error() -> None:
    rng = np.random.default_rng(0)
    for data in (
        JPEG,
        PNG,
        HEIC,
        encoded(photograph(), "GIF"),
        encoded(photograph(), "TIFF"),
        encoded(photograph(), "WEBP"),
    ):
        for _ in range(60):
            broken = bytearray(data[: rng.integers(1, len(data))] if rng.random() < 0.3 else data)
            broken[rng.integers(len(broken))] ^= int(rng.integers(1, 256))
            with contextlib.suppress(ImageRejected):
                assert decode(bytes(broken), FULL).shape == (32, 32, 3)


def test_squash_and_crop_and_pad() -> None:
    image = halves((255, 0, 0), (0, 0, 255), "RGB", (64, 32))
    data = encoded(image, "PNG")
    squash = decode(data, PixelSpec(32, 32, "squash"))
    assert np.array_equal(squash, expected(image))
    crop = decode(data, PixelSpec(32, 32, "crop"))
    assert np.array_equal(crop, np.asarray(image.crop((16, 0, 48, 32))))
    pad = decode(data, PixelSpec(32, 32, "pad"))
    assert not pad[:8].any()
    assert not pad[24:].any()
    assert np.array_equal(pad[8:24], np.asarray(image.resize((32, 16), Image.Resampling.BILINEAR)))


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (7, 3)])
@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
@pytest.mark.parametrize("resize", ["bilinear", "keras"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_odd_sizes(size: tuple[int, int], fit: Any, resize: Any, kind: str) -> None:
    assert decode(encoded(photograph(size=size), kind), PixelSpec(32, 24, fit, resize)).shape == (32, 24, 3)


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
def test_scaled_decoding_stays_near_full_and_above_twice_the_target(fit: Any) -> None:
    data = encoded(photograph(size=(900, 600)), "JPEG", quality=95)
    scaled, full = (decode(data, PixelSpec(48, 48, fit, "bilinear", how)).astype(int) for how in ("scaled", "full"))
    assert 0 < np.abs(scaled - full).mean() < 2


def test_scaled_decoding_delivers_at_least_twice_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(
        "stages.data.images._fit", lambda image, spec: seen.append(image.size) or image.resize((48, 48))
    )
    data = encoded(photograph(size=(900, 600)), "JPEG")
    for fit in ("squash", "crop", "pad"):
        decode(data, PixelSpec(48, 48, fit))
    assert seen == [(225, 150), (225, 150), (113, 75)]  # a quarter; a quarter; an eighth: 96 by 64 is enough to pad


def test_scaled_decoding_leaves_small_pictures_alone() -> None:
    data = encoded(photograph(size=(60, 60)), "JPEG")
    assert np.array_equal(decode(data, PixelSpec(32, 32)), decode(data, FULL))


@pytest.mark.parametrize(("kind", "decodings"), [("JPEG", 2), ("PNG", 1), ("WEBP", 1), ("TIFF", 1), ("HEIF", 1)])
def test_several_sizes_of_one_decoding_are_those_of_each_alone(
    kind: str, decodings: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A JPEG of 400 x 300 is scaled to a quarter for sizes of 32 and 40 pixels, and not at all for the others."""
    data = encoded(photograph(size=(400, 300)), kind)
    specs = [PixelSpec(32, 32), PixelSpec(40, 40, "pad"), PixelSpec(160, 160), PixelSpec(32, 32, "crop", decode="full")]
    alone = [decode(data, spec) for spec in specs]
    loaded: list[Any] = []
    upright = images._upright
    monkeypatch.setattr(images, "_upright", lambda image: (loaded.append(image.size), upright(image))[1])
    together = decode_all(data, specs)
    assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))
    assert len(loaded) == decodings, loaded


def test_the_shorter_side_is_resized_and_the_centre_cut_out() -> None:
    """As transformers does: get_resize_output_image_size and center_crop."""
    spec = PixelSpec(32, 48, "crop", "bicubic", "full", resize_to=50)
    for size in ((96, 64), (64, 101), (70, 70)):
        picture = photograph(size=size)
        shorter = min(size)
        resized = picture.resize((50 * size[0] // shorter, 50 * size[1] // shorter), Image.Resampling.BICUBIC)
        left, top = (resized.width - 48) // 2, (resized.height - 32) // 2
        assert np.array_equal(
            decode(encoded(picture, "PNG"), spec), np.asarray(resized)[top : top + 32, left : left + 48]
        )
    whole = decode(encoded(photograph(size=(800, 600)), "JPEG"), PixelSpec(64, 64, "crop", resize_to=80, decode="full"))
    scaled = decode(encoded(photograph(size=(800, 600)), "JPEG"), PixelSpec(64, 64, "crop", resize_to=80))
    assert np.abs(whole.astype(int) - scaled).mean() < 3
    assert PixelSpec(32, 32).components() == PixelSpec(32, 32, resize_to=None).components()
    assert "resize_to" not in PixelSpec(32, 32).components()


def test_bicubic_is_pillow_s() -> None:
    pixels = decode(encoded(photograph(), "PNG"), PixelSpec(32, 32, resize="bicubic"))
    assert np.array_equal(pixels, np.asarray(photograph().resize((32, 32), Image.Resampling.BICUBIC)))


def test_the_most_pixels_can_be_set_and_are_no_part_of_the_key() -> None:
    data = encoded(Image.new("L", (8_100, 8_000)), "PNG")  # 65 Mpx: a phone's picture
    assert decode(data, PixelSpec(32, 32)).shape == (32, 32, 3)
    spec = PixelSpec(32, 32, max_pixels=50_000_000)
    with pytest.raises(ImageRejected, match=r"^8100x8000 is more than 50 Mpx \(data.max_pixels\)$"):
        decode(data, spec)
    assert spec.components() == PixelSpec(32, 32).components()


@pytest.mark.parametrize("alpha", [0, 1, 255])
def test_a_bmp_whose_alpha_is_zero_everywhere_is_opaque(alpha: int) -> None:
    """As browsers have it: writers that know no alpha leave the fourth byte at 0."""
    image = photograph("RGBA")
    image.putalpha(alpha)
    over_white = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    bgra = np.asarray(image)[::-1, :, [2, 1, 0, 3]].tobytes()
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = struct.pack("<IiiHHIIiiII", 108, 96, 64, 1, 32, 3, len(bgra), 0, 0, 0, 0) + masks
    head = header.ljust(108, b"\0")
    data = struct.pack("<2sIHHI", b"BM", 14 + 108 + len(bgra), 0, 0, 14 + 108) + head + bgra
    assert np.array_equal(decode(data, FULL), expected(over_white if alpha else image))


def test_exif_that_would_take_all_memory_is_damaged_exif() -> None:
    entry = struct.pack("<HHII", 0x9286, 7, 3_000_000, 8)
    exif = b"II*\0" + struct.pack("<I", 3_000_008) + bytes(3_000_000)
    exif += struct.pack("<H", 60_000) + b"".join(struct.pack("<H", n) + entry[2:] for n in range(60_000))
    data = encoded(photograph(), "PNG", exif=exif)
    assert np.array_equal(decode(data, FULL), expected(photograph()))


def test_what_takes_too_long_in_python_is_a_reject(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow joins the comments of a GIF one by one, in a time that grows with the square of their number."""
    monkeypatch.setattr("stages.data.image_formats._MAX_SECONDS", 0.5)
    data = encoded(photograph("P"), "GIF")
    comment = b"\x21\xfe" + (b"\xff" + bytes(255)) * 400_000 + b"\0"
    at = 13 + 3 * 2 ** ((data[10] & 7) + 1)  # behind the palette
    with pytest.raises(ImageRejected, match=r"^takes more than 0.5 s"):
        decode(data[:at] + comment + data[at:], FULL)


def test_what_is_damaged_is_said_with_the_name_of_the_file(pipeline: Pipeline, project: Path) -> None:
    """As a warning where no pixel is lost, else in rejects.csv."""
    bad = project.parent / "images" / "dark"
    data = encoded(photograph(), "PNG")
    chunk = struct.pack(">I", 3) + b"tEXtA\0b" + bytes(4)
    (bad / "checksum.png").write_bytes(data[:33] + chunk + data[33:])
    jpeg = encoded(photograph(), "JPEG")
    (bad / "half.jpg").write_bytes(jpeg[: len(jpeg) // 2] + b"\xff\xd9")
    ran = pipeline("run", "extract", "-c", project)
    assert ran.code == 3
    assert f"{bad}/checksum.png: the PNG chunk tEXt has a wrong checksum, and is left out" in ran.err
    listed = (project.parent / "rejects.csv").read_text().splitlines()
    assert [line.rpartition(",")[0] for line in listed[1:]] == [
        "dark/half.jpg,ends early: the rest of the picture is missing"
    ]
