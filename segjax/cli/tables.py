"""Cells of CSV tables that spreadsheets open."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def cell(value: object) -> object:
    """Prefixes text that a spreadsheet would execute with a quote, as OWASP advises."""
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return f"{value:.7g}" if isinstance(value, float) else value
