"""The imports of one file: what is wrong with them, and the file with old paths replaced. No file is opened here.

Looked at are `import a.b`, `from a.b import c`, and uses of the dotted name after a plain `import a.b`. Strings are
left alone, and relative imports are a tree's own affair.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from functools import cached_property

import libcst as cst
from libcst.metadata import (
    ByteSpanPositionProvider,
    CodeSpan,
    MetadataWrapper,
    QualifiedName,
    QualifiedNameSource,
    ScopeProvider,
)

from scripts.imports.renames import OLD, is_old, longest, renamed

_FOREIGN = ("django", "rest_framework")
# A file without any of these has nothing that is wrong: most files need not be walked through.
_WORDS = tuple({name.rpartition(".")[2].encode() for name in (*OLD, *_FOREIGN)})
_ASK_THE_BACKEND = "ask the backend for it: shared/api_client.py"
_NO_ROW = "not in the table: see ARCHITECTURE.md for what has its job, or keep it among your own modules"


class Kind(Enum):
    """What may be wrong with an import, or with a whole file."""

    FOREIGN = auto()
    """It is Django's."""
    MOVED = auto()
    """It is an old path, and the table has its place."""
    UNMAPPED = auto()
    """It is an old path that the table cannot replace."""
    UNREAD = auto()
    """The file cannot be parsed, or libcst would change more of it than its imports."""


@dataclass(frozen=True)
class Wrong:
    """What is wrong in a line, counted from 1, and the remedy."""

    line: int
    what: str
    remedy: str
    kind: Kind


@dataclass(frozen=True)
class Looked:
    """What is wrong in a file, by line, and its bytes with every old path replaced that the table has."""

    wrong: list[Wrong]
    fixed: bytes


def look(source: bytes) -> Looked:
    """Look at a file's imports. A file that cannot be parsed has one thing that is wrong, and stays as it is."""
    try:
        module = cst.parse_module(source)
        return _File(module, source).look() if any(word in source for word in _WORDS) else Looked([], source)
    except cst.ParserSyntaxError as error:
        return _unread(source, error.editor_line, "cannot be parsed: a syntax error")
    except (SyntaxError, UnicodeError) as error:  # its encoding
        return _unread(source, 1, f"cannot be parsed: {error}")
    except RecursionError:
        return _unread(source, 1, "cannot be parsed: an expression is nested too deeply")


def _unread(source: bytes, line: int, what: str) -> Looked:
    return Looked([Wrong(line, what, "mend it by hand", Kind.UNREAD)], source)


_Dotted = cst.Name | cst.Attribute


def _parts(node: cst.BaseExpression) -> list[_Dotted]:
    """The dotted names that begin `node`, the shortest first, itself last; none if it is more than a dotted name."""
    parts: list[_Dotted] = []
    while isinstance(node, cst.Attribute):
        parts.append(node)
        node = node.value
    return [node, *reversed(parts)] if isinstance(node, cst.Name) else []


def _name(node: cst.BaseExpression) -> str:
    return ".".join(part.value if isinstance(part, cst.Name) else part.attr.value for part in _parts(node))


# What may hold an import. Expressions cannot, and are most of a tree.
_CLAUSES = (cst.Else, cst.ExceptHandler, cst.ExceptStarHandler, cst.Finally, cst.MatchCase)
_HOLDERS = (cst.Module, cst.BaseStatement, cst.BaseSuite, *_CLAUSES)


class _Imports(cst.CSTVisitor):
    """The imports of a file, at whatever depth."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[cst.ImportAlias] = []
        self.froms: list[cst.ImportFrom] = []

    def on_visit(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.Import):
            self.names += node.names
        elif isinstance(node, cst.ImportFrom):
            self.froms.append(node)
        return isinstance(node, _HOLDERS)


class _Uses(cst.CSTVisitor):
    """The names and the whole dotted names outside of a file's imports."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[_Dotted] = []

    def on_visit(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.Name | cst.Attribute) and _parts(node):
            self.names.append(node)
            return False
        return not isinstance(node, cst.Import | cst.ImportFrom)


class _File:
    """A file while it is looked at. Spans are of its text in UTF-8, whatever its own encoding."""

    def __init__(self, module: cst.Module, source: bytes) -> None:
        self._module = module
        self._source = source
        self._tree = MetadataWrapper(module, unsafe_skip_copy=True)  # fresh from the parser, so no node is there twice
        self._wrong: list[Wrong] = []
        self._edits: list[tuple[int, int, bytes]] = []

    def look(self) -> Looked:
        imports = _Imports()
        self._module.visit(imports)
        for statement in imports.froms:
            self._look_at_from(statement)
        self._look_at_imports(imports.names)
        if self._edits and self._module.bytes != self._source:
            return _unread(self._source, 1, "cannot be given back byte for byte")
        return Looked(sorted(dict.fromkeys(self._wrong), key=lambda one: one.line), self._fixed())

    def _fixed(self) -> bytes:
        if not self._edits:
            return self._source
        text = self._text
        for start, end, replacement in sorted(self._edits, reverse=True):
            text = text[:start] + replacement + text[end:]
        return text.decode().encode(self._module.encoding)

    @cached_property
    def _text(self) -> bytes:
        return self._module.code.encode()

    @cached_property
    def _spans(self) -> Mapping[cst.CSTNode, CodeSpan]:
        return self._tree.resolve(ByteSpanPositionProvider)

    def _look_at_from(self, statement: cst.ImportFrom) -> None:
        if statement.relative or statement.module is None:
            return
        package = _name(statement.module)
        if longest(package, _FOREIGN):
            self._tell(statement, package, _ASK_THE_BACKEND, Kind.FOREIGN)
        elif not isinstance(statement.names, cst.ImportStar):
            self._look_at_named(statement.module, package, list(statement.names))
        elif is_old(package):
            self._replace(statement.module, package, renamed(package))

    def _look_at_named(self, module: _Dotted, package: str, aliases: list[cst.ImportAlias]) -> None:
        """All names of one statement must move to one module: splitting statements is left to those who wrote them."""
        names = [f"{package}.{_name(alias.name)}" for alias in aliases]
        targets = [renamed(name) if is_old(name) else name for name in names]
        packages = {target.rpartition(".")[0] for target in targets if target}
        together = None not in targets and len(packages) == 1
        for alias, name, target in zip(aliases, names, targets, strict=True):
            if name == target:
                continue
            if not together:
                self._tell(module, name, f"{target}, in a statement of its own" if target else _NO_ROW, Kind.UNMAPPED)
                continue
            self._tell(module, name, str(target), Kind.MOVED)
            before, after = name.rpartition(".")[2], str(target).rpartition(".")[2]
            if before != after:
                self._write(alias.name, after if alias.asname else f"{after} as {before}")
        if together and packages != {package}:
            self._write(module, packages.pop())

    def _look_at_imports(self, aliases: list[cst.ImportAlias]) -> None:
        plain: list[tuple[cst.CSTNode, str]] = []
        for alias in aliases:
            name = _name(alias.name)
            if longest(name, _FOREIGN):
                self._tell(alias, name, _ASK_THE_BACKEND, Kind.FOREIGN)
            elif is_old(name) and alias.asname:
                self._replace(alias.name, name, renamed(name))
            elif is_old(name):
                plain.append((alias.name, name))
        if plain:
            self._look_at_plain(plain)

    def _look_at_plain(self, places: list[tuple[cst.CSTNode, str]]) -> None:
        """Plain imports and the uses of what they import, all or none of them.

        They bind their first word: none is replaced where it would be missed, or where the other is something else.
        """
        imported, hanging = {name for _, name in places}, ""
        for use in self._old_uses():
            prefix = longest(_name(use), imported)
            if prefix is None:
                hanging = f"once {_name(use)} is not used in this file"
                self._tell(use, _name(use), "use the whole name of a module in it", Kind.UNMAPPED)
            else:
                places.append((_parts(use)[prefix.count(".")], prefix))
        for node, name in places:
            target = renamed(name)
            first = target.partition(".")[0] if target else ""
            obstacle = hanging or (f"once {first} is nothing else in this file" if first in self._bound else "")
            if target and obstacle:
                self._tell(node, name, f"{target}, {obstacle}", Kind.UNMAPPED)
            else:
                self._replace(node, name, target)

    def _old_uses(self) -> Iterator[_Dotted]:
        uses = _Uses()
        self._module.visit(uses)
        scopes = self._tree.resolve(ScopeProvider)
        for node in uses.names:
            first, scope = _parts(node)[0], scopes.get(node)
            if scope is not None and is_old(_name(node)):
                imported = QualifiedName(_name(first), QualifiedNameSource.IMPORT)
                if imported in scope.get_qualified_names_for(first):
                    yield node

    @cached_property
    def _bound(self) -> set[str]:
        """Names that are bound here otherwise than by a plain import of them."""
        return {
            one.name
            for scope in set(self._tree.resolve(ScopeProvider).values())
            if scope is not None
            for one in scope.assignments
            if QualifiedName(one.name, QualifiedNameSource.IMPORT) not in one.get_qualified_names_for(one.name)
        }

    def _replace(self, node: cst.CSTNode, name: str, target: str | None) -> None:
        if target is None:
            self._tell(node, name, _NO_ROW, Kind.UNMAPPED)
            return
        self._tell(node, name, target, Kind.MOVED)
        self._write(node, target)

    def _tell(self, node: cst.CSTNode, what: str, remedy: str, kind: Kind) -> None:
        line = self._text.count(b"\n", 0, self._spans[node].start) + 1
        self._wrong.append(Wrong(line, what, remedy, kind))

    def _write(self, node: cst.CSTNode, text: str) -> None:
        span = self._spans[node]
        self._edits.append((span.start, span.start + span.length, text.encode()))
