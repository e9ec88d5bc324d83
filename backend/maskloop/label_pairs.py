"""Which labels swap in a mirror, where a left hand is a right one; known by their names.

A label is a pair's half where the other half is a label too: "bright" is not the mirror of anything.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = ["MirrorPair", "find_mirror_pairs", "labels_without_mirror", "mirror_pairs"]

# Each line: words of the one side, then those of the other, in the same order.
_WHOLE_WORDS = """
left right | leftmost rightmost | port starboard | sinister dexter
links rechts | linke rechte | linker rechter | linkes rechtes | linken rechten | linkem rechtem
gauche droite | gauche droit | gauches droites | gauches droits
izquierda derecha | izquierdo derecho | izquierdas derechas | izquierdos derechos | izq der | izqda dcha
sinistra destra | sinistro destro | sinistre destre | sinistri destri | sx dx
esquerda direita | esquerdo direito | esquerdas direitas | esquerdos direitos
vänster höger | vänstra högra | venstre højre | venstre høyre
lewy prawy | lewa prawa | lewe prawe | levý pravý | levá pravá | levé pravé
левый правый | левая правая | левое правое | левые правые | слева справа | ліва права | лівий правий
vasen oikea | bal jobb | sol sağ | stânga dreapta | stâng drept | lijevo desno | lijeva desna | lijevi desni
αριστερά δεξιά | αριστερό δεξί | trái phải | kiri kanan | 왼쪽 오른쪽
"""
# Sides, then front, rear, back, top, upper, lower, bottom with a side; of two letters or fewer they may mean
# something else.
_ABBREVIATIONS = (
    "l r | lh rh | lhs rhs | lt rt | fl fr | rl rr | bl br | tl tr | ul ur | ll lr | lf rf | lb rb"
)
# Also inside of longer words: Linksarm, righteye, 左手.
_PARTS = """
left right | links rechts | linke rechte | gauche droit | izquierd derech | sinistr destr | esquerd direit
vänster höger | venstre højre | venstre høyre | левы правы | лева права | 左 右 | 왼 오른
"""


def _table(text: str) -> dict[str, tuple[str, ...]]:
    """Return word -> words of the other side."""
    table: dict[str, tuple[str, ...]] = {}
    for pair in re.split(r"[|\n]", text):
        if pair.strip():
            one, other = pair.split()
            for word, mirrored in ((one, other), (other, one)):
                table[word] = tuple(dict.fromkeys((*table.get(word, ()), mirrored)))
    return table


_WORDS, _SHORT, _INSIDE = _table(_WHOLE_WORDS), _table(_ABBREVIATIONS), _table(_PARTS)
_LETTERS = re.compile(r"[^\W\d_]+")
_INSIDE_PATTERN = re.compile("|".join(sorted(_INSIDE, key=len, reverse=True)), re.IGNORECASE)
_CAMEL = re.compile(r"(?<=[^\W\d_A-Z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][^\W\d_A-Z])")  # left|Hand, LH|Door
_CAPITALS = re.compile(r"(?<=[A-Z])(?=[a-z])")  # FL|wheel
MAX_CANDIDATES = 64  # spellings of a label's mirror that are tried
MAX_LENGTH = 500  # characters of a label


@dataclass(frozen=True, kw_only=True)
class MirrorPair:
    """Two labels that swap in a mirror."""

    first: str
    second: str
    sure: bool  # a whole word says so, not only an abbreviation

    @property
    def names(self) -> tuple[str, str]:
        """Both labels."""
        return self.first, self.second


def mirror_pairs(labels: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return the labels that swap in a mirror, as `find_mirror_pairs` does, without how sure that is."""
    return tuple(pair.names for pair in find_mirror_pairs(labels))


def find_mirror_pairs(labels: Sequence[str]) -> tuple[MirrorPair, ...]:
    """Return the labels that differ only in words for left and right, in one of many languages.

    Each pair comes once, in the order of the labels, and each label is in one pair at most: ("left hand",
    "right hand"), ("eye_L", "eye_R"), ("leftHand", "rightHand"), ("FL wheel", "FR wheel"), ("linke Hand",
    "rechte Hand"), ("bras gauche", "bras droit"). Capitals make no difference.
    """
    by_name = {label.casefold(): label for label in reversed(labels)}
    known = set(labels)
    paired: set[str] = set()
    found: list[MirrorPair] = []
    for label in labels:
        for other, sure in _mirrored(label):
            match = other if other in known else by_name.get(other.casefold())
            if match is None or match == label or {match, label} & paired:
                continue
            found.append(MirrorPair(first=label, second=match, sure=sure))
            paired |= {match, label}
            break
    return tuple(found)


def labels_without_mirror(labels: Sequence[str]) -> tuple[str, ...]:
    """Return the labels that have a whole word for a side, while the other side is no label."""
    paired = {name for pair in find_mirror_pairs(labels) for name in pair.names}
    return tuple(
        label
        for label in labels
        if label not in paired
        and any(part.casefold() in _WORDS for part in _split(label, _CAMEL) if len(part) > 3)
    )


def _mirrored(label: str) -> Iterator[tuple[str, bool]]:
    """Yield the spellings that the mirrored label may have, and whether whole words were swapped in it."""
    if len(label) > MAX_LENGTH:
        return
    for pattern in (None, _CAMEL, _CAPITALS):
        parts = _split(label, pattern)
        sure = any(part.casefold() in _WORDS for part in parts)
        choices = [_others(part) for part in parts]
        for made in itertools.islice(itertools.product(*choices), MAX_CANDIDATES):
            other = "".join(made)
            if other != label:
                yield other, sure
    other = _INSIDE_PATTERN.sub(
        lambda found: _like(found.group(), _INSIDE[found.group().casefold()][0]), label
    )
    if other != label:
        yield other, True


def _split(label: str, pattern: re.Pattern[str] | None) -> list[str]:
    """Return the words of a label and what is between them; joined they are the label."""
    parts: list[str] = []
    end = 0
    for word in _LETTERS.finditer(label):
        parts.append(label[end : word.start()])
        parts += [word.group()] if pattern is None else pattern.split(word.group())
        end = word.end()
    return [*parts, label[end:]]


def _others(part: str) -> tuple[str, ...]:
    word = part.casefold()
    return tuple(_like(part, other) for other in _WORDS.get(word) or _SHORT.get(word) or ()) or (part,)


def _like(word: str, other: str) -> str:
    """Return the other word with capitals as the word has them."""
    if word.isupper():
        return other.upper()
    return other.capitalize() if word[0].isupper() else other
