"""How long one image takes to decode, upright and as a C-contiguous (H, W, 3) array, by the ways there are.

    python tests/bench/images.py [FOLDER OF PHOTOS]

CPU milliseconds of one thread, best of several rounds, and the ratio to `rayseg.images.decode`. Photos of about 640x480
come from the folder (or are generated); the 12-megapixel one is a mosaic of them, so that its texture is real.
OpenCV is no dependency of rayseg; it stands here for what libjpeg-turbo alone takes.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
import torchvision.io  # noqa: F401  registers the operator
from PIL import Image, ImageOps

from rayseg import images

Decoder = Callable[[bytes], np.ndarray]


def pillow(data: bytes) -> np.ndarray:
    return np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))


def pillow_without_copies(data: bytes) -> np.ndarray:
    """Pillow at its best: no transposition, no conversion of what is RGB already."""
    image = Image.open(io.BytesIO(data))
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def torchvision_operator(data: bytes) -> np.ndarray:
    planes = torch.ops.image.decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), 3, True)
    return np.ascontiguousarray(planes.permute(1, 2, 0).numpy())


def opencv(data: bytes) -> np.ndarray:
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB))


JPEG: dict[str, Decoder] = {
    "rayseg": images.decode,
    "Pillow": pillow,
    "Pillow, no copies": pillow_without_copies,
    "torchvision": torchvision_operator,
    "OpenCV": opencv,
}
TURNED = {name: decoder for name, decoder in JPEG.items() if decoder is not pillow_without_copies}
OTHER: dict[str, Decoder] = {"rayseg": images.decode, "Pillow": pillow, "OpenCV": opencv}


def photos(folder: Path | None) -> list[Image.Image]:
    paths = sorted(folder.glob("*.jpg"))[:24] if folder else []
    found = [ImageOps.fit(Image.open(path).convert("RGB"), (640, 480)) for path in paths]
    noise = np.random.default_rng(0)
    while len(found) < 6:
        small = Image.fromarray(noise.integers(0, 256, (48, 64, 3), dtype=np.uint8))
        found.append(small.resize((640, 480), Image.Resampling.BICUBIC))
    return found


def mosaic(tiles: list[Image.Image], columns: int = 6, rows: int = 7) -> Image.Image:
    whole = Image.new("RGB", (640 * columns, 480 * rows))
    for i in range(columns * rows):
        whole.paste(tiles[i % len(tiles)], (640 * (i % columns), 480 * (i // columns)))
    return whole


def encode(image: Image.Image, image_format: str, orientation: int = 1, **options: int) -> bytes:
    exif = Image.Exif()
    exif[274] = orientation
    buffer = io.BytesIO()
    image.save(buffer, image_format, exif=exif, **options)
    return buffer.getvalue()


def milliseconds(decoder: Decoder, files: list[bytes], rounds: int) -> float:
    """CPU time per file in the best of the rounds; the first, which warms up, does not count."""
    times = []
    for _ in range(rounds + 1):
        start = time.thread_time()
        for data in files:
            decoder(data)
        times.append((time.thread_time() - start) / len(files))
    return 1000 * min(times[1:])


def table(title: str, files: list[bytes], decoders: dict[str, Decoder], rounds: int) -> None:
    expected = pillow(files[0]).shape
    taken = {name: milliseconds(decoder, files, rounds) for name, decoder in decoders.items()}
    print(f"\n{title}, {expected[0]}x{expected[1]} upright, {len(files)} file(s)")
    for name, ms in taken.items():
        print(f"  {name:<18} {ms:8.2f} ms   {ms / taken['rayseg']:5.2f}x")


def main() -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    small = photos(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
    large = mosaic(small)
    quality = {"quality": 90}
    table("JPEG", [encode(p, "JPEG", **quality) for p in small], JPEG, rounds=10)
    table("JPEG", [encode(large, "JPEG", **quality)], JPEG, rounds=6)
    table("JPEG, EXIF 6", [encode(p, "JPEG", 6, **quality) for p in small], TURNED, rounds=10)
    table("JPEG, EXIF 6", [encode(large, "JPEG", 6, **quality)], TURNED, rounds=6)
    for image_format in ("PNG", "WEBP"):
        table(image_format, [encode(p, image_format) for p in small[:6]], OTHER, rounds=4)
    headers = [encode(p, "JPEG", 6) for p in small]
    print(f"\nheader alone: {1000 * milliseconds(lambda d: images.header(d) and np.empty(0), headers, 10):.0f} us")


if __name__ == "__main__":
    main()
