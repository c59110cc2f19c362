"""Parsing XML without document types, entities or references to other files."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from xml.parsers import expat

from segjax.errors import UserError


def parse(content: bytes, where: str) -> ElementTree.Element:
    """Parses an XML file.

    A document type is refused as soon as it begins, since it can declare entities that
    expand to any size or read other files; without one there are no such entities.

    Args:
        content: The file's content.
        where: Its name, for messages.

    Raises:
        ValueError: If it is not well-formed, or has a document type.
    """
    builder = ElementTree.TreeBuilder()
    parser = expat.ParserCreate()

    def refuse(*_) -> None:
        raise UserError(
            f"{where} declares a document type, which may hold entities of any size: "
            f"needed XML without <!DOCTYPE>; remove it."
        )

    def start(tag: str, attributes: dict[str, str]) -> None:
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        builder.end(tag)

    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(content, True)
        return builder.close()
    except (expat.ExpatError, AssertionError, LookupError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{where} is not XML ({error}): needed the tool's export; export it again."
        ) from error


def attribute(element: ElementTree.Element, name: str, what: str) -> str:
    """Returns an attribute; ValueError if the element has none."""
    value = element.get(name)
    if value is None:
        raise UserError(
            f"{what}: <{element.tag}> has no {name}: needed it; export the file again."
        )
    return value


def numbers(text: str, what: str, separators: Sequence[str] = (",",)) -> list[float]:
    """Parses numbers between separators; ValueError if one is not a number."""
    for separator in separators:
        text = text.replace(separator, " ")
    try:
        return [float(part) for part in text.split()]
    except ValueError:
        raise UserError(
            f"{what} has {text[:60]!a}: needed numbers; correct it."
        ) from None


def integer(text: str, what: str) -> int:
    """Parses an integer from 0 to a million; ValueError for any other text."""
    if not text.isascii() or not text.isdigit() or len(text) > 7:
        raise UserError(f"{what} has {text[:60]!a}: needed an integer; correct it.")
    return int(text)
