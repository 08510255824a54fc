"""Owns bytes to pixels: decode, orient, fit to size. Not reading files, nor preprocessing for a network.

The rules, all of which are in the extract key (as its version, where there is no setting):

- Formats: JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF (where Pillow has it) and HEIC (with the extra of that name), by
  content, not by file name. The first frame only, of HEIC the primary image.
- EXIF orientation is applied, of HEIC the container's own.
- 16-bit grayscale is scaled to 8 bits, not clipped. 32-bit integer, signed and float pixels have no range, and are
  rejected.
- Alpha is composited over white; palette, CMYK and other colour spaces become RGB; grayscale is repeated. A BMP whose
  alpha is 0 everywhere is opaque, as in browsers.
- A JPEG that ends early is rejected, with an end marker or without: what is missing would be gray. Ancillary PNG chunks
  with a wrong checksum are left out, as libpng does, which is noted. Of a TIFF its tags decide (tiff.py).
- Metadata are neither needed nor limited: texts and colour profiles of any length are skipped.

Limits: pixels (`max_pixels`, read from the header before anything is decoded), scans of a JPEG, chunks of a PNG, and
processor time. In a process, one image above 50 Mpx is decoded at a time, in at most some 16 bytes a pixel.
"""

import contextlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageOps

from stages.data import jpeg, png, tiff
from stages.data.image_formats import ImageRejected, drop_hostile_exif, open_image

MAX_PIXELS = 250_000_000
"""Above today's cameras (200 Mpx)."""

_LARGE = 50_000_000
_large = threading.Lock()

Fit = Literal["squash", "crop", "pad"]
Resize = Literal["bilinear", "bicubic", "keras"]
Decode = Literal["scaled", "full"]

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True)
class PixelSpec:
    """How an image becomes pixels.

    fit: squash to size | crop the shorter side, centred | pad with black to the longer side. resize: bilinear or
    bicubic (Pillow, antialiased) | keras (half-pixel bilinear without antialias, as the Keras loaders do). decode:
    scaled (JPEG DCT scaling down to no less than twice the target) | full. max_pixels: larger images are rejected; no
    part of the key. resize_to: with crop, what the shorter side is resized to before the centre is cut out, as
    torchvision and transformers do; None cuts out as much as there is.
    """

    height: int
    width: int
    fit: Fit = "squash"
    resize: Resize = "bilinear"
    decode: Decode = "scaled"
    max_pixels: int = MAX_PIXELS
    resize_to: int | None = None

    def components(self) -> dict[str, Any]:
        """Its part of the extract key."""
        return {
            "size": [self.height, self.width],
            "fit": self.fit,
            "resize": self.resize,
            "antialias": self.resize != "keras",
            "decode": self.decode,
            "colour": "rgb",
            "exif": "applied",
            **({} if self.resize_to is None else {"resize_to": self.resize_to}),
        }

    def scale(self, height: float, width: float) -> float:
        """By how much an image of that size is enlarged, where it is not squashed."""
        if self.resize_to is not None:
            return self.resize_to / min(height, width)
        ratios = self.height / height, self.width / width
        return max(ratios) if self.fit == "crop" else min(ratios)


def fit_pixels(image: Image.Image, spec: PixelSpec) -> np.ndarray:
    """Pixels of an upright image of mode RGB: ndarray of shape (height, width, 3), uint8."""
    return _fitted(image, spec)


OnDamage = Callable[[str], object]
"""Called with what is damaged in a file though no pixel is lost."""


def decode(data: bytes, spec: PixelSpec | None, on_damage: OnDamage = lambda text: None) -> np.ndarray:
    """Pixels of one image file, without `spec` at full size: ndarray of shape (height, width, 3), uint8, RGB.

    Raises ImageRejected, with the reason, where pixels would be missing or wrong.
    """
    return decode_all(data, [spec], on_damage)[0]


def decode_all(
    data: bytes, specs: Sequence[PixelSpec | None], on_damage: OnDamage = lambda text: None
) -> list[np.ndarray]:
    """The same for each of `specs`. A file is decoded once, a JPEG once for each scale that they need."""
    if not data:
        raise ImageRejected("empty file")
    try:
        if data.startswith(png.MAGIC):
            data, notes = png.clean_png(data)
            for note in notes:
                on_damage(note)
        return _decode(data, specs)
    except ImageRejected:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageRejected(f"cannot be decoded: {reason}") from error


def _decode(data: bytes, specs: Sequence[PixelSpec | None]) -> list[np.ndarray]:
    markers = jpeg.read_markers(data) if data.startswith(jpeg.MAGIC) else None
    layout = tiff.read_layout(data) if data.startswith(tiff.MAGIC) else None
    image: Image.Image | None = None if layout and not tiff.pillow_is_right(layout) else open_image(data)
    if image is None and layout is None:
        raise ImageRejected("not an image of a known format")
    width, height = image.size if image is not None else (layout.width, layout.height)  # type: ignore[union-attr]
    most = min(MAX_PIXELS if spec is None else spec.max_pixels for spec in specs)
    if width * height > most:
        raise ImageRejected(f"{width}x{height} is more than {most / 1e6:g} Mpx (data.max_pixels)")
    with _large if width * height > _LARGE else contextlib.nullcontext():
        if image is None:
            image = tiff.read_pixels(data, layout)  # type: ignore[arg-type]
        if markers is None:
            upright = _upright(image)
            return [_fitted(upright, spec) for spec in specs]
        by_scale: dict[tuple[int, int], Image.Image] = {}
        fitted = []
        for spec in specs:
            drafted = image if not by_scale else open_image(data)  # its scale is set once
            assert drafted is not None
            _draft(drafted, spec)
            scale = drafted.size
            if scale not in by_scale:
                _load_jpeg(drafted, data, markers, spec)
                by_scale[scale] = _upright(drafted)
            fitted.append(_fitted(by_scale[scale], spec))
        return fitted


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    _orient(image)
    return _eight_bits(image)


def _fitted(image: Image.Image, spec: PixelSpec | None) -> np.ndarray:
    fitted = np.asarray(image if spec is None else _fit(image, spec))
    return np.repeat(fitted[:, :, None], 3, axis=2) if fitted.ndim == 2 else fitted


def _load_jpeg(image: Image.Image, data: bytes, markers: jpeg.Markers, spec: PixelSpec | None) -> None:
    """Decode at the scale that was set. Raises ImageRejected where the file ends early but for an end marker.

    libjpeg fills what is missing with gray, and Pillow does not pass on its warning. So a picture that ends in gray is
    decoded again with more data, which changes nothing where none was missing.
    """
    if markers.scans and not markers.one_scan and markers.lacks_scans():
        raise ImageRejected("ends early: its last scans are missing")
    image.load()
    last = image.getpixel((image.width - 1, image.height - 1))
    if markers.scans and markers.one_scan and set(last if isinstance(last, tuple) else (last,)) <= {127, 128}:
        again = open_image(jpeg.with_more_data(data, markers))
        assert again is not None
        _draft(again, spec)
        if again.tobytes() != image.tobytes():
            raise ImageRejected("ends early: the rest of the picture is missing")


def _draft(image: Image.Image, spec: PixelSpec | None) -> None:
    """Let the JPEG decoder scale down, to no less than twice what fitting needs, before orientation."""
    if spec is None or spec.decode == "full":
        return
    width, height = image.size
    try:
        drop_hostile_exif(image)
        turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    except Exception:  # noqa: BLE001 (as in _orient)
        turned = False
    target_w, target_h = map(float, (spec.height, spec.width) if turned else (spec.width, spec.height))
    if spec.fit != "squash":
        scale = spec.scale(width, height) if turned else spec.scale(height, width)
        target_w, target_h = width * scale, height * scale
    image.draft(None, (max(1, round(2 * target_w)), max(1, round(2 * target_h))))


def _orient(image: Image.Image) -> None:
    """Apply EXIF orientation in place; an upright image is not copied."""
    try:
        drop_hostile_exif(image)
        ImageOps.exif_transpose(image, in_place=True)
    except Exception:  # noqa: BLE001 (a damaged EXIF block does not reject sound pixels)
        return


def _eight_bits(image: Image.Image) -> Image.Image:
    """An image of mode L or RGB."""
    if image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ImageRejected(f"{'32-bit integer' if image.mode == 'I' else 'float'} pixels have no known range")
    mode = "L" if image.mode in ("1", "L") else "RGB"
    if image.format == "BMP" and image.mode == "RGBA" and not image.getchannel("A").getbbox():
        return image.convert("RGB")
    if not image.has_transparency_data:
        return image if image.mode == mode else image.convert(mode)
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, rgba).convert(mode)


def _fit(image: Image.Image, spec: PixelSpec) -> Image.Image:
    width, height = image.size
    if spec.fit == "squash":
        return _resize(image, spec.width, spec.height, (0.0, 0.0, width, height), spec)
    if spec.resize_to is not None:
        return _cut_centre(image, spec)
    scale = spec.scale(height, width)
    if spec.fit == "crop":
        half_w, half_h = spec.width / scale / 2, spec.height / scale / 2
        x, y = width / 2, height / 2
        box = (max(0.0, x - half_w), max(0.0, y - half_h), min(width, x + half_w), min(height, y + half_h))
        return _resize(image, spec.width, spec.height, box, spec)
    inner_w = min(spec.width, max(1, round(width * scale)))
    inner_h = min(spec.height, max(1, round(height * scale)))
    inner = _resize(image, inner_w, inner_h, (0.0, 0.0, width, height), spec)
    canvas = Image.new(image.mode, (spec.width, spec.height))
    canvas.paste(inner, ((spec.width - inner_w) // 2, (spec.height - inner_h) // 2))
    return canvas


def _cut_centre(image: Image.Image, spec: PixelSpec) -> Image.Image:
    """The whole image resized, the longer side rounded down, and its centre."""
    assert spec.resize_to is not None
    width, height = (spec.resize_to * side // min(image.size) for side in image.size)
    resized = _resize(image, width, height, (0.0, 0.0, image.width, image.height), spec)
    left, top = (width - spec.width) // 2, (height - spec.height) // 2
    return resized.crop((left, top, left + spec.width, top + spec.height))


def _resize(
    image: Image.Image, width: int, height: int, box: tuple[float, float, float, float], spec: PixelSpec
) -> Image.Image:
    if spec.resize != "keras":
        return image.resize((width, height), _FILTERS[spec.resize], box=box)
    return Image.fromarray(_half_pixel(np.asarray(image), width, height, box))


def _half_pixel(pixels: np.ndarray, width: int, height: int, box: tuple[float, float, float, float]) -> np.ndarray:
    """Bilinear at half-pixel centres without antialias, rounded to uint8: as `tf.image.resize` in float."""

    def taps(n: int, low: float, high: float, limit: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        at = low + (np.arange(n, dtype=np.float32) + 0.5) * np.float32((high - low) / n) - 0.5
        floor = np.floor(at)
        first = np.clip(floor, 0, limit - 1).astype(int)
        second = np.clip(floor + 1, 0, limit - 1).astype(int)
        return first, second, (at - floor).astype(np.float32)

    top, bottom, down = taps(height, box[1], box[3], pixels.shape[0])
    left, right, along = taps(width, box[0], box[2], pixels.shape[1])
    extra = (None,) * (pixels.ndim - 2)
    along, down = along[(None, slice(None), *extra)], down[(slice(None), None, *extra)]
    rows = pixels.astype(np.float32)
    upper = rows[top][:, left] * (1 - along) + rows[top][:, right] * along
    lower = rows[bottom][:, left] * (1 - along) + rows[bottom][:, right] * along
    return np.asarray(np.rint(upper * (1 - down) + lower * down), dtype=np.uint8)
