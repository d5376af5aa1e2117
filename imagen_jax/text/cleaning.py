"""DeepFloyd IF's cleaning of captions: what its networks were trained to read.

Captions of the web carry addresses, markup, file names and shop talk. DeepFloyd IF
(https://github.com/deep-floyd/IF, deepfloyd_if/modules/t5.py) takes them out of every
caption, twice over, in training and in sampling. The rules here do the same in the same
order; `Cleaned` applies them before any tokenizer.

Differs: the original also calls ftfy.fix_text, which repairs wrongly decoded text, full
width letters, ligatures and control characters; of that only the composition of
accents (Unicode NFC) is done here. Markup is read by the standard library's parser, on
which BeautifulSoup's default builds; the two disagree on some broken entities.
"""

import dataclasses
import html
import html.entities
import html.parser
import re
import unicodedata
import urllib.parse
from collections.abc import Callable, Sequence

import numpy as np

from imagen_jax.text import tokenizer

Rules = tuple[tuple[re.Pattern[str], str], ...]


def _rules(*pairs: tuple[str, str]) -> Rules:
    return tuple((re.compile(pattern), by) for pattern, by in pairs)


SUFFIXES = "png|jpg|jpeg|bmp|webp|eps|pdf|apk|mp4"
HOST = r"[a-zA-Z0-9.-]+\.(?:com|co|ru|net|org|edu|gov|it)[\w/-]*\b/?(?!@)"
DASHES = (
    "\u002d\u058a\u05be\u1400\u1806\u2010-\u2015\u2e17\u2e1a\u2e3a\u2e3b\u2e40\u301c"
    "\u3030\u30a0\ufe31\ufe32\ufe58\ufe63\uff0d"
)

ADDRESSES = _rules(
    ("<person>", "person"),
    (rf"\b(?:https?:(?:/{{1,3}}|[a-zA-Z0-9%])|{HOST})", ""),
    (rf"\b(?:www:(?:/{{1,3}}|[a-zA-Z0-9%])|{HOST})", ""),
)
SIGNS = _rules(
    (r"@\w+\b", ""),
    # CJK strokes, phonetic extensions, enclosed and compatibility signs, extension A,
    # hexagrams, unified ideographs.
    ("[\u31c0-\u4dff\u4e00-\u9fff]+", ""),
    (f"[{DASHES}]+", "-"),
    ("[`´«»“”¨]", '"'),
    ("[‘’]", "'"),
    ("&quot;?", ""),
    ("&amp", ""),
    (r"\d{1,3}(?:\.\d{1,3}){3}", " "),  # an IP address
    (r"\d:\d\d\s+$", ""),
    (r"\\n", " "),  # a backslash and an n
    (r"#\d{1,3}\b", ""),
    (r"#\d{5,}\b", ""),
    (r"\b\d{6,}\b", ""),
    (rf"\S+\.(?:{SUFFIXES})", ""),
    ("[\"']{2,}", '"'),
    (r"\.{2,}", " "),
    (r"[#®•©™&@·º½¾¿¡§~)(\]\[}{|\\/*]+", " "),
    (r"\s+\.\s+", " "),
)
WORDS = _rules(
    # Numbers of articles and hashes: jc6640, jc6640vc, 6640vc231.
    (r"\b[a-zA-Z]{1,3}\d{3,15}\b", ""),
    (r"\b[a-zA-Z]+\d+[a-zA-Z]+\b", ""),
    (r"\b\d+[a-zA-Z]+\d+\b", ""),
    (r"(?:worldwide\s+)?(?:free\s+)?shipping", ""),
    (r"(?:free\s)?download(?:\sfree)?", ""),
    (r"\bclick\b\s(?:for|on)\s\w+", ""),
    (rf"\b(?:{SUFFIXES})(?:\simages?)?", ""),
    (r"\bpage\s+\d+\b", ""),
    (r"\b\d*[a-zA-Z]+\d+[a-zA-Z]+\d+[a-zA-Z\d]*\b", " "),
    # A size, 10x15; the second letter is the Cyrillic one.
    ("\\b\\d+\\.?\\d*[x\u0445×]\\d+\\.?\\d*\\b", ""),
    (r"\b\s+:\s+", ": "),
    (r"(\D[,./])\b", r"\1 "),
    (r"\s+", " "),
)
ENDS = _rules(
    (r"""^["']([\w\W]+)["']$""", r"\1"),
    (r"^['_,\-:;]", ""),
    (r"['_,\-:+]$", ""),
    (r"^\.\S+$", ""),
)
JOINTS = re.compile("[-_]")


def deepfloyd(caption: str) -> str:
    """A caption as DeepFloyd IF's text encoder is given it: cleaned twice.

    What a first pass uncovers, such as an address in an escaped link, a second removes.
    """
    return _pass(_pass(caption))


def _pass(caption: str) -> str:
    text = urllib.parse.unquote_plus(caption).strip().lower()
    text = _apply(SIGNS, _without_markup(_apply(ADDRESSES, text)))
    if len(JOINTS.findall(text)) > 3:  # this-is-my-cute-cat
        text = JOINTS.sub(" ", text)
    text = unicodedata.normalize("NFC", text)
    text = html.unescape(html.unescape(text))
    return _apply(ENDS, _apply(WORDS, text)).strip()


def _apply(rules: Rules, text: str) -> str:
    for pattern, by in rules:
        text = pattern.sub(by, text)
    return text


class _Text(html.parser.HTMLParser):
    """Collects what stands between the tags, but for scripts and styles."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.found: list[str] = []
        self._hidden = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """See the base class."""
        if tag in ("script", "style"):
            self._hidden = tag

    def handle_endtag(self, tag: str) -> None:
        """See the base class."""
        if tag == self._hidden:
            self._hidden = ""

    def handle_data(self, data: str) -> None:
        """See the base class."""
        if not self._hidden:
            self.found.append(data)

    def handle_charref(self, name: str) -> None:
        """See the base class."""
        self.handle_data(html.unescape(f"&#{name};"))

    def handle_entityref(self, name: str) -> None:
        """An unknown name loses its semicolon, as BeautifulSoup has it."""
        self.handle_data(html.entities.html5.get(f"{name};", f"&{name}"))


def _without_markup(text: str) -> str:
    parser = _Text()
    parser.feed(text)
    parser.close()
    return "".join(parser.found)


@dataclasses.dataclass(frozen=True)
class Cleaned:
    """A tokenizer of cleaned prompts: a `tokenizer.Tokenizer`.

    Attributes:
      tokenizer: of what the cleaning leaves.
      clean: a prompt as it is to be read.
    """

    tokenizer: tokenizer.Tokenizer
    clean: Callable[[str], str] = deepfloyd

    @property
    def vocab_size(self) -> int:
        """The tokenizer's."""
        return self.tokenizer.vocab_size

    def encode(
        self, prompts: Sequence[str], length: int, *, truncate: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `Tokenizer.encode`."""
        # What is no list of strings is the tokenizer's to refuse.
        if not isinstance(prompts, str) and all(isinstance(p, str) for p in prompts):
            prompts = [self.clean(prompt) for prompt in prompts]
        return self.tokenizer.encode(prompts, length, truncate=truncate)

    def decode(self, ids: np.ndarray) -> list[str]:
        """See `Tokenizer.decode`; the texts are the cleaned ones."""
        return self.tokenizer.decode(ids)


def cleaned(plain: tokenizer.Tokenizer, kind: str) -> tokenizer.Tokenizer:
    """The tokenizer itself for "", and for "deepfloyd" one of cleaned prompts.

    Raises:
      ValueError: for another kind.
    """
    if kind not in ("", "deepfloyd"):
        raise ValueError(f"cleaning: must be '' or 'deepfloyd', got {kind!r}.")
    return Cleaned(plain) if kind else plain
