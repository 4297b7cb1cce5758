"""From ranked detections to precision, recall and average precision, class by class: COCO's `accumulate`, with weights.

Precision at a recall is the best that any later place in the ranking has, read at given recalls (101 for COCO) and 0 where
the recall is never reached. Images may count more than once (`weights`), as a bootstrap draws them; with weights of 1 the
values are pycocotools' to the last bit. Only places with a hit are kept on the way: between them precision only falls.

Shapes: D detections, by class and within a class in falling order of score; K classes, I images, T IoU thresholds,
R recalls, B score bins.
"""

from __future__ import annotations

import numpy as np

from rayseg.kernels.compilation import kernel

_EPSILON = np.spacing(1.0)  # what the COCO API adds to each denominator


@kernel
def precision_at_recalls(class_starts, images, matched, ignored, weights, truths, recalls, thresholds):
    """Precision (T, R, K) and recall (T, K), -1 for a class without truths.

    `class_starts` (K + 1,) int64; `images` (D,) integers; `matched`, `ignored` (D,) uint16 with a bit per threshold;
    `weights` (I,) float64; `truths` (K,) float64, the weight of each class's truths; `thresholds` is T.
    """
    classes = len(class_starts) - 1
    precision = np.full((thresholds, len(recalls), classes), -1.0)
    recall = np.full((thresholds, classes), -1.0)
    hits, values = np.empty(len(images), np.float64), np.empty(len(images), np.float64)
    for c in range(classes):
        if truths[c] == 0:
            continue
        begin, end = class_starts[c], class_starts[c + 1]
        for t in range(thresholds):
            count, total = _hits(begin, end, images, matched, ignored, weights, t, hits, values)
            recall[t, c] = total / truths[c]
            place = 0
            for r in range(len(recalls)):
                while place < count and hits[place] / truths[c] < recalls[r]:
                    place += 1
                precision[t, r, c] = values[place] if place < count else 0.0
    return precision, recall


@kernel
def average_precisions(class_starts, images, matched, ignored, weights, truths, recalls, thresholds):
    """The mean of `precision_at_recalls` over recalls, (T, K), -1 for a class without truths."""
    classes = len(class_starts) - 1
    averages = np.full((thresholds, classes), -1.0)
    hits, values = np.empty(len(images), np.float64), np.empty(len(images), np.float64)
    for c in range(classes):
        if truths[c] == 0:
            continue
        begin, end = class_starts[c], class_starts[c + 1]
        for t in range(thresholds):
            count, _ = _hits(begin, end, images, matched, ignored, weights, t, hits, values)
            place, total = 0, 0.0
            for r in range(len(recalls)):
                while place < count and hits[place] / truths[c] < recalls[r]:
                    place += 1
                total += values[place] if place < count else 0.0
            averages[t, c] = total / len(recalls)
    return averages


@kernel
def _hits(begin, end, images, matched, ignored, weights, threshold, hits, values):
    """Write the weight of hits so far and the best precision from there on, for each hit; their number and the last sum."""
    bit = np.uint16(1) << np.uint16(threshold)
    true, false, count = 0.0, 0.0, 0
    for d in range(begin, end):
        weight = weights[images[d]]
        if ignored[d] & bit or weight == 0:
            continue
        if matched[d] & bit:
            true += weight
            hits[count], values[count] = true, true / (false + true + _EPSILON)
            count += 1
        else:
            false += weight
    for k in range(count - 2, -1, -1):
        values[k] = max(values[k], values[k + 1])
    return count, true


@kernel
def best_f1(class_starts, scores, hit, truths):
    """For each class the score threshold of the best F1 and, there, F1, precision and recall: (K, 4) float64.

    `hit` (D,) bool; the detections kept are those of at least the threshold. NaN for a class without truths or hits.
    """
    classes = len(class_starts) - 1
    best = np.full((classes, 4), np.nan)
    for c in range(classes):
        true, most = 0, 0.0
        begin, end = class_starts[c], class_starts[c + 1]
        for d in range(begin, end):
            true += hit[d]
            if d + 1 < end and scores[d + 1] == scores[d]:
                continue  # a threshold keeps or drops equal scores together
            kept = d + 1 - begin
            f1 = 2 * true / (kept + truths[c]) if truths[c] > 0 else 0.0
            if f1 > most:
                most = f1
                best[c, 0], best[c, 1] = scores[d], f1
                best[c, 2], best[c, 3] = true / kept, true / truths[c]
    return best
