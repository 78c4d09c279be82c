# ruff: noqa: PLR2004 - the numbers are chances: a name for each would say nothing more
"""Random words for names, titles and messages."""

from random import Random
from typing import Final

GIVEN_NAMES: Final = (
    *("Ada", "Amara", "Anders", "Aoife", "Bastian", "Beatriz", "Chidi", "Chloé", "Dariusz", "Divya", "Elif", "Emeka"),
    *("Farah", "Finn", "Giulia", "Hana", "Henrik", "Imani", "Inès", "Ivan", "Jiwoo", "Joaquín", "Kaito", "Katarzyna"),
    *("Lars", "Leilani", "Lucía", "Malik", "Mei", "Milo", "Nadia", "Noor", "Olga", "Oscar", "Priya", "Quentin"),
    *("Ravi", "Rosa", "Saskia", "Søren", "Tariq", "Thandi", "Uma", "Viktor", "Wanjiru", "Xenia", "Yusuf", "Zofia"),
)
FAMILY_NAMES: Final = (
    *("Abara", "Andersson", "Bauer", "Becker", "Castillo", "Chen", "Dubois", "Eriksen", "Farouk", "Fischer", "García"),
    *("Haddad", "Hoffmann", "Ibrahim", "Ito", "Jansen", "Kaplan", "Kowalski", "Kumar", "Laurent", "Lindqvist", "Mbeki"),
    *("Moreau", "Müller", "Nakamura", "Novák", "Okafor", "O'Brien", "Park", "Patel", "Quintero", "Rossi", "Sato"),
    *("Schneider", "Silva", "Tanaka", "Torres", "Ueda", "Varga", "Weber", "Wójcik", "Yamada", "Zhang", "Zimmermann"),
)
PROJECTS: Final = (("PAY", "Payments"), ("WEB", "Storefront"), ("DATA", "Data Platform"), ("OPS", "Infrastructure"))
DOMAINS: Final = (
    *("payments", "billing", "checkout", "catalog", "search", "identity", "notification", "shipping", "pricing"),
    *("inventory", "reporting", "analytics", "mobile", "design-system", "gateway", "ledger", "fraud", "support"),
)
SHAPES: Final = ("service", "api", "worker", "web", "client", "infra", "pipeline", "tools", "schema", "console")
LANGUAGES: Final = ("python", "go", "typescript", "java", "kotlin", "", "rust")
VERBS: Final = (
    *("Add", "Fix", "Remove", "Refactor", "Speed up", "Document", "Retry", "Cache", "Validate", "Log", "Rename"),
    *("Split", "Upgrade", "Harden", "Simplify", "Test", "Deprecate", "Guard against", "Paginate", "Translate"),
)
THINGS: Final = (
    *("the refund endpoint", "expired sessions", "invoice numbers", "webhook retries", "the address form"),
    *("currency rounding", "the health check", "database migrations", "feature flags", "the login redirect"),
    *("stock reservations", "the search index", "rate limits", "audit events", "password resets", "CSV exports"),
    *("tax rules for Norway", "the order timeline", "duplicate e-mails", "the session cookie", "S3 uploads"),
    *("dependency versions", "the metrics endpoint", "slow queries", "time zones in reports", "empty carts"),
)
TAILS: Final = (
    *("", "", "", "", " for guests", " behind a flag", " in the nightly job", " on mobile", " after a time-out"),
    *(" when the cache is cold", " for large accounts", " (part 2)", " without a restart", " in the EU region"),
)
BRANCH_PREFIXES: Final = ("feature", "bugfix", "hotfix", "chore", "feature", "feature")
ODD_TITLES: Final = (
    "{title}\u0000",
    "🚀 Ship it! 🎉 {title}",
    "Größe & Maße: {title} \u2013 “überarbeitet”",
    "{title}\t(with a tab)\u0007",
    "修正: {title}",
    "إصلاح: {title}",
    "{title} <script>alert('hi')</script>",
    'Quote "this", \\ and 100% of that; {title}',
    "👩‍👩‍👧‍👦 e\u0301 {title}",
)
REMARKS: Final = (
    *("Could we cover this with a test?", "Nit: the name says the opposite of what it does.", "Looks good to me."),
    *("Why not reuse the existing client here?", "This will block the event loop.", "Nice clean-up, thank you!"),
    *("What happens when the list is empty?", "Please add a line to the changelog.", "I would log this at warning."),
    *(
        "Does the migration run on a large table?",
        "Same here.",
        "Good catch.",
        "Left a few small remarks, none blocking.",
    ),
    *("I think this needs a time-out.", "Can we split this into two pull requests?", "Tested locally, works."),
)
REPLIES: Final = (
    *("Done.", "Fixed in the last commit.", "Good point, I changed it.", "I would rather leave that for a follow-up."),
    *("It cannot be empty: the caller checks.", "Thanks!", "Agreed.", "Not sure I follow, can we talk?"),
)
ODD_REMARKS: Final = (
    "A zero byte got pasted here: \u0000 \u2013 sorry.",
    "👍🏽 完璧です。 Ça marche; straße, naïve, Ω.",
    '| a | b |\n|---|---|\n| `x\u001b[31m` | "y" |\r\n\u2028next line',
    "Very long: " + "the quick brown fox jumps over the lazy dog, " * 60,
)
COMMIT_SUBJECTS: Final = (
    *("Add a failing test", "Make the test pass", "Address review remarks", "Fix the linter", "Rename for clarity"),
    *("Handle the empty case", "Extract a function", "Update the documentation", "Remove dead code", "Tidy imports"),
    *("Bump dependencies", "Wire it together", "Use the shared client", "Simplify the condition", "First sketch"),
)
PATHS: Final = (
    *("src/app.py", "src/orders/refund.py", "web/cart/Cart.tsx", "internal/server/server.go", "README.md"),
    *("tests/test_orders.py", "migrations/0042_add_index.sql", "deploy/values.yaml", "src/größe.py", "docs/setup.md"),
)


def pick(rng: Random, words: tuple[str, ...]) -> str:
    return words[int(rng.random() * len(words))]


def plain_title(rng: Random) -> str:
    """A title in plain English."""
    return f"{pick(rng, VERBS)} {pick(rng, THINGS)}{pick(rng, TAILS)}"


def title(rng: Random, key: str, number: int = 0) -> str:
    """The title of a repository's pull request `number`; some carry a ticket.

    One in forty, the seventh first, carries characters that break careless code.
    """
    text = plain_title(rng)
    if number % 40 == 7:
        return ODD_TITLES[number // 40 % len(ODD_TITLES)].format(title=text)
    return f"{key}-{int(rng.random() * 4000) + 1}: {text}" if rng.random() < 0.4 else text


def remark(rng: Random) -> str:
    return pick(rng, ODD_REMARKS) if rng.random() < 0.02 else pick(rng, REMARKS)


def branch(rng: Random, text: str) -> str:
    """A source branch's name, slashes included, that suits a title."""
    words = "".join(c if c.isascii() and c.isalnum() else " " for c in text.lower()).split()
    return f"{pick(rng, BRANCH_PREFIXES)}/{'-'.join(words[:5])}-{int(rng.random() * 100_000)}"


def repository_name(rng: Random) -> str:
    return f"{pick(rng, DOMAINS)}-{pick(rng, SHAPES)}"
