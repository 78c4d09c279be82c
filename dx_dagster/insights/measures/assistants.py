"""Which commit messages name an AI assistant: the trailers and footers that assistants write.

Names that people have too (Claude, Devin) count only with an assistant's address, or with what follows such a name of
an assistant.
"""

_ADDRESSES = (
    r"noreply@anthropic\.com",
    r"(?:cursoragent@cursor\.com|noreply@cursor\.sh)",
    r"(?:noreply|codex|chatgpt)@openai\.com",
    r"(?:noreply|aider)@aider\.chat",
    r"openhands@all-hands\.dev",
    r"amp@ampcode\.com",
    r"crush@charm\.land",
    r"junie@jetbrains\.com",
    r"\+copilot@users\.noreply\.github\.com",
)
_ACCOUNTS = r"(?:copilot-swe-agent|devin-ai-integration|google-labs-jules|gemini-code-assist|chatgpt-codex-connector)"
_NAMES = (
    r"(?:github )?copilot",
    r"claude(?:\s*$|\s*:|[\s-]+(?:code|opus|sonnet|haiku|\d))",
    r"(?:openai )?codex",
    r"chatgpt",
    r"gpt-?\d",
    r"cursor",
    r"gemini",
    r"aider",
    r"openhands",
    r"opencode",
    r"windsurf",
    r"codeium",
    r"devin ai",
    r"rovo ?dev",
    r"amazon q",
)
_ANY = "|".join((*_ADDRESSES, _ACCOUNTS, *(rf"\m{name}" for name in _NAMES)))
# Footers name the product: `Generated with [Claude Code](https://claude.com/claude-code)`.
_PRODUCTS = "|".join((*_NAMES, r"claude\M"))
_PATTERN = (
    rf"(?in)^\W*(?:(?:co-authored|co-developed|assisted|generated)-by|made-with)\s*:.*(?:{_ANY})"
    rf"|^\W*(?:generated|made|created) (?:with|by|using)\W+(?:{_PRODUCTS})"
)


def names_one(message: str) -> str:
    """SQL: whether the message names an assistant. Most messages fail the cheap conditions, and no pattern is tried."""
    cheap = " OR ".join(f"{message} LIKE '%%{part}%%'" for part in ("-_y:", "-_ith:", "-_Y:", "ated ", "ade "))
    pattern = _PATTERN.replace("'", "''").replace("%", "%%")
    return f"(({cheap}) AND {message} ~ '{pattern}')"
