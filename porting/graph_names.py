"""An old graph's names as this project's."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from models.families.family import Translation
from models.scopes import within
from models.weight_init import bookkeeping_kind, rename_scope
from porting.legacy_graph import LegacyGraph


@dataclass(frozen=True)
class Names:
    """The old graph's names as this project's: first what the user says, then what its family asks for."""

    rename: Mapping[str, str]
    translation: Translation

    def renamed(self, name: str) -> str:
        """A variable's name there → here."""
        return self.translation.rename(rename_scope(name, self.rename))

    def variables(self, graph: LegacyGraph) -> dict[str, str]:
        """{name here: name there} of the graph's variables that belong to the network."""
        return {
            self.renamed(name): name
            for name in graph.variables
            if not bookkeeping_kind(name) and not self.translation.left_out(rename_scope(name, self.rename))
        }

    def scopes(self, graph: LegacyGraph) -> dict[str, str]:
        """{scope here: scope there} of whole parts of the network: {"aspp0": "aspp/conv_1x1"}."""
        found = {new: old for old, new in self.rename.items() if new and not holds(old, graph.variables)}
        for new, old in self.variables(graph).items():
            here, there = new.split("/")[:-1], old.split("/")[:-1]
            while len(here) > 1 and len(there) > 1 and here[-1] == there[-1]:
                here.pop()
                there.pop()
            if here and there:
                found.setdefault("/".join(here), "/".join(there))
        return found


def holds(scope: str, names: Iterable[str]) -> bool:
    """Whether one of `names` lies in `scope`."""
    return any(within(name, scope) for name in names)
