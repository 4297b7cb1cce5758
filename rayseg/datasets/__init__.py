"""What is done with whole data sets: splitting, merging, filtering, sampling, inspecting. All seeded, all lazy."""

from rayseg.datasets.merging import merge
from rayseg.datasets.selection import filter, sample
from rayseg.datasets.splits import Splits, grouped_split, random_split, stratified_split

__all__ = ["Splits", "filter", "grouped_split", "merge", "random_split", "sample", "stratified_split"]
