"""One colour per class, the same in every picture.

The first eight are Okabe and Ito's, which stay apart for colour-blind eyes (the black among them is replaced); further
ones walk round the hues by the golden angle. Wherever a colour stands, the class's name stands too.
"""

from __future__ import annotations

import colorsys

_OKABE_ITO = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (213, 94, 0),
    (204, 121, 167),
    (0, 114, 178),
    (170, 170, 170),
)
_GOLDEN_ANGLE = 0.381966


def class_rgb(class_id: int) -> tuple[int, int, int]:
    """Red, green and blue, 0 to 255, of a class from 0."""
    if class_id < len(_OKABE_ITO):
        return _OKABE_ITO[class_id]
    turn = class_id - len(_OKABE_ITO)
    red, green, blue = colorsys.hls_to_rgb((turn * _GOLDEN_ANGLE) % 1, (0.5, 0.65, 0.38)[turn % 3], 0.75)
    return round(255 * red), round(255 * green), round(255 * blue)


def class_hex(class_id: int) -> str:
    """The same as CSS writes it: `#e69f00`."""
    return "#{:02x}{:02x}{:02x}".format(*class_rgb(class_id))
