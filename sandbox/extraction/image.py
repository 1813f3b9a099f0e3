"""Recognises pictures, in order to say why they give no text."""

import io
import struct
import zlib
from typing import NoReturn

from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from sandbox.extraction.document import ExtractionError, parsing

_ADVICE = "Save or transfer it again."
_FAULTS = (Image.DecompressionBombError, struct.error, zlib.error)
_MAX_DECODED_PIXELS = 50_000_000


def read(data: bytes) -> NoReturn:
    """Raise ExtractionError: the picture is damaged, or it is sound and needs OCR."""
    with parsing("the image is damaged", _ADVICE, *_FAULTS):
        with Image.open(io.BytesIO(data)) as image:
            kind, (width, height), frames = image.format, image.size, getattr(image, "n_frames", 1)
            image.verify()
        # verify() looks at checksums at most, and leaves an object that is used up.
        with Image.open(io.BytesIO(data)) as image:
            _check_pixels(image, len(data))
    pages = f", {frames} pages" if frames > 1 else ""
    raise ExtractionError(
        f"the image ({kind}, {width} x {height} pixels{pages}) has no text layer; "
        "it needs OCR, which this tool does not do: convert it to a searchable PDF."
    )


def _check_pixels(image: Image.Image, size: int) -> None:
    """Raise OSError if pixels are missing."""
    if isinstance(image, TiffImageFile):
        # The library that decodes TIFF writes its complaints straight to stderr; where the strips end is enough.
        tags = image.tag_v2
        for offsets, lengths in ((273, 279), (324, 325)):
            ends = zip(tags.get(offsets, ()), tags.get(lengths, ()), strict=False)
            if any(offset + length > size for offset, length in ends):
                raise OSError("image file is truncated")
    elif image.width * image.height <= _MAX_DECODED_PIXELS:
        image.load()
