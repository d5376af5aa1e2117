"""What a scene of emoji says: claims, and the many ways to put one into words.

"two dogs", "a pair of puppies" and "2 dogs" make the same claim. Half of the captions
are plain, the others paraphrased: synonyms, other templates, other word orders.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from imagen_jax.data import order, sprites

RELATIONS = ("left of", "right of", "above", "below")

# The first entry of each is the plain one; for a single object that is its article.
SIZE_WORDS = {
    "big": ("big", "large", "huge"),
    "small": ("small", "little", "tiny"),
}
NUMBER_WORDS = {
    1: ("", "", "", "one {}", "a single {}"),
    2: ("two {}", "2 {}", "a pair of {}", "a couple of {}"),
    3: ("three {}", "3 {}", "a group of three {}", "a trio of {}"),
    4: ("four {}", "4 {}", "a group of four {}", "a set of four {}"),
}
RELATION_WORDS = {
    "left of": (
        "{0} left of {1}",
        "{0} to the left of {1}",
        "{0} on the left of {1}",
        "{1} with {0} to its left",
    ),
    "right of": (
        "{0} right of {1}",
        "{0} to the right of {1}",
        "{0} on the right of {1}",
        "{1} with {0} to its right",
    ),
    "above": ("{0} above {1}", "{0} over {1}", "{1} with {0} above it"),
    "below": (
        "{0} below {1}",
        "{0} under {1}",
        "{0} beneath {1}",
        "{1} with {0} below it",
    ),
    "": ("{0} and {1}", "{1} and {0}", "{0} with {1}", "{0} next to {1}"),
}
BACKGROUND_WORDS = (
    "{} on {} background",
    "{} against {} background",
    "{} in front of {} backdrop",
    "{} on {} ground",
)
FRAMES = ("{}", "{}", "a picture of {}", "an image of {}", "there is {}")
IRREGULAR = {
    "broccoli": "broccoli",
    "die": "dice",
    "fish": "fish",
    "leaf": "leaves",
    "onigiri": "onigiri",
    "sheep": "sheep",
    "snowman": "snowmen",
    "sushi": "sushi",
    "wolf": "wolves",
}


class Thing(NamedTuple):
    """So many equal objects; size "" says nothing of their size."""

    number: int
    size: str
    name: str


class Claim(NamedTuple):
    """What a caption says.

    Attributes:
      things: one, or two that stand to each other.
      relation: of the first to the second; "" for none.
      background: its colour; "" when none is named, then it is white.
      paraphrased: whether the words differ from the plain ones.
    """

    things: tuple[Thing, ...]
    relation: str = ""
    background: str = ""
    paraphrased: bool = False


def plural(name: str) -> str:
    """Return the plural: "puppy" -> "puppies", "cup of tea" -> "cups of tea"."""
    head, of, rest = name.partition(" of ")
    before, space, last = head.rpartition(" ")
    if last in IRREGULAR:
        last = IRREGULAR[last]
    elif last.endswith("fish"):
        pass
    elif last.endswith("y") and last[-2] not in "aeiou":
        last = last[:-1] + "ies"
    elif last.endswith(("s", "x", "ch", "sh")):
        last += "es"
    else:
        last += "s"
    return before + space + last + of + rest


def indefinite(words: str) -> str:
    """Put "a" or "an" before the words."""
    vowel = words[0] in "aeiou" and not words.startswith(("uni", "ufo"))
    return f"{'an' if vowel or words.startswith('hour') else 'a'} {words}"


def sized(size: str, name: str) -> str:
    """Return "a cat", "a big cat" or "a small cat"."""
    return indefinite(f"{size} {name}" if size else name)


def plain(claim: Claim) -> str:
    """Say a claim in the plain words."""
    return say(claim, lambda options: options[0])


def paraphrase(draw: order.Draw, claim: Claim) -> str:
    """Say a claim in words drawn from all that are known, plain ones among them."""
    words = say(claim, draw.choose)
    if len(claim.things) == 1 and claim.things[0].number > 1:
        return words  # "there is two dogs"
    return draw.choose(FRAMES).format(words)


def say(claim: Claim, choose: Callable[[Sequence[str]], str]) -> str:
    """Say a claim; `choose` takes one of several ways to say each part."""
    words = [noun(thing, choose) for thing in claim.things]
    if len(words) == 2:
        words = [choose(RELATION_WORDS[claim.relation]).format(*words)]
    if not claim.background:
        return words[0]
    ground = indefinite(claim.background)
    return choose(BACKGROUND_WORDS).format(words[0], ground)


def noun(thing: Thing, choose: Callable[[Sequence[str]], str]) -> str:
    """Say one thing: "a big cat", "three kittens"."""
    name = choose((thing.name, *sprites.synonyms(thing.name)))
    if thing.number > 1:
        return choose(NUMBER_WORDS[thing.number]).format(plural(name))
    if thing.size:
        return sized(choose(SIZE_WORDS[thing.size]), name)
    template = choose(NUMBER_WORDS[1])
    return template.format(name) if template else indefinite(name)
