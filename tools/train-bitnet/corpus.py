"""The training text: the World English Bible, public domain, as Debian's `sword-text-web` ships it.

A SWORD module of the driver zText is a pair of testaments, each one of three files: `*.bzs` indexes the compressed
blocks (offset, compressed size, plain size: three little-endian u32), `*.bzz` holds them, `*.bzv` maps verses to
places in them and is not needed to read a text from its beginning to its end. A block here is a book, in OSIS markup.
"""

import html
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

MODULE = Path("/usr/share/sword/modules/texts/ztext/engWEB2015eb")

#: Books that the model never sees: 20 kB of narrative that no other book repeats.
HELD_OUT = ("Ruth", "Jonah")

# What is printed around the text and is not the text: notes, headings, variant readings, speakers' names.
_APPARATUS = re.compile(r"<(note|title|rdg|speaker|catchWord|reference)\b(?:[^>]*/>|[^>]*>.*?</\1>)", re.DOTALL)
_BOOK = re.compile(r'<milestone n="([^"]+)" type="x-usfm-h"/>')
_CHAPTER = re.compile(r'<chapter n="(\d+)" [^>]*sID="[^"]*"/>')
# A paragraph, a line of verse or a line group begins on a line of its own.
_LINE = re.compile(r'<(?:div [^>]*type="x-p"|l\b|lg\b|lb\b|item\b)[^>]*>')
_TAG = re.compile(r"<[^>]+>")


@dataclass(frozen=True)
class Chapter:
    """One document: a chapter under its own heading, e.g. `Ruth 1`."""

    book: str
    text: str


def chapters() -> list[Chapter]:
    """Every chapter of the module, in its order."""
    return [chapter for testament in ("ot", "nt") for book in _blocks(testament) for chapter in _split(book)]


def split(documents: list[Chapter]) -> tuple[list[str], str]:
    """The documents to train on, and the held-out text: whole books, so that no half sentence leaks."""
    training = [chapter.text for chapter in documents if chapter.book not in HELD_OUT]
    held_out = "\n".join(chapter.text for chapter in documents if chapter.book in HELD_OUT)
    return training, held_out


def _blocks(testament: str) -> list[str]:
    index = (MODULE / f"{testament}.bzs").read_bytes()
    packed = (MODULE / f"{testament}.bzz").read_bytes()
    blocks = []
    for offset, size, plain_size in struct.iter_unpack("<III", index):
        plain = zlib.decompress(packed[offset : offset + size])
        if len(plain) != plain_size:
            raise ValueError(f"{testament}.bzz: the block at {offset} has {len(plain)} bytes, not {plain_size}")
        blocks.append(plain.decode("utf-8"))
    return blocks


def _split(markup: str) -> list[Chapter]:
    front, *pieces = _CHAPTER.split(markup)
    # The last heading before the first chapter: the module's first book shares its block with the preface.
    headings = _BOOK.findall(front)
    if not headings or not pieces:
        return []
    book = html.unescape(headings[-1])
    return [
        Chapter(book, f"{book} {number}\n{text}\n")
        for number, body in zip(pieces[::2], pieces[1::2])
        if (text := _plain(body))
    ]


def _plain(markup: str) -> str:
    # The module's own line ends mean nothing: only the markup breaks a line.
    markup = re.sub(r"\s+", " ", _APPARATUS.sub("", markup))
    text = html.unescape(_TAG.sub("", _LINE.sub("\n", markup)))
    lines = (re.sub(r" ([,.;:!?])", r"\1", " ".join(line.split())) for line in text.split("\n"))
    return "\n".join(line for line in lines if line)
