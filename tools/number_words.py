"""Writes data/number-words, German number words and English ones line by line, which the experiment `number_words` reads as `parallel:number-words`.

    python tools/number_words.py data/number-words

The numbers from 1 to 9,999 are shuffled once and divided: 8,000 for training, 1,000 for validation and 999 for the test, so that no number of the
test was seen. German says the units before the tens: "drei und vierzig" is "forty-three". Its words are written apart, because the vocabulary
would otherwise learn whole numbers of the training file as single tokens.
"""

from __future__ import annotations

import hashlib
import random
import sys
from pathlib import Path

EXPECTED = "e38bb24641fee77f"  # of all files, so that records of all machines speak of the same numbers
SPLITS = {"train": 8000, "valid": 1000, "test": 999}
GERMAN = [
    "null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun", "zehn", "elf", "zwölf", "dreizehn", "vierzehn", "fünfzehn",
    "sechzehn", "siebzehn", "achtzehn", "neunzehn",
]  # fmt: skip
GERMAN_TENS = ["zwanzig", "dreißig", "vierzig", "fünfzig", "sechzig", "siebzig", "achtzig", "neunzig"]
ENGLISH = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen",
    "sixteen", "seventeen", "eighteen", "nineteen",
]  # fmt: skip
ENGLISH_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


def german(number: int) -> str:
    """A number from 1 to 9,999 in German, its words apart: 4321 is "vier tausend drei hundert ein und zwanzig"."""
    thousands, hundreds, rest = number // 1000, number // 100 % 10, number % 100
    words = [part for digit, unit in ((thousands, "tausend"), (hundreds, "hundert")) if digit for part in (_before(digit), unit)]
    if rest >= 20 and rest % 10:
        words += [_before(rest % 10), "und"]
    if rest:
        words.append(GERMAN_TENS[rest // 10 - 2] if rest >= 20 else GERMAN[rest])
    return " ".join(words)


def _before(digit: int) -> str:
    """A digit with something behind it: one loses its s."""
    return "ein" if digit == 1 else GERMAN[digit]


def english(number: int) -> str:
    """The same in English: 4321 is "four thousand three hundred and twenty-one"."""
    thousands, hundreds, rest = number // 1000, number // 100 % 10, number % 100
    words = [part for digit, unit in ((thousands, "thousand"), (hundreds, "hundred")) if digit for part in (ENGLISH[digit], unit)]
    if words and rest:
        words.append("and")
    if rest >= 20:
        words.append(ENGLISH_TENS[rest // 10 - 2] + (f"-{ENGLISH[rest % 10]}" if rest % 10 else ""))
    elif rest:
        words.append(ENGLISH[rest])
    return " ".join(words)


def files() -> dict[str, str]:
    """The text of each file by its name."""
    numbers = list(range(1, 10_000))
    # Keys that are drawn one by one: what `shuffle` does with a seed is not promised for other versions of Python.
    draw = random.Random(0)
    numbers = [number for _, number in sorted((draw.random(), number) for number in numbers)]
    found = {}
    for split, count in SPLITS.items():
        part, numbers = numbers[:count], numbers[count:]
        for language, said in (("de", german), ("en", english)):
            found[f"{split}.{language}"] = "".join(f"{said(number)}\n" for number in part)
    return found


def digest(texts: dict[str, str]) -> str:
    return hashlib.sha256("".join(name + texts[name] for name in sorted(texts)).encode()).hexdigest()[:16]


def main(out: str) -> int:
    texts = files()
    if (found := digest(texts)) != EXPECTED:
        print(f"these numbers have digest {found}; those of the records have {EXPECTED}", file=sys.stderr)
        return 1
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    print(folder)
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1]))
