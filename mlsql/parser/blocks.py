"""The SELECTs of a statement as data that knows places: what a rewriting of the text at places has to know.

A block is one SELECT of a statement, at any depth. Clauses are cut at the tokens, so that every place is exact; inside
of a clause sqlglot says which columns an expression reads. What is not understood is left out: a SELECT with a clause
that is not listed here, or with a set operation beside it, is no block, and an expression that cannot be read is
a piece that is not ``plain``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from sqlglot import exp
from sqlglot.errors import ParseError, SqlglotError
from sqlglot.tokens import Token as SqlToken
from sqlglot.tokens import TokenType

from ..errors import Place
from ..record import record
from .statements import PredictCall
from .tokens import CLOSING, Token, closing, commas, depths, dialect, ends_operand, tokenize, words

CLAUSES = ("SELECT", "FROM", "WHERE", "GROUP BY", "HAVING", "WINDOW", "QUALIFY", "ORDER BY", "LIMIT", "OFFSET")
SET_OPERATIONS = words("UNION INTERSECT EXCEPT")
JOIN_WORDS = words("JOIN LEFT RIGHT FULL INNER OUTER CROSS SEMI ANTI NATURAL ASOF POSITIONAL")
# what reads more than the columns that it names, or names what is no column
NOT_PLAIN = words("SELECT OVER LAMBDA FOR COLUMNS EXISTS FILTER WITHIN")
BEFORE_BRACKET = words("AND OR NOT IN CASE WHEN THEN ELSE BETWEEN LIKE ILIKE IS VALUES CAST TRY_CAST TRY AS INTERVAL")
STAND_IN = "mlsql_call_"  # what sqlglot reads in the place of a call


@record
class Reference:
    """A column that an expression names: ``a``, ``t.a``. ``qualifier`` is empty where there is none."""

    qualifier: str
    name: str
    place: Place


@record
class Piece:
    """An expression, or a part of a clause.

    ``references`` are the columns that it names, in the arguments of PREDICT too; ``functions`` what it calls, in
    lower case; ``calls`` the PREDICT calls in it that stand in no other. It is ``plain`` if these say all that it
    reads. ``alias`` is the name that it is given with AS; ``body`` is what stands before that.
    """

    place: Place
    body: Place
    references: tuple[Reference, ...]
    functions: frozenset[str]
    calls: tuple[PredictCall, ...]
    plain: bool
    alias: str | None = None
    star: bool = False  # ``*`` or ``t.*`` and nothing else


@record
class Item:
    """What stands in FROM between joins: a table, a query in brackets, PREDICT as a table.

    ``join`` are the words by which it is joined to what stands before, such as LEFT (empty for the first, a comma and
    INNER). ``simple`` means that there is a source and perhaps a name for it, and no more.
    """

    place: Place
    source: Place
    alias: str
    join: str
    call: PredictCall | None
    simple: bool


@record
class Block:
    """One SELECT. ``before`` is the WITH clause of its level, ``clauses`` are the clauses' bodies by keyword."""

    place: Place
    before: Place | None
    clauses: dict[str, Place]
    distinct: bool
    columns: tuple[Piece, ...]
    items: tuple[Item, ...]
    conditions: tuple[Piece, ...]  # of WHERE, joined by AND
    order: tuple[Piece, ...]
    others: tuple[Piece, ...]  # of all other clauses, and the conditions of joins
    tokens: tuple[Token, ...]

    @property
    def pieces(self) -> tuple[Piece, ...]:
        return (*self.columns, *self.conditions, *self.order, *self.others)

    def renames(self, key: Piece) -> bool:
        """Whether a key of ORDER BY may mean a column of the select and not of FROM: the select's names come first."""
        wanted = {r.name.lower() for r in key.references if not r.qualifier}
        given = [c for c in self.columns if c.alias is not None and c.alias.lower() in wanted]
        return any(len(c.references) != 1 or c.references[0].place != c.body for c in given) or any(
            c.references[0].name.lower() != (c.alias or "").lower() for c in given
        )

    def has(self, *clauses: str) -> bool:
        return any(c in self.clauses for c in clauses)


def blocks(text: str, calls: Sequence[PredictCall]) -> list[Block]:
    """The blocks of a statement that hold calls of PREDICT, as they stand in the text."""
    tokens = tokenize(text)
    reader = _Blocks(text, tokens, calls)
    found = [reader.block(i) for i, t in enumerate(tokens) if t.word == "SELECT"]
    return [b for b in found if b is not None]


def argument_piece(text: str, place: Place, calls: Sequence[PredictCall]) -> Piece:
    """An argument of a call, as a piece."""
    tokens = [t for t in tokenize(text) if place.start <= t.start and t.end <= place.end]
    return _Blocks(text, tokens, calls).piece(tokens)


class _Blocks:
    def __init__(self, text: str, tokens: Sequence[Token], calls: Sequence[PredictCall]) -> None:
        self.text, self.tokens, self.calls = text, tokens, calls

    def place(self, tokens: Sequence[Token]) -> Place:
        return Place(self.text, tokens[0].start, tokens[-1].end)

    def block(self, start: int) -> Block | None:
        """The SELECT whose first token stands at ``start``, if it is understood."""
        end = self.level_end(start)
        mine = self.tokens[start:end]
        if any(d == 0 and t.word.partition(" ")[0] in SET_OPERATIONS for d, t in depths(mine)):
            return None
        before = self.level_start(start)
        if any(t.word.partition(" ")[0] in SET_OPERATIONS for d, t in depths(before) if d == 0):
            return None
        clauses = self.cut(mine)
        if clauses is None or not any(mine[0].start <= c.place.start < mine[-1].end for c in self.calls):
            return None
        columns = clauses["SELECT"]
        distinct = bool(columns) and columns[0].word in ("DISTINCT", "ALL")
        columns = columns[1:] if distinct else columns
        items = self.items(clauses.get("FROM", []))
        if items is None or not columns or columns[0].word == "ON":
            return None
        found, conditions = items
        others = [self.piece(part) for c in ("GROUP BY", "HAVING", "QUALIFY", "WINDOW", "LIMIT", "OFFSET")
                  for part in commas(clauses.get(c, []))]  # fmt: skip
        return Block(
            self.place(mine),
            self.place(before) if before and before[0].word == "WITH" else None,
            {c: self.place(t) for c, t in clauses.items() if t},
            distinct,
            tuple(self.column(part) for part in commas(columns)),
            tuple(found),
            tuple(self.piece(part) for part in conjuncts(clauses.get("WHERE", []))),
            tuple(self.key(part) for part in commas(clauses.get("ORDER BY", []))),
            (*others, *(self.piece(c) for c in conditions)),
            tuple(mine),
        )

    def level_end(self, start: int) -> int:
        """Where the brackets that hold ``start`` close, or the text ends."""
        depth = 0
        for i in range(start, len(self.tokens)):
            token = self.tokens[i]
            if token.kind == "symbol":
                if token.text in CLOSING:
                    depth -= 1
                elif token.text in "([{":
                    depth += 1
            if depth < 0 or (depth == 0 and token.is_symbol(";")):
                return i
        return len(self.tokens)

    def level_start(self, start: int) -> list[Token]:
        """The tokens before ``start`` inside of the same brackets."""
        depth, i = 0, start
        while i > 0:
            token = self.tokens[i - 1]
            if token.kind == "symbol":
                depth += (token.text in CLOSING) - (token.text in "([{")
            if depth < 0:
                break
            i -= 1
        return list(self.tokens[i:start])

    def cut(self, tokens: Sequence[Token]) -> dict[str, list[Token]] | None:
        """The tokens of each clause, without its keyword; None if a clause is not known or comes twice."""
        found: dict[str, list[Token]] = {}
        clause = ""
        for i, (depth, token) in enumerate(depths(tokens)):
            if depth == 0 and token.word in CLAUSES and not self.is_distinct_from(tokens, i):
                if token.word in found:
                    return None
                clause = token.word
                found[clause] = []
            elif depth == 0 and token.word in (
                "USING SAMPLE",
                "SAMPLE",
                "TABLESAMPLE",
                "FETCH",
                "PIVOT",
                "UNPIVOT",
                "INTO",
            ):
                return None
            else:
                found[clause].append(token)
        order = [CLAUSES.index(c) for c in found]
        return found if order == sorted(order) else None

    @staticmethod
    def is_distinct_from(tokens: Sequence[Token], i: int) -> bool:
        return (
            tokens[i].word == "FROM"
            and i >= 2
            and tokens[i - 1].word == "DISTINCT"
            and tokens[i - 2].word in ("IS", "NOT")
        )

    # FROM

    def items(self, tokens: Sequence[Token]) -> tuple[list[Item], list[list[Token]]] | None:
        """The items of FROM and the conditions of its joins; None if there is what is not understood."""
        found: list[Item] = []
        conditions: list[list[Token]] = []
        at = 0
        join = ""
        while at < len(tokens):
            end = self.boundary(tokens, at, words("ON USING"))
            item = self.item(tokens[at:end], join)
            if item is None:
                return None
            found.append(item)
            if end < len(tokens) and tokens[end].word in ("ON", "USING"):
                stop = self.boundary(tokens, end + 1, frozenset())
                if tokens[end].word == "ON":
                    conditions.append(list(tokens[end + 1 : stop]))
                end = stop
            start = end
            while end < len(tokens) and (tokens[end].is_symbol(",") or tokens[end].word in JOIN_WORDS):
                end += 1
            join = " ".join(t.word for t in tokens[start:end] if t.word not in ("JOIN", "INNER", "OUTER", ""))
            if end < len(tokens) and end == start:
                return None
            at = end
        return found, conditions

    def boundary(self, tokens: Sequence[Token], start: int, more: frozenset[str]) -> int:
        """Where the next join begins, or one of some more words stands, outside of brackets."""
        for i, (depth, token) in enumerate(depths(tokens[start:]), start):
            if depth:
                continue
            calls = i + 1 < len(tokens) and tokens[i + 1].is_symbol("(") and token.word != "JOIN"
            if token.is_symbol(",") or (token.word in JOIN_WORDS and not calls) or token.word in more:
                return i
        return len(tokens)

    def item(self, tokens: Sequence[Token], join: str) -> Item | None:
        if not tokens:
            return None
        call = next((c for c in self.calls if c.place.start == tokens[0].start and c.is_table), None)
        end = self.source_end(tokens, call)
        if end is None:
            return None
        rest = list(tokens[end:])
        if rest and rest[0].word == "AS":
            rest = rest[1:]
        named = (
            [tokens[i] for i in range(end) if tokens[i].is_name]
            if call is None and not tokens[0].is_symbol("(")
            else []
        )
        alias = rest[0].text if len(rest) == 1 and rest[0].is_name else named[-1].text if named and not rest else ""
        simple = len(rest) <= 1 and (not rest or rest[0].is_name)
        return Item(self.place(tokens), self.place(tokens[:end]), alias, join, call, simple)

    def source_end(self, tokens: Sequence[Token], call: PredictCall | None) -> int | None:
        """Where the source of an item ends: a name with its qualifiers, or brackets."""
        if call is not None:
            return next((i + 1 for i, t in enumerate(tokens) if t.end == call.place.end), None)
        if tokens[0].is_symbol("("):
            end = closing(tokens, 0)
            inside = tokens[1].word in ("SELECT", "WITH", "FROM", "VALUES") if len(tokens) > 1 else False
            return None if end is None or not inside else end + 1
        end = 1
        if not tokens[0].is_name:
            return None
        while end + 1 < len(tokens) and tokens[end].is_symbol("."):
            end += 2
        return None if end < len(tokens) and tokens[end].is_symbol("(") else end

    # expressions

    def column(self, tokens: Sequence[Token]) -> Piece:
        """A column of the select, with the name that it is given."""
        is_star = tokens[-1].is_symbol("*") and len(tokens) in (1, 3) and (len(tokens) == 1 or tokens[1].is_symbol("."))
        if is_star:
            place = self.place(tokens)
            star = Reference(tokens[0].text if len(tokens) == 3 else "", "*", place)
            return Piece(place, place, (star,), frozenset(), (), False, None, True)
        alias, body = None, list(tokens)
        if len(tokens) > 2 and tokens[-2].word == "AS" and tokens[-1].kind in ("word", "name"):
            alias, body = tokens[-1].text, body[:-2]
        elif len(tokens) > 1 and tokens[-1].is_name and ends_operand(tokens, len(tokens) - 2):
            alias, body = tokens[-1].text, body[:-1]
        found = self.piece(body)
        return Piece(
            self.place(tokens), found.place, found.references, found.functions, found.calls, found.plain, alias
        )

    def key(self, tokens: Sequence[Token]) -> Piece:
        """A key of ORDER BY, with its direction behind the body."""
        body = list(tokens)
        while len(body) > 1 and body[-1].word in ("ASC", "DESC", "NULLS", "FIRST", "LAST"):
            body.pop()
        return replace(self.piece(body), place=self.place(tokens))

    def piece(self, tokens: Sequence[Token]) -> Piece:
        """An expression."""
        place = self.place(tokens)
        mine = [c for c in self.calls if place.start <= c.place.start and c.place.end <= place.end]
        outer = tuple(c for c in mine if not any(o.place.start < c.place.start < o.place.end for o in mine))
        inner = list(_queries(tokens))  # whose names mean what their own FROM says
        outer = tuple(c for c in outer if not any(q.start < c.place.start < q.end for q in inner))
        inside = [(c, self.inside(a.place)) for c in outer for a in c.arguments]
        parts = [self.piece(t) for c, t in inside if t]
        # a call is its last token, behind which an operator may follow
        own = [t for t in tokens if not any(c.place.start <= t.start and t.end < c.place.end for c in outer)]
        references = _references(self.text, list(_stand_ins(tokens, outer)))
        strange = any(t.word in NOT_PLAIN or t.is_symbol("->", "=>", ":=", "{") for t in own) or _has_star(own)
        functions = {
            t.text.lower()
            for t, after in pairwise(own)
            if t.kind in ("word", "name") and after.is_symbol("(") and t.word not in BEFORE_BRACKET
        }
        return Piece(
            place,
            place,
            (*(references or ()), *(r for p in parts for r in p.references)),
            frozenset(functions).union(*(p.functions for p in parts)),
            outer,
            references is not None and not strange and all(p.plain for p in parts),
        )

    def inside(self, place: Place) -> list[Token]:
        return [t for t in self.tokens if place.start <= t.start and t.end <= place.end]


def conjuncts(tokens: Sequence[Token]) -> list[list[Token]]:
    """The parts of a condition that AND joins; all of it if OR or CASE stand beside them."""
    if not tokens:
        return []
    parts: list[list[Token]] = [[]]
    cases, between = 0, False
    for depth, token in depths(tokens):
        if depth == 0 and token.word == "OR" and not cases:
            return [list(tokens)]
        cases += depth == 0 and token.word == "CASE"
        cases -= depth == 0 and token.word == "END"
        if depth == 0 and not cases and token.word == "BETWEEN":
            between = True
        if depth == 0 and not cases and token.word == "AND" and not between:
            parts.append([])
            continue
        if depth == 0 and not cases and token.word == "AND":
            between = False
        parts[-1].append(token)
    return parts


def _queries(tokens: Sequence[Token]) -> Iterator[Token]:
    """The queries in brackets that an expression holds, as spans."""
    for i, (token, after) in enumerate(pairwise(tokens)):
        if token.is_symbol("(") and after.word in ("SELECT", "WITH", "FROM", "VALUES", "TABLE"):
            end = closing(tokens, i)
            yield replace(token, end=tokens[end if end is not None else -1].end)


def _has_star(tokens: Sequence[Token]) -> bool:
    """Whether a star stands for columns: neither a product nor ``count(*)``."""
    for i, token in enumerate(tokens):
        if token.is_symbol("*") and (i == 0 or not ends_operand(tokens, i - 1)):
            counts = i >= 2 and tokens[i - 1].is_symbol("(") and tokens[i - 2].word == "COUNT"
            if not counts:
                return True
    return False


def _stand_ins(tokens: Sequence[Token], calls: Sequence[PredictCall]) -> Iterator[SqlToken]:
    """What sqlglot gets to read: calls and placeholders are single names and numbers."""
    for token in tokens:
        call = next((c for c in calls if c.place.start <= token.start < c.place.end), None)
        if call is None and token.kind == "placeholder":
            yield SqlToken(TokenType.NUMBER, "0", 1, 1, token.start, token.end - 1, [])
        elif call is None:
            raw = token.raw
            yield SqlToken(raw.token_type, raw.text, 1, 1, token.start, token.end - 1, [])
        elif token.start == call.place.start:
            yield SqlToken(TokenType.VAR, f"{STAND_IN}{token.start}", 1, 1, token.start, call.place.end - 1, [])


def _references(text: str, tokens: list[SqlToken]) -> tuple[Reference, ...] | None:
    """The columns that an expression names; None if it cannot be read, or names one with more than a qualifier."""
    select = SqlToken(TokenType.SELECT, "SELECT", 1, 1, tokens[0].start, tokens[0].start, [])
    try:
        [tree] = dialect().parser().parse([select, *tokens], text)
    except (ParseError, SqlglotError, RecursionError, ValueError):
        return None
    if not isinstance(tree, exp.Select):
        return None
    found = []
    for column in tree.find_all(exp.Column):
        parts = column.parts
        if len(parts) == 1 and str(parts[0].this).startswith(STAND_IN):
            continue
        if len(parts) > 2 or not all(isinstance(p, exp.Identifier) and "start" in p.meta for p in parts):
            return None
        place = Place(text, parts[0].meta["start"], parts[-1].meta["end"] + 1)
        found.append(Reference(parts[0].name if len(parts) == 2 else "", parts[-1].name, place))
    return tuple(found)
