"""The Reader: a cursor over one statement's tokens, with the small things that every statement is made of.

It remembers which words it looked for at the place where it stands, so that an error can list them and name the one
that was probably meant.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NoReturn

from ..errors import NotSupportedError, Place, ProgrammingError, suggest
from .expressions import parse_expression, parse_select
from .placeholders import Parameters, check_literal
from .statements import Expression, Name, Query
from .tokens import CLOSING, OPENING, Token, closing, commas, ends_operand, starts_operand

QUERY_WORDS = ("SELECT", "WITH", "FROM", "VALUES", "TABLE", "PIVOT", "UNPIVOT", "DESCRIBE", "SHOW", "SUMMARIZE")


class Reader:
    """Reads a statement from left to right. ``text`` is the whole source; places and offsets refer to it."""

    def __init__(self, text: str, tokens: Sequence[Token], parameters: Parameters, given: Any = None) -> None:
        self.text = text
        self.tokens = list(tokens)
        self.parameters = parameters
        self.given = given  # the caller's parameters, for a statement that is DuckDB's in the end
        self.position = 0
        self._tried: list[str] = []

    # Where we are

    @property
    def next(self) -> Token | None:
        return self.tokens[self.position] if self.position < len(self.tokens) else None

    @property
    def here(self) -> Place:
        """The next token's place, or the point behind the last token."""
        if self.next is not None:
            return self.next.place(self.text)
        end = self.tokens[-1].end if self.tokens else 0
        return Place(self.text, end, end)

    def since(self, position: int) -> Place:
        """The place of the tokens from ``position`` up to here."""
        return self.span(self.tokens[position : max(self.position, position + 1)])

    def span(self, tokens: Sequence[Token]) -> Place:
        return Place(self.text, tokens[0].start, tokens[-1].end)

    def rest(self) -> list[Token]:
        return self.tokens[self.position :]

    def inside(self, tokens: Sequence[Token]) -> Reader:
        """A reader of a part of this statement."""
        return Reader(self.text, tokens, self.parameters, self.given)

    # Words and symbols

    def at(self, words: str) -> bool:
        """Whether the next tokens are these words, such as ``"IF NOT EXISTS"``, or this symbol."""
        self._tried.append(words)
        return self.sees(words)

    def sees(self, words: str) -> bool:
        """As ``at``, but an error will not list them among what was expected."""
        wanted = words.split()
        found = self.tokens[self.position : self.position + len(wanted)]
        fits = (t.word == w or t.is_symbol(w) for t, w in zip(found, wanted, strict=False))
        return len(found) == len(wanted) and all(fits)

    def accept(self, words: str) -> bool:
        """Step over these words or this symbol if they are next."""
        if not self.at(words):
            return False
        self.step(len(words.split()))
        return True

    def expect(self, words: str) -> None:
        if not self.accept(words):
            self.unexpected()

    def step(self, count: int = 1) -> None:
        self.position += count
        self._tried = []

    def expect_end(self) -> None:
        """The statement (or the part in brackets) must end here."""
        if self.next is not None:
            self.unexpected()

    # Errors

    def fail(self, message: str, place: Place | None = None, hint: str | None = None) -> NoReturn:
        raise ProgrammingError(message, place=place or self.here, hint=hint)

    def unsupported(self, message: str, place: Place | None = None, hint: str | None = None) -> NoReturn:
        raise NotSupportedError(message, place=place or self.here, hint=hint)

    def unexpected(self, wanted: str | None = None, hint: str | None = None) -> NoReturn:
        """The next token fits nothing: say what was looked for here."""
        token = self.next
        found = f'found "{self.here.source}"' if token else "the statement ends"
        tried = list(dict.fromkeys(self._tried))
        expected = _either([*([wanted] if wanted else []), *tried])
        message = f"expected {expected}, {found}" if expected else f'unexpected "{self.here.source}"'
        close = suggest(token.text, tried) if token and token.kind == "word" else None
        self.fail(message, hint=close or hint)

    # Names and values

    def identifier(self, what: str) -> str:
        """A single name, quoted or not."""
        token = self.next
        if token is None or not token.is_name:
            self.unexpected(what)
        self.step()
        return token.text

    def name(self, what: str = "a model's name") -> Name:
        """``[schema.]name``."""
        start = self.position
        first = self.identifier(what)
        if not self.sees("."):
            return Name(first, self.since(start))
        self.step()
        second = self.identifier(what)
        return Name(second, self.since(start), first)

    def number(self, what: str = "a number") -> float | int:
        """A number with an optional sign, in brackets or not, or a placeholder for one."""
        if self.accept("("):
            value = self.number(what)
            self.expect(")")
            return value
        place = self.here
        value = self._placeholder() if self._at_kind("placeholder") else self._plain_number(what)
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.fail(f"expected {what}", place)
        return value

    def whole_number(self, what: str) -> int:
        place = self.here
        value = self.number(what)
        if not isinstance(value, int) or value < 0:
            self.fail(f"expected {what}", place)
        return value

    def value(self) -> Any:
        """An option's value: a number, string, TRUE, FALSE, NULL, bare word, a list of these, or a placeholder."""
        if self._at_kind("placeholder"):
            value = self._placeholder()
            return tuple(value) if isinstance(value, list) else value
        if self._at_kind("string"):
            return self._take().text
        for opening in "[(":
            if self.accept(opening):
                return tuple(self.listed(OPENING[opening], self.value))
        for word, constant in (("TRUE", True), ("FALSE", False), ("NULL", None)):
            if self.accept(word):
                return constant
        if self.next is not None and self.next.kind in ("word", "name"):
            return self._take().text
        return self._plain_number("a value")

    def listed(self, end: str, read: Callable[[], Any]) -> list[Any]:
        """Parts between commas up to the closing bracket ``end``; the opening one has been read."""
        found = [read()]
        while self.accept(","):
            found.append(read())
        self.expect(end)
        return found

    def group(self) -> Reader:
        """A reader of what stands in the brackets that open here."""
        if not self.at("("):
            self.unexpected()
        end = closing(self.tokens, self.position) or len(self.tokens) - 1
        inner = self.tokens[self.position + 1 : end]
        if not inner:
            self.fail("nothing stands between these brackets", self.span(self.tokens[self.position : end + 1]))
        self.step(end + 1 - self.position)
        return self.inside(inner)

    def groups(self) -> list[Reader]:
        """A reader for each part between commas of what stands in the brackets that open here."""
        group = self.group()
        parts = commas(group.tokens)
        for i, part in enumerate(parts):
            if not part:
                behind = parts[i - 1][-1].end if i and parts[i - 1] else group.tokens[0].start
                self.fail("something is missing beside this comma", Place(self.text, behind, behind + 1))
        return [self.inside(part) for part in parts]

    # Pieces of SQL

    def query(self) -> Query:
        """A table, a file in quotes, a function call or ``(SELECT ...)``."""
        start = self.position
        if self.at("("):
            self._bracketed_query()
        elif self._at_kind("string"):
            self.step()
        else:
            self._table()
        place = self.since(start)
        tokens = self.tokens[start : self.position]
        text = self.parameters.renamed(self.text, place.start, place.end, tokens)
        return Query(text, place, self.parameters.used(tokens))

    def sources(self) -> tuple[Query, ...]:
        """Queries between commas, each the relation of its name: ``t AS nodes, (SELECT ...) AS edges``."""
        found = [self._source()]
        while self.accept(","):
            found.append(self._source())
        return tuple(found)

    def _source(self) -> Query:
        start = self.position
        query = self.query()
        if self.accept("AS"):
            return replace(query, name=self.identifier("a relation's name"))
        last = self.tokens[self.position - 1]
        is_table = self.tokens[start].is_name and last.is_name
        return replace(query, name=last.text) if is_table else query

    def expression(self, clauses: Sequence[str], stop: Callable[[], bool]) -> Expression:
        """An expression of the model language, up to the end or to where ``stop`` says that a new clause begins."""
        tokens = self.until(stop)
        if not tokens:
            self.unexpected("an expression")
        return parse_expression(self.text, tokens, self.parameters, clauses)

    def select(self, clauses: Sequence[str], stop: Callable[[], bool]) -> Expression:
        """A SELECT of the model language, up to the end or to where ``stop`` says that a new clause begins."""
        if self.next is None or not (self.next.word in ("SELECT", "WITH", "FROM") or self.sees("(")):
            self.unexpected("SELECT or WITH")
        return parse_select(self.text, self.until(stop), self.parameters, clauses)

    def until(self, stop: Callable[[], bool]) -> list[Token]:
        """The tokens up to where an expression can end and ``stop`` holds, outside of brackets."""
        start, depth = self.position, 0
        while self.next is not None:
            can_end = depth == 0 and self.position > start and ends_operand(self.tokens, self.position - 1)
            if can_end and stop():
                break
            depth += self.next.is_symbol(*OPENING) - self.next.is_symbol(*CLOSING)
            self.step()
        return self.tokens[start : self.position]

    def at_minimize(self) -> bool:
        """Whether a MINIMIZE clause begins here: the word, and then something that can begin an expression."""
        after = self.tokens[self.position + 1 : self.position + 2]
        return self.at("MINIMIZE") and bool(after) and starts_operand(after[0])

    # Details

    def _at_kind(self, kind: str) -> bool:
        return self.next is not None and self.next.kind == kind

    def _take(self) -> Token:
        token = self.tokens[self.position]
        self.step()
        return token

    def _placeholder(self) -> Any:
        token = self._take()
        value = self.parameters.value(token)
        check_literal(value, token.place(self.text))
        return value

    def _plain_number(self, what: str) -> float | int:
        sign = -1 if self.accept("-") else 1
        if sign == 1:
            self.accept("+")
        point = "." if self.accept(".") else ""
        if not self._at_kind("number"):
            self.unexpected(what)
        text = point + self._take().text
        try:
            return sign * (int(text) if text.isdigit() else float(text))
        except ValueError:
            self.position -= 1
            self.fail(f'"{text}" is not a number')

    def _bracketed_query(self) -> None:
        inner = self.tokens[self.position + 1 : self.position + 2]
        is_query = bool(inner) and (inner[0].word in QUERY_WORDS or inner[0].is_symbol("("))
        if not is_query:
            self.fail("expected a query between these brackets", inner[0].place(self.text) if inner else None)
        self.group()

    def _table(self) -> None:
        if self.next is not None and self.next.word in QUERY_WORDS:
            self.fail("a query must stand in brackets here", hint="write (SELECT ...)")
        what = 'a table, a file in quotes or "(SELECT ...)"'
        self.identifier(what)
        while self.sees("."):
            self.step()
            self.identifier(what)
        if self.sees("("):
            end = closing(self.tokens, self.position) or len(self.tokens) - 1
            self.step(end + 1 - self.position)


def _either(words: Sequence[str]) -> str:
    """Alternatives for a message: ``a, b or c``; symbols are put in quotes."""
    shown = [w if w[0].isalpha() else f'"{w}"' for w in words]
    return " or ".join(filter(None, [", ".join(shown[:-1]), shown[-1]])) if shown else ""
