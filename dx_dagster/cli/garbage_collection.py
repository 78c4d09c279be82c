"""Garbage collection in processes that run for weeks."""

import gc


def collect_often() -> None:
    """Leaves what is loaded out of collections, which would delay answers by 0.1 s, and collects the rest often.

    Once a minute Dagster's daemon loads the definitions again: 20,000 objects of 5 MB, which refer to one another in
    circles. By the thresholds of a command, they would stay for hours.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 5, 5)
