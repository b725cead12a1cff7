"""Image files: upright uint8 RGB out of whatever Pillow reads; errors carry a code."""

import pathlib
import struct
import zlib

import numpy as np
import PIL.Image
import PIL.ImageOps
import simplejpeg

from msddf_jax.faces.video import MediaError
from msddf_jax.opencv import cv2

try:
    import pillow_heif
except ImportError:  # an extra; the message of a file that needs it says so
    pass
else:
    pillow_heif.register_heif_opener()

MAX_IMAGE_PIXELS = 100_000_000
MIN_IMAGE_SIDE = 16
# An image of 16 bits that is darker than this throughout holds 12 bits or fewer, as cameras and microscopes save them.
_LEAST_16_BITS = 4096
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_TIFF = (b"II", b"MM")
_PNG = b"\x89PNG\r\n\x1a\n"


class ImageError(MediaError):
    """An image: `corrupt_image` (does not decode), `image_too_large`, `image_too_small` or `image_depth` (its numbers
    do not say which is white)."""


def read_image(path) -> np.ndarray:
    """Decodes an image file, upright by its EXIF orientation.

    Args:
      path: any format that Pillow reads.

    Returns:
      uint8 RGB [H, W, 3].

    Raises:
      ImageError: `corrupt_image` (missing, not an image, cut off), `image_too_large` (over 100 megapixels,
        found before decoding), `image_too_small` (a side under 16 pixels holds no face), `image_depth` (numbers of more
        than 8 bits that fill no known range: guessed wrong, they would be black or many times too dark).
    """
    if not pathlib.Path(path).is_file():
        raise ImageError("corrupt_image", path, "no such file")
    damage = png_damage(pathlib.Path(path).read_bytes())
    if damage:
        raise ImageError("corrupt_image", path, f"does not decode ({damage})")
    try:
        with PIL.Image.open(path) as image:
            width, height = image.size
            if width * height > MAX_IMAGE_PIXELS:
                detail = f"{width}x{height} pixels, more than {MAX_IMAGE_PIXELS // 10**6} megapixels"
                raise ImageError("image_too_large", path, detail)
            if min(width, height) < MIN_IMAGE_SIDE:
                detail = f"{width}x{height} pixels; a face needs at least {MIN_IMAGE_SIDE} on each side"
                raise ImageError("image_too_small", path, detail)
            image.load()
            kind, deep = image.format, image.mode[0] in "IF"
            image = PIL.ImageOps.exif_transpose(image)
            if deep:
                return np.repeat(_grey_8_bits(np.asarray(image), kind, path)[..., None], 3, axis=2)
            _check_deep_colour(path)
            return np.array(image.convert("RGB"))
    except PIL.Image.DecompressionBombError as error:
        detail = f"more than {MAX_IMAGE_PIXELS // 10**6} megapixels"
        raise ImageError("image_too_large", path, detail) from error
    except PIL.UnidentifiedImageError as error:
        raise ImageError("corrupt_image", path, _unknown_format(path)) from error
    except ImageError:
        raise
    except (OSError, SyntaxError, EOFError, ValueError, TypeError, KeyError, IndexError, struct.error) as error:
        # Pillow raises SyntaxError for broken PNG chunks, the others where a damaged header leads it astray.
        raise ImageError("corrupt_image", path, f"does not decode ({error})") from error


def _grey_8_bits(grey, kind, path):
    """uint8 [H, W] of a grey image of more than 8 bits, which Pillow would clip at 255."""
    if grey.dtype.kind == "f":
        low, high = float(grey.min()), float(grey.max())
        if not 0.0 <= low <= high <= 1.0:  # also NaN
            raise ImageError("image_depth", path, f"floating-point pixels from {low:g} to {high:g}, expected 0 to 1")
        return np.rint(255.0 * grey).astype(np.uint8)
    if grey.dtype.itemsize > 2 and kind != "PNG":  # Pillow holds a PNG's 16 bits in 32
        raise ImageError("image_depth", path, "32-bit integer pixels do not say which number is white; save 8 or 16")
    _check_16_bits(int(grey.max()), path)
    return np.clip(grey.astype(np.int64) >> 8, 0, 255).astype(np.uint8)


def _check_deep_colour(path):
    """Refuse colour of 16 bits whose numbers are of fewer. Pillow keeps the upper 8 and shows no more of it."""
    with open(path, "rb") as file:
        head = file.read(32)
    # Bit depth and colour type of a PNG; a TIFF says it further inside.
    deep = head[24] == 16 and head[25] != 0 if head.startswith(_PNG) and len(head) > 25 else head[:2] in _TIFF
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if deep else None
    if pixels is not None and pixels.dtype == np.uint16:
        # Not the opacity, which may be full where the colours are not.
        colours = pixels if pixels.ndim == 2 else pixels[..., : 3 if pixels.shape[2] > 2 else 1]
        _check_16_bits(int(colours.max()), path)


def _check_16_bits(brightest, path):
    if 0 < brightest < _LEAST_16_BITS:
        bits = max(8, brightest.bit_length())
        detail = f"16-bit pixels that end at {brightest}: {bits} bits in 16? Save it with 8 bits"
        raise ImageError("image_depth", path, detail)


def _unknown_format(path):
    with open(path, "rb") as file:
        head = file.read(12)
    if head[4:8] == b"ftyp" and head[8:12] in _HEIC_BRANDS:
        return "a HEIC photo, which needs pillow-heif: pip install 'msddf-jax[heic]', or save it as JPEG"
    return "not an image"


def count_frames(path) -> int:
    """Images of an image file: more than 1 of an animation. Raises ImageError where it is no image."""
    try:
        with PIL.Image.open(path) as image:
            # Phones put a preview, or the other eye's image, behind a JPEG's own.
            return 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    except (OSError, SyntaxError, EOFError, ValueError, struct.error) as error:
        raise ImageError("corrupt_image", path, "not an image") from error


def png_damage(data) -> str:
    """What is wrong with a PNG file by its own checksums, which Pillow does not compare for pixels.

    Args:
      data: bytes of a file.

    Returns:
      one line, "" for a sound file and for other formats.
    """
    if not data.startswith(_PNG):
        return ""
    at = len(_PNG)
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        kind, end = data[at + 4 : at + 8], at + 8 + length
        if zlib.crc32(data[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big") or end + 4 > len(data):
            return f"checksum of the PNG chunk at byte {at} is wrong"
        if kind == b"IEND":
            return ""
        at = end + 4
    return "PNG file is cut short"


def jpeg_complaint(path) -> str:
    """What the JPEG decoder complains of though it gives an image: damage that Pillow keeps to itself.

    Args:
      path: an image file that `read_image` reads.

    Returns:
      one line, "" for a sound file and for other formats, which have checksums or fail.
    """
    data = pathlib.Path(path).read_bytes()
    if not data.startswith(b"\xff\xd8"):
        return ""
    try:
        simplejpeg.decode_jpeg(data, "GRAY", strict=True)
    except ValueError as error:
        return str(error)
    return ""
