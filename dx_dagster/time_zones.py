"""Names of time zones that mean the same to Python and to PostgreSQL."""

# For `AT TIME ZONE`, PostgreSQL looks for an abbreviation of a fixed offset first: its CET has no summer time.
# Since release 2024b, tzdata has these names as links to the zones given here.
_ABBREVIATIONS = {
    "CET": "Europe/Brussels",
    "EET": "Europe/Athens",
    "EST": "America/Panama",
    "HST": "Pacific/Honolulu",
    "MET": "Europe/Brussels",
    "MST": "America/Phoenix",
    "WET": "Europe/Lisbon",
}


def unabbreviated(zone: str) -> str:
    """The IANA zone, by a name that PostgreSQL takes for no abbreviation."""
    return _ABBREVIATIONS.get(zone, zone)
