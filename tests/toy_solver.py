"""A plugin of pytest that adds a solver to the table, as a contributor would: ``pytest -p tests.toy_solver``."""

from sb3_ncde.acting.tableaus import SOLVERS, Tableau

SOLVERS["ralston"] = Tableau((0.0, 2 / 3), ((), (2 / 3,)), (1 / 4, 3 / 4), order=2)
