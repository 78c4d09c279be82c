"""Links from an asset's page in Dagster's UI to the code behind it, which work on the machine that has the code."""

import warnings
from collections.abc import Callable
from typing import Any

import dagster as dg


def code_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Metadata of an asset whose work the function does."""
    code = function.__code__
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        place = dg.LocalFileCodeReference(
            file_path=code.co_filename, line_number=code.co_firstlineno, label=function.__module__
        )
        return {"dagster/code_references": dg.CodeReferencesMetadataValue(code_references=[place])}
