"""How many answers of the endpoint it takes until the history of a repository is trusted, and what ends that."""

from dx_dagster.importer.commits.trust import CERTAIN, SAMPLED, Trust


def test_the_oldest_are_compared_first_and_then_one_of_many() -> None:
    trust = Trust()
    newest_first = list(range(100, 0, -1))
    assert trust.choose("merged", newest_first) == [1, 2, 3, CERTAIN + SAMPLED]
    for _ in range(CERTAIN):
        trust.agreed("merged")
    assert trust.is_certain("merged")
    assert not trust.is_certain("squashed")
    # 47 of the first 100 came after the last comparison; of the next ones, 100 are not compared.
    assert trust.choose("merged", newest_first) == [CERTAIN + SAMPLED]


def test_an_answer_that_differs_breaks_its_kind_only() -> None:
    trust = Trust()
    trust.differed("rebased", empty=False)
    assert [trust.is_broken(kind) for kind in ("rebased", "merged", "open")] == [True, False, False]
    assert trust.choose("rebased", [1, 2, 3]) == []


def test_an_empty_answer_breaks_all_kinds_but_the_open_ones() -> None:
    trust = Trust()
    trust.differed("merged (branch closed)", empty=True)
    assert [trust.is_broken(kind) for kind in ("merged", "declined", "open")] == [True, True, False]


def test_an_empty_answer_about_an_open_pull_request_says_nothing_about_the_others() -> None:
    trust = Trust()
    trust.differed("open", empty=True)
    assert [trust.is_broken(kind) for kind in ("open", "merged")] == [True, False]
