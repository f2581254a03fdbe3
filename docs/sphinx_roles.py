"""An extension of griffe, which reads docstrings for the site: what is Sphinx's in them becomes Markdown."""

import re
from typing import Any

import griffe


class SphinxRoles(griffe.Extension):
    """Turns ``:class:`name``` into code, and ``::`` before code into a colon."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Take in a module, a class or a function.

        :param obj: with or without a docstring
        :param kwargs: the loader, which is not needed
        """
        if obj.docstring is not None:
            text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", obj.docstring.value)
            obj.docstring.value = re.sub(r" ?::(?=\n\n)", ":", text)
