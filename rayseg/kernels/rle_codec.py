"""COCO's compressed RLE strings, as kernels over one flat byte buffer.

A mask is a sequence of run lengths in column-major order, zeros first. Each run after the third is stored as its
difference to the run two before it; a difference is cut into 5-bit groups, lowest first, one printable byte per group
(48 + group, + 32 when another follows), sign-extended from the last group: pycocotools' `rleToString`.

Runs of N masks lie in one int64 array with offsets (N + 1); so do the bytes.
"""

from __future__ import annotations

import numpy as np

from rayseg.kernels.compilation import kernel

# Reasons `inspect_counts` gives, by code; 0 is "valid".
REASONS = (
    "",
    "holds a byte outside '0'..'o'",
    "ends in the middle of a number",
    "holds a number of more than 6 digits",
    "holds a negative run",
    "holds a run of length 0 after the first",
    "covers fewer pixels than the image has",
    "covers more pixels than the image has",
    "is empty",
)
MAX_DIGITS = 7  # 35 bits: any run of an image below 2**34 pixels


@kernel
def put_number(buffer, position, value):
    """Write one signed number at `position`; returns the position after it. Needs `MAX_DIGITS` bytes of room."""
    while True:
        digit = value & 31
        value >>= 5
        if (value == 0 and digit < 16) or (value == -1 and digit >= 16):
            buffer[position] = digit + 48
            return position + 1
        buffer[position] = digit + 80
        position += 1


@kernel
def reserved(buffer, used, room):
    """`buffer`, or a longer copy of its first `used` elements where `room` more do not fit."""
    if used + room <= len(buffer):
        return buffer
    longer = np.empty(2 * (used + room), buffer.dtype)
    longer[:used] = buffer[:used]
    return longer


@kernel
def put_edges(buffer, position, edges, size):
    """Write the mask of `size` pixels that changes at the flat indices `edges`; returns the position after it.

    Edges never fall; two equal ones cancel, one at `size` is passed over. Needs `MAX_DIGITS` bytes of room for each edge
    and two more.
    """
    start, before, last = np.int64(0), np.int64(0), np.int64(0)
    runs = 0
    k, n = 0, len(edges)
    while k < n:
        end = edges[np.uint64(k)]
        if k + 1 < n and edges[np.uint64(k + 1)] == end:
            k += 2
            continue
        if end == size:
            break
        run = end - start
        number = run - before if runs > 2 else run
        if -16 <= number < 16:  # nearly all, where an outline is smooth
            buffer[np.uint64(position)] = (number & 31) + 48
            position += 1
        else:
            position = put_number(buffer, position, number)
        start, before, last = end, last, run
        runs += 1
        k += 1
    run = size - start
    return put_number(buffer, position, run - before if runs > 2 else run)


@kernel
def compress_runs(runs, run_offsets):
    """Bytes and byte offsets (N + 1) of the masks whose runs are given."""
    n = len(run_offsets) - 1
    buffer = np.empty(len(runs) * MAX_DIGITS, np.uint8)
    offsets = np.zeros(n + 1, np.int64)
    position = 0
    for i in range(n):
        first = run_offsets[i]
        for k in range(first, run_offsets[i + 1]):
            value = runs[k]
            if k - first > 2:
                value -= runs[k - 2]
            position = put_number(buffer, position, value)
        offsets[i + 1] = position
    return buffer[:position].copy(), offsets


@kernel
def decompress_counts(buffer, offsets):
    """Runs and run offsets (N + 1) of N compressed masks. Does not check them: see `inspect_counts`."""
    n = len(offsets) - 1
    runs = np.empty(offsets[n] - offsets[0], np.int64)
    run_offsets = np.zeros(n + 1, np.int64)
    count = 0
    for i in range(n):
        first = count
        value = np.int64(0)
        shift = 0
        for p in range(offsets[i], offsets[i + 1]):
            byte = np.int64(buffer[p]) - 48
            value |= (byte & 31) << shift
            shift += 5
            if byte & 32:
                continue
            if byte & 16:
                value |= np.int64(-1) << shift
            if count - first > 2:
                value += runs[count - 2]
            runs[count] = value
            count += 1
            value = np.int64(0)
            shift = 0
        run_offsets[i + 1] = count
    return runs[:count].copy(), run_offsets


@kernel
def inspect_counts(buffer, offsets, height, width):
    """Check N compressed masks against an image size.

    Returns codes (N,) into `REASONS`, areas (N,) int64 and boxes_xywh (N, 4) int64, which are 0 where the code is not.
    """
    n = len(offsets) - 1
    codes = np.zeros(n, np.int64)
    areas = np.zeros(n, np.int64)
    boxes = np.zeros((n, 4), np.int64)
    for i in range(n):
        codes[i] = _inspect(buffer[offsets[i] : offsets[i + 1]], height, width, i, areas, boxes)
        if codes[i] != 0:
            areas[i] = 0
            boxes[i] = 0
    return codes, areas, boxes


@kernel
def _inspect(data, height, width, i, areas, boxes):
    """Walk one mask once; writes its area and box at row `i` and returns a code into `REASONS`."""
    size = height * width
    if len(data) == 0:
        return 8
    left, top, right, bottom = width, height, np.int64(-1), np.int64(-1)
    position = np.int64(0)
    before, last, count = np.int64(0), np.int64(0), 0  # the runs two and one before; runs so far
    value, shift = np.int64(0), 0
    area = np.int64(0)
    for byte in data:
        digit = np.int64(byte) - 48
        if digit < 0 or digit > 63:
            return 1
        if shift >= 5 * MAX_DIGITS:
            return 3
        value |= (digit & 31) << shift
        shift += 5
        if digit & 32:
            continue
        if digit & 16:
            value |= np.int64(-1) << shift
        if count > 2:
            value += before
        if value < 0:
            return 4
        if value == 0 and count > 0:
            return 5
        if position + value > size:
            return 7
        if count % 2 == 1:
            area += value
            end = position + value - 1
            x0, x1 = position // height, end // height
            left, right = min(left, x0), max(right, x1)
            if x0 == x1:
                top, bottom = min(top, position - x0 * height), max(bottom, end - x1 * height)
            else:
                top, bottom = np.int64(0), height - 1
        position += value
        before, last = last, value
        count += 1
        value, shift = np.int64(0), 0
    if shift != 0:
        return 2
    if position != size:
        return 6
    areas[i] = area
    if area > 0:
        boxes[i, 0], boxes[i, 1] = left, top
        boxes[i, 2], boxes[i, 3] = right - left + 1, bottom - top + 1
    return 0


@kernel
def runs_areas(runs, run_offsets):
    """Pixels of each mask, (N,) int64."""
    n = len(run_offsets) - 1
    areas = np.zeros(n, np.int64)
    for i in range(n):
        for k in range(run_offsets[i] + 1, run_offsets[i + 1], 2):
            areas[i] += runs[k]
    return areas


@kernel
def runs_boxes(runs, run_offsets, height):
    """Tight boxes (N, 4) int64 as x, y, width, height; zeros where a mask is empty. Runs of length 0 are passed over."""
    n = len(run_offsets) - 1
    boxes = np.zeros((n, 4), np.int64)
    for i in range(n):
        position = np.int64(0)
        left, top, right, bottom = np.int64(-1), height, np.int64(-1), np.int64(-1)
        for k in range(run_offsets[i], run_offsets[i + 1]):
            run = runs[k]
            if (k - run_offsets[i]) % 2 == 1 and run > 0:
                end = position + run - 1
                x0, x1 = position // height, end // height
                if left < 0:
                    left = x0
                right = x1
                if x0 == x1:
                    top, bottom = min(top, position - x0 * height), max(bottom, end - x1 * height)
                else:
                    top, bottom = np.int64(0), height - 1
            position += run
        if left >= 0:
            boxes[i, 0], boxes[i, 1] = left, top
            boxes[i, 2], boxes[i, 3] = right - left + 1, bottom - top + 1
    return boxes


@kernel
def fill_runs(runs, mask_flat):
    """Paint the odd runs of one mask into `mask_flat`, zeros of H * W uint8 in column-major order."""
    position = np.int64(0)
    for k in range(len(runs)):
        if k % 2 == 1:
            mask_flat[position : position + runs[k]] = 1
        position += runs[k]
