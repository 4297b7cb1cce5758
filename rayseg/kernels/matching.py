"""Which detection finds which truth: COCO's greedy matching, error kinds, and matching whatever the class.

COCO (`COCOeval.evaluateImg` of the COCO API): within an image and a class, detections in falling order of score each take
the free truth of most overlap that reaches the threshold; one that counts goes before one to be ignored (a crowd, or a
size outside the range), and a crowd may be taken more than once. Of equal overlaps the later truth is taken. A detection
is ignored when its truth is, or when it has none and its own size is outside the range.

What is found is one bit per IoU threshold, so that a detection's record stays some bytes whatever is asked of it later.
Detections of an image lie by class, within a class best first; truths of an image lie by class too.

Shapes: I images, D detections, G truths, P pairs (see `overlaps`), T IoU thresholds (16 at most), A size ranges.
"""

from __future__ import annotations

import numpy as np

from rayseg.kernels.compilation import kernel

TRUE, CLASS, PLACE, BOTH, DUPLICATE, BACKGROUND, IGNORED = range(7)  # kinds that `error_kinds` tells apart


@kernel
def match(overlaps, places, det_starts, gt_starts, det_classes, det_areas, gt_classes, gt_areas, gt_crowd, thresholds,
          ranges):  # fmt: skip
    """Matched and ignored bits of detections (D, A) uint16, and the truth each has at each threshold (D, T) int32.

    The last is of the first size range, -1 for none.
    """
    n, t, a = len(det_classes), len(thresholds), len(ranges)
    matched, ignored = np.zeros((n, a), np.uint16), np.zeros((n, a), np.uint16)
    found = np.full((n, t), -1, np.int32)
    longest = 0
    for i in range(len(gt_starts) - 1):
        longest = max(longest, gt_starts[i + 1] - gt_starts[i])
    order, hidden = np.empty(longest, np.int64), np.empty(longest, np.bool_)
    taken = np.empty((t, longest), np.bool_)
    for i in range(len(det_starts) - 1):
        d, g = det_starts[i], gt_starts[i]
        while d < det_starts[i + 1]:
            label, d_end = det_classes[d], d
            while d_end < det_starts[i + 1] and det_classes[d_end] == label:
                d_end += 1
            while g < gt_starts[i + 1] and gt_classes[g] < label:
                g += 1
            g_end = g
            while g_end < gt_starts[i + 1] and gt_classes[g_end] == label:
                g_end += 1
            for r in range(a):
                low, high = ranges[r, 0], ranges[r, 1]
                last = _counting_first(gt_areas, gt_crowd, g, g_end, low, high, order, hidden)
                taken[:, : g_end - g] = False
                for k in range(d, d_end):
                    row = places[i] + (k - det_starts[i]) * (gt_starts[i + 1] - gt_starts[i]) - gt_starts[i]
                    outside = det_areas[k] < low or det_areas[k] > high
                    for s in range(t):
                        best = _best(overlaps, row, order, g_end - g, last, gt_crowd, taken[s], g, thresholds[s])
                        if best < 0:
                            ignored[k, r] |= np.uint16(outside) << np.uint16(s)
                            continue
                        taken[s, order[best] - g] = True
                        matched[k, r] |= np.uint16(1) << np.uint16(s)
                        ignored[k, r] |= np.uint16(hidden[best]) << np.uint16(s)
                        if r == 0:
                            found[k, s] = order[best]
            d, g = d_end, g_end
    return matched, ignored, found


@kernel
def _counting_first(areas, crowd, begin, end, low, high, order, hidden):
    """Put the truths `begin` to `end` in order, those that count first; returns how many do."""
    count = 0
    for wanted in (False, True):
        for g in range(begin, end):
            hide = crowd[g] or areas[g] < low or areas[g] > high
            if hide == wanted:
                order[count], hidden[count] = g, hide
                count += 1
        if not wanted:
            last = count
    return last


@kernel
def _best(overlaps, row, order, count, last, crowd, taken, begin, threshold):
    """Place in `order` of the truth that a detection takes, -1 for none."""
    best, most = -1, min(threshold, 1 - 1e-10)
    for p in range(count):
        if p == last and best >= 0:
            break  # it has one that counts: those to be ignored are not looked at
        g = order[p]
        if taken[g - begin] and not crowd[g]:
            continue
        if overlaps[row + g] >= most:
            most, best = overlaps[row + g], p
    return best


@kernel
def error_kinds(overlaps, places, det_starts, gt_starts, det_classes, gt_classes, gt_hidden, found, ignored, low, high):
    """What is wrong with each detection, (D,) uint8, and the truth it would have found (D,) int32, -1 for none.

    `found` (D,) is the truth that each has at the IoU threshold `high`, `ignored` (D,) bool whether it counts, `gt_hidden`
    (G,) bool the truths that do not. Bolya et al., "TIDE", 2020: the place is wrong (of its class, overlap in [low, high]),
    the class is (another class's truth, overlap >= high), a better one has the truth already, background (no overlap
    above `low`), or both class and place.
    """
    n = len(det_classes)
    kinds, targets = np.zeros(n, np.uint8), np.full(n, -1, np.int32)
    used = np.zeros(len(gt_classes), np.bool_)
    for d in range(n):
        if found[d] >= 0:
            used[found[d]] = True
    for i in range(len(det_starts) - 1):
        for d in range(det_starts[i], det_starts[i + 1]):
            if ignored[d]:
                kinds[d] = IGNORED
                continue
            if found[d] >= 0:
                targets[d] = found[d]
                continue
            row = places[i] + (d - det_starts[i]) * (gt_starts[i + 1] - gt_starts[i]) - gt_starts[i]
            own, other, second = (
                0.0,
                0.0,
                0.0,
            )  # the most overlap with its class, with another, with a used one of its class
            own_at, other_at = -1, -1
            for g in range(gt_starts[i], gt_starts[i + 1]):
                overlap = overlaps[row + g]
                if gt_hidden[g]:
                    continue
                if gt_classes[g] == det_classes[d]:
                    if overlap > own:
                        own, own_at = overlap, g
                    if used[g]:
                        second = max(second, overlap)
                elif overlap > other:
                    other, other_at = overlap, g
            if low <= own <= high:
                kinds[d], targets[d] = PLACE, own_at
            elif other >= high:
                kinds[d], targets[d] = CLASS, other_at
            elif second >= high:
                kinds[d], targets[d] = DUPLICATE, own_at
            elif max(own, other) <= low:
                kinds[d] = BACKGROUND
            else:
                kinds[d], targets[d] = BOTH, other_at
    return kinds, targets


@kernel
def match_any_class(overlaps, places, det_starts, gt_starts, order, gt_crowd, threshold):
    """The truth that each detection takes whatever its class, (D,) int32: -1 for none, -2 for a crowd.

    `order` (D,) int64 lists each image's detections best first. A crowd is taken where no other truth can be.
    """
    found = np.full(len(order), -1, np.int32)
    taken = np.zeros(len(gt_crowd), np.bool_)
    for i in range(len(det_starts) - 1):
        for k in range(det_starts[i], det_starts[i + 1]):
            d = order[k]
            row = places[i] + (d - det_starts[i]) * (gt_starts[i + 1] - gt_starts[i]) - gt_starts[i]
            most = threshold
            for g in range(gt_starts[i], gt_starts[i + 1]):
                if not taken[g] and not gt_crowd[g] and overlaps[row + g] >= most:
                    most, found[d] = overlaps[row + g], g
            if found[d] >= 0:
                taken[found[d]] = True
                continue
            for g in range(gt_starts[i], gt_starts[i + 1]):
                if gt_crowd[g] and overlaps[row + g] >= threshold:
                    found[d] = -2
    return found
