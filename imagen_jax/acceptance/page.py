"""The page of an acceptance: a table a part, the pictures, passed or not."""

import html
from collections.abc import Mapping
from typing import Any

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto;
       padding: 0 1rem; color: #222; background: #fff; }
h2 { margin: 2rem 0 0.3rem; font-size: 1.1rem; }
table { border-collapse: collapse; }
td { padding: 0.15rem 1.5rem 0.15rem 0; vertical-align: top; }
td:first-child { color: #666; white-space: nowrap; }
.passed { color: #176d2e; } .failed { color: #b3261e; font-weight: bold; }
img { max-width: 100%; }
"""
TELLS = {
    "machine": "The machine",
    "step": "A training step: planned and measured",
    "numerics": "bfloat16 against float32: the shipped base's loss",
    "resume": "A run killed (SIGKILL) and gone on with, against one that was not",
    "samples": "Pictures by the shipped cascade, held-out prompts",
}


def page(results: Mapping[str, Mapping[str, Any]], sheet: str) -> str:
    """The results by part as HTML.

    Args:
      results: of each part; "passed" says whether it is as it should be.
      sheet: the picture's file name, beside the page.
    """
    good = all(result["passed"] for result in results.values())
    parts = "".join(section(name, result, sheet) for name, result in results.items())
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        "<title>imagen_jax: acceptance</title>"
        f"<style>{STYLE}</style><h1>imagen_jax: {verdict(good)}</h1>{parts}</html>\n"
    )


def section(name: str, result: Mapping[str, Any], sheet: str) -> str:
    """One part: its verdict and its values."""
    rows = "".join(
        f"<tr><td>{html.escape(key.replace('_', ' '))}</td>"
        f"<td>{html.escape(shown(value))}</td></tr>"
        for key, value in result.items()
        if key != "passed"
    )
    picture = ""
    if name == "samples" and "error" not in result:
        picture = f'<p><img src="{sheet}" alt="Pictures under their prompts"></p>'
    return (
        f"<h2>{TELLS.get(name, name)}: {verdict(result['passed'])}</h2>"
        f"<table>{rows}</table>{picture}"
    )


def verdict(passed: bool) -> str:
    """Passed or failed, coloured."""
    word = "passed" if passed else "failed"
    return f'<span class="{word}">{word}</span>'


def shown(value: Any) -> str:
    """A value as text: numbers to four figures."""
    if value is None:
        return "not known here"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return ", ".join(map(shown, value))
    if isinstance(value, dict):
        return ", ".join(f"{key} {shown(one)}" for key, one in value.items()) or "none"
    return str(value)
